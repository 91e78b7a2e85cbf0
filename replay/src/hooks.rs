//! Events of the guest's kernel: tasks, log lines, modules, oopses.
//!
//! The machine stops before the first instruction of a few kernel functions, found by name in the
//! kernel image itself; what the function was called with is read from guest memory without any
//! effect on the guest, and becomes an event. Without names the facilities are off, and the manifest
//! says why.

use std::cell::RefCell;

use colinux_driver::core::Core;
use colinux_driver::cpu::state::seg;
use colinux_driver::machine::Machine;
use colinux_symbols::dmesg::{LogRecord, LogRing};
use colinux_symbols::ps::{Task, read_task, read_tasks};
use colinux_symbols::{
    Btf, GuestMemory, Gva, Hooks, Image, Kallsyms, LinkAddr, Slide, SymbolError,
};
use colinux_tracer::{Comm, EndedFacility, Event, EventKind, EventMask, LogClass};
use serde::{Deserialize, Serialize};

/// What a hooked function means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hook {
    TaskSwitch,
    TaskNew,
    ExecBegin,
    ExecDone,
    TaskExit,
    Log,
    ModuleLoad,
    ModuleFree,
    Oops,
    Panic,
}

/// Registers that carry the first two arguments of a function: RDI and RSI.
const ARG0: usize = 7;
const ARG1: usize = 6;
/// Longest name or text read from the guest.
const TEXT_MAX: usize = 1024;

/// What the hooks remember from one hit to a later one: part of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookState {
    /// Run-time minus link-time address, once known.
    slide: Option<u64>,
    exec_path: String,
    last_alarm: String,
}

/// The hooks of one kernel.
#[derive(Debug)]
pub struct KernelHooks {
    hooks: Option<Hooks>,
    names: Option<Kallsyms>,
    btf: Option<Btf>,
    /// Run-time minus link-time address, once known.
    slide: Option<Slide>,
    /// The kernel may have moved itself: the slide is looked for.
    moves: bool,
    /// Run-time addresses and what they mean, in order.
    table: Vec<(u64, Hook)>,
    /// Path of the program being executed, between the two hooks of an exec.
    exec_path: String,
    /// The last line that looked like the beginning of an oops.
    last_alarm: String,
    /// What is off, and why.
    ended: Vec<EndedFacility>,
}

fn ended(facility: &str, reason: &str) -> EndedFacility {
    EndedFacility {
        facility: facility.to_owned(),
        reason: reason.to_owned(),
    }
}

impl KernelHooks {
    /// No hooks, for a reason.
    pub fn none(reason: &str) -> Self {
        KernelHooks {
            hooks: None,
            names: None,
            btf: None,
            slide: None,
            moves: false,
            table: Vec::new(),
            exec_path: String::new(),
            last_alarm: String::new(),
            ended: vec![ended("task", reason), ended("kernel", reason)],
        }
    }

    /// The hooks of a vmlinux. `moves`: it may run at other addresses than it was linked for.
    pub fn of(vmlinux: &[u8], moves: bool) -> Self {
        let names =
            Image::parse(vmlinux).and_then(|image| Ok((Kallsyms::from_image(&image)?, image)));
        let (names, image) = match names {
            Ok(found) => found,
            Err(error) => return Self::none(&format!("the kernel has no names: {error}")),
        };
        let btf = Btf::from_image(&image, Some(&names)).ok();
        let hooks = Hooks::find(&names, btf.as_ref());
        let mut this = Self::none("");
        this.ended.clear();
        if hooks.task.pid.is_none() || hooks.functions.task_switch.is_none() {
            this.ended.push(ended(
                "task",
                "the kernel does not describe its tasks (no BTF)",
            ));
        }
        if !hooks.missing.is_empty() {
            let missing = format!("not in this kernel: {}", hooks.missing.join(", "));
            this.ended.push(ended("kernel", &missing));
        }
        this.hooks = Some(hooks);
        this.names = Some(names);
        this.btf = btf;
        this.moves = moves;
        this.slide = (!moves).then_some(Slide::NONE);
        this
    }

    /// What they remember.
    pub fn state(&self) -> HookState {
        HookState {
            slide: self.slide.map(|slide| slide.0),
            exec_path: self.exec_path.clone(),
            last_alarm: self.last_alarm.clone(),
        }
    }

    /// Goes back to what they remembered.
    pub fn restore(&mut self, state: &HookState) {
        if self.moves {
            self.slide = state.slide.map(Slide);
        }
        self.exec_path.clone_from(&state.exec_path);
        self.last_alarm.clone_from(&state.last_alarm);
    }

