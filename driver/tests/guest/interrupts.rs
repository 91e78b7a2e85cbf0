//! Interrupts: at which tick, behind which instruction, and in what order.

use colinux_driver::machine::Stop;
use colinux_driver::observer::Observation;
use colinux_driver::passage::Shutdown;
use iced_x86::IcedError;
use iced_x86::code_asm::*;

use crate::common::*;

/// Local APIC registers.
const EOI: u64 = 0xb0;
const SPURIOUS: u64 = 0xf0;
const ICR: u64 = 0x300;
const LVT_TIMER: u64 = 0x320;
const INITIAL_COUNT: u64 = 0x380;
const DIVIDE: u64 = 0x3e0;
const TSC_DEADLINE: u32 = 0x6e0;
const SELF: u32 = 1 << 18;
const NMI: u32 = SELF | 4 << 8;

fn enable(a: &mut CodeAssembler) -> Result<(), IcedError> {
    apic(a, SPURIOUS, 0x1ff)
}

/// Makes a vector pending.
fn send(a: &mut CodeAssembler, v: u32) -> Result<(), IcedError> {
    apic(a, ICR, SELF | v)
}

/// Where the `nth` event returned to, relative to the label that R14 holds.
fn offsets(ended: &Ended) -> Vec<(u64, u64)> {
    ended
        .events()
        .iter()
        .map(|e| (e.vector, e.rip.wrapping_sub(ended.reg(14))))
        .collect()
}

/// Runs code with vector 0x41 pending and interrupts disabled; R14 is its start.
fn with_pending(code: &[u8]) -> Ended {
    let ended = Guest::new(|a| {
        let mut start = a.create_label();
        a.cli()?;
        enable(a)?;
        send(a, 0x41)?;
        a.lea(r14, ptr(start))?;
        a.set_label(&mut start)?;
        a.db(code)
    })
    .run();
    ended.code();
    ended
}

#[test]
fn sti_and_mov_ss_hold_interrupts_off_for_one_instruction() {
    const STI: u8 = 0xfb;
    const CLI: u8 = 0xfa;
    const NOP: u8 = 0x90;
    let at = |code: &[u8]| offsets(&with_pending(code));
    assert_eq!(at(&[NOP, STI, NOP, NOP]), [(0x41, 3)]);
    assert_eq!(at(&[STI, CLI, NOP, NOP]), []);
    // The second STI finds interrupts enabled: it gives no second instruction.
    assert_eq!(at(&[STI, STI, NOP, NOP]), [(0x41, 2)]);
    // MOV EAX, SS; STI; MOV SS, EAX; NOP
    assert_eq!(at(&[0x8c, 0xd0, STI, 0x8e, 0xd0, NOP, NOP]), [(0x41, 6)]);
    // MOV SS in the shadow of nothing, then POPF with the flag: PUSH 0x202; MOV EAX, SS; POPF
    assert_eq!(at(&[0x68, 2, 2, 0, 0, 0x9d, NOP, NOP]), [(0x41, 6)]);
    // HLT in the shadow is left at once.
    assert_eq!(at(&[STI, 0xf4, NOP]), [(0x41, 2)]);
}

#[test]
fn iret_opens_the_window_at_its_target() {
    let ended = Guest::new(|a| {
        let mut target = a.create_label();
        a.cli()?;
        enable(a)?;
        send(a, 0x41)?;
        a.lea(r14, ptr(target))?;
        a.mov(rax, rsp)?;
        a.push(i32::from(selector::KERNEL_DATA))?;
        a.push(rax)?;
        a.push(0x202)?;
        a.push(i32::from(selector::KERNEL_CODE))?;
        a.push(r14)?;
        a.iretq()?;
        a.ud2()?;
        a.set_label(&mut target)?;
        a.nop()
    })
    .run();
    ended.code();
    assert_eq!(offsets(&ended), [(0x41, 0)]);
}

