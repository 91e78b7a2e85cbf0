//! Jumps, calls, returns and loops. All of them end a block.

use iced_x86::{Code, Instruction, Mnemonic as N};

use super::op::{Body, Op, STACK32};
use super::shape::{Lower, M, R, bits, by_width, is_imm, is_mem, source};
use super::stack::{drop_bytes, push_value, top};
use super::word::Word;
use crate::core::Core;
use crate::cpu::fault::{Fault, Trap};
use crate::cpu::state::REG_BLOCK;
use crate::mem::paging::is_canonical;

/// Address of the next instruction.
#[inline(always)]
pub fn return_address(c: &Core, op: &Op) -> u64 {
    c.cpu.regs[REG_BLOCK as usize].wrapping_add(op.next())
}

/// A jump target that is not canonical faults at the jump.
#[inline(always)]
fn check_target(c: &mut Core, target: u64) -> Result<(), Trap> {
    if is_canonical(target) {
        Ok(())
    } else {
        Err(c.raise(Fault::gp(0)))
    }
}

fn jmp(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.jump_relative(op.imm);
    Ok(())
}

fn jmp_indirect<W: Word, const SRC: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let target = source::<W, SRC>(c, op)?.zext();
    check_target(c, target)?;
    c.cpu.rip = target;
    Ok(())
}

fn is_far(insn: &Instruction) -> bool {
    insn.is_jmp_far_indirect()
        || insn.is_call_far_indirect()
        || insn.is_jmp_far()
        || insn.is_call_far()
}

fn lower_jmp(insn: &Instruction, op: &mut Op) -> Option<Body> {
    if is_far(insn) {
        return super::far::lower_jmp_far(insn, op);
    }
    if is_imm(insn, 0) {
        op.imm = insn.near_branch_target();
        return Some(jmp);
    }
    op.src = op.dst;
    if is_mem(insn, 0) {
        by_width!(bits(insn, 0), W => jmp_indirect::<W, M>)
    } else {
        by_width!(bits(insn, 0), W => jmp_indirect::<W, R>)
    }
}

fn call<W: Word>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let back = return_address(c, op);
    push_value(c, op, W::low(back))?;
    c.jump_relative(op.imm);
    Ok(())
}

fn call_indirect<W: Word, const SRC: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let target = source::<W, SRC>(c, op)?.zext();
    check_target(c, target)?;
    let back = return_address(c, op);
    push_value(c, op, W::low(back))?;
    c.cpu.rip = target;
    Ok(())
}

fn lower_call(insn: &Instruction, op: &mut Op) -> Option<Body> {
    if is_far(insn) {
        return super::far::lower_call_far(insn, op);
    }
    if is_imm(insn, 0) {
        op.imm = insn.near_branch_target();
        let width = insn.stack_pointer_increment().unsigned_abs() * 8;
        return by_width!(width, W => call::<W>);
    }
    op.src = op.dst;
    if is_mem(insn, 0) {
        by_width!(bits(insn, 0), W => call_indirect::<W, M>)
    } else {
        by_width!(bits(insn, 0), W => call_indirect::<W, R>)
    }
}

fn ret<W: Word>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let target = top::<W>(c, op)?.zext();
    check_target(c, target)?;
    drop_bytes(c, op, W::BYTES.wrapping_add(op.imm));
    c.cpu.rip = target;
    Ok(())
}

fn lower_ret(insn: &Instruction, op: &mut Op) -> Option<Body> {
    op.imm = if insn.op_count() > 0 {
        u64::from(insn.immediate16())
    } else {
        0
    };
    match insn.code() {
        Code::Retnw | Code::Retnw_imm16 => Some(ret::<u16>),
        Code::Retnd | Code::Retnd_imm16 => Some(ret::<u32>),
        _ => Some(ret::<u64>),
    }
}

/// LOOP, LOOPE, LOOPNE: `W` is the width of the counter.
fn count_loop<W: Word, const WANT: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let count = W::low(c.reg::<W>(1).zext().wrapping_sub(1));
    c.set_reg(1, count);
    let zf = c.cpu.lazy.zf();
    let go = count.zext() != 0
        && match WANT {
            0 => true,
            1 => zf,
            _ => !zf,
        };
    let to = if go { op.imm } else { op.next() };
    c.jump_relative(to);
    Ok(())
}

fn jump_if_zero<W: Word>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let to = if c.reg::<W>(1).zext() == 0 {
        op.imm
    } else {
        op.next()
    };
    c.jump_relative(to);
    Ok(())
}

fn lower_loop<const WANT: u8>(insn: &Instruction, op: &mut Op) -> Option<Body> {
    op.imm = insn.near_branch_target();
    match counter_bits(insn) {
        64 => Some(count_loop::<u64, WANT>),
        32 => Some(count_loop::<u32, WANT>),
        _ => Some(count_loop::<u16, WANT>),
    }
}

fn lower_jcxz(insn: &Instruction, op: &mut Op) -> Option<Body> {
    op.imm = insn.near_branch_target();
    match insn.mnemonic() {
        N::Jrcxz => Some(jump_if_zero::<u64>),
        N::Jecxz => Some(jump_if_zero::<u32>),
        _ => Some(jump_if_zero::<u16>),
    }
}

/// The counter's width is in the code's name only.
fn counter_bits(insn: &Instruction) -> u32 {
    let name = format!("{:?}", insn.code());
    if name.ends_with("RCX") {
        64
    } else if name.ends_with("ECX") {
        32
    } else {
        16
    }
}

/// Whether an operation was decoded outside 64-bit mode.
pub fn is_compat(op: &Op) -> bool {
    op.prefix & STACK32 != 0
}

/// The rows of this family.
#[rustfmt::skip]
pub const ROWS: &[(N, Lower)] = &[
    (N::Jmp, lower_jmp), (N::Call, lower_call), (N::Ret, lower_ret),
    (N::Loop, lower_loop::<0>), (N::Loope, lower_loop::<1>), (N::Loopne, lower_loop::<2>),
    (N::Jrcxz, lower_jcxz), (N::Jecxz, lower_jcxz), (N::Jcxz, lower_jcxz),
];
