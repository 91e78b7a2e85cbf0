//! The replaying thread: goes where the cursor is, and tells what the machine is there.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

use colinux_replay::disasm::{Disassembler, Insn};
use colinux_replay::state::Registers;
use colinux_replay::watch::{Watched, virtual_watch};
use colinux_replay::{Halt, Mark, Timeline};
use colinux_symbols::btf::Kind;
use colinux_symbols::modules::Module;
use colinux_symbols::orc::OrcSet;
use colinux_symbols::ps::Task;
use colinux_symbols::resolve::Source;
use colinux_symbols::unwind::{self, End};
use colinux_symbols::{DebugFiles, GuestMemory, Image, Index, Resolver, Slide, Symtab};
use colinux_tracer::Reader;

pub use super::walk::Walk as Way;
use super::walk::Walk;
use super::walk::{Caller, Walker};
use super::{News, Ticket};
use crate::moment::{Bytes, FrameLine, Moment, SourceText, Wants};
use crate::names::{Kernel, Names};

/// A walk that takes longer says how far it has come.
const PATIENCE: Duration = Duration::from_millis(120);
/// Instructions before RIP, and in all.
const CODE_BEFORE: usize = 40;
const CODE_LINES: usize = 120;
/// A function that begins further back than this is disassembled from RIP on.
const FUNCTION_REACH: u64 = 1 << 16;
/// Frames of a stack.
const FRAMES: usize = 64;
/// Lines of source on each side.
const SOURCE_LINES: u32 = 200;
/// Recordings longer than this are not walked through in advance.
const FORESIGHT: u64 = 20_000_000_000;

/// Where debug information and sources are looked for.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// The vmlinux with debug information.
    pub vmlinux: Option<PathBuf>,
    /// Where fetched kernels are, each in a folder with the name of its release.
    pub kernels: Option<PathBuf>,
    /// Folders with kernel sources.
    pub sources: Vec<PathBuf>,
    /// Where the index of symbols is kept.
    pub cache: Option<PathBuf>,
}

/// A job.
#[derive(Debug)]
pub enum Job {
    /// Go somewhere, and tell.
    Walk {
        /// Where from, for ways that are relative.
        from: Mark,
        /// The way.
        walk: Walk,
        /// Breakpoints and watched ranges.
        stops: (Vec<u64>, Vec<(u64, u64)>),
        /// What to tell beside the usual.
        wants: Wants,
        /// Its right to go on.
        ticket: Ticket,
    },
    /// What the kernel says of itself has been read.
    Kernel(Arc<Kernel>),
    /// The recording has grown, or the viewer comes back from another program.
    Reader(Box<Reader>),
}

/// An answer.
#[derive(Debug)]
pub enum MachineNews {
    /// The place that was reached.
    There {
        /// The job's ticket.
        ticket: Ticket,
        /// The machine there.
        moment: Arc<Moment>,
        /// Why it is there.
        halt: Halt,
    },
    /// On the way.
    Progress {
        /// The job's ticket.
        ticket: Ticket,
        /// The tick it has come to.
        tick: u64,
    },
    /// It could not be done.
    Failed {
        /// The job's ticket, if it was about one.
        ticket: Option<Ticket>,
        /// Why.
        why: String,
    },
}

/// Does one job after the other; between jobs, walks ahead so that later ones are quick.
pub fn serve(reader: Reader, places: &Places, inbox: Receiver<Job>, news: Sender<News>) {
    let mut machine = Machine {
        reader,
        places: places.clone(),
        news,
        timeline: None,
        kernel: Arc::new(Kernel::default()),
        resolver: Rc::default(),
        debug: None,
        foreseen: 0,
    };
    loop {
        let job = match inbox.try_recv() {
            Ok(job) => Some(job),
            Err(TryRecvError::Disconnected) => return,
            Err(TryRecvError::Empty) if machine.looks_ahead() => None,
            Err(TryRecvError::Empty) => match inbox.recv() {
                Ok(job) => Some(job),
                Err(_) => return,
            },
        };
        match job {
            Some(job) => machine.work(job),
            None => machine.look_ahead(),
        }
    }
}

