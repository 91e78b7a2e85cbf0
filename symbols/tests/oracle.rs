//! Our frames against the addr2line crate's, on a real debug image, when one is at hand:
//! `COLINUX_TEST_DEBUG_VMLINUX` names it, `COLINUX_TEST_SAMPLES` says how many addresses to try.

use std::path::PathBuf;

use addr2line::gimli::{self, EndianSlice, LittleEndian};
use colinux_symbols::index::Index;
use colinux_symbols::{DebugImage, Frame, Image, LinkAddr};

/// Function, file and line of every frame, innermost first.
type Stack = Vec<(Option<String>, Option<String>, u32)>;

/// Addresses inside of functions of the symbol table, the same in every run.
fn probes(image: &Image<'_>) -> Vec<LinkAddr> {
    let wanted = std::env::var("COLINUX_TEST_SAMPLES")
        .ok()
        .and_then(|n| n.parse().ok());
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
    (0..wanted.unwrap_or(20_000))
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

fn ours(ask: impl FnOnce(&mut dyn FnMut(Frame<'_>))) -> Stack {
    let mut all = Stack::new();
    ask(&mut |f| {
        let (function, file) = (f.function.map(str::to_owned), f.file.map(str::to_owned));
        all.push((function, file, f.line));
    });
    all
}

#[test]
fn frames_equal_those_of_addr2line() {
    let Some(path) = std::env::var_os("COLINUX_TEST_DEBUG_VMLINUX").map(PathBuf::from) else {
        return;
    };
    let bytes = std::fs::read(&path).expect("COLINUX_TEST_DEBUG_VMLINUX must name a readable file");
    let image = Image::parse(&bytes).expect("image");
    let section = |id: gimli::SectionId| {
        let data = image.section(id.name()).map_or(&[][..], |s| s.data);
        Ok::<_, gimli::Error>(EndianSlice::new(data, LittleEndian))
    };
    let dwarf = gimli::Dwarf::load(section).expect("sections");
    let theirs = addr2line::Context::from_dwarf(dwarf).expect("context");
    let debug = DebugImage::open(&path, image.build_id()).expect("debug image");
    let folder = tempfile::tempdir().expect("folder");
    let index = Index::open_or_build(&debug, folder.path(), &mut |_, _| ()).expect("index");

    let (mut without, mut frames, mut wrong) = (0, 0, Vec::new());
    for addr in probes(&image) {
        let mut expected = Stack::new();
        let mut found = theirs.find_frames(addr.0).skip_all_loads().expect("frames");
        while let Some(frame) = found.next().expect("frame") {
            let function = frame
                .function
                .map(|f| f.raw_name().expect("name").into_owned());
            let file = frame
                .location
                .as_ref()
                .and_then(|l| l.file.map(str::to_owned));
            let line = frame.location.as_ref().and_then(|l| l.line).unwrap_or(0);
            expected.push((function, file, line));
        }
        without += usize::from(expected.is_empty());
        frames += expected.len();
        let direct = ours(|visit| {
            debug.frames(addr, visit).expect("frames");
        });
        let indexed = ours(|visit| {
            index.frames(addr, visit);
        });
        if direct != expected || indexed != expected {
            wrong.push((addr, expected, direct, indexed));
        }
    }
    assert!(
        frames > 0 && without < frames,
        "{without} addresses without frames, {frames} frames"
    );
    assert!(
        wrong.is_empty(),
        "{} differ, the first: {:#?}",
        wrong.len(),
        wrong[0]
    );
}
