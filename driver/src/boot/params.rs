//! What the kernel is told: the memory map and the zero page (`struct boot_params`).
//!
//! Offsets are those of Documentation/arch/x86/zero-page.rst and boot.rst.

use super::image::{BzImage, SETUP_HEADER};
use crate::layout::{self, MemoryRange, RangeKind};
use crate::mem::addr::{Gpa, PAGE_SIZE};

/// Least memory of a machine: the kernel begins at 16 MiB at the earliest, so this is a floor
/// for the arithmetic, not a promise that anything fits.
pub const MEMORY_MIN: u64 = 16 << 20;
/// Most memory of a machine: its physical addresses have 40 bits, and the device hole takes one
/// of the 1024 GiB.
pub const MEMORY_MAX: u64 = 1023 << 30;

/// `LOADED_HIGH` of `loadflags`: the protected-mode code is above 1 MiB.
const LOADED_HIGH: u8 = 0x01;
/// `KASLR_FLAG` of `loadflags`: the decompressor has randomized the kernel. It is the
/// decompressor's to set, and makes `RANDOMIZE_MEMORY` act (arch/x86/include/asm/setup.h).
const KASLR_FLAG: u8 = 0x02;
/// `CAN_USE_HEAP` of `loadflags`: for the real-mode code only, which never runs here.
const CAN_USE_HEAP: u8 = 0x80;
/// `type_of_loader` of a boot loader without a number of its own.
const LOADER_UNDEFINED: u8 = 0xff;
/// `vid_mode` "normal": leave the screen, of which there is none, as it is.
const VID_MODE_NORMAL: u16 = 0xffff;
/// `COMMAND_LINE_SIZE` of x86 without the terminating zero, for a vmlinux, which does not say.
const CMDLINE_SIZE: u32 = 2047;
/// `CONFIG_PHYSICAL_ALIGN`'s default, for a vmlinux, which does not say.
const KERNEL_ALIGNMENT: u32 = 2 << 20;
/// Boot protocol written into the header of a vmlinux: 2.15, of Linux 5.5 and later.
const PROTOCOL: u16 = 0x020f;

const ACPI_RSDP_ADDR: usize = 0x070;
const E820_ENTRIES: usize = 0x1e8;
const VID_MODE: usize = 0x1fa;
const BOOT_FLAG: usize = 0x1fe;
const HEADER: usize = 0x202;
const VERSION: usize = 0x206;
const TYPE_OF_LOADER: usize = 0x210;
const LOADFLAGS: usize = 0x211;
const CODE32_START: usize = 0x214;
const RAMDISK_IMAGE: usize = 0x218;
const RAMDISK_SIZE: usize = 0x21c;
const CMD_LINE_PTR: usize = 0x228;
const INITRD_ADDR_MAX: usize = 0x22c;
const KERNEL_ALIGNMENT_AT: usize = 0x230;
const CMDLINE_SIZE_AT: usize = 0x238;
const SETUP_DATA: usize = 0x250;
const E820_TABLE: usize = 0x2d0;
/// Size of one row of the E820 table: base, length, type.
const E820_ROW: usize = 20;

/// The memory map of a machine, of a size that has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryMap {
    bytes: u64,
    rows: Vec<MemoryRange>,
}

/// Why a machine cannot have that much memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// Below [`MEMORY_MIN`].
    #[error(
        "a machine with {bytes} bytes of memory is too small: the least is {MEMORY_MIN} (16 MiB)"
    )]
    TooSmall {
        /// The size asked for.
        bytes: u64,
    },
    /// Above [`MEMORY_MAX`].
    #[error(
        "a machine with {bytes} bytes of memory is too large: the most is {MEMORY_MAX} (1023 GiB)"
    )]
    TooLarge {
        /// The size asked for.
        bytes: u64,
    },
    /// Not in whole pages.
    #[error("the memory size {bytes} is not a multiple of {PAGE_SIZE} bytes")]
    NotPages {
        /// The size asked for.
        bytes: u64,
    },
}

impl MemoryMap {
    /// The map of a machine with `bytes` of memory; what the device hole displaces continues at
    /// 4 GiB.
    pub fn new(bytes: u64) -> Result<Self, MemoryError> {
        if bytes < MEMORY_MIN {
            return Err(MemoryError::TooSmall { bytes });
        }
        if bytes > MEMORY_MAX {
            return Err(MemoryError::TooLarge { bytes });
        }
        if !bytes.is_multiple_of(PAGE_SIZE) {
            return Err(MemoryError::NotPages { bytes });
        }
        Ok(Self {
            bytes,
            rows: layout::memory_map(bytes),
        })
    }

    /// The size of memory, without the device hole.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The rows, in ascending order; all of them are backed, reserved ones too.
    pub fn rows(&self) -> &[MemoryRange] {
        &self.rows
    }

    /// End of the memory below the device hole, where kernel and initrd have to be.
    pub fn low_end(&self) -> Gpa {
        Gpa(self.bytes.min(layout::MMIO_HOLE_START.0))
    }
}

