//! x87 loads and stores: FLD, FILD, FBLD, FST, FSTP, FIST, FISTP, FBSTP.

use iced_x86::{Code, Instruction, Mnemonic as N};

use super::op::{Body, Op};
use super::shape::Lower;
use super::x87_bcd::{BCD_INDEFINITE, from_bcd};
use super::x87_round::Calculation;
use super::x87_unit::{DE, Form, IE, SF, lower_form};
use super::x87_value::{Extended, Kind, is_denormal_double, is_denormal_single};
use crate::core::Core;
use crate::cpu::fault::Trap;
use crate::cpu::state::X87;

/// Memory formats.
pub(super) const M16INT: u8 = 0;
/// 32-bit integer.
pub(super) const M32INT: u8 = 1;
/// 64-bit integer.
pub(super) const M64INT: u8 = 2;
/// Single precision.
pub(super) const M32FP: u8 = 3;
/// Double precision.
pub(super) const M64FP: u8 = 4;
/// Double extended precision.
const M80FP: u8 = 5;
/// Packed decimal.
const M80BCD: u8 = 6;

/// An operand from memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Its value; signaling NaNs are still signaling.
    pub value: Extended,
    /// It was a denormal of its own format.
    pub denormal: bool,
}

/// What a store will do, worked out before memory is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored<V> {
    /// What to write; `None` if an unmasked exception forbids it.
    pub value: Option<V>,
    raised: u16,
    rounded_up: bool,
}

impl X87 {
    /// Pushes a value that came from memory. `converted`: it had another format, so that a
    /// signaling NaN or a denormal is noticed.
    pub fn load(&mut self, loaded: Loaded, converted: bool) {
        if self.in_use(7) {
            if !self.stack_fault(true) {
                self.push(Extended::INDEFINITE.to_bits());
            }
            return;
        }
        let mut value = loaded.value;
        let raised = if converted && value.kind() == Kind::Signaling {
            value = value.quieted();
            IE
        } else if converted && loaded.denormal {
            DE
        } else {
            0
        };
        self.set_c1(false);
        // A denormal is loaded even if the exception is not masked.
        if !self.signal(raised) || raised == DE {
            self.push(value.to_bits());
        }
    }

    /// Works out a store of ST(0).
    pub fn prepare_store<V>(
        &self,
        indefinite: V,
        convert: impl FnOnce(&mut Calculation, Extended) -> Option<V>,
    ) -> Stored<V> {
        let mut calculation = Calculation::full_precision(self.control);
        if !self.in_use(0) {
            let value = calculation.masked(IE).then_some(indefinite);
            return Stored {
                value,
                raised: IE | SF,
                rounded_up: false,
            };
        }
        let value = convert(&mut calculation, Extended::from_bits(self.bits(0)));
        Stored {
            value,
            raised: calculation.raised,
            rounded_up: calculation.rounded_up,
        }
    }

    /// Takes up what a store raised, and pops if asked.
    pub fn complete_store<V>(&mut self, stored: &Stored<V>, pop: bool) {
        self.set_c1(stored.rounded_up);
        self.signal(stored.raised);
        if pop && stored.value.is_some() {
            self.pop();
        }
    }
}

/// Reads a memory operand.
pub(super) fn read_operand<const FORMAT: u8>(c: &mut Core, ea: u64) -> Result<Loaded, Trap> {
    let exact = |value| Loaded {
        value,
        denormal: false,
    };
    Ok(match FORMAT {
        M16INT => exact(Extended::from_integer(i64::from(c.read::<u16>(ea)? as i16))),
        M32INT => exact(Extended::from_integer(i64::from(c.read::<u32>(ea)? as i32))),
        M64INT => exact(Extended::from_integer(c.read::<u64>(ea)? as i64)),
        M32FP => {
            let bits = c.read(ea)?;
            Loaded {
                value: Extended::from_single(bits),
                denormal: is_denormal_single(bits),
            }
        }
        M64FP => {
            let bits = c.read(ea)?;
            Loaded {
                value: Extended::from_double(bits),
                denormal: is_denormal_double(bits),
            }
        }
        _ => {
            let bits = (c.read(ea)?, c.read(ea.wrapping_add(8))?);
            exact(if FORMAT == M80BCD {
                from_bcd(bits)
            } else {
                Extended::from_bits(bits)
            })
        }
    })
}

fn load<const FORMAT: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.x87_begin()?;
    let ea = c.ea(op);
    let loaded = read_operand::<FORMAT>(c, ea)?;
    c.x87_note_memory(op, ea);
    c.cpu.x87.load(loaded, matches!(FORMAT, M32FP | M64FP));
    Ok(())
}

