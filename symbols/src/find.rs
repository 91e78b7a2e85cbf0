//! Where debug images are: the one that was named, beside the kernel, and the places where
//! distributions put them.
//!
//! Whatever is found is believed by its build id alone. What cannot be used is passed over with a
//! reason, and the search goes on; only an image that somebody named and that is of another build
//! ends it.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::addr::LinkAddr;
use crate::dwarf::DebugImage;
use crate::error::SymbolError;
use crate::image::BuildId;
use crate::modules::Module;

/// A search path for debug images.
#[derive(Debug, Default)]
pub struct DebugFiles {
    named: Option<PathBuf>,
    beside: Vec<PathBuf>,
    /// Folders that were named, for modules.
    folders: Vec<PathBuf>,
    system: PathBuf,
    /// Modules below `system`, by name; read once, since the tree has a thousand files.
    modules: OnceLock<HashMap<String, PathBuf>>,
}

/// A file that was there and could not be used.
#[derive(Debug)]
pub struct PassedOver {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub why: SymbolError,
}

impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why {
            // These name the file themselves.
            SymbolError::Io { .. } | SymbolError::WrongBuild { .. } => self.why.fmt(f),
            why => write!(f, "{}: {why}", self.path.display()),
        }
    }
}

/// Where Debian and others put debug images.
pub const SYSTEM: &str = "/usr/lib/debug";

/// Folders below a kernel's modules are a handful deep.
const MAX_DEPTH: u32 = 12;

impl DebugFiles {
    /// The search path: `named` first, then the folders `beside` the kernel, then the system's.
    pub fn new(named: Option<PathBuf>, beside: Vec<PathBuf>) -> Self {
        Self::with_system(named, beside, PathBuf::from(SYSTEM))
    }

    /// The same with another folder for the system's.
    pub fn with_system(named: Option<PathBuf>, beside: Vec<PathBuf>, system: PathBuf) -> Self {
        Self {
            named,
            beside,
            folders: Vec::new(),
            system,
            modules: OnceLock::new(),
        }
    }

    /// Looks for modules in these folders and below them first.
    #[must_use]
    pub fn with_modules_in(mut self, folders: Vec<PathBuf>) -> Self {
        self.folders = folders;
        self
    }

    /// The file that was named.
    pub fn named(&self) -> Option<&Path> {
        self.named.as_deref()
    }

    /// The debug image of a kernel, and what was passed over on the way.
    ///
    /// An error only when the named file belongs to another build.
    pub fn kernel(
        &self,
        build_id: Option<&BuildId>,
        release: Option<&str>,
    ) -> Result<(Option<DebugImage>, Vec<PassedOver>), SymbolError> {
        let mut passed = Vec::new();
        if let Some(path) = &self.named {
            match DebugImage::open(path, build_id) {
                Ok(image) => return Ok((Some(image), passed)),
                Err(wrong @ SymbolError::WrongBuild { .. }) => return Err(wrong),
                Err(why) => passed.push(PassedOver {
                    path: path.clone(),
                    why,
                }),
            }
        }
        // Nobody vouches for a file that was only found: without a build id it is not believed.
        let Some(build_id) = build_id else {
            return Ok((None, passed));
        };
        for path in self.kernel_places(build_id, release) {
            if !path.exists() {
                continue;
            }
            match DebugImage::open(&path, Some(build_id)) {
                Ok(image) => return Ok((Some(image), passed)),
                Err(why) => passed.push(PassedOver { path, why }),
            }
        }
        Ok((None, passed))
    }

    /// Every place where the debug image of a kernel may be, in order, the named one left out.
    pub fn kernel_places(&self, build_id: &BuildId, release: Option<&str>) -> Vec<PathBuf> {
        let mut places: Vec<PathBuf> = Vec::new();
        for folder in &self.beside {
            places.push(folder.join("vmlinux"));
            places.extend(release.map(|r| folder.join(format!("vmlinux-{r}"))));
        }
        if let Some(release) = release {
            places.push(self.system.join(format!("boot/vmlinux-{release}")));
            places.push(self.system.join(format!("lib/modules/{release}/vmlinux")));
        }
        places.extend(self.by_build_id(build_id));
        places
    }

    /// `.build-id/ab/cdef….debug`.
    fn by_build_id(&self, build_id: &BuildId) -> Option<PathBuf> {
        let text = build_id.to_string();
        let (first, rest) = text.split_at_checked(2)?;
        Some(self.system.join(format!(".build-id/{first}/{rest}.debug")))
    }

    /// The debug image of a module, placed where the guest has it; `None` when there is none. An
    /// error for one that is there and is of another build, or damaged.
    pub fn module(
        &self,
        module: &Module,
        release: Option<&str>,
    ) -> Result<Option<DebugImage>, PassedOver> {
        let Some(path) = self.module_path(module, release) else {
            return Ok(None);
        };
        let place = |section: &str| {
            let at = module.section(section)?;
            // What was freed after loading is another's by now.
            module.contains(at).then_some(LinkAddr(at.0))
        };
        match DebugImage::open_module(&path, module.build_id.as_ref(), &place) {
            Ok(image) => Ok(Some(image)),
            Err(why) => Err(PassedOver { path, why }),
        }
    }

