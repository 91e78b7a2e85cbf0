//! Which blocks are translated, how they are found and linked, and running them.

use iced_x86::{Code, Decoder, Encoder, Instruction};

use super::block::{Builder, ExitCell, Input, JumpTarget};
use super::buffer::{Cell, CodeBuffer};
use super::flags::{ALL, pack, unpack};
use super::form::{Form, Mode, Shape, shape};
use super::group::{Group, groups};
use super::state::{Entry, HOT, Ran, Tier, TierStats, VARIANTS, plain_floats};
use super::trampoline::{BOUNDARY, FORCE, INDIRECT, LEFT, Site, Trampolines};
use super::translation::{Links, Targets, Translation};
use crate::core::Core;
use crate::cpu::flags::{self, LazyFlags};
use crate::cpu::state::{CR0_EM, CR0_TS, CR4_OSFXSR, REG_BLOCK};
use crate::mem::addr::PAGE_MASK;
use crate::tick::Tick;
use crate::x86::block::{Block, BlockCache};

/// What exists while translating is possible.
#[derive(Debug)]
struct Works {
    buffer: CodeBuffer,
    trampolines: Trampolines,
    /// Bytes of the fixed code at the start of the buffer.
    fixed: usize,
    blocks: Vec<Translation>,
    targets: [Targets; VARIANTS],
    /// The jump that left translated code last, the address it leads to, and the variant it is of.
    pending: Option<(ExitCell, u64, usize)>,
    /// For each cell, the exit it belongs to.
    cells: Vec<ExitCell>,
    /// Some translation takes for granted that SSE instructions may run.
    sse: bool,
    stats: TierStats,
}

/// Tier 1.
#[derive(Debug)]
pub(crate) struct Translator {
    tier: Tier,
    /// Executions after which a block is translated.
    hot: u32,
    works: Option<Box<Works>>,
}

impl Default for Translator {
    fn default() -> Self {
        Translator {
            tier: Tier::default(),
            hot: HOT,
            works: None,
        }
    }
}

/// An upper bound for the code of a block.
const BLOCK_BYTES_MAX: usize = 32 << 10;
const BLOCK_CELLS_MAX: usize = 4;

impl Translator {
    /// Chooses a tier; says which one it has become, since a host may not allow translated code.
    pub(crate) fn set_tier(&mut self, tier: Tier) -> Tier {
        self.tier = tier;
        if tier != Tier::Zero && self.works.is_none() {
            self.works = Works::new().map(Box::new);
            if self.works.is_none() {
                self.tier = Tier::Zero;
            }
        }
        self.tier
    }

    pub(crate) fn translate_after(&mut self, executions: u32) {
        self.hot = executions;
    }

    pub(crate) fn tier(&self) -> Tier {
        self.tier
    }

    pub(crate) fn stats(&self, core: &Core) -> TierStats {
        let Some(works) = &self.works else {
            return TierStats::default();
        };
        let [calls, slow_accesses] = core.native.histograms.each_ref();
        TierStats {
            calls: calls.iter().sum(),
            slow_accesses: slow_accesses.iter().sum(),
            code_bytes: works.buffer.used() as u64,
            by_code: named(calls),
            slow_by_code: named(slow_accesses),
            ..works.stats.clone()
        }
    }

    /// Runs a block, and whatever follows it, if it is translated; translates it if it is time.
    /// RIP is at its start, and `limit` ticks may pass.
    #[inline]
    pub(crate) fn run(
        &mut self,
        core: &mut Core,
        blocks: &mut BlockCache,
        id: u32,
        limit: u64,
    ) -> Option<Ran> {
        if self.tier == Tier::Zero {
            return None;
        }
        let works = self.works.as_deref_mut()?;
        if works.sse && !sse_ready(core) {
            works.flush(blocks);
        }
        if !blocks.dropped.is_empty() {
            works.unlink_dropped(blocks);
        }
        if let Some(number) = core.native.straddler.take() {
            works.ungroup(core, blocks, number);
        }
        let variant = variant(core);
        let block = blocks.get_mut(id)?;
        let number = match block.native[variant].number() {
            Some(number) => number,
            None => {
                if !block.native[variant].warm(self.hot) {
                    works.pending = None;
                    return None;
                }
                works.translate(core, blocks, id)?
            }
        };
        works.run(core, number, limit)
    }
}

