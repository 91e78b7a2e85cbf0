use proptest::prelude::*;

use super::*;

/// A small ELF image for x86-64: one loaded segment, two sections, notes, two symbols.
fn sample() -> Vec<u8> {
    let mut strings = vec![0u8];
    let mut name = |text: &str| {
        let at = strings.len() as u32;
        strings.extend_from_slice(text.as_bytes());
        strings.push(0);
        at
    };
    let names = [".text", ".notes", ".symtab", ".strtab", "start", "counter"].map(&mut name);
    let text = vec![0x90u8; 64];
    let mut note = vec![4, 0, 0, 0, 4, 0, 0, 0, 3, 0, 0, 0];
    note.extend_from_slice(b"GNU\0\x01\x02\x03\x04");
    let mut symbols = vec![0u8; 24];
    for (name, info, value) in [(names[4], 0x12u8, 0x1000u64), (names[5], 0x01, 0x1020)] {
        symbols.extend_from_slice(&name.to_le_bytes());
        symbols.extend_from_slice(&[info, 0, 1, 0]);
        symbols.extend_from_slice(&value.to_le_bytes());
        symbols.extend_from_slice(&16u64.to_le_bytes());
    }
    let mut out = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0];
    out.resize(64 + 56, 0);
    let mut place = |bytes: &[u8]| {
        out.resize(out.len().next_multiple_of(8), 0);
        out.extend_from_slice(bytes);
        (out.len() - bytes.len(), bytes.len())
    };
    let parts = [place(&text), place(&note), place(&symbols), place(&strings)];
    out.resize(out.len().next_multiple_of(8), 0);
    let headers = out.len() as u64;
    out.extend_from_slice(&[0; 64]);
    let kinds = [
        (1u32, 6u64, 0x1000u64),
        (7, 2, 0x2000),
        (2, 0, 0),
        (3, 0, 0),
    ];
    for (i, ((offset, len), (kind, flags, addr))) in parts.into_iter().zip(kinds).enumerate() {
        let (link, entry) = if kind == 2 { (4u32, 24u64) } else { (0, 0) };
        out.extend_from_slice(&names[i].to_le_bytes());
        out.extend_from_slice(&kind.to_le_bytes());
        for word in [flags, addr, offset as u64, len as u64] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&link.to_le_bytes());
        out.extend_from_slice(&1u32.to_le_bytes());
        out.extend_from_slice(&1u64.to_le_bytes());
        out.extend_from_slice(&entry.to_le_bytes());
    }
    let mut set = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    set(16, &2u16.to_le_bytes());
    set(18, &62u16.to_le_bytes());
    set(20, &1u32.to_le_bytes());
    set(32, &64u64.to_le_bytes());
    set(40, &headers.to_le_bytes());
    for (i, half) in [64u16, 56, 1, 64, 5, 4].into_iter().enumerate() {
        set(52 + 2 * i, &half.to_le_bytes());
    }
    // The program header: PT_LOAD of the text at 0x1000.
    set(64, &1u32.to_le_bytes());
    set(72, &(parts[0].0 as u64).to_le_bytes());
    set(80, &0x1000u64.to_le_bytes());
    set(96, &64u64.to_le_bytes());
    set(104, &64u64.to_le_bytes());
    out
}

#[test]
fn sections_symbols_and_the_build_id_are_read() {
    let bytes = sample();
    let image = Image::parse(&bytes).expect("image");
    assert_eq!(
        image.build_id().map(BuildId::to_string).as_deref(),
        Some("01020304")
    );
    let text = image.section(".text").expect("text");
    assert_eq!(
        (text.addr, text.size, text.data.len()),
        (LinkAddr(0x1000), 64, 64)
    );
    let names: Vec<_> = image
        .symbols()
        .map(|s| (s.name, s.addr.0, s.is_text, s.is_global))
        .collect();
    assert_eq!(
        names,
        [
            ("start", 0x1000, true, true),
            ("counter", 0x1020, false, false)
        ]
    );
    assert_eq!(image.bytes_at(LinkAddr(0x1030), 16), Some(&[0x90; 16][..]));
    assert_eq!(image.bytes_at(LinkAddr(0x1031), 16), None);
    assert!(!image.is_relocatable());
    let said = image.section_data(".BTF").unwrap_err().to_string();
    assert_eq!(said, "the image has no .BTF section");
}

#[test]
fn what_is_no_image_of_ours_is_said() {
    let said = |bytes: &[u8]| Image::parse(bytes).map(|_| ()).unwrap_err().to_string();
    let with = |at: usize, value: u8| {
        let mut bytes = sample();
        bytes[at] = value;
        said(&bytes)
    };
    assert_eq!(
        said(b""),
        "not an ELF image: it begins with nothing where 7f 45 4c 46 is expected"
    );
    assert_eq!(with(18, 183), "the image is for arm64, not for x86-64");
    assert_eq!(
        with(4, 1),
        "the image is for a 32-bit machine, not for x86-64"
    );
    assert_eq!(
        with(5, 2),
        "the image is for a big-endian machine, not for x86-64"
    );
    let whole = sample();
    let text = said(&whole[..40]);
    assert_eq!(
        text,
        "the ELF header is cut off: 64 bytes are needed at offset 0x0, 40 are there"
    );
    assert!(said(&whole[..whole.len() - 70]).starts_with("the ELF image is damaged: "));
    let mut zimage = vec![0; 0x300];
    zimage[0x202..0x206].copy_from_slice(b"HdrS");
    assert!(said(&zimage).contains("compressed kernel (bzImage)"));
}

proptest! {
    #[test]
    fn damage_never_panics(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = sample();
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let len = cut.index(bytes.len() * 4).min(bytes.len());
        if let Ok(image) = Image::parse(&bytes[..len]) {
            image.sections().count();
            image.symbols().count();
            let _ = image.section_data(".text");
            image.bytes_at(LinkAddr(0x1010), 8);
        }
    }
}
