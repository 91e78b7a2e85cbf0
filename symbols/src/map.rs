//! A file's bytes, mapped rather than read: a debug image is hundreds of megabytes, of which a
//! look-up touches a few pages.

use std::fs::File;
use std::ops::Deref;
use std::path::Path;

use crate::error::SymbolError;

/// The bytes of a file.
#[derive(Debug)]
pub struct FileMap {
    map: Option<memmap2::Mmap>,
}

impl FileMap {
    /// Maps the file at `path`.
    pub fn open(path: &Path) -> Result<Self, SymbolError> {
        let io = |cause| SymbolError::Io {
            path: path.to_owned(),
            cause,
        };
        let file = File::open(path).map_err(io)?;
        let meta = file.metadata().map_err(io)?;
        if !meta.is_file() {
            return Err(io(std::io::Error::other("it is not a regular file")));
        }
        if meta.len() == 0 {
            return Ok(Self { map: None });
        }
        Ok(Self {
            map: Some(map(&file).map_err(io)?),
        })
    }
}

#[allow(
    unsafe_code,
    reason = "mapping a file is the one thing here that the standard library lacks"
)]
fn map(file: &File) -> std::io::Result<memmap2::Mmap> {
    // SAFETY: the map is private and read-only, and no reference to it outlives it. Kernel and
    // debug images are installed by renaming, and so are our own index files: their bytes are not
    // changed in place. Should one be cut while it is mapped, the read ends the process with
    // SIGBUS; it cannot corrupt memory. Every reader of the bytes checks what it reads.
    unsafe { memmap2::Mmap::map(file) }
}

impl AsRef<[u8]> for FileMap {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Deref for FileMap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}