impl Works {
    fn new() -> Option<Self> {
        let mut buffer = CodeBuffer::new().ok()?;
        let trampolines = Trampolines::new(&mut buffer);
        Some(Works {
            fixed: buffer.used_hot(),
            buffer,
            trampolines,
            blocks: Vec::new(),
            targets: std::array::from_fn(|_| Targets::new()),
            pending: None,
            cells: Vec::new(),
            sse: false,
            stats: TierStats::default(),
        })
    }

    fn run(&mut self, core: &mut Core, number: u32, limit: u64) -> Option<Ran> {
        let translation = self.blocks.get(number as usize)?;
        if u64::from(translation.insns) > limit
            || core.cpu.shadow
            || core.user == 0 && core.cpu.cpl != 0
            || core.cpu.system_flags & flags::TF != 0
        {
            self.pending = None;
            return None;
        }
        let entry = translation.entry;
        let rip = core.cpu.rip;
        let variant = variant(core);
        let generation = core.tlb.fetch_generations[core.user & 1];
        let target = JumpTarget {
            rip,
            code: entry,
            generation,
            page: translation.page(),
        };
        self.targets[variant].note(translation.start, target);
        if let Some((exit, target, from)) = self.pending.take()
            && (target, from) == (rip, variant)
        {
            self.link(exit, number, generation, rip);
        }
        core.cpu.regs[REG_BLOCK as usize] = rip;
        core.cpu.system_flags &= !flags::RF;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX).min(i64::MAX >> 4);
        let native = &mut core.native;
        native.budget = limit;
        native.end = core.tick.0.wrapping_add(limit as u64);
        native.flags = pack(core.cpu.lazy.bits());
        native.cells = self.buffer.cells();
        native.quiet = u32::from(!core.board.interrupt_pending() && !core.board.nmi_pending());
        (native.jumps, native.starts) = self.targets[variant].addresses();
        let began = core.tick.0;
        self.buffer.settle();
        let how = self.trampolines.enter(core, entry);
        let ran = self.left(core, how, variant);
        self.stats.entries += 1;
        self.stats.ticks += core.tick.0.wrapping_sub(began);
        Some(ran)
    }

    /// Brings the core into the state that tier 0 leaves between two blocks.
    fn left(&mut self, core: &mut Core, how: u32, variant: usize) -> Ran {
        let start = core.cpu.regs[REG_BLOCK as usize];
        if how == BOUNDARY {
            let n = &core.native;
            core.tick = Tick(n.end.wrapping_sub(n.budget as u64));
            core.cpu.lazy = LazyFlags::from_bits(unpack(n.flags));
            core.cpu.rip = start;
            core.place = 0;
            let exit = self.cells.get(n.exit_cell as usize).copied();
            self.pending = exit.map(|exit| (exit, start, variant));
            let forced = n.budget < -FORCE / 2;
            let jump = exit.is_some() || n.exit_cell == INDIRECT;
            self.stats.leaves[if jump { 2 } else { usize::from(forced) }] += 1;
            return Ran::Completed;
        }
        let site = self.trampolines.last_site(&core.native);
        self.stats.leaves[if how == LEFT { 3 } else { 4 }] += 1;
        let done = u64::from(site.op.index_in_block) + u64::from(how == LEFT);
        core.tick.0 += done;
        core.place = 0;
        if how != LEFT {
            core.cpu.rip = start.wrapping_add(u64::from(site.op.offset));
            core.cpu.regs[REG_BLOCK as usize] = core.cpu.rip;
            return Ran::Trapped(site.op.len);
        }
        if !site.ends {
            core.cpu.rip = start.wrapping_add(site.op.next());
        }
        core.cpu.regs[REG_BLOCK as usize] = core.cpu.rip;
        Ran::Completed
    }

    /// Lets a jump go straight to a translation.
    fn link(&mut self, exit: ExitCell, number: u32, generation: u64, rip: u64) {
        let Some(to) = self.blocks.get_mut(number as usize) else {
            return;
        };
        if let Some(jump) = exit.near {
            self.buffer.aim(jump, to.entry);
            to.links.incoming.push((jump, exit.unlinked));
            return;
        }
        let cell = Cell {
            target: to.entry,
            generation,
            rip,
            reserved: 0,
        };
        self.buffer.set_cell(exit.cell, cell);
    }

    /// The code of these blocks is no more.
    fn unlink_dropped(&mut self, blocks: &mut BlockCache) {
        self.stats.invalidated += blocks.dropped.len() as u64;
        for number in blocks.dropped.drain(..) {
            self.unlink(number);
        }
        self.pending = None;
    }

    /// Nobody jumps to this translation any more, except by cells that hold for an earlier fetch
    /// generation.
    fn unlink(&mut self, number: u32) {
        let Some(gone) = self.blocks.get_mut(number as usize) else {
            return;
        };
        for (jump, unlinked) in gone.links.incoming.drain(..) {
            self.buffer.aim(jump, unlinked);
        }
        self.targets[gone.variant].forget(gone);
    }

    /// Translates a block anew, each access on its own.
    fn ungroup(&mut self, core: &mut Core, blocks: &mut BlockCache, number: u32) {
        let Some(gone) = self.blocks.get(number as usize) else {
            return;
        };
        if let Some(block) = blocks.get_mut(gone.block)
            && let Some(entry) = (block.native.iter_mut()).find(|e| e.number() == Some(number))
        {
            entry.reset();
            block.ungrouped = true;
            self.unlink(number);
            core.tlb.forget_fetches();
            self.pending = None;
        }
    }

    /// Throws everything away.
    fn flush(&mut self, blocks: &mut BlockCache) {
        blocks.forget_translations();
        self.buffer.truncate(self.fixed);
        self.blocks.clear();
        self.cells.clear();
        self.pending = None;
        self.targets.iter_mut().for_each(Targets::clear);
        self.sse = false;
        self.stats.flushes += 1;
    }

    fn translate(&mut self, core: &mut Core, blocks: &mut BlockCache, id: u32) -> Option<u32> {
        if !self.buffer.has_room(BLOCK_BYTES_MAX, BLOCK_CELLS_MAX) {
            self.flush(blocks);
        }
        for histogram in &mut core.native.histograms {
            histogram.resize(Code::values().len(), 0);
        }
        let variant = variant(core);
        let block = blocks.get_mut(id)?;
        let number = self.blocks.len() as u32;
        let translation = self.translated(core, block, id, number);
        let Some(translation) = translation else {
            block.native[variant].set_never();
            self.pending = None;
            return None;
        };
        block.native[variant].set(number);
        self.stats.translated += 1;
        self.stats.translated_insns += u64::from(translation.insns);
        self.blocks.push(translation);
        Some(number)
    }

    fn translated(
        &mut self,
        core: &Core,
        block: &Block,
        id: u32,
        number: u32,
    ) -> Option<Translation> {
        if !block.is_long() || block.hooked || block.crosses_pages() || block.ops.is_empty() {
            return None;
        }
        let user = core.user & 1;
        let start = block.start();
        let code = core.ram.bytes().get(start..start + block.len as usize)?;
        let mut decoder = Decoder::with_ip(64, code, 0, crate::x86::decode::OPTIONS);
        let insns: Vec<Instruction> = block.ops.iter().map(|_| decoder.decode()).collect();
        // Translated SSE instructions access the guest's memory at the guest's alignment.
        let mode = Mode {
            user: user == 1,
            sse: sse_ready(core) && core.tlb.ram_base & 15 == 0,
            floats: plain_floats(core.cpu.mxcsr),
        };
        let shapes: Vec<Shape> = insns
            .iter()
            .zip(&block.ops)
            .map(|(insn, op)| shape(insn, op, mode))
            .collect();
        self.sse |= shapes.iter().any(|shape| shape.form == Form::Sse);
        let last = block.ops.len() - 1;
        let (groups, offsets) = if block.ungrouped {
            (Vec::new(), vec![None; insns.len()])
        } else {
            groups(&insns, &block.ops, &shapes)
        };
        let begins = |i: usize| groups.iter().any(|group| *group.insns.start() == i);
        let sites: Box<[Site]> = (block.ops.iter().zip(&insns).zip(&shapes).enumerate())
            .map(|(i, ((op, insn), shape))| Site {
                op: op.clone(),
                block_insns: block.ops.len() as u32,
                ends: i == last && block.sets_rip,
                untranslated: matches!(shape.form, Form::Untranslated | Form::EnableInterrupts),
                group: begins(i).then(|| (number, Default::default())),
                code: insn.code() as u16,
            })
            .collect();
        let dead = dead_flags(&shapes, &groups, &offsets);
        let mut encoder = Encoder::new(64);
        let input = Input {
            insns: &insns,
            ops: &block.ops,
            shapes: &shapes,
            dead: &dead,
            sites: &sites,
            groups: &groups,
            offsets: &offsets,
            user,
            in_page: start as u64 & PAGE_MASK,
            trampolines: self.trampolines,
        };
        let mut builder = Builder::new(input, &mut encoder, &mut self.buffer);
        builder.build()?;
        let entry = builder.asm.address(0);
        let (asm, exits) = (builder.asm, builder.exits);
        self.buffer.append(asm.parts());
        for exit in &exits {
            if exit.near.is_none() {
                self.buffer
                    .set_cell(exit.cell, Cell::unlinked(exit.unlinked));
            }
            let n = exit.cell as usize;
            if self.cells.len() <= n {
                self.cells.resize(n + 1, *exit);
            }
            self.cells[n] = *exit;
        }
        Some(Translation {
            entry,
            insns: block.ops.len() as u32,
            block: id,
            start: start as u64,
            variant: variant(core),
            links: Box::new(Links {
                incoming: Vec::new(),
                _sites: sites,
            }),
        })
    }
}

