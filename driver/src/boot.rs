//! The boot loader: from the files a kernel comes in to the memory and registers it starts with.
//!
//! By default the vmlinux is taken out of the bzImage here and entered at `startup_64`, as the
//! guest's own decompressor would do it after 0.1 to 4.5 G instructions, except that there is no
//! KASLR: moving the kernel is the decompressor's doing, and so is the flag that makes the kernel
//! move its direct map. With `as_bzimage`, that decompressor runs.
//!
//! Everything here is a pure function of its arguments.

mod elf;
mod field;
#[cfg(test)]
mod fixture;
mod image;
mod params;
mod payload;
mod place;
mod tables;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;

use bytes::Bytes;

pub use elf::{ElfError, LoadSegment, Vmlinux};
pub use image::{BzImage, ImageError, KernelFile, SetupHeader};
pub use params::{MEMORY_MAX, MEMORY_MIN, MemoryError, MemoryMap};
pub use payload::{Compression, PayloadError, decompress};

use crate::layout;
use crate::mem::addr::{Gpa, Gva, PAGE_MASK};

/// What to boot.
#[derive(Clone, Debug)]
pub struct BootSpec<'a> {
    /// A bzImage or an ELF vmlinux.
    pub kernel: Bytes,
    /// The initrd; an empty one is none.
    pub initrd: Option<Bytes>,
    /// The kernel command line.
    pub cmdline: &'a str,
    /// Size of memory.
    pub memory_bytes: u64,
    /// Run the guest's own decompressor, which needs a bzImage.
    pub as_bzimage: bool,
    /// The ACPI tables and where they go; empty for none.
    pub acpi: (Gpa, &'a [u8]),
    /// The ACPI root pointer, among the tables.
    pub rsdp: Gpa,
}

/// What memory and registers hold when the kernel is entered.
///
/// The rest of the state is fixed by the boot protocol: long mode with paging (CR0 PE, PG, WP,
/// ET; CR4 PAE; EFER LME, LMA), [`layout::BOOT_CS`] and [`layout::BOOT_DS`] loaded, interrupts
/// off, all other general registers zero.
#[derive(Clone, PartialEq, Eq)]
pub struct BootImage {
    /// What to copy into zeroed memory, in this order.
    pub segments: Vec<(Gpa, Bytes)>,
    /// RIP.
    pub entry: u64,
    /// RSI: the zero page.
    pub rsi: u64,
    /// RSP.
    pub rsp: u64,
    /// CR3: the identity map of the first 4 GiB.
    pub cr3: u64,
    /// Base of the GDT.
    pub gdt_base: u64,
    /// Limit of the GDT.
    pub gdt_limit: u16,
    /// All memory the kernel takes before it knows the memory map, bss included.
    pub kernel: Range<Gpa>,
    /// The code that is entered: the kernel's first executable segment, or the decompressor.
    pub kernel_text: Range<Gpa>,
    /// Where the kernel links that code to; unknown if it decompresses itself.
    pub kernel_text_gva: Option<Range<Gva>>,
    /// Where the initrd lies.
    pub initrd: Option<Range<Gpa>>,
    /// The memory map the kernel is told.
    pub memory: MemoryMap,
    /// The kernel's version string, if it has one.
    pub version: Option<String>,
}

