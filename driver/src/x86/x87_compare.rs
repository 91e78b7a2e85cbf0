//! x87 comparison and classification.

use std::cmp::Ordering;

use iced_x86::{Code, Instruction, Mnemonic as N};

use super::op::{Body, Op};
use super::shape::Lower;
use super::x87_load::{Loaded, M16INT, M32FP, M32INT, M64FP, read_operand};
use super::x87_move::sti;
use super::x87_round::Calculation;
use super::x87_unit::{C0, C1, C2, C3, Form, lower_form};
use super::x87_value::{Extended, Kind};
use crate::core::Core;
use crate::cpu::fault::Trap;
use crate::cpu::flags::{self, LazyFlags};
use crate::cpu::state::X87;

impl X87 {
    /// Compares ST(0) with ST(i). The outer `None`: an unmasked exception, nothing is delivered.
    pub fn compare(&mut self, i: u8, signal: bool) -> Option<Option<Ordering>> {
        if !self.in_use(i) {
            return self.compare_empty();
        }
        let value = Extended::from_bits(self.bits(i));
        self.compare_with(
            Loaded {
                value,
                denormal: false,
            },
            signal,
        )
    }

    /// Compares ST(0) with a value.
    pub fn compare_with(&mut self, source: Loaded, signal: bool) -> Option<Option<Ordering>> {
        if !self.in_use(0) {
            return self.compare_empty();
        }
        let mut calculation = Calculation::new(self.control);
        calculation.denormal_operand = source.denormal;
        let a = Extended::from_bits(self.bits(0));
        let order = calculation.compare(a, source.value, signal);
        self.settle(&calculation).then_some(order)
    }

    /// With an empty register the answer is "unordered".
    fn compare_empty(&mut self) -> Option<Option<Ordering>> {
        if self.stack_fault(false) {
            None
        } else {
            Some(None)
        }
    }

    /// Delivers an order to the condition codes, and pops.
    pub fn deliver_order(&mut self, order: Option<Option<Ordering>>, pops: u8) {
        let Some(order) = order else { return };
        let bits = match order {
            None => C3 | C2 | C0,
            Some(Ordering::Less) => C0,
            Some(Ordering::Equal) => C3,
            Some(Ordering::Greater) => 0,
        };
        self.status = self.status & !(C3 | C2 | C0) | bits;
        for _ in 0..pops {
            self.pop();
        }
    }

    /// FXAM: the kind of ST(0), and its sign even if it is empty.
    pub fn examine(&mut self) {
        let value = Extended::from_bits(self.bits(0));
        let kind = match value.kind() {
            _ if !self.in_use(0) => C3 | C0,
            Kind::Unsupported => 0,
            Kind::Quiet | Kind::Signaling => C0,
            Kind::Infinity => C2 | C0,
            Kind::Zero => C3,
            Kind::Finite if value.is_denormal() => C3 | C2,
            Kind::Finite => C2,
        };
        self.set_conditions(kind | if value.negative() { C1 } else { 0 });
    }
}

fn fcom<const SIGNAL: bool, const POPS: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.x87_begin()?;
    c.x87_note(op);
    let order = c.cpu.x87.compare(sti(op), SIGNAL);
    c.cpu.x87.deliver_order(order, POPS);
    Ok(())
}

/// FCOMPP, FUCOMPP: always with ST(1).
fn fcompp<const SIGNAL: bool>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.x87_begin()?;
    c.x87_note(op);
    let order = c.cpu.x87.compare(1, SIGNAL);
    c.cpu.x87.deliver_order(order, 2);
    Ok(())
}

fn fcom_memory<const FORMAT: u8, const POPS: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.x87_begin()?;
    let ea = c.ea(op);
    let source = read_operand::<FORMAT>(c, ea)?;
    c.x87_note_memory(op, ea);
    let order = c.cpu.x87.compare_with(source, true);
    c.cpu.x87.deliver_order(order, POPS);
    Ok(())
}

