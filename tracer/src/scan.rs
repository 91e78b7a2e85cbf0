//! Finding the chunks of a file: by its index, or by walking from header to header.

use std::fmt;

use crate::chunk::{BODY_LIMIT, ChunkKind, HEADER_MAX, HeaderRule};
use crate::error::{BodyRule, TraceError};
use crate::file::{FILE_HEADER_LEN, TRAILER_LEN, Trailer};
use crate::index::Index;
use crate::pack::unpack;
use crate::source::Source;

/// Why a file that has no index ends where it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LossRule {
    /// Every chunk is whole; only the index is missing.
    NoIndex,
    /// What comes next is an index that is damaged or cut short: nothing else is lost.
    Index,
    /// The next header is damaged or cut short.
    Header(HeaderRule),
    /// The next body is damaged.
    Body(BodyRule),
}

impl fmt::Display for LossRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoIndex => f.write_str("the recording was not finished, or is still going on"),
            Self::Index => {
                f.write_str("only the index is damaged or cut short; no event or input is lost")
            }
            Self::Header(rule) => write!(f, "chunk header: {rule}"),
            Self::Body(rule) => write!(f, "chunk body: {rule}"),
        }
    }
}

/// What was found in a file without a valid index, and what was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Whole chunks.
    pub kept_chunks: u64,
    /// Bytes after the last whole chunk.
    pub lost_bytes: u64,
    /// Where the last whole chunk ends.
    pub offset: u64,
    /// Why the next is none.
    pub rule: LossRule,
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "no index: kept {} chunks, lost {} bytes from offset {:#x} on: {}",
            self.kept_chunks, self.lost_bytes, self.offset, self.rule
        )
    }
}

/// The chunks of a file.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) index: Index,
    /// `None` when the index of the file was used.
    pub(crate) recovery: Option<Recovery>,
}

/// Finds the chunks by the index at the end; `None` if there is no valid one.
pub(crate) fn find_index(source: &Source, len: u64) -> Result<Option<Index>, TraceError> {
    let Some(trailer_at) = len.checked_sub(TRAILER_LEN as u64) else {
        return Ok(None);
    };
    let mut bytes = [0; TRAILER_LEN];
    source.read_at(trailer_at, &mut bytes)?;
    let Some(trailer) = Trailer::decode(&bytes) else {
        return Ok(None);
    };
    let mut alone = Index::default();
    let mut header = vec![0; HEADER_MAX];
    let count = source.read_at(trailer.index_offset, &mut header)?;
    let Ok(entry) = alone.push_bytes(trailer.index_offset, &header[..count], true) else {
        return Ok(None);
    };
    if entry.header.kind != ChunkKind::Index
        || entry.header.version != 1
        || entry.end() != trailer_at
    {
        return Ok(None);
    }
    // The end was compared with the length of the file, so the length is that of real bytes.
    let body = source.read_vec(entry.body_offset(), entry.header.stored_len as usize)?;
    let Some(body) = body.and_then(|body| unpack(&entry.header, body).ok()) else {
        return Ok(None);
    };
    let index = Index::decode(&body, FILE_HEADER_LEN as u64, trailer.index_offset);
    Ok(index.filter(|index| index.entries().len() as u64 == trailer.chunks))
}

/// Walks from chunk to chunk, from `offset` on, adding to `index` what is whole.
///
/// A chunk counts when both its checksums hold and its number follows, so that neither a cut nor
/// old bytes of a preallocated tail can pass for one.
pub(crate) fn walk(
    source: &Source,
    len: u64,
    index: &mut Index,
    mut offset: u64,
) -> Result<Recovery, TraceError> {
    let mut header = vec![0; HEADER_MAX];
    let mut after_index = false;
    let rule = loop {
        if offset >= len {
            break if after_index {
                LossRule::Index
            } else {
                LossRule::NoIndex
            };
        }
        let count = source.read_at(offset, &mut header)?;
        let bytes = &header[..count];
        let expected = index.entries().len() as u32;
        let entry = match index.push_bytes(offset, bytes, true) {
            Ok(entry) => entry,
            Err(HeaderRule::Magic) if Trailer::decode(bytes).is_some() => {
                // An index that was superseded when something was appended.
                offset += TRAILER_LEN as u64;
                after_index = false;
                continue;
            }
            Err(_) if after_index && len - offset <= TRAILER_LEN as u64 => break LossRule::Index,
            Err(rule) => break LossRule::Header(rule),
        };
        let (chunk, body_offset, end) = (entry.header, entry.body_offset(), entry.end());
        let is_index = chunk.kind == ChunkKind::Index;
        let rule = if end > len {
            Some(LossRule::Header(HeaderRule::BeyondEnd { end }))
        } else if !is_index && chunk.seq != expected {
            Some(LossRule::Header(HeaderRule::Sequence {
                found: chunk.seq,
                expected,
            }))
        } else if !body_is_whole(source, body_offset, chunk.stored_len, chunk.body_check)? {
            Some(LossRule::Body(BodyRule::Checksum))
        } else {
            None
        };
        if rule.is_some() || is_index {
            index.pop();
        }
        if let Some(rule) = rule {
            break if is_index { LossRule::Index } else { rule };
        }
        after_index = is_index;
        offset = end;
    };
    let kept_chunks = index.entries().len() as u64;
    Ok(Recovery {
        kept_chunks,
        lost_bytes: len.saturating_sub(offset),
        offset,
        rule,
    })
}

/// Checks a body of any length in bounded memory.
fn body_is_whole(
    source: &Source,
    mut offset: u64,
    stored_len: u32,
    check: u32,
) -> Result<bool, TraceError> {
    let mut left = stored_len as usize;
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; left.min(BODY_LIMIT as usize / 16)];
    while left > 0 {
        let wanted = left.min(buffer.len());
        let count = source.read_at(offset, &mut buffer[..wanted])?;
        if count == 0 {
            return Ok(false);
        }
        hasher.update(&buffer[..count]);
        offset += count as u64;
        left -= count;
    }
    Ok(hasher.finalize() == check)
}

/// Finds the chunks of a file one way or the other.
pub(crate) fn find(source: &Source, len: u64) -> Result<Found, TraceError> {
    if let Some(index) = find_index(source, len)? {
        return Ok(Found {
            index,
            recovery: None,
        });
    }
    let mut index = Index::default();
    let recovery = walk(source, len, &mut index, FILE_HEADER_LEN as u64)?;
    Ok(Found {
        index,
        recovery: Some(recovery),
    })
}
