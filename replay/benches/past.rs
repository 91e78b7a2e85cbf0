//! How long journeys in a recording take: `RECORDING=boot.clt cargo bench -p colinux-replay`.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that prints figures"
)]

use std::time::{Duration, Instant};

use colinux_driver::debug::WatchSpace;
use colinux_driver::jit::Tier;
use colinux_replay::session::Progress;
use colinux_replay::watch::{Watched, watch};
use colinux_replay::{Halt, Mark, NoSink, Session, Timeline};
use colinux_tracer::{EventMask, Reader};

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

/// CPU time of the process so far, all threads; 0 where the host does not say.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks.filter_map(|n| n.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn timed<T>(what: impl FnOnce() -> T) -> (Duration, T) {
    let began = Instant::now();
    let result = what();
    (began.elapsed(), result)
}

fn report(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)];
    println!(
        "{name:<34} p50 {:>10.3?}  p95 {:>10.3?}  most {:>10.3?}  of {}",
        at(50),
        at(95),
        at(100),
        times.len()
    );
}

fn open(reader: &Reader) -> Timeline {
    Timeline::open(reader).expect("the recording opens")
}

fn seek(timeline: &mut Timeline, tick: u64) {
    let arrived = timeline.seek(Mark::at(tick), &mut go_on);
    assert!(matches!(arrived, Ok(Halt::Arrived)), "{arrived:?}");
}

/// The whole recording once, forward; as `replay` does it.
fn forward(reader: &Reader) -> Duration {
    let mut session = Session::with_events(reader, EventMask::NONE).expect("it opens");
    session.runner_mut().machine_mut().set_tier(Tier::One);
    let (time, ()) = timed(|| {
        loop {
            match session.advance(u64::MAX, &mut NoSink).expect("it replays") {
                Progress::End(_) => break,
                Progress::Lost(why) => panic!("{why}"),
                _ => _ = session.runner_mut().machine_mut().take_console(),
            }
        }
    });
    time
}

/// The whole recording backward, with nothing to find.
fn backward(timeline: &mut Timeline, last: u64, prepare: impl Fn(&mut Timeline)) -> Duration {
    seek(timeline, last);
    *timeline.stops() = Default::default();
    prepare(timeline);
    let (time, halt) = timed(|| timeline.backward(&mut go_on).expect("it searches"));
    assert_eq!(halt, Halt::Start);
    *timeline.stops() = Default::default();
    time
}

/// How long a journey goes on after somebody wants it to end, at moments spread over the time it takes:
/// what lies between Ctrl-C and gdb's prompt.
fn interrupted(
    name: &str,
    reader: &Reader,
    begin: impl Fn(&mut Timeline),
    journey: impl Fn(&mut Timeline, &mut dyn FnMut(u64) -> bool) -> Halt,
) {
    let ready = || {
        let mut timeline = open(reader);
        begin(&mut timeline);
        timeline
    };
    let mut timeline = ready();
    let whole = timed(|| journey(&mut timeline, &mut go_on)).0;
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let late = (0..30).filter_map(|_| {
        let mut timeline = ready();
        let patience = whole.mul_f64(dice.below(900) as f64 / 1000.0);
        let began = Instant::now();
        let halt = journey(&mut timeline, &mut |_| began.elapsed() < patience);
        // One that was quicker than the first has ended by itself.
        (halt == Halt::Interrupted).then(|| began.elapsed() - patience)
    });
    report(name, late.collect());
}

