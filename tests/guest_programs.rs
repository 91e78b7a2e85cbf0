//! A guest userland beyond busybox: C programs, Debian's bash, perl and python3 with their
//! libraries, and shell work, all in one recording per kernel. Each prints in the guest what it
//! prints on the host, to the byte.

mod common;

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Run, Sandbox};

/// Of `tests/programs`, with what they are linked with.
const PROGRAMS: &[&str] = &["floats", "signals", "threads", "processes", "code"];
/// Interpreters at their places in Debian, and the scripts for them.
const SCRIPTS: &[(&str, &str)] = &[
    ("/bin/bash", "script.bash"),
    ("/usr/bin/perl", "script.pl"),
    ("/usr/bin/python3", "script.py"),
    ("/bin/sh", "shell.sh"),
];
/// For both sides. The C library chooses its mathematical functions by processor; those for newer
/// ones round differently.
const ENVIRONMENT: &[(&str, &str)] = &[
    (
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
    ("HOME", "/root"),
    ("LC_ALL", "C"),
    (
        "GLIBC_TUNABLES",
        "glibc.cpu.hwcaps=-FMA,-FMA4,-AVX2,-AVX512F,-ERMS,-FSRM",
    ),
];
/// What no console shows when all is well.
const TROUBLE: &[&str] = &[
    "Oops",
    "BUG:",
    "WARNING:",
    "Call Trace",
    "detected stalls",
    "Bad page",
];

/// One program, run on both sides.
struct Case {
    name: &'static str,
    argv: Vec<String>,
    /// Taken into the guest, besides the argument files.
    interpreter: Option<&'static str>,
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path in UTF-8").to_owned()
}

/// Compiles the programs and copies the scripts.
fn cases(sandbox: &Sandbox) -> Vec<Case> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs");
    let mut cases = Vec::new();
    for name in PROGRAMS {
        let out = sandbox.path(name);
        let mut gcc = Command::new("gcc");
        gcc.args(["-O2", "-static", "-pthread", "-w", "-o"])
            .arg(&out)
            .arg(sources.join(format!("{name}.c")))
            .arg("-lm");
        let run = Run::from(gcc.output().expect("gcc"));
        assert_eq!(run.code, Some(0), "{name} does not compile: {run}");
        cases.push(Case {
            name,
            argv: vec![text(&out)],
            interpreter: None,
        });
    }
    for &(interpreter, name) in SCRIPTS {
        let there = Path::new(interpreter).exists();
        assert!(
            there,
            "{name} needs {interpreter}; scripts/test installs it"
        );
        let script = sandbox.path(name);
        fs::copy(sources.join(name), &script).unwrap();
        let mut argv = vec![interpreter.to_owned(), text(&script)];
        if name == "shell.sh" {
            let folder = sandbox.path("work");
            fs::create_dir_all(&folder).unwrap();
            argv.push(text(&folder));
        }
        // The guest has a shell of its own.
        let packed = (interpreter != "/bin/sh").then_some(interpreter);
        cases.push(Case {
            name,
            argv,
            interpreter: packed,
        });
    }
    cases
}

