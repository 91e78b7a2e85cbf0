//! IN and OUT.

use iced_x86::{Instruction, Mnemonic as N, OpKind};

use super::flagops::io_allowed;
use super::op::{Body, Op};
use super::shape::{Lower, by_width};
use super::word::Word;
use crate::core::Core;
use crate::cpu::fault::{Fault, Trap};

/// Whether the guest may access a port: by privilege, else by the TSS's bitmap.
pub fn check_port(c: &mut Core, port: u16, size: u8) -> Result<(), Trap> {
    if io_allowed(c) {
        return Ok(());
    }
    let tss = c.cpu.tr;
    let allowed = if tss.limit < 0x67 {
        false
    } else {
        let map = u64::from(c.read_system::<u16>(tss.base.wrapping_add(0x66))?);
        let at = map + u64::from(port / 8);
        // The processor always reads two bytes, so both must be inside the limit.
        if at + 1 > u64::from(tss.limit) {
            false
        } else {
            let bits = c.read_system::<u16>(tss.base.wrapping_add(at))?;
            let mask = ((1u16 << size) - 1) << (port % 8);
            bits & mask == 0
        }
    };
    if allowed {
        Ok(())
    } else {
        Err(c.raise(Fault::gp(0)))
    }
}

fn port<const IMM: bool>(c: &Core, op: &Op) -> u16 {
    if IMM { op.imm as u8 as u16 } else { c.reg(2) }
}

fn read<W: Word, const IMM: bool>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let port = port::<IMM>(c, op);
    check_port(c, port, W::BYTES as u8)?;
    let v = c.port_in(port, W::BYTES as u8);
    c.set_reg(0, W::low(u64::from(v)));
    Ok(())
}

fn write<W: Word, const IMM: bool>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let port = port::<IMM>(c, op);
    check_port(c, port, W::BYTES as u8)?;
    let v = c.reg::<W>(0).zext() as u32;
    c.port_out(port, W::BYTES as u8, v);
    Ok(())
}

fn lower_in(insn: &Instruction, op: &mut Op) -> Option<Body> {
    let width = u32::try_from(insn.op0_register().size()).ok()? * 8;
    if insn.op1_kind() == OpKind::Immediate8 {
        op.imm = u64::from(insn.immediate8());
        by_width!(width, W => read::<W, true>)
    } else {
        by_width!(width, W => read::<W, false>)
    }
}

fn lower_out(insn: &Instruction, op: &mut Op) -> Option<Body> {
    let width = u32::try_from(insn.op1_register().size()).ok()? * 8;
    if insn.op0_kind() == OpKind::Immediate8 {
        op.imm = u64::from(insn.immediate8());
        by_width!(width, W => write::<W, true>)
    } else {
        by_width!(width, W => write::<W, false>)
    }
}

/// The rows of this family.
pub const ROWS: &[(N, Lower)] = &[(N::In, lower_in), (N::Out, lower_out)];
