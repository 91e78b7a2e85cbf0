//! Conversions between the two float formats and integers.

use iced_x86::{Instruction, Mnemonic as N};

use super::ieee::{Double, Env, Format, Rounding, Single};
use super::ieee_ops::{convert, from_integer, to_integer};
use super::mmx::{enter_mmx, mm, mmx_ready, set_mm};
use super::op::{Body, Op};
use super::shape::{Lower, M, R, bits};
use super::sse::{Class, Xmm, class, low64_source, set_xmm, sse_ready, xmm, xmm_source};
use super::sse_float::{scalar_source, set_low, settle};
use super::word::Word;
use crate::core::Core;
use crate::cpu::fault::Trap;

/// CVTSI2SS, CVTSI2SD.
fn from_gpr<T: Format, W: Word, const SRC: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    sse_ready(c)?;
    let value = if SRC == M {
        let ea = c.ea(op);
        c.read::<W>(ea)?
    } else {
        c.reg::<W>(op.src)
    };
    let mut env = Env::new(c.cpu.mxcsr);
    let r = from_integer::<T>(value.sext() as i64, &mut env);
    settle(c, env)?;
    set_low::<T>(c, op.dst, r);
    Ok(())
}

fn lower_from_gpr<T: Format>(insn: &Instruction, _: &mut Op) -> Option<Body> {
    match (class(insn, 1), bits(insn, 1)) {
        (Class::Gpr, 32) => Some(from_gpr::<T, u32, R>),
        (Class::Gpr, 64) => Some(from_gpr::<T, u64, R>),
        (Class::Mem, 32) => Some(from_gpr::<T, u32, M>),
        (Class::Mem, 64) => Some(from_gpr::<T, u64, M>),
        _ => None,
    }
}

/// The rounding of a conversion to integers: MXCSR's, or truncation.
#[inline(always)]
fn rounding<const TRUNCATE: bool>(env: &Env) -> Rounding {
    if TRUNCATE {
        Rounding::Zero
    } else {
        env.rounding()
    }
}

/// CVTSS2SI, CVTTSS2SI, CVTSD2SI, CVTTSD2SI.
fn to_gpr<F: Format, W: Word, const SRC: u8, const TRUNCATE: bool>(
    c: &mut Core,
    op: &Op,
) -> Result<(), Trap> {
    sse_ready(c)?;
    let a = scalar_source::<F, SRC>(c, op)?;
    let mut env = Env::new(c.cpu.mxcsr);
    let r = to_integer::<F>(a, W::BITS, rounding::<TRUNCATE>(&env), &mut env);
    settle(c, env)?;
    c.set_reg(op.dst, W::low(r));
    Ok(())
}

fn lower_to_gpr<F: Format, const TRUNCATE: bool>(insn: &Instruction, _: &mut Op) -> Option<Body> {
    match (bits(insn, 0), class(insn, 1)) {
        (32, Class::Xmm) => Some(to_gpr::<F, u32, R, TRUNCATE>),
        (32, Class::Mem) => Some(to_gpr::<F, u32, M, TRUNCATE>),
        (64, Class::Xmm) => Some(to_gpr::<F, u64, R, TRUNCATE>),
        (64, Class::Mem) => Some(to_gpr::<F, u64, M, TRUNCATE>),
        _ => None,
    }
}

/// CVTSS2SD, CVTSD2SS.
fn scalar<F: Format, T: Format, const SRC: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    sse_ready(c)?;
    let a = scalar_source::<F, SRC>(c, op)?;
    let mut env = Env::new(c.cpu.mxcsr);
    let r = convert::<F, T>(a, &mut env);
    settle(c, env)?;
    set_low::<T>(c, op.dst, r);
    Ok(())
}

fn lower_scalar<F: Format, T: Format>(insn: &Instruction, _: &mut Op) -> Option<Body> {
    match class(insn, 1) {
        Class::Xmm => Some(scalar::<F, T, R>),
        Class::Mem => Some(scalar::<F, T, M>),
        _ => None,
    }
}

