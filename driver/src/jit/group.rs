//! Accesses around one base register that share a look into the TLB.
//!
//! Fields of a structure, locals on the stack, runs of PUSH and POP: if the whole stretch they
//! cover lies on one page that may be accessed, none of them needs a look of its own. If it does
//! not, tier 0 does all instructions from the first access to the last.

use std::ops::RangeInclusive;

use iced_x86::{Instruction, Mnemonic as N, OpKind};

use super::form::{Form, Shape, Touch, number};
use super::trampoline::pinned;
use crate::cpu::state::{REG_ZERO, seg};
use crate::x86::op::{ADDR32, Op};

const RAX: u8 = 0;
const RDX: u8 = 2;
const RSP: u8 = 4;

/// Bytes a group may cover: the more, the more often it crosses a page.
const SPAN_MAX: i64 = 256;

/// Some instructions whose accesses are looked up together.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) insns: RangeInclusive<usize>,
    /// The base register.
    pub(super) base: u8,
    /// The lowest displacement, relative to the base at the first instruction.
    pub(super) lowest: i64,
    /// Bytes from there to the end of the last operand.
    pub(super) span: u64,
    pub(super) touch: Touch,
    /// The pointer to the lowest displacement must be aligned to 16 bytes.
    pub(super) aligned: bool,
}

/// One access: displacement, size, kind.
#[derive(Clone, Copy)]
struct Access {
    base: u8,
    disp: i64,
    size: u64,
    touch: Touch,
    aligned: bool,
}

/// What an instruction accesses relative to a register, if it is of a kind that can share.
fn access(op: &Op, shape: &Shape) -> Option<Access> {
    let stack = |disp, touch| {
        Some(Access {
            base: RSP,
            disp,
            size: 8,
            touch,
            aligned: false,
        })
    };
    match shape.form {
        Form::Push | Form::Call => stack(-8, Touch::Write),
        Form::Pop | Form::Return => stack(0, Touch::Read),
        Form::Plain | Form::Sse => {
            let touch = shape.touch?;
            let plain = op.index == REG_ZERO
                && op.base != REG_ZERO
                && op.seg == seg::FLAT as u8
                && op.prefix & ADDR32 == 0;
            let disp = op.disp as i64;
            let access = Access {
                base: op.base,
                disp,
                size: shape.size,
                touch,
                aligned: shape.aligned,
            };
            plain.then_some(access)
        }
        _ => None,
    }
}

/// Whether an instruction leaves the scratch register alone that holds the pointer.
fn keeps_pointer(insn: &Instruction, op: &Op, shape: &Shape) -> bool {
    match shape.form {
        Form::Nothing | Form::Push | Form::Pop | Form::Call | Form::Return => true,
        Form::Plain | Form::Sse => {
            let mut resident: Option<u8> = None;
            (0..insn.op_count()).all(|k| {
                if insn.op_kind(k) != OpKind::Register || !insn.op_register(k).is_gpr() {
                    return true;
                }
                let n = number(insn.op_register(k));
                pinned(n).is_some() || resident.replace(n).is_none_or(|other| other == n)
            })
        }
        Form::Lea => {
            let usable = |r: u8| r >= 16 || pinned(r).is_some();
            pinned(number(insn.op0_register())).is_some() && usable(op.base) && usable(op.index)
        }
        _ => false,
    }
}

/// Whether an instruction changes a general register.
fn changes(insn: &Instruction, shape: &Shape, register: u8) -> bool {
    let named = (0..insn.op_count().min(2)).any(|k| {
        shape.sets[k as usize]
            && insn.op_kind(k) == OpKind::Register
            && insn.op_register(k).is_gpr()
            && number(insn.op_register(k)) == register
    });
    let implied = match insn.mnemonic() {
        N::Cbw | N::Cwde | N::Cdqe | N::Cmpxchg => register == RAX,
        N::Cwd | N::Cdq | N::Cqo => register == RDX,
        N::Cmpxchg16b => register == RAX || register == RDX,
        N::Pop => number(insn.op0_register()) == register,
        _ => false,
    };
    named || implied
}

