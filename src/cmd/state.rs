//! `ps` and `dmesg`: what the guest's kernel knew at a tick, read from its memory there.

use colinux_replay::session::Progress;
use colinux_replay::{NoSink, Session};
use colinux_symbols::SymbolError;
use colinux_tracer::{EventMask, Reader};
use serde_json::json;

use crate::args::At;
use crate::console::Signals;
use crate::exit::{self, Failure};
use crate::report::Report;
use crate::store;

/// Replays to the tick that was asked for.
fn session_at(args: &At, report: &Report) -> Result<Session, Failure> {
    let path = store::find(args.trace.as_deref())?;
    let reader = Reader::open(&path)?;
    if let Some(recovery) = reader.recovery() {
        report.note(format!("{}: {recovery}", path.display()));
    }
    let mut session = Session::with_events(&reader, EventMask::NONE)?;
    session.runner_mut().machine_mut().set_tier(report.tier());
    let until = args.at.map_or(u64::MAX, |t| t.0);
    if args.at.is_some() && until > session.last_tick() {
        return Err(Failure::usage(format!(
            "tick @{until} is after the end of the recording, @{}",
            session.last_tick()
        )));
    }
    let signals = Signals::catch()
        .map_err(|error| Failure::new(exit::ENVIRONMENT, format!("signals: {error}")))?;
    loop {
        let step = session.advance(until, &mut NoSink)?;
        session.runner_mut().machine_mut().take_console();
        match step {
            Progress::More => {}
            Progress::End(_) | Progress::Reached => return Ok(session),
            Progress::Lost(why) => return Err(Failure::new(exit::DIVERGED, why)),
        }
        if let Some(signal) = signals.received() {
            return Err(Failure::new(exit::SIGNAL + signal, ""));
        }
    }
}

fn no_names(error: SymbolError) -> Failure {
    Failure::new(
        exit::SYMBOLS,
        format!("the guest's kernel cannot be read: {error}"),
    )
}

pub(crate) fn ps(args: &At, report: &Report) -> Result<u8, Failure> {
    let mut session = session_at(args, report)?;
    let tasks = session.runner_mut().tasks().map_err(no_names)?;
    if !args.json {
        report.line(format!("{:>7} {:>7} {:>7} S COMMAND", "TID", "PID", "PPID"));
    }
    for task in tasks {
        let state = task.state.letter();
        report.line(if args.json {
            json!({
                "tid": task.pid, "pid": task.tgid, "ppid": task.ppid, "state": state.to_string(),
                "comm": task.comm, "kernel": task.is_kernel, "task": task.gva.0,
            })
            .to_string()
        } else if task.is_kernel {
            format!(
                "{:>7} {:>7} {:>7} {state} [{}]",
                task.pid, task.tgid, task.ppid, task.comm
            )
        } else {
            format!(
                "{:>7} {:>7} {:>7} {state} {}",
                task.pid, task.tgid, task.ppid, task.comm
            )
        });
    }
    Ok(0)
}

pub(crate) fn dmesg(args: &At, report: &Report) -> Result<u8, Failure> {
    let mut session = session_at(args, report)?;
    let records = session.runner_mut().log().map_err(no_names)?;
    for record in records {
        report.line(if args.json {
            json!({
                "seq": record.seq, "ns": record.time_ns, "level": record.level,
                "text": record.text,
            })
            .to_string()
        } else {
            let us = record.time_ns / 1000;
            format!(
                "[{:5}.{:06}] {}",
                us / 1_000_000,
                us % 1_000_000,
                record.text
            )
        });
    }
    Ok(0)
}
