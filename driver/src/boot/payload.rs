//! Decompression of the kernel inside a bzImage.
//!
//! The payload is what arch/x86/boot/compressed/Makefile makes: the compressed vmlinux, then its
//! uncompressed size in four little-endian bytes (gzip has that size in its own trailer). Doing
//! this on the host spares the guest 0.1 to 4.5 G instructions.

use std::io::{self, Read};

use super::field::u32_at;
use crate::mem::room::Room;

/// No uncompressed kernel is larger: its mapping at -2 GiB ends at 1 GiB (`KERNEL_IMAGE_SIZE`).
const MAX_KERNEL_SIZE: u32 = 1 << 30;
/// The largest dictionary of XZ and LZMA accepted, in bytes; the kernel's build asks for 128 MiB.
const MAX_DICTIONARY: u32 = 256 << 20;
/// Magic of the LZ4 legacy frame that `lz4 -l` writes.
const LZ4_LEGACY: u32 = 0x184c_2102;
/// What one block of an LZ4 legacy frame holds, except the last one.
const LZ4_LEGACY_BLOCK: usize = 8 << 20;

/// How a kernel is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// An ELF file as it is (`CONFIG_KERNEL_UNCOMPRESSED`).
    None,
    /// gzip.
    Gzip,
    /// LZ4, legacy frame.
    Lz4,
    /// `.lzma`.
    Lzma,
    /// XZ, with the x86 filter.
    Xz,
    /// Zstandard.
    Zstd,
}

/// Why the kernel inside a bzImage could not be taken out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// A compression that is known, but not read.
    #[error(
        "the kernel is compressed with {name}, which is not supported: use --as-bzimage, or the vmlinux itself"
    )]
    Unsupported {
        /// Its name.
        name: &'static str,
    },
    /// No known compression.
    #[error("the compressed kernel is of no known kind: it begins with {first:02x?}")]
    Unknown {
        /// Its first bytes.
        first: Vec<u8>,
    },
    /// There is no room for even the size.
    #[error("the compressed kernel is only {len} bytes long")]
    TooShort {
        /// The length in the setup header.
        len: usize,
    },
    /// The announced size is beyond what a kernel can have.
    #[error(
        "the compressed kernel claims to unpack to {size} bytes, more than the {MAX_KERNEL_SIZE} a kernel can have"
    )]
    TooLarge {
        /// The announced size.
        size: u32,
    },
    /// The compressed stream is damaged, or does not have the announced size.
    #[error("unpacking the {name} kernel failed: {reason}")]
    Damaged {
        /// The compression.
        name: &'static str,
        /// What the decoder says.
        reason: String,
    },
}

impl Compression {
    /// Tells the compression from the first bytes, as scripts/extract-vmlinux does.
    pub fn detect(payload: &[u8]) -> Result<Self, PayloadError> {
        let unsupported = |name| Err(PayloadError::Unsupported { name });
        match payload {
            [0x7f, b'E', b'L', b'F', ..] => Ok(Self::None),
            [0x1f, 0x8b, 0x08, ..] => Ok(Self::Gzip),
            [0x02, 0x21, 0x4c, 0x18, ..] => Ok(Self::Lz4),
            [0x5d, 0x00, 0x00, ..] => Ok(Self::Lzma),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Ok(Self::Xz),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Self::Zstd),
            [b'B', b'Z', b'h', ..] => unsupported("bzip2"),
            [0x89, b'L', b'Z', b'O', ..] => unsupported("LZO"),
            _ => Err(PayloadError::Unknown {
                first: payload.iter().take(8).copied().collect(),
            }),
        }
    }

    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "uncompressed",
            Self::Gzip => "gzip",
            Self::Lz4 => "LZ4",
            Self::Lzma => "LZMA",
            Self::Xz => "XZ",
            Self::Zstd => "zstd",
        }
    }
}

