//! Translates single instructions.

use std::mem::offset_of;

use iced_x86::{Instruction, OpKind, Register};

use super::block::{Builder, JumpTarget};
use super::emit::{GUEST_SP, Mem, RBP, S1, S2};
use super::flags::{ALL, Overflow};
use super::form::{Form, Touch, number};
use super::state::Native;
use super::trampoline::{guest, native, pinned};
use crate::cpu::state::REG_BLOCK;
use crate::x86::op::ADDR32;

/// The register of a width (in bytes) with a number.
pub(super) fn sized(n: u8, size: usize) -> Register {
    const BYTES: [Register; 16] = [
        Register::AL,
        Register::CL,
        Register::DL,
        Register::BL,
        Register::SPL,
        Register::BPL,
        Register::SIL,
        Register::DIL,
        Register::R8L,
        Register::R9L,
        Register::R10L,
        Register::R11L,
        Register::R12L,
        Register::R13L,
        Register::R14L,
        Register::R15L,
    ];
    let first = match size {
        1 => return BYTES[n as usize & 15],
        2 => Register::AX,
        4 => Register::EAX,
        _ => Register::RAX,
    };
    Register::try_from(first as usize + (n as usize & 15)).unwrap_or(Register::None)
}

/// Makes the memory operand, if there is one, what S1 points to.
pub(super) fn aim_at_pointer(insn: &mut Instruction, at: i32) {
    if (0..insn.op_count()).any(|k| insn.op_kind(k) == OpKind::Memory) {
        insn.set_memory_base(Register::R13);
        insn.set_memory_index(Register::None);
        insn.set_memory_index_scale(1);
        insn.set_memory_displacement64(i64::from(at) as u64);
        insn.set_memory_displ_size(if at == 0 { 0 } else { 8 });
    }
}

/// What remains to be done for a register operand that lives in memory.
#[derive(Clone, Copy)]
struct Resident {
    register: u8,
    scratch: u8,
    load: bool,
    store: bool,
}

