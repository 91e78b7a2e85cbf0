//! Translates one block: accesses, jumps, and what is left to tier 0.

use std::mem::offset_of;
use std::ops::RangeInclusive;

use iced_x86::{Encoder, Instruction};

use super::buffer::{Cell, CodeBuffer, Jump};
use super::emit::{Alu, Asm, ENV, Fixup, GUEST_SP, Mem, NONE, RAX, S1, S2, cc};
use super::flags::FlagState;
use super::form::{Form, Shape, Touch};
use super::group::Group;
use super::state::Native;
use super::trampoline::{
    INDIRECT, NO_CELL, Site, Trampolines, aim_at_target, env, generation, guest, native, pinned,
    segment_base, target_field,
};
use crate::core::Core;
use crate::cpu::state::{REG_BLOCK, REG_ZERO, seg};
use crate::mem::addr::{PAGE_MASK, PAGE_SIZE};
use crate::mem::tlb::{FAST_ENTRIES, FastEntry, Tlb};
use crate::x86::op::{ADDR32, Op};

/// Entries of a table of jump targets.
pub(super) const JUMPS: usize = 1 << 14;

/// An entry of a table of jump targets.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct JumpTarget {
    pub(super) rip: u64,
    /// Entry of the translation.
    pub(super) code: u64,
    /// The fetch generation for which this holds; none is zero.
    pub(super) generation: u64,
    /// RAM offset of the page it is on.
    pub(super) page: u64,
}

impl JumpTarget {
    /// None. The guest can jump to any address, 0 too, but no page is at an odd offset: this never
    /// holds.
    pub(super) const NONE: Self = JumpTarget {
        rip: 0,
        code: 0,
        generation: 0,
        page: 1,
    };
}

/// What one instruction left to be put behind the block.
#[derive(Debug)]
struct SlowPath {
    fixups: Vec<Fixup>,
    /// What tier 0 does instead.
    insns: RangeInclusive<usize>,
    /// Where to go on, and whether the processor has to have the flags there.
    after: Option<(usize, bool)>,
}

/// A look among the jump targets that found one of an earlier generation, or none.
#[derive(Debug)]
struct Miss {
    insn: usize,
    stale: Fixup,
    unknown: Fixup,
    /// Where to go on once the target holds again.
    found: usize,
    /// What the instruction adds to RSP; `None`: tier 0 does it.
    drop: Option<i32>,
}

/// An exit of a block by a direct jump.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExitCell {
    pub(super) cell: u32,
    /// The jump itself, if its target is on the same page.
    pub(super) near: Option<Jump>,
    /// Where the jump goes while it is not linked.
    pub(super) unlinked: u64,
}

/// A block being translated.
pub(super) struct Builder<'a> {
    pub(super) asm: Asm,
    pub(super) insns: &'a [Instruction],
    pub(super) ops: &'a [Op],
    pub(super) shapes: &'a [Shape],
    /// The flags that an instruction leaves are written again before anyone looks.
    pub(super) dead: &'a [bool],
    pub(super) flags: FlagState,
    pub(super) encoder: &'a mut Encoder,
    trampolines: Trampolines,
    buffer: &'a mut CodeBuffer,
    sites: &'a [Site],
    user: usize,
    /// Offset of the block in its page.
    in_page: u64,
    misses: Vec<Miss>,
    slow: Vec<SlowPath>,
    slow_now: Option<SlowPath>,
    groups: &'a [Group],
    /// For accesses in groups, where they are relative to the group's pointer.
    offsets: &'a [Option<i32>],
    /// The groups already begun; the last one's way out, while it lasts.
    groups_begun: usize,
    group_slow: Option<SlowPath>,
    /// The operand's displacement from S1.
    pub(super) at: i32,
    pub(super) exits: Vec<ExitCell>,
    /// By the number of an exit, what goes to where it leads while it is not linked.
    unlinked: Vec<(usize, Fixup)>,
}

/// Everything a translation starts from.
pub(super) struct Input<'a> {
    pub(super) insns: &'a [Instruction],
    pub(super) ops: &'a [Op],
    pub(super) shapes: &'a [Shape],
    pub(super) dead: &'a [bool],
    pub(super) sites: &'a [Site],
    pub(super) groups: &'a [Group],
    pub(super) offsets: &'a [Option<i32>],
    pub(super) user: usize,
    pub(super) in_page: u64,
    pub(super) trampolines: Trampolines,
}

