//! Tests of the board as a whole, through the calls the vCPU makes.

use proptest::prelude::*;

use super::*;
use crate::dev::event::{IrqSource, ShutdownKind};

const LAPIC: u64 = layout::LAPIC_BASE.0;
const IOAPIC: u64 = layout::IOAPIC_BASE.0;
const COM1: u16 = layout::SERIAL_BASE;

const fn at(ns: u64) -> VirtualTime {
    VirtualTime(ns)
}

fn lapic_write(board: &mut Board, offset: u64, value: u32, now: u64) {
    assert!(board.mmio_write(Gpa(LAPIC + offset), 4, value.into(), at(now)));
}

fn ioapic_entry(board: &mut Board, pin: u8, entry: u64) {
    for (half, value) in [(1, entry >> 32), (0, entry & 0xffff_ffff)] {
        let select = u64::from(0x10 + 2 * pin + half);
        assert!(board.mmio_write(Gpa(IOAPIC), 4, select, at(0)));
        assert!(board.mmio_write(Gpa(IOAPIC + 0x10), 4, value, at(0)));
    }
}

/// A board as a kernel sets it up: APICs on, console interrupt on, TSC-deadline timer.
fn running() -> Board {
    let mut board = Board::new(&BoardConfig {
        rtc_epoch_s: 1_700_000_000,
    });
    lapic_write(&mut board, 0xf0, 0x1ff, 0);
    lapic_write(&mut board, 0x320, 0x4_00ec, 0);
    ioapic_entry(&mut board, layout::SERIAL_IRQ, 0x24);
    for (register, value) in [(3, 0x83), (0, 1), (3, 3), (2, 0x07), (4, 0x0b), (1, 1)] {
        assert!(board.pio_write(COM1 + register, 1, value, at(0)));
    }
    board.take_outputs();
    board
}

#[test]
fn console_input_interrupts_through_both_apics() {
    let mut board = running();
    assert_eq!(board.console_space(), 16);
    assert_eq!(board.console_input(b"ls\n", at(10)), 3);
    let forward = BoardEvent::IrqForward {
        source: IrqSource::Pin,
        line: 4,
        vector: 0x24,
    };
    assert_eq!(board.take_outputs(), [forward]);
    assert!(board.interrupt_pending());
    assert_eq!(board.acknowledge(), Some(0x24));
    let read: Vec<_> = (0..3)
        .filter_map(|_| board.pio_read(COM1, 1, at(20)))
        .collect();
    assert_eq!(read, b"ls\n".map(u32::from));
    lapic_write(&mut board, 0xb0, 0, 30);
    assert_eq!(board.take_outputs(), [BoardEvent::IrqEoi { vector: 0x24 }]);
    assert!(!board.interrupt_pending());
    board.console_input(b"x", at(40));
    assert_eq!(
        board.acknowledge(),
        Some(0x24),
        "the line fell and rises again"
    );
}

#[test]
fn transmitter_interrupt_repeats_for_every_burst() {
    let mut board = running();
    board.pio_write(COM1 + 1, 1, 2, at(0));
    for burst in 0..3 {
        assert_eq!(board.acknowledge(), Some(0x24), "burst {burst}");
        assert_eq!(board.pio_read(COM1 + 2, 1, at(0)), Some(0xc2));
        board.pio_write(COM1, 1, 'a'.into(), at(0));
        board.pio_write(COM1, 1, 'b'.into(), at(0));
        lapic_write(&mut board, 0xb0, 0, 0);
    }
    let bytes = board
        .take_outputs()
        .iter()
        .filter(|event| matches!(event, BoardEvent::ConsoleOut { port: COM1, .. }))
        .count();
    assert_eq!(bytes, 6);
}

#[test]
fn deadline_fires_at_its_tick_and_not_before() {
    let mut board = running();
    board.set_tsc_adjust(100, at(50));
    board.set_tsc_deadline(1_100, at(50));
    assert_eq!(
        board.take_outputs(),
        [BoardEvent::TimerProgram { deadline: at(1000) }]
    );
    assert_eq!(board.next_deadline(), Some(at(1000)));
    board.advance(at(999));
    assert!(!board.interrupt_pending());
    assert_eq!(board.tsc_deadline(at(999)), 1_100);
    board.advance(at(1000));
    assert_eq!(
        (board.acknowledge(), board.next_deadline()),
        (Some(0xec), None)
    );
}

