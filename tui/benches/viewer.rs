//! What a frame costs, and how soon the first one is there.
//!
//! `VIEWER_BENCH=FILE.clt` names a recording of a real guest, which is looked at; its events,
//! repeated, make the long one that `VIEWER_BENCH_LONG=1` measures as well. Figures of frames are
//! CPU time of the drawing thread, so that another load on the machine changes less.

use std::io::Write as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use colinux_replay::Mark;
use colinux_tracer::{EndReason, Event, Manifest, Options, Reader, RecordEnd, StateDigest, Writer};
use colinux_tui::action::Action;
use colinux_tui::command::Command;
use colinux_tui::panel::Panel;
use colinux_tui::{App, Palette, Places, Settings, Theme, view};
use criterion::{Criterion, criterion_group, criterion_main};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::layout::Rect;

/// Events of the file that stands for a long recording.
const LONG: u64 = 1_000_000_000;
const SIZES: [(u16, u16); 3] = [(80, 24), (120, 40), (240, 67)];

/// CPU time of this thread so far. The kernel brings it up to date when the thread yields.
fn thread_time() -> Duration {
    thread::yield_now();
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = stat.split(' ').next().and_then(|first| first.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

fn say(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn open(path: &Path, (width, height): (u16, u16)) -> (App, Terminal<TestBackend>) {
    let settings = Settings {
        theme: Theme::new(Palette::Full, false),
        places: Places::default(),
        area: Rect::new(0, 0, width, height),
    };
    let reader = Reader::open(path).expect("open");
    let app = App::open(reader, settings).expect("read");
    let terminal = Terminal::new(TestBackend::new(width, height)).expect("a screen in memory");
    (app, terminal)
}

fn settle(app: &mut App) {
    let began = Instant::now();
    while app.is_waiting() && began.elapsed() < Duration::from_secs(60) {
        app.wait(Duration::from_millis(5));
    }
}

fn draw(app: &App, terminal: &mut Terminal<TestBackend>) {
    let drawn = terminal.draw(|frame| {
        view::draw(&app.model, frame.buffer_mut());
    });
    drawn.expect("drawn");
}

/// The share of samples, in order, below which `percent` of them are.
fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() - 1) * percent / 100]
}

/// Keys and the frame after each, as they come in use.
fn frames(app: &mut App, terminal: &mut Terminal<TestBackend>, what: &str, actions: &[Action]) {
    let mut times = Vec::new();
    for action in actions.iter().cycle().take(400) {
        let start = thread_time();
        app.apply(*action);
        app.catch_up();
        draw(app, terminal);
        times.push(thread_time() - start);
        thread::sleep(Duration::from_millis(2));
    }
    let (half, most) = (percentile(&mut times, 50), percentile(&mut times, 99));
    say(format_args!(
        "{what}: {half:.0?} a key and its frame, {most:.0?} at the 99th of 100"
    ));
}

fn looked_at(c: &mut Criterion) {
    let Some(path) = std::env::var_os("VIEWER_BENCH") else {
        say(format_args!(
            "VIEWER_BENCH=FILE.clt names the recording to look at"
        ));
        return;
    };
    let path = Path::new(&path);
    let mut group = c.benchmark_group("frame");
    for size in SIZES {
        let (mut app, mut terminal) = open(path, size);
        settle(&mut app);
        app.command(Command::Go("50%".parse().expect("a position")));
        settle(&mut app);
        group.bench_function(format!("{}x{}", size.0, size.1), |bench| {
            bench.iter_custom(|count| {
                let start = thread_time();
                for _ in 0..count {
                    draw(&app, &mut terminal);
                }
                thread_time() - start
            });
        });
        use_it(&mut app, &mut terminal, size);
    }
    drop(group);
    rest(path);
}

