//! The local APIC of one vCPU in xAPIC mode (SDM volume 3, chapter 11).
//!
//! Six LVT entries, no x2APIC, no EOI-broadcast suppression. Interprocessor interrupts reach the
//! vCPU itself; those for other vCPUs go nowhere.

use serde::{Deserialize, Serialize};

use super::apic_timer::{ApicTimer, TimerMode};
use super::event::{BoardEvent, IrqSource};
use super::vectors::VectorSet;
use crate::layout;
use crate::tick::VirtualTime;

/// Offset of the identifier register.
pub const REG_ID: u64 = 0x20;
/// Offset of the version register.
pub const REG_VERSION: u64 = 0x30;
/// Offset of the task-priority register.
pub const REG_TPR: u64 = 0x80;
/// Offset of the processor-priority register.
pub const REG_PPR: u64 = 0xa0;
/// Offset of the end-of-interrupt register.
pub const REG_EOI: u64 = 0xb0;
/// Offset of the logical destination register.
pub const REG_LDR: u64 = 0xd0;
/// Offset of the destination format register.
pub const REG_DFR: u64 = 0xe0;
/// Offset of the spurious-interrupt vector register.
pub const REG_SVR: u64 = 0xf0;
/// Offset of the first in-service register.
pub const REG_ISR: u64 = 0x100;
/// Offset of the first trigger-mode register.
pub const REG_TMR: u64 = 0x180;
/// Offset of the first interrupt-request register.
pub const REG_IRR: u64 = 0x200;
/// Offset of the error status register.
pub const REG_ESR: u64 = 0x280;
/// Offset of the low half of the interrupt command register; a write sends.
pub const REG_ICR_LOW: u64 = 0x300;
/// Offset of the high half of the interrupt command register.
pub const REG_ICR_HIGH: u64 = 0x310;
/// Offset of the first LVT entry, the timer; thermal, performance, LINT0, LINT1, error follow.
pub const REG_LVT_TIMER: u64 = 0x320;
/// Offset of the error LVT entry.
pub const REG_LVT_ERROR: u64 = 0x370;
/// Offset of the initial-count register.
pub const REG_INITIAL_COUNT: u64 = 0x380;
/// Offset of the current-count register.
pub const REG_CURRENT_COUNT: u64 = 0x390;
/// Offset of the divide configuration register.
pub const REG_DIVIDE: u64 = 0x3e0;

/// Version 14h with the number of LVT entries less one.
const VERSION: u32 = 0x14 | 5 << 16;
/// Mask bit of an LVT entry.
const LVT_MASKED: u32 = 1 << 16;
/// Writable bits of the LVT entries: timer, thermal, performance, LINT0, LINT1, error.
const LVT_WRITABLE: [u32; 6] = [0x7_00ff, 0x1_07ff, 0x1_07ff, 0x1_a7ff, 0x1_a7ff, 0x1_00ff];
/// Index of the timer in the LVT.
const TIMER: usize = 0;
/// Index of the error entry in the LVT.
const ERROR: usize = 5;
/// Software-enable bit of the spurious-interrupt vector register.
const SVR_ENABLED: u32 = 1 << 8;
/// ESR: an interrupt with a vector below 16 was sent.
const ESR_SEND_ILLEGAL: u32 = 1 << 5;
/// ESR: an interrupt with a vector below 16 was received.
const ESR_RECEIVE_ILLEGAL: u32 = 1 << 6;
/// ESR: an access to a reserved register.
const ESR_ILLEGAL_REGISTER: u32 = 1 << 7;
/// IA32_APIC_BASE: this is the boot processor.
const BASE_BSP: u64 = 1 << 8;
/// IA32_APIC_BASE: the APIC is enabled.
const BASE_ENABLED: u64 = 1 << 11;

/// State of the local APIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lapic {
    /// IA32_APIC_BASE.
    base: u64,
    id: u8,
    tpr: u8,
    ldr: u32,
    dfr: u32,
    svr: u32,
    isr: VectorSet,
    tmr: VectorSet,
    irr: VectorSet,
    /// Errors the guest sees.
    esr: u32,
    /// Errors since the last write to the ESR.
    esr_pending: u32,
    icr: [u32; 2],
    lvt: [u32; 6],
    timer: ApicTimer,
    nmi: bool,
}

