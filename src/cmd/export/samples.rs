//! `export perf` and `export folded`: the stack at every so many instructions of a replay.
//!
//! The places are the same each time, so two exports can be compared line by line; nothing was chosen
//! when the recording was made, and sampling has no effect on the guest.

use std::collections::BTreeMap;
use std::io::Write;
use std::vec;

use colinux_replay::{Halt, Mark, Timeline};
use colinux_symbols::unwind::{Stack, StackFrame};
use colinux_symbols::{Gva, Resolver};
use colinux_tracer::{EventKind, EventMask, Reader};

use super::{Output, catch, open, unwritten};
use crate::args::{DebugArgs, ExportSamples};
use crate::cmd::dump::span;
use crate::console::Signals;
use crate::exit::{self, Failure};
use crate::names::{Demand, Names, source_frames};
use crate::progress::Progress;
use crate::report::Report;

/// The task before the kernel has any.
const NO_TASK: (u32, &str) = (0, "-");

/// What ran at a place.
struct Sample {
    ns: u64,
    tid: u32,
    comm: String,
    /// Innermost first.
    frames: Vec<NamedFrame>,
}

/// A function on a stack.
struct NamedFrame {
    ip: Gva,
    function: String,
    offset: Option<u64>,
    /// Where the code is, as `perf` calls it.
    object: String,
}

pub(crate) fn perf(args: &ExportSamples, report: &Report) -> Result<u8, Failure> {
    let every = args.every.0;
    walk(args, report, &mut |sample, out| {
        let (seconds, micros) = (sample.ns / 1_000_000_000, sample.ns / 1000 % 1_000_000);
        writeln!(
            out,
            "{} {} [000] {seconds}.{micros:06}: {every} instructions: ",
            sample.comm, sample.tid
        )?;
        for frame in &sample.frames {
            let NamedFrame { ip, function, .. } = frame;
            let offset = frame.offset.map(|offset| format!("+{offset:#x}"));
            let offset = offset.unwrap_or_default();
            writeln!(out, "\t{:16x} {function}{offset} ({})", ip.0, frame.object)?;
        }
        writeln!(out)
    })
}

pub(crate) fn folded(args: &ExportSamples, report: &Report) -> Result<u8, Failure> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut count = |sample: &Sample, _: &mut dyn Write| {
        let mut line = sample.comm.clone();
        for frame in sample.frames.iter().rev() {
            line.push(';');
            line.push_str(&frame.function);
        }
        *counts.entry(line).or_default() += 1;
        Ok(())
    };
    let (code, mut out) = each(args, report, &mut count)?;
    for (stack, count) in counts {
        writeln!(out.file, "{stack} {count}").map_err(|error| unwritten(&out.name, &error))?;
    }
    finish(&mut out)?;
    Ok(code)
}

/// What is done with a sample.
type Visit<'v> = dyn FnMut(&Sample, &mut dyn Write) -> std::io::Result<()> + 'v;

fn walk(args: &ExportSamples, report: &Report, visit: &mut Visit<'_>) -> Result<u8, Failure> {
    let (code, mut out) = each(args, report, visit)?;
    finish(&mut out)?;
    Ok(code)
}

fn finish(out: &mut Output) -> Result<(), Failure> {
    out.file
        .flush()
        .map_err(|error| unwritten(&out.name, &error))
}

/// Goes to every place and takes its stack.
fn each(
    args: &ExportSamples,
    report: &Report,
    visit: &mut Visit<'_>,
) -> Result<(u8, Output), Failure> {
    let every = args.every.0;
    if every == 0 {
        return Err(Failure::usage("--every must be at least one instruction"));
    }
    let reader = open(&args.events, report)?;
    let (from, to) = span(args.events.from.as_ref(), args.events.to.as_ref(), &reader)?;
    let signals = catch()?;
    let mut sampler = Sampler::open(&reader, &args.debug, report)?;
    let mut out = Output::open(&args.events.destination, true)?;
    let last = to.min(sampler.timeline.last_tick());
    let mut progress = Progress::new("replaying");
    let mut code = 0;
    let mut tick = from;
    while tick <= last {
        progress.at((tick - from) as usize, (last - from) as usize);
        if !sampler.go(tick, &signals)? {
            code = exit::SIGNAL + signals.received().unwrap_or(2);
            break;
        }
        let sample = sampler.take(report);
        visit(&sample, &mut *out.file).map_err(|error| unwritten(&out.name, &error))?;
        let Some(next) = tick.checked_add(every) else {
            break;
        };
        tick = next;
    }
    Ok((code, out))
}

