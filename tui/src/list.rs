//! A list of events that is as long as the recording, of which a stretch around the screen is here.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::filter::Filter;
use crate::row::Row;
use crate::work::scan::{Anchor, Found, Rows, ScanNews, Want};
use crate::work::{Counter, Ticket};

/// Which list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListId {
    /// The events.
    Events,
    /// The kernel's log.
    Log,
}

/// Rows kept at most; beyond, those far from the screen go.
const KEPT: usize = 4096;
/// Rows asked for on each side.
const REACH: usize = 400;

/// A stretch of a list.
#[derive(Debug)]
pub struct EventList {
    /// Which it is.
    pub id: ListId,
    /// What it shows.
    pub filter: Arc<Filter>,
    /// The rows that are here, in order.
    pub rows: VecDeque<Row>,
    /// The chosen one among them.
    pub selected: usize,
    /// The first one on the screen.
    pub top: usize,
    /// There is nothing before or after them.
    pub ends: (bool, bool),
    /// The cursor stays where it was sent, which may be between two rows.
    pub rests: bool,
    /// They reach to what was the end before the recording grew.
    pub tail: bool,
    /// How many there are in all, and whether that is certain.
    pub total: Option<(u64, bool)>,
    /// What is being looked for, and the tick where the search is.
    pub waiting: Option<u64>,
    /// Something could not be read.
    pub trouble: Option<String>,
    windows: Counter,
    earlier: Counter,
    later: Counter,
    counts: Counter,
    asked: (bool, bool),
}

impl EventList {
    /// An empty one.
    pub fn new(id: ListId, filter: Filter) -> Self {
        EventList {
            id,
            filter: Arc::new(filter),
            rows: VecDeque::new(),
            selected: 0,
            top: 0,
            ends: (false, false),
            rests: false,
            tail: false,
            total: None,
            waiting: None,
            trouble: None,
            windows: Counter::default(),
            earlier: Counter::default(),
            later: Counter::default(),
            counts: Counter::default(),
            asked: (false, false),
        }
    }

    /// The chosen row.
    pub fn chosen(&self) -> Option<&Row> {
        self.rows.get(self.selected)
    }

    /// What to ask for a window at a place.
    pub fn around(&mut self, anchor: Anchor) -> Want {
        self.waiting = Some(0);
        self.asked = (false, false);
        Want::Around {
            anchor,
            before: REACH / 2,
            after: REACH / 2,
        }
    }

    /// The right of a job to go on. A new window calls off everything else but counts.
    pub fn ticket(&self, want: &Want) -> Ticket {
        match want {
            Want::Before { .. } => self.earlier.next(),
            Want::After { .. } => self.later.next(),
            Want::Count => self.counts.next(),
            Want::Around { .. } | Want::Find { .. } => {
                self.earlier.cancel();
                self.later.cancel();
                self.windows.next()
            }
        }
    }

    /// Chooses the last row up to a tick, if it is surely among those that are here.
    pub fn choose_tick(&mut self, tick: u64) -> bool {
        let after = self.rows.partition_point(|row| row.tick <= tick);
        let inside = after > 0 && (after < self.rows.len() || self.ends.1);
        if inside {
            // Several rows may share the tick; one that is chosen already stays.
            if self.chosen().is_some_and(|row| row.tick == tick) {
                return true;
            }
            self.selected = after - 1;
        } else if self.ends.0 && !self.rows.is_empty() && after == 0 {
            self.selected = 0;
            return true;
        }
        inside
    }

    /// Chooses the last row that is here.
    pub fn choose_last(&mut self) {
        self.selected = self.rows.len().saturating_sub(1);
    }

    /// Moves the choice by so many rows, as far as they are here.
    pub fn move_by(&mut self, rows: isize) {
        let last = self.rows.len().saturating_sub(1);
        self.selected = self.selected.saturating_add_signed(rows).min(last);
    }

    /// What to ask for so that scrolling goes on, if anything.
    pub fn wants(&mut self, height: usize) -> Option<Want> {
        let near = height * 2 + 20;
        if self.rows.is_empty() || self.waiting.is_some() {
            return None;
        }
        if !self.ends.0 && !self.asked.0 && self.selected < near {
            self.asked.0 = true;
            let number = self.rows.front()?.number;
            let count = REACH;
            return Some(Want::Before { number, count });
        }
        if !self.ends.1 && !self.asked.1 && self.selected + near > self.rows.len() {
            self.asked.1 = true;
            let number = self.rows.back()?.number;
            let count = REACH;
            return Some(Want::After { number, count });
        }
        None
    }

