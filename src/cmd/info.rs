//! `info`: what a recording is.

use colinux_tracer::{Compared, Reader};
use colinux_tui::Density;
use serde_json::json;

use crate::args::Info;
use crate::exit::Failure;
use crate::report::Report;
use crate::store;
use crate::words::{grouped, sized};

pub(crate) fn run(args: &Info, report: &Report) -> Result<u8, Failure> {
    let path = store::find(args.trace.as_deref())?;
    let reader = Reader::open(&path)?;
    let manifest = reader.manifest()?;
    let host = reader.host_info()?;
    let stats = reader.stats();
    let end = reader.end()?;
    let compared = reader.compared_digest(Compared::Everything)?;
    let last = end
        .as_ref()
        .map(|e| e.tick)
        .or_else(|| Some(reader.reach()).filter(|last| *last > 0))
        .unwrap_or(0);
    if args.json {
        let value = json!({
            "path": path,
            "complete": reader.is_complete(),
            "recovery": reader.recovery().map(ToString::to_string),
            "manifest": manifest,
            "host": host,
            "end": end.as_ref().map(|e| json!({
                "reason": e.reason.name(), "tick": e.tick, "digest": e.digest.to_string(),
            })),
            "ticks": last,
            "compared": compared.to_string(),
            "stats": stats,
        });
        report.line(value.to_string());
        return Ok(0);
    }
    let row = |name: &str, value: String| report.line(format!("{name:<12} {value}"));
    row(
        "file",
        format!("{} ({})", path.display(), sized(stats.bytes)),
    );
    match (reader.recovery(), &end) {
        (Some(recovery), _) => row("state", recovery.to_string()),
        (None, Some(end)) => row("state", format!("complete, ended by {}", end.reason)),
        (None, None) => row("state", "not finished".to_owned()),
    }
    row(
        "kernel",
        format!(
            "{} bytes, {}",
            grouped(manifest.kernel.len),
            manifest.kernel.digest
        ),
    );
    if let Some(initrd) = &manifest.initrd {
        row(
            "initrd",
            format!("{} bytes, {}", grouped(initrd.len), initrd.digest),
        );
    }
    row("cmdline", manifest.cmdline.clone());
    if let Some(command) = &manifest.command {
        row("command", command.argv.join(" "));
    }
    row("memory", sized(manifest.memory));
    row(
        "cpu",
        format!(
            "{} x {}, {} ns a tick",
            manifest.vcpus, manifest.cpu.name, manifest.ns_per_tick
        ),
    );
    row("ticks", grouped(last));
    if let Some(speed) = host.as_ref().and_then(|h| h.extra.get("mips")) {
        row(
            "speed",
            format!("{speed} million instructions a second while recording"),
        );
    }
    row("events", grouped(stats.events));
    if stats.events > 0 {
        row("", Density::of(&reader, 64).line(false));
    }
    row("inputs", grouped(stats.inputs));
    if let Some(end) = &end {
        row("digest", end.digest.to_string());
    }
    row("compared", compared.to_string());
    let off: Vec<String> = manifest
        .ended
        .iter()
        .map(|e| format!("{} ({})", e.facility, e.reason))
        .collect();
    if !off.is_empty() {
        row("off", off.join("; "));
    }
    row(
        "note",
        "a recording holds the guest's memory and console: share it with that in mind".into(),
    );
    Ok(0)
}
