//! Bit tests and scans.

use iced_x86::{Instruction, Mnemonic as N};

use super::op::{ADDR16, ADDR32, Body, Op};
use super::shape::{I, Lower, M, R, bits, by_width, is_imm, is_mem, source};
use super::word::Word;
use crate::core::Core;
use crate::cpu::fault::Trap;

/// What becomes of the tested bit.
const KEEP: u8 = 0;
const SET: u8 = 1;
const RESET: u8 = 2;
const FLIP: u8 = 3;

/// An effective address moved on, inside the address size.
fn displaced(c: &Core, op: &Op, ea: u64, by: u64) -> u64 {
    if op.prefix & (ADDR32 | ADDR16) == 0 {
        return ea.wrapping_add(by);
    }
    let base = c.cpu.segs[op.seg as usize % 7].base;
    c.narrow_ea(op, ea.wrapping_sub(base).wrapping_add(by))
}

/// BT, BTS, BTR, BTC. Only CF changes. A register offset into memory reaches beyond the operand.
fn bit_test<W: Word, const DO: u8, const MEM: bool, const SRC: u8>(
    c: &mut Core,
    op: &Op,
) -> Result<(), Trap> {
    let offset = if SRC == I {
        op.imm
    } else {
        c.reg::<W>(op.src).sext()
    };
    let bit = offset & u64::from(W::BITS - 1);
    let change = |v: u64| match DO {
        SET => v | 1 << bit,
        RESET => v & !(1 << bit),
        FLIP => v ^ 1 << bit,
        _ => v,
    };
    let old;
    if MEM {
        let mut ea = c.ea(op);
        if SRC != I {
            let words = (offset as i64) >> W::BITS.trailing_zeros();
            ea = displaced(c, op, ea, (words as u64).wrapping_mul(W::BYTES));
        }
        if DO == KEEP {
            old = c.read::<W>(ea)?;
        } else {
            old = c.read_for_write::<W>(ea)?;
            c.write(ea, W::low(change(old.zext())))?;
        }
    } else {
        old = c.reg::<W>(op.dst);
        if DO != KEEP {
            c.set_reg(op.dst, W::low(change(old.zext())));
        }
    }
    // The other flags are undefined or unchanged; canonically unchanged.
    let of = c.cpu.lazy.of();
    c.cpu.lazy.replace_cf_of(old.zext() >> bit & 1 != 0, of);
    Ok(())
}

fn lower_bit_test<const DO: u8>(insn: &Instruction, op: &mut Op) -> Option<Body> {
    let width = bits(insn, 0);
    if is_imm(insn, 1) {
        op.imm = u64::from(insn.immediate8());
    }
    match (is_mem(insn, 0), is_imm(insn, 1)) {
        (false, true) => by_width!(width, W => bit_test::<W, DO, false, I>),
        (false, false) => by_width!(width, W => bit_test::<W, DO, false, R>),
        (true, true) => by_width!(width, W => bit_test::<W, DO, true, I>),
        (true, false) => by_width!(width, W => bit_test::<W, DO, true, R>),
    }
}

/// BSF and BSR (and TZCNT, LZCNT, which without BMI1 and LZCNT are the same encodings). A zero
/// source leaves the destination: undefined in Intel's manual, promised in AMD's, true of both.
fn scan<W: Word, const REVERSE: bool, const SRC: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let v = source::<W, SRC>(c, op)?.zext();
    if v != 0 {
        let at = if REVERSE {
            63 - v.leading_zeros()
        } else {
            v.trailing_zeros()
        };
        c.set_reg(op.dst, W::low(u64::from(at)));
    }
    // Of the flags only ZF is defined; the others come out as of a logical result.
    c.cpu.lazy.logic(W::low(v));
    Ok(())
}

fn lower_scan<const REVERSE: bool>(insn: &Instruction, _: &mut Op) -> Option<Body> {
    let width = bits(insn, 0);
    if is_mem(insn, 1) {
        by_width!(width, W => scan::<W, REVERSE, M>)
    } else {
        by_width!(width, W => scan::<W, REVERSE, R>)
    }
}

/// The rows of this family.
#[rustfmt::skip]
pub const ROWS: &[(N, Lower)] = &[
    (N::Bt, lower_bit_test::<KEEP>), (N::Bts, lower_bit_test::<SET>),
    (N::Btr, lower_bit_test::<RESET>), (N::Btc, lower_bit_test::<FLIP>),
    (N::Bsf, lower_scan::<false>), (N::Bsr, lower_scan::<true>),
];
