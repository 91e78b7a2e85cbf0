//! Tier 1 against tier 0: random programs, in lock step, with faults and self-modification.
//!
//! `COLINUX_TIERS_PROGRAMS` says how many, `COLINUX_TIERS_SEED` where to begin.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a test reads the environment; the machine does not"
)]

use colinux_driver::jit::Tier;
use colinux_driver::machine::{Machine, Stop};
use colinux_driver::tick::Tick;
use iced_x86::code_asm::*;
use iced_x86::{Decoder, FlowControl, IcedError, Instruction, Mnemonic as N, OpKind, Register};

#[path = "common/mod.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod common;

use common::{Guest, P, U, W, selector};

/// Random code.
const PROGRAM: u64 = 0x18_0000;
const PROGRAM_PAGES: u64 = 6;
/// Four pages of data: writable, read-only, absent, writable.
const DATA: u64 = 0x19_0000;
const HANDLER: u64 = 0x1a_0000;
/// Rows of register values the handler continues with, then where to go on.
const ROWS: u64 = 0x1a_8000;
const ROW_BYTES: i32 = 256;
const ROW_COUNT: u64 = 32;
/// Counter, and the position in the log.
const COUNTER: u64 = 0x1a_1000;
const LOG_AT: u64 = 0x1a_1008;
const LOG: u64 = 0x1a_2000;
const SEGMENTS: usize = 20;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// An address in or around the data.
    fn address(&mut self) -> u64 {
        match self.below(8) {
            0 => DATA + 0x1000 * self.below(5) - self.below(20),
            1 => DATA + self.below(0x4000),
            2 => DATA + 0x3000 + self.below(0x1000) / 8 * 8,
            _ => DATA + 0x100 + self.below(0xe00) / 16 * 16,
        }
    }

    fn value(&mut self) -> u64 {
        match self.below(10) {
            0 => self.next(),
            1 => self.below(70),
            2 => u64::MAX - self.below(3),
            3 => 1 << self.below(64),
            _ => self.address(),
        }
    }
}

/// One-byte opcodes worth trying, then those behind 0F.
const ONE: &[u8] = &[
    0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x08, 0x09, 0x0a, 0x0b, 0x0d, 0x10, 0x11, 0x13, 0x19, 0x1b,
    0x20, 0x21, 0x23, 0x28, 0x29, 0x2b, 0x30, 0x31, 0x33, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x50,
    0x51, 0x54, 0x55, 0x57, 0x58, 0x5b, 0x5d, 0x5f, 0x63, 0x68, 0x69, 0x6a, 0x6b, 0x80, 0x81, 0x83,
    0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8b, 0x8d, 0x8f, 0x90, 0x91, 0x93, 0x98, 0x99, 0x9c,
    0x9e, 0x9f, 0xa4, 0xa5, 0xa6, 0xaa, 0xab, 0xac, 0xae, 0xa8, 0xa9, 0xb0, 0xb4, 0xb8, 0xbb, 0xbf,
    0xc0, 0xc1, 0xc6, 0xc7, 0xc9, 0xd0, 0xd1, 0xd2, 0xd3, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa, 0xfc,
    0xfe, 0xff, 0x8c, 0x89, 0x8b, 0x8d, 0x03, 0x39, 0x85, 0xc1, 0x83, 0x0f, 0x9d, 0xfb, 0xff, 0xaa,
    0xa4,
];
const TWO: &[u8] = &[
    0x10, 0x11, 0x12, 0x13, 0x14, 0x16, 0x17, 0x1f, 0x28, 0x29, 0x2e, 0x40, 0x42, 0x43, 0x44, 0x45,
    0x47, 0x48, 0x4c, 0x4f, 0x54, 0x57, 0x58, 0x60, 0x61, 0x62, 0x6c, 0x6e, 0x6f, 0x70, 0x71, 0x72,
    0x73, 0x74, 0x75, 0x76, 0x7e, 0x7f, 0x90, 0x92, 0x94, 0x95, 0x9c, 0x9f, 0xa3, 0xa4, 0xa5, 0xab,
    0xac, 0xad, 0xaf, 0xb0, 0xb1, 0xb3, 0xb6, 0xb7, 0xba, 0xbb, 0xbc, 0xbd, 0xbe, 0xbf, 0xc0, 0xc1,
    0xc6, 0xc7, 0xc8, 0xcb, 0xcf, 0xd4, 0xd6, 0xd7, 0xda, 0xdb, 0xde, 0xeb, 0xef, 0xfa, 0xfe, 0xf8,
    0xfc, 0xe7, 0xa2, 0x31, 0x2a, 0x2a, 0x2c, 0x2d, 0x2f, 0x51, 0x59, 0x59, 0x5a, 0x5b, 0x5c, 0x5c,
    0x5d, 0x5e, 0x5e, 0x5f, 0x58, 0xc2, 0xe6, 0x2a, 0xae,
];
/// MXCSR as at power-on, with flags, with other rounding, flushing, and with exceptions unmasked.
const MXCSR: &[u32] = &[
    0x1f80, 0x1f80, 0x1fbf, 0x1fa1, 0x9fc0, 0x3f80, 0x7f80, 0x1d80, 0x0f80, 0x1f00,
];

