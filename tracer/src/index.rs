//! The index: where every chunk is, without its body.

use std::ops::Range;

use crate::chunk::{ChunkHeader, ChunkKind, HEADER_MIN, HeaderRule};
use crate::counts::Counts;
use crate::wire::Bytes;

/// One chunk of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkEntry {
    /// Where its header begins.
    pub offset: u64,
    /// Its header.
    pub header: ChunkHeader,
    counts: Range<u32>,
}

impl ChunkEntry {
    /// Where its body begins.
    pub const fn body_offset(&self) -> u64 {
        self.offset.saturating_add(self.header.len as u64)
    }

    /// Where it ends.
    pub const fn end(&self) -> u64 {
        self.offset.saturating_add(self.header.chunk_len())
    }
}

/// The chunks of one vCPU's events.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stream {
    pub(crate) vcpu: u16,
    /// Numbers of the chunks in the index.
    pub(crate) chunks: Vec<u32>,
    /// Rows before each chunk, and after the last.
    pub(crate) starts: Vec<u64>,
}

impl Stream {
    pub(crate) fn rows(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }
}

/// The chunks of a file in their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    entries: Vec<ChunkEntry>,
    /// The tables of counts, one after the other.
    counts: Vec<u8>,
    streams: Vec<Stream>,
}

impl Index {
    pub(crate) fn entries(&self) -> &[ChunkEntry] {
        &self.entries
    }

    pub(crate) fn streams(&self) -> &[Stream] {
        &self.streams
    }

