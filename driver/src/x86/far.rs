//! Far jumps, calls and returns between code segments. Call gates and task switches are not
//! supported.

use iced_x86::{Code, Instruction, Mnemonic as N};

use super::op::{Body, Op};
use super::shape::Lower;
use super::stack::drop_bytes;
use crate::core::Core;
use crate::cpu::fault::{Fault, Trap};
use crate::cpu::segment::flat;
use crate::cpu::state::seg;
use crate::mem::paging::is_canonical;

/// Reads `bytes` (2, 4 or 8) at an address.
fn read_offset(c: &mut Core, at: u64, bytes: u64) -> Result<u64, Trap> {
    match bytes {
        8 => c.read::<u64>(at),
        4 => c.read::<u32>(at).map(u64::from),
        _ => c.read::<u16>(at).map(u64::from),
    }
}

fn write_offset(c: &mut Core, at: u64, bytes: u64, value: u64) -> Result<(), Trap> {
    match bytes {
        8 => c.write::<u64>(at, value),
        4 => c.write::<u32>(at, value as u32),
        _ => c.write::<u16>(at, value as u16),
    }
}

/// The far pointer in memory, with `op.src` bytes of offset.
fn far_pointer(c: &mut Core, op: &Op) -> Result<(u64, u16), Trap> {
    let ea = c.ea(op);
    let bytes = u64::from(op.src);
    let offset = read_offset(c, ea, bytes)?;
    let selector = c.read::<u16>(ea.wrapping_add(bytes))?;
    Ok((offset, selector))
}

fn check_offset(c: &mut Core, long: bool, limit: u32, offset: u64) -> Result<(), Trap> {
    let good = if long {
        is_canonical(offset)
    } else {
        offset <= u64::from(limit)
    };
    if good {
        Ok(())
    } else {
        Err(c.raise(Fault::gp(0)))
    }
}

/// The far pointer in the instruction itself, which only compatibility mode has.
fn immediate_pointer(op: &Op) -> (u64, u16) {
    (op.imm, op.disp as u16)
}

fn jmp_to(c: &mut Core, offset: u64, selector: u16) -> Result<(), Trap> {
    let cs = c.code_segment(selector, c.cpu.cpl, false)?;
    check_offset(c, cs.is_long(), cs.limit, offset)?;
    c.cpu.segs[seg::CS] = cs;
    c.cpu.rip = offset;
    c.leave();
    Ok(())
}

fn jmp_far(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let (offset, selector) = far_pointer(c, op)?;
    jmp_to(c, offset, selector)
}

fn jmp_far_immediate(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let (offset, selector) = immediate_pointer(op);
    jmp_to(c, offset, selector)
}

fn call_to(c: &mut Core, op: &Op, offset: u64, selector: u16) -> Result<(), Trap> {
    let cs = c.code_segment(selector, c.cpu.cpl, false)?;
    check_offset(c, cs.is_long(), cs.limit, offset)?;
    let bytes = u64::from(op.src);
    let sp = c.cpu.regs[4].wrapping_sub(2 * bytes);
    let at = c.stack_linear(sp);
    c.check_write(at, 2 * bytes)?;
    let back = super::branch::return_address(c, op);
    write_offset(
        c,
        at.wrapping_add(bytes),
        bytes,
        u64::from(c.cpu.segs[seg::CS].selector),
    )?;
    write_offset(c, at, bytes, back)?;
    c.set_sp(sp);
    c.cpu.segs[seg::CS] = cs;
    c.cpu.rip = offset;
    c.leave();
    Ok(())
}

fn call_far(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let (offset, selector) = far_pointer(c, op)?;
    call_to(c, op, offset, selector)
}

fn call_far_immediate(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let (offset, selector) = immediate_pointer(op);
    call_to(c, op, offset, selector)
}

/// Takes a far pointer in the instruction apart: the offset goes where an immediate is, the
/// selector where a displacement would be.
fn take_pointer(insn: &Instruction, op: &mut Op) {
    let wide = matches!(insn.code(), Code::Jmp_ptr1632 | Code::Call_ptr1632);
    op.src = if wide { 4 } else { 2 };
    op.imm = if wide {
        u64::from(insn.far_branch32())
    } else {
        u64::from(insn.far_branch16())
    };
    op.disp = u64::from(insn.far_branch_selector());
}

