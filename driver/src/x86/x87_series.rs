//! The transcendental functions as power series, in integers of 128 bits.
//!
//! Results are good to more than 110 bits, so that rounding them to 64 is right but for about one
//! argument in 2^46. Processors promise less than one unit in the last place (SDM vol. 1, 8.3.10):
//! they may differ from these results, and from one another, in the last bit.

use super::x87_value::Number;
use super::x87_wide::{Wide, multiply_high};

/// log2(e)
const LOG2_E: Wide = Wide::new(0, 0xb8aa_3b29_5c17_f0bb_be87_fed0_691d_3e88);
/// ln(2)
const LN_2: Wide = Wide::new(-1, 0xb172_17f7_d1cf_79ab_c9e3_b398_03f2_f6af);
/// Pi
pub const PI: Wide = Wide::new(1, 0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1);
/// The significand of the square root of 1/2, cut off.
const SQRT_HALF: u64 = 0xb504_f333_f9de_6484;
/// The arc tangents of 1/4, 1/2, 3/4 and 1.
const ARC_TANGENTS: [Wide; 4] = [
    Wide::new(-3, 0xfadb_afc9_6406_eb15_6dc7_9ef5_f7a2_17e5),
    Wide::new(-2, 0xed63_382b_0dda_7b45_6fe4_45ec_bc3a_8d03),
    Wide::new(-1, 0xa4bc_7d19_34f7_0924_19a8_7f2a_457d_ac9e),
    Wide::new(-1, 0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1),
];
/// Pi in the unit's own 66 bits, times 2^64: arguments are reduced with this value (SDM vol. 1,
/// 8.3.8).
const PI_66: u128 = 0x3_243f_6a88_85a3_08d3;

/// One, in sums below two.
const ONE_127: u128 = 1 << 127;
/// One, in sums below four.
const ONE_126: u128 = 1 << 126;

/// Sine and cosine of the same angle.
#[derive(Clone, Copy, Debug)]
pub struct SineCosine {
    /// Sine.
    pub sine: Wide,
    /// Cosine.
    pub cosine: Wide,
}

/// An angle below 2^63 as a number of right angles (modulo 4) and a rest of at most half a right
/// angle. Exact, for the unit's own pi.
fn reduce(angle: Number) -> (u32, Wide) {
    let wide = Wide::from_number(angle).magnitude();
    let eighth = Wide::scaled(false, PI_66, 66);
    if wide.is_below(eighth) {
        return (0, wide);
    }
    // In units of 2^-65 a right angle is PI_66, and the angle an integer.
    let mut rest = wide.significand >> 64;
    let mut shift = wide.exponent + 2;
    while shift > 0 {
        let step = shift.min(60);
        rest = (rest << step) % (4 * PI_66);
        shift -= step;
    }
    let (mut right_angles, rest) = ((rest / PI_66) as u32, rest % PI_66);
    let over = 2 * rest > PI_66;
    if over {
        right_angles += 1;
    }
    let rest = if over { PI_66 - rest } else { rest };
    (right_angles & 3, Wide::scaled(over, rest, 65))
}

/// `1 - z/(a·b)·(1 - z/(c·d)·(…))`, the factors counting down to `first` and `first + 1`.
fn alternating_factorials(z: u128, first: u128) -> u128 {
    (0..18).rev().fold(ONE_127, |sum, k| {
        let n = first + 2 * k;
        ONE_127 - multiply_high(z, sum) / (n * (n + 1))
    })
}

/// Sine and cosine of a number below 2^63.
pub fn sine_cosine(angle: Number) -> SineCosine {
    let (right_angles, rest) = reduce(angle);
    let z = rest.square_fraction();
    // A factor of exactly one means that the rest of the series was too small to see; results then
    // are a little below.
    let sine = below(rest.multiply(Wide::scaled(false, alternating_factorials(z, 2), 127)));
    let cosine = below(Wide::scaled(false, alternating_factorials(z, 1), 127));
    let (sine, cosine) = match right_angles {
        0 => (sine, cosine),
        1 => (cosine, sine.negate()),
        2 => (sine.negate(), cosine.negate()),
        _ => (cosine.negate(), sine),
    };
    SineCosine {
        sine: if angle.negative { sine.negate() } else { sine },
        cosine,
    }
}

/// Tangent of a number below 2^63.
pub fn tangent(angle: Number) -> Wide {
    let both = sine_cosine(angle);
    let tangent = both.sine.divide(both.cosine);
    // The tangent of what is too small for a second term to show is a little above.
    let argument = Wide::from_number(angle);
    if argument.exponent < -40 {
        above(argument)
    } else {
        tangent
    }
}

