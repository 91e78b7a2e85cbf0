//! Recorders that die and disks that fill up: what is in the file then.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use colinux_tracer::{
    ChunkKind, Event, EventKind, EventMask, FILE_HEADER_LEN, Input, Options, Reader,
};
use common::{Run, Sandbox};

/// Recorders that are killed while a guest works by itself.
const KILLED_AT_WORK: u64 = 44;
/// Recorders that are killed while they are typed to.
const KILLED_AT_INPUT: u64 = 6;
/// Lines that the guest writes to say how far it is.
const TURNS: usize = 100;
/// After so long events are in the file even if they are few: twice what is promised, for a busy host.
const SETTLED: Duration = Duration::from_secs(4);

/// Numbers that look random, the same ones every time.
fn random(seed: u64) -> u64 {
    let mut x = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= x >> 31;
    x.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 11
}

fn events(reader: &Reader) -> Vec<(u64, Event)> {
    let rows = reader.events().map(Result::unwrap);
    rows.map(|row| (row.tick, row.event)).collect()
}

/// The highest number that follows the word in what the guest wrote.
fn highest(output: &str, word: &str) -> Option<u64> {
    let numbers = output.split(word).skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        rest[..end].parse().ok()
    });
    numbers.max()
}

#[test]
fn a_recorder_killed_at_any_moment_leaves_what_the_guest_had_done() {
    let sandbox = Sandbox::new();
    let kernel = common::kernel("6.1");
    let line = &format!(
        "for i in $(seq {TURNS}); do echo turn-$i; echo /sys/devices/*/* /proc/*/* >/dev/null; done"
    );
    let record = |name: &str| {
        let args = [
            "record", "--kernel", &kernel, "-q", "-f", "-s", "all=2", "-o", name, "--", line,
        ];
        let mut command = sandbox.command(&args);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let began = Instant::now();
    assert!(record("whole.clt").wait().unwrap().success());
    let duration = began.elapsed();
    let reader = Reader::open(sandbox.path("whole.clt")).unwrap();
    let whole = events(&reader);
    // When the guest had written each turn.
    let mut written = String::new();
    let mut turns = Vec::new();
    for row in reader
        .events()
        .with_kinds(EventMask::of(&[EventKind::ConsoleOut]))
    {
        let row = row.unwrap();
        if let Event::ConsoleOut { bytes, .. } = &row.event {
            written.push_str(&String::from_utf8_lossy(bytes));
        }
        turns.resize(
            highest(&written, "turn-").map_or(0, |n| n as usize),
            row.tick,
        );
    }
    assert_eq!(turns.len(), TURNS, "{written}");
    let chunk = Options::default().chunk_rows as usize;
    assert!(whole.len() > 4 * chunk, "{} events are few", whole.len());
    let (mut kept_some, mut lost_most) = (0, 0);
    for round in 0..KILLED_AT_WORK {
        let mut recorder = record("killed.clt");
        let moment = duration.as_micros() as u64 * (random(round) % 1000) / 1000;
        thread::sleep(Duration::from_micros(moment));
        recorder.kill().unwrap();
        let mut output = String::new();
        recorder
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut output)
            .unwrap();
        let killed = !recorder.wait().unwrap().success();
        let path = sandbox.path("killed.clt");
        if fs::metadata(&path).map_or(0, |data| data.len()) < FILE_HEADER_LEN as u64 {
            assert_eq!(
                output, "",
                "round {round}: the guest ran and nothing says so"
            );
            continue;
        }
        let reader = Reader::open(&path).unwrap();
        reader.check().unwrap();
        let kept = events(&reader);
        // The guest does the same every time, so what was kept is the beginning of the whole.
        assert!(
            kept.len() <= whole.len() && kept == whole[..kept.len()],
            "round {round}"
        );
        // It may have been killed when its work was done, on its way out.
        match reader.recovery() {
            Some(_) => assert!(killed, "round {round}"),
            None => assert_eq!(kept.len(), whole.len(), "round {round}"),
        }
        if let Some(turn) = highest(&output, "turn-") {
            let tick = turns[turn as usize - 1];
            let done = whole.partition_point(|(at, _)| *at <= tick);
            let lost = done.saturating_sub(kept.len());
            assert!(lost <= chunk, "round {round}: {lost} events are lost");
            lost_most = lost_most.max(lost);
            kept_some += u64::from(!kept.is_empty());
        }
        fs::remove_file(&path).unwrap();
    }
    assert!(
        kept_some > 5 && lost_most > chunk / 4,
        "{kept_some} of the recordings held events, the most lost is {lost_most}"
    );
}

