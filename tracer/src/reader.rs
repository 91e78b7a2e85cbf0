//! Reading a recording.

use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::chunk::{COLUMNS_VERSION, ChunkKind, Codec, FLAG_NEEDED, ROWS_VERSION};
use crate::counts::Counts;
use crate::cursor::Cursor;
use crate::error::{BodyRule, TraceError};
use crate::event::Event;
use crate::facility::EventMask;
use crate::file::{FILE_HEADER_LEN, decode_file_header};
use crate::index::{ChunkEntry, Index};
use crate::input::{Input, InputKind, RecordEnd};
use crate::manifest::{HOST_INFO_VERSION, HostInfo, MANIFEST_VERSION, Manifest};
use crate::pack::{unpack, unpack_with};
use crate::rows::{Row, RowError, RowFrame, decode_rows};
use crate::scan::{self, Recovery};
use crate::schema::Schema;
use crate::source::Source;
use crate::substreams::Substreams;
use crate::table::{Head, Rows, decode_columns};

/// What a reader and its cursors share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) source: Arc<Source>,
    pub(crate) schema: Schema,
}

/// An open recording. Opening reads the index only; bodies are read when asked for.
///
/// Any number of cursors may be made and sent to other threads; they keep the state that the reader
/// had when they were made.
#[derive(Clone, Debug)]
pub struct Reader {
    pub(crate) shared: Arc<Shared>,
    pub(crate) index: Arc<Index>,
    pub(crate) recovery: Option<Recovery>,
    pub(crate) len: u64,
    format: u16,
}

impl Reader {
    /// Opens a recording, finished or not.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, TraceError> {
        Self::from_source(Source::open(path.as_ref())?)
    }

    /// Opens a recording that is in memory; `name` is used in errors.
    pub fn from_bytes(
        name: impl AsRef<Path>,
        bytes: impl Into<Arc<[u8]>>,
    ) -> Result<Self, TraceError> {
        Self::from_source(Source::memory(name.as_ref(), bytes.into()))
    }

    fn from_source(source: Source) -> Result<Self, TraceError> {
        Self::load(Arc::new(source))
    }

    pub(crate) fn load(source: Arc<Source>) -> Result<Self, TraceError> {
        let len = source.len()?;
        let mut header = [0; FILE_HEADER_LEN];
        let count = source.read_at(0, &mut header)?;
        let format =
            decode_file_header(&header[..count], len).map_err(|rule| TraceError::File {
                path: source.path().to_owned(),
                rule,
            })?;
        let found = scan::find(&source, len)?;
        // A file so short that it has no schema has nothing that would need one.
        let mut shared = Shared {
            source,
            schema: Schema::of_this_build(),
        };
        shared.check_needed(&found.index)?;
        if let Some(entry) = found.index.of_kind(ChunkKind::Schema).next() {
            let body = shared.versioned_body(entry, 1)?;
            let schema = Schema::decode(&body);
            shared.schema = schema.map_err(|rule| shared.body_error(entry, rule.into()))?;
        }
        Ok(Self {
            shared: Arc::new(shared),
            index: Arc::new(found.index),
            recovery: found.recovery,
            len,
            format,
        })
    }

    /// The file being read.
    pub fn path(&self) -> &Path {
        self.shared.source.path()
    }

    /// The format version of the file.
    pub const fn format(&self) -> u16 {
        self.format
    }

    /// What was lost, when the recording has no valid index.
    pub const fn recovery(&self) -> Option<&Recovery> {
        self.recovery.as_ref()
    }

    /// Whether the recording was ended in order, index and all.
    pub fn is_complete(&self) -> bool {
        self.recovery.is_none() && matches!(self.end(), Ok(Some(_)))
    }

    /// The schema of the file.
    pub fn schema(&self) -> &Schema {
        &self.shared.schema
    }

    /// Every chunk, in the order of the file.
    pub fn chunks(&self) -> &[ChunkEntry] {
        self.index.entries()
    }

    /// Rows of each code in a chunk of this reader.
    pub fn chunk_counts(&self, entry: &ChunkEntry) -> Counts<'_> {
        self.index.counts(entry)
    }

    /// The manifest.
    pub fn manifest(&self) -> Result<Manifest, TraceError> {
        let found = self.form(ChunkKind::Manifest, MANIFEST_VERSION)?;
        found.ok_or_else(|| self.missing("manifest"))
    }

    /// What was known of the host, if anything.
    pub fn host_info(&self) -> Result<Option<HostInfo>, TraceError> {
        self.form(ChunkKind::HostInfo, HOST_INFO_VERSION)
    }

    /// Every input with its tick, in order.
    pub fn inputs(&self) -> Result<Vec<(u64, Input)>, TraceError> {
        let mut inputs = Vec::new();
        for entry in self.index.of_kind(ChunkKind::Inputs) {
            inputs.extend(self.shared.inputs(entry)?);
        }
        Ok(inputs)
    }

    /// How the recording ended; `None` if it was cut off or is still going on.
    pub fn end(&self) -> Result<Option<RecordEnd>, TraceError> {
        let code = InputKind::RecordEnd.code();
        let ends =
            |entry: &&ChunkEntry| self.index.counts(entry).any(|(counted, _)| counted == code);
        let chunks: Vec<_> = self.index.of_kind(ChunkKind::Inputs).filter(ends).collect();
        let Some(entry) = chunks.last() else {
            return Ok(None);
        };
        let rows = self.shared.inputs(entry)?;
        Ok(rows.into_iter().rev().find_map(|(_, input)| match input {
            Input::RecordEnd {
                reason,
                tick,
                digest,
            } => Some(RecordEnd {
                reason,
                tick,
                digest,
            }),
            _ => None,
        }))
    }

    /// A cursor over the events of every vCPU, before the first.
    pub fn events(&self) -> Cursor {
        Cursor::new(Arc::clone(&self.shared), Arc::clone(&self.index))
    }

    /// Number of events.
    pub fn event_count(&self) -> u64 {
        self.index
            .streams()
            .iter()
            .map(|stream| stream.rows())
            .sum()
    }

    /// First and last tick of any row, if there is one.
    pub fn ticks(&self) -> Option<(u64, u64)> {
        let rows = self.index.entries().iter().map(|entry| entry.header);
        let rows = rows.filter(|header| header.rows != 0);
        rows.fold(None, |span, header| {
            let (first, last) = span.unwrap_or((u64::MAX, 0));
            Some((header.first_tick.min(first), header.last_tick.max(last)))
        })
    }

    /// The first chunk of a kind whose body is one postcard value.
    fn form<T: DeserializeOwned>(
        &self,
        kind: ChunkKind,
        version: u8,
    ) -> Result<Option<T>, TraceError> {
        self.index
            .of_kind(kind)
            .last()
            .map(|entry| self.shared.form(entry, version))
            .transpose()
    }

    pub(crate) fn missing(&self, what: &str) -> TraceError {
        let (path, what) = (self.path().to_owned(), what.to_owned());
        match &self.recovery {
            None => TraceError::Missing { path, what },
            Some(recovery) => TraceError::CutBefore {
                path,
                what,
                offset: recovery.offset,
            },
        }
    }
}

