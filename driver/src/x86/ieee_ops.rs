//! The arithmetic of SSE on single values: every rounding mode, every flag.

use std::cmp::Ordering;

use super::ieee::mxcsr::{DAZ, DEFAULT, FTZ, IE, PE, ZE};
use super::ieee::{Double, Env, Format, Parts, Rounding, Single, drop_bits, round};

/// A format the host computes in too.
pub trait Host: Format {
    /// Sum.
    fn add(a: u64, b: u64) -> u64;
    /// Product.
    fn mul(a: u64, b: u64) -> u64;
    /// Quotient.
    fn div(a: u64, b: u64) -> u64;
    /// Square root.
    fn sqrt(a: u64) -> u64;
}

macro_rules! host {
    ($format:ty, $float:ty, $bits:ty) => {
        impl Host for $format {
            #[inline(always)]
            fn add(a: u64, b: u64) -> u64 {
                let (a, b) = (
                    <$float>::from_bits(a as $bits),
                    <$float>::from_bits(b as $bits),
                );
                (a + b).to_bits().into()
            }
            #[inline(always)]
            fn mul(a: u64, b: u64) -> u64 {
                let (a, b) = (
                    <$float>::from_bits(a as $bits),
                    <$float>::from_bits(b as $bits),
                );
                (a * b).to_bits().into()
            }
            #[inline(always)]
            fn div(a: u64, b: u64) -> u64 {
                let (a, b) = (
                    <$float>::from_bits(a as $bits),
                    <$float>::from_bits(b as $bits),
                );
                (a / b).to_bits().into()
            }
            #[inline(always)]
            fn sqrt(a: u64) -> u64 {
                <$float>::from_bits(a as $bits).sqrt().to_bits().into()
            }
        }
    };
}

host!(Single, f32, u32);
host!(Double, f64, u64);

/// The host's result, where it is certain to be right in its bits and to raise nothing but inexact:
/// a normal number, from operands that are not denormal (nor then NaN or infinite). Otherwise the
/// exact way.
#[inline(always)]
fn ordinary<F: Format>(
    a: u64,
    b: u64,
    env: &mut Env,
    host: impl FnOnce(u64, u64) -> u64,
    exact: impl FnOnce(u64, u64, &mut Env) -> u64,
) -> u64 {
    if env.inexact_is_old() && !F::is_denormal(a) && !F::is_denormal(b) {
        let r = host(a, b);
        if F::is_ordinary(r) {
            return r;
        }
    }
    exact(a, b, env)
}

/// `a + b`.
#[inline(always)]
pub fn add<F: Host>(a: u64, b: u64, env: &mut Env) -> u64 {
    ordinary::<F>(a, b, env, F::add, add_exact::<F>)
}

/// `a - b`.
#[inline(always)]
pub fn sub<F: Host>(a: u64, b: u64, env: &mut Env) -> u64 {
    // A NaN keeps its sign.
    let b = if F::is_nan(b) { b } else { b ^ F::SIGN };
    add::<F>(a, b, env)
}

/// `a * b`.
#[inline(always)]
pub fn mul<F: Host>(a: u64, b: u64, env: &mut Env) -> u64 {
    ordinary::<F>(a, b, env, F::mul, mul_exact::<F>)
}

/// `a / b`.
#[inline(always)]
pub fn div<F: Host>(a: u64, b: u64, env: &mut Env) -> u64 {
    ordinary::<F>(a, b, env, F::div, div_exact::<F>)
}

/// The square root of `a`.
#[inline(always)]
pub fn sqrt<F: Host>(a: u64, env: &mut Env) -> u64 {
    ordinary::<F>(
        a,
        a,
        env,
        |a, _| F::sqrt(a),
        |a, _, env| sqrt_exact::<F>(a, env),
    )
}

#[inline(never)]
fn add_exact<F: Format>(a: u64, b: u64, env: &mut Env) -> u64 {
    let (a, b) = (env.operand::<F>(a), env.operand::<F>(b));
    if let Some(nan) = env.nan::<F>(a, b) {
        return nan;
    }
    if F::is_infinite(a) && F::is_infinite(b) && a != b {
        return env.invalid::<F>();
    }
    env.note_denormals::<F>(a, b);
    if F::is_infinite(a) {
        return a;
    }
    if F::is_infinite(b) {
        return b;
    }
    let (a, b) = (Parts::of::<F>(a), Parts::of::<F>(b));
    let (big, small) = if (a.exp, a.sig) >= (b.exp, b.sig) {
        (a, b)
    } else {
        (b, a)
    };
    // Two bits of headroom; what the smaller one loses stays as its lowest bit, which is far enough
    // below the result's last place even after the top bits cancel.
    let distance = big.exp.abs_diff(small.exp);
    let wide = u128::from(small.sig) << 62;
    let shifted = wide.checked_shr(distance).unwrap_or(0);
    let lost = wide != shifted.checked_shl(distance).unwrap_or(0);
    let (x, y) = (u128::from(big.sig) << 62, shifted | u128::from(lost));
    let sum = if a.sign == b.sign { x + y } else { x - y };
    let sign = if sum != 0 || a.sign == b.sign {
        big.sign
    } else {
        env.rounding() == Rounding::Down
    };
    round::<F>(Parts::normalized_wide(sign, big.exp + 2, sum), env)
}

