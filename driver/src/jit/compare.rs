//! Both tiers in lock step: a second machine follows in tier 0, and the first difference ends the
//! run.

use crate::machine::{Machine, MachineConfig, Stop, Unsupported};
use crate::snapshot::MachineState;
use crate::tick::Tick;

/// Ticks between two comparisons.
const STRETCH: u64 = 1 << 20;
/// Differing bytes of RAM that are named.
const BYTES_NAMED: usize = 8;

/// A machine in the same state, in tier 0.
pub(crate) fn twin(of: &Machine, config: &MachineConfig) -> Box<Machine> {
    let mut twin = Machine::empty(config);
    let ram = &of.core().ram;
    for page in (0..ram.page_count()).filter(|page| ram.is_allocated(*page)) {
        twin.core_mut()
            .ram
            .restore_page(page, ram.page_bytes(page), true);
    }
    twin.restore(&of.state());
    Box::new(twin)
}

/// Runs `one`, and `zero` after it; says why both stopped, or where they differ.
pub(crate) fn run(one: &mut Machine, zero: &mut Machine, until: Tick) -> Stop {
    loop {
        let end = until.min(Tick(one.tick().0.saturating_add(STRETCH)));
        let stop = one.run_tier(end);
        if stop == Stop::Pause {
            return stop;
        }
        let other = follow(zero, end);
        if let Some(what) = difference(one, zero, &stop, &other) {
            return Stop::Unsupported(Box::new(Unsupported {
                what: format!("tier 1 differs from tier 0: {what}"),
                bytes: Vec::new(),
                text: String::new(),
                rip: one.core().cpu.rip,
                tick: one.tick(),
            }));
        }
        if stop != Stop::Limit || end == until {
            return stop;
        }
    }
}

/// Lets the twin arrive where the machine is, so that an input reaches both at the same tick.
pub(crate) fn catch_up(zero: &mut Machine, tick: Tick) {
    while zero.tick() < tick && zero.run_tier(tick) == Stop::Pause {}
}

/// Runs over pauses, which depend on how the host's turns fall and not on the guest.
fn follow(zero: &mut Machine, end: Tick) -> Stop {
    loop {
        let stop = zero.run_tier(end);
        zero.drain(|_, _| {});
        if stop != Stop::Pause {
            return stop;
        }
    }
}

fn difference(one: &mut Machine, zero: &mut Machine, a: &Stop, b: &Stop) -> Option<String> {
    let (x, y) = (one.state(), zero.state());
    let same = a == b && x == y && one.digest() == zero.digest();
    (!same).then(|| describe(one, zero, (a, b), (&x, &y)))
}

/// The differences, the most telling first.
fn describe(
    one: &Machine,
    zero: &Machine,
    stops: (&Stop, &Stop),
    states: (&MachineState, &MachineState),
) -> String {
    let mut all = Vec::new();
    if stops.0 != stops.1 {
        all.push(format!("stopped for {:?} and {:?}", stops.0, stops.1));
    }
    let (x, y) = states;
    let mut word = |name: &str, a: u64, b: u64| {
        if a != b {
            all.push(format!("{name} {a:#x} and {b:#x}"));
        }
    };
    word("tick", x.tick.0, y.tick.0);
    word("rip", x.cpu.rip, y.cpu.rip);
    word("rflags", x.cpu.rflags(), y.cpu.rflags());
    const NAMES: [&str; 16] = [
        "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12",
        "r13", "r14", "r15",
    ];
    for (i, name) in NAMES.into_iter().enumerate() {
        word(name, x.cpu.regs[i], y.cpu.regs[i]);
    }
    for (i, (a, b)) in x.cpu.xmm.iter().zip(&y.cpu.xmm).enumerate() {
        word(&format!("xmm{i} low"), a[0], b[0]);
        word(&format!("xmm{i} high"), a[1], b[1]);
    }
    word("cr2", x.cpu.cr2, y.cpu.cr2);
    word("cr3", x.cpu.cr3, y.cpu.cr3);
    if x.cpu != y.cpu {
        all.push("the registers".to_owned());
    }
    if x.tlb != y.tlb {
        all.push("the cached translations".to_owned());
    }
    if x.board != y.board {
        all.push("the board".to_owned());
    }
    let (a, b) = (&one.core().ram, &zero.core().ram);
    let mut bytes = Vec::new();
    for page in 0..a.page_count() {
        for (i, (a, b)) in a
            .page_bytes(page)
            .iter()
            .zip(b.page_bytes(page))
            .enumerate()
        {
            if a != b && bytes.len() < BYTES_NAMED {
                bytes.push(format!("RAM {:#x}: {a:#04x} and {b:#04x}", page * 4096 + i));
            }
        }
    }
    all.extend(bytes);
    if all.is_empty() {
        all.push("something that only the digest sees".to_owned());
    }
    all.join("; ")
}
