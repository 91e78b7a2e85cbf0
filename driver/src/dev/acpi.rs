//! The ACPI tables: RSDP, XSDT, hardware-reduced FADT, MADT and DSDT (ACPI 6.5, chapter 5).
//!
//! Hardware-reduced: there is no fixed hardware, no SCI and no PIC, so kernels look for none.
//! Legacy interrupts are identity-mapped to I/O APIC pins and need no override entries.

use super::aml;
use super::rtc::REG_CENTURY;
use crate::layout;
use crate::mem::addr::Gpa;

const OEM_ID: &[u8; 6] = b"COLINX";
const OEM_TABLE_ID: &[u8; 8] = b"CLTBOARD";
const CREATOR_ID: &[u8; 4] = b"CLTR";
const RSDP_LEN: usize = 36;
const HEADER_LEN: usize = 36;
/// Length of a FADT of ACPI 6.
const FADT_LEN: usize = 276;
/// Tables start at multiples of this.
const ALIGN: usize = 16;

/// FADT flags: WBINVD works; no power or sleep button in fixed hardware; no RTC wake in fixed
/// hardware; the reset register is there; hardware-reduced.
const FADT_FLAGS: u32 = 1 << 0 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 10 | 1 << 20;
/// FADT boot flags: no VGA (bit 2). No 8042 (bit 1 clear); the CMOS clock is there (bit 5 clear).
const FADT_BOOT_FLAGS: u16 = 1 << 2;

/// The tables of a machine without virtio devices, to be copied to `base`.
///
/// The RSDP is the first of them, so its address is `base`.
pub fn tables(vcpus: u8, base: Gpa) -> Vec<u8> {
    tables_with_virtio(vcpus, 0, base)
}

/// The tables of a machine with virtio-mmio devices in the first `virtio` slots.
pub fn tables_with_virtio(vcpus: u8, virtio: u8, base: Gpa) -> Vec<u8> {
    let mut bytes = vec![0; RSDP_LEN];
    let mut place = |table: Vec<u8>| {
        bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
        let address = base.0 + bytes.len() as u64;
        bytes.extend(table);
        address
    };
    let dsdt = place(dsdt(virtio));
    let fadt = place(fadt(dsdt));
    let madt = place(madt(vcpus));
    let xsdt = place(table(
        b"XSDT",
        1,
        &[fadt.to_le_bytes(), madt.to_le_bytes()].concat(),
    ));
    bytes[..RSDP_LEN].copy_from_slice(&rsdp(xsdt));
    bytes
}

/// Makes the sum of `bytes` zero, by the byte at `at`.
fn set_checksum(bytes: &mut [u8], at: usize) {
    bytes[at] = 0;
    bytes[at] = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
}

/// A table: the header every one has, and the body (section 5.2.6).
fn table(signature: &[u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_LEN + body.len());
    bytes.extend(signature);
    bytes.extend(((HEADER_LEN + body.len()) as u32).to_le_bytes());
    bytes.extend([revision, 0]);
    bytes.extend(OEM_ID);
    bytes.extend(OEM_TABLE_ID);
    bytes.extend(1u32.to_le_bytes());
    bytes.extend(CREATOR_ID);
    bytes.extend(1u32.to_le_bytes());
    bytes.extend(body);
    set_checksum(&mut bytes, 9);
    bytes
}

/// The root pointer, revision 2 (section 5.2.5.3).
fn rsdp(xsdt: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(RSDP_LEN);
    bytes.extend(b"RSD PTR \0");
    bytes.extend(OEM_ID);
    bytes.push(2);
    bytes.extend(0u32.to_le_bytes());
    bytes.extend((RSDP_LEN as u32).to_le_bytes());
    bytes.extend(xsdt.to_le_bytes());
    bytes.extend([0; 4]);
    // The first checksum covers what ACPI 1.0 knew, the second everything.
    set_checksum(&mut bytes[..20], 8);
    set_checksum(&mut bytes, 32);
    bytes
}

