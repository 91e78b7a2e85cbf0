//! The viewer on recordings that are being made, and what becomes of them.

mod common;
mod terminal;

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::Sandbox;
use serde_json::Value;
use terminal::{PATIENCE, Terminal, tick};

/// The number of events in the bar at the top.
fn events(screen: &str) -> Option<u64> {
    let words: Vec<&str> = screen.lines().next()?.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "events")?;
    words[at - 1].replace(',', "").parse().ok()
}

fn is_complete(sandbox: &Sandbox, name: &str) -> bool {
    let run = sandbox.run(&["info", "--json", name]);
    let info: Value = serde_json::from_str(&run.out).unwrap_or_default();
    info["complete"] == true
}

/// Waits until something outside of the screen is so.
#[track_caller]
fn until(what: &str, is: impl Fn() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < PATIENCE, "not {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn signal(name: &str, pid: i32) {
    let sent = Command::new("kill")
        .args(["-s", name, &pid.to_string()])
        .status();
    assert!(sent.unwrap().success());
}

/// The processes that a process has started.
fn children(pid: i32) -> Vec<i32> {
    let all = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    all.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

#[test]
fn a_recording_is_seen_while_it_is_made() {
    let sandbox = Sandbox::new();
    let kernel = common::kernel("6.1");
    let record = |name: &str, command: &str| {
        format!("record --tui --kernel {kernel} --memory 128M -o {name} -- '{command}'")
    };
    // One that would not end by itself: the viewer follows it, and its end is the recording's.
    let terminal = Terminal::run(
        &sandbox,
        (120, 40),
        "",
        &record("long.clt", "while true; do ls /; done"),
    );
    let shown = terminal.wait("live recording", |s| {
        s.contains("long.clt  live") && events(s).is_some_and(|n| n > 0)
    });
    terminal.wait("growth", |s| events(s) > events(&shown));
    terminal.keys(&["q"]);
    let shown = terminal.sees("status ");
    assert!(shown.contains("status 0"), "{shown}");
    assert!(shown.contains("recorded "), "{shown}");
    assert!(is_complete(&sandbox, "long.clt"));
    // One that ends: its status is the viewer's.
    let terminal = Terminal::run(&sandbox, (120, 40), "", &record("short.clt", "exit 7"));
    terminal.wait("the end of the recording", |s| {
        s.contains("short.clt") && !s.contains("live") && events(s).is_some()
    });
    terminal.keys(&["q"]);
    terminal.sees("status 7");
    // One that never begins says why.
    let terminal = Terminal::run(&sandbox, (120, 40), "", &record("short.clt", "true"));
    let shown = terminal.sees("status 69");
    assert!(shown.contains("short.clt"), "{shown}");
    let run = sandbox.run(&["record", "--tui"]);
    assert_eq!(run.code, Some(69));
    assert!(run.err.contains("wants a terminal"), "{run}");
}

/// A shell in the guest, which is typed to in the viewer.
#[test]
fn a_guest_is_typed_to() {
    let sandbox = Sandbox::new();
    let kernel = common::kernel("6.1");
    let terminal = Terminal::run(
        &sandbox,
        (120, 40),
        "",
        &format!("record --tui --ascii --colors none --kernel {kernel} --memory 128M -o shell.clt"),
    );
    let shown = terminal.wait("prompt", |s| s.contains("console") && s.contains("~ # "));
    assert!(
        shown.is_ascii() && shown.contains("i: type to the guest"),
        "{shown}"
    );
    assert!(!terminal.styled_screen().contains("\u{1b}[38;5"));
    terminal.keys(&["i"]);
    terminal.sees("typing to the guest");
    // Keys of the viewer are the guest's now.
    terminal.tmux(&["send-keys", "-l", "echo q$((6*7))q?"]);
    terminal.keys(&["Enter"]);
    terminal.sees("q42q?");
    // Out of it, into the past, where the console is as it was, and on again.
    terminal.keys(&["C-a", "Escape"]);
    terminal.sees("i: type to the guest");
    terminal.line(":", "t0.3");
    terminal.wait("console of then", |s| {
        s.contains("up to the cursor") && s.contains("not followed") && !s.contains("q42q")
    });
    terminal.keys(&["i"]);
    terminal.wait("console of now", |s| s.contains("q42q?"));
    terminal.tmux(&["send-keys", "-l", "echo again"]);
    terminal.keys(&["Enter"]);
    terminal.wait("answer", |s| s.matches("again").count() >= 2);
    // The end of the recording is not that of the viewer.
    terminal.keys(&["C-a", "x"]);
    terminal.wait("the finished recording", |s| !s.contains("live"));
    assert!(is_complete(&sandbox, "shell.clt"));
    terminal.keys(&["q"]);
    terminal.sees("status 0");
    // What was typed is in the recording, which replays.
    let inputs = sandbox.ok(&["dump", "shell.clt", "--inputs"]);
    assert!(inputs.out.contains("ConsoleIn"), "{inputs}");
    sandbox.ok(&["verify", "shell.clt"]);
    // The finished recording shows the same console at its end.
    let again = Terminal::run(&sandbox, (120, 40), "", "tui --goto end shell.clt");
    again.sees("timeline");
    again.keys(&["i"]);
    again.wait("console at the end", |s| {
        s.contains("q42q?") && s.contains("up to the cursor")
    });
}

/// Killed so that it can do nothing any more, a viewer takes its recorder along, in order.
#[test]
fn nobody_records_for_a_viewer_that_is_gone() {
    let sandbox = Sandbox::new();
    let kernel = common::kernel("6.1");
    for (name, command) in [("busy", "-- 'while true; do ls /; done'"), ("idle", "")] {
        let terminal = Terminal::run(
            &sandbox,
            (120, 40),
            "",
            &format!("record --tui --kernel {kernel} --memory 128M -o {name}.clt {command}"),
        );
        terminal.wait("live recording", |s| {
            s.contains("live") && events(s).is_some_and(|n| n > 0)
        });
        let viewer = terminal.pid();
        let recorders = children(viewer);
        assert_eq!(recorders.len(), 1);
        signal("KILL", viewer);
        until("ended", || {
            !fs::exists(format!("/proc/{}", recorders[0])).unwrap()
                && is_complete(&sandbox, &format!("{name}.clt"))
        });
    }
}

/// What becomes of a recording whose recorder dies while somebody else looks at it.
#[test]
fn a_recorder_that_dies_is_missed() {
    let sandbox = Sandbox::new();
    let kernel = common::kernel("6.1");
    let path = sandbox.path("dies.clt");
    let mut recorder = Command::new(env!("CARGO_BIN_EXE_colinux-trace"))
        .args(["record", "--kernel", &kernel, "--memory", "128M", "-o"])
        .arg(&path)
        .args(["--", "while true; do ls /; done"])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    until("begun", || {
        fs::metadata(&path).is_ok_and(|file| file.len() > 15_000_000)
    });
    let terminal = Terminal::run(&sandbox, (120, 40), "", "tui dies.clt");
    let shown = terminal.wait("live recording", |s| {
        s.contains("dies.clt  live") && events(s).is_some_and(|n| n > 0)
    });
    terminal.wait("growth", |s| events(s) > events(&shown));
    // It can be watched, not typed to.
    terminal.keys(&["i"]);
    terminal.sees("not typed to");
    recorder.kill().unwrap();
    recorder.wait().unwrap();
    terminal.wait("what has happened", |s| {
        s.contains("whoever made this recording is gone") && !s.contains("live")
    });
    // What was written can be walked in.
    terminal.line(":", "t0.3");
    terminal.keys(&["4"]);
    terminal.wait("a place", |s| s.contains("▶") && s.contains("t0.3"));
    let at = tick(&terminal.screen());
    terminal.keys(&["s"]);
    terminal.wait("a step", |s| tick(s) == at + 1);
}
