//! `symbols`: what is at an address, and where a name is.

use std::io::{self, BufRead};

use colinux_replay::position::parse_number;
use colinux_symbols::resolve::{Layer, Place};
use colinux_symbols::{Gva, Resolver};
use colinux_tracer::Reader;
use serde_json::{Map, Value, json};

use super::print::Printer;
use super::state::Moment;
use crate::args::{At, Symbols};
use crate::exit::{self, Failure};
use crate::names::{Demand, Names, SourceFrame, source_frames};
use crate::report::Report;
use crate::store;

/// From so many questions on, making an index is quicker than doing without.
const MANY: usize = 2_000;

pub(crate) fn run(args: &Symbols, report: &Report) -> Result<u8, Failure> {
    let demand = if reads_input(args) || args.what.len() >= MANY {
        Demand::Many
    } else {
        Demand::Few
    };
    let mut moment = None;
    let mut names = match (&args.kernel, &args.at) {
        (Some(kernel), _) => Names::of_file(kernel, &args.debug, &demand, report)?,
        (None, Some(at)) => {
            let at = At {
                trace: args.trace.clone(),
                at: Some(at.clone()),
                json: args.json,
            };
            let found = moment.insert(Moment::find(&at, report)?);
            Names::of(&found.reader, &args.debug, &demand, report)?
        }
        (None, None) => {
            let reader = Reader::open(&store::find(args.trace.as_deref())?)?;
            Names::of(&reader, &args.debug, &demand, report)?
        }
    };
    for name in &args.types {
        let shown = names.layout(name)?;
        report.line(if args.json { shown.json } else { shown.text });
    }
    let resolver = match &mut moment {
        Some(moment) => names.resolver(moment.timeline.machine_mut(), report),
        None => names.linked(),
    };
    if let Some(moment) = moment.as_mut().filter(|_| !args.prints.is_empty()) {
        let printer = Printer::new(&names, &resolver, moment.timeline.machine_mut())?;
        for text in &args.prints {
            report.line(printer.line(text, args.json)?);
        }
    }
    let asked = Asked {
        roots: resolver.source_roots(),
        resolver,
        json: args.json,
    };
    let mut missing = 0;
    for what in &args.what {
        missing += usize::from(!asked.answer(what, report));
    }
    if reads_input(args) {
        for line in io::stdin().lock().lines() {
            let line = line.map_err(|error| {
                Failure::new(exit::ENVIRONMENT, format!("standard input: {error}"))
            })?;
            if !line.trim().is_empty() {
                missing += usize::from(!asked.answer(line.trim(), report));
            }
        }
    }
    Ok(if missing > 0 { exit::FAILED } else { 0 })
}

/// Nothing was asked on the command line.
fn reads_input(args: &Symbols) -> bool {
    args.what.is_empty() && args.types.is_empty() && args.prints.is_empty()
}

struct Asked {
    resolver: Resolver,
    roots: Vec<String>,
    json: bool,
}

/// An address, or a name and a distance from it.
fn parse(what: &str) -> Result<Gva, (&str, u64)> {
    let bare = what.len() == 16 && what.bytes().all(|b| b.is_ascii_hexdigit());
    if bare && let Ok(address) = u64::from_str_radix(what, 16) {
        return Ok(Gva(address));
    }
    if what.starts_with(|c: char| c.is_ascii_digit())
        && let Some(address) = parse_number(what)
    {
        return Ok(Gva(address));
    }
    let (name, offset) = what.split_once('+').unwrap_or((what, "0"));
    // As kernels print it: `name+0x10/0x80`.
    let offset = offset.split('/').next().unwrap_or(offset);
    Err(match parse_number(offset) {
        Some(offset) => (name, offset),
        None => (what, 0),
    })
}

impl Asked {
    /// Answers one question; false when there is nothing of that name or at that address.
    fn answer(&self, what: &str, report: &Report) -> bool {
        match parse(what) {
            Ok(gva) => self.address(gva, report),
            Err((name, offset)) => {
                let all = self.resolver.addresses_of(name);
                for gva in &all {
                    self.address(gva.plus(offset), report);
                }
                if all.is_empty() {
                    if self.json {
                        report.line(json!({"name": name, "address": null}).to_string());
                    }
                    report.note(format!("no symbol is called `{name}`"));
                }
                !all.is_empty()
            }
        }
    }

    fn address(&self, gva: Gva, report: &Report) -> bool {
        let place = self.resolver.place(gva);
        let frames = source_frames(&self.resolver, &self.roots, gva);
        let known = place.is_some() || !frames.is_empty();
        if self.json {
            report.line(row(gva, place.as_ref(), &frames).to_string());
        } else {
            report.line(text(gva, place.as_ref(), &frames));
        }
        known
    }
}

/// The address with its symbol and line; below it, indented, the functions that it was inlined
/// into.
fn text(gva: Gva, place: Option<&Place<'_>>, frames: &[SourceFrame]) -> String {
    let symbol = place.map_or_else(|| "??".to_owned(), ToString::to_string);
    let mut text = format!("{:#018x} {symbol}", gva.0);
    let line = |frame: &SourceFrame| {
        let file = frame.file.as_ref();
        file.map_or_else(String::new, |file| format!(" at {file}:{}", frame.line))
    };
    match frames {
        [] => {}
        [only] => text.push_str(&line(only)),
        several => {
            for frame in several {
                let function = frame.function.as_deref().unwrap_or("??");
                let how = if frame.inlined { " (inlined)" } else { "" };
                text.push_str(&format!("\n    {function}{}{how}", line(frame)));
            }
        }
    }
    text
}

fn row(gva: Gva, place: Option<&Place<'_>>, frames: &[SourceFrame]) -> Value {
    let mut row = Map::new();
    row.insert("address".into(), gva.0.into());
    row.insert("symbol".into(), json!(place.map(|p| p.name)));
    if let Some(place) = place {
        row.insert("offset".into(), place.offset.into());
        row.insert("size".into(), place.size.into());
        row.insert("module".into(), json!(place.module));
        let by = match place.layer {
            Layer::Symtab => "symtab",
            Layer::Kallsyms => "kallsyms",
            Layer::Module => "module",
        };
        row.insert("by".into(), by.into());
    }
    let frames = frames.iter().map(|frame| {
        json!({
            "function": frame.function, "file": frame.file, "line": frame.line,
            "inlined": frame.inlined,
        })
    });
    row.insert("frames".into(), frames.collect());
    Value::Object(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_are_told_apart() {
        assert_eq!(parse("0xffffffff81000000"), Ok(Gva(0xffff_ffff_8100_0000)));
        assert_eq!(parse("ffffffff81000000"), Ok(Gva(0xffff_ffff_8100_0000)));
        assert_eq!(parse("4096"), Ok(Gva(4096)));
        assert_eq!(parse("schedule"), Err(("schedule", 0)));
        assert_eq!(parse("schedule+0x10/0x80"), Err(("schedule", 16)));
        assert_eq!(parse("do_exit+4"), Err(("do_exit", 4)));
        assert_eq!(parse("a+b"), Err(("a+b", 0)));
    }
}
