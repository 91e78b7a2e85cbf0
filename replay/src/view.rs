//! The guest's kernel at a moment of a replay: names, tasks, stacks, read from the machine without
//! any effect on it.

use std::cell::RefCell;

use bytes::Bytes;
use colinux_driver::boot;
use colinux_driver::core::Core;
use colinux_driver::machine::Machine;
use colinux_symbols::dmesg::LogRecord;
use colinux_symbols::modules::Module;
use colinux_symbols::ps::Task;
use colinux_symbols::unwind::{OtherRegisters, Registers, Stack};
use colinux_symbols::{Clues, GuestMemory, Kernel, Resolver, Slide, SymbolError};
use colinux_tracer::{KERNEL_FILE, Reader};

use crate::error::ReplayError;

/// Guest memory as the symbol readers want it, through the page tables of this moment.
#[derive(Debug)]
pub struct MachineMemory<'m>(RefCell<&'m mut Core>);

impl<'m> MachineMemory<'m> {
    /// The memory of a machine.
    pub fn new(machine: &'m mut Machine) -> Self {
        Self(RefCell::new(machine.core_mut()))
    }
}

impl GuestMemory for MachineMemory<'_> {
    fn read(&self, gva: u64, buf: &mut [u8]) -> bool {
        self.0.borrow_mut().peek(gva, buf)
    }
}

/// The kernel of a recording, ready to be asked about a machine that replays it.
#[derive(Debug)]
pub struct GuestKernel {
    kernel: Kernel,
    /// It may run at other addresses than it was linked for.
    moves: bool,
}

/// Why nothing can be said of the guest's kernel.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The recording cannot be read.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The kernel has no names.
    #[error("the guest's kernel cannot be read: {0}")]
    Symbols(#[from] SymbolError),
    /// The kernel cannot be unpacked.
    #[error("the guest's kernel cannot be unpacked: {0}")]
    Packed(#[from] boot::BootError),
    /// The kernel has not said yet where it runs.
    #[error("at this tick the kernel does not run at an address that is known yet")]
    NoSlide,
}

impl GuestKernel {
    /// The kernel that a recording was made of.
    pub fn of(reader: &Reader) -> Result<Self, ViewError> {
        let manifest = reader.manifest().map_err(ReplayError::from)?;
        let file = reader.boot_file(KERNEL_FILE).map_err(ReplayError::from)?;
        Self::from_file(&file.into(), manifest.as_bzimage)
    }

    /// A kernel file, a bzImage or vmlinux. `moves`: it may choose its own addresses.
    pub fn from_file(file: &Bytes, moves: bool) -> Result<Self, ViewError> {
        let kernel = Kernel::from_vmlinux(&boot::vmlinux(file)?)?;
        Ok(Self { kernel, moves })
    }

    /// The kernel's own tables.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// How far the kernel was moved; none while it has not told.
    pub fn slide(&self, machine: &mut Machine) -> Option<Slide> {
        if !self.moves {
            return Some(Slide::NONE);
        }
        let cpu = &machine.core().cpu;
        let clues = Clues {
            lstar: cpu.msr.lstar,
            idt: cpu.idtr.base,
        };
        self.kernel.find_slide(&MachineMemory::new(machine), clues)
    }

    fn known_slide(&self, machine: &mut Machine) -> Result<Slide, ViewError> {
        self.slide(machine).ok_or(ViewError::NoSlide)
    }

    /// A resolver for this moment: the kernel where it runs, with its modules. It knows no names
    /// while the kernel has not told where it runs.
    pub fn resolver(&self, machine: &mut Machine) -> Resolver {
        let Some(slide) = self.slide(machine) else {
            return Resolver::default();
        };
        let mut resolver = self.kernel.resolver(slide);
        // Before there are any, or where the kernel has no types, there are none.
        let modules = self.kernel.modules(&MachineMemory::new(machine), slide);
        resolver.set_modules(modules.unwrap_or_default());
        resolver
    }

    /// The guest's tasks.
    pub fn tasks(&self, machine: &mut Machine) -> Result<Vec<Task>, ViewError> {
        let slide = self.known_slide(machine)?;
        Ok(self.kernel.tasks(&MachineMemory::new(machine), slide)?)
    }

    /// The task that runs.
    pub fn current(&self, machine: &mut Machine) -> Option<Task> {
        let slide = self.slide(machine)?;
        self.kernel.current(&MachineMemory::new(machine), slide)
    }

    /// The guest's kernel log.
    pub fn log(&self, machine: &mut Machine) -> Result<Vec<LogRecord>, ViewError> {
        let slide = self.known_slide(machine)?;
        Ok(self.kernel.log(&MachineMemory::new(machine), slide)?)
    }

    /// The guest's modules.
    pub fn modules(&self, machine: &mut Machine) -> Result<Vec<Module>, ViewError> {
        let slide = self.known_slide(machine)?;
        Ok(self.kernel.modules(&MachineMemory::new(machine), slide)?)
    }

    /// The stack of what runs.
    pub fn stack(&self, machine: &mut Machine, resolver: &Resolver) -> Stack {
        let registers = registers(machine);
        let memory = MachineMemory::new(machine);
        self.kernel.stack(&memory, resolver, &registers)
    }

    /// The stack of a task that waits for its turn.
    pub fn stack_of(
        &self,
        machine: &mut Machine,
        resolver: &Resolver,
        task: &Task,
    ) -> Option<Stack> {
        let memory = MachineMemory::new(machine);
        let registers = self.kernel.registers_of(&memory, task)?;
        Some(self.kernel.stack(&memory, resolver, &registers))
    }
}

/// The registers from which the stack of what runs is unwound.
pub fn registers(machine: &Machine) -> Registers {
    let cpu = &machine.core().cpu;
    Registers {
        ip: cpu.rip,
        sp: cpu.regs[4],
        bp: cpu.regs[5],
        others: Some(OtherRegisters {
            dx: cpu.regs[2],
            di: cpu.regs[7],
            r10: cpu.regs[10],
            r13: cpu.regs[13],
        }),
        is_user: cpu.cpl == 3,
    }
}
