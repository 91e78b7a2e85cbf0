//! Descriptors and segment registers (Intel SDM vol. 3, chapters 3 and 5), as far as long mode
//! looks at them.

use super::fault::{Fault, Trap, vector};
use super::state::{Segment, seg};
use crate::core::Core;

const ATTR_TYPE: u16 = 0xf;
const ATTR_S: u16 = 1 << 4;
const ATTR_P: u16 = 1 << 7;
const ATTR_LONG: u16 = 1 << 13;
const ATTR_BIG: u16 = 1 << 14;
const ATTR_G: u16 = 1 << 15;
const TYPE_CODE: u16 = 1 << 3;
const TYPE_CONFORMING: u16 = 1 << 2;
const TYPE_RW: u16 = 1 << 1;
const TYPE_ACCESSED: u16 = 1 << 0;

/// The flat segments SYSCALL and its relatives load without looking at memory.
pub mod flat {
    use super::super::state::Segment;

    /// 64-bit code.
    pub const fn code64(selector: u16, dpl: u16) -> Segment {
        Segment {
            selector,
            attr: 0xa09b | dpl << 5,
            limit: u32::MAX,
            base: 0,
        }
    }

    /// 32-bit code.
    pub const fn code32(selector: u16, dpl: u16) -> Segment {
        Segment {
            selector,
            attr: 0xc09b | dpl << 5,
            limit: u32::MAX,
            base: 0,
        }
    }

    /// Data.
    pub const fn data(selector: u16, dpl: u16) -> Segment {
        Segment {
            selector,
            attr: 0xc093 | dpl << 5,
            limit: u32::MAX,
            base: 0,
        }
    }
}

impl Segment {
    /// Descriptor privilege level.
    pub const fn dpl(&self) -> u8 {
        (self.attr >> 5 & 3) as u8
    }

    /// A code segment rather than data.
    pub const fn is_code(&self) -> bool {
        self.attr & ATTR_S != 0 && self.attr & TYPE_CODE != 0
    }

    /// A conforming code segment.
    pub const fn is_conforming(&self) -> bool {
        self.is_code() && self.attr & TYPE_CONFORMING != 0
    }

    /// Present.
    pub const fn is_present(&self) -> bool {
        self.attr & ATTR_P != 0
    }

    /// From the two halves of a descriptor.
    const fn from_descriptor(selector: u16, raw: u64) -> Segment {
        let attr = (raw >> 40 & 0xff) as u16 | ((raw >> 52 & 0xf) as u16) << 12;
        let mut limit = (raw & 0xffff | raw >> 32 & 0xf_0000) as u32;
        if attr & ATTR_G != 0 {
            limit = limit << 12 | 0xfff;
        }
        let base = raw >> 16 & 0xff_ffff | raw >> 32 & 0xff00_0000;
        Segment {
            selector,
            attr,
            limit,
            base,
        }
    }
}

impl Core {
    /// Reads the descriptor a selector names. `fault` is the vector of a selector out of bounds.
    pub(crate) fn descriptor(
        &mut self,
        selector: u16,
        fault: u8,
    ) -> Result<(Segment, u64, u64), Trap> {
        let error = u32::from(selector & !3);
        let index = u64::from(selector & !7);
        let (base, limit) = if selector & 4 == 0 {
            (self.cpu.gdtr.base, u64::from(self.cpu.gdtr.limit))
        } else {
            (self.cpu.ldtr.base, u64::from(self.cpu.ldtr.limit))
        };
        if selector & 4 != 0 && self.cpu.ldtr.selector & !3 == 0 || index + 7 > limit {
            return Err(self.raise(Fault::coded(fault, error)));
        }
        let at = base.wrapping_add(index);
        let raw = self.read_system::<u64>(at)?;
        Ok((Segment::from_descriptor(selector, raw), raw, at))
    }

    /// Sets the accessed bit of a descriptor, as loading it does.
    pub(crate) fn mark_accessed(&mut self, raw: u64, at: u64) -> Result<(), Trap> {
        const ACCESSED: u64 = (TYPE_ACCESSED as u64) << 40;
        if raw & ACCESSED == 0 {
            self.write_system::<u64>(at, raw | ACCESSED)?;
        }
        Ok(())
    }

