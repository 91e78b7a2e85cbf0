//! What tests through the front door share: the binary in a folder of its own, and a kernel.

#![allow(dead_code, reason = "each test file uses its part")]

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;

use tempfile::TempDir;

/// A folder with a store of its own, removed at the end.
pub(crate) struct Sandbox {
    dir: TempDir,
}

/// What a run of the binary came to.
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "exit {:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.code, self.out, self.err
        )
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Run {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        Sandbox {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file and gives its path.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The binary, in this folder, with nothing on its standard input.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_colinux-trace"));
        command
            .args(args)
            .current_dir(self.dir.path())
            .env("COLINUX_TRACE_DIR", self.dir.path().join("store"))
            .stdin(Stdio::null());
        command
    }

    /// A shell script with arguments to come, in this folder.
    pub(crate) fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", script, "sh"])
            .current_dir(self.dir.path())
            .env("COLINUX_TRACE_DIR", self.dir.path().join("store"))
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Run {
        self.command(args).output().unwrap().into()
    }

    /// Runs what has to succeed.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> Run {
        let run = self.run(args);
        assert_eq!(run.code, Some(0), "{args:?}: {run}");
        run
    }
}

/// Path of a fetched Debian cloud kernel; fetches it the first time.
pub(crate) fn kernel(version: &str) -> String {
    // Tests of one file run side by side; one fetch at a time is enough.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let run: Run = Command::new(env!("CARGO_BIN_EXE_colinux-trace"))
        .args(["guest", "fetch", "--kernel-version", version])
        .stdin(Stdio::null())
        .output()
        .unwrap()
        .into();
    assert_eq!(
        run.code,
        Some(0),
        "the kernel {version} could not be fetched: {run}"
    );
    let line = run.out.lines().next().unwrap();
    let path = line.split_whitespace().nth(1).unwrap();
    assert!(Path::new(path).exists(), "{line}");
    path.to_owned()
}
