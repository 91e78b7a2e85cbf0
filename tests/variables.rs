//! Arguments and local variables against those that a real gdb finds at the same ticks. Needs gdb and
//! the kernel's debug image (`guest fetch --debug`); without either nothing runs.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use common::Sandbox;
use serde_json::Value;

/// Prints a line for each variable of each frame at each tick: tick, number of the frame, its
/// instruction, its function, the variable, whether it is a number or a pointer, its value. The
/// first of a name is the innermost, which is the one that a name means.
const SCRIPT: &str = r#"
import gdb
gdb.execute("set pagination off")
gdb.execute("set width 0")
gdb.execute("set stack-cache off")
gdb.execute("set code-cache off")
SCALARS = (gdb.TYPE_CODE_INT, gdb.TYPE_CODE_PTR, gdb.TYPE_CODE_ENUM, gdb.TYPE_CODE_BOOL, gdb.TYPE_CODE_CHAR)
for tick in TICKS:
    gdb.execute("monitor seek @%d" % tick, to_string=True)
    gdb.execute("maintenance flush register-cache", to_string=True)
    frame, number = gdb.newest_frame(), 0
    while frame is not None and number < 40 and frame.function() is not None:
        if frame.type() != gdb.TAILCALL_FRAME:
            block, seen = frame.block(), set()
            while block is not None:
                for symbol in block:
                    if not (symbol.is_argument or symbol.is_variable) or symbol.name in seen:
                        continue
                    seen.add(symbol.name)
                    scalar = symbol.type.strip_typedefs().code in SCALARS
                    try:
                        text = symbol.value(frame).format_string()
                    except gdb.error as error:
                        text = "<%s>" % error
                    print("VAR", tick, number, "%x" % frame.pc(), frame.function().name,
                          symbol.name, int(scalar), text, sep="\t", flush=True)
                if block.function is not None:
                    break
                block = block.superblock
            number += 1
        try:
            frame = frame.older()
        except gdb.error:
            frame = None
"#;

const SAMPLES: u64 = 24;

/// Of one frame: the instruction, the function, and by name whether it is a scalar, and its value.
#[derive(Default)]
struct Theirs {
    ip: u64,
    function: String,
    variables: BTreeMap<String, (bool, String)>,
}

/// Of pointers only the number counts: gdb has other names for a few addresses, such as null.
fn is_same(ours: &str, theirs: &str) -> bool {
    let number = |text: &str| text.split(' ').next().map(str::to_owned);
    ours == theirs || (ours.starts_with("0x") && number(ours) == number(theirs))
}

#[test]
#[allow(
    clippy::print_stderr,
    reason = "the figures of a comparison, and why it is skipped"
)]
fn variables_have_the_values_that_gdb_finds() {
    let kernel = common::kernel("6.1");
    let vmlinux = Path::new(&kernel).with_file_name("vmlinux");
    if Command::new("gdb").arg("--version").output().is_err() || !vmlinux.is_file() {
        eprintln!("skipped: needs gdb, and the debug image of the kernel in the cache");
        return;
    }
    let vmlinux = vmlinux.to_str().unwrap();
    let sandbox = Sandbox::new();
    let line = "for i in 1 2 3 4; do ls -lR /proc/self | tail -1; dmesg | wc; done";
    let record = ["record", "--kernel", &kernel, "-o", "boot.clt", "--", line];
    sandbox.ok(&record);
    let reader = colinux_tracer::Reader::open(sandbox.path("boot.clt")).unwrap();
    let (_, last) = reader.ticks().unwrap();
    // From the kernel's start, from its long self-tests, and from where programs run.
    let ticks: Vec<u64> = (1..=SAMPLES / 3)
        .flat_map(|n| {
            let late = last / 1000 * (n * 4) + n * 977;
            [
                last / 1000 * (n * 20),
                last / 100 * (20 + n * 8),
                last - late,
            ]
        })
        .collect();

    let script = SCRIPT.replace("TICKS", &format!("{ticks:?}"));
    let script = sandbox.file("variables.py", script.as_bytes());
    let source = format!("source {script}");
    let ask = ["gdb", "boot.clt", "--vmlinux", vmlinux, "--batch", "-e"];
    let run = sandbox.ok(&[&ask[..], &[source.as_str()]].concat());
    let mut theirs: BTreeMap<(u64, usize), Theirs> = BTreeMap::new();
    for line in run.out.lines().filter_map(|l| l.strip_prefix("VAR\t")) {
        let words: Vec<&str> = line.splitn(7, '\t').collect();
        let [tick, number, ip, function, name, scalar, text] = words[..] else {
            panic!("{line}");
        };
        let key = (tick.parse().unwrap(), number.parse().unwrap());
        let frame = theirs.entry(key).or_default();
        frame.ip = u64::from_str_radix(ip, 16).unwrap();
        function.clone_into(&mut frame.function);
        let value = (scalar == "1", text.to_owned());
        frame.variables.insert(name.to_owned(), value);
    }

    let (mut same, mut ours_lost, mut both_lost, mut frames) = (0, 0, 0, 0);
    let mut differ = Vec::new();
    for tick in ticks {
        let at = format!("@{tick}");
        let run = sandbox.ok(&["bt", "boot.clt", "--at", &at, "--locals", "--json"]);
        for (number, row) in run.out.lines().enumerate() {
            let row: Value = serde_json::from_str(row).unwrap();
            let Some(theirs) = theirs.get(&(tick, number)) else {
                continue;
            };
            // From where the stacks differ on, there is nothing to compare.
            if row["ip"] != theirs.ip || row["function"] != theirs.function.as_str() {
                break;
            }
            frames += 1;
            let list = |key: &str| row[key].as_array().cloned().unwrap_or_default();
            let mut ours = BTreeMap::new();
            for variable in list("arguments").into_iter().chain(list("locals")) {
                let name = variable["name"].as_str().unwrap().to_owned();
                let value = variable["value"].as_str().map(str::to_owned);
                ours.entry(name).or_insert(value);
            }
            for (name, (is_scalar, text)) in &theirs.variables {
                let what = || format!("@{tick} #{number} {} {name}", theirs.function);
                let known = !text.starts_with('<');
                match ours.get(name) {
                    None if known => differ.push(format!("{}: {text}, ours has none", what())),
                    None => {}
                    Some(Some(value)) if is_same(value, text) => same += 1,
                    Some(Some(value)) if *is_scalar => {
                        differ.push(format!("{}: {text}, ours {value}", what()));
                    }
                    Some(None) if known && *is_scalar => ours_lost += 1,
                    Some(_) => both_lost += i32::from(!known),
                }
            }
        }
    }
    eprintln!(
        "{frames} frames: {same} values the same, {} not; only gdb has {ours_lost}, neither {both_lost}",
        differ.len()
    );
    assert!(differ.is_empty(), "{differ:#?}");
    assert!(same > 200 && ours_lost * 4 < same, "too few are known");
}
