//! `record`: boot a kernel and record it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use colinux_driver::boot;
use colinux_driver::passage::Shutdown;
use colinux_replay::setup::{self, RecordConfig};
use colinux_replay::{Outcome, Recorder, ReplayError, ResumeError, record};
use colinux_tracer::{Command, EndReason, HostInfo, Levels, Options, Reader};

use crate::args::{Course, FailOn, Record, View};
use crate::cmd::background;
use crate::console::{self, Console, Typist};
use crate::exit::{self, Failure};
use crate::guest::cache::Cache;
use crate::guest::version::Flavour;
use crate::guest::{self};
use crate::report::Report;
use crate::store;
use crate::words::{Bytes, Until, grouped, sized};

/// What every guest is told: where its console is, to end the run when it panics, and to restart by
/// ACPI, since on reduced hardware Linux would try EFI first.
const CMDLINE: &str = "console=ttyS0 panic=-1 reboot=a";
/// How often a lock is tried for.
const LOCK_TRIES: u32 = 20;
/// Said as well when only the command's own output is wanted.
const CMDLINE_COMMAND: &str = "quiet loglevel=3";

pub(crate) fn run(args: &Record, report: &Report) -> Result<u8, Failure> {
    if let Some(trace) = &args.resume {
        return resume(Some(trace), &args.course, report);
    }
    let mut args = Args::from(args)?;
    let cache = Cache::open()?;
    let kernel_path = match args.kernel.take() {
        Some(path) => path,
        None => cache.newest_kernel(Flavour::Cloud, None).ok_or_else(|| {
            Failure::new(
                exit::ENVIRONMENT,
                "there is no kernel in the cache yet; name one with --kernel, or type:\n  \
                 colinux-trace guest fetch",
            )
        })?,
    };
    let kernel = read(&kernel_path, "kernel")?;
    let initrd = match &args.initrd {
        Some(path) => read(path, "initrd")?,
        None => {
            let command = (!args.record.command.is_empty()).then_some(&args.record.command[..]);
            guest::initramfs(&cache, command, &args.record.pack, &[])?
        }
    };
    let name = name_of(&args, &kernel, &kernel_path);
    let config = RecordConfig {
        kernel: kernel.into(),
        initrd: (!initrd.is_empty()).then(|| initrd.into()),
        cmdline: args.cmdline.clone(),
        memory: args.memory,
        ns_per_tick: args.record.ns_per_tick,
        seed: args.record.seed,
        epoch: args.record.epoch,
        levels: args.levels.clone(),
        digest_interval: args.record.digest_interval.0,
        as_bzimage: args.record.as_bzimage,
        command: command_info(args.record),
    };
    let begin = |output: &Path, options, host: &HostInfo, limit| {
        Recorder::create(config, output, options, host, limit).map_err(|error| {
            let boots = matches!(error, ReplayError::Setup(_));
            let mut failure = Failure::from(error);
            if boots {
                let path = kernel_path.display();
                failure.message = format!("cannot boot {path}: {}", failure.message);
            }
            failure
        })
    };
    let job = Job {
        course: &args.record.course,
        command: &args.record.command,
        facilities: &args.record.levels,
        last: args.record.last.map(|bytes| bytes.0),
    };
    record_as(&job, &name, &kernel_path, begin, report)
}

/// Goes on where another recording was left.
pub(crate) fn resume(
    trace: Option<&Path>,
    course: &Course,
    report: &Report,
) -> Result<u8, Failure> {
    let path = store::find(trace)?;
    let reader = Reader::open(&path)?;
    if let Some(recovery) = reader.recovery() {
        report.note(format!("{}: {recovery}", path.display()));
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name = stem.trim_end_matches(|c: char| c.is_ascii_digit());
    let begin = |output: &Path, options, host: &HostInfo, limit| {
        Recorder::resume(&reader, output, options, host, limit).map_err(|error| match error {
            ResumeError::Replay(error) => error.into(),
            other => Failure::new(exit::FAILED, format!("{}: {other}", path.display())),
        })
    };
    let job = Job {
        course,
        command: &[],
        facilities: &[],
        last: None,
    };
    record_as(&job, name.trim_end_matches('-'), &path, begin, report)
}

/// What a recording is to do, whether it begins or goes on.
struct Job<'a> {
    course: &'a Course,
    /// What the guest was made to run.
    command: &'a [OsString],
    /// What was asked for with `-s`.
    facilities: &'a [String],
    /// Bytes of events to keep at most.
    last: Option<u64>,
}

