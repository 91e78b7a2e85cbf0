//! Writes "newc" cpio archives, the format the kernel unpacks as its initial root file system
//! (Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! The same entries in the same order always give the same bytes: times, owners and device numbers
//! of the host never enter the archive.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// The kernel's `PATH_MAX`; `init/initramfs.c` skips entries whose name or link body is longer.
const PATH_MAX: usize = 4096;
/// GNU cpio pads its archives to this many bytes, and so do we.
const ARCHIVE_BLOCK: usize = 512;
const HEADER_LEN: usize = 110;
const TRAILER: &[u8] = b"TRAILER!!!";

const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFCHR: u32 = 0o020_000;

/// Why an archive could not be written.
#[derive(Debug, Error)]
pub(crate) enum CpioError {
    /// The name has no place in an archive.
    #[error("{path:?} cannot be a name in the initramfs: {reason}")]
    BadName {
        /// The name as given.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The name or link body is longer than the kernel accepts.
    #[error("{path:?} needs {len} bytes for its name or link, the kernel's limit is {PATH_MAX}")]
    NameTooLong {
        /// The name as given.
        path: PathBuf,
        /// Its length with the closing NUL.
        len: usize,
    },
    /// A file whose size does not fit the header's 8 hexadecimal digits.
    #[error("{path:?} has {len} bytes, a file in an initramfs has at most 4294967295")]
    FileTooLarge {
        /// The name as given.
        path: PathBuf,
        /// Its length.
        len: u64,
    },
}

/// What an archive entry is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Entry<'a> {
    /// A directory.
    Directory,
    /// A regular file with its content.
    File(&'a [u8]),
    /// A symbolic link with its target.
    Symlink(&'a Path),
    /// A character device with its major and minor number.
    CharDevice(u32, u32),
}

/// An archive being written.
#[derive(Debug)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    next_inode: u32,
}

impl Archive {
    /// An empty archive.
    pub(crate) fn new() -> Archive {
        Archive {
            bytes: Vec::new(),
            next_inode: 1,
        }
    }

    /// Appends one entry. Parents must come before their children: the kernel creates entries in
    /// archive order and makes no directories of its own.
    pub(crate) fn add(
        &mut self,
        path: &Path,
        permissions: u32,
        entry: Entry<'_>,
    ) -> Result<(), CpioError> {
        let name = archive_name(path)?;
        let (kind, links, device, body) = match entry {
            Entry::Directory => (S_IFDIR, 2, (0, 0), &[][..]),
            Entry::File(data) => (S_IFREG, 1, (0, 0), data),
            Entry::Symlink(target) => (S_IFLNK, 1, (0, 0), target.as_os_str().as_bytes()),
            Entry::CharDevice(major, minor) => (S_IFCHR, 1, (major, minor), &[][..]),
        };
        // do_symlink() in init/initramfs.c refuses bodies over PATH_MAX, and an empty link is ENOENT.
        if matches!(entry, Entry::Symlink(_)) {
            if body.len() > PATH_MAX {
                return Err(CpioError::NameTooLong {
                    path: path.into(),
                    len: body.len(),
                });
            }
            if body.is_empty() {
                let reason = "a symbolic link needs a target";
                return Err(CpioError::BadName {
                    path: path.into(),
                    reason,
                });
            }
        }
        let Ok(size) = u32::try_from(body.len()) else {
            return Err(CpioError::FileTooLarge {
                path: path.into(),
                len: body.len() as u64,
            });
        };
        let inode = self.next_inode;
        self.next_inode += 1;
        let mode = kind | (permissions & 0o7777);
        self.header(
            [inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1],
            name,
        );
        self.bytes.extend_from_slice(body);
        self.align(4);
        Ok(())
    }

    /// Closes the archive and gives its bytes.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.header([0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0], TRAILER);
        self.align(ARCHIVE_BLOCK);
        self.bytes
    }

    /// Fields in file order: ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor
    /// rdevminor; namesize and check follow.
    fn header(&mut self, fields: [u32; 11], name: &[u8]) {
        let namesize = name.len() as u32 + 1;
        self.bytes.extend_from_slice(b"070701");
        for field in fields.into_iter().chain([namesize, 0]) {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name);
        self.bytes.push(0);
        self.align(4);
    }

    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }
}