impl Lapic {
    /// A local APIC after power-on: enabled, software-disabled, everything masked.
    pub fn new(id: u8) -> Self {
        Self {
            base: layout::LAPIC_BASE.0 | BASE_ENABLED | if id == 0 { BASE_BSP } else { 0 },
            id,
            tpr: 0,
            ldr: 0,
            dfr: u32::MAX,
            svr: 0xff,
            isr: VectorSet::default(),
            tmr: VectorSet::default(),
            irr: VectorSet::default(),
            esr: 0,
            esr_pending: 0,
            icr: [0; 2],
            lvt: [LVT_MASKED; 6],
            timer: ApicTimer::default(),
            nmi: false,
        }
    }

    /// Everything but the identity and IA32_APIC_BASE back to power-on state.
    fn reset(&mut self) {
        let mut timer = self.timer.clone();
        timer.reset();
        *self = Self {
            base: self.base,
            timer,
            ..Self::new(self.id)
        };
    }

    /// IA32_APIC_BASE (MSR 1Bh).
    pub const fn base(&self) -> u64 {
        self.base
    }

    /// A write to IA32_APIC_BASE; false means #GP(0): another address, x2APIC, or a reserved bit.
    /// Clearing the enable bit resets the APIC.
    #[must_use]
    pub fn set_base(&mut self, value: u64) -> bool {
        if value & !(BASE_ENABLED | BASE_BSP) != layout::LAPIC_BASE.0 {
            return false;
        }
        self.base = (self.base & BASE_BSP) | (value & !BASE_BSP);
        if !self.enabled() {
            self.reset();
        }
        true
    }

    /// Whether the APIC answers at its address at all.
    pub const fn enabled(&self) -> bool {
        self.base & BASE_ENABLED != 0
    }

    const fn software_enabled(&self) -> bool {
        self.enabled() && self.svr & SVR_ENABLED != 0
    }

    fn timer_mode(&self) -> TimerMode {
        TimerMode::of(self.lvt[TIMER])
    }

    /// PPR: the higher of the task's and the in-service priority (SDM volume 3, 11.8.3.1).
    fn ppr(&self) -> u8 {
        let in_service = self.isr.highest().unwrap_or(0);
        if self.tpr >> 4 >= in_service >> 4 {
            self.tpr
        } else {
            in_service & 0xf0
        }
    }

    /// The vector the vCPU would be given now.
    fn deliverable(&self) -> Option<u8> {
        self.irr
            .highest()
            .filter(|vector| vector >> 4 > self.ppr() >> 4)
    }

    /// Whether a vector is above the processor priority.
    pub fn interrupt_pending(&self) -> bool {
        self.deliverable().is_some()
    }

    /// Gives a vector to the vCPU and takes it into service.
    pub fn acknowledge(&mut self) -> Option<u8> {
        let vector = self.deliverable()?;
        self.irr.assign(vector, false);
        self.isr.assign(vector, true);
        Some(vector)
    }

    /// Takes a pending non-maskable interrupt.
    pub const fn take_nmi(&mut self) -> bool {
        let pending = self.nmi;
        self.nmi = false;
        pending
    }

    /// Whether a non-maskable interrupt is pending.
    pub const fn nmi_pending(&self) -> bool {
        self.nmi
    }

    /// Latches a non-maskable interrupt.
    pub const fn raise_nmi(&mut self) {
        self.nmi = true;
    }

    /// CR8: the task-priority class.
    pub const fn cr8(&self) -> u64 {
        (self.tpr >> 4) as u64
    }

    /// A write to CR8, which clears the sub-class of the TPR; bits above 3:0 are the vCPU's #GP.
    pub const fn set_cr8(&mut self, value: u64) {
        self.tpr = ((value & 0xf) << 4) as u8;
    }

    /// Whether a message with this destination is for this APIC (SDM volume 3, 11.6.2).
    pub fn is_destination(&self, dest: u8, logical: bool) -> bool {
        if !logical {
            return dest == 0xff || dest == self.id;
        }
        let own = (self.ldr >> 24) as u8;
        if self.dfr >> 28 == 0xf {
            dest & own != 0
        } else {
            // Cluster model: the cluster matches (or all are addressed), and the member bit.
            (dest >> 4 == own >> 4 || dest >> 4 == 0xf) && dest & own & 0xf != 0
        }
    }