#[test]
fn the_timer_fires_at_its_tick_running_or_halted() {
    for halted in [false, true] {
        let ended = Guest::new(|a| {
            let mut again = a.create_label();
            enable(a)?;
            apic(a, LVT_TIMER, 2 << 17 | 0x50)?;
            wrmsr(a, TSC_DEADLINE, 5000)?;
            a.sti()?;
            if halted {
                return a.hlt();
            }
            a.mov(ecx, 10_000)?;
            a.set_label(&mut again)?;
            a.dec(ecx)?;
            a.jne(again)
        })
        .run();
        ended.code();
        let taken = ended.taken();
        if halted {
            // STI, HLT: the clock jumps.
            let time = ended.machine.time().0 - ended.machine.tick().0 + taken[&0x50][0];
            assert_eq!(time, 5000);
            assert!(taken[&0x50][0] < 100);
        } else {
            assert_eq!(taken[&0x50], [5000]);
        }
    }
}

#[test]
fn with_longer_ticks_the_timer_fires_at_the_first_tick_not_before_it() {
    let mut guest = Guest::new(|a| {
        let mut again = a.create_label();
        enable(a)?;
        apic(a, LVT_TIMER, 2 << 17 | 0x50)?;
        wrmsr(a, TSC_DEADLINE, 5000)?;
        a.sti()?;
        a.mov(ecx, 10_000)?;
        a.set_label(&mut again)?;
        a.dec(ecx)?;
        a.jne(again)
    });
    guest.ns_per_tick = 7;
    let ended = guest.run();
    ended.code();
    assert_eq!(ended.taken()[&0x50], [5000_u64.div_ceil(7)]);
}

#[test]
fn deadlines_in_the_past_and_at_the_end_of_time() {
    let ended = Guest::new(|a| {
        enable(a)?;
        apic(a, LVT_TIMER, 2 << 17 | 0x50)?;
        a.sti()?;
        a.nop()?;
        // Past: fires behind the WRMSR.
        wrmsr(a, TSC_DEADLINE, 1)?;
        a.nop()?;
        // At the end of time, and woken up there.
        wrmsr(a, TSC_DEADLINE, u64::MAX)?;
        a.hlt()?;
        // Time stands still now: this is in the past, too, and a count never ends.
        wrmsr(a, TSC_DEADLINE, 7)?;
        a.nop()?;
        apic(a, LVT_TIMER, 0x51)?;
        apic(a, INITIAL_COUNT, 10)?;
        a.mov(ecx, 1000)?;
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.dec(ecx)?;
        a.jne(again)
    })
    .run();
    ended.code();
    let taken = ended.taken();
    assert_eq!(taken.keys().copied().collect::<Vec<_>>(), [0x50]);
    assert_eq!(taken[&0x50].len(), 3);
    assert_eq!(ended.machine.time().0, u64::MAX);
}

#[test]
fn a_periodic_timer_keeps_its_beat() {
    let ended = Guest::new(|a| {
        let mut again = a.create_label();
        enable(a)?;
        apic(a, DIVIDE, 0xb)?;
        apic(a, LVT_TIMER, 1 << 17 | 0x50)?;
        apic(a, INITIAL_COUNT, 1000)?;
        a.sti()?;
        a.mov(ecx, 3000)?;
        a.set_label(&mut again)?;
        a.dec(ecx)?;
        a.jne(again)
    })
    .run();
    ended.code();
    let taken = &ended.taken()[&0x50];
    assert!(taken.len() >= 6);
    // The count starts at the tick of the write: CLI is absent, ten instructions come before.
    assert!(
        taken.windows(2).all(|pair| pair[1] - pair[0] == 1000),
        "{taken:?}"
    );
}

#[test]
fn cr8_holds_back_and_eoi_lets_through() {
    let ended = Guest::new(|a| {
        enable(a)?;
        a.sti()?;
        a.mov(eax, 4)?;
        a.mov(cr8, rax)?;
        send(a, 0x41)?;
        send(a, 0x52)?;
        a.nop()?;
        a.mov(eax, 3)?;
        a.mov(cr8, rax)?;
        a.nop()
    })
    .run();
    ended.code();
    let vectors: Vec<u64> = ended.events().iter().map(|e| e.vector).collect();
    assert_eq!(vectors, [0x52, 0x41]);

    // A handler without EOI keeps its class and those below waiting.
    let quiet = CODE + 0x1000;
    let mut guest = Guest::new(|a| {
        enable(a)?;
        a.sti()?;
        send(a, 0x60)?;
        send(a, 0x61)?;
        send(a, 0x50)?;
        send(a, 0x70)?;
        a.mov(r9d, 1)?;
        apic(a, EOI, 0)?;
        a.nop()
    });
    guest.code(quiet, |a| {
        a.inc(r8)?;
        a.iretq()
    });
    guest.gate(0x60, quiet, 0xe, 0, 0);
    let ended = guest.run();
    ended.code();
    assert_eq!(ended.reg(8), 1);
    let vectors: Vec<u64> = ended.events().iter().map(|e| e.vector).collect();
    assert_eq!(vectors, [0x70, 0x61, 0x50]);
}

