//! The vmlinux: an ELF-64 executable, of which only the `PT_LOAD` segments matter.
//!
//! Parsed by hand, as it is three structures of fixed layout (System V gABI, chapters 4 and 5);
//! section headers are never looked at, so a stripped kernel and one with 600 MB of debug
//! information are the same.

use std::ops::Range;

use super::field::{u16_at, u32_at, u64_at};
use crate::mem::addr::{Gpa, Gva};

/// Size of an ELF-64 header.
const EHDR_SIZE: u64 = 64;
/// Size of an ELF-64 program header.
const PHDR_SIZE: u16 = 56;
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PF_X: u32 = 1;
/// What every kernel says of itself, `linux_banner` in init/version.c.
const BANNER: &[u8] = b"Linux version ";
/// No banner is longer.
const BANNER_MAX: usize = 512;

/// Why an ELF file is not a kernel that can be loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// The file is not ELF at all.
    #[error("the kernel inside the bzImage is not an ELF file: it begins with {first:02x?}")]
    NotElf {
        /// Its first bytes.
        first: Vec<u8>,
    },
    /// The file ends too early.
    #[error(
        "the vmlinux is truncated: {what} ends at offset {need:#x}, but it has only {len:#x} bytes"
    )]
    Truncated {
        /// What is cut off.
        what: &'static str,
        /// The offset up to which the file should reach.
        need: u64,
        /// The size of the file.
        len: u64,
    },
    /// A 32-bit or a big-endian file.
    #[error("the vmlinux is {found}, but the machine runs x86-64 kernels only")]
    WrongClass {
        /// What it is.
        found: &'static str,
    },
    /// Made for another processor.
    #[error("the vmlinux is for {name} (ELF machine {machine}), but the machine is x86-64")]
    WrongMachine {
        /// The `e_machine` field.
        machine: u16,
        /// Its name, if well known.
        name: &'static str,
    },
    /// An object, a library or a core dump.
    #[error("this ELF file is {found}, not an executable kernel")]
    NotExecutable {
        /// What it is.
        found: &'static str,
    },
    /// A header field that cannot be right.
    #[error("the vmlinux is damaged: {what} is {value:#x}")]
    Damaged {
        /// Name of the field.
        what: &'static str,
        /// What it holds.
        value: u64,
    },
    /// There is nothing to load.
    #[error("the vmlinux has no loadable segment")]
    NothingToLoad,
    /// Two segments claim the same memory.
    #[error("the vmlinux is damaged: two of its segments claim the memory at {at}")]
    Overlap {
        /// The first address both claim.
        at: Gpa,
    },
    /// The entry point is in no segment.
    #[error("the entry point {entry:#x} of the vmlinux lies in no loaded segment of it")]
    EntryOutside {
        /// The `e_entry` field.
        entry: u64,
    },
}

/// One `PT_LOAD` segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadSegment<'a> {
    /// Where it is to be copied.
    pub gpa: Gpa,
    /// Where the kernel will see it.
    pub gva: Gva,
    /// Its bytes in the file.
    pub data: &'a [u8],
    /// Its size in memory; what exceeds the data is zero.
    pub memory_size: u64,
    /// Whether it holds code.
    pub executable: bool,
}

/// A checked vmlinux.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vmlinux<'a> {
    /// Physical address of `startup_64`.
    pub entry: Gpa,
    /// The segments to load, in the order of the file, none of them empty.
    pub segments: Vec<LoadSegment<'a>>,
}