#[inline(never)]
fn mul_exact<F: Format>(a: u64, b: u64, env: &mut Env) -> u64 {
    let (a, b) = (env.operand::<F>(a), env.operand::<F>(b));
    if let Some(nan) = env.nan::<F>(a, b) {
        return nan;
    }
    if F::is_infinite(a) || F::is_infinite(b) {
        if F::is_zero(a) || F::is_zero(b) {
            return env.invalid::<F>();
        }
        env.note_denormals::<F>(a, b);
        return F::INFINITY | (a ^ b) & F::SIGN;
    }
    env.note_denormals::<F>(a, b);
    let (a, b) = (Parts::of::<F>(a), Parts::of::<F>(b));
    let product = u128::from(a.sig) * u128::from(b.sig);
    round::<F>(
        Parts::normalized_wide(a.sign != b.sign, a.exp + b.exp + 1, product),
        env,
    )
}

#[inline(never)]
fn div_exact<F: Format>(a: u64, b: u64, env: &mut Env) -> u64 {
    let (a, b) = (env.operand::<F>(a), env.operand::<F>(b));
    if let Some(nan) = env.nan::<F>(a, b) {
        return nan;
    }
    let sign = (a ^ b) & F::SIGN;
    if F::is_infinite(a) && F::is_infinite(b) || F::is_zero(a) && F::is_zero(b) {
        return env.invalid::<F>();
    }
    if F::is_zero(b) && !F::is_infinite(a) {
        env.raised |= ZE;
        return sign | F::INFINITY;
    }
    env.note_denormals::<F>(a, b);
    if F::is_infinite(a) {
        return sign | F::INFINITY;
    }
    if F::is_infinite(b) {
        return sign;
    }
    let (a, b) = (Parts::of::<F>(a), Parts::of::<F>(b));
    let dividend = u128::from(a.sig) << 63;
    let (quotient, rest) = (dividend / u128::from(b.sig), dividend % u128::from(b.sig));
    // The quotient has 63 or 64 bits; below them goes the sign of life of the rest.
    let wide = quotient << 1 | u128::from(rest != 0);
    round::<F>(
        Parts::normalized_wide(sign != 0, a.exp - b.exp + 63, wide),
        env,
    )
}

#[inline(never)]
fn sqrt_exact<F: Format>(a: u64, env: &mut Env) -> u64 {
    let a = env.operand::<F>(a);
    if let Some(nan) = env.nan::<F>(a, a) {
        return nan;
    }
    if F::is_zero(a) {
        return a;
    }
    if a & F::SIGN != 0 {
        return env.invalid::<F>();
    }
    env.note_denormals::<F>(a, a);
    if F::is_infinite(a) {
        return a;
    }
    let a = Parts::of::<F>(a);
    // sig * 2^(exp - 63) as m * 2^(even exponent), m of 127 or 128 bits: a root of 64 bits.
    let shift = 63 + (a.exp & 1);
    let m = u128::from(a.sig) << shift;
    let root = m.isqrt();
    let lost = root * root != m;
    let exp = (a.exp - 63 - shift) / 2 + 63;
    round::<F>(
        Parts {
            sign: false,
            exp,
            sig: root as u64 | u64::from(lost),
        },
        env,
    )
}

/// Compares; `None` where an operand is a NaN. Quiet NaNs are invalid only if `signalling`.
pub fn compare<F: Format>(a: u64, b: u64, signalling: bool, env: &mut Env) -> Option<Ordering> {
    let (a, b) = (env.operand::<F>(a), env.operand::<F>(b));
    if F::is_nan(a) || F::is_nan(b) {
        if signalling || F::is_signalling(a) || F::is_signalling(b) {
            env.raised |= IE;
        }
        return None;
    }
    env.note_denormals::<F>(a, b);
    let key = |x: u64| {
        let magnitude = (x & !F::SIGN) as i64;
        if x & F::SIGN != 0 {
            -magnitude
        } else {
            magnitude
        }
    };
    Some(key(a).cmp(&key(b)))
}

/// MIN and MAX: the first operand if it compares as `wanted` to the second; else, and so for zeros
/// and NaNs, the second as it is.
pub fn select<F: Format>(a: u64, b: u64, wanted: Ordering, env: &mut Env) -> u64 {
    let order = compare::<F>(a, b, true, env);
    let chosen = if order == Some(wanted) { a } else { b };
    env.operand::<F>(chosen)
}

