//! What is remembered of the rows of a chunk while it is written or read, and what is expected from
//! that. Writer and reader keep the same memory, so each difference means the same to both.

use std::collections::BTreeMap;

use crate::bytes::{unzigzag, zigzag};
use crate::guess::{ColumnRef, Guess};

/// The longest bytes that are remembered, so that a short chunk cannot stand for more than a reader
/// has room for.
const EXPECTED_MAX: usize = 64;

/// Where an expectation comes from, by place rather than by name.
#[derive(Clone, Copy, Debug)]
enum From {
    Nothing,
    Latest(u32),
    Since(u32),
    Clock,
    With(u32),
}

/// A column: where its values are expected from, and the latest of them.
#[derive(Clone, Copy, Debug)]
struct Cell {
    from: From,
    value: u64,
}

/// The latest row of a kind.
#[derive(Clone, Copy, Debug, Default)]
struct Latest {
    tick: u64,
    /// How many ticks after the one before it.
    step: u64,
    /// The value that the ticks of the kind follow, as it was then.
    mark: u64,
}

/// What is expected of one kind.
#[derive(Clone, Debug)]
pub(crate) struct KindGuesses {
    pub(crate) code: u8,
    pub(crate) ticks: Guess,
    pub(crate) columns: Vec<Guess>,
}

/// The memory of a chunk.
#[derive(Clone, Debug)]
pub(crate) struct Memory {
    /// One per column; the last is no column and its value stays 0.
    cells: Vec<Cell>,
    /// The latest bytes of each column.
    texts: Vec<Vec<u8>>,
    /// What a column held last, by column and value of the one it goes with.
    with: BTreeMap<(u32, u64), Vec<u8>>,
    /// By kind; the last is no kind.
    latest: Vec<Latest>,
    ticks_from: Vec<From>,
    /// The tick of the row before.
    tick: u64,
}

impl Memory {
    /// A memory of kinds, whose columns are numbered one kind after the other.
    pub(crate) fn new(kinds: &[KindGuesses]) -> Self {
        let mut first = [None; 256];
        let mut columns = 0;
        for (number, kind) in kinds.iter().enumerate() {
            first[usize::from(kind.code)] = Some((number as u32, columns, kind.columns.len()));
            columns += kind.columns.len() as u32;
        }
        // What is not in this chunk never had a value.
        let column = |of: ColumnRef| match first[usize::from(of.code)] {
            Some((_, start, count)) if usize::from(of.column) < count => {
                start + u32::from(of.column)
            }
            _ => columns,
        };
        let kind = |code: u8| match first[usize::from(code)] {
            Some((number, ..)) => number,
            None => kinds.len() as u32,
        };
        let resolve = |guess: Guess| match guess {
            Guess::Nothing => From::Nothing,
            Guess::Latest(of) => From::Latest(column(of)),
            Guess::Since(code) => From::Since(kind(code)),
            Guess::Clock => From::Clock,
            Guess::With(of) => From::With(column(of)),
        };
        let guesses = kinds.iter().flat_map(|kind| &kind.columns);
        let guesses = guesses.copied().chain([Guess::Nothing]);
        let cells = guesses.map(|guess| Cell {
            from: resolve(guess),
            value: 0,
        });
        Self {
            cells: cells.collect(),
            texts: vec![Vec::new(); columns as usize + 1],
            with: BTreeMap::new(),
            latest: vec![Latest::default(); kinds.len() + 1],
            ticks_from: kinds.iter().map(|kind| resolve(kind.ticks)).collect(),
            tick: 0,
        }
    }

    /// Forgets everything: a chunk begins at this tick.
    pub(crate) fn begin(&mut self, tick: u64) {
        self.cells.iter_mut().for_each(|cell| cell.value = 0);
        self.texts.iter_mut().for_each(Vec::clear);
        self.with.clear();
        self.latest.fill(Latest::default());
        self.tick = tick;
    }

    /// The tick that a row of this kind is expected at, if any.
    #[inline]
    fn expected_tick(&self, kind: usize) -> Option<u64> {
        let latest = self.latest[kind];
        match self.ticks_from[kind] {
            From::Nothing | From::Since(_) | From::With(_) => None,
            From::Clock => Some(latest.tick.wrapping_add(latest.step)),
            From::Latest(of) => {
                let passed = self.cells[of as usize].value.wrapping_sub(latest.mark);
                Some(latest.tick.wrapping_add(passed))
            }
        }
    }

