//! `gdb`: a debugger on a recording, in both directions.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use colinux_replay::gdb::{Debuggee, Listen, ServeError, Server};
use colinux_replay::{Position, PositionError, Timeline, TimelineError};
use colinux_symbols::modules::Module;
use colinux_tracer::Reader;
use rustix::process::{Pid, Signal, kill_process};

use crate::args::Gdb;
use crate::console::Signals;
use crate::exit::{self, Failure};
use crate::names::{Demand, Names};
use crate::report::Report;
use crate::store;
use crate::words::grouped;

/// What our gdb is told first. Words that may take long are done at a step: while it waits for one, gdb
/// passes Ctrl-C on and prints what it is told, as it does not at a `monitor` command.
const INIT: &str = "\
set prompt (clt) 
set confirm off
set stack-cache off
set code-cache off
define when
  monitor when
end
document when
Where in the recording this is.
end
define hook-quit
  set confirm off
end
define seek
  monitor at-step seek $arg0
  stepi
end
document seek
Go to a position: @1.2G, +5000, -5000, e1234, t1.5, 50%, start, end, panic, bm:NAME, cp:N, bp:FUNC#42.
end
define seek-ticks
  seek @$arg0
end
document seek-ticks
Go to a tick.
end
define checkpoint
  monitor checkpoint
end
document checkpoint
Remember this place by a number, for `restart N`.
end
define restart
  if $argc == 0
    monitor at-step restart
  else
    monitor at-step restart $arg0
  end
  stepi
end
document restart
Go to a numbered place, or to the start.
end
define last-write
  monitor at-step last-write $arg0
  stepi
end
document last-write
Who wrote to ADDRESS[:LENGTH] last before now.
end
define why
  monitor at-step why $arg0
  stepi
end
document why
Who wrote to ADDRESS[:LENGTH] last before now, and who called whom there.
end
define mark
  if $argc == 0
    monitor mark
  else
    monitor mark $arg0
  end
end
document mark
Remember this place by a name, for `seek bm:NAME`.
end
set confirm on
";

/// A walk that takes longer than this says how far it has come.
const PATIENCE: Duration = Duration::from_secs(1);

pub(crate) fn run(args: &Gdb, report: &Report) -> Result<u8, Failure> {
    let path = store::find(args.trace.as_deref())?;
    let reader = Reader::open(&path)?;
    if let Some(recovery) = reader.recovery() {
        report.note(format!("{}: {recovery}", path.display()));
    }
    match &args.listen {
        Some(listen) => {
            let server = bind(listen)?;
            report.note(format!("in gdb, say `target remote {}`", server.address()));
            let signals = catch()?;
            let timeline = open(&reader, args.goto.as_ref(), &signals, report)?;
            let Some(timeline) = timeline else {
                return Ok(exit::SIGNAL + signals.received().unwrap_or(2));
            };
            let mut debuggee = Debuggee::new(reader, timeline);
            let caught = signals.clone();
            let over = move || caught.received().is_some();
            server.serve(&mut debuggee, over, &mut |what| report.note(what))?;
            Ok(signals.received().map_or(0, |signal| exit::SIGNAL + signal))
        }
        None => with_gdb(args, reader, report),
    }
}

fn catch() -> Result<Signals, Failure> {
    Signals::catch().map_err(|error| Failure::new(exit::ENVIRONMENT, format!("signals: {error}")))
}

pub(crate) fn bind(listen: &Listen) -> Result<Server, Failure> {
    Server::bind(listen).map_err(|error| Failure::new(exit::ENVIRONMENT, error))
}

