//! The cache of decoded blocks, keyed by where the code is in pseudo-physical RAM and by mode.

use super::decode::{BLOCK_INSNS_MAX, Decoded, INSN_BYTES_MAX, decode};
use super::op::Op;
use super::table::Table;
use crate::core::Core;
use crate::cpu::fault::Trap;
use crate::cpu::state::seg;
use crate::jit::{Entry, VARIANTS};
use crate::mem::addr::{Gpa, PAGE_MASK, PAGE_SIZE};
use crate::mem::paging::{Access, is_canonical};
use crate::mem::ppram::Toucher;

/// Decoded code from one address, up to the next change of flow or the end of the page.
#[derive(Debug)]
pub struct Block {
    /// The operations.
    pub ops: Box<[Op]>,
    /// Bytes of code.
    pub len: u32,
    /// The last operation sets RIP itself.
    pub sets_rip: bool,
    /// It begins at an address that an observer or a debugger may want to see: a back end must not
    /// enter it without asking.
    pub hooked: bool,
    /// Its translations for tier 1.
    pub(crate) native: [Entry; VARIANTS],
    /// Its accesses had better not share a look into the TLB.
    pub(crate) ungrouped: bool,
    start: usize,
    mode: u8,
    /// RAM offset of the second page of an instruction that crosses pages.
    second: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Jump {
    rip: u64,
    generation: u64,
    mode: u8,
    block: u32,
}

const JUMPS: usize = 8192;
const HINTS: usize = 1 << 16;
/// What the decoded blocks may weigh, in operations of 48 bytes: beyond it they are thrown away.
/// A kernel with its user land has a tenth of this.
const WEIGHT_MAX: usize = 1 << 21;

impl Block {
    /// The memory it takes, in operations.
    fn weight(&self) -> usize {
        self.ops.len() + 3
    }

    /// RAM offset of its first byte.
    pub(crate) fn start(&self) -> usize {
        self.start
    }

    /// Whether it is 64-bit code.
    pub(crate) fn is_long(&self) -> bool {
        self.mode >> 1 == 64 / 32
    }

    /// The 64-byte granules of a page that it has bytes in, or more.
    fn granules(&self, page: usize) -> u64 {
        if self.start / PAGE_SIZE as usize == page && self.second.is_none() {
            granules(self.start, self.len as usize)
        } else {
            u64::MAX
        }
    }

    /// Whether its only instruction crosses pages.
    pub(crate) fn crosses_pages(&self) -> bool {
        self.second.is_some()
    }
}

/// A block that has bytes in a page.
#[derive(Clone, Copy, Debug)]
struct InPage {
    /// Where in the page it begins, and its mode; [`ELSEWHERE`] if it begins in the page before.
    key: u32,
    id: u32,
}

const ELSEWHERE: u32 = u32::MAX;

/// What a block is found by in its page. Code is the same for both privileges.
fn key(start: usize, mode: u8) -> u32 {
    u32::from(page_offset(start as u64)) << 8 | u32::from(mode & !1)
}

/// Blocks by page, and a small cache from virtual address to block.
#[derive(Debug)]
pub struct BlockCache {
    table: Table,
    /// Room to decode in.
    decoded_last: Decoded,
    blocks: Vec<Option<Block>>,
    free: Vec<u32>,
    /// For each page of RAM, the blocks that have bytes in it, by key.
    pages: Vec<Vec<InPage>>,
    jumps: Box<[Jump]>,
    /// Where to look first for the block at a RAM offset.
    hints: Box<[u32]>,
    weight: usize,
    /// Blocks decoded so far.
    pub decoded: u64,
    /// Translations whose blocks have been thrown away.
    pub(crate) dropped: Vec<u32>,
}

/// Bits 0: user; 1-2: 64, 32 or 16 bit code. Code is the same for both privileges, but a jump
/// found for one must not be used for the other, whose rights were not checked.
fn mode(core: &Core) -> (u8, u32) {
    let bitness = core.cpu.segs[seg::CS].code_bits();
    (core.user as u8 | ((bitness / 32) as u8) << 1, bitness)
}

impl BlockCache {
    /// A cache for RAM of so many pages.
    pub fn new(pages: usize) -> Self {
        let none = Jump {
            rip: 0,
            generation: 0,
            mode: 0,
            block: 0,
        };
        BlockCache {
            table: Table::default(),
            decoded_last: Decoded::default(),
            blocks: Vec::new(),
            free: Vec::new(),
            pages: vec![Vec::new(); pages],
            jumps: vec![none; JUMPS].into_boxed_slice(),
            hints: vec![0; HINTS].into_boxed_slice(),
            weight: 0,
            decoded: 0,
            dropped: Vec::new(),
        }
    }

