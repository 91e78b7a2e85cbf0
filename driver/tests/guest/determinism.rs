//! The same state at every tick, however a run is cut, watched, digested or moved.

use std::sync::OnceLock;

use colinux_driver::machine::{Machine, MachineConfig};
use colinux_driver::observer::{Kind, Observation, Wanted};
use colinux_driver::tick::Tick;
use iced_x86::code_asm::*;
use proptest::prelude::*;

use crate::common::*;

/// Ticks of the runs compared.
const TICKS: u64 = 20_000;
const PAGE: u64 = 0x60_0000;

/// A guest that does without end what makes replay difficult: a periodic timer and idle waits, code
/// that rewrites itself, page faults repaired by a handler, user mode and system calls, ports.
fn restless() -> Guest {
    let handler = CODE + 0x1000;
    let syscall = CODE + 0x1800;
    let target = FREE;
    let entry = Guest::new(|_| Ok(())).entry(PAGE, 0);
    let mut guest = Guest::new(|a| {
        apic(a, 0xf0, 0x1ff)?;
        apic(a, 0x3e0, 0xb)?;
        apic(a, 0x320, 1 << 17 | 0x50)?;
        apic(a, 0x380, 977)?;
        enter_user(a, USER, 0x202)
    });
    guest.cpu.msr.star = 0x0023_0010_0000_0000;
    guest.cpu.msr.lstar = syscall;
    guest.cpu.msr.sfmask = 0x4_7700;
    // R8 goes up; R9 gathers whatever is seen.
    guest.code(USER, |a| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.inc(r8)?;
        a.mov(rax, qword_ptr(PAGE))?;
        a.add(r9, rax)?;
        a.mov(qword_ptr(PAGE + 8), r9)?;
        a.syscall()?;
        a.rdtsc()?;
        a.add(r9, rax)?;
        a.jmp(again)
    });
    // The page comes and goes; every fault changes its rights a little.
    guest.code(handler, |a| {
        a.push(rax)?;
        a.push(rbx)?;
        a.mov(rax, qword_ptr(entry))?;
        a.or(rax, (FREE + 0x1000) as i32 | 7)?;
        a.test(qword_ptr(rsp + 16), 2)?;
        let mut write = a.create_label();
        a.jne(write)?;
        a.and(rax, !2)?;
        a.set_label(&mut write)?;
        a.mov(qword_ptr(entry), rax)?;
        a.pop(rbx)?;
        a.pop(rax)?;
        a.add(rsp, 8)?;
        a.iretq()
    });
    guest.gate(14, handler, 0xe, 0, 0);
    guest.code(syscall, |a| {
        let (mut quiet, mut awake) = (a.create_label(), a.create_label());
        a.mov(r14, rcx)?;
        a.mov(r13, r11)?;
        a.mov(r12, rsp)?;
        a.mov(rsp, STACK0)?;
        // Code of this round.
        a.mov(byte_ptr(target + 1), r8b)?;
        a.mov(rbx, target)?;
        a.call(rbx)?;
        a.add(r9, rax)?;
        // Every eighth time the page goes, flushed or not; every 64th the machine waits.
        a.test(r8, 7)?;
        a.jne(quiet)?;
        a.mov(qword_ptr(entry), 0)?;
        a.test(r8, 8)?;
        a.jne(quiet)?;
        a.invlpg(byte_ptr(PAGE))?;
        a.mov(edx, 0x3f8)?;
        a.mov(eax, r8d)?;
        a.out(dx, al)?;
        a.set_label(&mut quiet)?;
        a.test(r8, 63)?;
        a.jne(awake)?;
        a.sti()?;
        a.hlt()?;
        a.cli()?;
        a.set_label(&mut awake)?;
        a.mov(rsp, r12)?;
        a.mov(rcx, r14)?;
        a.mov(r11, r13)?;
        a.sysretq()
    });
    // MOV EAX, …; RET
    guest.put(target, &[0xb8, 0, 0, 0, 0, 0xc3]);
    guest.map(PAGE, 0);
    guest.quantum_ticks = 1009;
    guest
}

struct Whole {
    guest: Guest,
    config: MachineConfig,
    digest: u128,
    rows: Vec<(Tick, Observation)>,
}