struct Machine {
    reader: Reader,
    places: Places,
    news: Sender<News>,
    timeline: Option<Timeline>,
    kernel: Arc<Kernel>,
    /// Shared with the disassembler, which wants to own what names addresses.
    resolver: Rc<RefCell<Resolver>>,
    /// What was found of debug information: its path, or what lacks.
    debug: Option<Result<PathBuf, String>>,
    /// Walked through in advance up to here.
    foreseen: u64,
}

impl Machine {
    fn tell(&self, news: MachineNews) {
        let _ = self.news.send(News::Machine(news));
    }

    fn work(&mut self, job: Job) {
        match job {
            Job::Kernel(kernel) => self.learn(kernel),
            Job::Reader(reader) => self.reader = *reader,
            Job::Walk {
                from,
                walk,
                stops,
                wants,
                ticket,
            } => {
                if !ticket.is_good() {
                    return;
                }
                match self.walk(from, &walk, stops, &ticket) {
                    Ok(Some(halt)) => {
                        if let Some(moment) = self.moment(wants) {
                            let moment = Arc::new(moment);
                            self.tell(MachineNews::There {
                                ticket,
                                moment,
                                halt,
                            });
                        }
                    }
                    Ok(None) => {}
                    Err(why) => self.tell(MachineNews::Failed {
                        ticket: Some(ticket),
                        why,
                    }),
                }
            }
        }
    }

    /// The timeline; a new one where the recording has grown and one goes beyond what it was.
    fn open(&mut self, walk: &Walk) -> Result<&mut Timeline, String> {
        let beyond = |timeline: &Timeline| matches!(walk, Walk::To(mark) if mark.tick > timeline.last_tick());
        if self.timeline.as_ref().is_some_and(beyond) {
            self.timeline = None;
            self.foreseen = 0;
        }
        if self.timeline.is_none() {
            let timeline = Timeline::open(&self.reader).map_err(|error| error.to_string())?;
            self.timeline = Some(timeline);
        }
        self.timeline.as_mut().ok_or_else(String::new)
    }

    /// Goes a way; `None` when it was called off.
    fn walk(
        &mut self,
        from: Mark,
        walk: &Walk,
        stops: (Vec<u64>, Vec<(u64, u64)>),
        ticket: &Ticket,
    ) -> Result<Option<Halt>, String> {
        let news = self.news.clone();
        let began = Instant::now();
        let mut told = began;
        let mut keep_going = |tick: u64| {
            if began.elapsed() > PATIENCE && told.elapsed() > PATIENCE / 2 {
                told = Instant::now();
                let ticket = ticket.clone();
                let _ = news.send(News::Machine(MachineNews::Progress { ticket, tick }));
            }
            ticket.is_good()
        };
        let reader = self.reader.clone();
        let (kernel, resolver) = (Arc::clone(&self.kernel), Rc::clone(&self.resolver));
        let timeline = self.open(walk)?;
        timeline.stops().breakpoints.clear();
        timeline.stops().watches.clear();
        let said = |error: colinux_replay::TimelineError| error.to_string();
        if !matches!(walk, Walk::To(_)) {
            let halt = timeline.seek(from, &mut keep_going).map_err(said)?;
            if halt == Halt::Interrupted {
                return Ok(None);
            }
        }
        timeline.stops().breakpoints = stops.0;
        timeline.stops().watches = stops
            .1
            .iter()
            .map(|(start, len)| virtual_watch(*start, *len, Watched::Writes))
            .collect();
        let mut walker = Walker {
            timeline,
            reader: &reader,
            keep_going: &mut keep_going,
        };
        let who_called = |timeline: &mut Timeline| caller(timeline, &kernel, &resolver.borrow());
        let halt = walker
            .go(walk, &who_called)
            .map_err(|error| error.to_string())?;
        Ok((halt != Halt::Interrupted).then_some(halt))
    }

    fn looks_ahead(&self) -> bool {
        let Some(timeline) = &self.timeline else {
            return false;
        };
        let last = timeline.last_tick();
        last <= FORESIGHT && self.foreseen < last
    }

