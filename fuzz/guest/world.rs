//! The guest the code runs in: page tables, descriptor tables, handlers, registers; first in
//! order, then with some of it overwritten.

use colinux_driver::cpu::segment::flat;
use colinux_driver::cpu::state::{self, Segment, TableRegister, seg};
use colinux_driver::layout;
use colinux_driver::machine::{Machine, MachineConfig};
use colinux_driver::mem::addr::Gpa;
use colinux_driver::snapshot::MachineState;
use colinux_driver::tick::VirtualTime;

use super::bytes::Choices;
use super::insns;

/// Bytes of RAM; the last page holds code, so that decoding meets the end.
pub const RAM_BYTES: u64 = 1 << 20;
/// All of RAM, for the kernel.
pub const KERNEL: u64 = 0xffff_ffff_8000_0000;
/// Code, user and kernel.
pub const CODE: u64 = 0x1_0000;
/// Data, user and kernel.
pub const DATA: u64 = 0x2_0000;
/// All of RAM again, as one large page.
pub const ALIAS: u64 = 0x20_0000;
/// The local APIC.
pub const LAPIC: u64 = 0x1f_0000;
/// The I/O APIC.
pub const IOAPIC: u64 = 0x1f_1000;

const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const PD: u64 = 0x3000;
const PT: u64 = 0x4000;
const HIGH_PDPT: u64 = 0x5000;
const HIGH_PD: u64 = 0x6000;
const HIGH_PT: u64 = 0x7000;
const GDT: u64 = 0x8000;
const IDT: u64 = 0x9000;
const TSS: u64 = 0xa000;
const TSS_LIMIT: u32 = 0x68 + 0x100;
/// What the handlers load registers from.
const REGISTERS: u64 = 0xb000;
/// A handler each 256 bytes.
pub const HANDLERS: u64 = 0xc000;
const HANDLER_BYTES: u64 = 0x100;
const STACKS: u64 = 0x4_0000;
const USER_STACK: u64 = DATA + 0x1_8000;

const P: u64 = 1 << 0;
const W: u64 = 1 << 1;
const U: u64 = 1 << 2;
const PS: u64 = 1 << 7;
const G: u64 = 1 << 8;
const NX: u64 = 1 << 63;

/// Addresses with something unusual behind them.
pub const STRANGE_ADDRESSES: &[u64] = &[
    LAPIC,
    IOAPIC,
    0x1f_2000,
    0x1f_3000,
    ALIAS,
    ALIAS + 0xf_f000,
    0x40_0000,
    0x4000_0000,
    0x7fff_ffff_f000,
    0x8000_0000_0000,
    0xffff_7fff_ffff_f000,
    0xffff_8000_0000_0000,
    0xffff_ffff_ffff_f000,
];

/// Model-specific registers worth writing, and one that does not exist.
pub const MSRS: &[u32] = &[
    0x10,
    0x1b,
    0x3b,
    0x174,
    0x175,
    0x176,
    0x1a0,
    0x277,
    0x6e0,
    0x6e0,
    0xc000_0080,
    0xc000_0081,
    0xc000_0082,
    0xc000_0084,
    0xc000_0100,
    0xc000_0101,
    0xc000_0102,
    0x1234,
];

/// Ports of every device, and some of none.
pub const PORTS: &[u16] = &[
    0x70, 0x71, 0x71, 0x80, 0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3fd, 0x3fe, 0x3ff, 0x500, 0x5ff,
    0x605, 0x604, 0x60, 0x64, 0xcf8, 0xcf9, 0xffff,
];

