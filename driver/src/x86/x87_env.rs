//! x87 control: initialization, the control and status words, the environment, the whole state.

use iced_x86::{Code, Instruction, Mnemonic as N};

use super::op::{Body, Op};
use super::shape::Lower;
use super::x87_unit::{BUSY, ES, EXCEPTIONS, Form, SF, lower_form};
use crate::core::Core;
use crate::cpu::fault::{Fault, Trap, vector};
use crate::cpu::state::{CR0_MP, CR0_TS, X87};

/// Bytes of the environment in its 32-bit and 16-bit forms.
const ENV_BYTES: [u64; 2] = [28, 14];
/// The reserved upper halves of the environment's words.
const RESERVED: u32 = 0xffff_0000;

/// Exponent and significand decide a register's tag: valid, zero, special, empty (SDM vol. 1,
/// 8.1.7).
fn tag(x: &X87, n: usize) -> u16 {
    let (significand, high) = x.regs[n];
    match (x.tags >> n & 1, high & 0x7fff) {
        (0, _) => 3,
        (_, 0) if significand == 0 => 1,
        (_, 0 | 0x7fff) => 2,
        _ if significand >> 63 == 0 => 2,
        _ => 0,
    }
}

/// The tag word with two bits per register.
fn tag_word(x: &X87) -> u16 {
    (0..8).fold(0, |word, n| word | tag(x, n) << (2 * n))
}

/// Of a loaded tag word only "empty" counts; the rest follows from the registers.
fn tags_of(word: u16) -> u8 {
    (0..8).fold(0, |tags, n| tags | u8::from(word >> (2 * n) & 3 != 3) << n)
}

fn fninit(c: &mut Core, _: &Op) -> Result<(), Trap> {
    c.x87_available()?;
    c.cpu.x87.init();
    Ok(())
}

fn fnclex(c: &mut Core, _: &Op) -> Result<(), Trap> {
    c.x87_available()?;
    c.cpu.x87.status &= !(EXCEPTIONS | SF | ES | BUSY);
    Ok(())
}

/// FNENI, FNDISI, FNSETPM: instructions of the 8087 and 80287 that do nothing since.
fn obsolete(c: &mut Core, _: &Op) -> Result<(), Trap> {
    c.x87_available()
}

fn fnstcw(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.x87_available()?;
    let ea = c.ea(op);
    c.write(ea, c.cpu.x87.control)
}

fn fnstsw(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.x87_available()?;
    let ea = c.ea(op);
    c.write(ea, c.cpu.x87.status)
}

fn fnstsw_ax(c: &mut Core, _: &Op) -> Result<(), Trap> {
    c.x87_available()?;
    c.set_reg(0, c.cpu.x87.status);
    Ok(())
}

fn fldcw(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.x87_begin()?;
    let ea = c.ea(op);
    let value = c.read(ea)?;
    c.cpu.x87.set_control(value);
    Ok(())
}

/// WAIT does nothing but look for what waits; it heeds TS only together with MP.
fn wait(c: &mut Core, _: &Op) -> Result<(), Trap> {
    if c.cpu.cr0 & (CR0_MP | CR0_TS) == CR0_MP | CR0_TS {
        return Err(c.raise(Fault::plain(vector::NM)));
    }
    c.x87_wait()
}

/// Writes the environment; the caller has checked that this cannot fault.
fn write_env<const SHORT: usize>(c: &mut Core, ea: u64) -> Result<(), Trap> {
    let x = c.cpu.x87;
    if SHORT == 1 {
        let words = [
            x.control,
            x.status,
            tag_word(&x),
            x.ip as u16,
            0,
            x.dp as u16,
            0,
        ];
        for (i, word) in words.into_iter().enumerate() {
            c.write(ea.wrapping_add(2 * i as u64), word)?;
        }
    } else {
        let words = [
            RESERVED | u32::from(x.control),
            RESERVED | u32::from(x.status),
            RESERVED | u32::from(tag_word(&x)),
            x.ip as u32,
            u32::from(x.opcode & 0x7ff) << 16,
            x.dp as u32,
            RESERVED,
        ];
        for (i, word) in words.into_iter().enumerate() {
            c.write(ea.wrapping_add(4 * i as u64), word)?;
        }
    }
    Ok(())
}