    /// Leaves checkpoints along the recording, a stretch at a time.
    fn look_ahead(&mut self) {
        let Some(timeline) = self.timeline.as_mut() else {
            return;
        };
        let last = timeline.last_tick();
        let grid = timeline.checkpoints().grid();
        let to = (self.foreseen / grid + 1).saturating_mul(grid).min(last);
        timeline.stops().breakpoints.clear();
        timeline.stops().watches.clear();
        let went = timeline.seek(Mark::at(to), &mut |_| true);
        // What cannot be replayed is said when one goes there.
        self.foreseen = if went.is_ok() { to } else { u64::MAX };
    }

    fn learn(&mut self, kernel: Arc<Kernel>) {
        let tables = kernel.tables.as_ref();
        let mut resolver = tables.map_or_else(Resolver::default, |t| t.resolver(Slide::NONE));
        self.debug = Some(debug(&kernel, &self.places, &mut resolver));
        self.resolver = Rc::new(RefCell::new(resolver));
        self.kernel = kernel;
    }

    fn moment(&mut self, wants: Wants) -> Option<Moment> {
        let kernel = Arc::clone(&self.kernel);
        let resolver = Rc::clone(&self.resolver);
        let no_source = match &self.debug {
            Some(Err(why)) => why.clone(),
            Some(Ok(_)) => "no source line is known here".to_owned(),
            None => "names are being read".to_owned(),
        };
        let sources = self.places.sources.clone();
        let timeline = self.timeline.as_mut()?;
        if let Some(slide) = timeline.slide() {
            kernel.set_slide(slide);
        }
        let slide = kernel.slide().unwrap_or(Slide::NONE);
        let (mark, time_ns, ended) = (timeline.at(), timeline.time_ns(), timeline.is_at_end());
        let registers = timeline.registers();
        let memory = timeline.memory();
        let lists = |what: &str| format!("the kernel's {what} is not known to this recording");
        let modules = match &kernel.tables {
            Some(tables) => tables
                .modules(&memory, slide)
                .map_err(|error| error.to_string()),
            None => Err(lists("list of modules")),
        };
        {
            let mut resolver = resolver.borrow_mut();
            resolver.set_slide(slide);
            resolver.set_modules(modules.clone().unwrap_or_default());
        }
        let modules: Result<Arc<Vec<Module>>, String> = modules.map(Arc::new);
        let names = Names {
            kernel: Arc::clone(&kernel),
            modules: modules.clone().unwrap_or_default(),
        };
        let (stack, stack_end) = stack(&memory, &kernel, &resolver.borrow(), &registers, &names);
        let source = match stack.first().and_then(|line| line.source.clone()) {
            Some((file, line)) => read_source(&file, line, &sources),
            None => Err(no_source),
        };
        let tasks: Result<Vec<Task>, String> = match &kernel.tables {
            _ if !wants.lists => Ok(Vec::new()),
            Some(tables) => tables
                .tasks(&memory, slide)
                .map_err(|error| error.to_string()),
            None => Err(lists("list of tasks")),
        };
        let current = kernel.tables.as_ref();
        let current = current.and_then(|tables| tables.current(&memory, slide));
        Some(Moment {
            mark,
            time_ns,
            ended,
            function: names.function(registers.rip).map(str::to_owned),
            code: code(&memory, &registers, &names),
            stack,
            stack_end,
            source,
            memory: bytes(&memory, &registers, &wants, &kernel, &names),
            tasks: tasks.map(Arc::new),
            current: current.map(|task| task.pid),
            modules,
            registers,
            wants,
        })
    }
}

/// Finds debug information, and gives it to the resolver.
fn debug(kernel: &Kernel, places: &Places, resolver: &mut Resolver) -> Result<PathBuf, String> {
    let none = "no source: the kernel's debug image is not here (--vmlinux FILE)";
    let tables = kernel.tables.as_ref().ok_or(none)?;
    let release = tables.release.as_deref();
    let beside = places.kernels.as_ref().zip(release);
    let beside = beside.map(|(folder, release)| folder.join(release));
    let files = DebugFiles::new(places.vmlinux.clone(), beside.into_iter().collect());
    let found = files.kernel(tables.build_id.as_ref(), release);
    let (image, passed) = found.map_err(|error| error.to_string())?;
    let passed = passed.first().map(ToString::to_string);
    let image = image.ok_or_else(|| passed.unwrap_or_else(|| none.to_owned()))?;
    let path = image.path().to_owned();
    let indexed = places
        .cache
        .as_ref()
        .and_then(|cache| Index::open_or_build(&image, cache, &mut |_, _| {}).ok());
    resolver.set_source(indexed.map_or_else(|| Source::Dwarf(image), Source::Index));
    if let Some(symtab) = symtab(&path) {
        resolver.set_symtab(symtab);
    }
    Ok(path)
}

