//! x87 transcendental instructions: their special cases; the series are elsewhere.

use iced_x86::{Code, Instruction, Mnemonic as N};

use super::op::{Body, Op};
use super::shape::Lower;
use super::x87_round::Calculation;
use super::x87_series::{
    PI, arc_tangent, log2, log2_of_one_plus, power_minus_one, sine_cosine, tangent,
};
use super::x87_unit::{C2, Form, PE, ZE, lower_form};
use super::x87_value::{BIAS, Extended, Kind};
use super::x87_wide::Wide;
use crate::core::Core;
use crate::cpu::fault::Trap;
use crate::cpu::state::X87;

/// Angles from 2^63 on are out of range: C2 is set and nothing else happens.
const ANGLE_EXPONENT: i32 = BIAS + 63;

/// The instructions that take an angle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Angle {
    /// FSIN
    Sine,
    /// FCOS
    Cosine,
    /// FSINCOS: the sine, and the cosine pushed.
    SineCosine,
    /// FPTAN: the tangent, and one pushed.
    Tangent,
}

impl Calculation {
    /// Rounds a result. All count as inexact, as processors have it.
    fn finish(&mut self, value: Wide) -> Extended {
        if value.is_zero() {
            return Extended::zero(value.negative);
        }
        let r = self.round(value.negative, value.exponent + BIAS, value.significand);
        self.raised |= PE;
        r
    }

    /// The result for an angle, and what is to be pushed.
    fn angle(&mut self, what: Angle, a: Extended) -> (Extended, Extended) {
        if let Some(nan) = self.nan_alone(a) {
            return (nan, nan);
        }
        match a.kind() {
            Kind::Infinity => {
                let nan = self.invalid();
                return (nan, nan);
            }
            Kind::Zero if what == Angle::Cosine => return (Extended::ONE, Extended::ONE),
            Kind::Zero => return (a, Extended::ONE),
            _ => self.note_denormals(a, a),
        }
        let n = a.number();
        if what == Angle::Tangent {
            return (self.finish(tangent(n)), Extended::ONE);
        }
        let both = sine_cosine(n);
        match what {
            Angle::Cosine => (self.finish(both.cosine), Extended::ONE),
            Angle::Sine => (self.finish(both.sine), Extended::ONE),
            _ => {
                let mut second = Calculation { raised: 0, ..*self };
                let results = (self.finish(both.sine), second.finish(both.cosine));
                self.raised |= second.raised;
                self.rounded_up = second.rounded_up;
                results
            }
        }
    }

    /// F2XM1: `2^x - 1`. Out of its range, the answer is `x`.
    fn power_minus_one(&mut self, x: Extended) -> Extended {
        if let Some(nan) = self.nan_alone(x) {
            return nan;
        }
        match x.kind() {
            Kind::Infinity if x.negative() => return Extended::ONE.negate_if(true),
            Kind::Infinity | Kind::Zero => return x,
            _ => self.note_denormals(x, x),
        }
        let n = x.number();
        if n.exponent < BIAS {
            return self.finish(power_minus_one(n));
        }
        self.raised |= PE;
        let half = Extended::new(true, BIAS as u16 - 1, 1 << 63);
        if x == Extended::ONE.negate_if(true) {
            half
        } else {
            x
        }
    }

    /// FYL2X: `y * log2(x)`.
    fn y_log2(&mut self, x: Extended, y: Extended) -> Extended {
        if let Some(nan) = self.nan_operand(y, x) {
            return nan;
        }
        let below_one = x.exponent() < BIAS as u16;
        match (x.kind(), y.kind()) {
            (Kind::Zero, Kind::Zero) => return self.invalid(),
            (Kind::Zero, Kind::Finite) => {
                self.raised |= ZE;
                return Extended::infinity(!y.negative());
            }
            (Kind::Zero, _) => return Extended::infinity(!y.negative()),
            _ if x.negative() => return self.invalid(),
            (Kind::Infinity, Kind::Zero) => return self.invalid(),
            (_, Kind::Infinity) if x == Extended::ONE => return self.invalid(),
            _ => self.note_denormals(x, y),
        }
        match (x.kind(), y.kind()) {
            (Kind::Infinity, _) => Extended::infinity(y.negative()),
            (_, Kind::Infinity) => Extended::infinity(y.negative() != below_one),
            (_, Kind::Zero) => Extended::zero(y.negative() != below_one),
            _ if x == Extended::ONE => Extended::zero(y.negative()),
            _ => self.finish(log2(x.number()).multiply(Wide::from_number(y.number()))),
        }
    }

