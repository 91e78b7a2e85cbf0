//! `tui`: a recording on the screen.

use std::env;
use std::path::Path;
use std::process::Command;

use colinux_replay::Mark;
use colinux_tracer::Reader;
use colinux_tui::{Options, Palette, Places, Theme, TuiError};

use crate::args::{Colors, Tui};
use crate::exit::{self, Failure};
use crate::guest::cache::Cache;
use crate::report::Report;
use crate::store;

pub(crate) fn run(args: &Tui, _: &Report) -> Result<u8, Failure> {
    let path = store::find(args.trace.as_deref())?;
    show(Reader::open(&path)?, &path, args)
}

/// Shows a recording until the user leaves.
pub(crate) fn show(reader: Reader, path: &Path, args: &Tui) -> Result<u8, Failure> {
    let palette = args.colors.map(|colors| match colors {
        Colors::Full => Palette::Full,
        Colors::Sixteen => Palette::Sixteen,
        Colors::None => Palette::Mono,
    });
    let cache = Cache::open().ok();
    let in_cache = |name: &str| cache.as_ref().map(|cache| cache.root().join(name));
    let options = Options {
        theme: Theme::of_environment(palette, args.ascii),
        mouse: !args.no_mouse,
        goto: args.goto.clone(),
        places: Places {
            vmlinux: args.vmlinux.clone(),
            sources: args.source.clone(),
            kernels: in_cache("kernels"),
            cache: in_cache("symbols"),
        },
    };
    let vmlinux = args.vmlinux.clone();
    let mut open_gdb = |mark: Mark| {
        let program = env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.arg("gdb").arg("--goto").arg(mark.to_string());
        if let Some(vmlinux) = &vmlinux {
            command.arg("--vmlinux").arg(vmlinux);
        }
        let status = command.arg(path).status();
        match status.map_err(|error| error.to_string())?.code() {
            Some(0) => Ok(()),
            code => Err(format!(
                "gdb ended with {}",
                code.map_or_else(|| "a signal".to_owned(), |code| code.to_string())
            )),
        }
    };
    match colinux_tui::run(reader, options, &mut open_gdb) {
        Ok(()) => Ok(0),
        Err(TuiError::Signal(signal)) => Ok(exit::SIGNAL + signal),
        Err(TuiError::Trace(error)) => Err(error.into()),
        Err(error) => Err(Failure::new(exit::ENVIRONMENT, error)),
    }
}
