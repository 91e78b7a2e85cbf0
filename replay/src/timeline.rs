//! A recording as a place to walk in, both ways.
//!
//! Going back is going forward from an earlier checkpoint. The machine is deterministic, so wherever
//! a walk comes from, a [`Mark`] is the same state to the last bit.

use std::fmt;

use colinux_driver::debug::{DebugPlan, DebugStop};
use colinux_driver::jit::Tier;
use colinux_driver::machine::Machine;
use colinux_symbols::SymbolError;
use colinux_symbols::dmesg::LogRecord;
use colinux_symbols::ps::Task;
use colinux_tracer::{EventMask, Levels, Manifest, Reader, StateDigest};

use crate::checkpoint::stored::Stored;
use crate::checkpoint::{BUDGET_BYTES, Checkpoints, Keep};
use crate::error::ReplayError;
use crate::hooks::KernelHooks;
use crate::runner::NoSink;
use crate::session::{Progress, Session};
use crate::watch::{Halt, Stops};

/// An exact place: the moment before an instruction is tried.
///
/// The tick alone does not say it, since an instruction that faults leads to its handler without a
/// tick: those are further attempts at the same tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// Instructions retired so far.
    pub tick: u64,
    /// Tries at this tick that came to nothing.
    pub attempt: u32,
}

impl Mark {
    /// The first moment at a tick.
    pub const fn at(tick: u64) -> Self {
        Mark { tick, attempt: 0 }
    }

    const fn next(self) -> Self {
        Mark {
            tick: self.tick,
            attempt: self.attempt.saturating_add(1),
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}", self.tick)?;
        if self.attempt > 0 {
            write!(f, "'{}", self.attempt)
        } else {
            Ok(())
        }
    }
}

/// Why a walk could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TimelineError {
    /// The recording cannot be replayed.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The replay did not go as the recording did.
    #[error("the replay diverges: {0}")]
    Lost(String),
    /// A place that the recording does not have.
    #[error("{wanted} is not in the recording, which ends at @{last}")]
    Outside {
        /// The place.
        wanted: Mark,
        /// The last tick.
        last: u64,
    },
}

/// Asked now and then during a walk, with the tick it has come to; `false` interrupts the walk.
pub type KeepGoing<'a> = &'a mut dyn FnMut(u64) -> bool;

/// Ticks between two questions whether to go on: some ten milliseconds.
const SLICE_TICKS: u64 = 1_000_000;
/// Running so far forward is quicker than reading a checkpoint.
const STROLL_TICKS: u64 = 10_000_000;
/// Distances before a place that was sought at which checkpoints are left, so that going back from
/// it in small steps is quick.
const LOCAL_DISTANCES: [u64; 4] = [16_000_000, 2_000_000, 200_000, 20_000];

/// A recording with a cursor.
#[derive(Debug)]
pub struct Timeline {
    session: Session,
    checkpoints: Checkpoints,
    stored: Stored,
    stops: Stops,
    at: Mark,
    /// At the end of the recording, where no instruction follows.
    ended: bool,
    /// The machine stands at its arrival, whose breakpoint has been looked at.
    arrived: bool,
    /// The machine has run from here without a jump.
    since: u64,
    /// Further ticks at which to leave a checkpoint, descending.
    planned: Vec<u64>,
}

/// How a run ended.
enum Ran {
    Stopped(DebugStop),
    End,
    Interrupted,
}

impl Timeline {
    /// A timeline with the cursor at the start.
    pub fn open(reader: &Reader) -> Result<Self, TimelineError> {
        Self::with_budget(reader, BUDGET_BYTES)
    }

    /// A timeline whose checkpoints take so many bytes of memory.
    pub fn with_budget(reader: &Reader, budget: u64) -> Result<Self, TimelineError> {
        let session = Session::with_events(reader, EventMask::from_levels(&Levels::off()))?;
        let mut timeline = Timeline {
            session,
            checkpoints: Checkpoints::new(budget),
            stored: Stored::open(reader),
            stops: Stops::default(),
            at: Mark::default(),
            ended: false,
            arrived: false,
            since: 0,
            planned: Vec::new(),
        };
        timeline.keep(Keep::Grid);
        timeline.run(Mark::default(), false, &mut |_| true)?;
        Ok(timeline)
    }

    /// Where the cursor is.
    pub fn at(&self) -> Mark {
        self.at
    }

