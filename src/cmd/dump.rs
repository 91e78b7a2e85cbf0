//! `dump`: events and inputs as text or JSON.

use std::io::{self, BufWriter, Write};
use std::thread;
use std::time::Duration;

use colinux_replay::scene::Scene;
use colinux_replay::{Position, Timeline};
use colinux_tracer::{Event, EventKind, EventMask, EventRow, Facility, Input, Levels, Reader};
use serde_json::{Map, Value};

use super::dump_names::Namer;

use crate::args::Dump;
use crate::exit::Failure;
use crate::report::Report;
use crate::store;

/// Between two looks at a recording that is being written.
const FOLLOW_PAUSE: Duration = Duration::from_millis(50);

pub(crate) fn run(args: &Dump, report: &Report) -> Result<u8, Failure> {
    let path = store::find(args.trace.as_deref())?;
    let mut reader = Reader::open(&path)?;
    if let Some(recovery) = reader.recovery() {
        report.note(format!("{}: {recovery}", path.display()));
    }
    let (from, to) = span(args.from.as_ref(), args.to.as_ref(), &reader)?;
    let limit = args.limit.unwrap_or(u64::MAX);
    let mut out = BufWriter::new(io::stdout().lock());
    let mut shown = 0;
    let mut show = |line: Option<String>| {
        // A closed pipe ends it quietly.
        let Some(line) = line else {
            return out.flush().is_ok();
        };
        shown += 1;
        shown <= limit && writeln!(out, "{line}").is_ok()
    };
    if args.inputs {
        for (tick, input) in reader.inputs()? {
            if (from..=to).contains(&tick) {
                let line = if args.json {
                    json_row(None, tick, serde_json::to_value(&input)).to_string()
                } else {
                    input_text(tick, &input)
                };
                if !show(Some(line)) {
                    break;
                }
            }
        }
        return Ok(0);
    }
    let wanted = wanted(args)?;
    let mut scene = Scene::at(&reader, from)?;
    let mut namer = match args.symbols {
        true => Some(Namer::of(&reader, &args.debug, to, report)?),
        false => None,
    };
    let mut next = 0;
    loop {
        let mut cursor = reader.events().with_kinds(Scene::with(wanted));
        cursor = cursor.with_ticks(from..=to);
        cursor.seek_number(next)?;
        for row in cursor {
            let row = row?;
            // Of a task switch, who leaves; of an exec, by the name it had.
            let task = scene.task(row.vcpu);
            scene.see(&row);
            if !wanted.contains_code(row.event.kind().code()) {
                continue;
            }
            if let Some(namer) = &mut namer {
                namer.at(row.tick);
            }
            let line = if args.json {
                let event = serde_json::to_value(&row.event);
                let mut json = json_row(Some(row.vcpu), row.tick, event);
                add_names(&mut json, namer.as_ref());
                add_scene(&mut json, &scene, task, &row);
                json.to_string()
            } else {
                in_scene(&scene, &task, &row, namer.as_ref())
            };
            if !show(Some(line)) {
                return Ok(0);
            }
        }
        next = reader.event_count();
        if !args.follow || reader.is_complete() {
            break;
        }
        if !show(None) {
            break;
        }
        while reader.refresh()?.new_events == 0 && !reader.is_complete() {
            thread::sleep(FOLLOW_PAUSE);
        }
    }
    Ok(0)
}

/// The ticks between two positions, from the file alone where it says them. `--to +1M` counts from `--from`.
pub(crate) fn span(
    from: Option<&Position>,
    to: Option<&Position>,
    reader: &Reader,
) -> Result<(u64, u64), Failure> {
    let from = from.map_or(Ok(0), |position| tick_from(position, 0, reader))?;
    let to = to.map_or(Ok(u64::MAX), |position| tick_from(position, from, reader))?;
    if from > to {
        return Err(Failure::usage(format!(
            "--from @{from} is after --to @{to}"
        )));
    }
    Ok((from, to))
}

/// The tick of a position, from the file alone where it says it.
pub(crate) fn tick_of(position: &Position, reader: &Reader) -> Result<u64, Failure> {
    tick_from(position, 0, reader)
}

fn tick_from(position: &Position, base: u64, reader: &Reader) -> Result<u64, Failure> {
    if let Position::Time(ns) = position
        && let Some(tick) = Scene::tick_at(reader, *ns)?
    {
        return Ok(tick);
    }
    let last = match reader.end()? {
        Some(end) => end.tick,
        None => reader.reach(),
    };
    if let Some(tick) = position.tick(reader, base, last)? {
        return Ok(tick);
    }
    // The events do not say it: the machine has to be asked.
    let mut timeline = Timeline::open(reader)?;
    Ok(position.find(reader, &mut timeline, &mut |_| true)?.tick)
}

/// The kinds asked for: by name, by facility, by level.
fn wanted(args: &Dump) -> Result<EventMask, Failure> {
    if args.event.is_empty() && args.levels.is_empty() {
        return Ok(EventMask::ALL);
    }
    let mut mask = EventMask::of(&kinds(&args.event)?);
    let mut levels = Levels::off();
    for list in &args.levels {
        levels.apply(list).map_err(Failure::usage)?;
    }
    for kind in EventKind::ALL {
        let level = levels.get(kind.facility());
        if kind.facility().is_settable() && (1..=level).contains(&kind.level()) {
            mask.insert(*kind);
        }
    }
    Ok(mask)
}

