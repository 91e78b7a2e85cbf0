//! What of the machine's state differs after a divergence.

use colinux_driver::cpu::state::Cpu;
use colinux_driver::machine::Machine;
use colinux_driver::mem::addr::PAGE_SIZE;
use colinux_tracer::Reader;

use super::Opened;
use crate::checkpoint::Checkpoint;
use crate::divergence::StateDifference;
use crate::error::ReplayError;
use crate::runner::NoSink;
use crate::session::{Progress, Session};

/// Pages that differ and are named.
const PAGES_NAMED: usize = 8;

/// A register: its name, and its value.
type Register = (&'static str, fn(&Cpu) -> u64);

/// The registers by which states are compared.
const REGISTERS: &[Register] = &[
    ("rax", |c| c.regs[0]),
    ("rcx", |c| c.regs[1]),
    ("rdx", |c| c.regs[2]),
    ("rbx", |c| c.regs[3]),
    ("rsp", |c| c.regs[4]),
    ("rbp", |c| c.regs[5]),
    ("rsi", |c| c.regs[6]),
    ("rdi", |c| c.regs[7]),
    ("r8", |c| c.regs[8]),
    ("r9", |c| c.regs[9]),
    ("r10", |c| c.regs[10]),
    ("r11", |c| c.regs[11]),
    ("r12", |c| c.regs[12]),
    ("r13", |c| c.regs[13]),
    ("r14", |c| c.regs[14]),
    ("r15", |c| c.regs[15]),
    ("rip", |c| c.rip),
    ("rflags", Cpu::rflags),
    ("cr0", |c| c.cr0),
    ("cr2", |c| c.cr2),
    ("cr3", |c| c.cr3),
    ("cr4", |c| c.cr4),
];

/// Lets a replay that has diverged go on to the next checkpoint of the recording, and says what is
/// otherwise there.
pub(super) fn differing_state(
    reader: &Reader,
    session: &mut Session,
    after: u64,
) -> Result<Option<StateDifference>, ReplayError> {
    let tier = session.runner().machine().tier();
    let infos = reader.checkpoints().unwrap_or_default();
    let reached = after.max(session.runner().tick());
    let Some(info) = infos.iter().find(|info| info.tick >= reached) else {
        return Ok(None);
    };
    while session.runner().tick() < info.tick {
        let step = session.advance(info.tick, &mut NoSink)?;
        session.runner_mut().machine_mut().take_console();
        if !matches!(step, Progress::More | Progress::Reached) {
            break;
        }
    }
    let mut opened = Opened::open(reader, tier)?;
    let recorded = opened.checkpoint(info.tick);
    let machine = session.runner_mut().machine_mut();
    Ok(recorded
        .filter(|_| machine.tick().0 == info.tick)
        .map(|recorded| compare_states(&recorded, machine)))
}

fn compare_states(recorded: &Checkpoint, machine: &Machine) -> StateDifference {
    let (theirs, ours) = (&recorded.state.cpu, &machine.state().cpu);
    let values = REGISTERS
        .iter()
        .map(|(name, of)| (*name, of(theirs), of(ours)));
    let ram = &machine.core().ram;
    let mut found = StateDifference {
        tick: recorded.state.tick.0,
        registers: values.filter(|(_, theirs, ours)| theirs != ours).collect(),
        ..StateDifference::default()
    };
    let mut content = vec![0; PAGE_SIZE as usize];
    for page in 0..ram.page_count() {
        let offset = page * PAGE_SIZE as usize;
        recorded.pages.read(offset as u64, &mut content);
        if ram.page_bytes(page) != content {
            found.page_count += 1;
            if found.pages.len() < PAGES_NAMED {
                found.pages.push(ram.gpa(offset).0);
            }
        }
    }
    found
}