impl<'a> Vmlinux<'a> {
    /// Checks the headers of `file`.
    pub fn parse(file: &'a [u8]) -> Result<Self, ElfError> {
        if !file.starts_with(b"\x7fELF") {
            return Err(ElfError::NotElf {
                first: file.iter().take(8).copied().collect(),
            });
        }
        let header_cut = || truncated("the ELF header", EHDR_SIZE, file);
        let ident = |offset: usize| file.get(offset).copied().ok_or_else(header_cut);
        if ident(4)? != 2 {
            return Err(ElfError::WrongClass {
                found: "a 32-bit ELF file",
            });
        }
        if ident(5)? != 1 {
            return Err(ElfError::WrongClass {
                found: "a big-endian ELF file",
            });
        }
        if (file.len() as u64) < EHDR_SIZE {
            return Err(header_cut());
        }
        let machine = u16_at(file, 0x12).ok_or_else(header_cut)?;
        if machine != 62 {
            return Err(ElfError::WrongMachine {
                machine,
                name: machine_name(machine),
            });
        }
        check_type(u16_at(file, 0x10).ok_or_else(header_cut)?)?;
        let entry = u64_at(file, 0x18).ok_or_else(header_cut)?;
        let table = u64_at(file, 0x20).ok_or_else(header_cut)?;
        let entry_size = u16_at(file, 0x36).ok_or_else(header_cut)?;
        let count = u16_at(file, 0x38).ok_or_else(header_cut)?;
        if count == 0 {
            return Err(ElfError::NothingToLoad);
        }
        if entry_size != PHDR_SIZE {
            return Err(damaged("the size of a program header", entry_size));
        }
        if count == u16::MAX {
            return Err(damaged("the number of program headers", count));
        }
        let table_end = table
            .checked_add(u64::from(count) * u64::from(entry_size))
            .ok_or(damaged("the offset of the program headers", table))?;
        let headers = slice(file, table, table_end, "the table of program headers")?;
        let mut segments = Vec::new();
        for header in headers.chunks_exact(usize::from(PHDR_SIZE)) {
            segments.extend(load_segment(file, header)?);
        }
        if segments.is_empty() {
            return Err(ElfError::NothingToLoad);
        }
        let mut ranges: Vec<_> = segments.iter().map(LoadSegment::gpa_range).collect();
        ranges.sort_unstable_by_key(|range| (range.start, range.end));
        let mut pairs = ranges.iter().zip(ranges.iter().skip(1));
        if let Some((_, next)) = pairs.find(|(range, next)| range.end > next.start) {
            return Err(ElfError::Overlap { at: next.start });
        }
        let vmlinux = Self {
            entry: Gpa(entry),
            segments,
        };
        // Permissions are not asked for: newer kernels (seen in 7.2) are entered in .init.text, which lies in
        // their writable segment, and nothing but the kernel's own page tables acts on them.
        let mut segments = vmlinux.segments.iter();
        match segments.any(|segment| segment.gpa_range().contains(&vmlinux.entry)) {
            true => Ok(vmlinux),
            false => Err(ElfError::EntryOutside { entry }),
        }
    }

    /// The first executable segment.
    pub fn text(&self) -> Option<&LoadSegment<'a>> {
        self.segments.iter().find(|segment| segment.executable)
    }

    /// All memory from the first segment's first byte to the last one's last, bss included.
    pub fn extent(&self) -> Range<Gpa> {
        let ranges = || self.segments.iter().map(LoadSegment::gpa_range);
        let start = ranges().map(|range| range.start).min();
        let end = ranges().map(|range| range.end).max();
        start.unwrap_or_default()..end.unwrap_or_default()
    }

    /// The version the kernel announces at boot, without the words "Linux version".
    pub fn version(&self) -> Option<&'a str> {
        let mut banners = self
            .segments
            .iter()
            .flat_map(|segment| banners(segment.data));
        let first = banners.next()?;
        // Since 6.1 there are two: a weak one without a build number ("# SMP"), and the one that
        // overrides it at the last link (init/version-timestamp.c).
        let numbered = |banner: &&str| {
            banner
                .split('#')
                .skip(1)
                .any(|build| build.starts_with(|c: char| c.is_ascii_digit()))
        };
        [first]
            .into_iter()
            .chain(banners)
            .find(numbered)
            .or(Some(first))
    }
}

/// All version banners in a segment, without the words they begin with.
fn banners(data: &[u8]) -> impl Iterator<Item = &str> {
    let mut rest = data;
    let strings = std::iter::from_fn(move || {
        let at = rest
            .windows(BANNER.len())
            .position(|window| window == BANNER)?;
        rest = rest.get(at + BANNER.len()..)?;
        let end = rest
            .iter()
            .take(BANNER_MAX)
            .position(|&byte| byte == b'\n' || byte == 0);
        Some(end.and_then(|end| rest.get(..end)))
    });
    strings
        .flatten()
        // Other strings speak of a "Linux version" too; only a banner gives a number.
        .filter(|text| text.first().is_some_and(u8::is_ascii_digit))
        .filter_map(|text| std::str::from_utf8(text).ok())
}

impl<'a> LoadSegment<'a> {
    /// The memory it takes, bss included.
    pub fn gpa_range(&self) -> Range<Gpa> {
        self.gpa..Gpa(self.gpa.0.saturating_add(self.memory_size))
    }

    /// Its bytes in the file without the zeroes at their end, which memory has already. Stock
    /// kernels carry up to 20 MB of bss that way.
    pub fn nonzero_data(&self) -> &'a [u8] {
        let len = self
            .data
            .iter()
            .rposition(|&byte| byte != 0)
            .map_or(0, |last| last + 1);
        self.data.get(..len).unwrap_or_default()
    }

    /// The kernel's view of the same bytes.
    pub fn gva_range(&self) -> Range<Gva> {
        self.gva..Gva(self.gva.0.saturating_add(self.memory_size))
    }
}

