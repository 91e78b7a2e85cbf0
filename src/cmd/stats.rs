//! `stats`: what a recording holds, counted.

use colinux_driver::jit::TierStats;
use colinux_replay::session::Progress;
use colinux_replay::{NoSink, Session};
use colinux_tracer::{EventMask, Levels, Reader};
use serde_json::json;

use crate::args::Stats;
use crate::console::Signals;
use crate::exit::{self, Failure};
use crate::report::Report;
use crate::store;
use crate::words::{grouped, sized};

/// Instructions listed that tier 0 did in translated code.
const CODES_SHOWN: usize = 12;

pub(crate) fn run(args: &Stats, report: &Report) -> Result<u8, Failure> {
    let path = store::find(args.trace.as_deref())?;
    let reader = Reader::open(&path)?;
    if args.vcpu {
        return vcpu(&reader, args.json, report);
    }
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

/// What the vCPU does, from a replay without events.
fn vcpu(reader: &Reader, json: bool, report: &Report) -> Result<u8, Failure> {
    let mut session = Session::with_events(reader, EventMask::from_levels(&Levels::off()))?;
    session.runner_mut().machine_mut().set_tier(report.tier());
    let signals = Signals::catch()
        .map_err(|error| Failure::new(exit::ENVIRONMENT, format!("signals: {error}")))?;
    loop {
        let step = session.advance(u64::MAX, &mut NoSink)?;
        session.runner_mut().machine_mut().take_console();
        match step {
            Progress::More => {}
            Progress::End(_) | Progress::Reached => break,
            Progress::Lost(why) => return Err(Failure::new(exit::DIVERGED, why)),
        }
        if let Some(signal) = signals.received() {
            return Ok(exit::SIGNAL + signal);
        }
    }
    let machine = session.runner().machine();
    let (ticks, stats) = (machine.tick().0, machine.tier_stats());
    if json {
        report.line(vcpu_json(ticks, &stats).to_string());
    } else {
        vcpu_text(ticks, &stats, report);
    }
    Ok(0)
}

/// Of all instructions, those that ran on the host's own CPU, in per cent.
fn native_share(ticks: u64, stats: &TierStats) -> f64 {
    let native = stats.ticks.saturating_sub(stats.calls);
    100.0 * native as f64 / ticks.max(1) as f64
}

fn vcpu_json(ticks: u64, stats: &TierStats) -> serde_json::Value {
    let codes: Vec<_> = (stats.by_code.iter())
        .map(|(code, count)| json!({ "code": code, "count": count }))
        .collect();
    json!({
        "ticks": ticks,
        "native_percent": native_share(ticks, stats),
        "translated_ticks": stats.ticks,
        "tier0_calls": stats.calls,
        "slow_accesses": stats.slow_accesses,
        "entries": stats.entries,
        "blocks_translated": stats.translated,
        "insns_translated": stats.translated_insns,
        "blocks_invalidated": stats.invalidated,
        "flushes": stats.flushes,
        "code_bytes": stats.code_bytes,
        "by_code": codes,
    })
}

fn vcpu_text(ticks: u64, stats: &TierStats, report: &Report) {
    let interpreted = ticks.saturating_sub(stats.ticks);
    let row = |name: &str, value: u64| report.line(format!("{name:<34} {:>16}", grouped(value)));
    row("instructions", ticks);
    row("  in blocks not translated", interpreted);
    row("  in translated code", stats.ticks);
    row("    left to tier 0", stats.calls);
    row("    with a slow memory access", stats.slow_accesses);
    report.line(format!(
        "{:<34} {:>14.3} %",
        "on the host's own CPU",
        native_share(ticks, stats)
    ));
    row("times translated code was entered", stats.entries);
    row("blocks translated", stats.translated);
    row("  their instructions", stats.translated_insns);
    row("blocks thrown away", stats.invalidated);
    row("times all were thrown away", stats.flushes);
    row("bytes of host code", stats.code_bytes);
    if !stats.by_code.is_empty() {
        report.line("");
        report.line(format!(
            "{:<34} {:>16}",
            "left to tier 0 most often", "count"
        ));
    }
    for (code, count) in stats.by_code.iter().take(CODES_SHOWN) {
        row(code, *count);
    }
}
