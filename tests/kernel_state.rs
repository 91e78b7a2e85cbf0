//! What we read of the guest's kernel against what the guest says of itself: names, tasks, log,
//! modules.

mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use colinux_replay::{GuestKernel, Mark, Timeline};
use colinux_symbols::Slide;
use colinux_tracer::{Event, EventKind, EventMask, Reader};
use common::Sandbox;
use serde_json::Value;

fn record(sandbox: &Sandbox, version: &str, options: &[&str], line: &str) -> String {
    record_of(sandbox, &common::kernel(version), options, line)
}

fn record_of(sandbox: &Sandbox, kernel: &str, options: &[&str], line: &str) -> String {
    let record = ["record", "--kernel", kernel, "-o", "guest.clt"];
    sandbox
        .ok(&[&record[..], options, &["--", line]].concat())
        .out
}

fn rows(text: &str) -> Vec<Value> {
    text.lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

fn sha256(text: &str) -> String {
    let mut tool = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    tool.stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = tool.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout)[..64].to_owned()
}

/// The name table read from the kernel file is `/proc/kallsyms` to the last byte.
fn kallsyms(version: &str, options: &[&str]) {
    kallsyms_of(&common::kernel(version), options);
}

fn kallsyms_of(kernel: &str, options: &[&str]) {
    let sandbox = Sandbox::new();
    let line = "echo 0 > /proc/sys/kernel/kptr_restrict; sha256sum /proc/kallsyms";
    let said = record_of(&sandbox, kernel, options, line);
    let reader = Reader::open(sandbox.path("guest.clt")).unwrap();
    let guest = GuestKernel::of(&reader).unwrap();
    let mut timeline = Timeline::open(&reader).unwrap();
    timeline
        .seek(Mark::at(timeline.last_tick()), &mut |_| true)
        .unwrap();
    let slide = guest.slide(timeline.machine_mut()).unwrap();
    assert_eq!(slide != Slide::NONE, options.contains(&"--as-bzimage"));
    let mut table = String::new();
    for entry in guest.kernel().names.iter() {
        // Per-CPU symbols are offsets.
        let address = if entry.addr.0 >> 63 == 0 {
            entry.addr.0
        } else {
            entry.addr.run(slide).0
        };
        writeln!(
            table,
            "{address:016x} {} {}",
            char::from(entry.kind),
            entry.name
        )
        .unwrap();
    }
    let ours = sha256(&table);
    assert!(said.contains(&ours), "ours {ours}, the guest's {said}");
}

#[test]
fn kallsyms_of_6_1_are_the_guests_own() {
    kallsyms("6.1", &[]);
}

#[test]
fn kallsyms_of_6_12_are_the_guests_own() {
    kallsyms("6.12", &[]);
}

#[test]
fn kallsyms_of_a_kernel_that_moved_itself_are_the_guests_own() {
    kallsyms("6.12", &["--as-bzimage"]);
}

