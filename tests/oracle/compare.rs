//! Compares two ends of one case.

use iced_x86::{Instruction, Mnemonic as M};

use super::layout::DATA;
use super::state::{Case, End, FX_CONTROL, FX_STATUS, FX_TAGS, Outcome, Registers};
use super::undefined;

/// The status flags and DF.
const COMPARED_FLAGS: u64 = 0xcd5;
const NAMES: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];
/// Present, in a page fault's error code.
const PRESENT: u64 = 1;
/// Addresses from here on are hidden from processes: their page faults always say "present".
const HIDDEN: u64 = (1 << 47) - 0x1000;

/// The differences, one a line: `what: before, host, guest`.
pub(crate) fn differences(insn: &Instruction, case: &Case, host: &End, guest: &End) -> Vec<String> {
    let mut out = Vec::new();
    let mut note = |what: &str, before: u64, host: u64, guest: u64| {
        if host != guest {
            out.push(format!(
                "{what}: before {before:#x}, host {host:#x}, guest {guest:#x}"
            ));
        }
    };
    let (theirs, ours) = (outcome(insn, host.outcome), outcome(insn, guest.outcome));
    if theirs != ours {
        return vec![format!(
            "host {:x?}, guest {:x?}",
            host.outcome, guest.outcome
        )];
    }
    let done = host.outcome == Outcome::Done;
    let (b, h, g) = (&case.registers, &host.registers, &guest.registers);
    let undefined_result = done && undefined::result(insn, case);
    if !undefined_result {
        for (i, name) in NAMES.iter().enumerate() {
            note(name, b.gpr[i], h.gpr[i], g.gpr[i]);
        }
    }
    note("rip", b.rip, h.rip, g.rip);
    let ignored = if done {
        undefined::flags(insn, case)
    } else {
        0
    };
    let flags = COMPARED_FLAGS & !ignored & !undefined::comparison_flags(insn, h);
    note(
        "rflags",
        b.rflags & flags,
        h.rflags & flags,
        g.rflags & flags,
    );
    note("ds", b.ds, null(h.ds), null(g.ds));
    note("es", b.es, null(h.es), null(g.es));
    for i in 0..16 {
        for (half, name) in ["low", "high"].iter().enumerate() {
            let of = |r: &Registers| r.xmm(i)[half];
            note(&format!("xmm{i} {name}"), of(b), of(h), of(g));
        }
    }
    note(
        "mxcsr",
        b.mxcsr().into(),
        h.mxcsr().into(),
        g.mxcsr().into(),
    );
    // CVTPI2PS and its like switch to MMX before or after an exception they raise: not promised.
    if done || !undefined::is_mmx_conversion(insn) {
        x87(insn, b, h, g, &mut note);
    }
    if !undefined_result {
        memory(insn, case, host, guest, &mut note);
    }
    out
}

/// Instructions that move a whole environment.
fn is_save_or_restore(insn: &Instruction) -> bool {
    matches!(
        insn.mnemonic(),
        M::Fldenv
            | M::Fnstenv
            | M::Frstor
            | M::Fnsave
            | M::Fxsave
            | M::Fxsave64
            | M::Fxrstor
            | M::Fxrstor64
    )
}

fn compares_strings(insn: &Instruction) -> bool {
    insn.is_string_instruction()
        && matches!(insn.mnemonic(), M::Cmpsb | M::Cmpsw | M::Cmpsd | M::Cmpsq)
}

/// IRET out of the host's kernel takes the privilege bits from null selectors.
fn null(selector: u64) -> u64 {
    if selector & !3 == 0 { 0 } else { selector }
}

/// An outcome with what cannot be compared taken out.
fn outcome(insn: &Instruction, of: Outcome) -> Outcome {
    match of {
        // The order of their many accesses is not promised.
        Outcome::Fault(14, _, _) if is_save_or_restore(insn) => Outcome::Fault(14, 0, 0),
        // Nor whether a call looks at its target or at its stack first, or which of its operands a
        // string comparison does.
        Outcome::Fault(..) if insn.is_call_near_indirect() || compares_strings(insn) => {
            Outcome::Fault(0, 0, 0)
        }
        Outcome::Fault(14, error, address) if address >= HIDDEN => {
            Outcome::Fault(14, error & !PRESENT, address)
        }
        other => other,
    }
}

fn x87(
    insn: &Instruction,
    b: &Registers,
    h: &Registers,
    g: &Registers,
    note: &mut impl FnMut(&str, u64, u64, u64),
) {
    let of = |r: &Registers, at: usize| u64::from(r.word(at));
    note(
        "fcw",
        of(b, FX_CONTROL),
        of(h, FX_CONTROL),
        of(g, FX_CONTROL),
    );
    let defined = u64::from(!undefined::condition_codes(insn, h));
    note(
        "fsw",
        of(b, FX_STATUS),
        of(h, FX_STATUS) & defined,
        of(g, FX_STATUS) & defined,
    );
    let tags = |r: &Registers| u64::from(r.fx[FX_TAGS]);
    note("ftw", tags(b), tags(h), tags(g));
    for i in 0..8 {
        let (b, h, g) = (b.st(i), h.st(i), g.st(i));
        note(&format!("st{i} significand"), b.0, h.0, g.0);
        note(
            &format!("st{i} exponent"),
            b.1.into(),
            h.1.into(),
            g.1.into(),
        );
    }
}

/// The first few differing bytes; instruction and operand pointers of the x87 are left out, which
/// makers keep differently.
fn memory(
    insn: &Instruction,
    case: &Case,
    host: &End,
    guest: &End,
    note: &mut impl FnMut(&str, u64, u64, u64),
) {
    if host.memory == guest.memory {
        return;
    }
    let at = super::scenario::operand_address(insn, &case.registers).unwrap_or(0);
    let skipped = |offset: u64| match insn.mnemonic() {
        // And the mask of MXCSR's bits, of which AMD has one more.
        M::Fxsave | M::Fxsave64 => matches!(offset, 6..24 | 28..32),
        M::Fnsave | M::Fnstenv => matches!(offset, 12..28),
        _ => false,
    };
    let mut told = 0;
    for (i, before) in case.memory.iter().enumerate() {
        let address = DATA + i as u64;
        if skipped(address.wrapping_sub(at)) {
            continue;
        }
        if host.memory[i] != guest.memory[i] && told < 8 {
            told += 1;
            let (h, g) = (host.memory[i].into(), guest.memory[i].into());
            note(&format!("memory {address:#x}"), (*before).into(), h, g);
        }
    }
}
