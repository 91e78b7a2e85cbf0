//! `tui`: a recording on the screen.

use std::env;
use std::path::Path;
use std::process::Command;

use colinux_replay::{Mark, Position};
use colinux_tracer::Reader;
use colinux_tui::{Live, Options, Palette, Places, Theme, TuiError};

use crate::args::{Colors, Tui, View};
use crate::exit::{self, Failure};
use crate::guest::cache::Cache;
use crate::guest::programs::find_program;
use crate::report::Report;
use crate::store;

pub(crate) fn run(args: &Tui, _: &Report) -> Result<u8, Failure> {
    let path = store::find(args.trace.as_deref())?;
    let watch = Watch {
        goto: args.goto.clone(),
        ..Watch::default()
    };
    show(Reader::open(&path)?, &path, &args.view, watch)
}

/// What is to be seen first, and of whom.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// Where to begin.
    pub(crate) goto: Option<Position>,
    /// The console of the guest, if it is being recorded here.
    pub(crate) live: Option<Live>,
    /// Something to say first.
    pub(crate) greeting: Option<String>,
}

/// Shows a recording until the user leaves.
pub(crate) fn show(reader: Reader, path: &Path, args: &View, watch: Watch) -> Result<u8, Failure> {
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
        goto: watch.goto,
        live: watch.live,
        greeting: watch.greeting,
        places: Places {
            vmlinux: args.vmlinux.clone(),
            sources: args.source.clone(),
            kernels: in_cache("kernels"),
            cache: in_cache("symbols"),
        },
    };
    let (vmlinux, sources) = (args.vmlinux.clone(), args.source.clone());
    let mut open_gdb = |mark: Mark| {
        if find_program("gdb".as_ref()).is_none() {
            return Err("gdb is not installed here (apt install gdb)".to_owned());
        }
        let program = env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.arg("gdb").arg("--goto").arg(mark.to_string());
        if let Some(vmlinux) = &vmlinux {
            command.arg("--vmlinux").arg(vmlinux);
        }
        for folder in &sources {
            command
                .arg("--ex")
                .arg(format!("directory {}", folder.display()));
        }
        let status = command.arg(path).status();
        match status.map_err(|error| error.to_string())?.code() {
            Some(0) => Ok(()),
            Some(code) => Err(format!(
                "gdb ended with {code}: `colinux-trace gdb --goto {mark}` says why"
            )),
            None => Err("gdb was ended by a signal".to_owned()),
        }
    };
    match colinux_tui::run(reader, options, &mut open_gdb) {
        Ok(()) => Ok(0),
        Err(TuiError::Signal(signal)) => Ok(exit::SIGNAL + signal),
        Err(TuiError::Trace(error)) => Err(error.into()),
        Err(error) => Err(Failure::new(exit::ENVIRONMENT, error)),
    }
}
