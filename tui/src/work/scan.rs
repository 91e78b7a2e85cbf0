//! Looking through events: windows of a list, searches, counts, and what has been written since.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use colinux_tracer::{Cursor, Reader};

use super::file::{self, Identity};
use super::{News, Ticket};
use crate::filter::{Candidate, Filter, contains};
use crate::list::ListId;
use crate::names::Names;
use crate::row::{Row, Runners};

/// Events between two looks at the ticket.
const LOOK_EVERY: u64 = 512;
/// Time between two words about progress.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// What is looked through.
#[derive(Clone, Debug)]
pub struct Source {
    /// The recording.
    pub reader: Reader,
    /// Which of its events.
    pub filter: Arc<Filter>,
    /// Names, for what is said about them.
    pub names: Names,
}

/// Where a window lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// At an event, or the next that is shown.
    Number(u64),
    /// At the last event up to a tick.
    Tick(u64),
    /// At the first.
    Start,
    /// At the last.
    End,
}

/// What is wanted.
#[derive(Clone, Debug)]
pub enum Want {
    /// Rows on both sides of a place.
    Around {
        /// The place.
        anchor: Anchor,
        /// Rows before it.
        before: usize,
        /// Rows from it on.
        after: usize,
    },
    /// So many rows after event `number`.
    After {
        /// The event.
        number: u64,
        /// Rows.
        count: usize,
    },
    /// So many rows before event `number`.
    Before {
        /// The event.
        number: u64,
        /// Rows.
        count: usize,
    },
    /// The nearest row with a text in it.
    Find {
        /// The text.
        pattern: String,
        /// From this event on, itself left out unless `here`.
        from: u64,
        /// Which way.
        forward: bool,
        /// The event itself counts.
        here: bool,
    },
    /// How many there are.
    Count,
}

/// A job.
#[derive(Debug)]
pub enum Job {
    /// Looking through.
    Scan {
        /// For which list.
        list: ListId,
        /// What.
        source: Source,
        /// What for.
        want: Want,
        /// Its right to go on.
        ticket: Ticket,
    },
    /// Looking whether there is more now.
    Refresh(Box<Reader>, Option<Identity>),
}

/// Rows in order.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// The rows.
    pub rows: Vec<Row>,
    /// Which of them is at the anchor.
    pub selected: usize,
    /// There is nothing before them.
    pub at_start: bool,
    /// There is nothing after them.
    pub at_end: bool,
}

/// What was found.
#[derive(Clone, Debug)]
pub enum Found {
    /// For [`Want::Around`].
    Window(Rows),
    /// For [`Want::After`].
    Later(Rows),
    /// For [`Want::Before`].
    Earlier(Rows),
    /// For [`Want::Find`].
    Match(Option<(u64, u64)>),
    /// For [`Want::Count`]: so far, and whether that is all.
    Count(u64, bool),
    /// Still at it, at this tick.
    Progress(u64),
}

/// An answer.
#[derive(Debug)]
pub struct ScanNews {
    /// For which list.
    pub list: ListId,
    /// The job's ticket.
    pub ticket: Ticket,
    /// The answer.
    pub found: Found,
    /// A chunk that could not be read, if one came in the way.
    pub trouble: Option<String>,
}

/// Does one job after the other.
pub fn serve(inbox: Receiver<Job>, news: Sender<News>) {
    for job in inbox {
        match job {
            Job::Refresh(reader, identity) => {
                let growth = file::look(*reader, identity.as_ref());
                if news.send(News::Grown(Box::new(growth))).is_err() {
                    return;
                }
            }
            Job::Scan {
                list,
                source,
                want,
                ticket,
            } => {
                if !ticket.is_good() {
                    continue;
                }
                let mut scan = Scan {
                    list,
                    source,
                    ticket,
                    news: &news,
                    trouble: None,
                    looked: 0,
                    told: Instant::now(),
                };
                if let Some(found) = scan.run(want) {
                    scan.tell(found);
                }
            }
        }
    }
}

struct Scan<'a> {
    list: ListId,
    source: Source,
    ticket: Ticket,
    news: &'a Sender<News>,
    trouble: Option<String>,
    looked: u64,
    told: Instant,
}

