//! What kind of translation an instruction gets.

use iced_x86::{Code, Instruction, Mnemonic as N, OpKind, Register, RflagsBits as F};

use super::flags::{ALL, Overflow};
use super::trampoline::pinned;
use crate::cpu::state::seg;
use crate::x86::op::{ADDR32, Op, REP, REPNE, STACK32};

/// How an instruction is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Not at all: tier 0 does it.
    Untranslated,
    /// It does nothing.
    Nothing,
    /// Its own encoding, with other registers.
    Plain,
    Lea,
    Push,
    Pop,
    Leave,
    Jump,
    JumpIf,
    JumpIndirect,
    Call,
    CallIndirect,
    Return,
    /// XCHG with memory.
    Exchange,
    /// A shift or rotation by CL.
    ShiftByCl,
    Multiply,
    /// BSF and BSR.
    Scan,
    Divide,
    PushFlags,
    /// A segment's selector into a register.
    Selector,
    /// CLI, CLD and STD.
    SystemFlag,
    /// STI, which is tier 0's while an interrupt waits.
    EnableInterrupts,
    SwapGs,
    PushMemory,
    /// STOS and MOVS with a repetition that stays in one page.
    Fill,
    Copy,
    /// BT and its kin, with memory and an offset in a register.
    BitString,
    /// Moves, integers, bits and floats in XMM registers.
    Sse,
}

/// What a translation takes for granted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mode {
    /// User mode; else privilege 0.
    pub(super) user: bool,
    /// SSE instructions may run.
    pub(super) sse: bool,
    /// Floats are computed as a processor does at power-on: see [`super::state::plain_floats`].
    pub(super) floats: bool,
}

/// How memory is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Touch {
    Read,
    Write,
}

/// An instruction as the translation sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) form: Form,
    /// Its memory operand, if it has one that is translated.
    pub(super) touch: Option<Touch>,
    /// Bytes of the memory operand, or of the first operand.
    pub(super) size: u64,
    /// Flags it depends on.
    pub(super) reads: u32,
    /// Flags it changes; the others keep their values.
    pub(super) writes: u32,
    /// AF is not what tier 0 makes it.
    pub(super) clear_af: bool,
    /// What tier 0 makes of OF.
    pub(super) overflow: Overflow,
    /// The first operand is written, and the second.
    pub(super) sets: [bool; 2],
    /// The first operand's old value does not matter.
    pub(super) replaces: bool,
    /// The memory operand must be aligned to its size.
    pub(super) aligned: bool,
}

impl Shape {
    const NONE: Shape = Shape {
        form: Form::Untranslated,
        touch: None,
        size: 0,
        reads: 0,
        writes: 0,
        clear_af: false,
        overflow: Overflow::Host,
        sets: [false, false],
        replaces: false,
        aligned: false,
    };

    /// Whether all flags are in memory while it runs.
    pub(super) fn saves_flags(&self) -> bool {
        self.touch.is_some()
            || matches!(
                self.form,
                Form::Untranslated
                    | Form::Push
                    | Form::PushFlags
                    | Form::Divide
                    | Form::SystemFlag
                    | Form::EnableInterrupts
                    | Form::Fill
                    | Form::Copy
                    | Form::Pop
                    | Form::Leave
                    | Form::Jump
                    | Form::JumpIf
                    | Form::JumpIndirect
                    | Form::Call
                    | Form::CallIndirect
                    | Form::Return
            )
    }
}

/// Number of a guest general register.
pub(super) fn number(r: Register) -> u8 {
    r.full_register().number() as u8
}

fn is_high(r: Register) -> bool {
    matches!(r, Register::AH | Register::CH | Register::DH | Register::BH)
}

/// Whether a register operand is encoded without a REX prefix whatever the scratch registers are.
fn keeps_legacy(r: Register) -> bool {
    is_high(r) || pinned(number(r)).is_some_and(|n| n < 4 || n < 8 && matches!(r.size(), 2 | 4))
}

fn operand_size(insn: &Instruction, operand: u32) -> u64 {
    match insn.op_kind(operand) {
        OpKind::Register => insn.op_register(operand).size() as u64,
        OpKind::Memory => insn.memory_size().size() as u64,
        _ => 0,
    }
}

fn is_moffs(code: Code) -> bool {
    matches!(
        code,
        Code::Mov_AL_moffs8
            | Code::Mov_AX_moffs16
            | Code::Mov_EAX_moffs32
            | Code::Mov_RAX_moffs64
            | Code::Mov_moffs8_AL
            | Code::Mov_moffs16_AX
            | Code::Mov_moffs32_EAX
            | Code::Mov_moffs64_RAX
    )
}

