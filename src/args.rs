//! The command line: one struct per verb.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use colinux_replay::Position;

mod export;
mod record;
pub(crate) use export::{Destination, Export, ExportEvents, ExportFormat, ExportSamples, Vmcore};
pub(crate) use record::{Course, FailOn, Record, Resume, Suspend, View};

/// Records a Linux kernel in a deterministic machine, and replays it instruction for instruction.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What every verb understands.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Common {
    /// Say less.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Say more; twice for even more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Back end of the vCPU. The recording is the same with every one.
    #[arg(long, global = true, value_enum, default_value_t)]
    pub(crate) tier: BackEnd,
}

/// Back ends of the vCPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackEnd {
    /// Interprets.
    #[value(name = "0")]
    Interpreter,
    /// Runs hot code on the host's own CPU where it can.
    #[default]
    #[value(name = "1")]
    Host,
    /// Both in lock step; ends at the first difference between them.
    Compare,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Boot a kernel and record it.
    Record(Box<Record>),
    /// End a recording that is being made, so that its machine can go on later.
    Suspend(Suspend),
    /// Go on where a recording was left, in a new one that holds both.
    Resume(Box<Resume>),
    /// Run a recording again, its console as it was.
    Replay(Replay),
    /// Replay a recording and compare every event and digest.
    Verify(Verify),
    /// Walk in a recording with gdb, forward and backward.
    Gdb(Gdb),
    /// Look at a recording: timeline, events, the machine at any tick; also while it is written.
    Tui(Tui),
    /// Show what a recording is.
    Info(Info),
    /// Show the events of a recording.
    Dump(Dump),
    /// Count what a recording holds.
    Stats(Stats),
    /// Copy a recording with the events of a stretch only; it still replays from the start.
    Cut(Cut),
    /// Write a recording in another program's format.
    Export(Export),
    /// Name addresses of the guest's kernel, find symbols, show types.
    Symbols(Symbols),
    /// Find out who wrote to a place in memory last.
    LastWrite(LastWrite),
    /// The same, with the stack of whoever wrote.
    Why(LastWrite),
    /// Show the stack at a tick.
    Bt(Bt),
    /// Show the guest's tasks at a tick.
    Ps(At),
    /// Show the guest's kernel log at a tick.
    Dmesg(At),
    /// Show the guest's modules at a tick.
    Lsmod(At),
    /// List the recordings in the store.
    Ls(Ls),
    /// Get kernels and make file systems for guests.
    Guest(Guest),
    /// Look at what this host has of what is needed.
    Doctor(Doctor),
}

/// `replay`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  colinux-trace replay                     the latest recording, its console on this one
  colinux-trace replay boot-0 --goto @1G   run to a tick and say where that is")]
pub(crate) struct Replay {
    /// The recording [default: the latest].
    pub(crate) trace: Option<PathBuf>,
    /// Go to this position, and show the registers there.
    #[arg(long, value_name = "POSITION", allow_hyphen_values = true)]
    pub(crate) goto: Option<Position>,
    /// Show the events as they happen, instead of the console.
    #[arg(long)]
    pub(crate) events: bool,
}

/// `verify`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  colinux-trace verify boot-0      exit code 0: the replay is the recording; 3: it diverges
  colinux-trace verify -j 4        in four parts at once, between checkpoints")]
pub(crate) struct Verify {
    /// Verify so many parts at once, where the recording has checkpoints to begin at.
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) jobs: u8,
    /// The recording [default: the latest].
    pub(crate) trace: Option<PathBuf>,
    /// One JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `gdb`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  colinux-trace gdb --vmlinux vmlinux            the latest recording, in gdb
  colinux-trace gdb boot-0 --goto end            at its end; `reverse-continue` works from there
  colinux-trace gdb --listen 1234                serve only; in gdb, `target remote :1234`

In gdb: reverse-stepi, reverse-continue and the others; `watch`; and our words `when`,
`seek POSITION`, `last-write ADDRESS`, `mark NAME`; `monitor help` lists all.")]
pub(crate) struct Gdb {
    /// The recording [default: the latest].
    pub(crate) trace: Option<PathBuf>,
    /// Do not start gdb, but wait for one: a port of the loopback interface, or a unix socket.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<colinux_replay::gdb::Listen>,
    /// Begin at this position [default: start].
    #[arg(long, value_name = "POSITION", allow_hyphen_values = true)]
    pub(crate) goto: Option<Position>,
    #[command(flatten)]
    pub(crate) debug: DebugArgs,
    /// Run gdb commands from a file.
    #[arg(short = 'x', long, value_name = "FILE", conflicts_with = "listen")]
    pub(crate) script: Vec<PathBuf>,
    /// Run a gdb command.
    #[arg(
        short = 'e',
        long = "ex",
        value_name = "COMMAND",
        conflicts_with = "listen"
    )]
    pub(crate) commands: Vec<String>,
    /// End gdb after its commands.
    #[arg(long, conflicts_with = "listen")]
    pub(crate) batch: bool,
}

