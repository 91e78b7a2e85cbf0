//! String instructions.
//!
//! One instruction is one tick, at completion, however often it repeats. Registers advance with
//! each element, so that a fault in the middle can be restarted, as on hardware. Long repetitions
//! work in pieces inside a page.

use iced_x86::{Instruction, Mnemonic as N};

use super::op::{ADDR16, ADDR32, Body, Op, REP, REPNE, STACK32};
use super::shape::{Lower, bits, by_width};
use super::word::Word;
use crate::core::Core;
use crate::cpu::fault::Trap;
use crate::cpu::flags;
use crate::cpu::state::seg;
use crate::mem::addr::{PAGE_MASK, PAGE_SIZE};

/// Elements of a repetition after which the instruction is begun again where it stands. Elements,
/// not pieces: interrupts that the repetition itself has raised are taken then, which must not
/// depend on what was found in the fast layer of the TLB.
const ELEMENTS_MAX: u64 = 1 << 16;

const RCX: usize = 1;
const RSI: usize = 6;
const RDI: usize = 7;

/// A register as an address, cut to the address size.
fn address(c: &Core, op: &Op, reg: usize) -> u64 {
    let v = c.cpu.regs[reg];
    match op.prefix & (ADDR32 | ADDR16) {
        0 => v,
        ADDR32 => v & 0xffff_ffff,
        _ => v & 0xffff,
    }
}

/// Moves an address or count register on.
fn advance(c: &mut Core, op: &Op, reg: usize, by: u64) {
    let old = c.cpu.regs[reg];
    let v = old.wrapping_add(by);
    c.cpu.regs[reg] = match op.prefix & (ADDR32 | ADDR16) {
        0 => v,
        ADDR32 => v & 0xffff_ffff,
        _ => old & !0xffff | v & 0xffff,
    };
}

fn source_address(c: &Core, op: &Op) -> u64 {
    linear(
        op,
        address(c, op, RSI).wrapping_add(c.cpu.segs[op.seg as usize % 7].base),
    )
}

fn destination_address(c: &Core, op: &Op) -> u64 {
    // ES has no base in 64-bit mode; elsewhere the decoder put its number into `src`.
    linear(
        op,
        address(c, op, RDI).wrapping_add(c.cpu.segs[op.src as usize % 7].base),
    )
}

/// Outside 64-bit mode, linear addresses have 32 bits.
fn linear(op: &Op, va: u64) -> u64 {
    if op.prefix & STACK32 != 0 {
        va & 0xffff_ffff
    } else {
        va
    }
}

fn step<W: Word>(c: &Core) -> u64 {
    if c.cpu.system_flags & flags::DF != 0 {
        W::BYTES.wrapping_neg()
    } else {
        W::BYTES
    }
}

/// Runs `one` once, or, with a REP prefix, RCX times; `one` is told how many elements it may take
/// at once, and says whether to go on.
#[inline(always)]
fn repeat(
    c: &mut Core,
    op: &Op,
    mut one: impl FnMut(&mut Core, u64) -> Result<bool, Trap>,
) -> Result<(), Trap> {
    if op.prefix & (REP | REPNE) == 0 {
        return one(c, 1).map(|_| ());
    }
    let mut left = ELEMENTS_MAX;
    loop {
        let count = address(c, op, RCX);
        if count == 0 {
            break;
        }
        // A guest can ask for days of repetition; the host gets its turn in between.
        // A data breakpoint traps after the iteration that hit it.
        if left == 0 || c.data_breakpoint_pending() {
            return Err(c.restart());
        }
        let go_on = one(c, count.min(left))?;
        advance(c, op, RCX, u64::MAX);
        left = left.saturating_sub(count.wrapping_sub(address(c, op, RCX)));
        if !go_on {
            break;
        }
    }
    Ok(())
}

/// Elements that can be moved without leaving the pages of the given addresses, going up.
fn elements_in_page<W: Word>(count: u64, addresses: &[u64]) -> u64 {
    let room = addresses
        .iter()
        .map(|a| PAGE_SIZE - (a & PAGE_MASK))
        .min()
        .unwrap_or(0);
    count.min(room / W::BYTES)
}

fn movs<W: Word>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    repeat(c, op, |c, most| {
        let by = step::<W>(c);
        let (from, to) = (source_address(c, op), destination_address(c, op));
        if op.prefix & (REP | REPNE) != 0 && by == W::BYTES {
            let n = elements_in_page::<W>(most, &[from, to]);
            let len = n * W::BYTES;
            if n > 1 && c.copy_in_page(from, to, len) {
                advance(c, op, RSI, len);
                advance(c, op, RDI, len);
                advance(c, op, RCX, (n - 1).wrapping_neg());
                return Ok(true);
            }
        }
        let v = c.read::<W>(from)?;
        c.write(to, v)?;
        advance(c, op, RSI, by);
        advance(c, op, RDI, by);
        Ok(true)
    })
}