fn tlb(user: usize, field: usize) -> i32 {
    let at = offset_of!(Core, tlb)
        + offset_of!(Tlb, fast)
        + user * size_of::<[FastEntry; FAST_ENTRIES]>()
        + field;
    env(at).disp
}

impl<'a> Builder<'a> {
    pub(super) fn new(
        input: Input<'a>,
        encoder: &'a mut Encoder,
        buffer: &'a mut CodeBuffer,
    ) -> Self {
        Builder {
            asm: Asm::new(buffer.next(), buffer.next_cold()),
            insns: input.insns,
            ops: input.ops,
            shapes: input.shapes,
            dead: input.dead,
            flags: FlagState::in_memory(),
            encoder,
            trampolines: input.trampolines,
            buffer,
            sites: input.sites,
            user: input.user,
            in_page: input.in_page,
            misses: Vec::new(),
            slow: Vec::new(),
            slow_now: None,
            groups: input.groups,
            offsets: input.offsets,
            groups_begun: 0,
            group_slow: None,
            at: 0,
            exits: Vec::new(),
            unlinked: Vec::new(),
        }
    }

    /// Translates everything; the code is in `asm` afterwards. `None`: not possible after all.
    pub(super) fn build(&mut self) -> Option<()> {
        let count = self.ops.len();
        let budget = native(offset_of!(Native, budget));
        self.asm.alu_store_imm(Alu::Sub, budget, count as i32);
        let out_of_budget = self.asm.jcc(cc::S);
        for i in 0..count {
            self.begin_group(i);
            self.instruction(i)?;
            let ended = self.shapes[i].form.ends_block();
            let goes_on = (self.asm.position(), self.flags.host != 0);
            let group = self.group_slow.take_if(|slow| *slow.insns.end() == i);
            for mut slow in self.slow_now.take().into_iter().chain(group) {
                slow.after = (!ended).then_some(goes_on);
                self.slow.push(slow);
            }
        }
        let last = &self.ops[count - 1];
        if !self.shapes[count - 1].form.ends_block() && !self.sites[count - 1].ends {
            self.flags.save(&mut self.asm);
            self.exit(last.next() as i64);
        }
        self.asm.begin_cold();
        for miss in std::mem::take(&mut self.misses) {
            self.missed(miss);
        }
        for slow in std::mem::take(&mut self.slow) {
            self.slow_path(slow);
        }
        self.asm.bind(out_of_budget);
        self.asm.alu_store_imm(Alu::Add, budget, count as i32);
        self.leave_by(NO_CELL);
        self.unlinked_exits();
        Some(())
    }

    /// Out of translated code, at the boundary of a block.
    fn leave_by(&mut self, cell: u32) {
        self.asm.mov_imm(S1, cell as i32);
        let exit_cell = native(offset_of!(Native, exit_cell));
        self.asm.store_sized(exit_cell, S1, 4);
        self.asm.jmp_address(self.trampolines.boundary);
    }

    /// Behind the block: what a look among the jump targets did not find by address alone.
    fn missed(&mut self, miss: Miss) {
        let a = &mut self.asm;
        a.bind(miss.stale);
        a.call_address(self.trampolines.revalidate[self.user]);
        // Leaves the flags.
        a.load(S1, target_field(offset_of!(JumpTarget, rip)));
        a.jcc_back(cc::E, miss.found);
        a.bind(miss.unknown);
        a.call_address(self.trampolines.find[self.user]);
        a.jcc_back(cc::E, miss.found);
        let tier_zero = if let Some(drop) = miss.drop {
            // The address must be canonical.
            a.mov(S2, S1);
            a.shift_imm(true, 4, S2, 16);
            a.shift_imm(true, 7, S2, 16);
            a.alu(true, Alu::Cmp, S2, S1);
            let bad = a.jcc(cc::NE);
            if drop != 0 {
                a.lea(GUEST_SP, Mem::at(GUEST_SP, drop));
            }
            a.store(guest(REG_BLOCK), S1);
            self.leave_by(INDIRECT);
            bad
        } else {
            a.jmp()
        };
        let mut slow = SlowPath::new(miss.insn..=miss.insn);
        slow.fixups.push(tier_zero);
        self.slow.push(slow);
    }

