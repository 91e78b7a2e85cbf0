//! Float arithmetic, scalar and packed: sums, products, quotients, roots, minima, comparisons.

use std::cmp::Ordering;

use iced_x86::{Instruction, Mnemonic as N};

use super::ieee::mxcsr::{BEFORE, FLAGS, MASK_SHIFT};
use super::ieee::{Double, Env, Format, Single};
use super::ieee_ops::{self as ops, Host};
use super::op::{Body, Op};
use super::shape::{Lower, M, R};
use super::sse::{
    Class, Xmm, class, low32_source, low64_source, set_xmm, sse_ready, xmm, xmm_source,
};
use super::string;
use crate::core::Core;
use crate::cpu::fault::{Fault, Trap, vector};
use crate::cpu::flags::{CF, LazyFlags, PF, ZF};
use crate::cpu::state::CR4_OSXMMEXCPT;

/// Takes over the flags an instruction raised, or raises #XM (#UD while CR4.OSXMMEXCPT is clear).
/// To be called before the destination is written.
///
/// Where an exception found before computing is unmasked, those found after it are not reported
/// (SDM vol. 1, 11.5.3.2).
#[inline(always)]
pub fn settle(c: &mut Core, env: Env) -> Result<(), Trap> {
    if env.raised & !(c.cpu.mxcsr >> MASK_SHIFT) & FLAGS == 0 {
        c.cpu.mxcsr |= env.raised;
        Ok(())
    } else {
        Err(unmasked(c, env.raised))
    }
}

#[cold]
#[inline(never)]
fn unmasked(c: &mut Core, raised: u32) -> Trap {
    let early = raised & !(c.cpu.mxcsr >> MASK_SHIFT) & BEFORE != 0;
    c.cpu.mxcsr |= if early { raised & BEFORE } else { raised };
    let enabled = c.cpu.cr4 & CR4_OSXMMEXCPT != 0;
    c.raise(Fault::plain(if enabled { vector::XM } else { vector::UD }))
}

/// The low value of the source operand: a register, or memory of any alignment.
#[inline(always)]
pub fn scalar_source<F: Format, const SRC: u8>(c: &mut Core, op: &Op) -> Result<u64, Trap> {
    if F::WIDTH == 32 {
        Ok(u64::from(low32_source::<SRC>(c, op)?))
    } else {
        low64_source::<SRC>(c, op)
    }
}

/// The low value of a register.
#[inline(always)]
pub fn low<F: Format>(v: Xmm) -> u64 {
    v[0] & F::ONES
}

/// Replaces the low value of a register, leaving the rest.
#[inline(always)]
pub fn set_low<F: Format>(c: &mut Core, n: u8, value: u64) {
    let [low, high] = xmm(c, n);
    set_xmm(c, n, [low & !F::ONES | value, high]);
}

/// Applies a function to each pair of values in two halves.
#[inline(always)]
pub fn pairs<F: Format>(a: u64, b: u64, f: &mut impl FnMut(u64, u64) -> u64) -> u64 {
    if F::WIDTH == 64 {
        f(a, b)
    } else {
        f(a & F::ONES, b & F::ONES) | f(a >> 32, b >> 32) << 32
    }
}

/// An operation on two values; roots look at the second alone. `imm` is a comparison's predicate.
trait Arith {
    fn eval<F: Host>(a: u64, b: u64, imm: u64, env: &mut Env) -> u64;
}

macro_rules! arith {
    ($($name:ident |$a:pat_param, $b:pat_param, $imm:pat_param, $env:ident, $F:ident| $e:expr;)*) => {$(
        struct $name;
        impl Arith for $name {
            #[inline(always)]
            fn eval<$F: Host>($a: u64, $b: u64, $imm: u64, $env: &mut Env) -> u64 {
                $e
            }
        }
    )*};
}

