//! The page walk: four levels, 4 KiB, 2 MiB and 1 GiB pages (Intel SDM vol. 3, chapter 4).

use super::addr::{Gpa, PAGE_SIZE};
use super::ppram::Toucher;
use super::tlb::{RIGHT_DIRTY, RIGHT_EXEC, RIGHT_GLOBAL, RIGHT_USER, RIGHT_WRITE, Translation};
use crate::core::Core;
use crate::cpu::fault::{Fault, vector};
use crate::cpu::state::{CR0_PG, CR0_WP, EFER_NXE};

/// Kinds of access, as far as rights are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A data read.
    Read,
    /// A data write.
    Write,
    /// An instruction fetch.
    Fetch,
}

const P: u64 = 1 << 0;
const RW: u64 = 1 << 1;
const US: u64 = 1 << 2;
const A: u64 = 1 << 5;
const D: u64 = 1 << 6;
const PS: u64 = 1 << 7;
const G: u64 = 1 << 8;
const NX: u64 = 1 << 63;
/// Physical address width of the CPU model, in bits (CPUID leaf 8000_0008h).
pub const PHYS_BITS: u32 = 40;
const ADDRESS: u64 = ((1 << PHYS_BITS) - 1) & !(PAGE_SIZE - 1);
/// Bits between the physical address width and bit 51 must be zero.
const RESERVED: u64 = ((1 << 52) - 1) & !((1 << PHYS_BITS) - 1);

/// Whether bits 63-47 of a linear address are all equal.
#[inline(always)]
pub const fn is_canonical(va: u64) -> bool {
    ((va as i64) << 16 >> 16) as u64 == va
}

/// Why a walk ended without a translation.
enum WalkStop {
    /// Not present, or a right is missing: the error code's P bit says which.
    Denied { present: bool },
    /// A reserved bit is set.
    Reserved,
}

impl Core {
    /// Translates a linear address for an access, walking if need be.
    pub(crate) fn translate(
        &mut self,
        va: u64,
        access: Access,
        user: bool,
    ) -> Result<Translation, Fault> {
        let vpn = va / PAGE_SIZE;
        if self.cpu.cr0 & CR0_PG == 0 {
            let rights = RIGHT_USER | RIGHT_WRITE | RIGHT_EXEC | RIGHT_DIRTY;
            return Ok(Translation {
                vpn,
                gpfn: vpn,
                rights,
            });
        }
        if let Some(t) = self.tlb.get(vpn)
            && self.allows(t.rights, access, user)
            && (access != Access::Write || t.rights & RIGHT_DIRTY != 0)
        {
            return Ok(t);
        }
        match self.walk(va, access, user, true) {
            Ok((t, large)) => {
                self.tlb.insert(t, large);
                Ok(t)
            }
            Err(stop) => {
                // A fault forgets the page, so that a relaxed entry is seen on the next try.
                if self.tlb.get(vpn).is_some() {
                    self.tlb.flush_page(va);
                }
                let mut error = match stop {
                    WalkStop::Denied { present } => u32::from(present),
                    WalkStop::Reserved => 1 | 1 << 3,
                };
                error |= u32::from(access == Access::Write) << 1;
                error |= u32::from(user) << 2;
                if access == Access::Fetch && self.cpu.efer & EFER_NXE != 0 {
                    error |= 1 << 4;
                }
                Err(Fault {
                    vector: vector::PF,
                    error: Some(error),
                    address: va,
                })
            }
        }
    }

    /// Whether rights suffice.
    #[inline]
    pub(crate) fn allows(&self, rights: u8, access: Access, user: bool) -> bool {
        if user && rights & RIGHT_USER == 0 {
            return false;
        }
        match access {
            Access::Read => true,
            Access::Write => rights & RIGHT_WRITE != 0 || (!user && self.cpu.cr0 & CR0_WP == 0),
            Access::Fetch => rights & RIGHT_EXEC != 0,
        }
    }