/// Bytes of one random instruction that neither jumps nor does something outlandish; its memory
/// operand, if it has one, is near `base`.
fn instruction(random: &mut Random, at: u64, base: Option<u8>) -> Vec<u8> {
    loop {
        let mut bytes = Vec::new();
        if random.chance(12) {
            bytes.push(0x66);
        }
        if random.chance(4) {
            bytes.push(if random.chance(50) { 0x64 } else { 0x65 });
        }
        if random.chance(3) {
            bytes.push(0x67);
        }
        if random.chance(12) {
            bytes.push([0xf0, 0xf2, 0xf3][random.below(3) as usize]);
        }
        if let Some(base) = base {
            bytes.push(0x40 | random.below(16) as u8 & 0xe | base >> 3);
        } else if random.chance(65) {
            bytes.push(if random.chance(60) { 0x48 } else { 0x40 } | random.below(8) as u8);
        }
        if random.chance(30) {
            bytes.push(0x0f);
            bytes.push(TWO[random.below(TWO.len() as u64) as usize]);
        } else {
            bytes.push(ONE[random.below(ONE.len() as u64) as usize]);
        }
        let mut modrm = random.next() as u8;
        if random.chance(50) {
            // A register with a small displacement or none.
            modrm &= 0x7f;
        }
        if let Some(base) = base {
            modrm = 0x40 | modrm & 0x38 | base & 7;
        }
        bytes.push(modrm);
        // No index, most of the time.
        match base {
            Some(base) if base & 7 == 4 => bytes.push(0x24),
            Some(_) => {}
            None => {
                let index = random.next() as u8;
                bytes.push(if random.chance(70) {
                    index & 7 | 0x20
                } else {
                    index
                });
            }
        }
        let displacement = match base {
            Some(_) => 8 * random.below(16) as i32 - 64,
            None => random.below(256) as i32 - 128,
        };
        bytes.extend_from_slice(&displacement.to_le_bytes());
        bytes.extend_from_slice(&random.next().to_le_bytes());
        let mut decoder = Decoder::with_ip(64, &bytes, at, 0);
        let insn = decoder.decode();
        if !wanted(&insn) {
            continue;
        }
        let offsets = decoder.get_constant_offsets(&insn);
        bytes.truncate(insn.len());
        if insn.is_ip_rel_memory_operand() && offsets.displacement_size() == 4 {
            let to = random.address().wrapping_sub(insn.next_ip()) as u32;
            let d = offsets.displacement_offset();
            bytes[d..d + 4].copy_from_slice(&to.to_le_bytes());
        }
        return bytes;
    }
}

fn wanted(insn: &Instruction) -> bool {
    let string = insn.is_string_instruction() && (insn.has_rep_prefix() || insn.has_repne_prefix());
    let special = (0..insn.op_count()).any(|i| {
        insn.op_kind(i) == OpKind::Register && {
            let r = insn.op_register(i);
            r.is_cr() || r.is_dr() || r.is_segment_register() && i == 0
        }
    });
    !insn.is_invalid()
        && insn.flow_control() == FlowControl::Next
        && !string
        && !special
        && !matches!(
            insn.mnemonic(),
            N::Hlt | N::In | N::Out | N::Insb | N::Outsb
        )
        && insn.op0_register() != Register::SS
}

