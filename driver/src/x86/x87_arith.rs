//! x87 arithmetic instructions.

use iced_x86::{Code, Instruction, Mnemonic as N};

use super::op::{Body, Op};
use super::shape::Lower;
use super::x87_load::{Loaded, M16INT, M32FP, M32INT, M64FP, read_operand};
use super::x87_move::sti;
use super::x87_round::Calculation;
use super::x87_unit::{Form, lower_form};
use super::x87_value::Extended;
use crate::core::Core;
use crate::cpu::fault::Trap;
use crate::cpu::state::X87;

/// The six operations with two operands, as the opcodes number them, with comparison left out.
const ADD: u8 = 0;
const MUL: u8 = 1;
const SUB: u8 = 4;
const SUBR: u8 = 5;
const DIV: u8 = 6;
const DIVR: u8 = 7;

/// Destination ST(0), source ST(i).
const TO_ST0: u8 = 0;
/// Destination ST(i), source ST(0).
const TO_STI: u8 = 1;
/// Destination ST(i), source ST(0), which is popped.
const TO_STI_POP: u8 = 2;

/// An operation on two values.
pub type Binary = fn(&mut Calculation, Extended, Extended) -> Extended;

impl X87 {
    /// `ST(dst) := f(ST(dst), ST(src))`.
    pub fn binary(&mut self, dst: u8, src: u8, pop: bool, f: Binary) {
        if !self.in_use(dst) || !self.in_use(src) {
            if self.stack_fault(false) {
                return;
            }
            self.put(dst, Extended::INDEFINITE.to_bits());
        } else {
            let mut calculation = Calculation::new(self.control);
            let (a, b) = (self.bits(dst), self.bits(src));
            let r = f(
                &mut calculation,
                Extended::from_bits(a),
                Extended::from_bits(b),
            );
            if !self.settle(&calculation) {
                return;
            }
            self.put(dst, r.to_bits());
        }
        if pop {
            self.pop();
        }
    }

    /// `ST(0) := f(ST(0), source)`.
    pub fn binary_with(&mut self, source: Loaded, f: Binary) {
        self.unary(|calculation, a| {
            calculation.denormal_operand = source.denormal;
            f(calculation, a, source.value)
        });
    }

    /// `ST(0) := f(ST(0))`.
    pub fn unary(&mut self, f: impl FnOnce(&mut Calculation, Extended) -> Extended) {
        if !self.in_use(0) {
            if !self.stack_fault(false) {
                self.put(0, Extended::INDEFINITE.to_bits());
            }
            return;
        }
        let mut calculation = Calculation::new(self.control);
        let r = f(&mut calculation, Extended::from_bits(self.bits(0)));
        if self.settle(&calculation) {
            self.put(0, r.to_bits());
        }
    }
}

/// The operation with a number; the reversed ones take their operands the other way round.
pub(super) const fn operation(number: u8) -> Binary {
    match number {
        ADD => Calculation::add,
        MUL => Calculation::multiply,
        SUB => Calculation::subtract,
        SUBR => |k, a, b| k.subtract(b, a),
        DIV => Calculation::divide,
        _ => |k, a, b| k.divide(b, a),
    }
}

fn registers<const WHAT: u8, const WHERE: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.x87_begin()?;
    c.x87_note(op);
    let i = sti(op);
    let (dst, src) = if WHERE == TO_ST0 { (0, i) } else { (i, 0) };
    c.cpu
        .x87
        .binary(dst, src, WHERE == TO_STI_POP, const { operation(WHAT) });
    Ok(())
}

fn memory<const WHAT: u8, const FORMAT: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.x87_begin()?;
    let ea = c.ea(op);
    let source = read_operand::<FORMAT>(c, ea)?;
    c.x87_note_memory(op, ea);
    c.cpu.x87.binary_with(source, const { operation(WHAT) });
    Ok(())
}

fn fsqrt(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.x87_begin()?;
    c.x87_note(op);
    c.cpu.x87.unary(Calculation::square_root);
    Ok(())
}

fn frndint(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.x87_begin()?;
    c.x87_note(op);
    c.cpu.x87.unary(Calculation::round_to_integral);
    Ok(())
}

