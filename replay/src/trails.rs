//! What is known of stretches of a recording without replaying them.

use std::collections::BTreeMap;

use colinux_driver::debug::{Watch, WatchSpace};
use colinux_driver::mem::addr::PAGE_SIZE;
use colinux_driver::mem::trail::{PageSet, Trail};

use crate::timeline::Mark;
use crate::watch::Stops;

/// The pages that were used between ticks. A place that is not in them needs no looking for there.
#[derive(Debug, Default)]
pub(crate) struct Trails {
    /// By first tick; with the tick before which it ends.
    by_start: BTreeMap<u64, (u64, Trail)>,
}

fn may_use(pages: &PageSet, start: u64, len: u64) -> bool {
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
    let written_only = watch.space == WatchSpace::Virtual && !watch.read;
    !written_only || may_use(&trail.written, watch.start, watch.len)
}

/// Whether one of these stops can be met on the way.
fn may_stop(trail: &Trail, stops: &Stops) -> bool {
    let mut breakpoints = stops.breakpoints.iter();
    breakpoints.any(|at| may_use(&trail.executed, *at, 1))
        || stops.watches.iter().any(|watch| may_watch(trail, watch))
}

impl Trails {
    /// This was used from one tick to another.
    pub(crate) fn add(&mut self, from: u64, to: u64, trail: Trail) {
        let known = self.by_start.get(&from).map_or(0, |(to, _)| *to);
        if to > known.max(from) {
            self.by_start.insert(from, (to, trail));
        }
    }

    /// Whether none of these stops is between a tick and a place.
    pub(crate) fn rule_out(&self, stops: &Stops, from: u64, to: Mark) -> bool {
        let end = to.tick + u64::from(to.attempt > 0);
        let mut at = from;
        while at < end {
            match self.by_start.range(..=at).next_back() {
                Some((_, (to, trail))) if *to > at && !may_stop(trail, stops) => at = *to,
                _ => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::{Watched, virtual_watch, watch};

    fn trail(written: &[u64], executed: &[u64]) -> Trail {
        Trail {
            written: Some(written.to_vec()),
            executed: Some(executed.to_vec()),
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
        trails.add(10, 20, trail(&[5, 7], &[1]));
        trails.add(20, 30, trail(&[], &[2]));
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
        trails.add(10, 12, trail(&[], &[]));
        assert!(
            !trails.rule_out(&breakpoint(0x1000), 10, Mark::at(12)),
            "the longer stays"
        );
    }

    #[test]
    fn only_what_can_be_told_by_pages_written_is() {
        let mut trails = Trails::default();
        trails.add(0, 10, trail(&[5, 7], &[]));
        let out = |w: Watch| trails.rule_out(&watching(w), 0, Mark::at(10));
        assert!(out(virtual_watch(0x6000, 0x1000, Watched::Changes)));
        assert!(!out(virtual_watch(0x6ff9, 8, Watched::Writes)));
        assert!(!out(virtual_watch(0x4000, 0x4000, Watched::Writes)));
        assert!(out(virtual_watch(0x8000, 0x4000, Watched::Writes)));
        assert!(!out(virtual_watch(0x6000, 8, Watched::Reads)));
        assert!(!out(virtual_watch(0x6000, 8, Watched::Accesses)));
        assert!(!out(virtual_watch(u64::MAX, 2, Watched::Writes)));
        assert!(!out(watch(
            WatchSpace::Physical,
            0x6000,
            8,
            Watched::Writes
        )));
        let any = Trail {
            written: None,
            executed: Some(Vec::new()),
        };
        trails.add(10, 20, any);
        let watched = watching(virtual_watch(0x6000, 8, Watched::Writes));
        assert!(!trails.rule_out(&watched, 10, Mark::at(20)));
    }
}
