//! The state of the machine as a value: the sum of every part's state.

use serde::{Deserialize, Serialize};

use crate::core::Watcher;
use crate::cpu::state::Cpu;
use crate::dev::bus::Board;
use crate::mem::tlb::TlbState;
use crate::passage::Shutdown;
use crate::tick::{Clock, Tick};

/// Everything but the content of RAM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MachineState {
    /// Where in the execution.
    pub tick: Tick,
    /// Registers, in canonical form.
    pub cpu: Cpu,
    /// Devices.
    pub board: Board,
    /// Idle warps so far.
    pub clock: Clock,
    /// Cached translations.
    pub tlb: TlbState,
    /// The observer's memory.
    pub watcher: Watcher,
    /// When the current host quantum ends.
    pub next_quantum: Tick,
    /// Whether interrupts and deadlines have to be looked at before the next instruction.
    pub attention: bool,
    /// Exceptions delivered since an instruction completed.
    pub barren: u32,
    /// How the guest ended the run, if it has.
    pub ended: Option<Shutdown>,
}
