//! Looking for the last stop in many stretches of a recording at once.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use colinux_tracer::{StateDigest, Trail};

use crate::checkpoint::{Checkpoint, Page, Seat};
use crate::session::Session;
use crate::timeline::{Mark, TimelineError};
use crate::trails::{Trails, noted};
use crate::walk::{Looking, Walk};
use crate::watch::{Halt, Stops};

/// Stops as near as this are looked for by one thread alone.
pub(crate) const NEAR_TICKS: u64 = 16_000_000;
/// How often it is asked whether to go on.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// From a checkpoint to where the next stretch begins.
#[derive(Clone, Debug)]
pub(crate) struct Stretch {
    pub(crate) from: Arc<Checkpoint>,
    /// The digest that its state is to have, if nobody has looked yet.
    pub(crate) digest: Option<StateDigest>,
    pub(crate) to: Mark,
}

/// A machine of its own for a thread that searches.
#[derive(Debug)]
pub(crate) struct Searcher {
    walk: Walk,
    seat: Seat,
}

/// A machine that is lent for a search.
pub(crate) struct Worker<'a> {
    pub(crate) walk: &'a mut Walk,
    pub(crate) seat: &'a mut Seat,
}

/// What was found.
pub(crate) enum Found {
    Stop(Mark, Halt),
    Nothing,
    Interrupted,
    /// The checkpoint at this tick is not what it claims to be.
    Unfit(u64, &'static str),
}

/// What the threads share.
struct Shared<'a> {
    stretches: &'a [Stretch],
    stops: &'a Stops,
    zero: Page,
    next: AtomicUsize,
    /// The first stretch, in their order, in which something was found.
    best: AtomicUsize,
    over: AtomicBool,
    ticks: AtomicU64,
    found: Mutex<Option<(usize, Found)>>,
    /// What was found out about stretches.
    trails: Mutex<Vec<Trail>>,
}

struct Watcher<'a>(&'a Shared<'a>, usize, u64);

impl Looking for Watcher<'_> {
    fn look(&mut self, session: &mut Session, _: u64) -> bool {
        let tick = session.runner().tick();
        let before = std::mem::replace(&mut self.2, tick);
        let ran = tick.saturating_sub(before);
        self.0.ticks.fetch_add(ran, Ordering::Relaxed);
        !self.0.is_over(self.1)
    }
}

impl Shared<'_> {
    /// Whether what may be found in a stretch is of no interest any more.
    fn is_over(&self, at: usize) -> bool {
        self.over.load(Ordering::Acquire) || self.best.load(Ordering::Acquire) <= at
    }

    fn tell(&self, at: usize, what: Found) {
        self.best.fetch_min(at, Ordering::AcqRel);
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.as_ref().is_none_or(|(other, _)| *other > at) {
            *found = Some((at, what));
        }
    }

    /// One thread: takes one stretch after the other.
    fn work(&self, worker: Worker<'_>) -> Result<(), TimelineError> {
        let Worker { walk, seat } = worker;
        loop {
            let at = self.next.fetch_add(1, Ordering::AcqRel);
            let Some(stretch) = self.stretches.get(at) else {
                return Ok(());
            };
            if self.is_over(at) {
                return Ok(());
            }
            let from = &stretch.from;
            let go_on = || !self.is_over(at);
            if !seat.put_back_while(&from.pages, &self.zero, walk.machine(), &go_on) {
                walk.lost();
                return Ok(());
            }
            walk.machine().restore(&from.state);
            let tick = from.state.tick.0;
            if let Some(why) = walk.restored(from, stretch.digest) {
                self.tell(at, Found::Unfit(tick, why));
                return Ok(());
            }
            walk.machine().leave_trail();
            let mut watcher = Watcher(self, at, tick);
            let found = match walk.last_stop(stretch.to, self.stops, &mut watcher) {
                Ok(found) => found,
                Err(None) => continue,
                Err(Some(error)) => return Err(error),
            };
            if let Some(used) = walk.machine().take_trail() {
                let mut trails = self.trails.lock().unwrap_or_else(PoisonError::into_inner);
                trails.push(noted(tick, stretch.to.tick, used));
            }
            if let Some((mark, halt)) = found {
                self.tell(at, Found::Stop(mark, halt));
            }
        }
    }
}

