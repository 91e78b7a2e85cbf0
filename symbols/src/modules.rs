//! The guest's modules, read from its own list: where they lie, their sections and their symbols.
//!
//! Nothing is remembered: a module's init text is freed after loading and the place used again, so
//! what is read holds for the moment at which it is read. Structures are found through the
//! kernel's type table (`core_layout` and `init_layout` until 6.3, `mem[]` since 6.4).

mod layout;

use std::fmt;

use crate::addr::{GuestMemory, Gva, ReadExt, Slide};
use crate::btf::Btf;
use crate::bytes::LeBytes;
use crate::error::SymbolError;
use crate::hooks::Hooks;
use crate::image::BuildId;
use crate::orc::{OrcLayout, OrcTable};
use crate::ps::list;

use layout::Layout;

/// What a part of a module is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionKind {
    /// Code that stays.
    Text,
    /// Everything else that stays.
    Data,
    /// Code and data that go away after loading.
    Init,
}

/// A contiguous part of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its start.
    pub from: Gva,
    /// Its length in bytes.
    pub size: u64,
    /// What it is for.
    pub kind: RegionKind,
}

impl Region {
    /// Whether an address lies in it.
    pub const fn contains(&self, gva: Gva) -> bool {
        gva.0.wrapping_sub(self.from.0) < self.size
    }
}

/// A symbol of a module, as the guest keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleSymbol {
    /// Where it is.
    pub gva: Gva,
    /// Its size; 0 for labels.
    pub size: u64,
    /// Its name.
    pub name: String,
}

/// The state of a module (`enum module_state`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModuleState {
    /// In use.
    Live,
    /// Being loaded.
    Coming,
    /// Being removed.
    Going,
    /// Being set up: it has no place yet.
    Unformed,
}

impl ModuleState {
    /// The word of /proc/modules.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Live => "Live",
            Self::Coming | Self::Unformed => "Loading",
            Self::Going => "Unloading",
        }
    }
}

/// A module as it lies in the guest now.
#[derive(Clone, Debug)]
pub struct Module {
    /// Where its `struct module` is.
    pub gva: Gva,
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: ModuleState,
    /// Its parts, in address order.
    pub regions: Vec<Region>,
    /// Its sections by name, as in /sys/module/NAME/sections.
    pub sections: Vec<(String, Gva)>,
    /// The fingerprint of its build, from its notes.
    pub build_id: Option<BuildId>,
    /// Its symbols, in address order.
    pub symbols: Vec<ModuleSymbol>,
    /// Count, addresses and entries of its ORC tables.
    orc: Option<(u32, Gva, Gva)>,
}

impl fmt::Display for Module {
    /// Name, size, state and base, as /proc/modules has them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size: u64 = self.regions.iter().map(|r| r.size).sum();
        let base = self.base().unwrap_or_default();
        write!(
            f,
            "{:<24} {size:>8} {:<9} {base}",
            self.name,
            self.state.word()
        )
    }
}

impl Module {
    /// A module with nothing but names and places.
    #[cfg(test)]
    pub(crate) fn for_test(
        name: &str,
        state: ModuleState,
        regions: Vec<Region>,
        symbols: Vec<ModuleSymbol>,
    ) -> Self {
        let (name, sections) = (name.to_owned(), Vec::new());
        let gva = Gva::default();
        Self {
            gva,
            name,
            state,
            regions,
            sections,
            build_id: None,
            symbols,
            orc: None,
        }
    }

    /// The start of its code.
    pub fn base(&self) -> Option<Gva> {
        self.regions
            .iter()
            .find(|r| r.kind == RegionKind::Text)
            .map(|r| r.from)
    }

    /// Whether an address lies in it.
    pub fn contains(&self, gva: Gva) -> bool {
        self.regions.iter().any(|r| r.contains(gva))
    }

    /// Where the guest put a section of its .ko file.
    pub fn section(&self, name: &str) -> Option<Gva> {
        self.sections.iter().find(|s| s.0 == name).map(|s| s.1)
    }

    /// The symbol that covers `gva` and the distance into it.
    pub fn lookup(&self, gva: Gva) -> Option<(&ModuleSymbol, u64)> {
        let region = self.regions.iter().find(|r| r.contains(gva))?;
        let at = self
            .symbols
            .partition_point(|s| s.gva <= gva)
            .checked_sub(1)?;
        let first = self.symbols[at].gva;
        // Of several at one address the first, as for the kernel itself; and none from another
        // region.
        let same = self.symbols[..=at]
            .iter()
            .rev()
            .take_while(|s| s.gva == first)
            .last()?;
        region.contains(first).then_some((same, gva.0 - first.0))
    }

    /// Its ORC table, read from the guest.
    pub fn orc<M: GuestMemory + ?Sized>(&self, memory: &M, layout: OrcLayout) -> Option<OrcTable> {
        let (count, ips, entries) = self.orc?;
        OrcTable::from_guest(memory, ips, entries, count, layout)
    }
}

/// No module has more; a larger number is a damaged structure.
const MAX_SYMBOLS: u64 = 1 << 20;
const MAX_SECTIONS: u32 = 4096;
/// Longest name of a symbol or section (`KSYM_NAME_LEN`).
const MAX_NAME: usize = 512;

/// Reads the list of modules.
pub fn read_modules<M: GuestMemory + ?Sized>(
    memory: &M,
    hooks: &Hooks,
    btf: &Btf,
    slide: Slide,
) -> Result<Vec<Module>, SymbolError> {
    let head = hooks
        .data
        .modules
        .ok_or(SymbolError::NoSymbol { name: "modules" })?
        .run(slide);
    let layout = Layout::of(btf)?;
    let mut all = Vec::new();
    for gva in list(memory, head, layout.list)? {
        all.push(read_module(memory, &layout, gva)?);
    }
    Ok(all)
}