/// Kinds by name, or all of a facility.
fn kinds(names: &[String]) -> Result<Vec<EventKind>, Failure> {
    let mut found = Vec::new();
    for name in names {
        if let Some(kind) = EventKind::from_name(name) {
            found.push(kind);
        } else if let Some(facility) = Facility::from_name(name) {
            found.extend(EventKind::ALL.iter().filter(|k| k.facility() == facility));
        } else {
            let known: Vec<&str> = EventKind::ALL.iter().map(|k| k.name()).collect();
            return Err(Failure::usage(format!(
                "`{name}` is no kind of event and no facility; the kinds are {}",
                known.join(", ")
            )));
        }
    }
    Ok(found)
}

/// Fields whose values are addresses or bit patterns, shown in hexadecimal.
const HEX: &[&str] = &[
    "rip", "gva", "gpa", "addr", "args", "error", "old", "new", "vector", "value", "gpfn", "ret",
];

/// An event as one line: vCPU, tick, name, fields.
pub(crate) fn text(vcpu: u16, tick: u64, event: &Event) -> String {
    named_text(vcpu, tick, event, None)
}

fn named_text(vcpu: u16, tick: u64, event: &Event, namer: Option<&Namer>) -> String {
    let value = serde_json::to_value(event).unwrap_or(Value::Null);
    format!(
        "[{vcpu:03}] {:>14} {}",
        format!("@{tick}"),
        fields(event.kind().name(), value, namer)
    )
}

/// An event as one line, as ftrace has it: task, vCPU, time, then tick, name, fields.
fn in_scene(scene: &Scene, task: &str, row: &EventRow, namer: Option<&Namer>) -> String {
    let value = serde_json::to_value(&row.event).unwrap_or(Value::Null);
    let time = scene.time(row.tick).map_or("-".to_owned(), |ns| {
        format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
    });
    format!(
        "{:>22} [{:03}] {time:>14} {:>12} {}",
        task,
        row.vcpu,
        format!("@{}", row.tick),
        fields(row.event.kind().name(), value, namer)
    )
}

/// Adds time and task, as far as they are known.
fn add_scene(json: &mut Value, scene: &Scene, task: String, row: &EventRow) {
    let Value::Object(json) = json else { return };
    json.insert("time_ns".to_owned(), scene.time(row.tick).into());
    json.insert("task".to_owned(), task.into());
}

fn input_text(tick: u64, input: &Input) -> String {
    let value = serde_json::to_value(input).unwrap_or(Value::Null);
    format!(
        "{:>14} {}",
        format!("@{tick}"),
        fields(input.kind().name(), value, None)
    )
}

fn fields(name: &str, value: Value, namer: Option<&Namer>) -> String {
    let mut line = format!("{name}:");
    for (key, value) in body(value) {
        line.push(' ');
        line.push_str(&key);
        line.push('=');
        line.push_str(&shown(&key, &value));
        if let Some(name) = name_of(namer, &key, &value) {
            line.push_str(&format!(" <{name}>"));
        }
    }
    line
}

/// What is at the address in a field, if it holds one and that has a name.
fn name_of(namer: Option<&Namer>, key: &str, value: &Value) -> Option<String> {
    namer?.name(key, value.as_u64()?)
}

/// Adds `FIELD_symbol` for every field whose address has a name.
fn add_names(row: &mut Value, namer: Option<&Namer>) {
    let Value::Object(row) = row else { return };
    let named = row
        .iter()
        .filter_map(|(key, value)| Some((format!("{key}_symbol"), name_of(namer, key, value)?)));
    let named: Vec<_> = named.collect();
    row.extend(named.into_iter().map(|(key, name)| (key, name.into())));
}

/// The fields of a row, whose value is an object with the kind's name as its only key.
fn body(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => match map.into_iter().next() {
            Some((_, Value::Object(fields))) => fields,
            _ => Map::new(),
        },
        _ => Map::new(),
    }
}

fn shown(key: &str, value: &Value) -> String {
    let hex = HEX.contains(&key);
    match value {
        Value::Number(n) if hex => match (n.as_u64(), n.as_i64()) {
            (Some(n), _) => format!("{n:#x}"),
            (None, Some(n)) => n.to_string(),
            _ => n.to_string(),
        },
        Value::Array(items) if key == "bytes" || key == "head" => {
            let bytes: Vec<u8> = items
                .iter()
                .filter_map(|b| b.as_u64().and_then(|b| u8::try_from(b).ok()))
                .collect();
            format!("{:?}", String::from_utf8_lossy(&bytes))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| shown(key, item)).collect();
            format!("[{}]", items.join(" "))
        }
        Value::String(s) if s.contains(char::is_whitespace) => format!("{s:?}"),
        Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}

/// A row as one flat object.
fn json_row(vcpu: Option<u16>, tick: u64, value: serde_json::Result<Value>) -> Value {
    let value = value.unwrap_or(Value::Null);
    let name = value.as_object().and_then(|map| map.keys().next().cloned());
    let mut row = Map::new();
    row.insert("tick".to_owned(), tick.into());
    if let Some(vcpu) = vcpu {
        row.insert("vcpu".to_owned(), vcpu.into());
    }
    row.insert("event".to_owned(), name.unwrap_or_default().into());
    row.extend(body(value));
    Value::Object(row)
}