/// A page table entry: sound, strange or broken.
pub fn entry(from: &mut Choices<'_>) -> u64 {
    let target = match from.below(8) {
        0 => from.pick(&[PML4, PDPT, PD, PT, HIGH_PD, HIGH_PT]),
        1 => from.pick(&[
            0xfee0_0000,
            0xfec0_0000,
            0xd000_0000,
            0xc000_0000,
            0xfffff000,
        ]),
        2 => RAM_BYTES - 0x1000 + 0x1000 * from.below(3) as u64,
        3 => 1 << from.pick(&[32, 39, 40, 51]),
        _ => 0x1000 * from.below(256) as u64,
    };
    let mut flags = if from.chance(230) { P } else { 0 };
    flags |= if from.chance(180) { W } else { 0 };
    flags |= if from.chance(180) { U } else { 0 };
    flags |= if from.chance(40) { PS } else { 0 };
    flags |= if from.chance(40) { G } else { 0 };
    flags |= if from.chance(60) { NX } else { 0 };
    flags |= if from.chance(60) { 0x60 } else { 0 };
    target | flags
}

/// A guest, ready to be put into machines.
#[derive(Clone, Debug)]
pub struct World {
    memory: Vec<u8>,
    /// All but memory.
    pub state: MachineState,
}

/// The machine all guests run in.
pub fn config(from: &mut Choices<'_>) -> MachineConfig {
    MachineConfig {
        memory_bytes: RAM_BYTES,
        rtc_epoch_s: 1_000_000_000,
        ns_per_tick: from.pick(&[1, 1, 1, 3, 1000, u32::MAX]),
        quantum_ticks: from.pick(&[1 << 12, 1, 7, 1000, 1 << 20]),
    }
}

impl World {
    /// A random guest.
    pub fn new(config: &MachineConfig, from: &mut Choices<'_>) -> Self {
        let mut world = World {
            memory: vec![0; RAM_BYTES as usize],
            state: Machine::empty(config).state(),
        };
        world.page_tables();
        world.descriptors();
        world.handlers(from);
        world.code(from);
        world.registers(from);
        world.devices(from);
        if from.chance(128) {
            world.disturb(from);
        }
        world
    }

    /// A machine with this guest in it.
    pub fn machine(&self, config: &MachineConfig) -> Machine {
        let mut machine = Machine::empty(config);
        for (page, bytes) in self.memory.chunks(0x1000).enumerate() {
            if bytes.iter().any(|byte| *byte != 0) {
                machine.core_mut().ram.restore_page(page, bytes, true);
            }
        }
        machine.restore(&self.state);
        machine
    }

    fn put(&mut self, gpa: u64, bytes: &[u8]) {
        let at = gpa as usize;
        if let Some(room) = self.memory.get_mut(at..at + bytes.len()) {
            room.copy_from_slice(bytes);
        }
    }

    fn put64(&mut self, gpa: u64, value: u64) {
        self.put(gpa, &value.to_le_bytes());
    }

    fn page_tables(&mut self) {
        self.put64(PML4, PDPT | P | W | U);
        self.put64(PML4 + 8 * 256, PML4 | P | W);
        self.put64(PML4 + 8 * 511, HIGH_PDPT | P | W);
        self.put64(PDPT, PD | P | W | U);
        self.put64(PDPT + 8, P | W | U | PS);
        self.put64(PD, PT | P | W | U);
        self.put64(PD + 8, P | W | U | PS);
        self.put64(PD + 16, 0xfee0_0000 | P | W | U | PS);
        for page in 0..256 {
            self.put64(PT + 8 * page, (0x1000 * page) | P | W | U);
        }
        for (page, target) in [
            (0x1f0, 0xfee0_0000),
            (0x1f1, 0xfec0_0000),
            (0x1f2, 0xd000_0000),
        ] {
            self.put64(PT + 8 * page, target | P | W | U);
        }
        self.put64(PT + 8 * 0x1f3, RAM_BYTES | P | W | U);
        self.put64(HIGH_PDPT + 8 * 510, HIGH_PD | P | W);
        self.put64(HIGH_PD, HIGH_PT | P | W);
        for page in 0..256 {
            self.put64(HIGH_PT + 8 * page, (0x1000 * page) | P | W | G);
        }
        self.put64(HIGH_PT + 8 * 0x1f0, 0xfee0_0000 | P | W | G);
    }

