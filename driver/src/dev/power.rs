//! The ways out: ACPI sleep and reset registers, the resets kernels try besides, debug exit.

use serde::{Deserialize, Serialize};

use super::event::{BoardEvent, ShutdownKind};
use crate::layout;

/// Sleep control register: enter the sleep state (ACPI 6.5, section 4.8.3.7).
const SLEEP_ENABLE: u8 = 1 << 5;
/// Chipset reset control: the bit whose setting resets.
const PCI_RESET_CPU: u8 = 1 << 2;

/// State of the power registers: only what reads back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Power {
    sleep_control: u8,
    pci_reset: u8,
}

impl Power {
    /// Reads a port; `None` for those that can only be written.
    pub const fn read(&self, port: u16) -> Option<u8> {
        match port {
            layout::SLEEP_CONTROL => Some(self.sleep_control),
            // Never woken up.
            layout::SLEEP_STATUS => Some(0),
            layout::PCI_RESET => Some(self.pci_reset),
            _ => None,
        }
    }

    /// Writes a port; false if nothing is there to take the value.
    pub fn write(&mut self, port: u16, value: u32, out: &mut Vec<BoardEvent>) -> bool {
        let byte = value as u8;
        match port {
            layout::SLEEP_CONTROL => {
                self.sleep_control = byte & !SLEEP_ENABLE;
                if byte & SLEEP_ENABLE != 0 && byte >> 2 & 7 == layout::SLEEP_TYPE_S5 {
                    out.push(BoardEvent::Shutdown(ShutdownKind::PowerOff));
                }
            }
            layout::SLEEP_STATUS => {}
            layout::RESET_REGISTER => {
                if byte == layout::RESET_VALUE {
                    out.push(BoardEvent::Shutdown(ShutdownKind::Reset));
                }
            }
            layout::PCI_RESET => {
                self.pci_reset = byte & !PCI_RESET_CPU;
                if byte & PCI_RESET_CPU != 0 {
                    out.push(BoardEvent::Shutdown(ShutdownKind::Reset));
                }
            }
            layout::KEYBOARD_COMMAND if byte == layout::KEYBOARD_PULSE_RESET => {
                out.push(BoardEvent::Shutdown(ShutdownKind::Reset));
            }
            layout::DEBUG_EXIT => out.push(BoardEvent::DebugExit { code: value }),
            _ => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(port: u16, value: u32) -> Option<BoardEvent> {
        let mut out = Vec::new();
        Power::default().write(port, value, &mut out);
        out.pop()
    }

    #[test]
    fn only_soft_off_with_its_enable_bit_ends_the_machine() {
        assert_eq!(written(layout::SLEEP_CONTROL, 5 << 2), None);
        assert_eq!(written(layout::SLEEP_CONTROL, 3 << 2 | 0x20), None);
        let off = Some(BoardEvent::Shutdown(ShutdownKind::PowerOff));
        assert_eq!(written(layout::SLEEP_CONTROL, 5 << 2 | 0x20), off);
    }

    #[test]
    fn every_reset_a_kernel_tries_is_seen() {
        let reset = Some(BoardEvent::Shutdown(ShutdownKind::Reset));
        assert_eq!(written(layout::RESET_REGISTER, 1), reset);
        assert_eq!(written(layout::RESET_REGISTER, 0), None);
        assert_eq!(written(layout::KEYBOARD_COMMAND, 0xfe), reset);
        assert_eq!(written(layout::KEYBOARD_COMMAND, 0xd1), None);
        assert_eq!(written(layout::PCI_RESET, 0x02), None);
        assert_eq!(written(layout::PCI_RESET, 0x06), reset);
    }

    #[test]
    fn debug_exit_keeps_the_whole_value() {
        let expected = Some(BoardEvent::DebugExit { code: 0x1_0003 });
        assert_eq!(written(layout::DEBUG_EXIT, 0x1_0003), expected);
    }
}
