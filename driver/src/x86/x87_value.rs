//! 80-bit values: what kinds there are, and how to take them apart.

/// The exponent of infinities and NaNs.
pub const EXP_MAX: u16 = 0x7fff;
/// The bias of exponents.
pub const BIAS: i32 = 0x3fff;
/// The integer bit, which this format writes out.
pub const INTEGER_BIT: u64 = 1 << 63;
/// The bit that makes a NaN quiet.
pub const QUIET_BIT: u64 = 1 << 62;

/// A double extended value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extended {
    /// The significand, integer bit included.
    pub significand: u64,
    /// The sign (bit 15) and the biased exponent.
    pub high: u16,
}

/// The kinds of values the unit tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Zero.
    Zero,
    /// A finite number that is not zero.
    Finite,
    /// Infinity.
    Infinity,
    /// Quiet NaN.
    Quiet,
    /// Signaling NaN.
    Signaling,
    /// The encodings of the 8087 that are invalid operands since the 80387: pseudo-NaNs,
    /// pseudo-infinities, unnormals.
    Unsupported,
}

/// A finite number other than zero: `significand * 2^(exponent - BIAS - 63)`, with the integer bit
/// set whatever the exponent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    /// Whether it is negative.
    pub negative: bool,
    /// Biased exponent; below 1 for what is stored as a denormal.
    pub exponent: i32,
    /// Normalized significand.
    pub significand: u64,
}

impl Extended {
    /// The answer to invalid operations: "real indefinite".
    pub const INDEFINITE: Self = Self::new(true, EXP_MAX, INTEGER_BIT | QUIET_BIT);
    /// One.
    pub const ONE: Self = Self::new(false, BIAS as u16, INTEGER_BIT);

    /// From its fields.
    pub const fn new(negative: bool, exponent: u16, significand: u64) -> Self {
        Extended {
            significand,
            high: exponent | (negative as u16) << 15,
        }
    }

    /// From a register.
    pub const fn from_bits(bits: (u64, u16)) -> Self {
        Extended {
            significand: bits.0,
            high: bits.1,
        }
    }

    /// To a register.
    pub const fn to_bits(self) -> (u64, u16) {
        (self.significand, self.high)
    }

    /// Zero.
    pub const fn zero(negative: bool) -> Self {
        Self::new(negative, 0, 0)
    }

    /// Infinity.
    pub const fn infinity(negative: bool) -> Self {
        Self::new(negative, EXP_MAX, INTEGER_BIT)
    }

    /// The sign bit.
    pub const fn negative(self) -> bool {
        self.high >> 15 != 0
    }

    /// The biased exponent as stored.
    pub const fn exponent(self) -> u16 {
        self.high & EXP_MAX
    }

    /// With the sign changed if asked.
    pub const fn negate_if(self, negate: bool) -> Self {
        Extended {
            significand: self.significand,
            high: self.high ^ (negate as u16) << 15,
        }
    }

    /// What kind of value this is.
    pub const fn kind(self) -> Kind {
        let integer = self.significand & INTEGER_BIT != 0;
        match (self.exponent(), integer) {
            (0, _) if self.significand == 0 => Kind::Zero,
            (0, _) => Kind::Finite,
            (_, false) => Kind::Unsupported,
            (EXP_MAX, true) if self.significand == INTEGER_BIT => Kind::Infinity,
            (EXP_MAX, true) if self.significand & QUIET_BIT != 0 => Kind::Quiet,
            (EXP_MAX, true) => Kind::Signaling,
            _ => Kind::Finite,
        }
    }

    /// Whether it is a NaN of either kind.
    pub const fn is_nan(self) -> bool {
        matches!(self.kind(), Kind::Quiet | Kind::Signaling)
    }

    /// Whether it is a denormal or pseudo-denormal, which as an operand raises an exception.
    pub const fn is_denormal(self) -> bool {
        self.exponent() == 0 && self.significand != 0
    }

    /// A NaN made quiet.
    pub const fn quieted(self) -> Self {
        Extended {
            significand: self.significand | QUIET_BIT,
            high: self.high,
        }
    }

    /// Takes a finite number other than zero apart. Pseudo-denormals have the value of the normal
    /// number with exponent 1.
    pub const fn number(self) -> Number {
        let shift = self.significand.leading_zeros();
        let exponent = self.exponent() as i32 + (self.exponent() == 0) as i32;
        Number {
            negative: self.negative(),
            exponent: exponent - shift as i32,
            significand: if shift == 64 {
                0
            } else {
                self.significand << shift
            },
        }
    }

    /// From an integer; always exact.
    pub const fn from_integer(value: i64) -> Self {
        Self::from_magnitude(value < 0, value.unsigned_abs())
    }

    /// From the magnitude of an integer, and a sign that zero has too.
    pub const fn from_magnitude(negative: bool, magnitude: u64) -> Self {
        if magnitude == 0 {
            return Self::zero(negative);
        }
        let shift = magnitude.leading_zeros();
        Self::new(
            negative,
            (BIAS + 63 - shift as i32) as u16,
            magnitude << shift,
        )
    }

    /// From the bits of a double-precision value, exactly; signaling NaNs stay so. Double
    /// denormals become normal numbers: whoever cares looks at the original.
    pub const fn from_double(bits: u64) -> Self {
        let fraction = bits & ((1 << 52) - 1);
        widen(
            bits >> 63 != 0,
            (bits >> 52) as u16 & 0x7ff,
            0x7ff,
            fraction << 11,
        )
    }

    /// From the bits of a single-precision value.
    pub const fn from_single(bits: u32) -> Self {
        let fraction = bits as u64 & ((1 << 23) - 1);
        widen(
            bits >> 31 != 0,
            (bits >> 23) as u16 & 0xff,
            0xff,
            fraction << 40,
        )
    }
}

/// From the fields of a narrower format, the fraction moved to just below the integer bit.
const fn widen(negative: bool, exponent: u16, exponent_max: u16, fraction: u64) -> Extended {
    let bias = (exponent_max >> 1) as i32;
    if exponent == exponent_max {
        return Extended::new(negative, EXP_MAX, fraction | INTEGER_BIT);
    }
    if exponent == 0 {
        if fraction == 0 {
            return Extended::zero(negative);
        }
        let shift = fraction.leading_zeros();
        let exponent = 1 - bias + BIAS - shift as i32;
        return Extended::new(negative, exponent as u16, fraction << shift);
    }
    let exponent = exponent as i32 - bias + BIAS;
    Extended::new(negative, exponent as u16, fraction | INTEGER_BIT)
}

/// Whether a double is a denormal.
pub const fn is_denormal_double(bits: u64) -> bool {
    let magnitude = bits << 1;
    magnitude != 0 && magnitude >> 53 == 0
}

/// Whether a single is a denormal.
pub const fn is_denormal_single(bits: u32) -> bool {
    let magnitude = bits << 1;
    magnitude != 0 && magnitude >> 24 == 0
}
