//! An ELF image of the kernel or of a module: sections, build id, symbol table.

mod compressed;

use std::fmt;

use object::elf;
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader, SectionHeader};
use object::{LittleEndian, Object, ObjectSection, ObjectSymbol, SectionIndex, SymbolKind};

use crate::addr::LinkAddr;
use crate::bytes::LeBytes;
use crate::error::SymbolError;

type Elf<'d> = ElfFile64<'d, LittleEndian, &'d [u8]>;

/// The linker's fingerprint of a build (note type 3 of owner `GNU`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BuildId(Vec<u8>);

impl BuildId {
    /// From its raw bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Finds the build id in the notes of `bytes` (ELF note layout, 4-byte aligned).
    pub fn in_notes(notes: &[u8]) -> Option<Self> {
        let align4 = |n: u32| (n as usize).checked_add(3).map(|n| n & !3);
        let mut at = 0usize;
        while let (Some(namesz), Some(descsz), Some(kind)) = (
            notes.le_u32(at),
            notes.le_u32(at.checked_add(4)?),
            notes.le_u32(at.checked_add(8)?),
        ) {
            let name = at.checked_add(12)?;
            let desc = name.checked_add(align4(namesz)?)?;
            if kind == elf::NT_GNU_BUILD_ID.0 && notes.get(name..name + 4) == Some(b"GNU\0") {
                let bytes = notes.get(desc..desc.checked_add(descsz as usize)?)?;
                return (!bytes.is_empty()).then(|| Self(bytes.to_vec()));
            }
            at = desc.checked_add(align4(descsz)?)?;
        }
        None
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BuildId({self})")
    }
}

/// One entry of an ELF symbol table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElfSymbol<'d> {
    /// Its name.
    pub name: &'d str,
    /// Link-time address (offset in the section for a relocatable module).
    pub addr: LinkAddr,
    /// Size in bytes; 0 for most assembly labels.
    pub size: u64,
    /// A function rather than data.
    pub is_text: bool,
    /// Visible outside its file.
    pub is_global: bool,
    /// The section it is in, by ELF index.
    pub section: Option<usize>,
}

/// A section of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section<'d> {
    /// Its name.
    pub name: &'d str,
    /// Its ELF index.
    pub index: usize,
    /// Link-time address; 0 in a relocatable module.
    pub addr: LinkAddr,
    /// Size in memory.
    pub size: u64,
    /// `SHF_*`.
    pub flags: u64,
    /// Its bytes in the file, where they may be compressed; empty for `.bss` and its like.
    pub data: &'d [u8],
}

/// An ELF image, borrowed from the file's bytes.
pub struct Image<'d> {
    data: &'d [u8],
    elf: Elf<'d>,
    build_id: Option<BuildId>,
}

impl fmt::Debug for Image<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image")
            .field("len", &self.data.len())
            .field("build_id", &self.build_id)
            .finish_non_exhaustive()
    }
}

impl<'d> Image<'d> {
    /// Reads the headers; the section contents are looked at when asked for.
    pub fn parse(data: &'d [u8]) -> Result<Self, SymbolError> {
        check_identity(data)?;
        let bad = |e: object::Error| SymbolError::BadElf {
            detail: e.to_string(),
        };
        let elf = Elf::parse(data).map_err(bad)?;
        let mut image = Self {
            data,
            elf,
            build_id: None,
        };
        image.build_id = image.find_build_id();
        Ok(image)
    }

