//! The guest's initial file system while it is put together: sorted paths, the first writer wins.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use super::cpio::{Archive, CpioError, Entry};

/// As many links as Linux follows in one path walk (path_resolution(7)).
const MAX_LINKS: usize = 40;

#[derive(Debug)]
enum Node {
    Directory(u32),
    File(u32, Vec<u8>),
    Symlink(PathBuf),
    CharDevice(u32, u32, u32),
}

/// A file system in memory. Paths are absolute; links among the parents of a path are followed, so
/// `/bin/x` lands in `/usr/bin/x` where `/bin` is a link.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    // Components compare before length: a parent always sorts before its children.
    nodes: BTreeMap<PathBuf, Node>,
}

impl Tree {
    /// A tree with nothing but its root.
    pub(crate) fn new() -> Tree {
        Tree::default()
    }

    /// Whether something is at `path` (a link counts, wherever it leads).
    pub(crate) fn contains(&self, path: &Path) -> bool {
        let place = self.place(path);
        place.as_os_str() == "/" || self.nodes.contains_key(&place)
    }

    /// Adds a directory and its parents.
    pub(crate) fn directory(&mut self, path: &Path, permissions: u32) {
        self.insert(path, Node::Directory(permissions));
    }

    /// Adds a regular file and its parents.
    pub(crate) fn file(&mut self, path: &Path, permissions: u32, data: Vec<u8>) {
        self.insert(path, Node::File(permissions, data));
    }

    /// Adds a symbolic link and its parents.
    pub(crate) fn symlink(&mut self, path: &Path, target: &Path) {
        self.insert(path, Node::Symlink(target.into()));
    }

    /// Adds a character device and its parents.
    pub(crate) fn char_device(&mut self, path: &Path, permissions: u32, major: u32, minor: u32) {
        self.insert(path, Node::CharDevice(permissions, major, minor));
    }

    /// How many bytes of file content there are.
    #[cfg(test)]
    pub(crate) fn content_len(&self) -> u64 {
        let len = |node: &Node| {
            if let Node::File(_, data) = node {
                data.len() as u64
            } else {
                0
            }
        };
        self.nodes.values().map(len).sum()
    }

    /// The tree as an archive, entries sorted by path.
    pub(crate) fn to_cpio(&self) -> Result<Vec<u8>, CpioError> {
        let mut archive = Archive::new();
        for (path, node) in &self.nodes {
            match node {
                Node::Directory(mode) => archive.add(path, *mode, Entry::Directory)?,
                Node::File(mode, data) => archive.add(path, *mode, Entry::File(data))?,
                Node::Symlink(target) => archive.add(path, 0o777, Entry::Symlink(target))?,
                Node::CharDevice(mode, major, minor) => {
                    archive.add(path, *mode, Entry::CharDevice(*major, *minor))?;
                }
            }
        }
        Ok(archive.finish())
    }

    fn insert(&mut self, path: &Path, node: Node) {
        let place = self.place(path);
        let mut missing = Vec::new();
        let mut parent = place.parent();
        while let Some(dir) = parent {
            if dir.as_os_str() == "/" || self.nodes.contains_key(dir) {
                break;
            }
            missing.push(dir.to_path_buf());
            parent = dir.parent();
        }
        for dir in missing {
            self.nodes.insert(dir, Node::Directory(0o755));
        }
        if place.as_os_str() != "/" {
            self.nodes.entry(place).or_insert(node);
        }
    }

    /// Where `path` is once the links among its parents are followed; its last component is not.
    fn place(&self, path: &Path) -> PathBuf {
        let mut todo: Vec<OsString> = parts_reversed(path);
        let mut here = PathBuf::from("/");
        let mut links = 0;
        while let Some(part) = todo.pop() {
            if part == ".." {
                here.pop();
                continue;
            }
            here.push(part);
            if todo.is_empty() {
                break;
            }
            if let Some(Node::Symlink(target)) = self.nodes.get(&here)
                && links < MAX_LINKS
            {
                links += 1;
                here.pop();
                if target.is_absolute() {
                    here = PathBuf::from("/");
                }
                todo.extend(parts_reversed(target));
            }
        }
        here
    }
}

/// The components of a path that name something, the last one first.
pub(crate) fn parts_reversed(path: &Path) -> Vec<OsString> {
    let named = |part| match part {
        Component::Normal(name) => Some(name.to_os_string()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    let mut parts: Vec<OsString> = path.components().filter_map(named).collect();
    parts.reverse();
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_among_the_parents_are_followed() {
        let mut tree = Tree::new();
        tree.symlink(Path::new("/bin"), Path::new("usr/bin"));
        tree.symlink(Path::new("/usr/lib64"), Path::new("/lib/../lib"));
        tree.file(Path::new("/bin/sh"), 0o755, b"a".to_vec());
        tree.file(Path::new("/usr/lib64/x"), 0o644, b"b".to_vec());
        let paths: Vec<_> = tree
            .nodes
            .keys()
            .map(|path| path.to_str().unwrap())
            .collect();
        assert_eq!(
            paths,
            [
                "/bin",
                "/lib",
                "/lib/x",
                "/usr",
                "/usr/bin",
                "/usr/bin/sh",
                "/usr/lib64"
            ]
        );
        assert!(tree.contains(Path::new("/usr/bin/sh")) && tree.contains(Path::new("/bin/sh")));
        assert!(!tree.contains(Path::new("/bin/ls")));
    }

    #[test]
    fn the_first_writer_wins_and_link_loops_end() {
        let mut tree = Tree::new();
        tree.file(Path::new("/f"), 0o644, b"one".to_vec());
        tree.file(Path::new("/f"), 0o644, b"second".to_vec());
        assert_eq!(tree.content_len(), 3);
        tree.symlink(Path::new("/loop"), Path::new("loop"));
        tree.file(Path::new("/loop/x"), 0o644, vec![]);
        assert!(tree.to_cpio().is_ok());
    }

    #[test]
    fn parents_come_first_and_the_order_of_insertion_does_not_matter() {
        let make = |names: &[&str]| {
            let mut tree = Tree::new();
            for name in names {
                tree.file(Path::new(name), 0o644, name.as_bytes().to_vec());
            }
            tree.to_cpio().unwrap()
        };
        // '-' sorts before '/' as a byte, and must not come between a directory and its content.
        let names = ["/a/b/c", "/a-b", "/a/b-c"];
        let reversed = ["/a/b-c", "/a-b", "/a/b/c"];
        assert_eq!(make(&names), make(&reversed));
    }
}
