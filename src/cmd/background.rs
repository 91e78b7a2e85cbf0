//! `record --tui`: the recording in a process of its own, and the viewer on it meanwhile.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Seek};
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, SystemTime};

use colinux_tracer::Reader;
use colinux_tui::Live;
use rustix::process::{Pid, Signal, kill_process};

use crate::args::Course;
use crate::cmd::tui::{self, Watch};
use crate::exit::{self, Failure};
use crate::store;

/// Time between two looks at whether the recording has begun.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Records to `output`, with the viewer in front. The viewer's end ends the recording in order; the
/// exit code is the recording's.
pub(crate) fn record(course: &Course, output: &Path, ours: bool) -> Result<u8, Failure> {
    if let Some(why) = colinux_tui::unfit() {
        return Err(Failure::new(exit::ENVIRONMENT, why));
    }
    let mut said = tempfile::tempfile().map_err(trouble)?;
    let before = changed(output);
    let mut recorder = start(output, ours, &said).map_err(trouble)?;
    // Heard from the start: a guest that nobody listens to would wait.
    let ends = recorder.stdout.take().zip(recorder.stdin.take());
    let live = ends.map(|(output, input)| Live::start(output, input));
    let shown = match begun(&mut recorder, output, before) {
        Ok(Some(reader)) => {
            if ours {
                store::set_latest(output);
            }
            let watch = Watch {
                goto: None,
                live,
                greeting: so_far(&said).map_err(trouble)?,
            };
            tui::show(reader, output, &course.view, watch)
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
fn start(output: &Path, ours: bool, said: &File) -> io::Result<Child> {
    let mut words: Vec<OsString> = env::args_os().skip(1).collect();
    if let Some(at) = words.iter().position(|word| word == "--tui") {
        let mut place = vec!["--viewed".into()];
        if ours {
            place.extend(["--force".into(), "--output".into(), OsString::from(output)]);
        }
        words.splice(at..=at, place);
    }
    Command::new(env::current_exe()?)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(said.try_clone()?)
        // Keys that interrupt or stop what has the terminal are not for the recorder.
        .process_group(0)
        .spawn()
}

/// What the recorder has had to say as yet.
fn so_far(said: &File) -> io::Result<Option<String>> {
    // The place at which the recorder writes is shared with it, and stays.
    let mut bytes = [0; 1024];
    let count = said.read_at(&mut bytes, 0)?;
    let text = String::from_utf8_lossy(&bytes[..count]);
    let lines: Vec<&str> = text.lines().collect();
    Ok((!lines.is_empty()).then(|| lines.join("; ").replace("colinux-trace: ", "")))
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