    /// FYL2XP1: `y * log2(x + 1)`. It is defined for |x| < 1 - sqrt(2)/2 only; above, and down to -1,
    /// this gives the value, and at -1 and below it is invalid.
    fn y_log2_plus_one(&mut self, x: Extended, y: Extended) -> Extended {
        if let Some(nan) = self.nan_operand(y, x) {
            return nan;
        }
        match (x.kind(), y.kind()) {
            (Kind::Zero, Kind::Infinity) | (Kind::Infinity, Kind::Zero) => return self.invalid(),
            (Kind::Zero | Kind::Infinity, _) if !x.negative() => {}
            (Kind::Zero, _) => {}
            _ if x.negative() && x.exponent() >= BIAS as u16 => return self.invalid(),
            _ => {}
        }
        self.note_denormals(x, y);
        let negative = x.negative() != y.negative();
        match (x.kind(), y.kind()) {
            (Kind::Infinity, _) | (_, Kind::Infinity) => Extended::infinity(negative),
            (Kind::Zero, _) | (_, Kind::Zero) => Extended::zero(negative),
            _ => {
                let log = log2_of_one_plus(x.number());
                self.finish(log.multiply(Wide::from_number(y.number())))
            }
        }
    }

    /// FPATAN: the angle of the point (x, y).
    fn arc_tangent(&mut self, x: Extended, y: Extended) -> Extended {
        if let Some(nan) = self.nan_operand(y, x) {
            return nan;
        }
        self.note_denormals(x, y);
        let right_angle = PI.shifted(-1);
        let angle = match (x.kind(), y.kind()) {
            (Kind::Infinity, Kind::Infinity) => PI.shifted(-2),
            (Kind::Infinity, _) | (_, Kind::Zero) => Wide::new(0, 0),
            (Kind::Zero, _) | (_, Kind::Infinity) => right_angle,
            _ => {
                let n = Wide::from_number(y.number()).magnitude();
                let d = Wide::from_number(x.number()).magnitude();
                if d.is_below(n) {
                    right_angle.add(arc_tangent(d, n).negate())
                } else {
                    arc_tangent(n, d)
                }
            }
        };
        let angle = if x.negative() {
            PI.add(angle.negate())
        } else {
            angle
        };
        self.finish(Wide {
            negative: y.negative(),
            ..angle
        })
    }
}

impl X87 {
    /// FSIN, FCOS, FSINCOS, FPTAN.
    pub fn angle(&mut self, what: Angle) {
        let pushes = matches!(what, Angle::SineCosine | Angle::Tangent);
        self.status &= !C2;
        if !self.in_use(0) || pushes && self.in_use(7) {
            let overflow = self.in_use(0);
            if !self.stack_fault(overflow) {
                self.put(0, Extended::INDEFINITE.to_bits());
                if pushes {
                    self.push(Extended::INDEFINITE.to_bits());
                }
            }
            return;
        }
        let a = Extended::from_bits(self.bits(0));
        if a.kind() == Kind::Finite && a.number().exponent >= ANGLE_EXPONENT {
            self.set_c1(false);
            self.status |= C2;
            return;
        }
        let mut calculation = Calculation::full_precision(self.control);
        let (result, second) = calculation.angle(what, a);
        if self.settle(&calculation) {
            self.put(0, result.to_bits());
            if pushes {
                self.push(second.to_bits());
            }
        }
    }

    /// F2XM1.
    pub fn power_minus_one(&mut self) {
        self.unary(|k, x| {
            k.precision = 64;
            k.power_minus_one(x)
        });
    }

    /// FYL2X.
    pub fn y_log2(&mut self) {
        self.binary(1, 0, true, |k, y, x| {
            k.precision = 64;
            k.y_log2(x, y)
        });
    }

    /// FYL2XP1.
    pub fn y_log2_plus_one(&mut self) {
        self.binary(1, 0, true, |k, y, x| {
            k.precision = 64;
            k.y_log2_plus_one(x, y)
        });
    }

    /// FPATAN.
    pub fn arc_tangent(&mut self) {
        self.binary(1, 0, true, |k, y, x| {
            k.precision = 64;
            k.arc_tangent(x, y)
        });
    }
}