impl Builder<'_> {
    pub(super) fn instruction(&mut self, i: usize) -> Option<()> {
        match self.shapes[i].form {
            Form::Untranslated => self.untranslated(i),
            Form::Nothing => {}
            Form::Plain => self.plain(i)?,
            Form::Lea => self.lea(i),
            Form::Push => self.push_operand(i),
            Form::Pop => self.pop(i),
            Form::Leave => self.leave(i),
            Form::Jump => {
                self.flags.save(&mut self.asm);
                self.exit(self.ops[i].imm as i64);
            }
            Form::JumpIf => self.jump_if(i),
            Form::JumpIndirect => {
                self.indirect_target(i);
                self.find_target(i, Some(0));
                self.jump_to_target();
            }
            Form::Call => {
                self.push(i, |b| b.return_address(i));
                self.flags.save(&mut self.asm);
                self.exit(self.ops[i].imm as i64);
            }
            Form::CallIndirect => self.call_indirect(i),
            Form::Return => self.ret(i),
            Form::Exchange => self.exchange(i),
            Form::ShiftByCl => self.shift_by_cl(i)?,
            Form::Multiply => self.multiply(i)?,
            Form::Scan => self.scan(i)?,
            Form::Divide => self.divide(i),
            Form::PushFlags => self.push_flags(i),
            Form::Selector => self.selector(i),
            Form::SystemFlag => self.system_flag(i),
            Form::EnableInterrupts => self.enable_interrupts(i),
            Form::SwapGs => self.swap_gs(),
            Form::PushMemory => self.push_memory(i),
            Form::Fill => self.fill(i),
            Form::Copy => self.copy(i),
            Form::BitString => self.bit_string(i),
            Form::Sse => self.sse(i)?,
        }
        Some(())
    }

    /// The instruction with its registers replaced, its memory operand being where S1 points.
    fn rewritten(&mut self, i: usize) -> Option<(Vec<u8>, [Option<Resident>; 2])> {
        let grouped = self.in_group();
        let shape = &self.shapes[i];
        let mut insn: Instruction = self.insns[i];
        insn.set_has_lock_prefix(false);
        insn.set_has_rep_prefix(false);
        insn.set_has_repne_prefix(false);
        insn.set_segment_prefix(Register::None);
        aim_at_pointer(&mut insn, self.displacement(i));
        let mut resident = [None, None];
        for k in 0..insn.op_count() {
            if insn.op_kind(k) != OpKind::Register {
                continue;
            }
            let r = insn.op_register(k);
            if matches!(r, Register::AH | Register::CH | Register::DH | Register::BH) {
                continue;
            }
            let n = number(r);
            let host = match pinned(n) {
                Some(host) => host,
                None => {
                    let sets = k < 2 && shape.sets[k as usize];
                    let replaced = k == 0 && shape.replaces && r.size() >= 4;
                    let known = (resident[0])
                        .filter(|o: &Resident| o.register == n)
                        .map(|o| o.scratch);
                    let second = grouped || shape.touch.is_some() || resident[0].is_some();
                    let scratch = known.unwrap_or(if second { S2 } else { S1 });
                    let slot = usize::from(resident[0].is_some());
                    if resident[slot].is_some() {
                        return None;
                    }
                    resident[slot] = Some(Resident {
                        register: n,
                        scratch,
                        load: !replaced,
                        store: sets,
                    });
                    scratch
                }
            };
            insn.set_op_register(k, sized(host, r.size()));
        }
        // The same register twice, once only written: it must be loaded for the other use.
        if let [Some(a), Some(b)] = &mut resident
            && a.register == b.register
        {
            a.load |= b.load;
            a.store |= b.store;
            resident[1] = None;
        }
        self.encoder.encode(&insn, 0).ok()?;
        Some((self.encoder.take_buffer(), resident))
    }

    fn load_resident(&mut self, resident: &[Option<Resident>; 2]) {
        for r in resident.iter().flatten().filter(|r| r.load) {
            self.asm.load(r.scratch, guest(r.register));
        }
    }

    fn store_resident(&mut self, resident: &[Option<Resident>; 2]) {
        for r in resident.iter().flatten().filter(|r| r.store) {
            self.asm.store(guest(r.register), r.scratch);
        }
    }

    fn plain(&mut self, i: usize) -> Option<()> {
        let shape = self.shapes[i];
        let (code, resident) = self.rewritten(i)?;
        if let Some(touch) = shape.touch {
            self.access_operand(i, touch, shape.size);
            if shape.aligned && !self.in_group() {
                self.require_alignment(i);
            }
        }
        let kept = if shape.writes != 0 && !self.dead[i] {
            ALL & !shape.writes
        } else {
            0
        };
        self.flags.need(&mut self.asm, shape.reads | kept);
        self.load_resident(&resident);
        self.asm.bytes(&code);
        self.store_resident(&resident);
        if shape.writes != 0 {
            if self.dead[i] {
                self.flags.written(false, Overflow::Host);
            } else {
                self.flags.written(shape.clear_af, shape.overflow);
            }
        }
        Some(())
    }

    fn lea(&mut self, i: usize) {
        let to = self.insns[i].op0_register();
        let n = number(to);
        let host = pinned(n).unwrap_or(S1);
        let narrow = to.size() == 4 || self.ops[i].prefix & ADDR32 != 0;
        if self.ops[i].base == REG_BLOCK && pinned(n).is_some() {
            // S1 may be in use.
            let disp = self.ops[i].disp as i64 as i32;
            self.asm.load(host, guest(REG_BLOCK));
            if narrow {
                self.asm.lea32(host, Mem::at(host, disp));
            } else {
                self.asm.lea(host, Mem::at(host, disp));
            }
            return;
        }
        self.offset(i, host, narrow);
        if pinned(n).is_none() {
            self.asm.store(guest(n), host);
        }
    }

    fn push_operand(&mut self, i: usize) {
        let insn = self.insns[i];
        if insn.op_kind(0) == OpKind::Register {
            let n = number(insn.op0_register());
            self.push(i, |b| b.value(n, S2));
        } else {
            let imm = self.ops[i].imm as i64 as i32;
            self.push(i, |b| {
                b.asm.mov_imm(S2, imm);
                S2
            });
        }
    }

    fn push_memory(&mut self, i: usize) {
        self.access_operand(i, Touch::Read, 8);
        let value = native(offset_of!(Native, target));
        self.asm.load(S1, self.operand());
        self.asm.store(value, S1);
        self.push(i, |b| {
            b.asm.load(S2, value);
            S2
        });
    }

    fn pop(&mut self, i: usize) {
        self.access_stack(i, Touch::Read, 0);
        let n = number(self.insns[i].op0_register());
        let host = pinned(n).unwrap_or(S2);
        self.asm.load(host, self.operand());
        if pinned(n).is_none() {
            self.asm.store(guest(n), host);
        }
        self.asm.lea(GUEST_SP, Mem::at(GUEST_SP, 8));
    }

    fn leave(&mut self, i: usize) {
        self.flags.save(&mut self.asm);
        self.asm.mov(S1, RBP);
        self.access(i, Touch::Read, 8);
        self.asm.lea(GUEST_SP, Mem::at(RBP, 8));
        self.asm.load(RBP, Mem::at(S1, 0));
    }

    fn jump_if(&mut self, i: usize) {
        self.flags.save(&mut self.asm);
        self.flags.need(&mut self.asm, self.shapes[i].reads);
        // The encoding of the condition is in the low bits of the opcode, short or near.
        let condition = self.insns[i].condition_code() as u8 - 1;
        let taken = self.asm.jcc(condition);
        self.exit(self.ops[i].next() as i64);
        self.asm.bind(taken);
        self.exit(self.ops[i].imm as i64);
    }

    /// The target of an indirect jump or call, in S1.
    fn indirect_target(&mut self, i: usize) {
        self.flags.save(&mut self.asm);
        if self.insns[i].op_kind(0) == OpKind::Register {
            let n = number(self.insns[i].op0_register());
            let from = self.value(n, S1);
            if from != S1 {
                self.asm.mov(S1, from);
            }
        } else {
            self.access_operand(i, Touch::Read, 8);
            self.asm.load(S1, Mem::at(S1, 0));
        }
    }

    fn call_indirect(&mut self, i: usize) {
        self.indirect_target(i);
        self.find_target(i, None);
        let target = native(offset_of!(Native, target));
        let code = native(offset_of!(Native, target_code));
        self.asm.store(target, S1);
        self.asm
            .load(S2, Mem::at(S2, offset_of!(JumpTarget, code) as i32));
        self.asm.store(code, S2);
        self.flags.clobbered();
        self.push(i, |b| b.return_address(i));
        self.asm.load(S1, target);
        self.asm.store(guest(REG_BLOCK), S1);
        self.asm.jmp_mem(code);
    }

    fn ret(&mut self, i: usize) {
        self.access_stack(i, Touch::Read, 0);
        self.flags.save(&mut self.asm);
        self.asm.load(S1, self.operand());
        let drop = 8 + self.ops[i].imm as i32;
        self.find_target(i, Some(drop));
        self.asm.lea(GUEST_SP, Mem::at(GUEST_SP, drop));
        self.jump_to_target();
    }

    /// XCHG of memory and a pinned register, without the bus lock that nobody needs.
    fn exchange(&mut self, i: usize) {
        let size = self.shapes[i].size;
        self.access_operand(i, Touch::Write, size);
        let register = number(self.insns[i].op1_register());
        let host = self.value(register, S2);
        self.asm.load_sized(S2, Mem::at(S1, 0), size);
        self.asm.store_sized(Mem::at(S1, 0), host, size);
        self.asm.mov_sized(host, S2, size);
    }

    fn shift_by_cl(&mut self, i: usize) -> Option<()> {
        let shape = self.shapes[i];
        let (code, resident) = self.rewritten(i)?;
        if let Some(touch) = shape.touch {
            self.access_operand(i, touch, shape.size);
        }
        if self.dead[i] {
            self.load_resident(&resident);
            self.asm.bytes(&code);
            self.store_resident(&resident);
            self.flags.written(false, Overflow::Host);
            return Some(());
        }
        self.flags.save(&mut self.asm);
        self.load_resident(&resident);
        self.asm.test8_imm(1, if shape.size == 8 { 63 } else { 31 });
        let none = self.asm.jcc(super::emit::cc::E);
        self.flags.clobbered();
        self.flags.need(&mut self.asm, ALL & !shape.writes);
        self.asm.bytes(&code);
        self.flags.written(shape.clear_af, shape.overflow);
        // S2 is only a resident register's while memory is touched, and that one is CL's holder.
        self.flags.save(&mut self.asm);
        let done = self.asm.jmp();
        self.asm.bind(none);
        self.asm.bytes(&code);
        self.asm.bind(done);
        self.store_resident(&resident);
        self.flags.clobbered();
        Some(())
    }

    fn multiply(&mut self, i: usize) -> Option<()> {
        let shape = self.shapes[i];
        let (code, resident) = self.rewritten(i)?;
        let insn = &self.insns[i];
        let one = insn.op_count() == 1;
        let n = if one { 0 } else { number(insn.op0_register()) };
        let size = if one {
            shape.size
        } else {
            insn.op0_register().size() as u64
        };
        if let Some(touch) = shape.touch {
            self.access_operand(i, touch, shape.size);
        }
        self.load_resident(&resident);
        self.asm.bytes(&code);
        self.store_resident(&resident);
        if self.dead[i] {
            self.flags.written(false, Overflow::Host);
        } else {
            self.save_product_flags(pinned(n).ok_or_else(|| guest(n)), size);
        }
        Some(())
    }

    fn scan(&mut self, i: usize) -> Option<()> {
        let shape = self.shapes[i];
        let mut insn = self.insns[i];
        let size = insn.op0_register().size();
        let to = number(insn.op0_register());
        let from = if insn.op_kind(1) == OpKind::Memory {
            self.access_operand(i, Touch::Read, shape.size);
            self.asm.load_sized(S1, Mem::at(S1, 0), shape.size);
            S1
        } else {
            let n = number(insn.op1_register());
            self.value(n, S1)
        };
        insn.set_has_lock_prefix(false);
        insn.set_has_rep_prefix(false);
        insn.set_has_repne_prefix(false);
        insn.set_segment_prefix(Register::None);
        self.asm.test_sized(from, size as u64);
        if self.dead[i] {
            self.flags.written(false, Overflow::Host);
        } else {
            self.flags.written(shape.clear_af, shape.overflow);
            self.flags.save(&mut self.asm);
        }
        let zero = self.asm.jcc(super::emit::cc::E);
        let host = pinned(to).unwrap_or(S2);
        self.asm.bytes(&scan_code(
            insn.mnemonic() == iced_x86::Mnemonic::Bsr,
            size,
            host,
            from,
        ));
        if pinned(to).is_none() {
            self.asm.store(guest(to), host);
        }
        self.asm.bind(zero);
        if !self.dead[i] {
            self.flags.clobbered();
        }
        Some(())
    }
}

/// BSF or BSR of registers, without a prefix that would make it something newer.
fn scan_code(reverse: bool, size: usize, to: u8, from: u8) -> [u8; 4] {
    let rex = 0x40 | u8::from(size == 8) << 3 | (to >> 3) << 2 | from >> 3;
    [
        rex,
        0x0f,
        0xbc | u8::from(reverse),
        0xc0 | (to & 7) << 3 | from & 7,
    ]
}
