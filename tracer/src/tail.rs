//! Following a recording that is being written.

use std::sync::Arc;

use crate::error::TraceError;
use crate::reader::Reader;
use crate::scan::{find_index, walk};

/// What has come since the last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refresh {
    /// Chunks that were not there before.
    pub new_chunks: u64,
    /// Events that were not there before.
    pub new_events: u64,
    /// Whether the recording has been ended in order.
    pub complete: bool,
}

impl Reader {
    /// Looks for what has been written since. Cursors that exist keep to what they know; new ones,
    /// and everything else this reader is asked, know the rest.
    ///
    /// A chunk counts once it is whole, so this may be called at any moment of the writing.
    pub fn refresh(&mut self) -> Result<Refresh, TraceError> {
        let (chunks, events) = (self.chunks().len() as u64, self.event_count());
        let len = self.shared.source.len()?;
        if len != self.len {
            self.follow(len)?;
        }
        Ok(Refresh {
            new_chunks: (self.chunks().len() as u64).saturating_sub(chunks),
            new_events: self.event_count().saturating_sub(events),
            complete: self.is_complete(),
        })
    }

    fn follow(&mut self, len: u64) -> Result<(), TraceError> {
        let source = Arc::clone(&self.shared.source);
        if self.chunks().is_empty() || len < self.len {
            // There was no schema yet, or this is another recording under the same name.
            *self = Self::load(source)?;
            return Ok(());
        }
        if let Some(index) = find_index(&source, len)? {
            self.index = Arc::new(index);
            self.recovery = None;
        } else {
            let offset = self
                .recovery
                .as_ref()
                .map_or(self.len, |recovery| recovery.offset);
            let mut index = (*self.index).clone();
            self.recovery = Some(walk(&source, len, &mut index, offset)?);
            self.index = Arc::new(index);
        }
        self.len = len;
        self.shared.check_needed(&self.index)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write;

    use super::*;
    use crate::{EndReason, Event, Input, Options, RecordEnd, StateDigest, Writer};

    fn bytes_of_a_recording() -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.clt");
        let options = Options {
            chunk_rows: 10,
            batch_rows: 5,
            sync: false,
            ..Options::default()
        };
        let mut writer = Writer::create(&path, options).unwrap();
        for tick in 0..40 {
            writer
                .push(tick, Event::IrqEoi { vector: tick as u8 })
                .unwrap();
            if tick == 22 {
                writer.input(tick, Input::IdleWarp { ns: 5 }).unwrap();
                writer.flush_inputs().unwrap();
            }
        }
        let digest = StateDigest::default();
        writer
            .finish(RecordEnd {
                reason: EndReason::Stopped,
                tick: 40,
                digest,
            })
            .unwrap();
        fs::read(&path).unwrap()
    }

    /// The file grows byte by byte, as a reader may happen to see it.
    #[test]
    fn a_growing_file_is_followed_at_every_byte() {
        let bytes = bytes_of_a_recording();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("live.clt");
        fs::write(&path, &bytes[..crate::FILE_HEADER_LEN]).unwrap();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        let mut reader = Reader::open(&path).unwrap();
        let mut early = reader.events();
        let mut seen = 0;
        for byte in &bytes[crate::FILE_HEADER_LEN..] {
            assert!(!reader.is_complete());
            file.write_all(&[*byte]).unwrap();
            let refresh = reader.refresh().unwrap();
            seen += refresh.new_events;
            assert_eq!(reader.event_count(), seen);
            if refresh.new_events != 0 {
                let rows: Vec<_> = reader.events().map(Result::unwrap).collect();
                assert_eq!(rows.len() as u64, seen);
                assert_eq!(rows.last().unwrap().tick, seen - 1);
            }
        }
        assert_eq!(seen, 40);
        assert!(reader.is_complete());
        assert_eq!(reader.recovery(), None);
        assert!(
            early.next().is_none(),
            "an old cursor keeps to what it knew"
        );
        let again = reader.refresh().unwrap();
        assert_eq!(
            again,
            Refresh {
                new_chunks: 0,
                new_events: 0,
                complete: true
            }
        );
    }

    #[test]
    fn another_recording_under_the_same_name_is_read_anew() {
        let bytes = bytes_of_a_recording();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("live.clt");
        fs::write(&path, &bytes).unwrap();
        let mut reader = Reader::open(&path).unwrap();
        assert_eq!(reader.event_count(), 40);
        fs::write(&path, &bytes[..crate::FILE_HEADER_LEN]).unwrap();
        reader.refresh().unwrap();
        assert_eq!(reader.event_count(), 0);
        assert!(!reader.is_complete());
    }
}