/// A replay whose stacks have names.
struct Sampler {
    timeline: Timeline,
    names: Names,
    resolver: Resolver,
    /// Whether the kernel has told where it runs.
    is_placed: bool,
    /// When modules come and go, earliest first.
    changes: std::iter::Peekable<vec::IntoIter<u64>>,
}

impl Sampler {
    fn open(reader: &Reader, debug: &DebugArgs, report: &Report) -> Result<Self, Failure> {
        let names = Names::of(reader, debug, &Demand::Many, report)?;
        let kinds = [EventKind::ModuleLoad, EventKind::ModuleUnload];
        let mut changes = Vec::new();
        for row in reader.events().with_kinds(EventMask::of(&kinds)) {
            changes.push(row?.tick);
        }
        let mut timeline = Timeline::open(reader)?;
        timeline.set_tier(report.tier());
        Ok(Sampler {
            timeline,
            names,
            resolver: Resolver::default(),
            is_placed: false,
            changes: changes.into_iter().peekable(),
        })
    }

    /// Goes to a tick; false if a signal came first.
    fn go(&mut self, tick: u64, signals: &Signals) -> Result<bool, Failure> {
        let mut go_on = |_| signals.received().is_none();
        Ok(self.timeline.seek(Mark::at(tick), &mut go_on)? != Halt::Interrupted)
    }

    fn take(&mut self, report: &Report) -> Sample {
        let machine = self.timeline.machine_mut();
        let tick = machine.tick().0;
        if !self.is_placed && self.names.kernel.slide(machine).is_some() {
            self.resolver = self.names.resolver(machine, report);
            self.is_placed = true;
        }
        let mut changed = false;
        while self.changes.next_if(|change| *change <= tick).is_some() {
            changed = true;
        }
        if changed {
            let modules = self.names.kernel.modules(machine).unwrap_or_default();
            self.resolver.set_modules(modules);
            self.names.add_module_debug(&mut self.resolver, report);
        }
        let task = self.names.kernel.current(machine);
        let stack = self.names.kernel.stack(machine, &self.resolver);
        let (tid, comm) = task.map_or((NO_TASK.0, NO_TASK.1.to_owned()), |task| {
            (task.pid.try_into().unwrap_or(0), task.comm)
        });
        Sample {
            ns: machine.time().0,
            tid,
            // Names in these formats end at a blank or a semicolon.
            comm: comm.replace([' ', ';'], "_"),
            frames: frames(&stack, &self.resolver),
        }
    }
}

/// The stack with names. What is in the program is one frame: its addresses have none.
fn frames(stack: &Stack, resolver: &Resolver) -> Vec<NamedFrame> {
    let mut all = Vec::new();
    for frame in &stack.frames {
        if frame.is_user {
            all.push(NamedFrame {
                ip: frame.ip,
                function: "[program]".to_owned(),
                offset: None,
                object: "[user]".to_owned(),
            });
            break;
        }
        named(frame, resolver, &mut all);
    }
    all
}

fn named(frame: &StackFrame, resolver: &Resolver, all: &mut Vec<NamedFrame>) {
    let place = resolver.place(frame.lookup_ip());
    let object = match place.as_ref().and_then(|place| place.module) {
        Some(module) => format!("[{module}]"),
        None => "[kernel.kallsyms]".to_owned(),
    };
    for source in source_frames(resolver, &[], frame.lookup_ip()) {
        if source.inlined
            && let Some(function) = source.function
        {
            all.push(NamedFrame {
                ip: frame.ip,
                function,
                offset: None,
                object: "inlined".to_owned(),
            });
        }
    }
    all.push(NamedFrame {
        ip: frame.ip,
        function: place
            .as_ref()
            .map_or_else(|| "[unknown]".to_owned(), |place| place.name.to_owned()),
        offset: place.map(|place| place.offset + u64::from(frame.is_return)),
        object,
    });
}
