//! Comparing a replay with its recording, and saying precisely where they first disagree.

use std::fmt;

use colinux_tracer::{Event, StateDigest};

/// What a comparison of everything found.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// The replay is the recording.
    Same(Compared),
    /// It is not.
    Diverged(Box<Divergence>),
}

/// How much was compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// The last tick.
    pub tick: u64,
    /// Events.
    pub events: u64,
    /// Digests of the whole state, the last one included.
    pub digests: u64,
    /// The recording was cut off; it was compared up to the cut.
    pub cut: bool,
}

/// The first disagreement.
#[derive(Clone, Debug)]
pub struct Divergence {
    /// Where.
    pub tick: u64,
    /// What differs.
    pub what: Difference,
    /// The events just before, on which both agree.
    pub before: Vec<(u64, Event)>,
    /// The instruction the replay was at.
    pub rip: u64,
    /// The kernel function that instruction is in, if it is known.
    pub function: Option<String>,
    /// The last tick at which the whole state was the same.
    pub same_at: u64,
    /// What of the state differs at the next checkpoint of the recording, if it was reached.
    pub state: Option<StateDifference>,
}

/// What differs between two states of the machine at one tick.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateDifference {
    /// Where.
    pub tick: u64,
    /// Registers: name, recorded value, replayed value.
    pub registers: Vec<(&'static str, u64, u64)>,
    /// Pseudo-physical addresses of pages, the first few.
    pub pages: Vec<u64>,
    /// How many pages differ.
    pub page_count: usize,
}

/// A kind of disagreement.
#[derive(Clone, Debug, PartialEq)]
pub enum Difference {
    /// Another event than the recorded one.
    Event {
        /// In the recording; none if it has no more.
        expected: Option<(u64, Event)>,
        /// In the replay; none if it ended.
        actual: Option<(u64, Event)>,
    },
    /// The state at the end has another digest.
    FinalDigest {
        /// In the recording.
        expected: StateDigest,
        /// In the replay.
        actual: StateDigest,
    },
    /// The state at a checkpoint has another digest.
    Digest {
        /// In the recording.
        expected: StateDigest,
        /// In the replay.
        actual: StateDigest,
    },
    /// The end came at another tick.
    FinalTick {
        /// In the recording.
        expected: u64,
        /// In the replay.
        actual: u64,
    },
    /// The replay could not go on.
    Stuck(String),
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the replay diverges at tick @{}, rip {:#x}",
            self.tick, self.rip
        )?;
        match &self.function {
            Some(function) => writeln!(f, " in {function}")?,
            None => writeln!(f)?,
        }
        let side =
            |f: &mut fmt::Formatter<'_>, name: &str, event: &Option<(u64, Event)>| match event {
                Some((tick, event)) => writeln!(f, "  {name} @{tick} {event:?}"),
                None => writeln!(f, "  {name} nothing more"),
            };
        match &self.what {
            Difference::Event { expected, actual } => {
                side(f, "expected", expected)?;
                side(f, "actual  ", actual)?;
            }
            Difference::FinalDigest { expected, actual } => {
                writeln!(f, "  expected final state {expected}")?;
                writeln!(f, "  actual   final state {actual}")?;
            }
            Difference::Digest { expected, actual } => {
                writeln!(f, "  expected state {expected}")?;
                writeln!(f, "  actual   state {actual}")?;
            }
            Difference::FinalTick { expected, actual } => {
                writeln!(f, "  expected the end at @{expected}")?;
                writeln!(f, "  actual   end at @{actual}")?;
            }
            Difference::Stuck(why) => writeln!(f, "  {why}")?,
        }
        if !self.before.is_empty() {
            writeln!(f, "the events before:")?;
            for (tick, event) in &self.before {
                writeln!(f, "  @{tick} {event:?}")?;
            }
        }
        writeln!(f, "the whole state was the same at @{}", self.same_at)?;
        let Some(state) = &self.state else {
            return Ok(());
        };
        writeln!(f, "what differs at the checkpoint at @{}:", state.tick)?;
        for (name, expected, actual) in &state.registers {
            writeln!(
                f,
                "  {name:<6} expected {expected:#018x}, actual {actual:#018x}"
            )?;
        }
        for gpa in &state.pages {
            writeln!(f, "  the page at {gpa:#x}")?;
        }
        match state.page_count - state.pages.len() {
            0 => Ok(()),
            more => writeln!(f, "  and {more} more pages"),
        }
    }
}