    /// What is off, and why.
    pub fn ended(&self) -> &[EndedFacility] {
        &self.ended
    }

    /// The slide, if it is known.
    pub fn slide(&self) -> Option<Slide> {
        self.slide
    }

    /// The name of a kernel address, as `function+0x12/0x90`.
    pub fn name_of(&self, gva: u64) -> Option<String> {
        let symbol = self.names.as_ref()?.lookup(Gva(gva).link(self.slide?))?;
        let (name, offset, size) = (symbol.name, symbol.offset, symbol.size);
        (offset < size).then(|| format!("{name}+{offset:#x}/{size:#x}"))
    }

    /// The run-time address of a kernel symbol.
    pub fn address_of(&self, name: &str) -> Option<u64> {
        Some(self.names.as_ref()?.address_of(name)?.run(self.slide?).0)
    }

    /// The guest's tasks at this moment.
    pub fn tasks(&self, machine: &mut Machine) -> Result<Vec<Task>, SymbolError> {
        let (hooks, slide) = self.known()?;
        read_tasks(&CoreMemory(RefCell::new(machine.core_mut())), hooks, slide)
    }

    /// The guest's kernel log at this moment.
    pub fn log(&self, machine: &mut Machine) -> Result<Vec<LogRecord>, SymbolError> {
        let (hooks, slide) = self.known()?;
        let memory = CoreMemory(RefCell::new(machine.core_mut()));
        Ok(LogRing::open(&memory, hooks, slide)?.records().collect())
    }

    fn known(&self) -> Result<(&Hooks, Slide), SymbolError> {
        match (&self.hooks, self.slide) {
            (Some(hooks), Some(slide)) => Ok((hooks, slide)),
            _ => Err(SymbolError::NoSymbol { name: "init_task" }),
        }
    }

    /// The addresses to stop at for these kinds of events; empty while the slide is not known.
    pub fn addresses(&mut self, mask: &EventMask) -> Vec<u64> {
        self.table.clear();
        let (Some(hooks), Some(slide)) = (&self.hooks, self.slide) else {
            return Vec::new();
        };
        let f = &hooks.functions;
        let tasks = hooks.task.pid.is_some();
        let rows: &[(Option<LinkAddr>, Hook, EventKind, bool)] = &[
            (
                f.task_switch,
                Hook::TaskSwitch,
                EventKind::TaskSwitch,
                tasks,
            ),
            (f.task_new, Hook::TaskNew, EventKind::TaskNew, tasks),
            (f.exec_begin, Hook::ExecBegin, EventKind::TaskExec, tasks),
            (f.exec_done, Hook::ExecDone, EventKind::TaskExec, tasks),
            (f.task_exit, Hook::TaskExit, EventKind::TaskExit, tasks),
            (f.log_final_commit, Hook::Log, EventKind::KernelLog, true),
            (f.log_commit, Hook::Log, EventKind::KernelLog, true),
            (f.module_load, Hook::ModuleLoad, EventKind::ModuleLoad, true),
            (
                f.module_free,
                Hook::ModuleFree,
                EventKind::ModuleUnload,
                true,
            ),
            (f.oops_enter, Hook::Oops, EventKind::Oops, true),
            (f.panic, Hook::Panic, EventKind::Panic, true),
        ];
        for (address, hook, kind, possible) in rows {
            if let Some(address) = address
                && *possible
                && mask.contains(*kind)
            {
                self.table.push((address.run(slide).0, *hook));
            }
        }
        self.table.sort_unstable_by_key(|(address, _)| *address);
        self.table.iter().map(|(address, _)| *address).collect()
    }

    /// Looks for the slide of a kernel that moves itself; true when it has just been found.
    pub fn look_for_slide(&mut self, machine: &Machine) -> bool {
        if !self.moves || self.slide.is_some() {
            return false;
        }
        let lstar = machine.core().cpu.msr.lstar;
        if lstar == 0 {
            return false;
        }
        self.slide = self
            .hooks
            .as_ref()
            .and_then(|h| h.slide_from_lstar(Gva(lstar)));
        self.slide.is_some()
    }