/// Why a kernel cannot be booted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootError {
    /// The file is not a kernel.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The compressed kernel cannot be unpacked.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// The vmlinux cannot be loaded.
    #[error(transparent)]
    Elf(#[from] ElfError),
    /// The size of memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The kernel ends beyond memory.
    #[error(
        "the kernel takes memory from {start} to {needed:#x}, so it needs {needed} bytes, but the machine has only {available} below its device hole"
    )]
    KernelTooLarge {
        /// Where it begins.
        start: Gpa,
        /// The memory needed.
        needed: u64,
        /// The memory there is.
        available: u64,
    },
    /// The kernel would overwrite the boot structures.
    #[error("the kernel begins at {start}, below 1 MiB, where the boot data lies")]
    KernelTooLow {
        /// Where it begins.
        start: Gpa,
    },
    /// A 32-bit bzImage, or `as_bzimage` of one.
    #[error(
        "the bzImage has no 64-bit entry point (xloadflags {xloadflags:#x}): it is a 32-bit kernel"
    )]
    NoEntry64 {
        /// The field of the header.
        xloadflags: u16,
    },
    /// `as_bzimage` of a vmlinux.
    #[error("booting as a bzImage was asked for, but the kernel is a plain ELF vmlinux")]
    NotBzImage,
    /// There is no room for the initrd.
    #[error(
        "the initrd has {size} bytes, but only {available} are free between the kernel's end at {kernel_end} and {limit}"
    )]
    InitrdTooLarge {
        /// Its size.
        size: u64,
        /// The room there is.
        available: u64,
        /// The lowest address it may have.
        kernel_end: Gpa,
        /// The end it must not exceed.
        limit: Gpa,
    },
    /// The command line is too long.
    #[error("the kernel command line has {length} bytes, but this kernel takes at most {limit}")]
    CmdlineTooLong {
        /// Its length.
        length: usize,
        /// The longest there may be.
        limit: u32,
    },
    /// The kernel would see a shorter command line.
    #[error("the kernel command line has a zero byte at offset {offset}")]
    CmdlineZero {
        /// Where.
        offset: usize,
    },
    /// The ACPI tables are not where the kernel may look for them.
    #[error(
        "the ACPI tables at {start} ({length} bytes, root pointer at {rsdp}) do not fit the reserved memory from {} to {}",
        layout::LOW_RAM_END,
        layout::HIGH_RAM_START
    )]
    AcpiOutside {
        /// Where they begin.
        start: Gpa,
        /// Their length.
        length: usize,
        /// The root pointer.
        rsdp: Gpa,
    },
}

/// Prepares a machine to run a kernel.
pub fn load(spec: &BootSpec<'_>) -> Result<BootImage, BootError> {
    // What is cheap to refuse is refused before anything is unpacked.
    let memory = check_spec(spec)?;
    match KernelFile::parse(&spec.kernel)? {
        KernelFile::BzImage(image) if spec.as_bzimage => {
            let placed = place::decompressor(&image, &memory)?;
            let version = image.version().map(str::to_owned);
            assemble(spec, memory, Some(&image), &spec.kernel, placed, version)
        }
        KernelFile::Elf(_) if spec.as_bzimage => Err(BootError::NotBzImage),
        _ => {
            let elf = vmlinux(&spec.kernel)?;
            load_extracted(spec, &elf)
        }
    }
}

/// Prepares a machine like [`load`], with what [`vmlinux`] has taken out of `spec.kernel` before,
/// so that the kernel is not unpacked a second time. `as_bzimage` is not looked at.
pub fn load_extracted(spec: &BootSpec<'_>, vmlinux: &Bytes) -> Result<BootImage, BootError> {
    let memory = check_spec(spec)?;
    let file = KernelFile::parse(&spec.kernel)?;
    let parsed = Vmlinux::parse(vmlinux)?;
    let placed = place::vmlinux(&parsed, &memory)?;
    let (image, version) = match &file {
        KernelFile::BzImage(image) => (Some(image), image.version()),
        KernelFile::Elf(_) => (None, parsed.version()),
    };
    let version = version.map(str::to_owned);
    assemble(spec, memory, image, vmlinux, placed, version)
}

/// The vmlinux of a kernel: the file itself, or what is inside the bzImage.
pub fn vmlinux(kernel: &Bytes) -> Result<Bytes, BootError> {
    match KernelFile::parse(kernel)? {
        KernelFile::Elf(_) => Ok(kernel.clone()),
        KernelFile::BzImage(image) => Ok(Bytes::from_owner(decompress(image.payload()?)?)),
    }
}

/// The version string of a kernel, without unpacking it: `6.1.0-42-amd64 (builder@host) #1 SMP`,
/// of which the first word is the release. `None` if it does not have one.
pub fn kernel_version(kernel: &[u8]) -> Result<Option<String>, BootError> {
    Ok(match KernelFile::parse(kernel)? {
        KernelFile::Elf(file) => Vmlinux::parse(file)?.version().map(str::to_owned),
        KernelFile::BzImage(image) => image.version().map(str::to_owned),
    })
}