/// `tui`
#[derive(Debug, Default, Args)]
#[command(after_long_help = "\
Examples:
  colinux-trace tui                      the latest recording
  colinux-trace boot-0.clt               the same for a file
  colinux-trace tui --goto panic boot-0

In it, ? shows the keys.")]
pub(crate) struct Tui {
    /// The recording [default: the latest].
    pub(crate) trace: Option<PathBuf>,
    /// Where to begin.
    #[arg(long, value_name = "POSITION", allow_hyphen_values = true)]
    pub(crate) goto: Option<Position>,
    /// How it looks.
    #[command(flatten)]
    pub(crate) view: View,
}

/// How many colours to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colors {
    /// 256.
    #[value(name = "256")]
    Full,
    /// The sixteen of every terminal.
    #[value(name = "16")]
    Sixteen,
    /// None.
    None,
}

/// `stats`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  colinux-trace stats boot-0 --json
  colinux-trace stats --vcpu            replays it, and counts what the vCPU did")]
pub(crate) struct Stats {
    /// The recording [default: the latest].
    pub(crate) trace: Option<PathBuf>,
    /// One JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    /// Of the vCPU instead, from a replay: how much of the guest ran translated, and why not all.
    #[arg(long)]
    pub(crate) vcpu: bool,
}

/// `last-write` and `why`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  colinux-trace last-write jiffies_64
  colinux-trace why 0xffff888003a1c040:4 --at panic
  colinux-trace why phys:0x2c22000:4096 boot-0 --at @1.2G

