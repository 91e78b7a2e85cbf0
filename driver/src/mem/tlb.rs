//! The software TLB.
//!
//! Two layers. The first is what instructions look at: a small direct-mapped array per privilege
//! with separate read and write tags. The second remembers *every* translation walked since the
//! last flush that covers it. So what the guest can notice of a TLB (a stale entry, the moment an
//! accessed or dirty bit is set) does not depend on sizes, evictions or the order of look-ups: a
//! page is walked once per flush and kind of access, on every back end.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::addr::PAGE_SIZE;

/// Entries per privilege in the first layer.
pub const FAST_ENTRIES: usize = 1024;
const FAST_MASK: usize = FAST_ENTRIES - 1;
/// Pages per privilege of which it is remembered where their code is.
pub(crate) const FETCH_ENTRIES: usize = 512;

/// One entry of the first layer: 32 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FastEntry {
    /// Page address for which reads are allowed.
    pub read_tag: u64,
    /// Page address for which writes need no further check.
    pub write_tag: u64,
    /// RAM offset minus virtual address.
    pub delta: u64,
    /// Where the page is in the host's memory; for translated code.
    pub(crate) host: u64,
}

/// A page whose code has been fetched since the last flush that covers it: translated code may go
/// there without asking.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct FetchEntry {
    /// Page address.
    pub(crate) page: u64,
    /// RAM offset of the page.
    pub(crate) offset: u64,
}

/// No page has this address.
const NO_PAGE: FetchEntry = FetchEntry { page: 1, offset: 0 };

/// What an entry of the first layer allows.
#[derive(Clone, Copy, Debug)]
pub struct FastRights {
    /// Reads.
    pub readable: bool,
    /// Writes without a further look.
    pub writable: bool,
    /// It survives a CR3 write.
    pub global: bool,
}

/// A cached translation of one 4 KiB page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Translation {
    /// Virtual page number.
    pub vpn: u64,
    /// Pseudo-physical page number.
    pub gpfn: u64,
    /// Rights, see the constants.
    pub rights: u8,
}

/// User mode may access.
pub const RIGHT_USER: u8 = 1 << 0;
/// Writes allowed by the page tables.
pub const RIGHT_WRITE: u8 = 1 << 1;
/// Fetches allowed.
pub const RIGHT_EXEC: u8 = 1 << 2;
/// Survives a CR3 write.
pub const RIGHT_GLOBAL: u8 = 1 << 3;
/// The dirty bit has been set.
pub const RIGHT_DIRTY: u8 = 1 << 4;
const RIGHT_VALID: u8 = 1 << 7;

/// Open addressing, linear probing; a generation marks what a flush has left behind.
#[derive(Clone, Debug)]
struct Table {
    slots: Vec<(Translation, u32)>,
    generation: u32,
    /// Slots of this generation, removed entries among them.
    used: usize,
    live: usize,
}

/// Translations that are remembered at most; one more, and all are forgotten. The guest decides how
/// many pages it touches between flushes, so this bounds the host's memory. It counts what is in
/// the state, so a restored machine forgets at the same moment.
pub const TRANSLATIONS_MAX: usize = 1 << 18;
/// As [`TRANSLATIONS_MAX`], for 2 MiB regions cached from large mappings.
pub const LARGE_REGIONS_MAX: usize = 1 << 16;

const EMPTY: (Translation, u32) = (
    Translation {
        vpn: 0,
        gpfn: 0,
        rights: 0,
    },
    0,
);

impl Table {
    fn new() -> Self {
        Table {
            slots: vec![EMPTY; 1024],
            generation: 1,
            used: 0,
            live: 0,
        }
    }

