//! The console UART: a 16550A as in National Semiconductor's PC16550D data sheet.
//!
//! Transmission takes no time: a written byte is out at once and the transmitter is empty again.
//! Reception is paced by the reader; only the character time-out interrupt takes line time, four
//! characters at the programmed rate.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::tick::VirtualTime;

/// Bytes each FIFO holds.
pub const FIFO_DEPTH: usize = 16;
/// The crystal of the PC's UART; the divisor counts sixteenths of it.
const CLOCK_HZ: u64 = 1_843_200;

/// IER: received data, and its time-out.
const IER_RX: u8 = 1 << 0;
/// IER: transmitter empty.
const IER_TX: u8 = 1 << 1;
/// IER: receiver line status.
const IER_LINE: u8 = 1 << 2;
/// IER: modem status.
const IER_MODEM: u8 = 1 << 3;
/// FCR and IIR: FIFOs on.
const FCR_ENABLE: u8 = 1 << 0;
const FCR_CLEAR_RX: u8 = 1 << 1;
const LCR_DLAB: u8 = 1 << 7;
const MCR_DTR: u8 = 1 << 0;
const MCR_RTS: u8 = 1 << 1;
const MCR_OUT1: u8 = 1 << 2;
/// MCR: on a PC, lets the interrupt out of the chip.
const MCR_OUT2: u8 = 1 << 3;
const MCR_LOOP: u8 = 1 << 4;
const LSR_READY: u8 = 1 << 0;
const LSR_OVERRUN: u8 = 1 << 1;
/// LSR: transmitter holding and shift registers empty; always.
const LSR_TX_EMPTY: u8 = 3 << 5;
const MSR_CTS: u8 = 1 << 4;
const MSR_DSR: u8 = 1 << 5;
const MSR_RI: u8 = 1 << 6;
const MSR_DCD: u8 = 1 << 7;
/// MSR: trailing edge of the ring indicator, the only delta that has a direction.
const MSR_RING_ENDED: u8 = 1 << 2;
/// The modem lines of a terminal that is there.
const MSR_CONNECTED: u8 = MSR_CTS | MSR_DSR | MSR_DCD;

const IIR_NONE: u8 = 0x01;
const IIR_LINE: u8 = 0x06;
const IIR_RX: u8 = 0x04;
const IIR_TIMEOUT: u8 = 0x0c;
const IIR_TX: u8 = 0x02;
const IIR_MODEM: u8 = 0x00;
const IIR_FIFOS: u8 = 0xc0;

/// What a register write does outside of the chip.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// A byte that left for the console.
    pub transmitted: Option<u8>,
    /// The interrupt line fell and rose again, even if it is as it was.
    pub pulsed: bool,
}

/// State of the UART.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serial {
    ier: u8,
    fcr: u8,
    lcr: u8,
    mcr: u8,
    scratch: u8,
    divisor: u16,
    /// Low half of the MSR: lines that changed since it was read.
    modem_delta: u8,
    overrun: bool,
    /// Transmitter-empty interrupt waiting to be seen in the IIR.
    tx_pending: bool,
    rx: VecDeque<u8>,
    /// The reader has let bytes wait for four character times.
    rx_timeout: bool,
    /// When that will be the case.
    rx_timeout_at: Option<VirtualTime>,
}

impl Serial {
    const fn fifos(&self) -> bool {
        self.fcr & FCR_ENABLE != 0
    }

    const fn looped(&self) -> bool {
        self.mcr & MCR_LOOP != 0
    }

    const fn capacity(&self) -> usize {
        if self.fifos() { FIFO_DEPTH } else { 1 }
    }

    /// Bytes in the receiver at which its interrupt is raised.
    const fn trigger(&self) -> usize {
        if self.fifos() {
            [1, 4, 8, 14][(self.fcr >> 6) as usize]
        } else {
            1
        }
    }

    /// Nanoseconds four characters take on the line.
    fn timeout_ns(&self) -> u64 {
        let data_bits = 5 + u64::from(self.lcr & 3);
        let parity = u64::from(self.lcr >> 3 & 1);
        let stop_bits = 1 + u64::from(self.lcr >> 2 & 1);
        let bits = 4 * (1 + data_bits + parity + stop_bits);
        bits * 16 * u64::from(self.divisor.max(1)) * 1_000_000_000 / CLOCK_HZ
    }

    /// The modem lines: the terminal's, or in loopback our own outputs.
    const fn modem_lines(&self) -> u8 {
        if !self.looped() {
            return MSR_CONNECTED;
        }
        let mut lines = 0;
        if self.mcr & MCR_RTS != 0 {
            lines |= MSR_CTS;
        }
        if self.mcr & MCR_DTR != 0 {
            lines |= MSR_DSR;
        }
        if self.mcr & MCR_OUT1 != 0 {
            lines |= MSR_RI;
        }
        if self.mcr & MCR_OUT2 != 0 {
            lines |= MSR_DCD;
        }
        lines
    }

    /// The most urgent enabled interrupt, as the low bits of the IIR.
    fn interrupt(&self) -> u8 {
        if self.ier & IER_LINE != 0 && self.overrun {
            IIR_LINE
        } else if self.ier & IER_RX != 0 && self.rx.len() >= self.trigger() {
            IIR_RX
        } else if self.ier & IER_RX != 0 && self.rx_timeout {
            IIR_TIMEOUT
        } else if self.ier & IER_TX != 0 && self.tx_pending {
            IIR_TX
        } else if self.ier & IER_MODEM != 0 && self.modem_delta != 0 {
            IIR_MODEM
        } else {
            IIR_NONE
        }
    }

