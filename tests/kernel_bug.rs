//! A kernel that panics, from the recording to the instruction that was to blame: docs/PANIC.md.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::Sandbox;

/// Sets a switch, and much later runs out of memory.
const BUG: &str = "echo 1 > /proc/sys/vm/panic_on_oom; tail /dev/zero";

#[allow(clippy::print_stderr, reason = "why a part of a test is skipped")]
fn has_gdb() -> bool {
    let found = Command::new("gdb").arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped: there is no gdb on this host");
    }
    found
}

#[test]
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
    if !has_gdb() {
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

/// Builds `tests/module/meter.c` for a kernel; `None`, and a reason, where its headers are not there.
#[allow(clippy::print_stderr, reason = "why a test is skipped")]
fn module(sandbox: &Sandbox, kernel: &str) -> Option<PathBuf> {
    let release = Path::new(kernel).parent()?.file_name()?.to_str()?;
    let headers = format!("/lib/modules/{release}/build");
    if !Path::new(&headers).join("Makefile").exists() {
        eprintln!("skipped: no {headers}; `apt-get install linux-headers-{release}` puts it there");
        return None;
    }
    let folder = sandbox.path("module");
    fs::create_dir(&folder).unwrap();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/module/meter.c");
    fs::copy(source, folder.join("meter.c")).unwrap();
    fs::write(folder.join("Makefile"), "obj-m := meter.o\n").unwrap();
    let made = Command::new("make")
        .args(["-s", "-C", &headers, "modules"])
        .arg(format!("M={}", folder.display()))
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    Some(folder)
}

/// The number of the line of a source that holds a text.
fn line_of(folder: &Path, text: &str) -> usize {
    let source = fs::read_to_string(folder.join("meter.c")).unwrap();
    1 + source.lines().position(|line| line.contains(text)).unwrap()
}

#[test]
fn from_a_module_that_crashes_back_to_the_line_that_wrote_its_pointer() {
    let sandbox = Sandbox::new();
    let kernel = common::kernel("6.1");
    let Some(folder) = module(&sandbox, &kernel) else {
        return;
    };
    let ko = folder.join("meter.ko");
    let ko = ko.to_str().unwrap();
    let how = ["--memory", "128M", "--fail-on", "panic", "-o", "bug.clt"];
    let what = ["--pack", ko, "--", &format!("insmod {ko}; sleep 9")];
    let run = sandbox.run(&[&["record", "--kernel", &kernel][..], &how, &what].concat());
    assert_eq!(run.code, Some(1), "{run}");
    assert!(run.err.contains("the guest oopsed at @"), "{run}");
    assert!(run.err.contains("Fatal exception in interrupt"), "{run}");

    let modules = folder.to_str().unwrap();
    let crashed = line_of(&folder, "*m->total +=");
    let wrote = line_of(&folder, "m->total = NULL");
    let said = sandbox.ok(&["bt", "bug.clt", "--at", "panic", "--modules", modules]);
    assert!(said.out.contains("meter_count"), "{said}");
    if kernel_has_lines(&kernel) {
        assert!(said.out.contains(&format!("meter.c:{crashed}")), "{said}");
    }
    let said = sandbox
        .ok(&["why", "meter:8", "bug.clt", "--at", "panic"])
        .out;
    assert!(
        said.contains("in meter_retire+") && said.contains("-> 0x0000000000000000"),
        "{said}"
    );

    if !has_gdb() {
        return;
    }
    let mut all = vec![
        "gdb",
        "bug.clt",
        "--goto",
        "panic",
        "--modules",
        modules,
        "--batch",
    ];
    for command in [
        "p meter.total",
        "watch meter.total",
        "reverse-continue",
        "frame",
        "p m->total == &samples",
        "delete",
        "break meter_count",
        "continue",
        "bt 2",
        "p m->total",
    ] {
        all.extend(["-e", command]);
    }
    let run = sandbox.ok(&all);
    let said = format!("{}{}", run.out, run.err);
    assert!(
        said.contains("$1 = 0x0") || said.contains("$1 = (unsigned long *) 0x0"),
        "{said}"
    );
    assert!(
        said.contains("New value = (unsigned long *) 0xffffffffc"),
        "{said}"
    );
    assert!(said.contains("meter_retire (m="), "{said}");
    assert!(said.contains(&format!("meter.c:{wrote}")), "{said}");
    assert!(said.contains("$2 = 1"), "{said}");
    assert!(said.contains("Breakpoint 2, meter_count (m="), "{said}");
    assert!(said.contains("in count ("), "{said}");
    assert!(said.contains("$3 = (unsigned long *) 0x0"), "{said}");
}

/// Whether the kernel's debug image is beside it: `bt` shows lines then.
fn kernel_has_lines(kernel: &str) -> bool {
    Path::new(kernel).with_file_name("vmlinux").exists()
}
