//! A recording written and read back.

use std::path::Path;

use colinux_tracer::{
    Comm, Compared, Digest, EndReason, Event, EventKind, EventMask, HostInfo, INITRD_FILE, Input,
    KERNEL_FILE, KernelImage, Manifest, Options, PageAccess, PassageReason, Reader, RecordEnd,
    Scan, StateDigest, TraceError, Writer,
};

/// A stream like a guest's: passages, system calls, page faults, task switches.
fn event(number: u64) -> Event {
    let rip = 0xffff_ffff_8100_0000 + number % 7 * 0x1230;
    match number % 6 {
        0 => Event::PassageLeave {
            reason: PassageReason::Quantum,
            rip,
            cpl: 0,
            insns: 5000,
        },
        1 => Event::PassageEnter {
            delivered: (number % 11) as u8,
        },
        2 => Event::SyscallEnter {
            nr: 1,
            args: [1, rip, number, 0, 0, u64::MAX],
            rip,
        },
        3 => Event::SyscallExit {
            nr: 1,
            ret: -(number as i64 % 40),
            insns: 400 + number % 9,
        },
        4 => Event::PpramAlloc {
            gpfn: number / 6,
            access: PageAccess::Write,
            rip,
        },
        _ => Event::TaskSwitch {
            prev_pid: 1,
            prev_tid: 1,
            prev_state: 1,
            prev_comm: Comm::new(b"swapper/0"),
            next_pid: 2,
            next_tid: number as u32,
            next_comm: Comm::new(b"kworker/0:1"),
        },
    }
}

const fn tick(number: u64) -> u64 {
    1000 + number * 37 / 4
}

fn end(last: u64) -> RecordEnd {
    RecordEnd {
        reason: EndReason::GuestShutdown,
        tick: last,
        digest: StateDigest([9; 16]),
    }
}

fn small() -> Options {
    Options {
        chunk_rows: 100,
        batch_rows: 7,
        overwrite: true,
        sync: false,
        ..Options::default()
    }
}

fn manifest() -> Manifest {
    Manifest {
        kernel: KernelImage {
            digest: Digest::of(b"kernel"),
            len: 6,
            ..KernelImage::default()
        },
        cmdline: "console=ttyS0".into(),
        ..Manifest::default()
    }
}

fn record(path: &Path, options: Options, events: u64, started: i64) -> colinux_tracer::Summary {
    let mut writer = Writer::create(path, options).unwrap();
    let info = HostInfo {
        started_unix_ns: started,
        ..HostInfo::default()
    };
    writer.host_info(&info).unwrap();
    writer.manifest(&manifest()).unwrap();
    writer.boot_file(KERNEL_FILE, b"kernel".as_slice()).unwrap();
    writer.boot_file(INITRD_FILE, vec![0x5a; 3 << 20]).unwrap();
    writer.boot_file("again", vec![0x5a; 3 << 20]).unwrap();
    for number in 0..events {
        writer.push(tick(number), event(number)).unwrap();
        if number % 250 == 249 {
            let bytes = format!("line {number}\n").into_bytes();
            writer
                .input(tick(number), Input::ConsoleIn { port: 0, bytes })
                .unwrap();
            writer.flush_inputs().unwrap();
        }
    }
    writer.finish(end(tick(events))).unwrap()
}

