//! x87 moves within the unit: between stack registers, constants, signs, the stack itself.

use iced_x86::{Code, Instruction, Mnemonic as N};

use super::op::{Body, Op};
use super::shape::Lower;
use super::x87_round::Calculation;
use super::x87_round::Mode;
use super::x87_unit::{Form, lower_form};
use super::x87_value::{BIAS, Extended};
use crate::core::Core;
use crate::cpu::fault::Trap;
use crate::cpu::state::X87;

/// The stack register an instruction names besides ST(0): the last bits of its opcode.
pub(super) fn sti(op: &Op) -> u8 {
    op.imm as u8 & 7
}

impl X87 {
    /// FLD ST(i).
    pub fn duplicate(&mut self, i: u8) {
        let fault = if !self.in_use(i) {
            Some(false)
        } else if self.in_use(7) {
            Some(true)
        } else {
            None
        };
        let bits = match fault {
            Some(overflow) if self.stack_fault(overflow) => return,
            Some(_) => Extended::INDEFINITE.to_bits(),
            None => {
                self.set_c1(false);
                self.bits(i)
            }
        };
        self.push(bits);
    }

    /// FST ST(i), FSTP ST(i).
    pub fn copy_to(&mut self, i: u8, pop: bool) {
        let mut bits = self.bits(0);
        if !self.in_use(0) {
            if self.stack_fault(false) {
                return;
            }
            bits = Extended::INDEFINITE.to_bits();
        } else {
            self.set_c1(false);
        }
        self.put(i, bits);
        if pop {
            self.pop();
        }
    }

    /// FSTPNCE, which the manuals do not list: an empty ST(0) is popped without being copied.
    pub fn copy_unchecked(&mut self, i: u8) {
        self.set_c1(false);
        if self.in_use(0) {
            self.put(i, self.bits(0));
        }
        self.pop();
    }

    /// FXCH. Empty registers become indefinite first.
    pub fn exchange(&mut self, i: u8) {
        if self.in_use(0) && self.in_use(i) {
            self.set_c1(false);
        } else {
            if self.stack_fault(false) {
                return;
            }
            for n in [0, i] {
                if !self.in_use(n) {
                    self.put(n, Extended::INDEFINITE.to_bits());
                }
            }
        }
        let (a, b) = (self.bits(0), self.bits(i));
        self.put(0, b);
        self.put(i, a);
    }

    /// FCMOVcc, which leaves C1 alone.
    pub fn move_if(&mut self, i: u8, condition: bool) {
        if self.in_use(0) && self.in_use(i) {
            if condition {
                self.put(0, self.bits(i));
            }
        } else if !self.stack_fault(false) {
            self.put(0, Extended::INDEFINITE.to_bits());
        }
    }

    /// Pushes a constant.
    pub fn push_constant(&mut self, value: Extended) {
        if !self.in_use(7) {
            self.set_c1(false);
            self.push(value.to_bits());
        } else if !self.stack_fault(true) {
            self.push(Extended::INDEFINITE.to_bits());
        }
    }

    /// FABS, FCHS: no operand is invalid.
    pub fn change_sign(&mut self, change: impl FnOnce(u16) -> u16) {
        if self.in_use(0) {
            self.set_c1(false);
            let (significand, high) = self.bits(0);
            self.put(0, (significand, change(high)));
        } else if !self.stack_fault(false) {
            self.put(0, Extended::INDEFINITE.to_bits());
        }
    }
}

fn fld_sti(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.x87_begin()?;
    c.x87_note(op);
    c.cpu.x87.duplicate(sti(op));
    Ok(())
}

fn fst_sti<const POP: bool>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.x87_begin()?;
    c.x87_note(op);
    c.cpu.x87.copy_to(sti(op), POP);
    Ok(())
}

fn fstpnce(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.x87_begin()?;
    c.x87_note(op);
    c.cpu.x87.copy_unchecked(sti(op));
    Ok(())
}

fn fxch(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.x87_begin()?;
    c.x87_note(op);
    c.cpu.x87.exchange(sti(op));
    Ok(())
}

/// The conditions as in the opcode: below, equal, below or equal, unordered; then their opposites.
fn fcmov<const CC: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.x87_begin()?;
    c.x87_note(op);
    let f = &c.cpu.lazy;
    let test = match CC & 3 {
        0 => f.cf(),
        1 => f.zf(),
        2 => f.cf() || f.zf(),
        _ => f.pf(),
    };
    c.cpu.x87.move_if(sti(op), test != (CC & 4 != 0));
    Ok(())
}

/// The constants of FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2, FLDZ, in the order of the opcodes.
/// They are rounded in the mode in force, but never "inexact" (SDM vol. 2, FLD1).
pub(super) fn constant(which: u8, control: u16) -> Extended {
    // Exponent, significand to 64 bits and cut off, whether the next bit is set.
    let (exponent, significand, half) = match which {
        0 => return Extended::ONE,
        1 => (1, 0xd49a_784b_cd1b_8afe, false),
        2 => (0, 0xb8aa_3b29_5c17_f0bb, true),
        3 => (1, 0xc90f_daa2_2168_c234, true),
        4 => (-2, 0x9a20_9a84_fbcf_f798, true),
        5 => (-1, 0xb172_17f7_d1cf_79ab, true),
        _ => return Extended::zero(false),
    };
    let mode = Calculation::new(control).mode;
    let up = mode == Mode::Up || mode == Mode::Nearest && half;
    Extended::new(false, (BIAS + exponent) as u16, significand + u64::from(up))
}