arith! {
    Add |a, b, _, env, F| ops::add::<F>(a, b, env);
    Sub |a, b, _, env, F| ops::sub::<F>(a, b, env);
    Mul |a, b, _, env, F| ops::mul::<F>(a, b, env);
    Div |a, b, _, env, F| ops::div::<F>(a, b, env);
    Sqrt |_, b, _, env, F| ops::sqrt::<F>(b, env);
    Min |a, b, _, env, F| ops::select::<F>(a, b, Ordering::Less, env);
    Max |a, b, _, env, F| ops::select::<F>(a, b, Ordering::Greater, env);
    Cmp |a, b, imm, env, F| if predicate::<F>(a, b, imm, env) { F::ONES } else { 0 };
}

/// The eight predicates of CMPPS and its kin; the four of order signal quiet NaNs.
fn predicate<F: Format>(a: u64, b: u64, imm: u64, env: &mut Env) -> bool {
    let order = ops::compare::<F>(a, b, matches!(imm & 3, 1 | 2), env);
    let holds = match imm & 3 {
        0 => order == Some(Ordering::Equal),
        1 => order == Some(Ordering::Less),
        2 => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        _ => order.is_none(),
    };
    holds != (imm & 4 != 0)
}

fn scalar<K: Arith, F: Host, const SRC: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    sse_ready(c)?;
    let b = scalar_source::<F, SRC>(c, op)?;
    let mut env = Env::new(c.cpu.mxcsr);
    let r = K::eval::<F>(low::<F>(xmm(c, op.dst)), b, op.imm, &mut env);
    settle(c, env)?;
    set_low::<F>(c, op.dst, r);
    Ok(())
}

fn packed<K: Arith, F: Host, const SRC: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    sse_ready(c)?;
    let b = xmm_source::<SRC>(c, op)?;
    let a = xmm(c, op.dst);
    let mut env = Env::new(c.cpu.mxcsr);
    let mut f = |a, b| K::eval::<F>(a, b, op.imm, &mut env);
    let r = [
        pairs::<F>(a[0], b[0], &mut f),
        pairs::<F>(a[1], b[1], &mut f),
    ];
    settle(c, env)?;
    set_xmm(c, op.dst, r);
    Ok(())
}

fn lower_scalar<K: Arith, F: Host>(insn: &Instruction, _: &mut Op) -> Option<Body> {
    match class(insn, 1) {
        Class::Xmm => Some(scalar::<K, F, R>),
        Class::Mem => Some(scalar::<K, F, M>),
        _ => None,
    }
}

fn lower_packed<K: Arith, F: Host>(insn: &Instruction, _: &mut Op) -> Option<Body> {
    match class(insn, 1) {
        Class::Xmm => Some(packed::<K, F, R>),
        Class::Mem => Some(packed::<K, F, M>),
        _ => None,
    }
}

/// CMPSD of XMM registers.
pub fn lower_cmpsd_xmm(insn: &Instruction, op: &mut Op) -> Option<Body> {
    lower_scalar::<Cmp, Double>(insn, op)
}

/// The mnemonic CMPSD: the string instruction, or the SSE2 one.
pub fn lower_cmpsd(insn: &Instruction, op: &mut Op) -> Option<Body> {
    if insn.is_string_instruction() {
        string::lower_cmps(insn, op)
    } else {
        lower_cmpsd_xmm(insn, op)
    }
}

/// COMIS and UCOMIS: the order as ZF, PF and CF; all three where there is none.
fn comi<F: Format, const SRC: u8, const SIGNALLING: bool>(
    c: &mut Core,
    op: &Op,
) -> Result<(), Trap> {
    sse_ready(c)?;
    let b = scalar_source::<F, SRC>(c, op)?;
    let mut env = Env::new(c.cpu.mxcsr);
    let order = ops::compare::<F>(low::<F>(xmm(c, op.dst)), b, SIGNALLING, &mut env);
    settle(c, env)?;
    c.cpu.lazy = LazyFlags::from_bits(match order {
        Some(Ordering::Less) => CF,
        Some(Ordering::Equal) => ZF,
        Some(Ordering::Greater) => 0,
        None => ZF | PF | CF,
    });
    Ok(())
}

fn lower_comi<F: Format, const SIGNALLING: bool>(insn: &Instruction, _: &mut Op) -> Option<Body> {
    match class(insn, 1) {
        Class::Xmm => Some(comi::<F, R, SIGNALLING>),
        Class::Mem => Some(comi::<F, M, SIGNALLING>),
        _ => None,
    }
}

