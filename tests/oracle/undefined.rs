//! What the manual leaves undefined: flags and x87 condition codes by instruction, each with the
//! section of Intel SDM vol. 2 (or the paragraph of vol. 1) that says so.

use iced_x86::{Instruction, Mnemonic as M, OpKind};

use super::state::{Case, FX_STATUS, Registers};

pub(crate) const CF: u64 = 1 << 0;
pub(crate) const PF: u64 = 1 << 2;
pub(crate) const AF: u64 = 1 << 4;
pub(crate) const ZF: u64 = 1 << 6;
pub(crate) const SF: u64 = 1 << 7;
pub(crate) const OF: u64 = 1 << 11;
const ALL: u64 = CF | PF | AF | ZF | SF | OF;

/// x87 condition codes in the status word.
const C0: u16 = 1 << 8;
const C1: u16 = 1 << 9;
const C2: u16 = 1 << 10;
const C3: u16 = 1 << 14;

/// ES: an unmasked exception is pending.
const ERROR_SUMMARY: u16 = 1 << 7;

/// Rows whose undefined flags do not depend on the operands.
const ALWAYS: &[(M, u64, &str)] = &[
    (M::And, AF, "AND, Flags Affected"),
    (M::Or, AF, "OR, Flags Affected"),
    (M::Xor, AF, "XOR, Flags Affected"),
    (M::Test, AF, "TEST, Flags Affected"),
    (M::Mul, SF | ZF | AF | PF, "MUL, Flags Affected"),
    (M::Imul, SF | ZF | AF | PF, "IMUL, Flags Affected"),
    (M::Div, ALL, "DIV, Flags Affected"),
    (M::Idiv, ALL, "IDIV, Flags Affected"),
    (M::Bsf, CF | OF | SF | AF | PF, "BSF, Flags Affected"),
    (M::Bsr, CF | OF | SF | AF | PF, "BSR, Flags Affected"),
    (M::Bt, OF | SF | AF | PF, "BT, Flags Affected"),
    (M::Bts, OF | SF | AF | PF, "BTS, Flags Affected"),
    (M::Btr, OF | SF | AF | PF, "BTR, Flags Affected"),
    (M::Btc, OF | SF | AF | PF, "BTC, Flags Affected"),
];

/// The undefined flags after an instruction that completed.
pub(crate) fn flags(insn: &Instruction, case: &Case) -> u64 {
    if let Some((_, mask, _)) = ALWAYS.iter().find(|(m, _, _)| *m == insn.mnemonic()) {
        return *mask;
    }
    let Some((count, width)) = shift_count(insn, case) else {
        return 0;
    };
    if count == 0 {
        return 0;
    }
    let overflow = if count == 1 { 0 } else { OF };
    match insn.mnemonic() {
        // SAL/SAR/SHL/SHR, Flags Affected: CF too when the count reaches the width.
        M::Shl | M::Sal | M::Shr if count >= width => AF | overflow | CF,
        M::Shl | M::Sal | M::Shr | M::Sar => AF | overflow,
        // RCL/RCR/ROL/ROR, Flags Affected.
        M::Rol | M::Ror | M::Rcl | M::Rcr => overflow,
        // SHLD and SHRD, Flags Affected: everything when the count exceeds the width.
        M::Shld | M::Shrd if count > width => ALL,
        M::Shld | M::Shrd => AF | overflow,
        _ => 0,
    }
}

/// The masked count and the operand's width, for shifts and rotates.
fn shift_count(insn: &Instruction, case: &Case) -> Option<(u64, u64)> {
    if !matches!(
        insn.mnemonic(),
        M::Shl | M::Sal | M::Shr | M::Sar | M::Rol | M::Ror | M::Rcl | M::Rcr | M::Shld | M::Shrd
    ) {
        return None;
    }
    let last = insn.op_count() - 1;
    let count = if insn.op_kind(last) == OpKind::Immediate8 {
        u64::from(insn.immediate8())
    } else {
        case.registers.gpr[1]
    };
    let bytes = match insn.op0_kind() {
        OpKind::Register => insn.op0_register().size(),
        _ => insn.memory_size().size(),
    };
    let width = 8 * bytes as u64;
    Some((count & if width == 64 { 63 } else { 31 }, width))
}

/// Whether the whole result is undefined.
pub(crate) fn result(insn: &Instruction, case: &Case) -> bool {
    match insn.mnemonic() {
        // SHLD and SHRD, Description: the count exceeds the operand's width.
        M::Shld | M::Shrd => shift_count(insn, case).is_some_and(|(count, width)| count > width),
        // BSWAP, Description: a 16-bit operand.
        M::Bswap => insn.op0_register().size() == 2,
        // BSF and BSR, Description: the source is zero. Not masked: processors of all makers leave
        // the destination, and compilers rely on it.
        _ => false,
    }
}

/// Instructions of which it is not promised whether a fault comes before the switch to MMX:
/// CVTPI2PS and its like, which use XMM and MMX registers, and MASKMOVQ.
pub(crate) fn is_mmx_conversion(insn: &Instruction) -> bool {
    matches!(
        insn.mnemonic(),
        M::Maskmovq
            | M::Cvtpi2ps
            | M::Cvtpi2pd
            | M::Cvtps2pi
            | M::Cvtpd2pi
            | M::Cvttps2pi
            | M::Cvttpd2pi
    )
}

/// Whether an x87 comparison raised an unmasked exception: makers differ in whether its answer is
/// delivered then.
fn undelivered(insn: &Instruction, after: &Registers) -> bool {
    let compares = matches!(
        insn.mnemonic(),
        M::Ftst
            | M::Fcom
            | M::Fcomp
            | M::Fcompp
            | M::Fucom
            | M::Fucomp
            | M::Fucompp
            | M::Ficom
            | M::Ficomp
            | M::Fcomi
            | M::Fcomip
            | M::Fucomi
            | M::Fucomip
    );
    compares && after.word(FX_STATUS) & ERROR_SUMMARY != 0
}

/// The status flags a comparison into them may or may not have delivered.
pub(crate) fn comparison_flags(insn: &Instruction, after: &Registers) -> u64 {
    if undelivered(insn, after) { ALL } else { 0 }
}

/// The undefined x87 condition codes (SDM vol. 1, 8.1.3.4, and each instruction's FPU Flags
/// Affected); a comparison defines all but C1, FXAM all.
pub(crate) fn condition_codes(insn: &Instruction, after: &Registers) -> u16 {
    if undelivered(insn, after) {
        return C0 | C1 | C2 | C3;
    }
    let name = format!("{:?}", insn.mnemonic());
    if !name.starts_with('F') {
        return 0;
    }
    match insn.mnemonic() {
        M::Fxam | M::Ftst | M::Fcom | M::Fcomp | M::Fcompp | M::Fucom | M::Fucomp | M::Fucompp => 0,
        M::Ficom | M::Ficomp => 0,
        // Cleared on Intel processors, as the manual says; left on AMD's.
        M::Fcomi | M::Fcomip | M::Fucomi | M::Fucomip => C1,
        M::Fprem | M::Fprem1 => 0,
        M::Fxsave | M::Fxsave64 | M::Fxrstor | M::Fxrstor64 | M::Frstor | M::Fldenv => 0,
        M::Fnsave | M::Fnstenv | M::Fnstcw | M::Fnstsw | M::Fnclex | M::Fninit | M::Fldcw => 0,
        _ => C0 | C2 | C3,
    }
}
