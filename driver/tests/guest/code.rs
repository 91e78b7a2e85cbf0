//! Code that changes under the machine: overwritten, moved by the page tables, or both.

use iced_x86::IcedError;
use iced_x86::code_asm::*;

use colinux_driver::jit::Tier;
use colinux_driver::tick::Tick;

use crate::common::*;

/// Code for these tests: two pages, also mapped at [`ALIAS`].
const TARGET: u64 = FREE;
const ALIAS: u64 = 0x70_0000;

/// `MOV EAX, value; RET`, whose immediate is at offset 1.
fn constant(value: u8) -> [u8; 6] {
    [0xb8, value, 0, 0, 0, 0xc3]
}

/// Adds what the code at `at` returns to R8, shifted in from the right.
fn ask(a: &mut CodeAssembler, at: u64) -> Result<(), IcedError> {
    a.mov(rbx, at)?;
    a.call(rbx)?;
    a.shl(r8, 8)?;
    a.or(r8, rax)
}

#[test]
fn the_next_instruction_of_the_block_can_be_overwritten() {
    let code = |target: u64| {
        move |a: &mut CodeAssembler| {
            a.mov(byte_ptr(target), 7)?;
            a.mov(r8d, 1)
        }
    };
    // The immediate is in the last four bytes; code that ends the run follows.
    let len = assemble(CODE, code(0x1234_5678)).len() as u64;
    let ended = Guest::new(code(CODE + len - 4)).run();
    ended.code();
    assert_eq!(ended.reg(8), 7);
}

#[test]
fn a_loop_that_rewrites_itself_each_time_is_seen_each_time() {
    let mut guest = Guest::new(|a| {
        let mut again = a.create_label();
        a.xor(r9d, r9d)?;
        a.mov(ecx, 200)?;
        a.set_label(&mut again)?;
        a.mov(byte_ptr(TARGET + 1), cl)?;
        a.mov(rbx, TARGET)?;
        a.call(rbx)?;
        a.add(r9, rax)?;
        a.dec(ecx)?;
        a.jne(again)
    });
    guest.put(TARGET, &constant(0));
    let ended = guest.run();
    ended.code();
    assert_eq!(ended.reg(9), 200 * 201 / 2);
}

#[test]
fn both_halves_of_an_instruction_across_pages_can_be_overwritten() {
    // The opcode is the last byte of the first page.
    let start = TARGET + 0xfff;
    let mut guest = Guest::new(|a| {
        ask(a, start)?;
        a.mov(byte_ptr(start + 1), 2)?;
        ask(a, start)?;
        // MOV EAX becomes MOV ECX.
        a.mov(byte_ptr(start), 0xb9)?;
        a.mov(eax, 0)?;
        a.mov(ecx, 0)?;
        ask(a, start)?;
        a.mov(r9, rcx)
    });
    guest.put(start, &constant(1));
    let ended = guest.run();
    ended.code();
    assert_eq!((ended.reg(8), ended.reg(9)), (0x01_0200, 2));
}

#[test]
fn a_write_through_another_mapping_counts() {
    let mut guest = Guest::new(|a| {
        ask(a, TARGET)?;
        a.mov(byte_ptr(ALIAS + 1), 2)?;
        ask(a, TARGET)?;
        // And the other way around.
        ask(a, ALIAS)?;
        a.mov(byte_ptr(TARGET + 1), 3)?;
        ask(a, ALIAS)
    });
    guest.map(ALIAS, TARGET | P | W);
    guest.put(TARGET, &constant(1));
    let ended = guest.run();
    ended.code();
    assert_eq!(ended.reg(8), 0x0102_0203);
}

#[test]
fn a_jump_to_the_next_page_goes_where_that_is_mapped() {
    // The same page twice, with another one behind it.
    const OTHER: u64 = ALIAS + 0x2_0000;
    let mut guest = Guest::new(|a| {
        for _ in 0..3 {
            ask(a, ALIAS)?;
            ask(a, OTHER)?;
        }
        Ok(())
    });
    for (at, behind) in [(ALIAS, 0x1000), (OTHER, 0x2000)] {
        guest.map(at, TARGET | P | W);
        guest.map(at + 0x1000, (TARGET + behind) | P | W);
    }
    // JMP over the rest of the page.
    guest.put(TARGET, &[0xe9, 0xfb, 0x0f, 0, 0]);
    guest.put(TARGET + 0x1000, &constant(1));
    guest.put(TARGET + 0x2000, &constant(2));
    let ended = guest.run();
    ended.code();
    assert_eq!(ended.reg(8), 0x0102_0102_0102);
}

