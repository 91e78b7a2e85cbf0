//! The ground state of a recording: everything the machine was made from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::file::FORMAT_VERSION;

/// Layout version of the manifest that this build writes.
pub(crate) const MANIFEST_VERSION: u8 = 1;
/// Layout version of the host information that this build writes.
pub(crate) const HOST_INFO_VERSION: u8 = 1;

/// What a kernel file is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum KernelKind {
    /// A compressed image with a boot sector.
    #[default]
    BzImage,
    /// An ELF file.
    Vmlinux,
}

/// The kernel that was booted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelImage {
    /// Digest of the file as it was given.
    pub digest: Digest,
    /// Its length.
    pub len: u64,
    /// What it is.
    pub kind: KernelKind,
}

/// The initial RAM disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitrdImage {
    /// Digest of the file as it was given.
    pub digest: Digest,
    /// Its length.
    pub len: u64,
}

/// One answer of CPUID.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuidRow {
    /// EAX asked with.
    pub leaf: u32,
    /// ECX asked with.
    pub subleaf: u32,
    /// Answer.
    pub eax: u32,
    /// Answer.
    pub ebx: u32,
    /// Answer.
    pub ecx: u32,
    /// Answer.
    pub edx: u32,
}

/// The CPU that the guest sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuModel {
    /// Name of the model.
    pub name: String,
    /// Its CPUID.
    pub cpuid: Vec<CpuidRow>,
}

/// What lies behind a disk: known by its content, which is not in the recording.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backing {
    /// Digest of the image.
    pub digest: Digest,
    /// Its length.
    pub len: u64,
    /// Whether the guest may write (to an overlay; never to the image).
    pub writable: bool,
}

/// One device of the board.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Name, such as `com1` or `cobd0`.
    pub name: String,
    /// Kind, such as `serial-16550` or `virtio-blk`.
    pub kind: String,
    /// First port or address.
    pub base: u64,
    /// Interrupt line.
    pub irq: u32,
    /// Image behind it.
    pub backing: Option<Backing>,
    /// What else it was told, in order.
    pub settings: Vec<(String, String)>,
}

/// A facility that was off for a reason other than its level.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedFacility {
    /// Its name.
    pub facility: String,
    /// Why: for instance that there were no symbols.
    pub reason: String,
}

/// The command that the guest was made to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Its words.
    pub argv: Vec<String>,
    /// Its environment, in order.
    pub env: Vec<(String, String)>,
    /// Its directory in the guest.
    pub directory: String,
}

/// Everything the machine was made from. Nothing of the host is in it: two recordings of the same
/// thing have equal manifests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format version of the file.
    pub format: u16,
    /// The kernel; its content is the boot file [`KERNEL_FILE`].
    pub kernel: KernelImage,
    /// The initial RAM disk; its content is the boot file [`INITRD_FILE`].
    pub initrd: Option<InitrdImage>,
    /// Command line of the kernel.
    pub cmdline: String,
    /// Bytes of pseudo-physical memory.
    pub memory: u64,
    /// Virtual CPUs.
    pub vcpus: u16,
    /// The CPU that the guest sees.
    pub cpu: CpuModel,
    /// Nanoseconds of virtual time per tick.
    pub ns_per_tick: u32,
    /// Seed of everything random in the guest.
    pub seed: u64,
    /// Seconds since 1970 that the guest's clock shows at power-on.
    pub epoch: u64,
    /// The board.
    pub devices: Vec<Device>,
    /// Ticks from one digest point to the next, 0 for none.
    pub digest_interval: u64,
    /// Whether the guest's own decompressor was run.
    pub as_bzimage: bool,
    /// Level of each facility while recording.
    pub levels: BTreeMap<String, u8>,
    /// Facilities that were off for another reason.
    pub ended: Vec<EndedFacility>,
    /// The command that the guest was made to run.
    pub command: Option<Command>,
    /// What later builds of the same layout add, by name.
    pub extra: BTreeMap<String, String>,
}

/// Name of the boot file that is the kernel.
pub const KERNEL_FILE: &str = "kernel";
/// Name of the boot file that is the initial RAM disk.
pub const INITRD_FILE: &str = "initrd";

impl Default for Manifest {
    fn default() -> Self {
        Self {
            format: FORMAT_VERSION,
            kernel: KernelImage::default(),
            initrd: None,
            cmdline: String::new(),
            memory: 0,
            vcpus: 1,
            cpu: CpuModel::default(),
            ns_per_tick: 1,
            seed: 0,
            epoch: 0,
            devices: Vec::new(),
            digest_interval: 0,
            as_bzimage: false,
            levels: BTreeMap::new(),
            ended: Vec::new(),
            command: None,
            extra: BTreeMap::new(),
        }
    }
}

/// What the recorder knew of its host and of itself: for people, and never compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostInfo {
    /// Version of the recorder.
    pub tool_version: String,
    /// Nanoseconds since 1970 at which the recording began.
    pub started_unix_ns: i64,
    /// Files on the host, by what they were used for.
    pub paths: BTreeMap<String, String>,
    /// What else is worth knowing, by name.
    pub extra: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_reads_back() {
        let manifest = Manifest {
            kernel: KernelImage {
                digest: Digest::of(b"k"),
                len: 1,
                kind: KernelKind::Vmlinux,
            },
            cmdline: "console=ttyS0".into(),
            memory: 512 << 20,
            levels: crate::Levels::default().to_map(),
            command: Some(Command {
                argv: vec!["true".into()],
                ..Command::default()
            }),
            devices: vec![Device {
                name: "com1".into(),
                base: 0x3f8,
                irq: 4,
                ..Device::default()
            }],
            ..Manifest::default()
        };
        let bytes = postcard::to_stdvec(&manifest).unwrap();
        assert_eq!(postcard::from_bytes::<Manifest>(&bytes).unwrap(), manifest);
    }
}
