//! The lanes of the timeline: how much of each facility, and who ran, in each column.
//!
//! A chunk that lies within one column, or over the border of two, is counted from its header; one
//! that spans more is read. So any stretch of any recording costs about as many chunks as it has
//! columns at most, and the whole of a long one none.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use colinux_tracer::{ChunkKind, Event, EventKind, EventMask, Facility, Reader};

use super::{News, Ticket};
use crate::row::Who;

/// Task switches that are followed for the lanes of tasks; beyond, one has to zoom in.
const SWITCHES_MOST: u64 = 4_000_000;
/// Flags that are shown of a kind.
const FLAGS_MOST: usize = 1000;
/// Events between two looks at the ticket.
const LOOK_EVERY: usize = 4096;

/// A stretch of ticks in columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The first tick.
    pub from: u64,
    /// The tick after the last.
    pub to: u64,
    /// Columns.
    pub columns: usize,
}

impl Stretch {
    /// Ticks in all.
    pub const fn ticks(&self) -> u64 {
        self.to.saturating_sub(self.from)
    }

    /// The column of a tick inside.
    pub fn column(&self, tick: u64) -> Option<usize> {
        if !(self.from..self.to).contains(&tick) {
            return None;
        }
        let at = u128::from(tick - self.from) * self.columns as u128 / u128::from(self.ticks());
        Some(at as usize)
    }

    /// The first tick of a column.
    pub fn tick(&self, column: usize) -> u64 {
        let at = u128::from(self.ticks()) * column as u128;
        // Rounded up, so that the tick lies in the column.
        let at = at.div_ceil(self.columns.max(1) as u128);
        self.from.saturating_add(at as u64)
    }
}

/// A lane of a facility.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FacilityLane {
    /// Which.
    pub facility: Facility,
    /// Events in each column.
    pub counts: Vec<u64>,
}

/// A lane of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskLane {
    /// Who.
    pub who: Who,
    /// Ticks that it ran in all of the stretch.
    pub ticks: u64,
    /// Of each column, how much it had: 0 to 255.
    pub shares: Vec<u8>,
}

/// What is drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lanes {
    /// Where.
    pub stretch: Stretch,
    /// One for each facility that has events anywhere in the recording.
    pub facilities: Vec<FacilityLane>,
    /// The busiest tasks of the stretch, the busiest first.
    pub tasks: Vec<TaskLane>,
    /// Why there are no tasks.
    pub no_tasks: Option<&'static str>,
}

/// Something to see from afar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// Where.
    pub tick: u64,
    /// What kind of event, or none for a checkpoint.
    pub kind: Option<EventKind>,
    /// What it says.
    pub text: String,
}

/// A job.
#[derive(Debug)]
pub enum Job {
    /// Draw a stretch.
    Draw {
        /// Of which recording.
        reader: Reader,
        /// Which stretch.
        stretch: Stretch,
        /// So many tasks.
        tasks: usize,
        /// Its right to go on.
        ticket: Ticket,
    },
    /// Find what is to be flagged.
    Flags(Reader),
}

/// Does one job after the other.
pub fn serve(inbox: Receiver<Job>, news: Sender<News>) {
    for job in inbox {
        let answer = match job {
            Job::Flags(reader) => Some(News::Flags(flags(&reader))),
            Job::Draw {
                reader,
                stretch,
                tasks,
                ticket,
            } => draw(&reader, stretch, tasks, &ticket).map(|lanes| News::Lanes(Arc::new(lanes))),
        };
        if let Some(answer) = answer
            && news.send(answer).is_err()
        {
            return;
        }
    }
}

