//! Packed integers: arithmetic, comparison, logic and shifts of lanes that stay in their half.
//!
//! Such an operation is a function of 64-bit halves. An MMX register is one half, an XMM register
//! two, so one definition serves both.

use iced_x86::{Instruction, Mnemonic as N};

use super::mmx::{enter_mmx, mm, mm_source, mmx_ready, set_mm};
use super::op::{Body, Op};
use super::shape::{I, Lower, M, R};
use super::sse::{Class, class, set_xmm, sse_ready, xmm, xmm_source};
use crate::core::Core;
use crate::cpu::fault::Trap;

/// Applies a function to each pair of bytes.
#[inline(always)]
pub fn bytes(a: u64, b: u64, f: impl Fn(u8, u8) -> u8) -> u64 {
    let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
    u64::from_le_bytes(std::array::from_fn(|i| f(a[i], b[i])))
}

/// Applies a function to each pair of words.
#[inline(always)]
pub fn words(a: u64, b: u64, f: impl Fn(u16, u16) -> u16) -> u64 {
    (0..4).fold(0, |r, i| {
        r | u64::from(f((a >> (16 * i)) as u16, (b >> (16 * i)) as u16)) << (16 * i)
    })
}

/// Applies a function to each pair of doublewords.
#[inline(always)]
pub fn dwords(a: u64, b: u64, f: impl Fn(u32, u32) -> u32) -> u64 {
    u64::from(f(a as u32, b as u32)) | u64::from(f((a >> 32) as u32, (b >> 32) as u32)) << 32
}

/// An operation on lanes inside a half.
trait Half {
    fn half(a: u64, b: u64) -> u64;
}

/// All ones where a comparison holds.
macro_rules! mask {
    ($t:ty, $e:expr) => {
        if $e { <$t>::MAX } else { 0 }
    };
}

macro_rules! half {
    ($($name:ident $lanes:ident |$a:ident, $b:ident| $e:expr;)*) => {$(
        struct $name;
        impl Half for $name {
            #[inline(always)]
            fn half(a: u64, b: u64) -> u64 {
                half!(@ $lanes, a, b, |$a, $b| $e)
            }
        }
    )*};
    (@ whole, $x:ident, $y:ident, |$a:ident, $b:ident| $e:expr) => {{
        let ($a, $b) = ($x, $y);
        $e
    }};
    (@ $lanes:ident, $x:ident, $y:ident, |$a:ident, $b:ident| $e:expr) => {
        $lanes($x, $y, |$a, $b| $e)
    };
}

half! {
    Pand whole |a, b| a & b;
    Pandn whole |a, b| !a & b;
    Por whole |a, b| a | b;
    Pxor whole |a, b| a ^ b;
    Paddb bytes |a, b| a.wrapping_add(b);
    Paddw words |a, b| a.wrapping_add(b);
    Paddd dwords |a, b| a.wrapping_add(b);
    Paddq whole |a, b| a.wrapping_add(b);
    Psubb bytes |a, b| a.wrapping_sub(b);
    Psubw words |a, b| a.wrapping_sub(b);
    Psubd dwords |a, b| a.wrapping_sub(b);
    Psubq whole |a, b| a.wrapping_sub(b);
    Paddsb bytes |a, b| (a as i8).saturating_add(b as i8) as u8;
    Paddsw words |a, b| (a as i16).saturating_add(b as i16) as u16;
    Paddusb bytes |a, b| a.saturating_add(b);
    Paddusw words |a, b| a.saturating_add(b);
    Psubsb bytes |a, b| (a as i8).saturating_sub(b as i8) as u8;
    Psubsw words |a, b| (a as i16).saturating_sub(b as i16) as u16;
    Psubusb bytes |a, b| a.saturating_sub(b);
    Psubusw words |a, b| a.saturating_sub(b);
    Pminub bytes |a, b| a.min(b);
    Pmaxub bytes |a, b| a.max(b);
    Pminsw words |a, b| (a as i16).min(b as i16) as u16;
    Pmaxsw words |a, b| (a as i16).max(b as i16) as u16;
    Pavgb bytes |a, b| ((u16::from(a) + u16::from(b) + 1) >> 1) as u8;
    Pavgw words |a, b| ((u32::from(a) + u32::from(b) + 1) >> 1) as u16;
    Pcmpeqb bytes |a, b| mask!(u8, a == b);
    Pcmpeqw words |a, b| mask!(u16, a == b);
    Pcmpeqd dwords |a, b| mask!(u32, a == b);
    Pcmpgtb bytes |a, b| mask!(u8, a as i8 > b as i8);
    Pcmpgtw words |a, b| mask!(u16, a as i16 > b as i16);
    Pcmpgtd dwords |a, b| mask!(u32, a as i32 > b as i32);
    Pmullw words |a, b| a.wrapping_mul(b);
    Pmulhw words |a, b| ((i32::from(a as i16) * i32::from(b as i16)) >> 16) as u16;
    Pmulhuw words |a, b| ((u32::from(a) * u32::from(b)) >> 16) as u16;
    Pmuludq whole |a, b| (a & 0xffff_ffff) * (b & 0xffff_ffff);
    Pmaddwd dwords |a, b| multiply_add(a, b);
    Psadbw whole |a, b| {
        let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
        a.iter().zip(b).map(|(a, b)| u64::from(a.abs_diff(b))).sum()
    };
}

