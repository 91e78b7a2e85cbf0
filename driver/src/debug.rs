//! Stops for a debugger: breakpoints, watchpoints, and exact places in execution.
//!
//! None of it is state of the machine. A breakpoint is found before its instruction is tried; an
//! access to a watched range is noted by the slow path of memory accesses, since pages with a watch
//! are never put into the first layer of the TLB. Without stops, both cost nothing.

use serde::{Deserialize, Serialize};

use crate::core::Core;
use crate::mem::addr::PAGE_SIZE;
use crate::tick::Tick;

/// The moment before an instruction is tried.
///
/// The tick alone does not name it: an instruction that faults takes the vCPU to its handler without
/// a tick, and a long repetition is begun again several times.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Arrival {
    /// Instructions retired so far.
    pub tick: Tick,
    /// Tries at this tick that have come to nothing.
    pub attempt: u32,
}

/// Which addresses a watch is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchSpace {
    /// Guest-virtual, in whatever address space.
    Virtual,
    /// Pseudo-physical.
    Physical,
}

/// A range whose accesses stop the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Which addresses.
    pub space: WatchSpace,
    /// The first byte.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// Reads count.
    pub read: bool,
    /// Writes count.
    pub write: bool,
    /// A write of what is already there does not count.
    pub changes_only: bool,
}

/// An access to a watched range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchHit {
    /// The watch.
    pub watch: Watch,
    /// The first watched byte that was accessed.
    pub address: u64,
    /// A write.
    pub write: bool,
    /// The instruction.
    pub rip: u64,
    /// The moment before that instruction.
    pub during: Arrival,
}

/// Where and why the machine stopped for its debugger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DebugStop {
    /// The arrival that was asked for, or the first after it.
    Arrived,
    /// The next instruction has a breakpoint.
    Breakpoint,
    /// The last instruction accessed a watched range.
    Watch(WatchHit),
}

/// What a debugger wants to be stopped for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DebugPlan {
    /// Guest-virtual addresses of instructions.
    pub breakpoints: Vec<u64>,
    /// Watched ranges.
    pub watches: Vec<Watch>,
    /// Breakpoints count only at arrivals after this one.
    pub after: Option<Arrival>,
    /// Stop at the first arrival that is not before this one.
    pub from: Option<Arrival>,
}

/// The plan as the machine follows it.
#[derive(Debug, Default)]
pub(crate) struct Stops {
    /// There is something to look for.
    pub(crate) armed: bool,
    /// Every arrival has to be looked at, which only tier 0 allows.
    pub(crate) exact: bool,
    /// In order.
    breakpoints: Vec<u64>,
    after: Option<Arrival>,
    from: Option<Arrival>,
    found: Option<DebugStop>,
    /// Tries that came to nothing, and at which tick.
    stalls: Arrival,
}

/// The watched ranges, as memory accesses see them.
#[derive(Debug)]
pub(crate) struct Watches {
    list: Vec<Watch>,
    hit: Option<WatchHit>,
}

impl Stops {
    /// Follows another plan.
    pub(crate) fn follow(&mut self, plan: &DebugPlan, core: &mut Core) {
        self.breakpoints.clone_from(&plan.breakpoints);
        self.breakpoints.sort_unstable();
        self.after = plan.after;
        self.from = plan.from;
        self.found = None;
        self.armed =
            !plan.breakpoints.is_empty() || !plan.watches.is_empty() || plan.from.is_some();
        self.exact = plan.from.is_some();
        if plan.watches.is_empty() {
            core.watches = None;
            return;
        }
        match &mut core.watches {
            // An access that has been noted is still to be reported.
            Some(watches) if watches.list == plan.watches => {}
            other => {
                *other = Some(Box::new(Watches {
                    list: plan.watches.clone(),
                    hit: None,
                }));
                core.tlb.flush_fast();
            }
        }
    }

    /// Why the machine stopped, once.
    pub(crate) fn take(&mut self) -> Option<DebugStop> {
        self.found.take()
    }

    /// A try at this tick came to nothing.
    pub(crate) fn stalled(&mut self, tick: Tick) {
        let attempt = if self.stalls.tick == tick {
            self.stalls.attempt + 1
        } else {
            1
        };
        self.stalls = Arrival { tick, attempt };
    }

    /// The last tick with tries that came to nothing, and how many.
    pub(crate) fn stalls(&self) -> Arrival {
        self.stalls
    }