/// A generic address structure for an eight-bit port (section 5.2.3.2).
fn port(address: u16) -> Vec<u8> {
    [&[1, 8, 0, 1], u64::from(address).to_le_bytes().as_slice()].concat()
}

/// The fixed description table (section 5.2.9), whose fields are named by their offset.
fn fadt(dsdt: u64) -> Vec<u8> {
    let mut body = vec![0; FADT_LEN - HEADER_LEN];
    let mut put = |offset: usize, field: &[u8]| {
        body[offset - HEADER_LEN..][..field.len()].copy_from_slice(field);
    };
    put(108, &[REG_CENTURY]);
    put(109, &FADT_BOOT_FLAGS.to_le_bytes());
    put(112, &FADT_FLAGS.to_le_bytes());
    put(116, &port(layout::RESET_REGISTER));
    put(128, &[layout::RESET_VALUE]);
    // The minor version, ACPI 6.5.
    put(131, &[5]);
    put(140, &dsdt.to_le_bytes());
    put(244, &port(layout::SLEEP_CONTROL));
    put(256, &port(layout::SLEEP_STATUS));
    table(b"FACP", 6, &body)
}

/// The interrupt controllers (section 5.2.12). PCAT_COMPAT is clear: there is no PIC.
fn madt(vcpus: u8) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend((layout::LAPIC_BASE.0 as u32).to_le_bytes());
    body.extend(0u32.to_le_bytes());
    for id in 0..vcpus {
        // Processor local APIC: processor, identifier, enabled.
        body.extend([0, 8, id, id]);
        body.extend(1u32.to_le_bytes());
    }
    body.extend([1, 12, layout::IOAPIC_ID, 0]);
    body.extend((layout::IOAPIC_BASE.0 as u32).to_le_bytes());
    body.extend(0u32.to_le_bytes());
    table(b"APIC", 5, &body)
}

/// The devices that cannot be found by looking.
fn dsdt(virtio: u8) -> Vec<u8> {
    let serial = aml::device(
        "COM1",
        &[
            aml::name("_HID", &aml::eisa_id("PNP0501")),
            aml::name("_UID", &aml::integer(1)),
            aml::name(
                "_CRS",
                &aml::resource_template(&[
                    aml::io_ports(layout::SERIAL_BASE, 8),
                    aml::irq_no_flags(layout::SERIAL_IRQ),
                ]),
            ),
        ]
        .concat(),
    );
    // No interrupt: the clock has no alarm.
    let clock = aml::device(
        "RTC",
        &[
            aml::name("_HID", &aml::eisa_id("PNP0B00")),
            aml::name(
                "_CRS",
                &aml::resource_template(&[aml::io_ports(layout::RTC_INDEX, 2)]),
            ),
        ]
        .concat(),
    );
    let mut devices = [serial, clock].concat();
    for slot in 0..virtio.min(layout::VIRTIO_MMIO_MAX) {
        devices.extend(virtio_mmio(slot));
    }
    // SLP_TYP of soft-off; the other elements belong to fixed hardware.
    let soft_off = aml::elements(&[
        aml::integer(layout::SLEEP_TYPE_S5.into()),
        aml::integer(0),
        aml::integer(0),
        aml::integer(0),
    ]);
    let body = [aml::scope("_SB", &devices), aml::name("_S5", &soft_off)].concat();
    table(b"DSDT", 2, &body)
}

