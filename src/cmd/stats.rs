//! `stats`: what a recording holds, counted.

use colinux_driver::jit::{LEAVES, TierStats};
use colinux_replay::session::Progress;
use colinux_replay::{NoSink, Session};
use colinux_tracer::{EventMask, Levels, Reader};
use serde_json::json;

use super::counters;
use crate::args::Stats;
use crate::console::Signals;
use crate::exit::{self, Failure};
use crate::report::Report;
use crate::store;
use crate::words::grouped;

/// Instructions listed that tier 0 did in translated code.
const CODES_SHOWN: usize = 12;

pub(crate) fn run(args: &Stats, report: &Report) -> Result<u8, Failure> {
    let path = store::find(args.trace.as_deref())?;
    let reader = Reader::open(&path)?;
    if args.vcpu {
        return vcpu(&reader, args.json, report);
    }
    counters::show(&reader, args.json, report)
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
    let codes = |counts: &[(String, u64)]| -> Vec<serde_json::Value> {
        let row = |(code, count): &(String, u64)| json!({ "code": code, "count": count });
        counts.iter().map(row).collect()
    };
    let leaves: Vec<_> = (LEAVES.iter().zip(stats.leaves))
        .map(|(reason, count)| json!({ "reason": reason, "count": count }))
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
        "leaves": leaves,
        "by_code": codes(&stats.by_code),
        "slow_by_code": codes(&stats.slow_by_code),
    })
}

fn vcpu_text(ticks: u64, stats: &TierStats, report: &Report) {
    let interpreted = ticks.saturating_sub(stats.ticks);
    let row = |name: &str, value: u64| report.line(format!("{name:<42} {:>16}", grouped(value)));
    row("instructions", ticks);
    row("  in blocks not translated", interpreted);
    row("  in translated code", stats.ticks);
    row("    left to tier 0", stats.calls);
    row("    with a slow memory access", stats.slow_accesses);
    report.line(format!(
        "{:<42} {:>14.3} %",
        "on the host's own CPU",
        native_share(ticks, stats)
    ));
    row("times translated code was entered", stats.entries);
    row("blocks translated", stats.translated);
    row("  their instructions", stats.translated_insns);
    row("blocks thrown away", stats.invalidated);
    row("times all were thrown away", stats.flushes);
    row("bytes of host code", stats.code_bytes);
    let table = |title: &str, rows: &[(String, u64)]| {
        if !rows.is_empty() {
            report.line("");
            report.line(format!("{title:<42} {:>16}", "count"));
        }
        for (code, count) in rows.iter().take(CODES_SHOWN) {
            row(code, *count);
        }
    };
    let leaves = LEAVES.iter().map(|&name| name.to_owned());
    let leaves: Vec<_> = leaves.zip(stats.leaves).collect();
    table("translated code was left because", &leaves);
    table("left to tier 0 most often", &stats.by_code);
    table("a slow memory access most often", &stats.slow_by_code);
}
