//! Walking in a recording of a real kernel, both ways: wherever a walk comes from, a place is the
//! same state to the last bit.

mod common;

use colinux_driver::debug::{DebugPlan, WatchSpace};
use colinux_driver::jit::Tier;
use colinux_driver::tick::Tick;
use colinux_replay::session::Progress;
use colinux_replay::watch::{Watched, watch};
use colinux_replay::{Halt, Mark, NoSink, Session, Timeline, Verdict, verify, verify_on};
use colinux_tracer::{ChunkKind, Options, Reader, StateDigest, Writer};
use common::Sandbox;

/// The same walk in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

fn go_on(_: u64) -> bool {
    true
}

/// A boot, cut off after so many ticks, on which later tests walk.
fn boot(sandbox: &Sandbox, until: &str) -> Reader {
    let kernel = common::kernel("6.1");
    let path = sandbox.path("boot.clt");
    let path = path.to_str().unwrap();
    let what = [
        "record", "--kernel", &kernel, "--memory", "128M", "-o", path,
    ];
    // No multiple of anything else that the machine stops for.
    let how = ["--until", until, "--checkpoint-interval", "7777777"];
    sandbox.ok(&[what.as_slice(), &how].concat());
    Reader::open(path).unwrap()
}

/// The digests at places, in order, on a machine that only runs forward.
fn straight(reader: &Reader, marks: &[Mark]) -> Vec<StateDigest> {
    let mut session = Session::open(reader).unwrap();
    let mut digests = Vec::new();
    for mark in marks {
        let machine = session.runner_mut().machine_mut();
        machine.debug(&DebugPlan::default());
        while machine_tick(&session) < mark.tick {
            match session.advance(mark.tick, &mut NoSink).unwrap() {
                Progress::Reached | Progress::End(_) => break,
                Progress::More => {}
                Progress::Lost(why) => panic!("{why}"),
            }
        }
        if mark.tick < session.last_tick() {
            let plan = DebugPlan {
                from: Some((*mark).into()),
                ..DebugPlan::default()
            };
            session.runner_mut().machine_mut().debug(&plan);
            loop {
                session.advance(mark.tick + 1, &mut NoSink).unwrap();
                if session
                    .runner_mut()
                    .machine_mut()
                    .take_debug_stop()
                    .is_some()
                {
                    break;
                }
                assert_eq!(machine_tick(&session), mark.tick);
            }
            assert_eq!(session.runner().machine().arrival(), (*mark).into());
        }
        digests.push(session.runner_mut().digest());
    }
    digests
}

fn machine_tick(session: &Session) -> u64 {
    let Tick(tick) = session.runner().machine().tick();
    tick
}

fn rip(timeline: &Timeline) -> u64 {
    timeline.machine().core().cpu.rip
}

/// After going back to a stop, going forward from there must not find another before `from`.
fn is_the_last_stop_before(timeline: &mut Timeline, from: Mark, halt: Halt) {
    let at = timeline.at();
    assert!(at < from, "{at} {from}");
    if matches!(halt, Halt::Watch(_)) {
        // Forward, the access stops behind itself.
        let Halt::Watch(hit) = timeline.forward(&mut go_on).unwrap() else {
            panic!("the access at {at} is not found going forward")
        };
        assert_eq!(Mark::from(hit.during), at);
        assert!(timeline.at() <= from);
        // And back again from right behind it.
        assert!(matches!(
            timeline.backward(&mut go_on).unwrap(),
            Halt::Watch(_)
        ));
        assert_eq!(timeline.at(), at);
        timeline.step().unwrap();
        assert!(matches!(timeline.step_back().unwrap(), Halt::Watch(_)));
        assert_eq!(timeline.at(), at);
        timeline.forward(&mut go_on).unwrap();
        if timeline.at() == from {
            return;
        }
    }
    match timeline.forward(&mut go_on).unwrap() {
        Halt::Watch(hit) => assert!(Mark::from(hit.during) >= from, "{hit:?} from {from}"),
        _ => assert!(timeline.at() >= from, "{} from {from}", timeline.at()),
    }
}

