//! Packed values across their halves: packing, interleaving, shuffling, whole-register shifts,
//! and single words in and out.

use iced_x86::{Code, Instruction, Mnemonic as N};

use super::mmx::{M32, enter_mmx, mm, mm_source, mmx_ready, set_mm, shuffle_words};
use super::op::{Body, Op};
use super::shape::{Lower, M, R};
use super::sse::{Class, Xmm, class, set_xmm, sse_ready, xmm, xmm_source};
use crate::core::Core;
use crate::cpu::fault::Trap;

/// An operation whose result halves each need whole operands. `imm` is 0 where there is none.
trait Mix {
    fn xmm(a: Xmm, b: Xmm, imm: u64) -> Xmm;
}

/// The same where MMX registers have it too.
trait MixMm: Mix {
    fn mm(a: u64, b: u64) -> u64;
}

fn mix<K: Mix, const SRC: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    sse_ready(c)?;
    let b = xmm_source::<SRC>(c, op)?;
    set_xmm(c, op.dst, K::xmm(xmm(c, op.dst), b, op.imm));
    Ok(())
}

fn mix_mm<K: MixMm, const SRC: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    mmx_ready(c)?;
    let b = mm_source::<SRC>(c, op)?;
    enter_mmx(c);
    let a = mm(c, op.dst);
    set_mm(c, op.dst, K::mm(a, b));
    Ok(())
}

fn lower_mix<K: Mix>(insn: &Instruction, _: &mut Op) -> Option<Body> {
    match class(insn, 1) {
        Class::Xmm => Some(mix::<K, R>),
        Class::Mem => Some(mix::<K, M>),
        _ => None,
    }
}

fn lower_mix_mm<K: MixMm>(insn: &Instruction, op: &mut Op) -> Option<Body> {
    match (class(insn, 0), class(insn, 1)) {
        (Class::Mm, Class::Mm) => Some(mix_mm::<K, R>),
        (Class::Mm, Class::Mem) if insn.memory_size().size() == 4 => Some(mix_mm::<K, M32>),
        (Class::Mm, Class::Mem) => Some(mix_mm::<K, M>),
        _ => lower_mix::<K>(insn, op),
    }
}

/// Eight signed words become bytes.
#[inline(always)]
fn pack_words(low: u64, high: u64, f: impl Fn(i16) -> u8) -> u64 {
    (0..4).fold(0, |r, i| {
        let (l, h) = (f((low >> (16 * i)) as i16), f((high >> (16 * i)) as i16));
        r | u64::from(l) << (8 * i) | u64::from(h) << (8 * i + 32)
    })
}

/// Four signed doublewords become words.
#[inline(always)]
fn pack_dwords(low: u64, high: u64) -> u64 {
    let f = |v: u64| u64::from((v as i32).clamp(-0x8000, 0x7fff) as u16);
    f(low) | f(low >> 32) << 16 | f(high) << 32 | f(high >> 32) << 48
}

macro_rules! pack {
    ($($name:ident |$low:ident, $high:ident| $e:expr;)*) => {$(
        struct $name;
        impl Mix for $name {
            #[inline(always)]
            fn xmm(a: Xmm, b: Xmm, _: u64) -> Xmm {
                [Self::mm(a[0], a[1]), Self::mm(b[0], b[1])]
            }
        }
        impl MixMm for $name {
            #[inline(always)]
            fn mm($low: u64, $high: u64) -> u64 {
                $e
            }
        }
    )*};
}

pack! {
    Packsswb |a, b| pack_words(a, b, |v| v.clamp(-0x80, 0x7f) as u8);
    Packuswb |a, b| pack_words(a, b, |v| v.clamp(0, 0xff) as u8);
    Packssdw |a, b| pack_dwords(a, b);
}

/// Alternates the lanes of two 32-bit values.
#[inline(always)]
fn interleave<const BITS: u32>(a: u32, b: u32) -> u64 {
    let mask = (1u64 << BITS) - 1;
    (0..32 / BITS).fold(0, |r, i| {
        let lane = |v: u32| u64::from(v) >> (BITS * i) & mask;
        r | (lane(a) | lane(b) << BITS) << (2 * BITS * i)
    })
}

