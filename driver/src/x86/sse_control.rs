//! MXCSR in and out, and what orders or hints at memory accesses.

use iced_x86::Mnemonic as N;

use super::fxsave::MXCSR_MASK;
use super::mov::nothing;
use super::op::Op;
use super::shape::Lower;
use super::sse::sse_ready;
use crate::core::Core;
use crate::cpu::fault::{Fault, Trap};

fn ldmxcsr(c: &mut Core, op: &Op) -> Result<(), Trap> {
    sse_ready(c)?;
    let ea = c.ea(op);
    let value = c.read::<u32>(ea)?;
    if value & !MXCSR_MASK != 0 {
        return Err(c.raise(Fault::gp(0)));
    }
    c.cpu.mxcsr = value;
    Ok(())
}

fn stmxcsr(c: &mut Core, op: &Op) -> Result<(), Trap> {
    sse_ready(c)?;
    let ea = c.ea(op);
    c.write(ea, c.cpu.mxcsr)
}

/// CLFLUSH has the faults of a load, and nothing else to do.
fn clflush(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let ea = c.ea(op);
    c.read::<u8>(ea)?;
    Ok(())
}

/// The rows of this family. Nothing is cached or reordered, and prefetches never fault.
#[rustfmt::skip]
pub const ROWS: &[(N, Lower)] = &[
    (N::Ldmxcsr, |_, _| Some(ldmxcsr)), (N::Stmxcsr, |_, _| Some(stmxcsr)),
    (N::Sfence, |_, _| Some(nothing)), (N::Lfence, |_, _| Some(nothing)),
    (N::Mfence, |_, _| Some(nothing)), (N::Prefetchnta, |_, _| Some(nothing)),
    (N::Prefetcht0, |_, _| Some(nothing)), (N::Prefetcht1, |_, _| Some(nothing)),
    (N::Prefetcht2, |_, _| Some(nothing)), (N::Prefetch, |_, _| Some(nothing)),
    (N::Prefetchw, |_, _| Some(nothing)), (N::Prefetchwt1, |_, _| Some(nothing)),
    (N::Clflush, |_, _| Some(clflush)),
];
