//! What a guest can notice of the TLB, and only that.

use iced_x86::IcedError;
use iced_x86::code_asm::*;

use crate::common::*;

/// A page that is mapped anew in these tests, and two frames it may point to.
const PAGE: u64 = 0x60_0000;
const ONE: u64 = FREE;
const OTHER: u64 = FREE + 0x1000;

/// Reads [`PAGE`] into a register.
fn look(a: &mut CodeAssembler, to: AsmRegister64) -> Result<(), IcedError> {
    a.mov(to, qword_ptr(PAGE))
}

/// Points the entry at `at` to something else.
fn store(a: &mut CodeAssembler, at: u64, value: u64) -> Result<(), IcedError> {
    a.mov(rax, value)?;
    a.mov(qword_ptr(at), rax)
}

fn guest(first: u64, code: impl FnOnce(&mut CodeAssembler, u64) -> Result<(), IcedError>) -> Guest {
    let entry = Guest::new(|_| Ok(())).entry(PAGE, 0);
    let mut guest = Guest::new(|a| code(a, entry));
    guest.map(PAGE, first);
    guest.put64(ONE, 1);
    guest.put64(OTHER, 2);
    guest
}

#[test]
fn a_changed_entry_is_seen_after_invlpg_and_not_before() {
    let ended = guest(ONE | P | W, |a, entry| {
        look(a, r8)?;
        store(a, entry, OTHER | P | W)?;
        look(a, r9)?;
        a.invlpg(byte_ptr(PAGE + 123))?;
        look(a, r10)
    })
    .run();
    ended.code();
    assert_eq!([8, 9, 10].map(|r| ended.reg(r)), [1, 1, 2]);
}

#[test]
fn cr3_writes_spare_global_pages_and_cr4_pge_does_not() {
    for (global, after_cr3) in [(0, 2), (G, 1)] {
        let ended = guest(ONE | P | W | global, |a, entry| {
            look(a, r8)?;
            store(a, entry, OTHER | P | W)?;
            a.mov(rax, cr3)?;
            a.mov(cr3, rax)?;
            look(a, r9)?;
            store(a, entry, OTHER | P | W)?;
            a.mov(rax, cr4)?;
            a.xor(rax, 1 << 7)?;
            a.mov(cr4, rax)?;
            look(a, r10)
        })
        .run();
        ended.code();
        assert_eq!([8, 9, 10].map(|r| ended.reg(r)), [1, after_cr3, 2]);
    }
}

#[test]
fn without_cr4_pge_the_global_bit_means_nothing() {
    let mut guest = guest(ONE | P | W | G, |a, entry| {
        look(a, r8)?;
        store(a, entry, OTHER | P | W)?;
        a.mov(rax, cr3)?;
        a.mov(cr3, rax)?;
        look(a, r9)
    });
    guest.cpu.cr4 &= !(1 << 7);
    let ended = guest.run();
    ended.code();
    assert_eq!([8, 9].map(|r| ended.reg(r)), [1, 2]);
}

#[test]
fn invlpg_forgets_all_of_a_large_page() {
    let entry = Guest::new(|_| Ok(())).entry(PAGE, 1);
    let mut guest = Guest::new(|a| {
        a.mov(r8, qword_ptr(PAGE + ONE))?;
        a.mov(r9, qword_ptr(PAGE + OTHER))?;
        // The same page now begins 2 MiB higher, where there is 7.
        store(a, entry, 0x20_0000 | P | W | PS)?;
        a.mov(r10, qword_ptr(PAGE + ONE))?;
        a.invlpg(byte_ptr(PAGE + 0x1f_f000))?;
        a.mov(r11, qword_ptr(PAGE + ONE))
    });
    guest.map_large(PAGE, P | W);
    guest.put64(ONE, 1);
    guest.put64(OTHER, 2);
    guest.put64(0x20_0000 + ONE, 7);
    let ended = guest.run();
    ended.code();
    assert_eq!([8, 9, 10, 11].map(|r| ended.reg(r)), [1, 2, 1, 7]);
}

#[test]
fn relaxed_rights_need_no_flush_and_tightened_ones_do() {
    let ended = guest(ONE | P, |a, entry| {
        let mut refused = a.create_label();
        look(a, r8)?;
        a.lea(r15, ptr(refused))?;
        a.mov(qword_ptr(PAGE), 5)?;
        a.set_label(&mut refused)?;
        store(a, entry, ONE | P | W)?;
        // Allowed now, without INVLPG and without a fault.
        a.xor(r15d, r15d)?;
        a.mov(qword_ptr(PAGE), 6)?;
        store(a, entry, ONE | P)?;
        a.mov(qword_ptr(PAGE), 7)?;
        a.invlpg(byte_ptr(PAGE))?;
        let mut end = a.create_label();
        a.lea(r15, ptr(end))?;
        a.mov(qword_ptr(PAGE), 8)?;
        a.set_label(&mut end)?;
        a.nop()
    })
    .run();
    ended.code();
    assert_eq!(ended.get64(ONE), 7);
    let faults: Vec<_> = ended
        .events()
        .iter()
        .map(|e| (e.vector, e.error, e.cr2))
        .collect();
    assert_eq!(faults, [(14, 3, PAGE), (14, 3, PAGE)]);
}

