//! A recording as a place to walk in, both ways.
//!
//! Going back is going forward from an earlier checkpoint. The machine is deterministic, so wherever
//! a walk comes from, a [`Mark`] is the same state to the last bit.

use std::{fmt, iter};

use colinux_driver::debug::DebugStop;
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
use crate::search::{self, Found, Searcher, Stretch, Worker};
use crate::session::Session;
use crate::trails::{Trails, noted};
use crate::walk::{Looking, Ran, SLICE_TICKS, Walk};
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

/// Running so far forward is quicker than reading a checkpoint.
const STROLL_TICKS: u64 = 10_000_000;
/// Distances before a place that was sought at which checkpoints are left, so that going back from
/// it in small steps is quick.
const LOCAL_DISTANCES: [u64; 4] = [16_000_000, 2_000_000, 200_000, 20_000];

/// A recording with a cursor.
#[derive(Debug)]
pub struct Timeline {
    walk: Walk,
    checkpoints: Checkpoints,
    stored: Stored,
    stops: Stops,
    /// What is known of stretches without replaying them.
    trails: Trails,
    /// Machines for searching on further threads; made when they are first needed.
    searchers: Vec<Searcher>,
}

/// Leaves checkpoints on the way, and asks whether to go on.
struct Keeping<'a> {
    checkpoints: &'a mut Checkpoints,
    stored: &'a Stored,
    /// Further ticks at which to leave a checkpoint, descending.
    planned: Vec<u64>,
    keep_going: KeepGoing<'a>,
}

impl Looking for Keeping<'_> {
    fn until(&self, tick: u64, target: u64) -> u64 {
        let grid = self.checkpoints.grid();
        let mut end = target.min(tick.saturating_add(SLICE_TICKS));
        end = end.min((tick / grid + 1).saturating_mul(grid));
        match self.planned.last() {
            Some(&planned) if planned > tick => end.min(planned),
            _ => end,
        }
    }

    fn look(&mut self, session: &mut Session, target: u64) -> bool {
        let tick = session.runner().tick();
        if self.planned.last() == Some(&tick) {
            self.planned.pop();
            let keep = self.checkpoints.local();
            leave(self.checkpoints, session, keep);
        } else if tick.is_multiple_of(self.checkpoints.grid())
            && !self.checkpoints.has(tick)
            && !self.stored.has(tick)
        {
            leave(self.checkpoints, session, Keep::Grid);
        }
        tick >= target || (self.keep_going)(tick)
    }
}