#[test]
fn everything_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.clt");
    let summary = record(&path, small(), 1234, 1);
    assert_eq!((summary.events, summary.inputs, summary.lost), (1234, 5, 0));
    assert_eq!(summary.bytes, path.metadata().unwrap().len());
    let reader = Reader::open(&path).unwrap();
    assert!(reader.is_complete());
    assert_eq!(reader.recovery(), None);
    assert_eq!(reader.end().unwrap(), Some(end(tick(1234))));
    assert_eq!(reader.manifest().unwrap(), manifest());
    assert_eq!(reader.host_info().unwrap().unwrap().started_unix_ns, 1);
    assert_eq!(reader.boot_file(KERNEL_FILE).unwrap(), b"kernel");
    assert_eq!(reader.boot_file("again").unwrap(), vec![0x5a; 3 << 20]);
    assert_eq!(reader.boot_file(INITRD_FILE).unwrap().len(), 3 << 20);
    assert!(matches!(
        reader.boot_file("other"),
        Err(TraceError::Missing { .. })
    ));
    let inputs = reader.inputs().unwrap();
    assert_eq!(inputs.len(), 5);
    assert_eq!(
        inputs[1],
        (
            tick(499),
            Input::ConsoleIn {
                port: 0,
                bytes: b"line 499\n".into()
            }
        )
    );
    let mut count = 0;
    for (number, row) in reader.events().enumerate() {
        let row = row.unwrap();
        let number = number as u64;
        assert_eq!((row.number, row.tick, row.vcpu), (number, tick(number), 0));
        assert_eq!(row.event, event(number));
        count += 1;
    }
    assert_eq!((count, reader.event_count()), (1234, 1234));
    let stats = reader.stats();
    assert_eq!((stats.events, stats.inputs), (1234, 5));
    assert_eq!(stats.ticks, Some((tick(0), tick(1234))));
    let pieces = stats
        .chunks
        .iter()
        .find(|chunk| chunk.kind == "piece")
        .unwrap();
    assert_eq!(pieces.chunks, 4, "equal contents are stored once");
    let of_kind = |name: &str| {
        stats
            .kinds
            .iter()
            .find(|kind| kind.name == name)
            .unwrap()
            .count
    };
    assert_eq!(
        (
            of_kind("PassageLeave"),
            of_kind("ConsoleIn"),
            of_kind("RecordEnd")
        ),
        (206, 4, 1)
    );
    reader.check().unwrap();
}

#[test]
fn the_same_recording_has_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b, c) = (
        dir.path().join("a"),
        dir.path().join("b"),
        dir.path().join("c"),
    );
    record(&a, small(), 1000, 77);
    record(&b, small(), 1000, 77);
    record(&c, small(), 1000, i64::MAX);
    assert_eq!(std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());
    assert_ne!(std::fs::read(&a).unwrap(), std::fs::read(&c).unwrap());
    let digest = |path: &Path| {
        Reader::open(path)
            .unwrap()
            .compared_digest(Compared::Everything)
            .unwrap()
    };
    assert_eq!(digest(&a), digest(&c), "the host is not compared");
    record(&b, small(), 999, 77);
    assert_ne!(digest(&a), digest(&b));
}

#[test]
fn the_ground_state_does_not_depend_on_events() {
    let dir = tempfile::tempdir().unwrap();
    let ground = |events: bool| {
        let path = dir.path().join("t.clt");
        let mut writer = Writer::create(&path, small()).unwrap();
        writer.manifest(&manifest()).unwrap();
        for number in 0..300 {
            if events {
                writer.push(tick(number), event(number)).unwrap();
            }
        }
        writer.finish(end(5000)).unwrap();
        Reader::open(&path)
            .unwrap()
            .compared_digest(Compared::GroundState)
            .unwrap()
    };
    assert_eq!(ground(true), ground(false));
}

#[test]
fn a_cursor_goes_both_ways_and_seeks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.clt");
    record(&path, small(), 1234, 1);
    let reader = Reader::open(&path).unwrap();
    let mut cursor = reader.events();
    cursor.seek_end();
    assert!(cursor.next().is_none());
    for number in (0..1234).rev() {
        let row = cursor.prev().unwrap().unwrap();
        assert_eq!((row.number, row.event), (number, event(number)));
    }
    assert!(cursor.prev().is_none());
    for number in [0, 99, 100, 101, 700, 1233] {
        cursor.seek_number(number).unwrap();
        assert_eq!(cursor.number(), number);
        assert_eq!(cursor.next().unwrap().unwrap().number, number);
        assert_eq!(cursor.prev().unwrap().unwrap().number, number);
        // Several events share a tick; the cursor stands before the first of them.
        let at = tick(number);
        cursor.seek_tick(at).unwrap();
        let row = cursor.next().unwrap().unwrap();
        assert_eq!(row.number, (0..).find(|n| tick(*n) >= at).unwrap());
    }
    cursor.seek_tick(u64::MAX).unwrap();
    assert!(cursor.next().is_none());
    cursor.seek_tick(0).unwrap();
    assert_eq!(cursor.next().unwrap().unwrap().number, 0);
}

