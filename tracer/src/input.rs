//! What the machine could not have computed: the inputs of a recording.
//!
//! An input takes effect before the instruction that its tick numbers. Inputs are never dropped and
//! never filtered: without one of them the rest of the recording cannot be replayed.

use crate::codes::{ControlVerb, EndReason, PokeTarget, SwitchReason};
use crate::digest::StateDigest;
use crate::vocabulary::vocabulary;

vocabulary! {
    /// One input.
    Input,
    /// The kinds of input.
    InputKind {
        /// Bytes typed at a console.
        0x02 Input 0 ConsoleIn {
            /// Which console.
            port: u8,
            /// What.
            bytes: Vec<u8>,
        }
        /// A frame from the network.
        0x03 Input 0 NetRx {
            /// Network device.
            nic: u8,
            /// The frame.
            bytes: Vec<u8>,
        }
        /// The host told the machine something.
        0x04 Input 0 HostControl {
            /// What.
            verb: ControlVerb,
            /// Its argument.
            arg: u64,
        }
        /// The idle guest was woken before its next deadline. Without this input, virtual time jumps
        /// to the deadline whenever every vCPU is halted.
        0x06 Input 0 IdleWarp {
            /// Virtual time at which it was woken: nanoseconds since power-on, before the deadline.
            ns: u64,
        }
        /// A choice of vCPU that does not follow from the state.
        0x0C Input 0 SchedChoice {
            /// From.
            from: u8,
            /// To.
            to: u8,
            /// Why.
            reason: SwitchReason,
        }
        /// A debugger wrote to the guest while recording.
        0x0D Input 0 Poke {
            /// Where to.
            target: PokeTarget,
            /// Address or register number.
            addr: u64,
            /// What.
            bytes: Vec<u8>,
        }
        /// The machine was reset and starts again.
        0x0E Input 0 Reset {
            /// Number of the power cycle, from 1.
            epoch: u32,
        }
        /// The recording ended in order; its absence means that the recorder was cut off.
        0x0F Input 0 RecordEnd {
            /// Why.
            reason: EndReason,
            /// The last tick.
            tick: u64,
            /// Digest of the last state.
            digest: StateDigest,
        }
    }
}

/// How a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordEnd {
    /// Why.
    pub reason: EndReason,
    /// The last tick.
    pub tick: u64,
    /// Digest of the last state.
    pub digest: StateDigest,
}

impl From<RecordEnd> for Input {
    fn from(end: RecordEnd) -> Self {
        Self::RecordEnd {
            reason: end.reason,
            tick: end.tick,
            digest: end.digest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventKind;

    #[test]
    fn inputs_and_events_share_one_space_of_codes() {
        for &input in InputKind::ALL {
            assert!(input.code() < 0x20, "{input}");
            assert_eq!(EventKind::from_code(input.code()), None);
        }
    }
}
