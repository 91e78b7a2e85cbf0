//! Tests of the local APIC.

use super::*;

const fn at(ns: u64) -> VirtualTime {
    VirtualTime(ns)
}

/// An enabled APIC and a place for its reports.
fn enabled() -> (Lapic, Vec<BoardEvent>) {
    let mut lapic = Lapic::new(0);
    let mut out = Vec::new();
    lapic.write(REG_SVR, 0x1ff, at(0), &mut out);
    (lapic, out)
}

fn raise(lapic: &mut Lapic, vector: u8) -> bool {
    lapic.accept(vector, false, (IrqSource::Pin, 4), &mut Vec::new())
}

fn eoi(lapic: &mut Lapic) -> Option<u8> {
    lapic.write(REG_EOI, 0, at(0), &mut Vec::new())
}

#[test]
fn power_on_state_is_that_of_the_manual() {
    let mut lapic = Lapic::new(0);
    let mut out = Vec::new();
    let expected = [
        (REG_ID, 0),
        (REG_VERSION, 0x5_0014),
        (REG_DFR, u32::MAX),
        (REG_SVR, 0xff),
        (REG_LVT_TIMER, 0x1_0000),
        (REG_LVT_ERROR, 0x1_0000),
        (REG_INITIAL_COUNT, 0),
    ];
    for (offset, value) in expected {
        assert_eq!(lapic.read(offset, at(0), &mut out), value, "{offset:#x}");
    }
    assert_eq!(lapic.base(), 0xfee0_0900);
    assert!(
        !raise(&mut lapic, 0x40),
        "a software-disabled APIC takes nothing"
    );
}

#[test]
fn vectors_are_delivered_by_priority_and_nest() {
    let (mut lapic, _) = enabled();
    assert!(raise(&mut lapic, 0x31) && raise(&mut lapic, 0x35) && raise(&mut lapic, 0xef));
    assert_eq!(lapic.acknowledge(), Some(0xef));
    assert_eq!(
        lapic.acknowledge(),
        None,
        "lower classes wait for the end of service"
    );
    eoi(&mut lapic);
    assert_eq!(lapic.acknowledge(), Some(0x35));
    assert!(!lapic.interrupt_pending(), "the same class does not nest");
    raise(&mut lapic, 0x40);
    assert_eq!(lapic.acknowledge(), Some(0x40));
    eoi(&mut lapic);
    eoi(&mut lapic);
    assert_eq!(lapic.acknowledge(), Some(0x31));
}

#[test]
fn task_priority_holds_back_and_cr8_is_its_class() {
    let (mut lapic, mut out) = enabled();
    raise(&mut lapic, 0x5f);
    lapic.set_cr8(5);
    assert_eq!(lapic.read(REG_TPR, at(0), &mut out), 0x50);
    assert!(!lapic.interrupt_pending());
    lapic.write(REG_TPR, 0x4f, at(0), &mut out);
    assert_eq!(lapic.cr8(), 4);
    assert!(lapic.interrupt_pending());
    lapic.acknowledge();
    assert_eq!(lapic.read(REG_PPR, at(0), &mut out), 0x50);
}

#[test]
fn merged_interrupts_are_reported_once() {
    let (mut lapic, mut out) = enabled();
    for _ in 0..3 {
        lapic.accept(0x33, false, (IrqSource::Pin, 4), &mut out);
    }
    assert_eq!(out.len(), 1);
    assert_eq!(lapic.acknowledge(), Some(0x33));
    assert_eq!(eoi(&mut lapic), None, "an edge interrupt is not broadcast");
    lapic.accept(0x33, true, (IrqSource::Pin, 4), &mut out);
    lapic.acknowledge();
    assert_eq!(eoi(&mut lapic), Some(0x33));
    assert_eq!(eoi(&mut lapic), None, "nothing is in service");
}

#[test]
fn one_shot_timer_raises_its_vector_once() {
    let (mut lapic, mut out) = enabled();
    lapic.write(REG_DIVIDE, 0xb, at(0), &mut out);
    lapic.write(REG_LVT_TIMER, 0xec, at(0), &mut out);
    lapic.write(REG_INITIAL_COUNT, 1000, at(50), &mut out);
    assert_eq!(
        out.pop(),
        Some(BoardEvent::TimerProgram { deadline: at(1050) })
    );
    assert_eq!(lapic.next_deadline(), Some(at(1050)));
    assert_eq!(lapic.read(REG_CURRENT_COUNT, at(60), &mut out), 990);
    lapic.advance(at(1049), &mut out);
    assert!(!lapic.interrupt_pending());
    lapic.advance(at(1050), &mut out);
    assert_eq!(lapic.acknowledge(), Some(0xec));
    assert_eq!(lapic.next_deadline(), None);
}

#[test]
fn masked_timer_expires_silently_and_announces_nothing() {
    let (mut lapic, mut out) = enabled();
    lapic.write(REG_DIVIDE, 0xb, at(0), &mut out);
    lapic.write(REG_LVT_TIMER, 0x1_00ec, at(0), &mut out);
    lapic.write(REG_INITIAL_COUNT, 1000, at(0), &mut out);
    assert_eq!(lapic.next_deadline(), None);
    let before = lapic.clone();
    lapic.advance(at(5000), &mut out);
    assert_eq!(lapic, before, "an unannounced time changes nothing");
    lapic.write(REG_LVT_TIMER, 0xec, at(6000), &mut out);
    lapic.advance(at(9000), &mut out);
    assert!(!lapic.interrupt_pending(), "it expired while masked");
}

