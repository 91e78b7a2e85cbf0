//! Instructions as text.

use std::fmt;

use colinux_symbols::GuestMemory;
use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Formatter, Instruction, IntelFormatter, SymbolResolver,
    SymbolResult,
};

/// The longest instruction (SDM vol. 2, section 2.3.11).
const LONGEST: usize = 15;

/// Where an instruction leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// To the next one.
    Next,
    /// Somewhere, and back behind it: a call or software interrupt.
    Call,
    /// Back to a caller, or out of a handler.
    Return,
    /// Elsewhere, always or under a condition.
    Jump,
    /// Nowhere: it is no instruction.
    Invalid,
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Insn {
    /// Where it is.
    pub address: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its text, with names where there are any.
    pub text: String,
    /// Where it leads.
    pub flow: Flow,
    /// Where a jump or call goes, if the instruction itself says so.
    pub target: Option<u64>,
}

impl Insn {
    /// The address of the next one.
    pub fn next(&self) -> u64 {
        self.address.wrapping_add(self.bytes.len() as u64)
    }
}

/// Names an address: `function+0x10`.
struct Names<F>(F);

impl<F: Fn(u64) -> Option<String>> SymbolResolver for Names<F> {
    fn symbol(
        &mut self,
        _: &Instruction,
        _: u32,
        _: Option<u32>,
        address: u64,
        size: u32,
    ) -> Option<SymbolResult<'_>> {
        // Narrow immediates are no addresses.
        if size < 4 {
            return None;
        }
        Some(SymbolResult::with_string(address, (self.0)(address)?))
    }
}

/// Makes text of instructions.
pub struct Disassembler(IntelFormatter);

impl fmt::Debug for Disassembler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disassembler").finish_non_exhaustive()
    }
}

impl Disassembler {
    /// With names for addresses, such as `function+0x10`.
    pub fn new(name_of: impl Fn(u64) -> Option<String> + 'static) -> Self {
        let mut formatter = IntelFormatter::with_options(Some(Box::new(Names(name_of))), None);
        let options = formatter.options_mut();
        options.set_hex_prefix("0x");
        options.set_hex_suffix("");
        options.set_uppercase_hex(false);
        options.set_space_after_operand_separator(true);
        options.set_branch_leading_zeros(false);
        options.set_show_branch_size(false);
        Disassembler(formatter)
    }

    /// So many instructions from an address on, as far as memory is there.
    pub fn run<M: GuestMemory + ?Sized>(
        &mut self,
        memory: &M,
        address: u64,
        bits: u32,
        count: usize,
    ) -> Vec<Insn> {
        let mut insns = Vec::with_capacity(count);
        let mut at = address;
        while insns.len() < count {
            let window = read_up_to(memory, at);
            if window.is_empty() {
                break;
            }
            let mut decoder = Decoder::with_ip(bits, &window, at, DecoderOptions::NONE);
            let insn = decoder.decode();
            let len = if insn.is_invalid() { 1 } else { insn.len() };
            let bytes = window[..len].to_vec();
            let mut text = String::new();
            if insn.is_invalid() {
                text = format!("(bad) {:02x}", bytes[0]);
            } else {
                self.0.format(&insn, &mut text);
            }
            insns.push(Insn {
                address: at,
                bytes,
                text,
                flow: flow(&insn),
                target: target(&insn),
            });
            at = at.wrapping_add(len as u64);
        }
        insns
    }
}

/// As many bytes of one instruction as are mapped.
fn read_up_to<M: GuestMemory + ?Sized>(memory: &M, at: u64) -> Vec<u8> {
    let mut window = vec![0; LONGEST];
    if memory.read(at, &mut window) {
        return window;
    }
    // The next page is not there: up to it.
    let room = usize::try_from(0x1000 - (at & 0xfff)).unwrap_or(LONGEST);
    window.truncate(room.min(LONGEST));
    if !memory.read(at, &mut window) {
        window.clear();
    }
    window
}

fn flow(insn: &Instruction) -> Flow {
    if insn.is_invalid() {
        return Flow::Invalid;
    }
    match insn.flow_control() {
        FlowControl::Next | FlowControl::XbeginXabortXend => Flow::Next,
        FlowControl::Call | FlowControl::IndirectCall | FlowControl::Interrupt => Flow::Call,
        FlowControl::Return => Flow::Return,
        FlowControl::UnconditionalBranch
        | FlowControl::IndirectBranch
        | FlowControl::ConditionalBranch => Flow::Jump,
        FlowControl::Exception => Flow::Jump,
    }
}

fn target(insn: &Instruction) -> Option<u64> {
    let near = insn.near_branch_target();
    (near != 0).then_some(near)
}

#[cfg(test)]
mod tests {
    use colinux_symbols::memory::SparseMemory;

    use super::*;

    #[test]
    fn instructions_have_names_and_lead_somewhere() {
        let mut memory = SparseMemory::default();
        // call +0; ret; jz -2; ud2; mov rax, [rip+0x10]; an invalid byte at the end of what is there
        let code = b"\xe8\0\0\0\0\xc3\x74\xfe\x0f\x0b\x48\x8b\x05\x10\0\0\0\x06";
        // Up to the end of a page, behind which there is nothing.
        let start = 0xffff_ffff_8100_1000 - code.len() as u64;
        memory.put(start, code);
        let name = move |a: u64| (a == start + 5).then(|| "there".to_owned());
        let insns = Disassembler::new(name).run(&memory, start, 64, 99);
        let text: Vec<&str> = insns.iter().map(|i| i.text.as_str()).collect();
        assert_eq!(
            text,
            [
                "call there",
                "ret",
                "je 0xffffffff81000ff4",
                "ud2",
                "mov rax, [0xffffffff8100100f]",
                "(bad) 06"
            ]
        );
        let flow: Vec<Flow> = insns.iter().map(|i| i.flow).collect();
        assert_eq!(
            flow,
            [
                Flow::Call,
                Flow::Return,
                Flow::Jump,
                Flow::Jump,
                Flow::Next,
                Flow::Invalid
            ]
        );
        assert_eq!(insns[0].target, Some(insns[0].next()));
        assert_eq!(insns.last().unwrap().next(), 0xffff_ffff_8100_1000);
    }
}
