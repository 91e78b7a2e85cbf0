//! The table of all instructions: mnemonic to lowering.

use iced_x86::{CpuidFeature as F, Instruction, Mnemonic};

use super::shape::Lower;

/// All families.
pub const FAMILIES: &[(&str, &[(Mnemonic, Lower)])] = &[
    ("arith", super::arith::ROWS),
    ("atomic", super::atomic::ROWS),
    ("bits", super::bits::ROWS),
    ("branch", super::branch::ROWS),
    ("cond", super::cond::ROWS),
    ("far", super::far::ROWS),
    ("flagops", super::flagops::ROWS),
    ("fxsave", super::fxsave::ROWS),
    ("io", super::io::ROWS),
    ("mmx", super::mmx::ROWS),
    ("mov", super::mov::ROWS),
    ("muldiv", super::muldiv::ROWS),
    ("segload", super::segload::ROWS),
    ("shift", super::shift::ROWS),
    ("sse_control", super::sse_control::ROWS),
    ("sse_convert", super::sse_convert::ROWS),
    ("sse_float", super::sse_float::ROWS),
    ("sse_int", super::sse_int::ROWS),
    ("sse_mov", super::sse_mov::ROWS),
    ("sse_shuffle", super::sse_shuffle::ROWS),
    ("stack", super::stack::ROWS),
    ("string", super::string::ROWS),
    ("system", super::system::ROWS),
    ("x87_arith", super::x87_arith::ROWS),
    ("x87_compare", super::x87_compare::ROWS),
    ("x87_env", super::x87_env::ROWS),
    ("x87_load", super::x87_load::ROWS),
    ("x87_math", super::x87_math::ROWS),
    ("x87_move", super::x87_move::ROWS),
    ("x87_partial", super::x87_partial::ROWS),
];

/// What the CPU model has, in iced's terms. An instruction of anything else is an invalid opcode.
#[rustfmt::skip]
const FEATURES: &[F] = &[
    F::INTEL8086, F::INTEL186, F::INTEL286, F::INTEL386, F::INTEL486, F::X64, F::CPUID, F::FPU,
    F::FPU287, F::FPU387, F::CMOV, F::CX8, F::CMPXCHG16B, F::CLFSH, F::FXSR, F::MMX, F::SSE,
    F::SSE2, F::MSR, F::TSC, F::RDTSCP, F::SYSCALL, F::MULTIBYTENOP, F::PAUSE, F::SEP, F::CET_IBT,
    F::CET_SS, F::PREFETCHW, F::RDPMC, F::INTEL8086_ONLY, F::INTEL286_ONLY, F::INTEL386_ONLY,
    F::D3NOW,
];

/// Whether the CPU model has everything an instruction needs.
pub fn is_offered(insn: &Instruction) -> bool {
    // CET is not offered, but its hints are encoded as NOPs and must be so on older processors.
    let hint = matches!(
        insn.mnemonic(),
        Mnemonic::Endbr32 | Mnemonic::Endbr64 | Mnemonic::Rdsspd | Mnemonic::Rdsspq
    );
    // PREFETCHW is listed under 3DNow!, and a NOP on processors without it.
    let prefetch = matches!(insn.mnemonic(), Mnemonic::Prefetch | Mnemonic::Prefetchw);
    hint || prefetch
        || insn
            .cpuid_features()
            .iter()
            .all(|f| FEATURES.contains(f) && !matches!(f, F::CET_SS | F::CET_IBT | F::D3NOW))
}

/// The table, indexed by mnemonic.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Option<Lower>>,
}

impl Default for Table {
    fn default() -> Self {
        let mut rows: Vec<Option<Lower>> = vec![None; Mnemonic::values().len()];
        for (_, family) in FAMILIES {
            for &(mnemonic, lower) in *family {
                rows[mnemonic as usize] = Some(lower);
            }
        }
        Table { rows }
    }
}

impl Table {
    /// The lowering of a mnemonic.
    pub fn get(&self, mnemonic: Mnemonic) -> Option<Lower> {
        self.rows.get(mnemonic as usize).copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mnemonic_has_one_row() {
        let mut seen = std::collections::BTreeMap::new();
        for (family, rows) in FAMILIES {
            for (mnemonic, _) in *rows {
                if let Some(other) = seen.insert(*mnemonic, *family) {
                    panic!("{mnemonic:?} is in {other} and {family}");
                }
            }
        }
    }
}