#[test]
fn a_killed_recorder_has_kept_every_input_that_the_guest_acted_on() {
    let sandbox = Sandbox::new();
    let kernel = common::kernel("6.1");
    for round in 0..KILLED_AT_INPUT {
        let mut recorder = sandbox
            .command(&[
                "record",
                "--kernel",
                &kernel,
                "-q",
                "-f",
                "-o",
                "killed.clt",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut input = recorder.stdin.take().unwrap();
        let last = 1 + random(round) % 9;
        let mut output = String::new();
        let mut lines = BufReader::new(recorder.stdout.take().unwrap());
        let typed = |number: u64| format!("echo got-$(({} + 1))\n", number - 1);
        // One line after another; what says that the guest acted on it is the sum.
        for number in 1..=last {
            input.write_all(typed(number).as_bytes()).unwrap();
            while highest(&output, "got-").unwrap_or(0) < number {
                assert_ne!(lines.read_line(&mut output).unwrap(), 0, "{output}");
            }
        }
        if round == 0 {
            // A guest that waits to be typed to makes few events, and they are in the file too.
            thread::sleep(SETTLED);
        }
        recorder.kill().unwrap();
        lines.read_to_string(&mut output).unwrap();
        recorder.wait().unwrap();
        let acted = highest(&output, "got-").unwrap();
        let reader = Reader::open(sandbox.path("killed.clt")).unwrap();
        let mut kept = String::new();
        for (_, input) in reader.inputs().unwrap() {
            if let Input::ConsoleIn { bytes, .. } = input {
                kept.push_str(&String::from_utf8_lossy(&bytes));
            }
        }
        let kept = kept.replace('\r', "\n");
        if round == 0 {
            let mut written = String::new();
            for (_, event) in events(&reader) {
                if let Event::ConsoleOut { bytes, .. } = event {
                    written.push_str(&String::from_utf8_lossy(&bytes));
                }
            }
            assert_eq!(highest(&written, "got-"), Some(acted), "{written}");
        }
        for number in 1..=acted {
            assert!(
                kept.contains(typed(number).trim_end()),
                "{number}: {kept}\n{output}"
            );
        }
        sandbox.ok(&["verify", "killed.clt"]);
    }
}

/// Where the boot files of such a recording end.
fn boot_end(path: &Path) -> u64 {
    let reader = Reader::open(path).unwrap();
    let mut files = reader.chunks().iter();
    let last = files.rfind(|entry| entry.header.kind == ChunkKind::BootFile);
    last.unwrap().end()
}

fn is_full(sandbox: &Sandbox, run: &Run) {
    assert_eq!(run.code, Some(69), "{run}");
    assert!(run.err.contains("full.clt: no space to write"), "{run}");
    let reader = Reader::open(sandbox.path("full.clt")).unwrap();
    assert_eq!(reader.recovery().unwrap().lost_bytes, 0);
    assert!(reader.event_count() > 0);
    reader.check().unwrap();
    let verified = sandbox.ok(&["verify", "full.clt"]);
    assert!(verified.out.contains("up to the cut"), "{verified}");
}

#[test]
fn a_disk_that_fills_up_ends_the_recording_in_order() {
    let sandbox = Sandbox::new();
    let kernel = common::kernel("6.1");
    let line = "while :; do ls -lR /sys/devices; done";
    // Without checkpoints, which would fill it before there are events.
    let start = [
        "record",
        "--kernel",
        &kernel,
        "-f",
        "--checkpoint-interval",
        "0",
    ];
    let record = |name: &str, rest: &[&str]| {
        let start = start.iter().copied();
        let args = start.chain(["-o", name]).chain(rest.iter().copied());
        args.map(str::to_owned).collect::<Vec<_>>()
    };
    let args = record("short.clt", &["--max-ticks", "1000", "--", line]);
    sandbox.run(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let room = (boot_end(&sandbox.path("short.clt")) + 100_000).div_ceil(4096) * 4096;
    let binary = env!("CARGO_BIN_EXE_colinux-trace");
    // A file that may not grow further stands for a disk that is full; anybody may ask for that.
    let limited = sandbox
        .shell(&format!("exec prlimit --fsize={room} \"$@\""))
        .arg(binary)
        .args(record("full.clt", &["--", line]))
        .output()
        .unwrap();
    is_full(&sandbox, &limited.into());
    // The real thing, where the system lets us have a file system of our own.
    fs::create_dir(sandbox.path("disk")).unwrap();
    let script = format!(
        "mount -t tmpfs -o size={room} none disk || exit 200; \"$@\"; code=$?; \
         cp disk/full.clt full.clt; exit $code"
    );
    let own = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        &script,
        "sh",
        binary,
    ];
    let filled = sandbox
        .shell("exec \"$@\"")
        .args(own)
        .args(record("disk/full.clt", &["--", line]))
        .output()
        .unwrap();
    let filled = Run::from(filled);
    if matches!(filled.code, Some(1 | 200)) && filled.err.contains("ermission denied")
        || filled.err.contains("not permitted")
    {
        use std::io::stderr;
        writeln!(
            stderr(),
            "no file system of our own here, only a limit was tried: {filled}"
        )
        .unwrap();
        return;
    }
    is_full(&sandbox, &filled);
}
