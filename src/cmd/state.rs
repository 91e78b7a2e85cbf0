//! `ps`, `dmesg` and `lsmod`: what the guest's kernel knew at a tick, read from its memory there.

use colinux_replay::{GuestKernel, Timeline};
use colinux_symbols::modules::RegionKind;
use colinux_tracer::Reader;
use serde_json::json;

use crate::args::At;
use crate::console::Signals;
use crate::exit::{self, Failure};
use crate::report::Report;
use crate::store;

/// A recording, at the place that was asked for.
pub(crate) struct Moment {
    pub(crate) reader: Reader,
    pub(crate) timeline: Timeline,
}

impl Moment {
    /// Opens the recording and goes there.
    pub(crate) fn find(args: &At, report: &Report) -> Result<Self, Failure> {
        let path = store::find(args.trace.as_deref())?;
        let reader = Reader::open(&path)?;
        if let Some(recovery) = reader.recovery() {
            report.note(format!("{}: {recovery}", path.display()));
        }
        let signals = Signals::catch()
            .map_err(|error| Failure::new(exit::ENVIRONMENT, format!("signals: {error}")))?;
        let end = colinux_replay::Position::End;
        let position = args.at.as_ref().unwrap_or(&end);
        let timeline = super::gdb::open(&reader, Some(position), &signals, report)?;
        // A signal came first: it says enough.
        let interrupted = || Failure::new(exit::SIGNAL + signals.received().unwrap_or(2), "");
        let timeline = timeline.ok_or_else(interrupted)?;
        Ok(Moment { reader, timeline })
    }
}

pub(crate) fn ps(args: &At, report: &Report) -> Result<u8, Failure> {
    let mut moment = Moment::find(args, report)?;
    let kernel = GuestKernel::of(&moment.reader)?;
    let tasks = kernel.tasks(moment.timeline.machine_mut())?;
    if !args.json {
        report.line(format!("{:>7} {:>7} {:>7} S COMMAND", "TID", "PID", "PPID"));
    }
    for task in tasks {
        report.line(if args.json {
            json!({
                "tid": task.pid, "pid": task.tgid, "ppid": task.ppid,
                "state": task.state.letter().to_string(),
                "comm": task.comm, "kernel": task.is_kernel, "task": task.gva.0,
            })
            .to_string()
        } else {
            task.to_string()
        });
    }
    Ok(0)
}

pub(crate) fn dmesg(args: &At, report: &Report) -> Result<u8, Failure> {
    let mut moment = Moment::find(args, report)?;
    let kernel = GuestKernel::of(&moment.reader)?;
    for record in kernel.log(moment.timeline.machine_mut())? {
        report.line(if args.json {
            json!({
                "seq": record.seq, "ns": record.time_ns, "level": record.level,
                "text": record.text,
            })
            .to_string()
        } else {
            record.to_string()
        });
    }
    Ok(0)
}

pub(crate) fn lsmod(args: &At, report: &Report) -> Result<u8, Failure> {
    let mut moment = Moment::find(args, report)?;
    let kernel = GuestKernel::of(&moment.reader)?;
    let modules = kernel.modules(moment.timeline.machine_mut())?;
    if !args.json {
        report.line(format!(
            "{:<24} {:>8} {:<9} ADDRESS",
            "MODULE", "SIZE", "STATE"
        ));
    }
    for module in modules {
        if !args.json {
            report.line(module.to_string());
            continue;
        }
        let regions = module.regions.iter().map(|region| {
            let kind = match region.kind {
                RegionKind::Text => "text",
                RegionKind::Data => "data",
                RegionKind::Init => "init",
            };
            json!({"kind": kind, "from": region.from.0, "size": region.size})
        });
        let sections = module
            .sections
            .iter()
            .map(|(name, at)| (name.clone(), json!(at.0)));
        report.line(
            json!({
                "name": module.name,
                "state": module.state.word(),
                "base": module.base().map(|base| base.0),
                "size": module.regions.iter().map(|r| r.size).sum::<u64>(),
                "build_id": module.build_id.as_ref().map(ToString::to_string),
                "regions": regions.collect::<Vec<_>>(),
                "sections": sections.collect::<serde_json::Map<_, _>>(),
            })
            .to_string(),
        );
    }
    Ok(0)
}
