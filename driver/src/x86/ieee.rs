//! IEEE 754 numbers as SSE has them: formats, NaN rules, rounding and exception flags.
//!
//! Results and flags follow from integer arithmetic alone, so that they are equal on every host.
//! Values are bit patterns in the low bits of a `u64`, whatever their format.

/// Bits of MXCSR (SDM vol. 1, 10.2.3).
pub mod mxcsr {
    /// Invalid operation.
    pub const IE: u32 = 1 << 0;
    /// Denormal operand.
    pub const DE: u32 = 1 << 1;
    /// Division by zero.
    pub const ZE: u32 = 1 << 2;
    /// Overflow.
    pub const OE: u32 = 1 << 3;
    /// Underflow.
    pub const UE: u32 = 1 << 4;
    /// Inexact result.
    pub const PE: u32 = 1 << 5;
    /// Denormal operands count as zeros.
    pub const DAZ: u32 = 1 << 6;
    /// From an exception flag to its mask.
    pub const MASK_SHIFT: u32 = 7;
    /// The overflow mask.
    pub const OM: u32 = OE << MASK_SHIFT;
    /// The underflow mask.
    pub const UM: u32 = UE << MASK_SHIFT;
    /// The inexact mask.
    pub const PM: u32 = PE << MASK_SHIFT;
    /// Rounding control, two bits.
    pub const RC_SHIFT: u32 = 13;
    /// Tiny results become zeros, while underflow is masked.
    pub const FTZ: u32 = 1 << 15;
    /// The six exception flags.
    pub const FLAGS: u32 = 0x3f;
    /// Exceptions that are found before the result is computed.
    pub const BEFORE: u32 = IE | DE | ZE;
    /// Power-on value: everything masked, rounding to nearest.
    pub const DEFAULT: u32 = 0x1f80;
}

use mxcsr::{DAZ, DE, FTZ, IE, OE, OM, PE, PM, RC_SHIFT, UE, UM};

/// What an operation does with what does not fit, in the encoding of MXCSR.RC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To nearest, ties to even.
    Nearest,
    /// Towards minus infinity.
    Down,
    /// Towards plus infinity.
    Up,
    /// Towards zero.
    Zero,
}

/// The environment of one instruction: what MXCSR asks for, and what the instruction raised.
#[derive(Clone, Copy, Debug)]
pub struct Env {
    /// MXCSR when the instruction began.
    pub control: u32,
    /// Exception flags raised by the instruction so far.
    pub raised: u32,
}

impl Env {
    /// The environment an instruction begins with.
    #[inline(always)]
    pub fn new(mxcsr: u32) -> Self {
        Env {
            control: mxcsr,
            raised: 0,
        }
    }

    /// The rounding mode.
    #[inline]
    pub fn rounding(&self) -> Rounding {
        match self.control >> RC_SHIFT & 3 {
            0 => Rounding::Nearest,
            1 => Rounding::Down,
            2 => Rounding::Up,
            _ => Rounding::Zero,
        }
    }

    /// Whether an inexact result, rounded to nearest, changes nothing in MXCSR: it is masked and
    /// its flag is set already. Then the host's arithmetic serves for ordinary numbers.
    #[inline(always)]
    pub fn inexact_is_old(&self) -> bool {
        self.control & (PE | PM | 3 << RC_SHIFT) == PE | PM
    }

    /// A denormal operand as the instruction sees it.
    #[inline(always)]
    pub fn operand<F: Format>(&self, x: u64) -> u64 {
        if self.control & DAZ != 0 && F::is_denormal(x) {
            x & F::SIGN
        } else {
            x
        }
    }

    /// Notes denormal operands.
    #[inline(always)]
    pub fn note_denormals<F: Format>(&mut self, a: u64, b: u64) {
        if F::is_denormal(a) || F::is_denormal(b) {
            self.raised |= DE;
        }
    }

    /// An invalid operation's result.
    #[inline]
    pub fn invalid<F: Format>(&mut self) -> u64 {
        self.raised |= IE;
        F::DEFAULT_NAN
    }

