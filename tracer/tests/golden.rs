//! The promise of the format: what version 1 wrote is read for ever.
//!
//! The files in `tests/golden` were each written once: `v1-rows.clt` has its events in rows, and
//! `v1-columns.clt` has them in columns. They are never written again; when the format changes, a file
//! of the new form is added beside them. Kinds that came later are not in it, and its schema
//! says which those are; a field that is appended must be at its default in `every`.

mod every;

use std::path::{Path, PathBuf};

use colinux_tracer::{Event, EventKind, INITRD_FILE, InputKind, KERNEL_FILE, Reader};

/// Every golden file there is, the newest last.
const GOLDEN: &[&str] = &["v1-rows.clt", "v1-columns.clt"];

fn golden(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    dir.join(name)
}

/// What `every` holds of the kinds that the file knows, as it was numbered then.
fn written(reader: &Reader) -> impl Iterator<Item = (u64, u16, Event)> {
    let known: Vec<u8> = reader.schema().rows().iter().map(|row| row.code).collect();
    let events = every::events().into_iter();
    let events = events.filter(move |event| known.contains(&event.kind().code()));
    (0..)
        .zip(events)
        .map(|(number, event)| (every::tick(number), (number / 10 % 2) as u16, event))
}

fn check(reader: &Reader) {
    assert!(reader.is_complete());
    assert_eq!(reader.format(), 1);
    reader.check().unwrap();
    assert_eq!(reader.manifest().unwrap(), every::manifest());
    assert_eq!(reader.host_info().unwrap().unwrap().tool_version, "0.1.0");
    assert_eq!(reader.boot_file(KERNEL_FILE).unwrap(), b"kernel");
    assert_eq!(reader.boot_file(INITRD_FILE).unwrap(), [7; 5000]);
    let rows: Vec<_> = reader.events().map(Result::unwrap).collect();
    let found: Vec<_> = rows
        .iter()
        .map(|row| (row.tick, row.vcpu, row.event.clone()))
        .collect();
    assert_eq!(found, written(reader).collect::<Vec<_>>());
    let inputs: Vec<_> = reader
        .inputs()
        .unwrap()
        .into_iter()
        .map(|(_, input)| input)
        .collect();
    let mut written = every::inputs();
    written.push(every::end().into());
    written.retain(|input| reader.schema().name(input.kind().code()).is_some());
    assert_eq!(inputs, written);
    assert_eq!(reader.notes().unwrap()[0].text, "a note");
    let checkpoints = reader.checkpoints().unwrap();
    assert_eq!(reader.checkpoint(&checkpoints[0]).unwrap(), b"state");
}

#[test]
fn every_golden_file_is_read() {
    for name in GOLDEN {
        check(&Reader::open(golden(name)).unwrap());
    }
}

#[test]
fn this_build_writes_what_it_reads() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new.clt");
    every::write(&path);
    check(&Reader::open(&path).unwrap());
}

/// A kind that is added is added here too, and so comes under the tests that use this recording.
#[test]
fn every_kind_is_there() {
    let kinds: Vec<_> = every::events().iter().map(|event| event.kind()).collect();
    assert_eq!(kinds, EventKind::ALL);
    let mut kinds: Vec<_> = every::inputs().iter().map(|input| input.kind()).collect();
    kinds.push(InputKind::RecordEnd);
    assert_eq!(kinds, InputKind::ALL);
}

#[test]
#[ignore = "writes a golden file where there is none: for a new form of file"]
fn write_golden() {
    let newest = golden(GOLDEN[GOLDEN.len() - 1]);
    assert!(!newest.exists(), "golden files are never written again");
    every::write(&newest);
}
