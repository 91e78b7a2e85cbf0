//! Every magic address, port and interrupt number of the machine, in one place.
//!
//! The low part follows what small x86 virtual machines agreed on (zero page at 0x7000, page
//! tables at 0x9000, command line at 0x20000, RSDP at 0xe0000), so that a kernel developer finds
//! things where they are expected. The board itself is the smallest one that stock kernels boot
//! on: no PIC, PIT, PCI, i8042, HPET or VGA.

use serde::{Deserialize, Serialize};

use crate::mem::addr::Gpa;

// ---- Boot data below 1 MiB -------------------------------------------------------------------

/// The global descriptor table the kernel is entered with.
pub const BOOT_GDT: Gpa = Gpa(0x500);
/// Bytes reserved for [`BOOT_GDT`]: four descriptors.
pub const BOOT_GDT_LEN: u64 = 0x20;
/// The (empty) interrupt descriptor table the kernel is entered with.
pub const BOOT_IDT: Gpa = Gpa(0x520);
/// Code selector at entry: `__BOOT_CS` of the Linux x86 boot protocol.
pub const BOOT_CS: u16 = 0x10;
/// Data selector at entry: `__BOOT_DS` of the Linux x86 boot protocol.
pub const BOOT_DS: u16 = 0x18;
/// The zero page (`struct boot_params`), passed to the kernel in RSI.
pub const ZERO_PAGE: Gpa = Gpa(0x7000);
/// RSP at entry; the kernel sets up its own stack before it uses much of this one.
pub const BOOT_STACK_TOP: Gpa = Gpa(0x8ff0);
/// Root of the identity map.
pub const BOOT_PML4: Gpa = Gpa(0x9000);
/// Page-directory-pointer table of the identity map.
pub const BOOT_PDPT: Gpa = Gpa(0xa000);
/// First page directory of the identity map; [`BOOT_PD_COUNT`] of them follow each other.
pub const BOOT_PD: Gpa = Gpa(0xb000);
/// Page directories of the identity map: one per GiB, 2 MiB pages, so 4 GiB are mapped.
pub const BOOT_PD_COUNT: u64 = 4;
/// The kernel command line, NUL-terminated.
pub const CMDLINE: Gpa = Gpa(0x2_0000);
/// Most bytes of a command line with its NUL: `COMMAND_LINE_SIZE` of x86 Linux.
pub const CMDLINE_MAX: u64 = 2048;
/// End of conventional memory; the reserved area (ACPI tables) starts here.
pub const LOW_RAM_END: Gpa = Gpa(0x9_fc00);
/// The ACPI root pointer; the other tables follow it directly.
pub const RSDP: Gpa = Gpa(0xe_0000);
/// Start of the RAM above the reserved area, and lowest address of a kernel segment.
pub const HIGH_RAM_START: Gpa = Gpa(0x10_0000);
/// Highest address of the last byte of an initrd (`initrd_addr_max` of the boot protocol).
pub const INITRD_ADDR_MAX: Gpa = Gpa(0x7fff_ffff);

// ---- The pseudo-physical address space -------------------------------------------------------

/// Start of the hole for devices below 4 GiB: RAM beyond it continues at [`MMIO_HOLE_END`].
pub const MMIO_HOLE_START: Gpa = Gpa(0xc000_0000);
/// End of the hole for devices.
pub const MMIO_HOLE_END: Gpa = Gpa(0x1_0000_0000);
/// First virtio-mmio device.
pub const VIRTIO_MMIO_BASE: Gpa = Gpa(0xd000_0000);
/// Distance from one virtio-mmio device to the next, and the size each announces.
pub const VIRTIO_MMIO_STRIDE: u64 = 0x1000;
/// Most virtio-mmio devices: one interrupt pin each, the upper third of the IOAPIC.
pub const VIRTIO_MMIO_MAX: u8 = 8;
/// Registers of the I/O APIC.
pub const IOAPIC_BASE: Gpa = Gpa(0xfec0_0000);
/// Bytes decoded by the I/O APIC.
pub const IOAPIC_LEN: u64 = 0x1000;
/// Registers of the local APIC; it cannot be moved.
pub const LAPIC_BASE: Gpa = Gpa(0xfee0_0000);
/// Bytes decoded by the local APIC.
pub const LAPIC_LEN: u64 = 0x1000;

/// Who answers at an address of the device hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MmioDevice {
    /// The local APIC of the vCPU that makes the access.
    Lapic,
    /// The I/O APIC.
    IoApic,
    /// A virtio-mmio slot, numbered from 0; there may be no device in it.
    Virtio(u8),
}

/// A range of the device hole: first address, length, owner.
const MMIO: [(Gpa, u64, MmioDevice); 3] = [
    (LAPIC_BASE, LAPIC_LEN, MmioDevice::Lapic),
    (IOAPIC_BASE, IOAPIC_LEN, MmioDevice::IoApic),
    (
        VIRTIO_MMIO_BASE,
        VIRTIO_MMIO_STRIDE * VIRTIO_MMIO_MAX as u64,
        MmioDevice::Virtio(0),
    ),
];