/// A program of segments that jump to each other.
fn program(random: &mut Random) -> (Vec<u8>, Vec<u64>) {
    let mut code: Vec<u8> = Vec::new();
    let mut starts: Vec<u64> = Vec::new();
    // Places of immediates that other segments may overwrite.
    let mut patches: Vec<u64> = Vec::new();
    let mut jumps: Vec<usize> = Vec::new();
    let here = |code: &Vec<u8>| PROGRAM + code.len() as u64;
    for _ in 0..SEGMENTS {
        if random.chance(30) {
            let gap = random.below(0x480) as usize;
            code.extend(std::iter::repeat_n(0xcc, gap));
        }
        starts.push(here(&code));
        let count = if random.chance(10) {
            60
        } else {
            1 + random.below(12)
        };
        let base = random.chance(40).then(|| random.below(16) as u8);
        for _ in 0..count {
            let base = base.filter(|_| random.chance(75));
            match random.below(60) {
                0 => {
                    code.push(0xb8);
                    patches.push(here(&code));
                    code.extend_from_slice(&(random.next() as u32).to_le_bytes());
                }
                1 if !patches.is_empty() => {
                    // mov [rip + ...], cl
                    let to = patches[random.below(patches.len() as u64) as usize];
                    let next = here(&code) + 6;
                    code.extend_from_slice(&[0x88, 0x0d]);
                    code.extend_from_slice(&(to.wrapping_sub(next) as u32).to_le_bytes());
                }
                2 => {
                    for _ in 0..1 + random.below(6) {
                        let pop = if random.chance(50) { 8 } else { 0 };
                        if random.chance(40) {
                            code.push(0x41);
                        }
                        code.push(0x50 | pop | random.next() as u8 & 7);
                    }
                }
                3 => {
                    let mxcsr = MXCSR[random.below(MXCSR.len() as u64) as usize];
                    // push mxcsr; ldmxcsr [rsp]; pop rbp
                    code.push(0x68);
                    code.extend_from_slice(&mxcsr.to_le_bytes());
                    code.extend_from_slice(&[0x0f, 0xae, 0x14, 0x24, 0x5d]);
                }
                _ => {
                    let at = here(&code);
                    code.extend(instruction(random, at, base));
                }
            }
        }
        match random.below(10) {
            0 => code.push(0xc3),
            1 => code.extend_from_slice(&[0xff, 0xe0 | random.next() as u8 & 7]),
            2 => {
                // Through a table the handler's rows end with.
                code.extend_from_slice(&[0xff, if random.chance(50) { 0x24 } else { 0x14 }, 0x25]);
                let row = ROWS as i32 + random.below(ROW_COUNT) as i32 * ROW_BYTES + 128;
                code.extend_from_slice(&row.to_le_bytes());
            }
            3 => {}
            n => {
                match n {
                    4 | 5 => code.push(0xe8),
                    6 => code.push(0xe9),
                    _ => code.extend_from_slice(&[0x0f, 0x80 | random.next() as u8 & 15]),
                }
                jumps.push(code.len());
                code.extend_from_slice(&[0; 4]);
            }
        }
    }
    code.push(0xcc);
    for at in jumps {
        let to = starts[random.below(starts.len() as u64) as usize];
        let next = PROGRAM + at as u64 + 4;
        code[at..at + 4].copy_from_slice(&(to.wrapping_sub(next) as u32).to_le_bytes());
    }
    code.truncate((PROGRAM_PAGES * 0x1000) as usize);
    (code, starts)
}

/// A guest that runs a random program, and goes on elsewhere in it after each fault.
fn guest(random: &mut Random) -> Guest {
    let user = random.chance(50);
    let u = if user { U } else { 0 };
    let mut guest = Guest::new(|a| a.int3());
    let (code, starts) = program(random);
    guest.put(PROGRAM, &code);
    for page in 0..PROGRAM_PAGES {
        let at = PROGRAM + page * 0x1000;
        guest.map(at, at | P | W | u);
    }
    guest.map(DATA, DATA | P | W | u);
    guest.map(DATA + 0x1000, (DATA + 0x1000) | P | u);
    guest.map(DATA + 0x2000, 0);
    guest.map(DATA + 0x3000, (DATA + 0x3000) | P | W | u);
    guest.map(DATA + 0x4000, (DATA + 0x4000) | P | W | u);
    for page in 0..2 {
        let at = ROWS + page * 0x1000;
        guest.map(at, at | P | W | u);
    }
    for i in 0..0x4000 / 8 {
        let v = random.value();
        guest.put64(DATA + 8 * i, v);
    }
    for row in 0..ROW_COUNT {
        let at = ROWS + row * ROW_BYTES as u64;
        for r in 0..16 {
            let v = if r == 4 {
                random.address() & !7
            } else {
                random.value()
            };
            guest.put64(at + 8 * r, v);
        }
        let start = starts[random.below(starts.len() as u64) as usize];
        guest.put64(at + 128, start);
        let (code_selector, stack_selector) = if user {
            (selector::USER_CODE, selector::USER_DATA)
        } else {
            (selector::KERNEL_CODE, selector::KERNEL_DATA)
        };
        guest.put64(at + 136, u64::from(code_selector));
        guest.put64(at + 144, 2 | random.next() & 0x8d5 | random.below(2) << 10);
        let stack = random.address() & !7;
        guest.put64(at + 152, stack);
        guest.put64(at + 160, u64::from(stack_selector));
    }
    guest.put64(LOG_AT, LOG);
    guest.cpu.segs[colinux_driver::cpu::state::seg::GS].base = 8;
    guest.code(HANDLER, handler);
    for v in 0..32 {
        guest.gate(v, HANDLER, 0xe, 3, 1);
    }
    guest
}

