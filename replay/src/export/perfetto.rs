//! A Perfetto trace: who ran, in which system call, and everything else that happened.
//!
//! Tasks and system calls become the kernel's own trace events, so that Perfetto draws its lanes of
//! CPUs, processes and threads from them. All other events are instants on a track for each
//! facility, with their fields and their tick, which is the way back: `replay --goto @TICK`.
//! Times are those of the guest, in nanoseconds since power-on.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::mem;
use std::ops::RangeInclusive;

use colinux_tracer::{Comm, Event, EventRow, Facility, Reader, TraceError};
use prost::Message;
use serde_json::Value;

use super::proto::{
    Annotated, DebugAnnotation, Ftrace, FtraceBundle, FtraceEvent, Packet, SchedProcessExec,
    SchedProcessExit, SchedSwitch, SysEnter, SysExit, SystemInfo, TaskNewtask, TaskRename,
    TrackDescriptor, TrackEvent, Utsname,
};
use crate::scene::Scene;

/// `Trace.packet`, length-delimited: a trace is these, one after the other.
const PACKET_TAG: u8 = 0x0a;
/// Who writes the packets; one writer, one number.
const SEQUENCE: u32 = 1;
/// `SEQ_INCREMENTAL_STATE_CLEARED`: nothing before this packet matters.
const STATE_CLEARED: u32 = 1;
/// `TrackEvent.Type.TYPE_INSTANT`
const INSTANT: i32 = 3;
/// Kernel trace events of a CPU that go into one packet.
const BUNDLE_EVENTS: usize = 2048;
/// The priority of an ordinary task; the recording does not tell others.
const PRIORITY: i32 = 120;
/// `CLONE_THREAD`
const CLONE_THREAD: u64 = 0x1_0000;
/// Fields that hold addresses.
const ADDRESSES: &[&str] = &["rip", "gva", "gpa", "addr", "base", "old", "new"];
/// `task_struct.__state` of a task that is dead, and what trace events say for it: `X`.
const TASK_DEAD: u8 = 0x80;
const STATE_X: i64 = 0x10;

/// Why there is no export.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The recording cannot be read.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The export cannot be written.
    #[error("the export cannot be written: {0}")]
    Write(#[from] io::Error),
}

/// Writes the events of some ticks; says how many. `go_on` is asked now and then.
pub fn write(
    reader: &Reader,
    ticks: RangeInclusive<u64>,
    out: &mut dyn Write,
    go_on: &mut dyn FnMut(u64) -> bool,
) -> Result<u64, ExportError> {
    let manifest = reader.manifest()?;
    let mut writer = Writer {
        out,
        ns_per_tick: manifest.ns_per_tick.into(),
        bundles: BTreeMap::new(),
        tracks: Vec::new(),
        buffer: Vec::new(),
    };
    writer.packet(&Packet {
        trusted_packet_sequence_id: Some(SEQUENCE),
        sequence_flags: Some(STATE_CLEARED),
        system_info: Some(SystemInfo {
            utsname: Some(Utsname {
                sysname: Some("Linux".to_owned()),
                machine: Some("x86_64".to_owned()),
            }),
            page_size: Some(4096),
            num_cpus: Some(manifest.vcpus.into()),
            system_ram_bytes: Some(manifest.memory),
        }),
        ..Packet::default()
    })?;
    let mut scene = Scene::at(reader, *ticks.start())?;
    let mut count = 0;
    for row in reader.events().with_ticks(ticks) {
        let row = row?;
        let before = scene.current(row.vcpu);
        scene.see(&row);
        writer.event(scene.time(row.tick), before, &row)?;
        count += 1;
        if count % 4096 == 0 && !go_on(row.tick) {
            break;
        }
    }
    writer.finish()?;
    Ok(count)
}

struct Writer<'w> {
    out: &'w mut dyn Write,
    ns_per_tick: u64,
    /// Kernel trace events not yet written, of each CPU.
    bundles: BTreeMap<u16, Vec<FtraceEvent>>,
    /// Facilities whose track has been described.
    tracks: Vec<Facility>,
    buffer: Vec<u8>,
}

