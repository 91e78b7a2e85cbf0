//! The file end of the writer: what runs on its thread.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::chunk::{COLUMNS_VERSION, ChunkKind, NO_VCPU, ROWS_VERSION};
use crate::columns::Columns;
use crate::digest::Digest;
use crate::error::{Action, TraceError};
use crate::event::Event;
use crate::file::{Trailer, encode_file_header};
use crate::flight::Flight;
use crate::index::Index;
use crate::input::Input;
use crate::options::Options;
use crate::pack::{Draft, PackedChunk, Packer};
use crate::rows::{ROW_LIMIT, RowBuffer};
use crate::schema::Schema;
use crate::source::no_stream;

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The recording.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// Its chunks.
    pub chunks: u64,
    /// Its events.
    pub events: u64,
    /// Its inputs.
    pub inputs: u64,
    /// Events that the flight recorder let go.
    pub lost: u64,
}

/// Events of one vCPU on their way into a chunk.
#[derive(Debug)]
pub(crate) struct EventStream {
    columns: Columns,
    pub(crate) last_tick: u64,
}

/// An open recording.
#[derive(Debug)]
pub(crate) struct Sink {
    pub(crate) path: PathBuf,
    file: File,
    offset: u64,
    pub(crate) index: Index,
    options: Options,
    schema: Schema,
    pub(crate) packer: Packer,
    pub(crate) file_packer: Packer,
    pub(crate) streams: BTreeMap<u16, EventStream>,
    inputs: RowBuffer,
    pub(crate) last_input: u64,
    /// First chunk of each content, by digest and by whether it is compared.
    pub(crate) contents: BTreeMap<(Digest, bool), u32>,
    /// Whether rows of this build are of the form that the schema of the file gives.
    pub(crate) rows_fit: bool,
    flight: Option<Flight>,
    /// Rows could not be written, or what is left of a chunk not taken away: nothing may come behind it.
    is_broken: bool,
    /// Header and body of the chunk being written, so that they go out in one write.
    scratch: Vec<u8>,
}

impl Sink {
    /// Makes the file with its header and the schema of this build.
    pub(crate) fn create(path: &Path, options: Options) -> Result<Self, TraceError> {
        Self::create_with(path, options, &Schema::of_this_build())
    }

    /// Makes the file with its header and a schema.
    pub(crate) fn create_with(
        path: &Path,
        options: Options,
        schema: &Schema,
    ) -> Result<Self, TraceError> {
        let mut open = OpenOptions::new();
        open.write(true)
            .create(true)
            .truncate(true)
            .create_new(!options.overwrite);
        let file = no_stream(path).and_then(|()| open.open(path));
        let file = file.map_err(|error| TraceError::io(path, Action::Create, error))?;
        let mut sink = Self::open(path, file, 0, options)?;
        sink.write(&encode_file_header())?;
        sink.schema(schema)?;
        sink.schema = schema.clone();
        Ok(sink)
    }

    /// A recording that goes on at `offset`, where the file stands.
    pub(crate) fn open(
        path: &Path,
        file: File,
        offset: u64,
        options: Options,
    ) -> Result<Self, TraceError> {
        let packer =
            |level| Packer::new(level).map_err(|error| TraceError::io(path, Action::Create, error));
        Ok(Self {
            path: path.to_owned(),
            file,
            offset,
            index: Index::default(),
            packer: packer(options.event_level)?,
            file_packer: packer(options.file_level)?,
            streams: BTreeMap::new(),
            inputs: RowBuffer::default(),
            last_input: 0,
            contents: BTreeMap::new(),
            rows_fit: true,
            flight: options.last.map(Flight::new),
            is_broken: false,
            scratch: Vec::new(),
            schema: Schema::of_this_build(),
            options,
        })
    }

    /// Takes in events of one vCPU, all of one chunk, and leaves the batch empty.
    pub(crate) fn events(
        &mut self,
        vcpu: u16,
        batch: &mut Vec<(u64, Event)>,
    ) -> Result<(), TraceError> {
        self.check_rows_fit("an event")?;
        let stream = self.streams.remove(&vcpu);
        let mut stream = stream.unwrap_or_else(|| self.new_stream(0));
        let mut outcome = Ok(());
        for (tick, event) in &*batch {
            outcome = self.event(vcpu, &mut stream, *tick, event);
            if outcome.is_err() {
                break;
            }
        }
        batch.clear();
        self.streams.insert(vcpu, stream);
        outcome
    }