fn stos<W: Word>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    repeat(c, op, |c, most| {
        let by = step::<W>(c);
        let to = destination_address(c, op);
        let v = c.reg::<W>(0);
        if op.prefix & (REP | REPNE) != 0 && by == W::BYTES {
            let n = elements_in_page::<W>(most, &[to]);
            if n > 1 && c.fill_in_page(to, v, n) {
                advance(c, op, RDI, n * W::BYTES);
                advance(c, op, RCX, (n - 1).wrapping_neg());
                return Ok(true);
            }
        }
        c.write(to, v)?;
        advance(c, op, RDI, by);
        Ok(true)
    })
}

fn lods<W: Word>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    repeat(c, op, |c, _| {
        let by = step::<W>(c);
        let from = source_address(c, op);
        let v = c.read::<W>(from)?;
        c.set_reg(0, v);
        advance(c, op, RSI, by);
        Ok(true)
    })
}

/// Whether a comparing repetition goes on: REPE while equal, REPNE while not.
fn keeps_on(op: &Op, zf: bool) -> bool {
    if op.prefix & REPNE != 0 { !zf } else { zf }
}

fn scas<W: Word>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    repeat(c, op, |c, _| {
        let by = step::<W>(c);
        let at = destination_address(c, op);
        let v = c.read::<W>(at)?;
        let a = c.reg::<W>(0);
        c.cpu.lazy.sub(a, v, false);
        advance(c, op, RDI, by);
        Ok(keeps_on(op, c.cpu.lazy.zf()))
    })
}

fn cmps<W: Word>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    repeat(c, op, |c, _| {
        let by = step::<W>(c);
        let (one, other) = (source_address(c, op), destination_address(c, op));
        let a = c.read::<W>(one)?;
        let b = c.read::<W>(other)?;
        c.cpu.lazy.sub(a, b, false);
        advance(c, op, RSI, by);
        advance(c, op, RDI, by);
        Ok(keeps_on(op, c.cpu.lazy.zf()))
    })
}

fn ins<W: Word>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    // The port is checked even if nothing is to be repeated.
    let port = c.reg::<u16>(2);
    super::io::check_port(c, port, W::BYTES as u8)?;
    repeat(c, op, |c, _| {
        let by = step::<W>(c);
        let to = destination_address(c, op);
        c.check_write(to, W::BYTES)?;
        let v = c.port_in(port, W::BYTES as u8);
        c.write(to, W::low(u64::from(v)))?;
        advance(c, op, RDI, by);
        Ok(true)
    })
}

fn outs<W: Word>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let port = c.reg::<u16>(2);
    super::io::check_port(c, port, W::BYTES as u8)?;
    repeat(c, op, |c, _| {
        let by = step::<W>(c);
        let from = source_address(c, op);
        let v = c.read::<W>(from)?;
        c.port_out(port, W::BYTES as u8, v.zext() as u32);
        advance(c, op, RSI, by);
        Ok(true)
    })
}

/// ES in modes where it has a base, else the flat pseudo segment.
fn set_destination_segment(op: &mut Op) {
    op.src = if super::branch::is_compat(op) {
        seg::ES as u8
    } else {
        seg::FLAT as u8
    };
}

/// Width of the element: that of the operand which is memory or a register.
fn element_bits(insn: &Instruction) -> u32 {
    match insn.memory_size().size() {
        0 => bits(insn, 1),
        n => u32::try_from(n).unwrap_or(0) * 8,
    }
}

macro_rules! string_row {
    ($body:ident) => {
        |insn, op| {
            set_destination_segment(op);
            by_width!(element_bits(insn), W => $body::<W>)
        }
    };
}

/// MOVS of any width; the mnemonic of the doubleword form is shared with SSE's MOVSD.
pub fn lower_movs(insn: &Instruction, op: &mut Op) -> Option<Body> {
    set_destination_segment(op);
    by_width!(element_bits(insn), W => movs::<W>)
}

/// CMPS of any width; the mnemonic of the doubleword form is shared with SSE's CMPSD.
pub fn lower_cmps(insn: &Instruction, op: &mut Op) -> Option<Body> {
    set_destination_segment(op);
    by_width!(element_bits(insn), W => cmps::<W>)
}

/// The rows of this family; MOVSD and CMPSD are in the SSE families, which hand strings back here.
#[rustfmt::skip]
pub const ROWS: &[(N, Lower)] = &[
    (N::Movsb, lower_movs), (N::Movsw, lower_movs), (N::Movsq, lower_movs),
    (N::Cmpsb, lower_cmps), (N::Cmpsw, lower_cmps), (N::Cmpsq, lower_cmps),
    (N::Stosb, string_row!(stos)), (N::Stosw, string_row!(stos)), (N::Stosd, string_row!(stos)),
    (N::Stosq, string_row!(stos)), (N::Lodsb, string_row!(lods)), (N::Lodsw, string_row!(lods)),
    (N::Lodsd, string_row!(lods)), (N::Lodsq, string_row!(lods)), (N::Scasb, string_row!(scas)),
    (N::Scasw, string_row!(scas)), (N::Scasd, string_row!(scas)), (N::Scasq, string_row!(scas)),
    (N::Insb, string_row!(ins)), (N::Insw, string_row!(ins)), (N::Insd, string_row!(ins)),
    (N::Outsb, string_row!(outs)), (N::Outsw, string_row!(outs)), (N::Outsd, string_row!(outs)),
];
