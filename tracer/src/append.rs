//! Opening a recording to add to it.

use std::fs::OpenOptions;
use std::io::{Seek, SeekFrom};
use std::path::Path;

use crate::chunk::ChunkKind;
use crate::error::{Action, TraceError};
use crate::options::Options;
use crate::reader::Reader;
use crate::schema::Schema;
use crate::sink::Sink;

impl Sink {
    /// Opens a recording at the end of its last whole chunk.
    pub(crate) fn append(path: &Path, options: Options) -> Result<Self, TraceError> {
        let reader = Reader::open(path)?;
        let mut file = OpenOptions::new()
            .write(true)
            .open(path)
            .map_err(|error| TraceError::io(path, Action::Open, error))?;
        let end = match reader.recovery() {
            // An index that is there stays, and is superseded by the one that will follow.
            None => reader.len,
            Some(recovery) => {
                let cut = file.set_len(recovery.offset);
                cut.map_err(|error| TraceError::io(path, Action::Write, error))?;
                recovery.offset
            }
        };
        file.seek(SeekFrom::Start(end))
            .map_err(|error| TraceError::io(path, Action::Write, error))?;
        let mut sink = Self::open(path, file, end, options)?;
        if reader.chunks().is_empty() {
            sink.schema(&Schema::of_this_build())?;
            return Ok(sink);
        }
        sink.rows_fit = *reader.schema() == Schema::of_this_build();
        for (kind, content) in reader.content_refs()? {
            let key = (content.digest, kind == ChunkKind::BootFile);
            sink.contents.insert(key, content.first_chunk);
        }
        for stream in reader.index.streams() {
            let last = stream
                .chunks
                .last()
                .and_then(|last| reader.chunks().get(*last as usize));
            let last = last.map_or(0, |entry| entry.header.last_tick);
            let stream_of_file = sink.new_stream(last);
            sink.streams.insert(stream.vcpu, stream_of_file);
        }
        let inputs = reader.index.of_kind(ChunkKind::Inputs).last();
        sink.last_input = inputs.map_or(0, |entry| entry.header.last_tick);
        sink.index = (*reader.index).clone();
        Ok(sink)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::{
        EndReason, Event, Note, Options, Reader, RecordEnd, StateDigest, TraceError, Trail, Writer,
    };

    fn options() -> Options {
        Options {
            chunk_rows: 10,
            batch_rows: 5,
            sync: false,
            ..Options::default()
        }
    }

    fn record(path: &std::path::Path) {
        let mut writer = Writer::create(path, options()).unwrap();
        writer.boot_file("kernel", b"kernel".as_slice()).unwrap();
        (0..40).for_each(|tick| {
            writer
                .push(tick, Event::IrqEoi { vector: tick as u8 })
                .unwrap();
        });
        let digest = StateDigest::default();
        writer
            .finish(RecordEnd {
                reason: EndReason::Stopped,
                tick: 40,
                digest,
            })
            .unwrap();
    }

    #[test]
    fn checkpoints_trails_and_notes_are_added_to_a_finished_recording() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.clt");
        record(&path);
        let before = fs::read(&path).unwrap();
        let compared = Reader::open(&path)
            .unwrap()
            .compared_digest(crate::Compared::Everything);
        let state = StateDigest([7; 16]);
        let note = Note {
            tick: 30,
            name: "here".into(),
            text: "what is this?".into(),
        };
        let mut writer = Writer::append(&path, options()).unwrap();
        writer.checkpoint(30, 1, state, vec![9; 3_000_000]).unwrap();
        writer.checkpoint(20, 0, state, *b"earlier").unwrap();
        writer.note(note.clone()).unwrap();
        let trail = Trail {
            from: 20,
            to: 30,
            written: Some(vec![5, 9]),
            ..Trail::default()
        };
        writer.trail(trail.clone()).unwrap();
        writer.close().unwrap();
        let mut writer = Writer::append(&path, options()).unwrap();
        writer.checkpoint(35, 2, state, vec![9; 3_000_000]).unwrap();
        writer.close().unwrap();
        let after = fs::read(&path).unwrap();
        assert_eq!(
            &after[..before.len()],
            before,
            "what was there is not touched"
        );
        let reader = Reader::open(&path).unwrap();
        assert!(reader.is_complete());
        assert_eq!(reader.notes().unwrap(), [note]);
        let trails = reader.trails().collect::<Result<Vec<_>, _>>();
        assert_eq!(trails.unwrap(), [trail]);
        let found = reader.checkpoints().unwrap();
        let ids: Vec<_> = found.iter().map(|info| (info.tick, info.id)).collect();
        assert_eq!(ids, [(20, 0), (30, 1), (35, 2)]);
        assert_eq!(reader.checkpoint(&found[0]).unwrap(), b"earlier");
        assert_eq!(reader.checkpoint(&found[2]).unwrap(), vec![9; 3_000_000]);
        assert_eq!(
            reader
                .stats()
                .chunks
                .iter()
                .find(|c| c.kind == "piece")
                .unwrap()
                .chunks,
            5
        );
        let again = reader.compared_digest(crate::Compared::Everything);
        assert_eq!(
            again.unwrap(),
            compared.unwrap(),
            "none of these is compared"
        );
        // Without the last index, the superseded ones are walked over.
        let cut = Reader::from_bytes("cut", &after[..after.len() - 1]).unwrap();
        assert_eq!(
            cut.recovery().unwrap().kept_chunks,
            reader.chunks().len() as u64
        );
        assert_eq!(cut.checkpoints().unwrap().len(), 3);
    }

    #[test]
    fn a_recording_that_was_cut_off_gets_its_index_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.clt");
        record(&path);
        let bytes = fs::read(&path).unwrap();
        let third = Reader::open(&path).unwrap().chunks()[5].offset;
        fs::write(&path, &bytes[..third as usize + 20]).unwrap();
        assert!(Reader::open(&path).unwrap().recovery().is_some());
        let summary = Writer::append(&path, options()).unwrap().close().unwrap();
        assert_eq!((summary.chunks, summary.events), (5, 20));
        let reader = Reader::open(&path).unwrap();
        assert_eq!(reader.recovery(), None);
        assert!(!reader.is_complete(), "the end is still missing");
        assert_eq!(reader.events().count(), 20);
        reader.check().unwrap();
    }

    #[test]
    fn events_are_added_only_after_those_that_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.clt");
        record(&path);
        let mut writer = Writer::append(&path, options()).unwrap();
        writer.push(39, Event::IrqEoi { vector: 0 }).unwrap();
        writer.push(38, Event::IrqEoi { vector: 0 }).unwrap();
        assert!(matches!(
            writer.close(),
            Err(TraceError::TickBack { last: 39, .. })
        ));
        assert_eq!(Reader::open(&path).unwrap().event_count(), 41);
    }
}
