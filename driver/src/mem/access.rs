//! The accesses instructions make: the fast path through the TLB, and everything it leaves over:
//! misses, page crossings, device memory, pages with code.

use super::addr::{Gpa, PAGE_MASK, PAGE_SIZE};
use super::paging::{Access, is_canonical};
use super::ppram::Toucher;
use super::tlb::{FastRights, RIGHT_DIRTY, RIGHT_GLOBAL};
use crate::core::Core;
use crate::cpu::fault::Trap;
use crate::observer::Observation;
use crate::x86::word::Word;

/// Where an access goes after translation.
#[derive(Clone, Copy, Debug)]
enum Target {
    Ram(usize),
    Device(Gpa),
}

impl Core {
    /// Loads from a linear address.
    #[inline(always)]
    pub fn read<W: Word>(&mut self, va: u64) -> Result<W, Trap> {
        let entry = self.tlb.fast(self.user, va);
        if va.wrapping_sub(entry.read_tag) <= PAGE_SIZE - W::BYTES {
            let at = va.wrapping_add(entry.delta) as usize;
            if let Some(bytes) = self.ram.bytes().get(at..at + W::BYTES as usize) {
                return Ok(W::load(bytes));
            }
        }
        self.read_slow(va, self.user != 0)
    }

    /// Stores to a linear address.
    #[inline(always)]
    pub fn write<W: Word>(&mut self, va: u64, value: W) -> Result<(), Trap> {
        let entry = self.tlb.fast(self.user, va);
        if va.wrapping_sub(entry.write_tag) <= PAGE_SIZE - W::BYTES {
            let at = va.wrapping_add(entry.delta) as usize;
            if let Some(bytes) = self.ram.bytes_mut().get_mut(at..at + W::BYTES as usize) {
                value.store(bytes);
                return Ok(());
            }
        }
        self.write_slow(va, value, self.user != 0)
    }

    /// The load half of a read-modify-write: faults as a write would, so that nothing is changed
    /// before the store has become certain.
    #[inline(always)]
    pub fn read_for_write<W: Word>(&mut self, va: u64) -> Result<W, Trap> {
        let entry = self.tlb.fast(self.user, va);
        if va.wrapping_sub(entry.write_tag) <= PAGE_SIZE - W::BYTES {
            let at = va.wrapping_add(entry.delta) as usize;
            if let Some(bytes) = self.ram.bytes().get(at..at + W::BYTES as usize) {
                return Ok(W::load(bytes));
            }
        }
        self.check_write(va, W::BYTES)?;
        self.read_slow(va, self.user != 0)
    }

    /// Makes sure that a store of `size` bytes would not fault.
    #[inline(never)]
    pub fn check_write(&mut self, va: u64, size: u64) -> Result<(), Trap> {
        let user = self.user != 0;
        self.check_canonical(va, size)?;
        self.target(va, Access::Write, user)?;
        let last_page = va.wrapping_add(size - 1) & !PAGE_MASK;
        if last_page != va & !PAGE_MASK {
            self.target(last_page, Access::Write, user)?;
        }
        Ok(())
    }

    /// A supervisor load whatever the privilege: descriptor tables, the TSS, interrupt stacks.
    pub fn read_system<W: Word>(&mut self, va: u64) -> Result<W, Trap> {
        self.read_slow(va, false)
    }

    /// A supervisor store whatever the privilege.
    pub fn write_system<W: Word>(&mut self, va: u64, value: W) -> Result<(), Trap> {
        self.write_slow(va, value, false)
    }