/// The two doublewords of a half.
#[inline(always)]
fn split(half: u64) -> [u64; 2] {
    [half & 0xffff_ffff, half >> 32]
}

/// Two doublewords as a half.
#[inline(always)]
fn join(low: u64, high: u64) -> u64 {
    low | high << 32
}

/// A conversion of packed values, from whole registers to whole registers.
trait Packed {
    /// The source is 64 bits wide, and so needs no alignment.
    const NARROW: bool = false;
    fn eval(a: Xmm, env: &mut Env) -> Xmm;
}

macro_rules! packed {
    ($($name:ident $narrow:literal |$a:ident, $env:ident| $e:expr;)*) => {$(
        struct $name;
        impl Packed for $name {
            const NARROW: bool = $narrow;
            #[inline(always)]
            fn eval($a: Xmm, $env: &mut Env) -> Xmm {
                $e
            }
        }
    )*};
}

/// Four singles to doublewords.
#[inline(always)]
fn singles_to_integers(half: u64, rounding: Rounding, env: &mut Env) -> u64 {
    let [low, high] = split(half).map(|v| to_integer::<Single>(v, 32, rounding, env));
    join(low, high)
}

/// Two doubles to doublewords.
#[inline(always)]
fn doubles_to_integers(a: Xmm, rounding: Rounding, env: &mut Env) -> u64 {
    let [low, high] = a.map(|v| to_integer::<Double>(v, 32, rounding, env));
    join(low, high)
}

/// Two doublewords to singles.
#[inline(always)]
fn integers_to_singles(half: u64, env: &mut Env) -> u64 {
    let [low, high] = split(half).map(|v| from_integer::<Single>(v as i32 as i64, env));
    join(low, high)
}

/// Two doublewords to doubles; always exact.
#[inline(always)]
fn integers_to_doubles(half: u64, env: &mut Env) -> Xmm {
    split(half).map(|v| from_integer::<Double>(v as i32 as i64, env))
}

packed! {
    Cvtps2pd true |a, env| split(a[0]).map(|v| convert::<Single, Double>(v, env));
    Cvtpd2ps false |a, env| {
        let [low, high] = a.map(|v| convert::<Double, Single>(v, env));
        [join(low, high), 0]
    };
    Cvtdq2ps false |a, env| a.map(|half| integers_to_singles(half, env));
    Cvtps2dq false |a, env| {
        let mode = env.rounding();
        a.map(|half| singles_to_integers(half, mode, env))
    };
    Cvttps2dq false |a, env| a.map(|half| singles_to_integers(half, Rounding::Zero, env));
    Cvtdq2pd true |a, env| integers_to_doubles(a[0], env);
    Cvtpd2dq false |a, env| [doubles_to_integers(a, env.rounding(), env), 0];
    Cvttpd2dq false |a, env| [doubles_to_integers(a, Rounding::Zero, env), 0];
}

fn packed<K: Packed, const SRC: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    sse_ready(c)?;
    let a = if K::NARROW {
        [low64_source::<SRC>(c, op)?, 0]
    } else {
        xmm_source::<SRC>(c, op)?
    };
    let mut env = Env::new(c.cpu.mxcsr);
    let r = K::eval(a, &mut env);
    settle(c, env)?;
    set_xmm(c, op.dst, r);
    Ok(())
}

fn lower_packed<K: Packed>(insn: &Instruction, _: &mut Op) -> Option<Body> {
    match class(insn, 1) {
        Class::Xmm => Some(packed::<K, R>),
        Class::Mem => Some(packed::<K, M>),
        _ => None,
    }
}

