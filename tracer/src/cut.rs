//! Copying a recording with the events of some ticks only.

use std::ops::RangeInclusive;
use std::path::Path;

use crate::chunk::ChunkKind;
use crate::columns::Columns;
use crate::content::{BootFileRow, CheckpointRow, ContentRef};
use crate::error::{BodyRule, TraceError};
use crate::facility::EventMask;
use crate::flight::LostMark;
use crate::index::ChunkEntry;
use crate::input::Input;
use crate::options::Options;
use crate::pack::{PackedChunk, Packer};
use crate::reader::Reader;
use crate::rows::RowBuffer;
use crate::schema::Schema;
use crate::sink::{Sink, Summary, pack_columns, pack_rows};

/// Copies a recording to `to`, keeping of its events those at `ticks`.
///
/// The copy replays as the original does: events can be made again, so they can be left out, and
/// inputs cannot, so all of them are copied. What was left out is said by `Lost` events before and
/// after the rest. Whole chunks are copied as they are.
pub fn cut(
    reader: &Reader,
    to: impl AsRef<Path>,
    ticks: RangeInclusive<u64>,
    options: Options,
) -> Result<Summary, TraceError> {
    let ours = Schema::of_this_build();
    let Some(schema) = ours.merged(reader.schema()) else {
        return Err(TraceError::Unwritable {
            path: to.as_ref().to_owned(),
            what: "a copy",
            reason: "the recording was made by a newer version, with fields that would be lost"
                .to_owned(),
        });
    };
    let packer = Packer::new(options.event_level)
        .map_err(|error| TraceError::io(to.as_ref(), crate::Action::Create, error))?;
    let sink = Sink::create_with(to.as_ref(), options.clamped(), &schema)?;
    let as_is = schema == *reader.schema();
    let mut copy = Copy {
        reader,
        sink,
        packer,
        ticks,
        as_is,
        columns: Columns::new(&schema),
        numbers: Vec::new(),
    };
    copy.lost(Side::Before)?;
    for entry in reader.chunks() {
        copy.chunk(entry)?;
    }
    copy.lost(Side::After)?;
    copy.sink.finish()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Before,
    After,
}

struct Copy<'a> {
    reader: &'a Reader,
    sink: Sink,
    packer: Packer,
    ticks: RangeInclusive<u64>,
    /// Whether rows can be copied without being read.
    as_is: bool,
    /// Events that are not copied as they are.
    columns: Columns,
    /// New number of each chunk, by its old one.
    numbers: Vec<u32>,
}

impl Copy<'_> {
    fn chunk(&mut self, entry: &ChunkEntry) -> Result<(), TraceError> {
        self.numbers.push(self.sink.index.entries().len() as u32);
        let shared = &self.reader.shared;
        match entry.header.kind {
            ChunkKind::Schema | ChunkKind::Index => Ok(()),
            ChunkKind::Events => self.events(entry),
            ChunkKind::Inputs if !self.as_is => {
                let rows = shared.inputs(entry)?;
                self.inputs(entry, &rows)
            }
            ChunkKind::BootFile => {
                let mut row: BootFileRow = shared.form(entry, 1)?;
                row.content = self.moved(row.content);
                self.sink.plain(ChunkKind::BootFile, 1, "a boot file", &row)
            }
            ChunkKind::Checkpoint => {
                let mut row: CheckpointRow = shared.form(entry, 1)?;
                row.content = self.moved(row.content);
                self.sink
                    .plain(ChunkKind::Checkpoint, 1, "a checkpoint", &row)
            }
            _ => self.as_it_is(entry),
        }
    }

    /// The same content under its new number. Contents come before what refers to them.
    fn moved(&self, content: ContentRef) -> ContentRef {
        let first_chunk = self
            .numbers
            .get(content.first_chunk as usize)
            .copied()
            .unwrap_or(0);
        ContentRef {
            first_chunk,
            ..content
        }
    }

    fn as_it_is(&mut self, entry: &ChunkEntry) -> Result<(), TraceError> {
        let shared = &self.reader.shared;
        let stored = entry.header.stored_len as usize;
        let body = shared.source.read_vec(entry.body_offset(), stored)?;
        let body = body.filter(|body| crc32fast::hash(body) == entry.header.body_check);
        let body = body.ok_or_else(|| shared.body_error(entry, BodyRule::Checksum))?;
        let counts = self.reader.index.counts(entry).table().to_vec();
        self.sink.write_chunk(PackedChunk {
            header: entry.header,
            counts,
            body,
        })
    }

    fn events(&mut self, entry: &ChunkEntry) -> Result<(), TraceError> {
        let (first, last) = (entry.header.first_tick, entry.header.last_tick);
        if last < *self.ticks.start() || first > *self.ticks.end() {
            return Ok(());
        }
        if self.as_is && self.ticks.contains(&first) && self.ticks.contains(&last) {
            return self.as_it_is(entry);
        }
        let rows = self.reader.shared.events(entry, &EventMask::ALL)?;
        self.columns.clear();
        for (tick, event) in rows.ticks.iter().zip(&rows.events) {
            if self.ticks.contains(tick) {
                // It was in a chunk, so it is not too long for one.
                let _ = self.columns.put(*tick, event);
            }
        }
        if self.columns.rows() == 0 {
            return Ok(());
        }
        let chunk = pack_columns(&mut self.packer, entry.header.vcpu, &self.columns);
        self.sink.write_chunk(chunk)
    }

    fn inputs(&mut self, entry: &ChunkEntry, rows: &[(u64, Input)]) -> Result<(), TraceError> {
        let mut buffer = RowBuffer::default();
        for (tick, row) in rows {
            // It was in a chunk, so it is not too long for one.
            let _ = buffer.put(*tick, row);
        }
        if buffer.rows() == 0 {
            return Ok(());
        }
        let header = entry.header;
        let chunk = pack_rows(&mut self.packer, header.kind, header.vcpu, &buffer);
        self.sink.write_chunk(chunk)
    }

    /// Says what was left out on one side, per vCPU.
    fn lost(&mut self, side: Side) -> Result<(), TraceError> {
        for stream in self.reader.index.streams() {
            let mut mark: Option<LostMark> = None;
            for number in &stream.chunks {
                let entry = &self.reader.chunks()[*number as usize];
                let (first, last) = (entry.header.first_tick, entry.header.last_tick);
                let is_out = |tick: u64| match side {
                    Side::Before => tick < *self.ticks.start(),
                    Side::After => tick > *self.ticks.end(),
                };
                if !is_out(first) && !is_out(last) {
                    continue;
                }
                let (count, first, last) = if is_out(first) && is_out(last) {
                    (u64::from(entry.header.rows), first, last)
                } else {
                    let mut ticks = self.reader.shared.events(entry, &EventMask::NONE)?.ticks;
                    ticks.retain(|tick| is_out(*tick));
                    match (ticks.first(), ticks.last()) {
                        (Some(first), Some(last)) => (ticks.len() as u64, *first, *last),
                        _ => continue,
                    }
                };
                let vcpu = stream.vcpu;
                let mark = mark.get_or_insert(LostMark {
                    vcpu,
                    count: 0,
                    first,
                    last,
                });
                mark.count += count;
                mark.last = last;
            }
            if let Some(mark) = mark {
                // The mark stands beside what was kept, so that ticks do not go back.
                let at = if side == Side::Before {
                    mark.last
                } else {
                    mark.first
                };
                let chunk = mark.pack(&mut self.packer, at);
                self.sink.write_chunk(chunk)?;
            }
        }
        Ok(())
    }
}