    /// Where the debug image of a module is, if it is anywhere.
    pub fn module_path(&self, module: &Module, release: Option<&str>) -> Option<PathBuf> {
        let plain = plain_name(&module.name);
        let named = self
            .folders
            .iter()
            .map(|folder| (folder.clone(), MAX_DEPTH));
        let beside = self.beside.iter().map(|folder| (folder.join("debug"), 1));
        let beside = named.chain(beside).filter_map(|(folder, depth)| {
            let mut all = HashMap::new();
            collect_modules(&folder, depth, &mut all);
            all.remove(&plain)
        });
        let by_id = || self.by_build_id(module.build_id.as_ref()?);
        let in_tree = || {
            let release = release?;
            let tree = self.modules.get_or_init(|| {
                let mut all = HashMap::new();
                let root = self.system.join("lib/modules").join(release);
                collect_modules(&root, MAX_DEPTH, &mut all);
                all
            });
            tree.get(&plain).cloned()
        };
        let mut places = beside.chain(by_id()).filter(|path| path.is_file());
        places.next().or_else(in_tree)
    }
}

/// A module's name: its file may have dashes where the kernel has underscores.
fn plain_name(name: &str) -> String {
    name.replace('-', "_")
}

fn collect_modules(folder: &Path, depth: u32, into: &mut HashMap<String, PathBuf>) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries {
        let path = entry.path();
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            if depth > 1 {
                collect_modules(&path, depth - 1, into);
            }
            continue;
        }
        let name = path.file_name().and_then(|n| n.to_str());
        let stem = name.and_then(|n| {
            n.strip_suffix(".ko")
                .or_else(|| n.strip_suffix(".ko.debug"))
        });
        if let Some(stem) = stem {
            into.insert(plain_name(stem), path.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Gva;
    use crate::modules::{ModuleState, Region, RegionKind};

    fn id() -> BuildId {
        BuildId::new([0xab, 0xcd, 0xef])
    }

    #[test]
    fn places_are_searched_in_order() {
        let files = DebugFiles::new(None, vec!["/cache/6.1".into()]);
        let places: Vec<String> = files
            .kernel_places(&id(), Some("6.1-x"))
            .iter()
            .map(|p| p.display().to_string())
            .collect();
        let expected = [
            "/cache/6.1/vmlinux",
            "/cache/6.1/vmlinux-6.1-x",
            "/usr/lib/debug/boot/vmlinux-6.1-x",
            "/usr/lib/debug/lib/modules/6.1-x/vmlinux",
            "/usr/lib/debug/.build-id/ab/cdef.debug",
        ];
        assert_eq!(places, expected);
    }

    #[test]
    fn what_cannot_be_used_is_passed_over_with_a_sentence() {
        let dir = tempfile::tempdir().expect("folder");
        let beside = dir.path().to_owned();
        fs::write(beside.join("vmlinux"), b"#!/bin/sh\n").expect("file");
        let files = DebugFiles::with_system(
            Some(beside.join("nowhere")),
            vec![beside.clone()],
            beside.join("system"),
        );
        let (found, passed) = files.kernel(Some(&id()), Some("6.1-x")).expect("search");
        assert!(found.is_none());
        let said: Vec<String> = passed.iter().map(PassedOver::to_string).collect();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said[0].starts_with("cannot read ") && said[0].contains("nowhere"),
            "{said:?}"
        );
        assert!(said[1].ends_with("/vmlinux: not an ELF image: it begins with 23 21 2f 62 where 7f 45 4c 46 is expected"), "{said:?}");
    }

    #[test]
    fn modules_are_found_by_their_plain_name() {
        let dir = tempfile::tempdir().expect("folder");
        let tree = dir.path().join("lib/modules/6.1-x/kernel/drivers/char");
        fs::create_dir_all(&tree).expect("folder");
        fs::write(tree.join("virtio-rng.ko"), b"").expect("file");
        let files = DebugFiles::with_system(None, Vec::new(), dir.path().to_owned());
        let region = Region {
            from: Gva(0xffff_ffff_c000_0000),
            size: 0x1000,
            kind: RegionKind::Text,
        };
        let module = Module::for_test("virtio_rng", ModuleState::Live, vec![region], vec![]);
        let failed = files
            .module(&module, Some("6.1-x"))
            .expect_err("it is empty");
        let said = failed.to_string();
        assert!(
            said.contains("virtio-rng.ko: not an ELF image: it begins with nothing"),
            "{said}"
        );
        let other = Module::for_test("fuse", ModuleState::Live, vec![], vec![]);
        assert!(
            files
                .module(&other, Some("6.1-x"))
                .expect("search")
                .is_none()
        );
    }
}
