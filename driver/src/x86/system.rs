//! Instructions for the operating system: control registers, tables, MSRs, traps.

use iced_x86::{Instruction, Mnemonic as N};

use super::op::{Body, Op, STACK32};
use super::shape::{Lower, M, R, assign, bits, by_width, is_mem, source};
use super::word::Word;
use crate::core::Core;
use crate::cpu::fault::{Fault, Trap, TrapCause, vector};
use crate::cpu::state::{self, TableRegister};
use crate::mem::paging::is_canonical;
use crate::observer::Observation;
use crate::passage::Exit;

/// Refuses all but privilege 0.
fn privileged(c: &mut Core) -> Result<(), Trap> {
    if c.cpu.cpl == 0 {
        Ok(())
    } else {
        Err(c.raise(Fault::gp(0)))
    }
}

fn read_cr(c: &mut Core, op: &Op) -> Result<(), Trap> {
    privileged(c)?;
    let value = match op.src {
        0 => c.cpu.cr0,
        2 => c.cpu.cr2,
        3 => c.cpu.cr3,
        4 => c.cpu.cr4,
        8 => c.board.cr8(),
        _ => return Err(c.raise(Fault::plain(vector::UD))),
    };
    c.set_reg(op.dst, value);
    Ok(())
}

fn write_cr(c: &mut Core, op: &Op) -> Result<(), Trap> {
    privileged(c)?;
    let value = c.reg::<u64>(op.src);
    match op.dst {
        0 => c.set_cr0(value)?,
        2 => c.cpu.cr2 = value,
        3 => c.set_cr3(value)?,
        4 => c.set_cr4(value)?,
        8 => {
            if value >> 4 != 0 {
                return Err(c.raise(Fault::gp(0)));
            }
            c.board.set_cr8(value);
            c.after_board();
        }
        _ => return Err(c.raise(Fault::plain(vector::UD))),
    }
    c.leave();
    Ok(())
}

fn debug_register(c: &mut Core, n: u8) -> Result<usize, Trap> {
    privileged(c)?;
    let n = match n {
        4 | 5 if c.cpu.cr4 & state::CR4_DE != 0 => {
            return Err(c.raise(Fault::plain(vector::UD)));
        }
        4 | 5 => n as usize + 2,
        n => n as usize & 7,
    };
    c.check_general_detect()?;
    Ok(n)
}

fn read_dr(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let n = debug_register(c, op.src)?;
    let value = c.cpu.dr[n];
    c.set_reg(op.dst, value);
    Ok(())
}

fn write_dr(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let n = debug_register(c, op.dst)?;
    let value = c.reg::<u64>(op.src);
    if n >= 6 && value >> 32 != 0 {
        return Err(c.raise(Fault::gp(0)));
    }
    c.cpu.dr[n] = match n {
        6 => value & 0xe00f | 0xffff_0ff0,
        7 => value & 0xffff_2fff | 0x400,
        _ => value,
    };
    c.leave();
    c.breakpoints_changed()
}

/// MOV with a control or debug register on either side.
pub fn lower_mov_special(insn: &Instruction, _: &mut Op) -> Option<Body> {
    let (a, b) = (insn.op0_register(), insn.op1_register());
    if a.is_cr() {
        Some(write_cr)
    } else if b.is_cr() {
        Some(read_cr)
    } else if a.is_dr() {
        Some(write_dr)
    } else if b.is_dr() {
        Some(read_dr)
    } else {
        None
    }
}

fn clts(c: &mut Core, _: &Op) -> Result<(), Trap> {
    privileged(c)?;
    c.cpu.cr0 &= !state::CR0_TS;
    Ok(())
}

fn smsw<W: Word, const MEM: bool>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let value = c.cpu.cr0;
    assign::<W, MEM>(c, op, W::low(value))
}

fn lower_smsw(insn: &Instruction, _: &mut Op) -> Option<Body> {
    if is_mem(insn, 0) {
        return Some(smsw::<u16, true>);
    }
    by_width!(bits(insn, 0), W => smsw::<W, false>)
}

fn lmsw<const SRC: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    privileged(c)?;
    let value = u64::from(source::<u16, SRC>(c, op)?);
    // LMSW can set PE but not clear it.
    let cr0 = c.cpu.cr0 & !0xe | value & 0xf;
    c.set_cr0(cr0)?;
    c.leave();
    Ok(())
}

fn lower_lmsw(insn: &Instruction, op: &mut Op) -> Option<Body> {
    op.src = op.dst;
    Some(if is_mem(insn, 0) {
        lmsw::<M>
    } else {
        lmsw::<R>
    })
}

