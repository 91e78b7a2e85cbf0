//! What an event costs: for the vCPU thread, in the file, and to read again.
//!
//! `TRACER_BENCH_BYTES=1` prints the bytes per event as well.

mod guest;

use std::hint::black_box;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use colinux_tracer::{
    EndReason, Event, EventKind, EventMask, Options, Reader, RecordEnd, StateDigest, Writer,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use guest::Guest;

const EVENTS: usize = 1 << 20;
/// Events that fit in the queue of the writer.
const ROUND: u64 = 100_000;

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
    writer.finish(end(u64::MAX)).expect("finish").bytes
}

fn push(c: &mut Criterion) {
    let mut group = c.benchmark_group("push");
    group.throughput(Throughput::Elements(1));
    // One small event again and again: the cost of handing over, not of making events. The queue
    // takes a round without waiting for the writer thread, which then catches up, unmeasured.
    group.bench_function("vcpu-thread", |bench| {
        bench.iter_custom(|count| {
            let mut writer = Writer::create("/dev/null", options()).expect("create");
            let (mut spent, mut tick) = (Duration::ZERO, 0);
            while tick < count {
                let round = (count - tick).min(ROUND);
                let start = Instant::now();
                for tick in tick..tick + round {
                    let rip = black_box(0xffff_ffff_8100_0000 + tick);
                    let event = Event::IrqDeliver {
                        vector: 0xec,
                        rip,
                        cpl: 0,
                        latency: 3,
                    };
                    writer.push(tick, event).expect("push");
                }
                spent += start.elapsed();
                tick += round;
                writer.flush().expect("flush");
            }
            spent
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
        bench.iter(|| reader.events().map(|row| row.expect("row").tick).max());
    });
    let rare = EventMask::of(&[EventKind::TimerProgram]);
    group.bench_function("scan-one-kind", |bench| {
        bench.iter(|| reader.events().with_kinds(rare).count());
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
