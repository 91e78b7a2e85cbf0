//! The board as the vCPU sees it: ports, device memory, interrupts and deadlines.

use serde::{Deserialize, Serialize};

use super::event::BoardEvent;
use super::ioapic::IoApic;
use super::lapic::Lapic;
use super::mark::MarkPort;
use super::power::Power;
use super::rtc::Rtc;
use super::serial::Serial;
use crate::layout::{self, MmioDevice, PortDevice};
use crate::mem::addr::Gpa;
use crate::tick::VirtualTime;

/// What of the board is chosen per recording.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoardConfig {
    /// Seconds since 1970 the CMOS clock shows at power-on.
    pub rtc_epoch_s: u64,
}

/// All devices and the wires between them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Board {
    /// The local APIC of the vCPU.
    pub lapic: Lapic,
    /// The I/O APIC.
    pub ioapic: IoApic,
    /// The console UART.
    pub serial: Serial,
    /// The CMOS clock.
    pub rtc: Rtc,
    /// Sleep, reset and debug exit.
    pub power: Power,
    /// The mark ports.
    pub mark: MarkPort,
    /// What happened and was not taken yet.
    outputs: Vec<BoardEvent>,
}

impl Board {
    /// The board after power-on.
    pub fn new(config: &BoardConfig) -> Self {
        Self {
            lapic: Lapic::new(0),
            ioapic: IoApic::default(),
            serial: Serial::default(),
            rtc: Rtc::new(config.rtc_epoch_s),
            power: Power::default(),
            mark: MarkPort::default(),
            outputs: Vec::new(),
        }
    }

    /// Reads a port; `None` if nobody answers, which the guest sees as all-ones.
    ///
    /// The UART and the clock are eight bits wide: a wider access is split into bytes.
    pub fn pio_read(&mut self, port: u16, size: u8, now: VirtualTime) -> Option<u32> {
        self.advance(now);
        let size = size.clamp(1, 4);
        match layout::port_owner(port)? {
            PortDevice::Power => {
                let filled = (u32::MAX >> (32 - 8 * u32::from(size))) & !0xff;
                self.power.read(port).map(|byte| filled | u32::from(byte))
            }
            PortDevice::Mark | PortDevice::Delay => None,
            device @ (PortDevice::Serial | PortDevice::Rtc) => {
                let mut value = 0;
                for index in 0..size {
                    let port = port.wrapping_add(u16::from(index));
                    let byte = self.read_byte(device, port, now);
                    value |= u32::from(byte) << (8 * index);
                }
                self.sync_serial();
                Some(value)
            }
        }
    }

    /// Reads one byte of a byte-wide device; all-ones beyond its ports.
    fn read_byte(&mut self, device: PortDevice, port: u16, now: VirtualTime) -> u8 {
        match layout::port_owner(port) {
            Some(PortDevice::Serial) if device == PortDevice::Serial => {
                self.serial.read((port - layout::SERIAL_BASE) as u8, now)
            }
            Some(PortDevice::Rtc) if device == PortDevice::Rtc => {
                self.rtc.read(port - layout::RTC_INDEX, now)
            }
            _ => 0xff,
        }
    }

    /// Writes a port; false if nobody listens.
    pub fn pio_write(&mut self, port: u16, size: u8, value: u32, now: VirtualTime) -> bool {
        self.advance(now);
        let size = size.clamp(1, 4);
        let value = value & (u32::MAX >> (32 - 8 * u32::from(size)));
        match layout::port_owner(port) {
            None => false,
            Some(PortDevice::Delay) => true,
            Some(PortDevice::Power) => self.power.write(port, value, &mut self.outputs),
            Some(device) => {
                for index in 0..size {
                    let port = port.wrapping_add(u16::from(index));
                    self.write_byte(device, port, (value >> (8 * index)) as u8, now);
                }
                true
            }
        }
    }

    /// Writes one byte of a byte-wide device; nothing happens beyond its ports.
    fn write_byte(&mut self, device: PortDevice, port: u16, byte: u8, now: VirtualTime) {
        if layout::port_owner(port) != Some(device) {
            return;
        }
        match device {
            PortDevice::Serial => {
                let written = self
                    .serial
                    .write((port - layout::SERIAL_BASE) as u8, byte, now);
                if let Some(byte) = written.transmitted {
                    self.outputs.push(BoardEvent::ConsoleOut {
                        port: layout::SERIAL_BASE,
                        byte,
                    });
                }
                if written.pulsed {
                    self.set_line(layout::SERIAL_IRQ, false);
                }
                self.sync_serial();
            }
            PortDevice::Rtc => self.rtc.write(port - layout::RTC_INDEX, byte, now),
            PortDevice::Mark => self.mark.write(byte, &mut self.outputs),
            PortDevice::Power | PortDevice::Delay => {}
        }
    }

    /// Whether a device decodes this address, so that an access is not one of memory.
    pub fn is_mmio(gpa: Gpa) -> bool {
        layout::mmio_owner(gpa).is_some()
    }

