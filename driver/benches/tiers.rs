//! Tier 0 beside tier 1: the same guests, in guest instructions.

use std::hint::black_box;

use colinux_driver::jit::Tier;
use colinux_driver::machine::Machine;
use colinux_driver::tick::Tick;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use iced_x86::IcedError;
use iced_x86::code_asm::*;

#[path = "../tests/common/mod.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests")]
mod common;

use common::{FREE, Guest};

const SLICE: u64 = 1_000_000;

fn advance(machine: &mut Machine, ticks: u64) {
    let until = machine.tick().0 + ticks;
    while machine.tick().0 < until {
        black_box(machine.run(Tick(until)));
    }
}

/// Runs a guest that does not end, in both tiers.
fn both(c: &mut Criterion, name: &str, code: impl Fn(&mut CodeAssembler) -> Result<(), IcedError>) {
    let mut group = c.benchmark_group(name);
    group
        .throughput(Throughput::Elements(SLICE))
        .sample_size(10);
    for (tier, label) in [(Tier::Zero, "tier 0"), (Tier::One, "tier 1")] {
        let mut machine = Guest::new(|a| {
            let mut again = a.create_label();
            a.set_label(&mut again)?;
            code(a)?;
            a.jmp(again)
        })
        .machine();
        if machine.set_tier(tier) != tier {
            continue;
        }
        advance(&mut machine, SLICE);
        group.bench_function(label, |b| b.iter(|| advance(&mut machine, SLICE)));
    }
    group.finish();
}

/// Registers only.
fn compute(c: &mut Criterion) {
    both(c, "compute", |a| {
        a.mov(ecx, 1000)?;
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.imul_3(rax, rax, 0x0003_43fd)?;
        a.add(rax, 0x269ec3)?;
        a.mov(rdx, rax)?;
        a.shr(rdx, 17)?;
        a.xor(rbx, rdx)?;
        a.rol(rbx, 5)?;
        a.dec(ecx)?;
        a.jne(again)
    });
}

/// Loads and stores, over 32 pages.
fn memory(c: &mut Criterion) {
    both(c, "memory", |a| {
        a.mov(esi, FREE as u32)?;
        a.mov(ecx, 4000)?;
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.mov(rax, qword_ptr(rsi))?;
        a.add(rax, qword_ptr(rsi + 8))?;
        a.mov(qword_ptr(rsi + 16), rax)?;
        a.add(rsi, 32)?;
        a.dec(ecx)?;
        a.jne(again)
    });
}

/// Calls and returns, with registers saved.
fn calls(c: &mut Criterion) {
    both(c, "calls", |a| {
        let (mut function, mut over) = (a.create_label(), a.create_label());
        a.call(function)?;
        a.call(function)?;
        a.jmp(over)?;
        a.set_label(&mut function)?;
        for r in [rbx, rbp, r12, r13] {
            a.push(r)?;
        }
        a.mov(rbx, rdi)?;
        a.lea(rdi, ptr(rbx + 1))?;
        for r in [r13, r12, rbp, rbx] {
            a.pop(r)?;
        }
        a.ret()?;
        a.set_label(&mut over)?;
        a.nop()
    });
}

/// A write to the code every 64 instructions: translations are thrown away and made again.
fn rewriting(c: &mut Criterion) {
    both(c, "rewriting", |a| {
        let mut patched = a.create_label();
        a.mov(ecx, 20)?;
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.add(rax, rcx)?;
        a.dec(ecx)?;
        a.jne(again)?;
        a.lea(rsi, ptr(patched))?;
        a.mov(byte_ptr(rsi + 1), al)?;
        a.set_label(&mut patched)?;
        a.mov(dl, 0)
    });
}

criterion_group!(benches, compute, memory, calls, rewriting);
criterion_main!(benches);
