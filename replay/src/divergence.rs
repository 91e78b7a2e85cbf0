//! Comparing a replay with its recording, and saying precisely where they first disagree.

use std::collections::VecDeque;
use std::fmt;

use colinux_driver::jit::Tier;
use colinux_tracer::{Cursor, Event, Reader, StateDigest, TraceError};

use crate::error::ReplayError;
use crate::runner::EventSink;
use crate::session::{Progress, Session};

/// Events kept from before a divergence.
const CONTEXT_EVENTS: usize = 8;

/// What a comparison of everything found.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// The replay is the recording.
    Same(Compared),
    /// It is not.
    Diverged(Box<Divergence>),
}

/// How much was compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// The last tick.
    pub tick: u64,
    /// Events.
    pub events: u64,
    /// Digests of the whole state, the last one included.
    pub digests: u64,
    /// The recording was cut off; it was compared up to the cut.
    pub cut: bool,
}

/// The first disagreement.
#[derive(Clone, Debug)]
pub struct Divergence {
    /// Where.
    pub tick: u64,
    /// What differs.
    pub what: Difference,
    /// The events just before, on which both agree.
    pub before: Vec<(u64, Event)>,
    /// The instruction the replay was at.
    pub rip: u64,
    /// The kernel function that instruction is in, if it is known.
    pub function: Option<String>,
}

/// A kind of disagreement.
#[derive(Clone, Debug, PartialEq)]
pub enum Difference {
    /// Another event than the recorded one.
    Event {
        /// In the recording; none if it has no more.
        expected: Option<(u64, Event)>,
        /// In the replay; none if it ended.
        actual: Option<(u64, Event)>,
    },
    /// The state at the end has another digest.
    FinalDigest {
        /// In the recording.
        expected: StateDigest,
        /// In the replay.
        actual: StateDigest,
    },
    /// The end came at another tick.
    FinalTick {
        /// In the recording.
        expected: u64,
        /// In the replay.
        actual: u64,
    },
    /// The replay could not go on.
    Stuck(String),
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the replay diverges at tick @{}, rip {:#x}",
            self.tick, self.rip
        )?;
        match &self.function {
            Some(function) => writeln!(f, " in {function}")?,
            None => writeln!(f)?,
        }
        let side =
            |f: &mut fmt::Formatter<'_>, name: &str, event: &Option<(u64, Event)>| match event {
                Some((tick, event)) => writeln!(f, "  {name} @{tick} {event:?}"),
                None => writeln!(f, "  {name} nothing more"),
            };
        match &self.what {
            Difference::Event { expected, actual } => {
                side(f, "expected", expected)?;
                side(f, "actual  ", actual)?;
            }
            Difference::FinalDigest { expected, actual } => {
                writeln!(f, "  expected final state {expected}")?;
                writeln!(f, "  actual   final state {actual}")?;
            }
            Difference::FinalTick { expected, actual } => {
                writeln!(f, "  expected the end at @{expected}")?;
                writeln!(f, "  actual   end at @{actual}")?;
            }
            Difference::Stuck(why) => writeln!(f, "  {why}")?,
        }
        if !self.before.is_empty() {
            writeln!(f, "the events before:")?;
            for (tick, event) in &self.before {
                writeln!(f, "  @{tick} {event:?}")?;
            }
        }
        Ok(())
    }
}

/// Compares events as they come with those in the file.
struct Comparing {
    expected: Cursor,
    before: VecDeque<(u64, Event)>,
    found: Option<Difference>,
    at: u64,
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

/// Replays a recording and compares everything. `progress` is told the tick now and then, and ends
/// the comparison by returning false.
pub fn verify(
    reader: &Reader,
    tier: Tier,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<Option<Verdict>, ReplayError> {
    let mut session = Session::open(reader)?;
    session.runner_mut().machine_mut().set_tier(tier);
    // Whatever is missing from the file, what is there is compared.
    let cut = session.end().is_none() || reader.recovery().is_some();
    let mut comparing = Comparing {
        expected: reader.events(),
        before: VecDeque::new(),
        found: None,
        at: 0,
        exhausted: false,
        compared: Compared {
            cut,
            ..Compared::default()
        },
        let_go: 0,
    };
    let what = loop {
        let step = session.advance(u64::MAX, &mut comparing)?;
        // Nobody reads the console here.
        session.runner_mut().machine_mut().take_console();
        if let Some(what) = comparing.found.take() {
            break Some(what);
        }
        match step {
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
    let what = match what {
        Some(what) => Some(what),
        None => {
            comparing.at = tick;
            compare_end(&mut session, &mut comparing)?
        }
    };
    comparing.compared.tick = tick;
    let rip = session.runner().machine().core().cpu.rip;
    Ok(Some(match what {
        None => Verdict::Same(comparing.compared),
        Some(what) => Verdict::Diverged(Box::new(Divergence {
            tick: comparing.at,
            what,
            before: comparing.before.into(),
            rip,
            function: session
                .runner()
                .hooks()
                .and_then(|hooks| hooks.name_of(rip)),
        })),
    }))
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