/// Classifies an instruction. `op` is what tier 0 made of it.
pub(super) fn shape(insn: &Instruction, op: &Op, mode: Mode) -> Shape {
    let mut s = Shape::NONE;
    if op.prefix & STACK32 != 0 || insn.is_invalid() || is_moffs(insn.code()) {
        return s;
    }
    let memory = (0..insn.op_count()).find(|&i| insn.op_kind(i) == OpKind::Memory);
    if memory.is_some() && i32::try_from(op.disp as i64).is_err() {
        return s;
    }
    let mut xmm = false;
    for i in 0..insn.op_count() {
        if insn.op_kind(i) == OpKind::Register {
            let r = insn.op_register(i);
            let selector = i == 1 && r.is_segment_register() && memory.is_none();
            if !r.is_gpr() && !r.is_xmm() && !selector {
                return s;
            }
            xmm |= r.is_xmm();
        }
    }
    if xmm && !mode.sse {
        return s;
    }
    s.size = if insn.op_count() > 0 {
        operand_size(insn, memory.unwrap_or(0))
    } else {
        0
    };
    s.reads = insn.rflags_read() & ALL;
    if xmm {
        super::sse::classify(insn, &mut s, memory, mode);
    } else {
        classify(insn, op, &mut s, memory, mode);
    }
    if matches!(s.form, Form::SystemFlag | Form::PushFlags | Form::Divide) {
        (s.reads, s.writes) = (0, 0);
    }
    if s.form == Form::Nothing || s.form == Form::Untranslated {
        return Shape {
            form: s.form,
            ..Shape::NONE
        };
    }
    if memory.is_some() && s.form != Form::Lea {
        let written = memory == Some(0) && s.sets[0] || memory == Some(1) && s.sets[1];
        s.touch = Some(if written { Touch::Write } else { Touch::Read });
    }
    let registers = || {
        (0..insn.op_count())
            .filter(|&i| insn.op_kind(i) == OpKind::Register)
            .map(|i| insn.op_register(i))
    };
    if registers().any(is_high) && (s.touch.is_some() || !registers().all(keeps_legacy)) {
        s.form = Form::Untranslated;
    }
    if s.form == Form::Untranslated {
        Shape::NONE
    } else {
        s
    }
}

fn classify(insn: &Instruction, op: &Op, s: &mut Shape, memory: Option<u32>, mode: Mode) {
    let full = |s: &mut Shape, clear_af, overflow| {
        s.writes = ALL;
        s.clear_af = clear_af;
        s.overflow = overflow;
    };
    let near = |op: &Op| i32::try_from(op.imm as i64).is_ok();
    let wide_stack = insn.stack_pointer_increment().unsigned_abs() == 8;
    match insn.mnemonic() {
        N::Nop
        | N::Endbr64
        | N::Endbr32
        | N::Pause
        | N::Reservednop
        | N::Sfence
        | N::Lfence
        | N::Mfence
        | N::Prefetchnta
        | N::Prefetcht0
        | N::Prefetcht1
        | N::Prefetcht2
        | N::Prefetch
        | N::Prefetchw => s.form = Form::Nothing,
        N::Mov if insn.op_count() == 2 && insn.op1_register().is_segment_register() => {
            let whole = insn.op0_register().size() >= 4;
            s.form = if whole { Form::Selector } else { s.form };
        }
        N::Mov | N::Movzx | N::Movsx | N::Movsxd | N::Movnti => {
            s.form = Form::Plain;
            s.sets[0] = true;
            s.replaces = true;
        }
        N::Add | N::Sub | N::Adc | N::Sbb => {
            s.form = Form::Plain;
            s.sets[0] = true;
            full(s, false, Overflow::Host);
        }
        N::Cmp => {
            s.form = Form::Plain;
            full(s, false, Overflow::Host);
        }
        N::And | N::Or | N::Xor => {
            s.form = Form::Plain;
            s.sets[0] = true;
            full(s, true, Overflow::Host);
        }
        N::Test => {
            s.form = Form::Plain;
            full(s, true, Overflow::Host);
        }
        N::Inc | N::Dec => {
            s.form = Form::Plain;
            s.sets[0] = true;
            s.writes = ALL & !F::CF;
        }
        N::Neg => {
            s.form = Form::Plain;
            s.sets[0] = true;
            full(s, false, Overflow::Host);
        }
        N::Not => {
            s.form = Form::Plain;
            s.sets[0] = true;
        }
        N::Bswap if s.size >= 4 => {
            s.form = Form::Plain;
            s.sets[0] = true;
        }
        N::Cbw | N::Cwde | N::Cdqe | N::Cwd | N::Cdq | N::Cqo => s.form = Form::Plain,
        N::Clc | N::Stc | N::Cmc => {
            s.form = Form::Plain;
            s.writes = F::CF;
        }
        N::Xadd => {
            s.form = Form::Plain;
            s.sets = [true, true];
            full(s, false, Overflow::Host);
        }
        N::Cmpxchg if memory.is_some() => {
            s.form = Form::Plain;
            s.sets[0] = true;
            full(s, false, Overflow::Host);
        }
        N::Cmpxchg16b => {
            s.form = Form::Plain;
            s.sets[0] = true;
            s.writes = F::ZF;
            s.aligned = true;
        }
        N::Xchg => {
            let pinned_register = insn.op_kind(1) == OpKind::Register
                && pinned(number(insn.op1_register())).is_some();
            let simple = memory == Some(0) && pinned_register;
            s.form = if simple { Form::Exchange } else { Form::Plain };
            s.sets = [true, true];
        }
        N::Bt | N::Bts | N::Btr | N::Btc => {
            s.form = Form::Plain;
            s.sets[0] = insn.mnemonic() != N::Bt;
            s.writes = F::CF;
            if memory.is_some() && insn.op_kind(1) == OpKind::Register {
                let usable = s.size >= 4 && pinned(number(insn.op1_register())).is_some();
                s.form = if usable {
                    Form::BitString
                } else {
                    Form::Untranslated
                };
            }
        }
        N::Shl | N::Sal | N::Shr | N::Sar | N::Rol | N::Ror => shift(insn, s),
        N::Mul | N::Imul => {
            s.form = Form::Multiply;
            s.sets[0] = insn.op_count() > 1;
            s.replaces = insn.op_count() == 3;
            full(s, true, Overflow::Host);
        }
        N::Div | N::Idiv if s.size >= 4 => s.form = Form::Divide,
        N::Pushfq => s.form = Form::PushFlags,
        N::Cld | N::Std => s.form = Form::SystemFlag,
        N::Cli if !mode.user => s.form = Form::SystemFlag,
        N::Sti if !mode.user => s.form = Form::EnableInterrupts,
        N::Swapgs if !mode.user => s.form = Form::SwapGs,
        N::Stosb | N::Stosw | N::Stosd | N::Stosq => string(insn, op, s, Form::Fill),
        N::Movsb | N::Movsw | N::Movsq => string(insn, op, s, Form::Copy),
        N::Movsd if insn.is_string_instruction() => string(insn, op, s, Form::Copy),
        N::Bsf | N::Bsr if s.size >= 4 => {
            s.form = Form::Scan;
            s.sets[0] = true;
            s.replaces = true;
            full(s, true, Overflow::Host);
        }
        N::Lea if insn.op0_register().size() >= 4 => {
            s.form = Form::Lea;
            s.sets[0] = true;
        }
        N::Push if wide_stack && memory.is_none() => s.form = Form::Push,
        N::Push if wide_stack && s.size == 8 => s.form = Form::PushMemory,
        N::Pop if wide_stack && memory.is_none() && insn.op0_register() != Register::RSP => {
            s.form = Form::Pop;
        }
        N::Leave if insn.code() == Code::Leaveq => s.form = Form::Leave,
        N::Jmp if insn.is_jmp_short_or_near() && near(op) => s.form = Form::Jump,
        N::Jmp if insn.is_jmp_near_indirect() && s.size == 8 => s.form = Form::JumpIndirect,
        N::Call if insn.is_call_near() && wide_stack && near(op) => s.form = Form::Call,
        N::Call if insn.is_call_near_indirect() && s.size == 8 => s.form = Form::CallIndirect,
        N::Ret if matches!(insn.code(), Code::Retnq | Code::Retnq_imm16) => s.form = Form::Return,
        _ if insn.is_jcc_short_or_near() && near(op) => s.form = Form::JumpIf,
        _ if insn.condition_code() != iced_x86::ConditionCode::None => conditional(insn, s),
        _ => {}
    }
}