impl Scan<'_> {
    fn tell(&mut self, found: Found) {
        let _ = self.news.send(News::Scan(ScanNews {
            list: self.list,
            ticket: self.ticket.clone(),
            found,
            trouble: self.trouble.take(),
        }));
    }

    fn cursor(&self) -> Cursor {
        self.source
            .reader
            .events()
            .with_kinds(self.source.filter.mask())
    }

    fn run(&mut self, want: Want) -> Option<Found> {
        match want {
            Want::Around {
                anchor,
                before,
                after,
            } => self.around(anchor, before, after).map(Found::Window),
            Want::After { number, count } => {
                let mut cursor = self.cursor();
                self.seek(&mut cursor, number.saturating_add(1));
                let (rows, at_end) = self.collect(&mut cursor, true, count, None)?;
                Some(Found::Later(Rows {
                    rows,
                    at_end,
                    ..Rows::default()
                }))
            }
            Want::Before { number, count } => {
                let mut cursor = self.cursor();
                self.seek(&mut cursor, number);
                let (mut rows, at_start) = self.collect(&mut cursor, false, count, None)?;
                rows.reverse();
                Some(Found::Earlier(Rows {
                    rows,
                    at_start,
                    ..Rows::default()
                }))
            }
            Want::Find {
                pattern,
                from,
                forward,
                here,
            } => {
                let mut cursor = self.cursor();
                // The place is between events: behind this one to leave it out going forward.
                let from = from + u64::from(forward != here);
                self.seek(&mut cursor, from);
                let (rows, _) = self.collect(&mut cursor, forward, 1, Some(&pattern))?;
                Some(Found::Match(rows.first().map(|row| (row.number, row.tick))))
            }
            Want::Count => self.count(),
        }
    }

    fn seek(&mut self, cursor: &mut Cursor, number: u64) {
        if let Err(error) = cursor.seek_number(number) {
            self.trouble = Some(error.to_string());
        }
    }

    fn around(&mut self, anchor: Anchor, before: usize, after: usize) -> Option<Rows> {
        let mut cursor = self.cursor();
        let mut at_anchor = false;
        match anchor {
            Anchor::Start => {}
            Anchor::End => cursor.seek_end(),
            Anchor::Number(number) => {
                self.seek(&mut cursor, number);
                at_anchor = true;
            }
            Anchor::Tick(tick) => {
                if let Err(error) = cursor.seek_tick(tick.saturating_add(1)) {
                    self.trouble = Some(error.to_string());
                }
            }
        }
        let mut forwards = cursor.clone();
        let (mut rows, at_start) = self.collect(&mut cursor, false, before, None)?;
        rows.reverse();
        let (later, at_end) = self.collect(&mut forwards, true, after, None)?;
        // The row at the anchor is the first after it, or the last up to a tick.
        let selected = match at_anchor && !later.is_empty() {
            true => rows.len(),
            false => rows.len().saturating_sub(1),
        };
        rows.extend(later);
        Some(Rows {
            rows,
            selected,
            at_start,
            at_end,
        })
    }

    /// The next rows that pass, and whether that was all; `None` when it was called off.
    fn collect(
        &mut self,
        cursor: &mut Cursor,
        forward: bool,
        count: usize,
        pattern: Option<&str>,
    ) -> Option<(Vec<Row>, bool)> {
        let filter = Arc::clone(&self.source.filter);
        let names = self.source.names.clone();
        let mut runners = Runners::new(&self.source.reader);
        let mut rows = Vec::new();
        while rows.len() < count {
            let found = match if forward {
                cursor.next()
            } else {
                cursor.prev()
            } {
                None => return Some((rows, true)),
                Some(Err(error)) => {
                    self.trouble = Some(error.to_string());
                    continue;
                }
                Some(Ok(found)) => found,
            };
            if !self.go_on(found.tick) {
                return None;
            }
            let number = found.number;
            if !filter.is_by_kind() {
                let mut candidate = Candidate {
                    event: &found.event,
                    who: &mut || runners.at(number),
                    names: &names,
                };
                if !filter.passes(&mut candidate) {
                    continue;
                }
            }
            let row = Row::new(found, runners.at(number));
            if pattern.is_none_or(|part| contains(&row.text(&names), part)) {
                rows.push(row);
            }
        }
        Some((rows, false))
    }

    fn go_on(&mut self, tick: u64) -> bool {
        self.looked += 1;
        if !self.looked.is_multiple_of(LOOK_EVERY) {
            return true;
        }
        if self.told.elapsed() > TELL_EVERY {
            self.told = Instant::now();
            self.tell(Found::Progress(tick));
        }
        self.ticket.is_good()
    }

    /// From the index if kinds alone decide, else one by one.
    fn count(&mut self) -> Option<Found> {
        let filter = Arc::clone(&self.source.filter);
        if filter.is_by_kind() {
            let reader = &self.source.reader;
            let of_chunk = |entry| {
                let counts = reader.chunk_counts(entry);
                let wanted =
                    counts.filter(|(code, _)| *code >= 0x20 && filter.mask().contains_code(*code));
                wanted.map(|(_, count)| u64::from(count)).sum::<u64>()
            };
            let total = reader.chunks().iter().map(of_chunk).sum();
            return Some(Found::Count(total, true));
        }
        let names = self.source.names.clone();
        let mut runners = Runners::new(&self.source.reader);
        let mut cursor = self.cursor();
        let (mut total, mut told) = (0, Instant::now());
        loop {
            let found = match cursor.next() {
                None => return Some(Found::Count(total, true)),
                Some(Err(error)) => {
                    self.trouble = Some(error.to_string());
                    continue;
                }
                Some(Ok(found)) => found,
            };
            self.looked += 1;
            if self.looked.is_multiple_of(LOOK_EVERY) {
                if !self.ticket.is_good() {
                    return None;
                }
                if told.elapsed() > TELL_EVERY {
                    told = Instant::now();
                    self.tell(Found::Count(total, false));
                }
            }
            let number = found.number;
            let mut candidate = Candidate {
                event: &found.event,
                who: &mut || runners.at(number),
                names: &names,
            };
            total += u64::from(filter.passes(&mut candidate));
        }
    }
}