/// CVTPI2PS and CVTPI2PD; only the register forms touch the x87 unit.
fn from_mm<const DOUBLE: bool, const SRC: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    sse_ready(c)?;
    let value = if SRC == M {
        let ea = c.ea(op);
        c.read(ea)?
    } else {
        mmx_ready(c)?;
        mm(c, op.src)
    };
    let mut env = Env::new(c.cpu.mxcsr);
    let r = if DOUBLE {
        integers_to_doubles(value, &mut env)
    } else {
        [integers_to_singles(value, &mut env), xmm(c, op.dst)[1]]
    };
    settle(c, env)?;
    if SRC != M {
        enter_mmx(c);
    }
    set_xmm(c, op.dst, r);
    Ok(())
}

fn lower_from_mm<const DOUBLE: bool>(insn: &Instruction, _: &mut Op) -> Option<Body> {
    match class(insn, 1) {
        Class::Mm => Some(from_mm::<DOUBLE, R>),
        Class::Mem => Some(from_mm::<DOUBLE, M>),
        _ => None,
    }
}

/// CVTPS2PI, CVTTPS2PI, CVTPD2PI, CVTTPD2PI.
fn to_mm<const DOUBLE: bool, const TRUNCATE: bool, const SRC: u8>(
    c: &mut Core,
    op: &Op,
) -> Result<(), Trap> {
    sse_ready(c)?;
    mmx_ready(c)?;
    let a = if DOUBLE {
        xmm_source::<SRC>(c, op)?
    } else {
        [low64_source::<SRC>(c, op)?, 0]
    };
    let mut env = Env::new(c.cpu.mxcsr);
    let mode = rounding::<TRUNCATE>(&env);
    let r = if DOUBLE {
        doubles_to_integers(a, mode, &mut env)
    } else {
        singles_to_integers(a[0], mode, &mut env)
    };
    settle(c, env)?;
    enter_mmx(c);
    set_mm(c, op.dst, r);
    Ok(())
}

fn lower_to_mm<const DOUBLE: bool, const TRUNCATE: bool>(
    insn: &Instruction,
    _: &mut Op,
) -> Option<Body> {
    match class(insn, 1) {
        Class::Xmm => Some(to_mm::<DOUBLE, TRUNCATE, R>),
        Class::Mem => Some(to_mm::<DOUBLE, TRUNCATE, M>),
        _ => None,
    }
}

/// The rows of this family.
#[rustfmt::skip]
pub const ROWS: &[(N, Lower)] = &[
    (N::Cvtsi2ss, lower_from_gpr::<Single>), (N::Cvtsi2sd, lower_from_gpr::<Double>),
    (N::Cvtss2si, lower_to_gpr::<Single, false>), (N::Cvttss2si, lower_to_gpr::<Single, true>),
    (N::Cvtsd2si, lower_to_gpr::<Double, false>), (N::Cvttsd2si, lower_to_gpr::<Double, true>),
    (N::Cvtss2sd, lower_scalar::<Single, Double>), (N::Cvtsd2ss, lower_scalar::<Double, Single>),
    (N::Cvtps2pd, lower_packed::<Cvtps2pd>), (N::Cvtpd2ps, lower_packed::<Cvtpd2ps>),
    (N::Cvtdq2ps, lower_packed::<Cvtdq2ps>), (N::Cvtps2dq, lower_packed::<Cvtps2dq>),
    (N::Cvttps2dq, lower_packed::<Cvttps2dq>), (N::Cvtdq2pd, lower_packed::<Cvtdq2pd>),
    (N::Cvtpd2dq, lower_packed::<Cvtpd2dq>), (N::Cvttpd2dq, lower_packed::<Cvttpd2dq>),
    (N::Cvtpi2ps, lower_from_mm::<false>), (N::Cvtpi2pd, lower_from_mm::<true>),
    (N::Cvtps2pi, lower_to_mm::<false, false>), (N::Cvttps2pi, lower_to_mm::<false, true>),
    (N::Cvtpd2pi, lower_to_mm::<true, false>), (N::Cvttpd2pi, lower_to_mm::<true, true>),
];
