//! x87 instructions that work on exponent and significand: FPREM, FPREM1, FSCALE, FXTRACT.

use iced_x86::{Code, Instruction, Mnemonic as N};

use super::op::{Body, Op};
use super::shape::Lower;
use super::x87_round::Calculation;
use super::x87_unit::{C0, C1, C2, C3, Form, ZE, lower_form};
use super::x87_value::{BIAS, Extended, Kind, Number};
use crate::core::Core;
use crate::cpu::fault::Trap;
use crate::cpu::state::X87;

/// Exponents differing by this much are not reduced in one go (SDM vol. 2, FPREM).
const REDUCTION_MAX: i32 = 64;

impl Calculation {
    /// The remainder of `a / b`, and the condition codes that go with it if there is a quotient.
    /// `nearest`: the quotient is rounded to nearest (FPREM1), else toward zero.
    fn remainder(&mut self, a: Extended, b: Extended, nearest: bool) -> (Extended, Option<u16>) {
        if let Some(nan) = self.nan_operand(a, b) {
            return (nan, None);
        }
        if a.kind() == Kind::Infinity || b.kind() == Kind::Zero {
            return (self.invalid(), None);
        }
        self.note_denormals(a, b);
        if a.kind() == Kind::Zero {
            return (a, Some(0));
        }
        let n = a.number();
        if b.kind() == Kind::Infinity {
            return (self.exact(n), Some(0));
        }
        let (r, codes) = self.remainder_of_numbers(n, b.number(), nearest);
        (r, Some(codes))
    }

    fn remainder_of_numbers(&mut self, a: Number, b: Number, nearest: bool) -> (Extended, u16) {
        let apart = a.exponent - b.exponent;
        if apart < -1 || apart == -1 && !nearest {
            return (self.exact(a), 0);
        }
        let divisor = u128::from(b.significand);
        if apart >= REDUCTION_MAX {
            // As much as processors do: 32 to 63 bits.
            let bits = apart & 31 | 32;
            let rest = ((u128::from(a.significand) << bits) % divisor) as u64;
            return (
                self.remainder_from(a.negative, b.exponent + apart - bits, rest.into()),
                C2,
            );
        }
        // In units of the last place of the smaller exponent.
        let (dividend, divisor, unit) = if apart < 0 {
            (u128::from(a.significand), divisor << 1, a.exponent)
        } else {
            (u128::from(a.significand) << apart, divisor, b.exponent)
        };
        let (mut quotient, mut rest, mut negative) =
            (dividend / divisor, dividend % divisor, a.negative);
        if nearest && (2 * rest > divisor || 2 * rest == divisor && quotient & 1 != 0) {
            rest = divisor - rest;
            quotient += 1;
            negative = !negative;
        }
        let mut codes = 0;
        for (bit, code) in [C1, C3, C0].into_iter().enumerate() {
            if quotient >> bit & 1 != 0 {
                codes |= code;
            }
        }
        if rest == 0 {
            return (Extended::zero(a.negative), codes);
        }
        (self.remainder_from(negative, unit, rest), codes)
    }

    /// A remainder counted in units of the last place of numbers with an exponent.
    fn remainder_from(&mut self, negative: bool, unit: i32, rest: u128) -> Extended {
        if rest == 0 {
            return Extended::zero(negative);
        }
        let shift = rest.leading_zeros();
        self.round(negative, unit + 64 - shift as i32, rest << shift)
    }

    /// A number as a result: not changed, but reported if it is tiny and that is not masked.
    fn exact(&mut self, n: Number) -> Extended {
        self.round(n.negative, n.exponent, u128::from(n.significand) << 64)
    }

    /// `a * 2^b`, with `b` rounded toward zero.
    pub fn scale(&mut self, a: Extended, b: Extended) -> Extended {
        if let Some(nan) = self.nan_operand(a, b) {
            return nan;
        }
        if b.kind() == Kind::Infinity {
            match (a.kind(), b.negative()) {
                (Kind::Zero, false) | (Kind::Infinity, true) => return self.invalid(),
                _ => self.note_denormals(a, b),
            }
            return match b.negative() {
                false => Extended::infinity(a.negative()),
                true => Extended::zero(a.negative()),
            };
        }
        self.note_denormals(a, b);
        if a.kind() != Kind::Finite {
            return a;
        }
        let n = a.number();
        self.round(
            n.negative,
            n.exponent + clamped_integer(b),
            u128::from(n.significand) << 64,
        )
    }

