//! What is known of stretches of a recording without replaying them.

use std::collections::BTreeMap;

use colinux_driver::debug::{Watch, WatchSpace};
use colinux_driver::mem::addr::PAGE_SIZE;
use colinux_driver::mem::trail;
use colinux_tracer::{Pages, Reader, Trail};

use crate::timeline::Mark;
use crate::watch::Stops;

/// The pages that were used between ticks. A place that is not in them needs no looking for there.
#[derive(Debug, Default)]
pub(crate) struct Trails {
    /// By first tick.
    by_start: BTreeMap<u64, Trail>,
    /// The recording, until those that it holds have been read.
    unread: Option<Reader>,
}

/// What a machine noted from one tick to another.
pub(crate) fn noted(from: u64, to: u64, used: trail::Trail) -> Trail {
    Trail {
        from,
        to,
        written: used.written,
        executed: used.executed,
        changed: None,
    }
}

fn may_use(pages: &Pages, start: u64, len: u64) -> bool {
    let Some(pages) = pages else { return true };
    let (first, last) = (
        start / PAGE_SIZE,
        start.wrapping_add(len.max(1) - 1) / PAGE_SIZE,
    );
    let at = pages.partition_point(|page| *page < first);
    // A range may go over the end of all addresses.
    last < first || pages.get(at).is_some_and(|page| *page <= last)
}

fn may_watch(trail: &Trail, watch: &Watch) -> bool {
    let pages = match watch.space {
        WatchSpace::Virtual => &trail.written,
        WatchSpace::Physical => &trail.changed,
    };
    watch.read || may_use(pages, watch.start, watch.len)
}

/// Whether one of these stops can be met on the way.
fn may_stop(trail: &Trail, stops: &Stops) -> bool {
    let mut breakpoints = stops.breakpoints.iter();
    breakpoints.any(|at| may_use(&trail.executed, *at, 1))
        || stops.watches.iter().any(|watch| may_watch(trail, watch))
}

impl Trails {
    /// Those of a recording, which are read when they are first needed.
    pub(crate) fn of(reader: &Reader) -> Self {
        Trails {
            unread: Some(reader.clone()),
            ..Trails::default()
        }
    }

    /// Reads those that the recording holds, once; says what is wrong with others.
    pub(crate) fn read(&mut self) -> Vec<String> {
        let mut notes = Vec::new();
        for trail in self.unread.take().iter().flat_map(Reader::trails) {
            match trail {
                Ok(trail) => self.add(trail),
                Err(error) => notes.push(format!("{error}; searches replay that stretch")),
            }
        }
        notes
    }

    /// What was used in a stretch; the longest from each tick stays.
    pub(crate) fn add(&mut self, trail: Trail) {
        let known = self.by_start.get(&trail.from).map_or(0, |trail| trail.to);
        if trail.to > known.max(trail.from) {
            self.by_start.insert(trail.from, trail);
        }
    }

    /// The first tick from this one on at which one of these stops can be met, as far as is known
    /// before `end`.
    pub(crate) fn ruled_out_until(&self, stops: &Stops, from: u64, end: u64) -> u64 {
        let mut at = from;
        while at < end {
            match self.by_start.range(..=at).next_back() {
                Some((_, trail)) if trail.to > at && !may_stop(trail, stops) => at = trail.to,
                _ => return at,
            }
        }
        at
    }

    /// Where the stretch ends that holds a tick, if anything is known of it.
    pub(crate) fn end_of(&self, tick: u64) -> Option<u64> {
        let (_, trail) = self.by_start.range(..=tick).next_back()?;
        Some(trail.to).filter(|to| *to > tick)
    }

    /// Whether none of these stops is between a tick and a place.
    pub(crate) fn rule_out(&self, stops: &Stops, from: u64, to: Mark) -> bool {
        let end = to.tick + u64::from(to.attempt > 0);
        self.ruled_out_until(stops, from, end) >= end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::{Watched, virtual_watch, watch};

    fn trail(from: u64, to: u64, written: &[u64], executed: &[u64]) -> Trail {
        Trail {
            from,
            to,
            written: Some(written.to_vec()),
            executed: Some(executed.to_vec()),
            changed: Some(vec![8]),
        }
    }

    fn breakpoint(address: u64) -> Stops {
        Stops {
            breakpoints: vec![address],
            ..Stops::default()
        }
    }

    fn watching(watch: Watch) -> Stops {
        Stops {
            watches: vec![watch],
            ..Stops::default()
        }
    }

    #[test]
    fn stretches_are_ruled_out_where_all_of_them_is_known() {
        let mut trails = Trails::default();
        trails.add(trail(10, 20, &[5, 7], &[1]));
        trails.add(trail(20, 30, &[], &[2]));
        let other = breakpoint(0x3000);
        assert!(trails.rule_out(&other, 10, Mark::at(30)));
        assert!(trails.rule_out(&other, 15, Mark::at(25)));
        assert!(
            !trails.rule_out(&other, 5, Mark::at(15)),
            "not known before"
        );
        assert!(!trails.rule_out(&other, 25, Mark::at(31)), "nor after");
        let tried = Mark {
            tick: 30,
            attempt: 1,
        };
        assert!(!trails.rule_out(&other, 25, tried), "nor what follows");
        assert!(!trails.rule_out(&breakpoint(0x2fff), 10, Mark::at(30)));
        assert!(trails.rule_out(&breakpoint(0x2fff), 10, Mark::at(20)));
        trails.add(trail(10, 12, &[], &[]));
        assert!(
            !trails.rule_out(&breakpoint(0x1000), 10, Mark::at(12)),
            "the longer stays"
        );
    }

    #[test]
    fn only_what_can_be_told_by_pages_written_is() {
        let mut trails = Trails::default();
        trails.add(trail(0, 10, &[5, 7], &[]));
        let out = |w: Watch| trails.rule_out(&watching(w), 0, Mark::at(10));
        assert!(out(virtual_watch(0x6000, 0x1000, Watched::Changes)));
        assert!(!out(virtual_watch(0x6ff9, 8, Watched::Writes)));
        assert!(!out(virtual_watch(0x4000, 0x4000, Watched::Writes)));
        assert!(out(virtual_watch(0x8000, 0x4000, Watched::Writes)));
        assert!(!out(virtual_watch(0x6000, 8, Watched::Reads)));
        assert!(!out(virtual_watch(0x6000, 8, Watched::Accesses)));
        assert!(!out(virtual_watch(u64::MAX, 2, Watched::Writes)));
        let physical = |start, what| watch(WatchSpace::Physical, start, 8, what);
        assert!(out(physical(0x6000, Watched::Writes)));
        assert!(!out(physical(0x7ffc, Watched::Changes)));
        assert!(!out(physical(0x6000, Watched::Reads)));
        trails.add(Trail {
            from: 10,
            to: 20,
            ..Trail::default()
        });
        let watched = watching(virtual_watch(0x6000, 8, Watched::Writes));
        assert!(!trails.rule_out(&watched, 10, Mark::at(20)));
    }
}