    /// Reads device memory; `None` if nobody answers, which the guest sees as all-ones.
    pub fn mmio_read(&mut self, gpa: Gpa, size: u8, now: VirtualTime) -> Option<u64> {
        self.advance(now);
        let (device, offset) = layout::mmio_owner(gpa)?;
        let (register, byte) = (offset & !0xf, offset & 0xf);
        let value = match device {
            MmioDevice::Lapic if self.lapic.enabled() => {
                self.lapic.read(register, now, &mut self.outputs)
            }
            MmioDevice::IoApic => self.ioapic.read(register),
            MmioDevice::Lapic | MmioDevice::Virtio(_) => return None,
        };
        // Registers are 32 bits on boundaries of 16 bytes; the rest reads 0.
        let value = if byte < 4 {
            u64::from(value) >> (8 * byte)
        } else {
            0
        };
        Some(value & (u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8)))))
    }

    /// Writes device memory; false if nobody listens.
    ///
    /// APIC registers take writes of 32 bits at their address; the manuals leave others
    /// undefined, and here they do nothing.
    pub fn mmio_write(&mut self, gpa: Gpa, size: u8, value: u64, now: VirtualTime) -> bool {
        self.advance(now);
        let Some((device, offset)) = layout::mmio_owner(gpa) else {
            return false;
        };
        let whole = offset & 0xf == 0 && size >= 4;
        match device {
            MmioDevice::Lapic if self.lapic.enabled() => {
                if whole {
                    let out = &mut self.outputs;
                    if let Some(vector) = self.lapic.write(offset, value as u32, now, out) {
                        self.ioapic.end_of_interrupt(vector, &mut self.lapic, out);
                    }
                }
                true
            }
            MmioDevice::IoApic => {
                if whole {
                    let out = &mut self.outputs;
                    self.ioapic
                        .write(offset, value as u32, &mut self.lapic, out);
                }
                true
            }
            MmioDevice::Lapic | MmioDevice::Virtio(_) => false,
        }
    }

    /// The earliest time at which something will happen by itself.
    pub fn next_deadline(&self) -> Option<VirtualTime> {
        match (self.lapic.next_deadline(), self.serial.next_deadline()) {
            (Some(timer), Some(serial)) => Some(timer.min(serial)),
            (timer, serial) => timer.or(serial),
        }
    }

    /// Lets everything happen that is due at or before `now`.
    pub fn advance(&mut self, now: VirtualTime) {
        if self.next_deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        self.lapic.advance(now, &mut self.outputs);
        self.serial.advance(now);
        self.sync_serial();
    }

    /// Sets the state of an interrupt pin of the I/O APIC, for devices outside of this board.
    pub fn set_line(&mut self, pin: u8, asserted: bool) {
        self.ioapic
            .set_line(pin, asserted, &mut self.lapic, &mut self.outputs);
    }

    fn sync_serial(&mut self) {
        self.set_line(layout::SERIAL_IRQ, self.serial.irq_line());
    }

    /// Whether the local APIC has a vector above the processor priority; RFLAGS.IF and the
    /// interrupt shadow are the vCPU's business.
    pub fn interrupt_pending(&self) -> bool {
        self.lapic.interrupt_pending()
    }

    /// Takes the vector to deliver into service.
    pub fn acknowledge(&mut self) -> Option<u8> {
        self.lapic.acknowledge()
    }

    /// Whether a non-maskable interrupt waits.
    pub const fn nmi_pending(&self) -> bool {
        self.lapic.nmi_pending()
    }

    /// Takes the waiting non-maskable interrupt, if there is one.
    pub const fn take_nmi(&mut self) -> bool {
        self.lapic.take_nmi()
    }

    /// CR8.
    pub const fn cr8(&self) -> u64 {
        self.lapic.cr8()
    }

    /// A write to CR8, already checked for reserved bits.
    pub const fn set_cr8(&mut self, value: u64) {
        self.lapic.set_cr8(value);
    }

    /// IA32_APIC_BASE (MSR 1Bh).
    pub const fn apic_base(&self) -> u64 {
        self.lapic.base()
    }

    /// A write to IA32_APIC_BASE; false means #GP(0).
    #[must_use]
    pub fn set_apic_base(&mut self, value: u64) -> bool {
        self.lapic.set_base(value)
    }

    /// IA32_TSC_DEADLINE (MSR 6E0h).
    pub fn tsc_deadline(&self, now: VirtualTime) -> u64 {
        self.lapic.tsc_deadline(now)
    }

    /// A write to IA32_TSC_DEADLINE: the value of the guest's TSC at which the timer fires.
    pub fn set_tsc_deadline(&mut self, value: u64, now: VirtualTime) {
        self.lapic.set_tsc_deadline(value, now, &mut self.outputs);
    }

    /// The guest's TSC became virtual time plus `value` (wrapping), by a write to IA32_TSC or
    /// IA32_TSC_ADJUST.
    pub fn set_tsc_adjust(&mut self, value: u64, now: VirtualTime) {
        self.lapic.set_tsc_adjust(value, now, &mut self.outputs);
    }

    /// How many bytes of console input fit now.
    pub fn console_space(&self) -> usize {
        self.serial.space()
    }

    /// Whether the guest has asked to be interrupted when there is console input.
    pub const fn console_listening(&self) -> bool {
        self.serial.listening()
    }

    /// Gives console input to the UART; tells how many bytes it took.
    pub fn console_input(&mut self, bytes: &[u8], now: VirtualTime) -> usize {
        self.advance(now);
        let taken = self.serial.receive(bytes, now);
        self.sync_serial();
        taken
    }

    /// Whether there is something to take.
    pub const fn has_outputs(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// Takes what happened since the last time, in order.
    pub fn take_outputs(&mut self) -> Vec<BoardEvent> {
        std::mem::take(&mut self.outputs)
    }

    /// Moves what happened since the last time to the end of `into`, keeping the allocation.
    pub fn drain_outputs(&mut self, into: &mut Vec<BoardEvent>) {
        into.append(&mut self.outputs);
    }
}

#[cfg(test)]
#[path = "bus_tests.rs"]
mod tests;
