//! Checkpoints in memory: the state of a machine at a tick, kept for going back to.
//!
//! A checkpoint is the machine's state as a value plus one version of every page of RAM. Versions
//! are shared: a page that did not change between two checkpoints, or that is equal to another, is
//! kept once. Which pages changed is known from the machine's list of pages written since the last
//! checkpoint, so that taking one costs a copy of those pages and no more.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use colinux_driver::machine::Machine;
use colinux_driver::mem::addr::PAGE_SIZE;
use colinux_driver::snapshot::MachineState;
use xxhash_rust::xxh3::xxh3_128;

/// Pages in one piece of a table of pages: pieces are shared between checkpoints as well.
const PIECE_PAGES: usize = 512;
/// Host memory that checkpoints may take, unless asked otherwise.
pub const BUDGET_BYTES: u64 = 1 << 30;
/// Ticks between the checkpoints of a first pass.
pub const GRID_TICKS: u64 = 10_000_000;
/// Checkpoints near the cursor that are kept.
const LOCAL_MAX: usize = 24;

type Page = Arc<[u8]>;
/// The pages of RAM at one moment; `None` where nothing has been touched.
#[derive(Clone, Debug, Default)]
struct Pages(Vec<Arc<Vec<Option<Page>>>>);

impl Pages {
    fn get(&self, page: usize) -> Option<&Page> {
        self.0
            .get(page / PIECE_PAGES)?
            .get(page % PIECE_PAGES)?
            .as_ref()
    }

    fn set(&mut self, page: usize, version: Option<Page>) {
        let piece = page / PIECE_PAGES;
        if self.0.len() <= piece {
            let empty = Arc::new(vec![None; PIECE_PAGES]);
            self.0.resize(piece + 1, empty);
        }
        Arc::make_mut(&mut self.0[piece])[page % PIECE_PAGES] = version;
    }

    /// The pages whose version is another one.
    fn differing(&self, other: &Pages) -> Vec<usize> {
        let mut found = Vec::new();
        for piece in 0..self.0.len().max(other.0.len()) {
            let (ours, theirs) = (self.0.get(piece), other.0.get(piece));
            if let (Some(a), Some(b)) = (ours, theirs)
                && Arc::ptr_eq(a, b)
            {
                continue;
            }
            let first = piece * PIECE_PAGES;
            found.extend(
                (first..first + PIECE_PAGES).filter(|&page| !same(self.get(page), other.get(page))),
            );
        }
        found
    }
}

fn same(a: Option<&Page>, b: Option<&Page>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        _ => false,
    }
}

/// Page versions by content. Equal content has an equal 128-bit hash, and a collision among the
/// pages of one guest is less likely than a broken memory chip.
#[derive(Debug)]
struct Pool {
    versions: HashMap<u128, Weak<[u8]>>,
    zero: Page,
}

impl Pool {
    fn new() -> Self {
        Pool {
            versions: HashMap::new(),
            zero: Arc::from([0; PAGE_SIZE as usize].as_slice()),
        }
    }

    fn version(&mut self, bytes: &[u8], before: Option<&Page>) -> Page {
        if let Some(before) = before
            && **before == *bytes
        {
            return Arc::clone(before);
        }
        if *self.zero == *bytes {
            return Arc::clone(&self.zero);
        }
        let hash = xxh3_128(bytes);
        if let Some(known) = self.versions.get(&hash).and_then(Weak::upgrade) {
            return known;
        }
        let page: Page = Arc::from(bytes);
        self.versions.insert(hash, Arc::downgrade(&page));
        page
    }

    /// Forgets versions nobody has any more; says how many bytes the others take.
    fn sweep(&mut self) -> u64 {
        self.versions
            .retain(|_, version| version.strong_count() > 0);
        self.versions.len() as u64 * PAGE_SIZE
    }
}

/// Why a checkpoint is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// One of the even spread over the whole recording.
    Grid,
    /// Near a place that was visited; the number says how long ago.
    Local(u64),
}

#[derive(Debug)]
struct Checkpoint {
    state: MachineState,
    pages: Pages,
    /// Inputs the machine had been given.
    inputs: usize,
    keep: Keep,
}

impl Checkpoint {
    /// What it takes beside its pages, roughly.
    fn bytes(&self) -> u64 {
        8192 + self.state.tlb.translations.len() as u64 * 24
    }
}