    /// A block by its number.
    #[inline(always)]
    pub fn get(&self, id: u32) -> Option<&Block> {
        self.blocks.get(id as usize).and_then(Option::as_ref)
    }

    /// A block by its number, for its translations.
    #[inline(always)]
    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut Block> {
        self.blocks.get_mut(id as usize).and_then(Option::as_mut)
    }

    /// All translations are gone.
    pub(crate) fn forget_translations(&mut self) {
        for block in self.blocks.iter_mut().flatten() {
            block.native.iter_mut().for_each(Entry::reset);
        }
        self.dropped.clear();
    }

    /// The block at RIP, decoding it if need be. May raise a page fault for the fetch.
    #[inline]
    pub fn lookup(&mut self, core: &mut Core) -> Result<u32, Trap> {
        let rip = core.cpu.linear_rip();
        let (mode, bitness) = mode(core);
        let slot = (rip ^ rip >> 13) as usize & (JUMPS - 1);
        let jump = &self.jumps[slot];
        let generation = core.tlb.fetch_generations[core.user & 1];
        if jump.rip == rip && jump.generation == generation && jump.mode == mode {
            return Ok(jump.block);
        }
        if let Some(trail) = &mut core.trail {
            trail.executed.note(rip);
            if rip != core.cpu.rip {
                // A debugger goes by the offset in the segment.
                trail.executed.note_all();
            }
        }
        let known = core.tlb.fetched(core.user, rip);
        let known = known.and_then(|start| self.known_whole(start, mode));
        if let Some(block) = known {
            self.jumps[slot] = Jump {
                rip,
                generation,
                mode,
                block,
            };
            return Ok(block);
        }
        let mut block = self.find(core, rip, mode, bitness)?;
        // The accessed bit of a page table entry may have fallen into this very code.
        while self.forget_written(core) {
            block = self.find(core, rip, mode, bitness)?;
        }
        // A page walk may have flushed: take the generation as it is now.
        if let Some(start) = self.get(block).map(Block::start) {
            core.tlb.note_fetch(core.user, rip, start);
        }
        let generation = core.tlb.fetch_generations[core.user & 1];
        self.jumps[slot] = Jump {
            rip,
            generation,
            mode,
            block,
        };
        Ok(block)
    }

    /// The block at this linear address.
    fn find(&mut self, core: &mut Core, rip: u64, mode: u8, bitness: u32) -> Result<u32, Trap> {
        core.cpu.regs[crate::cpu::state::REG_BLOCK as usize] = core.cpu.rip;
        let start = fetch(core, rip)?;
        let known = self.known(start, mode);
        if let Some(id) = known {
            let Some(second) = self.get(id).and_then(|b| b.second) else {
                return Ok(id);
            };
            let next = fetch(core, (rip & !PAGE_MASK).wrapping_add(PAGE_SIZE))?;
            if next == second {
                return Ok(id);
            }
            self.remove(core, id);
        }
        self.decode(core, rip, start, mode, bitness)
    }

    /// The block that begins at a RAM offset, if it is decoded.
    fn known(&mut self, start: usize, mode: u8) -> Option<u32> {
        let is_it = |b: &Block| b.start == start && b.mode == mode & !1;
        let hint = (start ^ start >> 16) & (HINTS - 1);
        let id = self.hints[hint];
        if self.get(id).is_some_and(is_it) {
            return Some(id);
        }
        let page = &self.pages[start / PAGE_SIZE as usize];
        let key = key(start, mode);
        let at = page.binary_search_by_key(&key, |here| here.key).ok()?;
        let id = page[at].id;
        self.hints[hint] = id;
        Some(id)
    }

