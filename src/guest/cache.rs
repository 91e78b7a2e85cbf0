//! The directory where fetched kernels and busybox are kept.
//!
//! ```text
//! CACHE/busybox                       a static busybox
//! CACHE/kernels/RELEASE/vmlinuz       and config, and vmlinux where it was asked for
//! CACHE/apt/                          a private state directory for apt
//! ```
//!
//! Everything appears by a rename, so two processes may fill the cache at once and a reader never
//! sees half a file.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempDir};
use thiserror::Error;

use super::version::{self, Flavour};

/// Why the cache could not be used.
#[derive(Debug, Error)]
pub(crate) enum CacheError {
    /// Neither `XDG_CACHE_HOME` nor `HOME` names a directory.
    #[error("no cache directory: neither XDG_CACHE_HOME nor HOME is set to an absolute path")]
    NoHome,
    /// The file system refused.
    #[error("cannot {action} {path:?}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// The cache directory.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The user's cache: `$XDG_CACHE_HOME/colinux-trace`, else `~/.cache/colinux-trace` (XDG base
    /// directory specification: relative values are to be ignored).
    pub(crate) fn open() -> Result<Cache, CacheError> {
        let absolute = |name| {
            env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let base = absolute("XDG_CACHE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
            .ok_or(CacheError::NoHome)?;
        Ok(Cache::at(base.join("colinux-trace")))
    }

    /// A cache in a directory of the caller's choice; nothing is created yet.
    pub(crate) fn at(root: PathBuf) -> Cache {
        Cache { root }
    }

    /// The directory itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The cached busybox, if there is one.
    pub(crate) fn busybox(&self) -> Option<PathBuf> {
        Some(self.root.join("busybox")).filter(|path| path.is_file())
    }

    /// The directory of one kernel, whether it is there or not.
    pub(crate) fn kernel_dir(&self, release: &str) -> PathBuf {
        self.root.join("kernels").join(release)
    }

    /// The cached kernel of this release, if it is there.
    pub(crate) fn kernel(&self, release: &str) -> Option<PathBuf> {
        Some(self.kernel_dir(release).join("vmlinuz")).filter(|path| path.is_file())
    }

    /// The releases in the cache, newest first.
    pub(crate) fn releases(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.root.join("kernels")) else {
            return Vec::new();
        };
        let mut found: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|release| self.kernel(release).is_some())
            .collect();
        found.sort_by(|a, b| version::compare(b, a).then_with(|| a.cmp(b)));
        found
    }

    /// The kernel to boot when none is named: the newest cached one of this flavour and, if given,
    /// of this version ("6.1" matches "6.1.0-50-cloud-amd64", not "6.12…").
    pub(crate) fn newest_kernel(&self, flavour: Flavour, wanted: Option<&str>) -> Option<PathBuf> {
        self.releases()
            .iter()
            .find(|release| version::matches(release, flavour, wanted))
            .and_then(|release| self.kernel(release))
    }

    /// The files of these modules beside a cached kernel, in this order. One that is not there is
    /// built into that kernel.
    // Called by `guest::modules` alone, which waits for disks and network cards.
    pub(crate) fn modules(kernel: &Path, names: &[&str]) -> Vec<PathBuf> {
        let dir = kernel.with_file_name("modules");
        let file = |name: &&str| {
            let endings = ["ko", "ko.xz", "ko.zst", "ko.gz"].into_iter();
            let mut places = endings.map(|ending| dir.join(format!("{name}.{ending}")));
            places.find(|place| place.is_file())
        };
        names.iter().filter_map(file).collect()
    }

    /// An empty directory in the cache's file system, for work that ends in [`Cache::keep_dir`].
    pub(crate) fn scratch(&self) -> Result<TempDir, CacheError> {
        make_dir(&self.root)?;
        tempfile::Builder::new()
            .prefix(".tmp-")
            .tempdir_in(&self.root)
            .map_err(io_error("create a temporary directory in", &self.root))
    }

