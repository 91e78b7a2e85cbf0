//! The header of an index file, and how the file comes into its place.

use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use super::nodes::Widths;
use super::steps::Shape;
use crate::bytes::LeBytes;
use crate::error::SymbolError;
use crate::image::BuildId;

/// Length of the header.
pub(super) const HEADER: usize = 256;
const MAGIC: &[u8; 8] = b"CLSYMIX\x1a";
/// Raised whenever the bytes or their meaning change; other versions are built again.
const VERSION: u32 = 1;
const PARTS: usize = 5;
/// Where the header's own checksum stands.
const CHECKSUM: usize = HEADER - 8;

/// What the header says.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Header {
    /// Link-time address that offset 0 stands for.
    pub(super) base: u64,
    pub(super) lines: Shape,
    pub(super) spans: Shape,
    pub(super) widths: Widths,
    pub(super) ends: [u64; PARTS],
    pub(super) body: u64,
}

/// The parts, in the order of the file.
pub(super) struct Parts<'i> {
    pub(super) lines: &'i [u8],
    pub(super) spans: &'i [u8],
    pub(super) nodes: &'i [u8],
    pub(super) names: &'i [u8],
    pub(super) files: &'i [u8],
}

impl Header {
    pub(super) fn read(bytes: &[u8], build_id: &BuildId) -> Result<Self, &'static str> {
        let head = bytes.get(..HEADER).ok_or("it is cut off")?;
        if head.get(..8) != Some(MAGIC) {
            return Err("it is not a symbol index");
        }
        if head.le_u32(8) != Some(VERSION) {
            return Err("another version of the program wrote it");
        }
        if head.le_u64(CHECKSUM) != Some(xxh3_64(&head[..CHECKSUM])) {
            return Err("its header is damaged");
        }
        let long = |at: usize| head.le_u64(at).unwrap_or_default();
        let word = |at: usize| head.le_u32(at).unwrap_or_default();
        let id_len = word(12) as usize;
        if head.get(16..16 + id_len.min(64)) != Some(build_id.as_bytes()) {
            return Err("it belongs to another build");
        }
        let this = Self {
            base: long(80),
            lines: Shape {
                pages: word(88),
                blocks: word(92),
            },
            spans: Shape {
                pages: word(96),
                blocks: word(100),
            },
            widths: Widths([head[104], head[105], head[106], head[107]]),
            ends: std::array::from_fn(|i| long(112 + 8 * i)),
            body: long(112 + 8 * PARTS),
        };
        if this.ends[PARTS - 1] != bytes.len() as u64 || !this.ends.is_sorted() {
            return Err("it is cut off");
        }
        Ok(this)
    }

    /// The header's bytes for a body that follows it.
    pub(super) fn seal(&mut self, build_id: &BuildId, body: &[u8]) -> Vec<u8> {
        self.body = xxh3_64(body);
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&VERSION.to_le_bytes());
        let id = &build_id.as_bytes()[..build_id.as_bytes().len().min(64)];
        out.extend_from_slice(&(id.len() as u32).to_le_bytes());
        out.extend_from_slice(id);
        out.resize(80, 0);
        out.extend_from_slice(&self.base.to_le_bytes());
        for shape in [self.lines, self.spans] {
            out.extend_from_slice(&shape.pages.to_le_bytes());
            out.extend_from_slice(&shape.blocks.to_le_bytes());
        }
        out.extend_from_slice(&self.widths.0);
        out.resize(112, 0);
        for word in self.ends.iter().chain([&self.body]) {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.resize(CHECKSUM, 0);
        let checksum = xxh3_64(&out);
        out.extend_from_slice(&checksum.to_le_bytes());
        out
    }

    pub(super) fn parts<'i>(&self, bytes: &'i [u8]) -> Option<Parts<'i>> {
        let end = |i: usize| self.ends[i] as usize;
        Some(Parts {
            lines: bytes.get(HEADER..end(0))?,
            spans: bytes.get(end(0)..end(1))?,
            nodes: bytes.get(end(1)..end(2))?,
            names: bytes.get(end(2)..end(3))?,
            files: bytes.get(end(3)..end(4))?,
        })
    }

    pub(super) fn body_is_sound(&self, bytes: &[u8]) -> bool {
        bytes
            .get(HEADER..)
            .is_some_and(|body| xxh3_64(body) == self.body)
    }
}

/// Writes the file beside its place and renames it, so that no reader sees half of it.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), SymbolError> {
    use std::io::Write;
    use std::sync::atomic::{AtomicU32, Ordering};
    static TURN: AtomicU32 = AtomicU32::new(0);
    let io = |cause| SymbolError::Io {
        path: path.to_owned(),
        cause,
    };
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(io)?;
    let turn = TURN.fetch_add(1, Ordering::Relaxed);
    let beside = path.with_extension(format!("{}-{turn}.part", std::process::id()));
    let written = std::fs::File::create(&beside)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| std::fs::rename(&beside, path));
    written.map_err(|cause| {
        // What is left of a failed try is of no use; that it may not go away either is no news.
        let _ = std::fs::remove_file(&beside);
        io(cause)
    })
}
