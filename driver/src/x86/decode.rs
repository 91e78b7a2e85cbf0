//! Bytes to operations.
//!
//! iced decodes; what is filled in here is common to all instructions: the memory operand, the
//! register numbers of the first two operands, the immediate. Addresses are decoded relative to
//! the block's start, so that a block is the same wherever it is mapped.

use iced_x86::{
    Code, Decoder, DecoderError, DecoderOptions, FlowControl, Instruction, OpKind, Register,
};

use super::op::{ADDR16, ADDR32, Body, HIGH_BYTE, Op, REP, REPNE, STACK32};
use super::system::undefined;
use super::table::{Table, is_offered};
use crate::core::Core;
use crate::cpu::fault::Trap;
use crate::cpu::state::{REG_BLOCK, REG_ZERO, seg};

/// Most instructions of a block.
pub const BLOCK_INSNS_MAX: usize = 48;
/// Most bytes of an instruction.
pub const INSN_BYTES_MAX: usize = 15;

/// Decoded instructions up to the next change of flow.
#[derive(Debug, Default)]
pub struct Decoded {
    /// The operations.
    pub ops: Vec<Op>,
    /// Bytes they take.
    pub len: usize,
    /// The last one sets RIP itself.
    pub sets_rip: bool,
    /// The bytes end inside the first instruction.
    pub truncated: bool,
}

/// Encodings that only newer processors give a meaning to: decoded as this CPU model does.
pub(crate) const OPTIONS: u32 =
    DecoderOptions::NO_MPFX_0FBC | DecoderOptions::NO_MPFX_0FBD | DecoderOptions::NO_WBNOINVD;

/// Decodes at most `most` instructions from the start of `bytes`, over what was decoded before;
/// `bitness` is 64, 32 or 16.
pub fn decode(out: &mut Decoded, table: &Table, bytes: &[u8], bitness: u32, most: usize) {
    let mut decoder = Decoder::with_ip(bitness, bytes, 0, OPTIONS);
    out.ops.clear();
    (out.len, out.sets_rip, out.truncated) = (0, false, false);
    let mut insn = Instruction::default();
    while out.ops.len() < most && decoder.can_decode() {
        let start = decoder.position();
        decoder.decode_out(&mut insn);
        if decoder.last_error() == DecoderError::NoMoreBytes && bytes.len() - start < INSN_BYTES_MAX
        {
            out.truncated = out.ops.is_empty();
            break;
        }
        let mut op = lower(table, &insn, bitness);
        op.offset = start as u16;
        op.len = insn.len() as u8;
        op.index_in_block = out.ops.len() as u16;
        out.ops.push(op);
        out.len = decoder.position();
        let flow = insn.flow_control();
        out.sets_rip = matches!(
            flow,
            FlowControl::UnconditionalBranch
                | FlowControl::IndirectBranch
                | FlowControl::ConditionalBranch
                | FlowControl::Return
                | FlowControl::Call
                | FlowControl::IndirectCall
        );
        if flow != FlowControl::Next {
            break;
        }
    }
}

/// One instruction.
fn lower(table: &Table, insn: &Instruction, bitness: u32) -> Op {
    let mut op = Op::new(undefined);
    if insn.is_invalid() || !is_offered(insn) {
        return op;
    }
    if bitness != 64 {
        op.prefix |= STACK32;
    }
    if insn.has_rep_prefix() {
        op.prefix |= REP;
    }
    if insn.has_repne_prefix() {
        op.prefix |= REPNE;
    }
    for operand in (0..insn.op_count()).rev() {
        match insn.op_kind(operand) {
            OpKind::Register => match operand {
                0 => op.dst = register(insn.op_register(0)),
                1 => op.src = register(insn.op_register(1)),
                _ => {}
            },
            OpKind::Memory
            | OpKind::MemorySegSI
            | OpKind::MemorySegESI
            | OpKind::MemorySegRSI
            | OpKind::MemorySegDI
            | OpKind::MemorySegEDI
            | OpKind::MemorySegRDI
            | OpKind::MemoryESDI
            | OpKind::MemoryESEDI
            | OpKind::MemoryESRDI => {
                memory(insn, operand, bitness, &mut op);
            }
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
                op.imm = insn.near_branch_target();
            }
            OpKind::FarBranch16 | OpKind::FarBranch32 => {}
            _ => op.imm = insn.immediate(operand),
        }
    }
    let body = table
        .get(insn.mnemonic())
        .and_then(|lower| lower(insn, &mut op));
    op.run = body.unwrap_or(unsupported as Body);
    op
}