    /// The guest is about to run the instruction at a hooked address: what that means.
    pub fn hit(&mut self, address: u64, machine: &mut Machine) -> Option<Event> {
        let at = self
            .table
            .binary_search_by_key(&address, |(a, _)| *a)
            .ok()?;
        let hook = self.table[at].1;
        let hooks = self.hooks.as_ref()?;
        let slide = self.slide?;
        let core = machine.core_mut();
        let args = (core.cpu.regs[ARG0], core.cpu.regs[ARG1]);
        let rip = caller(core);
        let gs = core.cpu.segs[seg::GS].base;
        let memory = CoreMemory(RefCell::new(core));
        let kernel = Kernel {
            hooks,
            slide,
            memory,
            gs,
        };
        match hook {
            Hook::TaskSwitch => {
                let (prev, next) = (kernel.task(args.0)?, kernel.task(args.1)?);
                Some(Event::TaskSwitch {
                    prev_pid: prev.pid,
                    prev_tid: prev.tid,
                    prev_state: prev.state,
                    prev_comm: prev.comm,
                    next_pid: next.pid,
                    next_tid: next.tid,
                    next_comm: next.comm,
                })
            }
            Hook::TaskNew => {
                let task = kernel.task(args.0)?;
                let Who { pid, tid, comm, .. } = task;
                Some(Event::TaskNew {
                    pid,
                    tid,
                    parent: task.parent,
                    comm,
                })
            }
            Hook::ExecBegin => {
                let name = hooks.exec_filename.and_then(|o| kernel.pointer(args.0 + o));
                self.exec_path = name.map(|n| kernel.text(n)).unwrap_or_default();
                None
            }
            Hook::ExecDone => {
                let Who { pid, tid, comm, .. } = kernel.current()?;
                Some(Event::TaskExec {
                    pid,
                    tid,
                    comm,
                    path: std::mem::take(&mut self.exec_path),
                })
            }
            Hook::TaskExit => {
                let Who { pid, tid, comm, .. } = kernel.current()?;
                Some(Event::TaskExit {
                    pid,
                    tid,
                    code: args.0 as i64,
                    comm,
                })
            }
            Hook::Log => {
                let event = kernel.log_line(args.0)?;
                if let Event::KernelLog { class, text, .. } = &event
                    && matches!(class, LogClass::Oops | LogClass::Warn)
                {
                    self.last_alarm.clone_from(text);
                }
                Some(event)
            }
            Hook::ModuleLoad => {
                let (name, base, size) = kernel.module(args.0, self.btf.as_ref());
                Some(Event::ModuleLoad {
                    name,
                    base,
                    size,
                    build_id: Vec::new(),
                })
            }
            Hook::ModuleFree => {
                let (name, base, _) = kernel.module(args.0, self.btf.as_ref());
                Some(Event::ModuleUnload { name, base })
            }
            Hook::Oops => {
                let who = kernel.current().unwrap_or_default();
                Some(Event::Oops {
                    class: LogClass::Oops,
                    rip,
                    error: 0,
                    tid: who.tid,
                    comm: who.comm,
                    text: self.last_alarm.clone(),
                })
            }
            Hook::Panic => {
                let who = kernel.current().unwrap_or_default();
                let text = kernel.text(args.0);
                Some(Event::Panic {
                    rip,
                    tid: who.tid,
                    comm: who.comm,
                    text,
                })
            }
        }
    }
}

/// The return address of the function that is being entered.
fn caller(core: &mut Core) -> u64 {
    let mut bytes = [0; 8];
    let sp = core.cpu.regs[4];
    if core.peek(sp, &mut bytes) {
        u64::from_le_bytes(bytes)
    } else {
        core.cpu.rip
    }
}

/// Guest memory as the symbol readers want it. Reading changes nothing about the guest.
struct CoreMemory<'a>(RefCell<&'a mut Core>);

impl GuestMemory for CoreMemory<'_> {
    fn read(&self, gva: u64, buf: &mut [u8]) -> bool {
        self.0.borrow_mut().peek(gva, buf)
    }
}

/// A task, as events name it.
#[derive(Clone, Copy, Debug, Default)]
struct Who {
    pid: u32,
    tid: u32,
    parent: u32,
    state: u8,
    comm: Comm,
}

struct Kernel<'a> {
    hooks: &'a Hooks,
    slide: Slide,
    memory: CoreMemory<'a>,
    gs: u64,
}

