//! What a recording holds, counted from the file; coLinux's own counters first.

use std::collections::BTreeMap;

use colinux_tracer::{Event, EventKind, EventMask, PassageReason, Reader, Scan, Stats, TraceError};
use serde_json::{Value, json};

use crate::exit::Failure;
use crate::report::Report;
use crate::words::{grouped, sized};

/// What a counter counts.
enum Counts {
    /// Passages that ended for these reasons.
    Passages(&'static [PassageReason]),
    /// Events or inputs of these kinds.
    Rows(&'static [&'static str]),
}

/// The counters of `/proc/colinux/stats`, in its order, and what is counted under each name here.
#[rustfmt::skip]
const COUNTERS: &[(&str, Counts, &str)] = &[
    ("idle", Counts::Passages(&[PassageReason::Idle]), "passages that the guest ended by halting"),
    ("msgto", Counts::Rows(&["ConsoleOut", "BlkSubmit", "NetTx"]), "messages from the guest: console, disk, network"),
    ("mfrom", Counts::Rows(&["ConsoleIn", "NetRx", "HostControl"]), "messages to the guest, which are inputs"),
    ("intr", Counts::Passages(&[PassageReason::ForwardInterrupt]), "passages cut short for the host"),
    ("dev", Counts::Passages(&[PassageReason::Device, PassageReason::IrqWindow]), "passages that a device ended"),
    ("time", Counts::Passages(&[PassageReason::GetTime]), "passages to read the time: none, it follows from the ticks"),
    ("hpt", Counts::Passages(&[PassageReason::Deadline]), "passages that the deadline of a timer ended"),
    ("free", Counts::Passages(&[PassageReason::FreePages]), "passages to give pages back"),
    ("alloc", Counts::Rows(&["PpramAlloc"]), "pages of pseudo-physical memory allocated"),
    ("getpp", Counts::Passages(&[PassageReason::AllocPages]), "passages to ask for pages: none, the first touch allocates"),
];

/// Counts, and says so.
pub(crate) fn show(reader: &Reader, json: bool, report: &Report) -> Result<u8, Failure> {
    let stats = reader.stats();
    let counters = counters(reader, &stats)?;
    let bytes = reader.row_bytes()?;
    if json {
        let mut value = serde_json::to_value(&stats).unwrap_or_default();
        let named = counters
            .iter()
            .map(|(name, count, _)| ((*name).to_owned(), json!(count)));
        value["counters"] = Value::Object(named.collect());
        for kind in value["kinds"].as_array_mut().into_iter().flatten() {
            let code = kind["code"].as_u64().unwrap_or(0) as usize;
            kind["bytes"] = json!(bytes[code].round());
        }
        report.line(value.to_string());
        return Ok(0);
    }
    for (name, count, what) in &counters {
        report.line(format!("{name:<6} {:>14}  {what}", grouped(*count)));
    }
    report.line("");
    report.line(format!(
        "{:<20} {:>14} {:>12} {:>10}",
        "event or input", "count", "stored", "bytes each"
    ));
    for kind in &stats.kinds {
        let stored = bytes[usize::from(kind.code)];
        report.line(format!(
            "{:<20} {:>14} {:>12} {:>10.2}",
            kind.name,
            grouped(kind.count),
            sized(stored.round() as u64),
            stored / kind.count as f64,
        ));
    }
    report.line("");
    report.line(format!(
        "{:<12} {:>8} {:>14} {:>12} {:>12} {:>10}",
        "chunks", "count", "rows", "raw", "stored", "bytes each"
    ));
    for chunk in &stats.chunks {
        let each = match chunk.rows {
            0 => String::new(),
            rows => format!("{:.2}", chunk.stored as f64 / rows as f64),
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

/// Name, count and meaning of each counter.
fn counters(
    reader: &Reader,
    stats: &Stats,
) -> Result<Vec<(&'static str, u64, &'static str)>, TraceError> {
    let leaves = Scan {
        kinds: EventMask::of(&[EventKind::PassageLeave]),
        ..Scan::default()
    };
    let counted = reader.scan(&leaves, |reasons: &mut BTreeMap<_, u64>, _, _, event| {
        if let Event::PassageLeave { reason, .. } = event {
            *reasons.entry(*reason).or_default() += 1;
        }
    })?;
    let mut reasons: BTreeMap<PassageReason, u64> = BTreeMap::new();
    for (reason, count) in counted.into_iter().flatten() {
        *reasons.entry(reason).or_default() += count;
    }
    let count = |counts: &Counts| -> u64 {
        match counts {
            Counts::Passages(of) => of.iter().filter_map(|reason| reasons.get(reason)).sum(),
            Counts::Rows(names) => {
                let kinds = stats.kinds.iter();
                let named = kinds.filter(|kind| names.contains(&kind.name.as_str()));
                named.map(|kind| kind.count).sum()
            }
        }
    };
    let rows = COUNTERS.iter();
    Ok(rows
        .map(|(name, counts, what)| (*name, count(counts), *what))
        .collect())
}
