//! Checkpoints: the state of a machine at a tick, kept for going back to.
//!
//! A checkpoint is the machine's state as a value plus one version of every page of RAM. Versions
//! are shared: a page that did not change between two checkpoints, or that is equal to another, is
//! kept once. Which pages changed is known from the machine's list of pages written since the last
//! checkpoint, so that taking one costs a copy of those pages and no more.
//!
//! A recording holds some (`keeper.rs` puts them there); in memory there are those that were needed,
//! and more around the places that are visited.

mod cpio;
mod encode;
mod form;
pub(crate) mod keeper;
mod pages;
mod runs;
pub(crate) mod stored;

use std::collections::BTreeMap;
use std::sync::Arc;

use colinux_driver::machine::Machine;
use colinux_driver::mem::addr::PAGE_SIZE;
use colinux_driver::snapshot::MachineState;

use crate::hooks::HookState;
use pages::{Pages, Pool, take_dirty};

pub use keeper::Interval;
pub(crate) use pages::{Page, Seat};

/// Host memory that checkpoints may take, unless asked otherwise.
pub const BUDGET_BYTES: u64 = 1 << 30;
/// Ticks between the checkpoints of a first pass.
pub const GRID_TICKS: u64 = 50_000_000;
/// Checkpoints near the cursor that are kept.
const LOCAL_MAX: usize = 24;
/// However little memory there is, so many are kept.
const FEWEST: usize = 4;

/// Why a checkpoint is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// One of the even spread over the whole recording.
    Grid,
    /// Near a place that was visited; the number says how long ago.
    Local(u64),
    /// Read from the recording; the number says when it was last gone to.
    Stored(u64),
}

/// One checkpoint.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    pub(crate) state: MachineState,
    pub(crate) pages: Pages,
    /// Inputs the machine had been given.
    pub(crate) inputs: usize,
    /// Events of the recording before this, where it was read from there.
    pub(crate) events: u64,
    /// What the hooks on the guest's kernel remembered.
    pub(crate) hooks: HookState,
    keep: Keep,
}

impl Checkpoint {
    /// Whether it was read from the recording.
    pub(crate) fn is_stored(&self) -> bool {
        matches!(self.keep, Keep::Stored(_))
    }

    /// What it takes beside its pages, roughly.
    fn bytes(&self) -> u64 {
        8192 + self.state.tlb.translations.len() as u64 * 24
    }
}

/// The checkpoints of one machine.
#[derive(Debug)]
pub struct Checkpoints {
    by_tick: BTreeMap<u64, Arc<Checkpoint>>,
    pool: Pool,
    seat: Seat,
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
            seat: Seat::default(),
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
    pub(crate) fn take(
        &mut self,
        machine: &mut Machine,
        inputs: usize,
        hooks: HookState,
        keep: Keep,
    ) {
        let tick = machine.tick().0;
        for page in take_dirty(machine) {
            let ram = &machine.core().ram;
            let base = &mut self.seat.base;
            let version = ram
                .is_allocated(page)
                .then(|| self.pool.version(ram.page_bytes(page), base.get(page)));
            base.set(page, version);
        }
        let keep = match self.by_tick.get(&tick) {
            Some(known) if known.keep == Keep::Grid => Keep::Grid,
            _ => keep,
        };
        self.put(Checkpoint {
            state: machine.state(),
            pages: self.seat.base.clone(),
            inputs,
            events: 0,
            hooks,
            keep,
        });
        self.thin(tick);
    }

    /// Puts one beside the others.
    pub(crate) fn put(&mut self, checkpoint: Checkpoint) {
        let tick = checkpoint.state.tick.0;
        self.by_tick.insert(tick, Arc::new(checkpoint));
    }

    /// Forgets one.
    pub(crate) fn forget(&mut self, tick: u64) {
        self.by_tick.remove(&tick);
    }

    /// The one at a tick.
    pub(crate) fn get(&self, tick: u64) -> Option<Arc<Checkpoint>> {
        self.by_tick.get(&tick).cloned()
    }

    /// The pages of the one at a tick.
    pub(crate) fn pages_at(&self, tick: u64) -> Option<Pages> {
        Some(self.by_tick.get(&tick)?.pages.clone())
    }

    pub(crate) fn pool(&mut self) -> &mut Pool {
        &mut self.pool
    }

    /// What the machine these are of was last put beside.
    pub(crate) fn seat(&mut self) -> &mut Seat {
        &mut self.seat
    }

    /// The page of zeros.
    pub(crate) fn zero(&self) -> Page {
        Arc::clone(self.pool.zero())
    }

