//! `suspend`: end a recording that another process makes, in order, so that its machine can go on.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use colinux_tracer::Reader;
use colinux_tui::work::file::is_written;
use rustix::process::{Pid, Signal, kill_process};

use crate::args::Suspend;
use crate::exit::{self, Failure};
use crate::report::Report;
use crate::store;

/// How long a recorder may take to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time between two looks at whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(20);

pub(crate) fn run(args: &Suspend, report: &Report) -> Result<u8, Failure> {
    let path = store::find(args.trace.as_deref())?;
    let shown = path.display();
    if !is_written(&path) {
        return Err(Failure::new(
            exit::FAILED,
            format!(
                "{shown}: nobody is recording it; `colinux-trace resume {shown}` goes on with it"
            ),
        ));
    }
    let trouble = |what: String| Failure::new(exit::ENVIRONMENT, format!("{shown}: {what}"));
    let Some(recorder) = recorder_of(&path) else {
        return Err(trouble(
            "its recorder cannot be seen from here: another user's process, or another container's"
                .to_owned(),
        ));
    };
    let pid = recorder.as_raw_nonzero();
    kill_process(recorder, Signal::TERM)
        .map_err(|error| trouble(format!("its recorder, process {pid}: {error}")))?;
    let asked = Instant::now();
    while is_written(&path) {
        if asked.elapsed() > PATIENCE {
            return Err(trouble(format!(
                "its recorder, process {pid}, was told to end and has not"
            )));
        }
        thread::sleep(LOOK_EVERY);
    }
    let kept = Reader::open(&path)?.checkpoints()?;
    let Some(last) = kept.last() else {
        report.note(format!(
            "{shown}: ended; it has no checkpoint to go on from"
        ));
        return Ok(0);
    };
    report.note(format!(
        "suspended; `colinux-trace resume {shown}` goes on from @{}",
        last.tick
    ));
    Ok(0)
}

/// The process that records to a file: the one that has it open for writing. `/proc/locks` would be
/// quicker to read, but its device and inode are not those of stat(2) on overlayfs and btrfs.
fn recorder_of(path: &Path) -> Option<Pid> {
    let file = fs::metadata(path).ok()?;
    let is_it = |opened: &Path| {
        fs::metadata(opened).is_ok_and(|it| (it.dev(), it.ino()) == (file.dev(), file.ino()))
    };
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        let process = process.path();
        let mut opened = fs::read_dir(process.join("fd")).ok()?.flatten();
        let writes = opened.any(|opened| {
            let info = process.join("fdinfo").join(opened.file_name());
            is_it(&opened.path()) && fs::read_to_string(info).is_ok_and(|info| for_writing(&info))
        });
        writes.then(|| Pid::from_raw(pid)).flatten()
    })
}

/// Whether a descriptor is open for writing, by its `fdinfo`: `flags` is open(2)'s, in octal.
fn for_writing(info: &str) -> bool {
    const ACCESS_MODE: u32 = 3;
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & ACCESS_MODE != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_file_open_for_writing_records_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("one.clt");
        let written = fs::File::create(&path).unwrap();
        assert_eq!(recorder_of(&path), Some(rustix::process::getpid()));
        drop(written);
        let _read = fs::File::open(&path).unwrap();
        assert_eq!(recorder_of(&path), None);
    }
}
