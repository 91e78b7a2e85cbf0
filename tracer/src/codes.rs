//! The append-only lists of one-byte codes that events and inputs refer to.
//!
//! A number is never reused. A code written by a later build is kept as `Unknown`, so that no row is
//! unreadable for the sake of a new reason.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::columns::RowWriter;
use crate::table::RowReader;
use crate::wire::{Bytes, Field, FieldType, WireError};

macro_rules! codes {
    ($(
        $(#[$list_doc:meta])*
        $list:ident { $( $(#[$doc:meta])* $code:literal $name:ident, )* }
    )*) => {$(
        $(#[$list_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $list {
            $( $(#[$doc])* $name, )*
            /// A code that this build does not know.
            Unknown(u8),
        }

        impl $list {
            /// Every code that this build knows.
            pub const ALL: &'static [Self] = &[$( Self::$name, )*];

            /// The number in the file.
            pub const fn code(self) -> u8 {
                match self {
                    $( Self::$name => $code, )*
                    Self::Unknown(code) => code,
                }
            }

            /// The meaning of a number in a file.
            pub const fn from_code(code: u8) -> Self {
                match code {
                    $( $code => Self::$name, )*
                    _ => Self::Unknown(code),
                }
            }

            /// The name, `unknown` for a code that this build does not know.
            pub const fn name(self) -> &'static str {
                match self {
                    $( Self::$name => stringify!($name), )*
                    Self::Unknown(_) => "unknown",
                }
            }
        }

        impl Default for $list {
            fn default() -> Self {
                Self::from_code(0)
            }
        }

        impl fmt::Display for $list {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    Self::Unknown(code) => write!(f, "unknown-{code:#04x}"),
                    known => f.pad(known.name()),
                }
            }
        }

        impl Field for $list {
            const TYPE: FieldType = FieldType::Code;
            fn put(&self, out: &mut Vec<u8>) {
                out.push(self.code());
            }
            fn get(from: &mut Bytes<'_>) -> Result<Self, WireError> {
                from.byte().map(Self::from_code)
            }
            #[inline]
            fn put_columns(&self, row: &mut RowWriter<'_>) {
                row.int(u64::from(self.code()));
            }
            #[inline]
            fn get_columns(row: &mut RowReader<'_, '_>) -> Result<Self, WireError> {
                row.narrow(8).map(Self::from_code)
            }
        }
    )*};
}

codes! {
    /// Why a passage ended. The names are coLinux's where an operation of the same meaning existed.
    PassageReason {
        /// The run of ticks that was asked for is used up.
        0 Quantum,
        /// Every vCPU is halted (coLinux IDLE).
        1 Idle,
        /// A device needs the host (coLinux DEVICE).
        2 Device,
        /// The guest can take an interrupt that was held back.
        3 IrqWindow,
        /// The guest ended (coLinux TERMINATE).
        4 Terminate,
        /// Console output for the host (coLinux MESSAGE_TO_MONITOR).
        5 Console,
        /// A snapshot is wanted.
        6 Snapshot,
        /// A debug line or debug port write (coLinux DEBUG_LINE).
        7 Debug,
        /// The passage was cut short for the host (coLinux FORWARD_INTERRUPT).
        8 ForwardInterrupt,
        /// A hook on a kernel symbol was reached (coLinux TRACE_POINT).
        9 TracePoint,
        /// The guest asked for the time (coLinux GET_TIME).
        10 GetTime,
        /// A page was borrowed from the host (coLinux ALLOC_PAGES).
        11 AllocPages,
        /// A page was given back to the host (coLinux FREE_PAGES).
        12 FreePages,
        /// The guest called the host.
        13 Hypercall,
        /// A breakpoint was reached.
        14 Breakpoint,
        /// A watched location was touched.
        15 Watchpoint,
        /// One instruction was asked for.
        16 Step,
        /// An input is to be taken in (coLinux MESSAGE_FROM_MONITOR).
        17 Input,
        /// The guest did something that the machine does not implement.
        18 Unsupported,
        /// The triple fault, or another end without a way on.
        19 Shutdown,
        /// A deadline of the machine: a timer or a device completion.
        20 Deadline,
    }

    /// Which way an interrupt was forwarded.
    IrqDirection {
        /// A device or timer raised a line toward the guest.
        0 ToGuest,
        /// A passage was cut short for an interrupt of the host.
        1 ToHost,
    }

    /// Who raised an interrupt.
    IrqSource {
        /// Not said.
        0 Other,
        /// The local APIC's timer.
        1 Timer,
        /// The serial console.
        2 Console,
        /// A block device.
        3 Block,
        /// A network device.
        4 Network,
        /// Another vCPU.
        5 Ipi,
        /// The host: control verbs, signals.
        6 Host,
        /// The real-time clock.
        7 Rtc,
        /// The programmable interval timer.
        8 Pit,
        /// The vCPU to itself.
        9 SelfIpi,
        /// ACPI's system control interrupt.
        10 Acpi,
    }

    /// What a page was first touched for.
    PageAccess {
        /// A read.
        0 Read,
        /// A write.
        1 Write,
        /// An instruction fetch.
        2 Fetch,
        /// A device.
        3 Dma,
        /// The loader, before the first instruction.
        4 Loader,
        /// The page walk.
        5 Walk,
    }

    /// What was flushed from the translation buffer.
    FlushKind {
        /// Everything.
        0 All,
        /// Everything but global pages: a CR3 write.
        1 NonGlobal,
        /// One page: INVLPG.
        2 Page,
        /// One address space.
        3 AddressSpace,
    }

    /// How the guest ended; coLinux's termination reasons first.
    ShutdownKind {
        /// The end of the work, without a word from the guest (coLinux END).
        0 End,
        /// The guest asked for a reset.
        1 Reboot,
        /// The guest switched itself off.
        2 PowerOff,
        /// The guest's kernel panicked.
        3 Panic,
        /// The guest halted for good: HLT with interrupts off, or `halt`.
        4 Halt,
        /// The host switched it off.
        5 ForcedOff,
        /// The guest did something that cannot be run (coLinux INVALID_OPERATION).
        6 InvalidOperation,
        /// A triple fault.
        7 TripleFault,
        /// The debug-exit port was written.
        8 DebugExit,
        /// The guest's kernel hit a BUG.
        9 Bug,
    }

    /// What the host told the machine.
    ControlVerb {
        /// The power button.
        0 PowerButton,
        /// Ctrl-Alt-Del.
        1 CtrlAltDel,
        /// A magic SysRq, the character in the argument.
        2 Sysrq,
        /// A non-maskable interrupt.
        3 Nmi,
        /// Reset.
        4 Reset,
        /// Off, without asking the guest.
        5 PowerOff,
        /// Let the guest take an asynchronous break on its console.
        6 Break,
    }

    /// What a debugger wrote to.
    PokeTarget {
        /// Guest-virtual memory.
        0 Virtual,
        /// Pseudo-physical memory.
        1 Physical,
        /// A register, its number in the address.
        2 Register,
    }

    /// Why a recording ended.
    EndReason {
        /// The guest ended by itself.
        0 GuestShutdown,
        /// The guest's kernel panicked.
        1 Panic,
        /// The limit of ticks was reached.
        2 TickLimit,
        /// The limit of host time was reached.
        3 Timeout,
        /// A signal stopped the recorder.
        4 Signal,
        /// The user stopped the recording.
        5 Stopped,
        /// The guest needs something that the machine does not implement.
        6 Unsupported,
        /// The recorder failed.
        7 Failed,
        /// The condition given with `--until` came true.
        8 Condition,
        /// The command in the guest ended.
        9 CommandEnded,
    }

    /// Why the machine went on with another vCPU.
    SwitchReason {
        /// Its share of ticks was used up.
        0 Quantum,
        /// It halted.
        1 Halt,
        /// It yielded: PAUSE or a hypercall.
        2 Yield,
        /// A recorded choice.
        3 Choice,
    }

    /// What a guest asked of a block device.
    BlkOp {
        /// Read sectors.
        0 Read,
        /// Write sectors.
        1 Write,
        /// Make what was written durable.
        2 Flush,
        /// Give sectors up.
        3 Discard,
        /// Zero sectors.
        4 WriteZeroes,
        /// The device's name.
        5 GetId,
    }

    /// What kind of message the kernel logged.
    LogClass {
        /// An ordinary line.
        0 Plain,
        /// A warning with a back trace.
        1 Warn,
        /// An oops.
        2 Oops,
        /// A report of the lock checker.
        3 Lockdep,
        /// A report of a sanitizer.
        4 Sanitizer,
        /// A stall report.
        5 Stall,
        /// A panic.
        6 Panic,
    }

    /// Where a mark came from.
    MarkOrigin {
        /// The guest wrote the mark port.
        0 Guest,
        /// The host, while recording.
        1 Host,
        /// The recorder itself.
        2 Recorder,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_means_itself() {
        for code in 0..=255 {
            assert_eq!(PassageReason::from_code(code).code(), code);
            assert_eq!(EndReason::from_code(code).code(), code);
            assert_eq!(ShutdownKind::from_code(code).code(), code);
        }
        assert_eq!(PassageReason::ALL.len(), 21);
    }

    #[test]
    fn a_code_of_a_later_build_is_kept() {
        let later = PassageReason::get(&mut Bytes::new(&[0xee])).unwrap();
        assert_eq!(later, PassageReason::Unknown(0xee));
        let mut out = Vec::new();
        later.put(&mut out);
        assert_eq!(out, [0xee]);
        assert_eq!(later.to_string(), "unknown-0xee");
    }
}
