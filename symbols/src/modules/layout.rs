//! Where the fields of `struct module` and what it leads to are, by the kernel's types.

use super::RegionKind;
use crate::btf::{Btf, Kind, Type};
use crate::error::SymbolError;

/// A base and a size, as offsets in `struct module`.
pub(super) struct RegionAt {
    pub(super) base: u64,
    pub(super) size: u64,
    pub(super) kind: RegionKind,
}

/// `sect_attrs`: the pointer in `struct module`, the rest in what it points to.
#[derive(Clone, Copy)]
pub(super) struct SectionsAt {
    pub(super) pointer: u64,
    pub(super) count: u64,
    pub(super) first: u64,
    /// Of one attribute: its size, its name and its address.
    pub(super) size: u64,
    pub(super) name: u64,
    pub(super) address: u64,
}

/// `kallsyms`: the pointer in `struct module`, the rest in `struct mod_kallsyms`.
#[derive(Clone, Copy)]
pub(super) struct SymbolsAt {
    pub(super) pointer: u64,
    pub(super) symtab: u64,
    pub(super) count: u64,
    pub(super) strtab: u64,
}

pub(super) struct Layout {
    pub(super) list: u64,
    pub(super) name: u64,
    pub(super) state: u64,
    pub(super) regions: Vec<RegionAt>,
    pub(super) sections: Option<SectionsAt>,
    pub(super) symbols: Option<SymbolsAt>,
    /// `arch.num_orcs`, `arch.orc_unwind_ip`, `arch.orc_unwind`.
    pub(super) orc: Option<(u64, u64, u64)>,
}

impl Layout {
    pub(super) fn of(btf: &Btf) -> Result<Self, SymbolError> {
        let at = |path: &str| btf.member("module", path).map(|m| m.offset());
        let orc = || {
            let at = |path| at(path).ok();
            Some((
                at("arch.num_orcs")?,
                at("arch.orc_unwind_ip")?,
                at("arch.orc_unwind")?,
            ))
        };
        Ok(Self {
            list: at("list")?,
            name: at("name")?,
            state: at("state")?,
            regions: regions(btf)?,
            sections: sections(btf),
            symbols: symbols(btf),
            orc: orc(),
        })
    }
}

fn regions(btf: &Btf) -> Result<Vec<RegionAt>, SymbolError> {
    let at = |path: &str| btf.member("module", path).map(|m| m.offset());
    if at("core_layout.base").is_ok() {
        // Text comes first in the core part; its length is `text_size`.
        let part = |name: &str, kind| -> Result<RegionAt, SymbolError> {
            let (base, size) = (at(&format!("{name}.base"))?, at(&format!("{name}.size"))?);
            Ok(RegionAt { base, size, kind })
        };
        let core = part("core_layout", RegionKind::Text)?;
        return Ok(vec![core, part("init_layout", RegionKind::Init)?]);
    }
    // enum mod_mem_type: text, data, read-only data, read-only after init, then the init ones.
    let count = btf.member("module", "mem")?;
    let count = match btf.get(btf.strip(count.ty)) {
        Some(Type::Array(_, count)) => u64::from(count.min(16)),
        _ => 0,
    };
    (0..count)
        .map(|i| {
            let kind = match i {
                0 => RegionKind::Text,
                1..=3 => RegionKind::Data,
                _ => RegionKind::Init,
            };
            let (base, size) = (
                at(&format!("mem[{i}].base"))?,
                at(&format!("mem[{i}].size"))?,
            );
            Ok(RegionAt { base, size, kind })
        })
        .collect()
}

fn sections(btf: &Btf) -> Option<SectionsAt> {
    let at = |container, path| Some(btf.member(container, path).ok()?.offset());
    Some(SectionsAt {
        pointer: at("module", "sect_attrs")?,
        count: at("module_sect_attrs", "nsections")?,
        first: at("module_sect_attrs", "attrs")?,
        size: btf.size_of(btf.find(Kind::Struct, "module_sect_attr")?)?,
        name: at("module_sect_attr", "battr.attr.name")?,
        address: at("module_sect_attr", "address")?,
    })
}

fn symbols(btf: &Btf) -> Option<SymbolsAt> {
    let at = |container, path| Some(btf.member(container, path).ok()?.offset());
    Some(SymbolsAt {
        pointer: at("module", "kallsyms")?,
        symtab: at("mod_kallsyms", "symtab")?,
        count: at("mod_kallsyms", "num_symtab")?,
        strtab: at("mod_kallsyms", "strtab")?,
    })
}