fn load_table(c: &mut Core, op: &Op) -> Result<TableRegister, Trap> {
    privileged(c)?;
    let ea = c.ea(op);
    let limit = c.read::<u16>(ea)?;
    let base = if op.prefix & STACK32 != 0 {
        u64::from(c.read::<u32>(ea.wrapping_add(2))?)
    } else {
        c.read::<u64>(ea.wrapping_add(2))?
    };
    if !is_canonical(base) {
        return Err(c.raise(Fault::gp(0)));
    }
    Ok(TableRegister { base, limit })
}

fn lgdt(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.cpu.gdtr = load_table(c, op)?;
    Ok(())
}

fn lidt(c: &mut Core, op: &Op) -> Result<(), Trap> {
    c.cpu.idtr = load_table(c, op)?;
    Ok(())
}

fn store_table(c: &mut Core, op: &Op, t: TableRegister) -> Result<(), Trap> {
    let ea = c.ea(op);
    if op.prefix & STACK32 != 0 {
        c.check_write(ea, 6)?;
        c.write(ea, t.limit)?;
        return c.write(ea.wrapping_add(2), t.base as u32);
    }
    c.check_write(ea, 10)?;
    c.write(ea, t.limit)?;
    c.write(ea.wrapping_add(2), t.base)
}

fn sgdt(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let t = c.cpu.gdtr;
    store_table(c, op, t)
}

fn sidt(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let t = c.cpu.idtr;
    store_table(c, op, t)
}

/// Descriptor types of LTR and LLDT.
const TSS_AVAILABLE: u16 = 9;
const LDT: u16 = 2;

fn ltr<const SRC: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    privileged(c)?;
    let selector = source::<u16, SRC>(c, op)?;
    if selector & !3 == 0 {
        return Err(c.raise(Fault::gp(0)));
    }
    let mut tss = c.system_segment(selector, &[TSS_AVAILABLE])?;
    // Mark busy.
    let (_, raw, at) = c.descriptor(selector, vector::GP)?;
    c.write_system::<u64>(at, raw | 2 << 40)?;
    tss.attr |= 2;
    c.cpu.tr = tss;
    Ok(())
}

fn lldt<const SRC: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    privileged(c)?;
    let selector = source::<u16, SRC>(c, op)?;
    c.cpu.ldtr = if selector & !3 == 0 {
        state::Segment {
            selector,
            ..state::Segment::default()
        }
    } else {
        c.system_segment(selector, &[LDT])?
    };
    Ok(())
}

fn lower_ltr(insn: &Instruction, op: &mut Op) -> Option<Body> {
    op.src = op.dst;
    Some(if is_mem(insn, 0) { ltr::<M> } else { ltr::<R> })
}

fn lower_lldt(insn: &Instruction, op: &mut Op) -> Option<Body> {
    op.src = op.dst;
    Some(if is_mem(insn, 0) {
        lldt::<M>
    } else {
        lldt::<R>
    })
}

fn store_selector<W: Word, const MEM: bool, const TASK: bool>(
    c: &mut Core,
    op: &Op,
) -> Result<(), Trap> {
    let selector = if TASK {
        c.cpu.tr.selector
    } else {
        c.cpu.ldtr.selector
    };
    assign::<W, MEM>(c, op, W::low(u64::from(selector)))
}

fn lower_store_selector<const TASK: bool>(insn: &Instruction, _: &mut Op) -> Option<Body> {
    if is_mem(insn, 0) {
        return Some(store_selector::<u16, true, TASK>);
    }
    by_width!(bits(insn, 0), W => store_selector::<W, false, TASK>)
}

fn invlpg(c: &mut Core, op: &Op) -> Result<(), Trap> {
    privileged(c)?;
    let va = c.ea(op);
    c.tlb.flush_page(va);
    c.observe(|| Observation::TlbFlush { scope: 0, gva: va });
    c.leave();
    Ok(())
}

/// WBINVD and INVD: there is no cache to write back.
fn wbinvd(c: &mut Core, _: &Op) -> Result<(), Trap> {
    privileged(c)
}

fn hlt(c: &mut Core, _: &Op) -> Result<(), Trap> {
    privileged(c)?;
    c.cpu.halted = true;
    c.leave_with(Exit::Idle);
    Ok(())
}

fn rdmsr(c: &mut Core, _: &Op) -> Result<(), Trap> {
    privileged(c)?;
    let n = c.reg::<u32>(1);
    let value = c.read_msr(n)?;
    c.set_reg(0, value as u32);
    c.set_reg(2, (value >> 32) as u32);
    Ok(())
}

