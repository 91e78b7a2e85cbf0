//! `guest`: kernels and file systems for guests.

use crate::args::{Fetch, FlavourArg, Guest, GuestVerb, Initramfs};
use crate::exit::Failure;
use crate::guest::cache::Cache;
use crate::guest::fetch::{self, Request, Step};
use crate::guest::version::Flavour;
use crate::guest::write_initramfs;
use crate::progress::Progress;
use crate::report::Report;
use crate::words::sized;

pub(crate) fn run(args: &Guest, report: &Report) -> Result<u8, Failure> {
    let cache = Cache::open()?;
    match &args.verb {
        GuestVerb::Fetch(args) => run_fetch(args, &cache, report),
        GuestVerb::Initramfs(args) => run_initramfs(args, &cache, report),
        GuestVerb::Ls => {
            for release in cache.releases() {
                report.line(release);
            }
            Ok(0)
        }
    }
}

fn run_fetch(args: &Fetch, cache: &Cache, report: &Report) -> Result<u8, Failure> {
    let request = Request {
        version: args.kernel_version.clone(),
        flavour: match args.flavour {
            FlavourArg::Cloud => Flavour::Cloud,
            FlavourArg::Amd64 => Flavour::Amd64,
            FlavourArg::Rt => Flavour::Rt,
        },
        debug: args.debug,
    };
    let mut progress = None;
    let fetched = fetch::fetch(cache, &request, &mut |step| match step {
        Step::Say(line) => report.note(line),
        Step::Bytes(what, done, all) => progress
            .get_or_insert_with(|| Progress::new(what))
            .bytes(done, all),
        Step::Done => progress = None,
    })?;
    report.line(format!("{} {}", fetched.release, fetched.kernel.display()));
    if let Some(vmlinux) = &fetched.vmlinux {
        report.line(format!("{} {}", fetched.release, vmlinux.display()));
    }
    report.detail(format!("busybox {}", fetched.busybox.display()));
    Ok(0)
}

fn run_initramfs(args: &Initramfs, cache: &Cache, report: &Report) -> Result<u8, Failure> {
    let command = (!args.command.is_empty()).then_some(&args.command[..]);
    let len = write_initramfs(cache, command, &args.pack, &[], &args.output)?;
    report.detail(format!("{}: {}", args.output.display(), sized(len as u64)));
    Ok(0)
}
