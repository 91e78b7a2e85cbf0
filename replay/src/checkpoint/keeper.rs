//! Keeping checkpoints in the file while recording.
//!
//! The vCPU's thread copies the pages that were written, and nothing more; what they come to in the
//! file is worked out on the writer's thread.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use colinux_driver::machine::Machine;
use colinux_driver::mem::addr::{Gpa, PAGE_SIZE};
use colinux_tracer::{TraceError, Trail, Writer};

use super::encode::{ANCHOR, Encoder, Image, Written};
use super::form::Body;
use super::pages::{PAGE, take_dirty};
use crate::runner::Runner;
use crate::trails::noted;

/// Ticks between checkpoints at the beginning of a recording, unless asked otherwise.
pub(crate) const INTERVAL_TICKS: u64 = 50_000_000;
/// In a long recording they lie so many times closer together than power-on is away.
const SPREAD: u64 = 64;
/// A chain of checkpoints, each relative to the one before, may hold so many times the pages that
/// were written since the anchor: then the next is relative to that, so that none is far from it.
const CHAIN_FACTOR: usize = 3;
/// No chain is ended before it holds so many pages.
const CHAIN_PAGES_MIN: usize = 64 << 10;

/// A replay runs so far in a millisecond.
const NEAR_TICKS: u64 = 1_000_000;

/// How far apart checkpoints are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interval {
    /// Close together at first, then in proportion to the length of the recording.
    #[default]
    Spread,
    /// So many ticks.
    Every(u64),
    /// None but what is asked for.
    Never,
}

impl Interval {
    /// The tick of the next one after `tick`, a multiple of the interval where it has one.
    fn after(self, tick: u64) -> u64 {
        let every = match self {
            Interval::Spread => {
                let wanted = (tick / SPREAD).max(1);
                wanted.div_ceil(INTERVAL_TICKS) * INTERVAL_TICKS
            }
            Interval::Every(ticks) => ticks.max(1),
            Interval::Never => return u64::MAX,
        };
        (tick / every + 1).saturating_mul(every)
    }
}

/// An [`Encoder`], and what it is made of once it is needed.
#[derive(Debug)]
struct Encoding {
    image: Image,
    initrd: Option<(u64, u64)>,
    pages: usize,
    encoder: Option<Encoder>,
}

impl Encoding {
    fn encoder(&mut self) -> &mut Encoder {
        let image = &mut self.image;
        self.encoder
            .get_or_insert_with(|| Encoder::new(self.pages, std::mem::take(image), self.initrd))
    }
}

