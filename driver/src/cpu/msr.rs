//! Model-specific registers: one table of numbers, and what reading and writing each means.
//! A number that is not here raises a general protection fault, as on hardware.

use super::fault::{Fault, Trap};
use super::state::{
    CR0_PE, CR0_PG, CR0_WP, CR4_DE, CR4_MCE, CR4_OSFXSR, CR4_OSXMMEXCPT, CR4_PAE, CR4_PCE, CR4_PGE,
    CR4_PSE, CR4_TSD, EFER_LMA, EFER_LME, EFER_NXE, EFER_SCE, seg,
};
use crate::core::Core;
use crate::mem::paging::{PHYS_BITS, is_canonical};
use crate::observer::Observation;
use crate::passage::{Exit, Shutdown};

type Read = fn(&mut Core) -> u64;
type Write = fn(&mut Core, u64) -> Result<(), Trap>;

struct Row {
    number: u32,
    read: Read,
    write: Write,
}

fn refuse(c: &mut Core, _: u64) -> Result<(), Trap> {
    Err(c.raise(Fault::gp(0)))
}

/// Accepts and forgets: registers whose content means nothing here.
fn ignore(_: &mut Core, _: u64) -> Result<(), Trap> {
    Ok(())
}

fn canonical(c: &mut Core, v: u64) -> Result<u64, Trap> {
    if is_canonical(v) {
        Ok(v)
    } else {
        Err(c.raise(Fault::gp(0)))
    }
}

fn write_efer(c: &mut Core, v: u64) -> Result<(), Trap> {
    const KNOWN: u64 = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
    let toggles_lme = (v ^ c.cpu.efer) & EFER_LME != 0;
    if v & !KNOWN != 0 || toggles_lme && c.cpu.cr0 & CR0_PG != 0 {
        return Err(c.raise(Fault::gp(0)));
    }
    let old = c.cpu.efer;
    c.cpu.efer = v & !EFER_LMA | old & EFER_LMA;
    if (old ^ v) & EFER_NXE != 0 {
        c.tlb.flush_all();
    }
    Ok(())
}

fn write_apic_base(c: &mut Core, v: u64) -> Result<(), Trap> {
    if !c.board.set_apic_base(v) {
        return Err(c.raise(Fault::gp(0)));
    }
    c.after_board();
    Ok(())
}

fn write_deadline(c: &mut Core, v: u64) -> Result<(), Trap> {
    let now = c.time();
    c.board.set_tsc_deadline(v, now);
    c.after_board();
    Ok(())
}

/// IA32_TSC_ADJUST: the difference between the TSC and virtual time.
fn write_adjust(c: &mut Core, v: u64) -> Result<(), Trap> {
    let now = c.time();
    c.cpu.msr.tsc_adjust = v;
    c.board.set_tsc_adjust(v, now);
    c.after_board();
    Ok(())
}

fn write_pat(c: &mut Core, v: u64) -> Result<(), Trap> {
    let valid = v.to_le_bytes().iter().all(|t| matches!(t, 0 | 1 | 4..=7));
    if !valid {
        return Err(c.raise(Fault::gp(0)));
    }
    c.cpu.msr.pat = v;
    Ok(())
}

macro_rules! plain {
    ($number:literal, $field:ident) => {
        Row {
            number: $number,
            read: |c| c.cpu.msr.$field,
            write: |c, v| {
                c.cpu.msr.$field = v;
                Ok(())
            },
        }
    };
}

macro_rules! address {
    ($number:literal, $($place:tt)+) => {
        Row {
            number: $number,
            read: |c| c.cpu.$($place)+,
            write: |c, v| {
                c.cpu.$($place)+ = canonical(c, v)?;
                Ok(())
            },
        }
    };
}

const fn constant(number: u32, read: Read, write: Write) -> Row {
    Row {
        number,
        read,
        write,
    }
}

