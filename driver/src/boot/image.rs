//! The kernel file as it lies on disk: a bzImage with its setup header, or an ELF vmlinux.
//!
//! Field offsets are those of the kernel's Documentation/arch/x86/boot.rst, "The Real-Mode
//! Kernel Header".

use super::field::{u16_at, u32_at, u64_at};

/// Offset of the first byte of the setup header, in the file and in the zero page alike.
pub(super) const SETUP_HEADER: usize = 0x1f1;
/// The setup header must end before `edd_mbr_sig_buffer` of the zero page.
const SETUP_HEADER_MAX_END: usize = 0x290;
/// Offset of "HdrS".
const MAGIC_AT: usize = 0x202;
/// The sector size the header counts in.
const SECTOR: usize = 512;
/// Oldest boot protocol accepted: the first with `cmdline_size`.
const PROTOCOL_MIN: u16 = 0x0206;

/// Why a file is not a kernel that can be loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// Neither an ELF file nor a bzImage.
    #[error(
        "this file is not an x86-64 Linux kernel: {looks_like} (no ELF header, and no \"HdrS\" at offset 0x202)"
    )]
    NotAKernel {
        /// What the first bytes look like instead.
        looks_like: &'static str,
    },
    /// The file ends before something it announces.
    #[error(
        "the kernel file is truncated: {what} ends at offset {need:#x}, but the file has only {len:#x} bytes"
    )]
    Truncated {
        /// What is cut off.
        what: &'static str,
        /// The offset up to which the file should reach.
        need: u64,
        /// The size of the file.
        len: u64,
    },
    /// The boot protocol is older than what is asked of it.
    #[error(
        "the kernel speaks boot protocol {}.{:02}, but {what} needs {}.{:02} or newer",
        found >> 8, found & 0xff, need >> 8, need & 0xff
    )]
    OldProtocol {
        /// Version in the header.
        found: u16,
        /// Version needed.
        need: u16,
        /// What needs it.
        what: &'static str,
    },
    /// A header field that contradicts the rest of the header.
    #[error(
        "the kernel's setup header is damaged: {field} at offset {offset:#x} has the impossible value {value:#x}"
    )]
    BadHeader {
        /// Name of the field.
        field: &'static str,
        /// Where it lies in the file.
        offset: usize,
        /// What it holds.
        value: u64,
    },
}

/// The fields of a bzImage's setup header that loading depends on.
///
/// A field that the header is too short to have reads as zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetupHeader {
    /// 512-byte sectors of real-mode code after the boot sector.
    pub setup_sects: u8,
    /// Size of the protected-mode code in 16-byte paragraphs.
    pub syssize: u32,
    /// Boot protocol, major in the high byte.
    pub protocol: u16,
    /// Offset of the version string, less 0x200.
    pub kernel_version: u16,
    /// `LOADED_HIGH`, `KASLR_FLAG` and others.
    pub loadflags: u8,
    /// Where the protected-mode code is to be loaded if it cannot be moved.
    pub code32_start: u32,
    /// Highest address the last byte of the initrd may have.
    pub initrd_addr_max: u32,
    /// Alignment of the load address.
    pub kernel_alignment: u32,
    /// Whether the load address is free.
    pub relocatable: bool,
    /// `XLF_KERNEL_64` and others.
    pub xloadflags: u16,
    /// Longest command line, without its terminating zero.
    pub cmdline_size: u32,
    /// Offset of the compressed kernel in the protected-mode code.
    pub payload_offset: u32,
    /// Length of the compressed kernel, its appended size included.
    pub payload_length: u32,
    /// The load address the kernel would choose.
    pub pref_address: u64,
    /// Contiguous memory the kernel needs from its load address.
    pub init_size: u32,
}

/// A bzImage whose setup header has been checked.
#[derive(Clone, Copy, Debug)]
pub struct BzImage<'a> {
    file: &'a [u8],
    header: SetupHeader,
    header_end: usize,
}