/// The name without its leading slash, checked.
fn archive_name(path: &Path) -> Result<&[u8], CpioError> {
    let bytes = path.as_os_str().as_bytes();
    let name = bytes.strip_prefix(b"/").unwrap_or(bytes);
    let bad = |reason| {
        Err(CpioError::BadName {
            path: path.into(),
            reason,
        })
    };
    if name.is_empty() {
        return bad("it is empty");
    }
    if name.contains(&0) {
        return bad("it contains a NUL byte");
    }
    if name == TRAILER {
        return bad("the archive format uses this name to mark its end");
    }
    if name
        .split(|&byte| byte == b'/')
        .any(|part| part.is_empty() || part == b"." || part == b"..")
    {
        return bad("it is not a plain path");
    }
    if name.len() >= PATH_MAX {
        return Err(CpioError::NameTooLong {
            path: path.into(),
            len: name.len() + 1,
        });
    }
    debug_assert_eq!(HEADER_LEN, 6 + 13 * 8);
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (name, mode, rdev, body, inode)
    type Listed = (String, u32, (u32, u32), Vec<u8>, u32);

    /// A second implementation, of the reading side.
    fn list(archive: &[u8]) -> Vec<Listed> {
        let mut found = Vec::new();
        let mut at = 0;
        loop {
            assert_eq!(&archive[at..at + 6], b"070701", "magic at {at}");
            let header_at = at;
            let field = |n: usize| {
                let start = header_at + 6 + n * 8;
                let digits = std::str::from_utf8(&archive[start..start + 8]).unwrap();
                u32::from_str_radix(digits, 16).unwrap()
            };
            let name_at = at + HEADER_LEN;
            let name_len = field(11) as usize;
            assert_eq!(archive[name_at + name_len - 1], 0);
            let name =
                String::from_utf8(archive[name_at..name_at + name_len - 1].to_vec()).unwrap();
            if name == "TRAILER!!!" {
                return found;
            }
            assert_eq!((field(2), field(3), field(5)), (0, 0, 0), "uid, gid, mtime");
            let body_at = (name_at + name_len).next_multiple_of(4);
            let body = archive[body_at..body_at + field(6) as usize].to_vec();
            at = (body_at + body.len()).next_multiple_of(4);
            found.push((name, field(1), (field(9), field(10)), body, field(0)));
        }
    }

    #[test]
    fn every_kind_of_entry_reads_back() {
        let mut archive = Archive::new();
        archive
            .add(Path::new("/dev"), 0o755, Entry::Directory)
            .unwrap();
        archive
            .add(Path::new("/dev/console"), 0o600, Entry::CharDevice(5, 1))
            .unwrap();
        archive
            .add(Path::new("init"), 0o755, Entry::File(b"hello"))
            .unwrap();
        archive
            .add(
                Path::new("/sh"),
                0o777,
                Entry::Symlink(Path::new("busybox")),
            )
            .unwrap();
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 512, 0);
        let entries = list(&bytes);
        assert_eq!(entries[0], ("dev".into(), 0o040_755, (0, 0), vec![], 1));
        assert_eq!(
            entries[1],
            ("dev/console".into(), 0o020_600, (5, 1), vec![], 2)
        );
        assert_eq!(
            entries[2],
            ("init".into(), 0o100_755, (0, 0), b"hello".to_vec(), 3)
        );
        assert_eq!(
            entries[3],
            ("sh".into(), 0o120_777, (0, 0), b"busybox".to_vec(), 4)
        );
    }

    #[test]
    fn names_the_kernel_would_refuse_are_refused() {
        let mut archive = Archive::new();
        for name in ["/", "", "/a//b", "/a/../b", "/a\0b", "/TRAILER!!!"] {
            let refused = archive.add(Path::new(name), 0o755, Entry::Directory);
            assert!(
                matches!(refused, Err(CpioError::BadName { .. })),
                "{name:?}"
            );
        }
        let long = "a".repeat(PATH_MAX);
        let refused = archive.add(Path::new(&long), 0o755, Entry::Directory);
        assert!(matches!(
            refused,
            Err(CpioError::NameTooLong { len: 4097, .. })
        ));
        let refused = archive.add(Path::new("/l"), 0o777, Entry::Symlink(Path::new("")));
        assert!(matches!(refused, Err(CpioError::BadName { .. })));
        assert!(
            archive
                .add(Path::new(&long[1..]), 0o755, Entry::Directory)
                .is_ok()
        );
    }
}
