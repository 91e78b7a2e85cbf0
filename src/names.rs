//! Names for the verbs: the guest's kernel from the recording, its debug image from the search path
//! of `--vmlinux`, and the symbol index in the cache.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use colinux_driver::machine::Machine;
use colinux_replay::{GuestKernel, ViewError};
use colinux_symbols::btf::Type;
use colinux_symbols::map::FileMap;
use colinux_symbols::modules::Module;
use colinux_symbols::resolve::Source;
use colinux_symbols::{DebugFiles, DebugImage, Gva, Image, Index, Resolver, SymbolError, Symtab};
use colinux_tracer::Reader;
use serde_json::json;

use crate::args::DebugArgs;
use crate::exit::{self, Failure};
use crate::guest::cache::Cache;
use crate::progress::Progress;
use crate::report::Report;

/// How many questions are worth the second that an index takes to make.
pub(crate) enum Demand {
    /// A few: an index is used if there is one.
    Few,
    /// Very many: an index is made if there is none.
    Many,
}

/// The guest's kernel and where its debug images are.
pub(crate) struct Names {
    pub(crate) kernel: GuestKernel,
    files: DebugFiles,
    /// The debug image's file, and what answers for it.
    debug: Option<(PathBuf, Source)>,
    /// Where it is, whoever has it.
    image_path: Option<PathBuf>,
}

impl From<ViewError> for Failure {
    fn from(error: ViewError) -> Self {
        match error {
            ViewError::Replay(error) => error.into(),
            other => Failure::new(exit::SYMBOLS, other),
        }
    }
}

impl Names {
    /// Those of a recording's kernel.
    pub(crate) fn of(
        reader: &Reader,
        args: &DebugArgs,
        demand: &Demand,
        report: &Report,
    ) -> Result<Self, Failure> {
        Self::with(GuestKernel::of(reader)?, None, args, demand, report)
    }

    /// Those of a kernel file.
    pub(crate) fn of_file(
        path: &Path,
        args: &DebugArgs,
        demand: &Demand,
        report: &Report,
    ) -> Result<Self, Failure> {
        let named = |why: &dyn std::fmt::Display| {
            Failure::new(exit::SYMBOLS, format!("{}: {why}", path.display()))
        };
        let bytes = FileMap::open(path).map_err(|error| Failure::new(exit::SYMBOLS, error))?;
        let kernel = GuestKernel::from_file(&Bytes::from_owner(bytes), false)
            .map_err(|error| named(&error))?;
        let beside = path.parent().map(Path::to_owned);
        Self::with(kernel, beside, args, demand, report)
    }

    fn with(
        kernel: GuestKernel,
        beside: Option<PathBuf>,
        args: &DebugArgs,
        demand: &Demand,
        report: &Report,
    ) -> Result<Self, Failure> {
        let (id, release) = (kernel.kernel().build_id.clone(), &kernel.kernel().release);
        let cache = Cache::open().ok();
        let mut folders: Vec<PathBuf> = beside.into_iter().collect();
        if let (Some(cache), Some(release)) = (&cache, release) {
            folders.push(cache.kernel_dir(release));
        }
        let files =
            DebugFiles::new(args.vmlinux.clone(), folders).with_modules_in(args.modules.clone());
        if args.no_debug {
            return Ok(Names {
                kernel,
                files,
                debug: None,
                image_path: None,
            });
        }
        let (image, passed) = files
            .kernel(id.as_ref(), release.as_deref())
            .map_err(|error| Failure::new(exit::SYMBOLS, error))?;
        for file in &passed {
            report.note(format!("{file}; going on without it"));
        }
        let image_path = image.as_ref().map(DebugImage::path);
        report.detail(image_path.map_or_else(
            || "no debug image: names are the kernel's own, without lines".to_owned(),
            |path| format!("lines by {}", path.display()),
        ));
        let folder = cache.map(|cache| cache.root().join("symbols"));
        let debug = image.map(|image| {
            let path = image.path().to_owned();
            let index = folder.and_then(|folder| index(&image, &folder, demand, report));
            (path, source(image, index, demand))
        });
        let image_path = debug.as_ref().map(|(path, _)| path.clone());
        Ok(Names {
            kernel,
            files,
            debug,
            image_path,
        })
    }

