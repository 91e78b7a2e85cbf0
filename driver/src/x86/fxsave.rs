//! FXSAVE and FXRSTOR: x87 and SSE state in one 512-byte area (SDM vol. 1, 10.5).

use iced_x86::{Code, Instruction, Mnemonic as N};

use super::op::{Body, Op};
use super::shape::Lower;
use crate::core::Core;
use crate::cpu::fault::{Fault, Trap};
use crate::cpu::state::seg;

/// The bits of MXCSR that can be set; what FXSAVE writes as MXCSR_MASK.
pub const MXCSR_MASK: u32 = 0xffff;
/// Bytes of the area. All are looked at before any is used, although the reserved ones after the XMM
/// registers, and those left to software, are not written.
const AREA_BYTES: u64 = 512;
/// Where the x87 registers are in the area.
const ST_OFFSET: u64 = 32;
/// Where the XMM registers are in the area.
const XMM_OFFSET: u64 = 160;

/// The address of the area, which must be aligned.
fn area(c: &mut Core, op: &Op) -> Result<u64, Trap> {
    c.x87_available()?;
    let ea = c.ea(op);
    // Its first doubleword is looked at before the alignment, as hardware does.
    c.check_canonical(ea, 4)?;
    if ea & 15 != 0 {
        return Err(c.raise(Fault::gp(0)));
    }
    c.check_canonical(ea, AREA_BYTES)?;
    Ok(ea)
}

/// In 64-bit mode there are sixteen XMM registers, else eight.
fn xmm_count(c: &Core) -> u64 {
    if c.cpu.segs[seg::CS].is_long() { 16 } else { 8 }
}

/// `WIDE`: the pointers have 64 bits; else 32 bits and a selector, which reads as zero.
fn fxsave<const WIDE: bool>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let ea = area(c, op)?;
    let xmms = xmm_count(c);
    c.check_write(ea, AREA_BYTES)?;
    let x = c.cpu.x87;
    let words = u64::from(x.control)
        | u64::from(x.status) << 16
        | u64::from(x.tags) << 32
        | u64::from(x.opcode & 0x7ff) << 48;
    let pointer_mask = if WIDE { u64::MAX } else { 0xffff_ffff };
    c.write(ea, words)?;
    c.write(ea.wrapping_add(8), x.ip & pointer_mask)?;
    c.write(ea.wrapping_add(16), x.dp & pointer_mask)?;
    let mxcsr = u64::from(c.cpu.mxcsr) | u64::from(MXCSR_MASK) << 32;
    c.write(ea.wrapping_add(24), mxcsr)?;
    for i in 0..8 {
        let (significand, high) = x.bits(i);
        let at = ea.wrapping_add(ST_OFFSET + 16 * u64::from(i));
        c.write(at, significand)?;
        c.write(at.wrapping_add(8), u64::from(high))?;
    }
    for i in 0..xmms {
        let [low, high] = c.cpu.xmm[i as usize];
        let at = ea.wrapping_add(XMM_OFFSET + 16 * i);
        c.write(at, low)?;
        c.write(at.wrapping_add(8), high)?;
    }
    Ok(())
}

fn fxrstor<const WIDE: bool>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let ea = area(c, op)?;
    let mut x = c.cpu.x87;
    let mut xmm = c.cpu.xmm;
    let words: u64 = c.read(ea)?;
    c.read::<u64>(ea.wrapping_add(AREA_BYTES - 8))?;
    let pointer_mask = if WIDE { u64::MAX } else { 0xffff_ffff };
    x.ip = c.read::<u64>(ea.wrapping_add(8))? & pointer_mask;
    x.dp = c.read::<u64>(ea.wrapping_add(16))? & pointer_mask;
    let mxcsr: u32 = c.read(ea.wrapping_add(24))?;
    x.status = (words >> 16) as u16;
    x.set_control(words as u16);
    x.tags = (words >> 32) as u8;
    x.opcode = (words >> 48) as u16 & 0x7ff;
    for i in 0..8 {
        let at = ea.wrapping_add(ST_OFFSET + 16 * u64::from(i));
        let n = x.physical(i);
        x.regs[n] = (c.read(at)?, c.read(at.wrapping_add(8))?);
    }
    for i in 0..xmm_count(c) {
        let at = ea.wrapping_add(XMM_OFFSET + 16 * i);
        xmm[i as usize] = [c.read(at)?, c.read(at.wrapping_add(8))?];
    }
    if mxcsr & !MXCSR_MASK != 0 {
        return Err(c.raise(Fault::gp(0)));
    }
    c.cpu.x87 = x;
    c.cpu.xmm = xmm;
    c.cpu.mxcsr = mxcsr;
    Ok(())
}

fn lower(insn: &Instruction, _: &mut Op) -> Option<Body> {
    Some(match insn.code() {
        Code::Fxsave_m512byte => fxsave::<false>,
        Code::Fxsave64_m512byte => fxsave::<true>,
        Code::Fxrstor_m512byte => fxrstor::<false>,
        Code::Fxrstor64_m512byte => fxrstor::<true>,
        _ => return None,
    })
}

/// The rows of this family.
pub const ROWS: &[(N, Lower)] = &[
    (N::Fxsave, lower),
    (N::Fxsave64, lower),
    (N::Fxrstor, lower),
    (N::Fxrstor64, lower),
];