/// Unpacks the payload of a bzImage, its appended size included, to the vmlinux (and the
/// relocations behind it, which nobody needs).
pub fn decompress(payload: &[u8]) -> Result<Room, PayloadError> {
    let kind = Compression::detect(payload)?;
    let stream_len = payload.len().saturating_sub(4);
    let too_short = PayloadError::TooShort { len: payload.len() };
    let size = u32_at(payload, stream_len).ok_or(too_short.clone())?;
    let stream = payload.get(..stream_len).ok_or(too_short)?;
    if size > MAX_KERNEL_SIZE {
        return Err(PayloadError::TooLarge { size });
    }
    let size = size as usize;
    let limit_kib = MAX_DICTIONARY / 1024;
    match kind {
        Compression::None => Room::holding(stream).map_err(|error| error.to_string()),
        // The size is gzip's own trailer, so it belongs to the stream.
        Compression::Gzip => read_whole(flate2::read::GzDecoder::new(payload), size),
        Compression::Lz4 => lz4_legacy(stream, size),
        Compression::Lzma => lzma_rust2::LzmaReader::new_mem_limit(stream, limit_kib, None)
            .map_err(|error| error.to_string())
            .and_then(|reader| read_whole(reader, size)),
        Compression::Xz => read_whole(
            lzma_rust2::XzReader::new_mem_limit(stream, false, limit_kib),
            size,
        ),
        Compression::Zstd => zstd(stream, size),
    }
    .map_err(|reason| PayloadError::Damaged {
        name: kind.name(),
        reason,
    })
}

fn room(size: usize) -> Result<Room, String> {
    Room::new(size).map_err(|error| format!("no memory for its {size} bytes: {error}"))
}

/// Reads exactly `size` bytes and insists on the end, where the decoders check their checksums.
fn read_whole(mut reader: impl Read, size: usize) -> Result<Room, String> {
    let mut output = room(size)?;
    let mut filled = 0;
    while let Some(rest) = output.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => return Err(wrong_size(filled, size)),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(format!("{error} (after {filled} of {size} bytes)")),
        }
    }
    match reader.read(&mut [0]) {
        Ok(0) => Ok(output),
        Ok(_) => Err(format!("it is longer than the {size} bytes it should have")),
        Err(error) => Err(error.to_string()),
    }
}

/// The LZ4 legacy frame: a magic, then blocks of a 32-bit compressed size and that many bytes,
/// up to the end (lz4_Frame_format.md, "Legacy frame").
fn lz4_legacy(stream: &[u8], size: usize) -> Result<Room, String> {
    let mut output = room(size)?;
    let mut filled = 0;
    let mut at = 0;
    while at < stream.len() {
        let length = u32_at(stream, at)
            .ok_or_else(|| format!("the block size at offset {at:#x} is cut off"))?;
        at += 4;
        // A magic in the place of a size begins the next frame.
        if length == LZ4_LEGACY {
            continue;
        }
        let end = at.saturating_add(length as usize);
        let block = stream.get(at..end).ok_or_else(|| {
            format!(
                "the block at offset {at:#x} ends at {end:#x}, but the stream has only {:#x} bytes",
                stream.len()
            )
        })?;
        let room = output.get_mut(filled..).unwrap_or_default();
        let room_len = room.len().min(LZ4_LEGACY_BLOCK);
        let room = room.get_mut(..room_len).unwrap_or_default();
        filled += lz4_flex::block::decompress_into(block, room)
            .map_err(|error| format!("the block at offset {at:#x}: {error}"))?;
        at = end;
    }
    if filled == size {
        Ok(output)
    } else {
        Err(wrong_size(filled, size))
    }
}

/// Frames in one piece: their windows are the output itself, and libzstd checks their checksums.
fn zstd(stream: &[u8], size: usize) -> Result<Room, String> {
    let mut output = room(size)?;
    let filled = zstd::bulk::Decompressor::new()
        .and_then(|mut decoder| decoder.decompress_to_buffer(stream, &mut output[..]))
        .map_err(|error| error.to_string())?;
    if filled != size {
        return Err(wrong_size(filled, size));
    }
    Ok(output)
}