    fn descriptors(&mut self) {
        let rows = [
            0,
            0x00cf_9b00_0000_ffff,
            0x00af_9b00_0000_ffff,
            0x00cf_9300_0000_ffff,
            0x00cf_fb00_0000_ffff,
            0x00cf_f300_0000_ffff,
            0x00af_fb00_0000_ffff,
            0x00af_9f00_0000_ffff,
        ];
        for (i, raw) in rows.iter().enumerate() {
            self.put64(GDT + 8 * i as u64, *raw);
        }
        let base = KERNEL + TSS;
        let low = u64::from(TSS_LIMIT)
            | (base & 0xff_ffff) << 16
            | 0x89 << 40
            | (base >> 24 & 0xff) << 56;
        self.put64(GDT + 0x40, low);
        self.put64(GDT + 0x48, base >> 32);
        for i in 0..3 {
            self.put64(TSS + 4 + 8 * i, KERNEL + STACKS + 0x4000);
        }
        for i in 0..7 {
            self.put64(TSS + 0x24 + 8 * i, KERNEL + STACKS + 0x6000 + 0x1000 * i);
        }
        self.put(TSS + 0x66, &[0x68, 0]);
        for v in 0..256 {
            let handler = KERNEL + HANDLERS + HANDLER_BYTES * (v % 33).min(32);
            let ist = match v {
                2 => 1,
                8 => 2,
                _ => 0,
            };
            let dpl = if matches!(v, 3 | 4 | 0x80..) { 3 } else { 0 };
            let kind = 0xe | u64::from(v % 5 == 4);
            let low = handler & 0xffff
                | 0x10 << 16
                | ist << 32
                | kind << 40
                | dpl << 45
                | 1 << 47
                | (handler >> 16 & 0xffff) << 48;
            self.put64(IDT + 16 * v, low);
            self.put64(IDT + 16 * v + 8, handler >> 32);
        }
    }

    /// Handlers that load most registers anew, skip some bytes and return.
    fn handlers(&mut self, from: &mut Choices<'_>) {
        for i in 0..16 {
            let value = insns::pointer(from);
            self.put64(REGISTERS + 8 * i, value);
        }
        for v in 0..33u64 {
            let mut code = Vec::new();
            if matches!(v, 8 | 10..=14 | 17 | 21) {
                // ADD RSP, 8
                code.extend_from_slice(&[0x48, 0x83, 0xc4, 8]);
            }
            let at = |code: &Vec<u8>, target: u64| {
                let end = KERNEL + HANDLERS + HANDLER_BYTES * v + code.len() as u64 + 4;
                (KERNEL + target).wrapping_sub(end) as u32
            };
            for register in [0u8, 1, 2, 3, 5, 6, 7, 9, 14] {
                // MOV r64, [RIP+…]
                code.extend_from_slice(&[
                    0x48 | register >> 3 << 2,
                    0x8b,
                    0x05 | (register & 7) << 3,
                ]);
                let relative = at(&code, REGISTERS + 8 * u64::from(register));
                code.extend_from_slice(&relative.to_le_bytes());
            }
            if v == 32 {
                // MOV [RIP+…], EAX: end of interrupt
                code.extend_from_slice(&[0x89, 0x05]);
                let relative = at(&code, 0x1f_00b0);
                code.extend_from_slice(&relative.to_le_bytes());
            }
            if v != 32 || from.chance(128) {
                // The return address moves on, and comes back from wherever it went astray:
                // MOV RAX, [RSP]; ADD RAX, 1 to 8; AND EAX, 3FFFh; ADD RAX, code; MOV [RSP], RAX
                code.extend_from_slice(&[0x48, 0x8b, 0x04, 0x24]);
                code.extend_from_slice(&[0x48, 0x83, 0xc0, 1 + from.byte() % 8]);
                code.extend_from_slice(&[0x25, 0xff, 0x3f, 0, 0, 0x48, 0x05]);
                let half = if v == 14 || from.chance(220) {
                    0
                } else {
                    KERNEL
                };
                code.extend_from_slice(&((half + CODE) as u32).to_le_bytes());
                code.extend_from_slice(&[0x48, 0x89, 0x04, 0x24]);
            }
            if from.chance(192) {
                // So does the stack pointer: MOV QWORD [RSP+24], stack
                code.extend_from_slice(&[0x48, 0xc7, 0x44, 0x24, 24]);
                code.extend_from_slice(&(USER_STACK as u32).to_le_bytes());
            }
            if from.chance(24) {
                code.extend(insns::fill(16, from));
            }
            code.extend_from_slice(&[0x48, 0xcf]);
            self.put(HANDLERS + HANDLER_BYTES * v, &code);
        }
    }