/// An order as FCOMI puts it into RFLAGS.
pub(super) fn order_flags(order: Option<Ordering>) -> u64 {
    match order {
        None => flags::ZF | flags::PF | flags::CF,
        Some(Ordering::Less) => flags::CF,
        Some(Ordering::Equal) => flags::ZF,
        Some(Ordering::Greater) => 0,
    }
}

/// FCOMI, FUCOMI: the answer goes to ZF, PF and CF; OF, SF and AF are cleared.
fn fcomi<const SIGNAL: bool, const POP: bool>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.x87_begin()?;
    c.x87_note(op);
    let Some(order) = c.cpu.x87.compare(sti(op), SIGNAL) else {
        return Ok(());
    };
    c.cpu.lazy = LazyFlags::from_bits(order_flags(order));
    if POP {
        c.cpu.x87.pop();
    }
    Ok(())
}

fn ftst(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.x87_begin()?;
    c.x87_note(op);
    let zero = Loaded {
        value: Extended::zero(false),
        denormal: false,
    };
    let order = c.cpu.x87.compare_with(zero, true);
    c.cpu.x87.deliver_order(order, 0);
    Ok(())
}

fn fxam(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.x87_begin()?;
    c.x87_note(op);
    c.cpu.x87.examine();
    Ok(())
}

const FORMS: &[Form] = &[
    (Code::Fcom_m32fp, 0xd810, fcom_memory::<M32FP, 0>),
    (Code::Fcomp_m32fp, 0xd818, fcom_memory::<M32FP, 1>),
    (Code::Fcom_m64fp, 0xdc10, fcom_memory::<M64FP, 0>),
    (Code::Fcomp_m64fp, 0xdc18, fcom_memory::<M64FP, 1>),
    (Code::Ficom_m32int, 0xda10, fcom_memory::<M32INT, 0>),
    (Code::Ficomp_m32int, 0xda18, fcom_memory::<M32INT, 1>),
    (Code::Ficom_m16int, 0xde10, fcom_memory::<M16INT, 0>),
    (Code::Ficomp_m16int, 0xde18, fcom_memory::<M16INT, 1>),
    (Code::Fcom_st0_sti, 0xd8d0, fcom::<true, 0>),
    (Code::Fcom_st0_sti_DCD0, 0xdcd0, fcom::<true, 0>),
    (Code::Fcomp_st0_sti, 0xd8d8, fcom::<true, 1>),
    (Code::Fcomp_st0_sti_DCD8, 0xdcd8, fcom::<true, 1>),
    (Code::Fcomp_st0_sti_DED0, 0xded0, fcom::<true, 1>),
    (Code::Fcompp, 0xded9, fcompp::<true>),
    (Code::Fucom_st0_sti, 0xdde0, fcom::<false, 0>),
    (Code::Fucomp_st0_sti, 0xdde8, fcom::<false, 1>),
    (Code::Fucompp, 0xdae9, fcompp::<false>),
    (Code::Fcomi_st0_sti, 0xdbf0, fcomi::<true, false>),
    (Code::Fcomip_st0_sti, 0xdff0, fcomi::<true, true>),
    (Code::Fucomi_st0_sti, 0xdbe8, fcomi::<false, false>),
    (Code::Fucomip_st0_sti, 0xdfe8, fcomi::<false, true>),
    (Code::Ftst, 0xd9e4, ftst),
    (Code::Fxam, 0xd9e5, fxam),
];

fn lower(insn: &Instruction, op: &mut Op) -> Option<Body> {
    lower_form(FORMS, insn, op)
}

/// The rows of this family.
#[rustfmt::skip]
pub const ROWS: &[(N, Lower)] = &[
    (N::Fcom, lower), (N::Fcomp, lower), (N::Fcompp, lower), (N::Ficom, lower),
    (N::Ficomp, lower), (N::Fucom, lower), (N::Fucomp, lower), (N::Fucompp, lower),
    (N::Fcomi, lower), (N::Fcomip, lower), (N::Fucomi, lower), (N::Fucomip, lower),
    (N::Ftst, lower), (N::Fxam, lower),
];