/// Bytes of the offset in a far pointer operand.
fn pointer_bytes(insn: &Instruction) -> u8 {
    match insn.code() {
        Code::Jmp_m1664 | Code::Call_m1664 => 8,
        Code::Jmp_m1632 | Code::Call_m1632 => 4,
        _ => 2,
    }
}

/// JMP to another code segment, through a pointer in memory or in the instruction.
pub fn lower_jmp_far(insn: &Instruction, op: &mut Op) -> Option<Body> {
    if insn.is_jmp_far() {
        take_pointer(insn, op);
        return Some(jmp_far_immediate);
    }
    op.src = pointer_bytes(insn);
    insn.is_jmp_far_indirect().then_some(jmp_far as Body)
}

/// CALL to another code segment, through a pointer in memory or in the instruction.
pub fn lower_call_far(insn: &Instruction, op: &mut Op) -> Option<Body> {
    if insn.is_call_far() {
        take_pointer(insn, op);
        return Some(call_far_immediate);
    }
    op.src = pointer_bytes(insn);
    insn.is_call_far_indirect().then_some(call_far as Body)
}

fn ret_far(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let bytes = u64::from(op.src);
    let sp = c.stack_linear(c.cpu.regs[4]);
    let offset = read_offset(c, sp, bytes)?;
    let selector = read_offset(c, sp.wrapping_add(bytes), bytes)? as u16;
    let new_cpl = (selector & 3) as u8;
    if new_cpl < c.cpu.cpl {
        return Err(c.raise(Fault::gp(u32::from(selector & !3))));
    }
    let cs = c.code_segment(selector, new_cpl, true)?;
    check_offset(c, cs.is_long(), cs.limit, offset)?;
    if new_cpl > c.cpu.cpl {
        let at = sp.wrapping_add(2 * bytes).wrapping_add(op.imm);
        let new_sp = read_offset(c, at, bytes)?;
        let stack_selector = read_offset(c, at.wrapping_add(bytes), bytes)? as u16;
        let ss = c.return_stack_segment(stack_selector, new_cpl, cs.is_long())?;
        c.cpu.segs[seg::SS] = ss;
        c.cpu.segs[seg::CS] = cs;
        c.set_sp(new_sp.wrapping_add(op.imm));
        c.set_cpl(new_cpl);
        c.drop_privileged_segments();
    } else {
        drop_bytes(c, op, (2 * bytes).wrapping_add(op.imm));
        c.cpu.segs[seg::CS] = cs;
    }
    c.cpu.rip = offset;
    c.leave();
    Ok(())
}

fn lower_ret_far(insn: &Instruction, op: &mut Op) -> Option<Body> {
    op.imm = if insn.op_count() > 0 {
        u64::from(insn.immediate16())
    } else {
        0
    };
    op.src = match insn.code() {
        Code::Retfw | Code::Retfw_imm16 => 2,
        Code::Retfd | Code::Retfd_imm16 => 4,
        _ => 8,
    };
    Some(ret_far)
}

fn iret(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.iret(u64::from(op.src))
}

/// SYSCALL: into the kernel without a look at memory.
fn syscall(c: &mut Core, op: &Op) -> Result<(), Trap> {
    use crate::cpu::flags;
    use crate::cpu::state::EFER_SCE;
    if c.cpu.efer & EFER_SCE == 0 || super::branch::is_compat(op) {
        return Err(c.raise(Fault::plain(crate::cpu::fault::vector::UD)));
    }
    let back = super::branch::return_address(c, op);
    c.syscall_begins(back);
    c.cpu.regs[1] = back;
    c.cpu.regs[11] = c.cpu.rflags() & !flags::RF;
    let kept = c.cpu.rflags() & !c.cpu.msr.sfmask & !flags::RF;
    c.cpu.set_rflags(kept);
    let selector = (c.cpu.msr.star >> 32) as u16 & !3;
    c.cpu.segs[seg::CS] = flat::code64(selector, 0);
    c.cpu.segs[seg::SS] = flat::data(selector.wrapping_add(8), 0);
    c.set_cpl(0);
    c.cpu.rip = c.cpu.msr.lstar;
    c.leave();
    Ok(())
}

