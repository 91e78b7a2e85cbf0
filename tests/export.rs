//! A recording in other programs' formats: what is in them is what the recording says.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use common::Sandbox;
use object::LittleEndian as LE;
use object::elf;
use object::read::elf::{FileHeader, ProgramHeader};
use serde_json::Value;

fn recorded() -> Sandbox {
    let sandbox = Sandbox::new();
    let kernel = common::kernel("6.1");
    let base = ["record", "--kernel", &kernel, "-o", "a.clt"];
    let line = "ls /proc >/dev/null; (sleep 0.01; exit 3) & wait; exit 0";
    sandbox.ok(&[&base[..], &["--", line]].concat());
    sandbox
}

/// The kinds of the recording's events, counted by `dump`.
fn counted(sandbox: &Sandbox) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in sandbox.ok(&["dump", "a.clt", "--json"]).out.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        *counts
            .entry(row["event"].as_str().unwrap().to_owned())
            .or_default() += 1;
    }
    counts
}

/// A field of a protocol buffer.
enum Field<'b> {
    Number(u64),
    Bytes(&'b [u8]),
}

/// The fields of a message, by a reader that shares nothing with the writer.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let (first, rest) = bytes.split_first().expect("a whole number");
            *bytes = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut bytes)),
            2 => {
                let length = varint(&mut bytes) as usize;
                let (field, rest) = bytes.split_at(length);
                bytes = rest;
                Field::Bytes(field)
            }
            other => panic!("a field of type {other}"),
        };
        found.push((tag >> 3, field));
    }
    found
}

fn message(bytes: &[u8], number: u64) -> Option<&[u8]> {
    fields(bytes)
        .into_iter()
        .find_map(|(n, field)| match field {
            Field::Bytes(bytes) if n == number => Some(bytes),
            _ => None,
        })
}

fn number(bytes: &[u8], number: u64) -> Option<u64> {
    fields(bytes)
        .into_iter()
        .find_map(|(n, field)| match field {
            Field::Number(value) if n == number => Some(value),
            _ => None,
        })
}

#[test]
fn a_perfetto_trace_has_every_event() {
    /// Fields of `FtraceEvent`, and the events they are made from.
    const FTRACE: &[(u64, &str)] = &[
        (4, "TaskSwitch"),
        (235, "TaskNew"),
        (237, "TaskExec"),
        (238, "TaskExit"),
        (329, "SyscallEnter"),
        (330, "SyscallExit"),
    ];
    let sandbox = recorded();
    let expected = counted(&sandbox);
    sandbox.ok(&["export", "perfetto", "a.clt", "-o", "a.pftrace"]);
    let trace = fs::read(sandbox.path("a.pftrace")).unwrap();
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    let (mut instants, mut switches) = (0, Vec::new());
    for (tag, packet) in fields(&trace) {
        let Field::Bytes(packet) = packet else {
            panic!("not a packet");
        };
        assert_eq!(tag, 1);
        if let Some(event) = message(packet, 11) {
            assert_eq!(number(event, 9), Some(3), "an instant");
            assert!(number(packet, 8).is_some(), "has a time");
            instants += 1;
        }
        let Some(bundle) = message(packet, 1) else {
            continue;
        };
        for (_, event) in fields(bundle).into_iter().filter(|(n, _)| *n == 2) {
            let Field::Bytes(event) = event else {
                panic!("not an event");
            };
            for (tag, kind) in FTRACE {
                if let Some(body) = message(event, *tag) {
                    *found.entry((*kind).to_owned()).or_default() += 1;
                    if *tag == 4 {
                        switches.push((number(event, 1), number(event, 2), number(body, 2)));
                    }
                }
            }
        }
    }
    for (_, kind) in FTRACE {
        assert!(expected[*kind] > 0, "{kind}");
        assert_eq!(found[*kind], expected[*kind], "{kind}");
    }
    let all: usize = expected.values().sum();
    assert_eq!(instants, all - found.values().sum::<usize>());
    // Who switches away is who ran, and time goes on.
    assert!(switches.iter().all(|(_, thread, prev)| thread == prev));
    assert!(switches.iter().map(|(time, ..)| time).is_sorted());
    // It does not overwrite by itself.
    let again = sandbox.run(&["export", "perfetto", "a.clt", "-o", "a.pftrace"]);
    assert_eq!(again.code, Some(69));
    assert!(again.err.contains("a.pftrace: exists"), "{}", again.err);
}

