//! Conversations with a real gdb that knows the names of the guest's kernel, over a whole boot.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use common::Sandbox;

fn recording() -> &'static Sandbox {
    static ONE: OnceLock<Sandbox> = OnceLock::new();
    ONE.get_or_init(|| {
        let sandbox = Sandbox::new();
        let kernel = common::kernel("6.1");
        let how = ["--memory", "128M", "-o", "boot.clt"];
        let what = ["--", "cat /proc/version >/dev/null"];
        sandbox.ok(&[&["record", "--kernel", &kernel][..], &how, &what].concat());
        sandbox
    })
}

#[allow(clippy::print_stderr, reason = "why a test is skipped")]
fn is_there(what: &str, found: bool) -> bool {
    if !found {
        eprintln!("skipped: there is no {what} on this host");
    }
    found
}

fn has_gdb() -> bool {
    is_there("gdb", Command::new("gdb").arg("--version").output().is_ok())
}

/// What our gdb says to these commands.
fn gdb(args: &[&str], commands: &[&str]) -> String {
    let mut all = vec!["gdb", "boot.clt", "--batch"];
    all.extend(args);
    for command in [&"set pagination off"].into_iter().chain(commands) {
        all.extend(["-e", command]);
    }
    let run = recording().run(&all);
    format!("{}{}", run.out, run.err)
}

/// What follows this word in the text, up to the next space.
fn after<'t>(text: &'t str, word: &str) -> Vec<&'t str> {
    text.split(word)
        .skip(1)
        .filter_map(|rest| rest.split([' ', ',', '\n']).next())
        .collect()
}

#[test]
fn the_kernels_own_names_do_without_a_debug_image() {
    if !has_gdb() {
        return;
    }
    let said = gdb(
        &["--no-debug", "--goto", "end"],
        &[
            "break do_sys_openat2 if $rdi == 0xffffff9c",
            "reverse-continue",
            "p/x $rdi",
            "when",
            "disable 1",
            // Later its memory is freed and full of breakpoint instructions.
            "seek @100M",
            "break start_kernel",
            "reverse-continue",
            "x/2i $pc",
            "when",
            "reverse-stepi",
            "when",
            "reverse-continue",
            "watch *(unsigned long *) &jiffies_64",
            "continue",
            "continue",
            "continue",
            "when",
            "reverse-continue",
            "when",
            "info threads",
            "last-write jiffies_64",
            "why jiffies_64",
            "monitor irqs",
            "monitor dmesg 2",
            "monitor gva2gpa 0xffffffff81000000",
            "monitor info mem",
            "monitor back",
            "monitor forward",
        ],
    );
    assert!(said.contains("in do_sys_openat2 ()"), "{said}");
    assert!(said.contains("$1 = 0xffffff9c"), "{said}");
    assert!(said.contains("in start_kernel ()"), "{said}");
    assert!(said.contains("No more reverse-execution history"), "{said}");
    let places = after(&said, "Current position: @");
    let tick = |n: usize| places[n].parse::<u64>().unwrap();
    assert!(tick(0) > tick(2) && tick(2) == tick(3) + 1, "{said}");
    // Forward it is behind the write, backward before it.
    assert_eq!(tick(4), tick(5) + 1, "{said}");
    assert_eq!((tick(6), tick(7)), (tick(0), tick(5)), "{said}");
    assert!(said.matches("Hardware watchpoint 3").count() >= 3, "{said}");
    assert!(said.contains("(jiffies+0x0/"), "{said}");
    assert!(
        said.contains("was last written at @") && said.contains("\n#0 "),
        "{said}"
    );
    assert!(said.contains("vector 0x"), "{said}");
    assert!(said.contains("gpa: 0x"), "{said}");
    assert!(said.contains("\nffffffff81000000-"), "{said}");
}

#[test]
fn interrupts_on_the_terminal_are_gdbs_however_many() {
    if !has_gdb() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (begun, sent) = (folder.path().join("begun"), folder.path().join("sent"));
    let wait = format!(
        "shell touch {}; while [ ! -e {} ]; do sleep 0.05; done",
        begun.display(),
        sent.display()
    );
    let ours = recording()
        .command(&["gdb", "boot.clt", "--batch", "-e", &wait, "-e", "seek 50%"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while !begun.exists() {
        assert!(Instant::now() < until, "gdb has not begun");
        thread::sleep(Duration::from_millis(20));
    }
    let pid = ours.id().to_string();
    for _ in 0..3 {
        assert!(
            Command::new("kill")
                .args(["-INT", &pid])
                .status()
                .unwrap()
                .success()
        );
        thread::sleep(Duration::from_millis(50));
    }
    std::fs::write(&sent, "").unwrap();
    let output = ours.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{}: {said}", output.status);
    assert_eq!(after(&said, "Current position: @").len(), 1, "{said}");
}

#[test]
fn with_a_debug_image_there_are_lines_and_structures() {
    let kernel = common::kernel("6.1");
    let vmlinux = Path::new(&kernel).with_file_name("vmlinux");
    if !has_gdb() || !is_there("debug image", vmlinux.exists()) {
        return;
    }
    let said = gdb(
        &["--goto", "end"],
        &[
            "p init_task.comm",
            "tbreak do_sys_openat2",
            "reverse-continue",
            "bt 2",
            "when",
            "reverse-finish",
            "when",
            "reverse-next",
            "when",
            "reverse-step",
            "next",
            "list",
            "x/10i $pc",
        ],
    );
    assert!(said.contains("\"swapper/0\\000"), "{said}");
    assert!(
        said.contains("#1 ") && said.contains("at fs/open.c:"),
        "{said}"
    );
    let places = after(&said, "Current position: @");
    let ticks: Vec<u64> = places.iter().map(|tick| tick.parse().unwrap()).collect();
    assert!(
        ticks.is_sorted_by(|a, b| a > b) && ticks.len() == 3,
        "{said}"
    );
}

#[test]
fn who_wrote_there_is_answered_from_the_command_line() {
    let sandbox = recording();
    let said = sandbox.ok(&["last-write", "jiffies_64", "boot.clt"]).out;
    assert!(said.contains("in tick_do_update_jiffies64+"), "{said}");
    assert!(!said.contains("#0"), "{said}");
    let said = sandbox
        .ok(&["why", "jiffies_64", "boot.clt", "--at", "50%"])
        .out;
    assert!(
        said.contains("\n#0 ") && said.contains("ret_from_fork"),
        "{said}"
    );
    let said = sandbox
        .ok(&["why", "jiffies_64:4", "boot.clt", "--json"])
        .out;
    let row: serde_json::Value = serde_json::from_str(&said).unwrap();
    let byte = |name: &str| row[name][0].as_u64().unwrap();
    assert_eq!(byte("before") + 1, byte("after"), "{said}");
    // By its pseudo-physical address it is the same write.
    let gpa = row["address"].as_u64().unwrap() - 0xffff_ffff_8000_0000;
    let place = format!("phys:{gpa:#x}:4");
    let again = sandbox
        .ok(&["last-write", &place, "boot.clt", "--json"])
        .out;
    let again: serde_json::Value = serde_json::from_str(&again).unwrap();
    assert_eq!(again["tick"], row["tick"]);
    for (place, code) in [
        ("linux_banner", 1),
        ("no_such_name", 5),
        ("5x", 2),
        ("0x10:0", 2),
    ] {
        let run = sandbox.run(&["last-write", place, "boot.clt"]);
        assert_eq!(run.code, Some(code), "{place}: {run}");
        assert_eq!(run.err.lines().count(), 1, "{run}");
    }
}