/// A kernel file of either kind.
#[derive(Clone, Copy, Debug)]
pub enum KernelFile<'a> {
    /// An ELF file, not looked at further.
    Elf(&'a [u8]),
    /// A bzImage.
    BzImage(BzImage<'a>),
}

impl<'a> KernelFile<'a> {
    /// Tells an ELF file from a bzImage by their magic numbers.
    pub fn parse(file: &'a [u8]) -> Result<Self, ImageError> {
        if file.starts_with(b"\x7fELF") {
            return Ok(Self::Elf(file));
        }
        BzImage::parse(file).map(Self::BzImage)
    }
}

impl<'a> BzImage<'a> {
    /// Checks the setup header of `file`.
    pub fn parse(file: &'a [u8]) -> Result<Self, ImageError> {
        let magic = file.get(MAGIC_AT..MAGIC_AT + 4);
        if magic != Some(b"HdrS") {
            // A kernel begins as a PE file ("MZ") for EFI, or with real-mode code otherwise.
            if magic.is_none() && file.starts_with(b"MZ") {
                return Err(truncated("the setup header", MAGIC_AT + 4, file));
            }
            return Err(ImageError::NotAKernel {
                looks_like: looks_like(file),
            });
        }
        let protocol = u16_at(file, 0x206).ok_or(truncated("the setup header", 0x208, file))?;
        if protocol < PROTOCOL_MIN {
            return Err(ImageError::OldProtocol {
                found: protocol,
                need: PROTOCOL_MIN,
                what: "loading a bzImage",
            });
        }
        // Protocol 2.02+: the header ends where the jump at 0x200 goes.
        let jump = file.get(0x201).copied().unwrap_or(0);
        let header_end = MAGIC_AT + usize::from(jump);
        if !(0x23c..=SETUP_HEADER_MAX_END).contains(&header_end) {
            return Err(ImageError::BadHeader {
                field: "the jump over the header",
                offset: 0x201,
                value: u64::from(jump),
            });
        }
        let Some(fields) = file.get(..header_end) else {
            return Err(truncated("the setup header", header_end, file));
        };
        let byte = |offset: usize| fields.get(offset).copied().unwrap_or(0);
        let word = |offset| u16_at(fields, offset).unwrap_or(0);
        let long = |offset| u32_at(fields, offset).unwrap_or(0);
        let header = SetupHeader {
            // boot.rst: "for backwards compatibility, if the setup_sects field contains 0, the
            // real value is 4".
            setup_sects: match byte(0x1f1) {
                0 => 4,
                sectors => sectors,
            },
            syssize: long(0x1f4),
            protocol,
            kernel_version: word(0x20e),
            loadflags: byte(0x211),
            code32_start: long(0x214),
            initrd_addr_max: long(0x22c),
            kernel_alignment: long(0x230),
            relocatable: byte(0x234) != 0,
            xloadflags: word(0x236),
            cmdline_size: long(0x238),
            payload_offset: long(0x248),
            payload_length: long(0x24c),
            pref_address: u64_at(fields, 0x258).unwrap_or(0),
            init_size: long(0x260),
        };
        Ok(Self {
            file,
            header,
            header_end,
        })
    }

    /// The parsed setup header.
    pub fn header(&self) -> &SetupHeader {
        &self.header
    }

    /// The setup header's bytes, which begin at offset 0x1f1 of the file and of the zero page.
    pub fn setup_header_bytes(&self) -> &'a [u8] {
        self.file
            .get(SETUP_HEADER..self.header_end)
            .unwrap_or_default()
    }

    /// Where the protected-mode code begins in the file.
    fn protected_mode_start(&self) -> usize {
        (usize::from(self.header.setup_sects) + 1) * SECTOR
    }

    /// The protected-mode code: the guest's own decompressor with the compressed kernel in it.
    pub fn protected_mode(&self) -> Result<&'a [u8], ImageError> {
        let start = self.protected_mode_start();
        // The size is rounded up to paragraphs, so the last one may be short.
        let size = u64::from(self.header.syssize) * 16;
        let end = start as u64 + size;
        if end.saturating_sub(15) > self.file.len() as u64 || size == 0 {
            return Err(truncated("the protected-mode code", end, self.file));
        }
        let end = (end as usize).min(self.file.len());
        self.file
            .get(start..end)
            .ok_or(truncated("the protected-mode code", end, self.file))
    }

    /// The compressed kernel, its appended uncompressed size included.
    pub fn payload(&self) -> Result<&'a [u8], ImageError> {
        if self.header.protocol < 0x0208 {
            return Err(ImageError::OldProtocol {
                found: self.header.protocol,
                need: 0x0208,
                what: "finding the compressed kernel in the bzImage",
            });
        }
        let start = self.protected_mode_start() as u64 + u64::from(self.header.payload_offset);
        let end = start + u64::from(self.header.payload_length);
        if end > self.file.len() as u64 {
            return Err(truncated("the compressed kernel", end, self.file));
        }
        // The decompressor lies behind it. It is not run, but a file without it is not whole.
        self.protected_mode()?;
        self.file.get(start as usize..end as usize).ok_or(truncated(
            "the compressed kernel",
            end,
            self.file,
        ))
    }

    /// The version string, such as `6.1.0-42-amd64 (builder@host) #1 SMP`.
    pub fn version(&self) -> Option<&'a str> {
        if self.header.kernel_version == 0 {
            return None;
        }
        let start = usize::from(self.header.kernel_version) + 0x200;
        let setup = self
            .file
            .get(..self.protected_mode_start().min(self.file.len()))?;
        let text = setup.get(start..)?;
        let end = text.iter().position(|&byte| byte == 0)?;
        std::str::from_utf8(text.get(..end)?).ok()
    }
}

