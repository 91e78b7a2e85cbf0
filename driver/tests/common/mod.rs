//! A bare machine in 64-bit mode for guests of a few instructions, written with iced's assembler.
//!
//! Tables, stacks, handlers and code are in the first 2 MiB, mapped one to one. Every vector has a
//! handler that writes down what it finds (see [`Event`]) and returns; after a fault it returns to
//! the address in R15, unless that is zero.

use std::collections::BTreeMap;

use colinux_driver::cpu::segment::flat;
use colinux_driver::cpu::state::{self, Cpu, Segment, TableRegister, seg};
use colinux_driver::jit::Tier;
use colinux_driver::layout;
use colinux_driver::machine::{Machine, MachineConfig, Stop};
use colinux_driver::mem::addr::Gpa;
use colinux_driver::observer::{Observation, Wanted};
use colinux_driver::passage::Shutdown;
use colinux_driver::tick::Tick;
use iced_x86::IcedError;
use iced_x86::code_asm::{CodeAssembler, *};

/// Bytes of RAM.
pub const RAM_BYTES: u64 = 4 << 20;
/// Global descriptor table.
pub const GDT: u64 = 0x2000;
/// Interrupt descriptor table.
pub const IDT: u64 = 0x3000;
/// Task state segment; the bitmap of ports follows its first 0x68 bytes.
pub const TSS: u64 = 0x4000;
/// Last byte of the task state segment: all ports have a bit.
pub const TSS_LIMIT: u32 = 0x68 + 0x2000;
/// Stubs of the handlers.
const STUBS: u64 = 0x7000;
const STUB_BYTES: u64 = 16;
const COMMON: u64 = 0x8000;
/// Address of the next event.
const EVENT_POINTER: u64 = 0x9000;
const EVENTS: u64 = 0xa000;
/// Stack of privilege 0 at the start.
pub const STACK: u64 = 0x2_0000;
/// Stack for interrupts in user mode.
pub const STACK0: u64 = 0x2_4000;
/// Top of the first of seven interrupt stacks, a page each.
pub const IST1: u64 = 0x2_8000;
/// Where code of privilege 0 goes.
pub const CODE: u64 = 0x4_0000;
/// First address user mode may access.
pub const USER: u64 = 0x5_0000;
/// Top of the user stack.
pub const USER_STACK: u64 = 0x5_f000;
/// End of what user mode may access; free memory for tests begins here.
pub const FREE: u64 = 0x8_0000;
/// The local APIC, mapped one to one.
pub const LAPIC: u64 = layout::LAPIC_BASE.0;
const PML4: u64 = 0x10_0000;

/// Present.
pub const P: u64 = 1 << 0;
/// Writable.
pub const W: u64 = 1 << 1;
/// For user mode.
pub const U: u64 = 1 << 2;
/// Accessed.
pub const A: u64 = 1 << 5;
/// Dirty.
pub const D: u64 = 1 << 6;
/// Large page.
pub const PS: u64 = 1 << 7;
/// Global.
pub const G: u64 = 1 << 8;
/// Not executable.
pub const NX: u64 = 1 << 63;

/// Selectors, as Linux has them.
pub mod selector {
    /// 64-bit kernel code.
    pub const KERNEL_CODE: u16 = 0x10;
    /// Kernel data.
    pub const KERNEL_DATA: u16 = 0x18;
    /// User data.
    pub const USER_DATA: u16 = 0x2b;
    /// 64-bit user code.
    pub const USER_CODE: u16 = 0x33;
    /// Task state segment.
    pub const TASK: u16 = 0x40;
}

/// What a handler wrote down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Vector.
    pub vector: u64,
    /// Error code, 0 if there is none.
    pub error: u64,
    /// The return address.
    pub rip: u64,
    /// The interrupted code segment.
    pub cs: u64,
    /// The pushed flags.
    pub flags: u64,
    /// The interrupted stack pointer.
    pub rsp: u64,
    /// The interrupted stack segment.
    pub ss: u64,
    /// CR2 in the handler.
    pub cr2: u64,
    /// DR6 in the handler.
    pub dr6: u64,
    /// The handler's stack pointer, at the error code.
    pub stack: u64,
}