    fn slow_path(&mut self, slow: SlowPath) {
        for fixup in slow.fixups {
            self.asm.bind(fixup);
        }
        for insn in slow.insns {
            self.call_tier_zero(insn);
        }
        if let Some((position, flags)) = slow.after {
            if flags {
                FlagState::in_memory().need(&mut self.asm, super::flags::ALL);
            }
            self.asm.jmp_back(position);
        }
    }

    fn call_tier_zero(&mut self, insn: usize) {
        let site = std::ptr::from_ref(&self.sites[insn]).expose_provenance();
        self.asm.mov_imm64(S2, site as u64);
        self.asm.call_address(self.trampolines.run_site);
    }

    /// An instruction that tier 0 does.
    pub(super) fn untranslated(&mut self, i: usize) {
        self.flags.save(&mut self.asm);
        self.call_tier_zero(i);
        self.flags.clobbered();
    }

    /// A jump to tier 0's version of the instruction, taken on a condition.
    pub(super) fn slow_if(&mut self, i: usize, condition: u8) {
        let fixup = self.asm.jcc(condition);
        let slow = self.slow_now.get_or_insert_with(|| SlowPath::new(i..=i));
        slow.fixups.push(fixup);
    }

    /// The operand's displacement from S1, for instructions that are not special.
    pub(super) fn displacement(&self, i: usize) -> i32 {
        self.offsets[i].unwrap_or(0)
    }

    /// Whether S1 holds the pointer of a group.
    pub(super) fn in_group(&self) -> bool {
        self.group_slow.is_some()
    }

    /// If a group begins here, makes S1 its pointer.
    fn begin_group(&mut self, i: usize) {
        let Some(group) = self.groups.get(self.groups_begun) else {
            return;
        };
        if *group.insns.start() != i {
            return;
        }
        let group = group.clone();
        self.groups_begun += 1;
        self.flags.save(&mut self.asm);
        let base = match group.base {
            REG_BLOCK => {
                self.asm.load(S1, guest(REG_BLOCK));
                S1
            }
            r => self.value(r & 15, S1),
        };
        self.asm.lea(S1, Mem::at(base, group.lowest as i32));
        self.access(i, group.touch, group.span);
        if group.aligned {
            self.require_alignment(i);
        }
        let mut slow = SlowPath::new(group.insns);
        slow.fixups = self
            .slow_now
            .take()
            .map(|slow| slow.fixups)
            .unwrap_or_default();
        self.group_slow = Some(slow);
    }

    /// A guest register as a host register; those in memory are loaded into `scratch`.
    pub(super) fn value(&mut self, register: u8, scratch: u8) -> u8 {
        pinned(register).unwrap_or_else(|| {
            self.asm.load(scratch, guest(register));
            scratch
        })
    }

    /// The memory operand's offset into its segment, in `to`; flags stay.
    pub(super) fn offset(&mut self, i: usize, to: u8, narrow: bool) {
        let op = &self.ops[i];
        let base = match op.base {
            REG_ZERO => NONE,
            REG_BLOCK => {
                self.asm.load(S1, guest(REG_BLOCK));
                S1
            }
            r => self.value(r & 15, S1),
        };
        let index = match op.index {
            REG_ZERO => None,
            r => Some((self.value(r & 15, S2), op.scale & 3)),
        };
        let m = Mem {
            base,
            index,
            disp: op.disp as i64 as i32,
        };
        if narrow || op.prefix & ADDR32 != 0 {
            self.asm.lea32(to, m);
        } else if m.disp == 0 && index.is_none() && base != NONE {
            if base != to {
                self.asm.mov(to, base);
            }
        } else {
            self.asm.lea(to, m);
        }
    }

    /// Leaves in S1 a host pointer to the memory operand. Flags are in memory afterwards.
    pub(super) fn access_operand(&mut self, i: usize, touch: Touch, size: u64) {
        if let Some(at) = self.offsets[i] {
            self.at = at;
            return;
        }
        self.at = 0;
        self.flags.save(&mut self.asm);
        self.offset(i, S1, false);
        let segment = self.ops[i].seg;
        if segment != seg::FLAT as u8 {
            self.asm.alu_load(Alu::Add, S1, segment_base(segment));
        }
        self.access(i, touch, size);
    }