#[test]
fn the_same_code_is_found_at_many_addresses_until_it_changes() {
    const PLACES: u64 = 40;
    const PASSES: u64 = 3;
    // Where another page is mapped after the first pass.
    const MOVED: u64 = ALIAS + 0x7000;
    let entry = Guest::new(|_| Ok(())).entry(MOVED, 0);
    let mut guest = Guest::new(|a| {
        let (mut pass, mut again) = (a.create_label(), a.create_label());
        a.xor(r9d, r9d)?;
        a.mov(r10d, PASSES as u32)?;
        a.set_label(&mut pass)?;
        a.mov(rbx, ALIAS)?;
        a.mov(ecx, PLACES as u32)?;
        a.set_label(&mut again)?;
        a.call(rbx)?;
        a.imul_3(r9, r9, 3)?;
        a.add(r9, rax)?;
        a.add(rbx, 0x1000)?;
        a.dec(ecx)?;
        a.jne(again)?;
        a.inc(byte_ptr(ALIAS + 0x5001))?;
        a.mov(rax, (TARGET + 0x1000) | P | W)?;
        a.mov(qword_ptr(entry), rax)?;
        a.invlpg(byte_ptr(MOVED))?;
        a.dec(r10d)?;
        a.jne(pass)
    });
    for n in 0..PLACES {
        guest.map(ALIAS + n * 0x1000, TARGET | P | W);
    }
    guest.put(TARGET, &constant(1));
    guest.put(TARGET + 0x1000, &constant(100));
    let ended = guest.run();
    ended.code();
    let returned = (0..PASSES).flat_map(|pass| {
        (0..PLACES).map(move |place| match (pass, ALIAS + place * 0x1000) {
            (1.., MOVED) => 100,
            _ => 1 + pass,
        })
    });
    let sum = returned.fold(0u64, |sum, one| sum.wrapping_mul(3).wrapping_add(one));
    assert_eq!(ended.reg(9), sum);
}

#[test]
fn accesses_together_that_keep_crossing_pages_work() {
    let mut guest = Guest::new(|a| {
        let mut again = a.create_label();
        a.mov(ebx, (TARGET + 0xff8) as u32)?;
        a.xor(r9d, r9d)?;
        a.mov(ecx, 300)?;
        a.set_label(&mut again)?;
        a.mov(qword_ptr(rbx), rcx)?;
        a.mov(qword_ptr(rbx + 8), rcx)?;
        a.add(r9, qword_ptr(rbx + 4))?;
        a.add(r9, qword_ptr(rbx))?;
        a.dec(ecx)?;
        a.jne(again)
    });
    guest.put(TARGET + 0x1000, &[0; 16]);
    let ended = guest.run();
    ended.code();
    assert_eq!(ended.reg(9), 300 * 301 / 2 * ((1 << 32) + 1));
}

#[test]
fn repetitions_and_wide_stores_count() {
    let mut guest = Guest::new(|a| {
        ask(a, TARGET)?;
        a.lea(rsi, ptr(TARGET + 0x100))?;
        a.lea(rdi, ptr(TARGET))?;
        a.mov(ecx, 6)?;
        a.rep().movsb()?;
        ask(a, TARGET)?;
        a.movups(xmm0, xmmword_ptr(TARGET + 0x110))?;
        a.movups(xmmword_ptr(TARGET), xmm0)?;
        ask(a, TARGET)?;
        // From the page before, so that the store crosses into the code.
        a.mov(rax, qword_ptr(TARGET + 0x120))?;
        a.mov(qword_ptr(TARGET - 2), rax)?;
        ask(a, TARGET)
    });
    guest.put(TARGET, &constant(1));
    guest.put(TARGET + 0x100, &constant(2));
    guest.put(TARGET + 0x110, &constant(3));
    guest.put(TARGET + 0x122, &constant(4));
    let ended = guest.run();
    ended.code();
    assert_eq!(ended.reg(8), 0x0102_0304);
}

#[test]
fn the_second_page_of_an_instruction_can_be_mapped_elsewhere() {
    let start = ALIAS + 0xfff;
    let entry = Guest::new(|_| Ok(())).entry(ALIAS + 0x1000, 0);
    let mut guest = Guest::new(|a| {
        for (page, flush) in [(0x2000, false), (0x2000, true), (0x1000, true)] {
            ask(a, start)?;
            a.mov(rax, (TARGET + page) | P | W)?;
            a.mov(qword_ptr(entry), rax)?;
            if flush {
                a.invlpg(byte_ptr(ALIAS + 0x1000))?;
            }
        }
        ask(a, start)
    });
    guest.map(ALIAS, TARGET | P | W);
    guest.map(ALIAS + 0x1000, (TARGET + 0x1000) | P | W);
    guest.put(TARGET + 0xfff, &constant(1));
    guest.put(TARGET + 0x2000, &constant(2)[1..]);
    let ended = guest.run();
    ended.code();
    // Not seen before the first INVLPG, seen after it, and back again.
    assert_eq!(ended.reg(8), 0x0101_0201);
}

#[test]
fn a_missing_second_page_faults_at_its_own_address() {
    let start = ALIAS + 0xffe;
    let mut guest = Guest::new(|a| {
        let mut end = a.create_label();
        a.lea(r15, ptr(end))?;
        ask(a, start)?;
        a.set_label(&mut end)?;
        a.nop()
    });
    guest.map(ALIAS, TARGET | P | W);
    guest.put(TARGET + 0xffe, &constant(1));
    let ended = guest.run();
    ended.code();
    let events = ended.events();
    assert_eq!(events.len(), 1);
    let e = events[0];
    assert_eq!(
        (e.vector, e.error, e.rip, e.cr2),
        (14, 0x10, start, ALIAS + 0x1000)
    );
}

