//! What a guest is made of when the user brings nothing: a fetched kernel and an initial file
//! system.
//!
//! [`fetch`] gets Debian kernels and busybox with the distribution's own tools into the [`cache`];
//! [`pack`] makes the initial file system, for a shell or for one command of the host.

mod apt;
mod busybox;
pub(crate) mod cache;
mod cpio;
mod debug_exit;
mod elf;
pub(crate) mod fetch;
mod host;
mod init;
mod interpreters;
mod ldcache;
pub(crate) mod pack;
pub(crate) mod programs;
mod tree;
mod unpacked;
pub(crate) mod version;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a guest could not be made.
#[derive(Debug, Error)]
pub(crate) enum GuestError {
    /// No busybox in the cache.
    #[error("there is no busybox in {place:?} yet; to get one, type:\n  colinux-trace guest fetch")]
    NoBusybox {
        /// Where it would be.
        place: PathBuf,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {path:?}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The command cannot be packed.
    #[error(transparent)]
    Pack(#[from] pack::PackError),
}

impl GuestError {
    /// The exit code for this error: 69 where the host lacks something, 2 where the command line
    /// asks for what cannot be.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            GuestError::NoBusybox { .. } | GuestError::Io { .. } => EX_UNAVAILABLE,
            GuestError::Pack(_) => EX_USAGE,
        }
    }
}

impl fetch::FetchError {
    /// The exit code for this error: everything here is a matter of the host.
    pub(crate) fn exit_code(&self) -> u8 {
        EX_UNAVAILABLE
    }
}

const EX_USAGE: u8 = 2;
const EX_UNAVAILABLE: u8 = 69;

/// Makes the initial file system: for a shell, or for the command `argv` with `extra` files.
/// `modules` are loaded first ([`modules`] finds those for disks and networks).
pub(crate) fn initramfs(
    cache: &cache::Cache,
    argv: Option<&[OsString]>,
    extra: &[PathBuf],
    modules: &[PathBuf],
) -> Result<Vec<u8>, GuestError> {
    let place = cache.root().join("busybox");
    let busybox = match fs::read(&place) {
        Ok(data) => data,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(GuestError::NoBusybox { place });
        }
        Err(source) => {
            return Err(GuestError::Io {
                action: "read",
                path: place,
                source,
            });
        }
    };
    Ok(match argv {
        None => pack::default_initramfs(&busybox, modules)?,
        Some(argv) => pack::command_initramfs(&busybox, argv, extra, modules)?,
    })
}

/// The module files a fetched kernel needs for disks and for a network card; none for a kernel from
/// elsewhere, which has to have them built in.
#[expect(dead_code, reason = "disks and network cards are not built yet")]
pub(crate) fn modules(kernel: &Path, disk: bool, net: bool) -> Vec<PathBuf> {
    let mut names = Vec::new();
    if disk {
        names.extend_from_slice(fetch::DISK_MODULES);
    }
    if net {
        names.extend(
            fetch::NET_MODULES
                .iter()
                .filter(|name| !disk || !fetch::DISK_MODULES.contains(name)),
        );
    }
    cache::Cache::modules(kernel, &names)
}

/// The same, written to a file, for other machines to boot; gives its length.
pub(crate) fn write_initramfs(
    cache: &cache::Cache,
    argv: Option<&[OsString]>,
    extra: &[PathBuf],
    modules: &[PathBuf],
    out: &Path,
) -> Result<usize, GuestError> {
    let data = initramfs(cache, argv, extra, modules)?;
    cache::write_atomically(out, &data, 0o644).map_err(|source| GuestError::Io {
        action: "write",
        path: out.to_path_buf(),
        source,
    })?;
    Ok(data.len())
}
