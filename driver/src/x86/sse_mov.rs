//! Moves: between XMM registers, memory, MMX and general registers; sign masks.

use iced_x86::{Instruction, Mnemonic as N};

use super::mmx::{M32, enter_mmx, mm, mm_source, mmx_ready, set_mm};
use super::op::{Body, Op};
use super::shape::{Lower, M, R};
use super::sse::{
    Class, class, low32_source, low64_source, read_aligned, read_unaligned, set_xmm, sse_ready,
    write_aligned, write_unaligned, xmm,
};
use super::string;
use super::word::Word;
use crate::core::Core;
use crate::cpu::fault::Trap;

/// The register that addresses masked stores.
const RDI: u8 = 7;

fn copy(c: &mut Core, op: &Op) -> Result<(), Trap> {
    sse_ready(c)?;
    set_xmm(c, op.dst, xmm(c, op.src));
    Ok(())
}

fn load<const ALIGNED: bool>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    sse_ready(c)?;
    let ea = c.ea(op);
    let value = if ALIGNED {
        read_aligned(c, ea)?
    } else {
        read_unaligned(c, ea)?
    };
    set_xmm(c, op.dst, value);
    Ok(())
}

fn store<const ALIGNED: bool>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    sse_ready(c)?;
    let ea = c.ea(op);
    let value = xmm(c, op.src);
    if ALIGNED {
        write_aligned(c, ea, value)
    } else {
        write_unaligned(c, ea, value)
    }
}

fn lower_full<const ALIGNED: bool>(insn: &Instruction, _: &mut Op) -> Option<Body> {
    match (class(insn, 0), class(insn, 1)) {
        (Class::Xmm, Class::Xmm) => Some(copy),
        (Class::Xmm, Class::Mem) => Some(load::<ALIGNED>),
        (Class::Mem, Class::Xmm) => Some(store::<ALIGNED>),
        _ => None,
    }
}

/// MOVQ between registers, and every load of 64 bits: the upper half becomes zero.
fn load64<const SRC: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    sse_ready(c)?;
    let value = low64_source::<SRC>(c, op)?;
    set_xmm(c, op.dst, [value, 0]);
    Ok(())
}

fn load32(c: &mut Core, op: &Op) -> Result<(), Trap> {
    sse_ready(c)?;
    let value = low32_source::<M>(c, op)?;
    set_xmm(c, op.dst, [u64::from(value), 0]);
    Ok(())
}

/// MOVSS between registers leaves the upper three quarters.
fn merge32(c: &mut Core, op: &Op) -> Result<(), Trap> {
    sse_ready(c)?;
    let ([low, high], from) = (xmm(c, op.dst), xmm(c, op.src)[0]);
    set_xmm(c, op.dst, [low & !0xffff_ffff | from & 0xffff_ffff, high]);
    Ok(())
}

/// One half of an XMM register becomes a half of the source or a 64-bit memory operand; the other
/// half stays: MOVLPS, MOVHPS, MOVHLPS, MOVLHPS, MOVSD between registers.
fn set_half<const TO: usize, const FROM: usize, const SRC: u8>(
    c: &mut Core,
    op: &Op,
) -> Result<(), Trap> {
    sse_ready(c)?;
    let value = if SRC == M {
        low64_source::<M>(c, op)?
    } else {
        xmm(c, op.src)[FROM]
    };
    let mut result = xmm(c, op.dst);
    result[TO] = value;
    set_xmm(c, op.dst, result);
    Ok(())
}

fn store_part<W: Word, const HALF: usize>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    sse_ready(c)?;
    let ea = c.ea(op);
    c.write(ea, W::low(xmm(c, op.src)[HALF]))
}

fn lower_movss(insn: &Instruction, _: &mut Op) -> Option<Body> {
    match (class(insn, 0), class(insn, 1)) {
        (Class::Xmm, Class::Xmm) => Some(merge32),
        (Class::Xmm, Class::Mem) => Some(load32),
        (Class::Mem, Class::Xmm) => Some(store_part::<u32, 0>),
        _ => None,
    }
}

/// MOVSD of XMM registers.
pub fn lower_movsd_xmm(insn: &Instruction, _: &mut Op) -> Option<Body> {
    match (class(insn, 0), class(insn, 1)) {
        (Class::Xmm, Class::Xmm) => Some(set_half::<0, 0, R>),
        (Class::Xmm, Class::Mem) => Some(load64::<M>),
        (Class::Mem, Class::Xmm) => Some(store_part::<u64, 0>),
        _ => None,
    }
}

/// The mnemonic MOVSD: the string instruction, or the SSE2 one.
pub fn lower_movsd(insn: &Instruction, op: &mut Op) -> Option<Body> {
    if insn.is_string_instruction() {
        string::lower_movs(insn, op)
    } else {
        lower_movsd_xmm(insn, op)
    }
}

