//! Interrupts and exceptions: the way into a handler, and IRET out of it (SDM vol. 3, 6.14).

use super::fault::{Fault, Trap, TrapCause, vector};
use super::flags;
use super::segment::flat;
use super::state::seg;
use crate::core::Core;
use crate::mem::paging::is_canonical;
use crate::observer::Observation;

/// What is being delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// An exception, with its error code.
    Exception(Option<u32>),
    /// INT n, INT3, INTO: the gate's privilege is checked.
    Software,
    /// An interrupt from the LAPIC.
    External,
}

/// The machine cannot go on: a fault while delivering a double fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TripleFault;

const GATE_INTERRUPT: u64 = 0xe;
const GATE_TRAP: u64 = 0xf;

impl Core {
    /// Delivers an exception, and what follows if that fails. RIP must be exact.
    pub(crate) fn deliver_exception(&mut self, fault: Fault) -> Result<(), TripleFault> {
        let mut fault = fault;
        loop {
            self.observe_exception(&fault);
            if fault.vector == vector::PF {
                self.cpu.cr2 = fault.address;
            }
            if fault.vector == vector::DB {
                // Delivery of #DB disables further breakpoints by general detect.
                self.cpu.dr[7] &= !(1 << 13);
            }
            match self.enter_handler(fault.vector, Source::Exception(fault.error)) {
                Ok(()) => return Ok(()),
                Err(Trap) => {
                    let Some(TrapCause::Fault(second)) = self.trap.take() else {
                        return Err(TripleFault);
                    };
                    fault = match (fault.vector, second.vector) {
                        (vector::DF, _) => return Err(TripleFault),
                        (vector::PF, v) if v == vector::PF || Fault::contributory(v) => {
                            self.cpu.cr2 = if v == vector::PF {
                                second.address
                            } else {
                                self.cpu.cr2
                            };
                            Fault::coded(vector::DF, 0)
                        }
                        (first, v) if Fault::contributory(first) && Fault::contributory(v) => {
                            Fault::coded(vector::DF, 0)
                        }
                        _ => second,
                    };
                }
            }
        }
    }

    /// Delivers a software interrupt, with RIP behind the instruction. If its gate refuses, that
    /// is a fault of the instruction at `rip`: false.
    pub(crate) fn deliver_software(&mut self, v: u8, rip: u64) -> Result<bool, TripleFault> {
        match self.enter_handler(v, Source::Software) {
            Ok(()) => Ok(true),
            Err(Trap) => match self.trap.take() {
                Some(TrapCause::Fault(fault)) => {
                    self.cpu.rip = rip;
                    self.deliver_exception(fault).map(|()| false)
                }
                _ => Err(TripleFault),
            },
        }
    }

    /// Delivers an external interrupt; a fault on the way is delivered instead.
    pub(crate) fn deliver(&mut self, v: u8, source: Source) -> Result<(), TripleFault> {
        match self.enter_handler(v, source) {
            Ok(()) => Ok(()),
            Err(Trap) => match self.trap.take() {
                Some(TrapCause::Fault(fault)) => self.deliver_exception(fault),
                _ => Err(TripleFault),
            },
        }
    }

    fn observe_exception(&mut self, fault: &Fault) {
        let (rip, cpl) = (self.cpu.rip, self.cpu.cpl);
        if fault.vector == vector::PF {
            let (gva, error) = (fault.address, fault.error.unwrap_or(0));
            self.observe(|| Observation::GuestPf {
                gva,
                gpa: 0,
                error,
                rip,
                cpl,
            });
        } else {
            let (v, error) = (fault.vector, fault.error.unwrap_or(0));
            self.observe(|| Observation::Exception {
                vector: v,
                error,
                rip,
                cpl,
            });
        }
    }