/// The bits a page walk sets can be in code, even in the code that is about to run: here a table
/// entry is executed, whose first byte is ADD until its accessed bit is set, and then AND.
#[test]
fn an_accessed_bit_that_falls_into_code_is_seen() {
    let va = 0x4000_0000u64;
    let table = TARGET + 0x1000;
    let number = FREE + 0x800;
    for through_itself in [false, true] {
        let mut guest = Guest::new(|a| {
            // AL is zero: the rest of the entry, OR and ADD of AL to memory, does nothing.
            a.mov(eax, number as u32)?;
            a.mov(edx, 5)?;
            a.mov(rcx, table)?;
            a.call(rcx)?;
            a.mov(r8, rdx)?;
            a.mov(edx, 5)?;
            if through_itself {
                // The walk for the fetch changes what is fetched.
                a.mov(rcx, va)?;
            } else {
                a.mov(rbx, va)?;
                a.mov(bl, byte_ptr(rbx))?;
            }
            a.call(rcx)?;
            a.mov(r9, rdx)
        });
        let above = guest.entry(va, 1);
        guest.put64(above, table | P | W);
        // 03 10 08 00 00 00 00 00: ADD EDX, [RAX]; OR [RAX], AL; ADD [RAX], AL twice; then RET.
        guest.put64(table, table | P | W);
        guest.put(table + 8, &[0xc3]);
        guest.put64(number, 3);
        let ended = guest.run();
        ended.code();
        assert_eq!(
            (ended.reg(8), ended.reg(9)),
            (5 + 3, 5 & 3),
            "{through_itself}"
        );
    }
}

#[test]
fn data_beside_code_works() {
    // Every byte of two pages becomes the start of a block.
    let mut guest = Guest::new(|a| {
        let mut again = a.create_label();
        a.mov(rbx, TARGET)?;
        a.mov(ecx, 0x1f00)?;
        a.set_label(&mut again)?;
        a.call(rbx)?;
        a.inc(rbx)?;
        a.inc(dword_ptr(TARGET + 0x1f80))?;
        a.dec(ecx)?;
        a.jne(again)
    });
    guest.put(TARGET, &[0x90; 0x1f00]);
    guest.put(TARGET + 0x1f00, &[0xc3]);
    let ended = guest.run();
    ended.code();
    assert_eq!(ended.get64(TARGET + 0x1f80), 0x1f00);
}

/// A guest decides how much of its memory is code; the host does not keep all of it decoded.
#[test]
fn what_is_kept_decoded_is_bounded() {
    let start = 0x20_0000u64;
    let groups = 0x13_0000 / 64;
    let mut guest = Guest::new(|a| {
        let (mut pass, mut again) = (a.create_label(), a.create_label());
        a.mov(r8d, 2)?;
        a.set_label(&mut pass)?;
        a.mov(rbx, start)?;
        a.mov(ecx, 4 * groups as u32)?;
        a.set_label(&mut again)?;
        a.call(rbx)?;
        a.add(rbx, 16)?;
        a.dec(ecx)?;
        a.jne(again)?;
        a.dec(r8d)?;
        a.jne(pass)
    });
    guest.map_large(start, start | P | W);
    // 63 times NOP, RET: four entries each.
    let mut group = [0x90; 64];
    group[63] = 0xc3;
    guest.put(start, &group.repeat(groups));
    let ended = guest.run();
    ended.code();
    // The second pass found the first of them thrown away.
    let once = 4 * groups as u64;
    assert!(
        ended.machine.blocks_decoded() > once * 5 / 4,
        "{}",
        ended.machine.blocks_decoded()
    );
}

/// Each time around, the code is another one; the memory for translations fills up.
#[test]
fn translations_that_fill_their_memory_are_made_anew() {
    let guest = Guest::new(|a| {
        let mut again = a.create_label();
        let mut patched = a.create_label();
        a.set_label(&mut again)?;
        a.lea(rsi, ptr(patched))?;
        a.mov(byte_ptr(rsi + 1), bl)?;
        a.inc(ebx)?;
        a.set_label(&mut patched)?;
        a.mov(dl, 0)?;
        // A long block, so that each translation takes much.
        for i in 0..48 {
            a.movzx(ecx, dl)?;
            a.add(qword_ptr(FREE + 8 * (i % 7)), rcx)?;
            a.add(rax, qword_ptr(FREE + 8 * (i % 5)))?;
        }
        a.jmp(again)
    });
    const TICKS: u64 = 3_000_000;
    let (mut one, mut zero) = (guest.machine(), guest.machine());
    if one.set_tier(Tier::One) != Tier::One {
        return;
    }
    one.translate_after(1);
    for machine in [&mut one, &mut zero] {
        while machine.tick() < Tick(TICKS) {
            machine.run(Tick(TICKS));
        }
    }
    assert!(one.tier_stats().flushes > 0, "{:?}", one.tier_stats());
    assert!(one.state() == zero.state());
    assert_eq!(one.digest(), zero.digest());
}
