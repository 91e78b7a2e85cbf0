//! Replaying a recording and comparing everything: from power-on to the end, or in several parts at
//! once, each from a checkpoint to another.

mod state;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use colinux_driver::jit::Tier;
use colinux_tracer::{Cursor, Event, EventKind, EventMask, Reader, StateDigest, TraceError};

use crate::checkpoint::stored::Stored;
use crate::checkpoint::{Checkpoint, Checkpoints, Keep};
use crate::divergence::{Compared, Difference, Divergence, Verdict};
use crate::error::ReplayError;
use crate::hooks::HookState;
use crate::runner::EventSink;
use crate::session::{Progress, Session};

/// Events kept from before a divergence.
const CONTEXT_EVENTS: usize = 8;
/// How often it is asked whether to go on.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// Compares events as they come with those in the file.
struct Comparing {
    expected: Cursor,
    before: VecDeque<(u64, Event)>,
    found: Option<Difference>,
    at: u64,
    /// The last tick at which a digest was the same.
    same_at: u64,
    exhausted: bool,
    compared: Compared,
    /// Events of the replay that the recording let go and only counted.
    let_go: u64,
}

/// What the recording has next.
enum Next {
    Event(u64, Event),
    LetGo(u64),
    Nothing,
}

impl Comparing {
    /// The next recorded event that a replay produces, or a number of them.
    fn next(&mut self) -> Result<Next, TraceError> {
        for row in self.expected.by_ref() {
            let row = row?;
            match row.event {
                Event::Lost { count, .. } => return Ok(Next::LetGo(count)),
                // Notes about the recording itself: a replay does not make them.
                Event::Counters { .. } => {}
                event => return Ok(Next::Event(row.tick, event)),
            }
        }
        Ok(Next::Nothing)
    }
}

impl EventSink for Comparing {
    fn event(&mut self, tick: u64, event: Event) -> Result<(), ReplayError> {
        if self.found.is_some() || self.exhausted {
            return Ok(());
        }
        while self.let_go == 0 {
            match self.next()? {
                Next::LetGo(count) => self.let_go = count,
                Next::Event(at, expected) => {
                    self.compare((at, expected), (tick, event));
                    return Ok(());
                }
                Next::Nothing if self.compared.cut => {
                    self.exhausted = true;
                    return Ok(());
                }
                Next::Nothing => {
                    self.at = tick;
                    let actual = Some((tick, event));
                    self.found = Some(Difference::Event {
                        expected: None,
                        actual,
                    });
                    return Ok(());
                }
            }
        }
        self.let_go -= 1;
        Ok(())
    }
}

impl Comparing {
    fn compare(&mut self, expected: (u64, Event), actual: (u64, Event)) {
        if expected == actual {
            self.compared.events += 1;
            if matches!(actual.1, Event::DigestPoint { .. }) {
                self.compared.digests += 1;
                self.same_at = actual.0;
            }
            if self.before.len() == CONTEXT_EVENTS {
                self.before.pop_front();
            }
            self.before.push_back(actual);
            return;
        }
        self.at = expected.0.min(actual.0);
        self.found = Some(Difference::Event {
            expected: Some(expected),
            actual: Some(actual),
        });
    }
}

/// A part of a recording: from a checkpoint, or power-on, to another one, or the end.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    from: Option<u64>,
    to: Option<u64>,
}

/// A session at power-on with what is needed to put it elsewhere.
pub(crate) struct Opened {
    pub(crate) session: Session,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) stored: Stored,
}

impl Opened {
    pub(crate) fn open(reader: &Reader, tier: Tier) -> Result<Self, ReplayError> {
        let mut session = Session::open(reader)?;
        session.runner_mut().machine_mut().set_tier(tier);
        Ok(Opened {
            session,
            checkpoints: Checkpoints::new(u64::MAX),
            stored: Stored::open(reader),
        })
    }

    /// The checkpoint at a tick; the machine must be at power-on still, or have been put elsewhere by
    /// this.
    pub(crate) fn checkpoint(&mut self, tick: u64) -> Option<Arc<Checkpoint>> {
        let machine = self.session.runner_mut().machine_mut();
        if !self.checkpoints.has(0) {
            let hooks = HookState::default();
            self.checkpoints.take(machine, 0, hooks, Keep::Grid);
        }
        let pages = machine.core().ram.page_count();
        let loaded = self.stored.load(tick, &mut self.checkpoints, pages);
        loaded.then(|| self.checkpoints.get(tick))?
    }
}

