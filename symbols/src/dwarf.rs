//! Source lines and inline frames from DWARF 2 to 5, one compilation unit at a time.
//!
//! Sections are used as they lie in the mapped file. A vmlinux that was linked with
//! `--emit-relocs` carries relocations for its debug sections, 300 MB of them, which the linker has
//! applied already: they are left alone. Those of a module (a relocatable object) are applied.

mod calls;
mod cfi;
mod lines;
mod locate;
mod relocate;
mod sweep;
mod types;
mod unit;
mod variables;
mod walk;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use gimli::{DebugFrame, DebugInfoOffset, Dwarf, EndianSlice, LittleEndian, SectionId, Unit};
use object::elf;

use crate::addr::LinkAddr;
use crate::bytes::LeBytes;
use crate::error::SymbolError;
use crate::image::{BuildId, Image};
use crate::map::FileMap;

use calls::Calls;
pub use locate::{CallerState, FrameRegisters, FrameState};
pub use types::TypeName;
pub(crate) use unit::{NONE, UnitTable};
pub use variables::Variable;

pub(crate) type Slice<'d> = EndianSlice<'d, LittleEndian>;

/// One frame of the source at an address: the function itself or one inlined into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'f> {
    /// The function, as DWARF names it (without `.isra.0` and its like).
    pub function: Option<&'f str>,
    /// The file with its directory.
    pub file: Option<&'f str>,
    /// The line; 0 when it is not known.
    pub line: u32,
    /// Inlined into the frame that follows.
    pub inlined: bool,
}

/// The bytes of a debug section.
enum SectionBytes {
    /// In the file.
    Mapped(Range<usize>),
    /// Relocated or unpacked.
    Owned(Vec<u8>),
}

/// A vmlinux or module with debug information.
pub struct DebugImage {
    path: PathBuf,
    map: FileMap,
    sections: HashMap<SectionId, SectionBytes>,
    build_id: Option<BuildId>,
    /// Link-time addresses of code; whatever lies elsewhere was discarded by the linker.
    text: Range<u64>,
    /// Where each compilation unit has code, by `.debug_aranges`, sorted.
    aranges: OnceLock<Vec<(Range<u64>, usize)>>,
    /// The same by the units that `.debug_aranges` leaves out; made when an address is not there.
    roots: OnceLock<Vec<(Range<u64>, usize)>>,
    units: OnceLock<Vec<usize>>,
    tables: Mutex<HashMap<usize, Arc<UnitTable>>>,
    calls: Box<Calls>,
}

impl fmt::Debug for DebugImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DebugImage")
            .field("path", &self.path)
            .field("build_id", &self.build_id)
            .finish_non_exhaustive()
    }
}

pub(crate) fn damaged(error: gimli::Error) -> SymbolError {
    SymbolError::BadDwarf {
        detail: error.to_string(),
    }
}

impl DebugImage {
    /// Opens a linked image (vmlinux). The build ids must agree when one is expected.
    pub fn open(path: &Path, expected: Option<&BuildId>) -> Result<Self, SymbolError> {
        Self::open_with(path, expected, &|_| None)
    }

    /// Opens a module's debug file, its sections placed where `place` says (by section name);
    /// those without a place are left out.
    pub fn open_module(
        path: &Path,
        expected: Option<&BuildId>,
        place: &dyn Fn(&str) -> Option<LinkAddr>,
    ) -> Result<Self, SymbolError> {
        Self::open_with(path, expected, place)
    }

