//! What the machine tells of itself.
//!
//! Observations are collected in a plain vector that the caller of the machine drains; a mask says
//! which kinds are wanted. Observing changes nothing: any mask gives the same states.

use crate::tick::Tick;

macro_rules! observations {
    ($( $(#[$doc:meta])* $name:ident { $( $(#[$fdoc:meta])* $field:ident : $ty:ty ),* $(,)? } )*) => {
        /// Something that happened, stamped with a tick by the observer.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Observation {
            $( $(#[$doc])* $name { $( $(#[$fdoc])* $field: $ty ),* }, )*
        }

        /// The kinds of observations.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind {
            $( $(#[$doc])* $name, )*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Kind] = &[ $( Kind::$name, )* ];
        }

        impl Observation {
            /// The kind of this observation.
            #[inline(always)]
            pub fn kind(&self) -> Kind {
                match self {
                    $( Observation::$name { .. } => Kind::$name, )*
                }
            }
        }
    };
}

observations! {
    /// A passage ended: the guest was left.
    PassageLeave {
        /// Why, as [`crate::passage::Exit::code`].
        reason: u8,
        /// The next instruction.
        rip: u64,
        /// Privilege level.
        cpl: u8,
        /// Instructions retired in this passage.
        insns: u64,
    }
    /// A passage began: the guest was entered.
    PassageEnter {
        /// The interrupt vector delivered on entry, or 0.
        delivered: u8,
    }
    /// The page table root changed.
    Cr3Write {
        /// The value before.
        old: u64,
        /// The value written.
        new: u64,
    }
    /// An interrupt was forwarded.
    IrqForward {
        /// Cut short for the host instead of raised toward the guest.
        to_host: bool,
        /// What raised it, see [`crate::dev::event::IrqSource`].
        source: u8,
        /// The interrupt line.
        line: u8,
        /// The vector it will have.
        vector: u8,
    }
    /// The guest took an interrupt.
    IrqDeliver {
        /// The vector.
        vector: u8,
        /// The interrupted instruction.
        rip: u64,
        /// The interrupted privilege level.
        cpl: u8,
        /// Ticks since it was forwarded.
        latency: u64,
    }
    /// The guest ended an interrupt.
    IrqEoi {
        /// The vector.
        vector: u8,
    }
    /// First touch of a pseudo-physical page.
    PpramAlloc {
        /// Page number.
        gpfn: u64,
        /// Who touched it, see [`crate::mem::ppram::Toucher`].
        access: u8,
        /// The instruction.
        rip: u64,
    }
    /// An access outside RAM and devices.
    PpramHole {
        /// The address.
        gpa: u64,
        /// Bytes.
        size: u8,
        /// A write.
        write: bool,
        /// The instruction.
        rip: u64,
    }
    /// A page fault in the guest.
    GuestPf {
        /// The faulting linear address.
        gva: u64,
        /// Where the address points, or 0.
        gpa: u64,
        /// The error code.
        error: u32,
        /// The instruction.
        rip: u64,
        /// Privilege level.
        cpl: u8,
    }
    /// Cached translations were dropped by the guest.
    TlbFlush {
        /// 0: one page, 1: all but global, 2: all.
        scope: u8,
        /// The page, for one page.
        gva: u64,
    }
    /// A system call began.
    SyscallEnter {
        /// The number.
        nr: u64,
        /// RDI, RSI, RDX, R10, R8, R9.
        args: [u64; 6],
        /// The instruction after SYSCALL.
        rip: u64,
    }
    /// A system call returned to its caller.
    SyscallExit {
        /// The number.
        nr: u64,
        /// RAX.
        ret: u64,
        /// Ticks since it began.
        insns: u64,
    }
    /// A port access.
    Pio {
        /// A write.
        write: bool,
        /// The port.
        port: u16,
        /// Bytes.
        size: u8,
        /// The value.
        value: u32,
        /// The instruction.
        rip: u64,
    }
    /// A device memory access.
    Mmio {
        /// A write.
        write: bool,
        /// The address.
        gpa: u64,
        /// Bytes.
        size: u8,
        /// The value.
        value: u64,
        /// The instruction.
        rip: u64,
    }
    /// A port nobody claims.
    IoUnclaimed {
        /// The port.
        port: u16,
        /// Bytes.
        size: u8,
        /// A write.
        write: bool,
        /// The value.
        value: u32,
        /// The instruction.
        rip: u64,
    }
    /// Bytes the guest wrote to a console.
    ConsoleOut {
        /// The console.
        port: u8,
        /// The bytes.
        bytes: Vec<u8>,
    }
    /// The guest programmed its timer.
    TimerProgram {
        /// Virtual time in nanoseconds; 0 disarms.
        deadline: u64,
    }
    /// An exception other than a page fault.
    Exception {
        /// The vector.
        vector: u8,
        /// The error code, or 0.
        error: u32,
        /// The instruction.
        rip: u64,
        /// Privilege level.
        cpl: u8,
    }
    /// The guest ended the run.
    GuestShutdown {
        /// How, as [`crate::passage::Shutdown::code`].
        kind: u8,
    }
    /// Text from the guest's mark port.
    Mark {
        /// The text.
        text: String,
    }
}

/// A set of kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted(u64);

impl Wanted {
    /// No kind.
    pub const NONE: Wanted = Wanted(0);
    /// Every kind.
    pub const ALL: Wanted = Wanted(u64::MAX);

    /// With one more kind.
    #[must_use]
    pub const fn with(self, kind: Kind) -> Self {
        Wanted(self.0 | 1 << kind as u8)
    }

    /// Whether a kind is in the set.
    #[inline(always)]
    pub const fn has(self, kind: Kind) -> bool {
        self.0 >> kind as u8 & 1 != 0
    }
}

/// Collects what is wanted.
#[derive(Clone, Debug)]
pub struct Observations {
    /// Which kinds are kept.
    pub wanted: Wanted,
    /// What has been kept and not drained yet, in order.
    pub rows: Vec<(Tick, Observation)>,
}

impl Default for Observations {
    fn default() -> Self {
        Observations {
            wanted: Wanted::NONE,
            rows: Vec::new(),
        }
    }
}
