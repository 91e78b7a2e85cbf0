//! Values in the guest's memory against what a real gdb prints of them at the same tick.

mod common;

use std::path::Path;
use std::process::Command;

use common::Sandbox;

/// Numbers, strings, enumerations, arrays, unions, bit fields, pointers to code and data.
const EXPRESSIONS: &[&str] = &[
    "init_task.comm",
    "init_task.policy",
    "init_task.in_iowait",
    "init_task.sched_class",
    "init_task.tasks",
    "init_task.se.avg",
    "init_task.cpus_mask",
    "init_task.rcu_read_unlock_special",
    "init_uts_ns.name.release",
    "saved_command_line",
    "jiffies",
    "system_state",
    "*console_drivers",
    "console_drivers->flags",
    "modules",
    "ioport_resource",
    "init_mm.pgd",
    "init_pid_ns.child_reaper->comm",
];

#[test]
#[allow(clippy::print_stderr, reason = "why a test is skipped")]
fn values_are_printed_as_gdb_prints_them() {
    let kernel = common::kernel("6.1");
    let vmlinux = Path::new(&kernel).with_file_name("vmlinux");
    if Command::new("gdb").arg("--version").output().is_err() || !vmlinux.is_file() {
        eprintln!("skipped: needs gdb, and the debug image of the kernel in the cache");
        return;
    }
    let sandbox = Sandbox::new();
    let record = [
        "record",
        "--kernel",
        &kernel,
        "-o",
        "boot.clt",
        "--",
        "dmesg | tail -1",
    ];
    sandbox.ok(&record);
    let vmlinux = vmlinux.to_str().unwrap();
    let mut asked = vec![
        "gdb",
        "boot.clt",
        "--goto",
        "90%",
        "--vmlinux",
        vmlinux,
        "--batch",
    ];
    let prints: Vec<String> = EXPRESSIONS.iter().map(|e| format!("print {e}")).collect();
    asked.extend(["-e", "set width 0", "-e", "set print max-depth 20"]);
    asked.extend(prints.iter().flat_map(|p| ["-e", p]));
    let theirs = sandbox.ok(&asked).out;
    let theirs: Vec<&str> = theirs
        .lines()
        .filter_map(|l| Some(l.strip_prefix('$')?.split_once(" = ")?.1))
        // gdb says a pointer's type first.
        .map(|l| {
            l.split_once(") 0x")
                .filter(|_| l.starts_with('('))
                .map_or(l, |(_, at)| &l[l.len() - at.len() - 2..])
        })
        .collect();
    let mut ask = vec!["symbols", "--trace", "boot.clt", "--at", "90%"];
    ask.extend(EXPRESSIONS.iter().flat_map(|e| ["--print", e]));
    let run = sandbox.ok(&ask);
    let ours: Vec<&str> = run.out.lines().collect();
    assert_eq!(ours.len(), EXPRESSIONS.len(), "{run}");
    assert_eq!(theirs.len(), EXPRESSIONS.len(), "{theirs:#?}");
    // gdb takes null for the address of the first per-CPU variable.
    let theirs = theirs
        .iter()
        .map(|l| l.replace("0x0 <fixed_percpu_data>", "0x0"));
    for ((expression, ours), theirs) in EXPRESSIONS.iter().zip(ours).zip(theirs) {
        let value = ours.strip_prefix(&format!("{expression} = ")).unwrap();
        assert_eq!(value, theirs, "{expression}");
    }
}
