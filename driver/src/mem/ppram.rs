//! Pseudo-physical RAM: pages the guest believes to be all of physical memory.
//!
//! A page is allocated at its first touch. The host address of a page is never visible to the
//! guest. One table row per page says what a write has to look out for.

use std::alloc::{Layout, handle_alloc_error};

use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::addr::{Gpa, PAGE_SIZE};
use super::room::Room;
use crate::layout;

/// What a page's table row says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageInfo {
    /// One bit per 64 bytes that hold decoded code.
    pub code_granules: u64,
    /// The page has been touched.
    pub allocated: bool,
    /// Written since the last digest.
    pub dirty: bool,
    /// Written since the last checkpoint.
    pub dirty_since_checkpoint: bool,
}

/// Who touched a page first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Toucher {
    /// A data read.
    Read = 0,
    /// A data write.
    Write = 1,
    /// An instruction fetch.
    Fetch = 2,
    /// The boot loader.
    Loader = 3,
    /// The page walk.
    Walk = 4,
    /// A device.
    Dma = 5,
}

/// Pseudo-physical RAM.
#[derive(Debug)]
pub struct Ppram {
    bytes: Room,
    pages: Vec<PageInfo>,
    dirty: Vec<u32>,
    dirty_since_checkpoint: Vec<u32>,
    /// Pages with code that was replaced from outside, and which granules of them.
    replaced_code: Vec<(u32, u64)>,
    /// Sum of the hashes of all allocated pages as of their last rehash.
    sum: u128,
    hashes: Vec<u128>,
    allocated: u64,
}

