//! Translates divisions, bit strings, and what touches system flags and segments.

use std::mem::offset_of;

use iced_x86::{Mnemonic as N, OpKind};

use super::block::Builder;
use super::emit::{Alu, Mem, RAX, S1, S2, cc};
use super::flags::{ALL, Overflow};
use super::form::{Touch, number};
use super::state::Native;
use super::trampoline::{
    guest, kernel_gs_base, native, pinned, segment_base, selector, system_flags,
};
use crate::cpu::flags;
use crate::cpu::state::seg;

const RDX: u8 = 2;

impl Builder<'_> {
    /// Divisions that cannot fail; the others are tier 0's. Flags stay as they were.
    pub(super) fn divide(&mut self, i: usize) {
        self.flags.save(&mut self.asm);
        let size = self.shapes[i].size;
        let wide = size == 8;
        let by = if self.shapes[i].touch.is_some() {
            self.access_operand(i, Touch::Read, size);
            self.asm.load_sized(S1, Mem::at(S1, 0), size);
            S1
        } else {
            let n = number(self.insns[i].op0_register());
            self.value(n, S1)
        };
        if self.insns[i].mnemonic() == N::Div {
            // The quotient fits if the upper half is below the divisor.
            self.asm.alu(wide, Alu::Cmp, RDX, by);
            self.slow_if(i, cc::AE);
            self.asm.divide(wide, 6, by);
        } else {
            // The dividend is a sign-extended RAX, the divisor neither 0 nor -1.
            self.asm.mov_sized(S2, RAX, size);
            self.asm.shift_imm(wide, 7, S2, if wide { 63 } else { 31 });
            self.asm.alu(wide, Alu::Cmp, S2, RDX);
            self.slow_if(i, cc::NE);
            if wide {
                self.asm.lea(S2, Mem::at(by, 1));
            } else {
                self.asm.lea32(S2, Mem::at(by, 1));
            }
            self.asm.alu_imm(wide, Alu::Cmp, S2, 1);
            self.slow_if(i, cc::BE);
            self.asm.divide(wide, 7, by);
        }
        self.flags.clobbered();
    }

    pub(super) fn push_flags(&mut self, i: usize) {
        self.push(i, |b| {
            b.flags.need(&mut b.asm, ALL);
            b.asm.bytes(&[0x9c, 0x41, 0x5e]); // pushfq; pop S2
            b.asm.alu_imm(false, Alu::And, S2, flags::STATUS as i32);
            b.asm.alu_load(Alu::Or, S2, system_flags());
            b.flags.clobbered();
            S2
        });
    }

    pub(super) fn selector(&mut self, i: usize) {
        let insn = &self.insns[i];
        let (n, segment) = (
            number(insn.op0_register()),
            insn.op1_register().number() as u8,
        );
        let host = pinned(n).unwrap_or(S2);
        self.asm.load_u16(host, selector(segment));
        if pinned(n).is_none() {
            self.asm.store(guest(n), host);
        }
    }

    pub(super) fn system_flag(&mut self, i: usize) {
        self.flags.save(&mut self.asm);
        let (op, flag) = match self.insns[i].mnemonic() {
            N::Cli => (Alu::And, !flags::IF),
            N::Cld => (Alu::And, !flags::DF),
            _ => (Alu::Or, flags::DF),
        };
        self.asm.alu_store_imm(op, system_flags(), flag as i32);
        self.flags.clobbered();
    }

    /// STI opens the window after the instruction that follows. While that is one of the same block
    /// and no interrupt waits, nothing can come in between.
    pub(super) fn enable_interrupts(&mut self, i: usize) {
        if i + 1 == self.ops.len() {
            self.untranslated(i);
            return;
        }
        self.flags.save(&mut self.asm);
        self.asm.test_mem32(system_flags(), flags::IF as u32);
        let done = self.asm.jcc(cc::NE);
        self.asm
            .cmp_zero_sized(native(offset_of!(Native, quiet)), 4);
        self.slow_if(i, cc::E);
        self.asm
            .alu_store_imm(Alu::Or, system_flags(), flags::IF as i32);
        self.asm.bind(done);
        self.flags.clobbered();
    }

    pub(super) fn swap_gs(&mut self) {
        let (base, kernel) = (segment_base(seg::GS as u8), kernel_gs_base());
        self.asm.load(S1, base);
        self.asm.load(S2, kernel);
        self.asm.store(kernel, S1);
        self.asm.store(base, S2);
    }

    pub(super) fn bit_string(&mut self, i: usize) {
        let shape = self.shapes[i];
        let insn = &self.insns[i];
        debug_assert_eq!(insn.op_kind(1), OpKind::Register);
        let bit = self.value(number(insn.op1_register()), S2);
        let kind = match insn.mnemonic() {
            N::Bt => 0xa3,
            N::Bts => 0xab,
            N::Btr => 0xb3,
            _ => 0xbb,
        };
        let touch = if shape.sets[0] {
            Touch::Write
        } else {
            Touch::Read
        };
        self.access_bit_string(i, touch, shape.size, bit);
        if !self.dead[i] {
            self.flags.need(&mut self.asm, ALL & !shape.writes);
        }
        self.asm.load_sized(S2, Mem::at(S1, 0), shape.size);
        self.asm.bit_test(shape.size == 8, kind, S2, bit);
        if shape.sets[0] {
            self.asm.store_sized(Mem::at(S1, 0), S2, shape.size);
        }
        self.flags.written(false, Overflow::Host);
    }
}
