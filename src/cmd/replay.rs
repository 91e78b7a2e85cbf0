//! `replay`: run a recording again.

use std::io::{self, Write};

use colinux_replay::session::Progress;
use colinux_replay::{NoSink, Position, Session};
use colinux_tracer::{Event, EventMask, Levels, Reader};

use super::dump;
use crate::args::Replay;
use crate::console::Signals;
use crate::exit::{self, Failure};
use crate::report::Report;
use crate::store;

pub(crate) fn run(args: &Replay, report: &Report) -> Result<u8, Failure> {
    let path = store::find(args.trace.as_deref())?;
    let reader = Reader::open(&path)?;
    if let Some(recovery) = reader.recovery() {
        report.note(format!("{}: {recovery}", path.display()));
    }
    if let (Some(position), false) = (&args.goto, args.events) {
        return go_to(position, &reader, report);
    }
    let mut session = if args.events {
        Session::open(&reader)?
    } else {
        Session::with_events(&reader, EventMask::from_levels(&Levels::off()))?
    };
    session.runner_mut().machine_mut().set_tier(report.tier());
    let until = match &args.goto {
        Some(position) => dump::tick_of(position, &reader)?,
        None => u64::MAX,
    };
    let signals = Signals::catch()
        .map_err(|error| Failure::new(exit::ENVIRONMENT, format!("signals: {error}")))?;
    loop {
        let step = if args.events {
            let mut show = |tick: u64, event: Event| report.line(dump::text(0, tick, &event));
            session.advance(until, &mut show)?
        } else {
            session.advance(until, &mut NoSink)?
        };
        let output = session.runner_mut().machine_mut().take_console();
        if !args.events && !output.is_empty() {
            let mut out = io::stdout().lock();
            if out.write_all(&output).and_then(|()| out.flush()).is_err() {
                return Ok(0);
            }
        }
        match step {
            Progress::More => {}
            Progress::End(_) | Progress::Reached => break,
            Progress::Lost(why) => return Err(Failure::new(exit::DIVERGED, why)),
        }
        if let Some(signal) = signals.received() {
            return Ok(exit::SIGNAL + signal);
        }
    }
    let machine = session.runner().machine();
    report.note(format!(
        "at tick {}, rip {:#x}",
        machine.tick(),
        machine.core().cpu.rip
    ));
    Ok(0)
}

/// Shows the registers at a position.
fn go_to(position: &Position, reader: &Reader, report: &Report) -> Result<u8, Failure> {
    let signals = Signals::catch()
        .map_err(|error| Failure::new(exit::ENVIRONMENT, format!("signals: {error}")))?;
    let Some(timeline) = super::gdb::open(reader, Some(position), &signals, report)? else {
        return Ok(exit::SIGNAL + signals.received().unwrap_or(2));
    };
    let core = timeline.machine().core();
    report.line(registers(core));
    report.note(format!(
        "at tick {}, rip {:#x}",
        timeline.at(),
        core.cpu.rip
    ));
    Ok(0)
}

/// The registers, four to a line.
fn registers(core: &colinux_driver::core::Core) -> String {
    const NAMES: [&str; 16] = [
        "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12",
        "r13", "r14", "r15",
    ];
    let cpu = &core.cpu;
    let mut lines = vec![format!(
        "rip {:016x}  rflags {:08x}  cpl {}  cr3 {:016x}",
        cpu.rip,
        cpu.rflags(),
        cpu.cpl,
        cpu.cr3
    )];
    for (names, values) in NAMES.chunks(4).zip(cpu.regs.chunks(4)) {
        let words: Vec<String> = names
            .iter()
            .zip(values)
            .map(|(n, v)| format!("{n:>3} {v:016x}"))
            .collect();
        lines.push(words.join("  "));
    }
    lines.join("\n")
}
