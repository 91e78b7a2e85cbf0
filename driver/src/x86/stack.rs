//! PUSH, POP, PUSHF, POPF, ENTER, LEAVE.

use iced_x86::{Code, Instruction, Mnemonic as N};

use super::op::{Body, Op, STACK32};
use super::shape::{I, Lower, M, R, by_width, is_mem, source, source_kind};
use super::word::Word;
use crate::core::Core;
use crate::cpu::fault::{Fault, Trap};
use crate::cpu::flags;
use crate::cpu::state::{REG_ZERO, seg};

const RSP: u8 = 4;
const RBP: u8 = 5;

impl Core {
    /// How much of RSP is the stack pointer: all in 64-bit mode, else what the stack segment says.
    fn sp_mask(&self) -> u64 {
        if self.cpu.segs[seg::CS].is_long() {
            u64::MAX
        } else if self.cpu.segs[seg::SS].is_big() {
            0xffff_ffff
        } else {
            0xffff
        }
    }

    /// Sets the stack pointer. With a 16-bit stack segment, bits 16 to 31 stay what they are.
    pub(crate) fn set_sp(&mut self, sp: u64) {
        let mask = self.sp_mask();
        let kept = if mask == u64::MAX {
            0
        } else {
            self.cpu.regs[RSP as usize] & 0xffff_ffff
        };
        self.cpu.regs[RSP as usize] = kept & !mask | sp & mask;
    }

    /// Linear address of a place on the stack.
    pub(crate) fn stack_linear(&self, sp: u64) -> u64 {
        if self.cpu.segs[seg::CS].is_long() {
            return sp;
        }
        self.cpu.segs[seg::SS]
            .base
            .wrapping_add(sp & self.sp_mask())
            & 0xffff_ffff
    }
}

#[cold]
fn push_narrow<W: Word>(c: &mut Core, value: W) -> Result<(), Trap> {
    let sp = c.cpu.regs[RSP as usize].wrapping_sub(W::BYTES);
    c.write(c.stack_linear(sp), value)?;
    c.set_sp(sp);
    Ok(())
}

/// Pushes a value; RSP moves only once the store has succeeded.
#[inline(always)]
pub fn push_value<W: Word>(c: &mut Core, op: &Op, value: W) -> Result<(), Trap> {
    if op.prefix & STACK32 != 0 {
        return push_narrow(c, value);
    }
    let sp = c.cpu.regs[RSP as usize].wrapping_sub(W::BYTES);
    c.write(sp, value)?;
    c.cpu.regs[RSP as usize] = sp;
    Ok(())
}

/// Reads the top of the stack; the caller moves RSP when nothing can fault any more.
#[inline(always)]
pub fn top<W: Word>(c: &mut Core, op: &Op) -> Result<W, Trap> {
    let sp = c.cpu.regs[RSP as usize];
    if op.prefix & STACK32 != 0 {
        return c.read(c.stack_linear(sp));
    }
    c.read(sp)
}

/// Drops `bytes` from the stack.
#[inline(always)]
pub fn drop_bytes(c: &mut Core, op: &Op, bytes: u64) {
    let sp = c.cpu.regs[RSP as usize].wrapping_add(bytes);
    if op.prefix & STACK32 != 0 {
        c.set_sp(sp);
    } else {
        c.cpu.regs[RSP as usize] = sp;
    }
}

/// Width in bits of what an instruction moves to or from the stack.
fn stack_bits(insn: &Instruction) -> u32 {
    insn.stack_pointer_increment().unsigned_abs() * 8
}

fn push<W: Word, const SRC: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let value = source::<W, SRC>(c, op)?;
    push_value(c, op, value)
}

fn push_segment<W: Word>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let value = W::low(u64::from(c.cpu.segs[op.dst as usize % 7].selector));
    push_value(c, op, value)
}

fn lower_push(insn: &Instruction, op: &mut Op) -> Option<Body> {
    let width = stack_bits(insn);
    if source_kind(insn, 0) == R && insn.op0_register().is_segment_register() {
        return by_width!(width, W => push_segment::<W>);
    }
    op.src = op.dst;
    match source_kind(insn, 0) {
        R => by_width!(width, W => push::<W, R>),
        M => by_width!(width, W => push::<W, M>),
        _ => by_width!(width, W => push::<W, I>),
    }
}

/// A memory destination is addressed with RSP already moved (SDM, POP).
fn pop<W: Word, const MEM: bool>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let value = top::<W>(c, op)?;
    if MEM {
        let old = c.cpu.regs[RSP as usize];
        drop_bytes(c, op, W::BYTES);
        let ea = c.ea(op);
        if let Err(trap) = c.write(ea, value) {
            c.cpu.regs[RSP as usize] = old;
            return Err(trap);
        }
    } else {
        drop_bytes(c, op, W::BYTES);
        c.set_reg(op.dst, value);
    }
    Ok(())
}

