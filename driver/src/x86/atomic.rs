//! CMPXCHG, CMPXCHG8B/16B, XADD. With one vCPU running at a time a LOCK prefix asks for nothing.

use iced_x86::{Instruction, Mnemonic as N};

use super::op::{Body, Op};
use super::shape::{Lower, bits, by_width, is_mem};
use super::word::Word;
use crate::core::Core;
use crate::cpu::fault::{Fault, Trap};
use crate::cpu::flags;
use crate::cpu::flags::LazyFlags;

fn cmpxchg<W: Word, const MEM: bool>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let new = c.reg::<W>(op.src);
    let expected = c.reg::<W>(0);
    let mut lazy = c.cpu.lazy;
    if MEM {
        let ea = c.ea(op);
        let old = c.read_for_write::<W>(ea)?;
        let equal = lazy.sub(expected, old, false) == W::low(0);
        // The destination is written either way, as the bus sees it.
        c.write(ea, if equal { new } else { old })?;
        if !equal {
            c.set_reg(0, old);
        }
    } else {
        let old = c.reg::<W>(op.dst);
        if lazy.sub(expected, old, false) == W::low(0) {
            c.set_reg(op.dst, new);
        } else {
            c.set_reg(0, old);
        }
    }
    c.cpu.lazy = lazy;
    Ok(())
}

fn lower_cmpxchg(insn: &Instruction, _: &mut Op) -> Option<Body> {
    if is_mem(insn, 0) {
        by_width!(bits(insn, 0), W => cmpxchg::<W, true>)
    } else {
        by_width!(bits(insn, 0), W => cmpxchg::<W, false>)
    }
}

/// `H` is half of the operand: u32 for CMPXCHG8B, u64 for CMPXCHG16B.
fn cmpxchg_pair<H: Word>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let ea = c.ea(op);
    if H::BITS == 64 && ea & 15 != 0 {
        return Err(c.raise(Fault::gp(0)));
    }
    c.check_write(ea, 2 * H::BYTES)?;
    let lo = c.read::<H>(ea)?;
    let hi = c.read::<H>(ea.wrapping_add(H::BYTES))?;
    let equal = lo == c.reg::<H>(0) && hi == c.reg::<H>(2);
    let (new_lo, new_hi) = if equal {
        (c.reg::<H>(3), c.reg::<H>(1))
    } else {
        (lo, hi)
    };
    c.write(ea, new_lo)?;
    c.write(ea.wrapping_add(H::BYTES), new_hi)?;
    if !equal {
        c.set_reg(0, lo);
        c.set_reg(2, hi);
    }
    let others = c.cpu.lazy.bits() & !flags::ZF;
    c.cpu.lazy = LazyFlags::from_bits(others | if equal { flags::ZF } else { 0 });
    Ok(())
}

fn xadd<W: Word, const MEM: bool>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let b = c.reg::<W>(op.src);
    let mut lazy = c.cpu.lazy;
    if MEM {
        let ea = c.ea(op);
        let a = c.read_for_write::<W>(ea)?;
        let sum = lazy.add(a, b, false);
        c.write(ea, sum)?;
        c.set_reg(op.src, a);
    } else {
        let a = c.reg::<W>(op.dst);
        let sum = lazy.add(a, b, false);
        c.set_reg(op.src, a);
        c.set_reg(op.dst, sum);
    }
    c.cpu.lazy = lazy;
    Ok(())
}

fn lower_xadd(insn: &Instruction, _: &mut Op) -> Option<Body> {
    if is_mem(insn, 0) {
        by_width!(bits(insn, 0), W => xadd::<W, true>)
    } else {
        by_width!(bits(insn, 0), W => xadd::<W, false>)
    }
}

/// The rows of this family.
#[rustfmt::skip]
pub const ROWS: &[(N, Lower)] = &[
    (N::Cmpxchg, lower_cmpxchg), (N::Xadd, lower_xadd),
    (N::Cmpxchg8b, |_, _| Some(cmpxchg_pair::<u32>)),
    (N::Cmpxchg16b, |_, _| Some(cmpxchg_pair::<u64>)),
];
