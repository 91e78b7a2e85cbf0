//! Files of an unpacked package, on their way to the cache.

use std::fs;
use std::path::{Path, PathBuf};

use super::cache::CacheError;

/// Both are in the cache's file system, so this is a rename.
pub(crate) fn move_file(from: &Path, to: &Path) -> Result<(), CacheError> {
    fs::rename(from, to).map_err(|source| CacheError::Io {
        action: "move a fetched file to",
        path: to.to_path_buf(),
        source,
    })
}

/// Moves all module files below `from` into one directory.
pub(crate) fn collect_modules(from: &Path, to: &Path) -> Result<(), CacheError> {
    let io = |action| {
        let path = to.to_path_buf();
        move |source| CacheError::Io {
            action,
            path,
            source,
        }
    };
    fs::create_dir_all(to).map_err(io("create the directory"))?;
    for file in files_below(from) {
        if let Some(name) = file.file_name() {
            move_file(&file, &to.join(name))?;
        }
    }
    Ok(())
}

/// The largest regular file whose name begins so: `vmlinux` may come with links and scripts beside.
pub(crate) fn largest_file(below: &Path, beginning: &str) -> Option<PathBuf> {
    let named = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(beginning))
    };
    let len = |path: &PathBuf| fs::metadata(path).map_or(0, |found| found.len());
    files_below(below).into_iter().filter(named).max_by_key(len)
}

/// What all files below a folder take.
pub(crate) fn bytes_below(dir: &Path) -> u64 {
    let len = |path: &PathBuf| fs::metadata(path).map_or(0, |found| found.len());
    files_below(dir).iter().map(len).sum()
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut todo = vec![dir.to_path_buf()];
    while let Some(dir) = todo.pop() {
        let entries = fs::read_dir(dir)
            .into_iter()
            .flatten()
            .filter_map(Result::ok);
        for entry in entries {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => todo.push(entry.path()),
                Ok(kind) if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
    }
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_from_any_depth_end_in_one_directory() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("lib/modules/6.1/drivers")).unwrap();
        fs::write(from.join("lib/modules/6.1/drivers/a.ko"), "a").unwrap();
        fs::write(from.join("b.ko.xz"), "b").unwrap();
        collect_modules(&from, &to).unwrap();
        assert_eq!(files_below(&to), [to.join("a.ko"), to.join("b.ko.xz")]);
        collect_modules(&dir.path().join("nothing"), &to).unwrap();
    }

    #[test]
    fn the_real_file_is_told_from_the_small_ones_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("vmlinux-6.1"), "the large one").unwrap();
        fs::write(dir.path().join("vmlinux-gdb.py"), "small").unwrap();
        fs::write(dir.path().join("other"), "larger, but of another name").unwrap();
        assert_eq!(
            largest_file(dir.path(), "vmlinux"),
            Some(dir.path().join("vmlinux-6.1"))
        );
        assert_eq!(largest_file(dir.path(), "busybox"), None);
    }
}
