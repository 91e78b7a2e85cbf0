//! Rounding: to the register format at the three precisions, to the memory formats, to integers.

use super::x87_unit::{EXCEPTIONS, IE, OE, PE, UE};
use super::x87_value::{BIAS, EXP_MAX, Extended, INTEGER_BIT, Kind, Number};

/// What an unmasked overflow or underflow moves the exponent of a register result by (SDM vol. 1,
/// 8.5.4 and 8.5.5).
const EXPONENT_ADJUST: i32 = 24576;

/// The rounding modes as the control word writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// To nearest, ties to even.
    Nearest,
    /// Toward minus infinity.
    Down,
    /// Toward plus infinity.
    Up,
    /// Toward zero.
    Zero,
}

/// One computation: how it is to be done, and what it has raised.
#[derive(Clone, Copy, Debug)]
pub struct Calculation {
    /// The rounding mode.
    pub mode: Mode,
    /// Significant bits of results: 24, 53 or 64.
    pub precision: u32,
    /// Which exceptions are masked.
    pub masks: u16,
    /// Exceptions raised so far.
    pub raised: u16,
    /// The result was rounded away from zero; goes to C1.
    pub rounded_up: bool,
    /// An operand was a denormal of a memory format, which as a register value is none.
    pub denormal_operand: bool,
}

/// A value rounded to some bits of significand.
#[derive(Clone, Copy, Debug)]
struct Rounded {
    exponent: i32,
    /// The integer bit is bit `bits - 1`.
    significand: u64,
    inexact: bool,
    up: bool,
}

/// The range and width of a format.
#[derive(Clone, Copy, Debug)]
struct Format {
    bits: u32,
    /// Smallest and largest exponents of normal numbers, biased as in registers.
    exponent_min: i32,
    exponent_max: i32,
}

impl Calculation {
    /// A computation under a control word.
    pub fn new(control: u16) -> Self {
        Calculation {
            mode: match control >> 10 & 3 {
                0 => Mode::Nearest,
                1 => Mode::Down,
                2 => Mode::Up,
                _ => Mode::Zero,
            },
            precision: match control >> 8 & 3 {
                0 => 24,
                2 => 53,
                _ => 64,
            },
            masks: control & EXCEPTIONS,
            raised: 0,
            rounded_up: false,
            denormal_operand: false,
        }
    }

    /// The same, but with the full 64 bits of significand: most instructions heed no precision
    /// control (SDM vol. 1, 8.1.5.2).
    pub fn full_precision(control: u16) -> Self {
        Calculation {
            precision: 64,
            ..Self::new(control)
        }
    }

    /// Raises an invalid-operation exception, and answers with its masked result.
    pub fn invalid(&mut self) -> Extended {
        self.raised |= IE;
        Extended::INDEFINITE
    }

    /// Whether an exception is masked.
    pub fn masked(&self, exception: u16) -> bool {
        self.masks & exception != 0
    }

    /// Whether a magnitude is increased, from its last kept bit, the first dropped bit, and whether
    /// any dropped bit after that is set.
    fn increases(&self, negative: bool, odd: bool, half: bool, rest: bool) -> bool {
        match self.mode {
            Mode::Nearest => half && (rest || odd),
            Mode::Down => negative && (half || rest),
            Mode::Up => !negative && (half || rest),
            Mode::Zero => false,
        }
    }

    /// Rounds a significand (integer bit 127) to `bits` bits, with no bound to the exponent.
    fn round_bits(&self, negative: bool, exponent: i32, significand: u128, bits: u32) -> Rounded {
        let dropped = 128 - bits;
        let half = significand >> (dropped - 1) & 1 != 0;
        let rest = significand << (bits + 1) != 0;
        let kept = (significand >> dropped) as u64;
        let up = self.increases(negative, kept & 1 != 0, half, rest);
        let (mut kept, mut exponent) = (u128::from(kept) + u128::from(up), exponent);
        if kept >> bits != 0 {
            kept >>= 1;
            exponent += 1;
        }
        Rounded {
            exponent,
            significand: kept as u64,
            inexact: half || rest,
            up,
        }
    }

