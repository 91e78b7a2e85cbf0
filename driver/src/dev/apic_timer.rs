//! The timer of the local APIC: one-shot, periodic and TSC-deadline (SDM volume 3, 11.5.4).
//!
//! Nothing counts here. The state says what the counter was at one moment; its value at any other
//! and the moment it reaches zero follow. While the interrupt is masked no deadline is announced,
//! so that a silent timer does not wake an idle machine; what happened meanwhile is worked out
//! when the guest next touches the timer ([`ApicTimer::settle`]).

use serde::{Deserialize, Serialize};

use crate::tick::VirtualTime;

/// Counting mode, from bits 18:17 of the LVT timer register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerMode {
    /// Counts down once.
    OneShot,
    /// Counts down and reloads.
    Periodic,
    /// Fires when the TSC reaches IA32_TSC_DEADLINE.
    TscDeadline,
    /// The reserved encoding: never fires.
    Reserved,
}

impl TimerMode {
    /// The mode an LVT timer value selects.
    pub const fn of(lvt: u32) -> Self {
        match (lvt >> 17) & 3 {
            0 => Self::OneShot,
            1 => Self::Periodic,
            2 => Self::TscDeadline,
            _ => Self::Reserved,
        }
    }
}

/// State of the timer; mode and mask are in the LVT, which stays with the local APIC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApicTimer {
    /// Divide configuration register.
    divide: u32,
    /// Initial-count register.
    initial: u32,
    /// The counter at `since`; 0 means stopped.
    count: u32,
    /// When the counter had the value `count`.
    since: VirtualTime,
    /// IA32_TSC_DEADLINE; 0 means disarmed.
    tsc_deadline: u64,
    /// What the guest added to its TSC (IA32_TSC_ADJUST): deadlines are in its terms.
    tsc_adjust: u64,
}

impl ApicTimer {
    /// The state after INIT or power-on; the TSC offset belongs to the vCPU and stays.
    pub fn reset(&mut self) {
        *self = Self {
            tsc_adjust: self.tsc_adjust,
            ..Self::default()
        };
    }

    /// Nanoseconds per count: the divider, since the crystal counts nanoseconds.
    fn period(&self) -> u64 {
        // Bits 3,1,0 select 2, 4, .. 128, and 111b selects 1 (SDM figure 11-10).
        let shift = (self.divide & 3) | ((self.divide >> 1) & 4);
        1 << ((shift + 1) & 7)
    }

    /// When the counter reaches zero.
    fn expiry(&self) -> Option<VirtualTime> {
        (self.count != 0)
            .then(|| {
                self.since
                    .0
                    .checked_add(u64::from(self.count) * self.period())
            })
            .flatten()
            .map(VirtualTime)
    }

    /// When the TSC reaches the deadline; `None` when disarmed or beyond the end of time.
    fn tsc_expiry(&self, armed_at: VirtualTime) -> Option<VirtualTime> {
        if self.tsc_deadline == 0 {
            return None;
        }
        let tsc = armed_at.0.wrapping_add(self.tsc_adjust);
        let wait = self.tsc_deadline.saturating_sub(tsc);
        armed_at.0.checked_add(wait).map(VirtualTime)
    }

    /// When the timer next expires in this mode.
    pub fn deadline(&self, mode: TimerMode) -> Option<VirtualTime> {
        match mode {
            TimerMode::OneShot | TimerMode::Periodic => self.expiry(),
            TimerMode::TscDeadline => self.tsc_expiry(self.since),
            TimerMode::Reserved => None,
        }
    }

    /// Lets pass whatever is due at `now`; true if the timer expired, once or more often.
    pub fn settle(&mut self, mode: TimerMode, now: VirtualTime) -> bool {
        let Some(expiry) = self.deadline(mode).filter(|expiry| *expiry <= now) else {
            return false;
        };
        match mode {
            TimerMode::Periodic if self.initial != 0 => {
                let cycle = u64::from(self.initial) * self.period();
                let more = (now.0 - expiry.0) / cycle;
                self.since = VirtualTime(expiry.0 + more * cycle);
                self.count = self.initial;
            }
            TimerMode::TscDeadline => self.tsc_deadline = 0,
            _ => self.count = 0,
        }
        true
    }

    /// The current-count register.
    pub fn current(&self, mode: TimerMode, now: VirtualTime) -> u32 {
        if matches!(mode, TimerMode::TscDeadline | TimerMode::Reserved) || self.count == 0 {
            return 0;
        }
        let passed = now.0.saturating_sub(self.since.0) / self.period();
        match u64::from(self.count).checked_sub(passed) {
            Some(left) if left > 0 => left as u32,
            // Zero lasts no time in periodic mode: the reload is at the same moment.
            _ if mode == TimerMode::Periodic && self.initial != 0 => {
                let over = (passed - u64::from(self.count)) % u64::from(self.initial);
                self.initial - over as u32
            }
            _ => 0,
        }
    }

    /// The initial-count register.
    pub const fn initial(&self) -> u32 {
        self.initial
    }

    /// A write to the initial-count register: starts the counter, or stops it with 0.
    pub fn set_initial(&mut self, mode: TimerMode, value: u32, now: VirtualTime) {
        // In TSC-deadline mode these writes are ignored (SDM volume 3, 11.5.4.1).
        if mode == TimerMode::TscDeadline {
            return;
        }
        self.initial = value;
        self.count = value;
        self.since = now;
    }

    /// The divide configuration register.
    pub const fn divide(&self) -> u32 {
        self.divide
    }