    /// Accepts a fixed interrupt; false if the APIC takes none (it is off, or the vector is
    /// illegal). Reports it unless it merges with one that is pending already.
    pub fn accept(
        &mut self,
        vector: u8,
        level: bool,
        (source, line): (IrqSource, u8),
        out: &mut Vec<BoardEvent>,
    ) -> bool {
        if !self.software_enabled() {
            return false;
        }
        if vector < 16 {
            self.error(ESR_RECEIVE_ILLEGAL, out);
            return false;
        }
        if !self.irr.contains(vector) {
            self.irr.assign(vector, true);
            out.push(BoardEvent::IrqForward {
                source,
                line,
                vector,
            });
        }
        self.tmr.assign(vector, level);
        true
    }

    /// Records an error and raises the error interrupt when it is the first of its kind.
    fn error(&mut self, bit: u32, out: &mut Vec<BoardEvent>) {
        if self.esr_pending & bit != 0 {
            return;
        }
        self.esr_pending |= bit;
        let entry = self.lvt[ERROR];
        // An illegal vector in the error entry itself must not report itself without end.
        if entry & LVT_MASKED == 0 && entry & 0xff >= 16 {
            self.accept(entry as u8, false, (IrqSource::ApicError, 0), out);
        }
    }

    /// When the timer next raises its interrupt.
    pub fn next_deadline(&self) -> Option<VirtualTime> {
        if self.lvt[TIMER] & LVT_MASKED != 0 {
            return None;
        }
        self.timer.deadline(self.timer_mode())
    }

    /// Fires the timer if it is due.
    pub fn advance(&mut self, now: VirtualTime, out: &mut Vec<BoardEvent>) {
        if self.next_deadline().is_some_and(|deadline| deadline <= now)
            && self.timer.settle(self.timer_mode(), now)
        {
            self.accept(self.lvt[TIMER] as u8, false, (IrqSource::Timer, 0), out);
        }
    }

    /// Brings the timer to `now` before the guest touches it, masked or not.
    fn settle_timer(&mut self, now: VirtualTime, out: &mut Vec<BoardEvent>) {
        self.advance(now, out);
        self.timer.settle(self.timer_mode(), now);
    }

    fn report_deadline(&self, out: &mut Vec<BoardEvent>) {
        if let Some(deadline) = self.timer.deadline(self.timer_mode()) {
            out.push(BoardEvent::TimerProgram { deadline });
        }
    }

    /// IA32_TSC_DEADLINE (MSR 6E0h): 0 once it has passed.
    pub fn tsc_deadline(&self, now: VirtualTime) -> u64 {
        match self.timer.deadline(TimerMode::TscDeadline) {
            Some(deadline) if deadline > now => self.timer.tsc_deadline(),
            _ => 0,
        }
    }

    /// A write to IA32_TSC_DEADLINE, in the terms of the guest's TSC.
    pub fn set_tsc_deadline(&mut self, value: u64, now: VirtualTime, out: &mut Vec<BoardEvent>) {
        self.settle_timer(now, out);
        self.timer.set_tsc_deadline(self.timer_mode(), value, now);
        if self.timer_mode() == TimerMode::TscDeadline {
            self.report_deadline(out);
        }
    }

    /// The vCPU changed its TSC offset.
    pub fn set_tsc_adjust(&mut self, value: u64, now: VirtualTime, out: &mut Vec<BoardEvent>) {
        self.settle_timer(now, out);
        self.timer.set_tsc_adjust(self.timer_mode(), value, now);
    }

