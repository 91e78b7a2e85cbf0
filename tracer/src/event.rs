//! What happened: observations, which a replay produces again and compares.
//!
//! An event carries plain integers and nothing of the host (no host address, no host time), otherwise
//! a replay elsewhere could not be compared with it. Its tick is beside it, its vCPU in the chunk.

use crate::codes::{
    BlkOp, FlushKind, IrqDirection, IrqSource, LogClass, MarkOrigin, PageAccess, PassageReason,
    ShutdownKind, SwitchReason,
};
use crate::comm::Comm;
use crate::digest::StateDigest;
use crate::vocabulary::vocabulary;

vocabulary! {
    /// One observation.
    Event,
    /// The kinds of observation.
    EventKind {
        /// The machine came back from the guest.
        0x20 Passage 1 PassageLeave {
            /// Why.
            reason: PassageReason,
            /// Next instruction of the guest.
            rip: u64,
            /// Privilege level of the guest.
            cpl: u8,
            /// Instructions retired since the machine went in.
            insns: u64,
        }
        /// The machine goes into the guest.
        0x21 Passage 1 PassageEnter {
            /// Vector delivered on the way in, 0 for none.
            delivered: u8,
        }
        /// The guest switches tasks.
        0x22 Task 1 TaskSwitch {
            /// Thread group that leaves.
            prev_pid: u32,
            /// Thread that leaves.
            prev_tid: u32,
            /// State in which it leaves, the low byte of `task_struct.__state`.
            prev_state: u8,
            /// Name of the thread that leaves.
            prev_comm: Comm,
            /// Thread group that comes.
            next_pid: u32,
            /// Thread that comes.
            next_tid: u32,
            /// Name of the thread that comes.
            next_comm: Comm,
        }
        /// A task was made.
        0x23 Task 1 TaskNew {
            /// Thread group of the child.
            pid: u32,
            /// Thread of the child.
            tid: u32,
            /// Thread group of the parent.
            parent: u32,
            /// Name, that of the parent as yet.
            comm: Comm,
        }
        /// CR3 was written.
        0x24 Task 2 Cr3Write {
            /// Value before.
            old: u64,
            /// Value after.
            new: u64,
        }
        /// A task runs another program.
        0x25 Task 1 TaskExec {
            /// Thread group.
            pid: u32,
            /// Thread.
            tid: u32,
            /// New name.
            comm: Comm,
            /// Path of the program.
            path: String,
        }
        /// A task ended.
        0x26 Task 1 TaskExit {
            /// Thread group.
            pid: u32,
            /// Thread.
            tid: u32,
            /// Exit code as `do_exit` gets it.
            code: i64,
            /// Name.
            comm: Comm,
        }
        /// An interrupt was raised toward the guest, or taken back for the host.
        0x28 Irq 1 IrqForward {
            /// Which way.
            direction: IrqDirection,
            /// Who.
            source: IrqSource,
            /// Line, or global system interrupt.
            line: u32,
            /// Vector, 0 if not known yet.
            vector: u8,
        }
        /// The guest takes a vector.
        0x29 Irq 1 IrqDeliver {
            /// Vector.
            vector: u8,
            /// Instruction that was interrupted.
            rip: u64,
            /// Privilege level that was interrupted.
            cpl: u8,
            /// Ticks since the interrupt was raised.
            latency: u64,
        }
        /// The guest ended an interrupt.
        0x2A Irq 2 IrqEoi {
            /// Vector.
            vector: u8,
        }
        /// A page of pseudo-physical memory was touched for the first time and allocated.
        0x30 Ppram 1 PpramAlloc {
            /// Number of the page.
            gpfn: u64,
            /// For what.
            access: PageAccess,
            /// Instruction that did it.
            rip: u64,
        }
        /// An access outside pseudo-physical memory and every device.
        0x32 Ppram 1 PpramHole {
            /// Address.
            gpa: u64,
            /// Bytes.
            size: u8,
            /// Whether it was a write.
            write: bool,
            /// Instruction that did it.
            rip: u64,
        }
        /// A page fault of the guest.
        0x33 Ppram 1 GuestPf {
            /// Guest-virtual address, CR2.
            gva: u64,
            /// Pseudo-physical address if the translation got that far, else 0.
            gpa: u64,
            /// Error code.
            error: u16,
            /// Instruction that faulted.
            rip: u64,
            /// Privilege level that faulted.
            cpl: u8,
        }
        /// Translations were flushed.
        0x35 Ppram 2 TlbFlush {
            /// Which.
            kind: FlushKind,
            /// Address, for one page.
            gva: u64,
        }
        /// A fault or trap other than a page fault.
        0x38 Kernel 1 Exception {
            /// Vector.
            vector: u8,
            /// Error code, 0 if the vector has none.
            error: u32,
            /// Instruction.
            rip: u64,
            /// Privilege level.
            cpl: u8,
        }
        /// A system call begins.
        0x3C Syscall 1 SyscallEnter {
            /// Number.
            nr: u32,
            /// Arguments.
            args: [u64; 6],
            /// Return address in the program.
            rip: u64,
        }
        /// A system call returns.
        0x3D Syscall 1 SyscallExit {
            /// Number.
            nr: u32,
            /// Result.
            ret: i64,
            /// Instructions since it began.
            insns: u64,
        }
        /// The guest called the host.
        0x40 Passage 1 Hypercall {
            /// Number.
            nr: u32,
            /// Arguments.
            args: [u64; 4],
            /// Result.
            ret: i64,
        }
        /// The guest rang the bell of a queue.
        0x41 Device 1 VqKick {
            /// Device.
            dev: u8,
            /// Queue.
            queue: u8,
            /// Available index that the guest had reached.
            avail: u16,
        }
        /// A device emptied a queue.
        0x42 Device 1 VqDrain {
            /// Device.
            dev: u8,
            /// Queue.
            queue: u8,
            /// Buffers taken.
            count: u16,
        }
        /// A port was accessed.
        0x44 Device 2 Pio {
            /// Whether it was a write.
            write: bool,
            /// Port.
            addr: u64,
            /// Bytes.
            size: u8,
            /// Value.
            value: u64,
            /// Instruction.
            rip: u64,
        }
        /// A port or address was accessed that nothing claims.
        0x45 Device 1 IoUnclaimed {
            /// Port or pseudo-physical address.
            addr: u64,
            /// Whether it is an address rather than a port.
            mmio: bool,
            /// Bytes.
            size: u8,
            /// Whether it was a write.
            write: bool,
            /// Value written, or given back.
            value: u64,
            /// Instruction.
            rip: u64,
        }
        /// A device's memory was accessed.
        0x46 Device 2 Mmio {
            /// Whether it was a write.
            write: bool,
            /// Pseudo-physical address.
            addr: u64,
            /// Bytes.
            size: u8,
            /// Value.
            value: u64,
            /// Instruction.
            rip: u64,
        }
        /// The guest wrote to a console.
        0x48 Console 1 ConsoleOut {
            /// Which console.
            port: u8,
            /// What.
            bytes: Vec<u8>,
        }
        /// The guest's kernel logged a line.
        0x49 Kernel 1 KernelLog {
            /// Level, 0 to 7.
            level: u8,
            /// Nanoseconds as the kernel stamped it.
            stamp: u64,
            /// Class.
            class: LogClass,
            /// The line.
            text: String,
        }
        /// A block device took a request.
        0x4C Blockdev 1 BlkSubmit {
            /// Device.
            dev: u8,
            /// Number of the request.
            id: u32,
            /// What.
            op: BlkOp,
            /// First sector.
            sector: u64,
            /// Bytes.
            len: u32,
        }
        /// A block device finished a request.
        0x4D Blockdev 1 BlkComplete {
            /// Device.
            dev: u8,
            /// Number of the request.
            id: u32,
            /// Status given to the guest.
            status: u8,
            /// XXH3-64 of the data.
            digest: u64,
            /// Ticks since it was submitted.
            latency: u64,
        }
        /// A frame left the guest.
        0x50 Network 1 NetTx {
            /// Network device.
            nic: u8,
            /// Bytes of the frame.
            len: u32,
            /// XXH3-64 of the frame.
            digest: u64,
            /// First bytes of the frame, at most 64.
            head: Vec<u8>,
        }
        /// A timer was set.
        0x54 Timer 1 TimerProgram {
            /// Virtual nanoseconds at which it will fire, 0 for off.
            deadline: u64,
        }
        /// A module was loaded.
        0x58 Kernel 1 ModuleLoad {
            /// Name.
            name: String,
            /// Address of its text.
            base: u64,
            /// Bytes of its core part.
            size: u32,
            /// Build id, empty if not known.
            build_id: Vec<u8>,
        }
        /// The guest's kernel oopsed, warned or hit a BUG.
        0x59 Kernel 1 Oops {
            /// Which of them.
            class: LogClass,
            /// Instruction.
            rip: u64,
            /// Error code.
            error: u64,
            /// Thread.
            tid: u32,
            /// Name of the task.
            comm: Comm,
            /// The first line said about it.
            text: String,
        }
        /// The guest ended.
        0x5A Kernel 1 GuestShutdown {
            /// How.
            kind: ShutdownKind,
            /// Code written to the exit port, else 0.
            code: u32,
        }
        /// The guest's kernel panicked.
        0x5B Kernel 1 Panic {
            /// Instruction.
            rip: u64,
            /// Thread.
            tid: u32,
            /// Name of the task.
            comm: Comm,
            /// What it said.
            text: String,
        }
        /// A mark.
        0x5C User 1 Mark {
            /// Who set it.
            origin: MarkOrigin,
            /// What it says.
            text: String,
        }
        /// A module was removed.
        0x5D Kernel 1 ModuleUnload {
            /// Name.
            name: String,
            /// Address of its text.
            base: u64,
        }
        /// A checkpoint was taken.
        0x60 Meta 1 Checkpoint {
            /// Number.
            id: u32,
            /// Digest of the state.
            digest: StateDigest,
            /// Pages changed since the one before.
            dirty_pages: u32,
        }
        /// The state was hashed.
        0x61 Meta 1 DigestPoint {
            /// Digest of the state.
            digest: StateDigest,
        }
        /// Events were let go.
        0x62 Meta 0 Lost {
            /// How many.
            count: u64,
            /// Tick of the first.
            first: u64,
            /// Tick of the last.
            last: u64,
        }
        /// What was counted since the beginning, recorded or not.
        0x63 Meta 1 Counters {
            /// Code of the kind, number of times.
            counts: Vec<(u8, u64)>,
        }
        /// The machine goes on with another vCPU.
        0x64 Meta 1 VcpuSwitch {
            /// From.
            from: u8,
            /// To.
            to: u8,
            /// Why.
            reason: SwitchReason,
            /// Instructions that the one before retired.
            insns: u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facility::Facility;
    use crate::rows::Row;
    use crate::schema::Schema;
    use crate::wire::Bytes;

    #[test]
    fn codes_are_the_agreed_ones() {
        let agreed = [
            (0x20, EventKind::PassageLeave, Facility::Passage, 1),
            (0x29, EventKind::IrqDeliver, Facility::Irq, 1),
            (0x33, EventKind::GuestPf, Facility::Ppram, 1),
            (0x35, EventKind::TlbFlush, Facility::Ppram, 2),
            (0x3D, EventKind::SyscallExit, Facility::Syscall, 1),
            (0x48, EventKind::ConsoleOut, Facility::Console, 1),
            (0x61, EventKind::DigestPoint, Facility::Meta, 1),
        ];
        for (code, kind, facility, level) in agreed {
            assert_eq!(kind.code(), code);
            assert_eq!((kind.facility(), kind.level()), (facility, level));
            assert_eq!(EventKind::from_code(code), Some(kind));
            assert_eq!(
                EventKind::from_name(&kind.name().to_lowercase()),
                Some(kind)
            );
        }
        assert_eq!(EventKind::from_code(0), None);
        assert!(EventKind::ALL.iter().all(|kind| kind.code() >= 0x20));
    }

    /// The hot path copies one event and its tick; a larger event would cost every one of them.
    #[test]
    fn an_event_is_a_cache_line() {
        assert!(size_of::<Event>() <= 64, "{}", size_of::<Event>());
    }

    #[test]
    fn the_encoding_is_code_then_fields() {
        let event = Event::IrqDeliver {
            vector: 0xec,
            rip: 0x1234,
            cpl: 3,
            latency: 1,
        };
        let mut out = Vec::new();
        event.put(&mut out);
        assert_eq!(out, [0x29, 0xec, 0xb4, 0x24, 3, 1]);
        let schema = Schema::of_this_build();
        let mut read = Event::blank();
        assert_eq!(read.get(&mut Bytes::new(&out), &schema), Ok(()));
        assert_eq!(read, event);
    }

    #[test]
    fn events_are_readable_as_json() {
        let event = Event::TaskExit {
            pid: 7,
            tid: 7,
            code: -1,
            comm: Comm::new(b"sh"),
        };
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(
            text,
            r#"{"TaskExit":{"pid":7,"tid":7,"code":-1,"comm":"sh"}}"#
        );
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    }
}
