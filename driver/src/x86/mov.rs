//! Moves, extensions, address computation, exchanges of registers, sign conversions.

use iced_x86::{Instruction, Mnemonic as N, OpKind};

use super::op::{Body, Op};
use super::shape::{I, Lower, M, R, assign, bits, by_width, is_mem, source, source_kind};
use super::word::Word;
use crate::core::Core;
use crate::cpu::fault::Trap;
use crate::cpu::state::REG_ZERO;

fn mov<W: Word, const MEM: bool, const SRC: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let value = source::<W, SRC>(c, op)?;
    assign::<W, MEM>(c, op, value)
}

fn lower_mov(insn: &Instruction, op: &mut Op) -> Option<Body> {
    for operand in 0..2 {
        if insn.op_kind(operand) == OpKind::Register {
            let r = insn.op_register(operand);
            if r.is_segment_register() {
                return super::segload::lower_mov_segment(insn, op);
            }
            if !r.is_gpr() {
                return super::system::lower_mov_special(insn, op);
            }
        }
    }
    let width = bits(insn, 0);
    match (is_mem(insn, 0), source_kind(insn, 1)) {
        (false, R) => by_width!(width, W => mov::<W, false, R>),
        (false, M) => by_width!(width, W => mov::<W, false, M>),
        (false, _) => by_width!(width, W => mov::<W, false, I>),
        (true, R) => by_width!(width, W => mov::<W, true, R>),
        (true, _) => by_width!(width, W => mov::<W, true, I>),
    }
}

/// MOVZX: `S` into `D`.
fn movzx<S: Word, D: Word, const SRC: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let value = source::<S, SRC>(c, op)?;
    c.set_reg(op.dst, D::low(value.zext()));
    Ok(())
}

/// MOVSX and MOVSXD: `S` into `D`.
fn movsx<S: Word, D: Word, const SRC: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let value = source::<S, SRC>(c, op)?;
    c.set_reg(op.dst, D::low(value.sext()));
    Ok(())
}

macro_rules! extend {
    ($insn:expr, $body:ident) => {
        match (bits($insn, 1), is_mem($insn, 1)) {
            (8, false) => by_width!(bits($insn, 0), W => $body::<u8, W, R>),
            (8, true) => by_width!(bits($insn, 0), W => $body::<u8, W, M>),
            (16, false) => by_width!(bits($insn, 0), W => $body::<u16, W, R>),
            (16, true) => by_width!(bits($insn, 0), W => $body::<u16, W, M>),
            (32, false) => by_width!(bits($insn, 0), W => $body::<u32, W, R>),
            (32, true) => by_width!(bits($insn, 0), W => $body::<u32, W, M>),
            _ => None,
        }
    };
}

fn lower_movzx(insn: &Instruction, _: &mut Op) -> Option<Body> {
    extend!(insn, movzx)
}

fn lower_movsx(insn: &Instruction, _: &mut Op) -> Option<Body> {
    extend!(insn, movsx)
}

fn lea<W: Word>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let ea = c.ea(op);
    c.set_reg(op.dst, W::low(ea));
    Ok(())
}

fn lower_lea(insn: &Instruction, op: &mut Op) -> Option<Body> {
    // LEA computes an offset: no segment base.
    op.seg = crate::cpu::state::seg::FLAT as u8;
    by_width!(bits(insn, 0), W => lea::<W>)
}

fn xchg<W: Word, const MEM: bool>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let b = c.reg::<W>(op.src);
    if MEM {
        let ea = c.ea(op);
        let a = c.read_for_write::<W>(ea)?;
        c.write(ea, b)?;
        c.set_reg(op.src, a);
    } else {
        let a = c.reg::<W>(op.dst);
        c.set_reg(op.dst, b);
        c.set_reg(op.src, a);
    }
    Ok(())
}

fn lower_xchg(insn: &Instruction, _: &mut Op) -> Option<Body> {
    if is_mem(insn, 0) {
        by_width!(bits(insn, 0), W => xchg::<W, true>)
    } else {
        by_width!(bits(insn, 0), W => xchg::<W, false>)
    }
}

fn bswap32(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let v = c.reg::<u32>(op.dst).swap_bytes();
    c.set_reg(op.dst, v);
    Ok(())
}

fn bswap64(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let v = c.reg::<u64>(op.dst).swap_bytes();
    c.set_reg(op.dst, v);
    Ok(())
}

/// The 16-bit form is undefined; processors give zero.
fn bswap16(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.set_reg(op.dst, 0u16);
    Ok(())
}

fn lower_bswap(insn: &Instruction, _: &mut Op) -> Option<Body> {
    match bits(insn, 0) {
        16 => Some(bswap16),
        32 => Some(bswap32),
        _ => Some(bswap64),
    }
}

/// CBW, CWDE, CDQE: the accumulator's lower half `S` extended to `D`.
fn extend_a<S: Word, D: Word>(c: &mut Core, _: &Op) -> Result<(), Trap> {
    let v = c.reg::<S>(0).sext();
    c.set_reg(0, D::low(v));
    Ok(())
}

/// CWD, CDQ, CQO: the accumulator's sign spread over the data register.
fn sign_to_d<W: Word>(c: &mut Core, _: &Op) -> Result<(), Trap> {
    let v = c.reg::<W>(0).sext();
    c.set_reg(2, W::low(((v as i64) >> 63) as u64));
    Ok(())
}

fn xlat(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let ea = c.ea(op);
    let v = c.read::<u8>(ea)?;
    c.set_reg(0, v);
    Ok(())
}

fn lower_xlat(_: &Instruction, op: &mut Op) -> Option<Body> {
    // AL is an index without a name in the encoding; the body adds it through the address.
    fn body(c: &mut Core, op: &Op) -> Result<(), Trap> {
        let al = u64::from(c.reg::<u8>(0));
        let op = Op {
            disp: op.disp.wrapping_add(al),
            ..op.clone()
        };
        xlat(c, &op)
    }
    op.base = 3;
    op.index = REG_ZERO;
    op.disp = 0;
    Some(body)
}

/// Does nothing: NOP with any operand, ENDBR, PAUSE, prefetch hints and CET hints.
pub fn nothing(_: &mut Core, _: &Op) -> Result<(), Trap> {
    Ok(())
}

/// The rows of this family.
#[rustfmt::skip]
pub const ROWS: &[(N, Lower)] = &[
    (N::Mov, lower_mov), (N::Movzx, lower_movzx), (N::Movsx, lower_movsx), (N::Movsxd, lower_movsx),
    (N::Lea, lower_lea), (N::Xchg, lower_xchg), (N::Bswap, lower_bswap), (N::Xlatb, lower_xlat),
    (N::Cbw, |_, _| Some(extend_a::<u8, u16>)), (N::Cwde, |_, _| Some(extend_a::<u16, u32>)),
    (N::Cdqe, |_, _| Some(extend_a::<u32, u64>)), (N::Cwd, |_, _| Some(sign_to_d::<u16>)),
    (N::Cdq, |_, _| Some(sign_to_d::<u32>)), (N::Cqo, |_, _| Some(sign_to_d::<u64>)),
    (N::Nop, |_, _| Some(nothing)), (N::Reservednop, |_, _| Some(nothing)),
    (N::Endbr64, |_, _| Some(nothing)), (N::Endbr32, |_, _| Some(nothing)),
    (N::Pause, |_, _| Some(nothing)), (N::Rdsspd, |_, _| Some(nothing)),
    (N::Rdsspq, |_, _| Some(nothing)),
];
