//! Chunks: the unit of compression, checking and seeking.

use thiserror::Error;

use crate::counts::Counts;
pub use crate::kind::ChunkKind;

/// First bytes of every chunk.
pub const CHUNK_MAGIC: [u8; 4] = *b"CLTC";
/// Length of a chunk header without its counts and its checksum.
pub(crate) const HEADER_FIXED: usize = 48;
/// The longest count: a code and a varint of 32 bits.
const COUNT_MAX: usize = 6;
/// Length of the header's checksum, its last bytes.
const CHECK_LEN: usize = 4;
/// The shortest header: no counts.
pub(crate) const HEADER_MIN: usize = HEADER_FIXED + CHECK_LEN;
/// The longest header: a count for every code.
pub(crate) const HEADER_MAX: usize = HEADER_FIXED + 256 * COUNT_MAX + CHECK_LEN;
/// The longest body, unpacked or stored. A reader allocates no more, whatever a header claims.
pub const BODY_LIMIT: u32 = 16 << 20;
/// The longest body of an index: 1 GiB holds some ten million chunks.
pub const INDEX_LIMIT: u32 = 1 << 30;
/// The most rows of a chunk.
pub const ROWS_LIMIT: u32 = 1 << 18;
/// Layout version of bodies of rows.
pub(crate) const ROWS_VERSION: u8 = 1;
/// Layout version of events in columns.
pub(crate) const COLUMNS_VERSION: u8 = 2;
/// The vCPU of a chunk that belongs to none.
pub const NO_VCPU: u16 = u16::MAX;

/// Flag: a reader that does not know the kind must refuse the recording.
pub const FLAG_NEEDED: u8 = 1 << 0;
/// Flag: the chunk is no part of what two recordings of the same thing have in common.
pub const FLAG_ASIDE: u8 = 1 << 1;

/// How the body of a chunk is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// As it is.
    Stored,
    /// As one zstd frame (RFC 8878).
    Zstd,
    /// As substreams, each stored or packed by itself.
    Substreams,
}

/// What is wrong with a chunk header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeaderRule {
    /// It does not begin as one.
    #[error("it does not begin with CLTC")]
    Magic,
    /// The file ends inside it.
    #[error("the file ends inside the header")]
    Short,
    /// Its length is impossible.
    #[error("its length {0} is impossible")]
    Length(u16),
    /// The checksum.
    #[error("the checksum does not match")]
    Checksum,
    /// The codec is unknown.
    #[error("its codec {0} is unknown")]
    Codec(u8),
    /// Flags that are reserved.
    #[error("it has reserved flags {0:#04x}")]
    Flags(u8),
    /// The body is longer than allowed.
    #[error("its body is said to be {found} bytes long, more than the limit {limit}")]
    Body {
        /// In the header.
        found: u32,
        /// Allowed.
        limit: u32,
    },
    /// More rows than allowed, or than the body can hold.
    #[error("it is said to hold {rows} rows in {bytes} bytes; the limit is {ROWS_LIMIT}")]
    Rows {
        /// In the header.
        rows: u32,
        /// Unpacked length in the header.
        bytes: u32,
    },
    /// The counts are not pairs of an ascending code and a number.
    #[error("its table of counts is malformed")]
    CountTable,
    /// The counts do not add up.
    #[error("its counts add up to {counted}, but it is said to hold {rows} rows")]
    Counts {
        /// Sum of the counts.
        counted: u64,
        /// In the header.
        rows: u32,
    },
    /// The ticks are in the wrong order.
    #[error("its last tick {last} is before its first {first}")]
    Ticks {
        /// First tick.
        first: u64,
        /// Last tick.
        last: u64,
    },
    /// The body reaches beyond the end of the file.
    #[error("its body ends at offset {end:#x}, beyond the end of the file")]
    BeyondEnd {
        /// Where it would end.
        end: u64,
    },
    /// It is whole, but not the one that the index knows.
    #[error("it is not the one that the index describes")]
    Index,
    /// Its number is not the one that follows.
    #[error("its number is {found}, but {expected} should follow")]
    Sequence {
        /// In the header.
        found: u32,
        /// Expected.
        expected: u32,
    },
}

