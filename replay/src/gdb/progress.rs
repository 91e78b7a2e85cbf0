//! How far a long journey is, told to gdb while it waits: gdb prints what a running target says.

use std::time::{Duration, Instant};

/// A journey that takes longer than this is told of, and again each time so long has passed.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// A journey from one tick towards another, which it may not reach.
#[derive(Debug)]
pub(super) struct Progress {
    began: Instant,
    told: Instant,
    from: u64,
    towards: u64,
}

impl Progress {
    pub(super) fn new(from: u64, towards: u64) -> Self {
        let began = Instant::now();
        Progress {
            began,
            told: began,
            from,
            towards,
        }
    }

    /// Where it goes.
    pub(super) fn towards(&self) -> u64 {
        self.towards
    }

    /// A line about a journey that has come to this tick, if it is time for one.
    pub(super) fn at(&mut self, tick: u64) -> Option<String> {
        if self.told.elapsed() < TELL_EVERY {
            return None;
        }
        self.told = Instant::now();
        Some(self.line(tick, self.began.elapsed()))
    }

    fn line(&self, tick: u64, spent: Duration) -> String {
        let all = self.from.abs_diff(self.towards).max(1);
        let done = self.from.abs_diff(tick).min(all);
        let way = if self.towards < self.from {
            "back"
        } else {
            "on"
        };
        let share = done as f64 / all as f64;
        let left = match share {
            ..0.01 => String::new(),
            _ => format!(
                ", about {:.0} s more",
                spent.as_secs_f64() * (1.0 - share) / share
            ),
        };
        format!(
            "going {way} from @{} towards @{}: {:.0} %{left}\n",
            self.from,
            self.towards,
            100.0 * share
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_much_is_left() {
        let back = Progress::new(1000, 0);
        let line = back.line(750, Duration::from_secs(2));
        assert_eq!(
            line,
            "going back from @1000 towards @0: 25 %, about 6 s more\n"
        );
        assert_eq!(
            back.line(1000, Duration::from_secs(2)),
            "going back from @1000 towards @0: 0 %\n"
        );
        let on = Progress::new(1000, 3000);
        let line = on.line(9999, Duration::from_secs(2));
        assert_eq!(
            line,
            "going on from @1000 towards @3000: 100 %, about 0 s more\n"
        );
    }

    #[test]
    fn a_quick_journey_is_not_told_of() {
        assert_eq!(Progress::new(0, 10).at(5), None);
    }
}
