//! Positions that say how often a function has been entered.

mod common;

use colinux_driver::debug::{DebugPlan, DebugStop};
use colinux_replay::session::Progress;
use colinux_replay::{GuestKernel, Mark, NoSink, Position, PositionError, Session, Timeline};
use colinux_tracer::Reader;
use common::Sandbox;

/// Where a machine that only runs forward comes to an instruction, from first to last.
fn arrivals(reader: &Reader, address: u64) -> Vec<Mark> {
    let mut session = Session::open(reader).unwrap();
    let mut plan = DebugPlan {
        breakpoints: vec![address],
        ..Default::default()
    };
    session.runner_mut().machine_mut().debug(&plan);
    let mut found = Vec::new();
    loop {
        match session.advance(u64::MAX, &mut NoSink).unwrap() {
            Progress::More => {}
            Progress::Reached | Progress::End(_) => return found,
            Progress::Lost(why) => panic!("{why}"),
        }
        let machine = session.runner_mut().machine_mut();
        if machine.take_debug_stop() == Some(DebugStop::Breakpoint) {
            let at = machine.arrival();
            found.push(Mark::from(at));
            plan.after = Some(at);
            machine.debug(&plan);
        }
    }
}

#[test]
fn a_function_is_found_by_how_often_it_has_been_entered() {
    let sandbox = Sandbox::new();
    let kernel = common::kernel("6.1");
    let what = ["record", "--kernel", &kernel, "--memory", "128M"];
    let how = ["--until", "@40M", "-o", "boot.clt"];
    sandbox.ok(&[what.as_slice(), &how].concat());
    let reader = Reader::open(sandbox.path("boot.clt")).unwrap();
    let mut timeline = Timeline::open(&reader).unwrap();
    let first = timeline.machine().core().cpu.rip;
    let names = GuestKernel::of(&reader).unwrap();
    let names = names.resolver(timeline.machine_mut());

    let address = names.address_of("_printk").unwrap().0;
    let marks = arrivals(&reader, address);
    assert!(marks.len() > 20, "{marks:?}");
    let mut find = |text: &str| {
        let position: Position = text.parse().unwrap();
        position.find(&reader, &mut timeline, &mut |_| true)
    };
    assert_eq!(find("bp:_printk").unwrap(), marks[0]);
    for nth in [1, 2, marks.len() / 2, marks.len()] {
        let mark = marks[nth - 1];
        assert_eq!(find(&format!("bp:_printk#{nth}")).unwrap(), mark, "{nth}");
        assert_eq!(find(&format!("bp:{address:#x}#{nth}")).unwrap(), mark);
    }
    let more = find(&format!("bp:_printk#{}", marks.len() + 1));
    assert!(
        matches!(&more, Err(PositionError::Fewer { count, .. }) if *count == marks.len() as u64),
        "{more:?}"
    );
    // The first instruction of all is come to as well.
    assert_eq!(find(&format!("bp:{first:#x}")).unwrap(), Mark::default());
    let position: Position = "bp:_printk#9".parse().unwrap();
    let stopped = position.find(&reader, &mut timeline, &mut |tick| tick > 39_000_000);
    assert!(
        matches!(stopped, Err(PositionError::Interrupted)),
        "{stopped:?}"
    );

    // At the front door.
    let there = format!("at tick {}, rip {address:#x}", marks[4]);
    let run = sandbox.ok(&["replay", "boot.clt", "--goto", "bp:_printk#5"]);
    assert!(run.err.contains(&there), "{run}");
    let tick = marks[4].tick;
    let dump = sandbox.ok(&["dump", "boot.clt", "--to", "bp:_printk#5"]);
    let same = sandbox.ok(&["dump", "boot.clt", "--to", &format!("@{tick}")]);
    assert_eq!(dump.out, same.out);
    let run = sandbox.run(&["bt", "boot.clt", "--at", "bp:start_kernel#2"]);
    assert_eq!(run.code, Some(1), "{run}");
    assert!(
        run.err.contains("`start_kernel` was entered only once;"),
        "{run}"
    );
    let run = sandbox.run(&["ps", "boot.clt", "--at", "bp:no_such_function"]);
    assert!(run.err.contains("no function `no_such_function`"), "{run}");
    let run = sandbox.run(&["ps", "boot.clt", "--at", "bp:_printk#0"]);
    assert_eq!(run.code, Some(2), "{run}");
}