/// Replays a recording and compares everything. `progress` is told the tick now and then, and ends
/// the comparison by returning false.
pub fn verify(
    reader: &Reader,
    tier: Tier,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<Option<Verdict>, ReplayError> {
    verify_part(reader, tier, Part::default(), progress)
}

/// The same on several threads, where the recording has checkpoints to begin at.
pub fn verify_on(
    threads: usize,
    reader: &Reader,
    tier: Tier,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<Option<Verdict>, ReplayError> {
    let parts = parts(reader, threads)?;
    if parts.len() < 2 {
        return verify(reader, tier, progress);
    }
    let (over, ticks) = (AtomicBool::new(false), AtomicU64::new(0));
    let (done, wait) = mpsc::channel();
    let mut verdicts: Vec<_> = parts.iter().map(|_| None).collect();
    thread::scope(|scope| {
        for (number, part) in parts.iter().enumerate() {
            let (done, over, ticks) = (done.clone(), &over, &ticks);
            scope.spawn(move || {
                let mut last = part.from.unwrap_or(0);
                let mut go_on = |tick: u64| {
                    ticks.fetch_add(tick.saturating_sub(last), Ordering::Relaxed);
                    last = tick;
                    !over.load(Ordering::Relaxed)
                };
                let verdict = verify_part(reader, tier, *part, &mut go_on);
                let _ = done.send((number, verdict));
            });
        }
        drop(done);
        loop {
            match wait.recv_timeout(ASK_EVERY) {
                Ok((number, verdict)) => verdicts[number] = Some(verdict),
                Err(RecvTimeoutError::Timeout) => {
                    if !progress(ticks.load(Ordering::Relaxed)) {
                        over.store(true, Ordering::Relaxed);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    });
    let mut all = Compared::default();
    for verdict in verdicts.into_iter().flatten() {
        match verdict? {
            None => return Ok(None),
            // The first part that differs is the one that matters.
            Some(Verdict::Diverged(divergence)) => return Ok(Some(Verdict::Diverged(divergence))),
            Some(Verdict::Same(part)) => {
                all.tick = all.tick.max(part.tick);
                all.events += part.events;
                all.digests += part.digests;
            }
        }
    }
    Ok(Some(Verdict::Same(all)))
}

/// About equal parts of a recording that is whole.
fn parts(reader: &Reader, threads: usize) -> Result<Vec<Part>, ReplayError> {
    let lost = EventMask::of(&[EventKind::Lost]);
    let whole = reader.is_complete() && reader.events().with_kinds(lost).next().is_none();
    let Some(end) = reader.end()?.filter(|_| whole) else {
        return Ok(Vec::new());
    };
    // Those at alarms are no places to begin: the alarm would be raised once more.
    let alarms = EventMask::of(&[EventKind::Oops, EventKind::Panic]);
    let alarms = reader.events().with_kinds(alarms);
    let alarms = alarms.map(|row| row.map(|row| row.tick));
    let alarms = alarms.collect::<Result<BTreeSet<u64>, _>>()?;
    let mut ticks: Vec<u64> = match reader.checkpoints() {
        Ok(infos) => infos.iter().map(|info| info.tick).collect(),
        Err(_) => return Ok(Vec::new()),
    };
    ticks.retain(|tick| !alarms.contains(tick));
    let threads = threads as u64;
    let wanted = (1..threads).map(|n| end.tick / threads * n);
    let nearest = wanted.filter_map(|at| ticks.iter().copied().min_by_key(|t| t.abs_diff(at)));
    let mut cuts: Vec<u64> = nearest.filter(|at| *at < end.tick).collect();
    cuts.dedup();
    let from = [None].into_iter().chain(cuts.iter().map(|at| Some(*at)));
    let to = cuts.iter().map(|at| Some(*at)).chain([None]);
    Ok(from.zip(to).map(|(from, to)| Part { from, to }).collect())
}

fn verify_part(
    reader: &Reader,
    tier: Tier,
    part: Part,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<Option<Verdict>, ReplayError> {
    let mut opened = Opened::open(reader, tier)?;
    // Whatever is missing from the file, what is there is compared.
    let cut = opened.session.end().is_none() || reader.recovery().is_some();
    let mut comparing = Comparing {
        expected: reader.events(),
        before: VecDeque::new(),
        found: None,
        at: 0,
        same_at: 0,
        exhausted: false,
        compared: Compared {
            cut,
            ..Compared::default()
        },
        let_go: 0,
    };
    let goal = match part.to.map(|to| opened.checkpoint(to)) {
        Some(None) => return from_power_on(reader, tier, progress),
        goal => goal.flatten(),
    };
    if let Some(from) = part.from {
        let Some(start) = opened.checkpoint(from) else {
            return from_power_on(reader, tier, progress);
        };
        let machine = opened.session.runner_mut().machine_mut();
        if opened.checkpoints.restore(from, machine).is_none() {
            return from_power_on(reader, tier, progress);
        }
        opened.session.restored(&start);
        comparing.expected.seek_number(start.events)?;
        comparing.same_at = from;
    }
    let until = part.to.unwrap_or(u64::MAX);
    let session = &mut opened.session;
    let what = loop {
        let step = session.advance(until, &mut comparing)?;
        // Nobody reads the console here.
        session.runner_mut().machine_mut().take_console();
        if let Some(what) = comparing.found.take() {
            break Some(what);
        }
        match step {
            Progress::Reached if part.to.is_some() => break None,
            Progress::More | Progress::Reached => {}
            Progress::End(_) => break None,
            Progress::Lost(why) => {
                comparing.at = session.runner().tick();
                break Some(Difference::Stuck(why));
            }
        }
        if !progress(session.runner().tick()) {
            return Ok(None);
        }
    };
    let tick = session.runner().tick();
    let what = match (what, &goal) {
        (Some(what), _) => Some(what),
        (None, Some(goal)) => {
            comparing.at = tick;
            let expected = opened.stored.unproven(goal.state.tick.0).map(|i| i.state);
            compare_goal(session, &mut comparing, goal, expected)?
        }
        (None, None) => {
            comparing.at = tick;
            compare_end(session, &mut comparing)?
        }
    };
    comparing.compared.tick = tick;
    let rip = session.runner().machine().core().cpu.rip;
    let Some(what) = what else {
        return Ok(Some(Verdict::Same(comparing.compared)));
    };
    let names = session.runner().hooks();
    let function = names.and_then(|hooks| hooks.name_of(rip));
    let tick = comparing.at;
    let state = state::differing_state(reader, session, tick)?;
    Ok(Some(Verdict::Diverged(Box::new(Divergence {
        tick,
        what,
        before: comparing.before.into(),
        rip,
        function,
        same_at: comparing.same_at,
        state,
    }))))
}

/// A checkpoint that a part was to begin or end at cannot be used.
fn from_power_on(
    reader: &Reader,
    tier: Tier,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<Option<Verdict>, ReplayError> {
    verify_part(reader, tier, Part::default(), progress)
}

/// At the checkpoint where a part ends: all events have come, and the state is the same.
fn compare_goal(
    session: &mut Session,
    comparing: &mut Comparing,
    goal: &Checkpoint,
    expected: Option<StateDigest>,
) -> Result<Option<Difference>, ReplayError> {
    if comparing.expected.number() < goal.events
        && let Next::Event(at, event) = comparing.next()?
    {
        comparing.at = at;
        return Ok(Some(Difference::Event {
            expected: Some((at, event)),
            actual: None,
        }));
    }
    let actual = session.runner_mut().digest();
    match expected {
        Some(expected) if expected != actual => Ok(Some(Difference::Digest { expected, actual })),
        _ => Ok(None),
    }
}

fn compare_end(
    session: &mut Session,
    comparing: &mut Comparing,
) -> Result<Option<Difference>, ReplayError> {
    let Some(end) = session.end().copied() else {
        return Ok(None);
    };
    let rest = if comparing.exhausted {
        Next::Nothing
    } else {
        comparing.next()?
    };
    if let Next::Event(at, expected) = rest {
        comparing.at = at;
        let expected = Some((at, expected));
        return Ok(Some(Difference::Event {
            expected,
            actual: None,
        }));
    }
    let tick = session.runner().tick();
    if end.tick != tick {
        return Ok(Some(Difference::FinalTick {
            expected: end.tick,
            actual: tick,
        }));
    }
    let actual = session.runner_mut().digest();
    if end.digest != actual {
        return Ok(Some(Difference::FinalDigest {
            expected: end.digest,
            actual,
        }));
    }
    comparing.compared.digests += 1;
    Ok(None)
}
