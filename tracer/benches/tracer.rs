//! What an event costs: for the vCPU thread, for the writer, in the file, and to find and read again.
//!
//! `TRACER_BENCH=FILE.clt` names a recording of a real guest; its events are what is written and
//! read, and where more are needed they are repeated, each time moved on by its length. Figures of
//! one thread are its CPU time, so that another load on the machine changes less.

use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use colinux_tracer::{
    EndReason, Event, EventKind, EventMask, Options, Reader, RecordEnd, Scan, StateDigest, Writer,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Events between two pauses.
const ROUND: u64 = 8192;
/// Events of the file that stands for a long recording.
const LONG: u64 = 1_000_000_000;

type Rows = Vec<(u64, Event)>;

/// CPU time of this thread so far. The kernel brings it up to date when the thread yields.
fn thread_time() -> Duration {
    thread::yield_now();
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = stat.split(' ').next().and_then(|first| first.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

/// The CPU time of doing something so many times.
fn spent(count: u64, mut work: impl FnMut()) -> Duration {
    let start = thread_time();
    (0..count).for_each(|_| work());
    thread_time() - start
}

fn say(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn end(tick: u64) -> RecordEnd {
    RecordEnd {
        reason: EndReason::Stopped,
        tick,
        digest: StateDigest::default(),
    }
}

fn options() -> Options {
    Options {
        overwrite: true,
        sync: false,
        ..Options::default()
    }
}

/// The events of the recording that the environment names.
fn real() -> Option<Arc<Rows>> {
    let Some(path) = std::env::var_os("TRACER_BENCH") else {
        say(format_args!(
            "TRACER_BENCH names no recording; make one with `colinux-trace record -o FILE.clt -- COMMAND`"
        ));
        return None;
    };
    let reader = Reader::open(path).expect("open");
    let rows = reader.events().map(|row| row.expect("a row"));
    Some(Arc::new(rows.map(|row| (row.tick, row.event)).collect()))
}

/// Writes the events so many times over, and gives the length of the file.
fn record(path: &Path, events: &Rows, times: u64) -> u64 {
    let mut writer = Writer::create(path, options()).expect("create");
    let length = events.last().map_or(0, |(tick, _)| *tick + 1);
    for time in 0..times {
        for (tick, event) in events {
            writer
                .push(time * length + tick, event.clone())
                .expect("push");
        }
    }
    writer.finish(end(times * length)).expect("finish").bytes
}

fn push(c: &mut Criterion) {
    let mut group = c.benchmark_group("push");
    group.sample_size(10);
    group.throughput(Throughput::Elements(1));
    // One event again and again: the cost of handing over, not of making events. As in a guest that
    // makes a million events a second, the writer thread has time to catch up.
    group.bench_function("vcpu-thread", |bench| {
        bench.iter_custom(|count| {
            let mut writer = Writer::create("/dev/null", options()).expect("create");
            let (mut total, mut tick) = (Duration::ZERO, 0);
            while tick < count {
                let round = (count - tick).min(ROUND);
                total += spent(round, || {
                    let rip = black_box(0xffff_ffff_8100_0000 + tick);
                    let event = Event::IrqDeliver {
                        vector: 0xec,
                        rip,
                        cpl: 0,
                        latency: 3,
                    };
                    writer.push(tick, event).expect("push");
                    tick += 1;
                });
                thread::sleep(Duration::from_millis(1));
            }
            total.max(Duration::from_nanos(1))
        });
    });
    group.finish();
}

/// The CPU time of the threads of this process that were not there before: the writer's.
fn writer_time(events: &Rows, times: u64) -> Duration {
    let process = || {
        let mut total = Duration::ZERO;
        for task in std::fs::read_dir("/proc/self/task")
            .expect("tasks")
            .flatten()
        {
            let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            let stat = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let spent = stat.split(' ').next().and_then(|first| first.parse().ok());
            if name.trim() == "trace-writer" {
                total += Duration::from_nanos(spent.unwrap_or(0));
            }
        }
        total
    };
    let mut writer = Writer::create("/dev/null", options()).expect("create");
    let length = events.last().map_or(0, |(tick, _)| *tick + 1);
    for time in 0..times {
        for (tick, event) in events {
            writer
                .push(time * length + tick, event.clone())
                .expect("push");
        }
    }
    writer.flush().expect("flush");
    let spent = process();
    drop(writer);
    spent
}

fn write(c: &mut Criterion) {
    let Some(events) = real() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let bytes = record(&dir.path().join("bench.clt"), &events, 1);
    let each = bytes as f64 / events.len() as f64;
    say(format_args!(
        "{} events, {each:.3} bytes each in a file of their own",
        events.len()
    ));
    let mut group = c.benchmark_group("write");
    group.sample_size(10);
    let times = 1 + 2_000_000 / events.len() as u64;
    group.throughput(Throughput::Elements(times * events.len() as u64));
    group.bench_function("writer-thread", |bench| {
        bench.iter_custom(|count| (0..count).map(|_| writer_time(&events, times)).sum());
    });
    group.finish();
}

fn read(c: &mut Criterion) {
    let Some(events) = real() else { return };
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("bench.clt");
    let times = 1 + 2_000_000 / events.len() as u64;
    record(&path, &events, times);
    let count = times * events.len() as u64;
    let reader = Reader::open(&path).expect("open");
    let mut group = c.benchmark_group("read");
    group.sample_size(10);
    group.throughput(Throughput::Elements(count));
    group.bench_function("every-event", |bench| {
        bench.iter_custom(|count| {
            spent(count, || {
                black_box(reader.events().map(|row| row.expect("row").tick).max());
            })
        });
    });
    for kind in [
        EventKind::GuestPf,
        EventKind::TaskSwitch,
        EventKind::PassageLeave,
    ] {
        // On one thread, so that its CPU time is that of one core.
        let scan = Scan {
            kinds: EventMask::of(&[kind]),
            threads: 1,
            ..Scan::default()
        };
        group.bench_function(format!("scan-{kind}"), |bench| {
            bench.iter_custom(|count| {
                spent(count, || {
                    let see = |found: &mut u64, tick: u64, _, _: &Event| *found += tick & 1;
                    black_box(reader.scan(&scan, see).expect("scan"));
                })
            });
        });
    }
    group.finish();
}

/// A recording of a thousand million events: the chunks of the real stream, repeated.
fn long(c: &mut Criterion) {
    let Some(events) = real() else { return };
    if std::env::var_os("TRACER_BENCH_LONG").is_none() {
        say(format_args!(
            "TRACER_BENCH_LONG=1 measures a file of {LONG} events too"
        ));
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("long.clt");
    let began = Instant::now();
    let bytes = record(&path, &events, LONG / events.len() as u64 + 1);
    say(format_args!(
        "{bytes} bytes, written in {:.1?}",
        began.elapsed()
    ));
    let mut group = c.benchmark_group("long");
    group.sample_size(20);
    group.bench_function("open", |bench| {
        bench.iter(|| Reader::open(&path).expect("open"))
    });
    let reader = Reader::open(&path).expect("open");
    let last = reader.ticks().expect("ticks").1;
    let mut at = 1;
    group.bench_function("seek-and-read-one", |bench| {
        bench.iter(|| {
            at = (at + last / 1000 * 617) % last;
            let mut cursor = reader.events();
            cursor.seek_tick(at).expect("seek");
            cursor.next()
        });
    });
    drop(reader);
    // As kill -9 leaves it: without its index.
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .expect("open");
    file.set_len(bytes - 10).expect("cut");
    group.bench_function("open-without-index", |bench| {
        bench.iter(|| Reader::open(&path).expect("open"));
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    targets = push, write, read, long
}
criterion_main!(benches);
