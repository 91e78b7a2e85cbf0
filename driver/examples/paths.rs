//! One path of the vCPU at a time, for counting the host's instructions:
//!
//! ```text
//! paths NAME COUNT
//! ```
//!
//! runs COUNT guest instructions (for `translate`: COUNT blocks) of the guest called NAME.
//! `benches/callgrind.sh` counts two runs of different length and divides the difference.
#![expect(clippy::print_stderr, reason = "an example that is run by hand")]

use std::process::ExitCode;

use colinux_driver::jit::Tier;
use colinux_driver::machine::Machine;
use colinux_driver::tick::Tick;
use iced_x86::IcedError;
use iced_x86::code_asm::*;

#[path = "../tests/common/mod.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests")]
mod common;

use common::{FREE, Guest};

/// Enough for every block of a loop to be translated.
const WARM_TICKS: u64 = 20_000;
/// Passes over the blocks of `translate`: they are translated in the one before the last.
const PASSES: u64 = 17;
/// Instructions in one of its blocks, its jump included.
const BLOCK_INSNS: u64 = 6;
/// Bytes apart at which two pages share an entry in the first layer of the TLB.
const ALIAS: u64 = 512 * 4096;

type Body = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// Name, back end, body of an endless loop.
const LOOPS: &[(&str, Tier, Body)] = &[
    ("interpret", Tier::Zero, compute),
    ("compute", Tier::One, compute),
    ("memory", Tier::One, memory),
    ("dispatch", Tier::One, dispatch),
    ("tlb-miss", Tier::One, tlb_miss),
    ("helper", Tier::One, helper),
];

/// Registers only.
fn compute(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.imul_3(rax, rax, 0x0003_43fd)?;
    a.add(rax, 0x269ec3)?;
    a.mov(rdx, rax)?;
    a.shr(rdx, 17)?;
    a.xor(rbx, rdx)?;
    a.rol(rbx, 5)
}

/// A load, a load that computes, a store, a store that reads; not one after another in memory.
fn memory(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(esi, FREE as u32)?;
    a.mov(rax, qword_ptr(rsi))?;
    a.add(rax, qword_ptr(rsi + 0x1008))?;
    a.mov(qword_ptr(rsi + 0x2010), rax)?;
    a.add(qword_ptr(rsi + 0x3018), rax)
}

/// An indirect call and its return.
fn dispatch(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut function, mut over) = (a.create_label(), a.create_label());
    a.lea(rax, ptr(function))?;
    a.call(rax)?;
    a.jmp(over)?;
    a.set_label(&mut function)?;
    a.ret()?;
    a.set_label(&mut over)?;
    a.nop()
}

/// Two loads that drive each other out of the first layer.
fn tlb_miss(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(esi, FREE as u32)?;
    a.mov(rax, qword_ptr(rsi))?;
    a.mov(rax, qword_ptr(rsi + ALIAS as i32))
}

/// An instruction that translated code leaves to tier 0.
fn helper(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.rdtsc()
}

/// The script counts in here only: making the guest does not matter.
#[inline(never)]
fn advance(machine: &mut Machine, ticks: u64) {
    let until = machine.tick().0 + ticks;
    while machine.tick().0 < until {
        machine.run(Tick(until));
    }
}

/// Decodes, interprets and translates so many blocks.
fn translate(blocks: u64) -> Option<()> {
    let mut machine = Guest::new(|a| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        for i in 0..blocks {
            let mut next = a.create_label();
            a.mov(rax, qword_ptr(FREE as i32))?;
            a.add(rax, i as i32)?;
            a.mov(qword_ptr(FREE as i32 + 8), rax)?;
            a.cmp(rax, rbx)?;
            a.cmove(rcx, rax)?;
            a.jmp(next)?;
            a.set_label(&mut next)?;
            a.zero_bytes()?;
        }
        a.jmp(again)
    })
    .machine();
    (machine.set_tier(Tier::One) == Tier::One).then_some(())?;
    advance(&mut machine, PASSES * blocks * BLOCK_INSNS);
    (machine.tier_stats().translated >= blocks).then_some(())
}

fn run(name: &str, count: u64) -> Option<()> {
    if name == "translate" {
        return translate(count);
    }
    let (_, tier, body) = *LOOPS.iter().find(|(known, ..)| *known == name)?;
    let mut machine = Guest::new(|a| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        body(a)?;
        a.jmp(again)
    })
    .machine();
    (machine.set_tier(tier) == tier).then_some(())?;
    advance(&mut machine, WARM_TICKS + count);
    Some(())
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or_default();
    let count = args.next().and_then(|count| count.parse().ok());
    if count.and_then(|count| run(&name, count)).is_some() {
        return ExitCode::SUCCESS;
    }
    let names: Vec<_> = LOOPS.iter().map(|(name, ..)| *name).collect();
    eprintln!(
        "usage: paths NAME COUNT, with NAME one of translate, {}; tier 1 needs an x86-64 host",
        names.join(", ")
    );
    ExitCode::from(2)
}
