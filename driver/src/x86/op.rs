//! A decoded instruction, ready to run.

use crate::core::Core;
use crate::cpu::fault::Trap;
use crate::cpu::state::REG_ZERO;

/// The body of an instruction.
pub type Body = fn(&mut Core, &Op) -> Result<(), Trap>;

/// Address size 32: the effective address is cut to 32 bits before the segment base is added.
pub const ADDR32: u8 = 1 << 0;
/// REP or REPE prefix.
pub const REP: u8 = 1 << 1;
/// REPNE prefix.
pub const REPNE: u8 = 1 << 2;
/// Not 64-bit mode: the stack pointer is ESP.
pub const STACK32: u8 = 1 << 3;

/// Address size 16: as [`ADDR32`], with 16 bits.
pub const ADDR16: u8 = 1 << 4;

/// A register operand's number has this bit when it is AH, CH, DH or BH.
pub const HIGH_BYTE: u8 = 0x40;

/// One instruction of a block.
///
/// A memory operand is `seg + (base + (index << scale) + disp)`; absent parts point to the zero
/// pseudo register, RIP-relative ones to the block register, so that no case is left to decide at
/// run time.
#[derive(Clone, Debug)]
pub struct Op {
    /// What it does.
    pub run: Body,
    /// Immediate operand, sign- or zero-extended as the instruction wants it; a branch's target
    /// relative to the block's start.
    pub imm: u64,
    /// Displacement.
    pub disp: u64,
    /// Base register.
    pub base: u8,
    /// Index register.
    pub index: u8,
    /// Shift of the index.
    pub scale: u8,
    /// Segment whose base is added.
    pub seg: u8,
    /// First register operand.
    pub dst: u8,
    /// Second register operand.
    pub src: u8,
    /// See the constants.
    pub prefix: u8,
    /// Length in bytes.
    pub len: u8,
    /// Offset of the instruction in its block, in bytes.
    pub offset: u16,
    /// Number of instructions before it in its block.
    pub index_in_block: u16,
}

impl Op {
    /// An operation without operands.
    pub fn new(run: Body) -> Self {
        Op {
            run,
            imm: 0,
            disp: 0,
            base: REG_ZERO,
            index: REG_ZERO,
            scale: 0,
            seg: crate::cpu::state::seg::FLAT as u8,
            dst: 0,
            src: 0,
            prefix: 0,
            len: 0,
            offset: 0,
            index_in_block: 0,
        }
    }

    /// Offset of the next instruction, relative to the block's start.
    #[inline(always)]
    pub fn next(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.len)
    }
}
