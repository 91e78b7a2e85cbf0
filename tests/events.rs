//! Events of rare things, each made by a real guest.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use colinux_tracer::{Event, EventKind, EventMask, MarkOrigin, Reader};
use common::{Run, Sandbox};
use object::{Object, ObjectSection, ObjectSymbol};

/// Writes a line to the mark ports, as a program of the guest can that may use ports.
const MARKER: &str = r#"
#include <stdio.h>
#include <sys/io.h>
int main(int argc, char **argv) {
    if (iopl(3)) { perror("iopl"); return 1; }
    for (const char *c = argv[1]; *c; c++) outb(*c, 0x500);
    outb('\n', 0x500);
    return 0;
}
"#;

fn found(sandbox: &Sandbox, name: &str, kinds: &[EventKind]) -> Vec<Event> {
    let reader = Reader::open(sandbox.path(name)).unwrap();
    let rows = reader.events().with_kinds(EventMask::of(kinds));
    rows.map(|row| row.unwrap().event).collect()
}

/// What a signed module ends with.
const SIGNED: &[u8] = b"~Module signature appended~\n";

/// The module with an instruction that is none where its initialization begins. It is unsigned then,
/// since a signature that does not fit is refused.
fn broken(module: &Path) -> Vec<u8> {
    let mut bytes = fs::read(module).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let symbol = file.symbols().find(|s| s.name() == Ok("init_module"));
    let symbol = symbol.unwrap();
    let section = file.section_by_index(symbol.section_index().unwrap());
    let section = section.unwrap();
    // Behind the call that the kernel patches away, and before the first address it fills in.
    let at = symbol.address() + 5;
    assert!(
        section
            .relocations()
            .all(|(place, _)| place + 4 <= at || place >= at + 2)
    );
    let at = (section.file_range().unwrap().0 + at) as usize;
    bytes[at..at + 2].copy_from_slice(&[0x0f, 0x0b]);
    let unsigned = bytes.strip_suffix(SIGNED).map(<[u8]>::to_vec);
    unsigned.unwrap_or(bytes)
}

#[test]
fn an_oops_alone_is_one_and_the_guest_goes_on() {
    let sandbox = Sandbox::new();
    let kernel = common::kernel("6.1");
    let folder = Path::new(&kernel).with_file_name("modules");
    let module = sandbox.file("broken.ko", &broken(&folder.join("failover.ko")));
    let line = format!("echo 0 > /proc/sys/kernel/panic_on_oops; insmod {module}; echo goes-on");
    let start = ["record", "--kernel", &kernel, "-o", "oops.clt"];
    let rest = ["--pack", &module, "--", &line];
    let run = sandbox.ok(&[&start[..], &rest].concat());
    assert!(run.out.contains("goes-on"), "{run}");
    let kinds = [EventKind::ModuleLoad, EventKind::Oops, EventKind::Panic];
    let events = found(&sandbox, "oops.clt", &kinds);
    let [Event::ModuleLoad { name, .. }, Event::Oops { comm, .. }] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(name, "failover");
    assert_eq!(comm.to_text(), "insmod");
    // There is a checkpoint at it, and it can be gone to.
    let said = sandbox.ok(&["bt", "oops.clt", "--at", "oops", "--no-debug"]);
    assert!(said.out.contains("failover_init+0x5"), "{said}");
    sandbox.ok(&["verify", "oops.clt"]);
}

#[test]
fn a_panic_is_followed_by_the_end_of_the_guest() {
    let sandbox = Sandbox::new();
    let kernel = common::kernel("6.1");
    let start = [
        "record",
        "--kernel",
        &kernel,
        "-o",
        "panic.clt",
        "--fail-on",
        "panic",
    ];
    let run = sandbox.run(&[&start[..], &["--", "echo c > /proc/sysrq-trigger"]].concat());
    assert_eq!(run.code, Some(1), "{run}");
    let kinds = [EventKind::Panic, EventKind::GuestShutdown];
    let events = found(&sandbox, "panic.clt", &kinds);
    let [Event::Panic { text, .. }, Event::GuestShutdown { .. }] = &events[..] else {
        panic!("{events:?}");
    };
    assert!(text.contains("sysrq triggered crash"), "{text}");
}

#[test]
fn a_program_of_the_guest_can_set_marks() {
    let sandbox = Sandbox::new();
    let kernel = common::kernel("6.1");
    let source = sandbox.file("marker.c", MARKER.as_bytes());
    let binary = sandbox.path("marker").to_str().unwrap().to_owned();
    let gcc = Command::new("gcc")
        .args(["-O", "-static", "-o", &binary, &source])
        .output();
    let gcc = Run::from(gcc.unwrap());
    assert_eq!(gcc.code, Some(0), "{gcc}");
    let start = ["record", "--kernel", &kernel, "-o", "marks.clt"];
    sandbox.ok(&[&start[..], &["--", &binary, "the place"]].concat());
    let mark = Event::Mark {
        origin: MarkOrigin::Guest,
        text: "the place".to_owned(),
    };
    assert_eq!(found(&sandbox, "marks.clt", &[EventKind::Mark]), [mark]);
}

#[test]
fn facilities_without_a_device_say_so_when_they_are_asked_for() {
    let sandbox = Sandbox::new();
    let kernel = common::kernel("6.1");
    let start = [
        "record",
        "--kernel",
        &kernel,
        "-f",
        "-o",
        "short.clt",
        "--until",
        "@1M",
    ];
    for (levels, said) in [
        (
            "blockdev=1",
            Some("facility `blockdev` has no events: there is no block device yet"),
        ),
        (
            "network=2",
            Some("facility `network` has no events: there is no network device yet"),
        ),
        ("network=0", None),
        ("all=2", None),
    ] {
        let run = sandbox.ok(&[&start[..], &["-s", levels]].concat());
        match said {
            Some(said) => assert!(run.err.contains(said), "{run}"),
            None => assert!(!run.err.contains("has no events"), "{run}"),
        }
    }
}