    /// All the bytes of the file.
    pub const fn data(&self) -> &'d [u8] {
        self.data
    }

    /// The build id, when the linker left one.
    pub const fn build_id(&self) -> Option<&BuildId> {
        self.build_id.as_ref()
    }

    /// A relocatable object (a module), whose sections all start at address 0.
    pub fn is_relocatable(&self) -> bool {
        self.elf.elf_header().e_type(LittleEndian) == elf::ET_REL
    }

    /// The sections, in file order. One whose bytes lie outside the file has none.
    pub fn sections(&self) -> impl Iterator<Item = Section<'d>> + '_ {
        self.elf.sections().map(|s| Section {
            name: section_name(&s),
            index: s.index().0,
            addr: LinkAddr(s.address()),
            size: s.size(),
            flags: s.elf_section_header().sh_flags(LittleEndian).0,
            data: s.data().unwrap_or_default(),
        })
    }

    /// The section called `name`.
    pub fn section(&self, name: &str) -> Option<Section<'d>> {
        self.sections().find(|s| s.name == name)
    }

    /// The bytes of section `name`; an error names it, or says how much of it is missing.
    pub fn section_data(&self, name: &'static str) -> Result<&'d [u8], SymbolError> {
        let missing = SymbolError::NoSection { section: name };
        let section = self.elf.section_by_name(name).ok_or(missing)?;
        section.data().map_err(|_| {
            let (offset, need) = section.file_range().unwrap_or_default();
            let have = (self.data.len() as u64).saturating_sub(offset);
            SymbolError::Truncated {
                what: name,
                offset,
                need,
                have,
            }
        })
    }

    /// `len` bytes as the loader would place them at `addr`.
    pub fn bytes_at(&self, addr: LinkAddr, len: usize) -> Option<&'d [u8]> {
        self.elf.elf_program_headers().iter().find_map(|p| {
            if p.p_type(LittleEndian) != elf::PT_LOAD {
                return None;
            }
            let skip = addr.0.checked_sub(p.p_vaddr(LittleEndian))?;
            let left = p.p_filesz(LittleEndian).checked_sub(skip)?;
            let start = usize::try_from(p.p_offset(LittleEndian).checked_add(skip)?).ok()?;
            (len as u64 <= left).then_some(())?;
            self.data.get(start..start.checked_add(len)?)
        })
    }

    /// Where the loader places the byte at `offset` of the file.
    pub fn addr_of_offset(&self, offset: usize) -> Option<LinkAddr> {
        self.elf.elf_program_headers().iter().find_map(|p| {
            let skip = (offset as u64).checked_sub(p.p_offset(LittleEndian))?;
            let loaded = p.p_type(LittleEndian) == elf::PT_LOAD && skip < p.p_filesz(LittleEndian);
            loaded.then(|| LinkAddr(p.p_vaddr(LittleEndian).wrapping_add(skip)))
        })
    }

    /// The entries of `.symtab` that have a name and an address; nothing in a stripped image.
    pub fn symbols(&self) -> impl Iterator<Item = ElfSymbol<'d>> + '_ {
        self.elf.symbols().filter_map(|s| {
            let named = !matches!(s.kind(), SymbolKind::Section | SymbolKind::File);
            let name = s.name().ok().filter(|n| named && !n.is_empty())?;
            (!s.is_undefined()).then(|| ElfSymbol {
                name,
                addr: LinkAddr(s.address()),
                size: s.size(),
                is_text: s.kind() == SymbolKind::Text,
                is_global: s.is_global(),
                section: s.section_index().map(|SectionIndex(i)| i),
            })
        })
    }

    fn find_build_id(&self) -> Option<BuildId> {
        let notes = [".notes", ".note.gnu.build-id"];
        notes
            .into_iter()
            .filter_map(|name| self.section_data(name).ok())
            .find_map(BuildId::in_notes)
            .or_else(|| self.elf.build_id().ok().flatten().map(BuildId::new))
    }
}

fn section_name<'d>(section: &impl ObjectSection<'d>) -> &'d str {
    // The name lives in the file, but the trait only lends it for the section's lifetime, so the
    // bytes are taken instead.
    section
        .name_bytes()
        .ok()
        .and_then(|n| std::str::from_utf8(n).ok())
        .unwrap_or_default()
}

/// The checks of the first bytes, so that the commonest mistakes have their own sentence.
fn check_identity(data: &[u8]) -> Result<(), SymbolError> {
    let start = data.get(..4).unwrap_or(data);
    if start != elf::ELFMAG {
        // Documentation/arch/x86/boot.rst: "HdrS" at 0x202.
        if data.get(0x202..0x206) == Some(b"HdrS") {
            return Err(SymbolError::Compressed);
        }
        let hex: Vec<String> = start.iter().map(|b| format!("{b:02x}")).collect();
        let start = if hex.is_empty() {
            "nothing".to_owned()
        } else {
            hex.join(" ")
        };
        return Err(SymbolError::NotElf { start });
    }
    if data.len() < 64 {
        let (need, have) = (64, data.len() as u64);
        return Err(SymbolError::Truncated {
            what: "the ELF header",
            offset: 0,
            need,
            have,
        });
    }
    let other = |found: &str| {
        Err(SymbolError::OtherMachine {
            found: found.to_owned(),
        })
    };
    if data[4] != elf::ELFCLASS64.0 {
        return other("a 32-bit machine");
    }
    if data[5] != elf::ELFDATA2LSB.0 {
        return other("a big-endian machine");
    }
    match data.le_u16(18) {
        Some(62) => Ok(()),
        Some(3) => other("i386"),
        Some(183) => other("arm64"),
        Some(243) => other("RISC-V"),
        Some(21) => other("64-bit PowerPC"),
        Some(n) => other(&format!("machine number {n}")),
        None => other("an unknown machine"),
    }
}

#[cfg(test)]
mod tests;
