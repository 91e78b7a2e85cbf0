//! Debug information and source text: where they are looked for.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use colinux_symbols::modules::Module;
use colinux_symbols::resolve::Source;
use colinux_symbols::{DebugFiles, Gva, Index, Resolver};

use super::machine::Places;
use crate::moment::SourceText;
use crate::names::Kernel;
use crate::text::expand;

/// Lines of source on each side.
const SOURCE_LINES: u32 = 200;
/// Columns of a tab. The kernel's eight leave little of a line in a panel.
const TAB: usize = 4;

/// What is known of the kernel's debug information.
#[derive(Debug)]
pub(super) struct Debug {
    files: DebugFiles,
    release: Option<String>,
    /// Its image, or what lacks.
    pub(super) image: Result<PathBuf, String>,
    /// The folders that its source files are named relative to.
    roots: Vec<String>,
    /// Modules whose debug information was looked for, with where they are.
    modules: HashSet<(String, Option<Gva>)>,
}

impl Debug {
    /// Finds debug information, and gives it to the resolver.
    pub(super) fn find(kernel: &Kernel, places: &Places, resolver: &mut Resolver) -> Self {
        let tables = kernel.tables.as_ref();
        let release = tables.and_then(|tables| tables.release.clone());
        let beside = places.kernels.as_ref().zip(release.as_ref());
        let beside = beside.map(|(folder, release)| folder.join(release));
        let files = DebugFiles::new(places.vmlinux.clone(), beside.into_iter().collect());
        let image = image(&files, kernel, places, resolver);
        Debug {
            files,
            release,
            image,
            roots: resolver.source_roots(),
            modules: HashSet::new(),
        }
    }

    /// Adds the debug information of modules, as far as it is there.
    pub(super) fn add_modules(&mut self, modules: &[Module], resolver: &mut Resolver) {
        // One that went took its debug information along.
        let there = |known: &(String, Option<Gva>)| {
            let mut all = modules.iter();
            all.any(|module| module.name == known.0 && module.base() == known.1)
        };
        self.modules.retain(there);
        for module in modules {
            if !self.modules.insert((module.name.clone(), module.base())) {
                continue;
            }
            // One of another build is as good as none.
            let found = self.files.module(module, self.release.as_deref());
            if let Ok(Some(image)) = found {
                resolver.add_module_source(module, image);
            }
        }
    }

    /// The name of a source file without the folder that the kernel was built in.
    pub(super) fn short<'f>(&self, file: &'f str) -> &'f str {
        let found = self
            .roots
            .iter()
            .find_map(|root| file.strip_prefix(&**root));
        found.unwrap_or(file).trim_start_matches("./")
    }

    /// The text around a line.
    pub(super) fn read(
        &self,
        file: &str,
        line: u32,
        named: &[PathBuf],
    ) -> Result<SourceText, String> {
        let short = self.short(file);
        let folders: Vec<PathBuf> = named.iter().cloned().chain(self.usual()).collect();
        let found = places(file, short, &folders)
            .into_iter()
            .find(|path| path.is_file());
        let Some(path) = found else {
            let mut looked: Vec<String> = Vec::new();
            looked.extend(folders.iter().map(|folder| folder.display().to_string()));
            let root = file.strip_suffix(short);
            if let Some(root) = root.filter(|root| root.starts_with('/')) {
                looked.push(root.to_owned());
            }
            return Err(format!(
                "{short}:{line} is not in {}. --source DIR, or :source DIR here, says where the \
                 kernel's source is",
                looked.join(", nor in ")
            ));
        };
        let text = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let text = String::from_utf8_lossy(&text);
        let first = line.saturating_sub(SOURCE_LINES).max(1);
        let lines: Vec<String> = text
            .lines()
            .skip(first as usize - 1)
            .take(2 * SOURCE_LINES as usize)
            .map(|line| expand(line, TAB))
            .collect();
        if first as usize + lines.len() <= line as usize {
            return Err(format!(
                "{} has no line {line}: it is not the source that this kernel was built from",
                path.display()
            ));
        }
        Ok(SourceText {
            file: short.to_owned(),
            line,
            first,
            lines,
        })
    }

    /// Where distributions put the source of a kernel.
    fn usual(&self) -> impl Iterator<Item = PathBuf> {
        let release = self.release.iter();
        release.flat_map(|release| {
            let version: Vec<&str> = release.splitn(3, ['.', '-']).take(2).collect();
            [
                PathBuf::from(format!("/usr/src/linux-source-{}", version.join("."))),
                PathBuf::from(format!("/lib/modules/{release}/source")),
            ]
        })
    }
}

