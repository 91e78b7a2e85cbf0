//! Tests of the UART, among them the probe of the Linux 8250 driver.

use super::*;

const RBR: u8 = 0;
const THR: u8 = 0;
const IER: u8 = 1;
const IIR: u8 = 2;
const FCR: u8 = 2;
const LCR: u8 = 3;
const MCR: u8 = 4;
const LSR: u8 = 5;
const MSR: u8 = 6;
const SCR: u8 = 7;

const NOW: VirtualTime = VirtualTime(1000);

/// A UART as a driver leaves it: 115200 8n1, FIFOs on with trigger level 8, OUT2 set.
fn running(ier: u8) -> Serial {
    let mut uart = Serial::default();
    for (register, value) in [
        (LCR, 0x83),
        (0, 1),
        (1, 0),
        (LCR, 0x03),
        (FCR, 0x87),
        (MCR, 0x0b),
        (IER, ier),
    ] {
        uart.write(register, value, NOW);
    }
    uart
}

#[test]
fn linux_autoconfig_finds_a_16550a() {
    // The order of drivers/tty/serial/8250/8250_port.c: autoconfig() and autoconfig_16550a().
    let mut uart = Serial::default();
    uart.write(IER, 0, NOW);
    assert_eq!(uart.read(IER, NOW) & 0x0f, 0);
    uart.write(IER, 0x0f, NOW);
    assert_eq!(uart.read(IER, NOW) & 0x0f, 0x0f);
    uart.write(IER, 0, NOW);
    uart.write(MCR, 0x10 | 0x0a, NOW);
    assert_eq!(uart.read(MSR, NOW) & 0xf0, 0x90, "loopback test");
    uart.write(MCR, 0, NOW);
    uart.write(LCR, 0xbf, NOW);
    uart.write(FCR, 0, NOW);
    uart.write(LCR, 0, NOW);
    uart.write(FCR, 0x01, NOW);
    assert_eq!(uart.read(IIR, NOW) >> 6, 3, "both FIFOs work");
    for lcr in [0x80, 0xbf] {
        uart.write(LCR, lcr, NOW);
        assert_ne!(uart.read(2, NOW), 0, "no extended feature register");
    }
    uart.write(LCR, 0xe0, NOW);
    assert_eq!(uart.read(2, NOW) & 0x10, 0, "no bank switching");
    uart.write(FCR, 0x21, NOW);
    assert_eq!(uart.read(IIR, NOW) >> 5, 6, "no 64 byte FIFO");
    uart.write(LCR, 0, NOW);
    uart.write(IER, 0x40, NOW);
    assert_eq!(uart.read(IER, NOW), 0, "no unit enable");
    uart.write(SCR, 0xa5, NOW);
    assert_eq!(uart.read(SCR, NOW), 0xa5);
}

#[test]
fn linux_startup_finds_a_sound_transmitter_interrupt() {
    // serial8250_do_startup(): the THRE test and the TXEN test.
    let mut uart = running(0);
    for _ in 0..2 {
        uart.write(IER, IER_TX, NOW);
        assert_eq!(uart.read(IIR, NOW), 0xc0 | IIR_TX);
        uart.write(IER, 0, NOW);
    }
    assert_eq!(uart.read(LSR, NOW), LSR_TX_EMPTY);
}

#[test]
fn transmission_is_instant_and_interrupts_again() {
    let mut uart = running(IER_TX);
    assert!(uart.irq_line());
    assert_eq!(uart.read(IIR, NOW), 0xc0 | IIR_TX);
    assert!(!uart.irq_line(), "reading the IIR takes it");
    assert_eq!(
        uart.write(THR, b'x', NOW),
        Written {
            transmitted: Some(b'x'),
            pulsed: false
        }
    );
    assert!(uart.irq_line());
    assert!(
        uart.write(THR, b'y', NOW).pulsed,
        "a fall and a rise in one write"
    );
    assert_eq!(uart.read(LSR, NOW), LSR_TX_EMPTY);
}

