//! The symbol index: what DWARF says about every address of an image, in a file of a few megabytes
//! that is mapped and asked as it lies.
//!
//! Layout, little-endian, one after another: a header of 256 bytes; then the parts,
//! each at an offset and with a length that the header gives. Addresses are 32-bit offsets from
//! the image's lowest code address. The header has a checksum of its own and one of all that
//! follows it. The file is named by the build id, written beside its place and renamed into it, so
//! that two processes that build it at once both succeed.

mod build;
mod format;
mod large;
mod nodes;
mod steps;
mod unpacked;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::addr::LinkAddr;
use crate::dwarf::{DebugImage, Frame};
use crate::error::SymbolError;
use crate::image::BuildId;
use crate::map::FileMap;

use format::Header;
use nodes::Nodes;
use steps::Steps;

pub use unpacked::Unpacked;

/// An index, mapped from its file.
pub struct Index {
    path: PathBuf,
    map: FileMap,
    header: Header,
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Index {
    /// Where the index of a build lies in a cache folder.
    pub fn path_in(cache: &Path, build_id: &BuildId) -> PathBuf {
        cache.join(format!("{build_id}.clsym"))
    }

    /// Opens the index of a build, if the cache folder has a sound one.
    ///
    /// The header is checked in full, the rest by its length: [`Self::verify`] reads it all.
    pub fn open(cache: &Path, build_id: &BuildId) -> Result<Self, SymbolError> {
        let path = Self::path_in(cache, build_id);
        let map = FileMap::open(&path)?;
        match Header::read(&map, build_id) {
            Ok(header) => Ok(Self { path, map, header }),
            Err(reason) => Err(SymbolError::BadIndex { path, reason }),
        }
    }

    /// Builds the index of `image` and puts it in the cache folder. `progress` is told how many of
    /// the units are done.
    pub fn build(
        image: &DebugImage,
        cache: &Path,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, SymbolError> {
        let build_id = image
            .build_id()
            .ok_or(SymbolError::NoSection { section: ".notes" })?;
        let bytes = build::build(image, build_id, progress)?;
        let path = Self::path_in(cache, build_id);
        format::write(&path, &bytes)?;
        Self::open(cache, build_id)
    }

    /// Opens the index, or builds it when there is none, or none that can be used.
    pub fn open_or_build(
        image: &DebugImage,
        cache: &Path,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, SymbolError> {
        let known = image
            .build_id()
            .map(|id| Self::open(cache, id).and_then(Self::verified));
        match known {
            Some(Ok(index)) => Ok(index),
            _ => Self::build(image, cache, progress),
        }
    }

    /// Checks every byte; an index that fails should be built again.
    pub fn verify(&self) -> Result<(), SymbolError> {
        if self.header.body_is_sound(&self.map) {
            return Ok(());
        }
        let reason = "its checksum does not match";
        Err(SymbolError::BadIndex {
            path: self.path.clone(),
            reason,
        })
    }

    /// Its tables taken apart in memory, some tens of megabytes, for very many questions. `None`
    /// for a damaged one.
    pub fn unpack(&self) -> Option<Unpacked> {
        Unpacked::of(self)
    }

    fn verified(self) -> Result<Self, SymbolError> {
        self.verify().map(|()| self)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size of the file.
    pub fn file_bytes(&self) -> usize {
        self.map.len()
    }

    /// Calls `visit` with each frame at `addr`, innermost first. False when there is none.
    pub fn frames(&self, addr: LinkAddr, visit: &mut dyn FnMut(Frame<'_>)) -> bool {
        self.frames_at(addr, visit).unwrap_or(false)
    }

    fn frames_at(&self, addr: LinkAddr, visit: &mut dyn FnMut(Frame<'_>)) -> Option<bool> {
        let offset = u32::try_from(addr.0.checked_sub(self.header.base)?).ok()?;
        let parts = self.header.parts(&self.map)?;
        let row = Steps::new(parts.lines, self.header.lines).find(offset);
        // File and node numbers are one up, so that 0 says that there is none.
        let row = row.filter(|(file, _)| *file != 0);
        let span = Steps::new(parts.spans, self.header.spans).find(offset);
        let file_of = |index: u32| text(parts.files, index.checked_sub(1)?);
        let (mut file, mut line) = row.map_or((None, 0), |(f, line)| (file_of(f), line));
        let mut node = span.map_or(0, |s| s.0);
        if node == 0 {
            if row.is_some() {
                visit(Frame {
                    function: None,
                    file,
                    line,
                    inlined: false,
                });
            }
            return Some(row.is_some());
        }
        let nodes = Nodes::new(parts.nodes, self.header.widths);
        while let Some(this) = nodes.get(node.checked_sub(1)?) {
            let function = this.name.checked_sub(1).and_then(|n| text(parts.names, n));
            let inlined = this.parent_back != 0;
            visit(Frame {
                function,
                file,
                line,
                inlined,
            });
            if !inlined {
                return Some(true);
            }
            (file, line) = (file_of(this.call_file), this.call_line);
            // Parents come first, so that this ends.
            node = node.checked_sub(this.parent_back)?;
        }
        None
    }
}

/// String `index` of a string part: a count, the ends of all strings, the strings.
fn text(part: &[u8], index: u32) -> Option<&str> {
    use crate::bytes::LeBytes;
    let count = part.le_u32(0)? as usize;
    let index = index as usize;
    let end = |i: usize| part.le_u32(4 + 4 * i).map(|e| e as usize);
    let start = if index == 0 { 0 } else { end(index - 1)? };
    let base = 4 + 4 * count;
    let bytes = part.get(base + start..base + end(index).filter(|_| index < count)?)?;
    std::str::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests;