fn push_constant<const WHICH: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.x87_begin()?;
    c.x87_note(op);
    let value = constant(WHICH, c.cpu.x87.control);
    c.cpu.x87.push_constant(value);
    Ok(())
}

fn fchs(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.x87_begin()?;
    c.x87_note(op);
    c.cpu.x87.change_sign(|high| high ^ 1 << 15);
    Ok(())
}

fn fabs(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.x87_begin()?;
    c.x87_note(op);
    c.cpu.x87.change_sign(|high| high & 0x7fff);
    Ok(())
}

fn turn<const N: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.x87_begin()?;
    c.x87_note(op);
    c.cpu.x87.set_c1(false);
    c.cpu.x87.rotate(N);
    Ok(())
}

/// FFREEP, which the manuals do not list, pops as well.
fn ffree<const POP: bool>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.x87_begin()?;
    c.x87_note(op);
    c.cpu.x87.set_c1(false);
    c.cpu.x87.free(sti(op));
    if POP {
        c.cpu.x87.pop();
    }
    Ok(())
}

fn fnop(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.x87_begin()?;
    c.x87_note(op);
    Ok(())
}

const FORMS: &[Form] = &[
    (Code::Fld_sti, 0xd9c0, fld_sti),
    (Code::Fst_sti, 0xddd0, fst_sti::<false>),
    (Code::Fstp_sti, 0xddd8, fst_sti::<true>),
    (Code::Fstpnce_sti, 0xd9d8, fstpnce),
    (Code::Fstp_sti_DFD0, 0xdfd0, fst_sti::<true>),
    (Code::Fstp_sti_DFD8, 0xdfd8, fst_sti::<true>),
    (Code::Fxch_st0_sti, 0xd9c8, fxch),
    (Code::Fxch_st0_sti_DDC8, 0xddc8, fxch),
    (Code::Fxch_st0_sti_DFC8, 0xdfc8, fxch),
    (Code::Fcmovb_st0_sti, 0xdac0, fcmov::<0>),
    (Code::Fcmove_st0_sti, 0xdac8, fcmov::<1>),
    (Code::Fcmovbe_st0_sti, 0xdad0, fcmov::<2>),
    (Code::Fcmovu_st0_sti, 0xdad8, fcmov::<3>),
    (Code::Fcmovnb_st0_sti, 0xdbc0, fcmov::<4>),
    (Code::Fcmovne_st0_sti, 0xdbc8, fcmov::<5>),
    (Code::Fcmovnbe_st0_sti, 0xdbd0, fcmov::<6>),
    (Code::Fcmovnu_st0_sti, 0xdbd8, fcmov::<7>),
    (Code::Fld1, 0xd9e8, push_constant::<0>),
    (Code::Fldl2t, 0xd9e9, push_constant::<1>),
    (Code::Fldl2e, 0xd9ea, push_constant::<2>),
    (Code::Fldpi, 0xd9eb, push_constant::<3>),
    (Code::Fldlg2, 0xd9ec, push_constant::<4>),
    (Code::Fldln2, 0xd9ed, push_constant::<5>),
    (Code::Fldz, 0xd9ee, push_constant::<6>),
    (Code::Fchs, 0xd9e0, fchs),
    (Code::Fabs, 0xd9e1, fabs),
    (Code::Fdecstp, 0xd9f6, turn::<7>),
    (Code::Fincstp, 0xd9f7, turn::<1>),
    (Code::Ffree_sti, 0xddc0, ffree::<false>),
    (Code::Ffreep_sti, 0xdfc0, ffree::<true>),
    (Code::Fnop, 0xd9d0, fnop),
];

/// Finds the body of a move.
pub(super) fn lower(insn: &Instruction, op: &mut Op) -> Option<Body> {
    lower_form(FORMS, insn, op)
}

/// The rows of this family, without those that also name memory.
#[rustfmt::skip]
pub const ROWS: &[(N, Lower)] = &[
    (N::Fstpnce, lower), (N::Fxch, lower), (N::Fcmovb, lower), (N::Fcmove, lower),
    (N::Fcmovbe, lower), (N::Fcmovu, lower), (N::Fcmovnb, lower), (N::Fcmovne, lower),
    (N::Fcmovnbe, lower), (N::Fcmovnu, lower), (N::Fld1, lower), (N::Fldl2t, lower),
    (N::Fldl2e, lower), (N::Fldpi, lower), (N::Fldlg2, lower), (N::Fldln2, lower),
    (N::Fldz, lower), (N::Fchs, lower), (N::Fabs, lower), (N::Fdecstp, lower),
    (N::Fincstp, lower), (N::Ffree, lower), (N::Ffreep, lower), (N::Fnop, lower),
];