/// Where a source file may be: in each folder under its name without the folder it was built in,
/// else under what is left of its name.
fn places(file: &str, short: &str, folders: &[PathBuf]) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for folder in folders {
        all.push(folder.join(short.trim_start_matches('/')));
        let mut rest = Path::new(file.trim_start_matches('/'));
        while !rest.as_os_str().is_empty() {
            all.push(folder.join(rest));
            let mut parts = rest.components();
            parts.next();
            rest = parts.as_path();
        }
    }
    all.push(file.into());
    all
}

/// The kernel's image with debug information.
fn image(
    files: &DebugFiles,
    kernel: &Kernel,
    places: &Places,
    resolver: &mut Resolver,
) -> Result<PathBuf, String> {
    let none = "no source: the kernel's debug image is not here (guest fetch --debug gets a \
                Debian kernel's; --vmlinux FILE names one)";
    let tables = kernel.tables.as_ref().ok_or(none)?;
    let found = files.kernel(tables.build_id.as_ref(), tables.release.as_deref());
    let (image, passed) = found.map_err(|error| error.to_string())?;
    let passed = passed.first().map(ToString::to_string);
    let image = image.ok_or_else(|| passed.unwrap_or_else(|| none.to_owned()))?;
    let path = image.path().to_owned();
    let indexed = places
        .cache
        .as_ref()
        .and_then(|cache| Index::open_or_build(&image, cache, &mut |_, _| {}).ok());
    resolver.set_source(indexed.map_or_else(|| Source::Dwarf(image), Source::Index));
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn debug(release: &str, root: &str) -> Debug {
        Debug {
            files: DebugFiles::new(None, Vec::new()),
            release: Some(release.to_owned()),
            image: Err(String::new()),
            roots: vec![root.to_owned()],
            modules: HashSet::new(),
        }
    }

    #[test]
    fn source_is_found_wherever_it_was_built() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("kernel/fork.c");
        fs::create_dir_all(source.parent().unwrap()).unwrap();
        let text: String = (1..=1000).map(|n| format!("line {n}\n")).collect();
        fs::write(&source, text).unwrap();
        let debug = debug("6.1.0-56-cloud-amd64", "/build/linux-6.1/");
        let here = vec![folder.path().to_owned()];
        for file in ["/build/linux-6.1/kernel/fork.c", "/elsewhere/kernel/fork.c"] {
            let found = debug.read(file, 500, &here).unwrap();
            assert_eq!((found.line, found.first), (500, 300));
            assert_eq!(found.lines[200], "line 500");
        }
        let found = debug
            .read("/build/linux-6.1/kernel/fork.c", 3, &here)
            .unwrap();
        assert_eq!((found.file.as_str(), found.first), ("kernel/fork.c", 1));
        let short = debug
            .read("/build/linux-6.1/kernel/fork.c", 2000, &here)
            .unwrap_err();
        assert!(short.contains("fork.c has no line 2000"), "{short}");
        let none = debug
            .read("/build/linux-6.1/mm/mmap.c", 7, &here)
            .unwrap_err();
        for place in [
            "mm/mmap.c:7",
            folder.path().to_str().unwrap(),
            "/usr/src/linux-source-6.1",
            "/lib/modules/6.1.0-56-cloud-amd64/source",
            "/build/linux-6.1/",
            ":source DIR",
        ] {
            assert!(none.contains(place), "{place}: {none}");
        }
    }
}