impl Job<'_> {
    fn until_tick(&self) -> Option<u64> {
        match self.course.until {
            Some(Until::Tick(tick)) => Some(tick),
            _ => None,
        }
    }

    fn tick_limit(&self) -> u64 {
        let until = self.until_tick().unwrap_or(u64::MAX);
        let most = self.course.max_ticks.map_or(u64::MAX, |t| t.0);
        until.min(most)
    }
}

/// Records under a name, as one that begins like this.
fn record_as(
    job: &Job<'_>,
    name: &str,
    kernel: &Path,
    begin: impl FnOnce(&Path, Options, &HostInfo, u64) -> Result<Recorder, Failure>,
    report: &Report,
) -> Result<u8, Failure> {
    if job.course.view != View::default() && !job.course.tui && !job.course.viewed {
        return Err(Failure::usage(
            "--vmlinux, --source, --colors, --ascii and --no-mouse are for the viewer: --tui",
        ));
    }
    let (output, ours) = match &job.course.output {
        Some(path) => (path.clone(), false),
        None => (store::reserve(name)?, true),
    };
    let outcome = if job.course.tui {
        background::record(job.course, &output, ours)
    } else {
        record_to(job, begin, &output, ours, kernel, report)
    };
    if ours && fs::metadata(&output).is_ok_and(|m| m.len() == 0) {
        // The reserved name of a recording that never began.
        let _ = fs::remove_file(&output);
    }
    outcome
}

fn record_to(
    job: &Job<'_>,
    begin: impl FnOnce(&Path, Options, &HostInfo, u64) -> Result<Recorder, Failure>,
    output: &Path,
    ours: bool,
    kernel: &Path,
    report: &Report,
) -> Result<u8, Failure> {
    let options = Options {
        overwrite: job.course.force || ours,
        last: job.last,
        ..Options::default()
    };
    let limit = job.tick_limit();
    let mut host = host_info(kernel);
    console::survive_size_limits()
        .map_err(|error| Failure::new(exit::ENVIRONMENT, format!("signals: {error}")))?;
    let recorder = begin(output, options, &host, limit)?;
    for (facility, why) in setup::ENDED {
        let asked = |word: &String| {
            let level = word.strip_prefix(facility)?.strip_prefix('=')?;
            (level != "0").then_some(())
        };
        if job.facilities.iter().any(|word| asked(word).is_some()) {
            report.note(format!("facility `{facility}` has no events: {why}"));
        }
    }
    let recorder = recorder
        .until_panic(job.course.until == Some(Until::Panic))
        .checkpoints(job.course.checkpoint_interval.0)
        .tier(report.tier());
    if ours {
        store::set_latest(output);
    }
    let timeout = job
        .course
        .timeout
        .map(Duration::try_from_secs_f64)
        .transpose();
    let timeout = timeout.map_err(|_| Failure::usage("--timeout wants a number of seconds"))?;
    let typist = match job.course.viewed {
        true => Typist::Viewer,
        false => Typist::of_stdin(),
    };
    // Last before signals are heard: who sees the lock may send one.
    let _lock = lock(output);
    let mut console = Console::attach(timeout, typist)
        .map_err(|error| Failure::new(exit::ENVIRONMENT, format!("the console: {error}")))?;
    let recorder = match &job.course.gdb {
        None => recorder,
        Some(listen) => {
            let server = super::gdb::bind(listen)?;
            report.note(format!("in gdb, say `target remote {}`", server.address()));
            console.brief();
            recorder.debuggers(server, console.signal_flag())
        }
    };
    let began = Instant::now();
    let result = recorder.run(&mut console, |ticks| {
        let seconds = began.elapsed().as_secs_f64().max(1e-9);
        host.extra
            .insert("seconds".to_owned(), format!("{seconds:.3}"));
        host.extra.insert(
            "mips".to_owned(),
            format!("{:.1}", ticks as f64 / seconds / 1e6),
        );
        host
    });
    let signal = console.signal();
    // The terminal is itself again before anything is said.
    drop(console);
    let outcome = result?;
    summarize(&outcome, began.elapsed(), output, report);
    Ok(exit_code(job, &outcome, signal, report))
}

