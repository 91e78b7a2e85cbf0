//! The debug images at hand, and addresses to ask about.

#![allow(dead_code, reason = "each test file uses its part")]

use std::env;
use std::fs;
use std::path::PathBuf;

use colinux_symbols::{Image, LinkAddr};

/// `COLINUX_TEST_DEBUG_VMLINUX`, else every one that `guest fetch --debug` has put in the cache.
#[allow(clippy::print_stderr, reason = "why a test is skipped")]
pub(crate) fn debug_images() -> Vec<PathBuf> {
    if let Some(named) = env::var_os("COLINUX_TEST_DEBUG_VMLINUX") {
        return vec![PathBuf::from(named)];
    }
    let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".cache"));
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(home);
    let kernels = cache.map(|c| c.join("colinux-trace/kernels"));
    let kernels = kernels
        .and_then(|k| fs::read_dir(k).ok())
        .into_iter()
        .flatten();
    let found = kernels.filter_map(|entry| Some(entry.ok()?.path().join("vmlinux")));
    let mut found: Vec<PathBuf> = found.filter(|path| path.is_file()).collect();
    found.sort();
    if found.is_empty() {
        eprintln!("skipped: no debug image in the cache (`guest fetch --debug`)");
    }
    found
}

/// How many addresses to try: `COLINUX_TEST_SAMPLES`, else so many.
pub(crate) fn samples(otherwise: usize) -> usize {
    let wanted = env::var("COLINUX_TEST_SAMPLES").ok();
    wanted.and_then(|n| n.parse().ok()).unwrap_or(otherwise)
}

/// Addresses evenly scattered over the functions of the symbol table, the same in every run: the
/// gaps between functions are a quarter of `.text`.
pub(crate) fn probes(image: &Image<'_>, count: usize) -> Vec<LinkAddr> {
    let mut functions: Vec<_> = image
        .symbols()
        .filter(|s| s.is_text && s.size > 0)
        .collect();
    functions.sort_by_key(|s| (s.addr, s.size));
    functions.dedup_by_key(|s| s.addr);
    let total: u64 = functions.iter().map(|s| s.size).sum();
    let starts: Vec<u64> = functions
        .iter()
        .scan(0, |sum, s| Some(std::mem::replace(sum, *sum + s.size)))
        .collect();
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    (0..count)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            let at = x % total;
            let i = starts.partition_point(|s| *s <= at) - 1;
            functions[i].addr.plus(at - starts[i])
        })
        .collect()
}
