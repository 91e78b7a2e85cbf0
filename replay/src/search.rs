//! Looking for the last stop in many stretches of a recording at once.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use colinux_tracer::StateDigest;

use crate::checkpoint::{Checkpoint, Page, Seat};
use crate::session::Session;
use crate::timeline::{Mark, TimelineError};
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

/// A machine of its own for each thread that searches.
#[derive(Debug)]
pub(crate) struct Searcher {
    walk: Walk,
    seat: Seat,
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
}

struct Watcher<'a>(&'a Shared<'a>, usize, u64);

impl Looking for Watcher<'_> {
    fn look(&mut self, session: &mut Session, _: u64) -> bool {
        let tick = session.runner().tick();
        let before = std::mem::replace(&mut self.2, tick);
        let ran = tick.saturating_sub(before);
        self.0.ticks.fetch_add(ran, Ordering::Relaxed);
        !self.0.over.load(Ordering::Relaxed) && self.0.best.load(Ordering::Relaxed) > self.1
    }
}

impl Shared<'_> {
    fn tell(&self, at: usize, what: Found) {
        self.best.fetch_min(at, Ordering::AcqRel);
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if found.as_ref().is_none_or(|(other, _)| *other > at) {
            *found = Some((at, what));
        }
    }

    /// One thread: takes one stretch after the other.
    fn work(&self, searcher: &mut Searcher) -> Result<(), TimelineError> {
        loop {
            let at = self.next.fetch_add(1, Ordering::AcqRel);
            let Some(stretch) = self.stretches.get(at) else {
                return Ok(());
            };
            if at > self.best.load(Ordering::Acquire) || self.over.load(Ordering::Acquire) {
                return Ok(());
            }
            let walk = &mut searcher.walk;
            let from = &stretch.from;
            searcher
                .seat
                .put_back(&from.pages, &self.zero, walk.machine());
            walk.machine().restore(&from.state);
            let tick = from.state.tick.0;
            if let Some(why) = walk.restored(from, stretch.digest) {
                self.tell(at, Found::Unfit(tick, why));
                return Ok(());
            }
            let mut watcher = Watcher(self, at, tick);
            match walk.last_stop(stretch.to, self.stops, &mut watcher) {
                Ok(Some((mark, halt))) => self.tell(at, Found::Stop(mark, halt)),
                Ok(None) | Err(None) => {}
                Err(Some(error)) => return Err(error),
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
}

/// Where stretches are to begin, from the places where they can, the latest first. The latest are
/// short, since there the stop is wanted; the others longer and longer, since going on costs less than
/// going elsewhere.
pub(crate) fn beginnings(places: &[u64]) -> Vec<u64> {
    let most = (places.len() / (3 * threads())).max(1);
    let mut chosen = Vec::new();
    let (mut at, mut size) = (0, 1);
    while at < places.len() {
        let last = (at + size - 1).min(places.len() - 1);
        chosen.push(places[last]);
        at = last + 1;
        if chosen.len().is_multiple_of(threads()) {
            size = (size * 2).min(most);
        }
    }
    chosen
}

/// How many threads are worth starting.
pub(crate) fn threads() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// The last stop in these stretches, the latest of which is the first. `keep_going` is told how many
/// ticks have been searched.
pub(crate) fn search(
    searchers: &mut [Searcher],
    stretches: &[Stretch],
    stops: &Stops,
    zero: Page,
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
    };
    let (done, wait) = mpsc::channel();
    let outcome = thread::scope(|scope| {
        for searcher in searchers {
            let (shared, done): (_, Sender<_>) = (&shared, done.clone());
            scope.spawn(move || {
                let outcome = shared.work(searcher);
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
            let places: Vec<u64> = (0..count).rev().collect();
            let chosen = beginnings(&places);
            assert_eq!(chosen.last(), Some(&0), "{count}");
            assert_eq!(chosen[0], count - 1);
            assert!(chosen.is_sorted_by(|a, b| a > b));
        }
    }
}
