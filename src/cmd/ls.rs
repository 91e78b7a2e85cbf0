//! `ls`: the recordings in the store.

use colinux_tracer::Reader;
use serde_json::json;

use crate::args::Ls;
use crate::exit::Failure;
use crate::report::Report;
use crate::store;
use crate::words::{grouped, sized};

pub(crate) fn run(args: &Ls, report: &Report) -> Result<u8, Failure> {
    for path in store::list()? {
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let reader = match Reader::open(&path) {
            Ok(reader) => reader,
            Err(error) => {
                if args.json {
                    report.line(json!({"name": name, "error": error.to_string()}).to_string());
                } else {
                    report.line(format!("{name:<32} unreadable: {error}"));
                }
                continue;
            }
        };
        let stats = reader.stats();
        let end = reader.end().ok().flatten();
        let state = end.as_ref().map_or("cut off", |e| e.reason.name());
        let ticks = end
            .as_ref()
            .map(|e| e.tick)
            .or(stats.ticks.map(|t| t.1))
            .unwrap_or(0);
        if args.json {
            report.line(
                json!({
                    "name": name, "path": path, "bytes": stats.bytes, "ticks": ticks,
                    "events": stats.events, "end": state,
                })
                .to_string(),
            );
        } else {
            report.line(format!(
                "{name:<32} {:>10} {:>18} ticks {:>14} events  {state}",
                sized(stats.bytes),
                grouped(ticks),
                grouped(stats.events)
            ));
        }
    }
    Ok(0)
}
