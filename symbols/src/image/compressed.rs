//! Sections that lie compressed in the file (gABI, "Section Compression"), as some distributions
//! ship their debug information.

use std::borrow::Cow;
use std::io::Read;

use object::elf;

use super::Section;
use crate::bytes::LeBytes;
use crate::error::SymbolError;

/// `Elf64_Chdr`: kind, a reserved word, size, alignment.
const HEADER: usize = 24;
/// No section of a kernel is larger.
const MAX_BYTES: u64 = 4 << 30;

impl<'d> Section<'d> {
    /// The bytes of the section, unpacked if the file has them compressed.
    pub fn contents(&self) -> Result<Cow<'d, [u8]>, SymbolError> {
        if self.flags & elf::SHF_COMPRESSED.0 == 0 {
            return Ok(Cow::Borrowed(self.data));
        }
        let bad = |reason: String| SymbolError::BadSection {
            section: self.name.to_owned(),
            reason,
        };
        let header = (self.data.le_u32(0), self.data.le_u64(8));
        let (Some(kind), Some(size), Some(stream)) = (header.0, header.1, self.data.get(HEADER..))
        else {
            return Err(bad("its header is cut off".to_owned()));
        };
        if size > MAX_BYTES {
            return Err(bad(format!("it claims to unpack to {size} bytes")));
        }
        // As many bytes as it says, and one to see whether there are more.
        let read = |reader: &mut dyn Read| {
            let mut bytes = Vec::new();
            reader.take(size + 1).read_to_end(&mut bytes)?;
            Ok::<_, std::io::Error>(bytes)
        };
        let bytes = match kind {
            1 => read(&mut flate2::read::ZlibDecoder::new(stream)),
            2 => zstd::stream::read::Decoder::new(stream).and_then(|mut d| read(&mut d)),
            kind => return Err(bad(format!("its compression, number {kind}, is not known"))),
        };
        let bytes = bytes.map_err(|error| bad(error.to_string()))?;
        if bytes.len() as u64 != size {
            return Err(bad(format!("it does not unpack to {size} bytes")));
        }
        Ok(Cow::Owned(bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::addr::LinkAddr;

    const TEXT: &[u8] = b"a section, a section, a section";

    fn section(data: &[u8]) -> Section<'_> {
        Section {
            name: ".debug_info",
            index: 1,
            addr: LinkAddr(0),
            size: data.len() as u64,
            flags: elf::SHF_COMPRESSED.0,
            data,
        }
    }

    fn packed(kind: u32, size: usize) -> Vec<u8> {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&(size as u64).to_le_bytes());
        bytes.extend_from_slice(&1u64.to_le_bytes());
        if kind == 1 {
            let mut encoder = flate2::write::ZlibEncoder::new(bytes, flate2::Compression::best());
            encoder.write_all(TEXT).expect("compressed");
            return encoder.finish().expect("compressed");
        }
        bytes.extend_from_slice(&zstd::bulk::compress(TEXT, 3).expect("compressed"));
        bytes
    }

    #[test]
    fn both_kinds_unpack_to_their_size() {
        for kind in [1, 2] {
            let bytes = packed(kind, TEXT.len());
            assert_eq!(section(&bytes).contents().expect("contents"), TEXT);
            for len in 0..bytes.len() {
                assert!(section(&bytes[..len]).contents().is_err(), "{kind} {len}");
            }
            for size in [0, TEXT.len() - 1, TEXT.len() + 1, usize::MAX] {
                let error = section(&packed(kind, size)).contents().unwrap_err();
                let text = error.to_string();
                assert!(text.starts_with("section .debug_info cannot be unpacked: "));
            }
        }
        let error = section(&packed(3, 1)).contents().unwrap_err().to_string();
        assert!(error.ends_with("its compression, number 3, is not known"));
    }

    #[test]
    fn what_is_not_compressed_is_as_it_lies() {
        let mut plain = section(TEXT);
        plain.flags = 0;
        assert!(matches!(plain.contents(), Ok(Cow::Borrowed(TEXT))));
    }
}
