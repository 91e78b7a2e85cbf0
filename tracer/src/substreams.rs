//! A body in parts, each packed by itself, so that a reader unpacks only what it asks for.

use crate::chunk::{ChunkHeader, Codec};
use crate::error::BodyRule;
use crate::pack::unzip;
use crate::wire::{Bytes, WireError, put_varint};

/// The most substreams of a body: a head, and one for each code.
const SUBSTREAMS_MAX: usize = 257;

/// One part of a body.
#[derive(Clone, Copy, Debug)]
struct Part<'a> {
    codec: Codec,
    raw_len: usize,
    stored: &'a [u8],
}

/// A body in parts, checked as a whole.
#[derive(Debug)]
pub(crate) struct Substreams<'a> {
    parts: Vec<Part<'a>>,
}

impl<'a> Substreams<'a> {
    /// Reads the table of a body.
    pub(crate) fn open(header: &ChunkHeader, body: &'a [u8]) -> Result<Self, BodyRule> {
        if crc32fast::hash(body) != header.body_check {
            return Err(BodyRule::Checksum);
        }
        let parts = table(body).map_err(|_| BodyRule::Substreams)?;
        // Each length is within the limit of a body, and so is the number of parts.
        let found = parts.iter().map(|part| part.raw_len).sum();
        let expected = header.raw_len as usize;
        if found != expected {
            return Err(BodyRule::Length { found, expected });
        }
        Ok(Self { parts })
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.parts.len()
    }

    /// The length of one when unpacked.
    pub(crate) fn raw_len(&self, number: usize) -> Option<usize> {
        self.parts.get(number).map(|part| part.raw_len)
    }

    /// Their lengths in the file.
    pub(crate) fn stored_lens(&self) -> impl Iterator<Item = u64> {
        self.parts.iter().map(|part| part.stored.len() as u64)
    }

    /// Unpacks one over what is in `raw`.
    pub(crate) fn unpack(&self, number: usize, raw: &mut Vec<u8>) -> Result<(), BodyRule> {
        let part = self.parts.get(number).ok_or(BodyRule::Substreams)?;
        match part.codec {
            Codec::Zstd => unzip(part.stored, part.raw_len, raw),
            _ => {
                raw.clear();
                raw.extend_from_slice(part.stored);
                Ok(())
            }
        }
    }

    /// Unpacks all of them, one after the other.
    pub(crate) fn unpack_all(&self) -> Result<Vec<u8>, BodyRule> {
        let (mut all, mut raw) = (Vec::new(), Vec::new());
        for number in 0..self.parts.len() {
            self.unpack(number, &mut raw)?;
            all.extend_from_slice(&raw);
        }
        Ok(all)
    }
}

fn table(body: &[u8]) -> Result<Vec<Part<'_>>, WireError> {
    let mut from = Bytes::new(body);
    let length = |from: &mut Bytes<'_>| {
        let len = usize::try_from(from.varint()?).map_err(|_| WireError::Short)?;
        if len > crate::chunk::BODY_LIMIT as usize {
            return Err(WireError::Short);
        }
        Ok(len)
    };
    let count = length(&mut from)?;
    if count > SUBSTREAMS_MAX {
        return Err(WireError::Short);
    }
    let mut lens = Vec::new();
    for _ in 0..count {
        let codec = match from.byte()? {
            0 => Codec::Stored,
            1 => Codec::Zstd,
            _ => return Err(WireError::Short),
        };
        lens.push((codec, length(&mut from)?, length(&mut from)?));
    }
    let mut parts = Vec::new();
    for (codec, raw_len, stored_len) in lens {
        let stored = from.take(stored_len)?;
        if codec == Codec::Stored && raw_len != stored_len {
            return Err(WireError::Short);
        }
        parts.push(Part {
            codec,
            raw_len,
            stored,
        });
    }
    if from.rest().is_empty() {
        Ok(parts)
    } else {
        Err(WireError::Short)
    }
}

/// Puts parts together into a body. Each is packed by `zip`, which gives nothing when that makes it
/// no smaller.
pub(crate) fn join(parts: &[Vec<u8>], mut zip: impl FnMut(&[u8]) -> Option<Vec<u8>>) -> Vec<u8> {
    let packed: Vec<_> = parts.iter().map(|raw| zip(raw)).collect();
    let mut body = Vec::new();
    put_varint(parts.len() as u64, &mut body);
    for (raw, packed) in parts.iter().zip(&packed) {
        body.push(u8::from(packed.is_some()));
        put_varint(raw.len() as u64, &mut body);
        put_varint(packed.as_ref().unwrap_or(raw).len() as u64, &mut body);
    }
    for (raw, packed) in parts.iter().zip(&packed) {
        body.extend_from_slice(packed.as_ref().unwrap_or(raw));
    }
    body
}
