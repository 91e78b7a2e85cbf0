//! How a recording is written.

use crate::chunk::{BODY_LIMIT, ROWS_LIMIT};

/// How a recording is written. Chunk boundaries follow from the rows and from calls of
/// [`Writer::flush`](crate::Writer::flush), never from time, so that two recordings of the same thing
/// with the same options have the same bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Rows after which a chunk of events is closed: as many, at most, are lost when the process is
    /// killed.
    pub chunk_rows: u32,
    /// Bytes after which a chunk is closed, before compression.
    pub chunk_bytes: u32,
    /// Rows handed to the writer thread at once.
    pub batch_rows: usize,
    /// Batches that may wait for the writer thread before the guest waits for it.
    pub queue_batches: usize,
    /// Compression level of events, inputs and checkpoints.
    pub event_level: i32,
    /// Compression level of boot files.
    pub file_level: i32,
    /// Flight recorder: keep only about this many last bytes of events, in memory, and write them at
    /// the end. Inputs are all kept, and written as ever.
    pub last: Option<u64>,
    /// Replace a file that is there.
    pub overwrite: bool,
    /// Make the file durable when the recording is finished.
    pub sync: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            chunk_rows: 32 << 10,
            chunk_bytes: 512 << 10,
            // Eight of these make a chunk; each is small enough for a second-level cache.
            batch_rows: 4 << 10,
            // As many rows as a chunk has; more never wait, since who fills a chunk waits for its end.
            queue_batches: 8,
            event_level: 1,
            file_level: 3,
            last: None,
            overwrite: false,
            sync: true,
        }
    }
}

impl Options {
    /// The same within the limits of the format.
    pub(crate) fn clamped(mut self) -> Self {
        self.chunk_rows = self.chunk_rows.clamp(1, ROWS_LIMIT);
        // One more row of the longest kind still fits in the body of a chunk.
        self.chunk_bytes = self.chunk_bytes.clamp(1, BODY_LIMIT / 2);
        self.batch_rows = self.batch_rows.clamp(1, ROWS_LIMIT as usize);
        self.queue_batches = self.queue_batches.clamp(1, 1 << 12);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::ROW_LIMIT;

    #[test]
    fn any_options_keep_within_the_format() {
        let wild = Options {
            chunk_rows: u32::MAX,
            chunk_bytes: u32::MAX,
            batch_rows: 0,
            queue_batches: usize::MAX,
            ..Options::default()
        };
        let tame = wild.clamped();
        assert!(tame.chunk_rows <= ROWS_LIMIT && tame.batch_rows == 1);
        assert!(tame.chunk_bytes as usize + ROW_LIMIT <= BODY_LIMIT as usize);
        assert_eq!(Options::default(), Options::default().clamped());
    }
}
