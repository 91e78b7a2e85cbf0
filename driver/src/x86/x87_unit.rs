//! The x87 unit as its instructions see it: the register stack, the words, the gates in front.

use iced_x86::{Code, Instruction, OpKind, Register};

use super::op::{Body, Op};
use super::x87_round::Calculation;
use crate::core::Core;
use crate::cpu::fault::{Fault, Trap, vector};
use crate::cpu::state::{CR0_EM, CR0_NE, CR0_TS, X87};

/// Invalid operation.
pub const IE: u16 = 1 << 0;
/// Denormal operand.
pub const DE: u16 = 1 << 1;
/// Division by zero.
pub const ZE: u16 = 1 << 2;
/// Overflow.
pub const OE: u16 = 1 << 3;
/// Underflow.
pub const UE: u16 = 1 << 4;
/// Precision: the result was rounded.
pub const PE: u16 = 1 << 5;
/// Stack fault; comes with [`IE`].
pub const SF: u16 = 1 << 6;
/// Error summary: an unmasked exception waits.
pub const ES: u16 = 1 << 7;
/// Condition code bit 0.
pub const C0: u16 = 1 << 8;
/// Condition code bit 1.
pub const C1: u16 = 1 << 9;
/// Condition code bit 2.
pub const C2: u16 = 1 << 10;
/// Condition code bit 3.
pub const C3: u16 = 1 << 14;
/// Busy; a copy of [`ES`].
pub const BUSY: u16 = 1 << 15;
/// Where TOP is in the status word.
pub const TOP_SHIFT: u32 = 11;
/// The exceptions that can be masked.
pub const EXCEPTIONS: u16 = 0x3f;
/// Bits of the control word that can be set; bit 6 reads as one.
const CONTROL_BITS: u16 = 0x1f3f;
/// The control word's bit that always reads as one.
const CONTROL_ONE: u16 = 1 << 6;

impl X87 {
    /// The state FNINIT makes; the registers keep their bits, but all are empty.
    pub fn init(&mut self) {
        *self = X87 {
            regs: self.regs,
            ..X87::default()
        };
    }

    /// The physical number of ST(0).
    pub fn top(&self) -> u8 {
        (self.status >> TOP_SHIFT) as u8 & 7
    }

    /// Turns the stack: ST(n) becomes ST(0).
    pub fn rotate(&mut self, n: u8) {
        let top = u16::from(self.top().wrapping_add(n) & 7);
        self.status = self.status & !(7 << TOP_SHIFT) | top << TOP_SHIFT;
    }

    /// The physical number of ST(i).
    pub fn physical(&self, i: u8) -> usize {
        usize::from(self.top().wrapping_add(i) & 7)
    }

    /// Whether ST(i) is in use.
    pub fn in_use(&self, i: u8) -> bool {
        self.tags >> self.physical(i) & 1 != 0
    }

    /// The bits of ST(i), whether in use or not.
    pub fn bits(&self, i: u8) -> (u64, u16) {
        self.regs[self.physical(i)]
    }

    /// Fills ST(i).
    pub fn put(&mut self, i: u8, bits: (u64, u16)) {
        let n = self.physical(i);
        self.regs[n] = bits;
        self.tags |= 1 << n;
    }

    /// Empties ST(i).
    pub fn free(&mut self, i: u8) {
        self.tags &= !(1 << self.physical(i));
    }

    /// Empties ST(0) and turns the stack.
    pub fn pop(&mut self) {
        self.free(0);
        self.rotate(1);
    }

    /// Turns the stack and fills ST(0).
    pub fn push(&mut self, bits: (u64, u16)) {
        self.rotate(7);
        self.put(0, bits);
    }

    /// Replaces the control word.
    pub fn set_control(&mut self, value: u16) {
        self.control = value & CONTROL_BITS | CONTROL_ONE;
        self.summarize();
    }

    /// Replaces the status word.
    pub fn set_status(&mut self, value: u16) {
        self.status = value;
        self.summarize();
    }

    /// Makes ES and B say whether an unmasked exception waits.
    pub fn summarize(&mut self) {
        self.status &= !(ES | BUSY);
        if self.status & !self.control & EXCEPTIONS != 0 {
            self.status |= ES | BUSY;
        }
    }

    /// Sets C1 alone.
    pub fn set_c1(&mut self, on: bool) {
        self.status = self.status & !C1 | if on { C1 } else { 0 };
    }

    /// Sets all four condition code bits.
    pub fn set_conditions(&mut self, bits: u16) {
        self.status = self.status & !(C0 | C1 | C2 | C3) | bits;
    }