/// The device at a pseudo-physical address and the offset inside it.
pub fn mmio_owner(gpa: Gpa) -> Option<(MmioDevice, u64)> {
    let (base, _, device) = MMIO
        .iter()
        .find(|(base, len, _)| gpa.0.wrapping_sub(base.0) < *len)?;
    let offset = gpa.0 - base.0;
    match device {
        MmioDevice::Virtio(_) => Some((
            MmioDevice::Virtio((offset / VIRTIO_MMIO_STRIDE) as u8),
            offset % VIRTIO_MMIO_STRIDE,
        )),
        other => Some((*other, offset)),
    }
}

/// What a range of the pseudo-physical address space is to the guest (its E820 row).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RangeKind {
    /// Usable RAM (E820 type 1).
    Ram,
    /// Backed, but not for the kernel to use: the ACPI tables are here (E820 type 2).
    Reserved,
}

/// One row of the memory map: `start <= gpa < end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryRange {
    /// First address.
    pub start: Gpa,
    /// First address after it.
    pub end: Gpa,
    /// What it is.
    pub kind: RangeKind,
}

/// The memory map of a machine with `memory` bytes of RAM, in ascending order.
///
/// All rows are backed by PPRAM, the reserved one too. `memory` is rounded down to pages, and
/// what would lie in the device hole continues above 4 GiB.
pub fn memory_map(memory: u64) -> Vec<MemoryRange> {
    let memory = memory & !crate::mem::addr::PAGE_MASK;
    let row = |start: Gpa, end: u64, kind| MemoryRange {
        start,
        end: Gpa(end),
        kind,
    };
    let mut rows = vec![
        row(Gpa(0), LOW_RAM_END.0, RangeKind::Ram),
        row(LOW_RAM_END, HIGH_RAM_START.0, RangeKind::Reserved),
    ];
    let below_hole = memory.min(MMIO_HOLE_START.0);
    if below_hole > HIGH_RAM_START.0 {
        rows.push(row(HIGH_RAM_START, below_hole, RangeKind::Ram));
    }
    let rest = memory - below_hole;
    if rest > 0 {
        rows.push(row(
            MMIO_HOLE_END,
            MMIO_HOLE_END.0.saturating_add(rest),
            RangeKind::Ram,
        ));
    }
    rows
}

// ---- Ports -----------------------------------------------------------------------------------

/// CMOS index register.
pub const RTC_INDEX: u16 = 0x70;
/// CMOS data register.
pub const RTC_DATA: u16 = 0x71;
/// Command port of the absent keyboard controller: only the reset pulse is honoured.
pub const KEYBOARD_COMMAND: u16 = 0x64;
/// The command that pulses the reset line of the processor.
pub const KEYBOARD_PULSE_RESET: u8 = 0xfe;
/// POST code port, which kernels write to as a short delay; nothing happens.
pub const IO_DELAY: u16 = 0x80;
/// A write ends the machine with the written value as exit code.
pub const DEBUG_EXIT: u16 = 0xf4;
/// First port of the console UART (COM1).
pub const SERIAL_BASE: u16 = 0x3f8;
/// First mark port. Any port of the window appends its byte to the text of a mark and a newline
/// (or NUL) completes it. A window, because `/dev/port` advances with every byte:
/// `echo text | dd of=/dev/port bs=1 seek=1280`.
pub const MARK_FIRST: u16 = 0x500;
/// Last mark port.
pub const MARK_LAST: u16 = 0x5ff;
/// ACPI sleep control register (hardware-reduced ACPI, section 4.8.3.7).
pub const SLEEP_CONTROL: u16 = 0x604;
/// ACPI sleep status register.
pub const SLEEP_STATUS: u16 = 0x605;
/// ACPI reset register.
pub const RESET_REGISTER: u16 = 0x606;
/// The value that resets, written to [`RESET_REGISTER`].
pub const RESET_VALUE: u8 = 0x01;
/// SLP_TYP value of the soft-off state, in `\_S5` and in the sleep control register.
pub const SLEEP_TYPE_S5: u8 = 5;
/// PCI chipset reset control; honoured although there is no PCI.
pub const PCI_RESET: u16 = 0xcf9;

/// Who answers at a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortDevice {
    /// The console UART.
    Serial,
    /// The clock and NVRAM.
    Rtc,
    /// Sleep, reset and debug exit.
    Power,
    /// Text of marks.
    Mark,
    /// Written only to pass time.
    Delay,
}

