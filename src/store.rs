//! Where recordings are kept when nobody says where: `NAME-0.clt`, `NAME-1.clt`, and `latest-trace`,
//! a link to the newest.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::exit::{ENVIRONMENT, Failure, UNREADABLE};

/// Name of the link to the newest recording.
const LATEST: &str = "latest-trace";
/// Extension of recordings.
pub(crate) const EXTENSION: &str = "clt";

/// The folder: `$COLINUX_TRACE_DIR`, else `colinux-trace` in the user's data folder.
pub(crate) fn folder() -> Result<PathBuf, Failure> {
    if let Some(dir) = env::var_os("COLINUX_TRACE_DIR").filter(|d| !d.is_empty()) {
        return Ok(dir.into());
    }
    let data = env::var_os("XDG_DATA_HOME")
        .filter(|d| Path::new(d).is_absolute())
        .map(PathBuf::from)
        .or_else(|| {
            let home = env::var_os("HOME").filter(|h| !h.is_empty())?;
            Some(PathBuf::from(home).join(".local/share"))
        });
    match data {
        Some(dir) => Ok(dir.join("colinux-trace")),
        None => Err(Failure::new(
            ENVIRONMENT,
            "there is no place for recordings: set COLINUX_TRACE_DIR, or say -o FILE",
        )),
    }
}

/// A name for a new recording that no other has, reserved by an empty file.
pub(crate) fn reserve(name: &str) -> Result<PathBuf, Failure> {
    let folder = folder()?;
    let name: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "._+-".contains(c) {
                c
            } else {
                '_'
            }
        })
        .take(64)
        .collect();
    let refused = |error: io::Error| {
        Failure::new(
            ENVIRONMENT,
            format!("{}: cannot be written: {error}", folder.display()),
        )
    };
    fs::create_dir_all(&folder).map_err(refused)?;
    let mut number = 0u32;
    loop {
        let path = folder.join(format!("{name}-{number}.{EXTENSION}"));
        match fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
        {
            Ok(_) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(refused(error)),
        }
    }
}

/// Makes a recording the latest one. That the link cannot be made is no reason to fail.
pub(crate) fn set_latest(path: &Path) {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return;
    };
    let link = folder.join(format!(".{LATEST}-{}", std::process::id()));
    if std::os::unix::fs::symlink(name, &link).is_ok()
        && fs::rename(&link, folder.join(LATEST)).is_err()
    {
        let _ = fs::remove_file(&link);
    }
}

/// The recording to read: the one named (also without folder and extension), else the latest.
pub(crate) fn find(trace: Option<&Path>) -> Result<PathBuf, Failure> {
    let Some(trace) = trace else {
        let latest = folder()?.join(LATEST);
        return match fs::canonicalize(&latest) {
            Ok(path) => Ok(path),
            Err(_) => Err(Failure::new(
                UNREADABLE,
                format!(
                    "there is no latest recording in {}; make one with `colinux-trace record`",
                    folder()?.display()
                ),
            )),
        };
    };
    if trace.exists() {
        return Ok(trace.to_owned());
    }
    if trace.components().count() == 1
        && let Ok(folder) = folder()
    {
        let named = folder.join(trace);
        let extended = folder.join(format!("{}.{EXTENSION}", trace.display()));
        if let Some(found) = [named, extended].into_iter().find(|p| p.exists()) {
            return Ok(found);
        }
    }
    Err(Failure::new(
        UNREADABLE,
        format!("{}: there is no such recording", trace.display()),
    ))
}

/// All recordings in the folder, by name.
pub(crate) fn list() -> Result<Vec<PathBuf>, Failure> {
    let folder = folder()?;
    let Ok(entries) = fs::read_dir(&folder) else {
        return Ok(Vec::new());
    };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == EXTENSION))
        .collect();
    found.sort();
    Ok(found)
}