    fn code(&mut self, from: &mut Choices<'_>) {
        for page in 0..4 {
            let code = insns::fill(0x1000, from);
            self.put(CODE + 0x1000 * page, &code);
        }
        let code = insns::fill(64, from);
        self.put(RAM_BYTES - 64, &code);
        for _ in 0..64 {
            let (at, value) = (from.word() % 0x2_0000, from.word());
            self.put64(DATA + at, value);
        }
    }

    fn registers(&mut self, from: &mut Choices<'_>) {
        let user = from.chance(110);
        let cpu = &mut self.state.cpu;
        for register in 0..16 {
            cpu.regs[register] = if from.chance(200) {
                insns::pointer(from)
            } else {
                from.number()
            };
        }
        cpu.regs[4] = if user {
            USER_STACK
        } else {
            KERNEL + STACKS + 0x2000
        };
        for half in cpu.xmm.iter_mut().flatten() {
            *half = from.word();
        }
        for register in &mut cpu.x87.regs {
            *register = (from.word(), from.word() as u16);
        }
        cpu.x87.tags = from.byte();
        cpu.cr0 = state::CR0_PE | state::CR0_PG | state::CR0_ET | state::CR0_NE;
        cpu.cr0 |= if from.chance(200) { state::CR0_WP } else { 0 };
        cpu.cr3 = PML4;
        cpu.cr4 = state::CR4_PAE | state::CR4_PGE | state::CR4_OSFXSR | state::CR4_OSXMMEXCPT;
        cpu.efer = state::EFER_LME | state::EFER_LMA | state::EFER_NXE | state::EFER_SCE;
        let privilege = if user { 3 } else { 0 };
        cpu.cpl = privilege as u8;
        let (cs, ss) = if user { (0x33, 0x2b) } else { (0x10, 0x18) };
        cpu.segs[seg::CS] = flat::code64(cs, privilege);
        for which in [seg::SS, seg::DS, seg::ES] {
            cpu.segs[which] = flat::data(ss, privilege);
        }
        cpu.segs[seg::FS].base = DATA;
        cpu.segs[seg::GS].base = DATA + 0x1000;
        cpu.gdtr = TableRegister {
            base: KERNEL + GDT,
            limit: 0x4f,
        };
        cpu.idtr = TableRegister {
            base: KERNEL + IDT,
            limit: 0xfff,
        };
        cpu.tr = Segment {
            selector: 0x40,
            attr: 0x8b,
            limit: TSS_LIMIT,
            base: KERNEL + TSS,
        };
        cpu.msr.star = 0x0023_0010_0000_0000;
        cpu.msr.lstar = KERNEL + CODE;
        cpu.msr.sfmask = from.pick(&[0, 0x700, 0x4_7700]);
        let half = if user || from.chance(128) { 0 } else { KERNEL };
        cpu.rip = match from.below(12) {
            0 => RAM_BYTES - 64,
            1 => half + CODE + 0xff0,
            2 => ALIAS + CODE,
            _ => half + CODE,
        };
        cpu.set_rflags(match from.below(8) {
            0 => 0x102,
            1 => 0x302,
            2 => from.number() & !0x2_0000,
            3 => 2,
            _ => 0x202,
        });
        self.state.tick.0 = from.pick(&[0, 0, 0, 12_345, 1 << 40]);
        self.state.next_quantum.0 = self.state.tick.0 + 1;
        self.state.clock.warp_ns = from.pick(&[0, 0, 99, 1 << 62, u64::MAX - 10_000]);
    }