Exit code 1 when nobody wrote there since power-on.")]
pub(crate) struct LastWrite {
    /// ADDRESS, SYMBOL or SYMBOL+OFFSET, or phys:ADDRESS; and :LENGTH, if it is not 8 bytes.
    pub(crate) place: String,
    /// The recording [default: the latest].
    pub(crate) trace: Option<PathBuf>,
    /// Before this position [default: the end].
    #[arg(long, value_name = "POSITION", allow_hyphen_values = true)]
    pub(crate) at: Option<Position>,
    /// One JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `info`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Example:
  colinux-trace info boot-0 --json")]
pub(crate) struct Info {
    /// The recording [default: the latest].
    pub(crate) trace: Option<PathBuf>,
    /// One JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `dump`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  colinux-trace dump -e SyscallEnter,SyscallExit --from @1.2G
  colinux-trace dump --json -e GuestPf | jq .gva
  colinux-trace dump -s syscall=1,task=1 --from 50% --to +1M
  colinux-trace dump --follow                    a recording that is going on
  colinux-trace dump --symbols -e irq            who was interrupted, by name")]
pub(crate) struct Dump {
    /// The recording [default: the latest].
    pub(crate) trace: Option<PathBuf>,
    /// Only events of these kinds or facilities.
    #[arg(short, long, value_name = "KIND", value_delimiter = ',')]
    pub(crate) event: Vec<String>,
    /// Only events of facilities up to a level, such as `passage=2,irq=1`; with -e, those too.
    #[arg(short = 's', long = "levels", value_name = "FACILITY=LEVEL")]
    pub(crate) levels: Vec<String>,
    /// Wait for more while the recording is being written. Events come by the chunk.
    #[arg(long)]
    pub(crate) follow: bool,
    /// From this tick.
    #[arg(long, value_name = "POSITION")]
    pub(crate) from: Option<Position>,
    /// To this tick, included.
    #[arg(long, value_name = "POSITION")]
    pub(crate) to: Option<Position>,
    /// At most this many.
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// The inputs instead of the events.
    #[arg(long)]
    pub(crate) inputs: bool,
    /// Name the kernel's addresses.
    #[arg(long)]
    pub(crate) symbols: bool,
    #[command(flatten)]
    pub(crate) debug: DebugArgs,
    /// One JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `cut`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Example:
  colinux-trace cut boot-0 --from @1.2G -o end.clt
  colinux-trace cut --from 50% --to panic -o crash.clt")]
pub(crate) struct Cut {
    /// The recording [default: the latest].
    pub(crate) trace: Option<PathBuf>,
    /// Keep events from this tick.
    #[arg(long, value_name = "POSITION")]
    pub(crate) from: Option<Position>,
    /// Keep events to this tick, included.
    #[arg(long, value_name = "POSITION")]
    pub(crate) to: Option<Position>,
    /// Where to write the copy.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Overwrite the output file.
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// Where lines and inlined functions come from.
#[derive(Debug, Args)]
pub(crate) struct DebugArgs {
    /// The kernel's vmlinux with debug information [default: fetched with `guest fetch --debug`,
    /// beside the kernel, or below /usr/lib/debug].
    #[arg(long, value_name = "FILE")]
    pub(crate) vmlinux: Option<PathBuf>,
    /// A folder with modules (.ko) that have debug information, looked through before the places
    /// where distributions put them; can be given several times.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) modules: Vec<PathBuf>,
    /// Names from the kernel itself only.
    #[arg(long, conflicts_with = "vmlinux")]
    pub(crate) no_debug: bool,
}

/// `symbols`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  colinux-trace symbols 0xffffffff81a00010 schedule do_exit+0x20
  colinux-trace symbols --at @1.2G ffffffffc0002010      with the modules loaded there
  colinux-trace symbols --kernel bzImage --vmlinux vmlinux < addresses
  colinux-trace symbols --type task_struct
  colinux-trace symbols --at @1.2G --print init_task.comm --print 'current.mm->pgd'
  colinux-trace symbols --at end --print '(task_struct)init_task.tasks'

Exit code 1 when something has no name.")]
pub(crate) struct Symbols {
    /// Addresses of the guest, and names with or without `+OFFSET` [default: read from standard
    /// input, one a line].
    #[arg(value_name = "ADDRESS|NAME")]
    pub(crate) what: Vec<String>,
    /// The recording whose kernel is meant [default: the latest].
    #[arg(long, value_name = "TRACE", conflicts_with = "kernel")]
    pub(crate) trace: Option<PathBuf>,
    /// A kernel file instead of a recording: a bzImage or a vmlinux.
    #[arg(long, value_name = "FILE", conflicts_with = "at")]
    pub(crate) kernel: Option<PathBuf>,
    /// With the modules loaded at this position, and the kernel where it runs there.
    #[arg(long, value_name = "POSITION", allow_hyphen_values = true)]
    pub(crate) at: Option<Position>,
    /// Show the layout of a type.
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) types: Vec<String>,
    /// Show a value in the guest's memory at that position: a variable, `current`, or (TYPE)PLACE,
    /// then `.MEMBER`, `->MEMBER` and `[INDEX]`.
    #[arg(long = "print", value_name = "EXPRESSION", requires = "at")]
    pub(crate) prints: Vec<String>,
    #[command(flatten)]
    pub(crate) debug: DebugArgs,
    /// One JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `bt`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  colinux-trace bt --at @1.2G
  colinux-trace bt --at panic boot-0
  colinux-trace bt --at end --task 1 --json
  colinux-trace bt --at panic --locals

Each frame says how it was found: `orc` and `regs` are exact, `fp` (frame pointer) is right where
code keeps them, `scan` is a guess. `inline` is a function inlined into the frame below it.
With a debug image a frame has its arguments; what the compiler did not keep is `<optimized out>`.")]
pub(crate) struct Bt {
    #[command(flatten)]
    pub(crate) at: At,
    /// The stack of this task, by its number, instead of what runs.
    #[arg(long, value_name = "TID")]
    pub(crate) task: Option<u32>,
    /// The local variables of each frame too, those of the innermost block first.
    #[arg(long)]
    pub(crate) locals: bool,
    #[command(flatten)]
    pub(crate) debug: DebugArgs,
}

/// `ps`, `dmesg` and `lsmod`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  colinux-trace ps --at @1.2G
  colinux-trace dmesg --at @500M boot-0
  colinux-trace lsmod --at end --json")]
pub(crate) struct At {
    /// The recording [default: the latest].
    pub(crate) trace: Option<PathBuf>,
    /// At this position [default: the end].
    #[arg(long, value_name = "POSITION", allow_hyphen_values = true)]
    pub(crate) at: Option<Position>,
    /// One JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `ls`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Example:
  colinux-trace ls --json")]
pub(crate) struct Ls {
    /// One JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `doctor`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Example:
  colinux-trace doctor

Exit code 69 when something is missing without which nothing can be recorded.")]
pub(crate) struct Doctor {
    /// One JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `guest`
#[derive(Debug, Args)]
pub(crate) struct Guest {
    #[command(subcommand)]
    pub(crate) verb: GuestVerb,
}

/// What to do with guests.
#[derive(Debug, Subcommand)]
pub(crate) enum GuestVerb {
    /// Get a Debian kernel and busybox into the cache, with apt's own tools.
    Fetch(Fetch),
    /// Write the initial RAM disk that `record` would make.
    Initramfs(Initramfs),
    /// List the kernels in the cache.
    Ls,
}

/// `guest fetch`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  colinux-trace guest fetch
  colinux-trace guest fetch --kernel-version 6.12 --debug
  colinux-trace guest fetch --flavour amd64")]
pub(crate) struct Fetch {
    /// A version such as 6.1 or 6.12 [default: the one Debian recommends].
    #[arg(long, value_name = "VERSION")]
    pub(crate) kernel_version: Option<String>,
    /// Which build of it.
    #[arg(long, value_enum, default_value_t = FlavourArg::Cloud)]
    pub(crate) flavour: FlavourArg,
    /// The vmlinux with debug information as well, for lines and inlined functions: 600 MB.
    #[arg(long)]
    pub(crate) debug: bool,
}

/// Builds of Debian's kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FlavourArg {
    /// For virtual machines: small and quick to boot.
    Cloud,
    /// For any computer.
    Amd64,
    /// With real-time preemption.
    Rt,
}

/// `guest initramfs`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Example:
  colinux-trace guest initramfs -o root.cpio -- ./repro --once")]
pub(crate) struct Initramfs {
    /// Where to write it.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// More files and folders of this host.
    #[arg(long, value_name = "PATH")]
    pub(crate) pack: Vec<PathBuf>,
    /// A program of this host, or a shell line; without it, the guest has a shell.
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}
