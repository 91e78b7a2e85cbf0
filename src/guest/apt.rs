//! Debian's package tools, as far as they are needed to get a file out of a package: nothing is
//! installed, and without root nothing outside the cache is written.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use thiserror::Error;

/// How much of a failed tool's words is repeated.
const MAX_QUOTED_LINES: usize = 5;

/// Why a package tool gave nothing.
#[derive(Debug, Error)]
pub(crate) enum AptError {
    /// The tool is not on this host.
    #[error("{0} is not on this host")]
    Missing(&'static str),
    /// The tool ran and failed.
    #[error("`{command}` failed: {message}")]
    Failed {
        /// What was typed.
        command: String,
        /// The last lines it said.
        message: String,
    },
    /// The tool could not be run, or its files not be read.
    #[error("cannot {action} {path:?}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// One way of calling apt: with the system's package lists or with private ones.
#[derive(Debug, Clone)]
pub(crate) struct Apt {
    options: Vec<OsString>,
}

/// Where packages come from, as the host's sources say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// The mirror.
    pub(crate) uri: String,
    /// The suite, such as `bookworm`.
    pub(crate) codename: String,
    /// The keyring, or empty.
    pub(crate) signed_by: String,
}

impl Apt {
    /// Apt with the package lists the host has. `scratch` is a directory for one file.
    pub(crate) fn system(scratch: &Path) -> Result<Apt, AptError> {
        // With an empty dpkg status only what can be downloaded is known, not what is installed;
        // and without cache files neither the system's are touched nor is root needed.
        let status = scratch.join("status");
        fs::write(&status, "").map_err(io_error("write", &status))?;
        let mut options = Vec::new();
        option(&mut options, "Dir::State::status=", status.as_os_str());
        for plain in ["Dir::Cache::pkgcache=", "Dir::Cache::srcpkgcache="] {
            option(&mut options, plain, OsStr::new(""));
        }
        // The download goes into our own directory, which the user _apt may not enter.
        option(&mut options, "APT::Sandbox::User=", OsStr::new("root"));
        Ok(Apt { options })
    }

    /// Apt with package lists of its own below `dir`, which any user can update.
    pub(crate) fn private(dir: &Path, scratch: &Path) -> Result<Apt, AptError> {
        let mut apt = Apt::system(scratch)?;
        let (state, archives) = (dir.join("state"), dir.join("cache"));
        for made in [
            state.join("lists/partial"),
            archives.join("archives/partial"),
        ] {
            fs::create_dir_all(&made).map_err(io_error("create the directory", &made))?;
        }
        option(&mut apt.options, "Dir::State=", state.as_os_str());
        option(&mut apt.options, "Dir::Cache=", archives.as_os_str());
        // Descriptions, translations and file lists are of no use here.
        for plain in [
            "Acquire::Languages=none",
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false",
        ] {
            option(&mut apt.options, plain, OsStr::new(""));
        }
        Ok(apt)
    }

    /// The same with these sources instead of the host's.
    pub(crate) fn with_sources(mut self, dir: &Path, list: &str) -> Result<Apt, AptError> {
        fs::create_dir_all(dir).map_err(io_error("create the directory", dir))?;
        let file = dir.join("backports.list");
        fs::write(&file, list).map_err(io_error("write", &file))?;
        option(
            &mut self.options,
            "Dir::Etc::sourcelist=",
            OsStr::new("/dev/null"),
        );
        option(&mut self.options, "Dir::Etc::sourceparts=", dir.as_os_str());
        Ok(self)
    }

    /// Fetches the package lists, and gives what apt warned about: it counts it as a success when
    /// some or all lists could not be had.
    pub(crate) fn update(&self) -> Result<String, AptError> {
        self.call("apt-get", &["-q", "update"], None)
            .map(|output| last_lines(&output.stderr))
    }

    /// The names of all packages that can be downloaded and begin so.
    pub(crate) fn names(&self, beginning: &str) -> Result<Vec<String>, AptError> {
        let output = self.call("apt-cache", &["pkgnames", beginning], None)?;
        Ok(lines(&output).map(String::from).collect())
    }

    /// The packages a package depends on directly.
    pub(crate) fn depends(&self, package: &str) -> Result<Vec<String>, AptError> {
        let output = self.call("apt-cache", &["depends", "--important", package], None)?;
        Ok(lines(&output)
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .map(String::from)
            .collect())
    }

    /// The main binary sources the host has configured.
    pub(crate) fn sources(&self) -> Result<Vec<Source>, AptError> {
        const FORMAT: &str = "$(COMPONENT)\t$(CODENAME)\t$(REPO_URI)\t$(SIGNED_BY)";
        let arguments = ["indextargets", "--format", FORMAT, "Created-By: Packages"];
        let output = self.call("apt-get", &arguments, None)?;
        Ok(lines(&output).filter_map(source).collect())
    }

    /// What a package takes in bytes, as it comes and unpacked; none if apt does not say.
    pub(crate) fn sizes(&self, package: &str) -> Option<(u64, u64)> {
        let arguments = ["show", "--no-all-versions", package];
        let output = self.call("apt-cache", &arguments, None).ok()?;
        let field = |name: &str| -> Option<u64> {
            let value = lines(&output).find_map(|line| line.strip_prefix(name))?;
            value.trim().parse().ok()
        };
        // The second is in KiB (Debian policy, 5.6.20).
        Some((
            field("Size:")?,
            field("Installed-Size:")?.saturating_mul(1024),
        ))
    }

