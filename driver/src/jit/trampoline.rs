//! The way into translated code, out of it, and from it to tier 0's body of an instruction.
#![expect(unsafe_code, reason = "runs machine code that was made at run time")]

use std::cell::Cell as StdCell;
use std::mem::offset_of;

use super::block::{JUMPS, JumpTarget};
use super::buffer::{Cell, CodeBuffer};
use super::emit::{Alu, Asm, ENV, GUEST_SP, Mem, RAX, S1, S2, cc};
use super::flags::{pack, unpack};
use super::state::{MXCSR_PLAIN, Native, plain_floats};
use super::translation::{PAGE_SHIFT_IN_SLOT, START_ABOVE, START_CODE, STARTS, Start};
use crate::core::Core;
use crate::cpu::flags::LazyFlags;
use crate::cpu::state::{Cpu, Msrs, REG_BLOCK, Segment};
use crate::mem::addr::{PAGE_MASK, PAGE_SIZE};
use crate::mem::tlb::{FETCH_ENTRIES, FetchEntry, Tlb};
use crate::tick::Tick;
use crate::x86::op::Op;

/// ENV points so far into [`Core`] that what is used most is near.
const BIAS: usize = offset_of!(Core, cpu) + offset_of!(Cpu, regs) + 128;

/// A field of [`Core`], by offset, as an operand.
pub(super) fn env(offset: usize) -> Mem {
    Mem::at(ENV, offset as i32 - BIAS as i32)
}

/// A field of [`Native`], by offset.
pub(super) fn native(offset: usize) -> Mem {
    env(offset_of!(Core, native) + offset)
}

/// A guest register in memory, pseudo registers included.
pub(super) fn guest(register: u8) -> Mem {
    env(offset_of!(Core, cpu) + offset_of!(Cpu, regs) + 8 * register as usize)
}

/// A guest XMM register.
pub(super) fn guest_xmm(register: u8) -> Mem {
    env(offset_of!(Core, cpu) + offset_of!(Cpu, xmm) + 16 * (register & 15) as usize)
}

/// RFLAGS without the status flags.
pub(super) fn system_flags() -> Mem {
    env(offset_of!(Core, cpu) + offset_of!(Cpu, system_flags))
}

/// The selector of a segment register.
pub(super) fn selector(segment: u8) -> Mem {
    env(offset_of!(Core, cpu)
        + offset_of!(Cpu, segs)
        + segment as usize % 7 * size_of::<Segment>()
        + offset_of!(Segment, selector))
}

/// The base of a segment.
pub(super) fn segment_base(which: u8) -> Mem {
    env(offset_of!(Core, cpu)
        + offset_of!(Cpu, segs)
        + which as usize * size_of::<Segment>()
        + offset_of!(Segment, base))
}

/// What SWAPGS exchanges the base of GS with.
pub(super) fn kernel_gs_base() -> Mem {
    env(offset_of!(Core, cpu) + offset_of!(Cpu, msr) + offset_of!(Msrs, kernel_gs_base))
}

/// The host register a guest register is pinned in; the others live in memory.
pub(super) fn pinned(register: u8) -> Option<u8> {
    match register {
        4 => Some(GUEST_SP),
        0..=11 => Some(register),
        _ => None,
    }
}

/// One instruction of translated code, for tier 0.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Site {
    pub(super) op: Op,
    /// Instructions in the block.
    pub(super) block_insns: u32,
    /// The body sets RIP, or may have changed anything: leave after it.
    pub(super) ends: bool,
    /// Nobody translates this instruction; else its memory access was slow.
    pub(super) untranslated: bool,
    /// The number of the translation, if a group begins here, and how often its look into the TLB
    /// has failed.
    pub(super) group: Option<(u32, StdCell<u32>)>,
    /// iced's `Code`.
    pub(super) code: u16,
}

