//! Pages of RAM that checkpoints share.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use colinux_driver::machine::Machine;
use colinux_driver::mem::addr::PAGE_SIZE;
use xxhash_rust::xxh3::xxh3_128;

use super::encode::Image;

/// Pages in one piece of a table of pages: pieces are shared between checkpoints as well.
const PIECE_PAGES: usize = 512;
/// Bytes of a page.
pub(crate) const PAGE: usize = PAGE_SIZE as usize;

/// The content of a page, shared by all that have it.
pub(crate) type Page = Arc<[u8]>;

/// The pages of RAM at one moment; `None` where nothing has been touched.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pages(Vec<Arc<Vec<Option<Page>>>>);

impl Pages {
    pub(crate) fn get(&self, page: usize) -> Option<&Page> {
        self.0
            .get(page / PIECE_PAGES)?
            .get(page % PIECE_PAGES)?
            .as_ref()
    }

    pub(crate) fn set(&mut self, page: usize, version: Option<Page>) {
        let piece = page / PIECE_PAGES;
        if self.0.len() <= piece {
            let empty = Arc::new(vec![None; PIECE_PAGES]);
            self.0.resize(piece + 1, empty);
        }
        Arc::make_mut(&mut self.0[piece])[page % PIECE_PAGES] = version;
    }

    /// All that has been touched, in pieces with their offsets.
    pub(crate) fn image(&self) -> Image {
        let mut pieces: Vec<(u64, Vec<u8>)> = Vec::new();
        for page in 0..self.0.len() * PIECE_PAGES {
            let Some(content) = self.get(page) else {
                continue;
            };
            let at = page as u64 * PAGE_SIZE;
            match pieces.last_mut() {
                Some((start, bytes)) if *start + bytes.len() as u64 == at => {
                    bytes.extend_from_slice(content);
                }
                _ => pieces.push((at, content.to_vec())),
            }
        }
        let pieces = pieces.into_iter();
        pieces.map(|(at, bytes)| (at, bytes.into())).collect()
    }

    /// Reads bytes by their offset in RAM; what has not been touched is zero.
    pub(crate) fn read(&self, offset: u64, out: &mut [u8]) {
        let mut done = 0;
        while done < out.len() {
            let at = offset.wrapping_add(done as u64);
            let inside = (at % PAGE_SIZE) as usize;
            let n = (PAGE - inside).min(out.len() - done);
            let piece = &mut out[done..done + n];
            match usize::try_from(at / PAGE_SIZE)
                .ok()
                .and_then(|p| self.get(p))
            {
                Some(page) => piece.copy_from_slice(&page[inside..inside + n]),
                None => piece.fill(0),
            }
            done += n;
        }
    }

    /// The pages whose version is another one.
    pub(crate) fn differing(&self, other: &Pages) -> Vec<usize> {
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
pub(crate) struct Pool {
    versions: HashMap<u128, Weak<[u8]>>,
    zero: Page,
}

impl Pool {
    pub(crate) fn new() -> Self {
        Pool {
            versions: HashMap::new(),
            zero: Arc::from([0; PAGE].as_slice()),
        }
    }

    /// The page of zeros.
    pub(crate) fn zero(&self) -> &Page {
        &self.zero
    }

    pub(crate) fn version(&mut self, bytes: &[u8], before: Option<&Page>) -> Page {
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

    /// Versions that may still be in use.
    pub(crate) fn len(&self) -> usize {
        self.versions.len()
    }

    /// Forgets versions nobody has any more; says how many bytes the others take.
    pub(crate) fn sweep(&mut self) -> u64 {
        self.versions
            .retain(|_, version| version.strong_count() > 0);
        self.versions.len() as u64 * PAGE_SIZE
    }
}

/// The pages the machine has written since the last call, in order.
pub(crate) fn take_dirty(machine: &mut Machine) -> Vec<usize> {
    let core = machine.core_mut();
    let pages = core.ram.take_dirty_since_checkpoint();
    core.tlb.drop_writes();
    let mut pages: Vec<usize> = pages.into_iter().map(|page| page as usize).collect();
    pages.sort_unstable();
    pages
}

/// Pages that are put back before it is looked whether to go on.
const PAGES_PER_LOOK: usize = 1024;

/// What the RAM of one machine held when it was last put beside a checkpoint. The machine's own list
/// of written pages says what it may hold otherwise by now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seat {
    pub(crate) base: Pages,
}

impl Seat {
    /// Puts RAM back to what it was, touching only what differs.
    pub(crate) fn put_back(&mut self, to: &Pages, zero: &Page, machine: &mut Machine) {
        self.put_back_while(to, zero, machine, &|| true);
    }

    /// As [`Seat::put_back`], while it is to go on; says whether all is there. A machine's first time
    /// takes as long as the host takes to find memory for it.
    pub(crate) fn put_back_while(
        &mut self,
        to: &Pages,
        zero: &Page,
        machine: &mut Machine,
        go_on: &dyn Fn() -> bool,
    ) -> bool {
        let mut pages = self.base.differing(to);
        pages.extend(take_dirty(machine));
        pages.sort_unstable();
        pages.dedup();
        let count = machine.core().ram.page_count();
        pages.retain(|page| *page < count);
        let mut left = pages.as_slice();
        while !left.is_empty() && go_on() {
            let (now, later) = left.split_at(left.len().min(PAGES_PER_LOOK));
            for page in now {
                let version = to.get(*page);
                let bytes = version.unwrap_or(zero);
                let ram = &mut machine.core_mut().ram;
                ram.restore_page(*page, bytes, version.is_some());
            }
            left = later;
        }
        self.base = to.clone();
        // Restoring is not writing.
        let _ = take_dirty(machine);
        // What was left is as if it had been written since.
        for page in left {
            machine.core_mut().ram.mark_dirty(page * PAGE);
        }
        left.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use colinux_driver::machine::MachineConfig;

    use super::*;

    #[test]
    fn what_is_put_back_in_parts_is_there_in_the_end() {
        let count = 8 * PAGES_PER_LOOK;
        let mut machine = Machine::empty(&MachineConfig {
            memory_bytes: (count * PAGE) as u64,
            rtc_epoch_s: 0,
            ns_per_tick: 1,
            quantum_ticks: 1,
        });
        let mut pool = Pool::new();
        let zero = Arc::clone(pool.zero());
        let mut pages_of = |byte: u8| {
            let mut pages = Pages::default();
            for page in (usize::from(byte)..count).step_by(2) {
                let content = [byte ^ page as u8; PAGE];
                pages.set(page, Some(pool.version(&content, None)));
            }
            pages
        };
        let [one, other, away] = [1, 2, 5].map(&mut pages_of);
        let mut seat = Seat::default();
        for to in [&one, &other, &one] {
            let looks = Cell::new(0);
            let twice = || looks.replace(looks.get() + 1) < 2;
            assert!(!seat.put_back_while(&away, &zero, &mut machine, &twice));
            assert!(!seat.put_back_while(to, &zero, &mut machine, &|| false));
            seat.put_back(to, &zero, &mut machine);
            let ram = &machine.core().ram;
            for page in 0..count {
                let wanted = to.get(page);
                assert_eq!(ram.page_bytes(page), &**wanted.unwrap_or(&zero), "{page}");
                assert_eq!(ram.is_allocated(page), wanted.is_some(), "{page}");
            }
        }
    }
}