/// Takes checkpoints of a machine that is being recorded.
#[derive(Debug)]
pub(crate) struct Keeper {
    interval: Interval,
    next: u64,
    id: u32,
    /// How many were taken.
    taken: u32,
    anchor: Option<u32>,
    parent: Option<u32>,
    /// The next one tells all pages, whatever was written since power-on.
    all: bool,
    /// Pages in the checkpoints of the chain.
    chain: usize,
    /// Pages written since the anchor, one bit each.
    written: Vec<u64>,
    last: Option<u64>,
    /// Where the trail of the guest begins that is not stored yet.
    trail_from: u64,
    encoding: Arc<Mutex<Encoding>>,
    /// Buffers that were used before: fresh memory costs more than what is copied into it.
    spare: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Keeper {
    /// For a machine at power-on, whose RAM holds these segments.
    pub(crate) fn new(
        machine: &mut Machine,
        segments: Vec<(Gpa, Bytes)>,
        initrd: Option<std::ops::Range<Gpa>>,
    ) -> Self {
        let ram = &machine.core().ram;
        let offset = |gpa: Gpa| ram.offset(gpa).map(|at| at as u64);
        let initrd = initrd.and_then(|r| Some((offset(r.start)?, offset(Gpa(r.end.0 - 1))? + 1)));
        let image = segments
            .into_iter()
            .filter_map(|(gpa, bytes)| Some((offset(gpa)?, bytes)));
        let pages = ram.page_count();
        let encoding = Encoding {
            image: image.collect(),
            initrd,
            pages,
            encoder: None,
        };
        // What the loader put there is not written by the guest.
        take_dirty(machine);
        machine.leave_trail();
        Keeper {
            interval: Interval::default(),
            next: Interval::default().after(0),
            id: 0,
            taken: 0,
            anchor: None,
            parent: None,
            all: false,
            chain: 0,
            written: vec![0; pages.div_ceil(64)],
            last: None,
            trail_from: 0,
            encoding: Arc::new(Mutex::new(encoding)),
            spare: Arc::default(),
        }
    }

    /// For a machine that goes on at a tick, after other checkpoints than its own.
    pub(crate) fn going_on(machine: &mut Machine, image: Image, id: u32, tick: u64) -> Self {
        let mut keeper = Self::new(machine, Vec::new(), None);
        let encoding = Encoding {
            image,
            initrd: None,
            pages: machine.core().ram.page_count(),
            encoder: None,
        };
        keeper.encoding = Arc::new(Mutex::new(encoding));
        keeper.id = id;
        keeper.all = true;
        keeper.last = Some(tick);
        keeper.trail_from = tick;
        keeper
    }

    pub(crate) fn set_interval(&mut self, interval: Interval) {
        self.interval = interval;
        self.next = interval.after(self.last.unwrap_or(0));
    }

    /// Whether one was taken so shortly before a tick that another is of no use.
    pub(crate) fn is_near(&self, tick: u64) -> bool {
        let since = self.last.map(|last| tick.saturating_sub(last));
        since.is_some_and(|since| since < NEAR_TICKS)
    }

    /// The tick at which the next one is to be taken.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Takes one of the machine as it is, which has been given so many inputs and has made so many
    /// events, unless there is one.
    pub(crate) fn take(
        &mut self,
        runner: &mut Runner,
        given: (u64, u64),
        writer: &mut Writer,
    ) -> Result<(), TraceError> {
        let tick = runner.tick();
        self.next = self.interval.after(tick);
        if self.last == Some(tick) || self.interval == Interval::Never || tick == 0 {
            return Ok(());
        }
        self.last = Some(tick);
        let digest = runner.digest();
        let mut numbers = take_dirty(runner.machine_mut());
        let trail = self.trail(runner.machine_mut(), tick, &numbers);
        let mut anew = false;
        if std::mem::take(&mut self.all) {
            let ram = &runner.machine().core().ram;
            numbers = (0..ram.page_count()).collect();
            numbers.retain(|page| ram.is_allocated(*page));
        }
        if let Some(anchor) = self.anchor {
            for page in &numbers {
                self.written[page / 64] |= 1 << (page % 64);
            }
            let ever = self.written.iter().map(|word| word.count_ones() as usize);
            let most = (CHAIN_FACTOR * ever.sum::<usize>()).max(CHAIN_PAGES_MIN);
            anew = self.chain + numbers.len() > most;
            if anew {
                self.parent = Some(anchor);
            }
        }
        if anew {
            self.chain = 0;
            let bits = 0..self.written.len() * 64;
            numbers = bits
                .filter(|page| self.written[page / 64] >> (page % 64) & 1 != 0)
                .collect();
        }
        self.chain += numbers.len();
        let ram = &runner.machine().core().ram;
        let spare = self
            .spare
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let mut written = Written {
            anew,
            bytes: spare.unwrap_or_default(),
            ..Written::default()
        };
        written.bytes.reserve_exact(numbers.len() * PAGE);
        for page in numbers.into_iter().filter(|page| ram.is_allocated(*page)) {
            written.numbers.push(page as u32);
            written.bytes.extend_from_slice(ram.page_bytes(page));
        }
        let hooks = runner
            .hooks()
            .map(|hooks| hooks.state())
            .unwrap_or_default();
        let body = Body::new(self.parent, given, hooks, runner.machine().state());
        let (encoding, spare) = (Arc::clone(&self.encoding), Arc::clone(&self.spare));
        let id = self.id;
        self.parent = Some(id);
        if self.taken == ANCHOR {
            self.anchor = Some(id);
        }
        self.taken += 1;
        self.id += 1;
        let bytes = move || {
            let mut encoding = encoding.lock().unwrap_or_else(PoisonError::into_inner);
            let bytes = encoding.encoder().encode(body, &written);
            let mut buffer = written.bytes;
            buffer.clear();
            spare
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(buffer);
            bytes
        };
        writer.checkpoint_later(tick, id, digest, Box::new(bytes))?;
        trail.map_or(Ok(()), |trail| writer.trail(trail))
    }

    /// What the guest used since the last one; these are the pages of RAM that were written.
    fn trail(&mut self, machine: &mut Machine, tick: u64, changed: &[usize]) -> Option<Trail> {
        let from = std::mem::replace(&mut self.trail_from, tick);
        let used = machine.take_trail()?;
        let ram = &machine.core().ram;
        let number = |page: &usize| ram.gpa(page * PAGE).0 / PAGE_SIZE;
        Some(Trail {
            changed: Some(changed.iter().map(number).collect()),
            ..noted(from, tick, used)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_spread_ever_further_apart() {
        let ticks = |interval: Interval, until| {
            let mut ticks = vec![interval.after(0)];
            while let Some(last) = ticks.last().filter(|last| **last < until) {
                ticks.push(interval.after(*last));
            }
            ticks
        };
        let near = ticks(Interval::Spread, SPREAD * INTERVAL_TICKS);
        assert_eq!((near[0], near[1]), (INTERVAL_TICKS, 2 * INTERVAL_TICKS));
        assert_eq!(near.len() as u64, SPREAD);
        let far = ticks(Interval::Spread, 100_000_000_000);
        assert!(far.len() < 500, "{}", far.len());
        assert_eq!(ticks(Interval::Every(7), 20), [7, 14, 21]);
        assert_eq!(Interval::Never.after(5), u64::MAX);
    }
}