/// What the code outside says to the code that called it.
pub(super) const BOUNDARY: u32 = 0;
/// Left after the instruction of the site.
pub(super) const LEFT: u32 = 1;
/// The instruction of the site trapped.
pub(super) const TRAPPED: u32 = 2;

/// In the place of a cell: the end of the budget, or an indirect jump.
pub(super) const NO_CELL: u32 = u32::MAX;
pub(super) const INDIRECT: u32 = u32::MAX - 1;
/// Failures after which a group's instructions had better be looked up one by one.
const STRADDLES_MAX: u32 = 64;

/// Taken from the budget to leave translated code at the end of the block.
pub(super) const FORCE: i64 = 1 << 60;
/// As in the main loop: observations after which the caller wants to drain them.
const OBSERVATIONS_MAX: usize = 4096;

/// Hands the guest's MXCSR to the host, before translated code runs. Plain or not, the host's own code
/// is left with the control bits it expects; what sticks in the flags does not matter to it.
fn lend_mxcsr(core: &mut Core) {
    let plain = plain_floats(core.cpu.mxcsr);
    core.native.mxcsr = if plain { core.cpu.mxcsr } else { MXCSR_PLAIN };
}

/// Takes back what translated code has made of it.
fn take_mxcsr(core: &mut Core) {
    if plain_floats(core.cpu.mxcsr) {
        core.cpu.mxcsr = core.native.mxcsr;
    }
}

/// Runs one instruction in tier 0. All guest registers are in `core`, the flags in their packed form.
extern "C" fn run_site(core: &mut Core, site: &Site) -> u32 {
    let op = &site.op;
    take_mxcsr(core);
    let plain = plain_floats(core.cpu.mxcsr);
    let n = &mut core.native;
    n.site = std::ptr::from_ref(site).expose_provenance();
    let histogram = &mut n.histograms[usize::from(!site.untranslated)];
    if let Some(count) = histogram.get_mut(site.code as usize) {
        *count += 1;
    }
    if let Some((number, failures)) = &site.group {
        failures.set(failures.get().wrapping_add(1));
        if failures.get() == STRADDLES_MAX {
            n.straddler = Some(*number);
        }
    }
    core.tick = Tick(
        n.end
            .wrapping_sub(n.budget as u64)
            .wrapping_sub(u64::from(site.block_insns)),
    );
    core.cpu.lazy = LazyFlags::from_bits(unpack(n.flags));
    core.place = u32::from(op.index_in_block) << 16 | u32::from(op.offset);
    core.stop = usize::MAX;
    let generation = core.tlb.fetch_generations[core.user & 1];
    if (op.run)(core, op).is_err() {
        return TRAPPED;
    }
    // What follows was translated for the other kind of MXCSR.
    let changed_floats = plain_floats(core.cpu.mxcsr) != plain;
    if core.stop == 0 || site.ends || changed_floats {
        return LEFT;
    }
    lend_mxcsr(core);
    core.native.flags = pack(core.cpu.lazy.bits());
    let changed = core.attention
        || core.tlb.fetch_generations[core.user & 1] != generation
        || core.armed.any()
        || core.observations.rows.len() >= OBSERVATIONS_MAX;
    if changed && core.native.budget >= 0 {
        core.native.budget = core.native.budget.wrapping_sub(FORCE);
        core.native.end = core.native.end.wrapping_sub(FORCE as u64);
    }
    BOUNDARY
}

/// Addresses of the fixed pieces of code.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trampolines {
    enter: u64,
    /// Call with a site in S2.
    pub(super) run_site: u64,
    /// Jump here between two blocks.
    pub(super) boundary: u64,
    /// For supervisor and user mode: call with a jump target in S2 whose generation is not the
    /// present one. ZF says that it holds all the same, and then it is of this generation again.
    /// S1 is lost.
    pub(super) revalidate: [u64; 2],
    /// For supervisor and user mode: call with an address in S1 and the jump target in S2 that should be
    /// for it and is not. ZF says that the code there has been found, and that the target is for it now.
    pub(super) find: [u64; 2],
    /// Jump here with the number of a cell in S1 to go where it should lead, which is RIP.
    pub(super) chase: [u64; 2],
}