/// `2^x - 1` for a number from -1 to 1.
pub fn power_minus_one(x: Number) -> Wide {
    let y = Wide::from_number(x).multiply(LN_2);
    // A fraction of 2^128, at least by magnitude.
    let shift = -(y.exponent + 1);
    let fraction = if shift > 127 {
        0
    } else {
        y.significand >> shift
    };
    let sum = (2..36).rev().fold(ONE_126, |sum, k| {
        let term = multiply_high(fraction, sum) / k;
        if y.negative {
            ONE_126 - term
        } else {
            ONE_126 + term
        }
    });
    y.multiply(Wide::scaled(false, sum, 126))
}

/// Twice the hyperbolic arc tangent of `s`, over ln(2).
fn log2_of_ratio(s: Wide) -> Wide {
    let z = s.square_fraction();
    let sum = (0..27)
        .rev()
        .fold(0, |sum, k| multiply_high(z, sum) + ONE_126 / (2 * k + 1));
    s.multiply(Wide::scaled(false, sum, 126))
        .multiply(LOG2_E)
        .shifted(1)
}

/// The base-2 logarithm of a positive number.
pub fn log2(x: Number) -> Wide {
    let wide = Wide::from_number(x).magnitude();
    // x = m * 2^power, with m between the roots of 1/2 and 2.
    let high = x.significand > SQRT_HALF;
    let m = Wide {
        exponent: if high { -1 } else { 0 },
        ..wide
    };
    let power = wide.exponent + i32::from(high);
    let one = Wide::from_integer(1);
    let s = m.add(one.negate()).divide(m.add(one));
    if s.is_zero() {
        return Wide::from_integer(power);
    }
    Wide::from_integer(power).add(log2_of_ratio(s))
}

/// The base-2 logarithm of `1 + x`, for a number above -1.
pub fn log2_of_one_plus(x: Number) -> Wide {
    let wide = Wide::from_number(x);
    if wide.exponent >= -1 {
        // Not small, so that adding one costs no more than a few bits.
        let sum = wide.add(Wide::from_integer(1));
        let exact = sum.significand as u64;
        let number = Number {
            negative: false,
            exponent: sum.exponent + super::x87_value::BIAS,
            significand: (sum.significand >> 64) as u64,
        };
        let correction = Wide::scaled(false, u128::from(exact), 127 - sum.exponent);
        let base = Wide::from_number(number);
        // log(a + c) = log(a) + log(1 + c/a).
        let s = correction.divide(base.shifted(1).add(correction));
        return log2(number).add(log2_of_ratio(s));
    }
    let s = wide.divide(wide.add(Wide::from_integer(2)));
    log2_of_ratio(s)
}

/// The arc tangent of `n / d`, both positive, `n` not above `d`.
pub fn arc_tangent(n: Wide, d: Wide) -> Wide {
    // The nearest quarter: n/d - k/4 = (4n - kd) / 4d, exact where it matters.
    let quarters = (1..=4)
        .rev()
        .find(|&k| {
            !n.shifted(3)
                .is_below(d.multiply(Wide::from_integer(2 * k - 1)))
        })
        .unwrap_or(0);
    if quarters == 0 {
        return small_arc_tangent(n.divide(d));
    }
    let k = Wide::from_integer(quarters);
    let t = n
        .shifted(2)
        .add(d.multiply(k).negate())
        .divide(d.shifted(2).add(n.multiply(k)));
    ARC_TANGENTS[quarters as usize - 1].add(small_arc_tangent(t))
}

/// The arc tangent of what is at most about 1/8.
fn small_arc_tangent(t: Wide) -> Wide {
    let z = t.square_fraction();
    let sum = (0..24)
        .rev()
        .fold(0, |sum, k| ONE_126 / (2 * k + 1) - multiply_high(z, sum));
    below(t.multiply(Wide::scaled(false, sum, 126)))
}

/// A little nearer to zero, if the value looks as if it had no more bits than a register: no result
/// of these functions has.
fn below(value: Wide) -> Wide {
    if value.is_zero() || value.significand as u64 != 0 {
        return value;
    }
    Wide {
        significand: value.significand - 1,
        ..value
    }
    .normalized()
}

/// The same, away from zero.
fn above(value: Wide) -> Wide {
    Wide {
        significand: value.significand | 1,
        ..value
    }
}