impl Shared {
    /// Refuses chunks that must be understood and are not.
    pub(crate) fn check_needed(&self, index: &Index) -> Result<(), TraceError> {
        let unknown = |entry: &&ChunkEntry| {
            entry.header.flags & FLAG_NEEDED != 0
                && matches!(entry.header.kind, ChunkKind::Unknown(_))
        };
        let Some(entry) = index.entries().iter().find(unknown) else {
            return Ok(());
        };
        let (offset, kind) = (entry.offset, entry.header.kind.code());
        Err(TraceError::Needed {
            path: self.source.path().to_owned(),
            offset,
            kind,
        })
    }

    /// The body of a chunk as it is in the file.
    fn stored(&self, entry: &ChunkEntry) -> Result<Vec<u8>, TraceError> {
        let body = self
            .source
            .read_vec(entry.body_offset(), entry.header.stored_len as usize)?;
        body.ok_or_else(|| self.body_error(entry, BodyRule::Checksum))
    }

    /// The body of a chunk, checked and unpacked.
    pub(crate) fn body(&self, entry: &ChunkEntry) -> Result<Vec<u8>, TraceError> {
        let body = self.stored(entry)?;
        unpack(&entry.header, body).map_err(|rule| self.body_error(entry, rule))
    }

    /// The body of a chunk, if its layout is known.
    pub(crate) fn versioned_body(
        &self,
        entry: &ChunkEntry,
        known: u8,
    ) -> Result<Vec<u8>, TraceError> {
        self.check_version(entry, known)?;
        self.body(entry)
    }

    /// Appends what a piece of a content holds. `packed` is room that is used again.
    pub(crate) fn append_piece(
        &self,
        entry: &ChunkEntry,
        packed: &mut Vec<u8>,
        content: &mut Vec<u8>,
    ) -> Result<(), TraceError> {
        self.check_version(entry, 1)?;
        let len = entry.header.stored_len as usize;
        let found = if self.source.read_over(entry.body_offset(), len, packed)? {
            unpack_with(&entry.header, packed, |raw| content.extend_from_slice(raw))
        } else {
            Err(BodyRule::Checksum)
        };
        found.map_err(|rule| self.body_error(entry, rule))
    }

    fn check_version(&self, entry: &ChunkEntry, known: u8) -> Result<(), TraceError> {
        let found = entry.header.version;
        if found > known {
            return Err(self.body_error(entry, BodyRule::Version { found, known }));
        }
        Ok(())
    }

    /// The body of a chunk that is one postcard value.
    pub(crate) fn form<T: DeserializeOwned>(
        &self,
        entry: &ChunkEntry,
        known: u8,
    ) -> Result<T, TraceError> {
        let body = self.versioned_body(entry, known)?;
        postcard::from_bytes(&body)
            .map_err(|_| self.body_error(entry, BodyRule::Form(entry.header.kind.name())))
    }