    /// Raises exceptions; true if one of them is not masked.
    pub fn signal(&mut self, exceptions: u16) -> bool {
        self.status |= exceptions;
        self.summarize();
        exceptions & !self.control & EXCEPTIONS != 0
    }

    /// Takes up what a calculation raised; true if its result is to be delivered. Unmasked invalid,
    /// denormal and divide-by-zero exceptions come before the calculation, which then raises
    /// nothing more.
    pub fn settle(&mut self, calculation: &Calculation) -> bool {
        const BEFORE: u16 = IE | DE | ZE;
        let stopped = calculation.raised & BEFORE & !self.control != 0;
        self.set_c1(!stopped && calculation.rounded_up);
        self.signal(calculation.raised & if stopped { BEFORE } else { EXCEPTIONS });
        !stopped
    }

    /// Raises a stack fault, with C1 telling overflow from underflow; true if it is not masked.
    pub fn stack_fault(&mut self, overflow: bool) -> bool {
        self.set_c1(overflow);
        self.signal(IE | SF)
    }
}

impl Core {
    /// The gate of every x87 instruction: #NM unless there is a unit and it holds this task's
    /// registers.
    pub(super) fn x87_available(&mut self) -> Result<(), Trap> {
        if self.cpu.cr0 & (CR0_EM | CR0_TS) != 0 {
            return Err(self.raise(Fault::plain(vector::NM)));
        }
        Ok(())
    }

    /// The gate of the waiting instructions: #MF if an earlier one left an unmasked exception.
    pub(super) fn x87_wait(&mut self) -> Result<(), Trap> {
        if self.cpu.x87.status & ES == 0 {
            return Ok(());
        }
        if self.cpu.cr0 & CR0_NE == 0 {
            return Err(self.unsupported("an x87 exception through FERR# (CR0.NE is clear)"));
        }
        Err(self.raise(Fault::plain(vector::MF)))
    }

    /// Both gates.
    pub(super) fn x87_begin(&mut self) -> Result<(), Trap> {
        self.x87_available()?;
        self.x87_wait()
    }

    /// Notes the last instruction without a memory operand.
    pub(super) fn x87_note(&mut self, op: &Op) {
        self.cpu.x87.ip = self.insn_rip();
        self.cpu.x87.opcode = op.imm as u16;
    }

    /// Notes the last instruction and its memory operand. The pointer is the operand's offset in
    /// its segment.
    pub(super) fn x87_note_memory(&mut self, op: &Op, ea: u64) {
        self.x87_note(op);
        self.cpu.x87.dp = ea.wrapping_sub(self.cpu.segs[op.seg as usize % 7].base);
    }
}

/// One form of an instruction: its first byte and its ModRM byte, with a stack register of zero or,
/// for a memory operand, only the register field; and its body.
pub(super) type Form = (Code, u16, Body);

/// Finds the body of a form, and puts the opcode into the immediate, where the body finds it for
/// the last-opcode register.
pub(super) fn lower_form(forms: &[Form], insn: &Instruction, op: &mut Op) -> Option<Body> {
    let &(_, opcode, body) = forms.iter().find(|f| f.0 == insn.code())?;
    op.imm = u64::from(last_opcode(insn, opcode));
    Some(body)
}

/// The eleven bits the last-opcode register keeps: three of the first byte, and the ModRM byte,
/// which the decoder does not hand out. It follows from the operands, as assemblers encode them.
fn last_opcode(insn: &Instruction, opcode: u16) -> u16 {
    let mut modrm = opcode & 0xff;
    for i in 0..insn.op_count() {
        match insn.op_kind(i) {
            OpKind::Memory => modrm |= memory_modrm(insn),
            OpKind::Register => {
                let r = insn.op_register(i);
                if r.is_st() {
                    modrm |= r.number() as u16;
                }
            }
            _ => {}
        }
    }
    (opcode >> 8 & 7) << 8 | modrm
}

/// The mod and r/m fields of a memory operand.
fn memory_modrm(insn: &Instruction) -> u16 {
    let base = insn.memory_base();
    if base.is_ip() {
        return 5;
    }
    let has_index = insn.memory_index() != Register::None;
    if base == Register::None {
        return if has_index || insn.memory_displ_size() == 8 {
            4
        } else {
            5
        };
    }
    let mode = match insn.memory_displ_size() {
        0 => 0,
        1 => 1 << 6,
        _ => 2 << 6,
    };
    let number = base.number() as u16 & 7;
    mode | if has_index { 4 } else { number }
}