    /// Through the gate: checks, stack switch, frame. Changes nothing if it fails.
    fn enter_handler(&mut self, v: u8, source: Source) -> Result<(), Trap> {
        let external = u32::from(source != Source::Software);
        let idt_error = u32::from(v) << 3 | 2 | external;
        let at = u64::from(v) * 16;
        if at + 15 > u64::from(self.cpu.idtr.limit) {
            return Err(self.raise(Fault::gp(idt_error)));
        }
        let lo = self.read_system::<u64>(self.cpu.idtr.base.wrapping_add(at))?;
        let hi = self.read_system::<u64>(self.cpu.idtr.base.wrapping_add(at + 8))?;
        let kind = lo >> 40 & 0x1f;
        if kind != GATE_INTERRUPT && kind != GATE_TRAP {
            return Err(self.raise(Fault::gp(idt_error)));
        }
        if source == Source::Software && u64::from(self.cpu.cpl) > lo >> 45 & 3 {
            return Err(self.raise(Fault::gp(idt_error)));
        }
        if lo >> 47 & 1 == 0 {
            return Err(self.raise(Fault::coded(vector::NP, idt_error)));
        }
        let handler = lo & 0xffff | lo >> 32 & 0xffff_0000 | hi << 32;
        let selector = (lo >> 16 & 0xffff) as u16;
        let ist = lo >> 32 & 7;
        let error = u32::from(selector & !3) | external;
        if selector & !3 == 0 {
            return Err(self.raise(Fault::gp(external)));
        }
        let (mut cs, raw, cs_at) = self.descriptor(selector, vector::GP)?;
        if !cs.is_code() || cs.dpl() > self.cpu.cpl || !cs.is_long() {
            return Err(self.raise(Fault::gp(error)));
        }
        if !cs.is_present() {
            return Err(self.raise(Fault::coded(vector::NP, error)));
        }
        if !is_canonical(handler) {
            return Err(self.raise(Fault::gp(external)));
        }
        let new_cpl = if cs.is_conforming() {
            self.cpu.cpl
        } else {
            cs.dpl()
        };
        let stack_switch = new_cpl < self.cpu.cpl;
        let mut sp = if ist != 0 {
            self.tss_stack(0x24 + 8 * (ist - 1))?
        } else if stack_switch {
            self.tss_stack(4 + 8 * u64::from(new_cpl))?
        } else {
            self.cpu.regs[4]
        };
        if !is_canonical(sp) {
            return Err(self.raise(Fault::coded(vector::SS, external)));
        }
        sp &= !15;
        let saved_flags = self.cpu.rflags();
        // RF in the image makes a faulting instruction run once past an instruction breakpoint.
        let image = match source {
            Source::Exception(_) if v != vector::DB && v != vector::BP => saved_flags | flags::RF,
            _ => saved_flags,
        };
        let mut frame = [
            u64::from(self.cpu.segs[seg::SS].selector),
            self.cpu.regs[4],
            image,
            u64::from(self.cpu.segs[seg::CS].selector),
            self.cpu.rip,
            0,
        ];
        let mut words = 5;
        if let Source::Exception(Some(code)) = source {
            frame[5] = u64::from(code);
            words = 6;
        }
        let bottom = sp.wrapping_sub(8 * words as u64);
        // The pushes are made with the new privilege; they must all succeed or none.
        let old_cpl = self.cpu.cpl;
        self.set_cpl(new_cpl);
        let mut pushed = self.check_write(bottom, 8 * words as u64);
        for (i, word) in frame.iter().take(words).enumerate() {
            if pushed.is_ok() {
                pushed = self.write(sp.wrapping_sub(8 * (i as u64 + 1)), *word);
            }
        }
        if pushed.is_err() {
            self.set_cpl(old_cpl);
            return Err(Trap);
        }
        if let Err(trap) = self.mark_accessed(raw, cs_at) {
            self.set_cpl(old_cpl);
            return Err(trap);
        }
        cs.selector = selector & !3 | u16::from(new_cpl);
        self.cpu.segs[seg::CS] = cs;
        if stack_switch {
            self.cpu.segs[seg::SS] = flat::data(u16::from(new_cpl), u16::from(new_cpl));
            self.cpu.segs[seg::SS].selector = u16::from(new_cpl);
        }
        self.cpu.regs[4] = bottom;
        self.cpu.rip = handler;
        let mut cleared = flags::TF | flags::NT | flags::RF | flags::VM;
        if kind == GATE_INTERRUPT {
            cleared |= flags::IF;
        }
        self.cpu.system_flags &= !cleared;
        self.cpu.shadow = false;
        self.cpu.halted = false;
        self.attention = true;
        Ok(())
    }

    fn tss_stack(&mut self, offset: u64) -> Result<u64, Trap> {
        let tss = self.cpu.tr;
        if offset + 7 > u64::from(tss.limit) {
            return Err(self.raise(Fault::coded(vector::TS, u32::from(tss.selector & !3))));
        }
        self.read_system(tss.base.wrapping_add(offset))
    }

    /// IRET in long mode, operand width `bytes` (2, 4 or 8).
    pub(crate) fn iret(&mut self, bytes: u64) -> Result<(), Trap> {
        if self.cpu.system_flags & flags::NT != 0 {
            return Err(self.raise(Fault::gp(0)));
        }
        let from_long = self.cpu.segs[seg::CS].is_long();
        let sp = self.cpu.regs[4];
        let slot = |core: &mut Core, i: u64| -> Result<u64, Trap> {
            let at = core.stack_linear(sp.wrapping_add(i * bytes));
            match bytes {
                8 => core.read::<u64>(at),
                4 => core.read::<u32>(at).map(u64::from),
                _ => core.read::<u16>(at).map(u64::from),
            }
        };
        let rip = slot(self, 0)?;
        let selector = slot(self, 1)? as u16;
        let image = slot(self, 2)?;
        let new_cpl = (selector & 3) as u8;
        if new_cpl < self.cpu.cpl {
            return Err(self.raise(Fault::gp(u32::from(selector & !3))));
        }
        let cs = self.code_segment(selector, new_cpl, true)?;
        let outer = new_cpl > self.cpu.cpl;
        let mut new_sp = sp.wrapping_add(3 * bytes);
        let mut ss = self.cpu.segs[seg::SS];
        if outer || from_long {
            new_sp = slot(self, 3)?;
            let stack_selector = slot(self, 4)? as u16;
            ss = self.return_stack_segment(stack_selector, new_cpl, cs.is_long())?;
        }
        if cs.is_long() && !is_canonical(rip) || !cs.is_long() && rip > u64::from(cs.limit) {
            return Err(self.raise(Fault::gp(0)));
        }
        let cpl = self.cpu.cpl;
        let mut writable =
            flags::STATUS | flags::TF | flags::DF | flags::NT | flags::RF | flags::AC | flags::ID;
        if cpl == 0 {
            writable |= flags::IOPL;
        }
        if u64::from(cpl) <= (self.cpu.system_flags & flags::IOPL) >> 12 {
            writable |= flags::IF;
        }
        if bytes == 2 {
            writable &= 0xffff;
        }
        let old = self.cpu.rflags();
        self.cpu.set_rflags(old & !writable | image & writable);
        self.cpu.segs[seg::CS] = cs;
        self.cpu.segs[seg::SS] = ss;
        // A 16-bit stack segment gets 16 bits of the pointer; bits 16 to 31 leak from the handler.
        self.set_sp(new_sp);
        self.cpu.rip = rip;
        self.cpu.nmi_blocked = false;
        self.set_cpl(new_cpl);
        if outer {
            self.drop_privileged_segments();
            self.returned_to_user();
        }
        self.leave();
        Ok(())
    }
}
