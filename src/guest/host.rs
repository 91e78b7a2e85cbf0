//! Takes files of the host into the guest's tree, at the same absolute paths, with what they need.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::elf::{self, Needs};
use super::interpreters;
use super::ldcache::LdCache;
use super::pack::PackError;
use super::programs::{expand_origin, find_program, fits, script_line};
use super::tree::{Tree, parts_reversed};

/// Where loaders look without being told: Debian's multiarch directories, then what others use.
const DEFAULT_DIRS: &[&str] = &[
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
];
/// The guest's PATH; a program found elsewhere gets a link in the first of the `bin`s.
const GUEST_PATH: &[&str] = &[
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];
const LD_CACHE: &str = "/etc/ld.so.cache";
/// File systems the guest has its own of.
pub(crate) const NOT_FROM_HOST: &[&str] = &["/dev", "/proc", "/sys"];
/// The guest holds the archive and its unpacked files in memory at once.
const MAX_CONTENT: u64 = 1 << 30;
/// As many links as Linux follows in one path walk (path_resolution(7)).
const MAX_LINKS: usize = 40;
/// Interpreters of interpreters; the kernel gives up after 5 (fs/exec.c).
const MAX_SCRIPTS: usize = 5;

/// How much is asked of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strictness {
    /// It must run: a missing library or interpreter is an error.
    MustRun,
    /// It may be run: what it needs is packed where the host has it.
    MayRun,
    /// It lies in a packed directory: libraries are packed for it, interpreters are not (a standard
    /// library is full of scripts nobody starts).
    Content,
}

/// Packs files of the host into a tree.
#[derive(Debug)]
pub(crate) struct Host {
    /// The guest's files so far.
    pub(crate) tree: Tree,
    ld_cache: LdCache,
    done: BTreeSet<PathBuf>,
    taken: u64,
}

impl Host {
    /// A packer with an empty tree.
    pub(crate) fn new() -> Host {
        let ld_cache = LdCache::parse(&fs::read(LD_CACHE).unwrap_or_default());
        Host {
            tree: Tree::new(),
            ld_cache,
            done: BTreeSet::new(),
            taken: 0,
        }
    }

    /// Adds the directories and links that lead to `path`, and gives where it really is.
    pub(crate) fn way(&mut self, path: &Path) -> Result<PathBuf, PackError> {
        let mut todo = parts_reversed(path);
        let mut here = PathBuf::from("/");
        let mut links = 0;
        while let Some(part) = todo.pop() {
            if part == ".." {
                here.pop();
                continue;
            }
            here.push(part);
            let metadata = fs::symlink_metadata(&here).map_err(|e| unreadable(&here, e))?;
            if metadata.is_dir() {
                let sticky = metadata.permissions().mode() & 0o1000 != 0;
                self.tree
                    .directory(&here, if sticky { 0o1777 } else { 0o755 });
            } else if metadata.is_symlink() {
                links += 1;
                if links > MAX_LINKS {
                    return Err(PackError::LinkLoop { path: path.into() });
                }
                let target = fs::read_link(&here).map_err(|e| unreadable(&here, e))?;
                self.tree.symlink(&here, &target);
                here.pop();
                if target.is_absolute() {
                    here = PathBuf::from("/");
                }
                todo.extend(parts_reversed(&target));
            }
        }
        Ok(here)
    }

    /// Adds a file and, if it is a program, its interpreter and libraries.
    pub(crate) fn program(&mut self, path: &Path, strict: Strictness) -> Result<(), PackError> {
        self.program_at(path, strict, 0)
    }

    fn program_at(
        &mut self,
        path: &Path,
        strict: Strictness,
        scripts: usize,
    ) -> Result<(), PackError> {
        let Some((place, data)) = self.add_file(path)? else {
            return Ok(());
        };
        if elf::is_elf(&data) {
            let needs = match elf::needs(&data) {
                Ok(needs) => needs,
                Err(_) if strict != Strictness::MustRun => return Ok(()),
                Err(source) => {
                    return Err(PackError::Unsupported {
                        path: path.into(),
                        source,
                    });
                }
            };
            self.elf(&place, &needs, &[], strict)?;
            if strict == Strictness::Content {
                return Ok(());
            }
            for dir in interpreters::library_dirs(path) {
                self.directory(&dir, &interpreters::is_left_out)?;
            }
        } else if strict != Strictness::Content
            && let Some(line) = script_line(&data)
        {
            let interpreted = scripts < MAX_SCRIPTS && self.interpreter(path, &line, scripts)?;
            if !interpreted && strict == Strictness::MustRun {
                let interpreter = line.into_iter().next().unwrap_or_default().into();
                return Err(PackError::MissingInterpreter {
                    path: path.into(),
                    interpreter,
                });
            }
        }
        Ok(())
    }

