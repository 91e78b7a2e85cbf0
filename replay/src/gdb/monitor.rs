//! `monitor` commands: rr's words, and ours.

use std::collections::BTreeMap;
use std::fmt::Write;

use colinux_driver::machine::Machine;
use colinux_tracer::{Event, EventKind, EventMask};
use gdbstub::target::ext::monitor_cmd::{ConsoleOutput, MonitorCmd};

use super::mappings::mappings;
use super::target::Debuggee;
use super::xml;
use crate::origin::{Range, Written};
use crate::position::{Position, parse_number};
use crate::timeline::{Mark, TimelineError};
use crate::view::{GuestKernel, ViewError};

/// Told the tick that a journey has come to, and the one it goes towards; says whether it is to go on.
pub(super) type Keep<'k> = dyn FnMut(u64, u64) -> bool + 'k;
/// What a command does with its arguments, and what it says.
type Run = fn(&mut Debuggee, &str, &mut String, &mut Keep<'_>) -> Result<(), TimelineError>;

const COMMANDS: &[(&str, &str, &str, Run)] = &[
    ("when", "", "where this is", when),
    (
        "seek",
        "POS",
        "go there: @1.2G, +5000, -5000, e1234, t1.5, 50%, start, end, bm:NAME, cp:N, bp:FUNC#42",
        seek,
    ),
    ("seek-ticks", "N", "go to a tick", seek),
    (
        "checkpoint",
        "",
        "remember this place by a number",
        checkpoint,
    ),
    (
        "info checkpoints",
        "",
        "list the numbered places",
        info_checkpoints,
    ),
    ("delete checkpoint", "N", "forget one", delete_checkpoint),
    (
        "restart",
        "[N]",
        "go to a numbered place, or to the start",
        restart,
    ),
    (
        "mark",
        "[NAME]",
        "remember this place by a name, or list the names",
        mark,
    ),
    ("back", "", "go to where the last journey began", back),
    ("forward", "", "undo `back`", forward),
    (
        "last-write",
        "ADDR|SYMBOL[:LEN]",
        "who wrote there last before now",
        last_write,
    ),
    (
        "why",
        "ADDR|SYMBOL[:LEN]",
        "the same, and who called whom there",
        why,
    ),
    (
        "dmesg",
        "[N]",
        "the guest's kernel log, or its last N lines",
        dmesg,
    ),
    ("ps", "", "the guest's tasks", ps),
    ("irqs", "", "the interrupts delivered up to here", irqs),
    (
        "gva2gpa",
        "ADDR",
        "where an address is in pseudo-physical memory",
        gva2gpa,
    ),
    ("when-ticks", "", "the tick this is at", when_ticks),
    ("when-end", "", "the last tick", when_end),
    ("info registers", "", "all registers", info_registers),
    ("info mem", "", "the addresses that are mapped", info_mem),
    (
        "info recording",
        "",
        "what is being replayed",
        info_recording,
    ),
    (
        "at-step",
        "COMMAND",
        "run it at the next step, instead: Ctrl-C leaves a step",
        at_step,
    ),
    ("help", "", "this list", help),
];

impl MonitorCmd for Debuggee {
    fn handle_monitor_cmd(
        &mut self,
        cmd: &[u8],
        mut out: ConsoleOutput<'_>,
    ) -> Result<(), TimelineError> {
        let answer = self.monitor(&String::from_utf8_lossy(cmd), &mut |_, _| true)?;
        out.write_raw(answer.as_bytes());
        Ok(())
    }
}

impl Debuggee {
    /// Runs a command; the answer is none, one or more lines.
    pub(super) fn monitor(
        &mut self,
        line: &str,
        keep: &mut Keep<'_>,
    ) -> Result<String, TimelineError> {
        let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        let found = COMMANDS.iter().find_map(|(name, _, _, run)| {
            let rest = line.strip_prefix(name)?;
            (rest.is_empty() || rest.starts_with(' ')).then_some((*run, rest.trim()))
        });
        let mut out = String::new();
        match found {
            Some((run, rest)) => run(self, rest, &mut out, keep)?,
            None => {
                let _ = writeln!(out, "unknown command: `{line}`; `monitor help` lists them");
            }
        }
        Ok(out)
    }

    /// Goes to a place, remembers where from, and says where that is.
    fn go_to(
        &mut self,
        to: Mark,
        out: &mut String,
        keep: &mut Keep<'_>,
    ) -> Result<(), TimelineError> {
        self.leave(self.timeline.at());
        travel(self, to, out, keep)
    }

    /// A journey begins here.
    fn leave(&mut self, from: Mark) {
        self.been.push(from);
        self.undone.clear();
    }

    /// Reads the names of the guest's kernel, once.
    fn know_kernel(&mut self) {
        let reader = &self.reader;
        self.kernel
            .get_or_insert_with(|| GuestKernel::of(reader).map_err(|error| format!("{error}\n")));
    }

    /// The place a position names, or why there is none.
    fn place(
        &mut self,
        text: &str,
        keep: &mut Keep<'_>,
    ) -> Result<Result<Mark, String>, TimelineError> {
        let position: Position = match text.parse() {
            Ok(position) => position,
            Err(error) => return Ok(Err(format!("{error}"))),
        };
        Ok(match &position {
            Position::Bookmark(name) => self
                .marks
                .get(name)
                .copied()
                .ok_or_else(|| format!("there is no mark `{name}`")),
            Position::Checkpoint(n) => self
                .numbered
                .get(n)
                .copied()
                .ok_or_else(|| format!("there is no checkpoint {n}")),
            other => {
                let last = self.timeline.last_tick();
                let mut keep = |tick| keep(tick, last);
                let found = other.find(&self.reader, &mut self.timeline, &mut keep);
                found.map_err(|error| error.to_string())
            }
        })
    }
}

/// A virtual time as people read it.
fn seconds(ns: u64) -> String {
    format!("t{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
}

fn when(
    d: &mut Debuggee,
    _: &str,
    out: &mut String,
    _: &mut Keep<'_>,
) -> Result<(), TimelineError> {
    let (at, last) = (d.timeline.at(), d.timeline.last_tick());
    let machine = d.timeline.machine();
    let _ = writeln!(
        out,
        "Current position: {at} of @{last}, {}, rip {:#x}",
        seconds(machine.time().0),
        machine.core().cpu.rip
    );
    Ok(())
}

fn seek(
    d: &mut Debuggee,
    rest: &str,
    out: &mut String,
    keep: &mut Keep<'_>,
) -> Result<(), TimelineError> {
    // Looking for a place may already move the cursor.
    let from = d.timeline.at();
    match d.place(rest, keep)? {
        Ok(mark) => {
            d.leave(from);
            travel(d, mark, out, keep)
        }
        Err(why) => {
            d.timeline.seek(from, &mut |_| true)?;
            let _ = writeln!(out, "{why}");
            Ok(())
        }
    }
}

fn checkpoint(
    d: &mut Debuggee,
    _: &str,
    out: &mut String,
    _: &mut Keep<'_>,
) -> Result<(), TimelineError> {
    let (n, at) = (d.next_number, d.timeline.at());
    d.next_number += 1;
    d.numbered.insert(n, at);
    let _ = writeln!(out, "Checkpoint {n} at {at}");
    Ok(())
}

fn info_checkpoints(
    d: &mut Debuggee,
    _: &str,
    out: &mut String,
    _: &mut Keep<'_>,
) -> Result<(), TimelineError> {
    if d.numbered.is_empty() {
        let _ = writeln!(out, "No checkpoints.");
    }
    for (n, mark) in &d.numbered {
        let _ = writeln!(out, "{n}\t{mark}");
    }
    let count = d.timeline.checkpoints().ticks().count();
    let bytes = d.timeline.checkpoints().bytes();
    let _ = writeln!(out, "({count} automatic ones, {} MiB)", bytes >> 20);
    Ok(())
}

fn delete_checkpoint(
    d: &mut Debuggee,
    rest: &str,
    out: &mut String,
    _: &mut Keep<'_>,
) -> Result<(), TimelineError> {
    let gone = rest.parse().ok().and_then(|n: u64| d.numbered.remove(&n));
    if gone.is_none() {
        let _ = writeln!(out, "there is no checkpoint `{rest}`");
    }
    Ok(())
}

fn restart(
    d: &mut Debuggee,
    rest: &str,
    out: &mut String,
    keep: &mut Keep<'_>,
) -> Result<(), TimelineError> {
    if rest.is_empty() {
        return d.go_to(Mark::default(), out, keep);
    }
    let found = rest
        .parse()
        .ok()
        .and_then(|n: u64| d.numbered.get(&n).copied());
    match found {
        Some(mark) => d.go_to(mark, out, keep),
        None => {
            let _ = writeln!(out, "there is no checkpoint `{rest}`");
            Ok(())
        }
    }
}

fn mark(
    d: &mut Debuggee,
    rest: &str,
    out: &mut String,
    _: &mut Keep<'_>,
) -> Result<(), TimelineError> {
    if rest.is_empty() {
        for (name, mark) in &d.marks {
            let _ = writeln!(out, "bm:{name}\t{mark}");
        }
    } else {
        let at = d.timeline.at();
        d.marks.insert(rest.to_owned(), at);
        let _ = writeln!(out, "bm:{rest} is {at}");
    }
    Ok(())
}

fn last_write(
    d: &mut Debuggee,
    rest: &str,
    out: &mut String,
    keep: &mut Keep<'_>,
) -> Result<(), TimelineError> {
    origin(d, rest, false, out, keep)
}

fn why(
    d: &mut Debuggee,
    rest: &str,
    out: &mut String,
    keep: &mut Keep<'_>,
) -> Result<(), TimelineError> {
    origin(d, rest, true, out, keep)
}

fn origin(
    d: &mut Debuggee,
    rest: &str,
    stack: bool,
    out: &mut String,
    keep: &mut Keep<'_>,
) -> Result<(), TimelineError> {
    d.know_kernel();
    let kernel = d.kernel.as_ref().and_then(|kernel| kernel.as_ref().ok());
    let machine = d.timeline.machine_mut();
    let names = kernel.map(|k| k.resolver(machine)).unwrap_or_default();
    let range = match Range::parse(rest, &names) {
        Ok(range) => range,
        Err(error) => {
            let _ = writeln!(out, "{error}");
            return Ok(());
        }
    };
    let from = d.timeline.at();
    let mut keep = |tick| keep(tick, 0);
    let start = range.start;
    let _ = match d.timeline.last_write(range, kernel, stack, &mut keep)? {
        Written::By(origin) => writeln!(out, "{origin}\n`monitor seek {}` goes there", origin.at),
        Written::Never => writeln!(out, "{start:#x} has not been written before {from}"),
        Written::Interrupted => {
            writeln!(out, "it was not looked further for who wrote to {start:#x}")
        }
    };
    Ok(())
}

/// What is to be said of the guest's kernel, or why nothing can be.
fn of_kernel(
    d: &mut Debuggee,
    out: &mut String,
    say: impl FnOnce(&GuestKernel, &mut Machine) -> Result<String, ViewError>,
) {
    d.know_kernel();
    let said = match &d.kernel {
        Some(Ok(kernel)) => say(kernel, d.timeline.machine_mut()),
        Some(Err(why)) => {
            *out += why;
            return;
        }
        None => return,
    };
    *out += &said.unwrap_or_else(|error| format!("{error}\n"));
}

fn dmesg(
    d: &mut Debuggee,
    rest: &str,
    out: &mut String,
    _: &mut Keep<'_>,
) -> Result<(), TimelineError> {
    let most = rest.parse().unwrap_or(usize::MAX);
    of_kernel(d, out, |kernel, machine| {
        let records = kernel.log(machine)?;
        let last = &records[records.len().saturating_sub(most)..];
        Ok(last.iter().fold(String::new(), |mut text, record| {
            let us = record.time_ns / 1000;
            let (s, us) = (us / 1_000_000, us % 1_000_000);
            let _ = writeln!(text, "[{s:5}.{us:06}] {}", record.text);
            text
        }))
    });
    Ok(())
}

fn ps(d: &mut Debuggee, _: &str, out: &mut String, _: &mut Keep<'_>) -> Result<(), TimelineError> {
    of_kernel(d, out, |kernel, machine| {
        let mut text = format!("{:>7} {:>7} {:>7} S COMMAND\n", "TID", "PID", "PPID");
        for task in kernel.tasks(machine)? {
            let _ = writeln!(text, "{task}");
        }
        Ok(text)
    });
    Ok(())
}

/// The interrupts that were delivered up to here, counted.
fn irqs(
    d: &mut Debuggee,
    _: &str,
    out: &mut String,
    _: &mut Keep<'_>,
) -> Result<(), TimelineError> {
    let now = d.timeline.at().tick;
    let mut counts: BTreeMap<u8, (u64, u64)> = BTreeMap::new();
    let events = d.reader.events();
    for row in events.with_kinds(EventMask::of(&[EventKind::IrqDeliver])) {
        match row {
            Ok(row) if row.tick <= now => {
                if let Event::IrqDeliver { vector, .. } = row.event {
                    let (count, last) = counts.entry(vector).or_default();
                    *count += 1;
                    *last = row.tick;
                }
            }
            Ok(_) => break,
            Err(error) => {
                let _ = writeln!(out, "{error}");
                break;
            }
        }
    }
    if counts.is_empty() {
        let _ = writeln!(out, "No interrupt has been recorded up to here.");
    }
    for (vector, (count, last)) in counts {
        let _ = writeln!(out, "vector {vector:#04x}: {count} times, last at @{last}");
    }
    Ok(())
}

/// Back to where the last journey began, and forward again.
fn back(
    d: &mut Debuggee,
    _: &str,
    out: &mut String,
    keep: &mut Keep<'_>,
) -> Result<(), TimelineError> {
    let at = d.timeline.at();
    match d.been.pop() {
        Some(mark) => {
            d.undone.push(at);
            travel(d, mark, out, keep)
        }
        None => {
            let _ = writeln!(out, "there is no place to go back to");
            Ok(())
        }
    }
}

fn forward(
    d: &mut Debuggee,
    _: &str,
    out: &mut String,
    keep: &mut Keep<'_>,
) -> Result<(), TimelineError> {
    let at = d.timeline.at();
    match d.undone.pop() {
        Some(mark) => {
            d.been.push(at);
            travel(d, mark, out, keep)
        }
        None => {
            let _ = writeln!(out, "there is no place to go forward to");
            Ok(())
        }
    }
}

/// Goes to a place, and says where that is.
fn travel(
    d: &mut Debuggee,
    to: Mark,
    out: &mut String,
    keep: &mut Keep<'_>,
) -> Result<(), TimelineError> {
    match d.timeline.seek(to, &mut |tick| keep(tick, to.tick)) {
        Ok(_) => when(d, "", out, keep),
        Err(error @ TimelineError::Outside { .. }) => {
            let _ = writeln!(out, "{error}");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn when_ticks(
    d: &mut Debuggee,
    _: &str,
    out: &mut String,
    _: &mut Keep<'_>,
) -> Result<(), TimelineError> {
    let _ = writeln!(out, "Current tick: {}", d.timeline.at().tick);
    Ok(())
}

fn when_end(
    d: &mut Debuggee,
    _: &str,
    out: &mut String,
    _: &mut Keep<'_>,
) -> Result<(), TimelineError> {
    let _ = writeln!(out, "Last tick: {}", d.timeline.last_tick());
    Ok(())
}

fn gva2gpa(
    d: &mut Debuggee,
    rest: &str,
    out: &mut String,
    _: &mut Keep<'_>,
) -> Result<(), TimelineError> {
    let found = parse_number(rest).and_then(|gva| d.timeline.machine_mut().core_mut().probe(gva));
    let _ = match found {
        Some(gpa) => writeln!(out, "gpa: {:#x}", gpa.0),
        None => writeln!(out, "Unmapped"),
    };
    Ok(())
}

fn info_registers(
    d: &mut Debuggee,
    _: &str,
    out: &mut String,
    _: &mut Keep<'_>,
) -> Result<(), TimelineError> {
    *out += &xml::text(d.timeline.machine().core());
    Ok(())
}

fn info_mem(
    d: &mut Debuggee,
    _: &str,
    out: &mut String,
    _: &mut Keep<'_>,
) -> Result<(), TimelineError> {
    match mappings(d.timeline.machine().core()) {
        Ok(mappings) => mappings.iter().for_each(|mapping| {
            let _ = writeln!(out, "{mapping}");
        }),
        Err(why) => {
            let _ = writeln!(out, "{why}");
        }
    }
    Ok(())
}

fn info_recording(
    d: &mut Debuggee,
    _: &str,
    out: &mut String,
    _: &mut Keep<'_>,
) -> Result<(), TimelineError> {
    let _ = writeln!(out, "{}", d.reader.path().display());
    let manifest = d.timeline.manifest();
    let _ = writeln!(
        out,
        "{} MiB, command line: {}",
        manifest.memory >> 20,
        manifest.cmdline
    );
    Ok(())
}

fn at_step(
    d: &mut Debuggee,
    rest: &str,
    _: &mut String,
    _: &mut Keep<'_>,
) -> Result<(), TimelineError> {
    d.at_step = Some(rest.to_owned());
    Ok(())
}

fn help(
    _: &mut Debuggee,
    _: &str,
    out: &mut String,
    _: &mut Keep<'_>,
) -> Result<(), TimelineError> {
    for (name, args, what, _) in COMMANDS {
        let _ = writeln!(out, "{:<26} {what}", format!("{name} {args}"));
    }
    Ok(())
}