    /// A stream of events, of which the last is at this tick.
    pub(crate) fn new_stream(&self, last_tick: u64) -> EventStream {
        EventStream {
            columns: Columns::new(&self.schema),
            last_tick,
        }
    }

    fn event(
        &self,
        vcpu: u16,
        stream: &mut EventStream,
        tick: u64,
        event: &Event,
    ) -> Result<(), TraceError> {
        if tick < stream.last_tick {
            return Err(self.tick_back(event.kind().name(), vcpu, tick, stream.last_tick));
        }
        stream.last_tick = tick;
        let put = stream.columns.put(tick, event);
        put.map_err(|size| self.too_large(event.kind().name(), tick, size))
    }

    /// Writes inputs through.
    pub(crate) fn inputs(&mut self, rows: &[(u64, Input)]) -> Result<(), TraceError> {
        self.check_rows_fit("an input")?;
        for (tick, input) in rows {
            let what = input.kind().name();
            if *tick < self.last_input {
                return Err(self.tick_back(what, NO_VCPU, *tick, self.last_input));
            }
            self.last_input = *tick;
            let put = self.inputs.put(*tick, input);
            put.map_err(|size| self.too_large(what, *tick, size))?;
            let is_full = self.inputs.rows() >= self.options.chunk_rows
                || self.inputs.bytes().len() >= self.options.chunk_bytes as usize;
            if is_full {
                self.close_inputs()?;
            }
        }
        self.close_inputs()
    }

    /// Closes every open chunk of events.
    pub(crate) fn close_chunks(&mut self) -> Result<(), TraceError> {
        let vcpus: Vec<u16> = self.streams.keys().copied().collect();
        vcpus
            .into_iter()
            .try_for_each(|vcpu| self.close_chunk(vcpu))
    }

    /// Closes the open chunk of events of a vCPU.
    pub(crate) fn close_chunk(&mut self, vcpu: u16) -> Result<(), TraceError> {
        let Some(mut stream) = self.streams.remove(&vcpu) else {
            return Ok(());
        };
        let outcome = self.close_events(vcpu, &mut stream.columns);
        self.streams.insert(vcpu, stream);
        outcome
    }

    /// Writes the last chunks and the index.
    pub(crate) fn finish(&mut self) -> Result<Summary, TraceError> {
        self.close_chunks()?;
        self.close_inputs()?;
        let mut lost = 0;
        if let Some(flight) = self.flight.take() {
            let (marks, kept) = flight.land();
            for mark in marks {
                lost += mark.count;
                let chunk = mark.pack(&mut self.packer, mark.last);
                self.write_chunk(chunk)?;
            }
            for chunk in kept {
                self.write_chunk(chunk)?;
            }
        }
        let count = |kind| {
            self.index
                .of_kind(kind)
                .map(|entry| u64::from(entry.header.rows))
                .sum::<u64>()
        };
        let (events, inputs) = (count(ChunkKind::Events), count(ChunkKind::Inputs));
        let chunks = self.index.entries().len() as u64;
        let body = self.index.encode();
        if body.len() <= ChunkKind::Index.body_limit() as usize {
            let index_offset = self.offset;
            let draft = Draft::plain(ChunkKind::Index, 1);
            let mut chunk = self.packer.pack(draft, Vec::new(), &body);
            chunk.header.seq = chunks as u32;
            self.scratch.clear();
            chunk.header.encode(&[], &mut self.scratch);
            self.scratch.extend_from_slice(&chunk.body);
            self.scratch.extend_from_slice(
                &Trailer {
                    index_offset,
                    chunks,
                }
                .encode(),
            );
            self.write_scratch()?;
        }
        // `/dev/null` and the like have nothing to be made durable.
        let is_file = self.file.metadata().is_ok_and(|data| data.is_file());
        if self.options.sync && is_file {
            let synced = self.file.sync_all();
            synced.map_err(|error| TraceError::io(&self.path, Action::Sync, error))?;
        }
        let path = self.path.clone();
        Ok(Summary {
            path,
            bytes: self.offset,
            chunks,
            events,
            inputs,
            lost,
        })
    }

    fn check_rows_fit(&self, what: &'static str) -> Result<(), TraceError> {
        if self.rows_fit {
            return Ok(());
        }
        let reason = "the recording was made by another version, with another schema".to_owned();
        Err(TraceError::Unwritable {
            path: self.path.clone(),
            what,
            reason,
        })
    }

