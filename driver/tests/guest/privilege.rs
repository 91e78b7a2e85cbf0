//! Going between privileges, and what each may do: SYSCALL, SYSRET, IRET, ports, segments.

use colinux_driver::cpu::state::seg;
use iced_x86::IcedError;
use iced_x86::code_asm::*;

use crate::common::*;

const ENTRY: u64 = CODE + 0x1000;

fn with_syscall(user: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Guest {
    let mut guest = Guest::new(|a| enter_user(a, USER, 0x202));
    guest.cpu.msr.star = 0x0023_0010_0000_0000;
    guest.cpu.msr.lstar = ENTRY;
    guest.cpu.msr.sfmask = 0x4_7700;
    guest.code(USER, |a| {
        user(a)?;
        user_exit(a)
    });
    guest
}

#[test]
fn syscall_and_sysret_carry_the_state_of_the_manual() {
    let mut guest = with_syscall(|a| {
        a.stc()?;
        a.std()?;
        a.syscall()?;
        // Back: flags from R11, segments from STAR.
        a.pushfq()?;
        a.pop(r12)?;
        a.cld()?;
        a.mov(r13d, cs)?;
        a.mov(r14d, ss)
    });
    guest.code(ENTRY, |a| {
        a.pushfq()?;
        a.pop(r8)?;
        a.mov(r9d, cs)?;
        a.mov(r10d, ss)?;
        a.mov(rbx, rcx)?;
        a.mov(rbp, r11)?;
        // The stack is the user's.
        a.mov(rsi, rsp)?;
        a.sysretq()
    });
    // The kernel's code pushes to the user's stack, which is mapped for both.
    let ended = guest.run();
    ended.code();
    let back = USER + 4;
    assert_eq!(ended.reg(3), back);
    assert_eq!(ended.reg(5), 0x602 | 1, "R11: flags before");
    assert_eq!(ended.reg(8), 3, "masked: IF and DF are off, CF stays");
    assert_eq!((ended.reg(9), ended.reg(10)), (0x10, 0x18));
    assert_eq!(ended.reg(6), USER_STACK);
    assert_eq!(ended.reg(12), 0x603);
    assert_eq!((ended.reg(13), ended.reg(14)), (0x33, 0x2b));
}

#[test]
fn syscall_is_refused_without_efer_sce_and_sysret_to_nowhere() {
    let mut guest = with_syscall(|a| {
        let mut end = a.create_label();
        a.lea(r15, ptr(end))?;
        a.syscall()?;
        a.set_label(&mut end)?;
        a.nop()
    });
    guest.cpu.efer &= !1;
    let ended = guest.run();
    ended.code();
    assert_eq!(ended.brief(), [(6, 0, USER + 7)]);

    // #GP in the kernel, as Intel does it, with the kernel's stack.
    let mut guest = with_syscall(|a| a.syscall());
    guest.code(ENTRY, |a| {
        let mut end = a.create_label();
        a.lea(r15, ptr(end))?;
        a.mov(rcx, 0x8000_0000_0000u64)?;
        a.sysretq()?;
        a.set_label(&mut end)?;
        exit(a)
    });
    let ended = guest.run();
    ended.code();
    let e = ended.events()[0];
    assert_eq!((e.vector, e.error, e.cs), (13, 0, 0x10));
}

#[test]
fn iret_to_user_drops_the_kernels_data_segments() {
    let mut guest = Guest::new(|a| {
        a.mov(eax, u32::from(selector::USER_DATA))?;
        a.mov(es, ax)?;
        a.mov(eax, u32::from(selector::KERNEL_DATA))?;
        a.mov(ds, ax)?;
        a.mov(fs, ax)?;
        enter_user(a, USER, 0x3202)
    });
    guest.code(USER, |a| {
        a.mov(r8d, ds)?;
        a.mov(r9d, es)?;
        a.mov(r10d, fs)?;
        a.pushfq()?;
        a.pop(r11)?;
        // IOPL 3: these are allowed.
        a.cli()?;
        a.sti()?;
        user_exit(a)
    });
    let ended = guest.run();
    ended.code();
    assert_eq!(
        [8, 9, 10].map(|r| ended.reg(r)),
        [0, u64::from(selector::USER_DATA), 0]
    );
    assert_eq!(ended.reg(11), 0x3202);
}

#[test]
fn user_mode_cannot_change_what_the_kernel_owns_of_the_flags() {
    let mut guest = Guest::new(|a| enter_user(a, USER, 0x202));
    guest.code(USER, |a| {
        a.push(0x3002 | 0x4_0000)?;
        a.popfq()?;
        a.pushfq()?;
        a.pop(r8)?;
        // And the same by IRET.
        let mut next = a.create_label();
        a.mov(rax, rsp)?;
        a.push(i32::from(selector::USER_DATA))?;
        a.push(rax)?;
        a.push(0x3002)?;
        a.push(i32::from(selector::USER_CODE))?;
        a.lea(rbx, ptr(next))?;
        a.push(rbx)?;
        a.iretq()?;
        a.set_label(&mut next)?;
        a.pushfq()?;
        a.pop(r9)?;
        user_exit(a)
    });
    let ended = guest.run();
    ended.code();
    // AC is the user's; IOPL and IF are not.
    assert_eq!((ended.reg(8), ended.reg(9)), (0x4_0202, 0x202));
}

#[test]
fn ports_are_allowed_by_the_bitmap() {
    // Port and size of each access; the marked ones are allowed.
    let allowed = |port: u16| port == 0x3f8 || (0x500..0x508).contains(&port);
    let accesses: [(u16, u32); 8] = [
        (0x3f8, 1),
        (0x3f7, 1),
        (0x3f8, 2),
        (0x500, 4),
        (0x504, 4),
        (0x505, 4),
        (0x507, 1),
        (0xffff, 1),
    ];
    let mut guest = Guest::new(|a| enter_user(a, USER, 0x202));
    guest.code(USER, |a| {
        for (port, size) in accesses {
            let mut end = a.create_label();
            a.lea(r15, ptr(end))?;
            a.mov(edx, u32::from(port))?;
            match size {
                1 => a.in_(al, dx)?,
                2 => a.in_(ax, dx)?,
                _ => a.in_(eax, dx)?,
            }
            a.set_label(&mut end)?;
        }
        user_exit(a)
    });
    let mut bitmap = [0xffu8; 0x2000];
    for port in (0..=0xffff).filter(|port| allowed(*port)) {
        bitmap[usize::from(port) / 8] &= !(1 << (port % 8));
    }
    guest.put(TSS + 0x68, &bitmap);
    let ended = guest.run();
    ended.code();
    let expected = accesses.iter().filter(|(port, size)| {
        !(0..*size as u16).all(|i| port.checked_add(i).is_some_and(allowed))
    });
    assert_eq!(ended.events().len(), expected.count());
    assert!(
        ended
            .events()
            .iter()
            .all(|e| (e.vector, e.error) == (13, 0))
    );

    // A bitmap that ends early covers no port behind its end.
    guest.cpu.tr.limit = 0x68 + 0x3f8 / 8;
    assert_eq!(guest.run().events().len(), accesses.len());
}

fn load(a: &mut CodeAssembler, value: u32, to: AsmRegisterSegment) -> Result<(), IcedError> {
    let mut end = a.create_label();
    a.lea(r15, ptr(end))?;
    a.mov(eax, value)?;
    a.mov(to, eax)?;
    a.set_label(&mut end)?;
    a.nop()
}

#[test]
fn segment_loads_follow_the_descriptor_tables() {
    // A data segment of privilege 0, one that is not present, one of code that cannot be read.
    let extra = [
        0x00cf_9300_0000_ffffu64,
        0x00cf_7300_0000_ffff,
        0x00af_f900_0000_ffff,
    ];
    let mut guest = Guest::new(|a| {
        load(a, 0x2b, ds)?;
        load(a, 0x18, es)?;
        load(a, 0, ss)?;
        load(a, 3, ss)?;
        load(a, 0x2b, ss)?;
        load(a, 0x53, ds)?;
        load(a, 0x50, ds)?;
        load(a, 0x5b, ds)?;
        load(a, 0x63, ds)?;
        load(a, 0x68, ds)?;
        load(a, 4, fs)?;
        a.xor(eax, eax)?;
        a.lldt(ax)?;
        load(a, 0x18, ss)
    });
    for (i, raw) in extra.iter().enumerate() {
        guest.put64(GDT + 0x50 + 8 * i as u64, *raw);
    }
    guest.cpu.gdtr.limit = 0x67;
    let ended = guest.run();
    ended.code();
    let errors: Vec<_> = ended.events().iter().map(|e| (e.vector, e.error)).collect();
    assert_eq!(
        errors,
        [
            // Null SS with another privilege than ours.
            (13, 0),
            // SS of another privilege.
            (13, 0x28),
            // Asked for with privilege 3.
            (13, 0x50),
            (11, 0x58),
            (13, 0x60),
            (13, 0x68),
            // There is no local table; a null one is loaded later, which is fine.
            (13, 4),
        ]
    );
    let state = ended.machine.state();
    let selectors = [seg::DS, seg::ES, seg::SS].map(|s| state.cpu.segs[s].selector);
    assert_eq!(selectors, [0x50, 0x18, 0x18]);
}

#[test]
fn a_null_stack_segment_is_fine_in_the_kernel_and_kept_by_iret() {
    let ended = Guest::new(|a| {
        let mut next = a.create_label();
        a.xor(eax, eax)?;
        a.mov(ss, eax)?;
        a.push(rax)?;
        a.pop(rbx)?;
        a.int(0x70)?;
        a.mov(r8d, ss)?;
        a.mov(rax, rsp)?;
        a.push(0)?;
        a.push(rax)?;
        a.push(2)?;
        a.push(i32::from(selector::KERNEL_CODE))?;
        a.lea(rbx, ptr(next))?;
        a.push(rbx)?;
        a.iretq()?;
        a.set_label(&mut next)?;
        a.mov(r9d, ss)
    })
    .run();
    ended.code();
    assert_eq!((ended.reg(8), ended.reg(9)), (0, 0));
    assert_eq!(ended.events()[0].ss, 0);
}

#[test]
fn base_addresses_count_for_fs_and_gs_alone() {
    let mut guest = Guest::new(|a| {
        a.mov(eax, ptr_at(FREE).gs())?;
        a.mov(r8d, eax)?;
        a.swapgs()?;
        a.mov(eax, ptr_at(FREE).gs())?;
        a.mov(r9d, eax)?;
        a.mov(eax, ptr_at(FREE).ds())?;
        a.mov(r10d, eax)
    });
    guest.cpu.segs[seg::GS].base = 0x10;
    guest.cpu.msr.kernel_gs_base = 0x20u64.wrapping_neg();
    guest.cpu.segs[seg::DS].base = 0x10;
    guest.put64(FREE, 3);
    guest.put64(FREE + 0x10, 1);
    guest.put64(FREE - 0x20, 2);
    let ended = guest.run();
    ended.code();
    assert_eq!([8, 9, 10].map(|r| ended.reg(r)), [1, 2, 3]);
}

fn ptr_at(at: u64) -> AsmMemoryOperand {
    dword_ptr(at)
}
