//! Translates repetitions of STOS and MOVS that stay in one page of the first layer of the TLB.

use std::mem::offset_of;

use super::block::Builder;
use super::emit::{Alu, Mem, S1, S2, cc};
use super::form::Touch;
use super::state::Native;
use super::trampoline::{native, system_flags};
use crate::cpu::flags;
use crate::mem::addr::PAGE_SIZE;

const RCX: u8 = 1;
const RSI: u8 = 6;
const RDI: u8 = 7;
const STOS: u8 = 0xaa;
const MOVS: u8 = 0xa4;

impl Builder<'_> {
    /// The instruction of a family, repeated, for elements of a size.
    fn repeated(&mut self, opcode: u8, size: u64) {
        let prefixes: &[u8] = match size {
            2 => &[0x66, 0xf3],
            8 => &[0xf3, 0x48],
            _ => &[0xf3],
        };
        self.asm.bytes(prefixes);
        self.asm.bytes(&[opcode | u8::from(size > 1)]);
    }

    /// Repetitions that go down or over more than a page are tier 0's.
    fn require_short(&mut self, i: usize, size: u64) {
        self.flags.save(&mut self.asm);
        self.asm.test_mem32(system_flags(), flags::DF as u32);
        self.slow_if(i, cc::NE);
        self.asm
            .alu_imm(true, Alu::Cmp, RCX, (PAGE_SIZE / size) as i32);
        self.slow_if(i, cc::A);
    }

    /// Leaves in S1 a host pointer to the elements a register points to, or leaves for tier 0.
    fn elements(&mut self, i: usize, register: u8, touch: Touch, size: u64) {
        let (tag, host) = self.entry_of(register, touch);
        let a = &mut self.asm;
        a.mov(S1, register);
        a.alu_load(Alu::Sub, S1, tag);
        a.alu_imm(true, Alu::Cmp, S1, PAGE_SIZE as i32 - 1);
        self.slow_if(i, cc::A);
        let a = &mut self.asm;
        a.lea(
            S1,
            Mem {
                base: S1,
                index: Some((RCX, size.trailing_zeros() as u8)),
                disp: 0,
            },
        );
        a.alu_imm(true, Alu::Cmp, S1, PAGE_SIZE as i32);
        self.slow_if(i, cc::A);
        let a = &mut self.asm;
        a.mov(S1, register);
        a.alu_load(Alu::Sub, S1, tag);
        a.alu_load(Alu::Add, S1, host);
    }

    pub(super) fn fill(&mut self, i: usize) {
        let size = self.shapes[i].size;
        self.require_short(i, size);
        self.elements(i, RDI, Touch::Write, size);
        self.asm.mov(S2, RDI);
        self.asm.mov(RDI, S1);
        self.repeated(STOS, size);
        self.asm.alu(true, Alu::Sub, RDI, S1);
        self.asm.alu(true, Alu::Add, RDI, S2);
        self.flags.clobbered();
    }

    pub(super) fn copy(&mut self, i: usize) {
        let size = self.shapes[i].size;
        let pointer = native(offset_of!(Native, target));
        let address = native(offset_of!(Native, target_code));
        self.require_short(i, size);
        self.elements(i, RDI, Touch::Write, size);
        self.asm.store(pointer, S1);
        self.elements(i, RSI, Touch::Read, size);
        let a = &mut self.asm;
        a.store(address, RDI);
        a.mov(S2, RSI);
        a.mov(RSI, S1);
        a.load(RDI, pointer);
        // Element by element, upward: where the two overlap, as the guest would.
        self.repeated(MOVS, size);
        let a = &mut self.asm;
        a.alu(true, Alu::Sub, RSI, S1);
        a.mov(RDI, RSI);
        a.alu_load(Alu::Add, RDI, address);
        a.alu(true, Alu::Add, RSI, S2);
        self.flags.clobbered();
    }
}
