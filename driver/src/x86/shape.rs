//! The shapes instructions have, with the order rules of the architecture in them.
//!
//! The rule is one: nothing architectural changes before the last access that may fault. A shape
//! keeps it once for all instructions that use it.

use iced_x86::{Instruction, OpKind};

use super::op::{Body, Op};
use super::word::Word;
use crate::core::Core;
use crate::cpu::fault::Trap;
use crate::cpu::flags::LazyFlags;

/// Turns a decoded instruction into an operation: fills in operands beyond those every instruction
/// has, and picks the body. `None`: a form that is not implemented.
pub type Lower = fn(&Instruction, &mut Op) -> Option<Body>;

/// Source operand: register `src`.
pub const R: u8 = 0;
/// Source operand: immediate.
pub const I: u8 = 1;
/// Source operand: memory.
pub const M: u8 = 2;

/// Picks the instance of a generic body for a width in bits.
macro_rules! by_width {
    ($bits:expr, $W:ident => $body:expr) => {
        match $bits {
            8 => {
                type $W = u8;
                Some($body as $crate::x86::op::Body)
            }
            16 => {
                type $W = u16;
                Some($body as $crate::x86::op::Body)
            }
            32 => {
                type $W = u32;
                Some($body as $crate::x86::op::Body)
            }
            64 => {
                type $W = u64;
                Some($body as $crate::x86::op::Body)
            }
            _ => None,
        }
    };
}
pub(crate) use by_width;

/// Width of an operand in bits.
pub fn bits(insn: &Instruction, operand: u32) -> u32 {
    let bytes = match insn.op_kind(operand) {
        OpKind::Register => insn.op_register(operand).size(),
        _ => insn.memory_size().size(),
    };
    u32::try_from(bytes).unwrap_or(0) * 8
}

/// Whether an operand is memory.
pub fn is_mem(insn: &Instruction, operand: u32) -> bool {
    matches!(insn.op_kind(operand), OpKind::Memory)
}

/// Whether an operand is an immediate.
pub fn is_imm(insn: &Instruction, operand: u32) -> bool {
    !matches!(insn.op_kind(operand), OpKind::Register | OpKind::Memory)
}

/// Which kind of source an operand is: [`R`], [`I`] or [`M`].
pub fn source_kind(insn: &Instruction, operand: u32) -> u8 {
    if is_mem(insn, operand) {
        M
    } else if is_imm(insn, operand) {
        I
    } else {
        R
    }
}

/// The value of the source operand.
#[inline(always)]
pub fn source<W: Word, const SRC: u8>(c: &mut Core, op: &Op) -> Result<W, Trap> {
    match SRC {
        R => Ok(c.reg(op.src)),
        I => Ok(W::low(op.imm)),
        _ => {
            let ea = c.ea(op);
            c.read(ea)
        }
    }
}

/// `dst := f(dst)`, with flags.
#[inline(always)]
pub fn modify<W: Word, const MEM: bool>(
    c: &mut Core,
    op: &Op,
    f: impl FnOnce(W, &mut LazyFlags) -> W,
) -> Result<(), Trap> {
    if MEM {
        let ea = c.ea(op);
        let a = c.read_for_write(ea)?;
        let mut flags = c.cpu.lazy;
        let r = f(a, &mut flags);
        c.write(ea, r)?;
        c.cpu.lazy = flags;
    } else {
        let a = c.reg(op.dst);
        let r = f(a, &mut c.cpu.lazy);
        c.set_reg(op.dst, r);
    }
    Ok(())
}

/// The value of the destination operand, which is only looked at.
#[inline(always)]
pub fn look<W: Word, const MEM: bool>(c: &mut Core, op: &Op) -> Result<W, Trap> {
    if MEM {
        let ea = c.ea(op);
        c.read(ea)
    } else {
        Ok(c.reg(op.dst))
    }
}

/// `dst := value`, no flags.
#[inline(always)]
pub fn assign<W: Word, const MEM: bool>(c: &mut Core, op: &Op, value: W) -> Result<(), Trap> {
    if MEM {
        let ea = c.ea(op);
        c.write(ea, value)
    } else {
        c.set_reg(op.dst, value);
        Ok(())
    }
}
