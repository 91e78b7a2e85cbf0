//! Our frames against the addr2line crate's, on real debug images, when there are any in the cache:
//! `COLINUX_TEST_DEBUG_VMLINUX` names another, `COLINUX_TEST_SAMPLES` says how many addresses to
//! try.

mod common;

use std::path::Path;

use addr2line::gimli::{self, EndianSlice, LittleEndian};
use colinux_symbols::index::Index;
use colinux_symbols::map::FileMap;
use colinux_symbols::{DebugImage, Frame, Image};

/// Function, file and line of every frame, innermost first.
type Stack = Vec<(Option<String>, Option<String>, u32)>;

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
    for path in common::debug_images() {
        compare(&path);
    }
}

fn compare(path: &Path) {
    let bytes = FileMap::open(path).expect("a readable file");
    let image = Image::parse(&bytes).expect("image");
    let section = |id: gimli::SectionId| {
        let data = image.section(id.name()).map_or(&[][..], |s| s.data);
        Ok::<_, gimli::Error>(EndianSlice::new(data, LittleEndian))
    };
    let dwarf = gimli::Dwarf::load(section).expect("sections");
    let theirs = addr2line::Context::from_dwarf(dwarf).expect("context");
    let debug = DebugImage::open(path, image.build_id()).expect("debug image");
    let folder = tempfile::tempdir().expect("folder");
    let index = Index::open_or_build(&debug, folder.path(), &mut |_, _| ()).expect("index");
    let unpacked = index.unpack().expect("a sound index");

    let (mut without, mut frames, mut wrong) = (0, 0, Vec::new());
    for addr in common::probes(&image, common::samples(20_000)) {
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
        let unpacked = ours(|visit| {
            unpacked.frames(addr, visit);
        });
        if direct != expected || indexed != expected || unpacked != expected {
            wrong.push((addr, expected, direct, indexed, unpacked));
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
