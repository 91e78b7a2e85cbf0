//! `export`, with a verb for each format.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use colinux_replay::Position;

use super::DebugArgs;
use crate::words::Count;

/// `export`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  colinux-trace export perfetto boot-0 -o boot.perfetto-trace   for ui.perfetto.dev
  colinux-trace export folded | flamegraph.pl > boot.svg
  colinux-trace export perf --every 100K --from bp:kernel_init > boot.perf
  colinux-trace export vmcore --at panic -o vmcore              for crash, drgn or gdb")]
pub(crate) struct Export {
    #[command(subcommand)]
    pub(crate) format: ExportFormat,
}

/// The formats.
#[derive(Debug, Subcommand)]
pub(crate) enum ExportFormat {
    /// A Perfetto trace: who ran, in which system call, and everything else that happened.
    Perfetto(ExportEvents),
    /// Stacks at regular places, as `perf script` prints them, from a replay.
    Perf(ExportSamples),
    /// The same stacks counted, one a line, as flame graphs are made from.
    Folded(ExportSamples),
    /// The packets on the guest's network; there is none yet.
    Pcap(ExportEvents),
    /// The guest's memory and registers at a tick, as kdump would leave them.
    Vmcore(Vmcore),
}

/// Where an export goes.
#[derive(Debug, Args)]
pub(crate) struct Destination {
    /// Where to write it [default: standard output].
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Overwrite the output file.
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// `export perfetto`
#[derive(Debug, Args)]
pub(crate) struct ExportEvents {
    /// The recording [default: the latest].
    pub(crate) trace: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) destination: Destination,
    /// From this position.
    #[arg(long, value_name = "POSITION")]
    pub(crate) from: Option<Position>,
    /// To this position, included.
    #[arg(long, value_name = "POSITION")]
    pub(crate) to: Option<Position>,
}

/// `export perf` and `export folded`
#[derive(Debug, Args)]
pub(crate) struct ExportSamples {
    #[command(flatten)]
    pub(crate) events: ExportEvents,
    /// Instructions between two stacks.
    #[arg(long, value_name = "N", default_value = "1M")]
    pub(crate) every: Count,
    #[command(flatten)]
    pub(crate) debug: DebugArgs,
}

/// `export vmcore`
#[derive(Debug, Args)]
pub(crate) struct Vmcore {
    /// The recording [default: the latest].
    pub(crate) trace: Option<PathBuf>,
    /// At this position [default: the end].
    #[arg(long, value_name = "POSITION", allow_hyphen_values = true)]
    pub(crate) at: Option<Position>,
    /// Where to write it: a file, since pages that were never touched become holes in it.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Overwrite the output file.
    #[arg(short, long)]
    pub(crate) force: bool,
}
