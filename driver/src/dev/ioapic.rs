//! The I/O APIC: 24 pins, each with a redirection entry (82093AA data sheet, with the EOI
//! register of the later version 20h).
//!
//! A pin is *asserted* or not; polarity is a matter of wiring that the guest may set as it likes.

use serde::{Deserialize, Serialize};

use super::event::{BoardEvent, IrqSource};
use super::lapic::Lapic;
use crate::layout::{IOAPIC_ID, IOAPIC_PINS};

/// Offset of the register select.
pub const REG_SELECT: u64 = 0x00;
/// Offset of the window onto the selected register.
pub const REG_WINDOW: u64 = 0x10;
/// Offset of the EOI register: takes a vector.
pub const REG_EOI: u64 = 0x40;

const PINS: usize = IOAPIC_PINS as usize;
/// Index of the first redirection entry, two registers each.
const FIRST_ENTRY: u8 = 0x10;
/// Version 20h with the number of entries less one.
const VERSION: u32 = 0x20 | (IOAPIC_PINS as u32 - 1) << 16;

/// Delivery status: always idle, since a message arrives at once. Read-only.
const ENTRY_STATUS: u64 = 1 << 12;
/// Remote IRR: a level interrupt was accepted and not yet ended. Read-only.
const ENTRY_REMOTE_IRR: u64 = 1 << 14;
/// Level-triggered.
const ENTRY_LEVEL: u64 = 1 << 15;
/// Masked.
const ENTRY_MASKED: u64 = 1 << 16;
/// Writable bits: vector, modes, polarity, trigger, mask and destination.
const ENTRY_WRITABLE: u64 = 0xff00_0000_0001_afff;

/// State of the I/O APIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoApic {
    id: u8,
    select: u8,
    entries: [u64; PINS],
    /// Bit n: pin n is asserted.
    asserted: u32,
}

impl Default for IoApic {
    fn default() -> Self {
        Self {
            id: IOAPIC_ID,
            select: 0,
            entries: [ENTRY_MASKED; PINS],
            asserted: 0,
        }
    }
}

impl IoApic {
    /// Reads at an offset of the register page.
    pub fn read(&self, offset: u64) -> u32 {
        match offset {
            REG_SELECT => u32::from(self.select),
            REG_WINDOW => match self.select {
                // Identifier and arbitration identifier.
                0 | 2 => u32::from(self.id) << 24,
                1 => VERSION,
                select => self.entry_of(select).map_or(0, |(pin, high)| {
                    (self.entries[pin] >> if high { 32 } else { 0 }) as u32
                }),
            },
            _ => 0,
        }
    }

    /// Writes at an offset of the register page.
    pub fn write(&mut self, offset: u64, value: u32, lapic: &mut Lapic, out: &mut Vec<BoardEvent>) {
        match offset {
            REG_SELECT => self.select = value as u8,
            REG_WINDOW if self.select == 0 => self.id = (value >> 24) as u8 & 0xf,
            REG_WINDOW => {
                if let Some((pin, high)) = self.entry_of(self.select) {
                    self.write_entry(pin, high, value);
                    self.deliver_level(pin, lapic, out);
                }
            }
            REG_EOI => self.end_of_interrupt(value as u8, lapic, out),
            _ => {}
        }
    }

    /// The pin and half a register index belongs to.
    fn entry_of(&self, select: u8) -> Option<(usize, bool)> {
        let index = select.checked_sub(FIRST_ENTRY)?;
        (index < 2 * IOAPIC_PINS).then_some((usize::from(index / 2), index % 2 == 1))
    }

    fn write_entry(&mut self, pin: usize, high: bool, value: u32) {
        let old = self.entries[pin];
        let new = if high {
            (old & 0xffff_ffff) | u64::from(value) << 32
        } else {
            (old & !0xffff_ffff) | u64::from(value)
        };
        let mut entry = (new & ENTRY_WRITABLE) | (old & (ENTRY_STATUS | ENTRY_REMOTE_IRR));
        // Kernels free a stuck entry by making it edge-triggered for a moment.
        if entry & ENTRY_LEVEL == 0 {
            entry &= !ENTRY_REMOTE_IRR;
        }
        self.entries[pin] = entry;
    }