/// MOVLPS, MOVHPS and their double forms.
fn lower_half<const HALF: usize>(insn: &Instruction, _: &mut Op) -> Option<Body> {
    match (class(insn, 0), class(insn, 1)) {
        (Class::Xmm, Class::Mem) => Some(set_half::<HALF, 0, M>),
        (Class::Mem, Class::Xmm) => Some(store_part::<u64, HALF>),
        _ => None,
    }
}

fn gpr_to_xmm<W: Word>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    sse_ready(c)?;
    set_xmm(c, op.dst, [c.reg::<W>(op.src).zext(), 0]);
    Ok(())
}

fn xmm_to_gpr<W: Word>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    sse_ready(c)?;
    c.set_reg(op.dst, W::low(xmm(c, op.src)[0]));
    Ok(())
}

fn gpr_to_mm<W: Word>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    mmx_ready(c)?;
    enter_mmx(c);
    set_mm(c, op.dst, c.reg::<W>(op.src).zext());
    Ok(())
}

fn mm_to_gpr<W: Word>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    mmx_ready(c)?;
    enter_mmx(c);
    c.set_reg(op.dst, W::low(mm(c, op.src)));
    Ok(())
}

fn load_mm<const SRC: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    mmx_ready(c)?;
    let value = mm_source::<SRC>(c, op)?;
    enter_mmx(c);
    set_mm(c, op.dst, value);
    Ok(())
}

fn store_mm<W: Word>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    mmx_ready(c)?;
    let ea = c.ea(op);
    c.write(ea, W::low(mm(c, op.src)))?;
    enter_mmx(c);
    Ok(())
}

fn lower_movd(insn: &Instruction, _: &mut Op) -> Option<Body> {
    match (class(insn, 0), class(insn, 1)) {
        (Class::Xmm, Class::Gpr) => Some(gpr_to_xmm::<u32>),
        (Class::Xmm, Class::Mem) => Some(load32),
        (Class::Gpr, Class::Xmm) => Some(xmm_to_gpr::<u32>),
        (Class::Mem, Class::Xmm) => Some(store_part::<u32, 0>),
        (Class::Mm, Class::Gpr) => Some(gpr_to_mm::<u32>),
        (Class::Mm, Class::Mem) => Some(load_mm::<M32>),
        (Class::Gpr, Class::Mm) => Some(mm_to_gpr::<u32>),
        (Class::Mem, Class::Mm) => Some(store_mm::<u32>),
        _ => None,
    }
}

fn lower_movq(insn: &Instruction, _: &mut Op) -> Option<Body> {
    match (class(insn, 0), class(insn, 1)) {
        (Class::Xmm, Class::Xmm) => Some(load64::<R>),
        (Class::Xmm, Class::Mem) => Some(load64::<M>),
        (Class::Mem, Class::Xmm) => Some(store_part::<u64, 0>),
        (Class::Xmm, Class::Gpr) => Some(gpr_to_xmm::<u64>),
        (Class::Gpr, Class::Xmm) => Some(xmm_to_gpr::<u64>),
        (Class::Mm, Class::Mm) => Some(load_mm::<R>),
        (Class::Mm, Class::Mem) => Some(load_mm::<M>),
        (Class::Mem, Class::Mm) => Some(store_mm::<u64>),
        (Class::Mm, Class::Gpr) => Some(gpr_to_mm::<u64>),
        (Class::Gpr, Class::Mm) => Some(mm_to_gpr::<u64>),
        _ => None,
    }
}

/// MOVNTI is no SSE instruction but for its name: no enabling condition applies.
fn movnti<W: Word>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let ea = c.ea(op);
    c.write(ea, c.reg::<W>(op.src))
}

fn lower_movnti(insn: &Instruction, _: &mut Op) -> Option<Body> {
    match insn.memory_size().size() {
        4 => Some(movnti::<u32>),
        8 => Some(movnti::<u64>),
        _ => None,
    }
}

