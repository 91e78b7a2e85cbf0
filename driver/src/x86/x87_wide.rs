//! Numbers with 128 bits of significand: what the transcendental functions calculate in.
//!
//! Operations cut off, so that each is wrong by less than 2^-126 of its result.

use super::x87_value::{BIAS, Number};

/// `significand * 2^(exponent - 127)`; the significand's highest bit is set, or it is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wide {
    /// Whether it is negative.
    pub negative: bool,
    /// Exponent, without a bias.
    pub exponent: i32,
    /// Significand.
    pub significand: u128,
}

/// The upper half of a product.
pub const fn multiply_high(a: u128, b: u128) -> u128 {
    const LOW: u128 = u64::MAX as u128;
    let (a1, a0, b1, b0) = (a >> 64, a & LOW, b >> 64, b & LOW);
    let (m1, m2) = (a1 * b0, a0 * b1);
    let carry = ((a0 * b0) >> 64) + (m1 & LOW) + (m2 & LOW);
    a1 * b1 + (m1 >> 64) + (m2 >> 64) + (carry >> 64)
}

impl Wide {
    /// A positive constant with an exponent.
    pub const fn new(exponent: i32, significand: u128) -> Self {
        Wide {
            negative: false,
            exponent,
            significand,
        }
    }

    /// `significand * 2^-scale`, made normal.
    pub const fn scaled(negative: bool, significand: u128, scale: i32) -> Self {
        if significand == 0 {
            return Wide {
                negative,
                exponent: 0,
                significand,
            };
        }
        let shift = significand.leading_zeros();
        let exponent = 127 - scale - shift as i32;
        Wide {
            negative,
            exponent,
            significand: significand << shift,
        }
    }

    /// From a register's number.
    pub const fn from_number(n: Number) -> Self {
        let significand = (n.significand as u128) << 64;
        Wide {
            negative: n.negative,
            exponent: n.exponent - BIAS,
            significand,
        }
    }

    /// From an integer.
    pub const fn from_integer(value: i32) -> Self {
        Self::scaled(value < 0, value.unsigned_abs() as u128, 0)
    }

    /// With the highest bit of the significand set.
    pub const fn normalized(self) -> Self {
        Self::scaled(self.negative, self.significand, 127 - self.exponent)
    }

    /// Whether it is zero.
    pub const fn is_zero(self) -> bool {
        self.significand == 0
    }

    /// With the other sign.
    pub const fn negate(self) -> Self {
        Wide {
            negative: !self.negative,
            ..self
        }
    }

    /// With a positive sign.
    pub const fn magnitude(self) -> Self {
        Wide {
            negative: false,
            ..self
        }
    }

    /// Times a power of two.
    pub const fn shifted(self, by: i32) -> Self {
        Wide {
            exponent: self.exponent + by,
            ..self
        }
    }

    /// Product.
    pub const fn multiply(self, other: Self) -> Self {
        let product = multiply_high(self.significand, other.significand);
        let negative = self.negative != other.negative;
        let scale = 126 - self.exponent - other.exponent;
        Self::scaled(negative, product, scale)
    }

    /// Sum.
    pub const fn add(self, other: Self) -> Self {
        if self.is_zero() {
            return other;
        }
        if other.is_zero() {
            return self;
        }
        let swap = self.exponent < other.exponent
            || self.exponent == other.exponent && self.significand < other.significand;
        let (a, b) = if swap { (other, self) } else { (self, other) };
        let apart = (a.exponent - b.exponent) as u32;
        let smaller = if apart > 127 {
            0
        } else {
            b.significand >> apart
        };
        if a.negative != b.negative {
            return Self::scaled(a.negative, a.significand - smaller, 127 - a.exponent);
        }
        let (sum, carry) = a.significand.overflowing_add(smaller);
        if carry {
            let significand = sum >> 1 | 1 << 127;
            return Wide {
                negative: a.negative,
                exponent: a.exponent + 1,
                significand,
            };
        }
        Wide {
            negative: a.negative,
            exponent: a.exponent,
            significand: sum,
        }
    }

    /// Quotient; the divisor is not zero. Bit by bit: speed does not matter here.
    pub const fn divide(self, divisor: Self) -> Self {
        if self.is_zero() {
            return self;
        }
        let mut quotient = 0u128;
        let mut rest = self.significand;
        // The lowest quotient bit is worth 2^-127.
        let mut carry = false;
        let mut i = 0;
        while i < 128 {
            quotient <<= 1;
            if carry || rest >= divisor.significand {
                rest = rest.wrapping_sub(divisor.significand);
                quotient |= 1;
            }
            carry = rest >> 127 != 0;
            rest <<= 1;
            i += 1;
        }
        let negative = self.negative != divisor.negative;
        let scale = 127 - self.exponent + divisor.exponent;
        Self::scaled(negative, quotient, scale)
    }

    /// Whether the magnitude is below that of another.
    pub const fn is_below(self, other: Self) -> bool {
        self.exponent < other.exponent
            || self.exponent == other.exponent && self.significand < other.significand
    }

    /// The square as a fraction of 2^128; must be below 1.
    pub const fn square_fraction(self) -> u128 {
        let square = self.multiply(self);
        let shift = -(square.exponent + 1);
        if self.is_zero() || shift > 127 {
            0
        } else {
            square.significand >> shift
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotients_times_divisors_give_the_dividend() {
        let third = Wide::from_integer(1).divide(Wide::from_integer(3));
        assert_eq!(
            (third.exponent, third.significand),
            (-2, u128::MAX / 3 * 2 + (third.significand & 1))
        );
        let one = third.multiply(Wide::from_integer(-3));
        assert!(one.negative);
        let error = one.add(Wide::from_integer(1));
        assert!(error.exponent < -125, "{error:?}");
    }

    #[test]
    fn sums_cancel_and_carry() {
        let a = Wide::new(5, u128::MAX);
        assert_eq!(a.add(a), Wide::new(6, u128::MAX));
        assert!(a.add(a.negate()).is_zero());
        let b = Wide::new(5, u128::MAX - 1);
        assert_eq!(a.add(b.negate()), Wide::new(5 - 127, 1 << 127));
    }
}