#[test]
fn a_random_walk_sees_what_a_straight_run_sees() {
    let sandbox = Sandbox::new();
    // Another end, as @1.2G for the whole of a boot, takes minutes.
    let until = std::env::var("COLINUX_TEST_WALK_UNTIL").unwrap_or_else(|_| "@80M".to_owned());
    let reader = boot(&sandbox, &until);
    let mut timeline = Timeline::open(&reader).unwrap();
    let last = timeline.last_tick();
    assert!(last >= 80_000_000);
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut seen = vec![(timeline.at(), timeline.digest())];
    let mut backs = 0;
    for round in 0..2_000 {
        let at = timeline.at();
        match dice.below(100) {
            0..3 => {
                timeline
                    .seek(Mark::at(dice.below(last + 1)), &mut go_on)
                    .unwrap();
            }
            3..20 => {
                let to = (at.tick + dice.below(100_000))
                    .saturating_sub(50_000)
                    .min(last);
                assert_eq!(
                    timeline.seek(Mark::at(to), &mut go_on).unwrap(),
                    Halt::Arrived
                );
                assert_eq!(timeline.at(), Mark::at(to));
            }
            20..50 => {
                timeline.step().unwrap();
            }
            50..80 => {
                if timeline.step_back().unwrap() == Halt::Arrived && round % 4 == 0 {
                    let before = timeline.at();
                    assert!(before < at);
                    timeline.step().unwrap();
                    assert_eq!(timeline.at(), at, "back to {before} and forward again");
                }
            }
            80..90 => {
                timeline.stops().breakpoints = vec![rip(&timeline)];
                // Somewhere else, so that there is something to find; now and then so far away
                // that all cores search.
                let far = at.tick.saturating_add(dice.below(20_000));
                let to = if round % 9 == 0 { last } else { far.min(last) };
                timeline.seek(Mark::at(to), &mut go_on).unwrap();
                let from = timeline.at();
                let halt = timeline.backward(&mut go_on).unwrap();
                if halt == Halt::Breakpoint {
                    backs += 1;
                    assert_eq!(rip(&timeline), timeline.stops().breakpoints[0]);
                    let here = (timeline.at(), timeline.digest());
                    seen.push(here);
                    is_the_last_stop_before(&mut timeline, from, halt);
                } else if from > Mark::at(0) {
                    is_the_last_stop_before(&mut timeline, from, halt);
                }
                *timeline.stops() = Default::default();
            }
            _ => {
                let stack = timeline.machine().core().cpu.regs[4];
                let what = [Watched::Writes, Watched::Accesses, Watched::Changes];
                let what = what[dice.below(3) as usize];
                let space = WatchSpace::Virtual;
                timeline.stops().watches = vec![watch(space, stack & !7, 8, what)];
                let to = (at.tick + dice.below(20_000)).min(last);
                timeline.seek(Mark::at(to), &mut go_on).unwrap();
                let from = timeline.at();
                let halt = timeline.backward(&mut go_on).unwrap();
                if matches!(halt, Halt::Watch(_)) {
                    backs += 1;
                    seen.push((timeline.at(), timeline.digest()));
                    is_the_last_stop_before(&mut timeline, from, halt);
                } else if from > Mark::at(0) {
                    is_the_last_stop_before(&mut timeline, from, halt);
                }
                *timeline.stops() = Default::default();
            }
        }
        seen.push((timeline.at(), timeline.digest()));
    }
    assert!(backs > 100, "only {backs} runs backward found anything");
    seen.sort_by_key(|(mark, _)| *mark);
    let marks: Vec<Mark> = seen.iter().map(|(mark, _)| *mark).collect();
    for ((mark, digest), expected) in seen.iter().zip(straight(&reader, &marks)) {
        assert_eq!(*digest, expected, "at {mark}");
    }
}

