//! `stats`: what a recording holds, counted.

use colinux_tracer::Reader;

use crate::args::Info;
use crate::exit::Failure;
use crate::report::Report;
use crate::store;
use crate::words::{grouped, sized};

pub(crate) fn run(args: &Info, report: &Report) -> Result<u8, Failure> {
    let path = store::find(args.trace.as_deref())?;
    let reader = Reader::open(&path)?;
    let stats = reader.stats();
    if args.json {
        report.line(serde_json::to_string(&stats).unwrap_or_default());
        return Ok(0);
    }
    report.line(format!("{:<20} {:>14}", "event or input", "count"));
    for kind in &stats.kinds {
        report.line(format!("{:<20} {:>14}", kind.name, grouped(kind.count)));
    }
    report.line("");
    report.line(format!(
        "{:<12} {:>8} {:>14} {:>12} {:>12} {:>10}",
        "chunks", "count", "rows", "raw", "stored", "bytes/row"
    ));
    for chunk in &stats.chunks {
        let each = if chunk.rows > 0 {
            format!("{:.2}", chunk.stored as f64 / chunk.rows as f64)
        } else {
            String::new()
        };
        report.line(format!(
            "{:<12} {:>8} {:>14} {:>12} {:>12} {each:>10}",
            chunk.kind,
            chunk.chunks,
            grouped(chunk.rows),
            sized(chunk.raw),
            sized(chunk.stored),
        ));
    }
    Ok(0)
}