/// A register's number; segment registers count from ES, control and debug registers by number.
fn register(r: Register) -> u8 {
    let number = match r {
        Register::AH | Register::CH | Register::DH | Register::BH => {
            return (r as u8 - Register::AH as u8) | HIGH_BYTE;
        }
        r if r.is_gpr() => r.full_register().number(),
        r => r.number(),
    };
    number as u8
}

/// Fills in the memory operand.
fn memory(insn: &Instruction, operand: u32, bitness: u32, op: &mut Op) {
    let kind = insn.op_kind(operand);
    let es = matches!(
        kind,
        OpKind::MemoryESDI | OpKind::MemoryESEDI | OpKind::MemoryESRDI
    );
    let segment = if es {
        Register::ES
    } else {
        insn.memory_segment()
    };
    // The destination of string instructions is looked at by the bodies themselves.
    if !(es && insn.op_count() > 1 && operand == 0 && has_source_segment(insn)) {
        op.seg = match segment {
            Register::FS => seg::FS as u8,
            Register::GS => seg::GS as u8,
            _ if bitness == 64 => seg::FLAT as u8,
            Register::ES => seg::ES as u8,
            Register::CS => seg::CS as u8,
            Register::SS => seg::SS as u8,
            _ => seg::DS as u8,
        };
    }
    match kind {
        OpKind::Memory => {}
        OpKind::MemorySegESI | OpKind::MemorySegEDI | OpKind::MemoryESEDI => {
            op.prefix |= ADDR32;
            return;
        }
        OpKind::MemorySegSI | OpKind::MemorySegDI | OpKind::MemoryESDI => {
            op.prefix |= ADDR16;
            return;
        }
        _ => return,
    }
    let (base, index) = (insn.memory_base(), insn.memory_index());
    let no_registers = base == Register::None && index == Register::None;
    let size = |r: Register, no: u32| {
        r.size() == no as usize || no_registers && insn.memory_displ_size() == no
    };
    if size(base, 2) || size(index, 2) {
        op.prefix |= ADDR16;
    } else if size(base, 4) || size(index, 4) || bitness != 64 {
        op.prefix |= ADDR32;
    }
    op.base = match base {
        Register::None => REG_ZERO,
        Register::RIP | Register::EIP => REG_BLOCK,
        r => register(r),
    };
    op.index = if index == Register::None {
        REG_ZERO
    } else {
        register(index)
    };
    op.scale = insn.memory_index_scale().trailing_zeros() as u8;
    op.disp = insn.memory_displacement64();
}

/// Whether a string instruction has a source whose segment can be chosen.
fn has_source_segment(insn: &Instruction) -> bool {
    (0..insn.op_count()).any(|i| {
        matches!(
            insn.op_kind(i),
            OpKind::MemorySegSI | OpKind::MemorySegESI | OpKind::MemorySegRSI
        )
    })
}

/// The CPU model promises this instruction and the machine does not have it.
fn unsupported(c: &mut Core, _: &Op) -> Result<(), Trap> {
    Err(c.unsupported("instruction not implemented"))
}

/// The text of the instruction in these bytes, for messages.
pub fn describe(bytes: &[u8], bitness: u32) -> String {
    use iced_x86::Formatter;
    let insn = Decoder::new(bitness, bytes, OPTIONS).decode();
    if insn.code() == Code::INVALID {
        return "(bad)".to_owned();
    }
    let mut text = String::new();
    iced_x86::IntelFormatter::new().format(&insn, &mut text);
    text
}
