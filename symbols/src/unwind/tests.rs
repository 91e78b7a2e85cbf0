use proptest::prelude::*;

use super::*;
use crate::addr::{LinkAddr, Slide};
use crate::memory::SparseMemory;
use crate::orc::tests::{raw, table};
use crate::orc::{OrcLayout, OrcSet};

const TEXT: u64 = 0xffff_ffff_8100_0000;
const STACK: u64 = 0xffff_c900_0000_0000;
const USER: u64 = 0x40_0000;

/// Functions of 0x100 bytes: how each is unwound.
fn orc() -> OrcSet {
    let list = [
        // 0: leaf, return address on top.
        (TEXT, raw(8, 0, 5, 0, 2)),
        // 1: keeps a frame pointer.
        (TEXT + 0x100, raw(16, -16, 4, 1, 2)),
        // 2: an interrupt entry, all registers at SP.
        (TEXT + 0x200, raw(0, 0, 5, 0, 3)),
        // 3: the bottom.
        (TEXT + 0x300, raw(0, 0, 0, 0, 1)),
        // 4: nothing known.
        (TEXT + 0x400, raw(0, 0, 0, 0, 0)),
        // 5: switched stacks; the old one is what R10 says.
        (TEXT + 0x500, raw(0, 0, 6, 0, 2)),
        // 6: the frame of an exception that pushed only what the CPU does.
        (TEXT + 0x600, raw(0, 0, 5, 0, 4)),
    ];
    // The table's addresses are relative: it has to lie within 2 GiB.
    let low: Vec<_> = list.iter().map(|(a, r)| (a - TEXT + 0x1000, *r)).collect();
    let mut set = OrcSet::default();
    let slide = Slide(TEXT - 0x1000);
    set.add_kernel(
        table(&low, OrcLayout::NEW),
        LinkAddr(0x1000),
        LinkAddr(0x1800),
        slide,
    );
    set
}

/// Text in which a call ends at every multiple of 16.
fn memory() -> SparseMemory {
    let mut m = SparseMemory::default();
    for base in [TEXT, USER] {
        for at in (0..0x800).step_by(16) {
            m.put(base + at, &[0x90; 16]);
            m.put(base + at + 11, &[0xe8, 0, 0, 0, 0]);
        }
    }
    m.put(STACK, &[0; 0x800]);
    m
}

fn regs(ip: u64, sp: u64, bp: u64) -> Registers {
    Registers {
        ip,
        sp,
        bp,
        others: Some(OtherRegisters::default()),
        is_user: false,
    }
}

fn words(stack: &Stack) -> Vec<(u64, &'static str)> {
    stack
        .frames
        .iter()
        .map(|f| (f.ip.0, f.method.word()))
        .collect()
}

#[test]
fn calls_frame_pointers_and_interrupts_lead_to_the_user() {
    let mut m = memory();
    // A leaf called from a function with a frame pointer, called from the interrupt entry.
    m.put_u64(STACK, TEXT + 0x110);
    let bp = STACK + 0x40;
    m.put_u64(bp, 0x1111);
    m.put_u64(bp + 8, TEXT + 0x210);
    let saved = bp + 16;
    m.put_u64(saved + 32, 0x7fff_0100);
    m.put_u64(saved + 128, USER + 0x44);
    m.put_u64(saved + 136, 0x33);
    m.put_u64(saved + 152, 0x7fff_0000);
    // The program's frames.
    m.put(0x7fff_0000, &[0; 0x400]);
    m.put_u64(0x7fff_0100, 0x7fff_0200);
    m.put_u64(0x7fff_0108, USER + 0x80);
    m.put_u64(0x7fff_0200, 0);
    m.put_u64(0x7fff_0208, USER + 0x90);
    let stack = unwind(&m, &orc(), &regs(TEXT + 4, STACK, bp), 64);
    let expected = [
        (TEXT + 4, "start"),
        (TEXT + 0x110, "orc"),
        (TEXT + 0x210, "orc"),
        (USER + 0x44, "regs"),
        (USER + 0x80, "fp"),
        (USER + 0x90, "fp"),
    ];
    assert_eq!(words(&stack), expected);
    assert_eq!(stack.end, End::User);
    let user: Vec<bool> = stack.frames.iter().map(|f| f.is_user).collect();
    assert_eq!(user, [false, false, false, true, true, true]);
    assert_eq!(
        stack.frames[1].lookup_ip(),
        Gva(TEXT + 0x10f),
        "a return address"
    );
    assert_eq!(
        stack.frames[3].lookup_ip(),
        Gva(USER + 0x44),
        "not a return address"
    );
}