fn read_module<M: GuestMemory + ?Sized>(
    memory: &M,
    layout: &Layout,
    gva: Gva,
) -> Result<Module, SymbolError> {
    let unmapped = || SymbolError::Unmapped {
        what: "module",
        gva: gva.0,
    };
    let name = string(memory, gva.plus(layout.name)).ok_or_else(unmapped)?;
    let state = match memory
        .u32_at(gva.plus(layout.state).0)
        .ok_or_else(unmapped)?
    {
        0 => ModuleState::Live,
        1 => ModuleState::Coming,
        2 => ModuleState::Going,
        _ => ModuleState::Unformed,
    };
    let mut module = Module {
        gva,
        name,
        state,
        regions: Vec::new(),
        sections: Vec::new(),
        build_id: None,
        symbols: Vec::new(),
        orc: None,
    };
    // Its fields are not filled in yet.
    if state == ModuleState::Unformed {
        return Ok(module);
    }
    for region in &layout.regions {
        let from = memory
            .u64_at(gva.plus(region.base).0)
            .ok_or_else(unmapped)?;
        let size = memory
            .u32_at(gva.plus(region.size).0)
            .ok_or_else(unmapped)?;
        if from != 0 && size != 0 {
            let (from, size) = (Gva(from), u64::from(size));
            module.regions.push(Region {
                from,
                size,
                kind: region.kind,
            });
        }
    }
    module.regions.sort_by_key(|r| r.from);
    module.sections = sections(memory, layout, gva).unwrap_or_default();
    let note = module.section(".note.gnu.build-id");
    let note = note.and_then(|at| memory.bytes_at(at.0, 36));
    module.build_id = note.and_then(|bytes| BuildId::in_notes(&bytes));
    module.symbols = symbols(memory, layout, &module).unwrap_or_default();
    module.orc = layout.orc.and_then(|(count, ips, entries)| {
        let count = memory.u32_at(gva.plus(count).0).filter(|n| *n > 0)?;
        let at = |offset: u64| memory.u64_at(gva.plus(offset).0).map(Gva);
        Some((count, at(ips)?, at(entries)?))
    });
    Ok(module)
}

/// A string in the guest.
fn string<M: GuestMemory + ?Sized>(memory: &M, gva: Gva) -> Option<String> {
    let mut text = Vec::new();
    while text.len() < MAX_NAME {
        // Not across a page at once: the next one need not be there.
        let at = gva.plus(text.len() as u64);
        let room = (0x1000 - (at.0 & 0xfff)).min(64) as usize;
        let piece = memory.bytes_at(at.0, room)?;
        let end = memchr::memchr(0, &piece);
        text.extend_from_slice(&piece[..end.unwrap_or(room)]);
        if end.is_some() {
            break;
        }
    }
    Some(String::from_utf8_lossy(&text).into_owned())
}

fn sections<M: GuestMemory + ?Sized>(
    memory: &M,
    layout: &Layout,
    gva: Gva,
) -> Option<Vec<(String, Gva)>> {
    let at = layout.sections?;
    let attrs = Gva(memory.u64_at(gva.plus(at.pointer).0).filter(|p| *p != 0)?);
    let count = memory.u32_at(attrs.plus(at.count).0)?.min(MAX_SECTIONS);
    let one = |i: u32| {
        let attr = attrs.plus(at.first).plus(u64::from(i) * at.size);
        let name = memory.u64_at(attr.plus(at.name).0)?;
        Some((
            string(memory, Gva(name))?,
            Gva(memory.u64_at(attr.plus(at.address).0)?),
        ))
    };
    Some((0..count).filter_map(one).collect())
}

/// `Elf64_Sym` and its fields.
const SYM: usize = 24;
const SYM_SHNDX: usize = 6;
const SYM_VALUE: usize = 8;
const SYM_SIZE: usize = 16;

fn symbols<M: GuestMemory + ?Sized>(
    memory: &M,
    layout: &Layout,
    module: &Module,
) -> Option<Vec<ModuleSymbol>> {
    let at = layout.symbols?;
    let table = Gva(memory
        .u64_at(module.gva.plus(at.pointer).0)
        .filter(|p| *p != 0)?);
    let read = |offset: u64| memory.u64_at(table.plus(offset).0);
    let count = memory.u32_at(table.plus(at.count).0).map(u64::from)?;
    let count = Some(count).filter(|n| *n <= MAX_SYMBOLS)? as usize;
    let (symtab, strtab) = (read(at.symtab)?, read(at.strtab)?);
    let raw = memory.bytes_at(symtab, count * SYM)?;
    let mut all = Vec::with_capacity(count);
    for entry in raw.chunks_exact(SYM) {
        let (value, section) = (entry.le_u64(SYM_VALUE)?, entry.le_u16(SYM_SHNDX)?);
        // Undefined ones belong to others; their value is the other's address.
        if section == 0 || !module.contains(Gva(value)) {
            continue;
        }
        let name = string(memory, Gva(strtab).plus(u64::from(entry.le_u32(0)?)))?;
        if !name.is_empty() {
            all.push(ModuleSymbol {
                gva: Gva(value),
                size: entry.le_u64(SYM_SIZE)?,
                name,
            });
        }
    }
    all.sort_by_key(|s| s.gva);
    Some(all)
}

#[cfg(test)]
mod tests;
