//! ACPI machine language, as little of it as the board's DSDT needs (ACPI 6.5, chapter 20).

/// Encodes a package length: the length of the content plus that of the encoding itself.
fn package_length(content: usize) -> Vec<u8> {
    // One byte holds 6 bits; otherwise the first holds 4 bits and the number of bytes that follow.
    if content + 1 < 0x40 {
        return vec![(content + 1) as u8];
    }
    let follow = match content {
        _ if content + 2 < 1 << 12 => 1,
        _ if content + 3 < 1 << 20 => 2,
        _ => 3,
    };
    let total = content + 1 + follow;
    let mut bytes = vec![(follow << 6) as u8 | (total & 0xf) as u8];
    bytes.extend((0..follow).map(|index| (total >> (4 + 8 * index)) as u8));
    bytes
}

/// A term with an opcode, a package length and a body.
fn package(opcode: &[u8], body: &[u8]) -> Vec<u8> {
    [opcode, &package_length(body.len()), body].concat()
}

/// A name segment: four characters, padded with `_`.
fn segment(name: &str) -> [u8; 4] {
    let mut bytes = [b'_'; 4];
    for (byte, character) in bytes.iter_mut().zip(name.bytes()) {
        *byte = character;
    }
    bytes
}

/// `Name (name, value)`.
pub fn name(name: &str, value: &[u8]) -> Vec<u8> {
    [&[0x08], segment(name).as_slice(), value].concat()
}

/// `Scope (name) { body }`.
pub fn scope(name: &str, body: &[u8]) -> Vec<u8> {
    package(&[0x10], &[&segment(name), body].concat())
}

/// `Device (name) { body }`.
pub fn device(name: &str, body: &[u8]) -> Vec<u8> {
    package(&[0x5b, 0x82], &[&segment(name), body].concat())
}

/// An integer, in its shortest form.
pub fn integer(value: u64) -> Vec<u8> {
    let bytes = value.to_le_bytes();
    let (prefix, len) = match value {
        0 => return vec![0x00],
        1 => return vec![0x01],
        2..=0xff => (0x0a, 1),
        0x100..=0xffff => (0x0b, 2),
        0x1_0000..=0xffff_ffff => (0x0c, 4),
        _ => (0x0e, 8),
    };
    [&[prefix], &bytes[..len]].concat()
}

/// A string.
pub fn string(text: &str) -> Vec<u8> {
    [&[0x0d], text.as_bytes(), &[0]].concat()
}

/// `Package () { elements }`.
pub fn elements(values: &[Vec<u8>]) -> Vec<u8> {
    package(
        &[0x12],
        &[&[values.len() as u8], values.concat().as_slice()].concat(),
    )
}

/// `EisaId ("PNP0501")`: three letters of five bits and four hexadecimal digits, in a DWord whose
/// bytes are in the order of the bus.
pub fn eisa_id(id: &str) -> Vec<u8> {
    let mut value = 0u32;
    for (index, character) in id.chars().take(7).enumerate() {
        value = if index < 3 {
            value << 5 | (character as u32).wrapping_sub(0x40) & 0x1f
        } else {
            value << 4 | character.to_digit(16).unwrap_or(0)
        };
    }
    [&[0x0c], value.swap_bytes().to_le_bytes().as_slice()].concat()
}

/// `ResourceTemplate () { descriptors }`.
pub fn resource_template(descriptors: &[Vec<u8>]) -> Vec<u8> {
    let mut content = descriptors.concat();
    // End tag; a checksum of 0 means there is none (ACPI 6.5, section 6.4.2.9).
    content.extend([0x79, 0x00]);
    package(&[0x11], &[integer(content.len() as u64), content].concat())
}

/// `IO (Decode16, first, first, 0, len)`.
pub fn io_ports(first: u16, len: u8) -> Vec<u8> {
    let [low, high] = first.to_le_bytes();
    vec![0x47, 0x01, low, high, low, high, 0x00, len]
}

/// `IRQNoFlags () { irq }`: edge-triggered, active high, exclusive.
pub fn irq_no_flags(irq: u8) -> Vec<u8> {
    let [low, high] = (1u16 << (irq & 15)).to_le_bytes();
    vec![0x22, low, high]
}

/// `Memory32Fixed (ReadWrite, base, len)`.
pub fn memory32_fixed(base: u32, len: u32) -> Vec<u8> {
    [
        &[0x86, 9, 0, 1],
        base.to_le_bytes().as_slice(),
        &len.to_le_bytes(),
    ]
    .concat()
}

/// `Interrupt (ResourceConsumer, Level, ActiveHigh, Exclusive) { gsi }`.
pub fn interrupt_level(gsi: u32) -> Vec<u8> {
    [&[0x89, 6, 0, 0x01, 1], gsi.to_le_bytes().as_slice()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_length_has_four_forms() {
        assert_eq!(package_length(0x3e), [0x3f]);
        assert_eq!(package_length(0x3f), [0x41, 0x04]);
        assert_eq!(package_length(0xffd), [0x4f, 0xff]);
        assert_eq!(package_length(0xffe), [0x81, 0x00, 0x01]);
        assert_eq!(package_length(0xf_fffd), [0xc1, 0x00, 0x00, 0x01]);
    }

    #[test]
    fn identifiers_match_the_compiler() {
        assert_eq!(eisa_id("PNP0501"), [0x0c, 0x41, 0xd0, 0x05, 0x01]);
        assert_eq!(eisa_id("PNP0B00"), [0x0c, 0x41, 0xd0, 0x0b, 0x00]);
    }

    #[test]
    fn integers_take_their_shortest_form() {
        assert_eq!(integer(5), [0x0a, 5]);
        assert_eq!(integer(0x1234), [0x0b, 0x34, 0x12]);
        assert_eq!(integer(0x1_0000), [0x0c, 0, 0, 1, 0]);
        assert_eq!(integer(1 << 32), [0x0e, 0, 0, 0, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn a_resource_template_counts_its_end_tag() {
        let template = resource_template(&[irq_no_flags(4)]);
        assert_eq!(
            template,
            [0x11, 0x08, 0x0a, 0x05, 0x22, 0x10, 0x00, 0x79, 0x00]
        );
    }
}
