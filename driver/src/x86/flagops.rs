//! Instructions that only read or write flags.

use iced_x86::Mnemonic as N;

use super::op::{HIGH_BYTE, Op};
use super::shape::Lower;
use crate::core::Core;
use crate::cpu::fault::{Fault, Trap};
use crate::cpu::flags::{self, AF, CF, LazyFlags, PF, SF, ZF};

const AH: u8 = HIGH_BYTE;

fn set_carry(c: &mut Core, carry: bool) {
    let of = c.cpu.lazy.of();
    c.cpu.lazy.replace_cf_of(carry, of);
}

fn clc(c: &mut Core, _: &Op) -> Result<(), Trap> {
    set_carry(c, false);
    Ok(())
}

fn stc(c: &mut Core, _: &Op) -> Result<(), Trap> {
    set_carry(c, true);
    Ok(())
}

fn cmc(c: &mut Core, _: &Op) -> Result<(), Trap> {
    let carry = c.cpu.lazy.cf();
    set_carry(c, !carry);
    Ok(())
}

fn cld(c: &mut Core, _: &Op) -> Result<(), Trap> {
    c.cpu.system_flags &= !flags::DF;
    Ok(())
}

fn std(c: &mut Core, _: &Op) -> Result<(), Trap> {
    c.cpu.system_flags |= flags::DF;
    Ok(())
}

fn lahf(c: &mut Core, _: &Op) -> Result<(), Trap> {
    let value = c.cpu.lazy.bits() & (SF | ZF | AF | PF | CF) | flags::FIXED;
    c.set_reg(AH, value as u8);
    Ok(())
}

fn sahf(c: &mut Core, _: &Op) -> Result<(), Trap> {
    const FROM_AH: u64 = SF | ZF | AF | PF | CF;
    let ah = u64::from(c.reg::<u8>(AH));
    c.cpu.lazy = LazyFlags::from_bits(c.cpu.lazy.bits() & !FROM_AH | ah & FROM_AH);
    Ok(())
}

/// Whether the privilege allows CLI, STI and port access.
pub fn io_allowed(c: &Core) -> bool {
    u64::from(c.cpu.cpl) <= (c.cpu.system_flags & flags::IOPL) >> 12
}

fn cli(c: &mut Core, _: &Op) -> Result<(), Trap> {
    if !io_allowed(c) {
        return Err(c.raise(Fault::gp(0)));
    }
    c.cpu.system_flags &= !flags::IF;
    Ok(())
}

/// Interrupts stay held off for one more instruction if they were disabled before.
fn sti(c: &mut Core, _: &Op) -> Result<(), Trap> {
    if !io_allowed(c) {
        return Err(c.raise(Fault::gp(0)));
    }
    if !c.cpu.interrupts_enabled() {
        c.cpu.system_flags |= flags::IF;
        c.cpu.shadow = true;
        c.trap_if_stepping();
    }
    c.leave();
    Ok(())
}

/// The rows of this family.
#[rustfmt::skip]
pub const ROWS: &[(N, Lower)] = &[
    (N::Clc, |_, _| Some(clc)), (N::Stc, |_, _| Some(stc)), (N::Cmc, |_, _| Some(cmc)),
    (N::Cld, |_, _| Some(cld)), (N::Std, |_, _| Some(std)), (N::Lahf, |_, _| Some(lahf)),
    (N::Sahf, |_, _| Some(sahf)), (N::Cli, |_, _| Some(cli)), (N::Sti, |_, _| Some(sti)),
];