/// How far an instruction moves RSP, if it does so by a constant.
fn stack_step(insn: &Instruction, op: &Op, shape: &Shape) -> Option<i64> {
    let to_rsp = insn.op_count() > 0
        && insn.op_kind(0) == OpKind::Register
        && insn.op0_register() == iced_x86::Register::RSP;
    match shape.form {
        Form::Push | Form::Call => Some(-8),
        Form::Pop | Form::Return => Some(8),
        Form::Plain if to_rsp && matches!(insn.mnemonic(), N::Add | N::Sub) => {
            if matches!(insn.op_kind(1), OpKind::Register | OpKind::Memory) {
                return None;
            }
            let by = i64::from(i32::try_from(op.imm as i64).ok()?);
            Some(if insn.mnemonic() == N::Add { by } else { -by })
        }
        Form::Lea if to_rsp && op.base == RSP && op.index == REG_ZERO => Some(op.disp as i64),
        _ => None,
    }
}

/// The group that begins at an instruction, and for each of its instructions where its operand is
/// relative to the base at the first one.
fn group_at(
    start: usize,
    insns: &[Instruction],
    ops: &[Op],
    shapes: &[Shape],
) -> Option<(Group, Vec<(usize, i64)>)> {
    let first = access(&ops[start], &shapes[start])?;
    let base = first.base;
    let (mut low, mut high) = (i64::MAX, i64::MIN);
    let mut moved = 0i64;
    let mut touch = Touch::Read;
    let mut aligned: Option<i64> = None;
    let mut members = Vec::new();
    for i in start..insns.len() {
        let (insn, op, shape) = (&insns[i], &ops[i], &shapes[i]);
        if !keeps_pointer(insn, op, shape) {
            break;
        }
        let step = stack_step(insn, op, shape);
        if let Some(a) = access(op, shape) {
            if a.base != base {
                break;
            }
            let at = moved + a.disp;
            let (new_low, new_high) = (low.min(at), high.max(at + a.size as i64));
            if new_high - new_low > SPAN_MAX
                || aligned.is_some_and(|r| a.aligned && (at - r) % 16 != 0)
            {
                break;
            }
            (low, high) = (new_low, new_high);
            if a.aligned {
                aligned = Some(at);
            }
            if a.touch == Touch::Write {
                touch = Touch::Write;
            }
            members.push((i, at));
        } else if shape.touch.is_some() || shape.form.ends_block() {
            break;
        }
        if base == RSP {
            match step {
                Some(by) => moved += by,
                None if changes(insn, shape, RSP) => break,
                None => {}
            }
        } else if changes(insn, shape, base) {
            break;
        }
        if shape.form.ends_block() {
            break;
        }
    }
    if members.len() < 2 {
        return None;
    }
    if let Some(at) = aligned {
        low -= (16 - (at - low) % 16) % 16;
    }
    let end = members[members.len() - 1].0;
    let group = Group {
        insns: start..=end,
        base,
        lowest: low,
        span: (high - low) as u64,
        touch,
        aligned: aligned.is_some(),
    };
    i32::try_from(low).ok()?;
    Some((group, members))
}

/// All groups of a block, and each grouped instruction's displacement from its group's pointer.
pub(super) fn groups(
    insns: &[Instruction],
    ops: &[Op],
    shapes: &[Shape],
) -> (Vec<Group>, Vec<Option<i32>>) {
    let mut all = Vec::new();
    let mut offsets = vec![None; insns.len()];
    let mut i = 0;
    while i < insns.len() {
        if let Some((group, members)) = group_at(i, insns, ops, shapes) {
            for (member, at) in members {
                offsets[member] = Some((at - group.lowest) as i32);
            }
            i = *group.insns.end() + 1;
            all.push(group);
        } else {
            i += 1;
        }
    }
    (all, offsets)
}