/// A repeated string instruction on flat segments.
fn string(insn: &Instruction, op: &Op, s: &mut Shape, form: Form) {
    let flat = op.seg == seg::FLAT as u8 && op.src == seg::FLAT as u8;
    if op.prefix & (REP | REPNE) != 0 && op.prefix & ADDR32 == 0 && flat {
        s.form = form;
        s.size = insn.memory_size().size() as u64;
    }
}

/// SETcc and CMOVcc.
fn conditional(insn: &Instruction, s: &mut Shape) {
    if insn.is_jcc_short_or_near() || insn.is_loop() || insn.is_jcx_short() || insn.is_loopcc() {
        return;
    }
    s.form = Form::Plain;
    s.sets[0] = true;
}

fn shift(insn: &Instruction, s: &mut Shape) {
    let rotation = matches!(insn.mnemonic(), N::Rol | N::Ror);
    s.sets[0] = true;
    s.reads = 0;
    s.writes = if rotation { F::CF | F::OF } else { ALL };
    s.clear_af = !rotation;
    if insn.op_kind(1) == OpKind::Register {
        if s.size < 4 {
            return;
        }
        s.form = Form::ShiftByCl;
        // A count of zero leaves them all.
        s.reads = ALL;
        s.overflow = match insn.mnemonic() {
            N::Shl | N::Sal => Overflow::SignXorCarry,
            N::Sar => Overflow::Clear,
            _ => Overflow::Host,
        };
        return;
    }
    let count = insn.immediate8() & if s.size == 8 { 63 } else { 31 };
    if count == 0 || u64::from(count) >= s.size * 8 {
        return;
    }
    s.form = Form::Plain;
    s.overflow = match insn.mnemonic() {
        _ if count == 1 || rotation => Overflow::Host,
        N::Shl | N::Sal => Overflow::SignXorCarry,
        _ => Overflow::Clear,
    };
}
