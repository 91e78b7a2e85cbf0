//! What an event costs: for the vCPU thread, in the file, and to read again.
//!
//! But for `write-wall` and `place`, figures are CPU time of the thread that does the work, so that
//! another load on the machine changes less. `TRACER_BENCH_BYTES=1` prints the bytes per event.

mod guest;

use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use colinux_tracer::{
    EndReason, Event, EventKind, EventMask, Options, Reader, RecordEnd, StateDigest, Writer,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use guest::Guest;

const EVENTS: usize = 1 << 20;
/// Events between two pauses.
const ROUND: u64 = 8192;

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

fn record(path: &Path, events: &[(u64, Event)]) -> u64 {
    let mut writer = Writer::create(path, options()).expect("create");
    for (tick, event) in events {
        writer.push(*tick, event.clone()).expect("push");
    }
    let last = events.last().map_or(0, |(tick, _)| *tick);
    writer.finish(end(last)).expect("finish").bytes
}

fn push(c: &mut Criterion) {
    let mut group = c.benchmark_group("push");
    group.throughput(Throughput::Elements(1));
    // One small event again and again: the cost of handing over, not of making events. As in a
    // guest that makes a million events a second, the writer thread has time to catch up.
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

fn file(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("bench.clt");
    let events: Vec<_> = Guest::new().take(EVENTS).collect();
    let bytes = record(&path, &events);
    if std::env::var_os("TRACER_BENCH_BYTES").is_some() {
        let each = bytes as f64 / EVENTS as f64;
        let _ = writeln!(
            std::io::stdout(),
            "bytes per event: {each:.3} ({bytes} for {EVENTS})"
        );
    }
    let mut group = c.benchmark_group("file");
    group.sample_size(10);
    group.throughput(Throughput::Elements(EVENTS as u64));
    group.bench_function("write-wall", |bench| bench.iter(|| record(&path, &events)));
    let reader = Reader::open(&path).expect("open");
    group.bench_function("scan", |bench| {
        bench.iter_custom(|count| {
            spent(count, || {
                black_box(reader.events().map(|row| row.expect("row").tick).max());
            })
        });
    });
    let rare = EventMask::of(&[EventKind::TimerProgram]);
    group.bench_function("scan-one-kind", |bench| {
        bench.iter_custom(|count| {
            spent(count, || {
                black_box(reader.events().with_kinds(rare).count());
            })
        });
    });
    group.finish();
    let mut group = c.benchmark_group("place");
    let last = reader.ticks().expect("ticks").1;
    let mut at = 1;
    group.bench_function("open", |bench| {
        bench.iter(|| Reader::open(&path).expect("open"))
    });
    group.bench_function("seek-and-read-one", |bench| {
        bench.iter(|| {
            at = (at + last / 1000 * 617) % last;
            let mut cursor = reader.events();
            cursor.seek_tick(at).expect("seek");
            cursor.next()
        });
    });
    group.finish();
}

criterion_group!(benches, push, file);
criterion_main!(benches);