    /// The exponent and the significand of `a`, both as values.
    fn extract(&mut self, a: Extended) -> (Extended, Extended) {
        if let Some(nan) = self.nan_alone(a) {
            return (nan, nan);
        }
        match a.kind() {
            Kind::Zero => {
                self.raised |= ZE;
                (Extended::infinity(true), a)
            }
            Kind::Infinity => (Extended::infinity(false), a),
            _ => {
                self.note_denormals(a, a);
                let n = a.number();
                let exponent = Extended::from_integer(i64::from(n.exponent - BIAS));
                (
                    exponent,
                    Extended::new(n.negative, BIAS as u16, n.significand),
                )
            }
        }
    }
}

/// A value rounded toward zero, kept within what cannot matter any more as an exponent.
fn clamped_integer(value: Extended) -> i32 {
    const LIMIT: i32 = 1 << 17;
    if value.kind() == Kind::Zero {
        return 0;
    }
    let n = value.number();
    let magnitude = match n.exponent - BIAS {
        ..0 => 0,
        e @ 0..=16 => (n.significand >> (63 - e)) as i32,
        _ => LIMIT,
    };
    if n.negative { -magnitude } else { magnitude }
}

impl X87 {
    /// FPREM, FPREM1.
    pub fn remainder(&mut self, nearest: bool) {
        self.status &= !C2;
        if !self.in_use(0) || !self.in_use(1) {
            if !self.stack_fault(false) {
                self.put(0, Extended::INDEFINITE.to_bits());
            }
            return;
        }
        let mut calculation = Calculation::full_precision(self.control);
        let (a, b) = (self.bits(0), self.bits(1));
        let (a, b) = (Extended::from_bits(a), Extended::from_bits(b));
        let (r, codes) = calculation.remainder(a, b, nearest);
        if self.settle(&calculation) {
            if let Some(codes) = codes {
                self.set_conditions(codes);
            }
            self.put(0, r.to_bits());
        }
    }

    /// FXTRACT.
    pub fn extract(&mut self) {
        if !self.in_use(0) || self.in_use(7) {
            let overflow = self.in_use(0);
            if !self.stack_fault(overflow) {
                self.put(0, Extended::INDEFINITE.to_bits());
                self.push(Extended::INDEFINITE.to_bits());
            }
            return;
        }
        let mut calculation = Calculation::full_precision(self.control);
        let (exponent, significand) = calculation.extract(Extended::from_bits(self.bits(0)));
        if self.settle(&calculation) {
            self.put(0, exponent.to_bits());
            self.push(significand.to_bits());
        }
    }

    /// FSCALE.
    pub fn scale(&mut self) {
        self.binary(0, 1, false, |k, a, b| {
            k.precision = 64;
            k.scale(a, b)
        });
    }
}

fn fprem<const NEAREST: bool>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.x87_begin()?;
    c.x87_note(op);
    c.cpu.x87.remainder(NEAREST);
    Ok(())
}

fn fscale(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.x87_begin()?;
    c.x87_note(op);
    c.cpu.x87.scale();
    Ok(())
}

fn fxtract(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.x87_begin()?;
    c.x87_note(op);
    c.cpu.x87.extract();
    Ok(())
}

const FORMS: &[Form] = &[
    (Code::Fprem, 0xd9f8, fprem::<false>),
    (Code::Fprem1, 0xd9f5, fprem::<true>),
    (Code::Fscale, 0xd9fd, fscale),
    (Code::Fxtract, 0xd9f4, fxtract),
];

fn lower(insn: &Instruction, op: &mut Op) -> Option<Body> {
    lower_form(FORMS, insn, op)
}

/// The rows of this family.
pub const ROWS: &[(N, Lower)] = &[
    (N::Fprem, lower),
    (N::Fprem1, lower),
    (N::Fscale, lower),
    (N::Fxtract, lower),
];