/// The fetch generation.
pub(super) fn generation(user: usize) -> Mem {
    env(offset_of!(Core, tlb) + offset_of!(Tlb, fetch_generations) + 8 * user)
}

/// Makes S2 point to the jump target for the address in S1.
pub(super) fn aim_at_target(a: &mut Asm) {
    a.mov32(S2, S1);
    a.alu_imm(false, Alu::And, S2, (JUMPS - 1) as i32);
    a.shift_imm(false, 4, S2, size_of::<JumpTarget>().trailing_zeros() as u8);
    a.alu_load(Alu::Add, S2, native(offset_of!(Native, jumps)));
}

/// A field of the jump target S2 points to.
pub(super) fn target_field(offset: usize) -> Mem {
    Mem::at(S2, offset as i32)
}

/// A field of the note where the code of a page was fetched, for what [`aim_at_fetched`] left in a register.
fn fetched(user: usize, register: u8, field: usize) -> Mem {
    Mem {
        index: Some((register, 0)),
        ..env(offset_of!(Core, tlb)
            + offset_of!(Tlb, fetched)
            + user * size_of::<[FetchEntry; FETCH_ENTRIES]>()
            + field)
    }
}

/// Turns an address into where its page's note is among them.
fn aim_at_fetched(a: &mut Asm, register: u8) {
    let entry_shift = size_of::<FetchEntry>().trailing_zeros() as u8;
    let shift = PAGE_SIZE.trailing_zeros() as u8 - entry_shift;
    a.shift_imm(true, 5, register, shift);
    let mask = (FETCH_ENTRIES - 1) << entry_shift;
    a.alu_imm(false, Alu::And, register, mask as i32);
}

/// A target holds if the code of its page is still fetched from where it was: blocks that are thrown
/// away are no targets any more.
fn emit_revalidate(a: &mut Asm, user: usize) {
    let fetched = |field| fetched(user, S1, field);
    a.push(RAX);
    a.load(RAX, target_field(offset_of!(JumpTarget, rip)));
    a.mov(S1, RAX);
    aim_at_fetched(a, S1);
    a.alu_imm(true, Alu::And, RAX, -(PAGE_SIZE as i32));
    a.alu_load(Alu::Cmp, RAX, fetched(offset_of!(FetchEntry, page)));
    let other = a.jcc(cc::NE);
    a.load(RAX, target_field(offset_of!(JumpTarget, page)));
    a.alu_load(Alu::Cmp, RAX, fetched(offset_of!(FetchEntry, offset)));
    let moved = a.jcc(cc::NE);
    // Moves leave the flags alone.
    a.load(S1, generation(user));
    a.store(target_field(offset_of!(JumpTarget, generation)), S1);
    a.bind(other);
    a.bind(moved);
    a.pop(RAX);
    a.bytes(&[0xc3]);
}

