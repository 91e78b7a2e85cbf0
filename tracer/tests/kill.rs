//! A process that is killed while it records: exactly what it had pushed, and what is in its file.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use colinux_tracer::{Event, Input, Options, Reader, Writer};

/// Names the folder in which the process that is killed works.
const FOLDER: &str = "TRACER_KILL_FOLDER";
/// Processes that are killed.
const KILLED: u64 = 50;
/// Events between inputs.
const INPUTS_APART: u64 = 1_000;

/// Numbers that look random, the same ones every time.
fn random(seed: u64) -> u64 {
    let mut x = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= x >> 31;
    x.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 11
}

/// Every event is another one, some of them long, so that chunks end by rows and by bytes.
fn event(number: u64) -> Event {
    match random(number) % 200 {
        0 if number / 200_000 % 2 == 1 => Event::ConsoleOut {
            port: 0,
            bytes: vec![number as u8; 20_000],
        },
        1 => Event::TaskSwitch {
            prev_pid: number as u32,
            prev_tid: 2,
            prev_state: 1,
            prev_comm: colinux_tracer::Comm::new(b"one"),
            next_pid: 3,
            next_tid: 4,
            next_comm: colinux_tracer::Comm::new(b"two"),
        },
        _ => Event::IrqDeliver {
            vector: 0xec,
            rip: random(number),
            cpl: 0,
            latency: number,
        },
    }
}

fn input(number: u64) -> Input {
    Input::ConsoleIn {
        port: 0,
        bytes: number.to_le_bytes().to_vec(),
    }
}

fn put(file: &File, number: u64) {
    file.write_all_at(&number.to_le_bytes(), 0).unwrap();
}

/// The process that is killed. Does nothing when it is run as a test like any other.
#[test]
fn records_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let folder = PathBuf::from(folder);
    let create = |name: &str| {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        options.open(folder.join(name)).unwrap()
    };
    let (pushed, acted) = (create("pushed"), create("acted"));
    let mut writer = Writer::create(folder.join("killed.clt"), Options::default()).unwrap();
    for number in 0.. {
        if number % INPUTS_APART == 0 {
            writer.input(number, input(number)).unwrap();
            writer.flush_inputs().unwrap();
            put(&acted, number + 1);
        }
        writer.push(number, event(number)).unwrap();
        // What was written so survives the process, and is never more than what was pushed.
        put(&pushed, number + 1);
    }
}

fn number_in(path: &Path) -> u64 {
    let bytes = fs::read(path).unwrap_or_default();
    bytes
        .first_chunk()
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[test]
fn a_killed_process_loses_less_than_a_chunk_and_no_input() {
    let chunk = u64::from(Options::default().chunk_rows);
    let (mut most, mut seen) = (0, 0);
    for round in 0..KILLED {
        let folder = tempfile::tempdir().unwrap();
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "records_until_it_is_killed"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // Killed as soon as it has come so far, whatever it does then.
        let goal = random(round) % 600_000;
        let began = Instant::now();
        while number_in(&folder.path().join("pushed")) < goal
            && began.elapsed() < Duration::from_secs(30)
        {
            thread::sleep(Duration::from_micros(200));
        }
        process.kill().unwrap();
        process.wait().unwrap();
        let pushed = number_in(&folder.path().join("pushed"));
        let acted = number_in(&folder.path().join("acted"));
        assert!(
            pushed >= goal,
            "round {round}: it got no further than {pushed}"
        );
        let path = folder.path().join("killed.clt");
        if pushed == 0 && !path.exists() {
            continue;
        }
        let Ok(reader) = Reader::open(&path) else {
            assert_eq!((pushed, acted), (0, 0), "round {round}");
            continue;
        };
        let kept = reader.event_count();
        for (number, row) in (0..).zip(reader.events()) {
            let row = row.unwrap();
            assert_eq!((row.tick, row.event), (number, event(number)));
        }
        let inputs = reader.inputs().unwrap();
        for (number, found) in (0..).step_by(INPUTS_APART as usize).zip(&inputs) {
            assert_eq!(*found, (number, input(number)), "round {round}");
        }
        assert!(
            inputs.last().map_or(0, |last| last.0 + 1) >= acted,
            "round {round}: acted on the input at {acted}"
        );
        // One event may have been pushed and not counted.
        let lost = (pushed + 1).saturating_sub(kept);
        assert!(lost <= chunk + 1, "round {round}: {lost} events are lost");
        // By bytes, chunks are shorter, and less is lost.
        let bytes: usize = (kept..pushed)
            .map(|number| event_bytes(&event(number)))
            .sum();
        assert!(
            bytes <= Options::default().chunk_bytes as usize + 20_100,
            "round {round}: {bytes} bytes are lost"
        );
        most = most.max(lost);
        seen += u64::from(kept > 0);
    }
    assert!(
        seen > KILLED / 2 && most > chunk / 2,
        "{seen} held events, the most lost is {most}"
    );
}

/// About as many bytes as the event takes before it is packed: never more than are counted for it.
fn event_bytes(event: &Event) -> usize {
    match event {
        Event::ConsoleOut { bytes, .. } => bytes.len(),
        _ => 10,
    }
}