    /// Moves a complete directory to its place. If another process was quicker, its copy stays.
    pub(crate) fn keep_dir(&self, made: &Path, place: &Path) -> Result<(), CacheError> {
        if let Some(parent) = place.parent() {
            make_dir(parent)?;
        }
        match fs::rename(made, place) {
            // Renaming a directory onto one that is not empty fails: somebody else has put it there.
            Err(_) if place.is_dir() => Ok(()),
            done => done.map_err(io_error("move the fetched files to", place)),
        }
    }
}

/// Writes a file through a temporary one beside it, so that it is either old or new, never half.
pub(crate) fn write_atomically(place: &Path, data: &[u8], mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let dir = place
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut file = NamedTempFile::with_prefix_in(".tmp-", dir)?;
    file.write_all(data)?;
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(mode))?;
    file.persist(place).map_err(|failed| failed.error)?;
    Ok(())
}

fn make_dir(path: &Path) -> Result<(), CacheError> {
    fs::create_dir_all(path).map_err(io_error("create the directory", path))
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CacheError {
    let path = path.to_path_buf();
    move |source| CacheError::Io {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(cache: &Cache, release: &str) {
        let made = cache.scratch().unwrap();
        fs::write(made.path().join("vmlinuz"), release).unwrap();
        cache
            .keep_dir(made.path(), &cache.kernel_dir(release))
            .unwrap();
    }

    #[test]
    fn the_newest_matching_kernel_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().join("cache"));
        assert_eq!(cache.newest_kernel(Flavour::Cloud, None), None);
        for release in [
            "6.1.0-9-cloud-amd64",
            "6.12.117+deb12-cloud-amd64",
            "6.1.0-50-cloud-amd64",
            "6.1.0-51-amd64",
        ] {
            put(&cache, release);
        }
        let release_of = |flavour, wanted| {
            let kernel: PathBuf = cache.newest_kernel(flavour, wanted)?;
            fs::read_to_string(kernel).ok()
        };
        assert_eq!(
            release_of(Flavour::Cloud, None).unwrap(),
            "6.12.117+deb12-cloud-amd64"
        );
        assert_eq!(
            release_of(Flavour::Cloud, Some("6.1")).unwrap(),
            "6.1.0-50-cloud-amd64"
        );
        assert_eq!(release_of(Flavour::Amd64, None).unwrap(), "6.1.0-51-amd64");
        assert_eq!(release_of(Flavour::Rt, None), None);
    }

    #[test]
    fn modules_are_found_beside_their_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let modules = dir.path().join("modules");
        fs::create_dir(&modules).unwrap();
        fs::write(modules.join("virtio_blk.ko.xz"), "").unwrap();
        fs::write(modules.join("virtio.ko"), "").unwrap();
        let found = Cache::modules(
            &dir.path().join("vmlinuz"),
            &["virtio", "ext4", "virtio_blk"],
        );
        assert_eq!(
            found,
            [modules.join("virtio.ko"), modules.join("virtio_blk.ko.xz")]
        );
        assert!(Cache::modules(Path::new("/nonexistent/vmlinuz"), &["virtio"]).is_empty());
    }

    #[test]
    fn the_first_complete_directory_stays_and_files_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().join("cache"));
        put(&cache, "6.1.0-9-cloud-amd64");
        let late = cache.scratch().unwrap();
        fs::write(late.path().join("vmlinuz"), "late").unwrap();
        let place = cache.kernel_dir("6.1.0-9-cloud-amd64");
        cache.keep_dir(late.path(), &place).unwrap();
        assert_eq!(
            fs::read(place.join("vmlinuz")).unwrap(),
            b"6.1.0-9-cloud-amd64"
        );

        let busybox = cache.root().join("busybox");
        assert_eq!(cache.busybox(), None);
        write_atomically(&busybox, b"one", 0o755).unwrap();
        write_atomically(&busybox, b"two", 0o755).unwrap();
        assert_eq!(fs::read(cache.busybox().unwrap()).unwrap(), b"two");
        assert_eq!(
            fs::read_dir(cache.root()).unwrap().count(),
            3,
            "no temporary file is left"
        );
    }
}