    /// Sets the state of a pin; pins that do not exist are ignored.
    pub fn set_line(
        &mut self,
        pin: u8,
        asserted: bool,
        lapic: &mut Lapic,
        out: &mut Vec<BoardEvent>,
    ) {
        if pin >= IOAPIC_PINS {
            return;
        }
        let bit = 1u32 << pin;
        let rises = asserted && self.asserted & bit == 0;
        if asserted {
            self.asserted |= bit;
        } else {
            self.asserted &= !bit;
        }
        let pin = usize::from(pin);
        if self.entries[pin] & ENTRY_LEVEL != 0 {
            self.deliver_level(pin, lapic, out);
        } else if rises && self.entries[pin] & ENTRY_MASKED == 0 {
            // An edge on a masked pin is neither delivered nor held (82093AA, section 3.2.4).
            self.send(pin, lapic, out);
        }
    }

    /// Sends a level interrupt that is due: asserted, unmasked, none in flight.
    fn deliver_level(&mut self, pin: usize, lapic: &mut Lapic, out: &mut Vec<BoardEvent>) {
        let quiet = ENTRY_MASKED | ENTRY_REMOTE_IRR;
        let entry = self.entries[pin];
        if entry & ENTRY_LEVEL != 0
            && entry & quiet == 0
            && self.asserted & (1 << pin) != 0
            && self.send(pin, lapic, out)
        {
            self.entries[pin] |= ENTRY_REMOTE_IRR;
        }
    }

    /// Sends the message of an entry; true if an interrupt was accepted that will be ended.
    fn send(&self, pin: usize, lapic: &mut Lapic, out: &mut Vec<BoardEvent>) -> bool {
        let entry = self.entries[pin];
        if !lapic.is_destination((entry >> 56) as u8, entry & (1 << 11) != 0) {
            return false;
        }
        match (entry >> 8) & 7 {
            // Fixed; lowest priority among one is the same.
            0 | 1 => {
                let origin = (IrqSource::Pin, pin as u8);
                lapic.accept(entry as u8, entry & ENTRY_LEVEL != 0, origin, out)
            }
            4 => {
                lapic.raise_nmi();
                false
            }
            // SMI, INIT and external interrupts have no use here.
            _ => false,
        }
    }