    /// What stands for the tick of a row of this kind.
    #[inline]
    pub(crate) fn fold_tick(&self, kind: usize, tick: u64) -> u64 {
        match self.expected_tick(kind) {
            None => tick.wrapping_sub(self.tick),
            Some(expected) => zigzag(tick.wrapping_sub(expected)),
        }
    }

    /// The tick that this stands for; `None` if it is before the row before.
    #[inline]
    pub(crate) fn unfold_tick(&self, kind: usize, folded: u64) -> Option<u64> {
        match self.expected_tick(kind) {
            None => self.tick.checked_add(folded),
            Some(expected) => {
                let tick = expected.wrapping_add(unzigzag(folded));
                (tick >= self.tick).then_some(tick)
            }
        }
    }

    /// A row of this kind begins at this tick.
    #[inline]
    pub(crate) fn begin_row(&mut self, tick: u64) {
        self.tick = tick;
    }

    /// The row is over.
    #[inline]
    pub(crate) fn end_row(&mut self, kind: usize) {
        let mark = match self.ticks_from[kind] {
            From::Latest(of) => self.cells[of as usize].value,
            _ => 0,
        };
        let tick = self.tick;
        let latest = &mut self.latest[kind];
        let step = tick.wrapping_sub(latest.tick);
        *latest = Latest { tick, step, mark };
    }

    /// What is expected of a column that expects something.
    #[inline]
    fn expected(&self, kind: usize, cell: Cell) -> u64 {
        match cell.from {
            From::Nothing | From::With(_) => 0,
            From::Latest(of) => self.cells[of as usize].value,
            From::Since(kind) => self.tick.wrapping_sub(self.latest[kind as usize].tick),
            From::Clock => {
                let passed = self.tick.wrapping_sub(self.latest[kind].tick);
                cell.value.wrapping_add(passed)
            }
        }
    }

    /// What stands for a value, and the value is remembered.
    #[inline]
    pub(crate) fn fold(&mut self, kind: usize, column: usize, value: u64) -> u64 {
        let cell = self.cells[column];
        self.cells[column].value = value;
        match cell.from {
            From::Nothing | From::With(_) => value,
            From::Latest(of) if of as usize == column => zigzag(value.wrapping_sub(cell.value)),
            _ => zigzag(value.wrapping_sub(self.expected(kind, cell))),
        }
    }

    /// The value that this stands for, which is remembered.
    #[inline]
    pub(crate) fn unfold(&mut self, kind: usize, column: usize, folded: u64) -> u64 {
        let cell = self.cells[column];
        let value = match cell.from {
            From::Nothing | From::With(_) => folded,
            _ => self.expected(kind, cell).wrapping_add(unzigzag(folded)),
        };
        self.cells[column].value = value;
        value
    }

    /// The bytes that are expected in a column, if any.
    fn expected_bytes(&self, column: usize) -> Option<&[u8]> {
        match self.cells[column].from {
            From::Nothing | From::Since(_) | From::Clock => None,
            From::Latest(of) => Some(&self.texts[of as usize]),
            From::With(of) => {
                let key = (column as u32, self.cells[of as usize].value);
                self.with.get(&key).map(Vec::as_slice)
            }
        }
    }

    /// Whether these are the bytes expected; they are remembered. Nothing long is.
    pub(crate) fn is_expected(&mut self, column: usize, bytes: &[u8]) -> bool {
        let same = bytes.len() <= EXPECTED_MAX && self.expected_bytes(column) == Some(bytes);
        self.remember(column, bytes);
        same
    }

    /// These bytes are in the column.
    pub(crate) fn remember(&mut self, column: usize, bytes: &[u8]) {
        let bytes = if bytes.len() <= EXPECTED_MAX {
            bytes
        } else {
            &[]
        };
        let text = &mut self.texts[column];
        text.clear();
        text.extend_from_slice(bytes);
        if let From::With(of) = self.cells[column].from {
            let known = self
                .with
                .entry((column as u32, self.cells[of as usize].value));
            let known = known.or_default();
            known.clear();
            known.extend_from_slice(bytes);
        }
    }

    /// The bytes expected are in the column; `None` if none are.
    pub(crate) fn recall(&mut self, column: usize) -> Option<&[u8]> {
        let bytes = self.expected_bytes(column)?.to_vec();
        self.remember(column, &bytes);
        Some(&self.texts[column])
    }
}