    fn target(&mut self, va: u64, access: Access, user: bool) -> Result<Target, Trap> {
        if !is_canonical(va) {
            return Err(self.not_canonical(va));
        }
        let t = match self.translate(va, access, user) {
            Ok(t) => t,
            Err(fault) => return Err(self.raise(fault)),
        };
        let gpa = Gpa((t.gpfn * PAGE_SIZE) | (va & PAGE_MASK));
        let Some(offset) = self.ram.offset(gpa) else {
            return Ok(Target::Device(gpa));
        };
        let toucher = if access == Access::Write {
            Toucher::Write
        } else {
            Toucher::Read
        };
        self.touch(offset, toucher);
        if access == Access::Write {
            self.ram.mark_dirty(offset);
        }
        let writable = t.rights & RIGHT_DIRTY != 0
            && self.allows(t.rights, Access::Write, user)
            && self.ram.fast_writable(offset);
        let watched = self.is_watched(va, gpa.0) || self.has_data_breakpoint(va);
        let rights = FastRights {
            readable: !watched,
            writable: writable && !watched,
            global: t.rights & RIGHT_GLOBAL != 0,
        };
        self.tlb.fill_fast(usize::from(user), va, offset, rights);
        if let Some(trail) = &mut self.trail
            && (access == Access::Write || rights.writable)
        {
            trail.written.note(va);
        }
        Ok(Target::Ram(offset))
    }

    #[inline(never)]
    fn read_slow<W: Word>(&mut self, va: u64, user: bool) -> Result<W, Trap> {
        self.check_canonical(va, W::BYTES)?;
        let first = self.target(va, Access::Read, user)?;
        let in_first = PAGE_SIZE - (va & PAGE_MASK);
        if self.armed.any() {
            self.note_data_breakpoint(va, W::BYTES, false);
        }
        if W::BYTES <= in_first {
            if self.watches.is_some()
                && let Target::Ram(at) = first
            {
                self.note_access(va, at, W::BYTES as usize, None);
            }
            return match first {
                Target::Ram(at) => Ok(W::load(&self.ram.bytes()[at..at + W::BYTES as usize])),
                Target::Device(gpa) => Ok(W::low(self.device_read(gpa, W::BYTES as u8))),
            };
        }
        let second = self.target(va.wrapping_add(in_first), Access::Read, user)?;
        if self.watches.is_some() {
            if let Target::Ram(at) = first {
                self.note_access(va, at, in_first as usize, None);
            }
            if let Target::Ram(at) = second {
                let rest = (W::BYTES - in_first) as usize;
                self.note_access(va.wrapping_add(in_first), at, rest, None);
            }
        }
        let mut bytes = [0u8; 8];
        for i in 0..W::BYTES {
            bytes[i as usize] = match if i < in_first { first } else { second } {
                Target::Ram(at) if i < in_first => self.ram.bytes()[at + i as usize],
                Target::Ram(at) => self.ram.bytes()[at + (i - in_first) as usize],
                Target::Device(_) => 0xff,
            };
        }
        Ok(W::load(&bytes))
    }

    #[inline(never)]
    fn write_slow<W: Word>(&mut self, va: u64, value: W, user: bool) -> Result<(), Trap> {
        self.check_canonical(va, W::BYTES)?;
        let first = self.target(va, Access::Write, user)?;
        let in_first = PAGE_SIZE - (va & PAGE_MASK);
        let bytes = value.zext().to_le_bytes();
        if self.armed.any() {
            self.note_data_breakpoint(va, W::BYTES, true);
        }
        if W::BYTES <= in_first {
            if self.watches.is_some()
                && let Target::Ram(at) = first
            {
                let new = &bytes[..W::BYTES as usize];
                self.note_access(va, at, new.len(), Some(new));
            }
            match first {
                Target::Ram(at) => self.store_ram(at, &bytes[..W::BYTES as usize], Toucher::Write),
                Target::Device(gpa) => self.device_write(gpa, W::BYTES as u8, value.zext()),
            }
            return Ok(());
        }
        let second = self.target(va.wrapping_add(in_first), Access::Write, user)?;
        let split = in_first as usize;
        if self.watches.is_some() {
            if let Target::Ram(at) = first {
                self.note_access(va, at, split, Some(&bytes[..split]));
            }
            if let Target::Ram(at) = second {
                let new = &bytes[split..W::BYTES as usize];
                self.note_access(va.wrapping_add(in_first), at, new.len(), Some(new));
            }
        }
        if let Target::Ram(at) = first {
            self.store_ram(at, &bytes[..split], Toucher::Write);
        }
        if let Target::Ram(at) = second {
            self.store_ram(at, &bytes[split..W::BYTES as usize], Toucher::Write);
        }
        Ok(())
    }

