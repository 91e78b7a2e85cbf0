//! What the fuzzer of the gdb stub begins with, and bytes made of it: whatever a debugger sends, there is
//! an answer, and the timeline holds.

mod common;

use std::fs;
use std::path::Path;

use colinux_replay::gdb::{Debuggee, converse_with};
use colinux_replay::{Mark, Timeline};
use colinux_tracer::Reader;
use common::Sandbox;

fn corpus() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/stub_input");
    let mut found: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect();
    found.sort();
    found
}

#[test]
fn whatever_a_debugger_sends_is_survived() {
    let sandbox = Sandbox::new();
    let kernel = common::kernel("6.1");
    let what = ["record", "--kernel", &kernel, "--memory", "128M"];
    sandbox.ok(&[&what[..], &["--until", "@300K", "-o", "short.clt"]].concat());
    let reader = Reader::open(sandbox.path("short.clt")).unwrap();
    let timeline = Timeline::open(&reader).unwrap();
    let mut debuggee = Debuggee::new(reader, timeline);
    let corpus = corpus();
    assert!(corpus.len() >= 6);
    let digest = |debuggee: &mut Debuggee| {
        let timeline = debuggee.timeline();
        timeline.seek(Mark::at(250_000), &mut |_| true).unwrap();
        timeline.digest()
    };
    let before = digest(&mut debuggee);
    let mut noise = 1u32;
    let mut dice = |below: usize| {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (noise >> 8) as usize % below.max(1)
    };
    for (name, seed) in &corpus {
        let answered = converse_with(&mut debuggee, seed.split(|byte| *byte == 0)).unwrap();
        assert!(answered.contains(&b'$'), "{name}");
        for _ in 0..12 {
            let mut bytes = seed.clone();
            for _ in 0..4 {
                let at = dice(bytes.len());
                match dice(3) {
                    0 => bytes[at] = dice(256) as u8,
                    1 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, b",;:#$}0f"[dice(8)]),
                }
            }
            converse_with(&mut debuggee, bytes.split(|byte| *byte == 0)).unwrap();
        }
        assert_eq!(digest(&mut debuggee), before, "{name}");
    }
}