/// The sign bits of the bytes, low byte first.
#[inline(always)]
pub fn byte_signs(v: u64) -> u64 {
    // The multiplication moves bit 7 of byte n to bit 56 + n without a carry from below.
    (v >> 7 & 0x0101_0101_0101_0101).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

fn pmovmskb(c: &mut Core, op: &Op) -> Result<(), Trap> {
    sse_ready(c)?;
    let [low, high] = xmm(c, op.src);
    c.set_reg(op.dst, byte_signs(low) | byte_signs(high) << 8);
    Ok(())
}

fn pmovmskb_mm(c: &mut Core, op: &Op) -> Result<(), Trap> {
    mmx_ready(c)?;
    enter_mmx(c);
    c.set_reg(op.dst, byte_signs(mm(c, op.src)));
    Ok(())
}

fn lower_pmovmskb(insn: &Instruction, _: &mut Op) -> Option<Body> {
    Some(if class(insn, 1) == Class::Mm {
        pmovmskb_mm
    } else {
        pmovmskb
    })
}

fn movmskpd(c: &mut Core, op: &Op) -> Result<(), Trap> {
    sse_ready(c)?;
    let [low, high] = xmm(c, op.src);
    c.set_reg(op.dst, low >> 63 | high >> 63 << 1);
    Ok(())
}

fn movmskps(c: &mut Core, op: &Op) -> Result<(), Trap> {
    sse_ready(c)?;
    let pair = |v: u64| v >> 31 & 1 | v >> 63 << 1;
    let [low, high] = xmm(c, op.src);
    c.set_reg(op.dst, pair(low) | pair(high) << 2);
    Ok(())
}

/// Stores the bytes of `value` whose mask byte has its sign bit set. Only selected bytes can fault,
/// and both pages they can lie on are asked first.
fn masked_store(c: &mut Core, ea: u64, value: u128, selected: u32) -> Result<(), Trap> {
    if selected == 0 {
        return Ok(());
    }
    let at = |i: u32| ea.wrapping_add(u64::from(i));
    c.check_write(at(selected.trailing_zeros()), 1)?;
    c.check_write(at(31 - selected.leading_zeros()), 1)?;
    for i in (0..16).filter(|i| selected >> i & 1 != 0) {
        c.write(at(i), (value >> (8 * i)) as u8)?;
    }
    Ok(())
}

fn maskmovdqu(c: &mut Core, op: &Op) -> Result<(), Trap> {
    sse_ready(c)?;
    let (ea, [low, high], mask) = (c.ea(op), xmm(c, op.dst), xmm(c, op.src));
    let selected = (byte_signs(mask[0]) | byte_signs(mask[1]) << 8) as u32;
    masked_store(c, ea, u128::from(high) << 64 | u128::from(low), selected)
}

fn maskmovq(c: &mut Core, op: &Op) -> Result<(), Trap> {
    mmx_ready(c)?;
    let (ea, value, mask) = (c.ea(op), mm(c, op.dst), mm(c, op.src));
    masked_store(c, ea, u128::from(value), byte_signs(mask) as u32)?;
    enter_mmx(c);
    Ok(())
}

/// The memory operand is implied: DS:RDI, or another segment by a prefix.
fn lower_masked(insn: &Instruction, op: &mut Op) -> Option<Body> {
    op.base = RDI;
    op.dst = insn.op1_register().number() as u8;
    op.src = insn.op2_register().number() as u8;
    Some(if class(insn, 1) == Class::Mm {
        maskmovq
    } else {
        maskmovdqu
    })
}

/// The rows of this family.
#[rustfmt::skip]
pub const ROWS: &[(N, Lower)] = &[
    (N::Movdqa, lower_full::<true>), (N::Movaps, lower_full::<true>),
    (N::Movapd, lower_full::<true>), (N::Movdqu, lower_full::<false>),
    (N::Movups, lower_full::<false>), (N::Movupd, lower_full::<false>),
    (N::Movntdq, lower_full::<true>), (N::Movntps, lower_full::<true>),
    (N::Movntpd, lower_full::<true>), (N::Movnti, lower_movnti),
    (N::Movd, lower_movd), (N::Movq, lower_movq),
    (N::Movss, lower_movss), (N::Movsd, lower_movsd),
    (N::Movlps, lower_half::<0>), (N::Movlpd, lower_half::<0>),
    (N::Movhps, lower_half::<1>), (N::Movhpd, lower_half::<1>),
    (N::Movhlps, |_, _| Some(set_half::<0, 1, R>)),
    (N::Movlhps, |_, _| Some(set_half::<1, 0, R>)),
    (N::Movmskps, |_, _| Some(movmskps)), (N::Movmskpd, |_, _| Some(movmskpd)),
    (N::Pmovmskb, lower_pmovmskb),
    (N::Maskmovdqu, lower_masked), (N::Maskmovq, lower_masked),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sign_bits_of_bytes_are_gathered_in_order() {
        for bits in 0..=255u64 {
            let spread = (0..8).fold(0x7f7f_7f7f_7f7f_7f7f, |v, i| {
                v | (bits >> i & 1) << (8 * i + 7)
            });
            assert_eq!(byte_signs(spread), bits);
            assert_eq!(byte_signs(spread & 0x8080_8080_8080_8080), bits);
        }
    }
}
