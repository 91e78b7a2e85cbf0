//! Arguments and local variables against those that a real gdb finds at the same ticks. Needs gdb and
//! the kernel's debug image (`guest fetch --debug`); without either nothing runs.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use common::Sandbox;
use serde_json::Value;

/// Prints a line for each variable of each frame at each tick: tick, number of the frame, its
/// instruction, its function, the variable, whether it is a number or a pointer, whether gdb may be
/// wrong, its value. The first of a name is the innermost, which is the one that a name means.
///
/// For what an inlined function's caller passed on (`DW_OP_entry_value`), gdb takes the call of the
/// function that it was inlined into, but the registers of that function instead of its caller's.
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
                    doubtful = False
                    if frame.type() == gdb.INLINE_FRAME:
                        try:
                            frame.select()
                            where = gdb.execute("info address " + symbol.name, to_string=True)
                            doubtful = "entry_value" in where
                        except gdb.error:
                            pass
                    try:
                        text = symbol.value(frame).format_string()
                    except gdb.error as error:
                        text = "<%s>" % error
                    print("VAR", tick, number, "%x" % frame.pc(), frame.function().name,
                          symbol.name, int(scalar), int(doubtful), text, sep="\t", flush=True)
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

/// A variable as gdb has it.
struct Variable {
    is_scalar: bool,
    is_doubtful: bool,
    text: String,
}

/// Of one frame: the instruction, the function, and the variables by name.
#[derive(Default)]
struct Theirs {
    ip: u64,
    function: String,
    variables: BTreeMap<String, Variable>,
}

/// Of pointers only the number counts: gdb has other names for a few addresses, such as null.
fn is_same(ours: &str, theirs: &str) -> bool {
    let number = |text: &str| text.split(' ').next().map(str::to_owned);
    ours == theirs || (ours.starts_with("0x") && number(ours) == number(theirs))
}

#[test]
fn variables_have_the_values_that_gdb_finds() {
    whole_boot("6.1");
}

#[test]
#[ignore = "scripts/symbols-full runs it"]
fn variables_of_6_12_have_the_values_that_gdb_finds() {
    whole_boot("6.12");
}

/// The kernel with debug information, if this host has what the tests need.
#[allow(clippy::print_stderr, reason = "why a test is skipped")]
fn vmlinux_of(kernel: &str) -> Option<String> {
    let vmlinux = Path::new(kernel).with_file_name("vmlinux");
    if Command::new("gdb").arg("--version").output().is_err() || !vmlinux.is_file() {
        eprintln!("skipped: needs gdb, and the debug image of the kernel in the cache");
        return None;
    }
    Some(vmlinux.to_str().unwrap().to_owned())
}

fn whole_boot(version: &str) {
    let kernel = common::kernel(version);
    let Some(vmlinux) = vmlinux_of(&kernel) else {
        return;
    };
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
    let found = compare(&sandbox, &vmlinux, "end", &ticks);
    found.report(version);
    assert!(found.same > 200 && found.ours_lost * 10 < found.same);
    assert!(found.doubtful * 50 < found.same);
}

/// Modules of the cached kernel, in the order of loading.
const MODULES: [&str; 4] = ["virtio_ring", "virtio", "virtio_mmio", "virtio_blk"];

#[test]
fn variables_of_modules_have_the_values_that_gdb_finds() {
    let kernel = common::kernel("6.1");
    let folder = Path::new(&kernel).parent().unwrap();
    let file = |module: &str| {
        let path = folder.join("modules").join(format!("{module}.ko"));
        path.to_str().unwrap().to_owned()
    };
    let Some(vmlinux) = vmlinux_of(&kernel) else {
        return;
    };
    let files = MODULES.map(file);
    let pack: Vec<&str> = files.iter().flat_map(|f| ["--pack", f]).collect();
    let line: String = files.iter().map(|f| format!("insmod {f}; ")).collect();
    for options in [&[][..], &["--as-bzimage"]] {
        let sandbox = Sandbox::new();
        let record = ["record", "--kernel", &kernel, "-o", "boot.clt"];
        sandbox.ok(&[&record[..], &pack, options, &["--", &line]].concat());
        // The first of a driver's registration, from its module's init through another module.
        let at = [
            "bt",
            "boot.clt",
            "--at",
            "bp:register_virtio_driver#1",
            "--json",
        ];
        let stack = rows(&sandbox.ok(&at).out);
        for (frame, module, file) in [
            (&stack[0], "virtio", "drivers/virtio/virtio.c"),
            (&stack[1], "virtio_blk", "drivers/block/virtio_blk.c"),
        ] {
            assert_eq!(frame["module"], module, "{frame}");
            assert_eq!(frame["file"], file, "{frame}");
            assert!(frame["line"].as_u64().unwrap() > 0, "{frame}");
        }
        // Its argument is data of the second.
        let driver = stack[0]["arguments"][0]["value"].as_str().unwrap();
        assert!(driver.ends_with("<virtio_blk>"), "{driver}");
        let said = sandbox.ok(&at[..4]).out;
        let first = said
            .strip_prefix('@')
            .and_then(|said| said.split(',').next());
        let first: u64 = first.unwrap().parse().unwrap();
        let ticks: Vec<u64> = (0..12).map(|n| first + n * 9).collect();

        // gdb takes in the modules that are loaded there.
        let found = compare(&sandbox, &vmlinux, &format!("@{first}"), &ticks);
        found.report("modules");
        assert!(found.in_modules > 12 && found.same > 100, "{found:?}");
    }
}