/// Leaves a checkpoint of a session as it is.
fn leave(checkpoints: &mut Checkpoints, session: &mut Session, keep: Keep) {
    let given = session.given();
    let runner = session.runner_mut();
    let hooks = runner.hooks().map(KernelHooks::state).unwrap_or_default();
    checkpoints.take(runner.machine_mut(), given, hooks, keep);
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
            walk: Walk::new(session),
            checkpoints: Checkpoints::new(budget),
            stored: Stored::open(reader),
            stops: Stops::default(),
            trails: Trails::of(reader),
            searchers: Vec::new(),
        };
        leave(
            &mut timeline.checkpoints,
            &mut timeline.walk.session,
            Keep::Grid,
        );
        timeline.run(Mark::default(), false, Vec::new(), &mut |_| true)?;
        Ok(timeline)
    }

    /// Where the cursor is.
    pub fn at(&self) -> Mark {
        self.walk.at
    }

    /// Whether the cursor is at the end of the recording.
    pub fn is_at_end(&self) -> bool {
        self.walk.ended
    }

    /// The last tick of the recording.
    pub fn last_tick(&self) -> u64 {
        self.walk.session.last_tick()
    }

    /// What there is to say about checkpoints that cannot be used, once.
    pub fn take_notes(&mut self) -> Vec<String> {
        self.stored.take_notes()
    }

    /// The guest's tasks at the cursor.
    pub fn tasks(&mut self) -> Result<Vec<Task>, SymbolError> {
        self.walk.session.runner_mut().tasks()
    }

    /// The guest's kernel log at the cursor.
    pub fn log(&mut self) -> Result<Vec<LogRecord>, SymbolError> {
        self.walk.session.runner_mut().log()
    }

    /// The guest's kernel functions, by name and by address.
    pub fn hooks(&self) -> Option<&KernelHooks> {
        self.walk.session.runner().hooks()
    }

    /// The back end of the vCPU.
    pub fn set_tier(&mut self, tier: Tier) {
        self.machine_mut().set_tier(tier);
    }

    /// What was recorded.
    pub fn manifest(&self) -> &Manifest {
        self.walk.session.manifest()
    }

    /// The machine at the cursor.
    pub fn machine(&self) -> &Machine {
        self.walk.session.runner().machine()
    }

    /// The machine at the cursor, for reading its memory.
    pub fn machine_mut(&mut self) -> &mut Machine {
        self.walk.session.runner_mut().machine_mut()
    }

    /// The digest of the state at the cursor.
    pub fn digest(&mut self) -> StateDigest {
        self.walk.session.runner_mut().digest()
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
        let walk = &self.walk;
        if to == walk.at && (walk.arrived || walk.ended) {
            return Ok(Halt::Arrived);
        }
        let kept = self.kept(to.tick);
        let near = walk.at.tick.saturating_add(STROLL_TICKS) >= to.tick;
        if walk.ended || walk.at > to || walk.at.tick < kept && !near {
            self.go_back(to.tick);
        }
        let from = self.walk.tick();
        let planned = LOCAL_DISTANCES
            .iter()
            .rev()
            .map(|distance| to.tick.saturating_sub(*distance))
            .filter(|tick| *tick > from)
            .collect();
        Ok(match self.run(to, false, planned, keep_going)? {
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
        if self.walk.ended {
            return Ok(Halt::End);
        }
        let to = self.walk.at.next();
        Ok(match self.run(to, true, Vec::new(), &mut |_| true)? {
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
        let at = self.walk.at;
        if let Some(attempt) = at.attempt.checked_sub(1) {
            return Ok(Some(Mark {
                tick: at.tick,
                attempt,
            }));
        }
        let Some(tick) = at.tick.checked_sub(1) else {
            return Ok(None);
        };
        if self.walk.since > tick {
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

    /// Runs on to the next stop, passing over stretches that are known not to have it.
    pub fn forward(&mut self, keep_going: KeepGoing<'_>) -> Result<Halt, TimelineError> {
        if self.walk.ended {
            return Ok(Halt::End);
        }
        self.read_trails();
        let last = self.last_tick();
        loop {
            let from = self.walk.at;
            let clear = self.trails.ruled_out_until(&self.stops, from.tick, last);
            if self.kept(clear) > from.tick.saturating_add(STROLL_TICKS) {
                // However little there is to do: who wants to stop has said so by now.
                if !keep_going(from.tick) {
                    return Ok(Halt::Interrupted);
                }
                self.go_back(clear);
                if self.walk.at < from {
                    // The checkpoints on the way could not be used.
                    self.seek(from, &mut |_| true)?;
                }
            }
            let end = Mark {
                tick: last,
                attempt: u32::MAX,
            };
            let known = self.trails.end_of(clear);
            let to = known.filter(|to| *to < last).map_or(end, Mark::at);
            match self.run(to, true, Vec::new(), keep_going)? {
                // A breakpoint there has not been looked at.
                Ran::Stopped(DebugStop::Arrived) if to < end => self.walk.arrived = false,
                Ran::Stopped(stop) => return Ok(stop.into()),
                Ran::End => return Ok(Halt::End),
                Ran::Interrupted => return Ok(Halt::Interrupted),
            }
        }
    }

    fn read_trails(&mut self) {
        let notes = self.trails.read();
        self.stored.note(notes);
    }

    /// Runs back to the last stop before the cursor: searches forward, one stretch between
    /// checkpoints after the other, the latest first; all but that one on every core at once.
    pub fn backward(&mut self, keep_going: KeepGoing<'_>) -> Result<Halt, TimelineError> {
        let from = self.walk.at;
        let stops = std::mem::take(&mut self.stops);
        let halt = self.search(from, &stops, keep_going);
        self.stops = stops;
        let halt = halt?;
        if halt == Halt::Interrupted {
            self.seek(from, &mut |_| true)?;
        }
        Ok(halt)
    }

    fn search(
        &mut self,
        from: Mark,
        stops: &Stops,
        keep_going: KeepGoing<'_>,
    ) -> Result<Halt, TimelineError> {
        self.read_trails();
        let mut upper = from;
        let reach = |upper: Mark| match upper.attempt {
            0 => upper.tick.checked_sub(1),
            _ => Some(upper.tick),
        };
        while let Some(tick) = reach(upper) {
            let kept = self.kept(tick);
            if self.trails.rule_out(stops, kept, upper) {
                if !keep_going(tick) {
                    return Ok(Halt::Interrupted);
                }
                upper = Mark::at(kept);
                continue;
            }
            let kept = self.go_back(tick);
            self.walk.machine().leave_trail();
            let mut keeping = Keeping {
                checkpoints: &mut self.checkpoints,
                stored: &self.stored,
                planned: Vec::new(),
                keep_going,
            };
            match self.walk.last_stop(upper, stops, &mut keeping) {
                Ok(found) => {
                    if let Some(used) = self.walk.machine().take_trail() {
                        self.trails.add(noted(kept, upper.tick, used));
                    }
                    if let Some((mark, halt)) = found {
                        self.seek(mark, &mut |_| true)?;
                        return Ok(halt);
                    }
                    upper = Mark::at(kept);
                }
                Err(None) => return Ok(Halt::Interrupted),
                Err(Some(error)) => return Err(error),
            }
            // What the cores' caches know is worth little on the other threads, so they are asked
            // only when it is not near.
            if search::threads() > 1 && from.tick - kept > search::NEAR_TICKS {
                match self.search_beside(upper, stops, keep_going)? {
                    Some(Found::Stop(mark, halt)) => {
                        self.seek(mark, &mut |_| true)?;
                        return Ok(halt);
                    }
                    Some(Found::Nothing) => break,
                    Some(Found::Interrupted) => return Ok(Halt::Interrupted),
                    Some(Found::Unfit(tick, why)) => self.refuse(tick, why),
                    None => {}
                }
            }
        }
        self.seek(Mark::default(), keep_going)?;
        Ok(Halt::Start)
    }

    /// The last stop before `upper`, which has a checkpoint, by all cores; `None` where there are no
    /// two stretches to search.
    fn search_beside(
        &mut self,
        upper: Mark,
        stops: &Stops,
        keep_going: KeepGoing<'_>,
    ) -> Result<Option<Found>, TimelineError> {
        let mut pieces = Vec::new();
        let mut to = upper;
        while let Some(tick) = to.tick.checked_sub(1) {
            let kept = self.kept(tick);
            if !self.trails.rule_out(stops, kept, to) {
                pieces.push((kept, to));
            }
            to = Mark::at(kept);
        }
        let mut stretches = Vec::new();
        for (kept, to) in search::joined(&pieces) {
            let kept = self.bring(kept);
            let Some(from) = self.checkpoints.get(kept) else {
                return Ok(None);
            };
            let digest = self.stored.unproven(kept).map(|info| info.state);
            let digest = digest.filter(|_| from.is_stored());
            stretches.push(Stretch { from, digest, to });
        }
        if stretches.is_empty() {
            return Ok(Some(Found::Nothing));
        }
        if stretches.len() < 2 {
            return Ok(None);
        }
        let zero = self.checkpoints.zero();
        // The timeline's own machine has done most of what a machine has to do once: it takes part.
        while self.searchers.len() + 1 < search::threads().min(stretches.len()) {
            self.searchers.push(Searcher::beside(&self.walk.session));
        }
        let ours = Worker {
            walk: &mut self.walk,
            seat: self.checkpoints.seat(),
        };
        let theirs = self.searchers.iter_mut().map(Searcher::worker);
        let workers = iter::once(ours).chain(theirs).collect();
        let last = upper.tick;
        let mut told = |ticks: u64| keep_going(last.saturating_sub(ticks));
        let trails = &mut self.trails;
        search::search(workers, &stretches, stops, zero, trails, &mut told).map(Some)
    }

    /// Where the last checkpoint is that is not after a tick.
    fn kept(&self, tick: u64) -> u64 {
        let kept = self.checkpoints.at_or_before(tick);
        kept.max(self.stored.at_or_before(tick)).unwrap_or(0)
    }

    /// Goes to the last checkpoint that is not after a tick, and says which tick that is.
    fn go_back(&mut self, tick: u64) -> u64 {
        loop {
            let kept = self.bring(tick);
            if self.restore(kept) {
                self.checkpoints.thin(kept);
                return kept;
            }
        }
    }

    /// Brings the last checkpoint that is not after a tick into memory; says where it is.
    fn bring(&mut self, tick: u64) -> u64 {
        let pages = self.machine().core().ram.page_count();
        loop {
            let kept = self.checkpoints.at_or_before(tick).unwrap_or(0);
            match self.stored.at_or_before(tick).filter(|at| *at > kept) {
                None => return kept,
                Some(there) if self.stored.load(there, &mut self.checkpoints, pages) => {
                    return there;
                }
                Some(_) => {}
            }
        }
    }

    /// Goes to a checkpoint in memory. `false` if it is not the state that the recording had.
    fn restore(&mut self, tick: u64) -> bool {
        let Some(checkpoint) = self.checkpoints.restore(tick, self.walk.machine()) else {
            return false;
        };
        let digest = self.stored.unproven(tick).map(|info| info.state);
        let digest = digest.filter(|_| checkpoint.is_stored());
        match self.walk.restored(&checkpoint, digest) {
            None => self.stored.prove(tick),
            Some(why) => {
                self.refuse(tick, why);
                return false;
            }
        }
        true
    }

    /// The checkpoint at a tick is not to be used any more.
    fn refuse(&mut self, tick: u64, why: &str) {
        self.checkpoints.forget(tick);
        self.stored.refuse(tick, why);
    }

    /// Runs forward to `target`, or to a stop before it if they count.
    fn run(
        &mut self,
        target: Mark,
        stops: bool,
        planned: Vec<u64>,
        keep_going: KeepGoing<'_>,
    ) -> Result<Ran, TimelineError> {
        let mut keeping = Keeping {
            checkpoints: &mut self.checkpoints,
            stored: &self.stored,
            planned,
            keep_going,
        };
        let stops = stops.then_some(&self.stops);
        self.walk.run(target, stops, &mut keeping)
    }
}