    /// Adds what a `#!` line names; false if the host does not have it.
    fn interpreter(
        &mut self,
        script: &Path,
        line: &[OsString],
        scripts: usize,
    ) -> Result<bool, PackError> {
        let Some(interpreter) = line.first().map(PathBuf::from) else {
            return Ok(false);
        };
        if !interpreter.is_absolute() || !interpreter.is_file() || interpreter == script {
            return Ok(false);
        }
        self.program_at(&interpreter, Strictness::MustRun, scripts + 1)?;
        if interpreter.file_name() == Some(OsStr::new("env")) {
            let is_name = |word: &&OsString| !word.as_bytes().starts_with(b"-");
            let no_assignment = |word: &&OsString| !word.as_bytes().contains(&b'=');
            let name = line[1..]
                .iter()
                .find(|word| is_name(word) && no_assignment(word));
            let Some(name) = name else { return Ok(true) };
            let Some(found) = find_program(name) else {
                return Ok(false);
            };
            self.program_at(&found, Strictness::MustRun, scripts + 1)?;
            self.make_reachable(name, &found);
        }
        Ok(true)
    }

    /// Lets the guest find a program by name that lies outside its PATH.
    pub(crate) fn make_reachable(&mut self, name: &OsStr, program: &Path) {
        let on_path = GUEST_PATH
            .iter()
            .any(|dir| Path::new(dir).join(name) == program);
        if !on_path {
            self.tree
                .symlink(&Path::new("/usr/local/bin").join(name), program);
        }
    }