    /// Reads a register; those that do not exist read 0.
    pub fn read(&mut self, offset: u64, now: VirtualTime, out: &mut Vec<BoardEvent>) -> u32 {
        let index = ((offset & 0x7f) >> 4) as usize;
        match offset {
            REG_ID => u32::from(self.id) << 24,
            REG_VERSION => VERSION,
            REG_TPR => u32::from(self.tpr),
            REG_PPR => u32::from(self.ppr()),
            REG_LDR => self.ldr,
            REG_DFR => self.dfr,
            REG_SVR => self.svr,
            REG_ISR..REG_TMR => self.isr.register(index),
            REG_TMR..REG_IRR => self.tmr.register(index),
            REG_IRR..REG_ESR => self.irr.register(index),
            REG_ESR => self.esr,
            REG_ICR_LOW => self.icr[0],
            REG_ICR_HIGH => self.icr[1],
            REG_LVT_TIMER..=REG_LVT_ERROR => self.lvt[((offset - REG_LVT_TIMER) >> 4) as usize],
            REG_INITIAL_COUNT => self.timer.initial(),
            REG_CURRENT_COUNT => self.timer.current(self.timer_mode(), now),
            REG_DIVIDE => self.timer.divide(),
            // Remote read, arbitration priority and EOI exist but have nothing to say.
            0x90 | 0xc0 | REG_EOI => 0,
            _ => {
                self.error(ESR_ILLEGAL_REGISTER, out);
                0
            }
        }
    }

    /// Writes a register. Gives the vector of an ended level interrupt, which the I/O APIC has to
    /// hear about.
    pub fn write(
        &mut self,
        offset: u64,
        value: u32,
        now: VirtualTime,
        out: &mut Vec<BoardEvent>,
    ) -> Option<u8> {
        match offset {
            REG_TPR => self.tpr = value as u8,
            REG_EOI => return self.end_of_interrupt(out),
            REG_LDR => self.ldr = value & 0xff00_0000,
            REG_DFR => self.dfr = value | 0x0fff_ffff,
            REG_SVR => {
                self.settle_timer(now, out);
                self.svr = value & 0x1ff;
                if value & SVR_ENABLED == 0 {
                    self.lvt.iter_mut().for_each(|entry| *entry |= LVT_MASKED);
                }
            }
            // A write makes visible what has accumulated (SDM volume 3, 11.5.3).
            REG_ESR => self.esr = std::mem::take(&mut self.esr_pending),
            REG_ICR_LOW => {
                self.icr[0] = value & 0x000c_cfff;
                self.send(out);
            }
            REG_ICR_HIGH => self.icr[1] = value & 0xff00_0000,
            REG_LVT_TIMER..=REG_LVT_ERROR => {
                self.settle_timer(now, out);
                self.write_lvt(((offset - REG_LVT_TIMER) >> 4) as usize, value);
            }
            REG_INITIAL_COUNT => {
                self.settle_timer(now, out);
                self.timer.set_initial(self.timer_mode(), value, now);
                if self.timer_mode() != TimerMode::TscDeadline {
                    self.report_deadline(out);
                }
            }
            REG_DIVIDE => {
                self.settle_timer(now, out);
                self.timer.set_divide(self.timer_mode(), value, now);
            }
            // Identifier, version and the other read-only registers ignore writes.
            REG_ID..=REG_CURRENT_COUNT => {}
            _ => self.error(ESR_ILLEGAL_REGISTER, out),
        }
        None
    }

    fn write_lvt(&mut self, index: usize, value: u32) {
        let before = self.timer_mode();
        let mut entry = value & LVT_WRITABLE[index];
        if self.svr & SVR_ENABLED == 0 {
            entry |= LVT_MASKED;
        }
        self.lvt[index] = entry;
        self.timer.change_mode(before, self.timer_mode());
    }

    fn end_of_interrupt(&mut self, out: &mut Vec<BoardEvent>) -> Option<u8> {
        let vector = self.isr.highest()?;
        self.isr.assign(vector, false);
        out.push(BoardEvent::IrqEoi { vector });
        self.tmr.contains(vector).then_some(vector)
    }

    /// Sends what the interrupt command register says (SDM volume 3, 11.6.1).
    fn send(&mut self, out: &mut Vec<BoardEvent>) {
        let low = self.icr[0];
        let to_self = match (low >> 18) & 3 {
            0 => self.is_destination((self.icr[1] >> 24) as u8, low & (1 << 11) != 0),
            1 | 2 => true,
            _ => false,
        };
        let vector = low as u8;
        match (low >> 8) & 7 {
            // Fixed and lowest priority.
            0 | 1 if vector < 16 => self.error(ESR_SEND_ILLEGAL, out),
            0 | 1 if to_self => {
                self.accept(vector, false, (IrqSource::Ipi, 0), out);
            }
            4 if to_self => self.nmi = true,
            // SMI, INIT and start-up: for processors that are not there.
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "lapic_tests.rs"]
mod tests;
