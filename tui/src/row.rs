//! Rows of the event list: an event, and the task that was running.

use colinux_tracer::{Comm, Cursor, Event, EventKind, EventMask, EventRow, Reader};

use crate::describe;
use crate::names::Names;
use crate::text::{fit, pad};

/// Who was running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Who {
    /// Its thread number.
    pub tid: u32,
    /// Its name.
    pub comm: Comm,
}

impl Who {
    /// `comm-tid`.
    pub fn label(&self) -> String {
        format!("{}-{}", self.comm, self.tid)
    }

    /// The same in so many columns: what is cut off is of the name, since the number tells tasks of
    /// one name apart.
    pub fn label_in(&self, columns: usize, mark: &str) -> String {
        let number = format!("-{}", self.tid);
        let room = columns.saturating_sub(number.len());
        let name = fit(&self.comm.to_text(), room, mark);
        pad(&format!("{name}{number}"), columns, mark)
    }

    /// Who leaves in a task switch, and who comes.
    pub fn of_switch(event: &Event) -> Option<(Self, Self)> {
        match event {
            Event::TaskSwitch {
                prev_tid,
                prev_comm,
                next_tid,
                next_comm,
                ..
            } => {
                let leaves = Who {
                    tid: *prev_tid,
                    comm: *prev_comm,
                };
                let comes = Who {
                    tid: *next_tid,
                    comm: *next_comm,
                };
                Some((leaves, comes))
            }
            _ => None,
        }
    }

    /// Who runs after an event that changes it: another task, or the same by another name.
    pub fn after(event: &Event) -> Option<Self> {
        match event {
            Event::TaskExec { tid, comm, .. } => Some(Who {
                tid: *tid,
                comm: *comm,
            }),
            other => Self::of_switch(other).map(|(_, comes)| comes),
        }
    }

    /// The events that change who runs.
    pub fn changes() -> EventMask {
        EventMask::of(&[EventKind::TaskSwitch, EventKind::TaskExec])
    }
}

/// An event as the list has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its number in the recording, from 0.
    pub number: u64,
    /// Its tick.
    pub tick: u64,
    /// What happened.
    pub event: Event,
    /// Who was running, if the recording says so.
    pub who: Option<Who>,
}

impl Row {
    /// With the task that was running.
    pub fn new(row: EventRow, who: Option<Who>) -> Self {
        Row {
            number: row.number,
            tick: row.tick,
            event: row.event,
            who,
        }
    }

    /// What a search looks in: everything that the list shows but the tick.
    pub fn text(&self, names: &Names) -> String {
        let who = self.who.map(|w| w.label()).unwrap_or_default();
        let details = describe::details(&self.event, names);
        format!("{who} {} {details}", self.event.kind().name())
    }
}

/// Finds out who was running at events that are asked for in order.
#[derive(Clone, Debug)]
pub struct Runners {
    changes: Cursor,
    /// The stretch of event numbers for which the answer is known, and the answer.
    known: Option<(u64, u64, Option<Who>)>,
}

impl Runners {
    /// Of a recording.
    pub fn new(reader: &Reader) -> Self {
        Runners {
            changes: reader.events().with_kinds(Who::changes()),
            known: None,
        }
    }

    /// Who was running when event `number` happened; of a task switch, who leaves, and of an exec, who it was
    /// before.
    pub fn at(&mut self, number: u64) -> Option<Who> {
        if let Some((from, to, who)) = self.known
            && (from..=to).contains(&number)
        {
            return who;
        }
        let mut ahead = self.changes.clone();
        ahead.seek_number(number).ok()?;
        let mut behind = ahead.clone();
        let before = behind.prev().and_then(Result::ok);
        let after = ahead.next().and_then(Result::ok);
        // Who leaves in a switch has the name that it ran by, which it may have given itself.
        let left = after.as_ref().and_then(|row| Who::of_switch(&row.event));
        let came = before.as_ref().and_then(|row| Who::after(&row.event));
        let who = left.map(|(leaves, _)| leaves).or(came);
        let from = before.map_or(0, |row| row.number + 1);
        let to = after.map_or(u64::MAX, |row| row.number);
        self.known = Some((from, to, who));
        who
    }
}