    #[inline]
    fn slot(&self, vpn: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = (vpn.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize & mask;
        loop {
            let (t, generation) = &self.slots[at];
            if *generation != self.generation || t.vpn == vpn {
                return at;
            }
            at = (at + 1) & mask;
        }
    }

    #[inline]
    fn get(&self, vpn: u64) -> Option<Translation> {
        let (t, generation) = self.slots[self.slot(vpn)];
        (generation == self.generation && t.rights & RIGHT_VALID != 0).then_some(t)
    }

    fn insert(&mut self, t: Translation) {
        if self.used * 2 >= self.slots.len() {
            let live: Vec<Translation> = self.live().collect();
            let len = (live.len() * 4).next_power_of_two().max(1024);
            self.slots = vec![EMPTY; len];
            self.generation = 1;
            self.used = 0;
            self.live = 0;
            for t in live {
                self.place(t);
            }
        }
        self.place(Translation {
            rights: t.rights | RIGHT_VALID,
            ..t
        });
    }

    fn place(&mut self, t: Translation) {
        let at = self.slot(t.vpn);
        let (old, generation) = self.slots[at];
        let taken = generation == self.generation;
        self.used += usize::from(!taken);
        self.live += usize::from(!taken || old.rights & RIGHT_VALID == 0);
        self.slots[at] = (t, self.generation);
    }

    /// The slot stays taken, so that probing goes on behind it.
    fn remove(&mut self, vpn: u64) {
        let at = self.slot(vpn);
        if self.slots[at].1 == self.generation {
            self.live -= usize::from(self.slots[at].0.rights & RIGHT_VALID != 0);
            self.slots[at].0.rights = 0;
        }
    }

    fn clear(&mut self) {
        self.used = 0;
        self.live = 0;
        if self.generation == u32::MAX {
            self.slots.fill(EMPTY);
            self.generation = 0;
        }
        self.generation += 1;
    }

    fn live(&self) -> impl Iterator<Item = Translation> + '_ {
        self.slots
            .iter()
            .filter(|(t, g)| *g == self.generation && t.rights & RIGHT_VALID != 0)
            .map(|(t, _)| *t)
    }
}

/// The TLB of one vCPU.
#[derive(Clone, Debug)]
pub struct Tlb {
    pub(crate) fast: [[FastEntry; FAST_ENTRIES]; 2],
    local: Table,
    global: Table,
    /// 2 MiB regions of which some page was cached from a large mapping.
    large: BTreeSet<u64>,
    /// For supervisor and user mode: goes up whenever a fetch translation may have become wrong.
    pub(crate) fetch_generations: [u64; 2],
    /// Supervisor mode runs code of a page that is not global.
    local_supervisor_code: bool,
    /// Where code was fetched since the last flush of its page.
    pub(crate) fetched: [[FetchEntry; FETCH_ENTRIES]; 2],
    /// Which entries of the first layer are of global pages, and which of others.
    fast_global: [FastSet; 2],
    fast_local: [FastSet; 2],
    /// Where RAM begins in the host's memory.
    pub(crate) ram_base: u64,
}

/// What a snapshot keeps of the TLB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlbState {
    /// All cached translations, by virtual page number.
    pub translations: Vec<Translation>,
    /// Regions cached from large mappings.
    pub large: Vec<u64>,
}

/// A tag no access to entry `index` can match, since its page number has another index.
const fn no_tag(index: usize) -> u64 {
    (index as u64 ^ 1) * PAGE_SIZE
}

/// A set of entries of the first layer.
type FastSet = [u64; FAST_ENTRIES / 64];

/// Makes the entries of a set match nothing, and the set empty.
fn forget_set(entries: &mut [FastEntry; FAST_ENTRIES], set: &mut FastSet) {
    for (word, bits) in set.iter_mut().enumerate() {
        let mut left = std::mem::take(bits);
        while left != 0 {
            let index = word * 64 + left.trailing_zeros() as usize;
            entries[index].read_tag = no_tag(index);
            entries[index].write_tag = no_tag(index);
            left &= left - 1;
        }
    }
}

fn empty_fast() -> [FastEntry; FAST_ENTRIES] {
    let mut entries = [FastEntry {
        read_tag: 0,
        write_tag: 0,
        delta: 0,
        host: 0,
    }; FAST_ENTRIES];
    for (i, e) in entries.iter_mut().enumerate() {
        e.read_tag = no_tag(i);
        e.write_tag = no_tag(i);
    }
    entries
}

