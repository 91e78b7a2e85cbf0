//! One vCPU's part of a cursor: a place in its chunks, and the chunks that are unpacked around it.

use std::sync::Arc;

use crate::chunk::ChunkHeader;
use crate::counts::Counts;
use crate::error::TraceError;
use crate::event::Event;
use crate::facility::EventMask;
use crate::index::{ChunkEntry, Index, Stream};
use crate::reader::Shared;
use crate::table::Rows;

/// Unpacked chunks that a lane keeps: the one it is in, and the one beside it.
const KEPT: usize = 2;

/// What a cursor passes over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filter {
    pub(crate) kinds: EventMask,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            kinds: EventMask::ALL,
            first: 0,
            last: u64::MAX,
        }
    }
}

impl Filter {
    fn wants(&self, tick: u64) -> bool {
        (self.first..=self.last).contains(&tick)
    }

    fn wants_chunk(&self, header: &ChunkHeader, mut counts: Counts<'_>) -> bool {
        header.last_tick >= self.first
            && header.first_tick <= self.last
            && (self.kinds == EventMask::ALL
                || counts.any(|(code, _)| self.kinds.contains_code(code)))
    }
}

/// An event that was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Its number in the lane.
    pub(crate) row: u64,
    pub(crate) tick: u64,
}

/// An unpacked chunk.
#[derive(Clone, Debug)]
struct Unpacked {
    /// Number of the chunk in the stream.
    chunk: usize,
    /// Number of its first event in the lane.
    start: u64,
    /// The kinds that were wanted.
    kinds: EventMask,
    rows: Arc<Rows>,
}

impl Unpacked {
    /// The first place at or after row `at` of the lane that the filter wants.
    fn ahead(&self, at: u64, filter: &Filter) -> Option<Place> {
        if self.kinds == filter.kinds {
            let mut numbers = self.rows.numbers[self.before(at)..].iter();
            return numbers.find_map(|number| self.wanted(*number as usize, filter));
        }
        let from = at.saturating_sub(self.start) as usize;
        (from..self.rows.codes.len()).find_map(|number| self.looked_at(number, filter))
    }

    /// The last place before row `at` of the lane that the filter wants.
    fn behind(&self, at: u64, filter: &Filter) -> Option<Place> {
        if self.kinds == filter.kinds {
            let numbers = self.rows.numbers[..self.before(at)].iter();
            let mut numbers = numbers.rev();
            return numbers.find_map(|number| self.wanted(*number as usize, filter));
        }
        let until = at.saturating_sub(self.start) as usize;
        let rows = 0..until.min(self.rows.codes.len());
        rows.rev().find_map(|number| self.looked_at(number, filter))
    }

    /// The row with this number in the chunk, if its kind and tick are wanted.
    fn looked_at(&self, number: usize, filter: &Filter) -> Option<Place> {
        let is_kind = filter.kinds.contains_code(self.rows.codes[number]);
        is_kind.then(|| self.wanted(number, filter)).flatten()
    }

    /// The row with this number in the chunk, if its tick is wanted.
    fn wanted(&self, number: usize, filter: &Filter) -> Option<Place> {
        let (row, tick) = (self.start + number as u64, self.rows.ticks[number]);
        filter.wants(tick).then_some(Place { row, tick })
    }

    /// How many of the wanted rows come before row `row` of the lane.
    fn before(&self, row: u64) -> usize {
        let number = row.saturating_sub(self.start);
        let numbers = &self.rows.numbers;
        // Where every row is wanted, it is in its own place.
        let place = number.min(numbers.len() as u64);
        if numbers.len() == self.rows.ticks.len() {
            return place as usize;
        }
        numbers.partition_point(|wanted| u64::from(*wanted) < number)
    }
}

/// A place in the events of one vCPU.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    stream: usize,
    /// Events before the place.
    at: u64,
    /// The place was gone to and nothing was read there yet: of the chunk, only as much is read as one
    /// event needs. Who asks for another one gets the chunk unpacked.
    jumped: bool,
    /// The event that was read alone.
    alone: Option<Event>,
    /// The chunks used last, the latest first.
    kept: Vec<Unpacked>,
    /// What was found ahead and behind, while the place stays.
    ahead: Option<Option<Place>>,
    behind: Option<Option<Place>>,
}