#[test]
fn stacks_are_taken_at_regular_places() {
    let sandbox = recorded();
    let info = sandbox.ok(&["info", "a.clt", "--json"]).out;
    let info: Value = serde_json::from_str(&info).unwrap();
    let ticks = info["ticks"].as_u64().unwrap();
    let base = ["export", "folded", "a.clt", "--no-debug", "--every", "10M"];
    let folded = sandbox.ok(&base).out;
    let count = |line: &str| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap();
    let total: u64 = folded.lines().map(count).sum();
    assert_eq!(total, ticks / 10_000_000 + 1);
    assert!(folded.contains(";start_kernel;"), "{folded}");
    // The same place is the same stack as `bt` shows there.
    let place = ["--from", "@300M", "--to", "+0"];
    let base = ["export", "perf", "a.clt", "--no-debug"];
    let perf = sandbox.ok(&[&base[..], &place].concat()).out;
    let bt = sandbox
        .ok(&["bt", "a.clt", "--no-debug", "--json", "--at", "@300M"])
        .out;
    let shown = perf.lines().skip(1).filter(|line| !line.is_empty());
    let shown: Vec<&str> = shown
        .map(|line| {
            line.split_whitespace()
                .nth(1)
                .unwrap()
                .split('+')
                .next()
                .unwrap()
        })
        .collect();
    let rows = bt
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let rows = rows.filter(|row| row["user"] == false);
    let expected: Vec<String> = rows
        .map(|row| row["function"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(shown, expected);
}

#[test]
fn a_core_dump_is_the_machine() {
    let sandbox = recorded();
    sandbox.ok(&["export", "vmcore", "a.clt", "--at", "50%", "-o", "core"]);
    let core = fs::read(sandbox.path("core")).unwrap();
    let header = elf::FileHeader64::<LE>::parse(&*core).unwrap();
    assert_eq!(header.e_type(LE), elf::ET_CORE);
    let segments = header.program_headers(LE, &*core).unwrap();
    let (mut info, mut memory) = (String::new(), 0);
    for segment in segments {
        let (at, size) = segment.file_range(LE);
        assert!(at + size <= core.len() as u64, "the file is whole");
        if let Some(mut notes) = segment.notes(LE, &*core).unwrap() {
            while let Some(note) = notes.next().unwrap() {
                if note.name() == b"VMCOREINFO" {
                    info = String::from_utf8(note.desc().to_vec()).unwrap();
                }
            }
        } else {
            memory += size;
        }
    }
    assert!(info.contains("OSRELEASE=6.1."), "{info}");
    assert!(info.contains("SYMBOL(swapper_pg_dir)=ffffffff"), "{info}");
    // 512 MB, less what is between low memory and the first megabyte.
    assert_eq!(memory >> 20, 511);
    // Its registers are those of the place, read by gdb.
    let registers = sandbox.ok(&["replay", "a.clt", "--goto", "50%"]).out;
    let rip = registers.split_whitespace().nth(1).unwrap();
    let gdb = Command::new("gdb")
        .args([
            "-nx",
            "-batch",
            "-ex",
            "printf \"%016lx\\n\", $rip",
            "-c",
            "core",
        ])
        .current_dir(sandbox.path("."))
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&gdb.stdout);
    assert!(shown.lines().any(|line| line == rip), "{rip}: {shown}");
    // And its memory: the kernel's banner is where the kernel maps it.
    let banner = "Linux version 6.1.";
    let is_there = core
        .windows(banner.len())
        .any(|window| window == banner.as_bytes());
    assert!(is_there);
}

#[test]
fn what_cannot_be_exported_says_why() {
    let sandbox = recorded();
    let packets = sandbox.run(&["export", "pcap", "a.clt"]);
    assert_eq!(packets.code, Some(1));
    assert!(packets.err.contains("no network device"), "{}", packets.err);
    let early = sandbox.ok(&["export", "vmcore", "a.clt", "--at", "@1000", "-o", "core"]);
    assert!(early.err.contains("VMCOREINFO"), "{}", early.err);
    let nowhere = sandbox.run(&["export", "folded", "a.clt", "-o", "no/such/folder/x"]);
    assert_eq!(nowhere.code, Some(69));
    assert!(nowhere.err.contains("no/such/folder/x"), "{}", nowhere.err);
    let never = sandbox.run(&["export", "perf", "a.clt", "--every", "0"]);
    assert_eq!(never.code, Some(2));
}