/// From one format to another.
pub fn convert<F: Format, T: Format>(a: u64, env: &mut Env) -> u64 {
    let a = env.operand::<F>(a);
    let sign = if a & F::SIGN != 0 { T::SIGN } else { 0 };
    if F::is_nan(a) {
        if F::is_signalling(a) {
            env.raised |= IE;
        }
        let fraction = a & F::FRACTION_MASK;
        let fraction = if T::FRACTION >= F::FRACTION {
            fraction << (T::FRACTION - F::FRACTION)
        } else {
            fraction >> (F::FRACTION - T::FRACTION)
        };
        return sign | T::INFINITY | T::QUIET | fraction;
    }
    if F::is_infinite(a) {
        return sign | T::INFINITY;
    }
    env.note_denormals::<F>(a, a);
    round::<T>(Parts::of::<F>(a), env)
}

/// From a signed integer.
pub fn from_integer<T: Format>(value: i64, env: &mut Env) -> u64 {
    round::<T>(Parts::normalized(value < 0, 63, value.unsigned_abs()), env)
}

/// To a signed integer of `bits` bits; what does not fit is invalid and gives the smallest one.
/// Denormal operands are not reported.
pub fn to_integer<F: Format>(a: u64, bits: u32, rounding: Rounding, env: &mut Env) -> u64 {
    let indefinite = 1 << (bits - 1);
    let a = env.operand::<F>(a);
    if a & F::INFINITY == F::INFINITY {
        env.raised |= IE;
        return indefinite;
    }
    let v = Parts::of::<F>(a);
    let (magnitude, inexact) = if v.exp > 63 {
        (u64::MAX, false)
    } else if v.exp == 63 {
        (v.sig, false)
    } else {
        drop_bits(v.sign, v.sig, 63u32.saturating_add_signed(-v.exp), rounding)
    };
    if magnitude > indefinite - u64::from(!v.sign) {
        env.raised |= IE;
        return indefinite;
    }
    if inexact {
        env.raised |= PE;
    }
    let value = if v.sign {
        magnitude.wrapping_neg()
    } else {
        magnitude
    };
    value & u64::MAX >> (64 - bits)
}

/// The result format of RCPPS and RSQRTPS: a single with 12 bits of fraction.
#[derive(Clone, Copy, Debug)]
struct Approximate;

impl Format for Approximate {
    const WIDTH: u32 = 21;
    const FRACTION: u32 = 12;
    const SPECIAL: u64 = 0xff;
}

/// What RCPPS and RSQRTPS do with operands that are not ordinary, and how they round: the exact
/// result to nearest with 12 bits of fraction, an error of at most 2^-13 where the manual allows
/// 1.5 * 2^-12. Denormal operands are zeros, tiny results become zeros, no flag is raised.
fn approximate(a: u64, exact: impl FnOnce(u64, &mut Env) -> Parts, zero_at_infinity: u64) -> u64 {
    let mut env = Env::new(DEFAULT | DAZ | FTZ);
    let a = env.operand::<Single>(a);
    if Single::is_nan(a) {
        return a | Single::QUIET;
    }
    if Single::is_zero(a) {
        return a | Single::INFINITY;
    }
    if Single::is_infinite(a) {
        return zero_at_infinity;
    }
    let v = exact(a, &mut env);
    round::<Approximate>(v, &mut env) << (Single::WIDTH - Approximate::WIDTH)
}

/// An approximation of `1 / a`.
pub fn reciprocal(a: u64) -> u64 {
    let exact = |a: u64, _: &mut Env| {
        let a = Parts::of::<Single>(a);
        let (quotient, rest) = (
            (1u128 << 126) / u128::from(a.sig),
            (1u128 << 126) % u128::from(a.sig),
        );
        Parts::normalized_wide(a.sign, 63 - a.exp, quotient << 1 | u128::from(rest != 0))
    };
    approximate(a, exact, a & Single::SIGN)
}

/// An approximation of `1 / sqrt(a)`.
pub fn reciprocal_root(a: u64) -> u64 {
    if a & Single::SIGN != 0 && !Single::is_nan(a) && a & Single::INFINITY != 0 {
        return Single::DEFAULT_NAN;
    }
    let exact = |a: u64, _: &mut Env| {
        let a = Parts::of::<Single>(a);
        // 2^127 / m, where m has an even exponent, then the root of the quotient: 31 bits and the
        // sign of life of what was lost, for the twelve that are kept.
        let even = a.exp & !1;
        let m = u128::from(a.sig) << (a.exp & 1);
        let quotient = (1u128 << 127) / m;
        let root = quotient.isqrt();
        let lost = root * root != quotient || quotient * m != 1 << 127;
        Parts::normalized_wide(false, 94 - even / 2, root << 1 | u128::from(lost))
    };
    approximate(a, exact, 0)
}

#[cfg(test)]
#[path = "ieee_tests.rs"]
mod tests;
