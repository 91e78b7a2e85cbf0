//! The command line: what was typed becomes a call into the crates, and its result an exit code.

mod args;
mod cmd;
mod console;
mod exit;
mod guest;
mod names;
mod progress;
mod report;
mod store;
mod words;

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Verb};
use exit::Failure;

fn main() -> ExitCode {
    let cli = match Cli::try_parse_from(words(env::args_os().collect())) {
        Ok(cli) => cli,
        Err(error) => {
            // clap knows which stream, and that asking for help is no error.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(exit::USAGE));
        }
    };
    let report = report::Report::new(cli.common);
    match run(&cli, &report) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            report.failure(&failure);
            ExitCode::from(failure.code)
        }
    }
}

/// A recording alone is one to look at.
fn words(mut words: Vec<OsString>) -> Vec<OsString> {
    let is_recording = |word: &OsString| {
        Path::new(word)
            .extension()
            .is_some_and(|e| e == store::EXTENSION)
    };
    if words.get(1).is_some_and(is_recording) {
        words.insert(1, "tui".into());
    }
    words
}

fn run(cli: &Cli, report: &report::Report) -> Result<u8, Failure> {
    match &cli.verb {
        Verb::Record(args) => cmd::record::run(args, report),
        Verb::Suspend(args) => cmd::suspend::run(args, report),
        Verb::Resume(args) => cmd::record::resume(args.trace.as_deref(), &args.course, report),
        Verb::Replay(args) => cmd::replay::run(args, report),
        Verb::Verify(args) => cmd::verify::run(args, report),
        Verb::Gdb(args) => cmd::gdb::run(args, report),
        Verb::Tui(args) => cmd::tui::run(args, report),
        Verb::Info(args) => cmd::info::run(args, report),
        Verb::Dump(args) => cmd::dump::run(args, report),
        Verb::Stats(args) => cmd::stats::run(args, report),
        Verb::Cut(args) => cmd::cut::run(args, report),
        Verb::Export(args) => cmd::export::run(args, report),
        Verb::Symbols(args) => cmd::symbols::run(args, report),
        Verb::LastWrite(args) => cmd::origin::last_write(args, report),
        Verb::Why(args) => cmd::origin::why(args, report),
        Verb::Bt(args) => cmd::bt::run(args, report),
        Verb::Lsmod(args) => cmd::state::lsmod(args, report),
        Verb::Ps(args) => cmd::state::ps(args, report),
        Verb::Dmesg(args) => cmd::state::dmesg(args, report),
        Verb::Ls(args) => cmd::ls::run(args, report),
        Verb::Doctor(args) => cmd::doctor::run(args, report),
        Verb::Guest(args) => cmd::guest::run(args, report),
    }
}
