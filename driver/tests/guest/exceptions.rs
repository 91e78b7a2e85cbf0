//! Exceptions: which, with what error code, at which address, on which stack; and single steps.

use colinux_driver::machine::Stop;
use colinux_driver::passage::Shutdown;
use colinux_driver::tick::Tick;
use iced_x86::IcedError;
use iced_x86::code_asm::*;

use crate::common::*;

const PAGE: u64 = 0x60_0000;
const FAR: u64 = 0x8000_0000_0000;

/// Code of one access, then more until the handler comes back.
fn refused(
    a: &mut CodeAssembler,
    access: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Result<(), IcedError> {
    let mut end = a.create_label();
    a.lea(r15, ptr(end))?;
    access(a)?;
    a.set_label(&mut end)?;
    a.nop()
}

/// The address of the `n`th of equal instructions is not known before assembly: what counts is
/// vector and error code.
fn vectors(ended: &Ended) -> Vec<(u64, u64)> {
    ended.events().iter().map(|e| (e.vector, e.error)).collect()
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Read,
    Write,
    Fetch,
}

/// The error code by the manual (SDM vol. 3, 4.7), from the entry alone.
fn expected(entry: u64, kind: Kind, user: bool) -> Option<u64> {
    let mut error = u64::from(user) << 2;
    error |= match kind {
        Kind::Read => 0,
        Kind::Write => 2,
        Kind::Fetch => 0x10,
    };
    if entry & P == 0 {
        return Some(error);
    }
    if entry >> 40 & 0xfff != 0 {
        return Some(error | 9);
    }
    let denied = user && entry & U == 0
        || kind == Kind::Write && entry & W == 0
        || kind == Kind::Fetch && entry & NX != 0;
    denied.then_some(error | 1)
}

#[test]
fn page_fault_error_codes_follow_the_manual() {
    let mut entries = Vec::new();
    for present in [0, P] {
        for flags in [
            0,
            W,
            U,
            W | U,
            NX,
            NX | W,
            NX | U,
            NX | W | U,
            1 << 45,
            1 << 51 | W | U,
        ] {
            entries.push(present | flags);
        }
    }
    for user in [false, true] {
        let accesses = |a: &mut CodeAssembler| {
            for i in 0..entries.len() as u64 {
                let page = PAGE + 0x1000 * i;
                refused(a, |a| a.mov(al, byte_ptr(page)))?;
                refused(a, |a| a.mov(byte_ptr(page + 1), 5))?;
                refused(a, |a| {
                    a.mov(rbx, page + 8)?;
                    a.jmp(rbx)
                })?;
            }
            Ok(())
        };
        let mut guest = Guest::new(|a| {
            if user {
                enter_user(a, USER, 2)
            } else {
                accesses(a)
            }
        });
        guest.code(USER, |a| {
            accesses(a)?;
            user_exit(a)
        });
        for (i, entry) in entries.iter().enumerate() {
            guest.map(PAGE + 0x1000 * i as u64, FREE | entry & !(A | D));
        }
        // JMP R15
        guest.put(FREE + 8, &[0x41, 0xff, 0xe7]);
        let ended = guest.run();
        ended.code();
        let mut events = ended.events().into_iter();
        for (i, entry) in entries.iter().enumerate() {
            for (kind, offset) in [(Kind::Read, 0), (Kind::Write, 1), (Kind::Fetch, 8)] {
                let Some(error) = expected(*entry, kind, user) else {
                    continue;
                };
                let e = events.next().unwrap();
                let address = PAGE + 0x1000 * i as u64 + offset;
                let what = format!("{entry:#x} {kind:?} user {user}");
                assert_eq!((e.vector, e.error, e.cr2), (14, error, address), "{what}");
                if kind == Kind::Fetch {
                    assert_eq!(e.rip, address, "{what}");
                }
            }
        }
        assert_eq!(events.next(), None);
    }
}

#[test]
fn rights_are_those_of_all_levels() {
    let entry = Guest::new(|_| Ok(())).entry(PAGE, 1);
    let mut guest = Guest::new(|a| {
        refused(a, |a| a.mov(byte_ptr(PAGE), 1))?;
        a.mov(al, byte_ptr(PAGE))?;
        refused(a, |a| {
            a.mov(rbx, PAGE)?;
            a.jmp(rbx)
        })
    });
    guest.map(PAGE, FREE | P | W | U);
    let table = guest.memory_at(entry) & 0xf_ffff_ffff_f000;
    guest.put64(entry, table | P | U | NX);
    let ended = guest.run();
    ended.code();
    assert_eq!(vectors(&ended), [(14, 3), (14, 0x11)]);
}

#[test]
fn without_efer_nxe_the_no_execute_bit_is_reserved() {
    let mut guest = Guest::new(|a| {
        wrmsr(a, 0xc000_0080, 0x501)?;
        refused(a, |a| a.mov(al, byte_ptr(PAGE)))
    });
    guest.map(PAGE, FREE | P | W | NX);
    // The APIC's page is not touched by exceptions.
    let ended = guest.run();
    ended.code();
    assert_eq!(vectors(&ended), [(14, 9)]);
}

#[test]
fn addresses_that_are_not_canonical_are_refused() {
    let ended = Guest::new(|a| {
        a.mov(rbx, FAR)?;
        refused(a, |a| a.mov(al, byte_ptr(rbx)))?;
        refused(a, |a| a.mov(byte_ptr(rbx), al))?;
        refused(a, |a| a.jmp(rbx))?;
        refused(a, |a| a.call(rbx))?;
        refused(a, |a| a.lgdt(ptr(rbx)))?;
        // Canonical comes before mapped, for the last byte as well.
        a.lea(rbx, ptr(rbx - 4))?;
        refused(a, |a| a.mov(rax, qword_ptr(rbx)))?;
        a.mov(rax, FAR)?;
        a.push(rax)?;
        refused(a, |a| a.ret())?;
        a.pop(rax)?;
        for msr in [0xc000_0082u32, 0xc000_0100, 0x175] {
            refused(a, |a| wrmsr(a, msr, FAR))?;
        }
        Ok(())
    })
    .run();
    ended.code();
    assert_eq!(vectors(&ended), [(13, 0); 10]);
    assert_eq!(ended.reg(4), STACK);
}

#[test]
fn each_instruction_raises_its_own() {
    let ended = Guest::new(|a| {
        refused(a, |a| {
            a.xor(ecx, ecx)?;
            a.div(ecx)
        })?;
        refused(a, |a| {
            a.mov(edx, 1)?;
            a.xor(eax, eax)?;
            a.mov(ecx, 1)?;
            a.div(ecx)
        })?;
        refused(a, |a| a.ud2())?;
        a.int3()?;
        a.db(&[0xf1])?;
        // CR0.TS
        a.mov(rax, cr0)?;
        a.or(rax, 8)?;
        a.mov(cr0, rax)?;
        refused(a, |a| a.fnop())?;
        refused(a, |a| a.movaps(xmm0, xmm1))?;
        a.clts()?;
        a.fnop()?;
        refused(a, |a| a.movaps(xmm0, xmmword_ptr(FREE + 1)))?;
        refused(a, |a| wrmsr(a, 0x1234, 0))?;
        refused(a, |a| {
            a.mov(eax, 0x50)?;
            a.mov(ds, ax)
        })?;
        refused(a, |a| {
            a.mov(eax, 1)?;
            a.mov(cr8, rax)?;
            a.mov(eax, 0x10)?;
            a.mov(cr8, rax)
        })?;
        // LOCK with a register.
        refused(a, |a| a.db(&[0xf0, 0x01, 0xc0]))
    })
    .run();
    ended.code();
    let expected = [
        (0, 0),
        (0, 0),
        (6, 0),
        (3, 0),
        (1, 0),
        (7, 0),
        (7, 0),
        (13, 0),
        (13, 0),
        (13, 0x50),
        (13, 0),
        (6, 0),
    ];
    assert_eq!(vectors(&ended), expected);
}

#[test]
fn faults_point_at_the_instruction_and_traps_behind_it() {
    let at = CODE + 0x2000;
    let mut guest = Guest::new(|a| {
        a.lea(r15, ptr(at + 6))?;
        a.jmp(at)
    });
    // UD2 is skipped to INT3, INT 0x70, INT1, which are one, two and one byte.
    guest.put(
        at,
        &[0x0f, 0x0b, 0xf4, 0xf4, 0xf4, 0xf4, 0xcc, 0xcd, 0x70, 0xf1],
    );
    guest.code(at + 10, exit);
    let ended = guest.run();
    ended.code();
    assert_eq!(
        ended.brief(),
        [
            (6, 0, at),
            (3, 0, at + 7),
            (0x70, 0, at + 9),
            (1, 0, at + 10)
        ]
    );
    let resume: Vec<bool> = ended
        .events()
        .iter()
        .map(|e| e.flags >> 16 & 1 != 0)
        .collect();
    // A fault's image has the resume flag, so that a breakpoint there would not strike again.
    assert_eq!(resume, [true, false, false, false]);
}

#[test]
fn the_resume_flag_lasts_one_instruction() {
    let mut guest = Guest::new(|a| {
        let mut next = a.create_label();
        a.mov(rax, rsp)?;
        a.push(i32::from(selector::KERNEL_DATA))?;
        a.push(rax)?;
        a.push(1 << 16 | 2)?;
        a.push(i32::from(selector::KERNEL_CODE))?;
        a.lea(rbx, ptr(next))?;
        a.push(rbx)?;
        a.iretq()?;
        a.set_label(&mut next)?;
        a.nop()?;
        a.int(0x70)
    });
    guest.gate(0x70, Guest::handler(0x70), 0xf, 0, 0);
    let ended = guest.run();
    ended.code();
    assert_eq!(ended.events()[0].flags >> 16 & 1, 0);
}

#[test]
fn gates_refuse_and_the_fault_is_of_the_int_instruction() {
    let mut guest = Guest::new(|a| enter_user(a, USER, 2));
    guest.code(USER, |a| {
        refused(a, |a| a.int(0x20))?;
        refused(a, |a| a.int(0x21))?;
        // INT1 does not ask the gate's privilege.
        a.db(&[0xf1])?;
        refused(a, |a| a.hlt())?;
        refused(a, |a| a.cli())?;
        refused(a, |a| a.mov(rax, cr0))?;
        user_exit(a)
    });
    // Not present.
    guest.put64(IDT + 16 * 0x21, 0x6e00_0010_0000);
    let ended = guest.run();
    ended.code();
    let at = |skipped: u64| USER + skipped;
    // LEA R15, [RIP+…]
    let lea = 7;
    let brief = ended.brief();
    assert_eq!(brief[0], (13, 0x20 << 3 | 2, at(lea)));
    assert_eq!(brief[1], (11, 0x21 << 3 | 2, at(2 * lea + 3)));
    assert_eq!(brief[2], (1, 0, at(2 * lea + 3 + 2 + 1 + 1)));
    assert_eq!(vectors(&ended)[3..], [(13, 0); 3]);
}

#[test]
fn stacks_are_switched_and_aligned() {
    let mut guest = Guest::new(|a| {
        a.sub(rsp, 3)?;
        a.int(0x70)?;
        a.int(0x71)?;
        a.add(rsp, 3)?;
        enter_user(a, USER, 2)
    });
    guest.code(USER, |a| {
        a.int(0x70)?;
        a.int(0x71)?;
        user_exit(a)
    });
    guest.gate(0x71, Guest::handler(0x71), 0xe, 3, 3);
    let ended = guest.run();
    ended.code();
    let found: Vec<_> = ended
        .events()
        .iter()
        .map(|e| (e.stack, e.rsp, e.cs, e.ss))
        .collect();
    let kernel = (
        u64::from(selector::KERNEL_CODE),
        u64::from(selector::KERNEL_DATA),
    );
    let user = (
        u64::from(selector::USER_CODE),
        u64::from(selector::USER_DATA),
    );
    // Five words of frame and the error code (here a filler).
    let below = |top: u64| top - 48;
    assert_eq!(
        found,
        [
            (below((STACK - 3) & !15), STACK - 3, kernel.0, kernel.1),
            (below(IST1 + 0x2000), STACK - 3, kernel.0, kernel.1),
            (below(STACK0), USER_STACK, user.0, user.1),
            (below(IST1 + 0x2000), USER_STACK, user.0, user.1),
        ]
    );
}

#[test]
fn a_fault_in_a_fault_is_a_double_fault_and_one_more_the_end() {
    // Page faults have no gate: not present, in the middle of a page fault.
    let broken = |guest: &mut Guest| guest.put64(IDT + 16 * 14, 0x0e00_0010_0000);
    let code = |a: &mut CodeAssembler| refused(a, |a| a.mov(al, byte_ptr(PAGE)));
    let mut guest = Guest::new(code);
    broken(&mut guest);
    let ended = guest.run();
    ended.code();
    assert_eq!(vectors(&ended), [(8, 0)]);

    let mut guest = Guest::new(code);
    broken(&mut guest);
    guest.put64(IDT + 16 * 8, 0);
    assert_eq!(guest.run().stop, Stop::Terminated(Shutdown::TripleFault));
    // It stays ended, also in a copy.
    let ended = guest.run();
    let mut other = copy(&ended.machine, &guest.config());
    assert_eq!(
        other.run(ended.machine.tick()),
        Stop::Terminated(Shutdown::TripleFault)
    );
}

#[test]
fn faults_that_do_not_belong_together_come_one_after_the_other() {
    // #UD has no gate (not present), which is #NP, no double fault.
    let mut guest = Guest::new(|a| refused(a, |a| a.ud2()));
    guest.put64(IDT + 16 * 6, 0x0e00_0010_0000);
    let ended = guest.run();
    ended.code();
    assert_eq!(vectors(&ended), [(11, 6 << 3 | 3)]);
}

/// A page fault whose handler is not mapped, on a stack that begins anew each time: no instruction
/// will ever complete again.
#[test]
fn exceptions_without_end_end_the_run() {
    let mut guest = Guest::new(|a| a.mov(al, byte_ptr(PAGE)));
    guest.gate(14, 0x3000_0000, 0xe, 0, 1);
    let mut machine = guest.machine();
    let mut rows = Vec::new();
    let stop = run_to(&mut machine, 1000, &mut rows);
    let Stop::Unsupported(what) = stop else {
        panic!("{stop:?}")
    };
    assert!(
        what.what.contains("exceptions without end (vector 14)"),
        "{what}"
    );
    assert_eq!((what.rip, what.tick.0), (0x3000_0000, 0));
    // In pieces, and in a copy made in between, it ends in the same state.
    let mut again = guest.machine();
    assert_eq!(again.run(Tick(1000)), Stop::Pause);
    let mut other = copy(&again, &guest.config());
    assert!(matches!(
        run_to(&mut other, 1000, &mut rows),
        Stop::Unsupported(_)
    ));
    assert_eq!(machine.digest(), other.digest());
}

const TF: u64 = 0x100;

/// Addresses of the single-step traps between setting and clearing the trap flag.
fn steps(code: impl Fn(&mut CodeAssembler) -> Result<(), IcedError>) -> Vec<u64> {
    let set = |a: &mut CodeAssembler| {
        a.pushfq()?;
        a.or(qword_ptr(rsp), TF as i32)?;
        a.popfq()
    };
    let start = CODE + assemble(CODE, set).len() as u64;
    let ended = Guest::new(|a| {
        set(a)?;
        code(a)?;
        a.pushfq()?;
        a.and(qword_ptr(rsp), !(TF as i32))?;
        a.popfq()
    })
    .run();
    ended.code();
    let events = ended.events();
    assert!(events.iter().all(|e| e.vector != 1 || e.dr6 & 1 << 14 != 0));
    // PUSHF, AND and POPF still trap.
    let traps = events
        .iter()
        .filter(|e| e.vector == 1)
        .map(|e| e.rip - start)
        .collect::<Vec<_>>();
    traps[..traps.len() - 3].to_vec()
}

#[test]
fn the_trap_flag_traps_after_each_instruction() {
    assert_eq!(steps(|a| a.db(&[0x90, 0x66, 0x90, 0x90])), [1, 3, 4]);
    // MOV SS holds the trap off until after the next instruction; STI does not.
    assert_eq!(
        steps(|a| a.db(&[0x8c, 0xd0, 0x8e, 0xd0, 0x90, 0x90])),
        [2, 5, 6]
    );
    assert_eq!(steps(|a| a.db(&[0xfa, 0xfb, 0x90])), [1, 2, 3]);
    // INT n clears the flag before the trap, IRET brings it back: the next is after the NOP.
    assert_eq!(steps(|a| a.db(&[0x90, 0xcd, 0x70, 0x90])), [1, 4]);
    // A repetition is one instruction.
    assert_eq!(
        steps(|a| a.db(&[0xb9, 3, 0, 0, 0, 0xf3, 0xac, 0x90])),
        [5, 7, 8]
    );
}

#[test]
fn syscall_masks_the_trap_flag_and_sysret_brings_it_back_at_once() {
    let entry = CODE + 0x1000;
    for (mask, in_kernel) in [(TF, 0), (0, 1)] {
        let mut guest = Guest::new(|a| {
            a.mov(r8, TF)?;
            enter_user(a, USER, 2)
        });
        guest.cpu.msr.star = 0x0023_0010_0000_0000;
        guest.cpu.msr.lstar = entry;
        guest.cpu.msr.sfmask = mask;
        guest.code(USER, |a| {
            a.pushfq()?;
            a.or(qword_ptr(rsp), r8d)?;
            a.popfq()?;
            a.syscall()?;
            a.nop()?;
            user_exit(a)
        });
        guest.code(entry, |a| {
            a.nop()?;
            a.sysretq()
        });
        let ended = guest.run();
        ended.code();
        let start = USER
            + assemble(USER, |a| {
                a.pushfq()?;
                a.or(qword_ptr(rsp), r8d)?;
                a.popfq()?;
                a.syscall()
            })
            .len() as u64;
        let traps: Vec<u64> = ended.events().iter().map(|e| e.rip).collect();
        let kernel = [entry, entry + 1];
        let expected: Vec<u64> = kernel[..2 * in_kernel]
            .iter()
            .copied()
            .chain([start, start + 1])
            .collect();
        assert_eq!(traps, expected, "SFMASK {mask:#x}");
    }
}