#[rustfmt::skip]
const FORMS: &[Form] = &[
    (Code::Fadd_m32fp, 0xd800, memory::<ADD, M32FP>),
    (Code::Fmul_m32fp, 0xd808, memory::<MUL, M32FP>),
    (Code::Fsub_m32fp, 0xd820, memory::<SUB, M32FP>),
    (Code::Fsubr_m32fp, 0xd828, memory::<SUBR, M32FP>),
    (Code::Fdiv_m32fp, 0xd830, memory::<DIV, M32FP>),
    (Code::Fdivr_m32fp, 0xd838, memory::<DIVR, M32FP>),
    (Code::Fadd_m64fp, 0xdc00, memory::<ADD, M64FP>),
    (Code::Fmul_m64fp, 0xdc08, memory::<MUL, M64FP>),
    (Code::Fsub_m64fp, 0xdc20, memory::<SUB, M64FP>),
    (Code::Fsubr_m64fp, 0xdc28, memory::<SUBR, M64FP>),
    (Code::Fdiv_m64fp, 0xdc30, memory::<DIV, M64FP>),
    (Code::Fdivr_m64fp, 0xdc38, memory::<DIVR, M64FP>),
    (Code::Fiadd_m32int, 0xda00, memory::<ADD, M32INT>),
    (Code::Fimul_m32int, 0xda08, memory::<MUL, M32INT>),
    (Code::Fisub_m32int, 0xda20, memory::<SUB, M32INT>),
    (Code::Fisubr_m32int, 0xda28, memory::<SUBR, M32INT>),
    (Code::Fidiv_m32int, 0xda30, memory::<DIV, M32INT>),
    (Code::Fidivr_m32int, 0xda38, memory::<DIVR, M32INT>),
    (Code::Fiadd_m16int, 0xde00, memory::<ADD, M16INT>),
    (Code::Fimul_m16int, 0xde08, memory::<MUL, M16INT>),
    (Code::Fisub_m16int, 0xde20, memory::<SUB, M16INT>),
    (Code::Fisubr_m16int, 0xde28, memory::<SUBR, M16INT>),
    (Code::Fidiv_m16int, 0xde30, memory::<DIV, M16INT>),
    (Code::Fidivr_m16int, 0xde38, memory::<DIVR, M16INT>),
    (Code::Fadd_st0_sti, 0xd8c0, registers::<ADD, TO_ST0>),
    (Code::Fmul_st0_sti, 0xd8c8, registers::<MUL, TO_ST0>),
    (Code::Fsub_st0_sti, 0xd8e0, registers::<SUB, TO_ST0>),
    (Code::Fsubr_st0_sti, 0xd8e8, registers::<SUBR, TO_ST0>),
    (Code::Fdiv_st0_sti, 0xd8f0, registers::<DIV, TO_ST0>),
    (Code::Fdivr_st0_sti, 0xd8f8, registers::<DIVR, TO_ST0>),
    // With ST(i) as the destination, the opcodes of the reversed forms come first.
    (Code::Fadd_sti_st0, 0xdcc0, registers::<ADD, TO_STI>),
    (Code::Fmul_sti_st0, 0xdcc8, registers::<MUL, TO_STI>),
    (Code::Fsubr_sti_st0, 0xdce0, registers::<SUBR, TO_STI>),
    (Code::Fsub_sti_st0, 0xdce8, registers::<SUB, TO_STI>),
    (Code::Fdivr_sti_st0, 0xdcf0, registers::<DIVR, TO_STI>),
    (Code::Fdiv_sti_st0, 0xdcf8, registers::<DIV, TO_STI>),
    (Code::Faddp_sti_st0, 0xdec0, registers::<ADD, TO_STI_POP>),
    (Code::Fmulp_sti_st0, 0xdec8, registers::<MUL, TO_STI_POP>),
    (Code::Fsubrp_sti_st0, 0xdee0, registers::<SUBR, TO_STI_POP>),
    (Code::Fsubp_sti_st0, 0xdee8, registers::<SUB, TO_STI_POP>),
    (Code::Fdivrp_sti_st0, 0xdef0, registers::<DIVR, TO_STI_POP>),
    (Code::Fdivp_sti_st0, 0xdef8, registers::<DIV, TO_STI_POP>),
    (Code::Fsqrt, 0xd9fa, fsqrt),
    (Code::Frndint, 0xd9fc, frndint),
];

fn lower(insn: &Instruction, op: &mut Op) -> Option<Body> {
    lower_form(FORMS, insn, op)
}

/// The rows of this family.
#[rustfmt::skip]
pub const ROWS: &[(N, Lower)] = &[
    (N::Fadd, lower), (N::Faddp, lower), (N::Fiadd, lower), (N::Fmul, lower),
    (N::Fmulp, lower), (N::Fimul, lower), (N::Fsub, lower), (N::Fsubp, lower),
    (N::Fisub, lower), (N::Fsubr, lower), (N::Fsubrp, lower), (N::Fisubr, lower),
    (N::Fdiv, lower), (N::Fdivp, lower), (N::Fidiv, lower), (N::Fdivr, lower),
    (N::Fdivrp, lower), (N::Fidivr, lower), (N::Fsqrt, lower), (N::Frndint, lower),
];