/// Writes the frame down, then goes on with the next row.
fn handler(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.push(rax)?;
    a.push(rbx)?;
    a.mov(rbx, qword_ptr(LOG_AT))?;
    for i in 0..7i32 {
        a.mov(rax, qword_ptr(rsp + 8 * i))?;
        a.mov(qword_ptr(rbx + 8 * i), rax)?;
    }
    a.add(rbx, 64)?;
    a.and(rbx, LOG as i32 | 0xfff)?;
    a.mov(qword_ptr(LOG_AT), rbx)?;
    a.mov(r15, qword_ptr(COUNTER))?;
    a.inc(r15)?;
    a.mov(qword_ptr(COUNTER), r15)?;
    a.and(r15, (ROW_COUNT - 1) as i32)?;
    a.shl(r15, 8)?;
    a.add(r15, ROWS as i32)?;
    for part in [160, 152, 144, 136, 128] {
        a.push(qword_ptr(r15 + part))?;
    }
    let all = [
        rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15,
    ];
    for (i, r) in all.into_iter().enumerate().filter(|(i, _)| *i != 4) {
        a.mov(r, qword_ptr(r15 + 8 * i as i32))?;
    }
    a.iretq()
}

fn advance(machine: &mut Machine, until: u64) -> Option<Stop> {
    loop {
        match machine.run(Tick(until)) {
            Stop::Limit => return None,
            Stop::Quantum | Stop::Pause => {}
            stop => return Some(stop),
        }
    }
}

/// Runs one program in both tiers; says at which tick they are seen to differ.
fn differs(seed: u64, ticks: u64, step: u64) -> Result<u64, u64> {
    let mut random = Random(seed);
    let guest = guest(&mut random);
    let (mut zero, mut one) = (guest.machine(), guest.machine());
    one.set_tier(Tier::One);
    let mut at = 0;
    while at < ticks {
        at += if step != 0 {
            step
        } else {
            1 + random.below(6000)
        };
        let stops = (advance(&mut zero, at), advance(&mut one, at));
        let same = zero.state() == one.state() && zero.digest() == one.digest();
        if !same || stops.0 != stops.1 {
            if step == 1 {
                eprintln!("tier 0: {:?} {:#x?}", stops.0, zero.state().cpu);
                eprintln!("tier 1: {:?} {:#x?}", stops.1, one.state().cpu);
            }
            return Err(at);
        }
        if stops.0.is_some() {
            break;
        }
    }
    Ok(one.tier_stats().ticks)
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

#[test]
fn random_programs_end_alike_in_both_tiers() {
    if Machine::empty(&Guest::new(|a| a.nop()).config()).set_tier(Tier::One) != Tier::One {
        return;
    }
    let first = number("COLINUX_TIERS_SEED", 1);
    let programs = number("COLINUX_TIERS_PROGRAMS", 300);
    let mut translated = 0;
    for seed in first..first + programs {
        match differs(seed, 60_000, 0) {
            Ok(ticks) => translated += ticks,
            Err(at) => panic!("seed {seed}: the tiers differ at tick {at}"),
        }
    }
    eprintln!("{programs} programs, {translated} ticks in translated code");
    assert!(translated > 0);
}

#[test]
fn a_machine_that_compares_itself_runs_on() {
    for seed in 0..8 {
        let mut machine = guest(&mut Random(seed)).machine();
        if machine.set_tier(Tier::Compare) != Tier::Compare {
            return;
        }
        let mut zero = guest(&mut Random(seed)).machine();
        let stops = (advance(&mut machine, 200_000), advance(&mut zero, 200_000));
        assert_eq!(stops.0, stops.1);
        assert!(machine.state() == zero.state());
        assert!(machine.tier_stats().ticks > 0);
    }
}

#[test]
fn a_machine_that_compares_itself_notices_a_difference() {
    let mut machine = Guest::new(|a| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.inc(qword_ptr(common::FREE))?;
        a.jmp(again)
    })
    .machine();
    if machine.set_tier(Tier::Compare) != Tier::Compare {
        return;
    }
    assert_eq!(advance(&mut machine, 10_000), None);
    // Behind the twin's back.
    machine.core_mut().cpu.regs[12] = 7;
    let Some(Stop::Unsupported(what)) = advance(&mut machine, 20_000) else {
        panic!("not noticed");
    };
    assert!(what.what.contains("r12 0x7 and 0x0"), "{what}");
}