impl Writer<'_> {
    fn packet(&mut self, packet: &Packet) -> io::Result<()> {
        self.buffer.clear();
        self.buffer.push(PACKET_TAG);
        packet
            .encode_length_delimited(&mut self.buffer)
            .map_err(io::Error::other)?;
        self.out.write_all(&self.buffer)
    }

    /// An event, at a time if that is known, in the thread that ran until then.
    fn event(
        &mut self,
        time: Option<u64>,
        current: Option<(u32, Comm)>,
        row: &EventRow,
    ) -> io::Result<()> {
        let time = time.unwrap_or_else(|| row.tick.saturating_mul(self.ns_per_tick));
        let events = ftrace(&row.event, current);
        if events.is_empty() {
            return self.instant(time, row);
        }
        let thread = match &row.event {
            Event::TaskSwitch { prev_tid, .. } => *prev_tid,
            _ => current.map_or(0, |(tid, _)| tid),
        };
        let bundle = self.bundles.entry(row.vcpu).or_default();
        bundle.extend(events.into_iter().map(|event| FtraceEvent {
            timestamp: Some(time),
            pid: Some(thread),
            event: Some(event),
        }));
        if bundle.len() >= BUNDLE_EVENTS {
            let events = mem::take(bundle);
            self.bundle(row.vcpu, events)?;
        }
        Ok(())
    }

    fn bundle(&mut self, cpu: u16, event: Vec<FtraceEvent>) -> io::Result<()> {
        self.packet(&Packet {
            trusted_packet_sequence_id: Some(SEQUENCE),
            ftrace_events: Some(FtraceBundle {
                cpu: Some(cpu.into()),
                event,
            }),
            ..Packet::default()
        })
    }

    fn instant(&mut self, time: u64, row: &EventRow) -> io::Result<()> {
        let kind = row.event.kind();
        let facility = kind.facility();
        let uuid = 1 + facility as u64;
        if !self.tracks.contains(&facility) {
            self.tracks.push(facility);
            self.packet(&Packet {
                trusted_packet_sequence_id: Some(SEQUENCE),
                track_descriptor: Some(TrackDescriptor {
                    uuid: Some(uuid),
                    name: Some(facility.name().to_owned()),
                }),
                ..Packet::default()
            })?;
        }
        let name = match &row.event {
            Event::KernelLog { text, .. } | Event::Mark { text, .. } => text.clone(),
            Event::ConsoleOut { bytes, .. } => String::from_utf8_lossy(bytes).into_owned(),
            _ => kind.name().to_owned(),
        };
        let mut debug_annotations = vec![DebugAnnotation {
            name: Some("tick".to_owned()),
            value: Some(Annotated::Uint(row.tick)),
        }];
        debug_annotations.extend(annotations(&row.event));
        self.packet(&Packet {
            timestamp: Some(time),
            trusted_packet_sequence_id: Some(SEQUENCE),
            track_event: Some(TrackEvent {
                kind: Some(INSTANT),
                track_uuid: Some(uuid),
                categories: vec![facility.name().to_owned()],
                name: Some(name),
                debug_annotations,
            }),
            ..Packet::default()
        })
    }

    fn finish(&mut self) -> io::Result<()> {
        for (cpu, events) in mem::take(&mut self.bundles) {
            self.bundle(cpu, events)?;
        }
        self.out.flush()
    }
}

/// The kernel's own trace events for an event, if there are any.
fn ftrace(event: &Event, current: Option<(u32, Comm)>) -> Vec<Ftrace> {
    let text = |comm: &Comm| Some(comm.to_text().into_owned());
    let number = |id: u32| Some(i32::try_from(id).unwrap_or(i32::MAX));
    match event {
        Event::TaskSwitch {
            prev_tid,
            prev_state,
            prev_comm,
            next_tid,
            next_comm,
            ..
        } => vec![Ftrace::SchedSwitch(SchedSwitch {
            prev_comm: text(prev_comm),
            prev_pid: number(*prev_tid),
            prev_prio: Some(PRIORITY),
            prev_state: Some(match prev_state & TASK_DEAD {
                0 => i64::from(*prev_state),
                _ => STATE_X,
            }),
            next_comm: text(next_comm),
            next_pid: number(*next_tid),
            next_prio: Some(PRIORITY),
        })],
        Event::TaskNew { pid, tid, comm, .. } => vec![Ftrace::TaskNewtask(TaskNewtask {
            pid: number(*tid),
            comm: text(comm),
            clone_flags: Some(if pid == tid { 0 } else { CLONE_THREAD }),
        })],
        Event::TaskExec {
            pid: _,
            tid,
            comm,
            path,
        } => vec![
            Ftrace::SchedProcessExec(SchedProcessExec {
                filename: Some(path.clone()),
                pid: number(*tid),
                old_pid: number(*tid),
            }),
            Ftrace::TaskRename(TaskRename {
                pid: number(*tid),
                oldcomm: current.and_then(|(_, comm)| text(&comm)),
                newcomm: text(comm),
            }),
        ],
        Event::TaskExit { pid, tid, comm, .. } => {
            vec![Ftrace::SchedProcessExit(SchedProcessExit {
                comm: text(comm),
                pid: number(*tid),
                tgid: number(*pid),
            })]
        }
        Event::SyscallEnter { nr, args, .. } => vec![Ftrace::SysEnter(SysEnter {
            id: Some((*nr).into()),
            args: args.to_vec(),
        })],
        Event::SyscallExit { nr, ret, .. } => vec![Ftrace::SysExit(SysExit {
            id: Some((*nr).into()),
            ret: Some(*ret),
        })],
        _ => Vec::new(),
    }
}

/// The fields of an event, named as everywhere else.
fn annotations(event: &Event) -> Vec<DebugAnnotation> {
    let value = serde_json::to_value(event).unwrap_or(Value::Null);
    let Value::Object(kinds) = value else {
        return Vec::new();
    };
    let fields = kinds.into_iter().find_map(|(_, fields)| match fields {
        Value::Object(fields) => Some(fields),
        _ => None,
    });
    let annotation = |(name, value): (String, Value)| {
        let value = match value {
            Value::Bool(value) => Annotated::Bool(value),
            Value::Number(number) => match number.as_u64() {
                Some(value) if ADDRESSES.contains(&name.as_str()) => Annotated::Pointer(value),
                Some(value) => Annotated::Uint(value),
                None => Annotated::Int(number.as_i64().unwrap_or_default()),
            },
            Value::String(value) => Annotated::String(value),
            other => Annotated::String(other.to_string()),
        };
        DebugAnnotation {
            name: Some(name),
            value: Some(value),
        }
    };
    fields.into_iter().flatten().map(annotation).collect()
}
