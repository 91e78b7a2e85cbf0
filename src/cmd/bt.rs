//! `bt`: the stack of what ran at a tick, or of a task that waited there.

use colinux_replay::view;
use colinux_symbols::dwarf::FrameRegisters;
use colinux_symbols::ps::Task;
use colinux_symbols::unwind::{End, StackFrame};
use colinux_symbols::{Gva, Resolver};
use serde_json::{Map, Value, json};

use super::state::Moment;
use super::variables::{self, FrameVariables, Shown};
use crate::args::Bt;
use crate::exit::{self, Failure};
use crate::names::{Demand, Names, SourceFrame, source_frames};
use crate::report::Report;

pub(crate) fn run(args: &Bt, report: &Report) -> Result<u8, Failure> {
    let mut moment = Moment::find(&args.at, report)?;
    let mut names = Names::of(&moment.reader, &args.debug, &Demand::Few, report)?;
    let machine = moment.timeline.machine_mut();
    let resolver = names.resolver(machine, report);
    // The first sixteen are those of the instruction set.
    let mut registers = machine
        .core()
        .cpu
        .regs
        .first_chunk()
        .map(FrameRegisters::all);
    let (stack, task) = match args.task {
        None => (
            names.kernel.stack(machine, &resolver),
            names.kernel.current(machine),
        ),
        Some(tid) => {
            let tasks = names.kernel.tasks(machine)?;
            let task = tasks
                .into_iter()
                .find(|t| i64::from(t.pid) == i64::from(tid));
            let task = task.ok_or_else(|| {
                Failure::new(exit::FAILED, format!("there is no task {tid} at this tick"))
            })?;
            let current = names.kernel.current(machine);
            let stack = if current.is_some_and(|c| c.gva == task.gva) {
                names.kernel.stack(machine, &resolver)
            } else {
                registers = None;
                names
                    .kernel
                    .stack_of(machine, &resolver, &task)
                    .ok_or_else(|| {
                        let why = format!("the stack of task {tid} cannot be read");
                        Failure::new(exit::SYMBOLS, why)
                    })?
            };
            (stack, Some(task))
        }
    };
    let roots = resolver.source_roots();
    let variables = variables::of_stack(&stack, registers, &names, &resolver, machine);
    let listing = Listing {
        resolver: &resolver,
        roots: &roots,
        locals: args.locals,
    };
    let none = FrameVariables::new();
    let variables = variables.iter().chain(std::iter::repeat(&none));
    let frames = stack.frames.iter().zip(variables);
    if args.at.json {
        for row in listing.rows(frames, stack.end) {
            report.line(Value::Object(row).to_string());
        }
        return Ok(0);
    }
    report.line(format!(
        "{}, {}{}",
        moment.timeline.at(),
        task.as_ref().map_or_else(|| "no task".to_owned(), describe),
        if view::registers(moment.timeline.machine()).is_user && args.task.is_none() {
            ", in its program"
        } else {
            ""
        }
    ));
    let mut number = 0;
    for (frame, variables) in frames {
        for (line, locals) in listing.lines(frame, variables) {
            report.line(format!("#{number:<3}{line}"));
            number += 1;
            for local in locals {
                report.line(format!("        {} = {}", local.name, local.value()));
            }
        }
    }
    report.line(ending(stack.end));
    Ok(0)
}

fn describe(task: &Task) -> String {
    let (open, close) = if task.is_kernel { ("[", "]") } else { ("", "") };
    format!("task {} {open}{}{close}", task.pid, task.comm)
}

/// Why there are no more frames.
const fn ending(end: End) -> &'static str {
    match end {
        End::Bottom => "(the bottom of the stack)",
        End::User => "(in the program, as far as its frame pointers lead)",
        End::Lost => "(nothing more can be found)",
        End::Limit => "(more frames are not shown)",
    }
}

const fn ending_word(end: End) -> &'static str {
    match end {
        End::Bottom => "bottom",
        End::User => "user",
        End::Lost => "lost",
        End::Limit => "limit",
    }
}

/// `name+0x10/0x80 [module]`, or nothing. For a caller the offset is that of the return address, as
/// kernels print it, but the name is that of the call.
fn symbol(frame: &StackFrame, resolver: &Resolver) -> Option<String> {
    if frame.is_user {
        return None;
    }
    let mut place = resolver.place(frame.lookup_ip())?;
    place.offset += u64::from(frame.is_return);
    Some(place.to_string())
}

/// How frames are shown.
struct Listing<'l> {
    resolver: &'l Resolver,
    roots: &'l [String],
    locals: bool,
}

