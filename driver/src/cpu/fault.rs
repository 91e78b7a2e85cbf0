//! Architectural exceptions: the guest's problem, never ours.

use serde::{Deserialize, Serialize};

/// Exception vectors (Intel SDM vol. 3, table 6-1).
pub mod vector {
    /// Divide error.
    pub const DE: u8 = 0;
    /// Debug.
    pub const DB: u8 = 1;
    /// Breakpoint.
    pub const BP: u8 = 3;
    /// Overflow.
    pub const OF: u8 = 4;
    /// Bound range exceeded.
    pub const BR: u8 = 5;
    /// Invalid opcode.
    pub const UD: u8 = 6;
    /// Device not available.
    pub const NM: u8 = 7;
    /// Double fault.
    pub const DF: u8 = 8;
    /// Invalid TSS.
    pub const TS: u8 = 10;
    /// Segment not present.
    pub const NP: u8 = 11;
    /// Stack fault.
    pub const SS: u8 = 12;
    /// General protection.
    pub const GP: u8 = 13;
    /// Page fault.
    pub const PF: u8 = 14;
    /// x87 floating-point error.
    pub const MF: u8 = 16;
    /// Alignment check.
    pub const AC: u8 = 17;
    /// SIMD floating-point error.
    pub const XM: u8 = 19;
}

/// An exception an instruction raises instead of completing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The exception vector.
    pub vector: u8,
    /// The error code, where the vector pushes one.
    pub error: Option<u32>,
    /// The linear address of a page fault.
    pub address: u64,
}

impl Fault {
    /// A fault without error code.
    pub const fn plain(vector: u8) -> Self {
        Fault {
            vector,
            error: None,
            address: 0,
        }
    }

    /// A fault with an error code.
    pub const fn coded(vector: u8, error: u32) -> Self {
        Fault {
            vector,
            error: Some(error),
            address: 0,
        }
    }

    /// A general protection fault.
    pub const fn gp(error: u32) -> Self {
        Self::coded(vector::GP, error)
    }

    /// Whether this vector, raised while another contributory fault is delivered, makes a double
    /// fault (SDM vol. 3, table 6-5).
    pub const fn contributory(vector: u8) -> bool {
        matches!(
            vector,
            vector::DE | vector::TS | vector::NP | vector::SS | vector::GP
        )
    }
}

/// The instruction did not complete; why is in the vCPU.
///
/// Empty on purpose: it makes `Result<u64, Trap>` two machine registers on the hot path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trap;

/// Why an instruction did not complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrapCause {
    /// An exception for the guest.
    Fault(Fault),
    /// A software interrupt or trap that is delivered after the instruction (INT3, INTO, INT n).
    SoftwareInterrupt {
        /// The vector.
        vector: u8,
    },
    /// A long repetition pauses: the instruction begins again where it stands, in the same tick.
    Restart,
    /// The instruction promises something the machine does not implement: the run ends.
    Unsupported(String),
}
