//! The guest's end of the writer, and its thread.
//!
//! The vCPU thread fills batches of rows and hands full ones over; the writer thread encodes, packs
//! and writes them. When it falls behind, handing over waits: the guest is not re-entered meanwhile,
//! which it cannot notice, and nothing is lost.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::content::Note;
use crate::digest::StateDigest;
use crate::error::{Action, TraceError};
use crate::event::Event;
use crate::handover::{Handover, Recycler, Reply, Taker};
use crate::input::{Input, RecordEnd};
use crate::manifest::{HostInfo, Manifest};
use crate::options::Options;
use crate::sink::{Sink, Summary};

/// Inputs that are handed over without being asked to.
const PENDING_INPUTS: usize = 256;

type Batch = Vec<(u64, Event)>;

/// Makes the bytes of a content, on the thread of the writer.
pub type Making = Box<dyn FnOnce() -> Vec<u8> + Send>;

enum Message {
    Manifest(Box<Manifest>),
    HostInfo(Box<HostInfo>),
    BootFile {
        name: String,
        bytes: Arc<[u8]>,
    },
    Checkpoint {
        tick: u64,
        id: u32,
        state: StateDigest,
        bytes: Option<Making>,
    },
    Note(Box<Note>),
    Events {
        vcpu: u16,
        batch: Batch,
    },
    Inputs {
        rows: Vec<(u64, Input)>,
        done: Reply<()>,
    },
    Flush {
        done: Reply<()>,
    },
    Finish {
        done: Reply<Summary>,
    },
}

/// Writes a recording.
///
/// A writer that is dropped without [`Writer::finish`] leaves a readable recording without an end,
/// as a killed one does.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    handover: Handover<Message, Batch, TraceError>,
    batch_rows: usize,
    /// Batch of vCPU 0, the only one of most machines.
    batch: Batch,
    others: Vec<(u16, Batch)>,
    inputs: Vec<(u64, Input)>,
}

impl Writer {
    /// Makes the file and starts the writer thread.
    pub fn create(path: impl AsRef<Path>, options: Options) -> Result<Self, TraceError> {
        let options = options.clamped();
        let sink = Sink::create(path.as_ref(), options.clone())?;
        Self::start(path.as_ref(), sink, &options)
    }

    /// Opens a recording to add to it: a finished one, or one that was cut off, of which the damaged
    /// end is removed. Nothing that is whole is written over.
    ///
    /// Together with [`Writer::close`] this gives a recording that was cut off its index back.
    pub fn append(path: impl AsRef<Path>, options: Options) -> Result<Self, TraceError> {
        let options = options.clamped();
        let sink = Sink::append(path.as_ref(), options.clone())?;
        Self::start(path.as_ref(), sink, &options)
    }

    fn start(path: &Path, sink: Sink, options: &Options) -> Result<Self, TraceError> {
        let batch_rows = options.batch_rows;
        let handover = Handover::start("trace-writer", options.queue_batches, sink)
            .map_err(|error| TraceError::io(path, Action::StartThread, error))?;
        Ok(Self {
            path: path.to_owned(),
            handover,
            batch_rows,
            batch: Vec::with_capacity(batch_rows),
            others: Vec::new(),
            inputs: Vec::new(),
        })
    }

    /// The file being written.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the manifest. To be called once, before the first event.
    pub fn manifest(&mut self, manifest: &Manifest) -> Result<(), TraceError> {
        self.send(Message::Manifest(Box::new(manifest.clone())))
    }

    /// Writes what is known of the host; it is not compared.
    pub fn host_info(&mut self, info: &HostInfo) -> Result<(), TraceError> {
        self.send(Message::HostInfo(Box::new(info.clone())))
    }

    /// Stores a boot file under a name. Equal contents are stored once.
    pub fn boot_file(&mut self, name: &str, bytes: impl Into<Arc<[u8]>>) -> Result<(), TraceError> {
        self.send(Message::BootFile {
            name: name.to_owned(),
            bytes: bytes.into(),
        })
    }

    /// Stores a checkpoint, by which a replay need not begin at power-on. It is not compared.
    pub fn checkpoint(
        &mut self,
        tick: u64,
        id: u32,
        state: StateDigest,
        bytes: impl Into<Vec<u8>>,
    ) -> Result<(), TraceError> {
        let bytes = bytes.into();
        self.checkpoint_later(tick, id, state, Box::new(|| bytes))
    }

    /// Stores a checkpoint whose bytes are still to be made: on the thread of the writer, in the
    /// order in which checkpoints are stored.
    pub fn checkpoint_later(
        &mut self,
        tick: u64,
        id: u32,
        state: StateDigest,
        bytes: Making,
    ) -> Result<(), TraceError> {
        let bytes = Some(bytes);
        self.send(Message::Checkpoint {
            tick,
            id,
            state,
            bytes,
        })
    }

    /// Stores a note or bookmark. It is not compared.
    pub fn note(&mut self, note: Note) -> Result<(), TraceError> {
        self.send(Message::Note(Box::new(note)))
    }

    /// Records an event of vCPU 0. Ticks of one vCPU must not go back.
    ///
    /// An error of the writer thread shows at the next batch that is handed over.
    #[inline]
    pub fn push(&mut self, tick: u64, event: Event) -> Result<(), TraceError> {
        self.batch.push((tick, event));
        if self.batch.len() >= self.batch_rows {
            return self.hand_over();
        }
        Ok(())
    }

