//! Going on with a recording where another one was left.

mod common;

use std::fs::File;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use common::{Run, Sandbox};

/// The events of a recording as text, without what a recorder notes about itself.
fn events(sandbox: &Sandbox, name: &str) -> Vec<String> {
    let all = sandbox.ok(&["dump", name]).out;
    all.lines().map(str::to_owned).collect()
}

fn digest(sandbox: &Sandbox, name: &str) -> String {
    let info = sandbox.ok(&["info", name, "--json"]).out;
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    info["digest"].to_string()
}

#[test]
fn what_is_gone_on_with_is_what_would_have_been() {
    let sandbox = Sandbox::new();
    let kernel = common::kernel("6.1");
    let record = |until: &str, name: &str| {
        let what = ["record", "--kernel", &kernel, "--memory", "128M"];
        let how = [
            "--checkpoint-interval",
            "7777777",
            "--until",
            until,
            "-o",
            name,
        ];
        sandbox.ok(&[&what[..], &how].concat());
    };
    record("@30M", "first.clt");
    record("@60M", "whole.clt");
    let resume = [
        "record",
        "--checkpoint-interval",
        "7777777",
        "--until",
        "@60M",
        "--resume",
    ];
    sandbox.ok(&[&resume[..], &["first.clt", "-o", "second.clt"]].concat());
    sandbox.ok(&["verify", "second.clt"]);
    sandbox.ok(&["verify", "second.clt", "-j", "3"]);
    assert_eq!(
        events(&sandbox, "second.clt"),
        events(&sandbox, "whole.clt")
    );
    assert_eq!(
        digest(&sandbox, "second.clt"),
        digest(&sandbox, "whole.clt")
    );
    // And once more, from one that was cut off.
    let bytes = std::fs::read(sandbox.path("second.clt")).unwrap();
    sandbox.file("cut.clt", &bytes[..bytes.len() - 30_000]);
    sandbox.ok(&[&resume[..], &["cut.clt", "-o", "third.clt"]].concat());
    sandbox.ok(&["verify", "third.clt"]);
    assert_eq!(digest(&sandbox, "third.clt"), digest(&sandbox, "whole.clt"));
    let registers = |name: &str| sandbox.ok(&["replay", name, "--goto", "@55M"]).out;
    assert_eq!(registers("third.clt"), registers("whole.clt"));
}

#[test]
fn a_guest_that_waits_goes_on_waiting_and_one_that_ended_does_not() {
    let sandbox = Sandbox::new();
    let kernel = common::kernel("6.1");
    let timed = |args: &[&str]| {
        let how = ["record", "--timeout", "4", "-o"];
        let mut child = sandbox.command(&[&how[..], args].concat());
        child.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = child.stderr(Stdio::piped()).spawn().unwrap();
        // Its input stays open until it has ended.
        let _input = child.stdin.take();
        let run: Run = child.wait_with_output().unwrap().into();
        run
    };
    let run = timed(&["waits.clt", "--kernel", &kernel, "--memory", "128M"]);
    assert!(matches!(run.code, Some(0 | 124)), "{run}");
    sandbox.ok(&["verify", "waits.clt"]);
    if run.code == Some(124) {
        let at_end = sandbox.ok(&["replay", "waits.clt", "--goto", "end"]);
        assert!(at_end.out.contains("rip "), "{at_end}");
        let run = timed(&["more.clt", "--resume", "waits.clt"]);
        assert_eq!(run.code, Some(124), "{run}");
        sandbox.ok(&["verify", "more.clt"]);
    }
    let how = ["record", "--kernel", &kernel, "--memory", "128M"];
    sandbox.ok(&[&how[..], &["-o", "over.clt", "--", "true"]].concat());
    let run = sandbox.run(&["record", "--resume", "over.clt", "-o", "never.clt"]);
    assert_eq!(run.code, Some(1), "{run}");
    assert!(run.err.contains("its guest has ended"), "{run}");
    assert!(!sandbox.path("never.clt").exists());
    let run = sandbox.run(&["record", "--resume", "over.clt", "--", "true"]);
    assert_eq!(run.code, Some(2), "{run}");
}

#[test]
fn a_recording_is_suspended_from_outside_and_resumed() {
    let sandbox = Sandbox::new();
    let kernel = common::kernel("6.1");
    let mut recorder = sandbox.command(&["record", "-o", "one.clt", "--kernel", &kernel]);
    recorder.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut recorder = recorder.stderr(Stdio::piped()).spawn().unwrap();
    let input = recorder.stdin.take();
    let began = Instant::now();
    let suspended = loop {
        let run = sandbox.run(&["suspend", "one.clt"]);
        if run.code == Some(0) {
            break run;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{run}");
        thread::sleep(Duration::from_millis(50));
    };
    assert!(suspended.err.contains("goes on from @"), "{suspended}");
    let run: Run = recorder.wait_with_output().unwrap().into();
    assert_eq!(run.code, Some(128 + 15), "{run}");
    drop(input);
    let again = sandbox.run(&["suspend", "one.clt"]);
    assert_eq!(again.code, Some(1), "{again}");
    assert!(again.err.contains("nobody is recording it"), "{again}");
    sandbox.file("typed", b"poweroff -f\n");
    let mut resume = sandbox.command(&["resume", "one.clt", "-o", "two.clt"]);
    resume.stdin(File::open(sandbox.path("typed")).unwrap());
    let resumed: Run = resume.output().unwrap().into();
    assert_eq!(resumed.code, Some(0), "{resumed}");
    let executed = resumed.err.split("recorded ").nth(1).unwrap();
    let executed = executed.split(' ').next().unwrap().replace(',', "");
    sandbox.ok(&["verify", "two.clt"]);
    let info = sandbox.ok(&["info", "two.clt", "--json"]).out;
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    let all = info["ticks"].as_u64().unwrap();
    assert!(executed.parse::<u64>().unwrap() < all, "{resumed}");
}