    /// Adds a directory and everything in it but the names `left_out` says, sorted.
    pub(crate) fn directory(
        &mut self,
        path: &Path,
        left_out: &dyn Fn(&OsStr) -> bool,
    ) -> Result<(), PackError> {
        let place = self.way(path)?;
        let guests_own = NOT_FROM_HOST.iter().any(|dir| place.starts_with(dir));
        if guests_own || !self.done.insert(place.clone()) {
            return Ok(());
        }
        let entries = fs::read_dir(&place).map_err(|e| unreadable(&place, e))?;
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry.map_err(|e| unreadable(&place, e))?.file_name());
        }
        names.sort();
        for name in names.iter().filter(|name| !left_out(name)) {
            let entry = place.join(name);
            match fs::metadata(&entry) {
                // A link to a directory is kept as a link: its target is packed only if it is asked
                // for, else `/usr/lib/x -> /` would pack the host.
                Ok(found) if found.is_dir() && entry.is_symlink() => {
                    self.way(&entry)?;
                }
                Ok(found) if found.is_dir() => self.directory(&entry, left_out)?,
                Ok(found) if found.is_file() => self.program(&entry, Strictness::Content)?,
                Ok(_) => {}
                // A dangling link is a link all the same.
                Err(_) => {
                    if let Ok(target) = fs::read_link(&entry) {
                        self.tree.symlink(&entry, &target);
                    }
                }
            }
        }
        Ok(())
    }

    /// Adds one file; `None` if it is there already.
    fn add_file(&mut self, path: &Path) -> Result<Option<(PathBuf, Vec<u8>)>, PackError> {
        let place = self.way(path)?;
        if !self.done.insert(place.clone()) {
            return Ok(None);
        }
        let metadata = fs::metadata(&place).map_err(|e| unreadable(&place, e))?;
        if !metadata.is_file() {
            return Err(PackError::NotAFile { path: path.into() });
        }
        // Asked before reading: `--pack /` must not fill the memory first.
        self.taken = self.taken.saturating_add(metadata.len());
        if self.taken > MAX_CONTENT {
            return Err(PackError::TooLarge {
                len: self.taken,
                limit: MAX_CONTENT,
            });
        }
        let data = fs::read(&place).map_err(|e| unreadable(&place, e))?;
        // The umask of whoever made the file is not part of what the guest is given.
        let executable = metadata.permissions().mode() & 0o111 != 0;
        self.tree
            .file(&place, if executable { 0o755 } else { 0o644 }, data.clone());
        Ok(Some((place, data)))
    }

    /// Adds what an ELF file at `path` needs. `inherited` are the DT_RPATHs of those that load it.
    fn elf(
        &mut self,
        path: &Path,
        needs: &Needs,
        inherited: &[PathBuf],
        strict: Strictness,
    ) -> Result<(), PackError> {
        if let Some(loader) = &needs.interpreter {
            if !loader.is_file() {
                if strict != Strictness::MustRun {
                    return Ok(());
                }
                let (path, interpreter) = (path.into(), loader.clone());
                return Err(PackError::MissingInterpreter { path, interpreter });
            }
            self.add_file(loader)?;
        }
        let own = if needs.runpath.is_empty() {
            &needs.rpath[..]
        } else {
            &[]
        };
        let mut rpath: Vec<PathBuf> = own.iter().map(|dir| expand_origin(dir, path)).collect();
        rpath.extend_from_slice(inherited);
        let runpath: Vec<PathBuf> = needs
            .runpath
            .iter()
            .map(|dir| expand_origin(dir, path))
            .collect();
        for library in &needs.libraries {
            let Some(found) = self.find_library(library, &rpath, &runpath)? else {
                if strict != Strictness::MustRun {
                    continue;
                }
                let (library, needed_by) = (library.clone(), path.into());
                return Err(PackError::MissingLibrary { library, needed_by });
            };
            if let Some((_, data)) = self.add_file(&found)? {
                let needs = elf::needs(&data).unwrap_or_default();
                self.elf(&found, &needs, &rpath, strict)?;
            }
            if library.as_os_str().as_bytes().starts_with(b"libtinfo") {
                self.terminal_description()?;
            }
        }
        Ok(())
    }

    /// ld.so(8): RPATH, RUNPATH, the cache, the default directories.
    fn find_library(
        &mut self,
        name: &Path,
        rpath: &[PathBuf],
        runpath: &[PathBuf],
    ) -> Result<Option<PathBuf>, PackError> {
        if name.as_os_str().as_bytes().contains(&b'/') {
            return Ok(Some(name.to_path_buf()).filter(|path| fits(path)));
        }
        let beside = rpath
            .iter()
            .chain(runpath)
            .map(|dir| dir.join(name))
            .find(|path| fits(path));
        if beside.is_some() {
            return Ok(beside);
        }
        if let Some(cached) = self.ld_cache.find(name).filter(|path| fits(path)) {
            let cached = cached.to_path_buf();
            let default = DEFAULT_DIRS
                .iter()
                .any(|dir| cached.parent() == Some(Path::new(dir)));
            if !default {
                // The guest's loader finds it the way the host's does.
                self.add_file(Path::new(LD_CACHE))?;
            }
            return Ok(Some(cached));
        }
        Ok(DEFAULT_DIRS
            .iter()
            .map(|dir| Path::new(dir).join(name))
            .find(|path| fits(path)))
    }

    /// The guest's TERM is `linux`; programs with line editing look its abilities up.
    fn terminal_description(&mut self) -> Result<(), PackError> {
        let places = ["/lib/terminfo/l/linux", "/usr/share/terminfo/l/linux"];
        if let Some(place) = places.iter().map(Path::new).find(|place| place.is_file()) {
            self.add_file(place)?;
        }
        Ok(())
    }
}

fn unreadable(path: &Path, source: io::Error) -> PackError {
    PackError::Unreadable {
        path: path.into(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_on_the_way_are_kept_and_directories_sorted() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir_all(root.join("real/sub")).unwrap();
        fs::write(root.join("real/sub/b"), "b").unwrap();
        fs::write(root.join("real/a"), "a").unwrap();
        symlink("real", root.join("link")).unwrap();
        symlink("nowhere", root.join("real/dangling")).unwrap();
        let mut host = Host::new();
        host.directory(&root.join("link"), &|name| name == "left-out")
            .unwrap();
        for name in ["link", "real", "real/sub/b", "real/a", "real/dangling"] {
            assert!(host.tree.contains(&root.join(name)), "{name}");
        }
        assert_eq!(host.tree.content_len(), 2);

        symlink("loop", root.join("loop")).unwrap();
        assert!(matches!(
            host.way(&root.join("loop/x")),
            Err(PackError::LinkLoop { .. })
        ));
        let missing = host.program(&root.join("missing"), Strictness::MustRun);
        assert!(matches!(missing, Err(PackError::Unreadable { .. })));
    }

    #[test]
    fn a_script_without_its_interpreter_is_refused_only_if_it_must_run() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("script");
        fs::write(&script, "#!/nonexistent/interpreter -x\n").unwrap();
        assert!(Host::new().program(&script, Strictness::MayRun).is_ok());
        let refused = Host::new().program(&script, Strictness::MustRun);
        assert!(
            matches!(refused, Err(PackError::MissingInterpreter { interpreter, .. })
                if interpreter == Path::new("/nonexistent/interpreter"))
        );
    }
}