    /// Whether the cursor is at the end of the recording.
    pub fn is_at_end(&self) -> bool {
        self.ended
    }

    /// The last tick of the recording.
    pub fn last_tick(&self) -> u64 {
        self.session.last_tick()
    }

    /// What there is to say about checkpoints that cannot be used, once.
    pub fn take_notes(&mut self) -> Vec<String> {
        self.stored.take_notes()
    }

    /// The guest's tasks at the cursor.
    pub fn tasks(&mut self) -> Result<Vec<Task>, SymbolError> {
        self.session.runner_mut().tasks()
    }

    /// The guest's kernel log at the cursor.
    pub fn log(&mut self) -> Result<Vec<LogRecord>, SymbolError> {
        self.session.runner_mut().log()
    }

    /// The guest's kernel functions, by name and by address.
    pub fn hooks(&self) -> Option<&KernelHooks> {
        self.session.runner().hooks()
    }

    /// The back end of the vCPU.
    pub fn set_tier(&mut self, tier: Tier) {
        self.machine_mut().set_tier(tier);
    }

    /// What was recorded.
    pub fn manifest(&self) -> &Manifest {
        self.session.manifest()
    }

    /// The machine at the cursor.
    pub fn machine(&self) -> &Machine {
        self.session.runner().machine()
    }

    /// The machine at the cursor, for reading its memory.
    pub fn machine_mut(&mut self) -> &mut Machine {
        self.session.runner_mut().machine_mut()
    }

    /// The digest of the state at the cursor.
    pub fn digest(&mut self) -> StateDigest {
        self.session.runner_mut().digest()
    }

    /// The breakpoints and watchpoints.
    pub fn stops(&mut self) -> &mut Stops {
        &mut self.stops
    }

    /// The checkpoints.
    pub fn checkpoints(&mut self) -> &mut Checkpoints {
        &mut self.checkpoints
    }

    /// Goes to a place.
    pub fn seek(&mut self, to: Mark, keep_going: KeepGoing<'_>) -> Result<Halt, TimelineError> {
        let last = self.last_tick();
        if to.tick > last {
            return Err(TimelineError::Outside { wanted: to, last });
        }
        if to == self.at && (self.arrived || self.ended) {
            return Ok(Halt::Arrived);
        }
        let kept = self.checkpoints.at_or_before(to.tick);
        let kept = kept.max(self.stored.at_or_before(to.tick)).unwrap_or(0);
        let near = self.at.tick.saturating_add(STROLL_TICKS) >= to.tick;
        if self.ended || self.at > to || self.at.tick < kept && !near {
            self.go_back(to.tick);
        }
        let from = self.session.runner().tick();
        self.planned = LOCAL_DISTANCES
            .iter()
            .rev()
            .map(|distance| to.tick.saturating_sub(*distance))
            .filter(|tick| *tick > from)
            .collect();
        let ran = self.run(to, false, keep_going);
        self.planned.clear();
        Ok(match ran? {
            Ran::Stopped(stop) => stop.into(),
            Ran::End if to.tick >= last => Halt::Arrived,
            Ran::End => Halt::End,
            Ran::Interrupted => Halt::Interrupted,
        })
    }

