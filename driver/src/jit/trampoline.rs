//! The way into translated code, out of it, and from it to tier 0's body of an instruction.
#![expect(unsafe_code, reason = "runs machine code that was made at run time")]

use std::mem::offset_of;

use super::buffer::CodeBuffer;
use super::emit::{Asm, ENV, GUEST_SP, Mem, RAX, S1, S2};
use super::flags::{pack, unpack};
use super::state::{MXCSR_PLAIN, Native, plain_floats};
use crate::core::Core;
use crate::cpu::flags::LazyFlags;
use crate::cpu::state::{Cpu, Segment};
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
    /// iced's `Code`.
    pub(super) code: u16,
}

/// What the code outside says to the code that called it.
pub(super) const BOUNDARY: u32 = 0;
/// Left after the instruction of the site.
pub(super) const LEFT: u32 = 1;
/// The instruction of the site trapped.
pub(super) const TRAPPED: u32 = 2;

/// Taken from the budget to leave translated code at the end of the block.
const FORCE: i64 = 1 << 60;
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
    if site.untranslated {
        n.calls += 1;
        if let Some(count) = n.histogram.get_mut(site.code as usize) {
            *count += 1;
        }
    } else {
        n.slow_accesses += 1;
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

fn push(a: &mut Asm, r: u8) {
    if r >= 8 {
        a.bytes(&[0x41]);
    }
    a.bytes(&[0x50 | r & 7]);
}

fn pop(a: &mut Asm, r: u8) {
    if r >= 8 {
        a.bytes(&[0x41]);
    }
    a.bytes(&[0x58 | r & 7]);
}

impl Trampolines {
    pub(super) fn new(buffer: &mut CodeBuffer) -> Self {
        const RDI: u8 = 7;
        const RSI: u8 = 6;
        let mxcsr = native(offset_of!(Native, mxcsr));
        let mut a = Asm::new(buffer.next());
        let enter = a.address(0);
        for r in CALLEE_SAVED {
            push(&mut a, r);
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
            pop(&mut a, r);
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
        let leave = a.jcc(super::emit::cc::NE);
        a.load_mxcsr(mxcsr);
        load_registers(&mut a);
        a.bytes(&[0xc3]);
        a.bind(leave);
        a.bytes(&[0x48, 0x83, 0xc4, 8]); // the return address
        a.jmp_back(exit);

        let addresses = Trampolines {
            enter,
            run_site: a.address(run),
            boundary: a.address(boundary),
        };
        buffer.append(&a.code);
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