fn wrmsr(c: &mut Core, _: &Op) -> Result<(), Trap> {
    privileged(c)?;
    let n = c.reg::<u32>(1);
    let value = u64::from(c.reg::<u32>(0)) | u64::from(c.reg::<u32>(2)) << 32;
    c.write_msr(n, value)?;
    c.leave();
    Ok(())
}

fn rdtsc(c: &mut Core, _: &Op) -> Result<(), Trap> {
    if c.cpu.cr4 & state::CR4_TSD != 0 && c.cpu.cpl != 0 {
        return Err(c.raise(Fault::gp(0)));
    }
    let t = c.tsc();
    c.set_reg(0, t as u32);
    c.set_reg(2, (t >> 32) as u32);
    Ok(())
}

fn rdtscp(c: &mut Core, op: &Op) -> Result<(), Trap> {
    rdtsc(c, op)?;
    let aux = c.cpu.msr.tsc_aux as u32;
    c.set_reg(1, aux);
    Ok(())
}

fn rdpmc(c: &mut Core, _: &Op) -> Result<(), Trap> {
    // No performance counters are advertised.
    Err(c.raise(Fault::gp(0)))
}

fn cpuid(c: &mut Core, _: &Op) -> Result<(), Trap> {
    let (leaf, subleaf) = (c.reg::<u32>(0), c.reg::<u32>(1));
    let row = crate::cpu::cpuid::lookup(leaf, subleaf);
    c.set_reg(0, row[0]);
    c.set_reg(3, row[1]);
    c.set_reg(1, row[2]);
    c.set_reg(2, row[3]);
    Ok(())
}

fn swapgs(c: &mut Core, _: &Op) -> Result<(), Trap> {
    privileged(c)?;
    std::mem::swap(
        &mut c.cpu.segs[state::seg::GS].base,
        &mut c.cpu.msr.kernel_gs_base,
    );
    Ok(())
}

fn software_interrupt(c: &mut Core, vector: u8) -> Trap {
    c.trap = Some(TrapCause::SoftwareInterrupt { vector });
    Trap
}

fn int3(c: &mut Core, _: &Op) -> Result<(), Trap> {
    Err(software_interrupt(c, vector::BP))
}

/// INT1 is a debug trap, not a software interrupt: the gate's privilege is not looked at.
fn int1(c: &mut Core, _: &Op) -> Result<(), Trap> {
    c.debug_trap = Some(0);
    c.leave();
    Ok(())
}

fn int_n(c: &mut Core, op: &Op) -> Result<(), Trap> {
    Err(software_interrupt(c, op.imm as u8))
}

fn into(c: &mut Core, _: &Op) -> Result<(), Trap> {
    if c.cpu.lazy.of() {
        Err(software_interrupt(c, vector::OF))
    } else {
        Ok(())
    }
}

/// An invalid opcode: what the CPU model does not have.
pub fn undefined(c: &mut Core, _: &Op) -> Result<(), Trap> {
    Err(c.raise(Fault::plain(vector::UD)))
}

/// The rows of this family.
#[rustfmt::skip]
pub const ROWS: &[(N, Lower)] = &[
    (N::Clts, |_, _| Some(clts)), (N::Smsw, lower_smsw), (N::Lmsw, lower_lmsw),
    (N::Lgdt, |_, _| Some(lgdt)), (N::Lidt, |_, _| Some(lidt)),
    (N::Sgdt, |_, _| Some(sgdt)), (N::Sidt, |_, _| Some(sidt)),
    (N::Ltr, lower_ltr), (N::Lldt, lower_lldt),
    (N::Str, lower_store_selector::<true>), (N::Sldt, lower_store_selector::<false>),
    (N::Invlpg, |_, _| Some(invlpg)), (N::Wbinvd, |_, _| Some(wbinvd)),
    (N::Invd, |_, _| Some(wbinvd)), (N::Hlt, |_, _| Some(hlt)), (N::Rdmsr, |_, _| Some(rdmsr)),
    (N::Wrmsr, |_, _| Some(wrmsr)), (N::Rdtsc, |_, _| Some(rdtsc)),
    (N::Rdtscp, |_, _| Some(rdtscp)), (N::Rdpmc, |_, _| Some(rdpmc)),
    (N::Cpuid, |_, _| Some(cpuid)), (N::Swapgs, |_, _| Some(swapgs)),
    (N::Int3, |_, _| Some(int3)), (N::Int1, |_, _| Some(int1)), (N::Int, |_, _| Some(int_n)),
    (N::Into, |_, _| Some(into)), (N::Ud0, |_, _| Some(undefined)),
    (N::Ud1, |_, _| Some(undefined)), (N::Ud2, |_, _| Some(undefined)),
];
