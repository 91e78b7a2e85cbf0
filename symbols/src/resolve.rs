//! Every layer behind one question: what is at this address?
//!
//! For the kernel: the debug image's symbol table, else its own name table; for modules the guest's
//! own symbols; and on top of either, source frames by DWARF or by the index made from it.

use std::fmt;
use std::sync::Arc;

use crate::addr::{GuestMemory, Gva, LinkAddr, Slide};
use crate::dwarf::{DebugImage, Frame};
use crate::index::{Index, Unpacked};
use crate::kallsyms::Kallsyms;
use crate::modules::Module;
use crate::orc::{OrcLayout, OrcSet, OrcTable};
use crate::symtab::Symtab;

/// Functions that every kernel has, in files that never move: what comes before those names is the
/// folder the kernel was built in. Assembly is named otherwise than C where a prefix was mapped.
const LANDMARKS: &[(&str, &str)] = &[
    ("start_kernel", "init/main.c"),
    ("entry_SYSCALL_64", "arch/x86/entry/entry_64.S"),
];

/// Which table a name is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// The symbol table of a debug image.
    Symtab,
    /// The kernel's own name table.
    Kallsyms,
    /// The guest's symbols of a module.
    Module,
}

/// What is at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'r> {
    /// The symbol.
    pub name: &'r str,
    /// How far into it.
    pub offset: u64,
    /// Its size.
    pub size: u64,
    /// The module it is in; none for the kernel itself.
    pub module: Option<&'r str>,
    /// Where the name is from.
    pub layer: Layer,
}

impl fmt::Display for Place<'_> {
    /// As the kernel prints it: `name+0x10/0x80 [module]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{:#x}/{:#x}", self.name, self.offset, self.size)?;
        self.module
            .map_or(Ok(()), |module| write!(f, " [{module}]"))
    }
}

/// Where source frames come from.
#[derive(Debug)]
pub enum Source {
    /// DWARF, unit by unit as it is asked for.
    Dwarf(DebugImage),
    /// The index made from it.
    Index(Index),
    /// The index, taken apart for very many questions.
    Unpacked(Unpacked),
}

/// Names, lines and unwind tables of a running kernel.
#[derive(Debug, Default)]
pub struct Resolver {
    slide: Slide,
    names: Option<Arc<Kallsyms>>,
    symtab: Option<Symtab>,
    source: Option<Source>,
    modules: Vec<Module>,
    /// Module debug images, by module name and the base they were placed at.
    module_sources: Vec<(String, Gva, DebugImage)>,
    kernel_orc: Option<OrcTable>,
}

impl Resolver {
    /// With the kernel's own names.
    pub fn new(names: Arc<Kallsyms>) -> Self {
        Self {
            names: Some(names),
            ..Self::default()
        }
    }

    /// Sets the slide of the kernel image.
    pub const fn set_slide(&mut self, slide: Slide) {
        self.slide = slide;
    }

    /// The slide of the kernel image.
    pub const fn slide(&self) -> Slide {
        self.slide
    }

    /// Uses the symbol table of a debug image.
    pub fn set_symtab(&mut self, symtab: Symtab) {
        self.symtab = Some(symtab);
    }

    /// Uses source lines.
    pub fn set_source(&mut self, source: Source) {
        self.source = Some(source);
    }

    /// Uses the kernel's unwind table.
    pub fn set_orc(&mut self, orc: OrcTable) {
        self.kernel_orc = Some(orc);
    }

    /// The modules as they are at the moment that is looked at; replaces those of another moment.
    pub fn set_modules(&mut self, modules: Vec<Module>) {
        self.modules = modules;
        let Self {
            modules,
            module_sources,
            ..
        } = self;
        // A module that went, or came back elsewhere, takes its placed debug image along.
        module_sources.retain(|(name, base, _)| {
            modules
                .iter()
                .any(|m| m.name == *name && m.base() == Some(*base))
        });
    }

    /// The modules.
    pub fn modules(&self) -> &[Module] {
        &self.modules
    }