    /// The result of an operation on two operands one of which is a NaN (SDM vol. 1, table 4-7):
    /// the first that is one, made quiet.
    #[inline(always)]
    pub fn nan<F: Format>(&mut self, a: u64, b: u64) -> Option<u64> {
        if !F::is_nan(a) && !F::is_nan(b) {
            return None;
        }
        if F::is_signalling(a) || F::is_signalling(b) {
            self.raised |= IE;
        }
        Some(if F::is_nan(a) { a } else { b } | F::QUIET)
    }
}

/// A binary interchange format.
pub trait Format: Copy + 'static {
    /// All bits.
    const WIDTH: u32;
    /// Bits of the fraction field.
    const FRACTION: u32;
    /// The exponent field of infinities and NaNs.
    const SPECIAL: u64;
    /// The sign bit.
    const SIGN: u64 = 1 << (Self::WIDTH - 1);
    /// Every bit of the format.
    const ONES: u64 = u64::MAX >> (64 - Self::WIDTH);
    /// The bit that tells quiet from signalling NaNs.
    const QUIET: u64 = 1 << (Self::FRACTION - 1);
    /// Positive infinity.
    const INFINITY: u64 = Self::SPECIAL << Self::FRACTION;
    /// The NaN of invalid operations.
    const DEFAULT_NAN: u64 = Self::SIGN | Self::INFINITY | Self::QUIET;
    /// The fraction field.
    const FRACTION_MASK: u64 = (1 << Self::FRACTION) - 1;
    /// Exponent of 1.0 as stored.
    const BIAS: i32 = (Self::SPECIAL >> 1) as i32;

    /// Neither zero nor normal.
    #[inline(always)]
    fn is_denormal(x: u64) -> bool {
        (x & !Self::SIGN).wrapping_sub(1) < Self::FRACTION_MASK
    }

    /// Not a number.
    #[inline(always)]
    fn is_nan(x: u64) -> bool {
        x & !Self::SIGN > Self::INFINITY
    }

    /// A NaN that makes operations invalid.
    #[inline(always)]
    fn is_signalling(x: u64) -> bool {
        Self::is_nan(x) && x & Self::QUIET == 0
    }

    /// Infinite.
    #[inline(always)]
    fn is_infinite(x: u64) -> bool {
        x & !Self::SIGN == Self::INFINITY
    }

    /// Zero of either sign.
    #[inline(always)]
    fn is_zero(x: u64) -> bool {
        x & !Self::SIGN == 0
    }

    /// A result so far from both ends of the range that neither overflow nor underflow is in
    /// question.
    #[inline(always)]
    fn is_ordinary(x: u64) -> bool {
        (x & Self::INFINITY).wrapping_sub(2 << Self::FRACTION)
            < Self::INFINITY - (2 << Self::FRACTION)
    }
}

/// 32 bits.
#[derive(Clone, Copy, Debug)]
pub struct Single;

impl Format for Single {
    const WIDTH: u32 = 32;
    const FRACTION: u32 = 23;
    const SPECIAL: u64 = 0xff;
}

/// 64 bits.
#[derive(Clone, Copy, Debug)]
pub struct Double;

impl Format for Double {
    const WIDTH: u32 = 64;
    const FRACTION: u32 = 52;
    const SPECIAL: u64 = 0x7ff;
}

/// A finite number taken apart: `sig * 2^(exp - 63)`, the top bit of `sig` set unless it is zero.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    /// Negative.
    pub sign: bool,
    /// Exponent of the top bit.
    pub exp: i32,
    /// Significand.
    pub sig: u64,
}

/// The exponent given to zeros: below all others.
const EXP_ZERO: i32 = -100_000;

impl Parts {
    /// Takes a finite number apart.
    #[inline]
    pub fn of<F: Format>(x: u64) -> Self {
        let sign = x & F::SIGN != 0;
        let field = (x >> F::FRACTION & F::SPECIAL) as i32;
        let fraction = x & F::FRACTION_MASK;
        let (sig, exp) = if field == 0 {
            (fraction, 1 - F::BIAS)
        } else {
            (fraction | 1 << F::FRACTION, field - F::BIAS)
        };
        Self::normalized(sign, exp - F::FRACTION as i32 + 63, sig)
    }