/// RCP and RSQRT touch no flag.
trait Approximation {
    fn eval(b: u64) -> u64;
}

struct Reciprocal;
impl Approximation for Reciprocal {
    fn eval(b: u64) -> u64 {
        ops::reciprocal(b)
    }
}

struct ReciprocalRoot;
impl Approximation for ReciprocalRoot {
    fn eval(b: u64) -> u64 {
        ops::reciprocal_root(b)
    }
}

fn approximate<K: Approximation, const SRC: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    sse_ready(c)?;
    let b = scalar_source::<Single, SRC>(c, op)?;
    set_low::<Single>(c, op.dst, K::eval(b));
    Ok(())
}

fn approximate_packed<K: Approximation, const SRC: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    sse_ready(c)?;
    let b = xmm_source::<SRC>(c, op)?;
    let mut f = |_, b| K::eval(b);
    set_xmm(c, op.dst, b.map(|half| pairs::<Single>(half, half, &mut f)));
    Ok(())
}

fn lower_approximate<K: Approximation, const PACKED: bool>(
    insn: &Instruction,
    _: &mut Op,
) -> Option<Body> {
    match (class(insn, 1), PACKED) {
        (Class::Xmm, false) => Some(approximate::<K, R>),
        (Class::Mem, false) => Some(approximate::<K, M>),
        (Class::Xmm, true) => Some(approximate_packed::<K, R>),
        (Class::Mem, true) => Some(approximate_packed::<K, M>),
        _ => None,
    }
}

/// The rows of this family.
#[rustfmt::skip]
pub const ROWS: &[(N, Lower)] = &[
    (N::Addss, lower_scalar::<Add, Single>), (N::Addsd, lower_scalar::<Add, Double>),
    (N::Addps, lower_packed::<Add, Single>), (N::Addpd, lower_packed::<Add, Double>),
    (N::Subss, lower_scalar::<Sub, Single>), (N::Subsd, lower_scalar::<Sub, Double>),
    (N::Subps, lower_packed::<Sub, Single>), (N::Subpd, lower_packed::<Sub, Double>),
    (N::Mulss, lower_scalar::<Mul, Single>), (N::Mulsd, lower_scalar::<Mul, Double>),
    (N::Mulps, lower_packed::<Mul, Single>), (N::Mulpd, lower_packed::<Mul, Double>),
    (N::Divss, lower_scalar::<Div, Single>), (N::Divsd, lower_scalar::<Div, Double>),
    (N::Divps, lower_packed::<Div, Single>), (N::Divpd, lower_packed::<Div, Double>),
    (N::Sqrtss, lower_scalar::<Sqrt, Single>), (N::Sqrtsd, lower_scalar::<Sqrt, Double>),
    (N::Sqrtps, lower_packed::<Sqrt, Single>), (N::Sqrtpd, lower_packed::<Sqrt, Double>),
    (N::Minss, lower_scalar::<Min, Single>), (N::Minsd, lower_scalar::<Min, Double>),
    (N::Minps, lower_packed::<Min, Single>), (N::Minpd, lower_packed::<Min, Double>),
    (N::Maxss, lower_scalar::<Max, Single>), (N::Maxsd, lower_scalar::<Max, Double>),
    (N::Maxps, lower_packed::<Max, Single>), (N::Maxpd, lower_packed::<Max, Double>),
    (N::Cmpss, lower_scalar::<Cmp, Single>), (N::Cmpsd, lower_cmpsd),
    (N::Cmpps, lower_packed::<Cmp, Single>), (N::Cmppd, lower_packed::<Cmp, Double>),
    (N::Comiss, lower_comi::<Single, true>), (N::Comisd, lower_comi::<Double, true>),
    (N::Ucomiss, lower_comi::<Single, false>), (N::Ucomisd, lower_comi::<Double, false>),
    (N::Rcpss, lower_approximate::<Reciprocal, false>),
    (N::Rcpps, lower_approximate::<Reciprocal, true>),
    (N::Rsqrtss, lower_approximate::<ReciprocalRoot, false>),
    (N::Rsqrtps, lower_approximate::<ReciprocalRoot, true>),
];