    /// Uses the source lines of a module, opened with [`DebugImage::open_module`] for the places
    /// that the module has now.
    pub fn add_module_source(&mut self, module: &Module, image: DebugImage) {
        if let Some(base) = module.base() {
            self.module_sources.push((module.name.clone(), base, image));
        }
    }

    /// The debug image of the module that an address is in; its addresses are those of the guest.
    pub fn module_image(&self, gva: Gva) -> Option<&DebugImage> {
        let module = self.modules.iter().find(|m| m.contains(gva))?;
        let source = self.module_sources.iter().find(|s| s.0 == module.name);
        source.map(|s| &s.2)
    }

    /// The kernel's name table.
    pub fn names(&self) -> Option<&Kallsyms> {
        self.names.as_deref()
    }

    /// The run-time address of a kernel symbol or, after the kernel's own, of a module's.
    pub fn address_of(&self, name: &str) -> Option<Gva> {
        let kernel = self.names.as_ref().and_then(|n| n.address_of(name));
        // Per-CPU symbols are offsets, which do not slide.
        let slid = |a: LinkAddr| {
            if a.0 >> 63 == 0 {
                Gva(a.0)
            } else {
                a.run(self.slide)
            }
        };
        let in_modules = || {
            self.modules
                .iter()
                .flat_map(|m| &m.symbols)
                .find(|s| s.name == name)
                .map(|s| s.gva)
        };
        kernel.map(slid).or_else(in_modules)
    }

    /// The run-time addresses of all symbols called `name`: static functions may share one.
    pub fn addresses_of(&self, name: &str) -> Vec<Gva> {
        let kernel = self.names.iter().flat_map(|n| n.named(name));
        let slid = |a: LinkAddr| {
            if a.0 >> 63 == 0 {
                Gva(a.0)
            } else {
                a.run(self.slide)
            }
        };
        let mut all: Vec<Gva> = kernel.map(|entry| slid(entry.addr)).collect();
        let in_modules = self.modules.iter().flat_map(|m| &m.symbols);
        all.extend(in_modules.filter(|s| s.name == name).map(|s| s.gva));
        all.dedup();
        all
    }