/// PUNPCKL and PUNPCKH of lanes narrower than a half.
struct Unpack<const BITS: u32, const HIGH: bool>;

impl<const BITS: u32, const HIGH: bool> Mix for Unpack<BITS, HIGH> {
    #[inline(always)]
    fn xmm(a: Xmm, b: Xmm, _: u64) -> Xmm {
        let (a, b) = (a[usize::from(HIGH)], b[usize::from(HIGH)]);
        [
            interleave::<BITS>(a as u32, b as u32),
            interleave::<BITS>((a >> 32) as u32, (b >> 32) as u32),
        ]
    }
}

impl<const BITS: u32, const HIGH: bool> MixMm for Unpack<BITS, HIGH> {
    #[inline(always)]
    fn mm(a: u64, b: u64) -> u64 {
        let shift = if HIGH { 32 } else { 0 };
        interleave::<BITS>((a >> shift) as u32, (b >> shift) as u32)
    }
}

/// The doubleword of a register that two bits name.
#[inline(always)]
fn pick(v: Xmm, which: u64) -> u64 {
    v[(which >> 1 & 1) as usize] >> (32 * (which & 1)) & 0xffff_ffff
}

macro_rules! mix {
    ($($name:ident |$a:pat_param, $b:pat_param, $imm:pat_param| $e:expr;)*) => {$(
        struct $name;
        impl Mix for $name {
            #[inline(always)]
            fn xmm($a: Xmm, $b: Xmm, $imm: u64) -> Xmm {
                $e
            }
        }
    )*};
}

mix! {
    UnpackLowQ |a, b, _| [a[0], b[0]];
    UnpackHighQ |a, b, _| [a[1], b[1]];
    Pshufd |_, b, imm| [
        pick(b, imm) | pick(b, imm >> 2) << 32,
        pick(b, imm >> 4) | pick(b, imm >> 6) << 32,
    ];
    Pshuflw |_, b, imm| [shuffle_words(b[0], imm), b[1]];
    Pshufhw |_, b, imm| [b[0], shuffle_words(b[1], imm)];
    Shufps |a, b, imm| [
        pick(a, imm) | pick(a, imm >> 2) << 32,
        pick(b, imm >> 4) | pick(b, imm >> 6) << 32,
    ];
    Shufpd |a, b, imm| [a[(imm & 1) as usize], b[(imm >> 1 & 1) as usize]];
}

fn shift_bytes<const LEFT: bool>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    sse_ready(c)?;
    let [low, high] = xmm(c, op.dst);
    let v = u128::from(high) << 64 | u128::from(low);
    let bits = 8 * (op.imm & 0xff) as u32;
    let r = if LEFT {
        v.checked_shl(bits)
    } else {
        v.checked_shr(bits)
    }
    .unwrap_or(0);
    set_xmm(c, op.dst, [r as u64, (r >> 64) as u64]);
    Ok(())
}

/// Replaces one word of a half.
#[inline(always)]
fn insert_word(half: u64, lane: u64, word: u16) -> u64 {
    let shift = 16 * (lane & 3);
    half & !(0xffff << shift) | u64::from(word) << shift
}

/// The word to insert: of a general register, or of memory.
#[inline(always)]
fn word_source<const SRC: u8>(c: &mut Core, op: &Op) -> Result<u16, Trap> {
    if SRC == M {
        let ea = c.ea(op);
        c.read(ea)
    } else {
        Ok(c.reg(op.src))
    }
}

fn pinsrw<const SRC: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    sse_ready(c)?;
    let word = word_source::<SRC>(c, op)?;
    let mut value = xmm(c, op.dst);
    let half = &mut value[(op.imm >> 2 & 1) as usize];
    *half = insert_word(*half, op.imm, word);
    set_xmm(c, op.dst, value);
    Ok(())
}

fn pinsrw_mm<const SRC: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    mmx_ready(c)?;
    let word = word_source::<SRC>(c, op)?;
    enter_mmx(c);
    let value = mm(c, op.dst);
    set_mm(c, op.dst, insert_word(value, op.imm, word));
    Ok(())
}

