//! Work for `valgrind --tool=callgrind --cache-sim=yes`, which counts what one question costs where
//! times say little: `count load VMLINUX` takes a kernel's names and types in, `count unpacked VMLINUX
//! ROUNDS` and `count index VMLINUX ROUNDS` ask for 100,000 stacks as often. The difference of two
//! numbers of rounds leaves what comes before them out. See `benches/symbols.sh`.
#![allow(clippy::print_stdout, reason = "it is a program")]

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use colinux_symbols::map::FileMap;
use colinux_symbols::{DebugImage, Frame, Image, Index, Kernel, LinkAddr};

const PROBES: usize = 100_000;

/// Scattered addresses inside of functions, the same in every run.
fn probes(image: &Image<'_>) -> Vec<LinkAddr> {
    let functions: Vec<_> = image
        .symbols()
        .filter(|s| s.is_text && s.size > 0 && s.addr.0 >> 63 != 0)
        .map(|s| (s.addr.0, s.size))
        .collect();
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    let probe = |_| {
        let (start, size) = functions[(next() % functions.len() as u64) as usize];
        LinkAddr(start + next() % size)
    };
    (0..PROBES).map(probe).collect()
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [what, path, rest @ ..] = &args[..] else {
        println!("count load|unpacked|index VMLINUX [ROUNDS]");
        return;
    };
    let path = Path::new(path);
    let map = FileMap::open(path).expect("a file");
    if what == "load" {
        let start = Instant::now();
        let kernel = Kernel::from_vmlinux(&map).expect("a kernel");
        println!("{} names in {:?}", kernel.names.len(), start.elapsed());
        return;
    }
    let debug = DebugImage::open(path, None).expect("debug information");
    let folder = std::env::temp_dir();
    let index = Index::open_or_build(&debug, &folder, &mut |_, _| ()).expect("an index");
    let unpacked = index.unpack().expect("a sound index");
    let probes = probes(&Image::parse(&map).expect("an image"));
    for _ in 0..rest.first().and_then(|n| n.parse().ok()).unwrap_or(1) {
        let (start, mut frames) = (Instant::now(), 0);
        let mut visit = |frame: Frame<'_>| {
            black_box(frame);
            frames += 1;
        };
        for probe in &probes {
            match what.as_str() {
                "index" => index.frames(*probe, &mut visit),
                _ => unpacked.frames(*probe, &mut visit),
            };
        }
        let rate = PROBES as f64 / start.elapsed().as_secs_f64() / 1e6;
        println!("{frames} frames, {rate:.2} M stacks a second");
    }
}