impl Default for Tlb {
    fn default() -> Self {
        Tlb {
            fast: [empty_fast(), empty_fast()],
            local: Table::new(),
            global: Table::new(),
            large: BTreeSet::new(),
            fetch_generations: [1; 2],
            local_supervisor_code: false,
            fetched: [[NO_PAGE; FETCH_ENTRIES]; 2],
            fast_global: [[0; FAST_ENTRIES / 64]; 2],
            fast_local: [[0; FAST_ENTRIES / 64]; 2],
            ram_base: 0,
        }
    }
}

impl Tlb {
    /// The first-layer entry for an address; `user` is 0 or 1.
    #[inline(always)]
    pub fn fast(&self, user: usize, va: u64) -> &FastEntry {
        &self.fast[user & 1][(va / PAGE_SIZE) as usize & FAST_MASK]
    }

    /// Puts a page into the first layer.
    #[inline]
    pub fn fill_fast(&mut self, user: usize, va: u64, offset: usize, rights: FastRights) {
        let FastRights {
            readable,
            writable,
            global,
        } = rights;
        let index = (va / PAGE_SIZE) as usize & FAST_MASK;
        let page = va & !(PAGE_SIZE - 1);
        let entry = &mut self.fast[user & 1][index];
        entry.read_tag = if readable { page } else { no_tag(index) };
        entry.write_tag = if writable { page } else { no_tag(index) };
        let page_offset = offset as u64 & !(PAGE_SIZE - 1);
        entry.delta = page_offset.wrapping_sub(page);
        entry.host = self.ram_base.wrapping_add(page_offset);
        let (word, bit) = (index / 64, 1 << (index % 64));
        let (global_set, local_set) = (
            &mut self.fast_global[user & 1][word],
            &mut self.fast_local[user & 1][word],
        );
        let (to, from) = if global {
            (global_set, local_set)
        } else {
            (local_set, global_set)
        };
        *to |= bit;
        *from &= !bit;
    }

    /// The translation of a page, if one was walked since the last flush.
    #[inline]
    pub fn get(&self, vpn: u64) -> Option<Translation> {
        self.local.get(vpn).or_else(|| self.global.get(vpn))
    }

    /// Remembers a walked translation.
    pub fn insert(&mut self, t: Translation, large: bool) {
        let region = t.vpn >> 9;
        if self.local.live + self.global.live >= TRANSLATIONS_MAX
            || large && self.large.len() >= LARGE_REGIONS_MAX && !self.large.contains(&region)
        {
            self.flush_all();
        }
        // A page that was walked again for a right it did not have: what follows from the earlier
        // walk must not outlive it in the first layer.
        if let Some(old) = self.get(t.vpn)
            && (old.gpfn != t.gpfn || old.rights & !t.rights & !RIGHT_VALID != 0)
        {
            self.forget_fast(t.vpn, old.rights);
        }
        if t.rights & RIGHT_GLOBAL != 0 {
            self.local.remove(t.vpn);
            self.global.insert(t);
        } else {
            if self.global.get(t.vpn).is_some() {
                // It does not survive CR3 writes any more.
                self.forget_fast(t.vpn, t.rights | RIGHT_EXEC);
            }
            self.global.remove(t.vpn);
            self.local.insert(t);
        }
        if large {
            self.large.insert(region);
        }
    }

    /// Forgets one page (INVLPG, and what a page fault does to the faulting page).
    pub fn flush_page(&mut self, va: u64) {
        let vpn = va / PAGE_SIZE;
        if self.large.contains(&(vpn >> 9)) {
            self.flush_all();
            return;
        }
        let rights = self.get(vpn).map_or(0, |t| t.rights);
        self.local.remove(vpn);
        self.global.remove(vpn);
        self.forget_fast(vpn, rights);
    }

    /// Forgets one page in the first layer, and jumps to code found through it. If its translation
    /// did not allow fetches, there are none.
    fn forget_fast(&mut self, vpn: u64, rights: u8) {
        let index = vpn as usize & FAST_MASK;
        for side in &mut self.fast {
            side[index].read_tag = no_tag(index);
            side[index].write_tag = no_tag(index);
        }
        if rights & RIGHT_EXEC != 0 {
            for side in &mut self.fetched {
                side[vpn as usize % FETCH_ENTRIES] = NO_PAGE;
            }
            self.forget_fetches();
        }
    }

