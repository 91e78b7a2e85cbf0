//! Files that were cut, damaged or filled with anything, and disks that are full.

mod every;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use colinux_tracer::{
    EndReason, Event, EventRow, FILE_HEADER_LEN, Input, LossRule, Options, Reader, RecordEnd,
    StateDigest, TraceError, Writer,
};
use proptest::prelude::*;

struct Whole {
    bytes: Vec<u8>,
    /// By tick, which no two of them share; without numbers, because where something is missing the
    /// rest is numbered anew.
    events: BTreeMap<u64, EventRow>,
    inputs: Vec<(u64, Input)>,
    /// Ends of the chunks, with the events and inputs up to there.
    ends: Vec<(usize, usize, usize)>,
}

fn unnumbered(row: EventRow) -> (u64, EventRow) {
    (row.tick, EventRow { number: 0, ..row })
}

fn whole() -> Whole {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.clt");
    every::write(&path);
    let reader = Reader::open(&path).unwrap();
    let (mut events, mut inputs) = (0, 0);
    let ends = reader.chunks().iter().map(|entry| {
        match entry.header.kind.name() {
            "events" => events += entry.header.rows as usize,
            "inputs" => inputs += entry.header.rows as usize,
            _ => {}
        }
        (entry.end() as usize, events, inputs)
    });
    let ends = ends.collect();
    Whole {
        bytes: fs::read(&path).unwrap(),
        events: reader
            .events()
            .map(|row| unnumbered(row.unwrap()))
            .collect(),
        inputs: reader.inputs().unwrap(),
        ends,
    }
}

#[test]
fn a_file_cut_at_any_byte_gives_what_is_before_the_cut() {
    let whole = whole();
    for cut in 0..whole.bytes.len() {
        let bytes = &whole.bytes[..cut];
        let reader = match Reader::from_bytes("cut.clt", bytes) {
            Ok(reader) => reader,
            Err(TraceError::File { .. }) if cut < FILE_HEADER_LEN => continue,
            Err(error) => panic!("cut at {cut}: {error}"),
        };
        assert!(cut >= FILE_HEADER_LEN);
        let recovery = reader.recovery().unwrap();
        assert_eq!(recovery.offset + recovery.lost_bytes, cut as u64);
        assert!(!reader.is_complete());
        // Once the header of the index is there, nothing is missing but the index.
        let index = whole.ends.last().unwrap().0;
        let is_index = matches!(recovery.rule, LossRule::Index);
        assert_eq!(is_index, cut >= index + 52, "cut at {cut}: {recovery}");
        let kept = whole.ends.iter().filter(|(end, ..)| *end <= cut);
        let (number, (_, events, inputs)) = kept
            .enumerate()
            .last()
            .map_or((0, (0, 0, 0)), |(at, end)| (at + 1, *end));
        assert_eq!(recovery.kept_chunks, number as u64, "cut at {cut}");
        let found: Vec<_> = reader.events().map(Result::unwrap).collect();
        assert_eq!(found.len(), events);
        for (tick, row) in found.into_iter().map(unnumbered) {
            assert_eq!(whole.events[&tick], row, "cut at {cut}");
        }
        assert_eq!(reader.inputs().unwrap(), whole.inputs[..inputs]);
    }
}

#[test]
fn a_flipped_bit_is_found_wherever_it_is() {
    let whole = whole();
    let mut bytes = whole.bytes.clone();
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(reader) = Reader::from_bytes("flip.clt", bytes.as_slice()) {
            if reader.recovery().is_none() {
                assert!(reader.check().is_err(), "bit {bit} went unseen");
            }
            // What is before the damage is there: by the index, or by walking up to it.
            let until = whole.ends.iter().rfind(|(end, ..)| *end <= bit / 8);
            let (_, events, inputs) = until.copied().unwrap_or_default();
            let rows: Vec<_> = reader.events().filter_map(Result::ok).collect();
            assert!(rows.len() >= events, "bit {bit}");
            for (tick, row) in rows.into_iter().map(unnumbered) {
                assert_eq!(whole.events[&tick], row, "bit {bit}");
            }
            if let Ok(found) = reader.inputs() {
                assert!(found.len() >= inputs);
                assert_eq!(found, whole.inputs[..found.len()], "bit {bit}");
            }
        }
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_are_opened_without_a_panic(
        tail in proptest::collection::vec(any::<u8>(), 0..300),
        at in 0..4000usize,
        garbage in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        thread_local! {
            static WHOLE: Whole = whole();
        }
        WHOLE.with(|whole| {
            let mut headed = whole.bytes[..FILE_HEADER_LEN].to_vec();
            headed.extend_from_slice(&tail);
            let mut patched = whole.bytes.clone();
            let at = at % patched.len();
            patched.splice(at..(at + garbage.len()).min(patched.len()), garbage.iter().copied());
            for bytes in [&tail, &headed, &patched] {
                if let Ok(mut reader) = Reader::from_bytes("any.clt", bytes.as_slice()) {
                    let _ = read_events(&reader);
                    let _ = reader.inputs();
                    let _ = reader.stats();
                    let _ = reader.check();
                    let _ = reader.refresh();
                    let mut cursor = reader.events();
                    let _ = cursor.seek_number(7);
                    let _ = cursor.seek_tick(1100);
                    let _ = cursor.prev();
                }
            }
        });
    }
}

fn read_events(reader: &Reader) -> usize {
    reader.events().map(|row| usize::from(row.is_ok())).sum()
}