/// Kernels that `COLINUX_TEST_KERNELS` names, separated by colons: their names are the guest's own,
/// their tasks and log can be read, and their stacks are unwound by their tables.
#[test]
#[ignore = "scripts/symbols-full runs it, with COLINUX_TEST_KERNELS"]
#[allow(clippy::print_stderr, reason = "the figures of a comparison")]
fn other_kernels_are_read_as_well() {
    let kernels = std::env::var("COLINUX_TEST_KERNELS").unwrap_or_default();
    for kernel in kernels.split(':').filter(|kernel| !kernel.is_empty()) {
        kallsyms_of(kernel, &[]);
        let sandbox = Sandbox::new();
        let line = "sleep 100 & for i in 1 2 3; do ls -lR /proc/self | tail -1; dmesg | wc; done";
        let said = record_of(&sandbox, kernel, &[], line);
        assert_eq!(said.matches("/proc/self").count(), 3, "{kernel}: {said}");
        let reader = Reader::open(sandbox.path("guest.clt")).unwrap();
        let guest = GuestKernel::of(&reader).unwrap();
        let mut timeline = Timeline::open(&reader).unwrap();
        let (last, mut methods) = (timeline.last_tick(), BTreeMap::new());
        for share in 1..100 {
            // Most of it is the kernel's start; programs run at the end.
            let tick = if share % 2 == 0 {
                last / 100 * share
            } else {
                last - last / 5000 * share
            };
            timeline.seek(Mark::at(tick), &mut |_| true).unwrap();
            let resolver = guest.resolver(timeline.machine_mut());
            let stack = guest.stack(timeline.machine_mut(), &resolver);
            for frame in stack.frames.iter().filter(|frame| !frame.is_user) {
                *methods.entry(format!("{:?}", frame.method)).or_insert(0u32) += 1;
            }
        }
        eprintln!("{kernel}: frames by {methods:?}");
        let by = |method: &str| methods.get(method).copied().unwrap_or(0);
        let guessed = by("Scan") + by("FramePointer");
        assert!(by("Orc") > 200 && guessed * 100 < by("Orc"), "{methods:?}");
        let tasks = guest.tasks(timeline.machine_mut()).unwrap();
        assert!(tasks.iter().any(|task| task.comm == "sleep"), "{kernel}");
        let log = guest.log(timeline.machine_mut()).unwrap();
        assert!(log.len() > 100, "{kernel}: {}", log.len());
    }
}

/// Where the console said something for the first time.
fn tick_of(reader: &Reader, text: &str) -> u64 {
    let mut console = String::new();
    for row in reader
        .events()
        .with_kinds(EventMask::of(&[EventKind::ConsoleOut]))
    {
        let row = row.unwrap();
        if let Event::ConsoleOut { bytes, .. } = row.event {
            console.push_str(&String::from_utf8_lossy(&bytes));
            if console.contains(text) {
                return row.tick;
            }
        }
    }
    panic!("{text:?} is not in {console}");
}

/// Without what `/proc` adds to the name of a worker: the queue it works for.
fn plain(comm: &str) -> &str {
    match comm.strip_prefix("kworker/") {
        Some(rest) => {
            &comm[..comm.len() - rest.len() + rest.find(['-', '+']).unwrap_or(rest.len())]
        }
        None => comm,
    }
}

#[test]
fn ps_equals_the_guests_own() {
    let sandbox = Sandbox::new();
    let said = record(
        &sandbox,
        "6.1",
        &[],
        "sleep 100 & sleep 1; ps -o pid,ppid,stat,comm; kill %1",
    );
    let reader = Reader::open(sandbox.path("guest.clt")).unwrap();
    let tick = tick_of(&reader, "COMMAND");
    let ours: BTreeMap<i64, (i64, String, String)> = rows(
        &sandbox
            .ok(&["ps", "guest.clt", "--at", &format!("@{tick}"), "--json"])
            .out,
    )
    .iter()
    .filter(|row| row["tid"] == row["pid"] && row["pid"] != 0)
    .map(|row| {
        let text = |key: &str| row[key].as_str().unwrap().to_owned();
        (
            row["pid"].as_i64().unwrap(),
            (row["ppid"].as_i64().unwrap(), text("comm"), text("state")),
        )
    })
    .collect();
    let mut theirs = BTreeMap::new();
    for line in said.lines().skip_while(|l| !l.contains("COMMAND")).skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [pid, ppid, stat, comm] = words[..]
            && let (Ok(pid), Ok(ppid)) = (pid.parse(), ppid.parse())
        {
            theirs.insert(pid, (ppid, plain(comm).to_owned(), stat[..1].to_owned()));
        }
    }
    assert!(theirs.len() > 20, "{said}");
    assert!(
        theirs
            .values()
            .any(|t: &(i64, String, String)| t.1 == "sleep" && t.2 == "S"),
        "{said}"
    );
    let changed = |(pid, theirs): (&i64, &(i64, String, String))| {
        let ours = ours
            .get(pid)
            .unwrap_or_else(|| panic!("{pid} is not in {ours:?}"));
        assert_eq!((ours.0, &ours.1), (theirs.0, &theirs.1), "{pid}");
        ours.2 != theirs.2
    };
    // Workers fall asleep and wake while ps goes through the list.
    let changed = theirs.iter().filter(|row| changed(*row)).count();
    assert!(changed <= 3, "{changed} states differ\n{said}\n{ours:?}");
    assert_eq!(ours.len(), theirs.len(), "{ours:?}\n{said}");
}

