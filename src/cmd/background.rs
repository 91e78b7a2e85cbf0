//! `record --tui`: the recording in a process of its own, and the viewer on it meanwhile.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Seek};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, SystemTime};

use colinux_tracer::Reader;
use rustix::process::{Pid, Signal, kill_process};

use crate::args::{Record, Tui};
use crate::cmd::tui;
use crate::exit::{self, Failure};
use crate::store;

/// Time between two looks at whether the recording has begun.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Records to `output`, with the viewer in front. The viewer's end ends the recording in order; the
/// exit code is the recording's.
pub(crate) fn record(args: &Record, output: &Path, ours: bool) -> Result<u8, Failure> {
    if let Some(why) = colinux_tui::unfit() {
        return Err(Failure::new(exit::ENVIRONMENT, why));
    }
    let mut said = tempfile::tempfile().map_err(trouble)?;
    let before = changed(output);
    let mut recorder = start(args, output, ours, &said).map_err(trouble)?;
    let shown = match begun(&mut recorder, output, before) {
        Ok(Some(reader)) => {
            if ours {
                store::set_latest(output);
            }
            tui::show(reader, output, &Tui::default())
        }
        Ok(None) => Ok(0),
        Err(error) => Err(trouble(error)),
    };
    // Also when the viewer failed, the recording does not go on unseen.
    let (status, asked) = end(&mut recorder).map_err(trouble)?;
    said.rewind()
        .and_then(|()| io::copy(&mut said, &mut io::stderr().lock()))
        .map_err(trouble)?;
    match shown? {
        0 => Ok(code(status, asked)),
        signal => Ok(signal),
    }
}

fn trouble(error: io::Error) -> Failure {
    Failure::new(exit::ENVIRONMENT, format!("the recording: {error}"))
}

/// Starts what was typed, without the viewer; what it says to people goes to a file until the screen
/// is free.
fn start(args: &Record, output: &Path, ours: bool, said: &File) -> io::Result<Child> {
    let mut words: Vec<OsString> = env::args_os().skip(1).collect();
    if let Some(at) = words.iter().position(|word| word == "--tui") {
        let mut place = Vec::new();
        if ours {
            place = vec!["--force".into(), "--output".into(), output.into()];
        }
        words.splice(at..=at, place);
    }
    // A guest that ends by itself skips its idle time. Another one waits for somebody to type, who
    // does not come: its time passes as on the host's clock.
    let input = if args.command.is_empty() {
        Stdio::piped()
    } else {
        Stdio::null()
    };
    Command::new(env::current_exe()?)
        .args(words)
        .stdin(input)
        .stdout(Stdio::null())
        .stderr(said.try_clone()?)
        .spawn()
}

/// When the file was last written to.
fn changed(output: &Path) -> Option<SystemTime> {
    fs::metadata(output).and_then(|file| file.modified()).ok()
}

/// Waits until there is something to see; `None` if the recording ended before it began.
fn begun(
    recorder: &mut Child,
    output: &Path,
    before: Option<SystemTime>,
) -> io::Result<Option<Reader>> {
    loop {
        let ended = recorder.try_wait()?.is_some();
        // A file that was there before is another recording until this one has begun to write.
        if changed(output) != before
            && let Ok(reader) = Reader::open(output)
            && (ended || reader.ticks().is_some())
            && reader.manifest().is_ok()
        {
            return Ok(Some(reader));
        }
        if ended {
            return Ok(None);
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Ends the recording in order, unless it has ended, and tells whether it had to be asked to.
fn end(recorder: &mut Child) -> io::Result<(ExitStatus, bool)> {
    if let Some(status) = recorder.try_wait()? {
        return Ok((status, false));
    }
    kill_process(Pid::from_child(recorder), Signal::TERM)?;
    Ok((recorder.wait()?, true))
}

/// The exit code of the recording; leaving the viewer is an end that was wanted, as Ctrl-A x is.
fn code(status: ExitStatus, asked: bool) -> u8 {
    let signal = |number: i32| exit::SIGNAL.saturating_add(u8::try_from(number).unwrap_or(0));
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code).unwrap_or(exit::FAILED),
        (None, number) => return signal(number.unwrap_or(0)),
    };
    if asked && code == signal(Signal::TERM.as_raw()) {
        return 0;
    }
    code
}
