//! `monitor` commands: rr's words, and ours.

use std::fmt::Write;

use colinux_driver::debug::WatchSpace;
use gdbstub::target::ext::monitor_cmd::{ConsoleOutput, MonitorCmd};

use super::target::Debuggee;
use super::xml;
use crate::position::{Position, parse_number};
use crate::timeline::{Mark, TimelineError};
use crate::watch::{Halt, Stops, Watched, watch};

/// A command: its words, its arguments, what it does.
type Run = fn(&mut Debuggee, &str, &mut String) -> Result<(), TimelineError>;

const COMMANDS: &[(&str, &str, &str, Run)] = &[
    ("when", "", "where this is", when),
    (
        "seek",
        "POS",
        "go there: @1.2G, +5000, -5000, e1234, t1.5, 50%, start, end, bm:NAME, cp:N",
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
    (
        "last-write",
        "ADDR[:LEN]",
        "who wrote there last before now",
        last_write,
    ),
    ("info registers", "", "all registers", info_registers),
    (
        "info recording",
        "",
        "what is being replayed",
        info_recording,
    ),
    ("help", "", "this list", help),
];

impl MonitorCmd for Debuggee {
    fn handle_monitor_cmd(
        &mut self,
        cmd: &[u8],
        mut out: ConsoleOutput<'_>,
    ) -> Result<(), TimelineError> {
        let answer = self.monitor(&String::from_utf8_lossy(cmd))?;
        out.write_raw(answer.as_bytes());
        Ok(())
    }
}

impl Debuggee {
    /// Runs a command; the answer is one or more lines.
    pub(crate) fn monitor(&mut self, line: &str) -> Result<String, TimelineError> {
        let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        let found = COMMANDS.iter().find_map(|(name, _, _, run)| {
            let rest = line.strip_prefix(name)?;
            (rest.is_empty() || rest.starts_with(' ')).then_some((*run, rest.trim()))
        });
        let mut out = String::new();
        match found {
            Some((run, rest)) => run(self, rest, &mut out)?,
            None => {
                let _ = writeln!(out, "`{line}` is not a command; `monitor help` lists them");
            }
        }
        Ok(out)
    }

    /// Goes to a place, and says where that is.
    fn go_to(&mut self, to: Mark, out: &mut String) -> Result<(), TimelineError> {
        match self.timeline.seek(to, &mut |_| true) {
            Ok(_) => when(self, "", out),
            Err(error @ TimelineError::Outside { .. }) => {
                let _ = writeln!(out, "{error}");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The place a position names, or why there is none.
    fn place(&mut self, text: &str) -> Result<Result<Mark, String>, TimelineError> {
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
            other => match other.find(&self.reader, &mut self.timeline) {
                Ok(mark) => Ok(mark),
                Err(error) => Err(error.to_string()),
            },
        })
    }
}

/// A virtual time as people read it.
fn seconds(ns: u64) -> String {
    format!("t{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
}

fn when(d: &mut Debuggee, _: &str, out: &mut String) -> Result<(), TimelineError> {
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

fn seek(d: &mut Debuggee, rest: &str, out: &mut String) -> Result<(), TimelineError> {
    match d.place(rest)? {
        Ok(mark) => d.go_to(mark, out),
        Err(why) => {
            let _ = writeln!(out, "{why}");
            Ok(())
        }
    }
}

fn checkpoint(d: &mut Debuggee, _: &str, out: &mut String) -> Result<(), TimelineError> {
    let (n, at) = (d.next_number, d.timeline.at());
    d.next_number += 1;
    d.numbered.insert(n, at);
    let _ = writeln!(out, "Checkpoint {n} at {at}");
    Ok(())
}

fn info_checkpoints(d: &mut Debuggee, _: &str, out: &mut String) -> Result<(), TimelineError> {
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

fn delete_checkpoint(d: &mut Debuggee, rest: &str, out: &mut String) -> Result<(), TimelineError> {
    let gone = rest.parse().ok().and_then(|n: u64| d.numbered.remove(&n));
    if gone.is_none() {
        let _ = writeln!(out, "there is no checkpoint `{rest}`");
    }
    Ok(())
}

fn restart(d: &mut Debuggee, rest: &str, out: &mut String) -> Result<(), TimelineError> {
    if rest.is_empty() {
        return d.go_to(Mark::default(), out);
    }
    let found = rest
        .parse()
        .ok()
        .and_then(|n: u64| d.numbered.get(&n).copied());
    match found {
        Some(mark) => d.go_to(mark, out),
        None => {
            let _ = writeln!(out, "there is no checkpoint `{rest}`");
            Ok(())
        }
    }
}

fn mark(d: &mut Debuggee, rest: &str, out: &mut String) -> Result<(), TimelineError> {
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

fn last_write(d: &mut Debuggee, rest: &str, out: &mut String) -> Result<(), TimelineError> {
    let (address, len) = rest.split_once(':').unwrap_or((rest, "8"));
    let (Some(address), Some(len)) = (parse_number(address), parse_number(len)) else {
        let _ = writeln!(out, "`{rest}` is not ADDRESS or ADDRESS:LENGTH");
        return Ok(());
    };
    let from = d.timeline.at();
    let watches = vec![watch(
        WatchSpace::Virtual,
        address,
        len.max(1),
        Watched::Writes,
    )];
    let ours = Stops {
        watches,
        ..Stops::default()
    };
    let theirs = std::mem::replace(d.timeline.stops(), ours);
    let found = d.timeline.backward(&mut |_| true);
    let at = d.timeline.at();
    *d.timeline.stops() = theirs;
    d.timeline.seek(from, &mut |_| true)?;
    match found? {
        Halt::Watch(hit) => {
            let _ = writeln!(
                out,
                "{:#x} was last written at {at} by the instruction at {:#x}; \
                 `monitor seek {at}` goes there",
                hit.address, hit.rip
            );
        }
        _ => {
            let _ = writeln!(out, "{address:#x} has not been written before {from}");
        }
    }
    Ok(())
}

fn info_registers(d: &mut Debuggee, _: &str, out: &mut String) -> Result<(), TimelineError> {
    *out += &xml::text(d.timeline.machine().core());
    Ok(())
}

fn info_recording(d: &mut Debuggee, _: &str, out: &mut String) -> Result<(), TimelineError> {
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

fn help(_: &mut Debuggee, _: &str, out: &mut String) -> Result<(), TimelineError> {
    for (name, args, what, _) in COMMANDS {
        let _ = writeln!(out, "{:<26} {what}", format!("{name} {args}"));
    }
    Ok(())
}
