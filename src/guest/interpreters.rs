//! Interpreters whose programs are useless without a standard library, and where that is.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One known interpreter.
#[derive(Debug)]
struct Interpreter {
    /// How the names of its program begin: `python`, `python3`, `python3.11`.
    name: &'static str,
    /// The arguments that make it print its library directories, one a line.
    libraries: &'static [&'static str],
    /// The arguments that make it print its own path; version managers put a script in its place.
    itself: &'static [&'static str],
}

const KNOWN: &[Interpreter] = &[
    Interpreter {
        name: "perl",
        // $Config has the core directories even where @INC was changed.
        libraries: &["-e", "print join qq(\\n), @INC"],
        itself: &[
            "-MConfig",
            "-e",
            "print $^X =~ m(^/) ? $^X : $Config{perlpath}",
        ],
    },
    Interpreter {
        name: "python",
        // -I and -S: neither the user's environment nor site-packages change the answer.
        libraries: &[
            "-I",
            "-S",
            "-c",
            "import sysconfig as s; print(s.get_path('stdlib')); print(s.get_path('platstdlib'))",
        ],
        itself: &["-I", "-S", "-c", "import sys; print(sys.executable)"],
    },
];

/// What is left out of a standard library: tests, other people's packages and what installs them,
/// user interfaces that need a display, what a compiler would want, large tables for the character
/// sets of East Asia before Unicode, and caches that are checked against file times the archive does
/// not keep. `--pack` brings any of it.
const LEFT_OUT: &[&str] = &[
    "CN",
    "CORE",
    "CPAN",
    "Collate",
    "JP",
    "KR",
    "TAP",
    "TW",
    "Test2",
    "__pycache__",
    "dist-packages",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pod",
    "pydoc_data",
    "site-packages",
    "test",
    "tests",
    "tkinter",
    "turtledemo",
];
const LEFT_OUT_ENDINGS: &[&str] = &[".a", ".h", ".pod", ".pyc"];
const LEFT_OUT_BEGINNINGS: &[&str] = &["_tkinter.", "config-3"];

fn known(program: &Path) -> Option<&'static Interpreter> {
    let name = program.file_name()?.to_str()?;
    KNOWN.iter().find(|known| {
        let rest = name.strip_prefix(known.name);
        rest.is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '.'))
    })
}

/// The directories this program reads its standard library from; none for programs not known.
pub(crate) fn library_dirs(program: &Path) -> Vec<PathBuf> {
    let Some(known) = known(program) else {
        return Vec::new();
    };
    let mut dirs = ask(program, known.libraries);
    dirs.retain(|dir| dir.is_absolute() && dir.is_dir());
    dirs.sort();
    dirs.dedup();
    dirs
}

/// The interpreter itself, where `program` is only a script that starts it.
pub(crate) fn behind_script(program: &Path) -> Option<PathBuf> {
    let known = known(program)?;
    let found = ask(program, known.itself).into_iter().next()?;
    (found.is_absolute() && found.is_file()).then_some(found)
}

/// Whether a file of this name in a standard library is left out.
pub(crate) fn is_left_out(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    LEFT_OUT.iter().any(|out| bytes == out.as_bytes())
        || LEFT_OUT_ENDINGS
            .iter()
            .any(|end| bytes.ends_with(end.as_bytes()))
        || LEFT_OUT_BEGINNINGS
            .iter()
            .any(|start| bytes.starts_with(start.as_bytes()))
}

/// Runs an interpreter of the host and reads paths from its output.
fn ask(program: &Path, arguments: &[&str]) -> Vec<PathBuf> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    let Ok(output) = output else {
        return Vec::new();
    };
    if !output.status.success() {
        return Vec::new();
    }
    let lines = output
        .stdout
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty());
    lines
        .map(|line| PathBuf::from(OsStr::from_bytes(line)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_real_interpreter_names_are_known() {
        for name in [
            "perl",
            "perl5.36.0",
            "python",
            "python3",
            "/usr/bin/python3.11",
        ] {
            assert!(known(Path::new(name)).is_some(), "{name}");
        }
        for name in ["perldoc", "python3-config", "bash", "/"] {
            assert!(known(Path::new(name)).is_none(), "{name}");
        }
    }

    #[test]
    fn the_standard_library_is_thinned() {
        let out = |name: &str| is_left_out(OsStr::new(name));
        assert!(out("test") && out("strict.pod") && out("config-3.11-x86_64-linux-gnu"));
        assert!(!out("strict.pm") && !out("testing.py") && !out("Test") && !out("json"));
    }

    #[test]
    fn a_program_that_cannot_be_asked_has_no_library() {
        assert!(library_dirs(Path::new("/nonexistent/python3")).is_empty());
        assert!(library_dirs(Path::new("/bin/sh")).is_empty());
        assert_eq!(behind_script(Path::new("/nonexistent/perl")), None);
    }
}