/// Locks the file, by which who looks at it meanwhile sees that it is being written. Without a lock, as
/// on file systems that have none, it looks like one that was left.
fn lock(output: &Path) -> Option<File> {
    let file = File::open(output).ok()?;
    for _ in 0..LOCK_TRIES {
        if !matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            break;
        }
        // Who looks whether there is a lock has one for a moment.
        thread::sleep(Duration::from_millis(1));
    }
    Some(file)
}

/// What was typed, with coLinux' words sorted out.
struct Args<'a> {
    record: &'a Record,
    kernel: Option<PathBuf>,
    initrd: Option<PathBuf>,
    memory: u64,
    cmdline: String,
    levels: Levels,
}

impl<'a> Args<'a> {
    fn from(record: &'a Record) -> Result<Self, Failure> {
        let mut kernel = record.kernel.clone();
        let mut initrd = record.initrd.clone();
        let mut memory = record.memory.0;
        let mut rest = Vec::new();
        for word in expand(&record.words)? {
            match word.split_once('=') {
                Some(("kernel", file)) => kernel = Some(file.into()),
                Some(("initrd", file)) => initrd = Some(file.into()),
                Some(("mem", size)) => {
                    memory = size.parse::<Bytes>().map_err(Failure::usage)?.0;
                }
                Some((key, _)) if key.starts_with("cobd") || key.starts_with("eth") => {
                    return Err(Failure::usage(format!(
                        "{word}: disks and network cards are not built yet"
                    )));
                }
                _ => rest.push(word),
            }
        }
        if record.initrd.is_some() && !record.command.is_empty() {
            return Err(Failure::usage(
                "--initrd and a COMMAND exclude each other: the command needs an initrd made for it",
            ));
        }
        let mut cmdline = CMDLINE.to_owned();
        if !record.command.is_empty() {
            cmdline.push(' ');
            cmdline.push_str(CMDLINE_COMMAND);
        }
        for more in rest
            .iter()
            .map(String::as_str)
            .chain(record.append.as_deref())
        {
            cmdline.push(' ');
            cmdline.push_str(more);
        }
        let mut levels = if record.no_trace {
            record::inputs_only()
        } else {
            Levels::default()
        };
        for word in &record.levels {
            levels.apply(word).map_err(Failure::usage)?;
        }
        Ok(Args {
            record,
            kernel,
            initrd,
            memory,
            cmdline,
            levels,
        })
    }
}