fn symtab(path: &Path) -> Option<Symtab> {
    let bytes = fs::read(path).ok()?;
    Symtab::from_image(&Image::parse(&bytes).ok()?)
}

fn unwound(
    memory: &impl GuestMemory,
    kernel: &Kernel,
    resolver: &Resolver,
    registers: &Registers,
) -> unwind::Stack {
    let registers = registers.unwind_from();
    match &kernel.tables {
        Some(tables) => tables.stack(memory, resolver, &registers),
        None => unwind::unwind(memory, &OrcSet::default(), &registers, FRAMES),
    }
}

fn caller(timeline: &mut Timeline, kernel: &Kernel, resolver: &Resolver) -> Option<Caller> {
    let registers = timeline.registers();
    let stack = unwound(&timeline.memory(), kernel, resolver, &registers);
    stack.frames.get(1).map(|frame| Caller {
        ip: frame.ip.0,
        sp: frame.sp.0,
    })
}

fn stack(
    memory: &impl GuestMemory,
    kernel: &Kernel,
    resolver: &Resolver,
    registers: &Registers,
    names: &Names,
) -> (Vec<FrameLine>, &'static str) {
    let stack = unwound(memory, kernel, resolver, registers);
    let mut lines = Vec::new();
    for frame in &stack.frames {
        let before = lines.len();
        let (ip, method) = (frame.ip.0, frame.method.word());
        let at = names.place(ip);
        resolver.frames(frame.lookup_ip(), &mut |inner| {
            let source = inner.file.map(|file| (file.to_owned(), inner.line));
            let name = match (inner.inlined, inner.function) {
                (true, Some(function)) => function.to_owned(),
                _ => at.clone(),
            };
            lines.push(FrameLine {
                ip,
                name,
                source,
                inlined: inner.inlined,
                method,
            });
        });
        if lines.len() == before {
            lines.push(FrameLine {
                ip,
                name: at,
                source: None,
                inlined: false,
                method,
            });
        }
    }
    let end = match stack.end {
        End::Bottom => "the bottom of the stack",
        End::User => "on in the program, without frame pointers",
        End::Lost => "nothing more is found",
        End::Limit => "and more",
    };
    (lines, end)
}

/// Instructions around RIP: the function from its start, if that is near, so that they are in step.
fn code(memory: &impl GuestMemory, registers: &Registers, names: &Names) -> Vec<Insn> {
    let for_names = names.clone();
    let mut disassembler = Disassembler::new(move |gva| for_names.name(gva));
    let (rip, bits) = (registers.rip, registers.code_bits);
    let start = names
        .function_start(rip)
        .filter(|start| rip.wrapping_sub(*start) < FUNCTION_REACH);
    let mut before = Vec::new();
    if let Some(start) = start {
        let room = usize::try_from(rip - start).unwrap_or(0);
        let mut insns = disassembler.run(memory, start, bits, room);
        // In step only if one begins at RIP.
        if let Some(at) = insns.iter().position(|insn| insn.next() == rip) {
            insns.truncate(at + 1);
            before = insns.split_off(insns.len().saturating_sub(CODE_BEFORE));
        }
    }
    let count = CODE_LINES - before.len();
    before.extend(disassembler.run(memory, rip, bits, count));
    before
}

fn bytes(
    memory: &impl GuestMemory,
    registers: &Registers,
    wants: &Wants,
    kernel: &Kernel,
    names: &Names,
) -> Bytes {
    let start = wants.memory.unwrap_or(registers.rsp() & !15);
    let mut all = Vec::with_capacity(wants.bytes);
    let mut at = start;
    while all.len() < wants.bytes {
        // Page by page, since the next may not be there.
        let room = usize::try_from(0x1000 - (at & 0xfff)).unwrap_or(1);
        let mut piece = vec![0; room.min(wants.bytes - all.len())];
        let mapped = memory.read(at, &mut piece);
        at = at.wrapping_add(piece.len() as u64);
        all.extend(piece.into_iter().map(|byte| mapped.then_some(byte)));
    }
    let typed = wants.as_type.as_ref().map(|name| {
        let value = typed(memory, name, start, kernel, names);
        (name.clone(), value.unwrap_or_else(|why| vec![why]))
    });
    Bytes {
        start,
        bytes: all,
        typed,
    }
}

