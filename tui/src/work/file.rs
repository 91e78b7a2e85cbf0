//! What becomes of the file while it is open.

use std::fs::{self, File, TryLockError};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use colinux_tracer::Reader;

/// Bytes at the start of a file that tell it from others: its manifest is among them.
const HEAD_BYTES: u64 = 1 << 16;

/// What tells a file from another one under its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
    head: Arc<[u8]>,
    /// It is at least so long.
    len: u64,
}

/// What has become of the file under a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fate {
    /// It is there, perhaps longer.
    #[default]
    There,
    /// Another one has its name.
    Replaced,
    /// Nothing has its name.
    Removed,
    /// It is shorter than it was.
    Shortened,
}

impl Fate {
    /// A sentence, unless all is well.
    pub const fn sentence(self) -> Option<&'static str> {
        match self {
            Fate::There => None,
            Fate::Replaced => Some("another file has this name now; :reload opens it"),
            Fate::Removed => Some("the file has been removed; it is shown until you leave"),
            Fate::Shortened => Some("the file has been cut short; :reload opens what is left"),
        }
    }
}

impl Identity {
    /// Of the file under a name, if there is one.
    pub fn of(path: &Path) -> Option<Self> {
        let file = File::open(path).ok()?;
        let facts = file.metadata().ok()?;
        let mut head = Vec::new();
        file.take(HEAD_BYTES).read_to_end(&mut head).ok()?;
        Some(Identity {
            device: facts.dev(),
            inode: facts.ino(),
            head: head.into(),
            len: facts.len(),
        })
    }

    fn fate(&self, path: &Path) -> Fate {
        let Some(now) = Identity::of(path) else {
            return Fate::Removed;
        };
        let same = now.device == self.device && now.inode == self.inode;
        let begins = self.head.len().min(now.head.len());
        match same && now.head[..begins] == self.head[..begins] {
            false => Fate::Replaced,
            true if now.len < self.len => Fate::Shortened,
            true => Fate::There,
        }
    }
}

/// Whether somebody is recording into this file: who does holds a lock on it.
pub fn is_written(path: &Path) -> bool {
    let file = File::open(path);
    file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// What was found at a look at the file.
#[derive(Debug)]
pub struct Growth {
    /// The recording with what is new.
    pub reader: Reader,
    /// The file as it is now, to be compared with the next time.
    pub identity: Option<Identity>,
    /// What has become of it.
    pub fate: Fate,
    /// Somebody writes to it.
    pub written: bool,
    /// Why it could not be looked at.
    pub trouble: Option<String>,
}

/// Looks at the file again. What is there in place of it is not read.
pub fn look(mut reader: Reader, identity: Option<&Identity>) -> Growth {
    let path = reader.path().to_owned();
    let fate = identity.map_or(Fate::There, |identity| identity.fate(&path));
    // Asked first: what was written before its writer went is read after.
    let written = is_written(&path);
    let mut growth = Growth {
        identity: identity.cloned(),
        fate,
        written,
        trouble: None,
        reader: reader.clone(),
    };
    if fate == Fate::There {
        growth.trouble = reader.refresh().err().map(|error| error.to_string());
        growth.reader = reader;
        if let Some(identity) = &mut growth.identity {
            let len = fs::metadata(&path).map_or(0, |facts| facts.len());
            identity.len = identity.len.max(len);
        }
    }
    growth
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_told_from_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.clt");
        let other = folder.path().join("b.clt");
        fs::write(&path, b"the first").unwrap();
        let identity = Identity::of(&path).unwrap();
        assert_eq!(identity.fate(&path), Fate::There);
        fs::write(&path, b"the first, longer").unwrap();
        assert_eq!(identity.fate(&path), Fate::There);
        fs::write(&path, b"the").unwrap();
        assert_eq!(identity.fate(&path), Fate::Shortened);
        fs::write(&path, b"the other").unwrap();
        assert_eq!(identity.fate(&path), Fate::Replaced);
        fs::write(&other, b"the first").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(identity.fate(&path), Fate::Replaced);
        fs::remove_file(&path).unwrap();
        assert_eq!(identity.fate(&path), Fate::Removed);
        assert_eq!(Identity::of(&path), None);
    }

    #[test]
    fn who_writes_is_known_by_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.clt");
        assert!(!is_written(&path));
        let file = File::create(&path).unwrap();
        assert!(!is_written(&path));
        file.lock().unwrap();
        assert!(is_written(&path));
        drop(file);
        assert!(!is_written(&path));
    }
}