impl Kernel<'_> {
    fn pointer(&self, gva: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.memory
            .read(gva, &mut bytes)
            .then(|| u64::from_le_bytes(bytes))
    }

    fn u32(&self, gva: u64) -> Option<u32> {
        let mut bytes = [0; 4];
        self.memory
            .read(gva, &mut bytes)
            .then(|| u32::from_le_bytes(bytes))
    }

    /// Text up to its NUL.
    fn text(&self, gva: u64) -> String {
        let mut bytes = Vec::new();
        let mut one = [0];
        while bytes.len() < TEXT_MAX
            && self
                .memory
                .read(gva.wrapping_add(bytes.len() as u64), &mut one)
            && one[0] != 0
        {
            bytes.push(one[0]);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn current(&self) -> Option<Who> {
        let offset = self.hooks.data.current_task?;
        self.task(self.pointer(self.gs.wrapping_add(offset))?)
    }

    fn task(&self, gva: u64) -> Option<Who> {
        let layout = &self.hooks.task;
        let task = read_task(&self.memory, layout, Gva(gva)).ok()?;
        // The low byte says why it sleeps; the rest are modifiers.
        let state = layout
            .state
            .and_then(|o| self.u32(gva.wrapping_add(o)))
            .unwrap_or(0);
        let state = state.to_le_bytes()[0];
        Some(Who {
            pid: task.tgid as u32,
            tid: task.pid as u32,
            parent: task.ppid as u32,
            state,
            comm: Comm::new(task.comm.as_bytes()),
        })
    }

    fn log_line(&self, reserved: u64) -> Option<Event> {
        let id = self.pointer(reserved.wrapping_add(self.hooks.log.entry_id?))?;
        let ring = LogRing::open(&self.memory, self.hooks, self.slide).ok()?;
        let record = ring.record_about_to_commit(id)?;
        let class = classify(&record.text);
        Some(Event::KernelLog {
            level: record.level,
            stamp: record.time_ns,
            class,
            text: record.text,
        })
    }

    /// Name, text address and size of a module.
    fn module(&self, gva: u64, btf: Option<&Btf>) -> (String, u64, u32) {
        let name = self
            .hooks
            .module_name
            .map(|o| self.text(gva.wrapping_add(o)));
        // Since 6.4 a module has an array of memories, the first of which is its text.
        let member = |path: &str| btf.and_then(|b| b.member("module", path).ok());
        let base = member("mem[0].base").or_else(|| member("core_layout.base"));
        let size = member("mem[0].size").or_else(|| member("core_layout.size"));
        (
            name.unwrap_or_default(),
            base.and_then(|m| self.pointer(gva.wrapping_add(m.offset())))
                .unwrap_or(0),
            size.and_then(|m| self.u32(gva.wrapping_add(m.offset())))
                .unwrap_or(0),
        )
    }
}

/// How the kernel begins the lines that matter most.
const ALARMS: &[(&str, LogClass)] = &[
    ("Kernel panic", LogClass::Panic),
    ("BUG: KASAN", LogClass::Sanitizer),
    ("BUG: KCSAN", LogClass::Sanitizer),
    ("UBSAN:", LogClass::Sanitizer),
    ("BUG: sleeping function", LogClass::Lockdep),
    ("WARNING: possible", LogClass::Lockdep),
    ("WARNING: suspicious RCU", LogClass::Lockdep),
    ("WARNING:", LogClass::Warn),
    ("BUG:", LogClass::Oops),
    ("Oops:", LogClass::Oops),
    ("general protection fault", LogClass::Oops),
    ("kernel BUG at", LogClass::Oops),
    ("divide error:", LogClass::Oops),
    ("invalid opcode:", LogClass::Oops),
    ("rcu: INFO:", LogClass::Stall),
    ("watchdog: BUG: soft lockup", LogClass::Stall),
    ("INFO: task", LogClass::Stall),
];

fn classify(text: &str) -> LogClass {
    ALARMS
        .iter()
        .find(|(start, _)| text.starts_with(start))
        .map_or(LogClass::Plain, |(_, class)| *class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_are_classified_by_how_they_begin() {
        assert_eq!(
            classify("BUG: unable to handle page fault for address: 0"),
            LogClass::Oops
        );
        assert_eq!(classify("WARNING: CPU: 0 PID: 1 at x.c:3"), LogClass::Warn);
        assert_eq!(classify("BUG: KASAN: use-after-free"), LogClass::Sanitizer);
        assert_eq!(classify("Kernel panic - not syncing: x"), LogClass::Panic);
        assert_eq!(classify("e1000: link is up"), LogClass::Plain);
    }

    #[test]
    fn a_file_without_names_has_no_hooks_and_says_so() {
        let mut hooks = KernelHooks::of(b"\x7fELF and nothing more", false);
        assert!(hooks.addresses(&EventMask::ALL).is_empty());
        assert!(
            hooks
                .ended()
                .iter()
                .any(|e| e.facility == "task" && !e.reason.is_empty())
        );
    }
}
