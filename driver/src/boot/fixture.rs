//! Small kernels for the tests of the boot loader: an ELF file, compressed in every way, in a
//! bzImage.

use std::io::Write;

/// One `PT_LOAD` segment: physical and virtual address, `p_flags`, bytes, size in memory.
#[derive(Clone, Debug)]
pub(super) struct ElfSegment {
    pub gpa: u64,
    pub gva: u64,
    pub flags: u32,
    pub data: Vec<u8>,
    pub memory_size: u64,
}

/// What an ELF file is made of.
#[derive(Clone, Debug)]
pub(super) struct ElfSpec {
    pub entry: u64,
    pub segments: Vec<ElfSegment>,
}

/// A vmlinux of two segments, text at 16 MiB and data with bss at 18 MiB.
pub(super) fn minimal_elf() -> ElfSpec {
    let mut text = vec![0xf4; 64];
    text.extend(b"Linux version unknown\0Linux version 6.1.0-test (a@b) # SMP\n\0");
    text.extend(b"Linux version 6.1.0-test (a@b) #1 SMP\n\0");
    text.extend(SAMPLE.repeat(8));
    let segment = |gpa, flags, data, memory_size| ElfSegment {
        gpa,
        gva: 0xffff_ffff_8000_0000 + gpa,
        flags,
        data,
        memory_size,
    };
    ElfSpec {
        entry: 0x100_0010,
        segments: vec![
            segment(0x100_0000, 5, text, 0x1000),
            segment(0x120_0000, 6, vec![0xda; 100], 0x4000),
        ],
    }
}

/// The bytes of an ELF file.
pub(super) fn elf(spec: &ElfSpec) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    for half in [2u16, 62] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1u32.to_le_bytes());
    for word in [spec.entry, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0u32.to_le_bytes());
    for half in [64, 56, spec.segments.len() as u16, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    let mut offset = (64 + 56 * spec.segments.len()) as u64;
    for segment in &spec.segments {
        file.extend(1u32.to_le_bytes());
        file.extend(segment.flags.to_le_bytes());
        let size = segment.data.len() as u64;
        for word in [
            offset,
            segment.gva,
            segment.gpa,
            size,
            segment.memory_size,
            0x1000,
        ] {
            file.extend(word.to_le_bytes());
        }
        offset += size;
    }
    for segment in &spec.segments {
        file.extend(&segment.data);
    }
    file
}

/// A bzImage around a payload.
#[derive(Clone, Debug)]
pub(super) struct Bz<'a> {
    payload: &'a [u8],
    setup_sects: u8,
}

impl<'a> Bz<'a> {
    /// Around `payload`, which has its size appended.
    pub(super) fn new(payload: &'a [u8]) -> Self {
        Self {
            payload,
            setup_sects: 2,
        }
    }

    /// With that many sectors of real-mode code.
    pub(super) fn setup_sects(self, setup_sects: u8) -> Self {
        Self {
            setup_sects,
            ..self
        }
    }

    /// The file's bytes. The header is that of a stock kernel, boot protocol 2.15.
    pub(super) fn build(&self) -> Vec<u8> {
        const PAYLOAD_OFFSET: usize = 0x2cc;
        let start = (usize::from(self.setup_sects) + 1) * 512;
        let mut file = vec![0; start + PAYLOAD_OFFSET];
        file.extend(self.payload);
        file.resize(start + (file.len() - start).next_multiple_of(16), 0);
        let paragraphs = ((file.len() - start) / 16) as u32;
        let mut put = |offset: usize, field: &[u8]| {
            file[offset..offset + field.len()].copy_from_slice(field);
        };
        put(0, b"MZ");
        put(0x1f1, &[self.setup_sects]);
        put(0x1f4, &paragraphs.to_le_bytes());
        put(0x1fa, &0xffffu16.to_le_bytes());
        put(0x1fe, &0xaa55u16.to_le_bytes());
        put(0x200, &[0xeb, 0x6a]);
        put(0x202, b"HdrS");
        put(0x206, &0x020fu16.to_le_bytes());
        put(0x20e, &0x100u16.to_le_bytes());
        put(0x211, &[1]);
        put(0x214, &0x10_0000u32.to_le_bytes());
        put(0x22c, &0x7fff_ffffu32.to_le_bytes());
        put(0x230, &0x20_0000u32.to_le_bytes());
        put(0x234, &[1]);
        put(0x236, &0x7fu16.to_le_bytes());
        put(0x238, &2047u32.to_le_bytes());
        put(0x248, &(PAYLOAD_OFFSET as u32).to_le_bytes());
        put(0x24c, &(self.payload.len() as u32).to_le_bytes());
        put(0x258, &0x100_0000u64.to_le_bytes());
        put(0x260, &0x80_0000u32.to_le_bytes());
        put(0x300, b"6.1.0-test (a@b) #1 SMP\0");
        file
    }
}

/// `stream` with its uncompressed size appended, as the kernel's build does.
pub(super) fn sized(stream: &[u8], size: usize) -> Vec<u8> {
    [stream, &(size as u32).to_le_bytes()].concat()
}

/// A gzip stream, which ends with the size.
pub(super) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// An LZ4 legacy frame of one block.
pub(super) fn lz4_legacy(data: &[u8]) -> Vec<u8> {
    let block = lz4_flex::block::compress(data);
    let magic = 0x184c_2102u32.to_le_bytes();
    let length = (block.len() as u32).to_le_bytes();
    [magic.as_slice(), &length, &block].concat()
}