#[test]
fn level_interrupt_returns_after_eoi_while_asserted() {
    let mut board = running();
    ioapic_entry(&mut board, 16, 0x8031);
    board.set_line(16, true);
    assert_eq!(board.acknowledge(), Some(0x31));
    lapic_write(&mut board, 0xb0, 0, 0);
    assert_eq!(board.acknowledge(), Some(0x31));
    board.set_line(16, false);
    lapic_write(&mut board, 0xb0, 0, 0);
    assert_eq!(board.acknowledge(), None);
}

#[test]
fn absent_ports_and_addresses_are_unclaimed() {
    let mut board = running();
    for port in [
        0x21, 0x42, 0x60, 0x64, 0x2f8, 0x3e8, 0xcf8, 0xcfc, 0x80, 0x500,
    ] {
        assert_eq!(board.pio_read(port, 1, at(0)), None, "{port:#x}");
    }
    assert!(!board.pio_write(0xcf8, 4, 0x8000_0000, at(0)));
    assert!(!board.pio_write(0x64, 1, 0xd1, at(0)));
    assert!(board.pio_write(layout::IO_DELAY, 1, 0, at(0)));
    assert!(!Board::is_mmio(Gpa(0xe_0000)));
    assert_eq!(board.mmio_read(Gpa(0xfed0_0000), 4, at(0)), None);
    assert_eq!(board.mmio_read(layout::VIRTIO_MMIO_BASE, 4, at(0)), None);
    assert!(board.set_apic_base(0xfee0_0000));
    assert_eq!(
        board.mmio_read(layout::LAPIC_BASE, 4, at(0)),
        None,
        "switched off"
    );
}

#[test]
fn wide_and_narrow_accesses_are_defined() {
    let mut board = running();
    board.pio_write(COM1 + 6, 4, 0xaabb_ccdd, at(0));
    assert_eq!(board.pio_read(COM1 + 7, 2, at(0)), Some(0xffcc));
    assert_eq!(board.mmio_read(Gpa(LAPIC + 0x30), 1, at(0)), Some(0x14));
    assert_eq!(board.mmio_read(Gpa(LAPIC + 0x32), 2, at(0)), Some(5));
    assert_eq!(board.mmio_read(Gpa(LAPIC + 0x34), 4, at(0)), Some(0));
    board.mmio_write(Gpa(LAPIC + 0x80), 1, 0x50, at(0));
    assert_eq!(
        board.cr8(),
        0,
        "a byte write to an APIC register does nothing"
    );
}

#[test]
fn ways_out_and_marks_come_as_outputs() {
    let mut board = running();
    for byte in b"here\n" {
        board.pio_write(layout::MARK_FIRST, 1, (*byte).into(), at(0));
    }
    board.pio_write(layout::DEBUG_EXIT, 1, 0xffff_ff03, at(0));
    board.pio_write(layout::SLEEP_CONTROL, 1, 0x34, at(0));
    let expected = [
        BoardEvent::Mark("here".to_owned()),
        BoardEvent::DebugExit { code: 3 },
        BoardEvent::Shutdown(ShutdownKind::PowerOff),
    ];
    assert_eq!(board.take_outputs(), expected);
}

/// Something the guest or the outside does, and how much later than the step before.
#[derive(Clone, Debug)]
enum Step {
    In(u16, u8),
    Out(u16, u8, u32),
    Load(u64, u8),
    Store(u64, u8, u32),
    Deadline(u64),
    Input(Vec<u8>),
    Acknowledge,
    Line(u8, bool),
    Pass,
}

