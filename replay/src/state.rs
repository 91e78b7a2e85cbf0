//! The machine at the cursor of a timeline as plain values, for those who show it and need know
//! nothing of how a machine works.

use bytes::Bytes;
use colinux_driver::boot;
use colinux_driver::core::Core;
use colinux_driver::cpu::state::seg;
use colinux_symbols::Slide;
use colinux_symbols::unwind;
use colinux_tracer::{KERNEL_FILE, Reader};

use crate::error::ReplayError;
use crate::setup::SetupError;
use crate::timeline::Timeline;
use crate::view::MachineMemory;

/// The general registers by name, with their numbers in encoding order (SDM vol. 2, table 2-2).
pub const GENERAL: [(&str, usize); 16] = [
    ("rax", 0),
    ("rbx", 3),
    ("rcx", 1),
    ("rdx", 2),
    ("rsi", 6),
    ("rdi", 7),
    ("rbp", 5),
    ("rsp", 4),
    ("r8", 8),
    ("r9", 9),
    ("r10", 10),
    ("r11", 11),
    ("r12", 12),
    ("r13", 13),
    ("r14", 14),
    ("r15", 15),
];

/// The bits of RFLAGS that have a letter or two (SDM vol. 1, section 3.4.3).
const FLAGS: [(&str, u32); 11] = [
    ("CF", 0),
    ("PF", 2),
    ("AF", 4),
    ("ZF", 6),
    ("SF", 7),
    ("TF", 8),
    ("IF", 9),
    ("DF", 10),
    ("OF", 11),
    ("NT", 14),
    ("AC", 18),
];

/// What one vCPU's registers hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15: in encoding order.
    pub general: [u64; 16],
    /// The instruction pointer.
    pub rip: u64,
    /// The flags.
    pub rflags: u64,
    /// CS, SS, DS, ES, FS, GS: selector and base.
    pub segments: [(u16, u64); 6],
    /// CR0, CR2, CR3, CR4, EFER, KERNEL_GS_BASE.
    pub control: [u64; 6],
    /// The privilege level.
    pub cpl: u8,
    /// Waiting for an interrupt.
    pub halted: bool,
    /// Width of the instructions here: 64, 32 or 16.
    pub code_bits: u32,
}

impl Registers {
    /// Names of [`Registers::segments`].
    pub const SEGMENT_NAMES: [&'static str; 6] = ["cs", "ss", "ds", "es", "fs", "gs"];
    /// Names of [`Registers::control`].
    pub const CONTROL_NAMES: [&'static str; 6] = ["cr0", "cr2", "cr3", "cr4", "efer", "kgs"];

    fn of(core: &Core) -> Self {
        let cpu = &core.cpu;
        let mut general = [0; 16];
        general.copy_from_slice(&cpu.regs[..16]);
        let order = [seg::CS, seg::SS, seg::DS, seg::ES, seg::FS, seg::GS];
        Registers {
            general,
            rip: cpu.rip,
            rflags: cpu.rflags(),
            segments: order.map(|n| (cpu.segs[n].selector, cpu.segs[n].base)),
            control: [
                cpu.cr0,
                cpu.cr2,
                cpu.cr3,
                cpu.cr4,
                cpu.efer,
                cpu.msr.kernel_gs_base,
            ],
            cpl: cpu.cpl,
            halted: cpu.halted,
            code_bits: cpu.segs[seg::CS].code_bits(),
        }
    }

    /// The stack pointer.
    pub const fn rsp(&self) -> u64 {
        self.general[4]
    }

    /// The page table root.
    pub const fn cr3(&self) -> u64 {
        self.control[2]
    }

    /// The flags that are set, by name.
    pub fn flag_names(&self) -> impl Iterator<Item = &'static str> + '_ {
        FLAGS
            .iter()
            .filter(|(_, bit)| self.rflags >> bit & 1 != 0)
            .map(|(name, _)| *name)
    }

    /// What the stack is unwound from.
    pub fn unwind_from(&self) -> unwind::Registers {
        let g = &self.general;
        unwind::Registers {
            ip: self.rip,
            sp: g[4],
            bp: g[5],
            others: Some(unwind::OtherRegisters {
                dx: g[2],
                di: g[7],
                r10: g[10],
                r13: g[13],
            }),
            is_user: self.cpl == 3,
        }
    }
}

impl Timeline {
    /// The registers at the cursor.
    pub fn registers(&self) -> Registers {
        Registers::of(self.machine().core())
    }

    /// The memory at the cursor, through its page tables.
    pub fn memory(&mut self) -> MachineMemory<'_> {
        MachineMemory::new(self.machine_mut())
    }

    /// Virtual time at the cursor, in nanoseconds.
    pub fn time_ns(&self) -> u64 {
        self.machine().time().0
    }

    /// How far the kernel has moved itself, once that is known.
    pub fn slide(&self) -> Option<Slide> {
        self.hooks()?.slide()
    }
}

/// The kernel of a recording as an ELF image, unpacked.
pub fn vmlinux(reader: &Reader) -> Result<Bytes, ReplayError> {
    let kernel = reader.boot_file(KERNEL_FILE)?.into();
    Ok(boot::vmlinux(&kernel).map_err(SetupError::from)?)
}