#[test]
fn dmesg_equals_the_console_up_to_each_tick() {
    let sandbox = Sandbox::new();
    let append = ["--append", "ignore_loglevel loglevel=8"];
    let said = record(&sandbox, "6.1", &append, "dmesg");
    let reader = Reader::open(sandbox.path("guest.clt")).unwrap();
    let guest = GuestKernel::of(&reader).unwrap();
    let mut timeline = Timeline::open(&reader).unwrap();
    let mut console = Vec::new();
    let mut output: Vec<(u64, usize)> = Vec::new();
    for row in reader
        .events()
        .with_kinds(EventMask::of(&[EventKind::ConsoleOut]))
    {
        let row = row.unwrap();
        if let Event::ConsoleOut { bytes, .. } = row.event {
            console.extend_from_slice(&bytes);
            output.push((row.tick, console.len()));
        }
    }
    let is_log = |line: &&str| line.starts_with('[') && line.get(13..15) == Some("] ");
    let mut compared = 0;
    for share in 1..40 {
        let (tick, len) = output[output.len() * share / 40];
        timeline.seek(Mark::at(tick), &mut |_| true).unwrap();
        let Ok(records) = guest.log(timeline.machine_mut()) else {
            continue;
        };
        let ours: Vec<String> = records
            .iter()
            .flat_map(|r| r.to_string().lines().map(str::to_owned).collect::<Vec<_>>())
            .collect();
        let text = String::from_utf8_lossy(&console[..len]).replace('\r', "");
        // The last line may be half said; and dmesg, run by the guest, says all again.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let theirs: Vec<&str> = whole.lines().filter(is_log).take(ours.len()).collect();
        let said: Vec<&str> = ours.iter().map(String::as_str).take(theirs.len()).collect();
        for (ours, theirs) in said.iter().zip(&theirs) {
            assert_eq!(ours, theirs, "at @{tick}");
        }
        compared = compared.max(theirs.len());
    }
    assert!(compared > 200, "{compared}");
    // And at the end, what the guest's own dmesg says.
    let ours = sandbox.ok(&["dmesg", "guest.clt"]).out;
    let theirs: Vec<&str> = said.lines().filter(is_log).collect();
    let twice: Vec<&str> = ours.lines().filter(is_log).collect();
    let own =
        &theirs[theirs.len() - theirs.iter().rev().position(|l| *l == twice[0]).unwrap() - 1..];
    assert_eq!(own[..200], twice[..200]);
}

/// Modules of the cached kernel, in the order of loading.
const MODULES: [&str; 4] = ["virtio_ring", "virtio", "virtio_mmio", "virtio_blk"];

#[test]
fn modules_are_named_in_text_and_data() {
    let kernel = common::kernel("6.1");
    let folder = Path::new(&kernel).with_file_name("modules");
    let files: Vec<String> = MODULES
        .iter()
        .map(|m| folder.join(format!("{m}.ko")).to_str().unwrap().to_owned())
        .collect();
    let loads: String = files.iter().map(|f| format!("insmod {f}; ")).collect();
    let line = format!(
        "echo 0 > /proc/sys/kernel/kptr_restrict; {loads} echo MODULES; cat /proc/modules; \
         echo SYMBOLS; grep ']$' /proc/kallsyms; echo TEXT $(cat /sys/module/virtio/sections/.text)"
    );
    let pack: Vec<&str> = files.iter().flat_map(|f| ["--pack", f]).collect();
    for options in [&[][..], &["--as-bzimage"]] {
        let sandbox = Sandbox::new();
        let said = record(&sandbox, "6.1", &[&pack[..], options].concat(), &line);
        modules_of(&sandbox, &said);
    }
}