fn wrong_size(found: usize, size: usize) -> String {
    format!("it ends after {found} of {size} bytes")
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{LZMA_SAMPLE, SAMPLE, XZ_SAMPLE, gzip, lz4_legacy, sized, zstd};
    use super::*;

    #[test]
    fn every_supported_compression_unpacks() {
        let sample = SAMPLE.repeat(40);
        let elf = [b"\x7fELF".as_slice(), &sample].concat();
        assert_eq!(*decompress(&sized(&elf, elf.len())).unwrap(), *elf);
        assert_eq!(*decompress(&gzip(&sample)).unwrap(), *sample);
        for stream in [
            lz4_legacy(&sample),
            zstd(&sample),
            XZ_SAMPLE.to_vec(),
            LZMA_SAMPLE.to_vec(),
        ] {
            let payload = sized(&stream, sample.len());
            assert_eq!(
                *decompress(&payload).unwrap(),
                *sample,
                "{:x?}",
                &stream[..4]
            );
        }
    }

    #[test]
    fn lz4_blocks_are_joined() {
        let one = lz4_legacy(&[b'a'; 100]);
        let two = lz4_legacy(&[b'b'; 50]);
        // Behind the first magic, a bare block or a whole further frame may follow.
        let bare = [one.as_slice(), &two[4..]].concat();
        let frames = [one.as_slice(), &two].concat();
        let expected = [[b'a'; 100].as_slice(), &[b'b'; 50]].concat();
        assert_eq!(*decompress(&sized(&bare, 150)).unwrap(), *expected);
        assert_eq!(*decompress(&sized(&frames, 150)).unwrap(), *expected);
    }

    #[test]
    fn a_wrong_size_is_an_error() {
        let sample = SAMPLE.repeat(40);
        for stream in [
            lz4_legacy(&sample),
            zstd(&sample),
            XZ_SAMPLE.to_vec(),
            LZMA_SAMPLE.to_vec(),
        ] {
            for size in [0, 1, sample.len() - 1, sample.len() + 1] {
                let error = decompress(&sized(&stream, size)).unwrap_err();
                assert!(matches!(error, PayloadError::Damaged { .. }), "{error}");
            }
        }
        assert!(matches!(
            decompress(&sized(&zstd(&sample), u32::MAX as usize)),
            Err(PayloadError::TooLarge { size: u32::MAX })
        ));
    }

    #[test]
    fn every_cut_stream_is_an_error() {
        let sample = SAMPLE.repeat(40);
        for stream in [
            lz4_legacy(&sample),
            zstd(&sample),
            XZ_SAMPLE.to_vec(),
            LZMA_SAMPLE.to_vec(),
        ] {
            for len in 0..stream.len() {
                let payload = sized(&stream[..len], sample.len());
                assert!(decompress(&payload).is_err(), "{:x?} {len}", &stream[..4]);
            }
        }
        let stream = gzip(&sample);
        for len in 0..stream.len() {
            assert!(decompress(&stream[..len]).is_err(), "gzip {len}");
        }
    }

    #[test]
    fn a_flipped_bit_is_found() {
        let sample = SAMPLE.repeat(40);
        for stream in [gzip(&sample), sized(XZ_SAMPLE, sample.len())] {
            let middle = stream.len() / 2;
            let mut bad = stream.clone();
            bad[middle] ^= 0x10;
            assert!(matches!(
                decompress(&bad),
                Err(PayloadError::Damaged { .. })
            ));
        }
    }

    #[test]
    fn unsupported_and_unknown_say_so() {
        let message = |bytes: &[u8]| decompress(bytes).unwrap_err().to_string();
        assert!(message(b"BZh91AY").contains("bzip2, which is not supported"));
        assert!(message(b"\x89LZO\0\r\n").contains("LZO, which is not supported"));
        assert!(message(b"whatever").contains("begins with [77, 68, 61"));
        assert!(message(b"\x1f\x8b\x08").contains("only 3 bytes"));
        assert!(message(b"").contains("no known kind"));
    }
}