/// The code at an address is that of the RAM its page is fetched from, which may have been run at another
/// address before.
fn emit_find(a: &mut Asm, user: usize) {
    const RCX: u8 = 1;
    const RDX: u8 = 2;
    let start = |field: usize| Mem::at(RDX, field as i32);
    for register in [RAX, RCX, RDX] {
        a.push(register);
    }
    a.mov(RCX, S1);
    aim_at_fetched(a, RCX);
    a.mov(RAX, S1);
    a.alu_imm(true, Alu::And, RAX, -(PAGE_SIZE as i32));
    a.alu_load(
        Alu::Cmp,
        RAX,
        fetched(user, RCX, offset_of!(FetchEntry, page)),
    );
    let not_fetched = a.jcc(cc::NE);
    a.load(RAX, fetched(user, RCX, offset_of!(FetchEntry, offset)));
    a.mov(RCX, S1);
    a.alu_imm(false, Alu::And, RCX, PAGE_MASK as i32);
    a.alu(true, Alu::Or, RCX, RAX);
    a.mov(RDX, RCX);
    a.shift_imm(true, 5, RDX, PAGE_SHIFT_IN_SLOT);
    a.alu(true, Alu::Xor, RDX, RCX);
    a.alu_imm(false, Alu::And, RDX, (STARTS - 1) as i32);
    a.shift_imm(false, 4, RDX, size_of::<Start>().trailing_zeros() as u8);
    a.alu_load(Alu::Add, RDX, native(offset_of!(Native, starts)));
    a.lea(RCX, Mem::at(RCX, 1));
    a.alu_load(Alu::Cmp, RCX, start(START_ABOVE));
    let other = a.jcc(cc::NE);
    // Moves leave the flags alone.
    a.store(target_field(offset_of!(JumpTarget, page)), RAX);
    a.store(target_field(offset_of!(JumpTarget, rip)), S1);
    a.load(RAX, start(START_CODE));
    a.store(target_field(offset_of!(JumpTarget, code)), RAX);
    a.load(RAX, generation(user));
    a.store(target_field(offset_of!(JumpTarget, generation)), RAX);
    a.bind(not_fetched);
    a.bind(other);
    for register in [RDX, RCX, RAX] {
        a.pop(register);
    }
    a.bytes(&[0xc3]);
}

fn emit_chase(a: &mut Asm, user: usize, [revalidate, find]: [usize; 2], boundary: usize) {
    let cell = |field: usize| Mem::at(S1, field as i32);
    let exit_cell = native(offset_of!(Native, exit_cell));
    a.store_sized(exit_cell, S1, 4);
    a.load(S1, guest(REG_BLOCK));
    aim_at_target(a);
    a.alu_load(Alu::Cmp, S1, target_field(offset_of!(JumpTarget, rip)));
    let unknown = a.jcc(cc::NE);
    a.load(S1, generation(user));
    a.alu_load(
        Alu::Cmp,
        S1,
        target_field(offset_of!(JumpTarget, generation)),
    );
    let fresh = a.jcc(cc::E);
    a.call_back(revalidate);
    a.load(S1, target_field(offset_of!(JumpTarget, rip)));
    let fresh_again = a.jcc(cc::E);
    a.bind(unknown);
    a.call_back(find);
    let nowhere = a.jcc(cc::NE);
    a.bind(fresh);
    a.bind(fresh_again);
    // Next time, the cell leads there by itself.
    a.load32(S1, exit_cell);
    a.shift_imm(false, 4, S1, size_of::<Cell>().trailing_zeros() as u8);
    a.alu_load(Alu::Add, S1, native(offset_of!(Native, cells)));
    a.push(RAX);
    for (from, to) in [
        (offset_of!(JumpTarget, code), offset_of!(Cell, target)),
        (
            offset_of!(JumpTarget, generation),
            offset_of!(Cell, generation),
        ),
        (offset_of!(JumpTarget, rip), offset_of!(Cell, rip)),
    ] {
        a.load(RAX, target_field(from));
        a.store(cell(to), RAX);
    }
    a.pop(RAX);
    a.jmp_mem(target_field(offset_of!(JumpTarget, code)));
    a.bind(nowhere);
    a.jmp_back(boundary);
}

const CALLEE_SAVED: [u8; 6] = [3, 5, 12, 13, 14, 15];

fn save_registers(a: &mut Asm) {
    for register in 0..16 {
        if let Some(host) = pinned(register) {
            a.store(guest(register), host);
        }
    }
}

fn load_registers(a: &mut Asm) {
    for register in 0..16 {
        if let Some(host) = pinned(register) {
            a.load(host, guest(register));
        }
    }
}