    /// The inputs of a chunk with their ticks.
    pub(crate) fn inputs(&self, entry: &ChunkEntry) -> Result<Vec<(u64, Input)>, TraceError> {
        self.check_version(entry, ROWS_VERSION)?;
        self.rows(entry)
    }

    /// The rows of a chunk that has them one after the other.
    fn rows<T: Row>(&self, entry: &ChunkEntry) -> Result<Vec<(u64, T)>, TraceError> {
        let mut rows = Vec::new();
        let body = self.stored(entry)?;
        let decoded = unpack_with(&entry.header, &body, |raw| {
            decode_rows(raw, frame(entry), &self.schema, &mut rows)
        });
        let decoded = decoded.map_err(|rule| self.body_error(entry, rule))?;
        decoded.map_err(|error| self.row_error(entry, error))?;
        Ok(rows)
    }

    /// The events of some kinds in a chunk.
    pub(crate) fn events(
        &self,
        entry: &ChunkEntry,
        wanted: &EventMask,
    ) -> Result<Rows, TraceError> {
        let mut rows = Rows::default();
        self.events_over(entry, wanted, &mut rows).map(|()| rows)
    }

    /// The events of some kinds in a chunk, over what is in `rows`.
    pub(crate) fn events_over(
        &self,
        entry: &ChunkEntry,
        wanted: &EventMask,
        rows: &mut Rows,
    ) -> Result<(), TraceError> {
        self.check_version(entry, COLUMNS_VERSION)?;
        if entry.header.version == COLUMNS_VERSION {
            return self.columns_over(entry, wanted, None, rows);
        }
        *rows = Rows::default();
        for (number, (tick, event)) in (0..).zip(self.rows::<Event>(entry)?) {
            rows.ticks.push(tick);
            rows.codes.push(event.code());
            if wanted.contains_code(event.code()) {
                rows.numbers.push(number);
                rows.events.push(event);
            }
        }
        Ok(())
    }

    /// One event of a chunk, by its number there and its code.
    pub(crate) fn event(
        &self,
        entry: &ChunkEntry,
        number: u32,
        code: u8,
    ) -> Result<Event, TraceError> {
        let (mut rows, kinds) = (Rows::default(), EventMask::of_code(code));
        let at = if entry.header.version == COLUMNS_VERSION {
            self.columns_over(entry, &kinds, Some(number), &mut rows)?;
            0
        } else {
            self.events_over(entry, &EventMask::ALL, &mut rows)?;
            number as usize
        };
        Ok(rows.events.swap_remove(at))
    }

    fn columns_over(
        &self,
        entry: &ChunkEntry,
        wanted: &EventMask,
        only: Option<u32>,
        rows: &mut Rows,
    ) -> Result<(), TraceError> {
        let fail = |rule| self.body_error(entry, rule);
        if entry.header.codec != Codec::Substreams {
            return Err(fail(BodyRule::Substreams));
        }
        let body = self.stored(entry)?;
        let substreams = Substreams::open(&entry.header, &body).map_err(fail)?;
        let mut first = Vec::new();
        substreams.unpack(0, &mut first).map_err(fail)?;
        let head = Head::get(&first, entry.header.rows, &self.schema);
        let mut head = head.map_err(|error| self.row_error(entry, error))?;
        let listed = head.lengths().map(Some);
        if substreams.len() != 1 + head.substreams()
            || !(1..)
                .zip(listed)
                .all(|(at, len)| substreams.raw_len(at) == len)
        {
            return Err(fail(BodyRule::Substreams));
        }
        let needed = head.needed(wanted);
        let mut parts = vec![Vec::new(); needed.len()];
        for (number, part) in parts.iter_mut().enumerate() {
            if needed[number] {
                substreams.unpack(number + 1, part).map_err(fail)?;
            }
        }
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        decode_columns(&mut head, &parts, frame(entry), wanted, only, rows)
            .map_err(|error| self.row_error(entry, error))
    }

    /// Lengths in the file of the substreams of a chunk after the first; none without substreams.
    pub(crate) fn part_lens(&self, entry: &ChunkEntry) -> Result<Vec<u64>, TraceError> {
        if entry.header.codec != Codec::Substreams {
            return Ok(Vec::new());
        }
        let body = self.stored(entry)?;
        let substreams = Substreams::open(&entry.header, &body);
        let substreams = substreams.map_err(|rule| self.body_error(entry, rule))?;
        Ok(substreams.stored_lens().skip(1).collect())
    }

    fn row_error(&self, entry: &ChunkEntry, error: RowError) -> TraceError {
        let RowError { row, rule } = error;
        self.body_error(entry, BodyRule::Row { row, rule })
    }

    pub(crate) fn body_error(&self, entry: &ChunkEntry, rule: BodyRule) -> TraceError {
        let path = self.source.path().to_owned();
        TraceError::Body {
            path,
            offset: entry.body_offset(),
            rule,
        }
    }
}

fn frame(entry: &ChunkEntry) -> RowFrame {
    let header = entry.header;
    RowFrame {
        rows: header.rows,
        first_tick: header.first_tick,
        last_tick: header.last_tick,
    }
}