    fn open_with(
        path: &Path,
        expected: Option<&BuildId>,
        place: &dyn Fn(&str) -> Option<LinkAddr>,
    ) -> Result<Self, SymbolError> {
        let map = FileMap::open(path)?;
        let image = Image::parse(&map)?;
        let build_id = image.build_id().cloned();
        if let (Some(expected), Some(found)) = (expected, &build_id)
            && expected != found
        {
            let (path, found, expected) = (path.to_owned(), found.clone(), expected.clone());
            return Err(SymbolError::WrongBuild {
                path,
                found,
                expected,
            });
        }
        let text = text_range(&image, place);
        if let Some(link) = image.section(".gnu_debugaltlink") {
            let other = link.data.c_str(0).unwrap_or_default();
            let other = String::from_utf8_lossy(other).into_owned();
            return Err(SymbolError::SharedDebug { other });
        }
        let sections = if image.is_relocatable() {
            relocate::sections(&image, place)?
        } else {
            linked_sections(&image)?
        };
        let this = Self {
            path: path.to_owned(),
            map,
            sections,
            build_id,
            text,
            aranges: OnceLock::new(),
            roots: OnceLock::new(),
            units: OnceLock::new(),
            tables: Mutex::default(),
            calls: Box::default(),
        };
        if this.section(SectionId::DebugInfo).is_empty() {
            return Err(SymbolError::Stripped);
        }
        Ok(this)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its build id.
    pub const fn build_id(&self) -> Option<&BuildId> {
        self.build_id.as_ref()
    }

    /// Where its code lies.
    pub(crate) const fn text(&self) -> &Range<u64> {
        &self.text
    }

    fn section(&self, id: SectionId) -> &[u8] {
        match self.sections.get(&id) {
            Some(SectionBytes::Mapped(range)) => self.map.get(range.clone()).unwrap_or_default(),
            Some(SectionBytes::Owned(bytes)) => bytes,
            None => &[],
        }
    }

    pub(crate) fn dwarf(&self) -> Dwarf<Slice<'_>> {
        let load = |id| {
            Ok::<_, std::convert::Infallible>(EndianSlice::new(self.section(id), LittleEndian))
        };
        match Dwarf::load(load) {
            Ok(dwarf) => dwarf,
            Err(never) => match never {},
        }
    }

