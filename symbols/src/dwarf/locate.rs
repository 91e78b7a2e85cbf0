//! Where a variable is in a frame, and the bytes that are there (DWARF 5, sections 2.5 and 2.6).

use gimli::{
    AttributeValue, Dwarf, EvaluationResult, Expression, Location, Piece, Register, Unit,
    UnitOffset, Value, ValueType,
};

use super::calls::Passed;
use super::{DebugImage, Slice};
use crate::addr::{GuestMemory, LinkAddr, ReadExt, Slide};

/// What is known of the general registers in a frame, by their DWARF numbers (x86-64 psABI,
/// figure 3.36).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameRegisters(pub [Option<u64>; 16]);

impl FrameRegisters {
    /// DWARF's number of RSP.
    pub const SP: usize = 7;
    /// DWARF's number of each register, in the order of the instruction set (RAX, RCX, RDX, RBX,
    /// RSP, RBP, RSI, RDI, R8 to R15).
    const ENCODED: [usize; 16] = [0, 2, 1, 3, 7, 6, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15];

    /// All of them, in the order of the instruction set.
    pub fn all(encoded: &[u64; 16]) -> Self {
        let mut known = [None; 16];
        for (value, number) in encoded.iter().zip(Self::ENCODED) {
            known[number] = Some(*value);
        }
        Self(known)
    }

    pub(crate) fn get(&self, register: Register) -> Option<u64> {
        *self.0.get(usize::from(register.0))?
    }
}

/// A frame of the stack, as far as it is known.
#[derive(Clone, Copy)]
pub struct FrameState<'f> {
    /// The registers.
    pub registers: FrameRegisters,
    /// The stack pointer before the call that made the frame.
    pub cfa: Option<u64>,
    /// The slide of the code.
    pub slide: Slide,
    /// The guest's memory.
    pub memory: &'f dyn GuestMemory,
    /// The frames that called it, nearest first; none in the place of one that is not known to
    /// stand at a call, or that nothing describes.
    pub callers: &'f [Option<CallerState<'f>>],
}

/// A frame that stands at a call.
#[derive(Clone, Debug)]
pub struct CallerState<'f> {
    /// What describes its code.
    pub image: &'f DebugImage,
    /// Where the call returns to.
    pub returns_to: LinkAddr,
    /// The registers that calls leave as they are.
    pub registers: FrameRegisters,
    /// The stack pointer before the call that made the frame.
    pub cfa: Option<u64>,
    /// The slide of the code.
    pub slide: Slide,
}

impl std::fmt::Debug for FrameState<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameState")
            .field("registers", &self.registers)
            .field("cfa", &self.cfa)
            .finish_non_exhaustive()
    }
}

impl CallerState<'_> {
    /// It was not guessed.
    pub const fn is_sure(&self) -> bool {
        self.registers.0[FrameRegisters::SP].is_some()
    }
}

/// Operations of one expression; a compiler's have some tens.
const MAX_STEPS: u32 = 10_000;
/// No variable of a kernel, whose stacks are 16 KiB, is larger.
const MAX_BYTES: u64 = 1 << 16;

/// Evaluates expressions of one function in one frame.
pub(super) struct Locator<'l, 'd> {
    pub(super) image: &'l DebugImage,
    pub(super) dwarf: &'l Dwarf<Slice<'d>>,
    pub(super) unit: &'l Unit<Slice<'d>>,
    pub(super) addr: u64,
    pub(super) state: &'l FrameState<'l>,
    pub(super) frame_base: Option<u64>,
    /// The function, inlined ones not counted.
    pub(super) function: Option<UnitOffset>,
}

