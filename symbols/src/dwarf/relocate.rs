//! Applies the relocations of a module's debug sections (x86-64 psABI, section 4.4).
//!
//! In a relocatable object every section starts at address 0. Here each is given the address that
//! the guest loaded it to, so that what DWARF says is true of the guest.

use std::collections::HashMap;

use gimli::SectionId;
use object::elf;

use super::{SECTIONS, SectionBytes};
use crate::addr::LinkAddr;
use crate::bytes::LeBytes;
use crate::error::SymbolError;
use crate::image::Image;

/// `Elf64_Rela`: offset, info, addend.
const RELA: usize = 24;
/// `Elf64_Sym`.
const SYM: usize = 24;

pub(super) fn sections(
    image: &Image<'_>,
    place: &dyn Fn(&str) -> Option<LinkAddr>,
) -> Result<HashMap<SectionId, SectionBytes>, SymbolError> {
    let symtab = image.section_data(".symtab")?;
    let addresses: HashMap<usize, u64> = image
        .sections()
        .filter_map(|s| {
            let is_debug = s.flags & elf::SHF_ALLOC.0 == 0;
            let at = if is_debug {
                Some(LinkAddr(0))
            } else {
                place(s.name)
            };
            Some((s.index, at?.0))
        })
        .collect();
    let value = |symbol: usize| {
        let at = symbol.checked_mul(SYM)?;
        let section = usize::from(symtab.le_u16(at.checked_add(6)?)?);
        let value = symtab.le_u64(at.checked_add(8)?)?;
        if section == usize::from(elf::SHN_ABS.0) {
            return Some(value);
        }
        Some(addresses.get(&section)?.wrapping_add(value))
    };
    let mut all = HashMap::new();
    for section in image.sections() {
        let Some(id) = SECTIONS.into_iter().find(|id| id.name() == section.name) else {
            continue;
        };
        let mut bytes = section.contents()?.into_owned();
        if let Some(table) = image.section(&format!(".rela{}", section.name)) {
            for entry in table.data.chunks_exact(RELA) {
                apply(&mut bytes, entry, &value);
            }
        }
        all.insert(id, SectionBytes::Owned(bytes));
    }
    Ok(all)
}

/// One relocation. What refers to a section that was not loaded becomes 0, which readers of DWARF
/// take for discarded code.
fn apply(bytes: &mut [u8], entry: &[u8], value: &dyn Fn(usize) -> Option<u64>) {
    let fields = (entry.le_u64(0), entry.le_u64(8), entry.le_u64(16));
    let (Some(offset), Some(info), Some(addend)) = fields else {
        return;
    };
    let target = value((info >> 32) as usize).map_or(0, |v| v.wrapping_add(addend));
    let Ok(at) = usize::try_from(offset) else {
        return;
    };
    match (info & 0xffff_ffff) as u32 {
        // R_X86_64_64
        1 => {
            if let Some(place) = bytes.get_mut(at..at.saturating_add(8)) {
                place.copy_from_slice(&target.to_le_bytes());
            }
        }
        // R_X86_64_32 and R_X86_64_32S
        10 | 11 => {
            if let Some(place) = bytes.get_mut(at..at.saturating_add(4)) {
                place.copy_from_slice(&(target as u32).to_le_bytes());
            }
        }
        _ => {}
    }
}