    /// Rounds a magnitude into a format, raising what is to be raised. An overflow leaves an
    /// exponent above the format's, a denormal one below `exponent_min` or the integer bit clear.
    /// Unmasked overflows and underflows leave the value as if exponents had no bounds.
    fn round_into(
        &mut self,
        negative: bool,
        exponent: i32,
        significand: u128,
        format: Format,
    ) -> Rounded {
        let mut r = self.round_bits(negative, exponent, significand, format.bits);
        if r.exponent > format.exponent_max {
            self.raised |= OE;
            if self.masked(OE) {
                let up = match self.mode {
                    Mode::Nearest => true,
                    Mode::Down => negative,
                    Mode::Up => !negative,
                    Mode::Zero => false,
                };
                if !up {
                    r.exponent = format.exponent_max;
                    r.significand = u64::MAX >> (64 - format.bits);
                }
                r = Rounded {
                    inexact: true,
                    up,
                    ..r
                };
            }
        } else if r.exponent < format.exponent_min {
            // Tininess is detected after rounding.
            if !self.masked(UE) {
                self.raised |= UE;
            } else {
                let shift = (format.exponent_min - exponent) as u32;
                let denormal = shift_right_sticky(significand, shift);
                r = self.round_bits(negative, format.exponent_min, denormal, format.bits);
                if r.inexact {
                    self.raised |= UE;
                }
            }
        }
        if r.inexact {
            self.raised |= PE;
        }
        self.rounded_up = r.inexact && r.up;
        r
    }

    /// Rounds into a register. The significand's integer bit is bit 127, and its lowest bit stands
    /// for everything below; the exponent is biased.
    pub fn round(&mut self, negative: bool, exponent: i32, significand: u128) -> Extended {
        let bits = self.precision;
        let format = Format {
            bits,
            exponent_min: 1,
            exponent_max: 0x7ffe,
        };
        let r = self.round_into(negative, exponent, significand, format);
        let significand = r.significand << (64 - bits);
        let mut exponent = r.exponent;
        if self.raised & OE & !self.masks != 0 {
            exponent -= EXPONENT_ADJUST;
        } else if self.raised & UE & !self.masks != 0 {
            exponent += EXPONENT_ADJUST;
        }
        // Masked overflows; and FSCALE can be off by more than the adjustment.
        if exponent >= i32::from(EXP_MAX) {
            self.raised |= PE;
            self.rounded_up = true;
            return Extended::infinity(negative);
        }
        if exponent < 1 {
            self.raised |= PE;
            self.rounded_up = false;
            return Extended::zero(negative);
        }
        if significand & INTEGER_BIT == 0 {
            exponent = 0;
        }
        Extended::new(negative, exponent as u16, significand)
    }

    /// Rounds a register to a memory format with this many bits of significand and of exponent.
    /// `None`: an unmasked exception, nothing is stored.
    fn narrow(&mut self, value: Extended, bits: u32, exponent_bits: u32) -> Option<u64> {
        let all_ones = (1u64 << exponent_bits) - 1;
        let fraction_bits = bits - 1;
        let sign = u64::from(value.negative()) << (fraction_bits + exponent_bits);
        let special = |v: Extended| {
            let fraction = (v.significand & !INTEGER_BIT) >> (64 - bits);
            let sign = u64::from(v.negative()) << (fraction_bits + exponent_bits);
            sign | all_ones << fraction_bits | fraction
        };
        match value.kind() {
            Kind::Zero => return Some(sign),
            Kind::Infinity | Kind::Quiet => return Some(special(value)),
            Kind::Signaling => self.raised |= IE,
            Kind::Unsupported => _ = self.invalid(),
            Kind::Finite => {}
        }
        if self.raised & IE != 0 {
            let answer = if value.is_nan() {
                value.quieted()
            } else {
                Extended::INDEFINITE
            };
            return self.masked(IE).then(|| special(answer));
        }
        let bias = (all_ones >> 1) as i32;
        let format = Format {
            bits,
            exponent_min: BIAS - bias + 1,
            exponent_max: BIAS + bias,
        };
        let n = value.number();
        let r = self.round_into(
            n.negative,
            n.exponent,
            u128::from(n.significand) << 64,
            format,
        );
        if self.raised & !self.masks & (OE | UE) != 0 {
            // Without a store there is no rounding to report.
            self.raised &= !PE;
            self.rounded_up = false;
            return None;
        }
        let exponent = (r.exponent - BIAS + bias) as u64;
        Some(if exponent >= all_ones {
            sign | all_ones << fraction_bits
        } else if r.significand >> fraction_bits == 0 {
            sign | r.significand
        } else {
            sign | exponent << fraction_bits | r.significand & ((1 << fraction_bits) - 1)
        })
    }

