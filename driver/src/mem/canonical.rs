//! Addresses that are not canonical: #SS if the access goes through the stack segment, else #GP
//! (Intel SDM vol. 3, 6.15).
//!
//! Which segment an access goes through is not in the operations; it is so rarely asked for that
//! the instruction is simply decoded again.

use iced_x86::{Decoder, DecoderOptions, InstructionInfoFactory, Register, UsedMemory};

use super::paging::is_canonical;
use crate::core::Core;
use crate::cpu::fault::{Fault, Trap, vector};
use crate::cpu::state::seg;
use crate::x86::decode::INSN_BYTES_MAX;

impl Core {
    /// Checks an operand of `size` bytes as a whole, before any of its pages is looked at.
    #[inline]
    pub(crate) fn check_canonical(&mut self, va: u64, size: u64) -> Result<(), Trap> {
        for at in [va, va.wrapping_add(size - 1)] {
            if !is_canonical(at) {
                return Err(self.not_canonical(at));
            }
        }
        Ok(())
    }

    /// The exception of the running instruction for an access to `va`.
    #[cold]
    #[inline(never)]
    pub(crate) fn not_canonical(&mut self, va: u64) -> Trap {
        let stack = self.is_stack_access(va);
        self.raise(Fault::coded(if stack { vector::SS } else { vector::GP }, 0))
    }

    fn is_stack_access(&mut self, va: u64) -> bool {
        if !self.cpu.segs[seg::CS].is_long() {
            return false;
        }
        let rip = self.insn_rip();
        let mut bytes = [0; INSN_BYTES_MAX];
        let mut len = 0;
        while len < INSN_BYTES_MAX && self.peek(rip.wrapping_add(len as u64), &mut bytes[len..=len])
        {
            len += 1;
        }
        let mut insn = Decoder::with_ip(64, &bytes[..len], rip, DecoderOptions::NONE).decode();
        if !matches!(insn.segment_prefix(), Register::FS | Register::GS) {
            // The other overrides are ignored in 64-bit mode: the base register decides.
            insn.set_segment_prefix(Register::None);
        }
        let value = |register: Register| match register {
            Register::RIP | Register::EIP => 0,
            _ if register.is_gpr32() => self.cpu.regs[register.number()] & 0xffff_ffff,
            _ if register.is_gpr() => self.cpu.regs[register.number()],
            _ => 0,
        };
        let mut factory = InstructionInfoFactory::new();
        let accesses = factory.info(&insn).used_memory();
        let offset = |access: &UsedMemory| {
            let at = value(access.base())
                .wrapping_add(value(access.index()).wrapping_mul(u64::from(access.scale())))
                .wrapping_add(access.displacement());
            va.wrapping_sub(at)
        };
        let size = |access: &UsedMemory| access.memory_size().size() as u64;
        // The operand that begins there, else one that reaches there.
        let begins = accesses.iter().find(|access| offset(access) == 0);
        let found = begins.or_else(|| accesses.iter().find(|access| offset(access) < size(access)));
        // A bit test may reach beyond its operand.
        found.map_or(insn.memory_segment(), |access| access.segment()) == Register::SS
    }
}
