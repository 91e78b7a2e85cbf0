//! From a manifest and its boot files to a machine: the one way, for recording and for replay.

use bytes::Bytes;
use colinux_driver::boot::{self, BootError, BootImage, BootSpec};
use colinux_driver::cpu::cpuid;
use colinux_driver::jit::Tier;
use colinux_driver::layout;
use colinux_driver::machine::{Machine, MachineConfig};
use colinux_tracer::{
    Command, CpuModel, CpuidRow, Device, Digest, EndedFacility, InitrdImage, KernelImage,
    KernelKind, Levels, Manifest,
};

use crate::hooks::KernelHooks;

/// Ticks of a host quantum: at 200 million instructions a second, 20 ms.
pub const QUANTUM_TICKS: u64 = 1 << 22;
/// Ticks from one digest point to the next, unless asked otherwise.
pub const DIGEST_INTERVAL: u64 = 10_000_000;
/// What the real-time clock shows at power-on, unless asked otherwise: 2024-01-01 00:00:00 UTC. Not
/// the host's time, since the same recording made twice is to be the same.
pub const EPOCH: u64 = 1_704_067_200;
/// Key of the quantum among the manifest's additions.
const EXTRA_QUANTUM: &str = "quantum_ticks";

/// What to record.
#[derive(Clone, Debug)]
pub struct RecordConfig {
    /// The kernel file.
    pub kernel: Bytes,
    /// The initrd, if any.
    pub initrd: Option<Bytes>,
    /// Command line of the kernel.
    pub cmdline: String,
    /// Bytes of pseudo-physical RAM.
    pub memory: u64,
    /// Nanoseconds of virtual time per tick.
    pub ns_per_tick: u32,
    /// Seed of everything random in the guest.
    pub seed: u64,
    /// What the guest's clock shows at power-on, in seconds since 1970.
    pub epoch: u64,
    /// Levels of the facilities.
    pub levels: Levels,
    /// Ticks from one digest point to the next; 0 for none.
    pub digest_interval: u64,
    /// Run the guest's own decompressor.
    pub as_bzimage: bool,
    /// The command the initrd was made for.
    pub command: Option<Command>,
}

/// Why a machine could not be built.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The kernel or the initrd cannot be booted.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The recording was made with a CPU model this build does not have.
    #[error("the recording was made on the CPU model `{recorded}`; this build has `{ours}`")]
    CpuModel {
        /// In the manifest.
        recorded: String,
        /// Of this build.
        ours: &'static str,
    },
    /// A boot file is not the one the manifest names.
    #[error("the {what} in the recording does not have the digest that the manifest gives")]
    BootFile {
        /// Which.
        what: &'static str,
    },
    /// More than one vCPU.
    #[error("the recording has {0} vCPUs; this build runs one")]
    Vcpus(u16),
    /// A device this build does not have.
    #[error("the recording has the device `{0}`, which this build does not have")]
    Device(String),
}

/// Facilities that are off because nothing feeds them yet, and why.
pub const ENDED: &[(&str, &str)] = &[
    ("blockdev", "there is no block device yet"),
    ("network", "there is no network device yet"),
];

impl RecordConfig {
    /// The manifest of a recording of this.
    pub fn manifest(&self) -> Manifest {
        let elf = self.kernel.starts_with(b"\x7fELF");
        let mut manifest = Manifest {
            kernel: KernelImage {
                digest: Digest::of(&self.kernel),
                len: self.kernel.len() as u64,
                kind: if elf {
                    KernelKind::Vmlinux
                } else {
                    KernelKind::BzImage
                },
            },
            initrd: self.initrd.as_ref().map(|bytes| InitrdImage {
                digest: Digest::of(bytes),
                len: bytes.len() as u64,
            }),
            cmdline: self.cmdline.clone(),
            memory: self.memory,
            vcpus: 1,
            cpu: cpu_model(),
            ns_per_tick: self.ns_per_tick,
            seed: self.seed,
            epoch: self.epoch,
            devices: devices(),
            digest_interval: self.digest_interval,
            as_bzimage: self.as_bzimage,
            levels: self.levels.to_map(),
            ended: ENDED
                .iter()
                .map(|(facility, reason)| EndedFacility {
                    facility: (*facility).to_owned(),
                    reason: (*reason).to_owned(),
                })
                .collect(),
            command: self.command.clone(),
            ..Manifest::default()
        };
        manifest
            .extra
            .insert(EXTRA_QUANTUM.to_owned(), QUANTUM_TICKS.to_string());
        manifest
    }
}