fn rows(text: &str) -> Vec<Value> {
    let rows = text.lines().map(serde_json::from_str);
    rows.collect::<Result<_, _>>().unwrap()
}

/// How many frames and values were compared, and how the values were.
#[derive(Debug, Default)]
struct Found {
    frames: u32,
    in_modules: u32,
    same: u32,
    ours_lost: u32,
    both_lost: u32,
    doubtful: u32,
    differ: Vec<String>,
}

impl Found {
    #[allow(clippy::print_stderr, reason = "the figures of a comparison")]
    fn report(&self, what: &str) {
        eprintln!(
            "{what}: {} frames: {} values the same, {} not, {} passed to an inlined function, where \
             gdb errs; only gdb has {}, neither {}",
            self.frames,
            self.same,
            self.differ.len(),
            self.doubtful,
            self.ours_lost,
            self.both_lost
        );
        assert!(self.differ.is_empty(), "{:#?}", self.differ);
    }
}

/// Compares the stacks at these ticks of `boot.clt`; gdb starts at `start`.
fn compare(sandbox: &Sandbox, vmlinux: &str, start: &str, ticks: &[u64]) -> Found {
    let script = SCRIPT.replace("TICKS", &format!("{ticks:?}"));
    let script = sandbox.file("variables.py", script.as_bytes());
    let source = format!("source {script}");
    let ask = ["gdb", "boot.clt", "--vmlinux", vmlinux, "--goto", start];
    let run = sandbox.ok(&[&ask[..], &["--batch", "-e", source.as_str()]].concat());
    let mut theirs: BTreeMap<(u64, usize), Theirs> = BTreeMap::new();
    for line in run.out.lines().filter_map(|l| l.strip_prefix("VAR\t")) {
        let words: Vec<&str> = line.splitn(8, '\t').collect();
        let [tick, number, ip, function, name, scalar, doubtful, text] = words[..] else {
            panic!("{line}");
        };
        let key = (tick.parse().unwrap(), number.parse().unwrap());
        let frame = theirs.entry(key).or_default();
        frame.ip = u64::from_str_radix(ip, 16).unwrap();
        function.clone_into(&mut frame.function);
        let variable = Variable {
            is_scalar: scalar == "1",
            is_doubtful: doubtful == "1",
            text: text.to_owned(),
        };
        frame.variables.insert(name.to_owned(), variable);
    }

    let mut found = Found::default();
    for tick in ticks {
        let at = format!("@{tick}");
        let run = sandbox.ok(&["bt", "boot.clt", "--at", &at, "--locals", "--json"]);
        for (number, row) in rows(&run.out).into_iter().enumerate() {
            let Some(theirs) = theirs.get(&(*tick, number)) else {
                continue;
            };
            // From where the stacks differ on, there is nothing to compare.
            if row["ip"] != theirs.ip || row["function"] != theirs.function.as_str() {
                break;
            }
            found.frames += 1;
            found.in_modules += u32::from(row["module"].is_string());
            let list = |key: &str| row[key].as_array().cloned().unwrap_or_default();
            let mut ours = BTreeMap::new();
            for variable in list("arguments").into_iter().chain(list("locals")) {
                let name = variable["name"].as_str().unwrap().to_owned();
                let value = variable["value"].as_str().map(str::to_owned);
                ours.entry(name).or_insert(value);
            }
            for (name, variable) in &theirs.variables {
                let what = || format!("@{tick} #{number} {} {name}", theirs.function);
                let Variable {
                    is_scalar,
                    is_doubtful,
                    text,
                } = variable;
                let known = !text.starts_with('<');
                match ours.get(name) {
                    None if known => {
                        found
                            .differ
                            .push(format!("{}: {text}, ours has none", what()));
                    }
                    None => {}
                    Some(Some(value)) if is_same(value, text) => found.same += 1,
                    Some(Some(_)) if *is_scalar && *is_doubtful => found.doubtful += 1,
                    Some(Some(value)) if *is_scalar => {
                        found
                            .differ
                            .push(format!("{}: {text}, ours {value}", what()));
                    }
                    Some(None) if known && *is_scalar => found.ours_lost += 1,
                    Some(_) => found.both_lost += u32::from(!known),
                }
            }
        }
    }
    found
}
