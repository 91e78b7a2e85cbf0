//! The replaying thread: goes where the cursor is, and tells what the machine is there.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

use colinux_replay::watch::{Watched, virtual_watch};
use colinux_replay::{Halt, Mark, Timeline};
use colinux_symbols::{Resolver, Slide};
use colinux_tracer::Reader;

use super::sources::Debug;
pub use super::walk::Walk as Way;
use super::walk::Walk;
use super::walk::Walker;
use super::{News, Ticket, picture};
use crate::moment::{Moment, Wants};
use crate::names::Kernel;

/// A walk that takes longer says how far it has come.
const PATIENCE: Duration = Duration::from_millis(120);
/// Host memory for checkpoints of the viewer's own. Those in the recording do most of the work.
const BUDGET_BYTES: u64 = 32 << 20;
/// Recordings longer than this are not walked through in advance.
const FORESIGHT: u64 = 20_000_000_000;

/// Where debug information and sources are looked for.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// The vmlinux with debug information.
    pub vmlinux: Option<PathBuf>,
    /// Where fetched kernels are, each in a folder with the name of its release.
    pub kernels: Option<PathBuf>,
    /// Folders with kernel sources.
    pub sources: Vec<PathBuf>,
    /// Where the index of symbols is kept.
    pub cache: Option<PathBuf>,
}

/// A job.
#[derive(Debug)]
pub enum Job {
    /// Go somewhere, and tell.
    Walk {
        /// Where from, for ways that are relative.
        from: Mark,
        /// The way.
        walk: Walk,
        /// Breakpoints and watched ranges.
        stops: (Vec<u64>, Vec<(u64, u64)>),
        /// What to tell beside the usual.
        wants: Wants,
        /// Its right to go on.
        ticket: Ticket,
    },
    /// What the kernel says of itself has been read.
    Kernel(Arc<Kernel>),
    /// Folders with sources, the first to be looked in first.
    Sources(Vec<PathBuf>),
    /// The recording has grown, or the viewer comes back from another program.
    Reader(Box<Reader>),
}

/// An answer.
#[derive(Debug)]
pub enum MachineNews {
    /// The place that was reached.
    There {
        /// The job's ticket.
        ticket: Ticket,
        /// The machine there.
        moment: Arc<Moment>,
        /// Why it is there.
        halt: Halt,
    },
    /// On the way.
    Progress {
        /// The job's ticket.
        ticket: Ticket,
        /// The tick it has come to.
        tick: u64,
    },
    /// It could not be done.
    Failed {
        /// The job's ticket, if it was about one.
        ticket: Option<Ticket>,
        /// Why.
        why: String,
    },
}

/// Does one job after the other; between jobs, walks ahead so that later ones are quick.
pub fn serve(reader: Reader, places: &Places, inbox: Receiver<Job>, news: Sender<News>) {
    let mut machine = Machine {
        reader,
        places: places.clone(),
        news,
        timeline: None,
        kernel: Arc::new(Kernel::default()),
        resolver: Rc::default(),
        debug: None,
        foreseen: 0,
    };
    loop {
        let job = match inbox.try_recv() {
            Ok(job) => Some(job),
            Err(TryRecvError::Disconnected) => return,
            Err(TryRecvError::Empty) if machine.looks_ahead() => None,
            Err(TryRecvError::Empty) => match inbox.recv() {
                Ok(job) => Some(job),
                Err(_) => return,
            },
        };
        match job {
            Some(job) => machine.work(job),
            None => machine.look_ahead(),
        }
    }
}

pub(super) struct Machine {
    reader: Reader,
    pub(super) places: Places,
    news: Sender<News>,
    pub(super) timeline: Option<Timeline>,
    pub(super) kernel: Arc<Kernel>,
    /// Shared with the disassembler, which wants to own what names addresses.
    pub(super) resolver: Rc<RefCell<Resolver>>,
    /// What was found of debug information.
    pub(super) debug: Option<Debug>,
    /// Walked through in advance up to here.
    foreseen: u64,
}

impl Machine {
    fn tell(&self, news: MachineNews) {
        let _ = self.news.send(News::Machine(news));
    }