fn lower_pinsrw(insn: &Instruction, _: &mut Op) -> Option<Body> {
    match (class(insn, 0), class(insn, 1)) {
        (Class::Xmm, Class::Gpr) => Some(pinsrw::<R>),
        (Class::Xmm, Class::Mem) => Some(pinsrw::<M>),
        (Class::Mm, Class::Gpr) => Some(pinsrw_mm::<R>),
        (Class::Mm, Class::Mem) => Some(pinsrw_mm::<M>),
        _ => None,
    }
}

fn pextrw(c: &mut Core, op: &Op) -> Result<(), Trap> {
    sse_ready(c)?;
    let half = xmm(c, op.src)[(op.imm >> 2 & 1) as usize];
    c.set_reg(op.dst, half >> (16 * (op.imm & 3)) & 0xffff);
    Ok(())
}

fn pextrw_mm(c: &mut Core, op: &Op) -> Result<(), Trap> {
    mmx_ready(c)?;
    enter_mmx(c);
    c.set_reg(op.dst, mm(c, op.src) >> (16 * (op.imm & 3)) & 0xffff);
    Ok(())
}

/// The form with a memory destination, and its register twin, came with SSE4.1.
fn lower_pextrw(insn: &Instruction, _: &mut Op) -> Option<Body> {
    match insn.code() {
        Code::Pextrw_r32_xmm_imm8 | Code::Pextrw_r64_xmm_imm8 => Some(pextrw),
        Code::Pextrw_r32_mm_imm8 | Code::Pextrw_r64_mm_imm8 => Some(pextrw_mm),
        _ => None,
    }
}

/// The rows of this family.
#[rustfmt::skip]
pub const ROWS: &[(N, Lower)] = &[
    (N::Pshufd, lower_mix::<Pshufd>), (N::Pshuflw, lower_mix::<Pshuflw>),
    (N::Pshufhw, lower_mix::<Pshufhw>), (N::Shufps, lower_mix::<Shufps>),
    (N::Shufpd, lower_mix::<Shufpd>),
    (N::Punpcklbw, lower_mix_mm::<Unpack<8, false>>), (N::Punpckhbw, lower_mix_mm::<Unpack<8, true>>),
    (N::Punpcklwd, lower_mix_mm::<Unpack<16, false>>), (N::Punpckhwd, lower_mix_mm::<Unpack<16, true>>),
    (N::Punpckldq, lower_mix_mm::<Unpack<32, false>>), (N::Punpckhdq, lower_mix_mm::<Unpack<32, true>>),
    (N::Punpcklqdq, lower_mix::<UnpackLowQ>), (N::Punpckhqdq, lower_mix::<UnpackHighQ>),
    (N::Unpcklps, lower_mix::<Unpack<32, false>>), (N::Unpckhps, lower_mix::<Unpack<32, true>>),
    (N::Unpcklpd, lower_mix::<UnpackLowQ>), (N::Unpckhpd, lower_mix::<UnpackHighQ>),
    (N::Packsswb, lower_mix_mm::<Packsswb>), (N::Packuswb, lower_mix_mm::<Packuswb>),
    (N::Packssdw, lower_mix_mm::<Packssdw>),
    (N::Pslldq, |_, _| Some(shift_bytes::<true>)), (N::Psrldq, |_, _| Some(shift_bytes::<false>)),
    (N::Pinsrw, lower_pinsrw), (N::Pextrw, lower_pextrw),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaving_alternates_and_starts_with_the_destination() {
        assert_eq!(
            interleave::<8>(0x4433_2211, 0x8877_6655),
            0x8844_7733_6622_5511
        );
        assert_eq!(
            interleave::<16>(0x2222_1111, 0x4444_3333),
            0x4444_2222_3333_1111
        );
        assert_eq!(interleave::<32>(1, 2), 0x2_0000_0001);
    }

    #[test]
    fn packing_saturates() {
        assert_eq!(Packsswb::mm(0x0080_007f_ff80_ff7f, 0), 0x7f7f_8080);
        assert_eq!(
            Packuswb::mm(0x0100_00ff_ffff_0001, 0x7fff_0000_0000_0000),
            0xff00_0000_ffff_0001
        );
        assert_eq!(
            Packssdw::mm(0x0000_8000_ffff_7fff, 0x0000_7fff_ffff_8000),
            0x7fff_8000_7fff_8000
        );
    }
}
