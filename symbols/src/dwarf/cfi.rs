//! The registers of a caller, by `.debug_frame` (DWARF 5, section 6.4).

use gimli::{BaseAddresses, CfaRule, Register, RegisterRule, UnwindContext, UnwindSection};

use super::{DebugImage, FrameRegisters, FrameState};
use crate::addr::{LinkAddr, ReadExt};

/// Those that a function leaves as it found them unless its table says where it saved them: RBX,
/// RBP, R12 to R15 (x86-64 psABI, section 3.2.1).
const KEPT: [usize; 6] = [3, 6, 12, 13, 14, 15];

impl DebugImage {
    /// What is known of the caller's registers, besides its stack pointer, at a call from the
    /// frame that stands at `addr`. Nothing where no table describes the code, or the table says
    /// another stack pointer than the unwinder.
    pub fn caller_registers(&self, addr: LinkAddr, state: &FrameState<'_>) -> FrameRegisters {
        let mut known = FrameRegisters::default();
        if let Some(cfa) = state.cfa {
            known = self.restore(addr, state, cfa).unwrap_or_default();
            known.0[FrameRegisters::SP] = Some(cfa);
        }
        known
    }

    fn restore(&self, addr: LinkAddr, state: &FrameState<'_>, cfa: u64) -> Option<FrameRegisters> {
        let dwarf = self.dwarf_frames();
        let mut context = UnwindContext::new();
        let row = dwarf
            .unwind_info_for_address(
                &BaseAddresses::default(),
                &mut context,
                addr.0,
                gimli::DebugFrame::cie_from_offset,
            )
            .ok()?;
        if let CfaRule::RegisterAndOffset { register, offset } = row.cfa() {
            let base = state.registers.get(*register);
            let same = base.is_none_or(|base| base.wrapping_add_signed(*offset) == cfa);
            same.then_some(())?;
        }
        let mut known = FrameRegisters::default();
        for number in KEPT {
            let own = state.registers.0[number];
            known.0[number] = match row.register(Register(number as u16)) {
                None | Some(RegisterRule::SameValue) => own,
                Some(RegisterRule::Offset(at)) => state.memory.u64_at(cfa.wrapping_add_signed(at)),
                Some(RegisterRule::ValOffset(at)) => Some(cfa.wrapping_add_signed(at)),
                Some(RegisterRule::Register(other)) => state.registers.get(other),
                Some(_) => None,
            };
        }
        Some(known)
    }
}
