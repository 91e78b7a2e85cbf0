//! `suspend`: end a recording that another process makes, in order, so that its machine can go on.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use colinux_tracer::Reader;
use rustix::process::{Pid, Signal, kill_process};

use crate::args::Suspend;
use crate::exit::{self, Failure};
use crate::report::Report;
use crate::store;

/// The locks that processes hold, by proc(5).
const LOCKS: &str = "/proc/locks";
/// How long a recorder may take to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time between two looks at whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(20);

pub(crate) fn run(args: &Suspend, report: &Report) -> Result<u8, Failure> {
    let path = store::find(args.trace.as_deref())?;
    let shown = path.display();
    let Some(recorder) = recorder_of(&path)? else {
        return Err(Failure::new(
            exit::FAILED,
            format!(
                "{shown}: nobody is recording it; `colinux-trace resume {shown}` goes on with it"
            ),
        ));
    };
    let refused = |error| {
        let pid = recorder.as_raw_nonzero();
        Failure::new(
            exit::ENVIRONMENT,
            format!("{shown}: its recorder, process {pid}: {error}"),
        )
    };
    kill_process(recorder, Signal::TERM).map_err(refused)?;
    let asked = Instant::now();
    while recorder_of(&path)? == Some(recorder) {
        if asked.elapsed() > PATIENCE {
            let pid = recorder.as_raw_nonzero();
            return Err(Failure::new(
                exit::ENVIRONMENT,
                format!("{shown}: its recorder, process {pid}, was told to end and has not"),
            ));
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

/// The process that records to a file: the one that holds its lock.
fn recorder_of(path: &Path) -> Result<Option<Pid>, Failure> {
    let trouble = |what: &dyn std::fmt::Display, error| {
        Failure::new(exit::ENVIRONMENT, format!("{what}: {error}"))
    };
    let file = fs::metadata(path).map_err(|error| trouble(&path.display(), error))?;
    let locks = fs::read_to_string(LOCKS).map_err(|error| trouble(&LOCKS, error))?;
    Ok(holder(&locks, file.dev(), file.ino()))
}

/// Who holds an exclusive `flock` of a file. A line is `1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF`:
/// process, device in hex, inode. Waiting ones have `->` behind the number and hold nothing.
fn holder(locks: &str, device: u64, inode: u64) -> Option<Pid> {
    let file = format!(
        "{:02x}:{:02x}:{inode}",
        rustix::fs::major(device),
        rustix::fs::minor(device)
    );
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [_, "FLOCK", _, "WRITE", pid, of, ..] if of == file => Pid::from_raw(pid.parse().ok()?),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_tells_who_holds_it() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 fe:00:5678 0 EOF\n\
                     2: FLOCK  ADVISORY  READ 12 fe:00:5678 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 13 fe:01:5678 0 EOF\n\
                     4: -> FLOCK  ADVISORY  WRITE 14 fe:00:5678 0 EOF\n\
                     5: FLOCK  ADVISORY  WRITE 15 fe:00:5678 0 EOF\n\
                     6: FLOCK  ADVISORY  WRITE 0 fe:00:5679 0 EOF\n6:\n";
        let device = rustix::fs::makedev(0xfe, 0);
        let of = |inode| holder(locks, device, inode).map(|pid| pid.as_raw_nonzero().get());
        assert_eq!(of(5678), Some(15));
        assert_eq!(of(5679), None, "a process of another namespace");
        assert_eq!(of(1), None);
    }
}
