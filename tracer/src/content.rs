//! Contents in a recording: boot files and checkpoints, in pieces.
//!
//! A content is stored once, as consecutive piece chunks; what refers to it says its digest, its
//! length and the number of its first piece.

use serde::{Deserialize, Serialize};

use crate::chunk::ChunkKind;
use crate::digest::{Digest, StateDigest};
use crate::error::TraceError;
use crate::reader::Reader;

/// Bytes of a content in one piece. Each piece is a chunk, so that a long file is never in one
/// allocation, and damage is found at its place.
pub(crate) const PIECE_LEN: usize = 1 << 20;
/// The longest content that a reader puts together.
pub const CONTENT_LIMIT: u64 = 8 << 30;

/// Where a content is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContentRef {
    pub(crate) digest: Digest,
    pub(crate) len: u64,
    /// Number of the chunk that is its first piece; of no meaning when it is empty.
    pub(crate) first_chunk: u32,
}

/// The body of a boot file chunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BootFileRow {
    pub(crate) name: String,
    pub(crate) content: ContentRef,
}

/// The body of a checkpoint chunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CheckpointRow {
    pub(crate) tick: u64,
    pub(crate) id: u32,
    pub(crate) state: StateDigest,
    pub(crate) content: ContentRef,
}

/// A boot file of a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootFileInfo {
    /// Name.
    pub name: String,
    /// Digest of its content.
    pub digest: Digest,
    /// Its length.
    pub len: u64,
}

/// A checkpoint that is kept in a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointInfo {
    /// Its tick.
    pub tick: u64,
    /// Its number.
    pub id: u32,
    /// Digest of the machine state.
    pub state: StateDigest,
    /// Length of what is stored.
    pub len: u64,
    content: ContentRef,
}

/// A note or bookmark. Notes are no part of what is compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Where.
    pub tick: u64,
    /// Short name, as in `bm:NAME`.
    pub name: String,
    /// What it says.
    pub text: String,
}

impl Reader {
    /// The boot files there are, without their contents.
    pub fn boot_files(&self) -> Result<Vec<BootFileInfo>, TraceError> {
        let rows = self.boot_file_rows()?.into_iter();
        Ok(rows
            .map(|BootFileRow { name, content }| BootFileInfo {
                name,
                digest: content.digest,
                len: content.len,
            })
            .collect())
    }

    fn boot_file_rows(&self) -> Result<Vec<BootFileRow>, TraceError> {
        self.index
            .of_kind(ChunkKind::BootFile)
            .map(|entry| self.shared.form(entry, 1))
            .collect()
    }

    /// The content of a boot file, checked against its digest.
    pub fn boot_file(&self, name: &str) -> Result<Vec<u8>, TraceError> {
        let rows = self.boot_file_rows()?;
        let row = rows.iter().find(|row| row.name == name);
        let row = row.ok_or_else(|| self.missing(&format!("boot file `{name}`")))?;
        self.content(name, row.content)
    }

    /// The checkpoints that are kept in the recording, by tick.
    pub fn checkpoints(&self) -> Result<Vec<CheckpointInfo>, TraceError> {
        let mut checkpoints = Vec::new();
        for entry in self.index.of_kind(ChunkKind::Checkpoint) {
            let row: CheckpointRow = self.shared.form(entry, 1)?;
            let CheckpointRow {
                tick,
                id,
                state,
                content,
            } = row;
            checkpoints.push(CheckpointInfo {
                tick,
                id,
                state,
                len: content.len,
                content,
            });
        }
        checkpoints.sort_by_key(|checkpoint| checkpoint.tick);
        Ok(checkpoints)
    }

    /// The last tick that the machine is known to have reached: of any row or checkpoint. In a file
    /// that was cut off, all inputs before it are there, since each is written before the guest acts
    /// on it and before anything later.
    pub fn reach(&self) -> u64 {
        let rows = self.ticks().map_or(0, |(_, last)| last);
        // A damaged list of checkpoints is said where they are used.
        let checkpoints = self.checkpoints().unwrap_or_default();
        checkpoints.last().map_or(rows, |last| rows.max(last.tick))
    }

    /// What is stored of a checkpoint, checked against its digest.
    pub fn checkpoint(&self, checkpoint: &CheckpointInfo) -> Result<Vec<u8>, TraceError> {
        self.content(&format!("checkpoint {}", checkpoint.id), checkpoint.content)
    }

    /// Notes and bookmarks, in the order in which they were made.
    pub fn notes(&self) -> Result<Vec<Note>, TraceError> {
        self.index
            .of_kind(ChunkKind::Notes)
            .map(|entry| self.shared.form(entry, 1))
            .collect()
    }

    /// Every content that something refers to.
    pub(crate) fn content_refs(&self) -> Result<Vec<(ChunkKind, ContentRef)>, TraceError> {
        let files = self.boot_file_rows()?.into_iter();
        let files = files.map(|row| (ChunkKind::BootFile, row.content));
        let checkpoints = self.checkpoints()?.into_iter();
        let checkpoints = checkpoints.map(|info| (ChunkKind::Checkpoint, info.content));
        Ok(files.chain(checkpoints).collect())
    }

    /// Puts a content together from its pieces.
    fn content(&self, name: &str, wanted: ContentRef) -> Result<Vec<u8>, TraceError> {
        let damaged = |rule: String| TraceError::Content {
            path: self.path().to_owned(),
            name: name.to_owned(),
            rule,
        };
        let ContentRef {
            digest,
            len,
            first_chunk,
        } = wanted;
        if len > CONTENT_LIMIT {
            return Err(damaged(format!(
                "{len} bytes are more than the limit {CONTENT_LIMIT}"
            )));
        }
        let entries = self
            .chunks()
            .get(first_chunk as usize..)
            .unwrap_or_default();
        // It grows with the pieces that are there, never to a length that is only claimed.
        let mut content = Vec::new();
        let mut packed = Vec::new();
        for entry in entries {
            if entry.header.kind != ChunkKind::Piece || content.len() as u64 >= len {
                break;
            }
            self.shared.append_piece(entry, &mut packed, &mut content)?;
        }
        if content.len() as u64 != len {
            return Err(damaged(format!(
                "{} bytes are there, not {len}",
                content.len()
            )));
        }
        let found = Digest::of(&content);
        if found != digest {
            return Err(damaged(format!("its digest is {found}, not {digest}")));
        }
        Ok(content)
    }
}
