//! How programs are found and what they say about what they need: PATH, `#!` lines, `$ORIGIN`.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::elf;
use super::interpreters;

/// Whether a loader would take this file for a library of ours.
pub(crate) fn fits(path: &Path) -> bool {
    path.is_file() && fs::read(path).is_ok_and(|data| elf::needs(&data).is_ok())
}

/// `$ORIGIN` is the directory of the file that names it.
pub(crate) fn expand_origin(dir: &Path, file: &Path) -> PathBuf {
    let text = dir.as_os_str().as_bytes();
    let origin = file.parent().unwrap_or(Path::new("/"));
    for word in [&b"$ORIGIN"[..], b"${ORIGIN}"] {
        if let Some(rest) = text.strip_prefix(word) {
            let joined = [origin.as_os_str().as_bytes(), rest].concat();
            return PathBuf::from(OsStr::from_bytes(&joined));
        }
    }
    dir.to_path_buf()
}

/// The words of a `#!` line.
pub(crate) fn script_line(data: &[u8]) -> Option<Vec<OsString>> {
    // The kernel reads 256 bytes (BINPRM_BUF_SIZE).
    let line = data
        .strip_prefix(b"#!")?
        .split(|&byte| byte == b'\n')
        .next()?;
    let line = &line[..line.len().min(254)];
    let words = line
        .split(|byte| byte.is_ascii_whitespace())
        .filter(|word| !word.is_empty());
    Some(
        words
            .map(|word| OsStr::from_bytes(word).to_os_string())
            .collect(),
    )
}

/// A program of the host's PATH, by name; behind a version manager's script, the program itself.
pub(crate) fn find_program(name: &OsStr) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let is_program = |path: &PathBuf| {
        let metadata = fs::metadata(path);
        metadata.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    let found = env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(is_program)?;
    let script = fs::read(&found).is_ok_and(|data| data.starts_with(b"#!"));
    Some(
        script
            .then(|| interpreters::behind_script(&found))
            .flatten()
            .unwrap_or(found),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_is_the_directory_of_the_file() {
        let expand = |dir| expand_origin(Path::new(dir), Path::new("/opt/x/bin/prog"));
        assert_eq!(expand("$ORIGIN/../lib"), Path::new("/opt/x/bin/../lib"));
        assert_eq!(expand("${ORIGIN}"), Path::new("/opt/x/bin"));
        assert_eq!(expand("/lib"), Path::new("/lib"));
    }

    #[test]
    fn script_lines_are_read_as_the_kernel_does() {
        let words = |data: &[u8]| script_line(data);
        let env = ["/usr/bin/env", "python3"].map(OsString::from).to_vec();
        assert_eq!(words(b"#! /usr/bin/env\tpython3\nx"), Some(env));
        assert_eq!(words(b"#!"), Some(vec![]));
        assert_eq!(words(b"\x7fELF"), None);
    }

    #[test]
    fn programs_are_found_by_name_only() {
        assert!(find_program(OsStr::new("sh")).is_some_and(|path| path.is_absolute()));
        assert_eq!(find_program(OsStr::new("no-such-program-here")), None);
    }
}