/// What the zero page says beside the kernel's own header.
#[derive(Clone, Debug)]
pub(super) struct ZeroPage<'a> {
    /// The kernel's header, unless it is a plain vmlinux.
    pub image: Option<&'a BzImage<'a>>,
    /// Whether the guest's own decompressor runs, and where it was loaded.
    pub decompressor: Option<Gpa>,
    /// The initrd, if there is one: address and size, both below 4 GiB.
    pub initrd: Option<(u32, u32)>,
    /// The ACPI root pointer.
    pub rsdp: Gpa,
    /// The memory map.
    pub memory: &'a MemoryMap,
}

impl ZeroPage<'_> {
    /// The page's bytes.
    pub(super) fn build(&self) -> Vec<u8> {
        let mut page = vec![0; PAGE_SIZE as usize];
        match self.image {
            Some(image) => put(&mut page, SETUP_HEADER, image.setup_header_bytes()),
            None => {
                put(&mut page, VID_MODE, &VID_MODE_NORMAL.to_le_bytes());
                put(&mut page, BOOT_FLAG, &0xaa55u16.to_le_bytes());
                put(&mut page, HEADER, b"HdrS");
                put(&mut page, VERSION, &PROTOCOL.to_le_bytes());
                let initrd_max = layout::INITRD_ADDR_MAX.0 as u32;
                put(&mut page, INITRD_ADDR_MAX, &initrd_max.to_le_bytes());
                put(
                    &mut page,
                    KERNEL_ALIGNMENT_AT,
                    &KERNEL_ALIGNMENT.to_le_bytes(),
                );
                put(&mut page, CMDLINE_SIZE_AT, &CMDLINE_SIZE.to_le_bytes());
            }
        }
        let flags = page.get(LOADFLAGS).copied().unwrap_or(0);
        let flags = (flags | LOADED_HIGH) & !(KASLR_FLAG | CAN_USE_HEAP);
        put(&mut page, LOADFLAGS, &[flags]);
        put(&mut page, TYPE_OF_LOADER, &[LOADER_UNDEFINED]);
        if let Some(load) = self.decompressor {
            put(&mut page, CODE32_START, &(load.0 as u32).to_le_bytes());
        }
        let (image, size) = self.initrd.unwrap_or((0, 0));
        put(&mut page, RAMDISK_IMAGE, &image.to_le_bytes());
        put(&mut page, RAMDISK_SIZE, &size.to_le_bytes());
        let cmdline = layout::CMDLINE.0 as u32;
        put(&mut page, CMD_LINE_PTR, &cmdline.to_le_bytes());
        // Whatever the file has there, no list follows.
        put(&mut page, SETUP_DATA, &0u64.to_le_bytes());
        put(&mut page, ACPI_RSDP_ADDR, &self.rsdp.0.to_le_bytes());
        put(&mut page, E820_ENTRIES, &[self.memory.rows().len() as u8]);
        for (index, row) in self.memory.rows().iter().enumerate() {
            put(&mut page, E820_TABLE + index * E820_ROW, &e820_row(row));
        }
        page
    }
}

/// The longest command line a kernel takes, without the terminating zero.
pub(super) fn cmdline_limit(image: Option<&BzImage<'_>>) -> u32 {
    let room = layout::CMDLINE_MAX as u32 - 1;
    image
        .map_or(CMDLINE_SIZE, |image| image.header().cmdline_size)
        .min(room)
}

/// The address that the end of an initrd must not exceed.
pub(super) fn initrd_limit(image: Option<&BzImage<'_>>, memory: &MemoryMap) -> Gpa {
    let last = image.map_or(layout::INITRD_ADDR_MAX.0, |image| {
        u64::from(image.header().initrd_addr_max)
    });
    Gpa(memory.low_end().0.min(last + 1))
}

fn e820_row(row: &MemoryRange) -> [u8; E820_ROW] {
    let kind: u32 = match row.kind {
        RangeKind::Ram => 1,
        RangeKind::Reserved => 2,
    };
    let mut bytes = [0; E820_ROW];
    put(&mut bytes, 0, &row.start.0.to_le_bytes());
    put(&mut bytes, 8, &(row.end.0 - row.start.0).to_le_bytes());
    put(&mut bytes, 16, &kind.to_le_bytes());
    bytes
}

/// Copies `field` to `offset`. All callers write inside the page.
fn put(page: &mut [u8], offset: usize, field: &[u8]) {
    if let Some(target) = page
        .get_mut(offset..)
        .and_then(|rest| rest.get_mut(..field.len()))
    {
        target.copy_from_slice(field);
    }
}

#[cfg(test)]
mod tests {
    use super::super::field::{u16_at, u32_at, u64_at};
    use super::super::fixture::Bz;
    use super::*;

    fn e820(page: &[u8]) -> Vec<(u64, u64, u32)> {
        (0..usize::from(page[E820_ENTRIES]))
            .map(|row| E820_TABLE + row * E820_ROW)
            .map(|at| {
                let kind = u32_at(page, at + 16).unwrap();
                (
                    u64_at(page, at).unwrap(),
                    u64_at(page, at + 8).unwrap(),
                    kind,
                )
            })
            .collect()
    }