/// What a program does on the host: its exit code and output.
fn on_host(case: &Case) -> (Option<i32>, String) {
    let output = Command::new(&case.argv[0])
        .args(&case.argv[1..])
        .env_clear()
        .envs(ENVIRONMENT.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let run = Run::from(output);
    assert_eq!(run.err, "", "{}", case.name);
    (run.code, run.out)
}

/// The script that runs all programs in the guest, each into a file, as on the host.
fn guest_script(cases: &[Case]) -> String {
    let mut script = String::from("dmesg -n 1\n");
    for (name, value) in ENVIRONMENT {
        writeln!(script, "export {name}='{value}'").unwrap();
    }
    for Case { name, argv, .. } in cases {
        if *name == "shell.sh" {
            writeln!(script, "mkdir -p '{}'", argv[2]).unwrap();
        }
        let words: Vec<String> = argv.iter().map(|word| format!("'{word}'")).collect();
        writeln!(
            script,
            "{} </dev/null >/tmp/output 2>&1\ncode=$?\necho '@@ begin {name}'\ncat /tmp/output\n\
             echo \"@@ end {name} $code\"",
            words.join(" ")
        )
        .unwrap();
    }
    // More than a thousand lines of a file system no program wrote.
    script.push_str("ls -lR /sys 2>/dev/null | wc -l\ndmesg\n");
    script
}

/// What the guest's console shows of one program.
fn in_guest(console: &str, name: &str) -> (Option<i32>, String) {
    let begin = format!("@@ begin {name}\n");
    let end = format!("@@ end {name} ");
    let Some((_, rest)) = console.split_once(&begin) else {
        return (None, "it was not run".to_owned());
    };
    let Some((output, rest)) = rest.split_once(&end) else {
        return (None, rest.to_owned());
    };
    (
        rest.lines().next().and_then(|code| code.parse().ok()),
        output.to_owned(),
    )
}

/// The first lines that differ, for a message a person can read.
fn difference(host: &str, guest: &str) -> String {
    let mut report = String::new();
    let (mut a, mut b) = (host.lines(), guest.lines());
    for number in 1.. {
        match (a.next(), b.next()) {
            (None, None) => break,
            (x, y) if x != y => {
                let (x, y) = (x.unwrap_or("(nothing)"), y.unwrap_or("(nothing)"));
                writeln!(report, "line {number}\n  host  {x}\n  guest {y}").unwrap();
                if report.len() > 4000 {
                    break;
                }
            }
            _ => {}
        }
    }
    report
}

fn programs_print_what_they_print_on_the_host(version: &str) {
    let sandbox = Sandbox::new();
    let cases = cases(&sandbox);
    let script = sandbox.file("guest.sh", guest_script(&cases).as_bytes());
    let kernel = common::kernel(version);
    let mut args: Vec<String> = ["record", "--kernel", &kernel, "-o", "programs.clt"]
        .map(str::to_owned)
        .into();
    let files = cases
        .iter()
        .flat_map(|case| case.argv.iter().map(PathBuf::from));
    let packed = files.filter(|path| path.is_file() && !path.starts_with("/bin"));
    let interpreters = cases
        .iter()
        .filter_map(|case| case.interpreter.map(PathBuf::from));
    for path in packed.chain(interpreters) {
        args.extend(["--pack".to_owned(), text(&path)]);
    }
    args.extend(["--", "sh", &script].map(str::to_owned));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();

    let run = sandbox.run(&args);
    let console = run.out.replace('\r', "");
    assert_eq!(run.code, Some(0), "{run}");
    assert!(!run.err.contains("does not implement"), "{}", run.err);
    for trouble in TROUBLE {
        assert!(!console.contains(trouble), "{trouble}: {console}");
    }
    let mut failures = String::new();
    for case in &cases {
        let (host, guest) = (on_host(case), in_guest(&console, case.name));
        if host != guest {
            let name = case.name;
            let (expected, found) = (host.0, guest.0);
            writeln!(
                failures,
                "{name}: exit {expected:?} on the host, {found:?} in the guest"
            )
            .unwrap();
            failures.push_str(&difference(&host.1, &guest.1));
        }
    }
    assert!(failures.is_empty(), "{failures}");
    let lines = console
        .lines()
        .find_map(|line| line.parse::<u32>().ok().filter(|n| *n > 1000));
    assert!(lines.is_some(), "ls -lR /sys is short: {console}");
    let verified = sandbox.ok(&["verify", "programs.clt"]);
    assert!(verified.out.starts_with("the same: "), "{verified}");
}

#[test]
fn on_debian_6_1() {
    programs_print_what_they_print_on_the_host("6.1");
}

#[test]
fn on_debian_6_12() {
    programs_print_what_they_print_on_the_host("6.12");
}