    /// MOV or POP to ES, SS, DS, FS, GS.
    pub(crate) fn load_segment(&mut self, which: usize, selector: u16) -> Result<(), Trap> {
        let error = u32::from(selector & !3);
        let cpl = self.cpu.cpl;
        let rpl = (selector & 3) as u8;
        if selector & !3 == 0 {
            if which == seg::SS {
                // A null SS is allowed in 64-bit mode below privilege 3.
                let long = self.cpu.segs[seg::CS].is_long();
                if !long || cpl == 3 || rpl != cpl {
                    return Err(self.raise(Fault::gp(0)));
                }
            }
            self.cpu.segs[which] = Segment {
                selector,
                ..Segment::default()
            };
            if which == seg::SS {
                self.cpu.segs[which].attr = u16::from(cpl) << 5;
            }
            return Ok(());
        }
        let (mut s, raw, at) = self.descriptor(selector, vector::GP)?;
        let ok = if which == seg::SS {
            s.attr & ATTR_S != 0
                && s.attr & TYPE_CODE == 0
                && s.attr & TYPE_RW != 0
                && rpl == cpl
                && s.dpl() == cpl
        } else {
            s.attr & ATTR_S != 0
                && (s.attr & TYPE_CODE == 0 || s.attr & TYPE_RW != 0)
                && (s.is_conforming() || (rpl <= s.dpl() && cpl <= s.dpl()))
        };
        if !ok {
            return Err(self.raise(Fault::gp(error)));
        }
        if !s.is_present() {
            let v = if which == seg::SS {
                vector::SS
            } else {
                vector::NP
            };
            return Err(self.raise(Fault::coded(v, error)));
        }
        self.mark_accessed(raw, at)?;
        s.attr |= TYPE_ACCESSED;
        self.cpu.segs[which] = s;
        Ok(())
    }

    /// Checks a code segment for a far transfer to privilege `cpl` and returns it ready to load.
    /// `outer`: a return, which may go outward.
    pub(crate) fn code_segment(
        &mut self,
        selector: u16,
        new_cpl: u8,
        is_return: bool,
    ) -> Result<Segment, Trap> {
        let error = u32::from(selector & !3);
        if selector & !3 == 0 {
            return Err(self.raise(Fault::gp(0)));
        }
        let (mut s, raw, at) = self.descriptor(selector, vector::GP)?;
        let privilege = if s.is_conforming() {
            s.dpl() <= new_cpl
        } else if is_return {
            s.dpl() == new_cpl
        } else {
            s.dpl() == new_cpl && (selector & 3) as u8 <= new_cpl
        };
        let both = s.attr & (ATTR_LONG | ATTR_BIG) == ATTR_LONG | ATTR_BIG;
        if !s.is_code() || !privilege || both {
            return Err(self.raise(Fault::gp(error)));
        }
        if !s.is_present() {
            return Err(self.raise(Fault::coded(vector::NP, error)));
        }
        self.mark_accessed(raw, at)?;
        s.attr |= TYPE_ACCESSED;
        s.selector = selector & !3 | u16::from(new_cpl);
        Ok(s)
    }

    /// Checks a stack segment for a return to privilege `cpl`.
    pub(crate) fn return_stack_segment(
        &mut self,
        selector: u16,
        cpl: u8,
        to_long: bool,
    ) -> Result<Segment, Trap> {
        let error = u32::from(selector & !3);
        if selector & !3 == 0 {
            if to_long && cpl != 3 {
                return Ok(Segment {
                    selector,
                    attr: u16::from(cpl) << 5,
                    limit: 0,
                    base: 0,
                });
            }
            return Err(self.raise(Fault::gp(0)));
        }
        let (mut s, raw, at) = self.descriptor(selector, vector::GP)?;
        let writable = s.attr & ATTR_S != 0 && s.attr & TYPE_CODE == 0 && s.attr & TYPE_RW != 0;
        if (selector & 3) as u8 != cpl || s.dpl() != cpl || !writable {
            return Err(self.raise(Fault::gp(error)));
        }
        if !s.is_present() {
            return Err(self.raise(Fault::coded(vector::SS, error)));
        }
        self.mark_accessed(raw, at)?;
        s.attr |= TYPE_ACCESSED;
        Ok(s)
    }

    /// On a return to an outer privilege, data segments it may not use become null, and null
    /// selectors lose their privilege bits (SDM vol. 2, IRET).
    pub(crate) fn drop_privileged_segments(&mut self) {
        let cpl = self.cpu.cpl;
        for which in [seg::ES, seg::DS, seg::FS, seg::GS] {
            let s = &mut self.cpu.segs[which];
            if s.selector & !3 == 0 {
                // The base stays: FS and GS of a process are null with a base.
                s.selector = 0;
            } else if s.dpl() < cpl && !s.is_conforming() {
                *s = Segment::default();
            }
        }
    }

    /// LLDT and LTR: a 16-byte system descriptor.
    pub(crate) fn system_segment(&mut self, selector: u16, types: &[u16]) -> Result<Segment, Trap> {
        let error = u32::from(selector & !3);
        if selector & 4 != 0 {
            return Err(self.raise(Fault::gp(error)));
        }
        let (mut s, _, at) = self.descriptor(selector, vector::GP)?;
        if u64::from(selector & !7) + 15 > u64::from(self.cpu.gdtr.limit)
            || s.attr & ATTR_S != 0
            || !types.contains(&(s.attr & ATTR_TYPE))
        {
            return Err(self.raise(Fault::gp(error)));
        }
        if !s.is_present() {
            return Err(self.raise(Fault::coded(vector::NP, error)));
        }
        let upper = self.read_system::<u64>(at.wrapping_add(8))?;
        s.base |= upper << 32;
        Ok(s)
    }

    /// Sets the privilege level and what follows from it.
    pub(crate) fn set_cpl(&mut self, cpl: u8) {
        self.cpu.cpl = cpl;
        self.user = usize::from(cpl == 3);
    }
}
