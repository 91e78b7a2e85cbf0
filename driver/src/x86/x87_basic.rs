//! The basic arithmetic of 80-bit values: add, subtract, multiply, divide, square root, compare.
//!
//! Integers only, so that every host computes the same bits.

use std::cmp::Ordering;

use super::x87_round::{Calculation, Mode, shift_right_sticky};
use super::x87_unit::{DE, IE, ZE};
use super::x87_value::{BIAS, Extended, Kind, Number};

impl Calculation {
    /// The answer if an operand is a NaN or not supported (SDM vol. 1, table 4-7): of two NaNs the
    /// quiet one, else that with the larger significand, else the positive one.
    pub fn nan_operand(&mut self, a: Extended, b: Extended) -> Option<Extended> {
        let (ka, kb) = (a.kind(), b.kind());
        if ka == Kind::Unsupported || kb == Kind::Unsupported {
            return Some(self.invalid());
        }
        if ka == Kind::Signaling || kb == Kind::Signaling {
            self.raised |= IE;
        }
        let a_wins = match (a.is_nan(), b.is_nan()) {
            (false, false) => return None,
            (true, false) => true,
            (false, true) => false,
            (true, true) if ka != kb => ka == Kind::Quiet,
            (true, true) => match a.significand.cmp(&b.significand) {
                Ordering::Greater => true,
                Ordering::Less => false,
                Ordering::Equal => !a.negative(),
            },
        };
        Some(if a_wins { a } else { b }.quieted())
    }

    /// The answer if the only operand is a NaN or not supported.
    pub fn nan_alone(&mut self, a: Extended) -> Option<Extended> {
        self.nan_operand(a, Extended::zero(false))
    }

    /// Raises the denormal-operand exception if an operand is one.
    pub fn note_denormals(&mut self, a: Extended, b: Extended) {
        if a.is_denormal() || b.is_denormal() || self.denormal_operand {
            self.raised |= DE;
        }
    }

    /// `a + b`.
    pub fn add(&mut self, a: Extended, b: Extended) -> Extended {
        if let Some(nan) = self.nan_operand(a, b) {
            return nan;
        }
        if a.kind() == Kind::Infinity && b.kind() == Kind::Infinity {
            return if a.negative() == b.negative() {
                a
            } else {
                self.invalid()
            };
        }
        self.note_denormals(a, b);
        match (a.kind(), b.kind()) {
            (Kind::Infinity, _) => a,
            (_, Kind::Infinity) => b,
            (Kind::Zero, Kind::Zero) if a.negative() == b.negative() => a,
            (Kind::Zero, Kind::Zero) => Extended::zero(self.mode == Mode::Down),
            // Not the operand itself: the precision may be reduced.
            (Kind::Zero, _) => self.round_number(b.number()),
            (_, Kind::Zero) => self.round_number(a.number()),
            _ => self.add_numbers(a.number(), b.number()),
        }
    }

    /// `a - b`.
    pub fn subtract(&mut self, a: Extended, b: Extended) -> Extended {
        if let Some(nan) = self.nan_operand(a, b) {
            return nan;
        }
        self.add(a, b.negate_if(true))
    }

    fn round_number(&mut self, n: Number) -> Extended {
        self.round(n.negative, n.exponent, u128::from(n.significand) << 64)
    }

    fn add_numbers(&mut self, a: Number, b: Number) -> Extended {
        let swap = (a.exponent, a.significand) < (b.exponent, b.significand);
        let (a, b) = if swap { (b, a) } else { (a, b) };
        // Bit 127 is left free for the carry. 63 bits below the significand are enough: only when
        // the exponents differ by less than two can more than one leading bit cancel.
        let wide_a = u128::from(a.significand) << 63;
        let wide_b = shift_right_sticky(
            u128::from(b.significand) << 63,
            (a.exponent - b.exponent) as u32,
        );
        let sum = if a.negative == b.negative {
            wide_a + wide_b
        } else {
            wide_a - wide_b
        };
        if sum == 0 {
            return Extended::zero(self.mode == Mode::Down);
        }
        let shift = sum.leading_zeros();
        self.round(a.negative, a.exponent + 1 - shift as i32, sum << shift)
    }

