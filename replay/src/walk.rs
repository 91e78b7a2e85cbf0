//! One machine on its way forward along a recording, to a place or to a stop before it.

use colinux_driver::debug::{DebugPlan, DebugStop};
use colinux_driver::machine::Machine;
use colinux_tracer::StateDigest;

use crate::checkpoint::Checkpoint;
use crate::runner::NoSink;
use crate::session::{Progress, Session};
use crate::timeline::{Mark, TimelineError};
use crate::watch::{Halt, Stops};

/// Ticks between two looks up from running: a millisecond or some more.
pub(crate) const SLICE_TICKS: u64 = 1_000_000;

/// How a run ended.
pub(crate) enum Ran {
    Stopped(DebugStop),
    End,
    Interrupted,
}

/// Who looks up from running now and then.
pub(crate) trait Looking {
    /// The tick at which to look up next, not after `target`.
    fn until(&self, tick: u64, target: u64) -> u64 {
        target.min(tick.saturating_add(SLICE_TICKS))
    }

    /// The machine is at such a tick: says whether to go on to `target`.
    fn look(&mut self, session: &mut Session, target: u64) -> bool;
}

/// A machine with its place.
#[derive(Debug)]
pub(crate) struct Walk {
    pub(crate) session: Session,
    pub(crate) at: Mark,
    /// At the end of the recording, where no instruction follows.
    pub(crate) ended: bool,
    /// The machine stands at its arrival, whose breakpoint has been looked at.
    pub(crate) arrived: bool,
    /// The machine has run from here without a jump.
    pub(crate) since: u64,
}

impl Walk {
    pub(crate) fn new(session: Session) -> Self {
        Walk {
            session,
            at: Mark::default(),
            ended: false,
            arrived: false,
            since: 0,
        }
    }

    pub(crate) fn machine(&mut self) -> &mut Machine {
        self.session.runner_mut().machine_mut()
    }

    pub(crate) fn tick(&self) -> u64 {
        self.session.runner().tick()
    }

    /// The machine has been restored to a checkpoint, which is to have this digest. Says what is
    /// wrong with it, if anything is.
    pub(crate) fn restored(
        &mut self,
        checkpoint: &Checkpoint,
        digest: Option<StateDigest>,
    ) -> Option<&'static str> {
        let tick = checkpoint.state.tick.0;
        if let Some(expected) = digest {
            if !self.session.agrees(tick, checkpoint.inputs) {
                return Some("its inputs are not those of the recording");
            }
            if self.session.runner_mut().digest() != expected {
                return Some("its state has another digest");
            }
        }
        self.session.restored(checkpoint);
        self.at = Mark::at(tick);
        self.ended = false;
        self.arrived = false;
        self.since = tick;
        None
    }

    /// The machine is at no place of the recording until it is restored.
    pub(crate) fn lost(&mut self) {
        self.at = Mark {
            tick: u64::MAX,
            attempt: u32::MAX,
        };
        self.ended = true;
        self.arrived = false;
    }

    /// Runs forward to `target`, or to a stop before it if there are any to look for.
    pub(crate) fn run(
        &mut self,
        target: Mark,
        stops: Option<&Stops>,
        looking: &mut dyn Looking,
    ) -> Result<Ran, TimelineError> {
        loop {
            let ran = self.run_to_any(target, stops, looking)?;
            match (&ran, stops) {
                (Ran::Stopped(DebugStop::Breakpoint), Some(stops))
                    if !stops.holds(self.machine()) => {}
                _ => return Ok(ran),
            }
        }
    }

    /// The same, whatever the conditions of breakpoints say.
    fn run_to_any(
        &mut self,
        target: Mark,
        stops: Option<&Stops>,
        looking: &mut dyn Looking,
    ) -> Result<Ran, TimelineError> {
        let mut plan = DebugPlan {
            after: self.arrived.then(|| self.at.into()),
            ..Default::default()
        };
        if let Some(stops) = stops {
            plan.breakpoints.clone_from(&stops.breakpoints);
            plan.watches.clone_from(&stops.watches);
        }
        let mut target = target;
        let mut interrupted = false;
        self.machine().debug(&plan);
        while self.tick() < target.tick {
            let until = looking.until(self.tick(), target.tick);
            if let Some(ran) = self.advance(until)? {
                return Ok(ran);
            }
            if !looking.look(&mut self.session, target.tick) && self.tick() < target.tick {
                interrupted = true;
                target = Mark::at(self.tick());
            }
        }
        plan.from = Some(target.into());
        self.machine().debug(&plan);
        // The attempts at this tick first: a tick further only where there are not so many.
        let mut until = target.tick;
        loop {
            until = until.max(self.tick()) + 1;
            if let Some(ran) = self.advance(until)? {
                return Ok(match ran {
                    Ran::Stopped(DebugStop::Arrived) if interrupted => Ran::Interrupted,
                    ran => ran,
                });
            }
        }
    }

    /// Runs until a tick is reached (`None`), or something else comes first.
    fn advance(&mut self, until: u64) -> Result<Option<Ran>, TimelineError> {
        self.arrived = false;
        loop {
            match self.session.advance(until, &mut NoSink)? {
                Progress::Reached => {
                    self.at = Mark::at(self.tick());
                    return Ok(None);
                }
                Progress::End(_) => {
                    self.at = Mark::at(self.tick());
                    self.ended = true;
                    return Ok(Some(Ran::End));
                }
                Progress::Lost(why) => return Err(TimelineError::Lost(why)),
                Progress::More => {
                    let machine = self.machine();
                    machine.take_console();
                    if let Some(stop) = machine.take_debug_stop() {
                        let at = machine.arrival();
                        self.at = at.into();
                        // A watch is reported before the breakpoint at the same place.
                        self.arrived = !matches!(stop, DebugStop::Watch(_));
                        return Ok(Some(Ran::Stopped(stop)));
                    }
                }
            }
        }
    }

    /// The last stop from here on that is before `upper`. `Err(None)` when it was interrupted.
    pub(crate) fn last_stop(
        &mut self,
        upper: Mark,
        stops: &Stops,
        looking: &mut dyn Looking,
    ) -> Result<Option<(Mark, Halt)>, Option<TimelineError>> {
        let mut last = None;
        loop {
            match self.run(upper, Some(stops), looking).map_err(Some)? {
                Ran::Stopped(DebugStop::Watch(hit)) if Mark::from(hit.during) < upper => {
                    last = Some((hit.during.into(), Halt::Watch(hit)));
                }
                Ran::Stopped(DebugStop::Breakpoint) if self.at < upper => {
                    last = Some((self.at, Halt::Breakpoint));
                }
                Ran::Stopped(_) | Ran::End => return Ok(last),
                Ran::Interrupted => return Err(None),
            }
        }
    }
}