const EVENT_BYTES: u64 = 80;

/// Vector of the gate that ends the run from user mode, with EAX as exit code.
pub const EXIT_VECTOR: u8 = 0x7f;

/// A guest being built.
#[derive(Debug)]
pub struct Guest {
    memory: Vec<u8>,
    /// The registers at the start.
    pub cpu: Cpu,
    /// Nanoseconds per tick.
    pub ns_per_tick: u32,
    /// Host quantum.
    pub quantum_ticks: u64,
    next_table: u64,
}

/// How a guest ended.
#[derive(Debug)]
pub struct Ended {
    /// The machine.
    pub machine: Machine,
    /// Why it stopped.
    pub stop: Stop,
    /// What was observed.
    pub rows: Vec<(Tick, Observation)>,
}

impl Guest {
    /// A guest whose code of privilege 0, at [`CODE`], is this; when it falls off its end, the run
    /// ends with EAX as exit code.
    pub fn new(code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Self {
        let mut guest = Guest {
            memory: vec![0; RAM_BYTES as usize],
            cpu: Cpu::default(),
            ns_per_tick: 1,
            quantum_ticks: 1 << 30,
            next_table: PML4 + 0x1000,
        };
        for page in 0..0x200u64 {
            let at = 0x1000 * page;
            let user = if (USER..FREE).contains(&at) { U } else { 0 };
            guest.map(at, at | P | W | user);
        }
        guest.map(LAPIC, LAPIC | P | W | NX);
        guest.tables();
        guest.handlers();
        guest.registers();
        guest.code(CODE, |a| {
            code(a)?;
            exit(a)
        });
        guest
    }

    /// Assembles code to an address.
    pub fn code(
        &mut self,
        at: u64,
        code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
    ) {
        let bytes = assemble(at, code);
        self.put(at, &bytes);
    }

    /// Puts bytes into memory.
    pub fn put(&mut self, gpa: u64, bytes: &[u8]) {
        let at = gpa as usize;
        self.memory[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Puts a number into memory.
    pub fn put64(&mut self, gpa: u64, value: u64) {
        self.put(gpa, &value.to_le_bytes());
    }

    /// A number in memory.
    pub fn memory_at(&self, gpa: u64) -> u64 {
        let at = gpa as usize;
        u64::from_le_bytes(self.memory[at..at + 8].try_into().unwrap())
    }

    /// Address of the entry that maps `va`, at level 0 (a page), 1 (2 MiB) or 2 (1 GiB); tables on
    /// the way are made.
    pub fn entry(&mut self, va: u64, level: u32) -> u64 {
        let mut table = PML4;
        for depth in (level + 1..4).rev() {
            let at = table + 8 * (va >> (12 + 9 * depth) & 511);
            if self.memory_at(at) == 0 {
                let new = self.next_table;
                self.next_table += 0x1000;
                self.put64(at, new | P | W | U);
            }
            table = self.memory_at(at) & 0x000f_ffff_ffff_f000;
        }
        table + 8 * (va >> (12 + 9 * level) & 511)
    }

    /// Maps a page.
    pub fn map(&mut self, va: u64, entry: u64) {
        let at = self.entry(va, 0);
        self.put64(at, entry);
    }

    /// Maps 2 MiB.
    pub fn map_large(&mut self, va: u64, entry: u64) {
        let at = self.entry(va, 1);
        self.put64(at, entry | PS);
    }

    /// Sets a gate: `kind` 0xe keeps interrupts off, 0xf does not.
    pub fn gate(&mut self, v: u8, handler: u64, kind: u64, dpl: u64, ist: u64) {
        let low = handler & 0xffff
            | u64::from(selector::KERNEL_CODE) << 16
            | ist << 32
            | kind << 40
            | dpl << 45
            | 1 << 47
            | (handler >> 16 & 0xffff) << 48;
        self.put64(IDT + 16 * u64::from(v), low);
        self.put64(IDT + 16 * u64::from(v) + 8, handler >> 32);
    }

    /// The handler that writes an event down.
    pub fn handler(v: u8) -> u64 {
        STUBS + STUB_BYTES * u64::from(v)
    }

    fn tables(&mut self) {
        let rows = [
            0,
            0x00cf_9b00_0000_ffff,
            0x00af_9b00_0000_ffff,
            0x00cf_9300_0000_ffff,
            0x00cf_fb00_0000_ffff,
            0x00cf_f300_0000_ffff,
            0x00af_fb00_0000_ffff,
            0,
            u64::from(TSS_LIMIT & 0xffff) | TSS << 16 | 0x8b << 40,
            0,
        ];
        for (i, raw) in rows.iter().enumerate() {
            self.put64(GDT + 8 * i as u64, *raw);
        }
        self.put64(TSS + 4, STACK0);
        for i in 0..7 {
            self.put64(TSS + 0x24 + 8 * i, IST1 + 0x1000 * i);
        }
        self.put(TSS + 0x66, &[0x68, 0]);
        self.put(TSS + 0x68, &[0xff; 0x2001]);
    }

    fn handlers(&mut self) {
        for v in 0..=255u8 {
            let with_error = matches!(v, 8 | 10..=14 | 17);
            self.code(Self::handler(v), |a| {
                if !with_error {
                    a.push(0)?;
                }
                a.push(i32::from(v))?;
                a.jmp(COMMON)
            });
            let dpl = if matches!(v, 3 | 4 | 0x70..=0x7f) {
                3
            } else {
                0
            };
            self.gate(v, Self::handler(v), 0xe, dpl, 0);
        }
        self.code(COMMON, |a| {
            let mut done = a.create_label();
            for r in [rax, rbx, rcx] {
                a.push(r)?;
            }
            a.mov(rbx, qword_ptr(EVENT_POINTER))?;
            // Vector, error code and frame lie above the three registers.
            for i in 0..7i32 {
                a.mov(rax, qword_ptr(rsp + 24 + 8 * i))?;
                a.mov(qword_ptr(rbx + 8 * i), rax)?;
            }
            a.mov(rax, cr2)?;
            a.mov(qword_ptr(rbx + 56), rax)?;
            a.mov(rax, dr6)?;
            a.mov(qword_ptr(rbx + 64), rax)?;
            a.lea(rax, ptr(rsp + 32))?;
            a.mov(qword_ptr(rbx + 72), rax)?;
            a.add(rbx, EVENT_BYTES as i32)?;
            a.mov(qword_ptr(EVENT_POINTER), rbx)?;
            a.mov(rax, qword_ptr(rsp + 24))?;
            // Interrupts end, traps return where they are, faults go on at R15.
            let mut interrupt = a.create_label();
            a.cmp(rax, 32)?;
            a.jae(interrupt)?;
            a.lea(rcx, ptr(rax - 1))?;
            a.cmp(rcx, 2)?;
            a.jbe(done)?;
            a.test(r15, r15)?;
            a.je(done)?;
            a.mov(qword_ptr(rsp + 40), r15)?;
            a.jmp(done)?;
            a.set_label(&mut interrupt)?;
            a.mov(ebx, (LAPIC + 0xb0) as u32)?;
            a.mov(dword_ptr(rbx), 0)?;
            a.set_label(&mut done)?;
            for r in [rcx, rbx, rax] {
                a.pop(r)?;
            }
            a.add(rsp, 16)?;
            a.iretq()
        });
        self.put64(EVENT_POINTER, EVENTS);
        let exit_at = COMMON + 0x800;
        self.code(exit_at, exit);
        self.gate(EXIT_VECTOR, exit_at, 0xe, 3, 0);
    }

    fn registers(&mut self) {
        let cpu = &mut self.cpu;
        cpu.rip = CODE;
        cpu.regs[4] = STACK;
        cpu.cr0 = state::CR0_PE
            | state::CR0_PG
            | state::CR0_ET
            | state::CR0_NE
            | state::CR0_WP
            | state::CR0_MP;
        cpu.cr3 = PML4;
        cpu.cr4 = state::CR4_PAE | state::CR4_PGE | state::CR4_OSFXSR | state::CR4_OSXMMEXCPT;
        cpu.efer = state::EFER_LME | state::EFER_LMA | state::EFER_NXE | state::EFER_SCE;
        cpu.segs[seg::CS] = flat::code64(selector::KERNEL_CODE, 0);
        for which in [seg::SS, seg::DS, seg::ES] {
            cpu.segs[which] = flat::data(selector::KERNEL_DATA, 0);
        }
        cpu.gdtr = TableRegister {
            base: GDT,
            limit: 0x4f,
        };
        cpu.idtr = TableRegister {
            base: IDT,
            limit: 0xfff,
        };
        cpu.tr = Segment {
            selector: selector::TASK,
            attr: 0x8b,
            limit: TSS_LIMIT,
            base: TSS,
        };
    }

    /// How the machine is made.
    pub fn config(&self) -> MachineConfig {
        MachineConfig {
            memory_bytes: RAM_BYTES,
            rtc_epoch_s: 1_700_000_000,
            ns_per_tick: self.ns_per_tick,
            quantum_ticks: self.quantum_ticks,
        }
    }

    /// A machine with this guest in it.
    pub fn machine(&self) -> Machine {
        let mut machine = Machine::empty(&self.config());
        for (page, bytes) in self.memory.chunks(0x1000).enumerate() {
            if bytes.iter().any(|byte| *byte != 0) {
                machine.core_mut().ram.restore_page(page, bytes, true);
            }
        }
        let mut state = machine.state();
        state.cpu = self.cpu.clone();
        machine.restore(&state);
        machine
    }

    /// Runs the guest to its end.
    pub fn run(&self) -> Ended {
        let mut machine = self.machine();
        machine.want(Wanted::ALL);
        let mut rows = Vec::new();
        let stop = run_to(&mut machine, u64::MAX, &mut rows);
        self.run_translated(&stop, &rows, &machine);
        Ended {
            machine,
            stop,
            rows,
        }
    }

    /// The same with every block translated at once: nothing may differ.
    fn run_translated(&self, stop: &Stop, rows: &[(Tick, Observation)], zero: &Machine) {
        let mut machine = self.machine();
        if machine.set_tier(Tier::One) != Tier::One {
            return;
        }
        machine.translate_after(1);
        machine.want(Wanted::ALL);
        let mut others = Vec::new();
        let other = run_to(&mut machine, u64::MAX, &mut others);
        assert_eq!(&other, stop, "tier 1 stops otherwise");
        assert!(machine.state() == zero.state(), "tier 1 ends otherwise");
        assert!(others == rows, "tier 1 tells of other things");
    }
}

/// Assembles for an address.
pub fn assemble(
    at: u64,
    code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Vec<u8> {
    let mut a = CodeAssembler::new(64).unwrap();
    code(&mut a).unwrap();
    a.assemble(at).unwrap()
}

/// Ends the run with EAX as exit code. Clobbers EDX.
pub fn exit(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(edx, u32::from(layout::DEBUG_EXIT))?;
    a.out(dx, eax)
}

/// Ends the run from user mode.
pub fn user_exit(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.int(i32::from(EXIT_VECTOR))
}

/// Goes to user mode with interrupts off: code at `rip`, stack at [`USER_STACK`].
pub fn enter_user(a: &mut CodeAssembler, rip: u64, flags: u64) -> Result<(), IcedError> {
    a.push(i32::from(selector::USER_DATA))?;
    a.push(USER_STACK as i32)?;
    a.push(flags as i32)?;
    a.push(i32::from(selector::USER_CODE))?;
    a.push(rip as i32)?;
    a.iretq()
}

/// Writes a register of the local APIC. Clobbers EBX.
pub fn apic(a: &mut CodeAssembler, register: u64, value: u32) -> Result<(), IcedError> {
    a.mov(ebx, (LAPIC + register) as u32)?;
    a.mov(dword_ptr(rbx), value)
}

/// WRMSR. Clobbers RAX, RCX, RDX.
pub fn wrmsr(a: &mut CodeAssembler, number: u32, value: u64) -> Result<(), IcedError> {
    a.mov(ecx, number)?;
    a.mov(eax, value as u32)?;
    a.mov(edx, (value >> 32) as u32)?;
    a.wrmsr()
}

/// What a guest of a few instructions may take before it is thought to hang.
const TICKS_MAX: u64 = 1 << 26;

/// Runs to a tick or to whatever ends the run; idle time is skipped.
pub fn run_to(machine: &mut Machine, until: u64, rows: &mut Vec<(Tick, Observation)>) -> Stop {
    let limit = until.min(machine.tick().0 + TICKS_MAX);
    for _ in 0..100_000 {
        let stop = machine.run(Tick(limit));
        machine.drain(|tick, what| rows.push((tick, what)));
        match stop {
            Stop::Quantum | Stop::Pause => {}
            Stop::Idle(Some(time)) => machine.warp_to(time),
            Stop::Limit if limit < until => break,
            stop => return stop,
        }
    }
    panic!("the guest does not end; rip {:#x}", machine.core().cpu.rip);
}

impl Ended {
    /// The exit code; panics if the guest ended in another way.
    pub fn code(&self) -> u32 {
        match self.stop {
            Stop::Terminated(Shutdown::DebugExit(code)) => code,
            ref other => panic!(
                "{other:?} at {:#x}: {:#x?}",
                self.machine.core().cpu.rip,
                self.events()
            ),
        }
    }

    /// A number in memory.
    pub fn get64(&self, gpa: u64) -> u64 {
        let mut bytes = [0; 8];
        assert!(self.machine.core().peek_physical(Gpa(gpa), &mut bytes));
        u64::from_le_bytes(bytes)
    }

    /// A general register at the end, in encoding order.
    pub fn reg(&self, number: usize) -> u64 {
        self.machine.core().cpu.regs[number]
    }

    /// What the handlers wrote down.
    pub fn events(&self) -> Vec<Event> {
        let end = self.get64(EVENT_POINTER);
        let mut events = Vec::new();
        let mut at = EVENTS;
        while at < end {
            let word = |i: u64| self.get64(at + 8 * i);
            events.push(Event {
                vector: word(0),
                error: word(1),
                rip: word(2),
                cs: word(3),
                flags: word(4),
                rsp: word(5),
                ss: word(6),
                cr2: word(7),
                dr6: word(8),
                stack: word(9),
            });
            at += EVENT_BYTES;
        }
        events
    }

    /// Vector, error code and return address of each event.
    pub fn brief(&self) -> Vec<(u64, u64, u64)> {
        self.events()
            .iter()
            .map(|e| (e.vector, e.error, e.rip))
            .collect()
    }

    /// Ticks at which interrupts were taken, by vector.
    pub fn taken(&self) -> BTreeMap<u8, Vec<u64>> {
        let mut taken: BTreeMap<u8, Vec<u64>> = BTreeMap::new();
        for (tick, what) in &self.rows {
            if let Observation::IrqDeliver { vector, .. } = what {
                taken.entry(*vector).or_default().push(tick.0);
            }
        }
        taken
    }
}

/// A fresh machine in the same state.
pub fn copy(machine: &Machine, config: &MachineConfig) -> Machine {
    let mut other = Machine::empty(config);
    let ram = &machine.core().ram;
    for page in 0..ram.page_count() {
        if ram.is_allocated(page) {
            other
                .core_mut()
                .ram
                .restore_page(page, ram.page_bytes(page), true);
        }
    }
    other.restore(&machine.state());
    other
}
