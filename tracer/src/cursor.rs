//! A place between two events, moved both ways.

use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::error::TraceError;
use crate::event::Event;
use crate::facility::EventMask;
use crate::index::Index;
use crate::lane::{Filter, Lane, Place};
use crate::reader::Shared;

/// An event and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// Its number in the recording, from 0, over every vCPU.
    pub number: u64,
    /// Its tick.
    pub tick: u64,
    /// Its vCPU.
    pub vcpu: u16,
    /// What happened.
    pub event: Event,
}

/// A place between two events of a recording.
///
/// Events are in the order of (tick, vCPU, order of recording). Iterating gives what follows;
/// [`Cursor::prev`] gives what is before. A damaged chunk gives one error and is then passed over.
#[derive(Clone, Debug)]
pub struct Cursor {
    shared: Arc<Shared>,
    index: Arc<Index>,
    filter: Filter,
    /// One per vCPU that has events, by vCPU.
    lanes: Vec<Lane>,
}

impl Cursor {
    pub(crate) fn new(shared: Arc<Shared>, index: Arc<Index>) -> Self {
        let lanes = (0..index.streams().len()).map(Lane::new).collect();
        Self {
            shared,
            index,
            filter: Filter::default(),
            lanes,
        }
    }

    /// Passes over events of other kinds. Chunks without these kinds are not even read.
    #[must_use]
    pub fn with_kinds(mut self, kinds: EventMask) -> Self {
        self.filter.kinds = kinds;
        self.lanes.iter_mut().for_each(Lane::forget);
        self
    }

    /// Passes over events at other ticks. Chunks outside are not even read.
    #[must_use]
    pub fn with_ticks(mut self, ticks: RangeInclusive<u64>) -> Self {
        (self.filter.first, self.filter.last) = ticks.into_inner();
        self.lanes.iter_mut().for_each(Lane::forget);
        self
    }

    /// Number of events before this place, which is the number of the event after it.
    ///
    /// With several vCPUs and a filter, events that were passed over count from the next one found.
    pub fn number(&self) -> u64 {
        self.lanes.iter().map(Lane::at).sum()
    }

    /// Goes before the first event.
    pub fn seek_start(&mut self) {
        self.lanes.iter_mut().for_each(|lane| lane.jump(0));
    }

    /// Goes after the last event.
    pub fn seek_end(&mut self) {
        for lane in &mut self.lanes {
            lane.jump(lane.stream(&self.index).rows());
        }
    }

    /// Goes before the first event at or after `tick`.
    pub fn seek_tick(&mut self, tick: u64) -> Result<(), TraceError> {
        for lane in &mut self.lanes {
            let rank = lane.rank(&self.shared, &self.index, tick)?;
            lane.jump(rank);
        }
        Ok(())
    }

    /// Goes before event `number`, or after the last if there are not so many.
    pub fn seek_number(&mut self, number: u64) -> Result<(), TraceError> {
        if let [lane] = self.lanes.as_mut_slice() {
            lane.jump(number.min(lane.stream(&self.index).rows()));
            return Ok(());
        }
        // The last tick with at most `number` events before it; from there on one by one, over the
        // events of a single tick.
        let (mut low, mut high) = (0, u64::MAX);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            self.seek_tick(middle)?;
            if self.number() <= number {
                low = middle
            } else {
                high = middle - 1
            }
        }
        self.seek_tick(low)?;
        let kept = std::mem::take(&mut self.filter);
        self.lanes.iter_mut().for_each(Lane::forget);
        let mut outcome = Ok(());
        while self.number() < number && outcome.is_ok() {
            match self.find(true) {
                Ok(Some((lane, place))) => self.lanes[lane].set(place.row + 1),
                Ok(None) => break,
                Err(error) => outcome = Err(error),
            }
        }
        self.filter = kept;
        self.lanes.iter_mut().for_each(Lane::forget);
        outcome
    }

    /// The event before this place, and goes before it.
    pub fn prev(&mut self) -> Option<Result<EventRow, TraceError>> {
        self.step(false)
    }

    /// The lane that has the next event, or the one before.
    fn find(&mut self, forwards: bool) -> Result<Option<(usize, Place)>, TraceError> {
        let mut best: Option<(usize, Place)> = None;
        for (number, lane) in self.lanes.iter_mut().enumerate() {
            let found = if forwards {
                lane.ahead(&self.shared, &self.index, &self.filter)?
            } else {
                lane.behind(&self.shared, &self.index, &self.filter)?
            };
            let Some(found) = found else { continue };
            let better = match best {
                None => true,
                Some((_, best)) if forwards => found.tick < best.tick,
                // Among equal ticks the last vCPU's is the last.
                Some((_, best)) => found.tick >= best.tick,
            };
            if better {
                best = Some((number, found));
            }
        }
        Ok(best)
    }

    fn step(&mut self, forwards: bool) -> Option<Result<EventRow, TraceError>> {
        let (chosen, Place { row, tick }) = match self.find(forwards) {
            Ok(found) => found?,
            Err(error) => return Some(Err(error)),
        };
        let number = row + self.events_before(chosen, tick);
        let lane = &mut self.lanes[chosen];
        lane.set(if forwards { row + 1 } else { row });
        let vcpu = lane.stream(&self.index).vcpu;
        match lane.event(&self.shared, &self.index, row, &self.filter) {
            Ok(event) => Some(Ok(EventRow {
                number,
                tick,
                vcpu,
                event: event.clone(),
            })),
            Err(error) => Some(Err(error)),
        }
    }

    /// How many events of the other vCPUs come before those of lane `chosen` at `tick`.
    fn events_before(&mut self, chosen: usize, tick: u64) -> u64 {
        let mut before = 0;
        for (number, lane) in self.lanes.iter_mut().enumerate() {
            if number != chosen {
                let bound = if number < chosen {
                    tick.saturating_add(1)
                } else {
                    tick
                };
                // Where a chunk is damaged, its place stands for it.
                let rank = lane.rank(&self.shared, &self.index, bound);
                before += rank.unwrap_or(lane.at());
            }
        }
        before
    }
}

impl Iterator for Cursor {
    type Item = Result<EventRow, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step(true)
    }
}