    fn work(&mut self, job: Job) {
        match job {
            Job::Kernel(kernel) => self.learn(kernel),
            Job::Sources(folders) => self.places.sources = folders,
            Job::Reader(reader) => self.reader = *reader,
            Job::Walk {
                from,
                walk,
                stops,
                wants,
                ticket,
            } => {
                if !ticket.is_good() {
                    return;
                }
                match self.walk(from, &walk, stops, &ticket) {
                    Ok(Some(halt)) => {
                        if let Some(moment) = self.moment(wants) {
                            let moment = Arc::new(moment);
                            self.tell(MachineNews::There {
                                ticket,
                                moment,
                                halt,
                            });
                        }
                    }
                    Ok(None) => {}
                    Err(why) => self.tell(MachineNews::Failed {
                        ticket: Some(ticket),
                        why,
                    }),
                }
            }
        }
    }

    /// The timeline; a new one where the recording has grown and one goes beyond what it was.
    fn open(&mut self, walk: &Walk) -> Result<&mut Timeline, String> {
        let beyond = |timeline: &Timeline| matches!(walk, Walk::To(mark) if mark.tick > timeline.last_tick());
        if self.timeline.as_ref().is_some_and(beyond) {
            self.timeline = None;
            self.foreseen = 0;
        }
        if self.timeline.is_none() {
            let timeline = Timeline::with_budget(&self.reader, BUDGET_BYTES)
                .map_err(|error| error.to_string())?;
            self.timeline = Some(timeline);
            // Where the recording has checkpoints, there is no need to make any in advance.
            if self.reader.checkpoints().is_ok_and(|kept| !kept.is_empty()) {
                self.foreseen = u64::MAX;
            }
        }
        self.timeline.as_mut().ok_or_else(String::new)
    }

    /// Goes a way; `None` when it was called off.
    fn walk(
        &mut self,
        from: Mark,
        walk: &Walk,
        stops: (Vec<u64>, Vec<(u64, u64)>),
        ticket: &Ticket,
    ) -> Result<Option<Halt>, String> {
        let news = self.news.clone();
        let began = Instant::now();
        let mut told = began;
        let mut keep_going = |tick: u64| {
            if began.elapsed() > PATIENCE && told.elapsed() > PATIENCE / 2 {
                told = Instant::now();
                let ticket = ticket.clone();
                let _ = news.send(News::Machine(MachineNews::Progress { ticket, tick }));
            }
            ticket.is_good()
        };
        let reader = self.reader.clone();
        let (kernel, resolver) = (Arc::clone(&self.kernel), Rc::clone(&self.resolver));
        let timeline = self.open(walk)?;
        timeline.stops().breakpoints.clear();
        timeline.stops().watches.clear();
        let said = |error: colinux_replay::TimelineError| error.to_string();
        if !matches!(walk, Walk::To(_)) {
            let halt = timeline.seek(from, &mut keep_going).map_err(said)?;
            if halt == Halt::Interrupted {
                return Ok(None);
            }
        }
        timeline.stops().breakpoints = stops.0;
        timeline.stops().watches = stops
            .1
            .iter()
            .map(|(start, len)| virtual_watch(*start, *len, Watched::Writes))
            .collect();
        let mut walker = Walker {
            timeline,
            reader: &reader,
            keep_going: &mut keep_going,
        };
        let who_called =
            |timeline: &mut Timeline| picture::caller(timeline, &kernel, &resolver.borrow());
        let halt = walker
            .go(walk, &who_called)
            .map_err(|error| error.to_string())?;
        Ok((halt != Halt::Interrupted).then_some(halt))
    }

    fn looks_ahead(&self) -> bool {
        let Some(timeline) = &self.timeline else {
            return false;
        };
        let last = timeline.last_tick();
        last <= FORESIGHT && self.foreseen < last
    }

    /// Leaves checkpoints along the recording, a stretch at a time.
    fn look_ahead(&mut self) {
        let Some(timeline) = self.timeline.as_mut() else {
            return;
        };
        let last = timeline.last_tick();
        let grid = timeline.checkpoints().grid();
        let to = (self.foreseen / grid + 1).saturating_mul(grid).min(last);
        timeline.stops().breakpoints.clear();
        timeline.stops().watches.clear();
        let went = timeline.seek(Mark::at(to), &mut |_| true);
        // What cannot be replayed is said when one goes there.
        self.foreseen = if went.is_ok() { to } else { u64::MAX };
    }

    fn learn(&mut self, kernel: Arc<Kernel>) {
        let tables = kernel.tables.as_ref();
        let mut resolver = tables.map_or_else(Resolver::default, |t| t.resolver(Slide::NONE));
        self.debug = Some(Debug::find(&kernel, &self.places, &mut resolver));
        self.resolver = Rc::new(RefCell::new(resolver));
        self.kernel = kernel;
    }
}
