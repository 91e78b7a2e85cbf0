//! What a walk along the timeline stops at.

use std::collections::BTreeMap;

use colinux_driver::debug::{Arrival, DebugStop, Watch, WatchHit, WatchSpace};
use colinux_driver::machine::Machine;
use colinux_driver::tick::Tick;

use crate::condition::Condition;
use crate::timeline::Mark;

/// Kinds of access to watch for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// Writes that change the content.
    Changes,
    /// All writes.
    Writes,
    /// Reads.
    Reads,
    /// Both.
    Accesses,
}

/// The breakpoints and watchpoints of a timeline. Each may be set several times, and counts until it
/// has been removed as often.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stops {
    /// Guest-virtual addresses of instructions.
    pub breakpoints: Vec<u64>,
    /// Watched ranges.
    pub watches: Vec<Watch>,
    /// Conditions by address: a breakpoint there counts when one of them holds.
    pub conditions: BTreeMap<u64, Vec<Condition>>,
}

/// A range to watch.
pub fn watch(space: WatchSpace, start: u64, len: u64, what: Watched) -> Watch {
    Watch {
        space,
        start,
        len,
        read: matches!(what, Watched::Reads | Watched::Accesses),
        write: !matches!(what, Watched::Reads),
        changes_only: what == Watched::Changes,
    }
}

/// A range of guest-virtual addresses to watch, in whatever address space.
pub fn virtual_watch(start: u64, len: u64, what: Watched) -> Watch {
    watch(WatchSpace::Virtual, start, len, what)
}

fn remove<T: PartialEq>(list: &mut Vec<T>, item: &T) -> bool {
    match list.iter().position(|known| known == item) {
        Some(at) => {
            list.remove(at);
            true
        }
        None => false,
    }
}

impl Stops {
    /// Whether the breakpoint the machine stands at counts.
    pub(crate) fn holds(&self, machine: &mut Machine) -> bool {
        match self.conditions.get(&machine.core().cpu.linear_rip()) {
            Some(any) if !any.is_empty() => any.iter().any(|one| one.holds(machine)),
            _ => true,
        }
    }

    /// Removes one breakpoint; says whether there was one.
    pub fn remove_breakpoint(&mut self, address: u64) -> bool {
        remove(&mut self.breakpoints, &address)
    }

    /// Removes one watch; says whether there was one.
    pub fn remove_watch(&mut self, watch: &Watch) -> bool {
        remove(&mut self.watches, watch)
    }
}

/// Why a walk ended where it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// At the place asked for.
    Arrived,
    /// Before an instruction with a breakpoint.
    Breakpoint,
    /// Beside an access to a watched range: after it going forward, before it going back.
    Watch(WatchHit),
    /// At the beginning of the recording.
    Start,
    /// At its end.
    End,
    /// Wherever it was when it was interrupted.
    Interrupted,
}

impl From<DebugStop> for Halt {
    fn from(stop: DebugStop) -> Self {
        match stop {
            DebugStop::Arrived => Halt::Arrived,
            DebugStop::Breakpoint => Halt::Breakpoint,
            DebugStop::Watch(hit) => Halt::Watch(hit),
        }
    }
}

impl From<Arrival> for Mark {
    fn from(arrival: Arrival) -> Self {
        Mark {
            tick: arrival.tick.0,
            attempt: arrival.attempt,
        }
    }
}

impl From<Mark> for Arrival {
    fn from(mark: Mark) -> Self {
        Arrival {
            tick: Tick(mark.tick),
            attempt: mark.attempt,
        }
    }
}
