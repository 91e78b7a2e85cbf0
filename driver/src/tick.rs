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
    /// The time at a tick.
    pub const fn time_at(&self, tick: Tick) -> VirtualTime {
        VirtualTime(
            tick.0.wrapping_mul(self.ns_per_tick as u64).wrapping_add(self.warp_ns),
        )
    }

    /// The first tick whose time is at or after `time`, if no further warp happens.
    pub const fn tick_at(&self, time: VirtualTime) -> Tick {
        Tick(time.0.saturating_sub(self.warp_ns).div_ceil(self.ns_per_tick as u64))
    }
}