    /// `sig * 2^(exp - 63)`, with the top bit moved into its place.
    #[inline]
    pub fn normalized(sign: bool, exp: i32, sig: u64) -> Self {
        if sig == 0 {
            return Parts {
                sign,
                exp: EXP_ZERO,
                sig,
            };
        }
        let shift = sig.leading_zeros();
        Parts {
            sign,
            exp: exp - shift as i32,
            sig: sig << shift,
        }
    }

    /// `sig * 2^(exp - 127)`; what 64 bits cannot hold is remembered in the lowest one, where it
    /// still decides every rounding.
    #[inline]
    pub fn normalized_wide(sign: bool, exp: i32, sig: u128) -> Self {
        if sig == 0 {
            return Parts {
                sign,
                exp: EXP_ZERO,
                sig: 0,
            };
        }
        let shift = sig.leading_zeros();
        let sig = sig << shift;
        let sticky = u64::from(sig as u64 != 0);
        Parts {
            sign,
            exp: exp - shift as i32,
            sig: (sig >> 64) as u64 | sticky,
        }
    }
}

/// Drops the lowest bits of a significand, rounding; also whether something was lost. `drop` is at
/// least 1.
#[inline]
pub fn drop_bits(sign: bool, sig: u64, drop: u32, rounding: Rounding) -> (u64, bool) {
    const HALF: u64 = 1 << 63;
    let (kept, rest) = match drop {
        0..64 => (sig >> drop, sig << (64 - drop)),
        64 => (0, sig),
        // Less than half of the last place.
        _ => (0, u64::from(sig != 0)),
    };
    let up = match rounding {
        Rounding::Nearest => rest > HALF || rest == HALF && kept & 1 != 0,
        Rounding::Down => sign && rest != 0,
        Rounding::Up => !sign && rest != 0,
        Rounding::Zero => false,
    };
    (kept + u64::from(up), rest != 0)
}

/// Rounds a number into a format, with overflow, underflow and inexact.
///
/// Tininess is found after rounding: a number underflows if its magnitude, rounded with unbounded
/// exponent, is below the smallest normal number. Where overflow or underflow is not masked, that
/// rounding also tells whether the result is inexact, and the value returned is not used.
pub fn round<F: Format>(v: Parts, env: &mut Env) -> u64 {
    let sign = if v.sign { F::SIGN } else { 0 };
    if v.sig == 0 {
        return sign;
    }
    let rounding = env.rounding();
    let drop = 63 - F::FRACTION;
    let (kept, inexact) = drop_bits(v.sign, v.sig, drop, rounding);
    let exp = v.exp + (kept >> (F::FRACTION + 1)) as i32;
    let lost = if inexact { PE } else { 0 };
    if exp > F::BIAS {
        env.raised |= OE | if env.control & OM == 0 { lost } else { PE };
        let to_infinity = match rounding {
            Rounding::Nearest => true,
            Rounding::Down => v.sign,
            Rounding::Up => !v.sign,
            Rounding::Zero => false,
        };
        return sign | (F::INFINITY - u64::from(!to_infinity));
    }
    let exp_min = 1 - F::BIAS;
    if exp >= exp_min {
        env.raised |= lost;
        // The leading one, or two after a carry, is added to the exponent field.
        return sign | (((v.exp + F::BIAS - 1) as u64) << F::FRACTION).wrapping_add(kept);
    }
    if env.control & UM == 0 {
        env.raised |= UE | lost;
        return sign;
    }
    if env.control & FTZ != 0 {
        env.raised |= UE | PE;
        return sign;
    }
    let (kept, inexact) = drop_bits(v.sign, v.sig, drop + (exp_min - v.exp) as u32, rounding);
    if inexact {
        env.raised |= UE | PE;
    }
    sign | kept
}