    /// Puts the machine back to the checkpoint at a tick, and gives it.
    pub(crate) fn restore(&mut self, tick: u64, machine: &mut Machine) -> Option<Arc<Checkpoint>> {
        self.clock += 1;
        let entry = self.by_tick.get_mut(&tick)?;
        let used = match entry.keep {
            Keep::Grid => Keep::Grid,
            Keep::Local(_) => Keep::Local(self.clock),
            Keep::Stored(_) => Keep::Stored(self.clock),
        };
        if entry.keep != used
            && let Some(entry) = Arc::get_mut(entry)
        {
            entry.keep = used;
        }
        let checkpoint = Arc::clone(entry);
        let zero = self.zero();
        self.seat.put_back(&checkpoint.pages, &zero, machine);
        machine.restore(&checkpoint.state);
        Some(checkpoint)
    }

    /// What a new local checkpoint is kept as.
    pub fn local(&mut self) -> Keep {
        self.clock += 1;
        Keep::Local(self.clock)
    }

    /// Those of one kind, the one that was used longest ago first.
    fn by_use(&self, number: impl Fn(Keep) -> Option<u64>) -> Vec<u64> {
        let mut found: Vec<(u64, u64)> = self
            .by_tick
            .iter()
            .filter_map(|(tick, c)| Some((number(c.keep)?, *tick)))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, tick)| tick).collect()
    }

    /// Lets go of the least useful ones: far from the cursor first, then what can be read from the
    /// recording again, then every other one of the spread. The first one stays.
    pub(crate) fn thin(&mut self, cursor: u64) {
        let locals = self.by_use(|keep| match keep {
            Keep::Local(used) => Some(used),
            _ => None,
        });
        let surplus = locals.len().saturating_sub(LOCAL_MAX);
        for tick in &locals[..surplus] {
            self.by_tick.remove(tick);
        }
        // Counting what is still in use takes a look at all of it: only when it may matter.
        if self.most_bytes() <= self.budget || self.bytes() <= self.budget {
            return;
        }
        let stored = self.by_use(|keep| match keep {
            Keep::Stored(used) => Some(used),
            _ => None,
        });
        for tick in locals[surplus..].iter().chain(&stored) {
            if *tick != cursor && self.by_tick.len() > FEWEST {
                self.by_tick.remove(tick);
                if self.bytes() <= self.budget {
                    return;
                }
            }
        }
        while self.bytes() > self.budget && self.by_tick.len() > FEWEST {
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
        self.pool.len() as u64 * PAGE_SIZE + self.states()
    }

    /// What they take beside pages.
    fn states(&self) -> u64 {
        self.by_tick.values().map(|c| c.bytes()).sum()
    }

    /// Bytes of host memory they take.
    pub fn bytes(&mut self) -> u64 {
        self.pool.sweep() + self.states()
    }
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
            kept.take(&mut machine, tick.into(), HookState::default(), Keep::Grid);
            digests.push(machine.digest());
        }
        assert_eq!(kept.pool.sweep(), 6 * PAGE_SIZE);
        for tick in [4, 0, 2, 2, 1, 3, 4] {
            write(&mut machine, 900, 7);
            let gone_to = kept.restore(tick, &mut machine).unwrap();
            assert_eq!(gone_to.inputs, tick as usize);
            assert!(!machine.core().ram.is_allocated(900));
            assert_eq!(machine.digest(), digests[tick as usize], "{tick}");
        }
        assert!(kept.restore(17, &mut machine).is_none());
    }

    #[test]
    fn a_small_budget_thins_the_spread_and_keeps_the_first() {
        let mut machine = machine();
        let mut kept = Checkpoints::new(16 * PAGE_SIZE);
        for n in 0..32u64 {
            put_at(&mut machine, n * GRID_TICKS);
            write(&mut machine, n as usize, n as u8 + 1);
            kept.take(&mut machine, 0, HookState::default(), Keep::Grid);
        }
        assert!(kept.by_tick.len() < 16, "{}", kept.by_tick.len());
        assert!(kept.has(0) && kept.grid() > GRID_TICKS);
        assert_eq!(kept.at_or_before(GRID_TICKS / 2), Some(0));
    }

    #[test]
    fn only_the_last_local_ones_are_kept() {
        let mut machine = machine();
        let mut kept = Checkpoints::new(BUDGET_BYTES);
        kept.take(&mut machine, 0, HookState::default(), Keep::Grid);
        for n in 1..100 {
            put_at(&mut machine, n);
            let keep = kept.local();
            kept.take(&mut machine, 0, HookState::default(), keep);
        }
        assert_eq!(kept.ticks().count(), LOCAL_MAX + 1);
        assert!(kept.has(0) && kept.has(99) && !kept.has(1));
    }
}
