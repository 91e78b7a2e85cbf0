//! `export`: a recording in other programs' formats.

mod samples;

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

use colinux_replay::GuestKernel;
use colinux_replay::export::{perfetto, vmcore};
use colinux_symbols::Resolver;
use colinux_tracer::Reader;

use super::dump::span;
use super::state::Moment;
use crate::args::{At, Destination, Export, ExportEvents, ExportFormat, Vmcore};
use crate::console::Signals;
use crate::exit::{self, Failure};
use crate::progress::Progress;
use crate::report::Report;
use crate::store;
use crate::words::{grouped, sized};

pub(crate) fn run(args: &Export, report: &Report) -> Result<u8, Failure> {
    match &args.format {
        ExportFormat::Perfetto(args) => perfetto(args, report),
        ExportFormat::Perf(args) => samples::perf(args, report),
        ExportFormat::Folded(args) => samples::folded(args, report),
        ExportFormat::Pcap(args) => pcap(args),
        ExportFormat::Vmcore(args) => vmcore(args, report),
    }
}

fn perfetto(args: &ExportEvents, report: &Report) -> Result<u8, Failure> {
    let reader = open(args, report)?;
    let (from, to) = span(args.from.as_ref(), args.to.as_ref(), &reader)?;
    let signals = catch()?;
    let last = reader.reach().min(to);
    let mut out = Output::open(&args.destination, false)?;
    let mut progress = Progress::new("exporting");
    let mut go_on = |tick: u64| {
        progress.at(tick as usize, last as usize);
        signals.received().is_none()
    };
    let events = perfetto::write(&reader, from..=to, &mut out.file, &mut go_on);
    drop(progress);
    let events = events.map_err(|error| match error {
        perfetto::ExportError::Trace(error) => error.into(),
        perfetto::ExportError::Write(error) => unwritten(&out.name, &error),
    })?;
    if let Some(signal) = signals.received() {
        return Ok(exit::SIGNAL + signal);
    }
    report.note(format!("{} events: {}", grouped(events), out.name));
    Ok(0)
}

/// The recording whose events are wanted.
fn open(args: &ExportEvents, report: &Report) -> Result<Reader, Failure> {
    let path = store::find(args.trace.as_deref())?;
    let reader = Reader::open(&path)?;
    if let Some(recovery) = reader.recovery() {
        report.note(format!("{}: {recovery}", path.display()));
    }
    Ok(reader)
}

fn catch() -> Result<Signals, Failure> {
    Signals::catch().map_err(|error| Failure::new(exit::ENVIRONMENT, format!("signals: {error}")))
}

/// Where an export goes.
struct Output {
    name: String,
    file: Box<dyn Write>,
}

impl Output {
    fn open(destination: &Destination, is_text: bool) -> Result<Self, Failure> {
        let Some(path) = &destination.output else {
            let out = io::stdout();
            if out.is_terminal() && !is_text {
                return Err(Failure::usage(
                    "this is not for a terminal: say -o FILE, or send it to a program",
                ));
            }
            return Ok(Output {
                name: "standard output".to_owned(),
                file: Box::new(BufWriter::new(out)),
            });
        };
        Ok(Output {
            name: path.display().to_string(),
            file: Box::new(BufWriter::new(create(path, destination.force)?)),
        })
    }
}

/// A new file; an old one only if that is said.
fn create(path: &Path, force: bool) -> Result<File, Failure> {
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create(true)
        .truncate(true)
        .create_new(!force);
    options.open(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::new(
            exit::ENVIRONMENT,
            format!("{}: exists; -f overwrites it", path.display()),
        ),
        _ => unwritten(&path.display().to_string(), &error),
    })
}

/// A closed pipe ends the program quietly, as it does others.
fn unwritten(name: &str, error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::new(exit::SIGNAL + 13, "");
    }
    Failure::new(
        exit::ENVIRONMENT,
        format!("{name}: cannot be written: {error}"),
    )
}

/// There is no network device, hence no recording with packets in it.
fn pcap(args: &ExportEvents) -> Result<u8, Failure> {
    let path = store::find(args.trace.as_deref())?;
    Err(Failure::new(
        exit::FAILED,
        format!(
            "{}: the guest had no network device, and there is none yet: no packets",
            path.display()
        ),
    ))
}

fn vmcore(args: &Vmcore, report: &Report) -> Result<u8, Failure> {
    let at = At {
        trace: args.trace.clone(),
        at: args.at.clone(),
        json: false,
    };
    let mut moment = Moment::find(&at, report)?;
    let kernel = GuestKernel::of(&moment.reader);
    let machine = moment.timeline.machine_mut();
    let (names, thread) = match &kernel {
        Ok(kernel) => (kernel.resolver(machine), kernel.current(machine)),
        Err(_) => (Resolver::default(), None),
    };
    let thread = thread.map_or(0, |task| task.pid.try_into().unwrap_or(0));
    let name = args.output.display().to_string();
    let mut file = BufWriter::new(create(&args.output, args.force)?);
    let dumped = vmcore::write(&mut moment.timeline, &names, thread, &mut file)
        .map_err(|error| unwritten(&name, &error))?;
    if !dumped.has_info {
        report
            .note("the kernel had not written its VMCOREINFO at this tick: crash and drgn need it");
    }
    report.note(format!(
        "{} of memory at {}: {}",
        sized(dumped.bytes),
        moment.timeline.at(),
        name
    ));
    Ok(0)
}
