//! Chunks without rows, as the writer stores them: manifest, boot files, checkpoints, trails, notes.

use serde::Serialize;

use crate::chunk::{ChunkKind, FLAG_ASIDE, FLAG_NEEDED};
use crate::content::{BootFileRow, CheckpointRow, ContentRef, Note, PIECE_LEN};
use crate::digest::{Digest, StateDigest};
use crate::error::TraceError;
use crate::manifest::{HOST_INFO_VERSION, HostInfo, MANIFEST_VERSION, Manifest};
use crate::pack::Draft;
use crate::schema::Schema;
use crate::sink::Sink;
use crate::trail::{Trail, TrailRow};

impl Sink {
    pub(crate) fn schema(&mut self, schema: &Schema) -> Result<(), TraceError> {
        self.plain(ChunkKind::Schema, 1, "the schema", &schema.rows())
    }

    pub(crate) fn manifest(&mut self, manifest: &Manifest) -> Result<(), TraceError> {
        self.plain(
            ChunkKind::Manifest,
            MANIFEST_VERSION,
            "the manifest",
            manifest,
        )
    }

    pub(crate) fn host_info(&mut self, info: &HostInfo) -> Result<(), TraceError> {
        self.plain(
            ChunkKind::HostInfo,
            HOST_INFO_VERSION,
            "the host information",
            info,
        )
    }

    /// Writes a chunk whose body is one postcard value.
    pub(crate) fn plain(
        &mut self,
        kind: ChunkKind,
        version: u8,
        what: &'static str,
        content: &impl Serialize,
    ) -> Result<(), TraceError> {
        let body = postcard::to_stdvec(content).map_err(|error| self.unwritable(what, error))?;
        if body.len() > kind.body_limit() as usize {
            let reason = format!(
                "it takes {} bytes, the limit is {}",
                body.len(),
                kind.body_limit()
            );
            return Err(TraceError::Unwritable {
                path: self.path.clone(),
                what,
                reason,
            });
        }
        let chunk = self
            .file_packer
            .pack(Draft::plain(kind, version), Vec::new(), &body);
        self.write_chunk(chunk)
    }

    /// Stores a boot file: its content in pieces, once however often it is named, then its name.
    pub(crate) fn boot_file(&mut self, name: &str, bytes: &[u8]) -> Result<(), TraceError> {
        let content = self.content(bytes, true)?;
        let row = BootFileRow {
            name: name.to_owned(),
            content,
        };
        self.plain(ChunkKind::BootFile, 1, "a boot file", &row)
    }

    /// Stores a checkpoint.
    pub(crate) fn checkpoint(
        &mut self,
        tick: u64,
        id: u32,
        state: StateDigest,
        bytes: &[u8],
    ) -> Result<(), TraceError> {
        let content = self.content(bytes, false)?;
        let row = CheckpointRow {
            tick,
            id,
            state,
            content,
        };
        self.plain(ChunkKind::Checkpoint, 1, "a checkpoint", &row)
    }

    /// Stores a trail.
    pub(crate) fn trail(&mut self, trail: &Trail) -> Result<(), TraceError> {
        self.plain(ChunkKind::Trail, 1, "a trail", &TrailRow::of(trail))
    }

    /// Stores a note.
    pub(crate) fn note(&mut self, note: &Note) -> Result<(), TraceError> {
        self.plain(ChunkKind::Notes, 1, "a note", note)
    }

    /// Stores a content, unless it is there.
    fn content(&mut self, bytes: &[u8], compared: bool) -> Result<ContentRef, TraceError> {
        let digest = Digest::of(bytes);
        let len = bytes.len() as u64;
        if let Some(&first_chunk) = self.contents.get(&(digest, compared)) {
            return Ok(ContentRef {
                digest,
                len,
                first_chunk,
            });
        }
        let first_chunk = self.index.entries().len() as u32;
        for piece in bytes.chunks(PIECE_LEN) {
            let mut draft = Draft::plain(ChunkKind::Piece, 1);
            draft.flags = if compared {
                FLAG_NEEDED
            } else {
                FLAG_NEEDED | FLAG_ASIDE
            };
            // Checkpoints come while the guest runs: they are packed as quickly as events.
            let packer = if compared {
                &mut self.file_packer
            } else {
                &mut self.packer
            };
            let chunk = packer.pack(draft, Vec::new(), piece);
            if let Err(error) = self.write_chunk(chunk) {
                self.take_back(first_chunk as usize);
                return Err(error);
            }
        }
        self.contents.insert((digest, compared), first_chunk);
        Ok(ContentRef {
            digest,
            len,
            first_chunk,
        })
    }

    fn unwritable(&self, what: &'static str, error: postcard::Error) -> TraceError {
        TraceError::Unwritable {
            path: self.path.clone(),
            what,
            reason: error.to_string(),
        }
    }
}
