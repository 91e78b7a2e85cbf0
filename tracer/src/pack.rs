//! Packing and unpacking chunk bodies.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};

use crate::chunk::{ChunkHeader, ChunkKind, Codec, NO_VCPU};
use crate::error::BodyRule;
use crate::substreams::{Substreams, join};

/// What is known of a chunk before it is packed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draft {
    pub(crate) kind: ChunkKind,
    pub(crate) version: u8,
    pub(crate) vcpu: u16,
    pub(crate) rows: u32,
    pub(crate) ticks: (u64, u64),
    pub(crate) flags: u8,
}

impl Draft {
    /// A chunk without rows.
    pub(crate) const fn plain(kind: ChunkKind, version: u8) -> Self {
        Self {
            kind,
            version,
            vcpu: NO_VCPU,
            rows: 0,
            ticks: (0, 0),
            flags: kind.flags(),
        }
    }
}

/// A chunk ready to be written, but for its number.
#[derive(Clone, Debug)]
pub(crate) struct PackedChunk {
    pub(crate) header: ChunkHeader,
    /// The table of counts.
    pub(crate) counts: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

/// Packs chunk bodies at one level.
pub(crate) struct Packer {
    zstd: Compressor<'static>,
    level: i32,
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packer")
            .field("level", &self.level)
            .finish_non_exhaustive()
    }
}

impl Packer {
    pub(crate) fn new(level: i32) -> std::io::Result<Self> {
        Ok(Self {
            zstd: Compressor::new(level)?,
            level,
        })
    }

    /// Packs a body of substreams.
    pub(crate) fn pack_parts(
        &mut self,
        draft: Draft,
        counts: Vec<u8>,
        parts: &[Vec<u8>],
    ) -> PackedChunk {
        let body = join(parts, |raw| self.zip(raw));
        let raw_len: usize = parts.iter().map(Vec::len).sum();
        finished(draft, Codec::Substreams, counts, raw_len, body)
    }

    /// Packs bytes, if that makes them smaller.
    fn zip(&mut self, raw: &[u8]) -> Option<Vec<u8>> {
        let packed = self.zstd.compress(raw).ok();
        packed.filter(|packed| packed.len() < raw.len())
    }

    /// Packs a body; it is stored as it is when packing does not make it smaller, and an index
    /// always is, because opening a file must not wait for it to be unpacked.
    pub(crate) fn pack(&mut self, draft: Draft, counts: Vec<u8>, raw: &[u8]) -> PackedChunk {
        let packed = match draft.kind {
            ChunkKind::Index => None,
            _ => self.zip(raw),
        };
        let (codec, body) = match packed {
            Some(body) => (Codec::Zstd, body),
            None => (Codec::Stored, raw.to_vec()),
        };
        finished(draft, codec, counts, raw.len(), body)
    }
}

fn finished(
    draft: Draft,
    codec: Codec,
    counts: Vec<u8>,
    raw_len: usize,
    body: Vec<u8>,
) -> PackedChunk {
    let header = ChunkHeader {
        version: draft.version,
        kind: draft.kind,
        codec,
        flags: draft.flags,
        vcpu: draft.vcpu,
        len: 0,
        rows: draft.rows,
        seq: 0,
        raw_len: raw_len as u32,
        stored_len: body.len() as u32,
        body_check: crc32fast::hash(&body),
        first_tick: draft.ticks.0,
        last_tick: draft.ticks.1,
    };
    PackedChunk {
        header,
        counts,
        body,
    }
}

/// What a thread that reads keeps from chunk to chunk: making these anew takes longer than unpacking
/// a chunk.
#[derive(Default)]
struct Unpacker {
    zstd: Option<Decompressor<'static>>,
    raw: Vec<u8>,
}

thread_local! {
    static UNPACKER: RefCell<Unpacker> = RefCell::default();
}