#[test]
fn an_event_gone_to_is_the_one_that_a_walk_comes_to() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.clt");
    let mut writer = Writer::create(&path, small()).unwrap();
    for number in 0..1000 {
        writer.push(tick(number), event(number)).unwrap();
    }
    writer.finish(end(tick(1000))).unwrap();
    let reader = Reader::open(&path).unwrap();
    let some = EventMask::of(&[EventKind::SyscallExit, EventKind::TaskSwitch]);
    for kinds in [EventMask::ALL, some] {
        let walk: Vec<_> = reader
            .events()
            .with_kinds(kinds)
            .map(Result::unwrap)
            .collect();
        assert!(walk.len() > 300);
        for number in 0..1000 {
            let at = walk.partition_point(|row| row.number < number);
            let mut cursor = reader.events().with_kinds(kinds);
            // Alone, then with those after it and before it.
            cursor.seek_number(number).unwrap();
            for row in walk.iter().skip(at).take(3) {
                assert_eq!(&cursor.next().unwrap().unwrap(), row, "from {number}");
            }
            cursor.seek_tick(tick(number)).unwrap();
            let before = walk.partition_point(|row| row.tick < tick(number));
            for row in walk[..before].iter().rev().take(3) {
                assert_eq!(&cursor.prev().unwrap().unwrap(), row, "back from {number}");
            }
            assert_eq!(cursor.prev().is_none(), before <= 3);
        }
    }
}

#[test]
fn filters_pass_over_other_kinds_and_ticks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.clt");
    record(&path, small(), 1234, 1);
    let reader = Reader::open(&path).unwrap();
    let kinds = EventMask::of(&[EventKind::TaskSwitch]);
    let cursor = reader
        .events()
        .with_kinds(kinds)
        .with_ticks(tick(300)..=tick(900));
    let numbers: Vec<_> = cursor.map(|row| row.unwrap().number).collect();
    let expected: Vec<_> = (300..=900).filter(|number| number % 6 == 5).collect();
    assert_eq!(numbers, expected);
    let mut cursor = reader
        .events()
        .with_kinds(kinds)
        .with_ticks(tick(300)..=tick(900));
    cursor.seek_end();
    let mut numbers: Vec<_> = std::iter::from_fn(|| cursor.prev())
        .map(|row| row.unwrap().number)
        .collect();
    numbers.reverse();
    assert_eq!(numbers, expected);
}

#[test]
fn a_scan_on_several_threads_finds_what_a_cursor_does() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.clt");
    record(&path, small(), 5000, 1);
    let reader = Reader::open(&path).unwrap();
    for kinds in [
        EventMask::ALL,
        EventMask::of(&[EventKind::TaskSwitch]),
        EventMask::NONE,
    ] {
        let ticks = tick(300)..=tick(4100);
        let cursor = reader.events().with_kinds(kinds).with_ticks(ticks.clone());
        let expected: Vec<_> = cursor
            .map(Result::unwrap)
            .map(|row| (row.tick, row.event))
            .collect();
        for threads in [1, 4] {
            let scan = Scan {
                kinds,
                ticks: ticks.clone(),
                threads,
            };
            let see =
                |found: &mut Vec<_>, tick, _, event: &Event| found.push((tick, event.clone()));
            let mut found = reader.scan(&scan, see).unwrap().concat();
            // Within a chunk they are in order, and those at one tick are distinct by their order.
            found.sort_by_key(|(tick, _)| *tick);
            assert_eq!(found.len(), expected.len());
            assert!(expected.iter().all(|row| found.contains(row)) || expected.len() > 1000);
            let sum = |rows: &[(u64, Event)]| rows.iter().map(|(tick, _)| *tick).sum::<u64>();
            assert_eq!(sum(&found), sum(&expected));
        }
    }
}

#[test]
fn several_vcpus_are_merged_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.clt");
    let mut writer = Writer::create(&path, small()).unwrap();
    let mut expected = Vec::new();
    for number in 0..900u64 {
        // vCPU 2 has gaps and vCPU 1 shares ticks with vCPU 0.
        let vcpu = [0, 0, 1, 1, 1, 0, 2][(number % 7) as usize];
        let at = number / 3;
        writer.push_on(vcpu, at, event(number)).unwrap();
        expected.push((at, vcpu, number));
    }
    writer.finish(end(900)).unwrap();
    expected.sort_by_key(|(tick, vcpu, _)| (*tick, *vcpu));
    let reader = Reader::open(&path).unwrap();
    let rows: Vec<_> = reader.events().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 900);
    for (number, (row, (tick, vcpu, source))) in rows.iter().zip(&expected).enumerate() {
        assert_eq!(
            (row.number, row.tick, row.vcpu),
            (number as u64, *tick, *vcpu)
        );
        assert_eq!(row.event, event(*source));
    }
    let mut cursor = reader.events();
    cursor.seek_end();
    for row in rows.iter().rev() {
        assert_eq!(&cursor.prev().unwrap().unwrap(), row);
    }
    for number in [0, 1, 450, 451, 899] {
        cursor.seek_number(number).unwrap();
        assert_eq!(cursor.next().unwrap().unwrap(), rows[number as usize]);
    }
    let kinds = EventMask::of(&[EventKind::PpramAlloc]);
    let filtered: Vec<_> = reader
        .events()
        .with_kinds(kinds)
        .map(Result::unwrap)
        .collect();
    let wanted: Vec<_> = rows
        .iter()
        .filter(|row| row.event.kind() == EventKind::PpramAlloc)
        .cloned()
        .collect();
    assert_eq!(filtered, wanted);
}

