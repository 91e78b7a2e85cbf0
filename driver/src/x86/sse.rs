//! What all SSE instructions share: when they may run, 128-bit accesses, operand classes.

use iced_x86::{Instruction, OpKind};

use super::op::Op;
use super::shape::M;
use crate::core::Core;
use crate::cpu::fault::{Fault, Trap, vector};
use crate::cpu::state::{CR0_EM, CR0_TS, CR4_OSFXSR};
use crate::mem::addr::{PAGE_MASK, PAGE_SIZE};

/// A 128-bit value, low half first.
pub type Xmm = [u64; 2];

/// What an operand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A general register.
    Gpr,
    /// An MMX register.
    Mm,
    /// An XMM register.
    Xmm,
    /// Memory.
    Mem,
    /// An immediate.
    Imm,
    /// Anything SSE instructions do not have.
    Other,
}

/// The class of an operand.
pub fn class(insn: &Instruction, operand: u32) -> Class {
    if operand >= insn.op_count() {
        return Class::Other;
    }
    match insn.op_kind(operand) {
        OpKind::Memory => Class::Mem,
        OpKind::Immediate8 => Class::Imm,
        OpKind::Register => {
            let register = insn.op_register(operand);
            if register.is_xmm() {
                Class::Xmm
            } else if register.is_mm() {
                Class::Mm
            } else if register.is_gpr() {
                Class::Gpr
            } else {
                Class::Other
            }
        }
        _ => Class::Other,
    }
}

/// Whether XMM instructions may run (SDM vol. 3, 13.1): #UD while CR0.EM is set or CR4.OSFXSR is
/// clear, #NM while CR0.TS is set.
#[inline(always)]
pub fn sse_ready(c: &mut Core) -> Result<(), Trap> {
    if c.cpu.cr0 & (CR0_EM | CR0_TS) | !c.cpu.cr4 & CR4_OSFXSR == 0 {
        Ok(())
    } else {
        Err(sse_unready(c))
    }
}

#[cold]
#[inline(never)]
fn sse_unready(c: &mut Core) -> Trap {
    let undefined = c.cpu.cr0 & CR0_EM | !c.cpu.cr4 & CR4_OSFXSR != 0;
    c.raise(Fault::plain(if undefined {
        vector::UD
    } else {
        vector::NM
    }))
}

/// The value of an XMM register.
#[inline(always)]
pub fn xmm(c: &Core, n: u8) -> Xmm {
    c.cpu.xmm[n as usize & 15]
}

/// Writes an XMM register.
#[inline(always)]
pub fn set_xmm(c: &mut Core, n: u8, value: Xmm) {
    c.cpu.xmm[n as usize & 15] = value;
}

/// Legacy SSE faults on 128-bit operands that are not aligned, except in the moves that say so.
#[inline(always)]
fn aligned(c: &mut Core, ea: u64) -> Result<(), Trap> {
    if ea & 15 == 0 {
        Ok(())
    } else {
        Err(c.raise(Fault::gp(0)))
    }
}

/// Loads 128 bits from any address.
#[inline(always)]
pub fn read_unaligned(c: &mut Core, ea: u64) -> Result<Xmm, Trap> {
    if ea & PAGE_MASK > PAGE_SIZE - 16 {
        c.check_canonical(ea, 16)?;
    }
    read_halves(c, ea)
}

#[inline(always)]
fn read_halves(c: &mut Core, ea: u64) -> Result<Xmm, Trap> {
    Ok([c.read(ea)?, c.read(ea.wrapping_add(8))?])
}

/// Loads 128 bits from an aligned address.
#[inline(always)]
pub fn read_aligned(c: &mut Core, ea: u64) -> Result<Xmm, Trap> {
    aligned(c, ea)?;
    read_halves(c, ea)
}

/// Stores 128 bits to any address. Where they lie on one page, the first half's store decides for
/// both; else both pages are asked before either is written.
#[inline(always)]
pub fn write_unaligned(c: &mut Core, ea: u64, value: Xmm) -> Result<(), Trap> {
    if ea & PAGE_MASK > PAGE_SIZE - 16 {
        c.check_write(ea, 16)?;
    }
    c.write(ea, value[0])?;
    c.write(ea.wrapping_add(8), value[1])
}

/// Stores 128 bits to an aligned address.
#[inline(always)]
pub fn write_aligned(c: &mut Core, ea: u64, value: Xmm) -> Result<(), Trap> {
    aligned(c, ea)?;
    write_unaligned(c, ea, value)
}

/// The source operand of a 128-bit operation: a register, or aligned memory.
#[inline(always)]
pub fn xmm_source<const SRC: u8>(c: &mut Core, op: &Op) -> Result<Xmm, Trap> {
    if SRC == M {
        let ea = c.ea(op);
        read_aligned(c, ea)
    } else {
        Ok(xmm(c, op.src))
    }
}

/// The low 64 bits of the source operand: a register, or memory of any alignment.
#[inline(always)]
pub fn low64_source<const SRC: u8>(c: &mut Core, op: &Op) -> Result<u64, Trap> {
    if SRC == M {
        let ea = c.ea(op);
        c.read(ea)
    } else {
        Ok(xmm(c, op.src)[0])
    }
}

/// The low 32 bits of the source operand: a register, or memory of any alignment.
#[inline(always)]
pub fn low32_source<const SRC: u8>(c: &mut Core, op: &Op) -> Result<u32, Trap> {
    if SRC == M {
        let ea = c.ea(op);
        c.read(ea)
    } else {
        Ok(xmm(c, op.src)[0] as u32)
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
#[path = "sse_tests.rs"]
mod tests;