impl Ppram {
    /// RAM of `size` bytes, a multiple of the page size. Host memory is used only as pages are
    /// touched.
    pub fn new(size: u64) -> Self {
        let pages = usize::try_from(size / PAGE_SIZE).unwrap_or(usize::MAX);
        Ppram {
            bytes: ram(pages),
            pages: vec![PageInfo::default(); pages],
            dirty: Vec::new(),
            dirty_since_checkpoint: Vec::new(),
            replaced_code: Vec::new(),
            sum: 0,
            hashes: vec![0; pages],
            allocated: 0,
        }
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Number of pages touched so far.
    pub fn allocated_pages(&self) -> u64 {
        self.allocated
    }

    /// The offset into RAM of a pseudo-physical address, if RAM is there.
    #[inline]
    pub fn offset(&self, gpa: Gpa) -> Option<usize> {
        let offset = if gpa.0 < layout::MMIO_HOLE_START.0 {
            gpa.0
        } else {
            gpa.0
                .checked_sub(layout::MMIO_HOLE_END.0)?
                .checked_add(layout::MMIO_HOLE_START.0)?
        };
        (offset < self.bytes.len() as u64).then_some(offset as usize)
    }

    /// The pseudo-physical address of a RAM offset.
    pub fn gpa(&self, offset: usize) -> Gpa {
        let offset = offset as u64;
        if offset < layout::MMIO_HOLE_START.0 {
            Gpa(offset)
        } else {
            Gpa(offset - layout::MMIO_HOLE_START.0 + layout::MMIO_HOLE_END.0)
        }
    }

    /// All bytes, by offset.
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// All bytes, for a write whose page has been made writable with [`Ppram::mark_dirty`].
    #[inline(always)]
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// The table row of the page at a RAM offset.
    #[inline]
    pub fn page(&self, offset: usize) -> &PageInfo {
        &self.pages[offset / PAGE_SIZE as usize]
    }

    /// Marks 64-byte granules of a page as holding code.
    pub(crate) fn add_code(&mut self, offset: usize, granules: u64) {
        self.pages[offset / PAGE_SIZE as usize].code_granules |= granules;
    }

    /// The page holds no code any more.
    pub(crate) fn clear_code(&mut self, page: usize) {
        self.pages[page].code_granules = 0;
    }

    /// Allocates the page at a RAM offset if this is its first touch; says whether it was.
    #[inline]
    pub fn touch(&mut self, offset: usize) -> bool {
        let page = offset / PAGE_SIZE as usize;
        if self.pages[page].allocated {
            return false;
        }
        self.pages[page].allocated = true;
        self.allocated += 1;
        // A fresh page enters the digest although it is still zero.
        self.mark_dirty(offset);
        true
    }

    /// Notes a write to the page at a RAM offset.
    #[inline]
    pub fn mark_dirty(&mut self, offset: usize) {
        let page = offset / PAGE_SIZE as usize;
        let info = &mut self.pages[page];
        if !info.dirty {
            info.dirty = true;
            self.dirty.push(page as u32);
        }
        if !info.dirty_since_checkpoint {
            info.dirty_since_checkpoint = true;
            self.dirty_since_checkpoint.push(page as u32);
        }
    }

    /// Whether a fast write may skip [`Ppram::mark_dirty`] and the code check.
    #[inline]
    pub fn fast_writable(&self, offset: usize) -> bool {
        let info = self.page(offset);
        info.code_granules == 0 && info.dirty && info.dirty_since_checkpoint
    }

    /// The digest of the content of all allocated pages. Only pages written since the last call are
    /// hashed again. The caller must drop all fast-write permissions afterwards.
    pub fn digest(&mut self) -> u128 {
        for page in std::mem::take(&mut self.dirty) {
            let page = page as usize;
            self.pages[page].dirty = false;
            if !self.pages[page].allocated {
                continue;
            }
            let start = page * PAGE_SIZE as usize;
            let bytes = &self.bytes[start..start + PAGE_SIZE as usize];
            let hash = xxh3_128_with_seed(bytes, page as u64);
            self.sum = self.sum.wrapping_sub(self.hashes[page]).wrapping_add(hash);
            self.hashes[page] = hash;
        }
        self.sum
    }

    /// The pages written since the last call, in order of first write. The caller must drop all
    /// fast-write permissions afterwards.
    pub fn take_dirty_since_checkpoint(&mut self) -> Vec<u32> {
        for &page in &self.dirty_since_checkpoint {
            self.pages[page as usize].dirty_since_checkpoint = false;
        }
        std::mem::take(&mut self.dirty_since_checkpoint)
    }

    /// The bytes of one page.
    pub fn page_bytes(&self, page: usize) -> &[u8] {
        let start = page * PAGE_SIZE as usize;
        &self.bytes[start..start + PAGE_SIZE as usize]
    }

    /// Replaces the content of a page, as restoring a checkpoint does. Code in what stays the same
    /// is kept.
    pub fn restore_page(&mut self, page: usize, content: &[u8], allocated: bool) {
        let start = page * PAGE_SIZE as usize;
        let now = &mut self.bytes[start..start + PAGE_SIZE as usize];
        let same = *now == *content;
        if same && self.pages[page].allocated == allocated {
            return;
        }
        if !same {
            let code = self.pages[page].code_granules;
            let replaced = code & differing_granules(now, content, code);
            if replaced != 0 {
                self.replaced_code.push((page as u32, replaced));
            }
            now.copy_from_slice(content);
        }
        if self.pages[page].allocated != allocated {
            self.pages[page].allocated = allocated;
            if allocated {
                self.allocated += 1;
            } else {
                self.allocated -= 1;
                self.sum = self.sum.wrapping_sub(self.hashes[page]);
                self.hashes[page] = 0;
            }
        }
        if allocated {
            self.mark_dirty(start);
        }
    }

    /// The pages with code that [`Ppram::restore_page`] has replaced since the last call, and which
    /// granules of them.
    pub(crate) fn take_replaced_code(&mut self) -> Vec<(u32, u64)> {
        std::mem::take(&mut self.replaced_code)
    }

    /// Number of pages.
    pub fn page_count(&self) -> usize {
        self.pages.len()
    }

    /// Whether a page has been touched.
    pub fn is_allocated(&self, page: usize) -> bool {
        self.pages[page].allocated
    }
}

/// The bytes of so many pages. A host that has no room for them ends the process, as it does where any
/// other memory is missing.
fn ram(pages: usize) -> Room {
    let len = pages.saturating_mul(PAGE_SIZE as usize);
    Room::new(len).unwrap_or_else(|_| {
        let layout = Layout::array::<u8>(len).unwrap_or(Layout::new::<u8>());
        handle_alloc_error(layout)
    })
}

/// Which of these 64-byte granules of a page are other ones in two contents of it.
fn differing_granules(a: &[u8], b: &[u8], granules: u64) -> u64 {
    let pairs = a.chunks_exact(64).zip(b.chunks_exact(64)).enumerate();
    pairs
        .filter(|(n, (a, b))| granules >> n & 1 != 0 && a != b)
        .fold(0, |found, (n, _)| found | 1 << n)
}
