//! `bt`: the stack of what ran at a tick, or of a task that waited there.

use colinux_replay::view;
use colinux_symbols::ps::Task;
use colinux_symbols::unwind::{End, Stack, StackFrame};
use colinux_symbols::{Gva, Resolver};
use serde_json::{Map, Value, json};

use super::state::Moment;
use crate::args::Bt;
use crate::exit::{self, Failure};
use crate::names::{Demand, Names, SourceFrame, source_frames, source_roots};
use crate::report::Report;

pub(crate) fn run(args: &Bt, report: &Report) -> Result<u8, Failure> {
    let mut moment = Moment::find(&args.at, report)?;
    let mut names = Names::of(&moment.reader, &args.debug, &Demand::Few, report)?;
    let machine = moment.timeline.machine_mut();
    let resolver = names.resolver(machine, report);
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
    let roots = source_roots(&resolver);
    if args.at.json {
        for row in rows(&stack, &resolver, &roots) {
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
    for frame in &stack.frames {
        for line in lines(frame, &resolver, &roots) {
            report.line(format!("#{number:<3}{line}"));
            number += 1;
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

/// The frame and what is inlined into it, innermost first.
fn lines(frame: &StackFrame, resolver: &Resolver, roots: &[String]) -> Vec<String> {
    let head = |word: &str| format!("{word:<6} {:#018x}", frame.ip.0);
    let name = symbol(frame, resolver);
    let sources = sources(frame, resolver, roots);
    let method = frame.method.word();
    if sources.is_empty() {
        let name =
            name.unwrap_or_else(|| if frame.is_user { "(program)" } else { "??" }.to_owned());
        return vec![format!("{} {name}", head(method))];
    }
    let show = |source: &SourceFrame| {
        let place = source
            .file
            .as_ref()
            .map(|file| format!(" at {file}:{}", source.line));
        let place = place.unwrap_or_default();
        if source.inlined {
            let function = source.function.as_deref().unwrap_or("??");
            format!("{} {function}{place}", head("inline"))
        } else {
            let name = name.clone().or_else(|| source.function.clone());
            format!(
                "{} {}{place}",
                head(method),
                name.as_deref().unwrap_or("??")
            )
        }
    };
    sources.iter().map(show).collect()
}

fn sources(frame: &StackFrame, resolver: &Resolver, roots: &[String]) -> Vec<SourceFrame> {
    if frame.is_user {
        Vec::new()
    } else {
        source_frames(resolver, roots, frame.lookup_ip())
    }
}

/// One object a frame, inlined ones included; the last says why there are no more.
fn rows(stack: &Stack, resolver: &Resolver, roots: &[String]) -> Vec<Map<String, Value>> {
    let mut all = Vec::new();
    for frame in &stack.frames {
        let sources = sources(frame, resolver, roots);
        if sources.is_empty() {
            all.push(row(frame, resolver, None));
        }
        all.extend(
            sources
                .iter()
                .map(|source| row(frame, resolver, Some(source))),
        );
    }
    for (number, row) in all.iter_mut().enumerate() {
        row.insert("frame".into(), number.into());
    }
    if let Some(last) = all.last_mut() {
        last.insert("end".into(), ending_word(stack.end).into());
    }
    all
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
