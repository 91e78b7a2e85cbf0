//! A passage: one entry into the guest, ended by an [`Exit`] with a reason.

use serde::{Deserialize, Serialize};

use crate::dev::event::ShutdownKind;

/// Why the guest was left. The names follow Cooperative Linux' `CO_OPERATION_*` where they fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// The vCPU is halted and waits for an interrupt.
    Idle,
    /// A device was accessed.
    Device,
    /// A device or timer deadline has come.
    Timer,
    /// An interrupt that was waiting can be delivered now.
    IrqWindow,
    /// The end of a host quantum: the host's turn to look for input.
    Quantum,
    /// The guest ended the run.
    Terminate(Shutdown),
}

impl Exit {
    /// The stable number of the reason, as recorded.
    pub const fn code(self) -> u8 {
        match self {
            Exit::Idle => 0,
            Exit::Terminate(_) => 1,
            Exit::Device => 2,
            Exit::Timer => 3,
            Exit::IrqWindow => 4,
            Exit::Quantum => 5,
        }
    }
}

/// How the guest ended the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shutdown {
    /// Power off.
    PowerOff,
    /// Reset by a register.
    Reset,
    /// The debug-exit port was written.
    DebugExit(u32),
    /// A fault during the delivery of a double fault.
    TripleFault,
    /// HLT with interrupts disabled: nothing can ever happen again.
    Halt,
}

impl Shutdown {
    /// The stable number, as recorded.
    pub const fn code(self) -> u8 {
        match self {
            Shutdown::PowerOff => 0,
            Shutdown::Reset => 1,
            Shutdown::DebugExit(_) => 2,
            Shutdown::TripleFault => 3,
            Shutdown::Halt => 4,
        }
    }
}

impl From<ShutdownKind> for Shutdown {
    fn from(kind: ShutdownKind) -> Self {
        match kind {
            ShutdownKind::PowerOff => Shutdown::PowerOff,
            ShutdownKind::Reset => Shutdown::Reset,
        }
    }
}