fn main() {
    let Some(path) = std::env::var_os("RECORDING") else {
        eprintln!("RECORDING names no recording: nothing is measured");
        return;
    };
    let reader = Reader::open(&path).expect("a recording");
    let (opening, timeline) = timed(|| open(&reader));
    let last = timeline.last_tick();
    println!(
        "ticks {last}, threads {:?}",
        std::thread::available_parallelism()
    );
    println!("open                               {opening:.3?}");
    let (attach, _) = timed(|| seek(&mut open(&reader), last));
    println!("open and go to the end             {attach:.3?}");
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);

    let mut timeline = open(&reader);
    let seeks = (0..300).map(|_| {
        let to = dice.below(last);
        timed(|| seek(&mut timeline, to)).0
    });
    report("seek, from the first", seeks.collect());

    let mut first = Vec::new();
    let mut later = Vec::new();
    for _ in 0..60 {
        seek(&mut timeline, dice.below(last - 1000) + 500);
        for n in 0..10 {
            let (time, _) = timed(|| timeline.step_back().expect("it steps"));
            if n == 0 { &mut first } else { &mut later }.push(time);
        }
    }
    report("reverse-stepi, the first at a place", first);
    report("reverse-stepi, the others", later);

    let before = cpu();
    let ahead = forward(&reader);
    let ahead_cpu = cpu() - before;
    let mips = last as f64 / ahead.as_secs_f64() / 1e6;
    println!("forward, all of it                 {ahead:.3?}  {mips:.0} M/s, CPU {ahead_cpu:.2} s");
    let said = |name: &str, search: &mut dyn FnMut() -> Duration| {
        let before = cpu();
        let time = search();
        let cpu = cpu() - before;
        let ratio = ahead.as_secs_f64() / time.as_secs_f64();
        println!("{name:<34} {time:.3?}  {ratio:.2} times forward, CPU {cpu:.2} s");
    };
    // A breakpoint where no instruction is, a watch on what nobody writes.
    let nowhere = 0xffff_ffff_ffff_0001;
    let breakpoint = |t: &mut Timeline| t.stops().breakpoints.push(nowhere);
    let watched = |t: &mut Timeline| {
        let watch = watch(WatchSpace::Virtual, nowhere, 8, Watched::Changes);
        t.stops().watches.push(watch);
    };
    let mut fresh = open(&reader);
    said("reverse-continue, all, breakpoint", &mut || {
        backward(&mut fresh, last, breakpoint)
    });
    said("the same once more", &mut || {
        backward(&mut fresh, last, breakpoint)
    });
    // Inside instructions of pages that are run all the time, so that nothing can be passed over.
    let names = ["kmem_cache_alloc", "schedule", "memset", "__memcpy"];
    let busy = names.map(|name| fresh.hooks().and_then(|hooks| hooks.address_of(name)));
    let stop_at_busy = |timeline: &mut Timeline| {
        let busy = busy.iter().flatten().map(|at| at + 1);
        timeline.stops().breakpoints.extend(busy);
    };
    said("breakpoints in busy pages", &mut || {
        backward(&mut fresh, last, stop_at_busy)
    });
    let mut fresh = open(&reader);
    said("reverse-continue, all, watchpoint", &mut || {
        backward(&mut fresh, last, watched)
    });
    let from_the_end = |timeline: &mut Timeline| {
        seek(timeline, last);
        stop_at_busy(timeline);
    };
    interrupted(
        "interrupt: reverse-continue",
        &reader,
        from_the_end,
        |timeline, keep_going| timeline.backward(keep_going).expect("it searches"),
    );
    interrupted(
        "interrupt: continue",
        &reader,
        stop_at_busy,
        |timeline, keep_going| timeline.forward(keep_going).expect("it searches"),
    );
    if reader.checkpoints().is_ok_and(|all| all.is_empty()) {
        // With checkpoints, it is over before anybody could want it to end.
        interrupted(
            "interrupt: seek to the end",
            &reader,
            |_| (),
            |timeline, keep_going| timeline.seek(Mark::at(last), keep_going).expect("it seeks"),
        );
    }
    let checkpoints = reader.checkpoints().expect("checkpoints");
    let raw: u64 = checkpoints.iter().map(|info| info.len).sum();
    println!(
        "checkpoints in the file            {} of {raw} bytes unpacked",
        checkpoints.len()
    );
}