/// Checks and unpacks a body. The header has been validated, so `raw_len` is within the limits.
pub(crate) fn unpack(header: &ChunkHeader, body: Vec<u8>) -> Result<Vec<u8>, BodyRule> {
    match header.codec {
        Codec::Stored => unpack_with(header, &body, |_| ()).map(|()| body),
        Codec::Zstd => unpack_with(header, &body, <[u8]>::to_vec),
        Codec::Substreams => Substreams::open(header, &body)?.unpack_all(),
    }
}

/// Checks and unpacks a body for `look`, which must not itself unpack anything.
pub(crate) fn unpack_with<T>(
    header: &ChunkHeader,
    body: &[u8],
    look: impl FnOnce(&[u8]) -> T,
) -> Result<T, BodyRule> {
    if crc32fast::hash(body) != header.body_check {
        return Err(BodyRule::Checksum);
    }
    let expected = header.raw_len as usize;
    let right = |found: usize| {
        if found == expected {
            Ok(())
        } else {
            Err(BodyRule::Length { found, expected })
        }
    };
    match header.codec {
        Codec::Stored => {
            right(body.len())?;
            Ok(look(body))
        }
        Codec::Zstd => UNPACKER.with_borrow_mut(|Unpacker { zstd, raw }| {
            unzip_with(zstd, body, expected, raw)?;
            Ok(look(raw))
        }),
        Codec::Substreams => Ok(look(&Substreams::open(header, body)?.unpack_all()?)),
    }
}

/// Unpacks one zstd frame over what is in `raw`. The caller has bounded the length expected.
pub(crate) fn unzip(frame: &[u8], expected: usize, raw: &mut Vec<u8>) -> Result<(), BodyRule> {
    UNPACKER.with_borrow_mut(|Unpacker { zstd, .. }| unzip_with(zstd, frame, expected, raw))
}

fn unzip_with(
    zstd: &mut Option<Decompressor<'static>>,
    frame: &[u8],
    expected: usize,
    raw: &mut Vec<u8>,
) -> Result<(), BodyRule> {
    let zstd = match zstd {
        Some(zstd) => zstd,
        None => zstd.insert(Decompressor::new().map_err(|_| BodyRule::Zstd)?),
    };
    raw.clear();
    // The capacity bounds what is written, whatever the frame says of itself; where there is more of
    // it, from a chunk before, a frame that is too long is found by its length.
    raw.reserve(expected);
    zstd.decompress_to_buffer(frame, raw)
        .map_err(|_| BodyRule::Zstd)?;
    if raw.len() == expected {
        Ok(())
    } else {
        let found = raw.len();
        Err(BodyRule::Length { found, expected })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(raw: &[u8]) -> PackedChunk {
        let draft = Draft::plain(ChunkKind::Piece, 1);
        Packer::new(1).unwrap().pack(draft, Vec::new(), raw)
    }

    #[test]
    fn bodies_read_back() {
        let repetitive = vec![7; 10_000];
        let packed = pack(&repetitive);
        assert_eq!(packed.header.codec, Codec::Zstd);
        assert!(packed.body.len() < 100);
        assert_eq!(unpack(&packed.header, packed.body), Ok(repetitive));
        let short = pack(b"ab");
        assert_eq!(short.header.codec, Codec::Stored);
        assert_eq!(unpack(&short.header, short.body), Ok(b"ab".to_vec()));
    }

    #[test]
    fn a_frame_that_is_longer_than_it_says_is_refused() {
        let mut packed = pack(&vec![7; 10_000]);
        packed.header.raw_len = 9_999;
        assert_eq!(
            unpack(&packed.header, packed.body.clone()),
            Err(BodyRule::Zstd)
        );
        packed.header.raw_len = 10_001;
        let rule = BodyRule::Length {
            found: 10_000,
            expected: 10_001,
        };
        assert_eq!(unpack(&packed.header, packed.body.clone()), Err(rule));
        packed.body[10] ^= 1;
        assert_eq!(unpack(&packed.header, packed.body), Err(BodyRule::Checksum));
    }
}