    /// The timer runs, in one of its modes.
    fn devices(&mut self, from: &mut Choices<'_>) {
        let now: VirtualTime = self.state.clock.time_at(self.state.tick);
        let board = &mut self.state.board;
        let mut write = |register: u64, value: u32| {
            board.mmio_write(
                Gpa(layout::LAPIC_BASE.0 + register),
                4,
                u64::from(value),
                now,
            );
        };
        if from.chance(200) {
            write(0xf0, 0x1ff);
            write(
                0x320,
                from.pick(&[0x20, 0x2_0030, 0x2_00ff, 0x4_0041, 0x1_0020]),
            );
            write(0x3e0, from.pick(&[0xb, 0, 3]));
            write(0x380, from.pick(&[100, 1, 17, 5000, u32::MAX]));
            write(0x80, from.pick(&[0, 0, 0, 0x30, 0xff]));
        }
        drop(board.take_outputs());
    }

    /// Overwrites some of what the processor relies on.
    fn disturb(&mut self, from: &mut Choices<'_>) {
        let most = from.pick(&[1, 4, 12]);
        for _ in 0..=from.below(most) {
            match from.below(10) {
                0..=3 => {
                    let table = from.pick(&[PML4, PDPT, PD, PT, HIGH_PDPT, HIGH_PD, HIGH_PT]);
                    let index = match table {
                        PT | HIGH_PT => from.below(256),
                        _ => from.pick(&[0, 1, 2, 3, 256, 510, 511]),
                    };
                    let value = entry(from);
                    self.put64(table + 8 * index as u64, value);
                }
                4 => {
                    let at = 16 * from.below(34) as u64 + 8 * from.below(2) as u64;
                    let value = from.word() << 8;
                    self.put64(IDT + at, value);
                }
                // One bit of a gate or descriptor.
                5 => {
                    let table = from.pick(&[IDT, GDT]);
                    let at = from.below(if table == IDT { 34 * 16 } else { 0x50 });
                    self.memory[table as usize + at] ^= 1 << from.below(8);
                }
                6 => {
                    let at = TSS + 4 + 8 * from.below(11) as u64;
                    let value = if from.chance(128) {
                        insns::pointer(from)
                    } else {
                        from.number()
                    };
                    self.put64(at, value);
                }
                7 => self.disturb_tables(from),
                8 => {
                    let cpu = &mut self.state.cpu;
                    match from.below(6) {
                        0 => cpu.cr4 &= !state::CR4_PGE,
                        1 => cpu.efer &= !state::EFER_NXE,
                        2 => cpu.cr0 |= state::CR0_TS,
                        3 => cpu.cr3 = 0x1000 * from.below(0x102) as u64,
                        4 => cpu.msr.lstar = KERNEL + 0x1000 * from.below(256) as u64,
                        _ => cpu.msr.tsc_adjust = from.number(),
                    }
                }
                _ => {
                    let value = insns::pointer(from);
                    let handler = HANDLERS + HANDLER_BYTES * from.below(33) as u64;
                    self.put64(handler + from.below(64) as u64, value);
                }
            }
        }
    }

    fn disturb_tables(&mut self, from: &mut Choices<'_>) {
        let base = match from.below(4) {
            0 => KERNEL + from.pick(&[GDT, IDT, TSS, PML4]),
            1 => from.pick(&[LAPIC, IOAPIC]),
            _ => insns::pointer(from),
        };
        let canonical = ((base as i64) << 16 >> 16) as u64;
        let limit = from.pick(&[0u16, 7, 0x67, 0xff, 0xfff, 0xffff]);
        let cpu = &mut self.state.cpu;
        match from.below(3) {
            0 => {
                cpu.gdtr = TableRegister {
                    base: canonical,
                    limit,
                }
            }
            1 => {
                cpu.idtr = TableRegister {
                    base: canonical,
                    limit,
                }
            }
            _ => {
                cpu.tr = Segment {
                    base: canonical,
                    limit: limit.into(),
                    ..cpu.tr
                }
            }
        }
    }
}