fn run(machine: &mut Machine, until: u64) -> Vec<(Tick, Observation)> {
    let mut rows = Vec::new();
    run_to(machine, until, &mut rows);
    assert_eq!(machine.tick().0, until);
    rows
}

/// The run in one go.
fn whole() -> &'static Whole {
    static WHOLE: OnceLock<Whole> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let guest = restless();
        let mut machine = guest.machine();
        machine.want(Wanted::ALL);
        let rows = run(&mut machine, TICKS);
        let config = guest.config();
        Whole {
            guest,
            config,
            digest: machine.digest(),
            rows,
        }
    })
}

#[test]
fn the_guest_is_as_restless_as_it_should_be() {
    let rows = &whole().rows;
    let count = |kind: Kind| rows.iter().filter(|(_, what)| what.kind() == kind).count();
    assert!(count(Kind::IrqDeliver) > 15);
    assert!(count(Kind::GuestPf) > 50);
    assert!(count(Kind::SyscallExit) > 300);
    assert!(count(Kind::TlbFlush) > 20);
    assert!(
        rows.iter()
            .any(|(_, what)| matches!(what, Observation::PassageLeave { reason: 0, .. }))
    );
}

/// Cut points, in order.
fn cuts() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(1..TICKS, 0..60).prop_map(|mut cuts| {
        cuts.sort_unstable();
        cuts.push(TICKS);
        cuts
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_run_in_pieces_is_the_run(cuts in cuts(), digests in any::<u64>()) {
        let whole = whole();
        let mut machine = whole.guest.machine();
        machine.want(Wanted::ALL);
        let mut rows = Vec::new();
        for (i, cut) in cuts.into_iter().enumerate() {
            rows.extend(run(&mut machine, cut));
            if digests >> (i % 64) & 1 != 0 {
                machine.digest();
            }
        }
        prop_assert_eq!(machine.digest(), whole.digest);
        prop_assert!(rows == whole.rows);
    }

    #[test]
    fn any_observer_sees_the_same_machine(mask in any::<u32>()) {
        let whole = whole();
        let mut machine = whole.guest.machine();
        let kinds = Kind::ALL.iter().enumerate().filter(|(i, _)| mask >> (i % 32) & 1 != 0);
        let wanted = kinds.fold(Wanted::NONE, |wanted, (_, kind)| wanted.with(*kind));
        machine.want(wanted);
        let rows = run(&mut machine, TICKS);
        prop_assert_eq!(machine.digest(), whole.digest);
        let kept = whole.rows.iter().filter(|(_, what)| wanted.has(what.kind()));
        prop_assert!(rows.iter().eq(kept));
    }

    #[test]
    fn a_snapshot_goes_on_as_the_machine_did(at in 1..TICKS, later in 1..TICKS) {
        let whole = whole();
        let mut machine = whole.guest.machine();
        machine.want(Wanted::ALL);
        let mut rows = run(&mut machine, at);
        let mut other = copy(&machine, &whole.config);
        prop_assert_eq!(other.digest(), machine.digest());
        prop_assert_eq!(other.state(), machine.state());
        other.want(Wanted::ALL);
        let before = rows.len();
        rows.extend(run(&mut other, TICKS));
        prop_assert_eq!(other.digest(), whole.digest);
        prop_assert!(rows == whole.rows);
        // A used machine goes back to a state as well as a fresh one.
        let state = machine.state();
        let ram: Vec<_> = pages(&machine);
        run(&mut machine, at + later);
        let (tick, digest) = (machine.tick(), machine.digest());
        restore(&mut machine, &ram);
        machine.restore(&state);
        run(&mut machine, at + later);
        prop_assert_eq!((machine.tick(), machine.digest()), (tick, digest));
        prop_assert!(before <= rows.len());
    }
}

type Page = (usize, Vec<u8>, bool);

fn pages(machine: &Machine) -> Vec<Page> {
    let ram = &machine.core().ram;
    (0..ram.page_count())
        .map(|page| (page, ram.page_bytes(page).to_vec(), ram.is_allocated(page)))
        .collect()
}

fn restore(machine: &mut Machine, pages: &[Page]) {
    for (page, bytes, allocated) in pages {
        machine
            .core_mut()
            .ram
            .restore_page(*page, bytes, *allocated);
    }
}
