//! Going on with a recording where another one was left: the new one holds all that led there, so it
//! replays from power-on, or from any checkpoint, like any other.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use colinux_driver::jit::Tier;
use colinux_driver::machine::Machine;
use colinux_tracer::{
    Event, EventKind, EventMask, HostInfo, INITRD_FILE, Input, KERNEL_FILE, Options, Reader,
    TraceError, Writer,
};

use super::Recorder;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::keeper::Keeper;
use crate::error::ReplayError;
use crate::runner::EventSink;
use crate::session::Progress;
use crate::verify::Opened;

/// Why a recording cannot be gone on with.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// It cannot be read or written, or its machine cannot be built.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The guest is no more.
    #[error("its guest has ended: there is nothing to go on with")]
    Ended,
    /// There is no place to go on from.
    #[error("it holds no checkpoint that can be gone on from{0}")]
    NoCheckpoint(String),
    /// A flight recording does not know its events by number.
    #[error("events of it were let go (`--last`): it cannot be gone on with")]
    Lost,
}

impl From<TraceError> for ResumeError {
    fn from(error: TraceError) -> Self {
        ResumeError::Replay(error.into())
    }
}

impl Recorder {
    /// Begins a recording with all of another up to its last checkpoint, where it goes on.
    pub fn resume(
        reader: &Reader,
        path: &Path,
        options: Options,
        host: &HostInfo,
        tick_limit: u64,
    ) -> Result<Self, ResumeError> {
        let of = |kinds: &[EventKind]| reader.events().with_kinds(EventMask::of(kinds));
        if of(&[EventKind::Lost]).next().is_some() {
            return Err(ResumeError::Lost);
        }
        // At an alarm, the machine would raise it once more.
        let alarms = of(&[EventKind::Oops, EventKind::Panic]);
        let alarms = alarms.map(|row| row.map(|row| row.tick));
        let alarms = alarms.collect::<Result<BTreeSet<u64>, _>>()?;
        let mut opened = Opened::open(reader, Tier::One)?;
        let start = last_checkpoint(reader, &mut opened, &alarms)?;
        let tick = start.state.tick.0;
        let image = opened.checkpoints.pages_at(0).unwrap_or_default().image();
        let mut writer = Writer::create(path, options)?;
        copy(reader, &mut writer, &start, host)?;
        events(reader, &mut writer, &mut opened, &start)?;
        let mut runner = opened.session.into_runner();
        let ids = reader.checkpoints()?.into_iter().map(|info| info.id + 1);
        let keeper = Keeper::going_on(runner.machine_mut(), image, ids.max().unwrap_or(0), tick);
        Ok(Recorder {
            runner,
            writer,
            tick_limit,
            until_panic: false,
            alarms: Vec::new(),
            keeper,
            given: start.inputs as u64,
            events: start.events,
            settled: (tick, start.state.clock.time_at(start.state.tick).0),
            server: None,
        })
    }
}

/// The last state that can be gone on from; the machine is put there.
fn last_checkpoint(
    reader: &Reader,
    opened: &mut Opened,
    alarms: &BTreeSet<u64>,
) -> Result<Arc<Checkpoint>, ResumeError> {
    let mut infos = reader.checkpoints()?;
    infos.retain(|info| !alarms.contains(&info.tick));
    while let Some(info) = infos.pop() {
        let Some(found) = opened.checkpoint(info.tick) else {
            continue;
        };
        let machine: &mut Machine = opened.session.runner_mut().machine_mut();
        opened.checkpoints.restore(info.tick, machine);
        opened.session.restored(&found);
        let agrees = opened.session.agrees(info.tick, found.inputs);
        if !agrees || opened.session.runner_mut().digest() != info.state {
            continue;
        }
        return match found.state.ended {
            Some(_) => Err(ResumeError::Ended),
            None => Ok(found),
        };
    }
    let notes = opened.stored.take_notes();
    let why = notes
        .first()
        .map_or(String::new(), |why| format!(": {why}"));
    Err(ResumeError::NoCheckpoint(why))
}

/// Copies what comes before a checkpoint, and the checkpoint.
fn copy(
    reader: &Reader,
    writer: &mut Writer,
    until: &Checkpoint,
    host: &HostInfo,
) -> Result<(), TraceError> {
    let manifest = reader.manifest()?;
    writer.manifest(&manifest)?;
    writer.host_info(host)?;
    writer.boot_file(KERNEL_FILE, reader.boot_file(KERNEL_FILE)?)?;
    if manifest.initrd.is_some() {
        writer.boot_file(INITRD_FILE, reader.boot_file(INITRD_FILE)?)?;
    }
    let is_input = |(_, input): &(u64, Input)| !matches!(input, Input::RecordEnd { .. });
    let inputs = reader.inputs()?.into_iter().filter(is_input);
    for (tick, input) in inputs.take(until.inputs) {
        writer.input(tick, input)?;
    }
    writer.flush_inputs()?;
    let mut infos = reader.checkpoints()?;
    let last = until.state.tick.0;
    infos.retain(|info| info.tick <= last);
    for info in infos {
        // One that is damaged was of no use before either.
        if let Ok(bytes) = reader.checkpoint(&info) {
            writer.checkpoint(info.tick, info.id, info.state, bytes)?;
        }
    }
    for trail in reader.trails().flatten().filter(|trail| trail.to <= last) {
        writer.trail(trail)?;
    }
    Ok(())
}

/// Takes events into a recording.
struct Into<'a>(&'a mut Writer);

impl EventSink for Into<'_> {
    fn event(&mut self, tick: u64, event: Event) -> Result<(), ReplayError> {
        Ok(self.0.push(tick, event)?)
    }
}

/// Copies the events that come before a checkpoint. A recording that was cut off may lack the last of
/// them: those are made again, from an earlier checkpoint or power-on.
fn events(
    reader: &Reader,
    writer: &mut Writer,
    opened: &mut Opened,
    until: &Checkpoint,
) -> Result<(), ResumeError> {
    let there = reader.event_count();
    let mut from = until.events;
    if until.events > there {
        let goal = until.state.tick.0;
        let before = reader.checkpoints()?.into_iter().rev();
        let mut ticks: Vec<u64> = before.map(|info| info.tick).filter(|t| *t < goal).collect();
        ticks.push(0);
        let start = ticks.into_iter().find_map(|tick| {
            let known = tick == 0 && opened.checkpoints.has(0);
            let found = if known {
                opened.checkpoints.get(0)
            } else {
                opened.checkpoint(tick)
            };
            found.filter(|found| found.events <= there)
        });
        let Some(start) = start else {
            return Err(ResumeError::NoCheckpoint(String::new()));
        };
        let machine = opened.session.runner_mut().machine_mut();
        opened.checkpoints.restore(start.state.tick.0, machine);
        opened.session.restored(&start);
        from = start.events;
    }
    for row in reader
        .events()
        .take(usize::try_from(from).unwrap_or(usize::MAX))
    {
        let row = row?;
        writer.push(row.tick, row.event)?;
    }
    let goal = until.state.tick.0;
    while opened.session.runner().tick() < goal {
        let step = opened.session.advance(goal, &mut Into(writer))?;
        opened.session.runner_mut().machine_mut().take_console();
        match step {
            Progress::Lost(why) => return Err(ResumeError::NoCheckpoint(format!(": {why}"))),
            Progress::End(_) => break,
            Progress::More | Progress::Reached => {}
        }
    }
    Ok(())
}
