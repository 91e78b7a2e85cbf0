//! When SSE and MMX instructions fault, and what they leave behind when they do.

use super::{AT, core, one};
use crate::core::Core;
use crate::cpu::fault::{Trap, TrapCause, vector};
use crate::cpu::state::{
    CR0_EM, CR0_PE, CR0_PG, CR0_TS, CR4_OSFXSR, CR4_OSXMMEXCPT, CR4_PAE, EFER_LMA, EFER_LME,
};

/// The fault an instruction must end with, and the state it leaves.
fn fault(c: &mut Core, bytes: &[u8]) -> u8 {
    assert_eq!((one(bytes).run)(c, &one(bytes)), Err(Trap));
    match c.trap.take() {
        Some(TrapCause::Fault(f)) => f.vector,
        other => panic!("{other:?}"),
    }
}

const PXOR: [u8; 4] = [0x66, 0x0f, 0xef, 0xc1];
const DIVSD: [u8; 4] = [0xf2, 0x0f, 0x5e, 0xc1];
const MOVAPS_LOAD: [u8; 3] = [0x0f, 0x28, 0x07];
const MOVUPS_STORE: [u8; 3] = [0x0f, 0x11, 0x07];
const LDMXCSR: [u8; 3] = [0x0f, 0xae, 0x17];
const MASKMOVDQU: [u8; 4] = [0x66, 0x0f, 0xf7, 0xc1];
const MOVQ_MM: [u8; 3] = [0x0f, 0x6f, 0xc1];
const EMMS: [u8; 2] = [0x0f, 0x77];

#[test]
fn the_enabling_bits_decide_between_undefined_and_not_available() {
    let mut c = core();
    c.cpu.cr0 |= CR0_TS;
    assert_eq!(fault(&mut c, &PXOR), vector::NM);
    assert_eq!(fault(&mut c, &MOVQ_MM), vector::NM);
    c.cpu.cr0 |= CR0_EM;
    assert_eq!(fault(&mut c, &PXOR), vector::UD);
    assert_eq!(fault(&mut c, &MOVQ_MM), vector::UD);
    c.cpu.cr0 &= !(CR0_TS | CR0_EM);
    c.cpu.cr4 &= !CR4_OSFXSR;
    assert_eq!(fault(&mut c, &PXOR), vector::UD);
    c.cpu.x87.status |= 1 << 7;
    assert_eq!(fault(&mut c, &MOVQ_MM), vector::MF);
}

#[test]
fn unmasked_exceptions_set_flags_and_leave_the_destination() {
    let mut c = core();
    c.cpu.xmm[0] = [1f64.to_bits(), 7];
    c.cpu.xmm[1] = [0, 8];
    c.cpu.mxcsr = 0x1f80 & !(1 << 9);
    assert_eq!(fault(&mut c, &DIVSD), vector::XM);
    assert_eq!((c.cpu.xmm[0], c.cpu.mxcsr), ([1f64.to_bits(), 7], 0x1d84));
    c.cpu.cr4 &= !CR4_OSXMMEXCPT;
    assert_eq!(fault(&mut c, &DIVSD), vector::UD);
}

#[test]
fn alignment_and_reserved_bits_are_checked() {
    let mut c = core();
    c.cpu.regs[7] += 8;
    assert_eq!(fault(&mut c, &MOVAPS_LOAD), vector::GP);
    c.ram.bytes_mut()[AT + 10] = 1;
    assert_eq!(fault(&mut c, &LDMXCSR), vector::GP);
    assert_eq!(c.cpu.mxcsr, 0x1f80);
}

/// A core with paging on, on which all of RAM but the page after `AT` is mapped.
fn paged() -> Core {
    let mut c = core();
    for (at, entry) in [(0x1000, 0x2007u64), (0x2000, 0x3007), (0x3000, 0x4007)] {
        c.ram.bytes_mut()[at..at + 8].copy_from_slice(&entry.to_le_bytes());
    }
    for page in (0..16).filter(|p| *p != AT / 0x1000 + 1) {
        let entry = (page as u64) << 12 | 7;
        let at = 0x4000 + 8 * page;
        c.ram.bytes_mut()[at..at + 8].copy_from_slice(&entry.to_le_bytes());
    }
    c.cpu.cr3 = 0x1000;
    c.cpu.cr4 |= CR4_PAE;
    c.cpu.efer |= EFER_LME | EFER_LMA;
    c.cpu.cr0 |= CR0_PG | CR0_PE;
    c
}

#[test]
fn a_store_across_pages_writes_all_or_nothing() {
    for tail in 1..16 {
        let mut c = paged();
        c.cpu.xmm[0] = [u64::MAX; 2];
        c.cpu.regs[7] = AT as u64 + 0x1000 - tail;
        assert_eq!(fault(&mut c, &MOVUPS_STORE), vector::PF);
        assert!(
            c.ram.bytes()[AT..AT + 0x1000].iter().all(|b| *b == 0),
            "{tail}"
        );
    }
}

#[test]
fn masked_stores_touch_only_the_bytes_they_select() {
    let mut c = paged();
    c.cpu.xmm[0] = [0x0807_0605_0403_0201, 0x100f_0e0d_0c0b_0a09];
    c.cpu.xmm[1] = [0x0080_0000_0000_0080, 0];
    c.cpu.regs[7] = AT as u64 + 0x1000 - 8;
    assert_eq!((one(&MASKMOVDQU).run)(&mut c, &one(&MASKMOVDQU)), Ok(()));
    assert_eq!(
        c.ram.bytes()[AT + 0xff8..AT + 0x1000],
        [1, 0, 0, 0, 0, 0, 7, 0]
    );
    c.cpu.xmm[1] = [0x80, 0x80];
    c.cpu.xmm[0][0] = 0x55;
    assert_eq!(fault(&mut c, &MASKMOVDQU), vector::PF);
    assert_eq!(c.ram.bytes()[AT + 0xff8], 1);
}

#[test]
fn mmx_marks_the_x87_registers_in_use_until_emms() {
    let mut c = core();
    c.cpu.x87.status = 5 << 11;
    c.cpu.x87.regs[1] = (42, 0x3fff);
    assert_eq!((one(&MOVQ_MM).run)(&mut c, &one(&MOVQ_MM)), Ok(()));
    assert_eq!(c.cpu.x87.regs[0], (42, 0xffff));
    assert_eq!(c.cpu.x87.regs[1], (42, 0x3fff));
    assert_eq!((c.cpu.x87.status, c.cpu.x87.tags), (0, 0xff));
    assert_eq!((one(&EMMS).run)(&mut c, &one(&EMMS)), Ok(()));
    assert_eq!(c.cpu.x87.tags, 0);
}