/// The sum of the products of two signed words; wraps only where all four are -32768.
#[inline(always)]
fn multiply_add(a: u32, b: u32) -> u32 {
    let product = |a: u32, b: u32| i32::from(a as i16) * i32::from(b as i16);
    product(a, b).wrapping_add(product(a >> 16, b >> 16)) as u32
}

fn xmm_half<K: Half, const SRC: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    sse_ready(c)?;
    let b = xmm_source::<SRC>(c, op)?;
    let a = xmm(c, op.dst);
    set_xmm(c, op.dst, [K::half(a[0], b[0]), K::half(a[1], b[1])]);
    Ok(())
}

fn mm_half<K: Half, const SRC: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    mmx_ready(c)?;
    let b = mm_source::<SRC>(c, op)?;
    enter_mmx(c);
    let a = mm(c, op.dst);
    set_mm(c, op.dst, K::half(a, b));
    Ok(())
}

fn lower_half<K: Half>(insn: &Instruction, _: &mut Op) -> Option<Body> {
    match (class(insn, 0), class(insn, 1)) {
        (Class::Xmm, Class::Xmm) => Some(xmm_half::<K, R>),
        (Class::Xmm, Class::Mem) => Some(xmm_half::<K, M>),
        (Class::Mm, Class::Mm) => Some(mm_half::<K, R>),
        (Class::Mm, Class::Mem) => Some(mm_half::<K, M>),
        _ => None,
    }
}

/// A shift of every lane by one count, which is not cut to the lane's width: more than that shifts
/// everything out.
trait Shift {
    fn half(a: u64, count: u64) -> u64;
}

macro_rules! shift {
    ($($name:ident $lanes:ident $bits:literal |$a:ident, $n:ident| $e:expr;)*) => {$(
        struct $name;
        impl Shift for $name {
            #[inline(always)]
            fn half(a: u64, count: u64) -> u64 {
                if count >= $bits {
                    return 0;
                }
                let $n = count as u32;
                half!(@ $lanes, a, a, |$a, _b| $e)
            }
        }
    )*};
}

shift! {
    Psllw words 16 |a, n| a << n;
    Pslld dwords 32 |a, n| a << n;
    Psllq whole 64 |a, n| a << n;
    Psrlw words 16 |a, n| a >> n;
    Psrld dwords 32 |a, n| a >> n;
    Psrlq whole 64 |a, n| a >> n;
}

struct Psraw;
impl Shift for Psraw {
    #[inline(always)]
    fn half(a: u64, count: u64) -> u64 {
        let n = count.min(15) as u32;
        words(a, a, |a, _| (a as i16 >> n) as u16)
    }
}

struct Psrad;
impl Shift for Psrad {
    #[inline(always)]
    fn half(a: u64, count: u64) -> u64 {
        let n = count.min(31) as u32;
        dwords(a, a, |a, _| (a as i32 >> n) as u32)
    }
}

fn xmm_shift<K: Shift, const SRC: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    sse_ready(c)?;
    let count = if SRC == I {
        op.imm & 0xff
    } else {
        xmm_source::<SRC>(c, op)?[0]
    };
    let a = xmm(c, op.dst);
    set_xmm(c, op.dst, [K::half(a[0], count), K::half(a[1], count)]);
    Ok(())
}