    /// As [`BlockCache::known`], a block that does not cross pages.
    fn known_whole(&mut self, start: usize, mode: u8) -> Option<u32> {
        let id = self.known(start, mode)?;
        self.get(id)?.second.is_none().then_some(id)
    }

    fn decode(
        &mut self,
        core: &mut Core,
        rip: u64,
        start: usize,
        mode: u8,
        bitness: u32,
    ) -> Result<u32, Trap> {
        let end = (start & !(PAGE_MASK as usize)) + PAGE_SIZE as usize;
        let mut decoded = std::mem::take(&mut self.decoded_last);
        let bytes = &core.ram.bytes()[start..end];
        decode(&mut decoded, &self.table, bytes, bitness, BLOCK_INSNS_MAX);
        let mut second = None;
        if decoded.truncated {
            let next = fetch(core, (rip & !PAGE_MASK).wrapping_add(PAGE_SIZE))?;
            let mut bytes = core.ram.bytes()[start..end].to_vec();
            bytes.extend_from_slice(&core.ram.bytes()[next..next + INSN_BYTES_MAX]);
            decode(&mut decoded, &self.table, &bytes, bitness, 1);
            second = Some((next, decoded.len - (end - start)));
        }
        self.decoded += 1;
        cut(&core.hooks, &core.cuts, rip, &mut decoded);
        let hooked = core.hooks.binary_search(&rip).is_ok()
            || core.cuts.binary_search(&page_offset(rip)).is_ok();
        let id = self.insert(core, start, mode, &decoded, second, hooked);
        self.decoded_last = decoded;
        Ok(id)
    }

    fn insert(
        &mut self,
        core: &mut Core,
        start: usize,
        mode: u8,
        decoded: &Decoded,
        second: Option<(usize, usize)>,
        hooked: bool,
    ) -> u32 {
        if self.weight > WEIGHT_MAX {
            self.clear(core);
        }
        let in_first = decoded.len - second.map_or(0, |(_, n)| n);
        claim(core, start, in_first);
        if let Some((at, n)) = second {
            claim(core, at, n);
        }
        let block = Block {
            ops: decoded.ops.as_slice().into(),
            len: decoded.len as u32,
            sets_rip: decoded.sets_rip,
            hooked,
            native: [Entry::default(); VARIANTS],
            ungrouped: false,
            start,
            mode: mode & !1,
            second: second.map(|(at, _)| at),
        };
        self.weight += block.weight();
        let id = match self.free.pop() {
            Some(id) => {
                self.blocks[id as usize] = Some(block);
                id
            }
            None => {
                self.blocks.push(Some(block));
                (self.blocks.len() - 1) as u32
            }
        };
        let key = key(start, mode);
        let page = &mut self.pages[start / PAGE_SIZE as usize];
        page.insert(
            page.partition_point(|here| here.key < key),
            InPage { key, id },
        );
        if let Some((at, _)) = second {
            let key = ELSEWHERE;
            self.pages[at / PAGE_SIZE as usize].push(InPage { key, id });
        }
        id
    }

    fn remove(&mut self, core: &mut Core, id: u32) {
        let Some(block) = self.blocks[id as usize].take() else {
            return;
        };
        self.weight -= block.weight();
        self.dropped
            .extend(block.native.iter().filter_map(|entry| entry.number()));
        let first = block.start / PAGE_SIZE as usize;
        self.pages[first].retain(|here| here.id != id);
        if let Some(at) = block.second {
            self.pages[at / PAGE_SIZE as usize].retain(|here| here.id != id);
        }
        self.free.push(id);
        // No jump may find the number again.
        core.tlb.forget_fetches();
    }

    /// Throws away the code that has been overwritten; says whether there was any.
    pub fn forget_written(&mut self, core: &mut Core) -> bool {
        let any = !core.code_writes.is_empty();
        while let Some(page) = core.code_writes.pop() {
            self.invalidate_page(core, page as usize);
        }
        any
    }

