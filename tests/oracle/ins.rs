//! The one-line cases of `tests/ins/*.ins`.
//!
//! A line is `bytes | text | before | after`. The text is what the disassembler says of the bytes.
//! `before` and `after` are lists of `place=value`; all registers and memory not named before are
//! zero (but RSP, in the middle of the data), all not named after are unchanged (but RIP, behind the
//! instruction). A value is a sum of numbers and the names `data`, `ro` (the read-only page behind
//! it), `end` (behind that, nothing is mapped), `code` (the instruction) and `next` (behind it);
//! `?` after means undefined. Places are 64-bit registers, `xmm0` to `xmm15`, `mxcsr`, `ds`, `es`,
//! flags (`cf`, …) and memory as `b[…]`, `w[…]`, `d[…]`, `q[…]`. Before, `ring0` goes to the kernel's
//! privilege and `rip=…` moves the instruction. After, `#GP(0)`, `#PF(6,data-1)`, `#UD`, `int(3)`
//! stand for a fault, at the instruction; there is nothing else to say then, but what a repetition
//! did before it.

use super::layout::{CODE, DATA, DATA_BYTES, PAGE, READ_ONLY};
use super::state::{Case, End, FX_MXCSR, FX_XMM, Outcome, Registers};

/// Where the instruction is unless RIP is given.
const HERE: u64 = CODE + 0x100;
/// RSP unless it is given.
const STACK: u64 = DATA + 0x1800;
/// IF and the bit that is always set.
const FLAGS: u64 = 0x202;

const GPR: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];
const FLAG: [(&str, u32); 9] = [
    ("cf", 0),
    ("pf", 2),
    ("af", 4),
    ("zf", 6),
    ("sf", 7),
    ("if", 9),
    ("df", 10),
    ("of", 11),
    ("ac", 18),
];
const VECTOR: [(&str, u64); 12] = [
    ("#DE", 0),
    ("#DB", 1),
    ("#BP", 3),
    ("#OF", 4),
    ("#UD", 6),
    ("#NM", 7),
    ("#NP", 11),
    ("#SS", 12),
    ("#GP", 13),
    ("#PF", 14),
    ("#MF", 16),
    ("#XM", 19),
];

/// One line, parsed.
pub(crate) struct Line {
    /// Where it is, for messages.
    pub(crate) place: String,
    pub(crate) text: String,
    pub(crate) case: Box<Case>,
    pub(crate) privilege: u8,
    outcome: Outcome,
    after: Registers,
    memory: Box<[u8; DATA_BYTES]>,
    /// Undefined flags.
    undefined_flags: u64,
    /// Undefined general registers.
    undefined: Vec<usize>,
}

/// Parses a file; the error names the line.
pub(crate) fn parse(name: &str, content: &str) -> Result<Vec<Line>, String> {
    let mut lines = Vec::new();
    for (i, line) in content.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let place = format!("{name}:{}", i + 1);
        lines.push(parse_line(&place, line).map_err(|e| format!("{place}: {e}: {line}"))?);
    }
    Ok(lines)
}

fn parse_line(place: &str, line: &str) -> Result<Line, String> {
    let columns: Vec<&str> = line.split('|').map(str::trim).collect();
    let [bytes, text, before, after] = columns[..] else {
        return Err("not four columns".to_owned());
    };
    let bytes: Vec<u8> = bytes
        .split_whitespace()
        .map(|b| u8::from_str_radix(b, 16).map_err(|e| e.to_string()))
        .collect::<Result<_, _>>()?;
    if bytes.len() > 15 {
        return Err("more than 15 bytes".to_owned());
    }
    let mut code = [0; 16];
    code[..bytes.len()].copy_from_slice(&bytes);
    let mut registers = Registers::new();
    registers.rip = HERE;
    registers.rflags = FLAGS;
    registers.gpr[4] = STACK;
    let mut memory = Box::new([0; DATA_BYTES]);
    let mut privilege = 3;
    for item in before.split_whitespace() {
        if item == "ring0" {
            privilege = 0;
            continue;
        }
        let (what, value) = item.split_once('=').ok_or("no value")?;
        let here = registers.rip;
        let value = number(value, here, here + bytes.len() as u64)?;
        set(what, value, &mut registers, &mut memory)?;
    }
    let case = Box::new(Case {
        registers,
        code,
        code_len: bytes.len() as u64,
        memory: *memory,
    });
    let mut parsed = Line {
        place: place.to_owned(),
        text: text.to_owned(),
        case,
        privilege,
        outcome: Outcome::Done,
        after: registers,
        memory,
        undefined_flags: 0,
        undefined: Vec::new(),
    };
    let (here, next) = (registers.rip, registers.rip + bytes.len() as u64);
    parsed.after.rip = next;
    for item in after.split_whitespace() {
        expect(&mut parsed, item, here, next)?;
    }
    Ok(parsed)
}

