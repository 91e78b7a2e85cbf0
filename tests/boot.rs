//! A real kernel, recorded and replayed: the main job, through the front door.

mod common;

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use colinux_tracer::{ChunkEntry, ChunkKind, Reader};
use common::Sandbox;

/// The compared part of a recording, as `info --json` gives it.
fn compared(sandbox: &Sandbox, trace: &str) -> String {
    let info: serde_json::Value =
        serde_json::from_str(&sandbox.ok(&["info", "--json", trace]).out).unwrap();
    info["compared"].as_str().unwrap().to_owned()
}

fn boots_records_and_verifies(version: &str) {
    let sandbox = Sandbox::new();
    let kernel = common::kernel(version);
    let line =
        "uname -r; echo hello | sha256sum; mount | grep -c proc; ls -lR /sys | wc -l; exit 42";
    let run = sandbox.run(&["record", "--kernel", &kernel, "-o", "a.clt", "--", line]);
    assert_eq!(run.code, Some(42), "{run}");
    assert!(run.out.contains(&format!("{version}.")), "{run}");
    assert!(
        run.out
            .contains("5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"),
        "{run}"
    );
    for bad in [
        "Oops",
        "BUG:",
        "WARNING:",
        "rcu_preempt detected stalls",
        "does not implement",
    ] {
        assert!(!run.out.contains(bad) && !run.err.contains(bad), "{run}");
    }
    let verified = sandbox.ok(&["verify", "a.clt"]);
    assert!(verified.out.starts_with("the same: "), "{verified}");
}

#[test]
fn debian_6_1_boots_records_and_verifies() {
    boots_records_and_verifies("6.1");
}

#[test]
fn debian_6_12_boots_records_and_verifies() {
    boots_records_and_verifies("6.12");
}

#[test]
fn the_same_recording_twice_has_the_same_bytes_to_compare() {
    let sandbox = Sandbox::new();
    let kernel = common::kernel("6.1");
    let here = [
        "record",
        "--kernel",
        &kernel,
        "-s",
        "all=2",
        "--",
        "ls -l / | md5sum",
    ];
    let one = sandbox.ok(&[&here[..1], &["-o", "one.clt"], &here[1..]].concat());
    // Another folder, another environment, another process at the same time.
    fs::create_dir(sandbox.path("elsewhere")).unwrap();
    let mut busy = Command::new("sh")
        .args(["-c", "while :; do :; done"])
        .spawn()
        .unwrap();
    let two = sandbox
        .command(&[&here[..1], &["-o", "two.clt"], &here[1..]].concat())
        .current_dir(sandbox.path("elsewhere"))
        .env("SOMETHING", "x".repeat(5000))
        .output();
    busy.kill().unwrap();
    busy.wait().unwrap();
    let two = common::Run::from(two.unwrap());
    assert_eq!(two.code, Some(0), "{two}");
    assert_eq!(one.out, two.out);
    assert_eq!(
        compared(&sandbox, "one.clt"),
        compared(&sandbox, "elsewhere/two.clt")
    );
}

#[test]
fn levels_of_tracing_do_not_change_the_guest() {
    let sandbox = Sandbox::new();
    let kernel = common::kernel("6.1");
    let mut digests = Vec::new();
    for (name, options) in [
        ("none", &["--no-trace"][..]),
        ("default", &[]),
        ("all", &["-s", "all=2"]),
    ] {
        let file = format!("{name}.clt");
        let base = [
            "record", "--kernel", &kernel, "-o", &file, "--until", "@200M",
        ];
        sandbox.ok(&[&base[..], options].concat());
        let info: serde_json::Value =
            serde_json::from_str(&sandbox.ok(&["info", "--json", &file]).out).unwrap();
        digests.push(info["end"]["digest"].as_str().unwrap().to_owned());
    }
    assert!(digests.iter().all(|d| *d == digests[0]), "{digests:?}");
}