    #[test]
    fn memory_sizes_are_checked() {
        assert!(MemoryMap::new(MEMORY_MIN).is_ok());
        assert!(MemoryMap::new(MEMORY_MAX).is_ok());
        let message = |bytes| MemoryMap::new(bytes).unwrap_err().to_string();
        assert!(message(MEMORY_MIN - 4096).contains("too small"));
        assert!(message(MEMORY_MAX + 4096).contains("too large"));
        assert!(message(u64::MAX).contains("too large"));
        assert!(message(MEMORY_MIN + 1).contains("not a multiple of 4096"));
    }

    #[test]
    fn memory_beyond_the_hole_is_a_fourth_row() {
        let memory = MemoryMap::new(4 << 30).unwrap();
        let page = ZeroPage {
            image: None,
            decompressor: None,
            initrd: None,
            rsdp: Gpa(0),
            memory: &memory,
        };
        assert_eq!(memory.low_end(), Gpa(0xc000_0000));
        assert_eq!(
            e820(&page.build()),
            [
                (0, 0x9_fc00, 1),
                (0x9_fc00, 0x6_0400, 2),
                (0x10_0000, 0xbff0_0000, 1),
                (0x1_0000_0000, 0x4000_0000, 1),
            ]
        );
    }

    #[test]
    fn bzimage_header_is_kept_and_filled() {
        let mut file = Bz::new(b"payload").build();
        file[LOADFLAGS] = 0x83;
        file[SETUP_DATA] = 0x55;
        file[0x1fc] = 0x34; // root_dev
        let image = BzImage::parse(&file).unwrap();
        let memory = MemoryMap::new(64 << 20).unwrap();
        let page = ZeroPage {
            image: Some(&image),
            decompressor: None,
            initrd: Some((0x3f0_0000, 0x1234)),
            rsdp: Gpa(0xe_0000),
            memory: &memory,
        }
        .build();
        assert_eq!(page.len(), 4096);
        assert_eq!(page[0x1fc], 0x34);
        assert_eq!(page[LOADFLAGS], LOADED_HIGH);
        assert_eq!(page[TYPE_OF_LOADER], 0xff);
        assert_eq!(page[SETUP_DATA], 0);
        assert_eq!(u32_at(&page, RAMDISK_IMAGE), Some(0x3f0_0000));
        assert_eq!(u32_at(&page, RAMDISK_SIZE), Some(0x1234));
        assert_eq!(u32_at(&page, CMD_LINE_PTR), Some(0x2_0000));
        assert_eq!(u32_at(&page, CODE32_START), Some(0x10_0000));
        assert_eq!(u64_at(&page, ACPI_RSDP_ADDR), Some(0xe_0000));
        assert_eq!(u64_at(&page, 0x258), Some(0x100_0000));
        // Nothing of the file's first sector but the header, and no sentinel (0x1ef), comes along.
        assert!(page[0x78..E820_ENTRIES].iter().all(|&byte| byte == 0));
        assert!(
            page[E820_ENTRIES + 1..SETUP_HEADER]
                .iter()
                .all(|&byte| byte == 0)
        );
        assert!(page[0x26c..E820_TABLE].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn vmlinux_gets_a_header() {
        let memory = MemoryMap::new(64 << 20).unwrap();
        let page = ZeroPage {
            image: None,
            decompressor: None,
            initrd: None,
            rsdp: Gpa(0xe_0000),
            memory: &memory,
        }
        .build();
        assert_eq!(&page[HEADER..HEADER + 4], b"HdrS");
        assert_eq!(u16_at(&page, BOOT_FLAG), Some(0xaa55));
        assert_eq!(u16_at(&page, VID_MODE), Some(0xffff));
        assert_eq!(u32_at(&page, RAMDISK_SIZE), Some(0));
        assert_eq!(u32_at(&page, CMDLINE_SIZE_AT), Some(2047));
        assert_eq!(page[LOADFLAGS], LOADED_HIGH);
        assert_eq!(e820(&page).len(), 3);
    }

    #[test]
    fn limits_follow_the_header() {
        let mut file = Bz::new(b"payload").build();
        file[CMDLINE_SIZE_AT..CMDLINE_SIZE_AT + 4].copy_from_slice(&255u32.to_le_bytes());
        file[INITRD_ADDR_MAX..INITRD_ADDR_MAX + 4].copy_from_slice(&0x37ff_ffffu32.to_le_bytes());
        let image = BzImage::parse(&file).unwrap();
        let memory = MemoryMap::new(8 << 30).unwrap();
        assert_eq!(cmdline_limit(Some(&image)), 255);
        assert_eq!(cmdline_limit(None), 2047);
        assert_eq!(initrd_limit(Some(&image), &memory), Gpa(0x3800_0000));
        assert_eq!(initrd_limit(None, &memory), Gpa(0x8000_0000));
        let small = MemoryMap::new(64 << 20).unwrap();
        assert_eq!(initrd_limit(None, &small), Gpa(64 << 20));
    }
}