fn expect(line: &mut Line, item: &str, here: u64, next: u64) -> Result<(), String> {
    let inside = |item: &str| -> Result<Vec<u64>, String> {
        let Some((_, rest)) = item.split_once('(') else {
            return Ok(Vec::new());
        };
        let list = rest.strip_suffix(')').ok_or("no closing parenthesis")?;
        list.split(',')
            .map(|n| number(n, here, next).map(|v| v as u64))
            .collect()
    };
    if item.starts_with('#') || item.starts_with("int(") {
        let given = inside(item)?;
        let at = |i: usize| given.get(i).copied().unwrap_or(0);
        line.outcome = match VECTOR.iter().find(|(name, _)| item.starts_with(name)) {
            Some((_, vector)) => Outcome::Fault(*vector, at(0), at(1)),
            None if item.starts_with("int(") => Outcome::Fault(at(0), 0, 0),
            None => return Err(format!("unknown fault {item}")),
        };
        line.after.rip = here;
        return Ok(());
    }
    let (what, value) = item.split_once('=').ok_or("no value")?;
    if value == "?" {
        if let Some(i) = GPR.iter().position(|r| *r == what) {
            line.undefined.push(i);
        } else {
            let (_, bit) = FLAG
                .iter()
                .find(|(f, _)| *f == what)
                .ok_or("not a register or flag")?;
            line.undefined_flags |= 1 << bit;
        }
        return Ok(());
    }
    set(
        what,
        number(value, here, next)?,
        &mut line.after,
        &mut line.memory,
    )
}

/// A sum of numbers and names.
fn number(text: &str, here: u64, next: u64) -> Result<u128, String> {
    let mut sum = 0u128;
    let mut rest = text;
    let mut negative = false;
    loop {
        if let Some(tail) = rest.strip_prefix('-') {
            negative = true;
            rest = tail;
        }
        let end = rest.find(['+', '-']).unwrap_or(rest.len());
        let term = rest[..end].replace('_', "");
        let value = match term.as_str() {
            "data" => u128::from(DATA),
            "ro" => u128::from(READ_ONLY),
            "end" => u128::from(READ_ONLY + PAGE),
            "code" => u128::from(here),
            "next" => u128::from(next),
            other => match other.strip_prefix("0x") {
                Some(hex) => u128::from_str_radix(hex, 16).map_err(|e| format!("{term}: {e}"))?,
                None => other.parse().map_err(|e| format!("{term}: {e}"))?,
            },
        };
        sum = if negative {
            sum.wrapping_sub(value)
        } else {
            sum.wrapping_add(value)
        };
        negative = rest[end..].starts_with('-');
        match rest.get(end + 1..) {
            Some(tail) => rest = tail,
            None => return Ok(sum),
        }
    }
}

fn set(
    what: &str,
    value: u128,
    r: &mut Registers,
    memory: &mut [u8; DATA_BYTES],
) -> Result<(), String> {
    if let Some(i) = GPR.iter().position(|name| *name == what) {
        r.gpr[i] = value as u64;
    } else if let Some((_, bit)) = FLAG.iter().find(|(name, _)| *name == what) {
        r.rflags = r.rflags & !(1 << bit) | (value as u64 & 1) << bit;
    } else if let Some((size, address)) = what.strip_suffix(']').and_then(|w| w.split_once('[')) {
        let len = match size {
            "b" => 1,
            "w" => 2,
            "d" => 4,
            "q" => 8,
            "o" => 16,
            _ => return Err(format!("unknown size {size}")),
        };
        let at = (number(address, r.rip, r.rip)? as u64).wrapping_sub(DATA) as usize;
        let place = memory
            .get_mut(at..at + len)
            .ok_or("not in the writable pages")?;
        place.copy_from_slice(&value.to_le_bytes()[..len]);
    } else if let Some(n) = what.strip_prefix("xmm") {
        let n: usize = n.parse().map_err(|_| "no such register")?;
        r.put(FX_XMM + 16 * n, &value.to_le_bytes());
    } else {
        match what {
            "rip" => r.rip = value as u64,
            "mxcsr" => r.put(FX_MXCSR, &(value as u32).to_le_bytes()),
            "ds" => r.ds = value as u64,
            "es" => r.es = value as u64,
            _ => return Err(format!("unknown place {what}")),
        }
    }
    Ok(())
}

/// What differs between an end and the line's right side.
pub(crate) fn check(line: &Line, end: &End) -> Vec<String> {
    const COMPARED_FLAGS: u64 = 0x4_0fd5;
    let mut out = Vec::new();
    if end.outcome != line.outcome {
        out.push(format!("{:x?} instead of {:x?}", end.outcome, line.outcome));
    }
    let mut note = |what: &str, wanted: u64, got: u64| {
        if wanted != got {
            out.push(format!("{what}={got:#x} instead of {wanted:#x}"));
        }
    };
    for (i, name) in GPR
        .iter()
        .enumerate()
        .filter(|(i, _)| !line.undefined.contains(i))
    {
        note(name, line.after.gpr[i], end.registers.gpr[i]);
    }
    let flags = COMPARED_FLAGS & !line.undefined_flags;
    for (name, bit) in FLAG.iter().filter(|(_, bit)| flags >> bit & 1 != 0) {
        note(
            name,
            line.after.rflags >> bit & 1,
            end.registers.rflags >> bit & 1,
        );
    }
    note("rip", line.after.rip, end.registers.rip);
    note("ds", line.after.ds, end.registers.ds);
    note("es", line.after.es, end.registers.es);
    note(
        "mxcsr",
        line.after.mxcsr().into(),
        end.registers.mxcsr().into(),
    );
    for i in 0..16 {
        for (half, name) in ["low", "high"].iter().enumerate() {
            let name = format!("xmm{i} {name}");
            note(&name, line.after.xmm(i)[half], end.registers.xmm(i)[half]);
        }
    }
    for (i, (wanted, got)) in line.memory.iter().zip(end.memory.iter()).enumerate() {
        note(
            &format!("b[{:#x}]", DATA + i as u64),
            (*wanted).into(),
            (*got).into(),
        );
    }
    out
}
