//! Moves to and from segment registers; LSS, LFS, LGS; LAR, LSL, VERR, VERW.

use iced_x86::{Instruction, Mnemonic as N};

use super::op::{Body, Op};
use super::shape::{Lower, bits, by_width, is_mem};
use super::word::Word;
use crate::core::Core;
use crate::cpu::fault::{Fault, Trap, TrapCause, vector};
use crate::cpu::flags::{self, LazyFlags};
use crate::cpu::state::seg;

fn load<const MEM: bool>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let selector = if MEM {
        let ea = c.ea(op);
        c.read::<u16>(ea)?
    } else {
        c.reg::<u16>(op.src)
    };
    let which = op.dst as usize % 7;
    if which == seg::CS {
        return Err(c.raise(Fault::plain(vector::UD)));
    }
    c.load_segment(which, selector)?;
    if which == seg::SS {
        c.cpu.shadow = true;
        c.hold_breakpoints_off();
        c.leave();
    }
    Ok(())
}

/// A register destination gets the selector zero-extended; memory always 16 bits.
fn store<W: Word>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let selector = c.cpu.segs[op.src as usize % 7].selector;
    c.set_reg(op.dst, W::low(u64::from(selector)));
    Ok(())
}

fn store_mem(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let selector = c.cpu.segs[op.src as usize % 7].selector;
    let ea = c.ea(op);
    c.write(ea, selector)
}

/// MOV with a segment register on either side.
pub fn lower_mov_segment(insn: &Instruction, _: &mut Op) -> Option<Body> {
    let to_segment = !is_mem(insn, 0) && insn.op0_register().is_segment_register();
    if to_segment {
        return Some(if is_mem(insn, 1) {
            load::<true>
        } else {
            load::<false>
        });
    }
    if is_mem(insn, 0) {
        return Some(store_mem);
    }
    by_width!(bits(insn, 0), W => store::<W>)
}

/// LSS, LFS, LGS: an offset of width `W`, then a selector.
fn load_far<W: Word, const WHICH: usize>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let ea = c.ea(op);
    let offset = c.read::<W>(ea)?;
    let selector = c.read::<u16>(ea.wrapping_add(W::BYTES))?;
    c.load_segment(WHICH, selector)?;
    c.set_reg(op.dst, offset);
    Ok(())
}

fn lower_load_far<const WHICH: usize>(insn: &Instruction, _: &mut Op) -> Option<Body> {
    by_width!(bits(insn, 0), W => load_far::<W, WHICH>)
}

/// What LAR, LSL, VERR and VERW want of a selector.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Question {
    Access,
    Limit,
    Readable,
    Writable,
}

/// The descriptor's upper word and limit, if the selector may be looked at for this purpose.
fn ask(c: &mut Core, selector: u16, question: Question) -> Result<Option<(u32, u32)>, Trap> {
    if selector & !3 == 0 {
        return Ok(None);
    }
    let (s, raw, _) = match c.descriptor(selector, vector::GP) {
        Ok(found) => found,
        Err(trap) => {
            // Out of bounds only clears ZF; a page fault on the table is a real one.
            if matches!(&c.trap, Some(TrapCause::Fault(f)) if f.vector == vector::GP) {
                c.trap = None;
                return Ok(None);
            }
            return Err(trap);
        }
    };
    let system = s.attr & 1 << 4 == 0;
    let kind = s.attr & 0xf;
    let visible = s.is_conforming() || (s.dpl() >= c.cpu.cpl && s.dpl() >= (selector & 3) as u8);
    let allowed = match question {
        // LDT, available and busy TSS, call gate (LAR only).
        Question::Access if system => matches!(kind, 2 | 9 | 0xb | 0xc),
        Question::Limit if system => matches!(kind, 2 | 9 | 0xb),
        Question::Access | Question::Limit => true,
        Question::Readable => !system && (!s.is_code() || kind & 2 != 0),
        Question::Writable => !system && !s.is_code() && kind & 2 != 0,
    };
    Ok((visible && allowed).then_some(((raw >> 32) as u32, s.limit)))
}

fn set_zf(c: &mut Core, zf: bool) {
    let rest = c.cpu.lazy.bits() & !flags::ZF;
    c.cpu.lazy = LazyFlags::from_bits(rest | if zf { flags::ZF } else { 0 });
}

fn selector_operand<const MEM: bool>(c: &mut Core, op: &Op, reg: u8) -> Result<u16, Trap> {
    if MEM {
        let ea = c.ea(op);
        c.read::<u16>(ea)
    } else {
        Ok(c.reg::<u16>(reg))
    }
}

fn lar_lsl<W: Word, const MEM: bool, const LIMIT: bool>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let selector = selector_operand::<MEM>(c, op, op.src)?;
    let question = if LIMIT {
        Question::Limit
    } else {
        Question::Access
    };
    let answer = ask(c, selector, question)?;
    if let Some((upper, limit)) = answer {
        let value = if LIMIT { limit } else { upper & 0x00ff_ff00 };
        c.set_reg(op.dst, W::low(u64::from(value)));
    }
    set_zf(c, answer.is_some());
    Ok(())
}

fn lower_lar_lsl<const LIMIT: bool>(insn: &Instruction, _: &mut Op) -> Option<Body> {
    if is_mem(insn, 1) {
        by_width!(bits(insn, 0), W => lar_lsl::<W, true, LIMIT>)
    } else {
        by_width!(bits(insn, 0), W => lar_lsl::<W, false, LIMIT>)
    }
}

fn verify<const MEM: bool, const WRITE: bool>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let selector = selector_operand::<MEM>(c, op, op.dst)?;
    let question = if WRITE {
        Question::Writable
    } else {
        Question::Readable
    };
    let answer = ask(c, selector, question)?;
    set_zf(c, answer.is_some());
    Ok(())
}

fn lower_verify<const WRITE: bool>(insn: &Instruction, _: &mut Op) -> Option<Body> {
    Some(if is_mem(insn, 0) {
        verify::<true, WRITE>
    } else {
        verify::<false, WRITE>
    })
}

/// The rows of this family.
#[rustfmt::skip]
pub const ROWS: &[(N, Lower)] = &[
    (N::Lss, lower_load_far::<{ seg::SS }>), (N::Lfs, lower_load_far::<{ seg::FS }>),
    (N::Lgs, lower_load_far::<{ seg::GS }>), (N::Lar, lower_lar_lsl::<false>),
    (N::Lsl, lower_lar_lsl::<true>), (N::Verr, lower_verify::<false>),
    (N::Verw, lower_verify::<true>),
];