    /// Throws away all code decoded from a page, which was written to.
    pub fn invalidate_page(&mut self, core: &mut Core, page: usize) {
        for here in std::mem::take(&mut self.pages[page]) {
            self.remove(core, here.id);
        }
        core.ram.clear_code(page);
    }

    /// Throws away the code decoded from these 64-byte granules of a page.
    pub(crate) fn invalidate_granules(&mut self, core: &mut Core, page: usize, granules: u64) {
        let there = self.pages[page].iter().copied();
        let gone: Vec<u32> = there
            .map(|here| here.id)
            .filter(|&id| {
                let block = self.get(id);
                block.is_none_or(|block| block.granules(page) & granules != 0)
            })
            .collect();
        for id in gone {
            self.remove(core, id);
        }
        if self.pages[page].is_empty() {
            core.ram.clear_code(page);
        }
    }

    /// Throws away the blocks that have an instruction at one of these offsets in a page.
    pub(crate) fn forget_across(&mut self, core: &mut Core, offsets: &[u16]) {
        let across = |block: &Block| {
            let start = page_offset(block.start as u64);
            let end = u32::from(start) + block.len;
            let next = offsets.partition_point(|offset| *offset < start);
            offsets.get(next).is_some_and(|at| u32::from(*at) < end)
        };
        for id in 0..self.blocks.len() {
            if self.blocks[id].as_ref().is_some_and(across) {
                self.remove(core, id as u32);
            }
        }
    }

    /// Throws away everything.
    pub fn clear(&mut self, core: &mut Core) {
        for page in 0..self.pages.len() {
            if !self.pages[page].is_empty() {
                self.invalidate_page(core, page);
            }
        }
    }
}

/// Where in its page an address is.
fn page_offset(address: u64) -> u16 {
    (address & PAGE_MASK) as u16
}

/// Ends a block before the first instruction in it that somebody wants to see.
fn cut(hooks: &[u64], cuts: &[u16], rip: u64, decoded: &mut Decoded) {
    if hooks.is_empty() && cuts.is_empty() {
        return;
    }
    let is_wanted = |op: &Op| {
        let at = rip.wrapping_add(op.offset.into());
        op.offset > 0
            && (hooks.binary_search(&at).is_ok() || cuts.binary_search(&page_offset(at)).is_ok())
    };
    let keep = decoded.ops.iter().position(is_wanted);
    let Some(keep) = keep else {
        // The addresses are inside instructions: nothing is cut off.
        return;
    };
    decoded.ops.truncate(keep);
    if let Some(last) = decoded.ops.last() {
        decoded.len = last.next() as usize;
        decoded.sets_rip = false;
    }
}

/// RAM offset of the code at a linear address.
fn fetch(core: &mut Core, va: u64) -> Result<usize, Trap> {
    if !is_canonical(va) {
        return Err(core.raise(crate::cpu::fault::Fault::gp(0)));
    }
    let user = core.user != 0;
    let t = match core.translate(va, Access::Fetch, user) {
        Ok(t) => t,
        Err(fault) => return Err(core.raise(fault)),
    };
    let Some(offset) = core
        .ram
        .offset(Gpa((t.gpfn * PAGE_SIZE) | (va & PAGE_MASK)))
    else {
        return Err(core.unsupported("code outside of RAM"));
    };
    core.touch(offset, Toucher::Fetch);
    Ok(offset)
}

/// Marks bytes as code, so that writes to them are noticed.
fn claim(core: &mut Core, offset: usize, len: usize) {
    if len == 0 {
        return;
    }
    if core.ram.page(offset).code_granules == 0 {
        core.tlb.drop_writes_to(offset);
    }
    core.ram.add_code(offset, granules(offset, len));
}

/// The 64-byte granules of a page in which these bytes of it lie.
fn granules(offset: usize, len: usize) -> u64 {
    let first = (offset as u64 & PAGE_MASK) / 64;
    let last = ((offset + len.max(1) - 1) as u64 & PAGE_MASK) / 64;
    (u64::MAX << first) & (u64::MAX >> (63 - last))
}