fn fill(path: &Path) -> TraceError {
    let options = Options {
        chunk_rows: 500,
        batch_rows: 100,
        ..Options::default()
    };
    let mut writer = match Writer::create(path, options) {
        Ok(writer) => writer,
        Err(error) => return error,
    };
    let fill = |writer: &mut Writer| -> Result<(), TraceError> {
        writer.manifest(&every::manifest())?;
        for number in 0..10_000_000u64 {
            // Addresses that no compressor can make small.
            let gva = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let event = Event::GuestPf {
                gva,
                gpa: gva.rotate_left(32),
                error: 4,
                rip: !gva,
                cpl: 3,
            };
            writer.push(number, event)?;
        }
        Ok(())
    };
    let error = fill(&mut writer).expect_err("the disk is full");
    let digest = StateDigest::default();
    let end = RecordEnd {
        reason: EndReason::Stopped,
        tick: u64::MAX,
        digest,
    };
    let again = writer.finish(end).expect_err("it stays full");
    assert_eq!(error.to_string(), again.to_string());
    error
}

#[test]
fn a_full_device_is_named_when_the_file_is_made() {
    let options = Options {
        overwrite: true,
        ..Options::default()
    };
    let error = Writer::create("/dev/full", options).unwrap_err();
    let TraceError::NoSpace { offset: 0, .. } = error else {
        panic!("{error}")
    };
    assert!(
        error
            .to_string()
            .starts_with("/dev/full: no space to write"),
        "{error}"
    );
}

/// A limit on the length of files stands for a full disk: writes are cut short, then refused.
fn filled_by(child: &str) -> (tempfile::TempDir, Reader) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("full.clt");
    let this = std::env::current_exe().unwrap();
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 300; exec \"$0\" \"$@\""])
        .arg(this)
        .args(["--exact", child, "--ignored", "--nocapture"])
        .env("TRACER_TEST_FILL", &path)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let limit = 300 * 1024;
    let len = path.metadata().unwrap().len();
    assert!(len <= limit, "{len}");
    let reader = Reader::open(&path).unwrap();
    (dir, reader)
}

#[test]
fn a_disk_that_fills_up_leaves_a_readable_recording() {
    let (_dir, reader) = filled_by("child_that_fills_the_disk");
    let recovery = reader.recovery().unwrap();
    assert_eq!(
        recovery.lost_bytes, 0,
        "it was cut back to the last whole chunk: {recovery}"
    );
    assert_eq!(reader.manifest().unwrap(), every::manifest());
    let rows: Vec<_> = reader.events().map(Result::unwrap).collect();
    assert!(rows.len() >= 1000, "{}", rows.len());
    assert_eq!(rows.len() % 500, 0);
    assert!(
        rows.iter()
            .enumerate()
            .all(|(number, row)| row.tick == number as u64)
    );
    reader.check().unwrap();
}

#[test]
#[ignore = "run by the test above, under a limit"]
fn child_that_fills_the_disk() {
    let Some(path) = std::env::var_os("TRACER_TEST_FILL") else {
        return;
    };
    let error = fill(Path::new(&path));
    assert!(matches!(error, TraceError::NoSpace { .. }), "{error}");
    assert!(
        error.to_string().contains("full.clt: no space to write"),
        "{error}"
    );
}

/// The room that a checkpoint does not fit into is enough for the rows before it.
#[test]
fn a_checkpoint_that_does_not_fit_costs_no_events() {
    let (_dir, reader) = filled_by("child_that_fills_the_disk_with_a_checkpoint");
    assert!(reader.recovery().is_none(), "{:?}", reader.recovery());
    let ticks: Vec<u64> = reader.events().map(|row| row.unwrap().tick).collect();
    assert!(ticks.iter().copied().eq(0..2345), "{}", ticks.len());
    assert_eq!(reader.inputs().unwrap().len(), 1);
    let kept = reader.checkpoints().unwrap();
    let ids: Vec<u32> = kept.iter().map(|checkpoint| checkpoint.id).collect();
    assert_eq!(ids, [0]);
    reader.check().unwrap();
    // Nothing is left of the other one.
    let stored = reader.stats();
    let pieces = stored
        .chunks
        .iter()
        .find(|row| row.kind == "piece")
        .unwrap();
    assert_eq!(pieces.chunks, 1);
}

#[test]
#[ignore = "run by the test above, under a limit"]
fn child_that_fills_the_disk_with_a_checkpoint() {
    let Some(path) = std::env::var_os("TRACER_TEST_FILL") else {
        return;
    };
    let options = Options {
        chunk_rows: 1000,
        batch_rows: 100,
        ..Options::default()
    };
    let mut writer = Writer::create(Path::new(&path), options).unwrap();
    writer.manifest(&every::manifest()).unwrap();
    let state = StateDigest::default();
    writer.checkpoint(0, 0, state, *b"the first").unwrap();
    for number in 0..2345u64 {
        let gva = number.rotate_left(40);
        let event = Event::GuestPf {
            gva,
            gpa: 0,
            error: 4,
            rip: !gva,
            cpl: 3,
        };
        writer.push(number, event).unwrap();
    }
    writer.input(2345, every::inputs().remove(0)).unwrap();
    writer.flush_inputs().unwrap();
    // A piece that is small when packed, and one that no compressor makes small.
    let mut state_bytes = vec![0; 2 << 20];
    let mut dice = 1u64;
    for byte in &mut state_bytes[1 << 20..] {
        dice = dice.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        *byte = (dice >> 56) as u8;
    }
    writer.checkpoint(2345, 1, state, state_bytes).unwrap();
    let error = writer.flush().expect_err("the disk is full");
    assert!(matches!(error, TraceError::NoSpace { .. }), "{error}");
}
