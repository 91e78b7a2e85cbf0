//! What a recording holds, counted from its index alone.

use serde::Serialize;

use crate::error::TraceError;
use crate::reader::Reader;

/// Rows of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KindCount {
    /// Code of the kind.
    pub code: u8,
    /// Its name in the file.
    pub name: String,
    /// How many.
    pub count: u64,
}

/// Chunks of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChunkStats {
    /// Name of the kind.
    pub kind: &'static str,
    /// How many chunks.
    pub chunks: u64,
    /// Rows in them.
    pub rows: u64,
    /// Bytes of their bodies, unpacked.
    pub raw: u64,
    /// Bytes in the file, headers included.
    pub stored: u64,
}

/// What a recording holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Length of the file.
    pub bytes: u64,
    /// Number of events.
    pub events: u64,
    /// Number of inputs.
    pub inputs: u64,
    /// First and last tick of any row.
    pub ticks: Option<(u64, u64)>,
    /// Events and inputs by kind, by code; kinds that there are none of are left out.
    pub kinds: Vec<KindCount>,
    /// Chunks by kind, by code.
    pub chunks: Vec<ChunkStats>,
}

impl Reader {
    /// Bytes in the file that rows of each code take, by code.
    ///
    /// What the rows of a chunk share (header, codes, ticks) is divided among them evenly. The bodies
    /// of the chunks of rows are read, but not unpacked.
    pub fn row_bytes(&self) -> Result<Box<[f64; 256]>, TraceError> {
        let mut bytes = Box::new([0.0; 256]);
        for entry in self.chunks().iter().filter(|entry| entry.header.rows != 0) {
            let own = self.shared.part_lens(entry)?;
            let shared = entry.header.chunk_len() - own.iter().sum::<u64>();
            let each = shared as f64 / f64::from(entry.header.rows);
            // Substreams are by code, as the counts are.
            let own = own.into_iter().chain(std::iter::repeat(0));
            for ((code, count), own) in self.chunk_counts(entry).zip(own) {
                bytes[usize::from(code)] += own as f64 + each * f64::from(count);
            }
        }
        Ok(bytes)
    }

    /// Counts what the recording holds. No body is read.
    pub fn stats(&self) -> Stats {
        let mut counts = [0u64; 256];
        let mut chunks: Vec<(u8, ChunkStats)> = Vec::new();
        for entry in self.chunks() {
            let header = entry.header;
            for (code, count) in self.chunk_counts(entry) {
                counts[usize::from(code)] += u64::from(count);
            }
            let code = header.kind.code();
            let at = match chunks.binary_search_by_key(&code, |(code, _)| *code) {
                Ok(at) => at,
                Err(at) => {
                    let kind = header.kind.name();
                    let stats = ChunkStats {
                        kind,
                        chunks: 0,
                        rows: 0,
                        raw: 0,
                        stored: 0,
                    };
                    chunks.insert(at, (code, stats));
                    at
                }
            };
            let stats = &mut chunks[at].1;
            stats.chunks += 1;
            stats.rows += u64::from(header.rows);
            stats.raw += u64::from(header.raw_len);
            stats.stored += header.chunk_len();
        }
        let chunks: Vec<_> = chunks.into_iter().map(|(_, stats)| stats).collect();
        let rows_of = |kind| {
            let of_kind = chunks.iter().filter(|stats| stats.kind == kind);
            of_kind.map(|stats| stats.rows).sum()
        };
        let kinds = (0..=255u8).zip(counts).filter(|(_, count)| *count != 0);
        let kinds = kinds.map(|(code, count)| KindCount {
            code,
            name: self.schema().name(code).unwrap_or("unknown").to_owned(),
            count,
        });
        Stats {
            bytes: self.len,
            events: rows_of("events"),
            inputs: rows_of("inputs"),
            ticks: self.ticks(),
            kinds: kinds.collect(),
            chunks,
        }
    }
}
