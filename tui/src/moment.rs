//! The machine at one place in time, as values: what the panels of the machine draw.

use std::sync::Arc;

use colinux_replay::Mark;
use colinux_replay::disasm::Insn;
use colinux_replay::state::Registers;
use colinux_symbols::modules::Module;
use colinux_symbols::ps::Task;

/// A stack frame, or a function that was inlined into the one below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameLine {
    /// Its address; the same for what is inlined.
    pub ip: u64,
    /// `function+0x12`, or the number.
    pub name: String,
    /// File and line, if known.
    pub source: Option<(String, u32)>,
    /// Inlined into the next line's function.
    pub inlined: bool,
    /// How it was found.
    pub method: &'static str,
}

/// A source file around a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceText {
    /// Its name, as the debug information has it.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
    /// The first line that is there, from 1.
    pub first: u32,
    /// Lines.
    pub lines: Vec<String>,
}

impl SourceText {
    /// The line among those that are there.
    pub fn current(&self) -> usize {
        self.line.saturating_sub(self.first) as usize
    }
}

/// Bytes of memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// Where they begin.
    pub start: u64,
    /// Each, if it is mapped.
    pub bytes: Vec<Option<u8>>,
    /// They read as a value of a type: its name and the value in lines.
    pub typed: Option<(String, Vec<String>)>,
}

/// A module of the guest's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleLine {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its state in a word.
    pub state: &'static str,
    /// Where it begins, once it has a place.
    pub base: Option<u64>,
}

impl From<&Module> for ModuleLine {
    fn from(module: &Module) -> Self {
        ModuleLine {
            name: module.name.clone(),
            size: module.regions.iter().map(|r| r.size).sum(),
            state: module.state.word(),
            base: module.base().map(|base| base.0),
        }
    }
}

/// What is wanted of a place beyond registers, code and stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wants {
    /// Memory from here on; from the stack pointer if nothing is said.
    pub memory: Option<u64>,
    /// So many bytes of it.
    pub bytes: usize,
    /// Shown as a value of this type.
    pub as_type: Option<String>,
    /// The stack frame whose code and source are wanted, the innermost being 0.
    pub frame: usize,
    /// The task list and the modules.
    pub lists: bool,
}

/// The machine at one place.
#[derive(Clone, Debug)]
pub struct Moment {
    /// The place.
    pub mark: Mark,
    /// Virtual time.
    pub time_ns: u64,
    /// There is no instruction after it.
    pub ended: bool,
    /// Registers.
    pub registers: Registers,
    /// The function.
    pub function: Option<String>,
    /// Instructions around RIP.
    pub code: Vec<Insn>,
    /// The stack, innermost first.
    pub stack: Vec<FrameLine>,
    /// How the stack ends.
    pub stack_end: &'static str,
    /// The source, or why there is none.
    pub source: Result<SourceText, String>,
    /// Memory.
    pub memory: Bytes,
    /// Tasks, or why there are none; empty if they were not wanted.
    pub tasks: Result<Arc<Vec<Task>>, String>,
    /// The thread that runs, if known.
    pub current: Option<i32>,
    /// Modules, or why there are none.
    pub modules: Result<Vec<ModuleLine>, String>,
    /// The same with their symbols, for naming addresses.
    pub loaded: Arc<Vec<Module>>,
    /// What it was made with.
    pub wants: Wants,
}
