//! A small recording with one row of every kind.

use std::path::Path;

use colinux_tracer::{
    BlkOp, Comm, Command, ControlVerb, CpuModel, CpuidRow, Device, Digest, EndReason, Event,
    FlushKind, HostInfo, INITRD_FILE, InitrdImage, Input, IrqDirection, IrqSource, KERNEL_FILE,
    KernelImage, KernelKind, Levels, LogClass, Manifest, MarkOrigin, Note, Options, PageAccess,
    PassageReason, PokeTarget, RecordEnd, ShutdownKind, StateDigest, SwitchReason, Writer,
};

const RIP: u64 = 0xffff_ffff_8100_1234;

/// One event of every kind, by code.
pub(crate) fn events() -> Vec<Event> {
    let comm = Comm::new(b"kworker/0:1");
    let digest = StateDigest(*b"0123456789abcdef");
    vec![
        Event::PassageLeave {
            reason: PassageReason::Deadline,
            rip: RIP,
            cpl: 3,
            insns: 50_000,
        },
        Event::PassageEnter { delivered: 0xec },
        Event::TaskSwitch {
            prev_pid: 1,
            prev_tid: 1,
            prev_state: 2,
            prev_comm: Comm::new(b"swapper/0"),
            next_pid: 7,
            next_tid: 300,
            next_comm: comm,
        },
        Event::TaskNew {
            pid: 8,
            tid: 8,
            parent: 7,
            comm,
        },
        Event::Cr3Write {
            old: 0x10_0000,
            new: 0x20_0001,
        },
        Event::TaskExec {
            pid: 8,
            tid: 8,
            comm,
            path: "/bin/sh".into(),
        },
        Event::TaskExit {
            pid: 8,
            tid: 8,
            code: -256,
            comm,
        },
        Event::IrqForward {
            direction: IrqDirection::ToHost,
            source: IrqSource::Block,
            line: 16,
            vector: 0x31,
        },
        Event::IrqDeliver {
            vector: 0x31,
            rip: RIP,
            cpl: 0,
            latency: 127,
        },
        Event::IrqEoi { vector: 0x31 },
        Event::PpramAlloc {
            gpfn: 0x1_0000,
            access: PageAccess::Fetch,
            rip: RIP,
        },
        Event::PpramHole {
            gpa: 0xfed0_0000,
            size: 4,
            write: true,
            rip: RIP,
        },
        Event::GuestPf {
            gva: u64::MAX,
            gpa: 0,
            error: 0x15,
            rip: 0x40_1000,
            cpl: 3,
        },
        Event::TlbFlush {
            kind: FlushKind::Page,
            gva: 0x7fff_0000_0000,
        },
        Event::Exception {
            vector: 13,
            error: 0x80,
            rip: RIP,
            cpl: 0,
        },
        Event::SyscallEnter {
            nr: 257,
            args: [u64::MAX, 1, 127, 128, 0, 1 << 56],
            rip: 0x40_2000,
        },
        Event::SyscallExit {
            nr: 257,
            ret: -2,
            insns: 4321,
        },
        Event::Hypercall {
            nr: 9,
            args: [1, 2, 3, 1 << 63],
            ret: i64::MIN,
        },
        Event::VqKick {
            dev: 1,
            queue: 2,
            avail: 0xffff,
        },
        Event::VqDrain {
            dev: 1,
            queue: 2,
            count: 17,
        },
        Event::Pio {
            write: true,
            addr: 0x3f8,
            size: 1,
            value: 0x41,
            rip: RIP,
        },
        Event::IoUnclaimed {
            addr: 0xcf8,
            mmio: false,
            size: 4,
            write: false,
            value: 0xffff_ffff,
            rip: RIP,
        },
        Event::Mmio {
            write: false,
            addr: 0xfee0_0020,
            size: 4,
            value: 0,
            rip: RIP,
        },
        Event::ConsoleOut {
            port: 0,
            bytes: b"Linux version\r\n\xff".into(),
        },
        Event::KernelLog {
            level: 4,
            stamp: 1_234_567_890,
            class: LogClass::Warn,
            text: "\u{fc}mlaut".into(),
        },
        Event::BlkSubmit {
            dev: 0,
            id: 5,
            op: BlkOp::Write,
            sector: 1 << 33,
            len: 4096,
        },
        Event::BlkComplete {
            dev: 0,
            id: 5,
            status: 0,
            digest: 0x1234,
            latency: 10_000,
        },
        Event::NetTx {
            nic: 0,
            len: 60,
            digest: 0x5678,
            head: vec![0xff; 6],
        },
        Event::TimerProgram {
            deadline: 4_000_000,
        },
        Event::ModuleLoad {
            name: "virtio_blk".into(),
            base: 0xffff_ffff_c000_0000,
            size: 0x8000,
            build_id: vec![1; 20],
        },
        Event::Oops {
            class: LogClass::Oops,
            rip: RIP,
            error: 2,
            tid: 9,
            comm,
            text: "BUG: kernel NULL pointer dereference".into(),
        },
        Event::GuestShutdown {
            kind: ShutdownKind::DebugExit,
            code: 3,
        },
        Event::Panic {
            rip: RIP,
            tid: 1,
            comm,
            text: "Attempted to kill init!".into(),
        },
        Event::Mark {
            origin: MarkOrigin::Host,
            text: "here".into(),
        },
        Event::ModuleUnload {
            name: "virtio_blk".into(),
            base: 0xffff_ffff_c000_0000,
        },
        Event::Checkpoint {
            id: 1,
            digest,
            dirty_pages: 4096,
        },
        Event::DigestPoint { digest },
        Event::Lost {
            count: 3,
            first: 1,
            last: 2,
        },
        Event::Counters {
            counts: vec![(0x20, 1), (0x55, u64::MAX)],
        },
        Event::VcpuSwitch {
            from: 0,
            to: 1,
            reason: SwitchReason::Halt,
            insns: 99,
        },
    ]
}