    /// The machine has been put elsewhere.
    pub(crate) fn moved(&mut self, to: Arrival, core: &mut Core) {
        if let Some(watches) = &mut core.watches {
            watches.hit = None;
        }
        self.stalls = to;
        self.found = None;
    }

    /// The current arrival, at `tick`.
    pub(crate) fn arrival(&self, tick: Tick) -> Arrival {
        let attempt = if self.stalls.tick == tick {
            self.stalls.attempt
        } else {
            0
        };
        Arrival { tick, attempt }
    }

    /// Before an instruction is tried: whether to stop instead.
    #[cold]
    pub(crate) fn arrive(&mut self, core: &mut Core) -> bool {
        let now = self.arrival(core.tick);
        let rip = core.cpu.rip;
        let found = if let Some(hit) = core.watches.as_mut().and_then(|w| w.hit.take()) {
            Some(DebugStop::Watch(WatchHit {
                during: self.during(hit.during.tick, now),
                ..hit
            }))
        } else if self.from.is_some_and(|from| now >= from) {
            Some(DebugStop::Arrived)
        } else if self.after.is_none_or(|after| now > after)
            && self.breakpoints.binary_search(&rip).is_ok()
            // An instruction that is not there yet will be arrived at again.
            && core.probe(rip).is_some()
        {
            Some(DebugStop::Breakpoint)
        } else {
            None
        };
        self.found = found;
        found.is_some()
    }

    /// The arrival of the instruction that made an access at `tick`, seen from the next arrival.
    fn during(&self, tick: Tick, now: Arrival) -> Arrival {
        if tick < now.tick {
            return self.arrival(tick);
        }
        if let Some(attempt) = now.attempt.checked_sub(1) {
            return Arrival { tick, attempt };
        }
        // The delivery of an interrupt, after the instruction before.
        self.arrival(Tick(tick.0.saturating_sub(1)))
    }
}

impl Watches {
    fn find(&self, va: u64, gpa: u64, old: &[u8], new: Option<&[u8]>) -> Option<(Watch, u64)> {
        self.list.iter().find_map(|watch| {
            if !(if new.is_some() {
                watch.write
            } else {
                watch.read
            }) {
                return None;
            }
            let at = match watch.space {
                WatchSpace::Virtual => va,
                WatchSpace::Physical => gpa,
            };
            (0..old.len()).find_map(|i| {
                let address = at.wrapping_add(i as u64);
                let same = new.is_some_and(|new| new.get(i) == old.get(i));
                let counts = address.wrapping_sub(watch.start) < watch.len;
                (counts && !(same && watch.changes_only)).then_some((*watch, address))
            })
        })
    }

    /// Whether a page has watched bytes.
    fn on_page(&self, va: u64, gpa: u64) -> bool {
        self.list.iter().any(|watch| {
            let at = match watch.space {
                WatchSpace::Virtual => va,
                WatchSpace::Physical => gpa,
            };
            let page = at & !(PAGE_SIZE - 1);
            watch.start.wrapping_sub(page) < PAGE_SIZE || page.wrapping_sub(watch.start) < watch.len
        })
    }
}

impl Core {
    /// Whether accesses to this page must be looked at one by one.
    #[inline]
    pub(crate) fn is_watched(&self, va: u64, gpa: u64) -> bool {
        self.watches.as_ref().is_some_and(|w| w.on_page(va, gpa))
    }

    /// Notes an access, inside a page of RAM, that is about to happen; `new` is what is written.
    #[cold]
    pub(crate) fn note_access(&mut self, va: u64, offset: usize, len: usize, new: Option<&[u8]>) {
        let (tick, rip) = (self.now(), self.insn_rip());
        let gpa = self.ram.gpa(offset).0;
        let Some(watches) = self.watches.as_mut().filter(|w| w.hit.is_none()) else {
            return;
        };
        let Some(old) = self.ram.bytes().get(offset..offset + len) else {
            return;
        };
        if let Some((watch, address)) = watches.find(va, gpa, old, new) {
            let during = Arrival { tick, attempt: 0 };
            let write = new.is_some();
            watches.hit = Some(WatchHit {
                watch,
                address,
                write,
                rip,
                during,
            });
            // The block ends behind this instruction.
            self.stop = 0;
        }
    }
}