/// A zstd frame.
pub(super) fn zstd(data: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(data, ruzstd::encoding::CompressionLevel::Fastest)
}

/// A few x86 instructions, near calls among them, and some text.
pub(super) const SAMPLE: &[u8] = &[
    0x55, 0x48, 0x89, 0xe5, 0xe8, 0x10, 0x32, 0x54, 0x00, 0xe9, 0x21, 0x43, 0x00, 0x00, 0xc9, 0xc3,
    0x4c, 0x69, 0x6e, 0x75, 0x78, 0x20, 0x74, 0x65, 0x78, 0x74, 0x2e,
];

/// `SAMPLE` 40 times, by `xz --check=crc32 --x86 --lzma2=dict=64KiB`.
pub(super) const XZ_SAMPLE: &[u8] = &[
    0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x01, 0x69, 0x22, 0xde, 0x36, 0x02, 0x01, 0x04, 0x00,
    0x21, 0x01, 0x08, 0x00, 0xd2, 0xb9, 0x74, 0xcb, 0xe0, 0x04, 0x37, 0x00, 0xc4, 0x5d, 0x00, 0x2a,
    0x92, 0x0d, 0xa4, 0xe4, 0xbe, 0x94, 0x35, 0x28, 0xc6, 0x63, 0xc7, 0xcc, 0x27, 0x36, 0xcc, 0x8f,
    0x6a, 0xd6, 0xef, 0x6e, 0x3b, 0x20, 0xa8, 0x2e, 0x1f, 0xba, 0x5d, 0x96, 0x44, 0xc2, 0x73, 0xad,
    0x29, 0xf1, 0x64, 0xf1, 0xfd, 0x46, 0xf5, 0x6e, 0x5d, 0x69, 0xa0, 0x34, 0x5a, 0x27, 0xb1, 0x49,
    0xb2, 0xf1, 0x14, 0xa0, 0xa2, 0x95, 0xbe, 0xbe, 0x08, 0xf1, 0x44, 0x01, 0xb4, 0x50, 0x3b, 0x9e,
    0xe9, 0xb4, 0x44, 0x86, 0x75, 0x5f, 0x14, 0x68, 0x17, 0xeb, 0xcb, 0xf1, 0x3f, 0x88, 0x41, 0xe2,
    0xda, 0x2e, 0x1a, 0xfd, 0x08, 0xb8, 0xb4, 0x4f, 0x35, 0x85, 0xd0, 0x5f, 0x8a, 0x73, 0x4f, 0x98,
    0x35, 0x66, 0x3d, 0xa0, 0x41, 0x00, 0x03, 0x95, 0x60, 0x09, 0xc0, 0x4d, 0x9d, 0xe9, 0xbc, 0x0f,
    0x0c, 0xe8, 0x99, 0x78, 0xb2, 0x1e, 0x0c, 0x4e, 0x27, 0x30, 0x2f, 0xa1, 0x1d, 0xd7, 0x72, 0xa5,
    0x32, 0x21, 0x0d, 0x4b, 0x24, 0x8a, 0x00, 0x3f, 0x13, 0x19, 0x23, 0x4b, 0x2f, 0x89, 0x26, 0x4b,
    0x40, 0xbe, 0x4f, 0xc1, 0x29, 0x73, 0x4a, 0x43, 0xe1, 0x86, 0x56, 0xa4, 0x99, 0xcf, 0x6d, 0x1d,
    0x00, 0x14, 0x38, 0xe1, 0x79, 0x02, 0x1b, 0x80, 0x04, 0xea, 0x96, 0xb8, 0xcc, 0x0d, 0xb0, 0xd8,
    0xd1, 0x26, 0xea, 0x29, 0xbe, 0x72, 0x37, 0xa9, 0x49, 0x36, 0xd2, 0x3d, 0xf1, 0x54, 0x37, 0x95,
    0x38, 0x3a, 0x00, 0x00, 0x5b, 0x4c, 0xba, 0x67, 0x00, 0x01, 0xdc, 0x01, 0xb8, 0x08, 0x00, 0x00,
    0xf4, 0x16, 0x1c, 0x4d, 0x3e, 0x30, 0x0d, 0x8b, 0x02, 0x00, 0x00, 0x00, 0x00, 0x01, 0x59, 0x5a,
];

/// `SAMPLE` 40 times, by `xz --format=lzma`.
pub(super) const LZMA_SAMPLE: &[u8] = &[
    0x5d, 0x00, 0x00, 0x01, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, 0x2a, 0x92,
    0x0d, 0xa4, 0xe4, 0xbe, 0x70, 0x47, 0x28, 0xc6, 0x63, 0xc5, 0xc8, 0x30, 0x12, 0x6c, 0x19, 0xc3,
    0x50, 0xa5, 0x4f, 0x0d, 0x59, 0xd2, 0xcb, 0xd7, 0x64, 0xff, 0x0f, 0x8f, 0x68, 0x85, 0x3a, 0x2e,
    0x20, 0x57, 0x1f, 0x55, 0x89, 0x60, 0xff, 0xff, 0xd4, 0x2e, 0x00, 0x00,
];