/// Checks everything that does not depend on what is inside the kernel file.
fn check_spec(spec: &BootSpec<'_>) -> Result<MemoryMap, BootError> {
    let memory = MemoryMap::new(spec.memory_bytes)?;
    if let Some(offset) = spec.cmdline.bytes().position(|byte| byte == 0) {
        return Err(BootError::CmdlineZero { offset });
    }
    let (start, tables) = spec.acpi;
    if !tables.is_empty() {
        let end = start.0.saturating_add(tables.len() as u64);
        let inside = start >= layout::LOW_RAM_END
            && end <= layout::HIGH_RAM_START.0
            && (start.0..end).contains(&spec.rsdp.0);
        if !inside {
            return Err(BootError::AcpiOutside {
                start,
                length: tables.len(),
                rsdp: spec.rsdp,
            });
        }
    }
    Ok(memory)
}

/// Adds everything the kernel needs beside itself, which lies in `file`.
fn assemble(
    spec: &BootSpec<'_>,
    memory: MemoryMap,
    image: Option<&BzImage<'_>>,
    file: &Bytes,
    placed: place::Placed<'_>,
    version: Option<String>,
) -> Result<BootImage, BootError> {
    let limit = params::cmdline_limit(image);
    if spec.cmdline.len() as u64 > u64::from(limit) {
        return Err(BootError::CmdlineTooLong {
            length: spec.cmdline.len(),
            limit,
        });
    }
    let files = spec.initrd.as_ref().filter(|files| !files.is_empty());
    let initrd = files
        .map(|files| {
            place_initrd(
                files.len() as u64,
                &placed,
                params::initrd_limit(image, &memory),
            )
        })
        .transpose()?;
    let zero_page = params::ZeroPage {
        image,
        decompressor: spec.as_bzimage.then_some(placed.text.start),
        // Below 4 GiB, as all low memory is.
        initrd: initrd
            .as_ref()
            .map(|range| (range.start.0 as u32, (range.end.0 - range.start.0) as u32)),
        rsdp: spec.rsdp,
        memory: &memory,
    };
    let mut cmdline = spec.cmdline.as_bytes().to_vec();
    cmdline.push(0);
    let gdt = tables::gdt();
    let gdt_limit = (gdt.len() - 1) as u16;
    let mut segments = vec![
        (layout::BOOT_GDT, gdt.into()),
        (layout::ZERO_PAGE, zero_page.build().into()),
        (layout::BOOT_PML4, tables::identity_map().into()),
        (layout::CMDLINE, cmdline.into()),
    ];
    if !spec.acpi.1.is_empty() {
        segments.push((spec.acpi.0, Bytes::copy_from_slice(spec.acpi.1)));
    }
    let kernel = placed
        .segments
        .iter()
        .filter(|(_, bytes)| !bytes.is_empty());
    segments.extend(kernel.map(|(gpa, bytes)| (*gpa, file.slice_ref(bytes))));
    if let (Some(range), Some(files)) = (&initrd, files) {
        segments.push((range.start, files.clone()));
    }
    Ok(BootImage {
        segments,
        entry: placed.entry.0,
        rsi: layout::ZERO_PAGE.0,
        rsp: layout::BOOT_STACK_TOP.0,
        cr3: layout::BOOT_PML4.0,
        gdt_base: layout::BOOT_GDT.0,
        gdt_limit,
        kernel: placed.extent,
        kernel_text: placed.text,
        kernel_text_gva: placed.text_gva,
        initrd,
        memory,
        version,
    })
}

/// The initrd goes as high as the kernel can reach, out of the way of what the kernel allocates
/// first, and begins on a page.
fn place_initrd(
    size: u64,
    placed: &place::Placed<'_>,
    limit: Gpa,
) -> Result<Range<Gpa>, BootError> {
    let kernel_end = placed.extent.end;
    let start = limit
        .0
        .checked_sub(size)
        .map(|start| Gpa(start & !PAGE_MASK));
    match start.filter(|start| *start >= kernel_end) {
        Some(start) => Ok(start..Gpa(start.0 + size)),
        None => Err(BootError::InitrdTooLarge {
            size,
            available: limit.0.saturating_sub(kernel_end.0),
            kernel_end,
            limit,
        }),
    }
}

impl fmt::Debug for BootImage {
    /// Without the bytes, of which there are many.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let segments: Vec<_> = self
            .segments
            .iter()
            .map(|(gpa, bytes)| (*gpa, bytes.len()))
            .collect();
        f.debug_struct("BootImage")
            .field("segments", &segments)
            .field("entry", &format_args!("{:#x}", self.entry))
            .field("kernel", &self.kernel)
            .field("initrd", &self.initrd)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}