impl Searcher {
    /// A machine beside that of a session.
    pub(crate) fn beside(session: &Session) -> Self {
        Searcher {
            walk: Walk::new(session.fork()),
            seat: Seat::default(),
        }
    }

    pub(crate) fn worker(&mut self) -> Worker<'_> {
        Worker {
            walk: &mut self.walk,
            seat: &mut self.seat,
        }
    }
}

/// Joins neighbours among the pieces that are to be searched, from a tick to a place, the latest
/// first. The latest stretches are short, since there the stop is wanted; the others longer and
/// longer, since going on costs less than going elsewhere.
pub(crate) fn joined(pieces: &[(u64, Mark)]) -> Vec<(u64, Mark)> {
    let most = (pieces.len() / (3 * threads())).max(1);
    let mut joined: Vec<(u64, Mark)> = Vec::new();
    let (mut count, mut size) = (0, 1);
    for (from, to) in pieces {
        match joined.last_mut() {
            Some(last) if count < size && *to == Mark::at(last.0) => {
                last.0 = *from;
                count += 1;
            }
            _ => {
                joined.push((*from, *to));
                count = 1;
                if joined.len() > 1 && joined.len() % threads() == 1 % threads() {
                    size = (size * 2).min(most);
                }
            }
        }
    }
    joined
}

/// How many threads are worth starting.
pub(crate) fn threads() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// The last stop in these stretches, the latest of which is the first. `keep_going` is told how many
/// ticks have been searched.
pub(crate) fn search(
    workers: Vec<Worker<'_>>,
    stretches: &[Stretch],
    stops: &Stops,
    zero: Page,
    trails: &mut Trails,
    keep_going: &mut dyn FnMut(u64) -> bool,
) -> Result<Found, TimelineError> {
    let shared = Shared {
        stretches,
        stops,
        zero,
        next: AtomicUsize::new(0),
        best: AtomicUsize::new(usize::MAX),
        over: AtomicBool::new(false),
        ticks: AtomicU64::new(0),
        found: Mutex::new(None),
        trails: Mutex::default(),
    };
    let (done, wait) = mpsc::channel();
    let outcome = thread::scope(|scope| {
        for worker in workers {
            let (shared, done): (_, Sender<_>) = (&shared, done.clone());
            scope.spawn(move || {
                let outcome = shared.work(worker);
                if outcome.is_err() {
                    shared.over.store(true, Ordering::Release);
                }
                let _ = done.send(outcome);
            });
        }
        drop(done);
        let mut outcome = Ok(());
        loop {
            match wait.recv_timeout(ASK_EVERY) {
                Ok(one) => outcome = outcome.and(one),
                Err(RecvTimeoutError::Timeout) => {
                    if !keep_going(shared.ticks.load(Ordering::Relaxed)) {
                        shared.over.store(true, Ordering::Release);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return outcome,
            }
        }
    });
    let known = shared.trails.into_inner();
    for trail in known.unwrap_or_else(PoisonError::into_inner) {
        trails.add(trail);
    }
    outcome?;
    let over = shared.over.load(Ordering::Acquire);
    let found = shared.found.into_inner();
    Ok(match found.unwrap_or_else(PoisonError::into_inner) {
        _ if over => Found::Interrupted,
        Some((_, found)) => found,
        None => Found::Nothing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_grow_and_leave_nothing_out() {
        for count in [1, 2, 7, 55, 1000] {
            // All but every seventh.
            let pieces = (0..count).rev().filter(|n| n % 7 != 3);
            let pieces: Vec<(u64, Mark)> = pieces.map(|n| (n, Mark::at(n + 1))).collect();
            let stretches = joined(&pieces);
            assert_eq!(stretches[0], pieces[0], "{count}");
            let ticks = stretches.iter().rev().flat_map(|(from, to)| *from..to.tick);
            let wanted = pieces.iter().rev().map(|(from, _)| *from);
            assert!(ticks.eq(wanted), "{count}: {stretches:?}");
        }
        let all: Vec<(u64, Mark)> = (0..1000).rev().map(|n| (n, Mark::at(n + 1))).collect();
        assert!(joined(&all).len() < 100);
    }
}