/// A page is walked again for a right it lacked, and the walk finds another frame: the page points
/// there for everybody, not only for the side that walked.
#[test]
fn a_second_walk_replaces_the_translation_for_both_privileges() {
    let entry = Guest::new(|_| Ok(())).entry(PAGE, 0);
    let mut guest = Guest::new(|a| {
        let mut kernel = a.create_label();
        look(a, r8)?;
        enter_user(a, USER, 2)?;
        // Vector 0x70 comes here.
        a.set_label(&mut kernel)?;
        a.nop()
    });
    guest.code(USER, |a| {
        look(a, r9)?;
        a.int(0x70)?;
        look(a, r11)?;
        user_exit(a)
    });
    let handler = CODE + 0x1000;
    guest.code(handler, |a| {
        store(a, entry, OTHER | P | W | U)?;
        // Still the old frame: reads are covered by the first walk.
        look(a, r10)?;
        // Writes are not.
        a.mov(dword_ptr(PAGE + 8), 9)?;
        look(a, r12)?;
        a.iretq()
    });
    guest.gate(0x70, handler, 0xe, 3, 0);
    guest.map(PAGE, ONE | P | U);
    guest.put64(ONE, 1);
    guest.put64(OTHER, 2);
    let ended = guest.run();
    ended.code();
    assert_eq!([8, 9, 10, 12, 11].map(|r| ended.reg(r)), [1, 1, 1, 2, 2]);
    assert_eq!(ended.get64(OTHER + 8), 9);
}

#[test]
fn cr0_wp_changes_what_rights_mean_at_once() {
    let ended = guest(ONE | P, |a, _| {
        let mut next = a.create_label();
        a.lea(r15, ptr(next))?;
        a.mov(qword_ptr(PAGE), 5)?;
        a.set_label(&mut next)?;
        a.mov(rax, cr0)?;
        a.btr(rax, 16)?;
        a.mov(cr0, rax)?;
        a.mov(qword_ptr(PAGE), 6)?;
        a.bts(rax, 16)?;
        a.mov(cr0, rax)?;
        let mut end = a.create_label();
        a.lea(r15, ptr(end))?;
        a.mov(qword_ptr(PAGE), 7)?;
        a.set_label(&mut end)?;
        a.nop()
    })
    .run();
    ended.code();
    assert_eq!(ended.get64(ONE), 6);
    assert_eq!(
        ended.events().iter().map(|e| e.error).collect::<Vec<_>>(),
        [3, 3]
    );
}

#[test]
fn accessed_and_dirty_bits_are_set_once_per_walk() {
    let mut plain = Guest::new(|_| Ok(()));
    let at = [3, 2, 1, 0].map(|level| plain.entry(PAGE, level));
    let clear = |a: &mut CodeAssembler| {
        for entry in at {
            a.and(qword_ptr(entry), !0x60i32)?;
        }
        Ok::<_, IcedError>(())
    };
    // Reads the bits of the page's own entry.
    let bits = |a: &mut CodeAssembler, to: AsmRegister64| {
        a.mov(to, qword_ptr(at[3]))?;
        a.and(to, 0x60)
    };
    let ended = guest(ONE | P | W, |a, _| {
        look(a, rax)?;
        bits(a, r8)?;
        a.mov(dword_ptr(PAGE), 3)?;
        bits(a, r9)?;
        // In the TLB now: nothing sets them again.
        clear(a)?;
        look(a, rax)?;
        a.mov(dword_ptr(PAGE), 4)?;
        bits(a, r10)?;
        a.invlpg(byte_ptr(PAGE))?;
        a.mov(dword_ptr(PAGE), 5)?;
        bits(a, r11)
    })
    .run();
    ended.code();
    assert_eq!([8, 9, 10, 11].map(|r| ended.reg(r)), [A, A | D, 0, A | D]);
    // Tables have no dirty bit.
    for entry in &at[..3] {
        assert_eq!(ended.get64(*entry) & (A | D), A, "{entry:#x}");
    }
}

#[test]
fn a_refused_access_sets_no_bits() {
    let mut plain = Guest::new(|_| Ok(()));
    let entry = plain.entry(PAGE, 0);
    let ended = guest(ONE | P, |a, _| {
        let mut end = a.create_label();
        a.lea(r15, ptr(end))?;
        a.mov(dword_ptr(PAGE), 3)?;
        a.set_label(&mut end)?;
        a.nop()
    })
    .run();
    ended.code();
    assert_eq!(ended.events().len(), 1);
    assert_eq!(ended.get64(entry) & (A | D), 0);
}

/// One page after another without a flush: the host's memory for translations stays bounded, and
/// a machine restored in the middle goes the same way.
#[test]
fn what_is_remembered_is_bounded() {
    use colinux_driver::mem::tlb::TRANSLATIONS_MAX;
    let start = 0x40_0000_0000u64;
    let mut guest = Guest::new(|a| {
        let mut again = a.create_label();
        a.mov(rbx, start)?;
        a.mov(ecx, TRANSLATIONS_MAX as u32 + 1000)?;
        a.set_label(&mut again)?;
        a.mov(al, byte_ptr(rbx))?;
        a.add(rbx, 0x1000)?;
        a.dec(ecx)?;
        a.jne(again)
    });
    for gib in 0..2 {
        let at = guest.entry(start + (gib << 30), 2);
        guest.put64(at, P | W | PS);
    }
    let mut machine = guest.machine();
    let mut rows = Vec::new();
    run_to(&mut machine, 3 * TRANSLATIONS_MAX as u64, &mut rows);
    assert!(machine.state().tlb.translations.len() > TRANSLATIONS_MAX / 2);
    let mut other = copy(&machine, &guest.config());
    for machine in [&mut machine, &mut other] {
        run_to(machine, u64::MAX, &mut rows);
    }
    let state = machine.state();
    assert!(
        state.tlb.translations.len() < 2000,
        "{}",
        state.tlb.translations.len()
    );
    assert!(state == other.state());
    assert_eq!(machine.digest(), other.digest());
}