fn cpu_model() -> CpuModel {
    CpuModel {
        name: cpuid::MODEL_NAME.to_owned(),
        cpuid: cpuid::ROWS
            .iter()
            .map(|row| CpuidRow {
                leaf: row.leaf,
                subleaf: row.subleaf.unwrap_or(0),
                eax: row.values[0],
                ebx: row.values[1],
                ecx: row.values[2],
                edx: row.values[3],
            })
            .collect(),
    }
}

fn devices() -> Vec<Device> {
    let device = |name: &str, kind: &str, base: u64, irq: u32| Device {
        name: name.to_owned(),
        kind: kind.to_owned(),
        base,
        irq,
        ..Device::default()
    };
    vec![
        device("lapic", "lapic", layout::LAPIC_BASE.0, 0),
        device("ioapic", "ioapic", layout::IOAPIC_BASE.0, 0),
        device(
            "com1",
            "serial-16550",
            layout::SERIAL_BASE.into(),
            layout::SERIAL_IRQ.into(),
        ),
        device("rtc", "rtc-cmos", layout::RTC_INDEX.into(), 0),
        device("power", "acpi-sleep", layout::SLEEP_CONTROL.into(), 0),
        device("exit", "debug-exit", layout::DEBUG_EXIT.into(), 0),
        device("mark", "mark-port", layout::MARK_FIRST.into(), 0),
    ]
}

/// What a machine is made with.
pub(crate) fn machine_config(manifest: &Manifest, memory_bytes: u64) -> MachineConfig {
    let quantum = manifest
        .extra
        .get(EXTRA_QUANTUM)
        .and_then(|q| q.parse().ok());
    MachineConfig {
        memory_bytes,
        rtc_epoch_s: manifest.epoch,
        ns_per_tick: manifest.ns_per_tick,
        quantum_ticks: quantum.unwrap_or(QUANTUM_TICKS),
    }
}

/// Builds the machine a manifest describes, ready to enter the kernel.
pub fn build(
    manifest: &Manifest,
    kernel: &Bytes,
    initrd: Option<&Bytes>,
) -> Result<(Machine, KernelHooks), SetupError> {
    let (machine, hooks, _) = build_from(manifest, kernel, initrd)?;
    Ok((machine, hooks))
}

/// As [`build`], and what the machine was loaded with.
pub(crate) fn build_from(
    manifest: &Manifest,
    kernel: &Bytes,
    initrd: Option<&Bytes>,
) -> Result<(Machine, KernelHooks, BootImage), SetupError> {
    if manifest.cpu != cpu_model() {
        return Err(SetupError::CpuModel {
            recorded: manifest.cpu.name.clone(),
            ours: cpuid::MODEL_NAME,
        });
    }
    if manifest.vcpus != 1 {
        return Err(SetupError::Vcpus(manifest.vcpus));
    }
    let known = devices();
    if let Some(unknown) = manifest.devices.iter().find(|d| !known.contains(d)) {
        return Err(SetupError::Device(unknown.name.clone()));
    }
    if Digest::of(kernel) != manifest.kernel.digest {
        return Err(SetupError::BootFile { what: "kernel" });
    }
    if let Some(expected) = &manifest.initrd
        && initrd.map(|initrd| Digest::of(initrd)) != Some(expected.digest)
    {
        return Err(SetupError::BootFile { what: "initrd" });
    }
    let tables = colinux_driver::dev::acpi::tables(1, layout::RSDP);
    let spec = BootSpec {
        kernel: kernel.clone(),
        initrd: initrd.cloned(),
        cmdline: &manifest.cmdline,
        memory_bytes: manifest.memory,
        as_bzimage: manifest.as_bzimage,
        acpi: (layout::RSDP, &tables),
        rsdp: layout::RSDP,
    };
    // The kernel is unpacked once, for its names as well.
    let (image, hooks) = match boot::vmlinux(kernel) {
        Ok(vmlinux) if !manifest.as_bzimage => (
            boot::load_extracted(&spec, &vmlinux)?,
            KernelHooks::of(&vmlinux, false),
        ),
        Ok(vmlinux) => (boot::load(&spec)?, KernelHooks::of(&vmlinux, true)),
        Err(error) if !manifest.as_bzimage => return Err(error.into()),
        Err(error) => (boot::load(&spec)?, KernelHooks::none(&error.to_string())),
    };
    let config = machine_config(manifest, image.memory.bytes());
    let mut machine = Machine::new(&config, &image);
    // The quickest back end this host has; which one it is shows in no state.
    machine.set_tier(Tier::One);
    Ok((machine, hooks, image))
}
