//! The command line through the front door: exit codes, and one clear line for what cannot be.

mod common;

use std::fs;

use common::{Run, Sandbox};

fn refused(run: &Run, code: i32, says: &[&str]) {
    assert_eq!(run.code, Some(code), "{run}");
    for word in says {
        assert!(run.err.contains(word), "`{word}` is not in:\n{run}");
    }
    assert!(!run.err.contains("panicked"), "{run}");
}

#[test]
fn every_verb_has_help_with_an_example() {
    let sandbox = Sandbox::new();
    for verb in [
        "record", "replay", "verify", "info", "dump", "ls", "export", "doctor",
    ] {
        let run = sandbox.run(&[verb, "--help"]);
        assert_eq!(run.code, Some(0), "{run}");
        assert!(run.out.contains("Example"), "{verb} has no example:\n{run}");
    }
}

#[test]
fn a_wrong_option_is_a_matter_of_usage() {
    let sandbox = Sandbox::new();
    refused(
        &sandbox.run(&["record", "--no-such-option"]),
        2,
        &["--no-such-option"],
    );
    refused(&sandbox.run(&["record", "--memory", "lots"]), 2, &["lots"]);
    refused(&sandbox.run(&["dump", "-e", "NoSuchEvent", "x"]), 4, &["x"]);
}

#[test]
fn a_file_that_is_no_kernel_is_named_with_the_rule() {
    let sandbox = Sandbox::new();
    let kernel = sandbox.file("text", b"not a kernel at all, just some words\n");
    let initrd = sandbox.file("initrd", b"070701");
    let run = sandbox.run(&[
        "record", "--kernel", &kernel, "--initrd", &initrd, "-o", "x.clt",
    ]);
    refused(&run, 2, &["text", "not an x86-64 Linux kernel"]);
    assert!(
        !sandbox.path("x.clt").exists(),
        "a recording was left behind"
    );
}

#[test]
fn a_truncated_kernel_says_where_it_ends() {
    let sandbox = Sandbox::new();
    let kernel = fs::read(common::kernel("6.1")).unwrap();
    let initrd = sandbox.file("initrd", b"070701");
    for len in [
        513,
        0x300,
        100_000,
        kernel.len() / 2,
        kernel.len() - 100_000,
    ] {
        let cut = sandbox.file("cut", &kernel[..len]);
        let run = sandbox.run(&[
            "record", "--kernel", &cut, "--initrd", &initrd, "-o", "x.clt",
        ]);
        refused(&run, 2, &["cut", "offset"]);
    }
}

#[test]
fn memory_that_cannot_hold_the_guest() {
    let sandbox = Sandbox::new();
    let kernel = common::kernel("6.1");
    let initrd = sandbox.file("initrd", &vec![0; 80 << 20]);
    let small = sandbox.run(&[
        "record", "--kernel", &kernel, "--initrd", &initrd, "--memory", "1M",
    ]);
    refused(&small, 2, &["1048576", "16 MiB"]);
    let large = sandbox.run(&[
        "record", "--kernel", &kernel, "--initrd", &initrd, "--memory", "96M",
    ]);
    refused(&large, 2, &["initrd", "83886080"]);
}

#[test]
fn an_output_that_cannot_be_written() {
    let sandbox = Sandbox::new();
    let kernel = common::kernel("6.1");
    let initrd = sandbox.file("initrd", b"070701");
    let base = ["record", "--kernel", &kernel, "--initrd", &initrd, "-o"];
    let nowhere = sandbox.run(&[&base[..], &["/nonexistent/x.clt"]].concat());
    refused(&nowhere, 69, &["/nonexistent/x.clt"]);
    let taken = sandbox.file("taken.clt", b"something precious");
    refused(
        &sandbox.run(&[&base[..], &[&taken]].concat()),
        69,
        &["taken.clt"],
    );
    assert_eq!(fs::read(&taken).unwrap(), b"something precious");
    let full = sandbox.run(&[&base[..], &["/dev/full", "-f"]].concat());
    refused(&full, 69, &["/dev/full"]);
}

#[test]
fn garbage_is_no_recording() {
    let sandbox = Sandbox::new();
    let noise: Vec<u8> = (0..100_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let garbage = sandbox.file("garbage.clt", &noise);
    let empty = sandbox.file("empty.clt", b"");
    for verb in ["verify", "replay", "info", "dump", "stats"] {
        refused(&sandbox.run(&[verb, &garbage]), 4, &["garbage.clt"]);
        refused(&sandbox.run(&[verb, &empty]), 4, &["empty.clt"]);
        refused(
            &sandbox.run(&[verb, "no-such-trace"]),
            4,
            &["no-such-trace"],
        );
        refused(&sandbox.run(&[verb]), 4, &["latest"]);
    }
}

#[test]
fn the_doctor_says_what_is_missing() {
    let sandbox = Sandbox::new();
    common::kernel("6.1");
    let rows = |text: &str| -> Vec<serde_json::Value> {
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let state = |rows: &[serde_json::Value], check: &str| {
        let row = rows.iter().find(|row| row["check"] == check);
        row.unwrap()["state"].as_str().unwrap().to_owned()
    };
    let well = rows(&sandbox.ok(&["doctor", "--json"]).out);
    assert_eq!(state(&well, "kernels"), "ok");
    assert_eq!(state(&well, "recordings"), "ok");
    // Nothing fetched, nothing installed, and no place for recordings.
    let mut command = sandbox.command(&["doctor", "--json"]);
    let home = sandbox.path("home");
    command.env("HOME", &home).env_remove("XDG_CACHE_HOME");
    command.env("PATH", "/nowhere").env("TERM", "dumb");
    command.env("COLINUX_TRACE_DIR", "/proc/no/place");
    let ill = Run::from(command.output().unwrap());
    assert_eq!(ill.code, Some(69), "{ill}");
    let ill = rows(&ill.out);
    for (check, expected) in [
        ("kernels", "missing"),
        ("recordings", "missing"),
        ("gdb", "note"),
        ("fetching", "note"),
        ("terminal", "note"),
    ] {
        assert_eq!(state(&ill, check), expected, "{check}");
    }
}