#[test]
fn a_dropped_writer_leaves_a_readable_recording_without_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.clt");
    let mut writer = Writer::create(&path, small()).unwrap();
    (0..333).for_each(|number| writer.push(tick(number), event(number)).unwrap());
    drop(writer);
    let reader = Reader::open(&path).unwrap();
    assert_eq!(reader.event_count(), 333);
    assert!(!reader.is_complete());
    assert_eq!(reader.end().unwrap(), None);
    assert!(matches!(reader.manifest(), Err(TraceError::Missing { .. })));
}

#[test]
fn an_input_is_in_the_file_before_the_guest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.clt");
    let mut writer = Writer::create(&path, small()).unwrap();
    for number in 0..50 {
        writer.push(number, event(number)).unwrap();
    }
    writer.input(50, Input::IdleWarp { ns: 12 }).unwrap();
    writer.flush_inputs().unwrap();
    // The writer is still there, as it would be in a process that is about to be killed.
    let reader = Reader::open(&path).unwrap();
    assert_eq!(reader.inputs().unwrap(), [(50, Input::IdleWarp { ns: 12 })]);
    let recovery = reader.recovery().unwrap();
    assert_eq!((recovery.kept_chunks, recovery.lost_bytes), (2, 0));
    assert_eq!(reader.event_count(), 0);
    writer.flush().unwrap();
    assert_eq!(Reader::open(&path).unwrap().event_count(), 50);
    drop(writer);
}

#[test]
fn a_tick_that_goes_back_stops_the_writer_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.clt");
    let mut writer = Writer::create(&path, small()).unwrap();
    (10..20).for_each(|tick| writer.push(tick, event(tick)).unwrap());
    writer.push(5, event(5)).unwrap();
    let error = writer.flush().unwrap_err();
    assert!(
        matches!(
            error,
            TraceError::TickBack {
                tick: 5,
                last: 19,
                ..
            }
        ),
        "{error}"
    );
    let error = writer.finish(end(30)).unwrap_err();
    assert!(matches!(error, TraceError::TickBack { .. }), "{error}");
    let reader = Reader::open(&path).unwrap();
    assert_eq!(reader.event_count(), 10, "what came before is readable");
}

#[test]
fn the_flight_recorder_keeps_the_last_and_counts_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.clt");
    let options = Options {
        last: Some(2000),
        ..small()
    };
    let summary = record(&path, options, 5000, 1);
    let reader = Reader::open(&path).unwrap();
    assert_eq!(reader.inputs().unwrap().len(), 21, "inputs are all kept");
    let rows: Vec<_> = reader.events().map(Result::unwrap).collect();
    let Event::Lost { count, first, last } = rows[0].event else {
        panic!("{:?}", rows[0])
    };
    assert_eq!(summary.lost, count);
    assert_eq!(count % 100, 0);
    assert_eq!((first, last), (tick(0), tick(count - 1)));
    assert_eq!(
        count + rows.len() as u64 - 1,
        5000,
        "kept and lost are everything"
    );
    assert_eq!((rows[1].tick, &rows[1].event), (tick(count), &event(count)));
    let stats = reader.stats();
    let stored = stats
        .chunks
        .iter()
        .find(|chunk| chunk.kind == "events")
        .unwrap()
        .stored;
    assert!(stored < 4000, "{stored}");
}

#[test]
fn a_file_that_is_there_is_not_replaced_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.clt");
    std::fs::write(&path, b"precious").unwrap();
    let options = Options {
        overwrite: false,
        ..small()
    };
    let error = Writer::create(&path, options).unwrap_err().to_string();
    assert!(
        error.contains("a.clt: cannot create the recording"),
        "{error}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}