    /// What is at a run-time address.
    pub fn place(&self, gva: Gva) -> Option<Place<'_>> {
        if let Some(module) = self.modules.iter().find(|m| m.contains(gva)) {
            let (symbol, offset) = module.lookup(gva)?;
            let (name, size) = (symbol.name.as_str(), symbol.size);
            let module = Some(module.name.as_str());
            return Some(Place {
                name,
                offset,
                size,
                module,
                layer: Layer::Module,
            });
        }
        // User and per-CPU addresses are no link addresses of the kernel.
        if gva.0 >> 63 == 0 {
            return None;
        }
        let link = gva.link(self.slide);
        let by_symtab = || Some((self.symtab.as_ref()?.lookup(link)?, Layer::Symtab));
        let by_names = || Some((self.names.as_ref()?.lookup(link)?, Layer::Kallsyms));
        let (symbol, layer) = by_symtab().or_else(by_names)?;
        let crate::kallsyms::Symbol { name, offset, size } = symbol;
        Some(Place {
            name,
            offset,
            size,
            module: None,
            layer,
        })
    }

    /// Calls `visit` with each source frame at a run-time address, innermost first. False when no
    /// source is known, so that [`Self::place`] has to do.
    pub fn frames(&self, gva: Gva, visit: &mut dyn FnMut(Frame<'_>)) -> bool {
        if let Some(module) = self.modules.iter().find(|m| m.contains(gva)) {
            let source = self.module_sources.iter().find(|s| s.0 == module.name);
            // Damaged debug information is as good as none: the next layer down answers.
            return source.is_some_and(|s| s.2.frames(LinkAddr(gva.0), visit).unwrap_or(false));
        }
        let link = gva.link(self.slide);
        match &self.source {
            Some(Source::Index(index)) => index.frames(link, visit),
            Some(Source::Unpacked(index)) => index.frames(link, visit),
            Some(Source::Dwarf(image)) => image.frames(link, visit).unwrap_or(false),
            None => false,
        }
    }

    /// The folders that the kernel's source files are named relative to.
    pub fn source_roots(&self) -> Vec<String> {
        let mut roots = Vec::new();
        for (function, path) in LANDMARKS {
            let Some(at) = self.address_of(function) else {
                continue;
            };
            self.frames(at, &mut |frame| {
                let root = frame.file.and_then(|file| file.strip_suffix(path));
                roots.extend(root.filter(|root| !root.is_empty()).map(str::to_owned));
            });
        }
        roots
    }

    /// The unwind tables of the kernel and of the modules that are loaded now.
    pub fn orc<M: GuestMemory + ?Sized>(&self, memory: &M, layout: OrcLayout) -> OrcSet {
        let mut set = OrcSet::default();
        let bound = |name| self.names.as_ref().and_then(|n| n.address_of(name));
        if let (Some(table), Some(from)) = (&self.kernel_orc, bound("_text")) {
            // Text, and the init text behind the data.
            let to = bound("_einittext").or_else(|| bound("_etext"));
            if let Some(to) = to {
                set.add_kernel(table.clone(), from, to, self.slide);
            }
        }
        for module in &self.modules {
            let Some(table) = module.orc(memory, layout) else {
                continue;
            };
            for region in &module.regions {
                let to = region.from.plus(region.size);
                set.add_module(table.clone(), region.from, to);
            }
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kallsyms::synthetic::{BASE, Order, build, place};
    use crate::modules::{ModuleState, ModuleSymbol, Region, RegionKind};

    fn resolver() -> Resolver {
        let filler: Vec<String> = (0..400).map(|i| format!("f{i}")).collect();
        let mut all = vec![(0x30, b'D', "current_task")];
        let list = filler.iter().enumerate();
        all.extend(list.map(|(i, n)| (BASE + i as u64 * 16, b'T', n.as_str())));
        let names = Kallsyms::from_placed(&build(Order::OffsetsFirst, &all), place).expect("table");
        Resolver::new(Arc::new(names))
    }

    fn module(at: u64) -> Module {
        let symbols = vec![ModuleSymbol {
            gva: Gva(at + 0x10),
            size: 64,
            name: "probe".into(),
        }];
        let region = Region {
            from: Gva(at),
            size: 0x1000,
            kind: RegionKind::Text,
        };
        Module::for_test("virtio_blk", ModuleState::Live, vec![region], symbols)
    }

    #[test]
    fn names_follow_the_slide() {
        let mut r = resolver();
        let text = |r: &Resolver, gva| r.place(Gva(gva)).map(|p| p.to_string());
        assert_eq!(text(&r, BASE + 17).as_deref(), Some("f1+0x1/0x10"));
        r.set_slide(Slide(0x20_0000));
        assert_eq!(text(&r, BASE + 17), None);
        assert_eq!(text(&r, BASE + 0x20_0011).as_deref(), Some("f1+0x1/0x10"));
        assert_eq!(r.address_of("f1"), Some(Gva(BASE + 0x20_0010)));
        assert_eq!(
            r.address_of("current_task"),
            Some(Gva(0x30)),
            "an offset does not slide"
        );
        assert_eq!(text(&r, 0x30), None);
    }

    #[test]
    fn modules_come_and_go() {
        let mut r = resolver();
        let at = 0xffff_ffff_c010_0000;
        r.set_modules(vec![module(at)]);
        let place = r.place(Gva(at + 0x18)).expect("place");
        assert_eq!(place.to_string(), "probe+0x8/0x40 [virtio_blk]");
        assert_eq!(r.address_of("probe"), Some(Gva(at + 0x10)));
        assert_eq!(r.place(Gva(at)), None, "before its first symbol");
        r.set_modules(vec![]);
        assert_eq!(r.place(Gva(at + 0x18)), None);
        assert!(!r.frames(Gva(at + 0x18), &mut |_| ()));
    }
}