    /// The first place whose virtual time is not before so many nanoseconds; leaves the cursor
    /// near it.
    pub fn at_time(&mut self, ns: u64) -> Result<Option<Mark>, TimelineError> {
        let before = self
            .checkpoints
            .times()
            .filter(|(time, _)| *time < ns)
            .map(|(_, tick)| tick);
        let mut low = before.max().unwrap_or(0);
        let last = self.last_tick();
        let mut time_at = |tick| -> Result<u64, TimelineError> {
            self.seek(Mark::at(tick), &mut |_| true)?;
            Ok(self.machine().time().0)
        };
        let mut high = low;
        while time_at(high)? < ns {
            if high == last {
                return Ok(None);
            }
            low = high;
            high = high.saturating_add(SLICE_TICKS).min(last);
        }
        while low < high {
            let middle = low + (high - low) / 2;
            if time_at(middle)? < ns {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(Some(Mark::at(high)))
    }

    /// One instruction forward, or one try that leads to a handler.
    pub fn step(&mut self) -> Result<Halt, TimelineError> {
        if self.ended {
            return Ok(Halt::End);
        }
        let to = self.at.next();
        Ok(match self.run(to, true, &mut |_| true)? {
            Ran::Stopped(stop) => stop.into(),
            Ran::End => Halt::End,
            Ran::Interrupted => Halt::Interrupted,
        })
    }

    /// Back to where [`Timeline::step`] would come from.
    pub fn step_back(&mut self) -> Result<Halt, TimelineError> {
        let Some(before) = self.before()? else {
            return Ok(Halt::Start);
        };
        let arrived = self.seek(before, &mut |_| true)?;
        if self.stops.watches.is_empty() {
            return Ok(arrived);
        }
        // Whether the instruction that was taken back accesses what is watched is seen by taking
        // it again.
        let halt = self.step()?;
        self.seek(before, &mut |_| true)?;
        Ok(match halt {
            Halt::Watch(hit) if Mark::from(hit.during) == before => halt,
            _ => arrived,
        })
    }

    /// The place one step before the cursor.
    fn before(&mut self) -> Result<Option<Mark>, TimelineError> {
        let at = self.at;
        if let Some(attempt) = at.attempt.checked_sub(1) {
            return Ok(Some(Mark {
                tick: at.tick,
                attempt,
            }));
        }
        let Some(tick) = at.tick.checked_sub(1) else {
            return Ok(None);
        };
        if self.since > tick {
            // How often the instruction before was tried is not known: come from there.
            self.seek(Mark::at(tick), &mut |_| true)?;
            self.seek(at, &mut |_| true)?;
        }
        let stalls = self.machine().stalls();
        let attempt = if stalls.tick.0 == tick {
            stalls.attempt
        } else {
            0
        };
        Ok(Some(Mark { tick, attempt }))
    }

    /// Runs on to the next stop.
    pub fn forward(&mut self, keep_going: KeepGoing<'_>) -> Result<Halt, TimelineError> {
        if self.ended {
            return Ok(Halt::End);
        }
        let end = Mark {
            tick: self.last_tick(),
            attempt: u32::MAX,
        };
        Ok(match self.run(end, true, keep_going)? {
            Ran::Stopped(stop) => stop.into(),
            Ran::End => Halt::End,
            Ran::Interrupted => Halt::Interrupted,
        })
    }

    /// Runs back to the last stop before the cursor: searches forward, one stretch between
    /// checkpoints after the other, the latest first.
    pub fn backward(&mut self, keep_going: KeepGoing<'_>) -> Result<Halt, TimelineError> {
        let mut upper = self.at;
        loop {
            let reach = if upper.attempt > 0 {
                Some(upper.tick)
            } else {
                upper.tick.checked_sub(1)
            };
            let Some(reach) = reach else {
                self.seek(Mark::default(), keep_going)?;
                return Ok(Halt::Start);
            };
            let kept = self.go_back(reach);
            let mut last = None;
            loop {
                match self.run(upper, true, keep_going)? {
                    Ran::Stopped(DebugStop::Watch(hit)) if Mark::from(hit.during) < upper => {
                        last = Some((hit.during.into(), Halt::Watch(hit)));
                    }
                    Ran::Stopped(DebugStop::Breakpoint) if self.at < upper => {
                        last = Some((self.at, Halt::Breakpoint));
                    }
                    Ran::Stopped(_) | Ran::End => break,
                    Ran::Interrupted => {
                        self.seek(upper, &mut |_| true)?;
                        return Ok(Halt::Interrupted);
                    }
                }
            }
            if let Some((mark, halt)) = last {
                self.seek(mark, &mut |_| true)?;
                return Ok(halt);
            }
            upper = Mark::at(kept);
        }
    }

    /// Leaves a checkpoint here.
    fn keep(&mut self, keep: Keep) {
        let given = self.session.given();
        let runner = self.session.runner_mut();
        let hooks = runner.hooks().map(KernelHooks::state).unwrap_or_default();
        let machine = runner.machine_mut();
        self.checkpoints.take(machine, given, hooks, keep);
    }

    /// Goes to the last checkpoint that is not after a tick, and says which tick that is.
    fn go_back(&mut self, tick: u64) -> u64 {
        let pages = self.machine().core().ram.page_count();
        loop {
            let kept = self.checkpoints.at_or_before(tick).unwrap_or(0);
            let there = self.stored.at_or_before(tick).filter(|at| *at > kept);
            let kept = match there {
                None => kept,
                Some(there) if self.stored.load(there, &mut self.checkpoints, pages) => there,
                Some(_) => continue,
            };
            if self.restore(kept) {
                self.checkpoints.thin(kept);
                return kept;
            }
        }
    }

    /// Goes to a checkpoint in memory. `false` if it is not the state that the recording had.
    fn restore(&mut self, tick: u64) -> bool {
        let machine = self.session.runner_mut().machine_mut();
        let Some(checkpoint) = self.checkpoints.restore(tick, machine) else {
            return false;
        };
        if let (true, Some(info)) = (checkpoint.is_stored(), self.stored.unproven(tick)) {
            let expected = info.state;
            let why = if !self.session.agrees(tick, checkpoint.inputs) {
                Some("its inputs are not those of the recording")
            } else if self.session.runner_mut().digest() != expected {
                Some("its state has another digest")
            } else {
                None
            };
            if let Some(why) = why {
                self.checkpoints.forget(tick);
                self.stored.refuse(tick, why);
                return false;
            }
            self.stored.prove(tick);
        }
        self.session.restored(&checkpoint);
        self.at = Mark::at(tick);
        self.ended = false;
        self.arrived = false;
        self.since = tick;
        true
    }

    /// Runs forward to `target`, or to a stop before it if they count.
    fn run(
        &mut self,
        target: Mark,
        stops: bool,
        keep_going: KeepGoing<'_>,
    ) -> Result<Ran, TimelineError> {
        let mut plan = DebugPlan {
            after: self.arrived.then(|| self.at.into()),
            ..Default::default()
        };
        if stops {
            plan.breakpoints.clone_from(&self.stops.breakpoints);
            plan.watches.clone_from(&self.stops.watches);
        }
        let mut target = target;
        let mut interrupted = false;
        self.machine_mut().debug(&plan);
        while self.session.runner().tick() < target.tick {
            let until = self.slice_end(target.tick);
            if let Some(ran) = self.advance(until)? {
                return Ok(ran);
            }
            let tick = self.session.runner().tick();
            if self.planned.last() == Some(&tick) {
                self.planned.pop();
                let keep = self.checkpoints.local();
                self.keep(keep);
            } else if tick.is_multiple_of(self.checkpoints.grid())
                && !self.checkpoints.has(tick)
                && !self.stored.has(tick)
            {
                self.keep(Keep::Grid);
            }
            if tick < target.tick && !keep_going(tick) {
                interrupted = true;
                target = Mark::at(tick);
            }
        }
        plan.from = Some(target.into());
        self.machine_mut().debug(&plan);
        // The attempts at this tick first: a tick further only where there are not so many.
        let mut until = target.tick;
        loop {
            until = until.max(self.session.runner().tick()) + 1;
            if let Some(ran) = self.advance(until)? {
                return Ok(match ran {
                    Ran::Stopped(DebugStop::Arrived) if interrupted => Ran::Interrupted,
                    ran => ran,
                });
            }
        }
    }

    /// Where to look up from running next.
    fn slice_end(&self, target: u64) -> u64 {
        let tick = self.session.runner().tick();
        let grid = self.checkpoints.grid();
        let mut end = target.min(tick.saturating_add(SLICE_TICKS));
        end = end.min((tick / grid + 1).saturating_mul(grid));
        match self.planned.last() {
            Some(&planned) if planned > tick => end.min(planned),
            _ => end,
        }
    }

    /// Runs until a tick is reached (`None`), or something else comes first.
    fn advance(&mut self, until: u64) -> Result<Option<Ran>, TimelineError> {
        self.arrived = false;
        loop {
            let step = self.session.advance(until, &mut NoSink)?;
            match step {
                Progress::Reached => {
                    self.at = Mark::at(self.session.runner().tick());
                    return Ok(None);
                }
                Progress::End(_) => {
                    self.at = Mark::at(self.session.runner().tick());
                    self.ended = true;
                    return Ok(Some(Ran::End));
                }
                Progress::Lost(why) => return Err(TimelineError::Lost(why)),
                Progress::More => {
                    let machine = self.session.runner_mut().machine_mut();
                    machine.take_console();
                    if let Some(stop) = machine.take_debug_stop() {
                        self.at = machine.arrival().into();
                        // A watch is reported before the breakpoint at the same place.
                        self.arrived = !matches!(stop, DebugStop::Watch(_));
                        return Ok(Some(Ran::Stopped(stop)));
                    }
                }
            }
        }
    }
}
