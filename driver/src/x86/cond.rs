//! Conditions: Jcc, SETcc, CMOVcc.

use iced_x86::{ConditionCode, Instruction, Mnemonic as N};

use super::op::{Body, Op};
use super::shape::{Lower, M, R, assign, bits, by_width, is_mem, source};
use super::word::Word;
use crate::core::Core;
use crate::cpu::fault::Trap;

/// The sixteen conditions in encoding order: even is the test, odd its opposite.
#[inline(always)]
pub fn holds<const CC: u8>(c: &Core) -> bool {
    let f = &c.cpu.lazy;
    let test = match CC >> 1 {
        0 => f.of(),
        1 => f.cf(),
        2 => f.zf(),
        3 => f.cf() || f.zf(),
        4 => f.sf(),
        5 => f.pf(),
        6 => f.sf() != f.of(),
        _ => f.zf() || f.sf() != f.of(),
    };
    test != (CC & 1 != 0)
}

/// Picks the instance of a generic body for an instruction's condition.
macro_rules! by_condition {
    ($insn:expr, $CC:ident => $body:expr) => {
        by_condition!(@ $insn, $CC, $body, o 0 no 1 b 2 ae 3 e 4 ne 5 be 6 a 7 s 8 ns 9 p 10 np 11
            l 12 ge 13 le 14 g 15)
    };
    (@ $insn:expr, $CC:ident, $body:expr, $($name:ident $n:literal)*) => {
        match $insn.condition_code() {
            $(ConditionCode::$name => {
                const $CC: u8 = $n;
                $body
            })*
            ConditionCode::None => None,
        }
    };
}

fn jcc<const CC: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let to = if holds::<CC>(c) { op.imm } else { op.next() };
    c.jump_relative(to);
    Ok(())
}

fn lower_jcc(insn: &Instruction, op: &mut Op) -> Option<Body> {
    op.imm = insn.near_branch_target();
    by_condition!(insn, CC => Some(jcc::<CC> as Body))
}

fn setcc<const CC: u8, const MEM: bool>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let value = u8::from(holds::<CC>(c));
    assign::<u8, MEM>(c, op, value)
}

fn lower_setcc(insn: &Instruction, _: &mut Op) -> Option<Body> {
    let mem = is_mem(insn, 0);
    by_condition!(insn, CC => Some(if mem { setcc::<CC, true> as Body } else { setcc::<CC, false> }))
}

/// The source is read, and a 32-bit destination's upper half cleared, whether or not it moves.
fn cmov<const CC: u8, W: Word, const SRC: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let value = source::<W, SRC>(c, op)?;
    let value = if holds::<CC>(c) { value } else { c.reg(op.dst) };
    c.set_reg(op.dst, value);
    Ok(())
}

fn lower_cmov(insn: &Instruction, _: &mut Op) -> Option<Body> {
    let (width, mem) = (bits(insn, 0), is_mem(insn, 1));
    by_condition!(insn, CC => if mem {
        by_width!(width, W => cmov::<CC, W, M>)
    } else {
        by_width!(width, W => cmov::<CC, W, R>)
    })
}

/// The rows of this family.
#[rustfmt::skip]
pub const ROWS: &[(N, Lower)] = &[
    (N::Jo, lower_jcc), (N::Jno, lower_jcc), (N::Jb, lower_jcc), (N::Jae, lower_jcc),
    (N::Je, lower_jcc), (N::Jne, lower_jcc), (N::Jbe, lower_jcc), (N::Ja, lower_jcc),
    (N::Js, lower_jcc), (N::Jns, lower_jcc), (N::Jp, lower_jcc), (N::Jnp, lower_jcc),
    (N::Jl, lower_jcc), (N::Jge, lower_jcc), (N::Jle, lower_jcc), (N::Jg, lower_jcc),
    (N::Seto, lower_setcc), (N::Setno, lower_setcc), (N::Setb, lower_setcc), (N::Setae, lower_setcc),
    (N::Sete, lower_setcc), (N::Setne, lower_setcc), (N::Setbe, lower_setcc), (N::Seta, lower_setcc),
    (N::Sets, lower_setcc), (N::Setns, lower_setcc), (N::Setp, lower_setcc), (N::Setnp, lower_setcc),
    (N::Setl, lower_setcc), (N::Setge, lower_setcc), (N::Setle, lower_setcc), (N::Setg, lower_setcc),
    (N::Cmovo, lower_cmov), (N::Cmovno, lower_cmov), (N::Cmovb, lower_cmov), (N::Cmovae, lower_cmov),
    (N::Cmove, lower_cmov), (N::Cmovne, lower_cmov), (N::Cmovbe, lower_cmov), (N::Cmova, lower_cmov),
    (N::Cmovs, lower_cmov), (N::Cmovns, lower_cmov), (N::Cmovp, lower_cmov), (N::Cmovnp, lower_cmov),
    (N::Cmovl, lower_cmov), (N::Cmovge, lower_cmov), (N::Cmovle, lower_cmov), (N::Cmovg, lower_cmov),
];
