//! `doctor`: what this host has of what is needed, and what is lost without the rest.

use std::path::{Path, PathBuf};
use std::{env, thread};

use colinux_driver::jit;
use serde_json::json;

use crate::args::Doctor;
use crate::exit::{self, Failure};
use crate::guest::cache::Cache;
use crate::guest::programs::find_program;
use crate::report::Report;
use crate::store;
use crate::words::sized;

/// Below this, a recording of a boot may not fit.
const SPACE_MIN: u64 = 256 << 20;
/// Memory of the guest if nobody says otherwise, and what the host needs besides.
const MEMORY_MIN: u64 = 768 << 20;

/// How a check ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Good,
    /// Works with less, or slower.
    Less,
    /// The main job does not work.
    Bad,
}

impl State {
    const fn word(self) -> &'static str {
        match self {
            State::Good => "ok",
            State::Less => "note",
            State::Bad => "missing",
        }
    }
}

struct Finding {
    what: &'static str,
    state: State,
    text: String,
}

/// The checks, in the order in which things are needed.
const CHECKS: &[fn() -> Finding] = &[
    tier,
    cores,
    memory,
    recordings,
    cache,
    kernels,
    busybox,
    fetching,
    debug_images,
    gdb,
    terminal,
];

pub(crate) fn run(args: &Doctor, report: &Report) -> Result<u8, Failure> {
    let findings = CHECKS.iter().map(|check| check());
    let mut worst = 0;
    for Finding { what, state, text } in findings {
        if state == State::Bad {
            worst = exit::ENVIRONMENT;
        }
        report.line(if args.json {
            json!({"check": what, "state": state.word(), "text": text}).to_string()
        } else {
            format!("{:<8} {what:<13} {text}", state.word())
        });
    }
    Ok(worst)
}

/// A finding that is good, or `otherwise`.
fn finding(what: &'static str, good: Option<String>, otherwise: (State, String)) -> Finding {
    let (state, text) = good.map_or(otherwise, |text| (State::Good, text));
    Finding { what, state, text }
}

fn tier() -> Finding {
    finding(
        "vcpu",
        jit::is_available().then(|| "hot guest code runs on this host's CPU (tier 1)".to_owned()),
        (
            State::Less,
            if cfg!(all(target_arch = "x86_64", target_os = "linux")) {
                "this host does not allow memory for machine code: guests are interpreted (tier 0), \
                 several times slower; a policy against executable memory files may be the reason"
            } else {
                "not an x86-64 Linux host: guests are interpreted (tier 0)"
            }
            .to_owned(),
        ),
    )
}

fn cores() -> Finding {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    finding(
        "cores",
        (cores > 1).then(|| format!("{cores}")),
        (
            State::Less,
            "1: the guest waits while its trace is written, and searches backward take longer"
                .to_owned(),
        ),
    )
}

fn memory() -> Finding {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = info
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .map(|kib| kib << 10);
    let text = available.map_or("unknown".to_owned(), |bytes| {
        format!("{} available", sized(bytes))
    });
    let enough = available.is_some_and(|bytes| bytes >= MEMORY_MIN);
    finding(
        "memory",
        enough.then(|| text.clone()),
        (
            State::Less,
            format!("{text}: small guests only (--memory 128M)"),
        ),
    )
}

fn recordings() -> Finding {
    folder("recordings", store::folder().map_err(|f| f.message))
}

fn cache() -> Finding {
    let cache = Cache::open().map_err(|error| error.to_string());
    folder("cache", cache.map(|cache| cache.root().to_owned()))
}

/// A folder that is there, or can be made, and has space.
fn folder(what: &'static str, path: Result<PathBuf, String>) -> Finding {
    let bad = |text| Finding {
        what,
        state: State::Bad,
        text,
    };
    let path = match path {
        Ok(path) => path,
        Err(why) => return bad(why),
    };
    let place = path.ancestors().find(|place| place.exists());
    let place = place.unwrap_or(Path::new("/"));
    if let Err(error) = tempfile::tempfile_in(place) {
        return bad(format!("{}: cannot be written: {error}", place.display()));
    }
    let free = rustix::fs::statvfs(place).map(|s| s.f_bavail.saturating_mul(s.f_frsize));
    let free = free.unwrap_or(0);
    let text = format!("{}, {} free", path.display(), sized(free));
    let enough = (free >= SPACE_MIN).then(|| text.clone());
    finding(what, enough, (State::Less, format!("{text}: little")))
}

fn kernels() -> Finding {
    let releases = Cache::open()
        .map(|cache| cache.releases())
        .unwrap_or_default();
    finding(
        "kernels",
        (!releases.is_empty()).then(|| releases.join(", ")),
        (
            State::Bad,
            "none fetched: colinux-trace guest fetch, or name one with --kernel".to_owned(),
        ),
    )
}

fn busybox() -> Finding {
    let busybox = Cache::open().ok().and_then(|cache| cache.busybox());
    finding(
        "busybox",
        busybox.map(|path| path.display().to_string()),
        (
            State::Bad,
            "none fetched: colinux-trace guest fetch, or bring an --initrd".to_owned(),
        ),
    )
}

fn fetching() -> Finding {
    let tools = ["apt-get", "apt-cache", "dpkg-deb"];
    let lacking: Vec<_> = tools
        .iter()
        .filter(|t| find_program(t.as_ref()).is_none())
        .collect();
    finding(
        "fetching",
        lacking.is_empty().then(|| tools.join(", ")),
        (
            State::Less,
            format!("no {lacking:?}: guest fetch needs Debian's package tools; --kernel does not"),
        ),
    )
}

fn debug_images() -> Finding {
    let cache = Cache::open().ok();
    let found = cache.iter().flat_map(|cache| {
        let has = |release: &String| cache.kernel_dir(release).join("vmlinux").is_file();
        cache.releases().into_iter().filter(has).collect::<Vec<_>>()
    });
    let found: Vec<String> = found.collect();
    finding(
        "debug images",
        (!found.is_empty()).then(|| found.join(", ")),
        (
            State::Less,
            "none fetched: names without lines and variables; guest fetch --debug gets them"
                .to_owned(),
        ),
    )
}

fn gdb() -> Finding {
    let gdb = find_program("gdb".as_ref());
    finding(
        "gdb",
        gdb.map(|path| path.display().to_string()),
        (
            State::Less,
            "not found: the verb gdb can only serve (--listen)".to_owned(),
        ),
    )
}

fn terminal() -> Finding {
    let term = env::var("TERM").unwrap_or_default();
    let works = !term.is_empty() && term != "dumb";
    finding(
        "terminal",
        works.then(|| term.clone()),
        (State::Less, format!("TERM={term}: no viewer on this one")),
    )
}