fn truncated(what: &'static str, need: impl TryInto<u64>, file: &[u8]) -> ImageError {
    ImageError::Truncated {
        what,
        need: need.try_into().unwrap_or(u64::MAX),
        len: file.len() as u64,
    }
}

/// A guess at what a file that is no kernel is, for the error message.
fn looks_like(file: &[u8]) -> &'static str {
    if file.is_empty() {
        "it is empty"
    } else if file.get(0x38..0x3c) == Some(b"ARM\x64") {
        "it is an arm64 kernel"
    } else if file.starts_with(&[0x1f, 0x8b]) {
        "it is gzip data, to be decompressed first if a kernel is inside"
    } else if file.starts_with(b"\xfd7zXZ\0") {
        "it is xz data, to be decompressed first if a kernel is inside"
    } else if file.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        "it is zstd data, to be decompressed first if a kernel is inside"
    } else if file.starts_with(b"070701") {
        "it is a cpio archive, perhaps the initrd"
    } else if file.starts_with(b"!<arch>") {
        "it is an ar archive, perhaps a Debian package"
    } else {
        "its first bytes are of no known kind"
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Bz, elf, minimal_elf};
    use super::*;

    #[test]
    fn reads_the_header() {
        let file = Bz::new(b"payload").build();
        let image = BzImage::parse(&file).unwrap();
        assert_eq!(image.header().protocol, 0x020f);
        assert_eq!(image.header().cmdline_size, 2047);
        assert_eq!(image.header().pref_address, 0x100_0000);
        assert_eq!(image.payload().unwrap(), b"payload");
        assert_eq!(image.version(), Some("6.1.0-test (a@b) #1 SMP"));
        assert_eq!(image.setup_header_bytes().len(), 0x26c - 0x1f1);
        let code = image.protected_mode().unwrap();
        assert_eq!(code.len(), 0x2e0);
        assert_eq!(&code[0x2cc..0x2d3], b"payload");
    }

    #[test]
    fn zero_setup_sectors_mean_four() {
        let mut file = Bz::new(b"payload").setup_sects(4).build();
        file[0x1f1] = 0;
        let image = BzImage::parse(&file).unwrap();
        assert_eq!(image.payload().unwrap(), b"payload");
    }

    #[test]
    fn says_what_is_wrong() {
        let message = |file: &[u8]| KernelFile::parse(file).unwrap_err().to_string();
        assert!(message(b"").contains("it is empty"));
        assert!(message(&[0x1f, 0x8b, 8, 0]).contains("gzip data"));
        assert!(message(&[7; 4096]).contains("no known kind"));
        let file = Bz::new(b"payload").build();
        assert_eq!(
            message(&file[..0x204]),
            "the kernel file is truncated: the setup header ends at offset 0x206, but the file has only 0x204 bytes"
        );
        let mut old = file.clone();
        old[0x206..0x208].copy_from_slice(&0x0205u16.to_le_bytes());
        assert_eq!(
            message(&old),
            "the kernel speaks boot protocol 2.05, but loading a bzImage needs 2.06 or newer"
        );
        let mut jump = file;
        jump[0x201] = 0xff;
        assert!(message(&jump).contains("offset 0x201"));
    }

    #[test]
    fn old_protocol_has_no_payload() {
        let mut file = Bz::new(b"payload").build();
        file[0x206..0x208].copy_from_slice(&0x0207u16.to_le_bytes());
        let image = BzImage::parse(&file).unwrap();
        assert!(matches!(
            image.payload(),
            Err(ImageError::OldProtocol { need: 0x0208, .. })
        ));
    }

    #[test]
    fn payload_beyond_the_file_is_truncation() {
        let mut file = Bz::new(b"payload").build();
        file[0x24c..0x250].copy_from_slice(&u32::MAX.to_le_bytes());
        file[0x248..0x24c].copy_from_slice(&u32::MAX.to_le_bytes());
        file[0x1f4..0x1f8].copy_from_slice(&u32::MAX.to_le_bytes());
        let image = BzImage::parse(&file).unwrap();
        assert!(matches!(image.payload(), Err(ImageError::Truncated { .. })));
        assert!(matches!(
            image.protected_mode(),
            Err(ImageError::Truncated { .. })
        ));
    }

    #[test]
    fn version_outside_the_setup_code_is_none() {
        let mut file = Bz::new(b"payload").build();
        file[0x20e..0x210].copy_from_slice(&u16::MAX.to_le_bytes());
        assert_eq!(BzImage::parse(&file).unwrap().version(), None);
    }

    #[test]
    fn elf_is_recognised() {
        assert!(matches!(
            KernelFile::parse(&elf(&minimal_elf())).unwrap(),
            KernelFile::Elf(_)
        ));
    }
}