fn mm_shift<K: Shift, const SRC: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    mmx_ready(c)?;
    let count = if SRC == I {
        op.imm & 0xff
    } else {
        mm_source::<SRC>(c, op)?
    };
    enter_mmx(c);
    let a = mm(c, op.dst);
    set_mm(c, op.dst, K::half(a, count));
    Ok(())
}

fn lower_shift<K: Shift>(insn: &Instruction, _: &mut Op) -> Option<Body> {
    match (class(insn, 0), class(insn, 1)) {
        (Class::Xmm, Class::Imm) => Some(xmm_shift::<K, I>),
        (Class::Xmm, Class::Xmm) => Some(xmm_shift::<K, R>),
        (Class::Xmm, Class::Mem) => Some(xmm_shift::<K, M>),
        (Class::Mm, Class::Imm) => Some(mm_shift::<K, I>),
        (Class::Mm, Class::Mm) => Some(mm_shift::<K, R>),
        (Class::Mm, Class::Mem) => Some(mm_shift::<K, M>),
        _ => None,
    }
}

/// The rows of this family. The bitwise operations of floats are those of integers.
#[rustfmt::skip]
pub const ROWS: &[(N, Lower)] = &[
    (N::Pand, lower_half::<Pand>), (N::Andps, lower_half::<Pand>), (N::Andpd, lower_half::<Pand>),
    (N::Pandn, lower_half::<Pandn>), (N::Andnps, lower_half::<Pandn>), (N::Andnpd, lower_half::<Pandn>),
    (N::Por, lower_half::<Por>), (N::Orps, lower_half::<Por>), (N::Orpd, lower_half::<Por>),
    (N::Pxor, lower_half::<Pxor>), (N::Xorps, lower_half::<Pxor>), (N::Xorpd, lower_half::<Pxor>),
    (N::Paddb, lower_half::<Paddb>), (N::Paddw, lower_half::<Paddw>),
    (N::Paddd, lower_half::<Paddd>), (N::Paddq, lower_half::<Paddq>),
    (N::Psubb, lower_half::<Psubb>), (N::Psubw, lower_half::<Psubw>),
    (N::Psubd, lower_half::<Psubd>), (N::Psubq, lower_half::<Psubq>),
    (N::Paddsb, lower_half::<Paddsb>), (N::Paddsw, lower_half::<Paddsw>),
    (N::Paddusb, lower_half::<Paddusb>), (N::Paddusw, lower_half::<Paddusw>),
    (N::Psubsb, lower_half::<Psubsb>), (N::Psubsw, lower_half::<Psubsw>),
    (N::Psubusb, lower_half::<Psubusb>), (N::Psubusw, lower_half::<Psubusw>),
    (N::Pminub, lower_half::<Pminub>), (N::Pmaxub, lower_half::<Pmaxub>),
    (N::Pminsw, lower_half::<Pminsw>), (N::Pmaxsw, lower_half::<Pmaxsw>),
    (N::Pavgb, lower_half::<Pavgb>), (N::Pavgw, lower_half::<Pavgw>),
    (N::Pcmpeqb, lower_half::<Pcmpeqb>), (N::Pcmpeqw, lower_half::<Pcmpeqw>),
    (N::Pcmpeqd, lower_half::<Pcmpeqd>), (N::Pcmpgtb, lower_half::<Pcmpgtb>),
    (N::Pcmpgtw, lower_half::<Pcmpgtw>), (N::Pcmpgtd, lower_half::<Pcmpgtd>),
    (N::Pmullw, lower_half::<Pmullw>), (N::Pmulhw, lower_half::<Pmulhw>),
    (N::Pmulhuw, lower_half::<Pmulhuw>), (N::Pmuludq, lower_half::<Pmuludq>),
    (N::Pmaddwd, lower_half::<Pmaddwd>), (N::Psadbw, lower_half::<Psadbw>),
    (N::Psllw, lower_shift::<Psllw>), (N::Pslld, lower_shift::<Pslld>), (N::Psllq, lower_shift::<Psllq>),
    (N::Psrlw, lower_shift::<Psrlw>), (N::Psrld, lower_shift::<Psrld>), (N::Psrlq, lower_shift::<Psrlq>),
    (N::Psraw, lower_shift::<Psraw>), (N::Psrad, lower_shift::<Psrad>),
];