impl Listing<'_> {
    /// The frame and what is inlined into it, innermost first, each with its local variables as
    /// far as they are asked for.
    fn lines<'v>(
        &self,
        frame: &StackFrame,
        variables: &'v FrameVariables,
    ) -> Vec<(String, Vec<&'v Shown>)> {
        let head = |word: &str| format!("{word:<6} {:#018x}", frame.ip.0);
        let name = symbol(frame, self.resolver);
        let sources = self.sources(frame);
        let method = frame.method.word();
        if sources.is_empty() {
            let name =
                name.unwrap_or_else(|| if frame.is_user { "(program)" } else { "??" }.to_owned());
            return vec![(format!("{} {name}", head(method)), Vec::new())];
        }
        let show = |(source, variables): (&SourceFrame, Option<&'v [Shown]>)| {
            let place = source
                .file
                .as_ref()
                .map(|file| format!(" at {file}:{}", source.line));
            let place = variables.map_or_else(String::new, arguments) + &place.unwrap_or_default();
            let line = if source.inlined {
                let function = source.function.as_deref().unwrap_or("??");
                format!("{} {function}{place}", head("inline"))
            } else {
                let name = name.clone().or_else(|| source.function.clone());
                format!(
                    "{} {}{place}",
                    head(method),
                    name.as_deref().unwrap_or("??")
                )
            };
            let locals = variables.unwrap_or_default().iter();
            let locals = locals.filter(|v| self.locals && !v.is_argument);
            (line, locals.collect())
        };
        with_variables(&sources, variables).map(show).collect()
    }

    fn sources(&self, frame: &StackFrame) -> Vec<SourceFrame> {
        if frame.is_user {
            Vec::new()
        } else {
            source_frames(self.resolver, self.roots, frame.lookup_ip())
        }
    }

    /// One object a frame, inlined ones included; the last says why there are no more.
    fn rows<'v>(
        &self,
        frames: impl Iterator<Item = (&'v StackFrame, &'v FrameVariables)>,
        end: End,
    ) -> Vec<Map<String, Value>> {
        let mut all = Vec::new();
        for (frame, variables) in frames {
            let sources = self.sources(frame);
            if sources.is_empty() {
                all.push(row(frame, self.resolver, None));
            }
            for (source, variables) in with_variables(&sources, variables) {
                let mut row = row(frame, self.resolver, Some(source));
                if let Some(variables) = variables {
                    row.insert("arguments".into(), values(variables, true));
                    if self.locals {
                        row.insert("locals".into(), values(variables, false));
                    }
                }
                all.push(row);
            }
        }
        for (number, row) in all.iter_mut().enumerate() {
            row.insert("frame".into(), number.into());
        }
        if let Some(last) = all.last_mut() {
            last.insert("end".into(), ending_word(end).into());
        }
        all
    }
}

/// Each frame of the source with its variables, if they were found for all of them.
fn with_variables<'f, 'v>(
    sources: &'f [SourceFrame],
    variables: &'v FrameVariables,
) -> impl Iterator<Item = (&'f SourceFrame, Option<&'v [Shown]>)> {
    let known = variables.len() == sources.len();
    let of = move |at: usize| variables.get(at).filter(|_| known).map(Vec::as_slice);
    sources.iter().enumerate().map(move |(at, s)| (s, of(at)))
}

/// ` (fd=3, buf=0x7ffd00001000 "x")`; what is larger than a number is `...`, as in gdb.
fn arguments(variables: &[Shown]) -> String {
    let show = |v: &Shown| match (&v.value, v.is_composite) {
        (Some(_), true) => format!("{}=...", v.name),
        _ => format!("{}={}", v.name, v.value()),
    };
    let list: Vec<String> = variables
        .iter()
        .filter(|v| v.is_argument)
        .map(show)
        .collect();
    format!(" ({})", list.join(", "))
}

/// Names and values; null for what was optimized away.
fn values(variables: &[Shown], arguments: bool) -> Value {
    let list = variables.iter().filter(|v| v.is_argument == arguments);
    list.map(|v| json!({"name": v.name, "value": v.value}))
        .collect()
}

fn row(
    frame: &StackFrame,
    resolver: &Resolver,
    source: Option<&SourceFrame>,
) -> Map<String, Value> {
    let inlined = source.is_some_and(|s| s.inlined);
    let Gva(ip) = frame.ip;
    let mut row = Map::new();
    let mut put = |key: &str, value: Value| _ = row.insert(key.to_owned(), value);
    put("ip", ip.into());
    put("sp", frame.sp.0.into());
    put(
        "method",
        json!(if inlined {
            "inline"
        } else {
            frame.method.word()
        }),
    );
    put("user", frame.is_user.into());
    let place = (!frame.is_user)
        .then(|| resolver.place(frame.lookup_ip()))
        .flatten();
    let own = || Some(place.as_ref()?.name.to_owned());
    let function = source.and_then(|s| s.function.clone()).or_else(own);
    put("function", json!(function));
    if !inlined && let Some(place) = place {
        put("symbol", place.name.into());
        put("offset", (place.offset + u64::from(frame.is_return)).into());
        put("size", place.size.into());
        put("module", json!(place.module));
    }
    if let Some(SourceFrame {
        file: Some(file),
        line,
        ..
    }) = source
    {
        put("file", file.as_str().into());
        put("line", (*line).into());
    }
    row
}