/// A page that cannot be written is noticed even if an unmasked exception keeps the value back.
fn store<const FORMAT: u8, const POP: bool>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.x87_begin()?;
    let ea = c.ea(op);
    let bits = match FORMAT {
        M16INT => 16,
        M32INT => 32,
        _ => 64,
    };
    match FORMAT {
        M32FP => {
            let indefinite = 0xffc0_0000;
            let s = c.cpu.x87.prepare_store(indefinite, Calculation::to_single);
            match s.value {
                Some(value) => c.write(ea, value)?,
                None => c.check_write(ea, 4)?,
            }
            c.x87_note_memory(op, ea);
            c.cpu.x87.complete_store(&s, POP);
        }
        M64FP => {
            let indefinite = 0xfff8 << 48;
            let s = c.cpu.x87.prepare_store(indefinite, Calculation::to_double);
            match s.value {
                Some(value) => c.write(ea, value)?,
                None => c.check_write(ea, 8)?,
            }
            c.x87_note_memory(op, ea);
            c.cpu.x87.complete_store(&s, POP);
        }
        M80FP | M80BCD => {
            let s = if FORMAT == M80FP {
                let indefinite = Extended::INDEFINITE.to_bits();
                c.cpu
                    .x87
                    .prepare_store(indefinite, |_, value| Some(value.to_bits()))
            } else {
                c.cpu.x87.prepare_store(BCD_INDEFINITE, Calculation::to_bcd)
            };
            c.check_write(ea, 10)?;
            if let Some((low, high)) = s.value {
                c.write(ea, low)?;
                c.write(ea.wrapping_add(8), high)?;
            }
            c.x87_note_memory(op, ea);
            c.cpu.x87.complete_store(&s, POP);
        }
        _ => {
            let indefinite = (-1i64) << (bits - 1);
            let s = c
                .cpu
                .x87
                .prepare_store(indefinite, |k, value| k.to_integer(value, bits));
            match (s.value, FORMAT) {
                (None, _) => c.check_write(ea, bits as u64 / 8)?,
                (Some(value), M16INT) => c.write(ea, value as u16)?,
                (Some(value), M32INT) => c.write(ea, value as u32)?,
                (Some(value), _) => c.write(ea, value as u64)?,
            }
            c.x87_note_memory(op, ea);
            c.cpu.x87.complete_store(&s, POP);
        }
    }
    Ok(())
}

const FORMS: &[Form] = &[
    (Code::Fld_m32fp, 0xd900, load::<M32FP>),
    (Code::Fld_m64fp, 0xdd00, load::<M64FP>),
    (Code::Fld_m80fp, 0xdb28, load::<M80FP>),
    (Code::Fild_m16int, 0xdf00, load::<M16INT>),
    (Code::Fild_m32int, 0xdb00, load::<M32INT>),
    (Code::Fild_m64int, 0xdf28, load::<M64INT>),
    (Code::Fbld_m80bcd, 0xdf20, load::<M80BCD>),
    (Code::Fst_m32fp, 0xd910, store::<M32FP, false>),
    (Code::Fst_m64fp, 0xdd10, store::<M64FP, false>),
    (Code::Fstp_m32fp, 0xd918, store::<M32FP, true>),
    (Code::Fstp_m64fp, 0xdd18, store::<M64FP, true>),
    (Code::Fstp_m80fp, 0xdb38, store::<M80FP, true>),
    (Code::Fist_m16int, 0xdf10, store::<M16INT, false>),
    (Code::Fist_m32int, 0xdb10, store::<M32INT, false>),
    (Code::Fistp_m16int, 0xdf18, store::<M16INT, true>),
    (Code::Fistp_m32int, 0xdb18, store::<M32INT, true>),
    (Code::Fistp_m64int, 0xdf38, store::<M64INT, true>),
    (Code::Fbstp_m80bcd, 0xdf30, store::<M80BCD, true>),
];

/// FLD, FST and FSTP with a stack register are moves, which see.
fn lower(insn: &Instruction, op: &mut Op) -> Option<Body> {
    lower_form(FORMS, insn, op).or_else(|| super::x87_move::lower(insn, op))
}

/// The rows of this family.
pub const ROWS: &[(N, Lower)] = &[
    (N::Fld, lower),
    (N::Fild, lower),
    (N::Fbld, lower),
    (N::Fst, lower),
    (N::Fstp, lower),
    (N::Fist, lower),
    (N::Fistp, lower),
    (N::Fbstp, lower),
];