impl Trampolines {
    pub(super) fn new(buffer: &mut CodeBuffer) -> Self {
        const RDI: u8 = 7;
        const RSI: u8 = 6;
        let mxcsr = native(offset_of!(Native, mxcsr));
        let mut a = Asm::new(buffer.next(), buffer.next_cold());
        let enter = a.address(0);
        for r in CALLEE_SAVED {
            a.push(r);
        }
        a.bytes(&[0x48, 0x83, 0xec, 8]); // sub rsp, 8
        a.lea(ENV, Mem::at(RDI, BIAS as i32));
        a.load_mxcsr(mxcsr);
        a.mov(S1, RSI);
        load_registers(&mut a);
        a.jmp_register(S1);

        let boundary = a.position();
        save_registers(&mut a);
        a.store_mxcsr(mxcsr);
        a.mov_imm(RAX, BOUNDARY as i32);
        let exit = a.position();
        a.bytes(&[0x48, 0x83, 0xc4, 8]); // add rsp, 8
        for r in CALLEE_SAVED.into_iter().rev() {
            a.pop(r);
        }
        a.bytes(&[0xc3]);

        let run = a.position();
        save_registers(&mut a);
        a.store_mxcsr(mxcsr);
        a.lea(RDI, Mem::at(ENV, -(BIAS as i32)));
        a.mov(RSI, S2);
        a.mov_imm64(
            RAX,
            run_site as extern "C" fn(&mut Core, &Site) -> u32 as usize as u64,
        );
        a.bytes(&[0x48, 0x83, 0xec, 8]);
        a.call_register(RAX);
        a.bytes(&[0x48, 0x83, 0xc4, 8]);
        a.bytes(&[0x85, 0xc0]); // test eax, eax
        let leave = a.jcc(cc::NE);
        a.load_mxcsr(mxcsr);
        load_registers(&mut a);
        a.bytes(&[0xc3]);
        a.bind(leave);
        a.bytes(&[0x48, 0x83, 0xc4, 8]); // the return address
        a.jmp_back(exit);

        let revalidate = [0, 1].map(|user| {
            let at = a.position();
            emit_revalidate(&mut a, user);
            at
        });
        let find = [0, 1].map(|user| {
            let at = a.position();
            emit_find(&mut a, user);
            at
        });
        let chase = [0, 1].map(|user| {
            let at = a.position();
            emit_chase(&mut a, user, [revalidate[user], find[user]], boundary);
            at
        });
        let addresses = Trampolines {
            enter,
            run_site: a.address(run),
            boundary: a.address(boundary),
            revalidate: revalidate.map(|at| a.address(at)),
            find: find.map(|at| a.address(at)),
            chase: chase.map(|at| a.address(at)),
        };
        buffer.append(a.parts());
        addresses
    }

    /// Runs translated code; says how it ended.
    pub(super) fn enter(&self, core: &mut Core, code: u64) -> u32 {
        type Enter = extern "C" fn(&mut Core, u64) -> u32;
        // SAFETY: `new` put a function of this type there, and it follows the calling convention:
        // it preserves what is to be preserved, with the stack aligned and the direction flag
        // clear. `code` is the entry of a translation, which touches nothing but `core`, the RAM
        // its TLB points into, and the tables and cells of the translator.
        let enter: Enter = unsafe {
            std::mem::transmute(std::ptr::with_exposed_provenance::<u8>(self.enter as usize))
        };
        lend_mxcsr(core);
        let how = enter(core, code);
        if how == BOUNDARY {
            take_mxcsr(core);
        }
        how
    }

    /// The instruction tier 0 ran last.
    pub(super) fn last_site<'a>(&self, native: &Native) -> &'a Site {
        // SAFETY: set by `run_site` from a reference to a site of the translation that has just
        // been left; translations and their sites are only freed by the translator, later.
        unsafe { &*std::ptr::with_exposed_provenance::<Site>(native.site) }
    }
}
