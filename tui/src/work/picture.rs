//! Making a [`Moment`]: what the panels of the machine show, read out of it.

use std::rc::Rc;
use std::sync::Arc;

use colinux_replay::Timeline;
use colinux_replay::disasm::{Disassembler, Insn};
use colinux_replay::state::Registers;
use colinux_symbols::orc::OrcSet;
use colinux_symbols::ps::Task;
use colinux_symbols::unwind::{self, End};
use colinux_symbols::{GuestMemory, Resolver, Slide};

use super::machine::Machine;
use super::typed::typed;
use super::walk::Caller;
use crate::moment::{Bytes, FrameLine, ModuleLine, Moment, Wants};
use crate::names::{Kernel, Names};

/// Instructions before RIP, and in all.
const CODE_BEFORE: usize = 40;
const CODE_LINES: usize = 120;
/// A function that begins further back than this is disassembled from RIP on.
const FUNCTION_REACH: u64 = 1 << 16;
/// Frames of a stack.
const FRAMES: usize = 64;

impl Machine {
    pub(super) fn moment(&mut self, wants: Wants) -> Option<Moment> {
        let kernel = Arc::clone(&self.kernel);
        let resolver = Rc::clone(&self.resolver);
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
            if let (Some(debug), Ok(modules)) = (&mut self.debug, &modules) {
                debug.add_modules(modules, &mut resolver);
            }
        }
        let loaded = Arc::new(modules.clone().unwrap_or_default());
        let modules = modules.map(|modules| modules.iter().map(ModuleLine::from).collect());
        let names = Names {
            kernel: Arc::clone(&kernel),
            modules: Arc::clone(&loaded),
        };
        let (mut stack, stack_end) =
            stack(&memory, &kernel, &resolver.borrow(), &registers, &names);
        let source = match stack.get(wants.frame).and_then(|line| line.source.clone()) {
            Some((file, line)) => match &self.debug {
                Some(debug) => debug.read(&file, line, &self.places.sources),
                None => Err("names are being read".to_owned()),
            },
            None => Err(match self.debug.as_ref().map(|debug| &debug.image) {
                Some(Err(why)) => why.clone(),
                Some(Ok(_)) => "no source line is known here".to_owned(),
                None => "names are being read".to_owned(),
            }),
        };
        if let Some(debug) = &self.debug {
            let files = stack.iter_mut().filter_map(|line| line.source.as_mut());
            files.for_each(|(file, _)| *file = debug.short(file).to_owned());
        }
        let tasks: Result<Vec<Task>, String> = match &kernel.tables {
            _ if !wants.lists => Ok(Vec::new()),
            Some(tables) => tables
                .tasks(&memory, slide)
                .map_err(|error| error.to_string()),
            None => Err(lists("list of tasks")),
        };
        let ip = stack
            .get(wants.frame)
            .map_or(registers.rip, |frame| frame.ip);
        let current = kernel.tables.as_ref();
        let current = current.and_then(|tables| tables.current(&memory, slide));
        Some(Moment {
            mark,
            time_ns,
            ended,
            function: names.function(ip).map(str::to_owned),
            code: code(&memory, ip, registers.code_bits, &names),
            stack,
            stack_end,
            source,
            memory: bytes(&memory, &registers, &wants, &kernel, &names),
            tasks: tasks.map(Arc::new),
            current: current.map(|task| task.pid),
            modules,
            loaded,
            registers,
            wants,
        })
    }
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

pub(super) fn caller(
    timeline: &mut Timeline,
    kernel: &Kernel,
    resolver: &Resolver,
) -> Option<Caller> {
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

/// Instructions around an address: the function from its start, if that is near, so that they are in
/// step.
fn code(memory: &impl GuestMemory, ip: u64, bits: u32, names: &Names) -> Vec<Insn> {
    let for_names = names.clone();
    let mut disassembler = Disassembler::new(move |gva| for_names.name(gva));
    let start = names
        .function_start(ip)
        .filter(|start| ip.wrapping_sub(*start) < FUNCTION_REACH);
    let mut before = Vec::new();
    if let Some(start) = start {
        let room = usize::try_from(ip - start).unwrap_or(0);
        let mut insns = disassembler.run(memory, start, bits, room);
        // In step only if one begins there.
        if let Some(at) = insns.iter().position(|insn| insn.next() == ip) {
            insns.truncate(at + 1);
            before = insns.split_off(insns.len().saturating_sub(CODE_BEFORE));
        }
    }
    let count = CODE_LINES - before.len();
    before.extend(disassembler.run(memory, ip, bits, count));
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
