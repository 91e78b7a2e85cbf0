//! The hand-over to the writer thread, in every order in which the two threads can meet.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p colinux-tracer --test loom --release --target-dir target/loom`

#![cfg(loom)]

use std::ops::ControlFlow;

use colinux_tracer::handover::{Handover, Recycler, Reply, Taker};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};

/// Times that a thread is interrupted where it need not be, in one run; more of them take long. `LOOM_MAX_PREEMPTIONS` sets another number.
const PREEMPTIONS: usize = 3;

fn model(run: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(PREEMPTIONS);
    builder.check(run);
}

/// Rows that a disk has room for.
const DISK: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct DiskFull;

type Batch = Vec<u32>;
type Recording = Handover<Message, Batch, DiskFull>;

enum Message {
    Events(Batch),
    Inputs(Batch, Reply<()>),
    Finish(Reply<usize>),
}

/// What is in the file. Nothing here makes one thread wait for the other or see what it did: that is
/// the hand-over's task.
struct File {
    rows: [AtomicU32; DISK],
    len: AtomicUsize,
    /// Rows until it is full; it tells so once, and has room again.
    room: usize,
    told: AtomicBool,
}

impl File {
    fn new(room: usize) -> Arc<Self> {
        Arc::new(Self {
            rows: std::array::from_fn(|_| AtomicU32::new(0)),
            len: AtomicUsize::new(0),
            room,
            told: AtomicBool::new(false),
        })
    }

    fn write(&self, rows: &[u32]) -> Result<(), DiskFull> {
        for row in rows {
            let len = self.len.load(Relaxed);
            if len == self.room && !self.told.swap(true, Relaxed) {
                return Err(DiskFull);
            }
            self.rows[len].store(*row, Relaxed);
            self.len.store(len + 1, Relaxed);
        }
        Ok(())
    }

    fn rows(&self) -> Vec<u32> {
        let rows = self.rows[..self.len.load(Relaxed)].iter();
        rows.map(|row| row.load(Relaxed)).collect()
    }
}

/// The thread's end: the file, and after how many messages it leaves without a word.
struct Sink(Arc<File>, usize);

impl Taker<Message, Batch, DiskFull> for Sink {
    fn take(
        &mut self,
        message: &mut Message,
        recycler: &Recycler<Batch>,
    ) -> Result<ControlFlow<()>, DiskFull> {
        if self.1 == 0 {
            return Ok(ControlFlow::Break(()));
        }
        self.1 -= 1;
        match message {
            Message::Events(batch) => {
                let outcome = self.0.write(batch);
                batch.clear();
                recycler.recycle(std::mem::take(batch));
                outcome?;
            }
            Message::Inputs(rows, reply) => {
                self.0.write(rows)?;
                reply.answer(());
            }
            Message::Finish(reply) => {
                reply.answer(self.0.len.load(Relaxed));
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn give_up(self, error: &DiskFull) {
        assert_eq!(*error, DiskFull);
    }
}

fn start(file: &Arc<File>, room: usize, messages: usize) -> Recording {
    Handover::start("writer", room, Sink(Arc::clone(file), messages)).unwrap()
}

fn events(recording: &Recording, rows: &[u32]) -> Result<(), Option<DiskFull>> {
    let mut batch = recording.spare().unwrap_or_default();
    assert_eq!(batch, [], "a batch came back with rows in it");
    batch.extend(rows);
    recording.give(Message::Events(batch))
}

fn inputs(recording: &Recording, rows: &[u32]) -> Result<(), Option<DiskFull>> {
    recording.ask(|reply| Message::Inputs(rows.to_vec(), reply))
}

#[test]
fn what_is_given_is_written_in_order_through_a_full_queue() {
    for room in 1..=2 {
        model(move || {
            let file = File::new(DISK);
            let mut recording = start(&file, room, usize::MAX);
            for batch in [[1, 2], [3, 4], [5, 6]] {
                assert_eq!(events(&recording, &batch), Ok(()));
            }
            assert_eq!(recording.ask(Message::Finish), Ok(6));
            recording.end();
            assert_eq!(file.rows(), [1, 2, 3, 4, 5, 6]);
            assert_eq!(events(&recording, &[7]), Err(None));
        });
    }
}

#[test]
fn inputs_are_in_the_file_before_the_guest_goes_on() {
    model(|| {
        let file = File::new(DISK);
        let recording = start(&file, 1, usize::MAX);
        assert_eq!(events(&recording, &[1, 2]), Ok(()));
        assert_eq!(inputs(&recording, &[3]), Ok(()));
        assert_eq!(file.rows(), [1, 2, 3]);
        assert_eq!(events(&recording, &[4]), Ok(()));
        assert_eq!(inputs(&recording, &[5]), Ok(()));
        assert_eq!(file.rows(), [1, 2, 3, 4, 5]);
    });
}

#[test]
fn a_disk_that_fills_up_anywhere_is_told_and_nobody_waits_in_vain() {
    for room in 0..=6 {
        model(move || {
            let file = File::new(room);
            let mut recording = start(&file, 1, usize::MAX);
            let outcomes = [
                (2, events(&recording, &[1, 2])),
                (3, inputs(&recording, &[3])),
                (4, events(&recording, &[4])),
                (5, events(&recording, &[5])),
                (6, inputs(&recording, &[6])),
                (
                    6,
                    recording.ask(Message::Finish).map(|len| assert_eq!(len, 6)),
                ),
            ];
            recording.end();
            // What there was room for, and nothing after the first row that did not fit.
            assert_eq!(file.rows(), (1..=room as u32).collect::<Vec<_>>());
            let failed = outcomes.iter().position(|(_, outcome)| outcome.is_err());
            let failed = failed.unwrap_or(outcomes.len());
            for (at, (rows, outcome)) in outcomes.into_iter().enumerate() {
                if at >= failed {
                    assert_eq!(outcome, Err(Some(DiskFull)), "message {at} has no reason");
                } else if matches!(at, 1 | 4 | 5) {
                    assert!(
                        rows <= room,
                        "message {at} was confirmed and is not in the file"
                    );
                }
            }
            assert_eq!(failed == 6, room == 6);
        });
    }
}

#[test]
fn what_a_giver_gave_that_went_early_is_still_written() {
    model(|| {
        let file = File::new(DISK);
        let recording = start(&file, 2, usize::MAX);
        assert_eq!(events(&recording, &[1, 2]), Ok(()));
        assert_eq!(events(&recording, &[3]), Ok(()));
        drop(recording);
        assert_eq!(file.rows(), [1, 2, 3]);
    });
}

#[test]
fn a_thread_that_is_gone_is_noticed() {
    for messages in 0..=2 {
        model(move || {
            let file = File::new(DISK);
            let recording = start(&file, 1, messages);
            let given = [events(&recording, &[1]), events(&recording, &[2])];
            assert!(!given.contains(&Err(Some(DiskFull))));
            assert_eq!(inputs(&recording, &[3]), Err(None));
            assert_eq!(inputs(&recording, &[4]), Err(None));
        });
    }
}