#[test]
fn both_ends_of_history_and_interruptions() {
    let sandbox = Sandbox::new();
    let reader = boot(&sandbox, "@5M");
    let mut timeline = Timeline::open(&reader).unwrap();
    assert_eq!(timeline.step_back().unwrap(), Halt::Start);
    assert_eq!(timeline.backward(&mut go_on).unwrap(), Halt::Start);
    assert_eq!(timeline.at(), Mark::default());
    let start = timeline.digest();
    assert_eq!(timeline.forward(&mut go_on).unwrap(), Halt::End);
    assert_eq!(timeline.at(), Mark::at(5_000_000));
    assert_eq!(timeline.step().unwrap(), Halt::End);
    assert_eq!(timeline.digest(), reader.end().unwrap().unwrap().digest);
    assert!(timeline.seek(Mark::at(5_000_001), &mut go_on).is_err());
    // An interrupted run stands at an exact place as well.
    let mut asked = 0;
    let mut twice = |_| {
        asked += 1;
        asked < 2
    };
    timeline.seek(Mark::at(1), &mut go_on).unwrap();
    assert_eq!(timeline.forward(&mut twice).unwrap(), Halt::Interrupted);
    let (at, digest) = (timeline.at(), timeline.digest());
    assert!(at.tick > 1 && at.tick < 5_000_000, "{at}");
    assert_eq!(straight(&reader, &[at]), [digest]);
    timeline.seek(Mark::at(4_000_000), &mut go_on).unwrap();
    assert_eq!(
        timeline.backward(&mut |_| false).unwrap(),
        Halt::Interrupted
    );
    assert_eq!(timeline.backward(&mut go_on).unwrap(), Halt::Start);
    assert_eq!(timeline.digest(), start);
}

/// Where the body of the last piece before a checkpoint is, for each checkpoint.
fn pieces(reader: &Reader) -> Vec<u64> {
    let mut piece = 0;
    let mut found = Vec::new();
    for entry in reader.chunks() {
        match entry.header.kind {
            ChunkKind::Piece => piece = entry.offset + u64::from(entry.header.len),
            ChunkKind::Checkpoint => found.push(piece),
            _ => {}
        }
    }
    found
}

#[test]
fn a_damaged_checkpoint_is_said_and_an_earlier_one_used() {
    let sandbox = Sandbox::new();
    let reader = boot(&sandbox, "@50M");
    let path = reader.path().to_owned();
    let straight = |reader: &Reader| {
        let mut timeline = Timeline::open(reader).unwrap();
        timeline.seek(Mark::at(45_000_000), &mut go_on).unwrap();
        let nearest = timeline
            .checkpoints()
            .ticks()
            .filter(|t| *t % 7_777_777 == 0);
        let nearest = nearest.max();
        (timeline.digest(), nearest, timeline.take_notes())
    };
    let (digest, nearest, notes) = straight(&reader);
    assert_eq!((nearest, notes.len()), (Some(5 * 7_777_777), 0));
    let places = pieces(&reader);
    assert_eq!(places.len(), 7);
    let whole = std::fs::read(&path).unwrap();
    for (damaged, expected) in [(4, 4), (1, 1), (0, 0)] {
        let mut bytes = whole.clone();
        bytes[places[damaged] as usize + 9] ^= 0x40;
        let reader = Reader::from_bytes("damaged.clt", bytes).unwrap();
        let (again, nearest, notes) = straight(&reader);
        assert_eq!(again, digest);
        assert_eq!(nearest, Some(expected * 7_777_777));
        let said = notes.join("\n");
        let tick = (damaged as u64 + 1) * 7_777_777;
        assert!(
            said.contains(&format!("at @{tick} cannot be used")),
            "{said}"
        );
        assert!(said.contains("damaged.clt"), "{said}");
    }
    // One that is whole and is not what it says.
    let mut writer = Writer::append(&path, Options::default()).unwrap();
    let info = reader.checkpoints().unwrap();
    let body = reader.checkpoint(&info[2]).unwrap();
    writer
        .checkpoint(info[2].tick + 1, 70, info[2].state, body)
        .unwrap();
    let body = reader.checkpoint(&info[0]).unwrap();
    writer
        .checkpoint(44_000_000, 71, info[2].state, body)
        .unwrap();
    writer
        .checkpoint(44_000_001, 72, info[2].state, *b"")
        .unwrap();
    writer
        .checkpoint(44_000_002, 73, info[2].state, vec![1; 5000])
        .unwrap();
    writer.close().unwrap();
    let (again, nearest, notes) = straight(&Reader::open(&path).unwrap());
    assert_eq!((again, nearest), (digest, Some(5 * 7_777_777)));
    assert_eq!(notes.len(), 3, "{notes:?}");
}