#[test]
fn a_cut_recording_replays_up_to_the_cut() {
    let sandbox = Sandbox::new();
    let kernel = common::kernel("6.1");
    sandbox.ok(&[
        "record",
        "--kernel",
        &kernel,
        "-o",
        "whole.clt",
        "-s",
        "all=2",
        "--checkpoint-interval",
        "0",
        "--until",
        "@300M",
    ]);
    let whole = fs::read(sandbox.path("whole.clt")).unwrap();
    let reader = Reader::open(sandbox.path("whole.clt")).unwrap();
    let chunks = reader.chunks();
    let last_boot_file = chunks
        .iter()
        .rposition(|entry| entry.header.kind == ChunkKind::BootFile)
        .unwrap();
    let booted = &chunks[last_boot_file..];
    let is_rows = |entry: &&ChunkEntry| entry.header.rows > 0;
    assert!(booted.iter().filter(is_rows).count() >= 2, "{booted:?}");
    // At the end of each chunk and inside the next one, whose rows are lost then.
    for pair in booted.windows(2) {
        let kept = Reader::from_bytes("kept", &whole[..pair[0].end() as usize]).unwrap();
        let last_tick = kept.ticks().map_or(0, |(_, last)| last);
        let middle = (pair[1].offset + pair[1].end()) / 2;
        for at in [pair[0].end(), pair[1].offset + 1, middle, pair[1].end() - 1] {
            let cut = sandbox.file("cut.clt", &whole[..at as usize]);
            let run = sandbox.run(&["verify", "--json", &cut]);
            assert_eq!(run.code, Some(0), "cut at {at}: {run}");
            let said: serde_json::Value = serde_json::from_str(&run.out).unwrap();
            assert_eq!((&said["same"], &said["cut"]), (&true.into(), &true.into()));
            assert_eq!(said["tick"], last_tick, "cut at {at}: {run}");
            assert!(
                run.err.contains("cut.clt"),
                "what was lost is not said: {run}"
            );
        }
    }
    // Before, there is a part of a kernel, and nothing that it did.
    let boot_files = chunks[..=last_boot_file].iter();
    for at in boot_files.map(|entry| (entry.offset + entry.end()) / 2) {
        let cut = sandbox.file("cut.clt", &whole[..at as usize]);
        for verb in ["verify", "replay"] {
            let run = sandbox.run(&[verb, &cut]);
            assert_eq!(run.code, Some(4), "{verb}, cut at {at}: {run}");
            assert!(
                run.err.contains("cut.clt: it was cut off before") && run.out.is_empty(),
                "{verb}, cut at {at}: {run}"
            );
        }
    }
}

#[test]
fn a_killed_recorder_leaves_a_recording() {
    let sandbox = Sandbox::new();
    let kernel = common::kernel("6.1");
    let mut recorder = sandbox
        .command(&[
            "record",
            "--kernel",
            &kernel,
            "-o",
            "killed.clt",
            "-s",
            "all=2",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Until something of the run is on disk.
    let mut waited = 0;
    while fs::metadata(sandbox.path("killed.clt")).map_or(0, |m| m.len()) < 13_500_000 {
        thread::sleep(Duration::from_millis(100));
        waited += 1;
        assert!(waited < 600, "nothing was written in a minute");
    }
    recorder.kill().unwrap();
    recorder.wait().unwrap();
    let run = sandbox.run(&["verify", "killed.clt"]);
    assert_eq!(run.code, Some(0), "{run}");
}

#[test]
fn a_signal_ends_the_recording_in_order() {
    let sandbox = Sandbox::new();
    let kernel = common::kernel("6.1");
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let file = format!("{signal}.clt");
        let recorder = sandbox
            .command(&["record", "--kernel", &kernel, "-o", &file, "-f"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_secs(3));
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -{signal} {}", recorder.id())])
            .status()
            .unwrap();
        assert!(sent.success());
        let run = common::Run::from(recorder.wait_with_output().unwrap());
        assert_eq!(run.code, Some(code), "{run}");
        let verified = sandbox.ok(&["verify", &file]);
        assert!(!verified.out.contains("cut"), "{verified}");
    }
}

#[test]
fn console_input_from_a_pipe_reaches_the_shell_and_replays() {
    use std::io::Write;
    let sandbox = Sandbox::new();
    let kernel = common::kernel("6.1");
    let mut recorder = sandbox
        .command(&["record", "--kernel", &kernel, "-o", "typed.clt"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = recorder.stdin.take().unwrap();
    input
        .write_all(b"echo typed-$((40 + 2))\npoweroff -f\n")
        .unwrap();
    drop(input);
    let run = common::Run::from(recorder.wait_with_output().unwrap());
    assert_eq!(run.code, Some(0), "{run}");
    assert!(run.out.contains("typed-42"), "{run}");
    sandbox.ok(&["verify", "typed.clt"]);
    let replayed = sandbox.ok(&["replay", "typed.clt"]);
    assert!(replayed.out.contains("typed-42"), "{replayed}");
    assert_eq!(run.out, replayed.out);
}