/// The checkpoints of one machine.
#[derive(Debug)]
pub struct Checkpoints {
    by_tick: BTreeMap<u64, Checkpoint>,
    pool: Pool,
    /// What RAM held when the machine was last put beside a checkpoint; the machine's own list of
    /// written pages says what it may hold otherwise now.
    base: Pages,
    budget: u64,
    grid: u64,
    clock: u64,
}

impl Checkpoints {
    /// None yet; they may take so many bytes of host memory.
    pub fn new(budget: u64) -> Self {
        Checkpoints {
            by_tick: BTreeMap::new(),
            pool: Pool::new(),
            base: Pages::default(),
            budget,
            grid: GRID_TICKS,
            clock: 0,
        }
    }

    /// The ticks that have one.
    pub fn ticks(&self) -> impl Iterator<Item = u64> + '_ {
        self.by_tick.keys().copied()
    }

    /// Virtual time of each checkpoint, in nanoseconds, with its tick.
    pub fn times(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.by_tick
            .values()
            .map(|c| (c.state.clock.time_at(c.state.tick).0, c.state.tick.0))
    }

    /// Ticks between those of the even spread.
    pub fn grid(&self) -> u64 {
        self.grid
    }

    /// Whether this tick has one.
    pub fn has(&self, tick: u64) -> bool {
        self.by_tick.contains_key(&tick)
    }

    /// The last one that is not after this tick.
    pub fn at_or_before(&self, tick: u64) -> Option<u64> {
        self.by_tick
            .range(..=tick)
            .next_back()
            .map(|(tick, _)| *tick)
    }

    /// Takes one of the machine as it is, which has been given so many inputs.
    pub fn take(&mut self, machine: &mut Machine, inputs: usize, keep: Keep) {
        let tick = machine.tick().0;
        for page in take_dirty(machine) {
            let ram = &machine.core().ram;
            let version = ram
                .is_allocated(page)
                .then(|| self.pool.version(ram.page_bytes(page), self.base.get(page)));
            self.base.set(page, version);
        }
        let keep = match self.by_tick.get(&tick) {
            Some(known) if known.keep == Keep::Grid => Keep::Grid,
            _ => keep,
        };
        let pages = self.base.clone();
        self.by_tick.insert(
            tick,
            Checkpoint {
                state: machine.state(),
                pages,
                inputs,
                keep,
            },
        );
        self.thin(tick);
    }

    /// Puts the machine back to the checkpoint at a tick; says how many inputs it had been given.
    pub fn restore(&mut self, tick: u64, machine: &mut Machine) -> Option<usize> {
        self.clock += 1;
        let checkpoint = self.by_tick.get_mut(&tick)?;
        if let Keep::Local(used) = &mut checkpoint.keep {
            *used = self.clock;
        }
        let mut pages = self.base.differing(&checkpoint.pages);
        pages.extend(take_dirty(machine));
        pages.sort_unstable();
        pages.dedup();
        for page in pages {
            let version = checkpoint.pages.get(page);
            let bytes = version.unwrap_or(&self.pool.zero);
            machine
                .core_mut()
                .ram
                .restore_page(page, bytes, version.is_some());
        }
        machine.restore(&checkpoint.state);
        self.base = checkpoint.pages.clone();
        // Restoring is not writing.
        let _ = take_dirty(machine);
        Some(checkpoint.inputs)
    }

    /// What a new local checkpoint is kept as.
    pub fn local(&mut self) -> Keep {
        self.clock += 1;
        Keep::Local(self.clock)
    }

    /// Lets go of the least useful ones: far from the cursor first, and every other one of the
    /// spread. The first one stays.
    fn thin(&mut self, cursor: u64) {
        let mut locals: Vec<(u64, u64)> = self
            .by_tick
            .iter()
            .filter_map(|(tick, c)| match c.keep {
                Keep::Local(used) => Some((used, *tick)),
                Keep::Grid => None,
            })
            .collect();
        locals.sort_unstable();
        let surplus = locals.len().saturating_sub(LOCAL_MAX);
        for (_, tick) in &locals[..surplus] {
            self.by_tick.remove(tick);
        }
        // Counting what is still in use takes a look at all of it: only when it may matter.
        if self.most_bytes() <= self.budget {
            return;
        }
        while self.bytes() > self.budget && self.by_tick.len() > 4 {
            let oldest = locals.iter().map(|(_, tick)| *tick).find(|tick| {
                *tick != cursor && self.by_tick.get(tick).is_some_and(|c| c.keep != Keep::Grid)
            });
            if let Some(tick) = oldest {
                self.by_tick.remove(&tick);
                continue;
            }
            self.grid = self.grid.saturating_mul(2);
            let grid = self.grid;
            self.by_tick
                .retain(|tick, c| c.keep != Keep::Grid || tick.is_multiple_of(grid));
            if grid > u64::MAX / 4 {
                break;
            }
        }
    }

    /// No less than [`Checkpoints::bytes`], without counting.
    fn most_bytes(&self) -> u64 {
        self.pool.versions.len() as u64 * PAGE_SIZE + self.states()
    }

    /// What they take beside pages.
    fn states(&self) -> u64 {
        self.by_tick.values().map(Checkpoint::bytes).sum()
    }

    /// Bytes of host memory they take.
    pub fn bytes(&mut self) -> u64 {
        self.pool.sweep() + self.states()
    }
}