    /// Code found at some address may not be looked for there again without asking.
    pub(crate) fn forget_fetches(&mut self) {
        self.fetch_generations = self.fetch_generations.map(|g| g + 1);
    }

    /// The next jump to each page is looked at again.
    pub(crate) fn fetch_anew(&mut self) {
        self.flush_fetched(0);
        self.flush_fetched(1);
    }

    /// Code has to be fetched anew, whatever page it is on.
    fn flush_fetched(&mut self, user: usize) {
        self.fetch_generations[user] += 1;
        self.fetched[user].fill(NO_PAGE);
    }

    /// The RAM offset of the code at an address, if it needs no page walk.
    #[inline]
    pub(crate) fn fetched(&self, user: usize, va: u64) -> Option<usize> {
        let entry = &self.fetched[user & 1][(va / PAGE_SIZE) as usize % FETCH_ENTRIES];
        let page = va & !(PAGE_SIZE - 1);
        (entry.page == page).then_some((entry.offset | va & (PAGE_SIZE - 1)) as usize)
    }

    /// Code was fetched at this address, in this mode, from this RAM offset.
    pub(crate) fn note_fetch(&mut self, user: usize, va: u64, offset: usize) {
        self.fetched[user & 1][(va / PAGE_SIZE) as usize % FETCH_ENTRIES] = FetchEntry {
            page: va & !(PAGE_SIZE - 1),
            offset: offset as u64 & !(PAGE_SIZE - 1),
        };
        if user == 0 && !self.local_supervisor_code {
            let global = |t: Translation| t.rights & RIGHT_GLOBAL != 0;
            self.local_supervisor_code = !self.get(va / PAGE_SIZE).is_some_and(global);
        }
    }

    /// Forgets all but global pages (a CR3 write).
    pub fn flush_local(&mut self) {
        self.local.clear();
        for (side, local) in self.fast.iter_mut().zip(&mut self.fast_local) {
            forget_set(side, local);
        }
        self.flush_fetched(1);
        if self.local_supervisor_code {
            self.flush_fetched(0);
            self.local_supervisor_code = false;
        }
    }

    /// Forgets everything.
    pub fn flush_all(&mut self) {
        self.local.clear();
        self.global.clear();
        self.large.clear();
        self.flush_fast();
    }

    /// Empties the first layer: after a change of what rights mean (CR0.WP), or of the RAM table.
    pub fn flush_fast(&mut self) {
        for user in 0..2 {
            forget_set(&mut self.fast[user], &mut self.fast_local[user]);
            forget_set(&mut self.fast[user], &mut self.fast_global[user]);
            self.flush_fetched(user);
        }
    }

    /// Drops fast-write permission everywhere: the next write to each page is looked at again.
    pub fn drop_writes(&mut self) {
        for side in &mut self.fast {
            for (i, e) in side.iter_mut().enumerate() {
                e.write_tag = no_tag(i);
            }
        }
    }

    /// Drops fast-write permission for the RAM page at `offset`.
    pub fn drop_writes_to(&mut self, offset: usize) {
        let target = offset as u64 & !(PAGE_SIZE - 1);
        for side in &mut self.fast {
            for (i, e) in side.iter_mut().enumerate() {
                if e.write_tag != no_tag(i) && e.write_tag.wrapping_add(e.delta) == target {
                    e.write_tag = no_tag(i);
                }
            }
        }
    }

    /// What a snapshot keeps.
    pub fn state(&self) -> TlbState {
        let mut translations: Vec<_> = self.local.live().chain(self.global.live()).collect();
        translations.sort_unstable_by_key(|t| t.vpn);
        TlbState {
            translations,
            large: self.large.iter().copied().collect(),
        }
    }

    /// Back to a snapshot.
    pub fn restore(&mut self, state: &TlbState) {
        self.flush_all();
        for t in &state.translations {
            self.insert(*t, false);
        }
        self.large = state.large.iter().copied().collect();
    }
}