    fn close_events(&mut self, vcpu: u16, columns: &mut Columns) -> Result<(), TraceError> {
        if columns.rows() == 0 {
            return Ok(());
        }
        let chunk = pack_columns(&mut self.packer, vcpu, columns);
        columns.clear();
        match &mut self.flight {
            Some(flight) => {
                flight.keep(chunk);
                Ok(())
            }
            None => self.write_rows(chunk),
        }
    }

    fn close_inputs(&mut self) -> Result<(), TraceError> {
        if self.inputs.rows() == 0 {
            return Ok(());
        }
        let chunk = pack_rows(&mut self.packer, ChunkKind::Inputs, NO_VCPU, &self.inputs);
        self.inputs.clear();
        self.write_rows(chunk)
    }

    fn write_rows(&mut self, chunk: PackedChunk) -> Result<(), TraceError> {
        let outcome = self.write_chunk(chunk);
        self.is_broken |= outcome.is_err();
        outcome
    }

    /// After an error: writes what rows there still are, and the index, as far as there is room for them.
    pub(crate) fn rescue(&mut self) {
        if !self.is_broken {
            // The error that led here is the one to be told.
            let _ = self.finish();
        }
    }

    /// Takes back the pieces of a content that could not be written whole: they are room for rows.
    pub(crate) fn take_back(&mut self, chunks: usize) {
        self.index.take_back_pieces(chunks);
        if let Some(last) = self.index.entries().last() {
            self.offset = last.end();
            self.cut_back();
        }
    }

    /// Cuts the file back to the last whole chunk.
    fn cut_back(&mut self) {
        let cut = self.file.set_len(self.offset);
        let back = cut.and_then(|()| self.file.seek(SeekFrom::Start(self.offset)));
        // A reader still finds the end of the last whole chunk by itself.
        self.is_broken |= back.is_err();
    }

    /// Writes a chunk, under the next number.
    pub(crate) fn write_chunk(&mut self, mut chunk: PackedChunk) -> Result<(), TraceError> {
        chunk.header.seq = self.index.entries().len() as u32;
        self.scratch.clear();
        chunk.header.encode(&chunk.counts, &mut self.scratch);
        self.scratch.extend_from_slice(&chunk.body);
        let offset = self.offset;
        self.write_scratch()?;
        self.index.push(offset, chunk.header, &chunk.counts);
        Ok(())
    }

    fn write_scratch(&mut self) -> Result<(), TraceError> {
        let bytes = std::mem::take(&mut self.scratch);
        let outcome = self.write(&bytes);
        self.scratch = bytes;
        outcome
    }

    /// Appends bytes. When that fails, the file is cut back to the last whole chunk.
    fn write(&mut self, bytes: &[u8]) -> Result<(), TraceError> {
        let Err(error) = self.file.write_all(bytes) else {
            self.offset += bytes.len() as u64;
            return Ok(());
        };
        self.cut_back();
        Err(match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                TraceError::NoSpace {
                    path: self.path.clone(),
                    offset: self.offset,
                    wanted: bytes.len(),
                    error: Arc::new(error),
                }
            }
            _ => TraceError::io(&self.path, Action::Write, error),
        })
    }

    fn tick_back(&self, what: &'static str, vcpu: u16, tick: u64, last: u64) -> TraceError {
        TraceError::TickBack {
            path: self.path.clone(),
            what,
            vcpu,
            tick,
            last,
        }
    }

    fn too_large(&self, what: &'static str, tick: u64, size: usize) -> TraceError {
        TraceError::RowTooLarge {
            path: self.path.clone(),
            what,
            tick,
            size,
            limit: ROW_LIMIT,
        }
    }
}

/// Packs the rows of a buffer.
pub(crate) fn pack_rows(
    packer: &mut Packer,
    kind: ChunkKind,
    vcpu: u16,
    buffer: &RowBuffer,
) -> PackedChunk {
    let (rows, ticks, flags) = (buffer.rows(), buffer.ticks(), kind.flags());
    let draft = Draft {
        kind,
        version: ROWS_VERSION,
        vcpu,
        rows,
        ticks,
        flags,
    };
    packer.pack(draft, buffer.counts(), buffer.bytes())
}

/// Packs events.
pub(crate) fn pack_columns(packer: &mut Packer, vcpu: u16, columns: &Columns) -> PackedChunk {
    let kind = ChunkKind::Events;
    let (rows, ticks, flags) = (columns.rows(), columns.ticks(), kind.flags());
    let draft = Draft {
        kind,
        version: COLUMNS_VERSION,
        vcpu,
        rows,
        ticks,
        flags,
    };
    packer.pack_parts(draft, columns.counts(), &columns.substreams())
}