    /// Records an event of any vCPU.
    pub fn push_on(&mut self, vcpu: u16, tick: u64, event: Event) -> Result<(), TraceError> {
        if vcpu == 0 {
            return self.push(tick, event);
        }
        let at = match self.others.iter().position(|(other, _)| *other == vcpu) {
            Some(at) => at,
            None => {
                self.others
                    .push((vcpu, Vec::with_capacity(self.batch_rows)));
                self.others.len() - 1
            }
        };
        let batch = &mut self.others[at].1;
        batch.push((tick, event));
        if batch.len() < self.batch_rows {
            return Ok(());
        }
        let batch = std::mem::replace(batch, fresh(&self.handover, self.batch_rows));
        self.send(Message::Events { vcpu, batch })
    }

    /// Records an input. It is in the file after [`Writer::flush_inputs`], which is to be called
    /// before the guest goes on.
    pub fn input(&mut self, tick: u64, input: Input) -> Result<(), TraceError> {
        self.inputs.push((tick, input));
        if self.inputs.len() >= PENDING_INPUTS {
            return self.flush_inputs();
        }
        Ok(())
    }

    /// Waits until every input is in the file, where the end of this process cannot reach it.
    pub fn flush_inputs(&mut self) -> Result<(), TraceError> {
        if self.inputs.is_empty() {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.inputs);
        self.ask(|done| Message::Inputs { rows, done })
    }

    /// Waits until everything recorded so far is in the file, for a reader that follows it.
    ///
    /// This closes the open chunks. Where it is called is part of the recording: to keep recordings
    /// of the same thing equal, call it at ticks that follow from the guest alone.
    pub fn flush(&mut self) -> Result<(), TraceError> {
        self.hand_over_all()?;
        self.flush_inputs()?;
        self.ask(|done| Message::Flush { done })
    }

    /// Ends the recording in order: the end, the last chunks, the index.
    pub fn finish(mut self, end: RecordEnd) -> Result<Summary, TraceError> {
        self.input(end.tick, end.into())?;
        self.close_file()
    }

    /// Writes what is pending and the index, but no end of the recording.
    pub fn close(mut self) -> Result<Summary, TraceError> {
        self.close_file()
    }

    fn close_file(&mut self) -> Result<Summary, TraceError> {
        self.hand_over_all()?;
        self.flush_inputs()?;
        let summary = self.ask(|done| Message::Finish { done });
        self.handover.end();
        summary
    }

    fn hand_over_all(&mut self) -> Result<(), TraceError> {
        self.hand_over()?;
        for at in 0..self.others.len() {
            let (vcpu, batch) = &mut self.others[at];
            let (vcpu, batch) = (*vcpu, std::mem::take(batch));
            self.send(Message::Events { vcpu, batch })?;
        }
        Ok(())
    }

    #[cold]
    fn hand_over(&mut self) -> Result<(), TraceError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::replace(&mut self.batch, fresh(&self.handover, self.batch_rows));
        self.send(Message::Events { vcpu: 0, batch })
    }

    fn send(&self, message: Message) -> Result<(), TraceError> {
        let given = self.handover.give(message);
        given.map_err(|error| self.stopped(error))
    }

    fn ask<A>(&self, message: impl FnOnce(Reply<A>) -> Message) -> Result<A, TraceError> {
        let answer = self.handover.ask(message);
        answer.map_err(|error| self.stopped(error))
    }

    /// Why the writer thread is no more.
    fn stopped(&self, error: Option<TraceError>) -> TraceError {
        error.unwrap_or_else(|| TraceError::Stopped {
            path: self.path.clone(),
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.handover.has_ended() {
            // There is nobody left to tell; what could be written is readable.
            let _ = self.close_file();
        }
    }
}

/// An empty batch, used before if there is one.
fn fresh(handover: &Handover<Message, Batch, TraceError>, batch_rows: usize) -> Batch {
    let spare = handover.spare();
    spare.unwrap_or_else(|| Vec::with_capacity(batch_rows))
}

impl Taker<Message, Batch, TraceError> for Sink {
    fn take(
        &mut self,
        message: &mut Message,
        recycler: &Recycler<Batch>,
    ) -> Result<ControlFlow<()>, TraceError> {
        handle(self, message, recycler)?;
        Ok(match message {
            Message::Finish { .. } => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })
    }

    fn give_up(mut self, error: &TraceError) {
        if !matches!(error, TraceError::Io { .. } | TraceError::NoSpace { .. }) {
            // What was given was wrong, not the disk: what came before can still be closed well.
            let _ = self.finish();
        }
    }
}

fn handle(
    sink: &mut Sink,
    message: &mut Message,
    recycler: &Recycler<Batch>,
) -> Result<(), TraceError> {
    match message {
        Message::Manifest(manifest) => sink.manifest(manifest),
        Message::HostInfo(info) => sink.host_info(info),
        Message::BootFile { name, bytes } => sink.boot_file(name, bytes),
        Message::Checkpoint {
            tick,
            id,
            state,
            bytes,
        } => {
            let bytes = bytes.take().map(|make| make()).unwrap_or_default();
            sink.checkpoint(*tick, *id, *state, &bytes)
        }
        Message::Note(note) => sink.note(note),
        Message::Events { vcpu, batch } => {
            let outcome = sink.events(*vcpu, batch);
            recycler.recycle(std::mem::take(batch));
            outcome
        }
        Message::Inputs { rows, done } => {
            sink.inputs(rows)?;
            done.answer(());
            Ok(())
        }
        Message::Flush { done } => {
            sink.close_chunks()?;
            done.answer(());
            Ok(())
        }
        Message::Finish { done } => {
            let summary = sink.finish()?;
            done.answer(summary);
            Ok(())
        }
    }
}