    /// There is more after the rows that are here than was known.
    pub fn grown(&mut self) {
        self.tail |= self.ends.1 && !self.rows.is_empty();
        self.ends.1 = false;
        self.asked.1 = false;
    }

    /// Takes an answer. True when it brought a whole new window.
    pub fn take(&mut self, news: ScanNews) -> bool {
        if news.trouble.is_some() {
            self.trouble = news.trouble;
        }
        match news.found {
            Found::Window(rows) => {
                let Rows {
                    rows,
                    selected,
                    at_start,
                    at_end,
                } = rows;
                self.rows = rows.into();
                self.selected = selected;
                self.top = usize::MAX;
                self.ends = (at_start, at_end);
                self.tail = false;
                self.waiting = None;
                return true;
            }
            Found::Later(rows) => {
                self.asked.1 = false;
                self.ends.1 = rows.at_end;
                self.rows.extend(rows.rows);
                while self.rows.len() > KEPT && self.selected > REACH * 2 {
                    self.rows.pop_front();
                    self.selected -= 1;
                    self.top = self.top.saturating_sub(1);
                    self.ends.0 = false;
                }
            }
            Found::Earlier(rows) => {
                self.asked.0 = false;
                self.ends.0 = rows.at_start;
                let count = rows.rows.len();
                for row in rows.rows.into_iter().rev() {
                    self.rows.push_front(row);
                }
                self.selected += count;
                self.top = self.top.saturating_add(count);
                while self.rows.len() > KEPT && self.selected + REACH * 2 < self.rows.len() {
                    self.rows.pop_back();
                    self.ends.1 = false;
                }
            }
            Found::Count(total, all) => self.total = Some((total, all)),
            Found::Progress(tick) => self.waiting = self.waiting.map(|_| tick),
            Found::Match(_) => {}
        }
        false
    }

    /// Sees to it that the chosen row is on a screen of so many rows.
    pub fn settle(&mut self, height: usize) {
        let height = height.max(1);
        let last_top = self.rows.len().saturating_sub(height);
        if self.top == usize::MAX {
            // A new window: its chosen row a third down.
            self.top = self.selected.saturating_sub(height / 3);
        }
        self.top = self
            .top
            .min(self.selected)
            .max(self.selected.saturating_sub(height - 1))
            .min(last_top);
    }
}

#[cfg(test)]
mod tests {
    use colinux_tracer::Event;

    use super::*;

    fn row(number: u64) -> Row {
        Row {
            number,
            tick: number / 2 * 10,
            event: Event::IrqEoi { vector: 1 },
            who: None,
        }
    }

    fn list(numbers: std::ops::Range<u64>) -> EventList {
        let mut list = EventList::new(ListId::Events, Filter::default());
        let first = numbers.start;
        let found = Found::Window(Rows {
            rows: numbers.map(row).collect(),
            selected: 0,
            at_start: first == 0,
            at_end: false,
        });
        let ticket = list.windows.next();
        let id = list.id;
        list.take(ScanNews {
            list: id,
            ticket,
            found,
            trouble: None,
        });
        list
    }

    #[test]
    fn the_choice_stays_on_the_screen() {
        let mut list = list(0..100);
        for (by, top, selected) in [
            (0, 0, 0),
            (9, 0, 9),
            (1, 1, 10),
            (-5, 1, 5),
            (-5, 0, 0),
            (500, 90, 99),
            (-500, 0, 0),
        ] {
            list.move_by(by);
            list.settle(10);
            assert_eq!((list.top, list.selected), (top, selected), "by {by}");
        }
    }

    #[test]
    fn more_is_asked_for_once_near_an_end() {
        let mut list = list(0..100);
        assert!(
            list.wants(10).is_none(),
            "the start is here, the end is far"
        );
        list.move_by(90);
        assert!(matches!(
            list.wants(10),
            Some(Want::After { number: 99, .. })
        ));
        assert!(list.wants(10).is_none());
    }

    #[test]
    fn a_tick_is_found_among_rows_that_are_here() {
        let mut list = list(10..20);
        assert!(list.choose_tick(60));
        assert_eq!(list.chosen().unwrap().number, 13);
        list.move_by(-1);
        assert!(list.choose_tick(60));
        assert_eq!(
            list.chosen().unwrap().number,
            12,
            "another row of the same tick stays"
        );
        assert!(!list.choose_tick(40), "there may be rows before");
        assert!(!list.choose_tick(95), "there may be rows after");
    }
}