    /// `a * b`.
    pub fn multiply(&mut self, a: Extended, b: Extended) -> Extended {
        if let Some(nan) = self.nan_operand(a, b) {
            return nan;
        }
        let negative = a.negative() != b.negative();
        match (a.kind(), b.kind()) {
            (Kind::Infinity, Kind::Zero) | (Kind::Zero, Kind::Infinity) => return self.invalid(),
            _ => self.note_denormals(a, b),
        }
        match (a.kind(), b.kind()) {
            (Kind::Infinity, _) | (_, Kind::Infinity) => Extended::infinity(negative),
            (Kind::Zero, _) | (_, Kind::Zero) => Extended::zero(negative),
            _ => {
                let (a, b) = (a.number(), b.number());
                let product = u128::from(a.significand) * u128::from(b.significand);
                let shift = product.leading_zeros();
                let exponent = a.exponent + b.exponent - BIAS + 1 - shift as i32;
                self.round(negative, exponent, product << shift)
            }
        }
    }

    /// `a / b`.
    pub fn divide(&mut self, a: Extended, b: Extended) -> Extended {
        if let Some(nan) = self.nan_operand(a, b) {
            return nan;
        }
        let negative = a.negative() != b.negative();
        match (a.kind(), b.kind()) {
            (Kind::Infinity, Kind::Infinity) | (Kind::Zero, Kind::Zero) => return self.invalid(),
            // Comes before the denormal-operand exception.
            (Kind::Finite, Kind::Zero) => self.raised |= ZE,
            _ => self.note_denormals(a, b),
        }
        match (a.kind(), b.kind()) {
            (Kind::Infinity, _) | (_, Kind::Zero) => Extended::infinity(negative),
            (Kind::Zero, _) | (_, Kind::Infinity) => Extended::zero(negative),
            _ => {
                let (a, b) = (a.number(), b.number());
                let (quotient, exponent) = quotient(a, b);
                self.round(negative, exponent, quotient)
            }
        }
    }

    /// The square root of `a`.
    pub fn square_root(&mut self, a: Extended) -> Extended {
        if let Some(nan) = self.nan_alone(a) {
            return nan;
        }
        match a.kind() {
            Kind::Zero => return a,
            _ if a.negative() => return self.invalid(),
            Kind::Infinity => return a,
            _ => self.note_denormals(a, a),
        }
        let n = a.number();
        // An even power of two below a 127- or 128-bit radicand makes a 64-bit root.
        let power = n.exponent - BIAS;
        let odd = power & 1;
        let radicand = u128::from(n.significand) << (63 + odd);
        let root = radicand.isqrt();
        let rest = radicand - root * root;
        // The half after the last bit: root + 1/2 is never exact.
        let low = u128::from(rest > root) << 63 | u128::from(rest != 0);
        self.round(false, (power - odd) / 2 + BIAS, root << 64 | low)
    }

    /// Orders two values; `None` if they are unordered. Quiet NaNs are invalid operands only if
    /// `signal`.
    pub fn compare(&mut self, a: Extended, b: Extended, signal: bool) -> Option<Ordering> {
        if self.nan_operand(a, b).is_some() {
            if signal {
                self.raised |= IE;
            }
            return None;
        }
        self.note_denormals(a, b);
        // As integers, magnitudes order like their values; normalized, so do pseudo-denormals.
        let key = |v: Extended| {
            let magnitude = match v.kind() {
                Kind::Finite if v.significand >> 63 != 0 && v.exponent() == 0 => {
                    1 << 64 | i128::from(v.significand)
                }
                _ => i128::from(v.exponent()) << 64 | i128::from(v.significand),
            };
            if v.negative() { -magnitude } else { magnitude }
        };
        Some(key(a).cmp(&key(b)))
    }
}

/// The quotient of two numbers as a significand with integer bit 127 whose lowest bit is sticky,
/// and its biased exponent.
fn quotient(a: Number, b: Number) -> (u128, i32) {
    let divisor = u128::from(b.significand);
    let dividend = u128::from(a.significand) << 63;
    let (high, rest) = (dividend / divisor, dividend % divisor);
    let (low, rest) = ((rest << 64) / divisor, (rest << 64) % divisor);
    let quotient = high << 64 | low | u128::from(rest != 0);
    let shift = quotient.leading_zeros();
    // `high` has its integer bit at 63.
    (
        quotient << shift,
        a.exponent - b.exponent + BIAS - shift as i32,
    )
}
