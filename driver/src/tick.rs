//! Positions in execution, and the time the guest computes from them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A position in execution: instructions retired since power-on.
///
/// A REP string instruction is one tick, at its completion.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Tick(pub u64);

impl fmt::Display for Tick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.0)
    }
}

/// Virtual time in nanoseconds since power-on: what every clock of the guest derives from.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct VirtualTime(pub u64);

/// How ticks become virtual time.
///
/// `time = tick * ns_per_tick + warp`, where the warp is the sum of the idle jumps so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// Nanoseconds of virtual time per tick; at least 1.
    pub ns_per_tick: u32,
    /// Nanoseconds skipped while every vCPU was halted.
    pub warp_ns: u64,
}

impl Clock {
    /// The time at a tick. It stands still at its end (after 584 years) rather than begin again,
    /// which would leave deadlines in a past that never becomes due.
    pub const fn time_at(&self, tick: Tick) -> VirtualTime {
        let run = tick.0.saturating_mul(self.ns_per_tick as u64);
        VirtualTime(run.saturating_add(self.warp_ns))
    }

    /// The first tick whose time is at or after `time`, if no further warp happens.
    pub const fn tick_at(&self, time: VirtualTime) -> Tick {
        Tick(
            time.0
                .saturating_sub(self.warp_ns)
                .div_ceil(self.ns_per_tick as u64),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_due_at_its_tick_and_not_before() {
        for ns_per_tick in [1, 3, 1000] {
            for warp_ns in [0, 7, 1 << 40, u64::MAX - 50_000] {
                let clock = Clock {
                    ns_per_tick,
                    warp_ns,
                };
                for time in (warp_ns..).step_by(911).take(50) {
                    let tick = clock.tick_at(VirtualTime(time));
                    assert!(clock.time_at(tick).0 >= time);
                    assert!(tick.0 == 0 || clock.time_at(Tick(tick.0 - 1)).0 < time);
                }
            }
        }
    }

    #[test]
    fn time_stands_still_at_its_end() {
        let clock = Clock {
            ns_per_tick: 2,
            warp_ns: u64::MAX - 3,
        };
        assert_eq!(clock.time_at(Tick(1)), VirtualTime(u64::MAX - 1));
        assert_eq!(clock.time_at(Tick(2)), VirtualTime(u64::MAX));
        assert_eq!(clock.time_at(Tick(u64::MAX)), VirtualTime(u64::MAX));
        assert_eq!(clock.tick_at(VirtualTime(u64::MAX)), Tick(2));
    }
}
