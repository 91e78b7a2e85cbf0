//! A kernel that panics, from the recording to the instruction that was to blame: docs/PANIC.md.

mod common;

use std::process::Command;

use common::Sandbox;

/// Sets a switch, and much later runs out of memory.
const BUG: &str = "echo 1 > /proc/sys/vm/panic_on_oom; tail /dev/zero";

#[test]
#[allow(clippy::print_stderr, reason = "why a part of the test is skipped")]
fn from_a_panic_back_to_its_cause() {
    let sandbox = Sandbox::new();
    let kernel = common::kernel("6.1");
    let how = ["--memory", "128M", "--fail-on", "panic", "-o", "bug.clt"];
    let run = sandbox.run(&[&["record", "--kernel", &kernel][..], &how, &["--", BUG]].concat());
    assert_eq!(run.code, Some(1), "{run}");
    assert!(run.err.contains("the guest panicked at @"), "{run}");
    assert!(run.err.contains("panic_on_oom"), "{run}");
    // What happened, and when: the last lines of the log, the stack, the task.
    let said = sandbox
        .ok(&["bt", "bug.clt", "--at", "panic", "--no-debug"])
        .out;
    assert!(
        said.contains("panic+0x0/") && said.contains("out_of_memory"),
        "{said}"
    );
    assert!(said.contains("tail"), "{said}");
    let said = sandbox
        .ok(&["why", "sysctl_panic_on_oom:4", "bug.clt", "--at", "panic"])
        .out;
    assert!(said.contains("0x00000000 -> 0x00000001"), "{said}");
    assert!(said.contains("ksys_write+"), "{said}");
    let written = said.split("written at @").nth(1).unwrap();
    let written: u64 = written.split(' ').next().unwrap().parse().unwrap();
    if Command::new("gdb").arg("--version").output().is_err() {
        eprintln!("skipped: there is no gdb on this host");
        return;
    }
    let mut all = vec!["gdb", "bug.clt", "--no-debug", "--goto", "panic", "--batch"];
    for command in [
        "x/i $pc",
        "p *(int *) &sysctl_panic_on_oom",
        "watch *(int *) &sysctl_panic_on_oom",
        "reverse-continue",
        "p *(int *) &sysctl_panic_on_oom",
        "when",
        "monitor dmesg 1",
    ] {
        all.extend(["-e", command]);
    }
    let run = sandbox.ok(&all);
    let said = format!("{}{}", run.out, run.err);
    assert!(said.contains("<panic>"), "{said}");
    assert!(said.contains("$1 = 1") && said.contains("$2 = 0"), "{said}");
    assert!(
        said.contains(&format!("Current position: @{written} ")),
        "{said}"
    );
}
