//! What takes time happens here, in threads of its own, so that drawing never waits.
//!
//! Every job has a ticket. Giving out the next ticket of the same counter calls the job off: workers
//! look at theirs as they go.

pub mod console;
pub mod file;
pub mod kernel;
pub mod lanes;
pub mod machine;
pub mod notes;
mod picture;
pub mod scan;
mod sources;
mod typed;
mod walk;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

/// Gives out tickets.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

/// A job's right to go on.
#[derive(Clone, Debug)]
pub struct Ticket {
    counter: Arc<AtomicU64>,
    number: u64,
}

impl Counter {
    /// A new ticket; those before are void.
    pub fn next(&self) -> Ticket {
        Ticket {
            number: self.0.fetch_add(1, Ordering::AcqRel) + 1,
            counter: Arc::clone(&self.0),
        }
    }

    /// Calls off whatever goes on.
    pub fn cancel(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

impl Ticket {
    /// Whether nobody has called it off.
    pub fn is_good(&self) -> bool {
        self.counter.load(Ordering::Acquire) == self.number
    }
}

/// A thread that does one job after the other.
#[derive(Debug)]
pub struct Worker<J> {
    jobs: Sender<J>,
}

impl<J: Send + 'static> Worker<J> {
    /// Starts one. It ends when this is dropped.
    pub fn start(name: &str, body: impl FnOnce(Receiver<J>) + Send + 'static) -> Self {
        let (jobs, inbox) = mpsc::channel();
        let thread = thread::Builder::new().name(name.to_owned());
        // Without a thread nothing is answered, which shows as waiting.
        let _ = thread.spawn(move || body(inbox));
        Worker { jobs }
    }

    /// Hands in a job.
    pub fn ask(&self, job: J) {
        // A worker is gone only if it has panicked, which has been reported then.
        let _ = self.jobs.send(job);
    }
}

/// What workers have to tell.
#[derive(Debug)]
pub enum News {
    /// The kernel's names.
    Kernel(kernel::KernelNews),
    /// Rows of a list, or a match, or a count.
    Scan(scan::ScanNews),
    /// The lanes of the timeline.
    Lanes(Arc<lanes::Lanes>),
    /// What is flagged in the timeline.
    Flags(Vec<lanes::Flag>),
    /// The machine at a place.
    Machine(machine::MachineNews),
    /// A note was written, or not.
    Note(Result<String, String>),
    /// The console at the cursor.
    Console(console::ConsoleNews),
    /// The file has grown, or is another one now.
    Grown(Box<file::Growth>),
}