fn use_it(app: &mut App, terminal: &mut Terminal<TestBackend>, size: (u16, u16)) {
    let at = |what: &str| format!("{what} at {}x{}", size.0, size.1);
    app.focus(Panel::Events);
    frames(app, terminal, &at("scroll"), &[Action::Down]);
    frames(app, terminal, &at("page"), &[Action::PageDown]);
    let zoom = [
        Action::ZoomIn,
        Action::ZoomIn,
        Action::ZoomIn,
        Action::ZoomOut,
        Action::ZoomOut,
        Action::ZoomOut,
    ];
    frames(app, terminal, &at("zoom"), &zoom);
    app.model.pattern = Some("page".to_owned());
    frames(app, terminal, &at("search step"), &[Action::SearchNext]);
    app.model.pattern = None;
}

/// The time from a jump until the machine's panels are filled.
fn rest(path: &Path) {
    let (mut app, _) = open(path, (120, 40));
    settle(&mut app);
    let last = app.model.file.last_tick;
    let mut times = Vec::new();
    let mut at = 1u64;
    for _ in 0..100 {
        at = (at + last / 1000 * 617) % last;
        let start = Instant::now();
        app.command(Command::Go(colinux_replay::Position::At(Mark::at(at))));
        while app.model.here().is_none() {
            app.wait(Duration::from_millis(1));
        }
        times.push(start.elapsed());
        settle(&mut app);
    }
    let (half, most) = (percentile(&mut times, 50), percentile(&mut times, 95));
    say(format_args!(
        "panels filled after {half:.0?}, {most:.0?} at the 95th of 100 jumps"
    ));
}

fn long(_: &mut Criterion) {
    let (Some(source), Some(_)) = (
        std::env::var_os("VIEWER_BENCH"),
        std::env::var_os("VIEWER_BENCH_LONG"),
    ) else {
        say(format_args!(
            "VIEWER_BENCH_LONG=1 measures a file of {LONG} events too"
        ));
        return;
    };
    let reader = Reader::open(&source).expect("open");
    let events: Vec<(u64, Event)> = reader
        .events()
        .map(|row| row.map(|row| (row.tick, row.event)).expect("an event"))
        .collect();
    let length = events.last().map_or(1, |(tick, _)| tick + 1);
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("long.clt");
    let options = Options {
        sync: false,
        ..Options::default()
    };
    let mut writer = Writer::create(&path, options).expect("create");
    writer.manifest(&Manifest::default()).expect("manifest");
    let rounds = LONG / events.len() as u64 + 1;
    for round in 0..rounds {
        for (tick, event) in &events {
            writer
                .push(round * length + tick, event.clone())
                .expect("push");
        }
    }
    let tick = rounds * length;
    let end = RecordEnd {
        reason: EndReason::Stopped,
        tick,
        digest: StateDigest::default(),
    };
    let summary = writer.finish(end).expect("finish");
    drop(events);
    say(format_args!(
        "{} events in {} bytes",
        summary.events, summary.bytes
    ));
    let before = resident();
    let start = Instant::now();
    let (mut app, mut terminal) = open(&path, (120, 40));
    draw(&app, &mut terminal);
    let first = start.elapsed();
    while app.model.events.rows.is_empty() {
        app.wait(Duration::from_millis(1));
    }
    draw(&app, &mut terminal);
    let rows = start.elapsed();
    while app.model.lanes.is_none() {
        app.wait(Duration::from_millis(1));
    }
    draw(&app, &mut terminal);
    let lanes = start.elapsed();
    say(format_args!(
        "first frame after {first:.1?}, with events after {rows:.1?}, with lanes after {lanes:.1?}"
    ));
    settle(&mut app);
    use_it(&mut app, &mut terminal, (120, 40));
    for position in ["50%", "end", "e777777777", "10%"] {
        app.command(Command::Go(position.parse().expect("a position")));
        settle(&mut app);
    }
    let mebibytes = resident().saturating_sub(before) >> 20;
    say(format_args!(
        "{mebibytes} MiB more than before it was opened"
    ));
}

/// Bytes of memory in use.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok());
    pages.unwrap_or(0) * 4096
}

criterion_group!(benches, looked_at, long);
criterion_main!(benches);