/// Words with `@FILE` replaced by the words in the file.
fn expand(words: &[String]) -> Result<Vec<String>, Failure> {
    let mut out = Vec::new();
    for word in words {
        match word.strip_prefix('@') {
            Some(file) => {
                let text = fs::read_to_string(file)
                    .map_err(|error| Failure::usage(format!("{file}: {error}")))?;
                let lines = text
                    .lines()
                    .filter(|line| !line.trim_start().starts_with('#'));
                out.extend(lines.flat_map(str::split_whitespace).map(str::to_owned));
            }
            None => out.push(word.clone()),
        }
    }
    Ok(out)
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>, Failure> {
    fs::read(path).map_err(|error| {
        Failure::usage(format!(
            "{}: the {what} cannot be read: {error}",
            path.display()
        ))
    })
}

/// The recording's name: the command's, else the kernel's release, else the kernel file's.
fn name_of(args: &Args<'_>, kernel: &[u8], path: &Path) -> String {
    if let Some(command) = args.record.command.first() {
        let word = command.to_string_lossy();
        let word = word.split_whitespace().next().unwrap_or("command");
        return word.rsplit('/').next().unwrap_or(word).to_owned();
    }
    let release = boot::kernel_version(kernel).ok().flatten();
    match release.as_deref().and_then(|r| r.split_whitespace().next()) {
        Some(release) => release.to_owned(),
        None => path
            .file_name()
            .map_or("kernel".into(), |n| n.to_string_lossy())
            .into_owned(),
    }
}

fn command_info(record: &Record) -> Option<Command> {
    (!record.command.is_empty()).then(|| Command {
        argv: record
            .command
            .iter()
            .map(|w| w.to_string_lossy().into_owned())
            .collect(),
        ..Command::default()
    })
}

/// Notes about this host, kept out of what is compared.
fn host_info(kernel: &Path) -> HostInfo {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    HostInfo {
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        started_unix_ns: i64::try_from(now.as_nanos()).unwrap_or(0),
        paths: BTreeMap::from([("kernel".to_owned(), kernel.display().to_string())]),
        ..HostInfo::default()
    }
}

fn summarize(outcome: &Outcome, elapsed: Duration, output: &Path, report: &Report) {
    let seconds = elapsed.as_secs_f64().max(1e-9);
    report.note(format!(
        "recorded {} instructions in {seconds:.1} s ({:.0} million a second), {} events, {}: {}",
        grouped(outcome.executed),
        outcome.executed as f64 / seconds / 1e6,
        grouped(outcome.summary.events),
        sized(outcome.summary.bytes),
        output.display()
    ));
}

/// Whether the guest's kernel failed in the way that was asked about.
fn failed(job: &Job<'_>, outcome: &Outcome) -> bool {
    match job.course.fail_on {
        None => false,
        Some(FailOn::Panic) => outcome.alarms.iter().any(|a| a.panic),
        Some(FailOn::Oops) => !outcome.alarms.is_empty(),
    }
}

fn exit_code(job: &Job<'_>, outcome: &Outcome, signal: Option<u8>, report: &Report) -> u8 {
    if let Some(what) = &outcome.unsupported {
        let place = outcome
            .function
            .as_ref()
            .map_or(String::new(), |f| format!(", in {f}"));
        report.note(format!(
            "the machine does not implement this: {what}{place}"
        ));
        return exit::SOFTWARE;
    }
    for alarm in &outcome.alarms {
        let what = if alarm.panic { "panicked" } else { "oopsed" };
        report.note(format!(
            "the guest {what} at @{}: {}",
            alarm.tick, alarm.text
        ));
    }
    if failed(job, outcome) {
        return exit::FAILED;
    }
    match outcome.reason {
        EndReason::Signal => exit::SIGNAL + signal.unwrap_or(2),
        EndReason::Timeout => {
            report.note("the timeout ended the recording");
            exit::TIMEOUT
        }
        EndReason::TickLimit => {
            if job.until_tick() == Some(outcome.tick) {
                0
            } else {
                report.note("the tick limit ended the recording");
                exit::TIMEOUT
            }
        }
        _ => match outcome.shutdown {
            Some(Shutdown::DebugExit(code)) => u8::try_from(code).unwrap_or(exit::FAILED),
            Some(Shutdown::PowerOff | Shutdown::Reset) if job.command.is_empty() => 0,
            Some(Shutdown::PowerOff | Shutdown::Reset) => {
                report.note("the guest ended without a status of its command");
                exit::FAILED
            }
            Some(Shutdown::TripleFault) => {
                report.note("the guest ended in a triple fault");
                exit::FAILED
            }
            Some(Shutdown::Halt) => {
                report.note("the guest halted with interrupts disabled");
                exit::FAILED
            }
            None => 0,
        },
    }
}
