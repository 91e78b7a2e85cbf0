//! Who runs and what time it is at an event, as far as the recording itself says.
//!
//! Virtual time goes on with the ticks, and jumps when an idle guest is woken: to the deadline of the
//! timer whose interrupt comes then, or to where an input says. So it follows from events of the
//! facilities `timer` and `irq`; without them, it is not known without a replay.

use std::collections::BTreeMap;

use colinux_tracer::{
    Comm, Event, EventKind, EventMask, EventRow, Input, IrqDirection, IrqSource, Reader, TraceError,
};

/// The events it follows from.
const KINDS: &[EventKind] = &[
    EventKind::TaskSwitch,
    EventKind::TaskExec,
    EventKind::TimerProgram,
    EventKind::IrqForward,
];

/// What is known at a place in the recording.
#[derive(Clone, Debug)]
pub struct Scene {
    /// Wake-ups of the idle guest that were inputs, by tick, the next one last.
    warps: Vec<(u64, u64)>,
    ns_per_tick: u64,
    /// Virtual time is this and the ticks; `None` if it is not known.
    offset: Option<u64>,
    deadline: u64,
    /// The task of each vCPU: thread and name.
    tasks: BTreeMap<u16, (u32, Comm)>,
}

impl Scene {
    /// The scene before the first event.
    pub fn first(reader: &Reader) -> Result<Self, TraceError> {
        let manifest = reader.manifest()?;
        let level = |facility: &str| manifest.levels.get(facility).copied().unwrap_or(0);
        let is_known = level("timer") > 0 && level("irq") > 0;
        let inputs = reader.inputs()?.into_iter().rev();
        let warps = inputs.filter_map(|(tick, input)| match input {
            Input::IdleWarp { ns } => Some((tick, ns)),
            _ => None,
        });
        Ok(Self {
            warps: warps.collect(),
            ns_per_tick: manifest.ns_per_tick.into(),
            offset: is_known.then_some(0),
            deadline: 0,
            tasks: BTreeMap::new(),
        })
    }

    /// The scene before the first event at `tick` or later.
    pub fn at(reader: &Reader, tick: u64) -> Result<Self, TraceError> {
        let mut scene = Self::first(reader)?;
        if let Some(last) = tick.checked_sub(1) {
            let before = reader.events().with_kinds(Self::with(EventMask::NONE));
            for row in before.with_ticks(0..=last) {
                scene.see(&row?);
            }
        }
        Ok(scene)
    }

    /// The first tick at which virtual time is `ns` or more; `None` if it is not known, or never is.
    pub fn tick_at(reader: &Reader, ns: u64) -> Result<Option<u64>, TraceError> {
        let mut scene = Self::first(reader)?;
        let rows = reader.events().with_kinds(Self::with(EventMask::NONE));
        let last = reader.reach();
        for row in rows {
            let row = row?;
            let before = scene.offset;
            scene.see(&row);
            if scene.time(row.tick).is_some_and(|time| time >= ns) {
                let passed = before.map(|offset| ns.saturating_sub(offset));
                let tick = passed.map(|passed| passed.div_ceil(scene.ns_per_tick.max(1)));
                return Ok(tick.map(|tick| tick.min(row.tick)));
            }
        }
        let passed = scene.offset.map(|offset| ns.saturating_sub(offset));
        let tick = passed.map(|passed| passed.div_ceil(scene.ns_per_tick.max(1)));
        Ok(tick.filter(|tick| *tick <= last))
    }

    /// A mask with the events that it follows from.
    pub fn with(mut kinds: EventMask) -> EventMask {
        KINDS.iter().for_each(|kind| kinds.insert(*kind));
        kinds
    }

    /// Takes in an event. What it changes is so from the next one on.
    pub fn see(&mut self, row: &EventRow) {
        while let Some((tick, ns)) = self
            .warps
            .last()
            .copied()
            .filter(|(tick, _)| *tick < row.tick)
        {
            self.offset = self.offset.map(|_| ns.wrapping_sub(self.ticked(tick)));
            self.warps.pop();
        }
        match &row.event {
            Event::TaskSwitch {
                next_tid,
                next_comm,
                ..
            } => drop(self.tasks.insert(row.vcpu, (*next_tid, *next_comm))),
            Event::TaskExec { tid, comm, .. } => drop(self.tasks.insert(row.vcpu, (*tid, *comm))),
            Event::TimerProgram { deadline } => self.deadline = *deadline,
            Event::IrqForward {
                direction: IrqDirection::ToGuest,
                source: IrqSource::Timer,
                ..
            } => {
                // It comes at its deadline, which a guest that slept reaches in one step.
                let passed = self.ticked(row.tick);
                let slept = self.deadline.checked_sub(passed);
                self.offset = self
                    .offset
                    .map(|offset| slept.map_or(offset, |to| to.max(offset)));
            }
            _ => {}
        }
    }

    fn ticked(&self, tick: u64) -> u64 {
        tick.wrapping_mul(self.ns_per_tick)
    }

    /// Virtual time at a tick, in nanoseconds since power-on, if it is known.
    pub fn time(&self, tick: u64) -> Option<u64> {
        Some(self.offset?.wrapping_add(self.ticked(tick)))
    }

    /// The thread that runs on a vCPU, and its name; nothing before the first switch.
    pub fn current(&self, vcpu: u16) -> Option<(u32, Comm)> {
        self.tasks.get(&vcpu).copied()
    }

    /// The task that runs on a vCPU, as `comm-tid`; before the first switch, nothing is known.
    pub fn task(&self, vcpu: u16) -> String {
        match self.tasks.get(&vcpu) {
            Some((tid, comm)) => format!("{comm}-{tid}"),
            None => "-".to_owned(),
        }
    }
}