    /// As [`Builder::access_operand`], for the element of a bit string that a bit offset, in a
    /// register, reaches.
    pub(super) fn access_bit_string(&mut self, i: usize, touch: Touch, size: u64, bit: u8) {
        self.flags.save(&mut self.asm);
        self.offset(i, S1, false);
        let segment = self.ops[i].seg;
        if segment != seg::FLAT as u8 {
            self.asm.alu_load(Alu::Add, S1, segment_base(segment));
        }
        let bits = size.trailing_zeros() as u8 + 3;
        if size == 4 {
            self.asm.sign_extend32(S2, bit);
        } else {
            self.asm.mov(S2, bit);
        }
        self.asm.shift_imm(true, 7, S2, bits);
        let index = Some((S2, size.trailing_zeros() as u8));
        self.asm.lea(
            S1,
            Mem {
                base: S1,
                index,
                disp: 0,
            },
        );
        self.access(i, touch, size);
    }

    /// Leaves for tier 0 if the operand at S1 is not aligned to 16 bytes.
    pub(super) fn require_alignment(&mut self, i: usize) {
        self.asm.test8_imm(S1, 15);
        self.slow_if(i, cc::NE);
    }

    /// Makes S2 find the TLB entry of the linear address in a register: its tag, and where the page is.
    pub(super) fn entry_of(&mut self, address: u8, touch: Touch) -> (Mem, Mem) {
        let tag = match touch {
            Touch::Read => offset_of!(FastEntry, read_tag),
            Touch::Write => offset_of!(FastEntry, write_tag),
        };
        let entry = |field: usize| Mem {
            base: ENV,
            index: Some((S2, 0)),
            disp: tlb(self.user, field),
        };
        let fields = (entry(tag), entry(offset_of!(FastEntry, host)));
        let a = &mut self.asm;
        a.mov(S2, address);
        // Page number times the size of an entry.
        let entry_shift = size_of::<FastEntry>().trailing_zeros() as u8;
        a.shift_imm(true, 5, S2, 12 - entry_shift);
        let mask = (FAST_ENTRIES - 1) << entry_shift;
        a.alu_imm(false, Alu::And, S2, mask as i32);
        fields
    }

    /// Turns the linear address in S1 into a host pointer, or leaves for tier 0.
    pub(super) fn access(&mut self, i: usize, touch: Touch, size: u64) {
        self.flags.save(&mut self.asm);
        let (tag, host) = self.entry_of(S1, touch);
        let a = &mut self.asm;
        a.alu_load(Alu::Sub, S1, tag);
        a.alu_imm(true, Alu::Cmp, S1, (PAGE_SIZE - size) as i32);
        self.slow_if(i, cc::A);
        self.asm.alu_load(Alu::Add, S1, host);
        self.flags.clobbered();
    }

    /// Leaves in S1, with `at`, a host pointer to 8 bytes of the stack.
    pub(super) fn access_stack(&mut self, i: usize, touch: Touch, disp: i32) {
        if let Some(at) = self.offsets[i] {
            self.at = at;
            return;
        }
        self.at = 0;
        self.flags.save(&mut self.asm);
        self.asm.lea(S1, Mem::at(GUEST_SP, disp));
        self.access(i, touch, 8);
    }

    /// The operand S1 points to.
    pub(super) fn operand(&self) -> Mem {
        Mem::at(S1, self.at)
    }

    /// Pushes what `value` puts into a register, given S2 as scratch.
    pub(super) fn push(&mut self, i: usize, value: impl FnOnce(&mut Self) -> u8) {
        self.access_stack(i, Touch::Write, -8);
        let from = value(self);
        self.asm.store(self.operand(), from);
        self.asm.lea(GUEST_SP, Mem::at(GUEST_SP, -8));
    }

    /// The address behind the instruction, in S2.
    pub(super) fn return_address(&mut self, i: usize) -> u8 {
        self.asm.load(S2, guest(REG_BLOCK));
        self.asm.lea(S2, Mem::at(S2, self.ops[i].next() as i32));
        S2
    }