/// Does a step; gives what the guest could see of it.
fn act(board: &mut Board, step: &Step, now: VirtualTime) -> u64 {
    match step {
        Step::In(port, size) => board
            .pio_read(*port, *size, now)
            .map_or(u64::MAX, u64::from),
        Step::Out(port, size, value) => board.pio_write(*port, *size, *value, now).into(),
        Step::Load(gpa, size) => board.mmio_read(Gpa(*gpa), *size, now).unwrap_or(u64::MAX),
        Step::Store(gpa, size, value) => board
            .mmio_write(Gpa(*gpa), *size, (*value).into(), now)
            .into(),
        Step::Deadline(after) => {
            board.set_tsc_deadline(now.0 + after, now);
            board.tsc_deadline(now)
        }
        Step::Input(bytes) => board.console_input(bytes, now) as u64,
        Step::Acknowledge => board.acknowledge().map_or(0, u64::from),
        Step::Line(pin, asserted) => {
            board.set_line(*pin, *asserted);
            0
        }
        Step::Pass => 0,
    }
}

/// Runs to `now` as the machine does, stopping at every announced deadline.
fn run_to(board: &mut Board, now: VirtualTime) {
    let mut stops = 0;
    while let Some(deadline) = board.next_deadline().filter(|deadline| *deadline <= now) {
        // A guest may ask for a tick every nanosecond; the rest of it passes at once.
        stops += 1;
        board.advance(if stops > 64 { now } else { deadline });
    }
}

fn steps() -> impl Strategy<Value = Vec<(Step, u64)>> {
    let size = prop_oneof![Just(1u8), Just(2), Just(4)];
    let port = prop_oneof![
        COM1..COM1 + 8,
        layout::RTC_INDEX..=layout::RTC_DATA,
        Just(layout::MARK_FIRST),
        Just(layout::PCI_RESET),
        any::<u16>(),
    ];
    let gpa = prop_oneof![
        (0u64..0x40).prop_map(|register| LAPIC + 16 * register),
        Just(IOAPIC),
        Just(IOAPIC + 0x10),
        (0u64..0x1000).prop_map(|offset| LAPIC + offset),
    ];
    let value = prop_oneof![
        any::<u32>(),
        0u32..0x100,
        Just(0xec),
        Just(0x2_00ec),
        Just(0x4_00ec),
        Just(0x1ff)
    ];
    let step = prop_oneof![
        (port.clone(), size.clone()).prop_map(|(port, size)| Step::In(port, size)),
        (port, size.clone(), value.clone())
            .prop_map(|(port, size, value)| Step::Out(port, size, value)),
        (gpa.clone(), size).prop_map(|(gpa, size)| Step::Load(gpa, size)),
        (gpa, value).prop_map(|(gpa, value)| Step::Store(gpa, 4, value)),
        (0u64..10_000).prop_map(Step::Deadline),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(Step::Input),
        Just(Step::Acknowledge),
        (0u8..30, any::<bool>()).prop_map(|(pin, asserted)| Step::Line(pin, asserted)),
        Just(Step::Pass),
    ];
    prop::collection::vec((step, 0u64..2_000_000), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any use of the board, stored and restored between all steps and looked at in between,
    /// gives what the undisturbed run gives.
    #[test]
    fn restoring_and_looking_change_nothing(steps in steps()) {
        let mut plain = running();
        let mut disturbed = running();
        let mut now = 0;
        for (step, after) in &steps {
            let middle = at(now + after / 2);
            now += after;
            run_to(&mut plain, at(now));
            run_to(&mut disturbed, middle);
            disturbed.advance(middle);
            let stored = postcard::to_stdvec(&disturbed).unwrap();
            disturbed = postcard::from_bytes(&stored).unwrap();
            run_to(&mut disturbed, at(now));
            let seen = act(&mut plain, step, at(now));
            prop_assert_eq!(act(&mut disturbed, step, at(now)), seen);
            prop_assert_eq!(disturbed.take_outputs(), plain.take_outputs());
            prop_assert_eq!(disturbed.interrupt_pending(), plain.interrupt_pending());
            prop_assert_eq!(disturbed.next_deadline(), plain.next_deadline());
            prop_assert_eq!(&disturbed, &plain);
        }
    }
}
