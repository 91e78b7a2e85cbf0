//! The moments at which the guest enters a function.

use crate::timeline::{KeepGoing, Mark, Timeline, TimelineError};
use crate::watch::{Halt, Stops};

/// What became of looking for one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// It is here.
    Here(Mark),
    /// The function is entered only so many times.
    Only(u64),
    /// The search was interrupted.
    Interrupted,
}

impl Timeline {
    /// Looks for the `nth` time, from 1, that the instruction at `address` is come to, from the start
    /// on. The cursor is left wherever the search ends.
    pub fn entry(
        &mut self,
        address: u64,
        nth: u64,
        keep_going: KeepGoing<'_>,
    ) -> Result<Entered, TimelineError> {
        let ours = Stops {
            breakpoints: vec![address],
            ..Stops::default()
        };
        let theirs = std::mem::replace(self.stops(), ours);
        let found = self.count_to(address, nth, keep_going);
        *self.stops() = theirs;
        found
    }

    fn count_to(
        &mut self,
        address: u64,
        nth: u64,
        keep_going: KeepGoing<'_>,
    ) -> Result<Entered, TimelineError> {
        self.seek(Mark::default(), &mut |_| true)?;
        // Where the machine stands, no breakpoint is come to.
        let mut count = u64::from(self.machine().core().cpu.linear_rip() == address);
        while count < nth {
            match self.forward(keep_going)? {
                Halt::Breakpoint => count += 1,
                Halt::Interrupted => return Ok(Entered::Interrupted),
                _ => return Ok(Entered::Only(count)),
            }
        }
        Ok(Entered::Here(self.at()))
    }
}