#[test]
fn an_exception_in_the_kernel_goes_on_in_the_kernel() {
    let mut m = memory();
    m.put_u64(STACK, TEXT + 0x18);
    m.put_u64(STACK + 8, 0x10);
    m.put_u64(STACK + 24, STACK + 0x100);
    m.put_u64(STACK + 0x100, TEXT + 0x310);
    let stack = unwind(&m, &orc(), &regs(TEXT + 0x600, STACK, 0), 64);
    assert_eq!(
        words(&stack),
        [
            (TEXT + 0x600, "start"),
            (TEXT + 0x18, "regs"),
            (TEXT + 0x310, "orc")
        ]
    );
    assert_eq!(stack.end, End::Bottom);
}

#[test]
fn a_switched_stack_is_followed() {
    let mut m = memory();
    m.put_u64(STACK + 0x3f8, TEXT + 0x310);
    let mut start = regs(TEXT + 0x500, STACK, 0);
    start.others = Some(OtherRegisters {
        r10: STACK + 0x400,
        ..OtherRegisters::default()
    });
    let stack = unwind(&m, &orc(), &start, 64);
    assert_eq!(
        words(&stack),
        [(TEXT + 0x500, "start"), (TEXT + 0x310, "orc")]
    );
}

#[test]
fn without_orc_the_frame_pointer_and_then_a_scan_serve() {
    let mut m = memory();
    let bp = STACK + 0x20;
    m.put_u64(bp, 0);
    m.put_u64(bp + 8, TEXT + 0x410);
    m.put_u64(STACK + 0x60, TEXT + 0x123);
    m.put_u64(STACK + 0x80, TEXT + 0x310);
    let stack = unwind(&m, &orc(), &regs(TEXT + 0x404, STACK, bp), 64);
    let expected = [
        (TEXT + 0x404, "start"),
        (TEXT + 0x410, "fp"),
        (TEXT + 0x310, "scan"),
    ];
    assert_eq!(words(&stack), expected, "0x123 is not behind a call");
    assert_eq!(stack.end, End::Bottom);
}

#[test]
fn circles_and_limits_end_a_trace() {
    let mut m = memory();
    let bp = STACK + 0x20;
    m.put_u64(bp, bp);
    m.put_u64(bp + 8, TEXT + 0x110);
    let stack = unwind(&m, &orc(), &regs(TEXT + 0x110, STACK, bp), 64);
    assert_eq!(stack.end, End::Lost);
    assert!(stack.frames.len() <= 3);
    assert_eq!(
        unwind(&m, &orc(), &regs(TEXT + 0x110, STACK, bp), 1).end,
        End::Limit
    );
}

#[test]
fn a_sleeping_task_starts_where_it_was_switched_away() {
    let mut b = crate::btf::synthetic::Builder::new();
    let long = b.int("unsigned long", 8, 0);
    let fields = [
        ("r15", long, 0, 0),
        ("bp", long, 320, 0),
        ("ret_addr", long, 384, 0),
    ];
    b.composite(4, "inactive_task_frame", 56, &fields);
    let btf = Btf::parse(&b.finish()).expect("btf");
    let mut m = memory();
    m.put_u64(STACK + 40, STACK + 0x100);
    m.put_u64(STACK + 48, TEXT + 0x10);
    m.put_u64(STACK + 56, TEXT + 0x310);
    let start = Registers::of_sleeping(&m, &btf, Gva(STACK)).expect("registers");
    assert_eq!(
        (start.ip, start.sp, start.bp),
        (TEXT + 0x10, STACK + 56, STACK + 0x100)
    );
    assert_eq!(words(&unwind(&m, &orc(), &start, 64)).len(), 2);
}

proptest! {
    #[test]
    fn any_stack_comes_to_an_end(
        words in proptest::collection::vec((0..0x100u64, prop_oneof![
            any::<u64>(), TEXT..TEXT + 0x800, STACK..STACK + 0x800, Just(0x10u64), Just(0x33u64),
        ]), 0..64),
        ip in TEXT..TEXT + 0x700,
        bp in prop_oneof![STACK..STACK + 0x800, any::<u64>()],
        sp in prop_oneof![STACK..STACK + 0x800, any::<u64>()],
    ) {
        let mut m = memory();
        for (at, word) in words {
            m.put_u64(STACK + at * 8, word);
        }
        let stack = unwind(&m, &orc(), &regs(ip, sp, bp), MAX_FRAMES);
        prop_assert!(stack.frames.len() <= MAX_FRAMES);
    }
}
