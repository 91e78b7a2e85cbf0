//! The MMX registers, which are the significands of the x87 registers, and the instructions that
//! only they have. Operations that XMM registers have too live with those.

use iced_x86::{Instruction, Mnemonic as N};

use super::op::{Body, Op};
use super::shape::{Lower, M, R};
use super::sse::{Class, class, set_xmm, sse_ready, xmm};
use super::x87_unit::{ES, TOP_SHIFT};
use crate::core::Core;
use crate::cpu::fault::{Fault, Trap, vector};
use crate::cpu::state::{CR0_EM, CR0_TS};

/// The top of the x87 stack in the status word.
const TOP: u16 = 7 << TOP_SHIFT;

/// Source operand: 32 bits of memory.
pub const M32: u8 = 3;

/// Whether MMX instructions may run (SDM vol. 3, 12.1 and 12.5).
#[inline(always)]
pub fn mmx_ready(c: &mut Core) -> Result<(), Trap> {
    if c.cpu.cr0 & (CR0_EM | CR0_TS) | u64::from(c.cpu.x87.status & ES) == 0 {
        Ok(())
    } else {
        mmx_unready(c)
    }
}

#[cold]
#[inline(never)]
fn mmx_unready(c: &mut Core) -> Result<(), Trap> {
    if c.cpu.cr0 & CR0_EM != 0 {
        Err(c.raise(Fault::plain(vector::UD)))
    } else if c.cpu.cr0 & CR0_TS != 0 {
        Err(c.raise(Fault::plain(vector::NM)))
    } else {
        c.x87_wait()
    }
}

/// What every MMX instruction does to the x87 unit: all registers in use, top of stack 0 (SDM
/// vol. 3, table 12-1). To be called when the instruction cannot fault any more.
#[inline(always)]
pub fn enter_mmx(c: &mut Core) {
    c.cpu.x87.status &= !TOP;
    c.cpu.x87.tags = 0xff;
}

/// The value of an MMX register.
#[inline(always)]
pub fn mm(c: &Core, n: u8) -> u64 {
    c.cpu.x87.regs[n as usize & 7].0
}

/// Writes an MMX register: sign and exponent of the x87 register become ones.
#[inline(always)]
pub fn set_mm(c: &mut Core, n: u8, value: u64) {
    c.cpu.x87.regs[n as usize & 7] = (value, 0xffff);
}

/// The source operand of a 64-bit operation: a register, or memory.
#[inline(always)]
pub fn mm_source<const SRC: u8>(c: &mut Core, op: &Op) -> Result<u64, Trap> {
    match SRC {
        M => {
            let ea = c.ea(op);
            c.read(ea)
        }
        M32 => {
            let ea = c.ea(op);
            Ok(u64::from(c.read::<u32>(ea)?))
        }
        _ => Ok(mm(c, op.src)),
    }
}

fn emms(c: &mut Core, _: &Op) -> Result<(), Trap> {
    mmx_ready(c)?;
    c.cpu.x87.status &= !TOP;
    c.cpu.x87.tags = 0;
    Ok(())
}

fn movq2dq(c: &mut Core, op: &Op) -> Result<(), Trap> {
    sse_ready(c)?;
    mmx_ready(c)?;
    enter_mmx(c);
    let value = mm(c, op.src);
    set_xmm(c, op.dst, [value, 0]);
    Ok(())
}

fn movdq2q(c: &mut Core, op: &Op) -> Result<(), Trap> {
    sse_ready(c)?;
    mmx_ready(c)?;
    enter_mmx(c);
    let value = xmm(c, op.src)[0];
    set_mm(c, op.dst, value);
    Ok(())
}

fn movntq(c: &mut Core, op: &Op) -> Result<(), Trap> {
    mmx_ready(c)?;
    let ea = c.ea(op);
    c.write(ea, mm(c, op.src))?;
    enter_mmx(c);
    Ok(())
}

/// PSHUFW: each word of the result is the source word that two bits of the immediate name.
#[inline(always)]
pub fn shuffle_words(a: u64, imm: u64) -> u64 {
    (0..4).fold(0, |r, i| {
        let from = imm >> (2 * i) & 3;
        r | (a >> (16 * from) & 0xffff) << (16 * i)
    })
}

fn pshufw<const SRC: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    mmx_ready(c)?;
    let value = mm_source::<SRC>(c, op)?;
    enter_mmx(c);
    set_mm(c, op.dst, shuffle_words(value, op.imm));
    Ok(())
}

fn lower_pshufw(insn: &Instruction, _: &mut Op) -> Option<Body> {
    match class(insn, 1) {
        Class::Mem => Some(pshufw::<M>),
        Class::Mm => Some(pshufw::<R>),
        _ => None,
    }
}

/// The rows of this family.
#[rustfmt::skip]
pub const ROWS: &[(N, Lower)] = &[
    (N::Emms, |_, _| Some(emms)), (N::Movq2dq, |_, _| Some(movq2dq)),
    (N::Movdq2q, |_, _| Some(movdq2q)), (N::Movntq, |_, _| Some(movntq)), (N::Pshufw, lower_pshufw),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffled_words_come_from_where_the_immediate_says() {
        let a = 0x4444_3333_2222_1111;
        assert_eq!(shuffle_words(a, 0b11_10_01_00), a);
        assert_eq!(shuffle_words(a, 0b00_01_10_11), 0x1111_2222_3333_4444);
        assert_eq!(shuffle_words(a, 0), 0x1111_1111_1111_1111);
    }
}