    /// Rows of each code in a chunk.
    pub(crate) fn counts(&self, entry: &ChunkEntry) -> Counts<'_> {
        let range = entry.counts.start as usize..entry.counts.end as usize;
        Counts::new(self.counts.get(range).unwrap_or_default())
    }

    /// The chunks of one kind, in order.
    pub(crate) fn of_kind(&self, kind: ChunkKind) -> impl Iterator<Item = &ChunkEntry> {
        self.entries
            .iter()
            .filter(move |entry| entry.header.kind == kind)
    }

    /// Adds the chunk whose header begins `bytes`.
    pub(crate) fn push_bytes(
        &mut self,
        offset: u64,
        bytes: &[u8],
        check: bool,
    ) -> Result<&ChunkEntry, HeaderRule> {
        let (header, counts) = ChunkHeader::decode(bytes, check)?;
        Ok(self.push(offset, header, counts.table()))
    }

    /// Adds a chunk with this table of counts.
    pub(crate) fn push(&mut self, offset: u64, header: ChunkHeader, counts: &[u8]) -> &ChunkEntry {
        let start = self.counts.len() as u32;
        self.counts.extend_from_slice(counts);
        let counts = start..self.counts.len() as u32;
        self.admit(ChunkEntry {
            offset,
            header,
            counts,
        })
    }

    /// Takes back all chunks but the first, as long as they are pieces of a content.
    pub(crate) fn take_back_pieces(&mut self, chunks: usize) {
        while self.entries.len() > chunks
            && let Some(last) = self
                .entries
                .pop_if(|last| last.header.kind == ChunkKind::Piece)
        {
            self.counts.truncate(last.counts.start as usize);
        }
    }

    fn admit(&mut self, entry: ChunkEntry) -> &ChunkEntry {
        let number = self.entries.len() as u32;
        if entry.header.kind == ChunkKind::Events {
            let vcpu = entry.header.vcpu;
            let at = match self
                .streams
                .binary_search_by_key(&vcpu, |stream| stream.vcpu)
            {
                Ok(at) => at,
                Err(at) => {
                    let stream = Stream {
                        vcpu,
                        chunks: Vec::new(),
                        starts: vec![0],
                    };
                    self.streams.insert(at, stream);
                    at
                }
            };
            let stream = &mut self.streams[at];
            let rows = stream.rows() + u64::from(entry.header.rows);
            stream.chunks.push(number);
            stream.starts.push(rows);
        }
        self.entries.push(entry);
        &self.entries[number as usize]
    }

    /// Takes the last chunk out again: its body turned out to be damaged.
    pub(crate) fn pop(&mut self) {
        let Some(entry) = self.entries.pop() else {
            return;
        };
        self.counts.truncate(entry.counts.start as usize);
        let stream = self.streams.iter_mut().find(|stream| {
            entry.header.kind == ChunkKind::Events && stream.vcpu == entry.header.vcpu
        });
        if let Some(stream) = stream {
            stream.chunks.pop();
            stream.starts.pop();
        }
        self.streams.retain(|stream| !stream.chunks.is_empty());
    }

    /// The body of an index chunk: for each chunk its offset and its header.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.entries.len() * 80);
        for entry in &self.entries {
            body.extend_from_slice(&entry.offset.to_le_bytes());
            let mut header = entry.header;
            header.encode(self.counts(entry).table(), &mut body);
        }
        body
    }

    /// Reads the body of an index chunk that lies at `index_offset`.
    ///
    /// `None` if it is not the index of chunks that follow one another up to there.
    pub(crate) fn decode(body: &[u8], first: u64, index_offset: u64) -> Option<Self> {
        let mut index = Self::default();
        // No more than the body has room for, so the reservation is bounded by what was read.
        index.entries.reserve(body.len() / (8 + HEADER_MIN));
        index.counts.reserve(body.len() / 2);
        let mut from = Bytes::new(body);
        let mut end = first;
        while !from.rest().is_empty() {
            let offset = u64::from_le_bytes(*from.take(8).ok()?.first_chunk()?);
            let entry = index.push_bytes(offset, from.rest(), false).ok()?;
            // Between two chunks there is nothing, or an index and a trailer that were superseded.
            let (len, entry_end) = (entry.header.len, entry.end());
            if offset < end || entry_end > index_offset {
                return None;
            }
            end = entry_end;
            from.take(usize::from(len)).ok()?;
        }
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::Codec;

    fn events(seq: u32, vcpu: u16, rows: u32) -> ChunkHeader {
        ChunkHeader {
            version: 1,
            kind: ChunkKind::Events,
            codec: Codec::Stored,
            flags: 0,
            vcpu,
            len: 54,
            rows,
            seq,
            raw_len: 46,
            stored_len: 46,
            body_check: 0,
            first_tick: 0,
            last_tick: 5,
        }
    }

    fn sample() -> Index {
        let mut index = Index::default();
        index.push(32, events(0, 1, 4), b"\x20\x04");
        index.push(132, events(1, 0, 5), b"\x21\x05");
        index.push(232, events(2, 1, 6), b"\x20\x06");
        index
    }

    #[test]
    fn an_index_reads_back() {
        let index = sample();
        let read = Index::decode(&index.encode(), 32, 332).unwrap();
        assert_eq!(read.entries(), index.entries());
        assert_eq!(
            read.counts(&read.entries()[2]).collect::<Vec<_>>(),
            [(0x20, 6)]
        );
        assert_eq!(read.streams()[1].starts, [0, 4, 10]);
        assert_eq!(read.streams()[0].vcpu, 0);
    }

    #[test]
    fn chunks_that_overlap_or_lie_beyond_the_index_are_refused() {
        let body = sample().encode();
        assert!(Index::decode(&body, 33, 332).is_none());
        assert!(Index::decode(&body, 32, 331).is_none());
        assert!(Index::decode(&body[..body.len() - 1], 32, 332).is_none());
    }

    #[test]
    fn a_chunk_can_be_taken_out_again() {
        let mut index = sample();
        index.pop();
        index.pop();
        assert_eq!(index.streams().len(), 1);
        assert_eq!(index.streams()[0].starts, [0, 4]);
        assert_eq!(index.entries().len(), 1);
    }
}