/// Oopses, panics, marks, the end, checkpoints.
fn flags(reader: &Reader) -> Vec<Flag> {
    const KINDS: [EventKind; 4] = [
        EventKind::Oops,
        EventKind::Panic,
        EventKind::Mark,
        EventKind::GuestShutdown,
    ];
    let mut found: Vec<Flag> = reader
        .events()
        .with_kinds(EventMask::of(&KINDS))
        .filter_map(Result::ok)
        .take(FLAGS_MOST)
        .map(|row| Flag {
            tick: row.tick,
            kind: Some(row.event.kind()),
            text: match &row.event {
                Event::Oops { text, .. } | Event::Panic { text, .. } | Event::Mark { text, .. } => {
                    text.clone()
                }
                Event::GuestShutdown { kind, .. } => kind.to_string(),
                _ => String::new(),
            },
        })
        .collect();
    for kept in reader
        .checkpoints()
        .unwrap_or_default()
        .iter()
        .take(FLAGS_MOST)
    {
        found.push(Flag {
            tick: kept.tick,
            kind: None,
            text: format!("cp:{}", kept.id),
        });
    }
    found.sort_by_key(|flag| flag.tick);
    found
}

/// The lanes of a stretch; `None` when it was called off.
pub fn draw(reader: &Reader, stretch: Stretch, tasks: usize, ticket: &Ticket) -> Option<Lanes> {
    let mut lanes: Vec<FacilityLane> = Vec::new();
    // Facilities by the codes that chunks count.
    let mut of_code: [Option<usize>; 256] = [None; 256];
    let chunks = reader.chunks().iter();
    let chunks = chunks.filter(|entry| entry.header.kind == ChunkKind::Events);
    let mut near = Vec::new();
    for entry in chunks {
        for (code, _) in reader.chunk_counts(entry) {
            let slot = &mut of_code[usize::from(code)];
            let kind = EventKind::from_code(code);
            if let (None, Some(kind)) = (*slot, kind) {
                let facility = kind.facility();
                let known = lanes.iter().position(|lane| lane.facility == facility);
                *slot = Some(known.unwrap_or_else(|| {
                    lanes.push(FacilityLane {
                        facility,
                        counts: vec![0; stretch.columns],
                    });
                    lanes.len() - 1
                }));
            }
        }
        let header = &entry.header;
        if header.last_tick < stretch.from || header.first_tick >= stretch.to {
            continue;
        }
        let ends = (
            stretch.column(header.first_tick),
            stretch.column(header.last_tick),
        );
        match ends {
            (Some(a), Some(b)) if a == b => {
                for (code, count) in reader.chunk_counts(entry) {
                    if let Some(lane) = of_code[usize::from(code)] {
                        lanes[lane].counts[a] += u64::from(count);
                    }
                }
            }
            // Over the border of two: by how much of it is on either side.
            (Some(a), Some(b)) if a + 1 == b => {
                let border = stretch.tick(b);
                let ticks = u128::from(header.last_tick - header.first_tick) + 1;
                let before = u128::from(border.saturating_sub(header.first_tick));
                for (code, count) in reader.chunk_counts(entry) {
                    if let Some(lane) = of_code[usize::from(code)] {
                        let first = u128::from(count) * before / ticks;
                        let first = u32::try_from(first).unwrap_or(count).min(count);
                        lanes[lane].counts[a] += u64::from(first);
                        lanes[lane].counts[b] += u64::from(count - first);
                    }
                }
            }
            _ => near.push((
                header.first_tick.max(stretch.from),
                header.last_tick.min(stretch.to.saturating_sub(1)),
            )),
        }
    }
    near.sort_unstable();
    // Chunks of several vCPUs overlap: each stretch is read once.
    let mut read_to = None;
    for (from, to) in near {
        let from = read_to.map_or(from, |after: u64| from.max(after));
        if from > to {
            continue;
        }
        read_to = Some(to + 1);
        for (n, row) in reader.events().with_ticks(from..=to).enumerate() {
            if n.is_multiple_of(LOOK_EVERY) && !ticket.is_good() {
                return None;
            }
            let Ok(row) = row else { continue };
            let lane = of_code[usize::from(row.event.kind().code())];
            if let (Some(lane), Some(column)) = (lane, stretch.column(row.tick)) {
                lanes[lane].counts[column] += 1;
            }
        }
    }
    lanes.sort_by_key(|lane| lane.facility);
    let (tasks, no_tasks) = who_ran(reader, stretch, tasks, ticket)?;
    Some(Lanes {
        stretch,
        facilities: lanes,
        tasks,
        no_tasks,
    })
}