/// Counts by iced's `Code`, named, greatest first.
fn named(counts: &[u64]) -> Vec<(String, u64)> {
    let mut by_code: Vec<(String, u64)> = Code::values()
        .zip(counts)
        .filter(|(_, count)| **count != 0)
        .map(|(code, count)| (format!("{code:?}"), *count))
        .collect();
    by_code.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    by_code
}

/// Which translation of a block is to run: see [`VARIANTS`].
#[inline]
fn variant(core: &Core) -> usize {
    core.user & 1 | usize::from(!plain_floats(core.cpu.mxcsr)) << 1
}

/// Whether SSE instructions may run (SDM vol. 3, 13.1).
fn sse_ready(core: &Core) -> bool {
    core.cpu.cr0 & (CR0_EM | CR0_TS) | !core.cpu.cr4 & CR4_OSFXSR == 0
}

/// For each instruction, whether the flags it leaves are all written again before they are read,
/// saved or visible.
fn dead_flags(shapes: &[Shape], groups: &[Group], offsets: &[Option<i32>]) -> Vec<bool> {
    let mut dead = vec![false; shapes.len()];
    // Whether the flags before the instruction looked at last are of no interest.
    let mut unread = false;
    for (i, shape) in shapes.iter().enumerate().rev() {
        dead[i] = unread;
        // Inside a group, an access looks nothing up, and if tier 0 has to step in it does all.
        let inside = offsets[i].is_some()
            && !shape.form.ends_block()
            && groups.iter().all(|group| *group.insns.start() != i);
        if shape.saves_flags() && !inside || shape.reads != 0 {
            unread = false;
        } else if shape.writes == ALL {
            unread = true;
        } else if shape.writes != 0 {
            // What it leaves of the earlier flags is as alive as what it writes.
            unread = dead[i];
        }
    }
    dead
}

const _: fn(&mut Entry) = Entry::reset;
