//! Multiplication and division.
//!
//! After a multiplication SF, ZF and PF are canonically those of the low half and AF is 0; after a
//! division all flags are unchanged. The manual leaves both undefined.

use iced_x86::{Instruction, Mnemonic as N};

use super::op::{Body, Op};
use super::shape::{Lower, M, R, bits, by_width, is_mem, source};
use super::word::Word;
use crate::core::Core;
use crate::cpu::fault::{Fault, Trap, vector};

const RAX: u8 = 0;
const RDX: u8 = 2;
const AH: u8 = super::op::HIGH_BYTE;

/// Register that holds the high half: AH for bytes, else RDX.
fn high<W: Word>() -> u8 {
    if W::BITS == 8 { AH } else { RDX }
}

fn mul<W: Word, const SIGNED: bool, const SRC: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let b = source::<W, SRC>(c, op)?;
    let a = c.reg::<W>(RAX);
    let (lo, hi, overflow) = if SIGNED {
        let wide = i128::from(a.sext() as i64) * i128::from(b.sext() as i64);
        let lo = W::low(wide as u64);
        (
            lo,
            W::low((wide >> W::BITS) as u64),
            i128::from(lo.sext() as i64) != wide,
        )
    } else {
        let wide = u128::from(a.zext()) * u128::from(b.zext());
        let hi = W::low((wide >> W::BITS) as u64);
        (W::low(wide as u64), hi, hi.zext() != 0)
    };
    c.set_reg(RAX, lo);
    c.set_reg(high::<W>(), hi);
    c.cpu.lazy.set_cf_of(lo, overflow, overflow);
    Ok(())
}

/// The two- and three-operand forms of IMUL. `TWO`: the first factor is the destination.
fn imul<W: Word, const TWO: bool, const SRC: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let b = source::<W, SRC>(c, op)?;
    let a = if TWO {
        c.reg::<W>(op.dst)
    } else {
        W::low(op.imm)
    };
    let wide = i128::from(a.sext() as i64) * i128::from(b.sext() as i64);
    let r = W::low(wide as u64);
    let overflow = i128::from(r.sext() as i64) != wide;
    c.set_reg(op.dst, r);
    c.cpu.lazy.set_cf_of(r, overflow, overflow);
    Ok(())
}

fn divide_error(c: &mut Core) -> Trap {
    c.raise(Fault::plain(vector::DE))
}

fn div<W: Word, const SIGNED: bool, const SRC: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let b = source::<W, SRC>(c, op)?;
    let lo = u128::from(c.reg::<W>(RAX).zext());
    let hi = u128::from(c.reg::<W>(high::<W>()).zext());
    if b.zext() == 0 {
        return Err(divide_error(c));
    }
    let dividend = hi << W::BITS | lo;
    let (quotient, remainder) = if SIGNED {
        let unused = 128 - 2 * W::BITS;
        let a = (dividend << unused) as i128 >> unused;
        let b = i128::from(b.sext() as i64);
        // i128::MIN / -1 overflows here as it does on the processor.
        let Some(q) = a.checked_div(b) else {
            return Err(divide_error(c));
        };
        if i128::from(W::low(q as u64).sext() as i64) != q {
            return Err(divide_error(c));
        }
        (W::low(q as u64), W::low((a % b) as u64))
    } else if W::BITS < 64 || hi == 0 {
        // Both fit 64 bits, where division is several times cheaper.
        let (a, b) = (dividend as u64, b.zext());
        let q = a / b;
        if W::BITS < 64 && q >> W::BITS != 0 {
            return Err(divide_error(c));
        }
        (W::low(q), W::low(a % b))
    } else {
        let b = u128::from(b.zext());
        let q = dividend / b;
        if q >> W::BITS != 0 {
            return Err(divide_error(c));
        }
        (W::low(q as u64), W::low((dividend % b) as u64))
    };
    c.set_reg(RAX, quotient);
    c.set_reg(high::<W>(), remainder);
    Ok(())
}

macro_rules! one_operand {
    ($insn:expr, $op:expr, $body:ident, $signed:literal) => {{
        $op.src = $op.dst;
        if is_mem($insn, 0) {
            by_width!(bits($insn, 0), W => $body::<W, $signed, M>)
        } else {
            by_width!(bits($insn, 0), W => $body::<W, $signed, R>)
        }
    }};
}

fn lower_mul(insn: &Instruction, op: &mut Op) -> Option<Body> {
    one_operand!(insn, op, mul, false)
}

fn lower_imul(insn: &Instruction, op: &mut Op) -> Option<Body> {
    match (insn.op_count(), is_mem(insn, insn.op_count().min(2) - 1)) {
        (1, _) => one_operand!(insn, op, mul, true),
        (2, true) => by_width!(bits(insn, 0), W => imul::<W, true, M>),
        (2, false) => by_width!(bits(insn, 0), W => imul::<W, true, R>),
        (_, true) => by_width!(bits(insn, 0), W => imul::<W, false, M>),
        (_, false) => by_width!(bits(insn, 0), W => imul::<W, false, R>),
    }
}

fn lower_div(insn: &Instruction, op: &mut Op) -> Option<Body> {
    one_operand!(insn, op, div, false)
}

fn lower_idiv(insn: &Instruction, op: &mut Op) -> Option<Body> {
    one_operand!(insn, op, div, true)
}

/// The rows of this family.
#[rustfmt::skip]
pub const ROWS: &[(N, Lower)] = &[
    (N::Mul, lower_mul), (N::Imul, lower_imul), (N::Div, lower_div), (N::Idiv, lower_idiv),
];