    /// Where the debug image is, if there is one.
    pub(crate) fn image_path(&self) -> Option<&Path> {
        self.image_path.as_deref()
    }

    /// The modules of the guest at this moment whose debug images are there, with those.
    pub(crate) fn module_images(&self, machine: &mut Machine) -> Vec<(Module, PathBuf)> {
        let release = self.kernel.kernel().release.as_deref();
        let modules = self.kernel.modules(machine).unwrap_or_default();
        let images = modules.into_iter().filter_map(|module| {
            let path = self.files.module_path(&module, release)?;
            Some((module, path))
        });
        images.collect()
    }

    /// A resolver for addresses as the linker gave them: no machine, no modules. It takes the debug
    /// image along.
    pub(crate) fn linked(&mut self) -> Resolver {
        let mut resolver = self.kernel.kernel().resolver(colinux_symbols::Slide::NONE);
        self.add_debug(&mut resolver);
        resolver
    }

    /// A resolver for this moment of a machine, with its modules and their debug images. It takes
    /// the kernel's debug image along.
    pub(crate) fn resolver(&mut self, machine: &mut Machine, report: &Report) -> Resolver {
        let mut resolver = self.kernel.resolver(machine);
        if resolver.names().is_none() {
            return resolver;
        }
        self.add_debug(&mut resolver);
        self.add_module_debug(&mut resolver, report);
        resolver
    }

    /// Looks for the debug images of the resolver's modules.
    pub(crate) fn add_module_debug(&self, resolver: &mut Resolver, report: &Report) {
        let release = self.kernel.kernel().release.as_deref();
        for module in resolver.modules().to_vec() {
            match self.files.module(&module, release) {
                Ok(Some(image)) => resolver.add_module_source(&module, image),
                Ok(None) => {}
                Err(passed) => report.note(format!("{passed}; going on without it")),
            }
        }
    }

    /// The layout of a type, as text and as JSON.
    pub(crate) fn layout(&self, name: &str) -> Result<Layout, Failure> {
        let missing = |error| Failure::new(exit::SYMBOLS, error);
        let btf = self.kernel.kernel().btf.as_deref();
        let btf = btf.ok_or_else(|| missing(SymbolError::NoSection { section: ".BTF" }))?;
        let id = btf.named(name).ok_or_else(|| {
            missing(SymbolError::NoType {
                kind: "type",
                name: name.to_owned(),
            })
        })?;
        let size = btf.size_of(id);
        let mut text = btf.type_name(id);
        if let Some(size) = size {
            text.push_str(&format!(" /* {size} bytes */"));
        }
        let stripped = btf.strip(id);
        if stripped != id {
            text.push_str(&format!(" = {}", btf.type_name(stripped)));
        }
        let mut members = Vec::new();
        for row in btf.layout(id) {
            let (byte, bit) = (row.bit_offset / 8, row.bit_offset % 8);
            let place = if row.is_bitfield {
                format!("{byte}.{bit}")
            } else {
                byte.to_string()
            };
            let size = if row.is_bitfield {
                String::new()
            } else {
                (row.bit_size / 8).to_string()
            };
            let indent = "    ".repeat(row.depth as usize);
            text.push_str(&format!(
                "\n{place:>8} {size:>6}  {indent}{};",
                row.declaration
            ));
            members.push(json!({
                "name": row.name, "offset": byte, "size": row.bit_size.div_ceil(8),
                "bit": row.is_bitfield.then_some(bit),
                "bits": row.is_bitfield.then_some(row.bit_size),
                "declaration": row.declaration, "depth": row.depth,
            }));
        }
        if let Some(Type::Enum(e)) = btf.get(stripped) {
            for (name, value) in e.values() {
                text.push_str(&format!("\n    {name} = {value},"));
                members.push(json!({"name": name, "value": value}));
            }
        }
        let json = json!({"type": btf.type_name(id), "size": size, "members": members});
        Ok(Layout {
            text,
            json: json.to_string(),
        })
    }

