//! What can be wrong with a kernel image or its tables, as sentences with the place.

use std::path::PathBuf;

use thiserror::Error;

use crate::image::BuildId;

/// Why a kernel image, or a part of it, cannot be used.
#[derive(Debug, Error)]
pub enum SymbolError {
    /// A file could not be opened or read.
    #[error("cannot read {path}: {cause}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// The first bytes are not ELF's.
    #[error("not an ELF image: it begins with {start} where 7f 45 4c 46 is expected")]
    NotElf {
        /// The first bytes, in hexadecimal.
        start: String,
    },
    /// A bzImage where the ELF inside it was wanted.
    #[error("this is a compressed kernel (bzImage); its vmlinux has to be unpacked first")]
    Compressed,
    /// ELF, but not 64-bit little-endian x86-64.
    #[error("the image is for {found}, not for x86-64")]
    OtherMachine {
        /// What it is for.
        found: String,
    },
    /// The ELF structures contradict the file's length or each other.
    #[error("the ELF image is damaged: {detail}")]
    BadElf {
        /// In the ELF reader's words.
        detail: String,
    },
    /// A table would end beyond the bytes there are.
    #[error("{what} is cut off: {need} bytes are needed at offset {offset:#x}, {have} are there")]
    Truncated {
        /// The table.
        what: &'static str,
        /// Where it starts in the bytes given.
        offset: u64,
        /// How many bytes it needs.
        need: u64,
        /// How many bytes there are.
        have: u64,
    },
    /// The image has no such section.
    #[error("the image has no {section} section")]
    NoSection {
        /// The section's name.
        section: &'static str,
    },
    /// A compressed section that could not be unpacked.
    #[error("section {section} cannot be unpacked: {reason}")]
    BadSection {
        /// The section's name.
        section: String,
        /// What is wrong.
        reason: String,
    },
    /// Debug information that was moved to a file of several images (by `dwz -m`).
    #[error("the image shares debug information with another file, {other}, which is not read")]
    SharedDebug {
        /// The other file, as the image has it.
        other: String,
    },
    /// No name table was recognized.
    #[error("no kallsyms table was found in {searched} bytes: {reason}")]
    NoKallsyms {
        /// How many bytes were searched.
        searched: usize,
        /// The step that failed.
        reason: &'static str,
    },
    /// The type table breaks a rule of its format.
    #[error("the BTF table is damaged at offset {offset:#x}: {rule}")]
    BadBtf {
        /// Offset in the table.
        offset: u64,
        /// The broken rule.
        rule: &'static str,
    },
    /// A type that was asked for does not exist.
    #[error("the kernel's type table has no {kind} named {name}")]
    NoType {
        /// `struct`, `union` and so on.
        kind: &'static str,
        /// The name asked for.
        name: String,
    },
    /// A member path does not lead anywhere.
    #[error("{container} has no member {member}")]
    NoMember {
        /// The type in which it was looked for.
        container: String,
        /// The component that was not found.
        member: String,
    },
    /// The debug image belongs to another build of the kernel.
    #[error(
        "{path} has build id {found}, but the guest's kernel has {expected}: it is not its debug image"
    )]
    WrongBuild {
        /// The debug image.
        path: PathBuf,
        /// Its build id.
        found: BuildId,
        /// The running kernel's.
        expected: BuildId,
    },
    /// DWARF that could not be read.
    #[error("the debug information is damaged: {detail}")]
    BadDwarf {
        /// In the DWARF reader's words.
        detail: String,
    },
    /// The image holds no debug information.
    #[error("the image has no debug information (it is stripped)")]
    Stripped,
    /// A cached index that cannot be used; it will be built again.
    #[error("the symbol index {path} cannot be used: {reason}")]
    BadIndex {
        /// The index file.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// A structure in the guest could not be read.
    #[error("the guest's {what} cannot be read at {gva:#x}")]
    Unmapped {
        /// What was being read.
        what: &'static str,
        /// Where.
        gva: u64,
    },
    /// A symbol of the kernel that is needed is not there.
    #[error("the kernel has no symbol {name}")]
    NoSymbol {
        /// Its name.
        name: &'static str,
    },
    /// A list or ring in the guest does not end or contradicts itself.
    #[error("the guest's {what} is inconsistent: {rule}")]
    BadGuest {
        /// The structure.
        what: &'static str,
        /// What was found.
        rule: &'static str,
    },
}