/// The table, by number (SDM vol. 4).
#[rustfmt::skip]
const ROWS: &[Row] = &[
    Row { number: 0x10, read: |c| c.tsc(), write: |c, v| { let now = c.time().0; write_adjust(c, v.wrapping_sub(now)) } },
    constant(0x17, |_| 0, refuse),                     // IA32_PLATFORM_ID
    Row { number: 0x1b, read: |c| c.board.apic_base(), write: write_apic_base },
    Row { number: 0x3b, read: |c| c.cpu.msr.tsc_adjust, write: write_adjust },
    plain!(0x8b, bios_sign_id),
    constant(0xfe, |_| 0, refuse),                     // IA32_MTRRCAP: no MTRRs
    plain!(0x174, sysenter_cs),
    address!(0x175, msr.sysenter_esp),
    address!(0x176, msr.sysenter_eip),
    constant(0x179, |_| 0, refuse),                    // IA32_MCG_CAP: no banks
    constant(0x17a, |_| 0, ignore),                    // IA32_MCG_STATUS
    plain!(0x1a0, misc_enable),
    constant(0x1d9, |_| 0, ignore),                    // IA32_DEBUGCTL
    Row { number: 0x277, read: |c| c.cpu.msr.pat, write: write_pat },
    constant(0x2ff, |_| 0, refuse),                    // IA32_MTRR_DEF_TYPE: disabled
    Row { number: 0x6e0, read: |c| { let now = c.time(); c.board.tsc_deadline(now) }, write: write_deadline },
    Row { number: 0xc000_0080, read: |c| c.cpu.efer, write: write_efer },
    plain!(0xc000_0081, star),
    address!(0xc000_0082, msr.lstar),
    address!(0xc000_0083, msr.cstar),
    plain!(0xc000_0084, sfmask),
    address!(0xc000_0100, segs[seg::FS].base),
    address!(0xc000_0101, segs[seg::GS].base),
    address!(0xc000_0102, msr.kernel_gs_base),
    plain!(0xc000_0103, tsc_aux),
];

impl Core {
    /// RDMSR.
    pub(crate) fn read_msr(&mut self, number: u32) -> Result<u64, Trap> {
        match ROWS.binary_search_by_key(&number, |r| r.number) {
            Ok(i) => Ok((ROWS[i].read)(self)),
            Err(_) => Err(self.raise(Fault::gp(0))),
        }
    }

    /// WRMSR.
    pub(crate) fn write_msr(&mut self, number: u32, value: u64) -> Result<(), Trap> {
        match ROWS.binary_search_by_key(&number, |r| r.number) {
            Ok(i) => (ROWS[i].write)(self, value),
            Err(_) => Err(self.raise(Fault::gp(0))),
        }
    }

    /// MOV to CR0. Leaving long mode is not supported: stock kernels never do.
    pub(crate) fn set_cr0(&mut self, value: u64) -> Result<(), Trap> {
        const KNOWN: u64 = 0xe005_003f;
        if value >> 32 != 0 || value & CR0_PG != 0 && value & CR0_PE == 0 {
            return Err(self.raise(Fault::gp(0)));
        }
        // NW without CD is refused (SDM vol. 3, 2.5).
        if value & 1 << 29 != 0 && value & 1 << 30 == 0 {
            return Err(self.raise(Fault::gp(0)));
        }
        if value & (CR0_PG | CR0_PE) != CR0_PG | CR0_PE {
            // A stock kernel does this for one purpose: to restart through the BIOS, having found
            // no other way. There is no BIOS; what it asks for is a reset.
            self.leave_with(Exit::Terminate(Shutdown::Reset));
            return Ok(());
        }
        let old = self.cpu.cr0;
        self.cpu.cr0 = value & KNOWN | super::state::CR0_ET;
        if (old ^ value) & CR0_WP != 0 {
            // Rights mean something else now.
            self.tlb.flush_fast();
        }
        Ok(())
    }

    /// MOV to CR3.
    pub(crate) fn set_cr3(&mut self, value: u64) -> Result<(), Trap> {
        if value >> PHYS_BITS != 0 {
            return Err(self.raise(Fault::gp(0)));
        }
        let old = self.cpu.cr3;
        self.cpu.cr3 = value;
        self.tlb.flush_local();
        self.observe(|| Observation::Cr3Write { old, new: value });
        self.observe(|| Observation::TlbFlush { scope: 1, gva: 0 });
        Ok(())
    }

    /// MOV to CR4: bits of features that are not advertised are reserved.
    pub(crate) fn set_cr4(&mut self, value: u64) -> Result<(), Trap> {
        const KNOWN: u64 = CR4_TSD
            | CR4_DE
            | CR4_PSE
            | CR4_PAE
            | CR4_MCE
            | CR4_PGE
            | CR4_PCE
            | CR4_OSFXSR
            | CR4_OSXMMEXCPT;
        if value & !KNOWN != 0 || value & CR4_PAE == 0 {
            return Err(self.raise(Fault::gp(0)));
        }
        let old = self.cpu.cr4;
        self.cpu.cr4 = value;
        if (old ^ value) & (CR4_PGE | CR4_PSE | CR4_PAE) != 0 {
            self.tlb.flush_all();
            self.observe(|| Observation::TlbFlush { scope: 2, gva: 0 });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::ROWS;

    #[test]
    fn numbers_go_up() {
        assert!(ROWS.windows(2).all(|w| w[0].number < w[1].number));
    }
}
