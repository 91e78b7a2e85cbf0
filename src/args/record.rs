//! `record`, and what leaves a recording and goes on with it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Colors;
use crate::words::{Bytes, CheckpointInterval, Count, Until};

/// `record`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  colinux-trace record                                   a shell in a fetched Debian kernel
  colinux-trace record -- ./repro --once                 run a program of this host, take its status
  colinux-trace record -- 'dmesg | tail -3; uname -r'    run a shell line
  colinux-trace record --kernel arch/x86/boot/bzImage --initrd root.cpio --append 'panic=-1'
  colinux-trace record kernel=bzImage initrd=root.cpio mem=256 loglevel=7
  colinux-trace record --tui                             a shell, in the viewer; i types to it

While the guest runs on a terminal, Ctrl-A x ends the recording and Ctrl-A a sends a Ctrl-A.")]
pub(crate) struct Record {
    /// Kernel to boot: a bzImage or a vmlinux [default: the newest fetched one].
    #[arg(long, value_name = "FILE")]
    pub(crate) kernel: Option<PathBuf>,
    /// As `resume TRACE`: go on where another recording was left.
    #[arg(long, value_name = "TRACE", conflicts_with_all = [
        "kernel", "initrd", "append", "memory", "seed", "ns_per_tick", "epoch", "levels", "no_trace",
        "last", "digest_interval", "as_bzimage", "pack", "words", "command",
    ])]
    pub(crate) resume: Option<PathBuf>,
    /// Initial RAM disk [default: made, with busybox].
    #[arg(long, value_name = "FILE")]
    pub(crate) initrd: Option<PathBuf>,
    /// More kernel command line.
    #[arg(long, value_name = "STRING")]
    pub(crate) append: Option<String>,
    /// Memory of the guest: bytes with K, M or G, plain numbers are MiB.
    #[arg(long, value_name = "SIZE", default_value = "512M")]
    pub(crate) memory: Bytes,
    /// Seed of everything random in the guest.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Virtual nanoseconds per instruction.
    #[arg(long, value_name = "NS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) ns_per_tick: u32,
    /// What the guest's clock shows at power-on, in seconds since 1970.
    #[arg(long, value_name = "SECONDS", default_value_t = colinux_replay::setup::EPOCH)]
    pub(crate) epoch: u64,
    /// Levels of event facilities, such as `passage=2,irq=1` or `all=2`.
    #[arg(short = 's', value_name = "FACILITY=LEVEL", value_delimiter = ',')]
    pub(crate) levels: Vec<String>,
    /// Record inputs and digests only.
    #[arg(long)]
    pub(crate) no_trace: bool,
    /// Flight recorder: keep only about this many last bytes of events; inputs are all kept.
    #[arg(long, value_name = "SIZE")]
    pub(crate) last: Option<Bytes>,
    /// Ticks between digests of the whole state; 0 for none.
    #[arg(long, value_name = "TICKS", default_value = "10M")]
    pub(crate) digest_interval: Count,
    /// Run the bzImage's own decompressor, with KASLR if it is configured.
    #[arg(long)]
    pub(crate) as_bzimage: bool,
    /// More files and folders of this host for the guest that runs COMMAND.
    #[arg(long, value_name = "PATH")]
    pub(crate) pack: Vec<PathBuf>,
    /// coLinux' words: kernel=FILE initrd=FILE mem=MIB @FILE; the rest goes to the kernel.
    #[arg(value_name = "KEY=VALUE")]
    pub(crate) words: Vec<String>,
    /// A program of this host, or a shell line, to run in the guest.
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
    #[command(flatten)]
    pub(crate) course: Course,
}

/// How a recording is made, whatever its guest is: when it ends, where it goes, who looks on.
#[derive(Debug, Args)]
pub(crate) struct Course {
    /// Ticks between the checkpoints in the recording, by which going to a place is quick; `auto`
    /// spreads them, 0 keeps none.
    #[arg(long, value_name = "TICKS|auto", default_value = "auto")]
    pub(crate) checkpoint_interval: CheckpointInterval,
    /// End the recording at this tick, successfully: `@1.2G`; or soon after a `panic`.
    #[arg(long, value_name = "POSITION|panic")]
    pub(crate) until: Option<Until>,
    /// Exit with 1 when the guest's kernel panics (or oopses).
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) fail_on: Option<FailOn>,
    /// End the recording after this many ticks, with exit code 124.
    #[arg(long, value_name = "N")]
    pub(crate) max_ticks: Option<Count>,
    /// Let gdb stop the machine and read from it while it is recorded: a port of the loopback
    /// interface, or a unix socket [default: 127.0.0.1:1234].
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "localhost")]
    pub(crate) gdb: Option<colinux_replay::gdb::Listen>,
    /// End the recording after this many seconds of the host, with exit code 124.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<f64>,
    /// Look at the recording in the viewer while it is made, and type to the guest there; leaving
    /// the viewer ends it.
    #[arg(long)]
    pub(crate) tui: bool,
    /// Record for a viewer: its end, seen on standard input, ends the recording.
    #[arg(long, hide = true, conflicts_with = "tui")]
    pub(crate) viewed: bool,
    /// Where to write the recording [default: a new name in the store].
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Overwrite the output file.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// How the viewer looks.
    #[command(flatten, next_help_heading = "With --tui")]
    pub(crate) view: View,
}

/// `suspend`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  colinux-trace suspend boot-0     end the recording that is being made, with its machine as it is
  colinux-trace resume boot-0      go on with that machine, in a new recording")]
pub(crate) struct Suspend {
    /// The recording that is being made [default: the latest].
    pub(crate) trace: Option<PathBuf>,
}

/// `resume`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  colinux-trace resume boot-0                   go on where that recording was left
  colinux-trace resume crash.clt --until panic  also one of another host, or one that was cut off

The new recording holds all of the old one up to its last checkpoint, where the machine goes on. A
recording is left by `suspend`, Ctrl-A x, a signal or a limit.")]
pub(crate) struct Resume {
    /// The recording to go on with [default: the latest].
    pub(crate) trace: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) course: Course,
}

/// How the viewer looks, and where it finds things.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub(crate) struct View {
    /// The kernel's vmlinux with debug information [default: looked for by its build id].
    #[arg(long, value_name = "FILE")]
    pub(crate) vmlinux: Option<PathBuf>,
    /// A folder with the kernel's source.
    #[arg(long, value_name = "DIR")]
    pub(crate) source: Vec<PathBuf>,
    /// Colours [default: what the terminal has, none with NO_COLOR].
    #[arg(long, value_enum)]
    pub(crate) colors: Option<Colors>,
    /// Draw with ASCII only [default: if the locale is not UTF-8].
    #[arg(long)]
    pub(crate) ascii: bool,
    /// Leave the mouse to the terminal.
    #[arg(long)]
    pub(crate) no_mouse: bool,
}

/// What makes a recording a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FailOn {
    /// A panic.
    Panic,
    /// An oops or a panic.
    Oops,
}
