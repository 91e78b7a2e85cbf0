//! What the vCPU costs: per instruction, per block decoded, per TLB miss, per byte moved.
//!
//! Throughput is in guest instructions, or in bytes where it says so.

use std::hint::black_box;

use colinux_driver::machine::Machine;
use colinux_driver::tick::Tick;
use colinux_driver::x86::decode::{Decoded, decode};
use colinux_driver::x86::table::Table;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use iced_x86::IcedError;
use iced_x86::code_asm::*;

#[path = "../tests/common/mod.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests")]
mod common;

use common::{FREE, Guest, P, PS, W, apic, exit};

const SLICE: u64 = 100_000;

/// Runs a guest that does not end, a slice at a time.
fn slices(
    c: &mut Criterion,
    name: &str,
    throughput: Throughput,
    code: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) {
    let mut guest = Guest::new(|a| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        code(a)?;
        a.jmp(again)
    });
    let at = guest.entry(0x4000_0000, 2);
    guest.put64(at, P | W | PS);
    let mut machine = guest.machine();
    advance(&mut machine, SLICE);
    let mut group = c.benchmark_group("vcpu");
    group.throughput(throughput);
    group.bench_function(name, |b| b.iter(|| advance(&mut machine, SLICE)));
    group.finish();
}

fn advance(machine: &mut Machine, ticks: u64) {
    let until = machine.tick().0 + ticks;
    while machine.tick().0 < until {
        black_box(machine.run(Tick(until)));
    }
}

/// Short blocks: nothing but dispatch.
fn dispatch(c: &mut Criterion) {
    slices(c, "dispatch", Throughput::Elements(SLICE), |a| {
        let mut labels = [a.create_label(), a.create_label(), a.create_label()];
        for label in &mut labels {
            a.inc(eax)?;
            a.jmp(*label)?;
            a.set_label(label)?;
        }
        Ok(())
    });
}

/// What compilers make: arithmetic, loads, stores, a call, conditions.
fn mixed(c: &mut Criterion) {
    slices(c, "mixed", Throughput::Elements(SLICE), |a| {
        let (mut function, mut over, mut again) =
            (a.create_label(), a.create_label(), a.create_label());
        a.jmp(over)?;
        a.set_label(&mut function)?;
        a.push(rbp)?;
        a.mov(rbp, rsp)?;
        a.mov(eax, dword_ptr(rdi + rcx * 4))?;
        a.imul_2(eax, ecx)?;
        a.xor(eax, edx)?;
        a.mov(dword_ptr(rdi + rcx * 4), eax)?;
        a.pop(rbp)?;
        a.ret()?;
        a.set_label(&mut over)?;
        a.mov(edi, FREE as u32)?;
        a.mov(ecx, 1000)?;
        a.set_label(&mut again)?;
        a.lea(edx, ptr(rcx + rcx * 2 + 5))?;
        a.call(function)?;
        a.test(eax, eax)?;
        a.cmovs(ebx, eax)?;
        a.shr(eax, 3)?;
        a.add(rsi, rax)?;
        a.dec(ecx)?;
        a.jne(again)
    });
}

/// Every load is of another page, and the TLB has just been emptied: a walk each.
fn misses(c: &mut Criterion) {
    slices(c, "tlb walk", Throughput::Elements(SLICE / 4), |a| {
        let mut again = a.create_label();
        a.mov(rax, cr3)?;
        a.mov(cr3, rax)?;
        a.mov(ebx, 0x4000_0000)?;
        a.mov(ecx, 500)?;
        a.set_label(&mut again)?;
        a.mov(al, byte_ptr(rbx))?;
        a.add(rbx, 0x1000)?;
        a.dec(ecx)?;
        a.jne(again)
    });
    // More pages than the first layer has entries, walked once.
    slices(
        c,
        "tlb second layer",
        Throughput::Elements(SLICE / 4),
        |a| {
            let mut again = a.create_label();
            a.mov(ebx, 0x4000_0000)?;
            a.mov(ecx, 1024)?;
            a.set_label(&mut again)?;
            a.mov(al, byte_ptr(rbx))?;
            a.add(rbx, 0x1000)?;
            a.dec(ecx)?;
            a.jne(again)
        },
    );
}

/// Copies of 16 KiB, five instructions each.
fn repetition(c: &mut Criterion) {
    const LEN: u32 = 16 << 10;
    let bytes = Throughput::Bytes(SLICE / 5 * u64::from(LEN));
    slices(c, "rep movsb", bytes, |a| {
        a.mov(esi, FREE as u32)?;
        a.mov(edi, FREE as u32 + 2 * LEN)?;
        a.mov(ecx, LEN)?;
        a.rep().movsb()
    });
}

/// An access to a device leaves the guest.
fn exits(c: &mut Criterion) {
    slices(c, "apic read", Throughput::Elements(SLICE / 3), |a| {
        a.mov(ebx, common::LAPIC as u32 + 0x80)?;
        a.mov(eax, dword_ptr(rbx))
    });
}

/// Bytes to operations.
fn decoding(c: &mut Criterion) {
    let table = Table::default();
    let code = common::assemble(0, |a| {
        for offset in 0..3 {
            a.mov(rax, qword_ptr(rsp + 8 * offset))?;
            a.lea(rdi, ptr(rax + rcx * 8 + 0x100))?;
            a.add(dword_ptr(rdi), 5)?;
            a.cmp(eax, 0x1234_5678)?;
            a.movups(xmm0, xmmword_ptr(rdi))?;
        }
        apic(a, 0, 0)?;
        exit(a)
    });
    let mut decoded = Decoded::default();
    decode(&mut decoded, &table, &code, 64, 48);
    let insns = decoded.ops.len();
    let mut group = c.benchmark_group("vcpu");
    group.throughput(Throughput::Elements(insns as u64));
    group.bench_function("decode", |b| {
        b.iter(|| decode(&mut decoded, &table, black_box(&code), 64, 48))
    });
    group.finish();
}

/// Taking and going back to a state, and the digest of one.
fn snapshots(c: &mut Criterion) {
    let mut machine = Guest::new(|a| a.hlt()).machine();
    let state = machine.state();
    c.bench_function("snapshot/state", |b| b.iter(|| machine.state()));
    c.bench_function("snapshot/restore", |b| b.iter(|| machine.restore(&state)));
    c.bench_function("snapshot/digest", |b| b.iter(|| machine.digest()));
}

criterion_group!(
    benches, dispatch, mixed, misses, repetition, exits, decoding, snapshots
);
criterion_main!(benches);