    /// Notes the first touch of a page.
    #[inline]
    pub(crate) fn touch(&mut self, offset: usize, toucher: Toucher) {
        if self.ram.touch(offset) {
            let gpfn = self.ram.gpa(offset).page();
            let rip = self.insn_rip();
            self.observe(|| Observation::PpramAlloc {
                gpfn,
                access: toucher as u8,
                rip,
            });
        }
    }

    /// The one place that changes RAM outside the fast path: allocates, notes the write, and throws
    /// away code that was decoded from these bytes. All in one page.
    pub(crate) fn store_ram(&mut self, offset: usize, bytes: &[u8], toucher: Toucher) {
        self.touch(offset, toucher);
        self.ram.mark_dirty(offset);
        let granules = self.ram.page(offset).code_granules;
        if granules != 0 {
            let first = (offset as u64 & PAGE_MASK) / 64;
            let last = ((offset + bytes.len() - 1) as u64 & PAGE_MASK) / 64;
            let written = (u64::MAX << first) & (u64::MAX >> (63 - last));
            if granules & written != 0 {
                self.code_writes.push((offset / PAGE_SIZE as usize) as u32);
                self.leave();
            }
        }
        self.ram.bytes_mut()[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Copies from guest-virtual memory without any effect on the guest; false where unmapped.
    pub fn peek(&mut self, va: u64, out: &mut [u8]) -> bool {
        let mut done = 0;
        while done < out.len() {
            let at = va.wrapping_add(done as u64);
            let Some(offset) = self.probe(at).and_then(|gpa| self.ram.offset(gpa)) else {
                return false;
            };
            let n = (out.len() - done).min((PAGE_SIZE - (at & PAGE_MASK)) as usize);
            out[done..done + n].copy_from_slice(&self.ram.bytes()[offset..offset + n]);
            done += n;
        }
        true
    }

    /// Copies pseudo-physical memory into a device's or the host's hands; false outside RAM.
    pub fn peek_physical(&self, gpa: Gpa, out: &mut [u8]) -> bool {
        for (i, byte) in out.iter_mut().enumerate() {
            let Some(offset) = self.ram.offset(Gpa(gpa.0.wrapping_add(i as u64))) else {
                return false;
            };
            *byte = self.ram.bytes()[offset];
        }
        true
    }
}

/// Whole runs of string instructions, where both pages are already in the fast layer. `false`: do
/// one element the ordinary way (which also brings the page in).
impl Core {
    /// Copies `len` bytes inside a page, as copying them upward one by one would.
    pub(crate) fn copy_in_page(&mut self, from: u64, to: u64, len: u64) -> bool {
        let (read, write) = (self.tlb.fast(self.user, from), self.tlb.fast(self.user, to));
        if from.wrapping_sub(read.read_tag) > PAGE_SIZE - len
            || to.wrapping_sub(write.write_tag) > PAGE_SIZE - len
        {
            return false;
        }
        let from = from.wrapping_add(read.delta) as usize;
        let to = to.wrapping_add(write.delta) as usize;
        if to.wrapping_sub(from) < len as usize {
            // Each element would read what an earlier one wrote.
            return false;
        }
        self.ram
            .bytes_mut()
            .copy_within(from..from + len as usize, to);
        true
    }

    /// Fills `count` elements inside a page.
    pub(crate) fn fill_in_page<W: Word>(&mut self, to: u64, value: W, count: u64) -> bool {
        let entry = self.tlb.fast(self.user, to);
        let len = count * W::BYTES;
        if to.wrapping_sub(entry.write_tag) > PAGE_SIZE - len {
            return false;
        }
        let at = to.wrapping_add(entry.delta) as usize;
        let bytes = &mut self.ram.bytes_mut()[at..at + len as usize];
        if value == W::low(0) {
            bytes.fill(0);
        } else {
            for element in bytes.chunks_exact_mut(W::BYTES as usize) {
                value.store(element);
            }
        }
        true
    }
}