impl Lane {
    pub(crate) const fn new(stream: usize) -> Self {
        Self {
            stream,
            at: 0,
            jumped: false,
            alone: None,
            kept: Vec::new(),
            ahead: None,
            behind: None,
        }
    }

    pub(crate) const fn at(&self) -> u64 {
        self.at
    }

    /// Moves to a place beside.
    pub(crate) const fn set(&mut self, at: u64) {
        self.at = at;
        self.forget();
    }

    /// Goes to a place anywhere.
    pub(crate) const fn jump(&mut self, at: u64) {
        self.set(at);
        self.jumped = true;
    }

    /// Forgets what was found: the place or the filter has changed.
    pub(crate) const fn forget(&mut self) {
        self.ahead = None;
        self.behind = None;
    }

    pub(crate) fn stream<'a>(&self, index: &'a Index) -> &'a Stream {
        &index.streams()[self.stream]
    }

    /// The next event at or after the place that the filter wants.
    pub(crate) fn ahead(
        &mut self,
        shared: &Shared,
        index: &Index,
        filter: &Filter,
    ) -> Result<Option<Place>, TraceError> {
        if let Some(found) = self.ahead {
            return Ok(found);
        }
        let stream = self.stream(index);
        let mut chunk = self.chunk_of(stream, self.at);
        let mut found = None;
        while let Some(entry) = entry(stream, index, chunk) {
            if entry.header.first_tick > filter.last {
                break;
            }
            if filter.wants_chunk(&entry.header, index.counts(entry)) {
                let at = self.at;
                let kinds = self.kinds_for(chunk, filter);
                let unpacked = match self.load(shared, index, chunk, &kinds) {
                    Ok(unpacked) => unpacked,
                    Err(error) => {
                        self.set(stream.starts[chunk + 1]);
                        return Err(error);
                    }
                };
                found = unpacked.ahead(at, filter);
                if found.is_some() {
                    break;
                }
            }
            chunk += 1;
        }
        self.ahead = Some(found);
        Ok(found)
    }

    /// The last event before the place that the filter wants.
    pub(crate) fn behind(
        &mut self,
        shared: &Shared,
        index: &Index,
        filter: &Filter,
    ) -> Result<Option<Place>, TraceError> {
        if let Some(found) = self.behind {
            return Ok(found);
        }
        let stream = self.stream(index);
        let mut found = None;
        let mut chunks = self
            .at
            .checked_sub(1)
            .map_or(0, |last| self.chunk_of(stream, last) + 1);
        while let Some(chunk) = chunks.checked_sub(1) {
            let Some(entry) = entry(stream, index, chunk) else {
                break;
            };
            if entry.header.last_tick < filter.first {
                break;
            }
            if filter.wants_chunk(&entry.header, index.counts(entry)) {
                let at = self.at;
                let kinds = self.kinds_for(chunk, filter);
                let unpacked = match self.load(shared, index, chunk, &kinds) {
                    Ok(unpacked) => unpacked,
                    Err(error) => {
                        self.set(stream.starts[chunk]);
                        return Err(error);
                    }
                };
                found = unpacked.behind(at, filter);
                if found.is_some() {
                    break;
                }
            }
            chunks = chunk;
        }
        self.behind = Some(found);
        Ok(found)
    }

    /// How many events of this vCPU are before `tick`.
    pub(crate) fn rank(
        &mut self,
        shared: &Shared,
        index: &Index,
        tick: u64,
    ) -> Result<u64, TraceError> {
        let stream = self.stream(index);
        let ended = |number: &u32| index.entries()[*number as usize].header.last_tick < tick;
        let chunk = stream.chunks.partition_point(ended);
        match entry(stream, index, chunk) {
            Some(entry) if entry.header.first_tick < tick => {
                // The ticks are there whatever the kinds: those unpacked last will do.
                let kept = self.kept.iter().find(|kept| kept.chunk == chunk);
                let kinds = kept.map_or(EventMask::NONE, |kept| kept.kinds);
                let Unpacked { start, rows, .. } = self.load(shared, index, chunk, &kinds)?;
                Ok(start + rows.ticks.partition_point(|at| *at < tick) as u64)
            }
            _ => Ok(stream.starts[chunk]),
        }
    }

    /// The event with this number in the lane.
    pub(crate) fn event(
        &mut self,
        shared: &Shared,
        index: &Index,
        row: u64,
        filter: &Filter,
    ) -> Result<&Event, TraceError> {
        let chunk = self.chunk_of(self.stream(index), row);
        let jumped = std::mem::take(&mut self.jumped);
        if jumped && !self.has(chunk, &filter.kinds) {
            let number = self.stream(index).chunks[chunk];
            let unpacked = self.load(shared, index, chunk, &EventMask::NONE)?;
            let row = row - unpacked.start;
            let code = unpacked.rows.codes[row as usize];
            let event = shared.event(&index.entries()[number as usize], row as u32, code)?;
            return Ok(self.alone.insert(event));
        }
        let unpacked = self.load(shared, index, chunk, &filter.kinds)?;
        Ok(&unpacked.rows.events[unpacked.before(row)])
    }

    /// Which kinds of a chunk to unpack to find a place: none, if one event may be all that is wanted.
    fn kinds_for(&self, chunk: usize, filter: &Filter) -> EventMask {
        if self.jumped && !self.has(chunk, &filter.kinds) {
            EventMask::NONE
        } else {
            filter.kinds
        }
    }

    fn has(&self, chunk: usize, kinds: &EventMask) -> bool {
        let is_it = |kept: &Unpacked| kept.chunk == chunk && kept.kinds == *kinds;
        self.kept.iter().any(is_it)
    }

    /// The chunk that holds row `row`; after the last row, one past the last chunk.
    fn chunk_of(&self, stream: &Stream, row: u64) -> usize {
        // Mostly it is the chunk used last.
        if let Some(Unpacked {
            chunk, start, rows, ..
        }) = self.kept.first()
            && (*start..start + rows.ticks.len() as u64).contains(&row)
        {
            return *chunk;
        }
        stream.starts[1..].partition_point(|end| *end <= row)
    }

    /// Unpacks a chunk, unless it is kept.
    fn load(
        &mut self,
        shared: &Shared,
        index: &Index,
        chunk: usize,
        kinds: &EventMask,
    ) -> Result<&Unpacked, TraceError> {
        let is_it = |kept: &Unpacked| kept.chunk == chunk && kept.kinds == *kinds;
        match self.kept.iter().position(is_it) {
            Some(0) => {}
            Some(at) => self.kept[..=at].rotate_right(1),
            None => {
                let stream = self.stream(index);
                let (number, start) = (stream.chunks[chunk], stream.starts[chunk]);
                // The rows of a chunk that no other cursor has are read over: making room anew
                // takes as long as reading.
                let ticks_alone =
                    |kept: &Unpacked| kept.chunk == chunk && kept.kinds == EventMask::NONE;
                let oldest = match self.kept.iter().position(ticks_alone) {
                    Some(at) => Some(self.kept.remove(at)),
                    None if self.kept.len() < KEPT => None,
                    None => self.kept.pop(),
                };
                let mut rows = oldest
                    .and_then(|oldest| Arc::into_inner(oldest.rows))
                    .unwrap_or_default();
                shared.events_over(&index.entries()[number as usize], kinds, &mut rows)?;
                self.kept.insert(
                    0,
                    Unpacked {
                        chunk,
                        start,
                        kinds: *kinds,
                        rows: Arc::new(rows),
                    },
                );
            }
        }
        Ok(&self.kept[0])
    }
}

fn entry<'a>(stream: &Stream, index: &'a Index, chunk: usize) -> Option<&'a ChunkEntry> {
    stream
        .chunks
        .get(chunk)
        .map(|number| &index.entries()[*number as usize])
}
