//! Names for the numbers in events: the kernel's own table, and the modules of the moment.

use std::sync::{Arc, OnceLock};

use colinux_symbols::modules::Module;
use colinux_symbols::{Gva, Slide};

/// What a kernel says of itself. Made once, shared by all threads.
#[derive(Debug, Default)]
pub struct Kernel {
    /// Names, types, and how to unwind its stacks.
    pub tables: Option<colinux_symbols::Kernel>,
    /// How far it has moved itself, once known.
    slide: OnceLock<Slide>,
    /// What is lacking, in sentences.
    pub lacks: Vec<String>,
}

impl Kernel {
    /// Reads an unpacked kernel. `moves`: it may run elsewhere than it was linked for.
    pub fn of(vmlinux: &[u8], moves: bool) -> Self {
        let tables = match colinux_symbols::Kernel::from_vmlinux(vmlinux) {
            Ok(tables) => tables,
            Err(error) => return Self::unknown(format!("the kernel has no names: {error}")),
        };
        let mut kernel = Kernel::default();
        if tables.btf.is_none() {
            kernel.lacks.push("the kernel has no types".to_owned());
        }
        if tables.orc.is_none() {
            kernel.lacks.push("stacks are guessed".to_owned());
        }
        kernel.tables = Some(tables);
        if !moves {
            kernel.set_slide(Slide::NONE);
        }
        kernel
    }

    /// Nothing is known, for a reason.
    pub fn unknown(why: impl Into<String>) -> Self {
        Kernel {
            lacks: vec![why.into()],
            ..Kernel::default()
        }
    }

    /// Says where the kernel runs.
    pub fn set_slide(&self, slide: Slide) {
        // It moves once, before anything else.
        let _ = self.slide.set(slide);
    }

    /// Where the kernel runs, once known.
    pub fn slide(&self) -> Option<Slide> {
        self.slide.get().copied()
    }
}

/// Names at a moment.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// The kernel.
    pub kernel: Arc<Kernel>,
    /// Its modules.
    pub modules: Arc<Vec<Module>>,
}

impl Names {
    /// The symbol at an address, how far into it, and the module it is in.
    fn find(&self, gva: u64) -> Option<(&str, u64, Option<&str>)> {
        // Neither user addresses nor small numbers are the kernel's.
        if gva >> 47 != 0x1_ffff {
            return None;
        }
        if let Some(module) = self.modules.iter().find(|m| m.contains(Gva(gva))) {
            let (symbol, offset) = module.lookup(Gva(gva))?;
            return Some((&symbol.name, offset, Some(&module.name)));
        }
        let link = Gva(gva).link(self.kernel.slide()?);
        let symbol = self.kernel.tables.as_ref()?.names.lookup(link)?;
        (symbol.offset < symbol.size.max(1)).then_some((symbol.name, symbol.offset, None))
    }

    /// `function+0x12`, or `function+0x12 [module]`.
    pub fn name(&self, gva: u64) -> Option<String> {
        let (name, offset, module) = self.find(gva)?;
        let mut text = name.to_owned();
        if offset > 0 {
            text.push_str(&format!("+{offset:#x}"));
        }
        if let Some(module) = module {
            text.push_str(&format!(" [{module}]"));
        }
        Some(text)
    }

    /// The function alone.
    pub fn function(&self, gva: u64) -> Option<&str> {
        self.find(gva).map(|(name, ..)| name)
    }

    /// Where the function at an address begins.
    pub fn function_start(&self, gva: u64) -> Option<u64> {
        self.find(gva)
            .map(|(_, offset, _)| gva.wrapping_sub(offset))
    }

    /// `function+0x12`, or the number.
    pub fn place(&self, gva: u64) -> String {
        self.name(gva).unwrap_or_else(|| format!("{gva:#x}"))
    }

    /// The address of a symbol.
    pub fn address(&self, name: &str) -> Option<u64> {
        let tables = self.kernel.tables.as_ref();
        let kernel = tables.and_then(|tables| tables.names.address_of(name));
        let slid = kernel.and_then(|a| Some(a.run(self.kernel.slide()?).0));
        slid.or_else(|| {
            let symbols = self.modules.iter().flat_map(|m| &m.symbols);
            symbols
                .into_iter()
                .find(|s| s.name == name)
                .map(|s| s.gva.0)
        })
    }

    /// Symbols of the kernel that begin so, a few of them.
    pub fn beginning(&self, start: &str, most: usize) -> Vec<String> {
        let Some(tables) = &self.kernel.tables else {
            return Vec::new();
        };
        let mut found: Vec<String> = tables
            .names
            .iter()
            .filter(|entry| entry.name.starts_with(start))
            .map(|entry| entry.name.to_owned())
            .take(most)
            .collect();
        found.sort();
        found.dedup();
        found
    }
}