fn compared(verdict: Option<Verdict>) -> (u64, u64, u64) {
    match verdict {
        Some(Verdict::Same(all)) => (all.tick, all.events, all.digests),
        other => panic!("{other:?}"),
    }
}

#[test]
fn parts_are_verified_as_the_whole_is() {
    let sandbox = Sandbox::new();
    let reader = boot(&sandbox, "@60M");
    let whole = compared(verify(&reader, Tier::One, &mut go_on).unwrap());
    assert!(whole.1 > 100 && whole.2 > 5, "{whole:?}");
    for threads in [2, 3, 8, 64] {
        let parts = verify_on(threads, &reader, Tier::One, &mut go_on).unwrap();
        assert_eq!(compared(parts), whole, "{threads}");
    }
    assert!(
        verify_on(2, &reader, Tier::One, &mut |_| false)
            .unwrap()
            .is_none()
    );
}

#[test]
fn a_divergence_is_diagnosed() {
    let sandbox = Sandbox::new();
    let kernel = common::kernel("6.1");
    let mut paths = Vec::new();
    // Two guests that are the same but for a word that the kernel reads late.
    for word in ["one", "two"] {
        let path = sandbox.path(&format!("{word}.clt"));
        let append = format!("difference={word}");
        let what = [
            "record", "--kernel", &kernel, "--memory", "128M", "--append", &append,
        ];
        let how = ["--until", "@60M", "--checkpoint-interval", "7777777", "-o"];
        let path = path.to_str().unwrap().to_owned();
        sandbox.ok(&[&what[..], &how, &[path.as_str()]].concat());
        paths.push(path);
    }
    // The events of one with the manifest of the other.
    let (one, two) = (
        Reader::open(&paths[0]).unwrap(),
        Reader::open(&paths[1]).unwrap(),
    );
    let mixed = sandbox.path("mixed.clt");
    let mut writer = Writer::create(&mixed, Options::default()).unwrap();
    writer.manifest(&two.manifest().unwrap()).unwrap();
    for info in one.boot_files().unwrap() {
        let bytes = one.boot_file(&info.name).unwrap();
        writer.boot_file(&info.name, bytes).unwrap();
    }
    for row in one.events() {
        let row = row.unwrap();
        writer.push(row.tick, row.event).unwrap();
    }
    for info in one.checkpoints().unwrap() {
        let bytes = one.checkpoint(&info).unwrap();
        writer
            .checkpoint(info.tick, info.id, info.state, bytes)
            .unwrap();
    }
    writer.finish(one.end().unwrap().unwrap()).unwrap();
    let mixed = mixed.to_str().unwrap();
    for jobs in ["1", "3"] {
        let run = sandbox.run(&["verify", mixed, "-j", jobs]);
        assert_eq!(run.code, Some(3), "{run}");
        assert!(run.err.contains("the replay diverges at tick @"), "{run}");
        assert!(
            run.err.contains("  expected @") && run.err.contains("  actual "),
            "{run}"
        );
        assert!(
            run.err.contains("what differs at the checkpoint at @"),
            "{run}"
        );
        assert!(run.err.contains("  the page at 0x"), "{run}");
    }
}