impl<'d> Locator<'_, 'd> {
    /// The value of a `DW_AT_location`, `size` bytes; none when it is not to be had here.
    pub(super) fn bytes(&self, at: AttributeValue<Slice<'d>>, size: u64) -> Option<Vec<u8>> {
        let size = Some(size).filter(|size| (1..=MAX_BYTES).contains(size))?;
        let mut bytes = Vec::new();
        for piece in self.pieces(self.expression(at)?)? {
            let bits = piece.size_in_bits.unwrap_or(size * 8);
            let whole = bits.is_multiple_of(8) && piece.bit_offset.unwrap_or(0) == 0;
            let len = Some(bits / 8).filter(|len| whole && *len <= MAX_BYTES)?;
            bytes.extend(self.piece(&piece, usize::try_from(len).ok()?)?);
        }
        let size = usize::try_from(size).ok()?;
        (bytes.len() >= size).then(|| bytes[..size].to_vec())
    }

    /// The value of a `DW_AT_frame_base`.
    pub(super) fn base(&self, at: AttributeValue<Slice<'d>>) -> Option<u64> {
        match self.pieces(self.expression(at)?)?[..] {
            [piece] => match piece.location {
                Location::Address { address } => Some(address),
                Location::Register { register } => self.state.registers.get(register),
                _ => None,
            },
            _ => None,
        }
    }

    /// The expression that holds at this address.
    fn expression(&self, at: AttributeValue<Slice<'d>>) -> Option<Expression<Slice<'d>>> {
        if let AttributeValue::Exprloc(expression) = at {
            return Some(expression);
        }
        let mut list = self.dwarf.attr_locations(self.unit, at).ok()??;
        while let Some(entry) = list.next().ok()? {
            if (entry.range.begin..entry.range.end).contains(&self.addr) {
                return Some(entry.data);
            }
        }
        None
    }

    fn piece(&self, piece: &Piece<Slice<'d>>, len: usize) -> Option<Vec<u8>> {
        let low = |value: u64| Some(value.to_le_bytes().get(..len)?.to_vec());
        match piece.location {
            Location::Address { address } => self.state.memory.bytes_at(address, len),
            Location::Register { register } => low(self.state.registers.get(register)?),
            Location::Value {
                value: Value::F32(_) | Value::F64(_),
            } => None,
            Location::Value { value } => low(value.to_u64(u64::MAX).ok()?),
            Location::Bytes { value } => Some(value.slice().get(..len)?.to_vec()),
            Location::Empty | Location::ImplicitPointer { .. } => None,
        }
    }

    pub(super) fn pieces(
        &self,
        expression: Expression<Slice<'d>>,
    ) -> Option<Vec<Piece<Slice<'d>>>> {
        let mut evaluation = expression.evaluation(self.unit.encoding());
        evaluation.set_max_iterations(MAX_STEPS);
        let mut result = evaluation.evaluate().ok()?;
        loop {
            let next = match result {
                EvaluationResult::Complete => return Some(evaluation.result()),
                EvaluationResult::RequiresMemory {
                    address,
                    size,
                    space: None,
                    base_type,
                } => {
                    let mut bytes = [0; 8];
                    let read = bytes.get_mut(..usize::from(size))?;
                    self.state.memory.read(address, read).then_some(())?;
                    let value = self.value(base_type, u64::from_le_bytes(bytes))?;
                    evaluation.resume_with_memory(value)
                }
                EvaluationResult::RequiresRegister {
                    register,
                    base_type,
                } => {
                    let value = self.state.registers.get(register)?;
                    evaluation.resume_with_register(self.value(base_type, value)?)
                }
                EvaluationResult::RequiresFrameBase => {
                    evaluation.resume_with_frame_base(self.frame_base?)
                }
                EvaluationResult::RequiresCallFrameCfa => {
                    evaluation.resume_with_call_frame_cfa(self.state.cfa?)
                }
                EvaluationResult::RequiresRelocatedAddress(address) => {
                    evaluation.resume_with_relocated_address(self.run(address)?)
                }
                EvaluationResult::RequiresIndexedAddress { index, relocate } => {
                    let address = self.dwarf.address(self.unit, index).ok()?;
                    let address = if relocate {
                        self.run(address)?
                    } else {
                        address
                    };
                    evaluation.resume_with_indexed_address(address)
                }
                EvaluationResult::RequiresBaseType(at) => {
                    evaluation.resume_with_base_type(self.value_type(at)?)
                }
                EvaluationResult::RequiresEntryValue(of) => {
                    let value = self.entry_value(&of)?;
                    evaluation.resume_with_entry_value(Value::Generic(value))
                }
                EvaluationResult::RequiresParameterRef(at) => {
                    let value = self.passed(Passed::Parameter(at))?;
                    evaluation.resume_with_parameter_ref(value)
                }
                // The others are not of a kernel.
                _ => return None,
            };
            result = next.ok()?;
        }
    }

    /// Where the guest has it. Per-CPU addresses, which are offsets, are in no one place.
    const fn run(&self, address: u64) -> Option<u64> {
        if address >> 63 == 0 {
            return None;
        }
        Some(address.wrapping_add(self.state.slide.0))
    }

    fn value(&self, base_type: UnitOffset, value: u64) -> Option<Value> {
        Value::from_u64(self.value_type(base_type)?, value).ok()
    }

    /// Offset 0 says a number as wide as an address.
    fn value_type(&self, at: UnitOffset) -> Option<ValueType> {
        if at.0 == 0 {
            return Some(ValueType::Generic);
        }
        ValueType::from_entry(&self.unit.entry(at).ok()?).ok()?
    }
}
