//! The guest's end of the writer, and its thread.
//!
//! The vCPU thread fills batches of rows and hands full ones over; the writer thread encodes, packs
//! and writes them. It is the vCPU thread that says where a chunk ends, and it goes on when that chunk
//! is in the file: the guest is not re-entered meanwhile, which it cannot notice. So what is in memory,
//! and lost when this process is killed, is never more than the events of one chunk.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::content::Note;
use crate::digest::StateDigest;
use crate::error::{Action, TraceError};
use crate::event::Event;
use crate::handover::{Handover, Recycler, Reply, Taker};
use crate::input::{Input, RecordEnd};
use crate::manifest::{HostInfo, Manifest};
use crate::options::Options;
use crate::rows::Row;
use crate::sink::{Sink, Summary};
use crate::trail::Trail;

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
        bytes: Bytes,
    },
    Checkpoint {
        tick: u64,
        id: u32,
        state: StateDigest,
        bytes: Option<Making>,
    },
    Trail(Box<Trail>),
    Note(Box<Note>),
    Events {
        vcpu: u16,
        batch: Batch,
        /// The chunk ends here; who gave the batch waits until it is in the file.
        full: Option<Reply<()>>,
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
    limits: Limits,
    /// Events of vCPU 0, the only one of most machines.
    first: Filling,
    others: Vec<(u16, Filling)>,
    inputs: Vec<(u64, Input)>,
}

/// Where batches and chunks end.
#[derive(Clone, Copy, Debug)]
struct Limits {
    batch_rows: usize,
    chunk_rows: usize,
    chunk_bytes: usize,
}

/// The events of one vCPU that are in no chunk of the file yet: those handed over, and a batch.
#[derive(Debug)]
struct Filling {
    batch: Batch,
    /// Rows of the open chunk that were handed over.
    handed: usize,
    /// Rows at which the batch is handed over, if it does not get too long before.
    until: usize,
    /// About how many bytes the open chunk has, the batch with it.
    size: usize,
}

impl Filling {
    fn new(limits: Limits) -> Self {
        Self {
            batch: Vec::with_capacity(limits.batch_rows),
            handed: 0,
            until: limits.batch_rows.min(limits.chunk_rows),
            size: 0,
        }
    }

    /// Whether the batch is to be handed over now.
    #[inline]
    fn put(&mut self, tick: u64, event: Event, limits: Limits) -> bool {
        self.size += event.weight();
        self.batch.push((tick, event));
        self.batch.len() >= self.until || self.size >= limits.chunk_bytes
    }

    /// Takes the batch, and says whether the chunk ends with it.
    fn take(&mut self, fresh: Batch, limits: Limits) -> (Batch, bool) {
        self.handed += self.batch.len();
        let full = self.handed >= limits.chunk_rows || self.size >= limits.chunk_bytes;
        if full {
            self.end_chunk();
        }
        self.until = limits.batch_rows.min(limits.chunk_rows - self.handed);
        (std::mem::replace(&mut self.batch, fresh), full)
    }

    /// The rows that come belong to another chunk.
    const fn end_chunk(&mut self) {
        self.handed = 0;
        self.size = 0;
    }
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
        let limits = Limits {
            batch_rows: options.batch_rows,
            chunk_rows: options.chunk_rows as usize,
            chunk_bytes: options.chunk_bytes as usize,
        };
        let handover = Handover::start("trace-writer", options.queue_batches, sink)
            .map_err(|error| TraceError::io(path, Action::StartThread, error))?;
        Ok(Self {
            path: path.to_owned(),
            handover,
            limits,
            first: Filling::new(limits),
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
    pub fn boot_file(&mut self, name: &str, bytes: impl Into<Bytes>) -> Result<(), TraceError> {
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
        // If there is no room for the checkpoint, there may be for these.
        self.hand_over_all()?;
        let bytes = Some(bytes);
        self.send(Message::Checkpoint {
            tick,
            id,
            state,
            bytes,
        })
    }

    /// Stores a trail, by which a search need not look everywhere. It is not compared.
    pub fn trail(&mut self, trail: Trail) -> Result<(), TraceError> {
        self.send(Message::Trail(Box::new(trail)))
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
        if self.first.put(tick, event, self.limits) {
            return self.hand_over(None);
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
                self.others.push((vcpu, Filling::new(self.limits)));
                self.others.len() - 1
            }
        };
        if self.others[at].1.put(tick, event, self.limits) {
            return self.hand_over(Some(at));
        }
        Ok(())
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
        self.first.end_chunk();
        let others = self.others.iter_mut();
        others.for_each(|(_, filling)| filling.end_chunk());
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
        self.hand_over(None)?;
        (0..self.others.len()).try_for_each(|at| self.hand_over(Some(at)))
    }

    /// Hands over the batch of vCPU 0, or of one of the others. Where a chunk ends with it, this waits
    /// until that is in the file.
    #[cold]
    fn hand_over(&mut self, other: Option<usize>) -> Result<(), TraceError> {
        let (vcpu, filling) = match other {
            None => (0, &mut self.first),
            Some(at) => {
                let (vcpu, filling) = &mut self.others[at];
                (*vcpu, filling)
            }
        };
        if filling.batch.is_empty() {
            return Ok(());
        }
        let spare = self.handover.spare();
        let fresh = spare.unwrap_or_else(|| Vec::with_capacity(self.limits.batch_rows));
        let (batch, full) = filling.take(fresh, self.limits);
        let message = |full| Message::Events { vcpu, batch, full };
        if full {
            return self.ask(|done| message(Some(done)));
        }
        self.send(message(None))
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

    fn give_up(mut self, _error: &TraceError) {
        self.rescue();
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
        Message::Trail(trail) => sink.trail(trail),
        Message::Note(note) => sink.note(note),
        Message::Events { vcpu, batch, full } => {
            let outcome = sink.events(*vcpu, batch);
            recycler.recycle(std::mem::take(batch));
            outcome?;
            if let Some(done) = full {
                sink.close_chunk(*vcpu)?;
                done.answer(());
            }
            Ok(())
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