/// One virtio-mmio device; kernels bind its driver to this identifier.
fn virtio_mmio(slot: u8) -> Vec<u8> {
    let base = layout::VIRTIO_MMIO_BASE.0 + u64::from(slot) * layout::VIRTIO_MMIO_STRIDE;
    let memory = aml::memory32_fixed(base as u32, layout::VIRTIO_MMIO_STRIDE as u32);
    let interrupt = aml::interrupt_level(u32::from(layout::VIRTIO_IRQ_BASE + slot));
    aml::device(
        &format!("VR{slot:02}"),
        &[
            aml::name("_HID", &aml::string("LNRO0005")),
            aml::name("_UID", &aml::integer(slot.into())),
            aml::name("_CCA", &aml::integer(1)),
            aml::name("_CRS", &aml::resource_template(&[memory, interrupt])),
        ]
        .concat(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Gpa = layout::RSDP;

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
        (0..len).fold(0, |value, index| {
            value | u64::from(bytes[at + index]) << (8 * index)
        })
    }

    /// The table at an address, checked.
    fn at(all: &[u8], address: u64) -> &[u8] {
        let start = (address - BASE.0) as usize;
        let len = number(all, start + 4, 4) as usize;
        let table = &all[start..start + len];
        assert_eq!(sum(table), 0, "checksum of {:?}", &table[..4]);
        assert_eq!(start % ALIGN, 0);
        table
    }

    #[test]
    fn every_table_is_reachable_from_the_root_and_sums_to_zero() {
        let all = tables_with_virtio(3, 8, BASE);
        assert_eq!(&all[..8], b"RSD PTR ");
        assert_eq!((sum(&all[..20]), sum(&all[..36])), (0, 0));
        assert!(BASE.0 + all.len() as u64 <= layout::HIGH_RAM_START.0);
        let xsdt = at(&all, number(&all, 24, 8));
        assert_eq!((&xsdt[..4], xsdt.len()), (b"XSDT".as_slice(), 52));
        let fadt = at(&all, number(xsdt, 36, 8));
        assert_eq!(
            (&fadt[..4], fadt.len(), fadt[8]),
            (b"FACP".as_slice(), 276, 6)
        );
        let madt = at(&all, number(xsdt, 44, 8));
        assert_eq!(&madt[..4], b"APIC");
        let dsdt = at(&all, number(fadt, 140, 8));
        assert_eq!(&dsdt[..4], b"DSDT");
        assert_eq!(
            dsdt.windows(8).filter(|part| part == b"LNRO0005").count(),
            8
        );
    }

    #[test]
    fn fadt_names_the_registers_of_the_board() {
        let fadt = fadt(0x1000);
        assert_eq!(
            number(&fadt, 112, 4) & (1 << 20),
            1 << 20,
            "hardware-reduced"
        );
        assert_eq!(number(&fadt, 109, 2), 0b100);
        assert_eq!(
            (fadt[116], number(&fadt, 120, 8)),
            (1, layout::RESET_REGISTER.into())
        );
        assert_eq!(fadt[128], layout::RESET_VALUE);
        assert_eq!(
            (fadt[244], number(&fadt, 248, 8)),
            (1, layout::SLEEP_CONTROL.into())
        );
        assert_eq!(
            (fadt[256], number(&fadt, 260, 8)),
            (1, layout::SLEEP_STATUS.into())
        );
    }

    #[test]
    fn madt_has_one_entry_per_vcpu_and_the_io_apic() {
        let madt = madt(2);
        assert_eq!(number(&madt, 36, 4), layout::LAPIC_BASE.0);
        assert_eq!(number(&madt, 40, 4), 0, "no PIC");
        assert_eq!(
            madt[44..60],
            [0, 8, 0, 0, 1, 0, 0, 0, 0, 8, 1, 1, 1, 0, 0, 0]
        );
        assert_eq!((madt[60], madt[61], madt.len()), (1, 12, 72));
        assert_eq!(number(&madt, 64, 4), layout::IOAPIC_BASE.0);
    }

    /// The DSDT of one virtio device, as `iasl testdata/dsdt.asl` makes it.
    #[test]
    fn dsdt_is_what_the_compiler_makes() {
        let dsdt = dsdt(1);
        let compiled = include_bytes!("testdata/dsdt.aml");
        assert_eq!(dsdt[HEADER_LEN..], compiled[HEADER_LEN..]);
    }
}
