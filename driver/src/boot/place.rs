//! Where the kernel itself goes: the segments of a vmlinux, or the guest's own decompressor.

use std::ops::Range;

use super::BootError;
use super::elf::Vmlinux;
use super::image::{BzImage, ImageError};
use super::params::MemoryMap;
use crate::layout::HIGH_RAM_START;
use crate::mem::addr::{Gpa, Gva};

/// Offset of the 64-bit entry point in the protected-mode code (boot.rst, "64-bit Boot
/// Protocol").
const ENTRY_64: u64 = 0x200;
/// `XLF_KERNEL_64` of `xloadflags`: that entry point exists.
const XLF_KERNEL_64: u16 = 1;
/// The first boot protocol with `xloadflags`.
const PROTOCOL_64: u16 = 0x020c;

/// A kernel that has found its place.
#[derive(Clone, Debug)]
pub(super) struct Placed<'a> {
    /// What to copy where.
    pub segments: Vec<(Gpa, &'a [u8])>,
    /// The first instruction.
    pub entry: Gpa,
    /// All memory the kernel takes before it knows the memory map.
    pub extent: Range<Gpa>,
    /// The code that is entered.
    pub text: Range<Gpa>,
    /// The kernel's own addresses of that code, once it has its page tables.
    pub text_gva: Option<Range<Gva>>,
}

/// Places the segments of a vmlinux at their physical addresses.
pub(super) fn vmlinux<'a>(
    vmlinux: &Vmlinux<'a>,
    memory: &MemoryMap,
) -> Result<Placed<'a>, BootError> {
    let extent = vmlinux.extent();
    if extent.start < HIGH_RAM_START {
        return Err(BootError::KernelTooLow {
            start: extent.start,
        });
    }
    check_room(&extent, memory)?;
    let text = vmlinux.text();
    Ok(Placed {
        segments: vmlinux
            .segments
            .iter()
            .map(|segment| (segment.gpa, segment.nonzero_data()))
            .collect(),
        entry: vmlinux.entry,
        text: text.map_or(extent.clone(), |text| text.gpa_range()),
        text_gva: text.map(|text| text.gva_range()),
        extent,
    })
}

/// Places the protected-mode code of a bzImage, to be entered at its 64-bit entry point.
pub(super) fn decompressor<'a>(
    image: &BzImage<'a>,
    memory: &MemoryMap,
) -> Result<Placed<'a>, BootError> {
    let header = image.header();
    if header.protocol < PROTOCOL_64 {
        return Err(BootError::Image(ImageError::OldProtocol {
            found: header.protocol,
            need: PROTOCOL_64,
            what: "the 64-bit entry point of the bzImage",
        }));
    }
    if header.xloadflags & XLF_KERNEL_64 == 0 {
        return Err(BootError::NoEntry64 {
            xloadflags: header.xloadflags,
        });
    }
    // The last paragraph of the code may be short, but not so short that the kernel in it is cut.
    image.payload()?;
    let code = image.protected_mode()?;
    let size = code.len() as u64;
    // A kernel that cannot be relocated is loaded at its code32_start and moves itself to its
    // preferred address, so that is where the memory is needed.
    let load = if header.relocatable {
        header.pref_address
    } else {
        header.code32_start.into()
    };
    let init_size = u64::from(header.init_size);
    if init_size < size || size <= ENTRY_64 {
        return Err(BootError::Image(ImageError::BadHeader {
            field: "init_size, against the size of the protected-mode code,",
            offset: 0x260,
            value: init_size,
        }));
    }
    let start = Gpa(load.min(header.pref_address));
    if start < HIGH_RAM_START {
        return Err(BootError::KernelTooLow { start });
    }
    let end = load
        .saturating_add(size)
        .max(header.pref_address.saturating_add(init_size));
    let extent = start..Gpa(end);
    check_room(&extent, memory)?;
    Ok(Placed {
        segments: vec![(Gpa(load), code)],
        entry: Gpa(load + ENTRY_64),
        extent,
        text: Gpa(load)..Gpa(load + size),
        text_gva: None,
    })
}

fn check_room(extent: &Range<Gpa>, memory: &MemoryMap) -> Result<(), BootError> {
    let available = memory.low_end();
    if extent.end > available {
        return Err(BootError::KernelTooLarge {
            start: extent.start,
            needed: extent.end.0,
            available: available.0,
        });
    }
    Ok(())
}
