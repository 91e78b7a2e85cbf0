//! What a real recording holds, as text and as JSON, whole and in parts.

mod common;

use colinux_tracer::{Event, Reader};
use colinux_tui::row::Runners;
use common::Sandbox;
use serde_json::Value;

fn rows(text: &str) -> Vec<Value> {
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A recording of a guest that sleeps, at the highest level there is.
fn recorded() -> Sandbox {
    let sandbox = Sandbox::new();
    let kernel = common::kernel("6.1");
    let base = ["record", "--kernel", &kernel, "-o", "a.clt", "-s", "all=3"];
    let line = "echo hello; sleep 1; ls /proc | wc -l; exit 0";
    sandbox.ok(&[&base[..], &["--", line]].concat());
    sandbox
}

#[test]
fn filters_give_the_same_events_as_looking_through_all_of_them() {
    let sandbox = recorded();
    let dump = |args: &[&str]| {
        let base = ["dump", "a.clt", "--json"];
        rows(&sandbox.ok(&[&base[..], args].concat()).out)
    };
    let all = dump(&[]);
    let is = |row: &Value, names: &[&str]| names.iter().any(|name| row["event"] == **name);
    let ticks: Vec<u64> = all
        .iter()
        .map(|row| row["tick"].as_u64().unwrap())
        .collect();
    assert!(ticks.is_sorted());
    let (from, to) = (ticks[ticks.len() / 10], ticks[ticks.len() / 10 * 9]);
    let between = |row: &Value| (from..=to).contains(&row["tick"].as_u64().unwrap());
    let expected: Vec<_> = all
        .iter()
        .filter(|row| between(row) && is(row, &["GuestPf", "TaskSwitch"]))
        .cloned()
        .collect();
    assert!(!expected.is_empty());
    let (first, length) = (format!("@{from}"), format!("+{}", to - from));
    let found = dump(&[
        "-e",
        "guestpf,TaskSwitch",
        "--from",
        &first,
        "--to",
        &length,
    ]);
    assert_eq!(found, expected);
    // By facility and level; the second level of irq is the end of an interrupt.
    let irq = |level: &str, names: &[&str]| {
        let expected: Vec<_> = all.iter().filter(|row| is(row, names)).cloned().collect();
        assert_eq!(dump(&["-s", level]), expected, "{level}");
    };
    irq("irq=1", &["IrqForward", "IrqDeliver"]);
    irq("irq=2", &["IrqForward", "IrqDeliver", "IrqEoi"]);
    // An event by its number, and a moment of the guest's time.
    let number = all.len() / 2;
    let found = dump(&["--from", &format!("e{number}"), "-n", "1"]);
    assert_eq!(found[0]["tick"], all[number]["tick"]);
    let time = all[number]["time_ns"].as_u64().unwrap();
    let at = format!("t{}.{:09}", time / 1_000_000_000, time % 1_000_000_000);
    assert_eq!(dump(&["--from", &at, "-n", "1"])[0]["time_ns"], time);
    // As text, a line an event, with who runs.
    let text = sandbox.ok(&["dump", "a.clt", "-e", "SyscallEnter"]).out;
    let calls = all.iter().filter(|row| is(row, &["SyscallEnter"])).count();
    assert_eq!(text.lines().count(), calls);
    assert!(text.lines().all(|line| line.contains(" [000] ")), "{text}");
    assert!(text.contains("sleep-"), "{text}");
    // What sleeps a second has a second pass, though the idle guest is given far fewer ticks.
    const CLOCK_NANOSLEEP: u64 = 230;
    let moment = |kind: &str| {
        let of = |row: &&Value| row["event"] == kind && row["nr"] == CLOCK_NANOSLEEP;
        let row = all.iter().find(of).unwrap();
        let number = |key: &str| row[key].as_u64().unwrap();
        (number("time_ns"), number("tick"))
    };
    let ((began, from), (ended, to)) = (moment("SyscallEnter"), moment("SyscallExit"));
    let slept = ended - began;
    assert!((1_000_000_000..1_010_000_000).contains(&slept), "{slept}");
    assert!(to - from < slept, "{} ticks", to - from);
}

#[test]
fn what_is_counted_is_what_is_there() {
    let sandbox = recorded();
    let stats: Value =
        serde_json::from_str(&sandbox.ok(&["stats", "--json", "a.clt"]).out).unwrap();
    let all = rows(&sandbox.ok(&["dump", "--json", "a.clt"]).out);
    let mut stored = 0.0;
    for kind in stats["kinds"].as_array().unwrap() {
        let name = kind["name"].as_str().unwrap();
        stored += kind["bytes"].as_f64().unwrap();
        let there = all.iter().filter(|row| row["event"] == name).count() as u64;
        if name != "RecordEnd" {
            assert_eq!(kind["count"], there, "{name}");
        }
    }
    let chunks = stats["chunks"].as_array().unwrap().iter();
    let rows = chunks.filter(|chunk| chunk["rows"].as_u64().unwrap() > 0);
    let total: f64 = rows.map(|chunk| chunk["stored"].as_f64().unwrap()).sum();
    assert!((stored - total).abs() < 40.0, "{stored} of {total}");
    let reason = |name: &str| {
        let of = |row: &&Value| row["event"] == "PassageLeave" && row["reason"] == name;
        all.iter().filter(of).count() as u64
    };
    assert_eq!(stats["counters"]["idle"], reason("Idle"));
    assert_eq!(stats["counters"]["hpt"], reason("Deadline"));
    let text = sandbox.ok(&["stats", "a.clt"]).out;
    let names = text
        .lines()
        .take(10)
        .map(|line| line.split(' ').next().unwrap());
    let colinux = "idle msgto mfrom intr dev time hpt free alloc getpp";
    assert_eq!(names.collect::<Vec<_>>().join(" "), colinux);
}

/// A task switch is told beside who leaves, and what comes after an exec beside the new name; by `dump`
/// and by the viewer, which also knows the name that a task has given itself before it leaves.
fn who_ran_is_told_alike(rows: &[Value], reader: &Reader) {
    let task = |row: &Value, field: &str| {
        let comm = row[format!("{field}comm")].as_str()?;
        Some(format!("{comm}-{}", row[format!("{field}tid")]))
    };
    let mut runners = Runners::new(reader);
    let mut now: Option<String> = None;
    let (mut renamed, mut named) = (0, 0);
    for (number, row) in (0..).zip(rows) {
        let seen = runners.at(number).map(|who| who.label());
        if now.is_some() {
            assert_eq!(row["task"].as_str(), now.as_deref(), "{row}");
            if seen != now {
                let change =
                    |row: &&Value| row["event"] == "TaskSwitch" || row["event"] == "TaskExec";
                let next = rows[number as usize..].iter().find(change).unwrap();
                assert_eq!(seen, task(next, "prev_"), "{row}");
                named += 1;
            }
        }
        match row["event"].as_str() {
            Some("TaskSwitch") => now = task(row, "next_"),
            Some("TaskExec") => {
                renamed += u32::from(now != task(row, ""));
                now = task(row, "");
            }
            _ => {}
        }
    }
    assert!(renamed > 0, "no program changed its name");
    assert!(named > 0, "no task gave itself a name");
}

/// Every kind that the machine and the guest's kernel can make is made, and by its level only.
#[test]
fn a_guest_makes_these_events() {
    let sandbox = recorded();
    let all = rows(&sandbox.ok(&["dump", "--json", "a.clt"]).out);
    for kind in [
        "PassageLeave",
        "PassageEnter",
        "TaskSwitch",
        "TaskNew",
        "TaskExec",
        "TaskExit",
        "Cr3Write",
        "IrqForward",
        "IrqDeliver",
        "IrqEoi",
        "PpramAlloc",
        "GuestPf",
        "TlbFlush",
        "SyscallEnter",
        "SyscallExit",
        "Pio",
        "Mmio",
        "IoUnclaimed",
        "ConsoleOut",
        "KernelLog",
        "TimerProgram",
        "Exception",
        "GuestShutdown",
        "DigestPoint",
    ] {
        assert!(all.iter().any(|row| row["event"] == kind), "no {kind}");
    }
    who_ran_is_told_alike(&all, &Reader::open(sandbox.path("a.clt")).unwrap());
    let kernel = common::kernel("6.1");
    let base = [
        "record", "--kernel", &kernel, "-o", "b.clt", "--until", "@400M",
    ];
    sandbox.ok(&[&base[..], &["-s", "all=0,irq=1,task=2"]].concat());
    let some = rows(&sandbox.ok(&["dump", "--json", "b.clt"]).out);
    let mut kinds: Vec<_> = some
        .iter()
        .map(|row| row["event"].as_str().unwrap())
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    for kind in &kinds {
        let known = [
            "TaskSwitch",
            "TaskNew",
            "TaskExec",
            "TaskExit",
            "Cr3Write",
            "IrqForward",
            "IrqDeliver",
            "DigestPoint",
        ];
        assert!(known.contains(kind), "{kind} was not asked for");
    }
    assert!(
        kinds.contains(&"Cr3Write") && kinds.contains(&"IrqDeliver"),
        "{kinds:?}"
    );
}

#[test]
fn a_recording_is_followed_while_it_is_made() {
    let sandbox = Sandbox::new();
    let kernel = common::kernel("6.1");
    let line = "for i in $(seq 40); do ls -lR /sys/devices >/dev/null; done";
    let mut recorder = sandbox
        .command(&[
            "record", "--kernel", &kernel, "-o", "live.clt", "-s", "all=2", "--", line,
        ])
        .spawn()
        .unwrap();
    // From the first chunk on; before it there is nothing to open.
    while !sandbox.path("live.clt").exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
        assert!(
            recorder.try_wait().unwrap().is_none(),
            "it ended before it began"
        );
    }
    let mut live = sandbox.run(&["dump", "--json", "--follow", "live.clt"]);
    while live.code == Some(4) {
        // The file is there, its header or its manifest is not.
        live = sandbox.run(&["dump", "--json", "--follow", "live.clt"]);
    }
    assert_eq!(live.code, Some(0), "{live}");
    assert!(recorder.wait().unwrap().success());
    let whole = sandbox.ok(&["dump", "--json", "live.clt"]);
    assert_eq!(live.out.lines().count(), whole.out.lines().count());
    assert!(
        live.out == whole.out,
        "what was followed is not what was written"
    );
}

#[test]
fn the_flight_recorder_keeps_the_end_and_counts_the_rest() {
    let sandbox = Sandbox::new();
    let kernel = common::kernel("6.1");
    let line = "for i in $(seq 12); do ls -lR /sys/devices >/dev/null; done";
    let events = |name: &str, options: &[&str]| {
        let base = ["record", "--kernel", &kernel, "-s", "all=2", "-o", name];
        sandbox.ok(&[&base[..], options, &["--", line]].concat());
        let reader = Reader::open(sandbox.path(name)).unwrap();
        let rows = reader.events().map(Result::unwrap);
        rows.map(|row| (row.tick, row.event)).collect::<Vec<_>>()
    };
    let whole = events("whole.clt", &[]);
    let kept = events("last.clt", &["--last", "32K"]);
    let Event::Lost { count, first, last } = kept[0].1 else {
        panic!("{:?}", kept[0])
    };
    let count = count as usize;
    assert!(count > 0 && kept.len() > 1);
    assert_eq!((first, last), (whole[0].0, whole[count - 1].0));
    assert!(kept[1..] == whole[count..], "what was kept is not the end");
    let verified = sandbox.ok(&["verify", "last.clt"]);
    assert!(verified.out.starts_with("the same: "), "{verified}");
}