/// A range of ports: first, last, owner. Ports outside read all-ones and ignore writes.
const PORTS: [(u16, u16, PortDevice); 9] = [
    (KEYBOARD_COMMAND, KEYBOARD_COMMAND, PortDevice::Power),
    (RTC_INDEX, RTC_DATA, PortDevice::Rtc),
    (IO_DELAY, IO_DELAY, PortDevice::Delay),
    (DEBUG_EXIT, DEBUG_EXIT, PortDevice::Power),
    (SERIAL_BASE, SERIAL_BASE + 7, PortDevice::Serial),
    (MARK_FIRST, MARK_LAST, PortDevice::Mark),
    (SLEEP_CONTROL, SLEEP_STATUS, PortDevice::Power),
    (RESET_REGISTER, RESET_REGISTER, PortDevice::Power),
    (PCI_RESET, PCI_RESET, PortDevice::Power),
];

/// The device at a port.
pub fn port_owner(port: u16) -> Option<PortDevice> {
    PORTS
        .iter()
        .find(|(first, last, _)| (*first..=*last).contains(&port))
        .map(|(_, _, device)| *device)
}

// ---- Interrupts ------------------------------------------------------------------------------

/// Input pins of the I/O APIC. Legacy interrupts are identity-mapped: ISA IRQ n is pin n.
pub const IOAPIC_PINS: u8 = 24;
/// Identifier of the I/O APIC, in the MADT and in its own register.
pub const IOAPIC_ID: u8 = 0;
/// Pin of the console UART: edge, active high.
pub const SERIAL_IRQ: u8 = 4;
/// Pin of the first virtio-mmio device: level, active high.
pub const VIRTIO_IRQ_BASE: u8 = 16;

// ---- Clocks ----------------------------------------------------------------------------------

/// TSC frequency: one TSC count per nanosecond of virtual time.
pub const TSC_KHZ: u64 = 1_000_000;
/// Core crystal frequency announced by CPUID leaf 15h; the LAPIC timer counts it, so one LAPIC
/// count (divide by 1) is one nanosecond of virtual time.
pub const CRYSTAL_HZ: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_structures_do_not_overlap() {
        let mut areas = [
            (BOOT_GDT.0, BOOT_GDT_LEN),
            (BOOT_IDT.0, 0x20),
            (ZERO_PAGE.0, 0x1000),
            (BOOT_PML4.0, 0x1000),
            (BOOT_PDPT.0, 0x1000),
            (BOOT_PD.0, 0x1000 * BOOT_PD_COUNT),
            (CMDLINE.0, CMDLINE_MAX),
        ];
        areas.sort_unstable();
        for pair in areas.windows(2) {
            assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:x?}");
        }
        const {
            assert!(BOOT_STACK_TOP.0 > ZERO_PAGE.0 + 0x1000 && BOOT_STACK_TOP.0 <= BOOT_PML4.0);
            assert!(RSDP.0 >= LOW_RAM_END.0 && RSDP.0 < HIGH_RAM_START.0);
        }
    }

    #[test]
    fn port_ranges_do_not_overlap_and_absent_ports_have_no_owner() {
        let mut ranges = PORTS;
        ranges.sort_unstable_by_key(|range| range.0);
        for pair in ranges.windows(2) {
            assert!(pair[0].1 < pair[1].0, "{pair:x?}");
        }
        assert_eq!(port_owner(0x3ff), Some(PortDevice::Serial));
        assert_eq!(port_owner(0x400), None);
        for absent in [
            0x20, 0x21, 0x40, 0x60, 0x61, 0xcf8, 0xcfc, 0x2f8, 0x3e8, 0x2e8,
        ] {
            assert_eq!(port_owner(absent), None, "{absent:#x}");
        }
    }

    #[test]
    fn mmio_owner_gives_device_and_offset() {
        assert_eq!(
            mmio_owner(Gpa(0xfee0_00b0)),
            Some((MmioDevice::Lapic, 0xb0))
        );
        assert_eq!(
            mmio_owner(Gpa(0xfec0_0010)),
            Some((MmioDevice::IoApic, 0x10))
        );
        assert_eq!(
            mmio_owner(Gpa(0xd000_2104)),
            Some((MmioDevice::Virtio(2), 0x104))
        );
        assert_eq!(mmio_owner(Gpa(0xd000_8000)), None);
        assert_eq!(mmio_owner(Gpa(0xfed0_0000)), None);
        assert_eq!(mmio_owner(Gpa(0)), None);
    }

    #[test]
    fn memory_beyond_the_hole_continues_above_4_gib() {
        let map = memory_map(0xc000_0000 + 0x1000_0000);
        let last = map.last().unwrap();
        assert_eq!(
            (last.start, last.end),
            (Gpa(0x1_0000_0000), Gpa(0x1_1000_0000))
        );
        assert_eq!(map[2].end, MMIO_HOLE_START);
        assert!(map.windows(2).all(|pair| pair[0].end <= pair[1].start));
        let small = memory_map(64 << 20);
        assert_eq!(small.len(), 3);
        assert_eq!(small[2].end, Gpa(64 << 20));
    }
}