    /// Walks the tables. With `commit`, sets accessed and dirty bits; without, changes nothing at
    /// all (what a debugger wants).
    fn walk(
        &mut self,
        va: u64,
        access: Access,
        user: bool,
        commit: bool,
    ) -> Result<(Translation, bool), WalkStop> {
        let mut table = self.cpu.cr3 & ADDRESS;
        let mut rights = RIGHT_USER | RIGHT_WRITE | RIGHT_EXEC;
        let mut path = [(0u64, 0u64); 4];
        let mut level = 3usize;
        let (leaf, size_bits) = loop {
            let at = table + (va >> (12 + 9 * level) & 511) * 8;
            let entry = self.read_entry(at, commit);
            path[level] = (at, entry);
            if entry & P == 0 {
                return Err(WalkStop::Denied { present: false });
            }
            let large = entry & PS != 0 && (level == 1 || level == 2);
            let mut reserved = RESERVED;
            if self.cpu.efer & EFER_NXE == 0 {
                reserved |= NX;
            }
            if level == 3 {
                reserved |= PS;
            }
            if large {
                // Bit 12 is PAT in a large entry; the other low address bits must be zero.
                reserved |= ((1 << (12 + 9 * level)) - 1) & ADDRESS & !(1 << 12);
            }
            if entry & reserved != 0 {
                return Err(WalkStop::Reserved);
            }
            if entry & US == 0 {
                rights &= !RIGHT_USER;
            }
            if entry & RW == 0 {
                rights &= !RIGHT_WRITE;
            }
            if entry & NX != 0 {
                rights &= !RIGHT_EXEC;
            }
            if large || level == 0 {
                break (entry, 12 + 9 * level);
            }
            table = entry & ADDRESS;
            level -= 1;
        };
        if !self.allows(rights, access, user) {
            return Err(WalkStop::Denied { present: true });
        }
        if leaf & G != 0 && self.cpu.cr4 & crate::cpu::state::CR4_PGE != 0 {
            rights |= RIGHT_GLOBAL;
        }
        if access == Access::Write || leaf & D != 0 {
            rights |= RIGHT_DIRTY;
        }
        if commit {
            for (depth, &(at, entry)) in path.iter().enumerate().skip(level) {
                let mut new = entry | A;
                if depth == level && access == Access::Write {
                    new |= D;
                }
                if new != entry {
                    self.write_entry(at, new);
                }
            }
        }
        let inside = (1u64 << size_bits) - 1;
        let gpa = leaf & ADDRESS & !inside | va & inside;
        let t = Translation {
            vpn: va / PAGE_SIZE,
            gpfn: gpa / PAGE_SIZE,
            rights,
        };
        Ok((t, size_bits > 12))
    }

    /// Where a linear address points right now, changing nothing.
    pub fn probe(&mut self, va: u64) -> Option<Gpa> {
        if self.cpu.cr0 & CR0_PG == 0 {
            return Some(Gpa(va));
        }
        if !is_canonical(va) {
            return None;
        }
        let (t, _) = self.walk(va, Access::Read, false, false).ok()?;
        Some(Gpa((t.gpfn * PAGE_SIZE) | (va % PAGE_SIZE)))
    }

    fn read_entry(&mut self, gpa: u64, commit: bool) -> u64 {
        match self.ram.offset(Gpa(gpa)) {
            Some(offset) => {
                if commit {
                    self.touch(offset, Toucher::Walk);
                }
                let mut bytes = [0; 8];
                bytes.copy_from_slice(&self.ram.bytes()[offset..offset + 8]);
                u64::from_le_bytes(bytes)
            }
            // Absent memory reads as not present.
            None => 0,
        }
    }

    fn write_entry(&mut self, gpa: u64, value: u64) {
        if let Some(offset) = self.ram.offset(Gpa(gpa)) {
            self.store_ram(offset, &value.to_le_bytes(), Toucher::Walk);
        }
    }
}