/// Reads the environment into a copy of the unit.
fn read_env<const SHORT: usize>(c: &mut Core, ea: u64) -> Result<X87, Trap> {
    let mut x = c.cpu.x87;
    let mut words = [0u32; 7];
    for (i, word) in words.iter_mut().enumerate() {
        *word = if SHORT == 1 {
            u32::from(c.read::<u16>(ea.wrapping_add(2 * i as u64))?)
        } else {
            c.read(ea.wrapping_add(4 * i as u64))?
        };
    }
    x.status = words[1] as u16;
    x.set_control(words[0] as u16);
    x.tags = tags_of(words[2] as u16);
    x.ip = u64::from(words[3]);
    x.dp = u64::from(words[5]);
    x.opcode = if SHORT == 1 {
        0
    } else {
        (words[4] >> 16) as u16 & 0x7ff
    };
    Ok(x)
}

/// FNSTENV also masks all exceptions.
fn fnstenv<const SHORT: usize>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.x87_available()?;
    let ea = c.ea(op);
    c.check_write(ea, ENV_BYTES[SHORT])?;
    write_env::<SHORT>(c, ea)?;
    c.cpu.x87.control |= EXCEPTIONS;
    c.cpu.x87.summarize();
    Ok(())
}

fn fldenv<const SHORT: usize>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.x87_begin()?;
    let ea = c.ea(op);
    c.cpu.x87 = read_env::<SHORT>(c, ea)?;
    Ok(())
}

/// FNSAVE also initializes.
fn fnsave<const SHORT: usize>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.x87_available()?;
    let ea = c.ea(op);
    c.check_write(ea, ENV_BYTES[SHORT] + 80)?;
    write_env::<SHORT>(c, ea)?;
    for i in 0..8 {
        let (significand, high) = c.cpu.x87.bits(i);
        let at = ea.wrapping_add(ENV_BYTES[SHORT] + 10 * u64::from(i));
        c.write(at, significand)?;
        c.write(at.wrapping_add(8), high)?;
    }
    c.cpu.x87.init();
    Ok(())
}

fn frstor<const SHORT: usize>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.x87_begin()?;
    let ea = c.ea(op);
    let mut x = read_env::<SHORT>(c, ea)?;
    for i in 0..8 {
        let at = ea.wrapping_add(ENV_BYTES[SHORT] + 10 * u64::from(i));
        let n = x.physical(i);
        x.regs[n] = (c.read(at)?, c.read(at.wrapping_add(8))?);
    }
    c.cpu.x87 = x;
    Ok(())
}

const FORMS: &[Form] = &[
    (Code::Wait, 0x9b00, wait),
    (Code::Fninit, 0xdbe3, fninit),
    (Code::Fnclex, 0xdbe2, fnclex),
    (Code::Fneni, 0xdbe0, obsolete),
    (Code::Fndisi, 0xdbe1, obsolete),
    (Code::Fnsetpm, 0xdbe4, obsolete),
    (Code::Fnstcw_m2byte, 0xd938, fnstcw),
    (Code::Fnstsw_m2byte, 0xdd38, fnstsw),
    (Code::Fnstsw_AX, 0xdfe0, fnstsw_ax),
    (Code::Fldcw_m2byte, 0xd928, fldcw),
    (Code::Fnstenv_m14byte, 0xd930, fnstenv::<1>),
    (Code::Fnstenv_m28byte, 0xd930, fnstenv::<0>),
    (Code::Fldenv_m14byte, 0xd920, fldenv::<1>),
    (Code::Fldenv_m28byte, 0xd920, fldenv::<0>),
    (Code::Fnsave_m94byte, 0xdd30, fnsave::<1>),
    (Code::Fnsave_m108byte, 0xdd30, fnsave::<0>),
    (Code::Frstor_m94byte, 0xdd20, frstor::<1>),
    (Code::Frstor_m108byte, 0xdd20, frstor::<0>),
];

/// The forms that begin with WAIT (FINIT, FSTCW and so on) are two instructions to the decoder.
fn lower(insn: &Instruction, op: &mut Op) -> Option<Body> {
    lower_form(FORMS, insn, op)
}

/// The rows of this family.
#[rustfmt::skip]
pub const ROWS: &[(N, Lower)] = &[
    (N::Wait, lower), (N::Fninit, lower), (N::Fnclex, lower), (N::Fneni, lower),
    (N::Fndisi, lower), (N::Fnsetpm, lower), (N::Fnstcw, lower), (N::Fnstsw, lower),
    (N::Fldcw, lower), (N::Fnstenv, lower), (N::Fldenv, lower), (N::Fnsave, lower),
    (N::Frstor, lower),
];