/// The timeline at the position; `None` if a signal came first.
pub(crate) fn open(
    reader: &Reader,
    goto: Option<&Position>,
    signals: &Signals,
    report: &Report,
) -> Result<Option<Timeline>, Failure> {
    let mut timeline = Timeline::open(reader)?;
    timeline.set_tier(report.tier());
    if let Some(position) = goto {
        let began = Instant::now();
        let mut told = false;
        let terminal = io::stderr().is_terminal();
        let last = timeline.last_tick();
        let mut watch = |tick: u64, first: u64, to: u64| {
            if terminal && began.elapsed() > PATIENCE {
                told = true;
                tell(tick, first, to, began.elapsed());
            }
            signals.received().is_none()
        };
        let found = position.find(reader, &mut timeline, &mut |tick| watch(tick, 0, last));
        let mark = match found {
            Err(PositionError::Interrupted) => return Ok(None),
            found => found?,
        };
        let first = timeline.at().tick;
        let halt = timeline.seek(mark, &mut |tick| watch(tick, first, mark.tick))?;
        if told {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
        if halt == colinux_replay::Halt::Interrupted {
            return Ok(None);
        }
        for note in timeline.take_notes() {
            report.note(format!("{}: {note}", reader.path().display()));
        }
        report.detail(format!("at {}", timeline.at()));
    }
    Ok(Some(timeline))
}

/// How far it is, and how long it will take.
fn tell(tick: u64, first: u64, to: u64, elapsed: Duration) {
    let done = tick.saturating_sub(first).max(1) as f64;
    let left = to.saturating_sub(tick) as f64;
    let seconds = elapsed.as_secs_f64() * left / done;
    let _ = write!(
        io::stderr(),
        "\r\x1b[Kcolinux-trace: at tick {} of {}, {seconds:.0} s to go",
        grouped(tick),
        grouped(to)
    );
}

/// Starts gdb on a socket of its own, and serves it until it ends.
fn with_gdb(args: &Gdb, reader: Reader, report: &Report) -> Result<u8, Failure> {
    let failed =
        |what: &str, error: io::Error| Failure::new(exit::ENVIRONMENT, format!("{what}: {error}"));
    let folder = tempfile::tempdir().map_err(|error| failed("a folder for the socket", error))?;
    let socket = folder.path().join("gdb");
    let init = folder.path().join("init.gdb");
    std::fs::write(&init, INIT).map_err(|error| failed("the settings for gdb", error))?;
    let server = bind(&Listen::Unix(socket.clone()))?;
    let signals = catch()?;
    let Some(timeline) = open(&reader, args.goto.as_ref(), &signals, report)? else {
        return Ok(exit::SIGNAL + signals.received().unwrap_or(2));
    };
    // From here on Ctrl-C is gdb's.
    signals.leave_interrupts();
    let mut timeline = timeline;
    let names = folder.path().join("kernel.symbols");
    let symbols = symbols(args, &reader, &mut timeline, names, report)?;
    let modules = folder.path().join("modules.gdb");
    std::fs::write(&modules, &symbols.modules)
        .map_err(|error| failed("the names for gdb", error))?;
    let mut debuggee = Debuggee::new(reader, timeline);
    let child = start(args, symbols.kernel.as_deref(), &modules, &socket, &init)
        .map_err(|error| failed("gdb could not be started (with --listen, no gdb is)", error))?;
    let gdb = Pid::from_child(&child);
    let over = Arc::new(AtomicBool::new(false));
    let waiting = wait_for(child, Arc::clone(&over));
    let caught = signals.clone();
    let ended = Arc::clone(&over);
    let served = server.serve(
        &mut debuggee,
        move || ended.load(Ordering::Acquire) || caught.received().is_some(),
        &mut |what| report.detail(what),
    );
    if let Some(signal) = signals.received() {
        if !over.load(Ordering::Acquire) {
            // It may have gone in this very moment.
            let _ = kill_process(gdb, Signal::TERM);
        }
        let _ = waiting.join();
        return Ok(exit::SIGNAL + signal);
    }
    let code = waiting.join().ok().flatten();
    served?;
    Ok(code
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(exit::SOFTWARE))
}

/// The gdb commands that read names.
#[derive(Default)]
struct SymbolFiles {
    kernel: Option<String>,
    /// One a line, for a file: there gdb does not ask whether it is to go on.
    modules: String,
}

/// The names of the guest's kernel, from its debug image, else what it knows of itself at the place
/// where gdb begins; and those of its modules there whose debug images are found.
fn symbols(
    args: &Gdb,
    reader: &Reader,
    timeline: &mut Timeline,
    own: PathBuf,
    report: &Report,
) -> Result<SymbolFiles, Failure> {
    let names = match Names::of(reader, &args.debug, &Demand::Few, report) {
        Ok(names) => names,
        // A kernel without names can be walked in by addresses, unless names were asked for.
        Err(failure) if args.debug.vmlinux.is_some() => return Err(failure),
        Err(failure) => {
            report.note(failure.message);
            return Ok(SymbolFiles::default());
        }
    };
    let machine = timeline.machine_mut();
    let modules = if args.debug.no_debug {
        Vec::new()
    } else {
        names.module_images(machine)
    };
    let modules = modules
        .iter()
        .map(|(module, path)| add_module(module, path));
    let modules = modules.collect();
    let kernel = if let Some(image) = names.image_path() {
        let slide = names.kernel.slide(machine).map_or(0, |slide| slide.0);
        Some(format!("symbol-file {} -o {slide:#x}", image.display()))
    } else {
        let file = super::symfile::symbol_file(&names.kernel.resolver(machine));
        let written = file.is_some_and(|file| std::fs::write(&own, file).is_ok());
        written.then(|| format!("symbol-file {}", own.display()))
    };
    Ok(SymbolFiles { kernel, modules })
}

/// The line that places a module's debug image where the guest has it.
fn add_module(module: &Module, path: &Path) -> String {
    let places = module.sections.iter().filter(|(name, at)| {
        // The guest says what they are called: nothing but a word goes to gdb.
        let word = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        module.contains(*at) && name.starts_with(['.', '_']) && name.bytes().all(word)
    });
    let places = places.map(|(name, at)| format!(" -s {name} {:#x}", at.0));
    let path = path.display().to_string().replace('\'', "'\\''");
    format!("add-symbol-file '{path}'{}\n", places.collect::<String>())
}

fn start(
    args: &Gdb,
    kernel: Option<&str>,
    modules: &Path,
    socket: &Path,
    init: &Path,
) -> io::Result<Child> {
    let mut command = Command::new("gdb");
    command.arg("-q").args(["-l", "10000"]);
    if args.batch {
        command.arg("-batch");
    }
    command.arg("-x").arg(init);
    if let Some(kernel) = kernel {
        command.arg("-ex").arg(kernel);
    }
    command.arg("-x").arg(modules);
    command
        .arg("-ex")
        .arg(format!("target remote {}", socket.display()));
    for file in &args.script {
        command.arg("-x").arg(file);
    }
    for line in &args.commands {
        command.arg("-ex").arg(line);
    }
    command.spawn()
}

fn wait_for(mut child: Child, over: Arc<AtomicBool>) -> thread::JoinHandle<Option<i32>> {
    thread::spawn(move || {
        let status = child.wait();
        over.store(true, Ordering::Release);
        status.ok().and_then(|status| status.code())
    })
}

impl From<TimelineError> for Failure {
    fn from(error: TimelineError) -> Self {
        match error {
            TimelineError::Replay(error) => error.into(),
            TimelineError::Lost(_) => Failure::new(exit::DIVERGED, error),
            TimelineError::Outside { .. } => Failure::usage(error),
        }
    }
}

impl From<PositionError> for Failure {
    fn from(error: PositionError) -> Self {
        match error {
            PositionError::Trace(error) => error.into(),
            PositionError::Timeline(error) => error.into(),
            PositionError::View(error) => error.into(),
            PositionError::NoFunction(_) => Failure::new(exit::SYMBOLS, error),
            PositionError::Missing { .. } | PositionError::Fewer { .. } => {
                Failure::new(exit::FAILED, error)
            }
            other => Failure::usage(other),
        }
    }
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        match error {
            ServeError::Timeline(error) => error.into(),
            ServeError::Waiting => Failure::new(exit::SOFTWARE, error),
        }
    }
}