fn pop_segment<W: Word>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let value = top::<W>(c, op)?;
    let which = op.dst as usize % 7;
    c.load_segment(which, value.zext() as u16)?;
    drop_bytes(c, op, W::BYTES);
    if which == seg::SS {
        // As after MOV SS, interrupts and traps wait for one instruction.
        c.cpu.shadow = true;
        c.hold_breakpoints_off();
        c.leave();
    }
    Ok(())
}

fn lower_pop(insn: &Instruction, _: &mut Op) -> Option<Body> {
    let width = stack_bits(insn);
    if is_mem(insn, 0) {
        return by_width!(width, W => pop::<W, true>);
    }
    if insn.op0_register().is_segment_register() {
        return by_width!(width, W => pop_segment::<W>);
    }
    by_width!(width, W => pop::<W, false>)
}

fn pushf<W: Word>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let value = c.cpu.rflags() & !(flags::RF | flags::VM);
    push_value(c, op, W::low(value))
}

/// Which bits change depends on the privilege (SDM, POPF, table 4-19).
fn popf<W: Word>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let value = top::<W>(c, op)?.zext();
    let mut writable = flags::STATUS | flags::TF | flags::DF | flags::NT | flags::AC | flags::ID;
    if c.cpu.cpl == 0 {
        writable |= flags::IOPL;
    }
    if u64::from(c.cpu.cpl) <= (c.cpu.system_flags & flags::IOPL) >> 12 {
        writable |= flags::IF;
    }
    if W::BITS == 16 {
        writable &= 0xffff;
    }
    drop_bytes(c, op, W::BYTES);
    let old = c.cpu.rflags() & !flags::RF;
    c.cpu.set_rflags(old & !writable | value & writable);
    // Interrupts may have become possible, or single-stepping begun.
    c.leave();
    Ok(())
}

fn leave<W: Word>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let frame = c.cpu.regs[RBP as usize];
    if op.prefix & STACK32 != 0 {
        let value = c.read::<W>(c.stack_linear(frame))?;
        c.set_sp(frame.wrapping_add(W::BYTES));
        c.set_reg(RBP, value);
        return Ok(());
    }
    let value = c.read::<W>(frame)?;
    c.cpu.regs[RSP as usize] = frame.wrapping_add(W::BYTES);
    c.set_reg(RBP, value);
    Ok(())
}

/// ENTER with any nesting level. Reads and writes alternate as in the manual, so that a frame that
/// overlaps the enclosing one is copied as hardware does; a fault among them leaves only bytes below
/// RSP changed.
fn enter<W: Word>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    if op.prefix & STACK32 != 0 {
        return Err(c.unsupported("ENTER outside 64-bit mode"));
    }
    let size = op.imm & 0xffff;
    let level = u64::from(op.src & 31);
    let rbp = c.cpu.regs[RBP as usize];
    let frame = c.cpu.regs[RSP as usize].wrapping_sub(W::BYTES);
    c.write(frame, W::low(rbp))?;
    let mut sp = frame;
    for i in 1..level {
        let link = c.read::<W>(rbp.wrapping_sub(W::BYTES * i))?;
        sp = sp.wrapping_sub(W::BYTES);
        c.write(sp, link)?;
    }
    if level > 0 {
        sp = sp.wrapping_sub(W::BYTES);
        c.write(sp, W::low(frame))?;
    }
    let new_sp = sp.wrapping_sub(size);
    // The processor checks that the last byte of the new frame can be written.
    c.check_write(new_sp, 1)?;
    c.set_reg(RBP, W::low(frame));
    c.cpu.regs[RSP as usize] = new_sp;
    Ok(())
}

fn lower_enter(insn: &Instruction, op: &mut Op) -> Option<Body> {
    op.imm = u64::from(insn.immediate16());
    op.src = insn.immediate8_2nd();
    op.base = REG_ZERO;
    Some(if insn.code() == Code::Enterw_imm16_imm8 {
        enter::<u16>
    } else {
        enter::<u64>
    })
}

/// A privileged or otherwise refused use.
pub fn gp(c: &mut Core) -> Trap {
    c.raise(Fault::gp(0))
}

/// The rows of this family.
#[rustfmt::skip]
pub const ROWS: &[(N, Lower)] = &[
    (N::Push, lower_push), (N::Pop, lower_pop),
    (N::Pushf, |_, _| Some(pushf::<u16>)), (N::Pushfd, |_, _| Some(pushf::<u32>)),
    (N::Pushfq, |_, _| Some(pushf::<u64>)), (N::Popf, |_, _| Some(popf::<u16>)),
    (N::Popfd, |_, _| Some(popf::<u32>)), (N::Popfq, |_, _| Some(popf::<u64>)),
    (N::Leave, |i, _| by_width!(bits_of_leave(i), W => leave::<W>)), (N::Enter, lower_enter),
];

fn bits_of_leave(insn: &Instruction) -> u32 {
    match insn.code() {
        Code::Leavew => 16,
        Code::Leaved => 32,
        _ => 64,
    }
}