/// One input of every kind but the end.
pub(crate) fn inputs() -> Vec<Input> {
    vec![
        Input::ConsoleIn {
            port: 0,
            bytes: b"ls\r".into(),
        },
        Input::NetRx {
            nic: 0,
            bytes: vec![0x5a; 60],
        },
        Input::HostControl {
            verb: ControlVerb::Sysrq,
            arg: u64::from(b'c'),
        },
        Input::IdleWarp { ns: 1_000_000 },
        Input::SchedChoice {
            from: 0,
            to: 1,
            reason: SwitchReason::Choice,
        },
        Input::Poke {
            target: PokeTarget::Physical,
            addr: 0x1000,
            bytes: vec![0x90],
        },
        Input::Reset { epoch: 1 },
    ]
}

/// How it ends.
pub(crate) fn end() -> RecordEnd {
    RecordEnd {
        reason: EndReason::CommandEnded,
        tick: 100_000,
        digest: StateDigest([0xee; 16]),
    }
}

/// What it was made from.
pub(crate) fn manifest() -> Manifest {
    let cpuid = CpuidRow {
        leaf: 1,
        eax: 0x0001_06ca,
        ecx: 1 << 13,
        ..CpuidRow::default()
    };
    Manifest {
        kernel: KernelImage {
            digest: Digest::of(b"kernel"),
            len: 6,
            kind: KernelKind::Vmlinux,
        },
        initrd: Some(InitrdImage {
            digest: Digest::of(&[7; 5000]),
            len: 5000,
        }),
        cmdline: "console=ttyS0 panic=-1".into(),
        memory: 256 << 20,
        vcpus: 2,
        cpu: CpuModel {
            name: "bonnell".into(),
            cpuid: vec![cpuid],
        },
        seed: 42,
        epoch: 1_700_000_000,
        devices: vec![Device {
            name: "com1".into(),
            kind: "serial-16550".into(),
            base: 0x3f8,
            irq: 4,
            ..Device::default()
        }],
        digest_interval: 1_000_000,
        levels: Levels::default().to_map(),
        command: Some(Command {
            argv: vec!["true".into()],
            env: vec![("HOME".into(), "/".into())],
            directory: "/".into(),
        }),
        ..Manifest::default()
    }
}

/// The tick of event `number`.
pub(crate) const fn tick(number: u64) -> u64 {
    1000 + number * number
}

/// Writes it, in chunks of ten rows, events alternating between two vCPUs in tens.
pub(crate) fn write(path: &Path) {
    let options = Options {
        chunk_rows: 10,
        batch_rows: 10,
        overwrite: true,
        sync: false,
        ..Options::default()
    };
    let mut writer = Writer::create(path, options).expect("create");
    let info = HostInfo {
        tool_version: "0.1.0".into(),
        ..HostInfo::default()
    };
    writer.host_info(&info).expect("host info");
    writer.manifest(&manifest()).expect("manifest");
    writer
        .boot_file(KERNEL_FILE, b"kernel".as_slice())
        .expect("kernel");
    writer
        .boot_file(INITRD_FILE, vec![7; 5000])
        .expect("initrd");
    for (number, event) in events().into_iter().enumerate() {
        let number = number as u64;
        let vcpu = (number / 10 % 2) as u16;
        writer.push_on(vcpu, tick(number), event).expect("push");
        if let Some(input) = inputs().get(number as usize) {
            writer.input(tick(number), input.clone()).expect("input");
            writer.flush_inputs().expect("flush");
        }
    }
    let note = Note {
        tick: 1010,
        name: "first".into(),
        text: "a note".into(),
    };
    writer.note(note).expect("note");
    writer
        .checkpoint(1020, 1, StateDigest([3; 16]), *b"state")
        .expect("checkpoint");
    writer.finish(end()).expect("finish");
}