/// SYSRET; `LONG` returns to 64-bit code.
fn sysret<const LONG: bool>(c: &mut Core, _: &Op) -> Result<(), Trap> {
    use crate::cpu::flags;
    use crate::cpu::state::EFER_SCE;
    if c.cpu.efer & EFER_SCE == 0 {
        return Err(c.raise(Fault::plain(crate::cpu::fault::vector::UD)));
    }
    if c.cpu.cpl != 0 {
        return Err(c.raise(Fault::gp(0)));
    }
    let target = c.cpu.regs[1];
    // Intel checks here, still in the kernel; so does this machine, since that is its vendor.
    if LONG && !is_canonical(target) {
        return Err(c.raise(Fault::gp(0)));
    }
    let image = c.cpu.regs[11];
    c.cpu.set_rflags(image & !flags::RF & !flags::VM);
    let selector = (c.cpu.msr.star >> 48) as u16;
    if LONG {
        c.cpu.segs[seg::CS] = flat::code64(selector.wrapping_add(16) | 3, 3);
        c.cpu.rip = target;
    } else {
        c.cpu.segs[seg::CS] = flat::code32(selector | 3, 3);
        c.cpu.rip = target & 0xffff_ffff;
    }
    c.cpu.segs[seg::SS] = flat::data(selector.wrapping_add(8) | 3, 3);
    c.set_cpl(3);
    c.returned_to_user();
    // A trap flag that SYSRET restores traps before the first user instruction.
    c.trap_if_stepping();
    c.leave();
    Ok(())
}

fn sysenter(c: &mut Core, _: &Op) -> Result<(), Trap> {
    use crate::cpu::flags;
    let selector = c.cpu.msr.sysenter_cs as u16 & !3;
    if selector == 0 {
        return Err(c.raise(Fault::gp(0)));
    }
    c.cpu.system_flags &= !(flags::VM | flags::IF | flags::RF);
    c.cpu.segs[seg::CS] = flat::code64(selector, 0);
    c.cpu.segs[seg::SS] = flat::data(selector.wrapping_add(8), 0);
    c.set_cpl(0);
    c.cpu.regs[4] = c.cpu.msr.sysenter_esp;
    c.cpu.rip = c.cpu.msr.sysenter_eip;
    c.leave();
    Ok(())
}

fn sysexit<const LONG: bool>(c: &mut Core, _: &Op) -> Result<(), Trap> {
    let selector = c.cpu.msr.sysenter_cs as u16 & !3;
    if selector == 0 || c.cpu.cpl != 0 {
        return Err(c.raise(Fault::gp(0)));
    }
    let (rip, rsp) = (c.cpu.regs[2], c.cpu.regs[1]);
    if LONG {
        if !is_canonical(rip) || !is_canonical(rsp) {
            return Err(c.raise(Fault::gp(0)));
        }
        c.cpu.segs[seg::CS] = flat::code64(selector.wrapping_add(32) | 3, 3);
        c.cpu.segs[seg::SS] = flat::data(selector.wrapping_add(40) | 3, 3);
        c.cpu.rip = rip;
        c.cpu.regs[4] = rsp;
    } else {
        c.cpu.segs[seg::CS] = flat::code32(selector.wrapping_add(16) | 3, 3);
        c.cpu.segs[seg::SS] = flat::data(selector.wrapping_add(24) | 3, 3);
        c.cpu.rip = rip & 0xffff_ffff;
        c.cpu.regs[4] = rsp & 0xffff_ffff;
    }
    c.set_cpl(3);
    c.returned_to_user();
    c.leave();
    Ok(())
}

fn lower_iret<const BYTES: u8>(_: &Instruction, op: &mut Op) -> Option<Body> {
    op.src = BYTES;
    Some(iret)
}

/// The rows of this family.
#[rustfmt::skip]
pub const ROWS: &[(N, Lower)] = &[
    (N::Retf, lower_ret_far), (N::Iret, lower_iret::<2>), (N::Iretd, lower_iret::<4>),
    (N::Iretq, lower_iret::<8>), (N::Syscall, |_, _| Some(syscall)),
    (N::Sysret, |_, _| Some(sysret::<false>)), (N::Sysretq, |_, _| Some(sysret::<true>)),
    (N::Sysenter, |_, _| Some(sysenter)), (N::Sysexit, |_, _| Some(sysexit::<false>)),
    (N::Sysexitq, |_, _| Some(sysexit::<true>)),
];