fn modules_of(sandbox: &Sandbox, said: &str) {
    let listed = rows(&sandbox.ok(&["lsmod", "guest.clt", "--json"]).out);
    let theirs = said
        .lines()
        .skip_while(|l| !l.starts_with("MODULES"))
        .skip(1);
    let theirs: Vec<Vec<&str>> = theirs
        .take_while(|l| !l.starts_with("SYMBOLS"))
        .map(|l| l.split_whitespace().collect())
        .collect();
    let loaded = theirs.iter().filter_map(|m| m.first()).copied();
    assert!(loaded.rev().eq(MODULES), "{said}");
    for (ours, theirs) in listed.iter().zip(&theirs) {
        assert_eq!(ours["name"], theirs[0]);
        assert_eq!(ours["size"], theirs[1].parse::<u64>().unwrap());
        assert_eq!(
            format!("{:#018x}", ours["base"].as_u64().unwrap()),
            theirs[5]
        );
        assert_eq!(ours["build_id"].as_str().unwrap().len(), 40);
    }
    let text = said
        .lines()
        .find_map(|l| l.strip_prefix("TEXT "))
        .unwrap()
        .trim();
    let virtio = listed.iter().find(|m| m["name"] == "virtio").unwrap();
    assert_eq!(
        format!("{:#018x}", virtio["sections"][".text"].as_u64().unwrap()),
        text
    );

    // Every symbol that the guest lists, by address: `address type name [module]`.
    let mut expected = BTreeMap::<&str, Vec<(&str, &str)>>::new();
    for line in said.lines().skip_while(|l| !l.starts_with("SYMBOLS")) {
        if let [address, _, name, module] = line.split_whitespace().collect::<Vec<_>>()[..] {
            expected.entry(address).or_default().push((name, module));
        }
    }
    assert!(expected.len() > 300, "{}", expected.len());
    let addresses: Vec<&str> = expected.keys().copied().collect();
    let ask = ["symbols", "--trace", "guest.clt", "--at", "end", "--json"];
    let run = sandbox.run(&[&ask[..], &addresses].concat());
    let (mut kinds, mut lines) = (BTreeMap::<&str, u32>::new(), 0);
    for (row, (address, names)) in rows(&run.out).iter().zip(&expected) {
        let found = (
            row["symbol"].as_str().unwrap_or("??"),
            row["module"].as_str().unwrap_or("-"),
        );
        let found = (found.0, format!("[{}]", found.1));
        assert!(
            names.iter().any(|n| (n.0, n.1) == (found.0, &found.1)),
            "{address}: {found:?}, the guest has {names:?}"
        );
        assert_eq!(row["offset"], 0, "{address}");
        *kinds.entry(names[0].1).or_default() += 1;
        lines += u32::from(
            row["frames"][0]["line"]
                .as_u64()
                .is_some_and(|line| line > 0),
        );
    }
    assert_eq!(kinds.len(), MODULES.len(), "{kinds:?}");
    // With the debug image in the cache, functions have lines too.
    let kernel = common::kernel("6.1");
    if Path::new(&kernel)
        .with_file_name("debug")
        .join("virtio_blk.ko")
        .is_file()
    {
        assert!(lines > 100, "{lines} have lines");
    }
    let load = sandbox
        .ok(&["dump", "guest.clt", "-e", "ModuleLoad", "--symbols"])
        .out;
    assert_eq!(load.lines().count(), MODULES.len());
}