#[test]
fn out2_gates_the_line() {
    let mut uart = running(IER_TX);
    uart.write(MCR, 0x03, NOW);
    assert!(!uart.irq_line());
    uart.write(MCR, 0x0b, NOW);
    assert!(uart.irq_line());
}

#[test]
fn reception_interrupts_at_the_trigger_and_after_the_timeout() {
    let mut uart = running(IER_RX);
    assert_eq!(uart.receive(b"1234567", NOW), 7);
    assert!(!uart.irq_line());
    // Four characters of ten bits at 115200 baud.
    let timeout = uart.next_deadline().unwrap();
    assert_eq!(timeout, VirtualTime(NOW.0 + 40 * 1_000_000_000 / 115_200));
    uart.advance(VirtualTime(timeout.0 - 1));
    assert!(!uart.irq_line());
    uart.advance(timeout);
    assert_eq!(
        (uart.irq_line(), uart.read(IIR, timeout)),
        (true, 0xc0 | IIR_TIMEOUT)
    );
    assert_eq!(uart.read(RBR, timeout), b'1');
    assert!(!uart.irq_line(), "reading restarts the time-out");
    assert_eq!(uart.receive(b"89abcdefghij", timeout), 10);
    assert_eq!((uart.space(), uart.read(IIR, timeout)), (0, 0xc0 | IIR_RX));
    assert_eq!(uart.read(LSR, timeout) & LSR_READY, LSR_READY);
    let rest: Vec<u8> = (0..16).map(|_| uart.read(RBR, timeout)).collect();
    assert_eq!(rest, b"23456789abcdefgh");
    assert_eq!(
        (uart.read(LSR, timeout), uart.next_deadline()),
        (LSR_TX_EMPTY, None)
    );
}

#[test]
fn without_fifos_one_byte_fits() {
    let mut uart = Serial::default();
    uart.write(IER, IER_RX, NOW);
    assert_eq!(uart.receive(b"ab", NOW), 1);
    assert_eq!((uart.read(IIR, NOW), uart.next_deadline()), (IIR_RX, None));
}

#[test]
fn loopback_sends_to_the_receiver_and_cuts_the_console_off() {
    let mut uart = running(0);
    uart.write(MCR, 0x1b, NOW);
    assert_eq!(uart.write(THR, b'q', NOW).transmitted, None);
    assert_eq!((uart.receive(b"z", NOW), uart.space()), (0, 0));
    assert_eq!(uart.read(RBR, NOW), b'q');
    for byte in 0..17 {
        uart.write(THR, byte, NOW);
    }
    assert_eq!(uart.read(LSR, NOW) & LSR_OVERRUN, LSR_OVERRUN);
    assert_eq!(uart.read(LSR, NOW) & LSR_OVERRUN, 0, "reading clears it");
}

#[test]
fn modem_deltas_follow_loopback_and_clear_on_read() {
    let mut uart = running(IER_MODEM);
    uart.write(MCR, 0x1f, NOW);
    assert_eq!(
        uart.read(MSR, NOW),
        0xf0,
        "the ring indicator rose: no delta"
    );
    uart.write(MCR, 0x0b, NOW);
    assert_eq!(
        (uart.irq_line(), uart.read(IIR, NOW)),
        (true, 0xc0 | IIR_MODEM)
    );
    assert_eq!(uart.read(MSR, NOW), MSR_CONNECTED | MSR_RING_ENDED);
    assert!(!uart.irq_line());
}

#[test]
fn clearing_the_receiver_drops_what_waits() {
    let mut uart = running(IER_RX);
    uart.receive(b"12345678", NOW);
    assert!(uart.irq_line());
    uart.write(FCR, 0x83, NOW);
    assert!(!uart.irq_line());
    assert_eq!((uart.space(), uart.next_deadline()), (FIFO_DEPTH, None));
}
