//! The instruction forms the oracle executes: all that iced knows of the mnemonics in the machine's
//! table, in 64-bit mode, with each kind of operand.

use colinux_driver::x86::table::{FAMILIES, is_offered};
use iced_x86::{Code, FlowControl, Instruction, Mnemonic, OpCodeOperandKind as K};

use super::exclusions;
use super::random::Kind;

/// One opcode with register or memory in the place where it has the choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) code: Code,
    pub(crate) memory: bool,
    /// The kind of values it works on.
    pub(crate) kind: Kind,
}

impl std::fmt::Display for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:?}{}",
            self.code,
            if self.memory { " (memory)" } else { "" }
        )
    }
}

/// Whether an operand is register or memory by choice.
pub(crate) fn is_choice(kind: K) -> bool {
    matches!(
        kind,
        K::r8_or_mem | K::r16_or_mem | K::r32_or_mem | K::r64_or_mem | K::mm_or_mem | K::xmm_or_mem
    )
}

/// Whether an operand is always memory.
fn is_memory(kind: K) -> bool {
    matches!(
        kind,
        K::mem | K::mem_offs | K::seg_rSI | K::es_rDI | K::seg_rDI | K::seg_rBX_al
    )
}

/// All forms of the table that are not excluded.
pub(crate) fn all() -> Vec<Form> {
    let mut forms = Vec::new();
    for code in Code::values() {
        let info = code.op_code();
        let Some(family) = family(code.mnemonic()) else {
            continue;
        };
        if !info.is_instruction()
            || !info.mode64()
            || info
                .op_kinds()
                .iter()
                .any(|k| matches!(k, K::br16_1 | K::br16_2 | K::br32_1 | K::br32_4))
            || exclusions::MNEMONICS
                .iter()
                .any(|(m, _)| *m == code.mnemonic())
            || exclusions::CODES.iter().any(|(c, _)| *c == code)
        {
            continue;
        }
        let mut instruction = Instruction::default();
        instruction.set_code(code);
        // 16-bit branches are AMD's reading of a prefix that Intel's processors ignore.
        let branches = instruction.flow_control() != FlowControl::Next;
        if !is_offered(&instruction) || branches && matches!(info.operand_size(), 16 | 32) {
            continue;
        }
        let kind = kind(family, code);
        if info.op_kinds().iter().any(|k| is_choice(*k)) {
            forms.push(Form {
                code,
                memory: false,
                kind,
            });
            forms.push(Form {
                code,
                memory: true,
                kind,
            });
        } else {
            let memory = info.op_kinds().iter().any(|k| is_memory(*k));
            forms.push(Form { code, memory, kind });
        }
    }
    forms
}

/// The family of a mnemonic in the machine's table.
pub(crate) fn family(mnemonic: Mnemonic) -> Option<&'static str> {
    FAMILIES
        .iter()
        .find(|(_, rows)| rows.iter().any(|(m, _)| *m == mnemonic))
        .map(|(name, _)| *name)
}

fn kind(family: &str, code: Code) -> Kind {
    let name = format!("{:?}", code.mnemonic()).to_lowercase();
    match family {
        "sse_float" | "sse_convert" => {
            let from = name.strip_prefix("cvt").map_or(name.as_str(), |rest| {
                let rest = rest.strip_prefix('t').unwrap_or(rest);
                rest.split('2').next().unwrap_or(rest)
            });
            match from {
                "pi" | "si" | "dq" => Kind::Integer,
                other if other.ends_with('s') && !other.ends_with("sd") => Kind::Single,
                _ => Kind::Double,
            }
        }
        f if f.starts_with("x87") => Kind::Extended,
        _ => Kind::Integer,
    }
}