    /// A write to the divide configuration register: the counter goes on from its value.
    pub fn set_divide(&mut self, mode: TimerMode, value: u32, now: VirtualTime) {
        let count = self.current(mode, now);
        self.divide = value & 0xb;
        if self.count != 0 {
            self.count = count;
            self.since = now;
        }
    }

    /// The mode changed: entering or leaving TSC-deadline mode disarms the timer.
    pub fn change_mode(&mut self, from: TimerMode, to: TimerMode) {
        if from != to && (from == TimerMode::TscDeadline || to == TimerMode::TscDeadline) {
            self.count = 0;
            self.initial = 0;
            self.tsc_deadline = 0;
        }
    }

    /// IA32_TSC_DEADLINE; reads 0 outside of its mode, and once it has fired.
    pub const fn tsc_deadline(&self) -> u64 {
        self.tsc_deadline
    }

    /// A write to IA32_TSC_DEADLINE, ignored outside of its mode.
    pub fn set_tsc_deadline(&mut self, mode: TimerMode, value: u64, now: VirtualTime) {
        if mode == TimerMode::TscDeadline {
            self.tsc_deadline = value;
            self.since = now;
        }
    }

    /// The guest moved its TSC against virtual time; an armed deadline moves with it.
    pub fn set_tsc_adjust(&mut self, mode: TimerMode, value: u64, now: VirtualTime) {
        self.tsc_adjust = value;
        if mode == TimerMode::TscDeadline {
            self.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TimerMode::{OneShot, Periodic, TscDeadline};

    const fn at(ns: u64) -> VirtualTime {
        VirtualTime(ns)
    }

    fn timer(mode: TimerMode, divide: u32, initial: u32, now: u64) -> ApicTimer {
        let mut timer = ApicTimer::default();
        timer.set_divide(mode, divide, at(0));
        timer.set_initial(mode, initial, at(now));
        timer
    }

    #[test]
    fn divide_register_follows_the_manual() {
        let table = [
            (0x0, 2),
            (0x1, 4),
            (0x2, 8),
            (0x3, 16),
            (0x8, 32),
            (0x9, 64),
            (0xa, 128),
            (0xb, 1),
        ];
        for (divide, period) in table {
            assert_eq!(timer(OneShot, divide, 0, 0).period(), period, "{divide:#x}");
        }
    }

    #[test]
    fn one_shot_counts_down_and_stops() {
        let mut timer = timer(OneShot, 0x3, 100, 1000);
        assert_eq!(timer.deadline(OneShot), Some(at(1000 + 1600)));
        assert_eq!(timer.current(OneShot, at(1000 + 15)), 100);
        assert_eq!(timer.current(OneShot, at(1000 + 16)), 99);
        assert!(!timer.settle(OneShot, at(2599)));
        assert_eq!(timer.current(OneShot, at(2599)), 1);
        assert!(timer.settle(OneShot, at(2600)));
        assert_eq!(timer.current(OneShot, at(2600)), 0);
        assert_eq!(timer.deadline(OneShot), None);
    }

    #[test]
    fn periodic_keeps_its_phase_when_looked_at_late() {
        let mut timer = timer(Periodic, 0xb, 10, 0);
        assert_eq!(timer.current(Periodic, at(10)), 10);
        assert_eq!(timer.current(Periodic, at(37)), 3);
        assert!(timer.settle(Periodic, at(37)));
        assert_eq!(timer.deadline(Periodic), Some(at(40)));
        assert_eq!(timer.current(Periodic, at(37)), 3);
    }

    #[test]
    fn divider_change_keeps_the_count() {
        let mut timer = timer(OneShot, 0xb, 100, 0);
        timer.set_divide(OneShot, 0x0, at(40));
        assert_eq!(timer.current(OneShot, at(40)), 60);
        assert_eq!(timer.deadline(OneShot), Some(at(40 + 120)));
    }

    #[test]
    fn tsc_deadline_fires_at_its_tsc_and_in_the_past_at_once() {
        let mut timer = ApicTimer::default();
        timer.set_tsc_adjust(TscDeadline, 500, at(0));
        timer.set_tsc_deadline(TscDeadline, 2500, at(1000));
        assert_eq!(timer.deadline(TscDeadline), Some(at(2000)));
        assert!(!timer.settle(TscDeadline, at(1999)));
        assert!(timer.settle(TscDeadline, at(2000)));
        assert_eq!(timer.tsc_deadline(), 0);
        timer.set_tsc_deadline(TscDeadline, 1, at(3000));
        assert_eq!(timer.deadline(TscDeadline), Some(at(3000)));
        timer.set_tsc_deadline(TscDeadline, u64::MAX, at(3000));
        timer.set_tsc_adjust(TscDeadline, 0, at(u64::MAX));
        assert_eq!(timer.deadline(TscDeadline), Some(at(u64::MAX)));
    }

    #[test]
    fn tsc_deadline_beyond_the_end_of_time_never_fires() {
        let mut timer = ApicTimer::default();
        timer.set_tsc_adjust(TscDeadline, 0u64.wrapping_sub(900), at(1000));
        timer.set_tsc_deadline(TscDeadline, u64::MAX, at(1000));
        assert_eq!(timer.deadline(TscDeadline), None);
    }

    #[test]
    fn writes_of_the_other_mode_are_ignored() {
        let mut timer = ApicTimer::default();
        timer.set_tsc_deadline(OneShot, 77, at(0));
        assert_eq!(timer.tsc_deadline(), 0);
        timer.set_initial(TscDeadline, 77, at(0));
        assert_eq!(timer.initial(), 0);
    }
}