    fn add_debug(&mut self, resolver: &mut Resolver) {
        let Some((path, source)) = self.debug.take() else {
            return;
        };
        let symtab = FileMap::open(&path)
            .ok()
            .and_then(|map| Symtab::from_image(&Image::parse(&map).ok()?));
        if let Some(symtab) = symtab {
            resolver.set_symtab(symtab);
        }
        resolver.set_source(source);
    }
}

/// What answers quickest.
fn source(image: DebugImage, index: Option<Index>, demand: &Demand) -> Source {
    match (index, demand) {
        (None, _) => Source::Dwarf(image),
        (Some(index), Demand::Few) => Source::Index(index),
        (Some(index), Demand::Many) => match index.unpack() {
            Some(unpacked) => Source::Unpacked(unpacked),
            None => Source::Index(index),
        },
    }
}

/// A type, shown.
pub(crate) struct Layout {
    pub(crate) text: String,
    pub(crate) json: String,
}

/// The index of an image, as far as it is wanted. Without one everything works, only slower.
fn index(image: &DebugImage, folder: &Path, demand: &Demand, report: &Report) -> Option<Index> {
    let id = image.build_id()?;
    let known = Index::open(folder, id).and_then(|index| index.verify().map(|()| index));
    match (known, demand) {
        (Ok(index), _) => return Some(index),
        (Err(SymbolError::BadIndex { path, reason }), _) => {
            report.note(format!(
                "the symbol index {} is made again: {reason}",
                path.display()
            ));
        }
        (Err(_), Demand::Few) => return None,
        (Err(_), Demand::Many) => {}
    }
    let mut progress = Progress::new("making the symbol index");
    let made = fs::create_dir_all(folder)
        .map_err(|cause| SymbolError::Io {
            path: folder.to_owned(),
            cause,
        })
        .and_then(|()| Index::build(image, folder, &mut |done, all| progress.at(done, all)));
    drop(progress);
    match made {
        Ok(index) => Some(index),
        Err(error) => {
            report.note(format!("no symbol index could be made: {error}"));
            None
        }
    }
}

/// One line of a source frame: function, file and line as far as they are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceFrame {
    pub(crate) function: Option<String>,
    pub(crate) file: Option<String>,
    pub(crate) line: u32,
    pub(crate) inlined: bool,
}

/// The source frames at an address, innermost first; empty where no debug image knows it.
pub(crate) fn source_frames(resolver: &Resolver, roots: &[String], gva: Gva) -> Vec<SourceFrame> {
    let mut all = Vec::new();
    resolver.frames(gva, &mut |frame| {
        let file = frame.file.map(|file| {
            let below = roots
                .iter()
                .find_map(|root| file.strip_prefix(root.as_str()));
            tidy(below.unwrap_or(file))
        });
        all.push(SourceFrame {
            function: frame.function.map(str::to_owned),
            file,
            line: frame.line,
            inlined: frame.inlined,
        });
    });
    all
}

/// Without `./` and `x/../`, which compilers leave in.
fn tidy(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "." => {}
            ".." if parts
                .last()
                .is_some_and(|last| !last.is_empty() && *last != "..") =>
            {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    #[test]
    fn paths_are_tidied() {
        for (path, expected) in [
            ("kernel/sched/core.c", "kernel/sched/core.c"),
            ("./arch/x86/include/asm/irq.h", "arch/x86/include/asm/irq.h"),
            ("lib/../mm/slab.h", "mm/slab.h"),
            ("/usr/./src/x.c", "/usr/src/x.c"),
            ("../x.c", "../x.c"),
        ] {
            assert_eq!(super::tidy(path), expected);
        }
    }
}