/// What pointers of a printed value are shown with.
struct Context<'a, M>(&'a M, &'a Names);

impl<M: GuestMemory> colinux_symbols::btf::PrintContext for Context<'_, M> {
    fn symbol(&self, gva: u64) -> Option<String> {
        self.1.name(gva)
    }

    fn string(&self, gva: u64, limit: usize) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        let mut one = [0];
        while text.len() < limit {
            if !self.0.read(gva.wrapping_add(text.len() as u64), &mut one) {
                return None;
            }
            if one[0] == 0 {
                break;
            }
            text.push(one[0]);
        }
        Some(text)
    }
}

fn typed(
    memory: &impl GuestMemory,
    name: &str,
    at: u64,
    kernel: &Kernel,
    names: &Names,
) -> Result<Vec<String>, String> {
    let tables = kernel.tables.as_ref();
    let btf = tables.and_then(|tables| tables.btf.as_ref());
    let btf = btf.ok_or("the kernel has no types")?;
    let bare = name.trim_start_matches("struct ").trim();
    let kinds = [
        Kind::Struct,
        Kind::Union,
        Kind::Typedef,
        Kind::Int,
        Kind::Enum,
    ];
    let id = kinds.into_iter().find_map(|kind| btf.find(kind, bare));
    let id = id.ok_or_else(|| format!("the kernel has no type `{name}`"))?;
    let size = btf.size_of(id).unwrap_or(0).min(1 << 16);
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    if !memory.read(at, &mut bytes) {
        return Err(format!("{at:#x} is not mapped"));
    }
    Ok(in_lines(&btf.print(id, &bytes, &Context(memory, names))))
}

/// A printed value, a member a line, indented by depth.
fn in_lines(value: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    let (mut depth, mut quoted) = (0usize, false);
    let mut chars = value.chars().peekable();
    let new_line = |lines: &mut Vec<String>, depth: usize| lines.push("  ".repeat(depth));
    while let Some(c) = chars.next() {
        let last = lines.len() - 1;
        match c {
            '"' | '\'' => {
                quoted = !quoted;
                lines[last].push(c);
            }
            '\\' if quoted => {
                lines[last].push(c);
                lines[last].extend(chars.next());
            }
            _ if quoted => lines[last].push(c),
            '{' => {
                lines[last].push(c);
                depth += 1;
                new_line(&mut lines, depth);
            }
            '}' => {
                depth = depth.saturating_sub(1);
                new_line(&mut lines, depth);
                let last = lines.len() - 1;
                lines[last].push(c);
            }
            ',' => {
                lines[last].push(c);
                new_line(&mut lines, depth);
                while chars.peek() == Some(&' ') {
                    chars.next();
                }
            }
            c => lines[last].push(c),
        }
    }
    lines.retain(|line| !line.trim().is_empty());
    lines
}

fn read_source(file: &str, line: u32, folders: &[PathBuf]) -> Result<SourceText, String> {
    let mut places: Vec<PathBuf> = vec![file.into()];
    for folder in folders {
        // The folder that it was built in is another one here.
        let mut rest = Path::new(file.trim_start_matches('/'));
        loop {
            places.push(folder.join(rest));
            let mut parts = rest.components();
            parts.next();
            if parts.as_path().as_os_str().is_empty() {
                break;
            }
            rest = parts.as_path();
        }
    }
    let found = places.iter().find(|path| path.is_file());
    let Some(path) = found else {
        return Err(format!(
            "{file}:{line}: the source is not here (--source DIR)"
        ));
    };
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let first = line.saturating_sub(SOURCE_LINES).max(1);
    let lines = text
        .lines()
        .skip(first as usize - 1)
        .take(2 * SOURCE_LINES as usize)
        .map(crate::text::clean)
        .collect();
    Ok(SourceText {
        file: file.to_owned(),
        line,
        first,
        lines,
    })
}
