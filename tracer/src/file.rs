//! The first bytes of a recording and its last.

use thiserror::Error;

/// First bytes of every recording. The high bit, CR LF and Ctrl-Z find transfers that change bytes,
/// as PNG's signature does.
pub const FILE_MAGIC: [u8; 8] = *b"\x89CLT\r\n\x1a\n";
/// Length of the file header.
pub const FILE_HEADER_LEN: usize = 32;
/// The format version that this build writes.
pub const FORMAT_VERSION: u16 = 1;
/// First bytes of the trailer.
pub const TRAILER_MAGIC: [u8; 4] = *b"CLTE";
/// Length of the trailer, the last bytes of a finished recording.
pub const TRAILER_LEN: usize = 24;

/// What is wrong with the beginning of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FileRule {
    /// Nothing of a recording.
    #[error("not a colinux-trace recording")]
    Magic,
    /// It ends inside the file header.
    #[error("the file is {found} bytes long, shorter than the {FILE_HEADER_LEN} of its header")]
    Short {
        /// Length of the file.
        found: u64,
    },
    /// A format version after this build's.
    #[error("format version {found} is newer than the {FORMAT_VERSION} that this build reads")]
    Version {
        /// In the file.
        found: u16,
    },
    /// A feature that this build does not have.
    #[error("the recording needs features {0:#010x} that this build does not have")]
    Features(u32),
    /// The checksum.
    #[error("the checksum of the file header does not match")]
    Checksum,
}

/// The file header of this build.
pub(crate) fn encode_file_header() -> [u8; FILE_HEADER_LEN] {
    let mut header = [0; FILE_HEADER_LEN];
    header[..8].copy_from_slice(&FILE_MAGIC);
    header[8..10].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    // 10..12 minor version, 12..16 needed features, 16..28 reserved: all zero in version 1.
    let check = crc32fast::hash(&header[..28]);
    header[28..].copy_from_slice(&check.to_le_bytes());
    header
}

/// Reads a file header and gives the format version.
pub(crate) fn decode_file_header(bytes: &[u8], file_len: u64) -> Result<u16, FileRule> {
    if !bytes.starts_with(&FILE_MAGIC) {
        let short = FILE_MAGIC.starts_with(bytes) && bytes.len() < FILE_MAGIC.len();
        return Err(if short {
            FileRule::Short { found: file_len }
        } else {
            FileRule::Magic
        });
    }
    let Some(header) = bytes.first_chunk::<FILE_HEADER_LEN>() else {
        return Err(FileRule::Short { found: file_len });
    };
    let [.., a, b, c, d] = *header;
    if crc32fast::hash(&header[..28]) != u32::from_le_bytes([a, b, c, d]) {
        return Err(FileRule::Checksum);
    }
    let version = u16::from_le_bytes([header[8], header[9]]);
    if version == 0 || version > FORMAT_VERSION {
        return Err(FileRule::Version { found: version });
    }
    let features = u32::from_le_bytes([header[12], header[13], header[14], header[15]]);
    if features != 0 {
        return Err(FileRule::Features(features));
    }
    Ok(version)
}

/// Where the index is: the last bytes of a finished recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trailer {
    /// Offset of the index chunk.
    pub(crate) index_offset: u64,
    /// Chunks in the file before the index.
    pub(crate) chunks: u64,
}

impl Trailer {
    pub(crate) fn encode(self) -> [u8; TRAILER_LEN] {
        let mut bytes = [0; TRAILER_LEN];
        bytes[..4].copy_from_slice(&TRAILER_MAGIC);
        bytes[4..12].copy_from_slice(&self.index_offset.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.chunks.to_le_bytes());
        let check = crc32fast::hash(&bytes[..20]);
        bytes[20..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    /// Reads a trailer; `None` if these bytes are none.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (body, check) = bytes
            .first_chunk::<TRAILER_LEN>()?
            .split_last_chunk::<4>()?;
        if !body.starts_with(&TRAILER_MAGIC) || crc32fast::hash(body) != u32::from_le_bytes(*check)
        {
            return None;
        }
        let index_offset = u64::from_le_bytes(*body[4..].first_chunk()?);
        let chunks = u64::from_le_bytes(*body[12..].first_chunk()?);
        Some(Self {
            index_offset,
            chunks,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_reads_back_and_every_bit_of_it_is_checked() {
        let header = encode_file_header();
        assert_eq!(decode_file_header(&header, 32), Ok(1));
        for bit in 0..header.len() * 8 {
            let mut damaged = header;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_file_header(&damaged, 32).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn what_is_not_a_recording_is_told_from_a_short_one() {
        assert_eq!(decode_file_header(b"\x7fELF", 4), Err(FileRule::Magic));
        assert_eq!(
            decode_file_header(b"", 0),
            Err(FileRule::Short { found: 0 })
        );
        assert_eq!(
            decode_file_header(b"\x89CLT\r", 5),
            Err(FileRule::Short { found: 5 })
        );
        let header = encode_file_header();
        assert_eq!(
            decode_file_header(&header[..31], 31),
            Err(FileRule::Short { found: 31 })
        );
    }

    fn sealed(edit: impl FnOnce(&mut [u8; FILE_HEADER_LEN])) -> [u8; FILE_HEADER_LEN] {
        let mut header = encode_file_header();
        edit(&mut header);
        let check = crc32fast::hash(&header[..28]);
        header[28..].copy_from_slice(&check.to_le_bytes());
        header
    }

    #[test]
    fn later_versions_and_features_are_refused_by_name() {
        let later = sealed(|header| header[8] = 2);
        assert_eq!(
            decode_file_header(&later, 32),
            Err(FileRule::Version { found: 2 })
        );
        let features = sealed(|header| header[12] = 4);
        assert_eq!(
            decode_file_header(&features, 32),
            Err(FileRule::Features(4))
        );
        let minor = sealed(|header| header[10] = 9);
        assert_eq!(
            decode_file_header(&minor, 32),
            Ok(1),
            "a minor version is no hindrance"
        );
        let reserved = sealed(|header| header[20] = 1);
        assert_eq!(
            decode_file_header(&reserved, 32),
            Ok(1),
            "reserved bytes are ignored"
        );
    }

    #[test]
    fn the_trailer_reads_back_and_every_bit_of_it_is_checked() {
        let trailer = Trailer {
            index_offset: 0x1234_5678_9abc,
            chunks: 77,
        };
        let bytes = trailer.encode();
        assert_eq!(Trailer::decode(&bytes), Some(trailer));
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Trailer::decode(&damaged), None, "bit {bit}");
        }
        assert_eq!(Trailer::decode(&bytes[..23]), None);
    }
}