    /// Rounds to double precision; `None` if nothing is to be stored.
    pub fn to_double(&mut self, value: Extended) -> Option<u64> {
        self.narrow(value, 53, 11)
    }

    /// Rounds to single precision; `None` if nothing is to be stored.
    pub fn to_single(&mut self, value: Extended) -> Option<u32> {
        self.narrow(value, 24, 8).map(|bits| bits as u32)
    }

    /// Rounds a magnitude to an integer, saturating; nothing is raised, C1 and exactness are told.
    fn integer_magnitude(&self, n: Number) -> (u128, bool, bool) {
        let shift = BIAS + 63 - n.exponent;
        if shift <= 0 {
            // Above any integer format from here on.
            return (u128::from(n.significand) << (-shift).min(63), false, false);
        }
        let wide = shift_right_sticky(u128::from(n.significand) << 64, shift as u32);
        let (kept, dropped) = ((wide >> 64) as u64, wide as u64);
        let (half, rest) = (dropped >> 63 != 0, dropped << 1 != 0);
        let up = self.increases(n.negative, kept & 1 != 0, half, rest);
        (u128::from(kept) + u128::from(up), dropped != 0, up)
    }

    /// Rounds to a two's complement integer with this many bits; out of range is invalid and gives
    /// the most negative one. `None` if nothing is to be stored.
    pub fn to_integer(&mut self, value: Extended, bits: u32) -> Option<i64> {
        let limit = 1u128 << (bits - 1);
        let indefinite = (-1i64) << (bits - 1);
        match self.to_magnitude(value, |m, negative| m < limit || negative && m == limit) {
            Some(magnitude) if value.negative() => Some((magnitude as i64).wrapping_neg()),
            Some(magnitude) => Some(magnitude as i64),
            None => self.masked(IE).then_some(indefinite),
        }
    }

    /// The magnitude of the integer nearest to a value, in the sense of the rounding mode; `None`
    /// and an invalid-operation exception if it does not fit.
    pub fn to_magnitude(
        &mut self,
        value: Extended,
        fits: impl Fn(u128, bool) -> bool,
    ) -> Option<u128> {
        match value.kind() {
            Kind::Zero => return Some(0),
            Kind::Finite => {}
            _ => {
                self.raised |= IE;
                return None;
            }
        }
        let (magnitude, inexact, up) = self.integer_magnitude(value.number());
        if !fits(magnitude, value.negative()) {
            self.raised |= IE;
            return None;
        }
        if inexact {
            self.raised |= PE;
            self.rounded_up = up;
        }
        Some(magnitude)
    }

    /// Rounds to an integral value in the register format (FRNDINT).
    pub fn round_to_integral(&mut self, value: Extended) -> Extended {
        if let Some(nan) = self.nan_alone(value) {
            return nan;
        }
        if value.kind() != Kind::Finite {
            return value;
        }
        self.note_denormals(value, value);
        let n = value.number();
        if n.exponent >= BIAS + 63 {
            return value;
        }
        let (magnitude, inexact, up) = self.integer_magnitude(n);
        if inexact {
            self.raised |= PE;
            self.rounded_up = up;
        }
        Extended::from_magnitude(n.negative, magnitude as u64)
    }
}

/// Shifts right; what falls out sets the lowest bit.
pub fn shift_right_sticky(value: u128, shift: u32) -> u128 {
    match shift {
        0 => value,
        1..=127 => value >> shift | u128::from(value << (128 - shift) != 0),
        _ => u128::from(value != 0),
    }
}