const SINE: u8 = 0;
const COSINE: u8 = 1;
const SINE_COSINE: u8 = 2;
const TANGENT: u8 = 3;
const F2XM1: u8 = 4;
const FYL2X: u8 = 5;
const FYL2XP1: u8 = 6;
const FPATAN: u8 = 7;

fn transcendental<const WHICH: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.x87_begin()?;
    c.x87_note(op);
    let x = &mut c.cpu.x87;
    match WHICH {
        SINE => x.angle(Angle::Sine),
        COSINE => x.angle(Angle::Cosine),
        SINE_COSINE => x.angle(Angle::SineCosine),
        TANGENT => x.angle(Angle::Tangent),
        F2XM1 => x.power_minus_one(),
        FYL2X => x.y_log2(),
        FYL2XP1 => x.y_log2_plus_one(),
        _ => x.arc_tangent(),
    }
    Ok(())
}

const FORMS: &[Form] = &[
    (Code::F2xm1, 0xd9f0, transcendental::<F2XM1>),
    (Code::Fyl2x, 0xd9f1, transcendental::<FYL2X>),
    (Code::Fptan, 0xd9f2, transcendental::<TANGENT>),
    (Code::Fpatan, 0xd9f3, transcendental::<FPATAN>),
    (Code::Fyl2xp1, 0xd9f9, transcendental::<FYL2XP1>),
    (Code::Fsincos, 0xd9fb, transcendental::<SINE_COSINE>),
    (Code::Fsin, 0xd9fe, transcendental::<SINE>),
    (Code::Fcos, 0xd9ff, transcendental::<COSINE>),
];

fn lower(insn: &Instruction, op: &mut Op) -> Option<Body> {
    lower_form(FORMS, insn, op)
}

/// The rows of this family.
#[rustfmt::skip]
pub const ROWS: &[(N, Lower)] = &[
    (N::F2xm1, lower), (N::Fyl2x, lower), (N::Fptan, lower), (N::Fpatan, lower),
    (N::Fyl2xp1, lower), (N::Fsincos, lower), (N::Fsin, lower), (N::Fcos, lower),
];

#[cfg(all(test, target_arch = "x86_64"))]
#[path = "x87_tests/transcendental.rs"]
mod host_tests;

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(st1: (u64, u16), st0: (u64, u16)) -> X87 {
        let mut x = X87::default();
        x.push(st1);
        x.push(st0);
        x
    }

    /// The same bits on every host; the values are rounded from 400 bits.
    #[test]
    fn known_values_are_exact_to_the_last_bit() {
        let one = (1 << 63, 0x3fff);
        let three = (3 << 62, 0x4000);
        let half = (1 << 63, 0x3ffe);
        let mut x = unit(one, one);
        x.angle(Angle::SineCosine);
        assert_eq!(x.bits(1), (0xd76a_a478_4867_7021, 0x3ffe));
        assert_eq!(x.bits(0), (0x8a51_407d_a834_5c92, 0x3ffe));
        let mut x = unit(one, one);
        x.angle(Angle::Tangent);
        assert_eq!(
            (x.bits(1), x.bits(0)),
            ((0xc759_22e5_f71d_2dc5, 0x3fff), one)
        );
        let mut x = unit(one, three);
        x.arc_tangent();
        assert_eq!(x.bits(0), (0xa4bc_7d19_34f7_0924, 0x3ffd));
        let mut x = unit(three, three);
        x.y_log2();
        assert_eq!(x.bits(0), (0x9828_09d5_be70_72dc, 0x4001));
        let mut x = unit(three, half);
        x.y_log2_plus_one();
        assert_eq!(x.bits(0), (0xe0a0_2756_f9c1_cb6f, 0x3fff));
        let mut x = unit(one, half);
        x.power_minus_one();
        assert_eq!(x.bits(0), (0xd413_cccf_e779_9211, 0x3ffd));
    }

    #[test]
    fn angles_out_of_range_are_left_alone() {
        let far = (1 << 63, 0x3fff + 63);
        let mut x = unit(far, far);
        x.angle(Angle::Tangent);
        assert_eq!((x.bits(0), x.bits(1), x.status & C2), (far, far, C2));
        x.angle(Angle::Sine);
        assert_eq!((x.bits(0), x.status & C2), (far, C2));
    }
}