    pub(crate) fn dwarf_frames(&self) -> DebugFrame<Slice<'_>> {
        let mut frames = DebugFrame::new(self.section(SectionId::DebugFrame), LittleEndian);
        frames.set_address_size(8);
        frames
    }

    /// Offsets of all unit headers in `.debug_info`, in order; ends at the first damaged one.
    pub(crate) fn units(&self) -> &[usize] {
        self.units.get_or_init(|| {
            let dwarf = self.dwarf();
            let mut headers = dwarf.units();
            let mut offsets = Vec::new();
            while let Ok(Some(header)) = headers.next() {
                offsets.extend(header.debug_info_offset().map(|o| o.0));
            }
            offsets
        })
    }

    /// The tables of the unit at `offset`, kept once they are made.
    fn table(&self, offset: usize) -> Result<Arc<UnitTable>, SymbolError> {
        let held = || self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = held().get(&offset) {
            return Ok(Arc::clone(table));
        }
        let table = Arc::new(self.build_table(offset)?);
        held().insert(offset, Arc::clone(&table));
        Ok(table)
    }

    /// The units that may have code at `addr`, the likeliest first.
    fn units_of(&self, addr: u64) -> impl Iterator<Item = usize> + '_ {
        let aranges = self.aranges.get_or_init(|| self.read_aranges());
        let roots = || self.roots.get_or_init(|| self.read_roots());
        let others = std::iter::once_with(roots).flat_map(move |roots| units_at(roots, addr));
        units_at(aranges, addr).chain(others)
    }

    /// The unit at `offset`.
    fn unit<'d>(
        &self,
        dwarf: &Dwarf<Slice<'d>>,
        offset: usize,
    ) -> Result<Unit<Slice<'d>>, SymbolError> {
        let header = dwarf.debug_info.header_from_offset(DebugInfoOffset(offset));
        dwarf.unit(header.map_err(damaged)?).map_err(damaged)
    }

    pub(crate) fn build_table(&self, offset: usize) -> Result<UnitTable, SymbolError> {
        let dwarf = self.dwarf();
        let unit = self.unit(&dwarf, offset)?;
        UnitTable::build(self, &dwarf, &unit).map_err(damaged)
    }

    /// Calls `visit` with each frame at `addr`, innermost first. False when there is none.
    pub fn frames(
        &self,
        addr: LinkAddr,
        visit: &mut dyn FnMut(Frame<'_>),
    ) -> Result<bool, SymbolError> {
        if !self.text.contains(&addr.0) {
            return Ok(false);
        }
        for offset in self.units_of(addr.0) {
            if self.table(offset)?.frames(addr.0, visit) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn read_aranges(&self) -> Vec<(Range<u64>, usize)> {
        let dwarf = self.dwarf();
        let mut all = Vec::new();
        let mut headers = dwarf.debug_aranges.headers();
        while let Ok(Some(header)) = headers.next() {
            let unit = header.debug_info_offset().0;
            let mut entries = header.entries();
            while let Ok(Some(entry)) = entries.next() {
                let range = entry.range();
                all.push((range.begin..range.end, unit));
            }
        }
        all.sort_unstable_by_key(|(range, _)| range.start);
        all
    }

    fn read_roots(&self) -> Vec<(Range<u64>, usize)> {
        let dwarf = self.dwarf();
        let aranges = self.aranges.get_or_init(|| self.read_aranges());
        let known: HashSet<usize> = aranges.iter().map(|a| a.1).collect();
        let mut all = Vec::new();
        for &offset in self.units().iter().filter(|u| !known.contains(u)) {
            let header = dwarf.debug_info.header_from_offset(DebugInfoOffset(offset));
            let Ok(unit) = header.and_then(|h| dwarf.unit(h)) else {
                continue;
            };
            let Ok(mut ranges) = dwarf.unit_ranges(&unit) else {
                continue;
            };
            while let Ok(Some(range)) = ranges.next() {
                if range.begin < range.end {
                    all.push((range.begin..range.end, offset));
                }
            }
        }
        all.sort_unstable_by_key(|(range, _)| range.start);
        all
    }
}

/// The units with code at `addr`. Ranges of different units hardly ever overlap, so only the
/// nearest few before the address are looked at.
fn units_at(ranges: &[(Range<u64>, usize)], addr: u64) -> impl Iterator<Item = usize> + '_ {
    let end = ranges.partition_point(|(range, _)| range.start <= addr);
    let near = &ranges[end.saturating_sub(8)..end];
    near.iter()
        .rev()
        .filter(move |(range, _)| range.contains(&addr))
        .map(|(_, unit)| *unit)
}

const SECTIONS: [SectionId; 14] = [
    SectionId::DebugAbbrev,
    SectionId::DebugAddr,
    SectionId::DebugAranges,
    SectionId::DebugFrame,
    SectionId::DebugInfo,
    SectionId::DebugLine,
    SectionId::DebugLineStr,
    SectionId::DebugLoc,
    SectionId::DebugLocLists,
    SectionId::DebugRanges,
    SectionId::DebugRngLists,
    SectionId::DebugStr,
    SectionId::DebugStrOffsets,
    SectionId::DebugTypes,
];

fn linked_sections(image: &Image<'_>) -> Result<HashMap<SectionId, SectionBytes>, SymbolError> {
    let mut all = HashMap::new();
    for section in image.sections() {
        let Some(id) = SECTIONS.into_iter().find(|id| id.name() == section.name) else {
            continue;
        };
        let bytes = match section.contents()? {
            Cow::Owned(bytes) => SectionBytes::Owned(bytes),
            // A section without bytes in the file lies nowhere in it.
            Cow::Borrowed([]) => continue,
            Cow::Borrowed(bytes) => {
                let start = bytes.as_ptr() as usize;
                let Some(start) = start.checked_sub(image.data().as_ptr() as usize) else {
                    continue;
                };
                SectionBytes::Mapped(start..start + bytes.len())
            }
        };
        all.insert(id, bytes);
    }
    Ok(all)
}

/// From the lowest to the highest address of code.
fn text_range(image: &Image<'_>, place: &dyn Fn(&str) -> Option<LinkAddr>) -> Range<u64> {
    let (mut start, mut end) = (u64::MAX, 0);
    let wanted = elf::SHF_ALLOC.0 | elf::SHF_EXECINSTR.0;
    for section in image.sections().filter(|s| s.flags & wanted == wanted) {
        let addr = if image.is_relocatable() {
            place(section.name)
        } else {
            Some(section.addr)
        };
        if let Some(LinkAddr(addr)) = addr.filter(|a| a.0 != 0) {
            start = start.min(addr);
            end = end.max(addr.saturating_add(section.size));
        }
    }
    start..end
}

#[cfg(test)]
mod tests;
