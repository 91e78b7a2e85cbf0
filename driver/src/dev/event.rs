//! What the board tells the machine: console output, interrupt traffic, and the ends of a run.

use serde::{Deserialize, Serialize};

use crate::tick::VirtualTime;

/// Where an interrupt came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum IrqSource {
    /// The timer of the local APIC.
    Timer,
    /// A pin of the I/O APIC.
    Pin,
    /// An interprocessor interrupt the vCPU sent to itself.
    Ipi,
    /// The error interrupt of the local APIC.
    ApicError,
}

/// How the guest ended the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShutdownKind {
    /// Soft-off by the ACPI sleep register.
    PowerOff,
    /// A reset, by any of the reset registers.
    Reset,
}

/// Something the board did that the machine forwards: to the console, to the trace, or as the
/// end of the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BoardEvent {
    /// The guest transmitted a byte.
    ConsoleOut {
        /// First port of the UART.
        port: u16,
        /// The byte.
        byte: u8,
    },
    /// An interrupt became pending in the local APIC; merged repetitions are not reported.
    IrqForward {
        /// Where it came from.
        source: IrqSource,
        /// The pin for [`IrqSource::Pin`], otherwise 0.
        line: u8,
        /// The vector it will be delivered at.
        vector: u8,
    },
    /// The guest ended the service of an interrupt.
    IrqEoi {
        /// The vector that was in service.
        vector: u8,
    },
    /// The guest armed the timer of the local APIC.
    TimerProgram {
        /// When it fires.
        deadline: VirtualTime,
    },
    /// The guest ended the machine.
    Shutdown(ShutdownKind),
    /// The guest wrote to the debug-exit port.
    DebugExit {
        /// The written value.
        code: u32,
    },
    /// The guest named this place.
    Mark(String),
}