/// The pages the machine has written since the last call.
fn take_dirty(machine: &mut Machine) -> Vec<usize> {
    let core = machine.core_mut();
    let pages = core.ram.take_dirty_since_checkpoint();
    core.tlb.drop_writes();
    pages.into_iter().map(|page| page as usize).collect()
}

#[cfg(test)]
mod tests {
    use colinux_driver::machine::MachineConfig;

    use super::*;

    fn machine() -> Machine {
        Machine::empty(&MachineConfig {
            memory_bytes: 4 << 20,
            rtc_epoch_s: 0,
            ns_per_tick: 1,
            quantum_ticks: 1 << 20,
        })
    }

    fn write(machine: &mut Machine, page: usize, byte: u8) {
        machine
            .core_mut()
            .ram
            .restore_page(page, &[byte; PAGE_SIZE as usize], true);
    }

    fn put_at(machine: &mut Machine, tick: u64) {
        let mut state = machine.state();
        state.tick.0 = tick;
        machine.restore(&state);
    }

    #[test]
    fn pages_come_back_and_equal_ones_are_kept_once() {
        let mut machine = machine();
        let mut kept = Checkpoints::new(BUDGET_BYTES);
        let mut digests = Vec::new();
        for tick in 0..5u8 {
            put_at(&mut machine, tick.into());
            // Two pages of equal content, one that is zero again in the end, one untouched.
            write(&mut machine, 3, tick + 1);
            write(&mut machine, 700, tick + 1);
            write(&mut machine, 5, if tick == 4 { 0 } else { 9 });
            kept.take(&mut machine, tick.into(), Keep::Grid);
            digests.push(machine.digest());
        }
        assert_eq!(kept.pool.sweep(), 6 * PAGE_SIZE);
        for tick in [4, 0, 2, 2, 1, 3, 4] {
            write(&mut machine, 900, 7);
            assert_eq!(kept.restore(tick, &mut machine), Some(tick as usize));
            assert!(!machine.core().ram.is_allocated(900));
            assert_eq!(machine.digest(), digests[tick as usize], "{tick}");
        }
        assert_eq!(kept.restore(17, &mut machine), None);
    }

    #[test]
    fn a_small_budget_thins_the_spread_and_keeps_the_first() {
        let mut machine = machine();
        let mut kept = Checkpoints::new(16 * PAGE_SIZE);
        for n in 0..32u64 {
            put_at(&mut machine, n * GRID_TICKS);
            write(&mut machine, n as usize, n as u8 + 1);
            kept.take(&mut machine, 0, Keep::Grid);
        }
        assert!(kept.by_tick.len() < 16, "{}", kept.by_tick.len());
        assert!(kept.has(0) && kept.grid() > GRID_TICKS);
        assert_eq!(kept.at_or_before(GRID_TICKS / 2), Some(0));
    }

    #[test]
    fn only_the_last_local_ones_are_kept() {
        let mut machine = machine();
        let mut kept = Checkpoints::new(BUDGET_BYTES);
        kept.take(&mut machine, 0, Keep::Grid);
        for n in 1..100 {
            put_at(&mut machine, n);
            let keep = kept.local();
            kept.take(&mut machine, 0, keep);
        }
        assert_eq!(kept.ticks().count(), LOCAL_MAX + 1);
        assert!(kept.has(0) && kept.has(99) && !kept.has(1));
    }
}