type Tasks = (Vec<TaskLane>, Option<&'static str>);

/// Who ran when, by task switches and execs, which change names.
fn who_ran(reader: &Reader, stretch: Stretch, most: usize, ticket: &Ticket) -> Option<Tasks> {
    let code = EventKind::TaskSwitch.code();
    let inside = |entry: &&colinux_tracer::ChunkEntry| {
        entry.header.kind == ChunkKind::Events
            && entry.header.last_tick >= stretch.from
            && entry.header.first_tick < stretch.to
    };
    let switches: u64 = reader
        .chunks()
        .iter()
        .filter(inside)
        .flat_map(|entry| reader.chunk_counts(entry))
        .filter(|(counted, _)| *counted == code)
        .map(|(_, count)| u64::from(count))
        .sum();
    if switches > SWITCHES_MOST {
        return Some((Vec::new(), Some("zoom in to see who ran")));
    }
    let mut cursor = reader.events().with_kinds(Who::changes());
    let _ = cursor.seek_tick(stretch.from);
    let before = cursor.clone().prev().and_then(Result::ok);
    let mut running = before.and_then(|row| Who::after(&row.event));
    let mut since = stretch.from;
    let mut ran: HashMap<Who, (u64, Vec<u64>)> = HashMap::new();
    let mut add = |who: Option<Who>, from: u64, to: u64| {
        let Some(who) = who else { return };
        let (total, columns) = ran
            .entry(who)
            .or_insert_with(|| (0, vec![0; stretch.columns]));
        *total += to.saturating_sub(from);
        let mut at = from;
        while at < to {
            let Some(column) = stretch.column(at) else {
                break;
            };
            let end = stretch.tick(column + 1).max(at + 1).min(to);
            columns[column] += end - at;
            at = end;
        }
    };
    for (n, row) in cursor.enumerate() {
        if n.is_multiple_of(LOOK_EVERY) && !ticket.is_good() {
            return None;
        }
        let Ok(row) = row else { continue };
        let Some(comes) = Who::after(&row.event) else {
            continue;
        };
        let leaves = Who::of_switch(&row.event).map(|(leaves, _)| leaves);
        let until = row.tick.min(stretch.to);
        add(running.or(leaves), since, until);
        (running, since) = (Some(comes), until);
        if row.tick >= stretch.to {
            break;
        }
    }
    if running.is_none() {
        return Some((Vec::new(), Some("the recording has no task switches")));
    }
    add(running, since, stretch.to);
    let mut lanes: Vec<TaskLane> = ran
        .into_iter()
        .map(|(who, (ticks, columns))| TaskLane {
            who,
            ticks,
            shares: columns
                .iter()
                .enumerate()
                .map(|(n, ran)| {
                    let whole = stretch.tick(n + 1).saturating_sub(stretch.tick(n)).max(1);
                    // What ran at all is seen.
                    let share = u128::from(*ran) * 255 / u128::from(whole);
                    u8::try_from(share).unwrap_or(255).max(u8::from(*ran > 0))
                })
                .collect(),
        })
        .collect();
    lanes.sort_by(|a, b| (b.ticks, a.who).cmp(&(a.ticks, b.who)));
    lanes.truncate(most);
    Some((lanes, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_and_ticks_agree() {
        for (from, to, columns) in [
            (0, 100, 10),
            (7, 1_000_003, 80),
            (5, 8, 80),
            (0, u64::MAX, 3),
        ] {
            let stretch = Stretch { from, to, columns };
            for column in 0..columns {
                let tick = stretch.tick(column);
                if tick < to && stretch.tick(column + 1) > tick {
                    assert_eq!(stretch.column(tick), Some(column), "{stretch:?} {column}");
                }
            }
            assert_eq!(stretch.column(from), Some(0));
            assert_eq!(stretch.column(to), None);
        }
    }
}