/// The header of a chunk, without its counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    /// Layout version of the body.
    pub version: u8,
    /// What it holds.
    pub kind: ChunkKind,
    /// How it is stored.
    pub codec: Codec,
    /// [`FLAG_NEEDED`], [`FLAG_ASIDE`].
    pub flags: u8,
    /// vCPU, or [`NO_VCPU`].
    pub vcpu: u16,
    /// Length of the header.
    pub len: u16,
    /// Rows.
    pub rows: u32,
    /// Number of the chunk in the file, from 0.
    pub seq: u32,
    /// Length of the body unpacked.
    pub raw_len: u32,
    /// Length of the body in the file.
    pub stored_len: u32,
    /// CRC-32 of the body as it is in the file.
    pub body_check: u32,
    /// Tick of the first row.
    pub first_tick: u64,
    /// Tick of the last row.
    pub last_tick: u64,
}

impl ChunkHeader {
    /// Length of the whole chunk in the file.
    pub const fn chunk_len(&self) -> u64 {
        self.len as u64 + self.stored_len as u64
    }

    /// Whether it belongs to what two recordings of the same thing have in common.
    pub const fn is_compared(&self) -> bool {
        self.flags & FLAG_ASIDE == 0
    }

    /// Appends the header with this table of counts. `len` is set from it.
    pub(crate) fn encode(&mut self, counts: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        self.len = (HEADER_FIXED + counts.len() + CHECK_LEN) as u16;
        out.extend_from_slice(&CHUNK_MAGIC);
        let codec = match self.codec {
            Codec::Stored => 0,
            Codec::Zstd => 1,
            Codec::Substreams => 2,
        };
        out.extend_from_slice(&[self.version, self.kind.code(), codec, self.flags]);
        out.extend_from_slice(&self.vcpu.to_le_bytes());
        out.extend_from_slice(&self.len.to_le_bytes());
        for word in [
            self.rows,
            self.seq,
            self.raw_len,
            self.stored_len,
            self.body_check,
        ] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&self.first_tick.to_le_bytes());
        out.extend_from_slice(&self.last_tick.to_le_bytes());
        out.extend_from_slice(counts);
        let check = crc32fast::hash(&out[start..]);
        out.extend_from_slice(&check.to_le_bytes());
    }

    /// Reads a header, and its table of counts, from the first bytes of `bytes`.
    ///
    /// With `check` unset the checksum is left alone: the copy in an index is under the index's own.
    pub(crate) fn decode(bytes: &[u8], check: bool) -> Result<(Self, Counts<'_>), HeaderRule> {
        let magic = bytes.get(..4).ok_or(HeaderRule::Short)?;
        if magic != CHUNK_MAGIC {
            return Err(HeaderRule::Magic);
        }
        let fixed = bytes
            .first_chunk::<HEADER_FIXED>()
            .ok_or(HeaderRule::Short)?;
        let len = u16::from_le_bytes([fixed[10], fixed[11]]);
        let table = usize::from(len).checked_sub(HEADER_FIXED + CHECK_LEN);
        let table = table.filter(|_| usize::from(len) <= HEADER_MAX);
        let table = table.ok_or(HeaderRule::Length(len))?;
        let (header, rest) = bytes
            .split_at_checked(HEADER_FIXED + table)
            .ok_or(HeaderRule::Short)?;
        let stored_check = rest.first_chunk::<CHECK_LEN>().ok_or(HeaderRule::Short)?;
        if check && crc32fast::hash(header) != u32::from_le_bytes(*stored_check) {
            return Err(HeaderRule::Checksum);
        }
        let word = |at: usize| {
            u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
        };
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        let codec = match fixed[6] {
            0 => Codec::Stored,
            1 => Codec::Zstd,
            2 => Codec::Substreams,
            other => return Err(HeaderRule::Codec(other)),
        };
        let decoded = Self {
            version: fixed[4],
            kind: ChunkKind::from_code(fixed[5]),
            codec,
            flags: fixed[7],
            vcpu: u16::from_le_bytes([fixed[8], fixed[9]]),
            len,
            rows: word(12),
            seq: word(16),
            raw_len: word(20),
            stored_len: word(24),
            body_check: word(28),
            first_tick: long(32),
            last_tick: long(40),
        };
        decoded.validate()?;
        let counts = Counts::new(&header[HEADER_FIXED..]);
        let counted = counts.total().ok_or(HeaderRule::CountTable)?;
        if counted != u64::from(decoded.rows) {
            return Err(HeaderRule::Counts {
                counted,
                rows: decoded.rows,
            });
        }
        Ok((decoded, counts))
    }

    /// The limits that keep a reader's memory bounded.
    fn validate(&self) -> Result<(), HeaderRule> {
        let limit = self.kind.body_limit();
        let longest = self.raw_len.max(self.stored_len);
        if longest > limit {
            return Err(HeaderRule::Body {
                found: longest,
                limit,
            });
        }
        if self.flags & !(FLAG_NEEDED | FLAG_ASIDE) != 0 {
            return Err(HeaderRule::Flags(self.flags));
        }
        // A row has at least a tick distance and a code.
        if self.rows > ROWS_LIMIT || self.rows > self.raw_len / 2 {
            return Err(HeaderRule::Rows {
                rows: self.rows,
                bytes: self.raw_len,
            });
        }
        if self.last_tick < self.first_tick {
            return Err(HeaderRule::Ticks {
                first: self.first_tick,
                last: self.last_tick,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> ChunkHeader {
        ChunkHeader {
            version: 1,
            kind: ChunkKind::Events,
            codec: Codec::Zstd,
            flags: 0,
            vcpu: 3,
            len: 0,
            rows: 12,
            seq: 5,
            raw_len: 100,
            stored_len: 60,
            body_check: 0xdead_beef,
            first_tick: 1 << 40,
            last_tick: (1 << 40) + 9,
        }
    }

    fn decode(bytes: &[u8]) -> Result<(ChunkHeader, Vec<(u8, u32)>), HeaderRule> {
        ChunkHeader::decode(bytes, true).map(|(header, counts)| (header, counts.collect()))
    }

    #[test]
    fn a_header_reads_back_and_every_bit_and_byte_of_it_is_checked() {
        let mut header = sample();
        let mut bytes = Vec::new();
        header.encode(b"\x20\x0a\x99\x02", &mut bytes);
        assert_eq!(bytes.len(), usize::from(header.len));
        assert_eq!(decode(&bytes), Ok((header, vec![(0x20, 10), (0x99, 2)])));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged).is_err(), "bit {bit}");
        }
        for cut in 0..bytes.len() {
            assert_eq!(
                decode(&bytes[..cut]),
                Err(HeaderRule::Short),
                "cut at {cut}"
            );
        }
    }

    fn refused(edit: impl FnOnce(&mut ChunkHeader)) -> HeaderRule {
        let mut header = sample();
        edit(&mut header);
        let mut bytes = Vec::new();
        header.encode(b"\x20\x0c", &mut bytes);
        decode(&bytes).unwrap_err()
    }

    #[test]
    fn sealed_nonsense_is_refused_by_rule() {
        assert!(matches!(
            refused(|h| h.raw_len = BODY_LIMIT + 1),
            HeaderRule::Body { .. }
        ));
        assert!(matches!(
            refused(|h| h.stored_len = u32::MAX),
            HeaderRule::Body { .. }
        ));
        assert_eq!(
            refused(|h| h.raw_len = 23),
            HeaderRule::Rows {
                rows: 12,
                bytes: 23
            }
        );
        assert_eq!(
            refused(|h| h.rows = 11),
            HeaderRule::Counts {
                counted: 12,
                rows: 11
            }
        );
        assert_eq!(refused(|h| h.flags = 0x80), HeaderRule::Flags(0x80));
        assert!(matches!(
            refused(|h| h.last_tick = 0),
            HeaderRule::Ticks { .. }
        ));
    }
}