#[test]
fn an_nmi_waits_for_iret_and_for_nothing_else() {
    let handler = CODE + 0x1000;
    let mut guest = Guest::new(|a| {
        a.cli()?;
        enable(a)?;
        apic(a, ICR, NMI)?;
        a.nop()
    });
    // Sends another one to itself, once.
    guest.code(handler, |a| {
        let mut end = a.create_label();
        a.inc(r8d)?;
        a.cmp(r8d, 1)?;
        a.jne(end)?;
        apic(a, ICR, NMI)?;
        a.mov(r9d, r8d)?;
        a.set_label(&mut end)?;
        a.iretq()
    });
    guest.gate(2, handler, 0xe, 0, 1);
    let ended = guest.run();
    ended.code();
    // Not nested: the count was still 1 behind the second NMI's sending.
    assert_eq!((ended.reg(8), ended.reg(9)), (2, 1));
}

#[test]
fn halting_is_observed_once_and_ends_with_interrupts_off() {
    let guest = Guest::new(|a| {
        a.sti()?;
        a.hlt()
    });
    let mut machine = guest.machine();
    machine.want(colinux_driver::observer::Wanted::ALL);
    for _ in 0..5 {
        assert_eq!(
            machine.run(colinux_driver::tick::Tick(100)),
            Stop::Idle(None)
        );
    }
    let mut leaves = 0;
    machine.drain(|_, what| leaves += u32::from(matches!(what, Observation::PassageLeave { .. })));
    assert_eq!(leaves, 1);

    let guest = Guest::new(|a| {
        a.cli()?;
        a.hlt()
    });
    let ended = guest.run();
    assert_eq!(ended.stop, Stop::Terminated(Shutdown::Halt));
    // Also in a copy: what is behind HLT never runs.
    let mut other = copy(&ended.machine, &guest.config());
    assert_eq!(
        other.run(colinux_driver::tick::Tick(100)),
        Stop::Terminated(Shutdown::Halt)
    );
}

#[test]
fn a_repetition_is_interrupted_where_its_registers_stand() {
    // The repetition itself raises the interrupt, at its first element; it is taken at a place that
    // follows from the guest alone.
    let mut guest = Guest::new(|a| {
        enable(a)?;
        a.sti()?;
        a.mov(dword_ptr(FREE), SELF | 0x41)?;
        a.mov(esi, FREE as u32)?;
        a.mov(rdi, LAPIC + ICR)?;
        a.mov(ecx, 1)?;
        a.rep().movsd()?;
        a.nop()?;
        // And one of many elements, over a hole.
        a.mov(rdi, 0x4000_0000u64)?;
        a.mov(ecx, 200_000)?;
        a.rep().stosb()?;
        a.mov(r8, rdi)
    });
    for page in 0..64 {
        guest.map(0x4000_0000 + 0x1000 * page, 0xc100_0000 | P | W);
    }
    let ended = guest.run();
    ended.code();
    assert_eq!(
        ended.events().iter().map(|e| e.vector).collect::<Vec<_>>(),
        [0x41]
    );
    assert_eq!(ended.reg(8), 0x4000_0000 + 200_000);
}

#[test]
fn the_end_of_the_run_is_not_hidden_by_an_earlier_device_access() {
    // OUTSB to the sleep register: a harmless byte, then power-off.
    let mut guest = Guest::new(|a| {
        a.mov(esi, FREE as u32)?;
        a.mov(edx, 0x604)?;
        a.mov(ecx, 2)?;
        a.rep().outsb()
    });
    guest.put(FREE, &[0, 5 << 2 | 0x20]);
    assert_eq!(guest.run().stop, Stop::Terminated(Shutdown::PowerOff));
}