    /// The interrupt line of the card: the chip's, gated by OUT2, which loopback holds inactive.
    pub fn irq_line(&self) -> bool {
        self.interrupt() != IIR_NONE && self.mcr & (MCR_OUT2 | MCR_LOOP) == MCR_OUT2
    }

    /// Bytes of console input the receiver can take now.
    pub fn space(&self) -> usize {
        if self.looped() {
            0
        } else {
            self.capacity().saturating_sub(self.rx.len())
        }
    }

    /// Whether the guest has asked to be interrupted when there is console input.
    pub const fn listening(&self) -> bool {
        self.ier & IER_RX != 0 && self.mcr & (MCR_OUT2 | MCR_LOOP) == MCR_OUT2
    }

    /// Receives console input; gives how many bytes fitted.
    pub fn receive(&mut self, bytes: &[u8], now: VirtualTime) -> usize {
        let taken = bytes.len().min(self.space());
        self.rx.extend(&bytes[..taken]);
        if taken > 0 {
            self.restart_timeout(now);
        }
        taken
    }

    /// Activity in the receiver: the time-out starts anew if bytes are waiting.
    fn restart_timeout(&mut self, now: VirtualTime) {
        self.rx_timeout = false;
        self.rx_timeout_at = (self.fifos() && !self.rx.is_empty())
            .then(|| VirtualTime(now.0.saturating_add(self.timeout_ns())));
    }

    /// When the character time-out will strike.
    pub const fn next_deadline(&self) -> Option<VirtualTime> {
        self.rx_timeout_at
    }

    /// Lets the time-out strike if it is due.
    pub fn advance(&mut self, now: VirtualTime) {
        if self.rx_timeout_at.is_some_and(|deadline| deadline <= now) {
            self.rx_timeout_at = None;
            self.rx_timeout = true;
        }
    }

    /// Reads register 0 to 7.
    pub fn read(&mut self, register: u8, now: VirtualTime) -> u8 {
        let dlab = self.lcr & LCR_DLAB != 0;
        match register {
            0 if dlab => self.divisor as u8,
            1 if dlab => (self.divisor >> 8) as u8,
            0 => {
                let byte = self.rx.pop_front().unwrap_or(0);
                self.restart_timeout(now);
                byte
            }
            1 => self.ier,
            2 => {
                let interrupt = self.interrupt();
                if interrupt == IIR_TX {
                    self.tx_pending = false;
                }
                interrupt | if self.fifos() { IIR_FIFOS } else { 0 }
            }
            3 => self.lcr,
            4 => self.mcr,
            5 => {
                let ready = if self.rx.is_empty() { 0 } else { LSR_READY };
                let overrun = if std::mem::take(&mut self.overrun) {
                    LSR_OVERRUN
                } else {
                    0
                };
                LSR_TX_EMPTY | ready | overrun
            }
            6 => self.modem_lines() | std::mem::take(&mut self.modem_delta),
            _ => self.scratch,
        }
    }

    /// Writes register 0 to 7.
    pub fn write(&mut self, register: u8, value: u8, now: VirtualTime) -> Written {
        let dlab = self.lcr & LCR_DLAB != 0;
        let mut written = Written::default();
        match register {
            0 if dlab => self.divisor = (self.divisor & 0xff00) | u16::from(value),
            1 if dlab => self.divisor = (self.divisor & 0x00ff) | u16::from(value) << 8,
            0 => written = self.transmit(value, now),
            1 => {
                // Enabling the transmitter interrupt while it is empty raises it: drivers start
                // (and Linux probes) that way.
                if value & IER_TX != 0 && self.ier & IER_TX == 0 {
                    self.tx_pending = true;
                }
                self.ier = value & 0x0f;
            }
            2 => self.write_fcr(value),
            3 => self.lcr = value,
            4 => {
                let before = self.modem_lines();
                self.mcr = value & 0x1f;
                let after = self.modem_lines();
                let ring_ended = before & !after & MSR_RI != 0;
                self.modem_delta |= (before ^ after) >> 4 & !MSR_RING_ENDED;
                if ring_ended {
                    self.modem_delta |= MSR_RING_ENDED;
                }
            }
            7 => self.scratch = value,
            // Line and modem status are read-only.
            _ => {}
        }
        written
    }

    fn transmit(&mut self, value: u8, now: VirtualTime) -> Written {
        let rested = self.interrupt() == IIR_TX;
        self.tx_pending = true;
        if !self.looped() {
            return Written {
                transmitted: Some(value),
                pulsed: rested,
            };
        }
        if self.rx.len() < self.capacity() {
            self.rx.push_back(value);
        } else {
            self.overrun = true;
            // Without FIFOs the new byte replaces the old one; with them it is lost.
            if !self.fifos() {
                self.rx.clear();
                self.rx.push_back(value);
            }
        }
        self.restart_timeout(now);
        Written {
            transmitted: None,
            pulsed: rested,
        }
    }

    fn write_fcr(&mut self, value: u8) {
        let switched = (value ^ self.fcr) & FCR_ENABLE != 0;
        // Turning the FIFOs on or off empties them; other bits count only while they are on.
        if switched || value & (FCR_ENABLE | FCR_CLEAR_RX) == FCR_ENABLE | FCR_CLEAR_RX {
            self.rx.clear();
            self.rx_timeout = false;
            self.rx_timeout_at = None;
        }
        self.fcr = if value & FCR_ENABLE != 0 {
            value & 0xc9
        } else {
            0
        };
    }
}

#[cfg(test)]
#[path = "serial_tests.rs"]
mod tests;
