//! Names for the numbers in events: the kernel's own table, and the modules of the moment.

use std::sync::{Arc, OnceLock};

use colinux_symbols::BuildId;
use colinux_symbols::modules::Module;
use colinux_symbols::orc::{OrcLayout, OrcTable};
use colinux_symbols::{Btf, Gva, Hooks, Image, Kallsyms, Slide};

/// What a kernel says of itself. Made once, shared by all threads.
#[derive(Debug, Default)]
pub struct Kernel {
    /// Names of addresses.
    pub names: Option<Arc<Kallsyms>>,
    /// Types.
    pub btf: Option<Arc<Btf>>,
    /// Where its lists begin, and how its structures are laid out.
    pub hooks: Option<Hooks>,
    /// How to unwind its stacks.
    pub orc: Option<OrcTable>,
    /// How the tables of its modules are laid out.
    pub orc_layout: Option<OrcLayout>,
    /// The fingerprint of its build.
    pub build_id: Option<BuildId>,
    /// How far it has moved itself, once known.
    slide: OnceLock<Slide>,
    /// What is lacking, in sentences.
    pub lacks: Vec<String>,
}

impl Kernel {
    /// Reads an unpacked kernel. `moves`: it may run elsewhere than it was linked for.
    pub fn of(vmlinux: &[u8], moves: bool) -> Self {
        let mut kernel = Kernel::default();
        let image = match Image::parse(vmlinux) {
            Ok(image) => image,
            Err(error) => {
                kernel
                    .lacks
                    .push(format!("the kernel has no names: {error}"));
                return kernel;
            }
        };
        kernel.build_id = image.build_id().cloned();
        match Kallsyms::from_image(&image) {
            Ok(names) => kernel.names = Some(Arc::new(names)),
            Err(error) => kernel.lacks.push(format!("no names: {error}")),
        }
        match Btf::from_image(&image, kernel.names.as_deref()) {
            Ok(btf) => kernel.btf = Some(Arc::new(btf)),
            Err(error) => kernel.lacks.push(format!("no types: {error}")),
        }
        let btf = kernel.btf.as_deref();
        match OrcTable::from_image(&image, btf) {
            Ok(orc) => kernel.orc = Some(orc),
            Err(error) => kernel.lacks.push(format!("stacks are guessed: {error}")),
        }
        kernel.orc_layout = Some(OrcLayout::of(&image, btf));
        kernel.hooks = kernel.names.as_ref().map(|names| Hooks::find(names, btf));
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
        let symbol = self.kernel.names.as_ref()?.lookup(link)?;
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
        let kernel = self.kernel.names.as_ref().and_then(|n| n.address_of(name));
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
        let Some(names) = &self.kernel.names else {
            return Vec::new();
        };
        let mut found: Vec<String> = names
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