    /// Downloads a package into a directory and gives the file.
    pub(crate) fn download(&self, package: &str, dir: &Path) -> Result<PathBuf, AptError> {
        self.call("apt-get", &["-q", "download", package], Some(dir))?;
        let entries = fs::read_dir(dir).map_err(io_error("read", dir))?;
        let beginning = format!("{package}_");
        let is_it = |path: &PathBuf| {
            let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
            name.starts_with(&beginning) && name.ends_with(".deb")
        };
        let found = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(is_it);
        found.ok_or_else(|| AptError::Failed {
            command: format!("apt-get download {package}"),
            message: "it left no package file".into(),
        })
    }

    fn call(
        &self,
        tool: &'static str,
        arguments: &[&str],
        dir: Option<&Path>,
    ) -> Result<Output, AptError> {
        let mut command = Command::new(tool);
        command.args(&self.options).args(arguments);
        if let Some(dir) = dir {
            command.current_dir(dir);
        }
        run(tool, &mut command, &arguments.join(" "))
    }
}

/// Unpacks the members of a package that match these patterns of tar.
pub(crate) fn unpack(package: &Path, patterns: &[&str], into: &Path) -> Result<(), AptError> {
    let mut opened = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| not_run("dpkg-deb", error))?;
    let Some(stream) = opened.stdout.take() else {
        return Err(AptError::Missing("dpkg-deb"));
    };
    let mut tar = Command::new("tar");
    tar.args(["-x", "--no-same-owner", "--wildcards", "-C"])
        .arg(into)
        .args(patterns)
        .stdin(stream);
    let unpacked = run("tar", &mut tar, &format!("-x {}", patterns.join(" ")));
    let status = opened
        .wait()
        .map_err(io_error("wait for dpkg-deb on", package))?;
    unpacked?;
    if !status.success() {
        let command = format!("dpkg-deb --fsys-tarfile {}", package.display());
        return Err(AptError::Failed {
            command,
            message: status.to_string(),
        });
    }
    Ok(())
}

/// Decompresses modules where the host has xz. It may fail: the guest can load them as they are, only
/// after one complaint of its kernel for each.
pub(crate) fn decompress_modules(dir: &Path) {
    let entries = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    let is_xz = |path: &PathBuf| path.extension() == Some(OsStr::new("xz"));
    let files: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_xz).collect();
    if !files.is_empty() {
        let _ = run(
            "xz",
            Command::new("xz").args(["-d", "-q", "--"]).args(files),
            "-d",
        );
    }
}

fn run(tool: &'static str, command: &mut Command, shown: &str) -> Result<Output, AptError> {
    // Messages are read by us, and apt must not ask anything.
    command
        .env("LC_ALL", "C")
        .env("DEBIAN_FRONTEND", "noninteractive");
    if tool != "tar" {
        command.stdin(Stdio::null());
    }
    let output = command.output().map_err(|error| not_run(tool, error))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = said
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let last = &last[last.len().saturating_sub(MAX_QUOTED_LINES)..];
    let message = if last.is_empty() {
        output.status.to_string()
    } else {
        last.join("\n  ")
    };
    Err(AptError::Failed {
        command: format!("{tool} {shown}"),
        message,
    })
}

fn last_lines(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let last: Vec<&str> = said
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    last[last.len().saturating_sub(MAX_QUOTED_LINES)..].join("\n  ")
}

fn not_run(tool: &'static str, source: io::Error) -> AptError {
    if source.kind() == io::ErrorKind::NotFound {
        return AptError::Missing(tool);
    }
    AptError::Io {
        action: "run",
        path: tool.into(),
        source,
    }
}

fn option(options: &mut Vec<OsString>, name: &str, value: &OsStr) {
    let mut setting = OsString::from(name);
    setting.push(value);
    options.extend([OsString::from("-o"), setting]);
}

fn lines(output: &Output) -> impl Iterator<Item = &str> {
    output
        .stdout
        .split(|&byte| byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok())
}

fn source(line: &str) -> Option<Source> {
    let mut fields = line.split('\t').map(String::from);
    let component = fields.next()?;
    let (codename, uri, signed_by) = (fields.next()?, fields.next()?, fields.next()?);
    (component == "main").then_some(Source {
        uri,
        codename,
        signed_by,
    })
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AptError {
    let path = path.to_path_buf();
    move |source| AptError::Io {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_from_apts_own_listing() {
        let line = "main\tbookworm\thttp://mirror/debian/\t/usr/share/keyrings/x.gpg";
        assert_eq!(
            source(line),
            Some(Source {
                uri: "http://mirror/debian/".into(),
                codename: "bookworm".into(),
                signed_by: "/usr/share/keyrings/x.gpg".into(),
            })
        );
        assert_eq!(source("contrib\tbookworm\thttp://mirror/debian/\t"), None);
        assert_eq!(source("main"), None);
    }

    #[test]
    fn a_missing_tool_and_a_failing_one_are_told_apart() {
        let tool = "a-tool-that-does-not-exist";
        assert!(matches!(
            run(tool, &mut Command::new(tool), ""),
            Err(AptError::Missing(_))
        ));
        let mut failing = Command::new("sh");
        failing.args(["-c", "echo first >&2; echo E: last >&2; exit 3"]);
        let Err(error) = run("sh", &mut failing, "-c …") else {
            panic!("it succeeded")
        };
        assert_eq!(error.to_string(), "`sh -c …` failed: first\n  E: last");
    }
}