#[test]
fn tsc_deadline_msr_reads_zero_after_it_fired() {
    let (mut lapic, mut out) = enabled();
    lapic.set_tsc_deadline(500, at(0), &mut out);
    assert_eq!(lapic.tsc_deadline(at(0)), 0, "ignored outside of its mode");
    lapic.write(REG_LVT_TIMER, 0x4_00ec, at(0), &mut out);
    lapic.set_tsc_deadline(500, at(10), &mut out);
    assert_eq!(lapic.tsc_deadline(at(499)), 500);
    assert_eq!(lapic.next_deadline(), Some(at(500)));
    lapic.advance(at(500), &mut out);
    assert_eq!(
        (lapic.tsc_deadline(at(500)), lapic.acknowledge()),
        (0, Some(0xec))
    );
    lapic.set_tsc_deadline(900, at(600), &mut out);
    lapic.write(REG_LVT_TIMER, 0xec, at(700), &mut out);
    assert_eq!(lapic.next_deadline(), None, "a mode change disarms");
}

#[test]
fn interprocessor_interrupts_reach_self_only() {
    let (mut lapic, mut out) = enabled();
    lapic.write(REG_LDR, 1 << 24, at(0), &mut out);
    let cases = [
        (0, 0x0000_00f0, true),        // physical, own id
        (1 << 24, 0x0000_00f1, false), // physical, another
        (1 << 24, 0x0000_08f2, true),  // logical, own bit
        (2 << 24, 0x0000_08f3, false), // logical, another bit
        (0xff << 24, 0xf4, true),      // physical broadcast
        (7 << 24, 0x0004_00f5, true),  // self
        (7 << 24, 0x0008_00f6, true),  // all including self
        (0, 0x000c_00f7, false),       // all but self
        (0, 0x000c_4500, false),       // INIT to the others
        (0, 0x000c_4610, false),       // start-up to the others
    ];
    for (high, low, expected) in cases {
        lapic.write(REG_ICR_HIGH, high, at(0), &mut out);
        lapic.write(REG_ICR_LOW, low, at(0), &mut out);
        assert_eq!(
            lapic.acknowledge(),
            expected.then_some(low as u8),
            "{low:#x}"
        );
        assert_eq!(
            lapic.read(REG_ICR_LOW, at(0), &mut out) & (1 << 12),
            0,
            "always delivered"
        );
        eoi(&mut lapic);
    }
    lapic.write(REG_ICR_LOW, 0x0004_0400, at(0), &mut out);
    assert!(lapic.take_nmi() && !lapic.take_nmi());
}

#[test]
fn cluster_destinations_match_cluster_and_member() {
    let (mut lapic, mut out) = enabled();
    lapic.write(REG_DFR, 0, at(0), &mut out);
    lapic.write(REG_LDR, 0x21 << 24, at(0), &mut out);
    let cases = [
        (0x21, true),
        (0x23, true),
        (0x22, false),
        (0x11, false),
        (0xff, true),
    ];
    for (dest, expected) in cases {
        assert_eq!(lapic.is_destination(dest, true), expected, "{dest:#x}");
    }
}

#[test]
fn errors_show_after_a_write_and_interrupt_once() {
    let (mut lapic, mut out) = enabled();
    lapic.write(REG_LVT_ERROR, 0xfe, at(0), &mut out);
    lapic.write(REG_ICR_LOW, 0x0004_0005, at(0), &mut out);
    lapic.write(REG_ICR_LOW, 0x0004_0005, at(0), &mut out);
    assert_eq!(lapic.read(REG_ESR, at(0), &mut out), 0);
    lapic.write(REG_ESR, 0, at(0), &mut out);
    assert_eq!(lapic.read(REG_ESR, at(0), &mut out), 1 << 5);
    lapic.write(REG_ESR, 0, at(0), &mut out);
    assert_eq!(lapic.read(REG_ESR, at(0), &mut out), 0);
    assert_eq!(lapic.acknowledge(), Some(0xfe));
    lapic.write(REG_LVT_ERROR, 3, at(0), &mut out);
    assert_eq!(
        lapic.read(0x3f0, at(0), &mut out),
        0,
        "unknown registers read 0"
    );
}

#[test]
fn software_disable_masks_every_entry() {
    let (mut lapic, mut out) = enabled();
    lapic.write(REG_LVT_TIMER, 0xec, at(0), &mut out);
    lapic.write(REG_SVR, 0xff, at(0), &mut out);
    assert_eq!(lapic.read(REG_LVT_TIMER, at(0), &mut out), 0x1_00ec);
    lapic.write(REG_LVT_TIMER, 0xec, at(0), &mut out);
    assert_eq!(lapic.read(REG_LVT_TIMER, at(0), &mut out), 0x1_00ec);
}

#[test]
fn apic_base_keeps_address_and_mode() {
    let (mut lapic, _) = enabled();
    assert!(!lapic.set_base(0xfee0_0d00), "x2APIC");
    assert!(!lapic.set_base(0xfed0_0900), "another address");
    assert!(
        lapic.set_base(0xfee0_0800),
        "the boot processor bit cannot be cleared"
    );
    assert_eq!(lapic.base(), 0xfee0_0900);
    raise(&mut lapic, 0x50);
    assert!(lapic.set_base(0xfee0_0000));
    assert!(!lapic.interrupt_pending() && !lapic.enabled());
}