/// One program header; `None` if it loads nothing.
fn load_segment<'a>(file: &'a [u8], header: &[u8]) -> Result<Option<LoadSegment<'a>>, ElfError> {
    let field = |offset| u64_at(header, offset).unwrap_or(0);
    let kind = u32_at(header, 0).unwrap_or(0);
    if kind == PT_INTERP {
        return Err(ElfError::NotExecutable {
            found: "a dynamically linked program",
        });
    }
    let (file_size, memory_size) = (field(0x20), field(0x28));
    if kind != PT_LOAD {
        return Ok(None);
    }
    if file_size > memory_size {
        return Err(damaged(
            "a segment's size in the file, more than in memory,",
            file_size,
        ));
    }
    if memory_size == 0 {
        return Ok(None);
    }
    let (offset, gpa) = (field(0x08), field(0x18));
    if gpa.checked_add(memory_size).is_none() {
        return Err(damaged("the end of a segment that begins", gpa));
    }
    let end = offset
        .checked_add(file_size)
        .ok_or(damaged("the offset of a segment", offset))?;
    Ok(Some(LoadSegment {
        gpa: Gpa(gpa),
        gva: Gva(field(0x10)),
        data: slice(file, offset, end, "a loadable segment")?,
        memory_size,
        executable: u32_at(header, 4).unwrap_or(0) & PF_X != 0,
    }))
}

fn check_type(kind: u16) -> Result<(), ElfError> {
    let found = match kind {
        2 => return Ok(()),
        1 => "a relocatable object (perhaps a kernel module)",
        3 => "a shared object or a position-independent program",
        4 => "a core dump",
        _ => "of no known type",
    };
    Err(ElfError::NotExecutable { found })
}

fn machine_name(machine: u16) -> &'static str {
    match machine {
        3 => "32-bit x86",
        8 => "MIPS",
        20 | 21 => "PowerPC",
        22 => "S/390",
        40 => "32-bit Arm",
        183 => "arm64",
        243 => "RISC-V",
        258 => "LoongArch",
        _ => "another processor",
    }
}

fn slice<'a>(
    file: &'a [u8],
    start: u64,
    end: u64,
    what: &'static str,
) -> Result<&'a [u8], ElfError> {
    match (usize::try_from(start), usize::try_from(end)) {
        (Ok(start), Ok(end)) => file.get(start..end),
        _ => None,
    }
    .ok_or_else(|| truncated(what, end, file))
}

fn truncated(what: &'static str, need: u64, file: &[u8]) -> ElfError {
    ElfError::Truncated {
        what,
        need,
        len: file.len() as u64,
    }
}

fn damaged(what: &'static str, value: impl Into<u64>) -> ElfError {
    ElfError::Damaged {
        what,
        value: value.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{elf, minimal_elf};
    use super::*;

    #[test]
    fn reads_segments_and_entry() {
        let file = elf(&minimal_elf());
        let vmlinux = Vmlinux::parse(&file).unwrap();
        assert_eq!(vmlinux.entry, Gpa(0x100_0010));
        assert_eq!(vmlinux.segments.len(), 2);
        assert_eq!(vmlinux.extent(), Gpa(0x100_0000)..Gpa(0x120_4000));
        assert_eq!(vmlinux.text().unwrap().gva, Gva(0xffff_ffff_8100_0000));
        assert_eq!(vmlinux.version(), Some("6.1.0-test (a@b) #1 SMP"));
        assert!(vmlinux.segments[1].data.len() < 0x4000);
    }

    #[test]
    fn wrong_kinds_get_a_sentence() {
        let good = elf(&minimal_elf());
        let with = |offset: usize, byte: u8| {
            let mut file = good.clone();
            file[offset] = byte;
            Vmlinux::parse(&file).unwrap_err().to_string()
        };
        assert!(with(4, 1).contains("32-bit"));
        assert!(with(5, 2).contains("big-endian"));
        assert!(with(0x10, 1).contains("kernel module"));
        assert!(with(0x10, 3).contains("position-independent"));
        assert!(with(0x10, 4).contains("core dump"));
        assert!(with(0x12, 183).contains("arm64"));
        assert!(with(0x36, 57).contains("size of a program header is 0x39"));
        assert!(with(0x38, 0).contains("no loadable segment"));
        // The second segment's p_memsz, now smaller than p_filesz.
        assert!(with(64 + 56 + 0x29, 0).contains("more than in memory"));
        // The entry, now past the text.
        assert!(with(0x1b, 0x10).contains("entry point 0x10000010"));
        // The second segment's p_paddr, now 0x1000000.
        assert!(with(64 + 56 + 0x1a, 0).contains("claim the memory at 0x1000000"));
        // The first segment's type becomes PT_INTERP.
        assert!(with(64, 3).contains("dynamically linked"));
    }

    #[test]
    fn zeroes_at_the_end_are_left_out() {
        let mut spec = minimal_elf();
        spec.segments[1].data = [[1; 10].as_slice(), &[0; 5000]].concat();
        let file = elf(&spec);
        let vmlinux = Vmlinux::parse(&file).unwrap();
        assert_eq!(vmlinux.segments[1].nonzero_data(), [1; 10]);
        assert_eq!(vmlinux.segments[1].data.len(), 5010);
    }

    #[test]
    fn every_prefix_is_an_error() {
        let file = elf(&minimal_elf());
        for len in 0..file.len() {
            assert!(Vmlinux::parse(&file[..len]).is_err(), "length {len}");
        }
    }
}