    /// A level interrupt was ended: every entry of that vector may send again.
    pub fn end_of_interrupt(&mut self, vector: u8, lapic: &mut Lapic, out: &mut Vec<BoardEvent>) {
        for pin in 0..PINS {
            let entry = self.entries[pin];
            if entry as u8 == vector && entry & ENTRY_LEVEL != 0 {
                self.entries[pin] &= !ENTRY_REMOTE_IRR;
                self.deliver_level(pin, lapic, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dev::lapic::REG_SVR;
    use crate::tick::VirtualTime;

    struct Wired {
        ioapic: IoApic,
        lapic: Lapic,
        out: Vec<BoardEvent>,
    }

    impl Wired {
        fn new() -> Self {
            let (mut lapic, mut out) = (Lapic::new(0), Vec::new());
            lapic.write(REG_SVR, 0x1ff, VirtualTime(0), &mut out);
            Self {
                ioapic: IoApic::default(),
                lapic,
                out,
            }
        }

        fn entry(&mut self, pin: u8, value: u64) {
            for (half, value) in [(1, (value >> 32) as u32), (0, value as u32)] {
                self.ioapic.write(
                    REG_SELECT,
                    u32::from(FIRST_ENTRY + 2 * pin + half),
                    &mut self.lapic,
                    &mut self.out,
                );
                self.ioapic
                    .write(REG_WINDOW, value, &mut self.lapic, &mut self.out);
            }
        }

        fn low(&mut self, pin: u8) -> u32 {
            self.ioapic.select = FIRST_ENTRY + 2 * pin;
            self.ioapic.read(REG_WINDOW)
        }

        fn line(&mut self, pin: u8, asserted: bool) {
            self.ioapic
                .set_line(pin, asserted, &mut self.lapic, &mut self.out);
        }

        /// Services what is pending.
        fn service(&mut self) -> Option<u8> {
            self.lapic.acknowledge()
        }

        fn eoi(&mut self) {
            let ended = self.lapic.write(0xb0, 0, VirtualTime(0), &mut self.out);
            if let Some(vector) = ended {
                self.ioapic
                    .end_of_interrupt(vector, &mut self.lapic, &mut self.out);
            }
        }
    }

    #[test]
    fn registers_identify_24_masked_pins() {
        let mut wired = Wired::new();
        wired.ioapic.select = 1;
        assert_eq!(wired.ioapic.read(REG_WINDOW), 0x0017_0020);
        assert_eq!(wired.low(23), 0x1_0000);
        wired.ioapic.select = FIRST_ENTRY + 48;
        assert_eq!(wired.ioapic.read(REG_WINDOW), 0);
        wired.entry(3, u64::MAX);
        assert_eq!(wired.low(3), 0x1_afff, "read-only bits stay clear");
        assert_eq!(wired.ioapic.entries[3] >> 56, 0xff);
    }

    #[test]
    fn edge_pins_send_on_the_rise_only() {
        let mut wired = Wired::new();
        wired.entry(4, 0x24);
        wired.line(4, true);
        wired.line(4, true);
        assert_eq!(wired.service(), Some(0x24));
        wired.eoi();
        assert_eq!(wired.service(), None);
        wired.line(4, false);
        wired.line(4, true);
        assert_eq!(wired.service(), Some(0x24));
    }

    #[test]
    fn an_edge_on_a_masked_pin_is_not_held() {
        let mut wired = Wired::new();
        wired.entry(4, 0x1_0024);
        wired.line(4, true);
        wired.entry(4, 0x24);
        assert_eq!(wired.service(), None);
    }

    #[test]
    fn level_pins_repeat_until_the_line_falls() {
        let mut wired = Wired::new();
        wired.entry(16, 0x8030);
        wired.line(16, true);
        assert_eq!(wired.low(16), 0xc030, "remote IRR");
        assert_eq!(wired.service(), Some(0x30));
        wired.eoi();
        assert_eq!(wired.service(), Some(0x30), "still asserted");
        wired.line(16, false);
        wired.eoi();
        assert_eq!((wired.low(16), wired.service()), (0x8030, None));
    }

    #[test]
    fn a_level_held_while_masked_is_sent_at_unmask() {
        let mut wired = Wired::new();
        wired.entry(16, 0x1_8030);
        wired.line(16, true);
        assert_eq!(wired.service(), None);
        wired.entry(16, 0x8030);
        assert_eq!(wired.service(), Some(0x30));
    }

    #[test]
    fn a_moment_of_edge_trigger_clears_remote_irr() {
        let mut wired = Wired::new();
        wired.entry(16, 0x8030);
        wired.line(16, true);
        wired.entry(16, 0x1_0030);
        assert_eq!(wired.low(16), 0x1_0030);
    }

    #[test]
    fn destination_and_delivery_mode_are_honoured() {
        let mut wired = Wired::new();
        wired.entry(5, 7 << 56 | 0x25);
        wired.line(5, true);
        assert_eq!(wired.service(), None, "for another APIC");
        wired.entry(6, 0x126);
        wired.line(6, true);
        assert_eq!(wired.service(), Some(0x26), "lowest priority");
        wired.entry(7, 0x400);
        wired.line(7, true);
        assert!(wired.lapic.take_nmi());
        wired.line(200, true);
    }

    #[test]
    fn the_eoi_register_ends_like_the_broadcast() {
        let mut wired = Wired::new();
        wired.entry(16, 0x8030);
        wired.line(16, true);
        wired.line(16, false);
        wired
            .ioapic
            .write(REG_EOI, 0x30, &mut wired.lapic, &mut wired.out);
        assert_eq!(wired.low(16), 0x8030);
    }
}
