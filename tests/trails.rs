//! Searches pass over stretches that a recording's trails rule out, and find what they would find
//! without them.

mod common;

use colinux_driver::debug::WatchSpace;
use colinux_replay::watch::{Stops, Watched, watch};
use colinux_replay::{Halt, Mark, Timeline};
use colinux_tracer::{ChunkKind, Reader};
use common::Sandbox;

/// Stops that are compared with one another at most.
const MOST: usize = 60;
/// Functions that are run never, once, now and then, all the time.
const FUNCTIONS: [&str; 8] = [
    "panic",
    "start_kernel",
    "rcu_init",
    "kernel_init",
    "parse_args",
    "vmalloc",
    "kmem_cache_create",
    "schedule",
];

fn go_on(_: u64) -> bool {
    true
}

fn boot(sandbox: &Sandbox, name: &str, interval: &str) -> Reader {
    let path = sandbox.path(name);
    let kernel = common::kernel("6.1");
    let what = ["record", "--kernel", &kernel, "--memory", "128M"];
    let how = ["--until", "@80M", "--checkpoint-interval", interval, "-o"];
    let to = [path.to_str().unwrap()];
    sandbox.ok(&[&what[..], &how, &to].concat());
    Reader::open(path).unwrap()
}

/// Where a walk stops, one stop after the other.
fn walk(timeline: &mut Timeline, stops: &Stops, forward: bool) -> Vec<Mark> {
    let from = if forward { 0 } else { timeline.last_tick() };
    *timeline.stops() = Stops::default();
    timeline.seek(Mark::at(from), &mut go_on).unwrap();
    *timeline.stops() = stops.clone();
    let mut found = Vec::new();
    while found.len() < MOST {
        let halt = if forward {
            timeline.forward(&mut go_on)
        } else {
            timeline.backward(&mut go_on)
        };
        match halt.unwrap() {
            Halt::Breakpoint => found.push(timeline.at()),
            Halt::Watch(hit) => found.push(hit.during.into()),
            _ => break,
        }
    }
    found
}

#[test]
fn what_is_passed_over_holds_nothing() {
    let sandbox = Sandbox::new();
    let with = boot(&sandbox, "with.clt", "4444444");
    let without = boot(&sandbox, "without.clt", "0");
    let trails = with.trails().collect::<Result<Vec<_>, _>>().unwrap();
    let mut end = 0;
    for trail in &trails {
        assert_eq!(trail.from, end, "nothing is left out");
        end = trail.to;
        let executed = trail.executed.as_ref().unwrap();
        assert!(!executed.is_empty() && executed.len() < 4_000);
        assert!(trail.written.as_ref().unwrap().len() < 20_000);
        assert!(!trail.changed.as_ref().unwrap().is_empty());
    }
    assert_eq!(end, 80_000_000);
    assert!(without.trails().next().is_none());

    let mut plain = Timeline::open(&without).unwrap();
    let (mut whole, mut some) = (0, 0);
    let mut compare = |stops: &Stops| {
        let expected = walk(&mut plain, stops, true);
        let mut timeline = Timeline::open(&with).unwrap();
        assert_eq!(walk(&mut timeline, stops, true), expected, "{stops:?}");
        if expected.len() < MOST {
            whole += 1;
            let mut back = walk(&mut timeline, stops, false);
            back.reverse();
            assert_eq!(back, expected, "{stops:?}");
        }
        some += usize::from(!expected.is_empty());
    };
    let mut names = Timeline::open(&with).unwrap();
    for name in FUNCTIONS {
        let address = names.hooks().unwrap().address_of(name).expect(name);
        compare(&Stops {
            breakpoints: vec![address],
            ..Stops::default()
        });
    }
    // What is on the stack at some places, by both kinds of address, and as a device would have it.
    for tick in [9_000_000, 31_000_000, 77_000_000] {
        names.seek(Mark::at(tick), &mut go_on).unwrap();
        let stack = names.machine().core().cpu.regs[4] & !7;
        let at = names.machine_mut().core_mut().probe(stack).unwrap();
        let spaces = [
            (WatchSpace::Virtual, stack),
            (WatchSpace::Virtual, (stack & !0xfff) + 8),
            (WatchSpace::Physical, at.0),
            (WatchSpace::Physical, at.0 ^ 0x1000),
        ];
        for (space, start) in spaces {
            for what in [Watched::Writes, Watched::Changes] {
                compare(&Stops {
                    watches: vec![watch(space, start, 8, what)],
                    ..Stops::default()
                });
            }
        }
        compare(&Stops {
            watches: vec![watch(WatchSpace::Virtual, stack, 8, Watched::Reads)],
            ..Stops::default()
        });
    }
    assert!(whole > 12, "only {whole} walks went both ways");
    assert!(some > 12, "only {some} walks found anything");
}

#[test]
fn a_damaged_trail_is_said_and_the_stretch_replayed() {
    let sandbox = Sandbox::new();
    let whole = boot(&sandbox, "whole.clt", "20000000");
    let trails = whole.chunks().iter();
    let mut trails = trails.filter(|entry| entry.header.kind == ChunkKind::Trail);
    let body = trails.nth(1).unwrap().body_offset();
    let mut bytes = std::fs::read(sandbox.path("whole.clt")).unwrap();
    bytes[body as usize + 9] ^= 0x40;
    sandbox.file("damaged.clt", &bytes);
    let damaged = Reader::open(sandbox.path("damaged.clt")).unwrap();
    let mut timeline = Timeline::open(&damaged).unwrap();
    let address = timeline.hooks().unwrap().address_of("panic").unwrap();
    let stops = Stops {
        breakpoints: vec![address],
        ..Stops::default()
    };
    let mut asked = 0;
    timeline
        .seek(Mark::at(timeline.last_tick()), &mut go_on)
        .unwrap();
    *timeline.stops() = stops;
    let halt = timeline.backward(&mut |_| {
        asked += 1;
        true
    });
    assert_eq!(halt.unwrap(), Halt::Start);
    assert!(asked >= 15, "the stretch is looked at: {asked}");
    let notes = timeline.take_notes();
    assert!(
        notes.len() == 1
            && notes[0].contains("damaged.clt")
            && notes[0].contains(&format!("{body:#x}"))
            && notes[0].ends_with("searches replay that stretch"),
        "{notes:?}"
    );
}
