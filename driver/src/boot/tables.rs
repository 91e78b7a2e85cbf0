//! The descriptor table and the identity map the kernel is entered with.
//!
//! boot.rst, "64-bit Boot Protocol": paging on with an identity map of the kernel, the zero page
//! and the command line; `__BOOT_CS` and `__BOOT_DS` flat.

use crate::layout::{BOOT_CS, BOOT_DS, BOOT_GDT_LEN, BOOT_PD, BOOT_PD_COUNT, BOOT_PDPT};
use crate::mem::addr::PAGE_SIZE;

/// A flat 64-bit code segment: present, ring 0, execute/read, accessed, long mode
/// (Intel SDM vol. 3, 3.4.5).
const CODE_64: u64 = 0x00af_9b00_0000_ffff;
/// A flat data segment: present, ring 0, read/write, accessed.
const DATA: u64 = 0x00cf_9300_0000_ffff;

/// Page-table entry bits (Intel SDM vol. 3, 4.5.4).
const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;
/// What one entry of a page directory maps.
const LARGE_PAGE: u64 = 2 << 20;
/// Entries of a page table.
const ENTRIES: u64 = 512;

/// The global descriptor table.
pub(super) fn gdt() -> Vec<u8> {
    (0..BOOT_GDT_LEN / 8)
        .map(|index| match (index * 8) as u16 {
            BOOT_CS => CODE_64,
            BOOT_DS => DATA,
            _ => 0,
        })
        .flat_map(u64::to_le_bytes)
        .collect()
}

/// The PML4, the page-directory-pointer table and the page directories, in this order and
/// without a gap between them: one GiB mapped to itself per directory.
pub(super) fn identity_map() -> Vec<u8> {
    let link = PRESENT | WRITABLE;
    let pml4 = (0..ENTRIES).map(|index| if index == 0 { BOOT_PDPT.0 | link } else { 0 });
    let pdpt = (0..ENTRIES).map(|index| {
        if index < BOOT_PD_COUNT {
            (BOOT_PD.0 + index * PAGE_SIZE) | link
        } else {
            0
        }
    });
    let directories = (0..ENTRIES * BOOT_PD_COUNT).map(|index| (index * LARGE_PAGE) | link | LARGE);
    pml4.chain(pdpt)
        .chain(directories)
        .flat_map(u64::to_le_bytes)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::field::u64_at;
    use super::*;
    use crate::layout::BOOT_PML4;

    #[test]
    fn tables_lie_where_they_say() {
        assert_eq!(BOOT_PDPT.0, BOOT_PML4.0 + PAGE_SIZE);
        assert_eq!(BOOT_PD.0, BOOT_PDPT.0 + PAGE_SIZE);
        assert_eq!(identity_map().len() as u64, (2 + BOOT_PD_COUNT) * PAGE_SIZE);
        assert_eq!(gdt().len() as u64, BOOT_GDT_LEN);
    }

    /// Walks the tables as the processor does.
    fn translate(tables: &[u8], gva: u64) -> Option<u64> {
        let entry = |table: u64, shift: u64| {
            let at = table - BOOT_PML4.0 + ((gva >> shift) & 511) * 8;
            u64_at(tables, at as usize).filter(|entry| entry & PRESENT != 0)
        };
        let pdpt = entry(BOOT_PML4.0, 39)? & !0xfff;
        let directory = entry(pdpt, 30)? & !0xfff;
        let page = entry(directory, 21)?;
        assert_eq!(page & LARGE, LARGE);
        Some((page & !0x1f_ffff) | (gva & 0x1f_ffff))
    }

    #[test]
    fn four_gib_map_to_themselves() {
        let tables = identity_map();
        for gva in [
            0,
            0x7000,
            0x20_0000,
            0x100_0b53,
            0x7fff_ffff,
            0xc000_0000,
            0xffff_ffff,
        ] {
            assert_eq!(translate(&tables, gva), Some(gva));
        }
        assert_eq!(translate(&tables, 0x1_0000_0000), None);
        assert_eq!(translate(&tables, 1 << 39), None);
    }

    #[test]
    fn descriptors_are_flat() {
        let table = gdt();
        let code = u64_at(&table, BOOT_CS.into()).unwrap();
        let data = u64_at(&table, BOOT_DS.into()).unwrap();
        assert_eq!(u64_at(&table, 0), Some(0));
        assert_eq!(code >> 53 & 1, 1, "the L bit");
        assert_eq!(code >> 54 & 1, 0, "D must be clear with L");
        assert_eq!(data >> 41 & 1, 1, "writable");
    }
}