    /// Looks the address in S1 up among the jump targets; S2 is the entry. If it is not there, it is
    /// looked up outside after `drop` has been added to RSP, or tier 0 does the instruction.
    pub(super) fn find_target(&mut self, i: usize, drop: Option<i32>) {
        let a = &mut self.asm;
        aim_at_target(a);
        a.alu_load(Alu::Cmp, S1, target_field(offset_of!(JumpTarget, rip)));
        let unknown = a.jcc(cc::NE);
        a.load(S1, generation(self.user));
        a.alu_load(
            Alu::Cmp,
            S1,
            target_field(offset_of!(JumpTarget, generation)),
        );
        let stale = a.jcc(cc::NE);
        a.load(S1, target_field(offset_of!(JumpTarget, rip)));
        self.misses.push(Miss {
            insn: i,
            stale,
            unknown,
            found: a.position(),
            drop,
        });
    }

    /// Goes to the target in S1, found at S2.
    pub(super) fn jump_to_target(&mut self) {
        self.asm.store(guest(REG_BLOCK), S1);
        self.asm
            .jmp_mem(Mem::at(S2, offset_of!(JumpTarget, code) as i32));
    }

    /// Leaves the block for a place relative to its start. Flags must have been saved.
    pub(super) fn exit(&mut self, offset: i64) {
        let exit = self.exits.len();
        let cell = self.buffer.new_cell();
        let in_page = (self.in_page as i64).wrapping_add(offset);
        let near = if (0..=PAGE_MASK as i64).contains(&in_page) {
            if offset != 0 {
                self.asm
                    .alu_store_imm(Alu::Add, guest(REG_BLOCK), offset as i32);
            }
            let jump = self.asm.jmp();
            self.unlinked.push((exit, jump));
            Some(self.buffer.jump(jump.end()))
        } else {
            let address = self.buffer.cell_address(cell);
            let key = |field: usize| address + field as u64;
            let a = &mut self.asm;
            a.load(S2, guest(REG_BLOCK));
            a.lea(S2, Mem::at(S2, offset as i32));
            a.store(guest(REG_BLOCK), S2);
            a.cmp_cell(S2, key(offset_of!(Cell, rip)));
            let other = a.jcc(cc::NE);
            a.load(S2, generation(self.user));
            a.cmp_cell(S2, key(offset_of!(Cell, generation)));
            let stale = a.jcc(cc::NE);
            a.jmp_cell(address);
            self.unlinked.extend([(exit, other), (exit, stale)]);
            None
        };
        self.exits.push(ExitCell {
            cell,
            near,
            unlinked: 0,
        });
    }

    fn unlinked_exits(&mut self) {
        let unlinked = std::mem::take(&mut self.unlinked);
        for n in 0..self.exits.len() {
            for (_, fixup) in unlinked.iter().filter(|(exit, _)| *exit == n) {
                self.asm.bind(*fixup);
            }
            let here = self.asm.address(self.asm.position());
            let exit = &mut self.exits[n];
            exit.unlinked = here;
            let (cell, near) = (exit.cell, exit.near.is_some());
            if near {
                self.leave_by(cell);
            } else {
                self.asm.mov_imm(S1, cell as i32);
                self.asm.jmp_address(self.trampolines.chase[self.user]);
            }
        }
    }

    /// The canonical flags of a multiplication, whose result's low part is in a host register, or
    /// in memory. The processor says CF.
    pub(super) fn save_product_flags(&mut self, result: Result<u8, Mem>, size: u64) {
        let a = &mut self.asm;
        a.setcc(2, S2);
        a.mov(S1, RAX);
        match result {
            Ok(register) => a.test_sized(register, size),
            Err(memory) => a.cmp_zero_sized(memory, size),
        }
        a.bytes(&[0x9f]); // lahf
        a.mov_sized(RAX, S2, 1);
        a.bytes(&[0x80, 0xe4, 0xef]); // and ah, ~AF
        a.bytes(&[0x08, 0xc4]); // or ah, al
        a.store_sized(native(offset_of!(Native, flags)), RAX, 2);
        a.mov(RAX, S1);
        self.flags = FlagState::in_memory();
    }
}

impl SlowPath {
    fn new(insns: RangeInclusive<usize>) -> Self {
        SlowPath {
            fixups: Vec::new(),
            insns,
            after: None,
        }
    }
}

impl Form {
    /// Whether control does not fall through to the next instruction.
    pub(super) fn ends_block(self) -> bool {
        matches!(
            self,
            Form::Jump
                | Form::JumpIf
                | Form::JumpIndirect
                | Form::Call
                | Form::CallIndirect
                | Form::Return
        )
    }
}
