//! Reading events from the columns of a chunk: all of them, or those of some kinds.

use crate::chunk::BODY_LIMIT;
use crate::event::Event;
use crate::facility::EventMask;
use crate::guess::{ColumnRef, Guess};
use crate::memory::{KindGuesses, Memory};
use crate::rows::{Row, RowError, RowFrame, RowRule};
use crate::schema::Schema;
use crate::wire::{Bytes, FieldType, WireError, put_varint};

/// In place of the number of a kind: the code has no columns in this chunk.
const NO_KIND: u16 = u16::MAX;

/// The columns of one kind, as the head of a chunk lists them.
#[derive(Debug)]
struct Kind<'a> {
    code: u8,
    fields: &'a [FieldType],
    first: usize,
    /// Lengths of the columns.
    lens: Vec<usize>,
    rows: u32,
    ticks_len: usize,
}

/// The head of a chunk: its first substream.
#[derive(Debug)]
pub(crate) struct Head<'a> {
    kinds: Vec<Kind<'a>>,
    guesses: Vec<KindGuesses>,
    numbers: Box<[u16; 256]>,
    codes: &'a [u8],
    ticks: Vec<Bytes<'a>>,
}

/// Something is wrong with the table itself, not with one row.
fn in_head(rule: WireError) -> RowError {
    RowError {
        row: 0,
        rule: rule.into(),
    }
}

impl<'a> Head<'a> {
    /// Reads the head of a chunk.
    pub(crate) fn get(bytes: &'a [u8], rows: u32, schema: &'a Schema) -> Result<Self, RowError> {
        Self::list(bytes, rows, schema).map_err(in_head)
    }

    fn list(bytes: &'a [u8], rows: u32, schema: &'a Schema) -> Result<Self, WireError> {
        let mut from = Bytes::new(bytes);
        let mut head = Self {
            kinds: Vec::new(),
            guesses: Vec::new(),
            numbers: Box::new([NO_KIND; 256]),
            codes: &[],
            ticks: Vec::new(),
        };
        let count = from.varint()?;
        let mut first = 0;
        for number in 0..count {
            let code = from.byte()?;
            let is_after = head.kinds.last().is_none_or(|kind| kind.code < code);
            if !is_after {
                return Err(WireError::Order(code));
            }
            let (ticks, ticks_len) = (Guess::get(&mut from)?, length(&mut from)?);
            let found = usize::from(from.byte()?);
            let fields = schema.types(code)?;
            let expected = fields.iter().map(|ty| ty.columns()).sum();
            if found != expected {
                return Err(WireError::Columns {
                    code,
                    found,
                    expected,
                });
            }
            let (mut columns, mut lens) = (Vec::new(), Vec::new());
            for _ in 0..found {
                columns.push(Guess::get(&mut from)?);
                lens.push(length(&mut from)?);
            }
            head.numbers[usize::from(code)] = number as u16;
            head.guesses.push(KindGuesses {
                code,
                ticks,
                columns,
            });
            head.kinds.push(Kind {
                code,
                fields,
                first,
                lens,
                rows: 0,
                ticks_len,
            });
            first += found;
        }
        head.codes = from.take(rows as usize)?;
        for code in head.codes {
            let number = usize::from(head.numbers[usize::from(*code)]);
            let kind = head.kinds.get_mut(number).ok_or(WireError::Code(*code))?;
            kind.rows += 1;
        }
        for kind in &head.kinds {
            head.ticks.push(Bytes::new(from.take(kind.ticks_len)?));
        }
        if from.rest().is_empty() {
            Ok(head)
        } else {
            Err(WireError::Short)
        }
    }

    /// How many substreams follow the head.
    pub(crate) fn substreams(&self) -> usize {
        self.kinds.len()
    }

    /// The lengths that the substreams after the head must have.
    pub(crate) fn lengths(&self) -> impl Iterator<Item = usize> {
        self.kinds.iter().map(|kind| kind.lens.iter().sum())
    }

    /// Whether each substream is needed to read events of some kinds: these kinds themselves, and
    /// those that they are expected from.
    pub(crate) fn needed(&self, wanted: &EventMask) -> Vec<bool> {
        let mut needed = vec![false; self.kinds.len()];
        let mut new: Vec<usize> = (0..self.kinds.len())
            .filter(|number| wanted.contains_code(self.kinds[*number].code))
            .collect();
        // The ticks of every row are read, so what those follow is always needed.
        for kind in &self.guesses {
            new.extend(self.source(kind.ticks));
        }
        while let Some(number) = new.pop() {
            if !std::mem::replace(&mut needed[number], true) {
                let columns = self.guesses[number].columns.iter();
                new.extend(columns.filter_map(|guess| self.source(*guess)));
            }
        }
        needed
    }

    /// The kind whose columns something is expected from.
    fn source(&self, guess: Guess) -> Option<usize> {
        match guess {
            Guess::Latest(ColumnRef { code, .. }) | Guess::With(ColumnRef { code, .. }) => {
                let number = usize::from(self.numbers[usize::from(code)]);
                (number < self.kinds.len()).then_some(number)
            }
            Guess::Nothing | Guess::Since(_) | Guess::Clock => None,
        }
    }
}

fn length(from: &mut Bytes<'_>) -> Result<usize, WireError> {
    let len = usize::try_from(from.varint()?).map_err(|_| WireError::Short)?;
    if len > BODY_LIMIT as usize {
        return Err(WireError::Short);
    }
    Ok(len)
}

/// Events that were read from a chunk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rows {
    /// The tick of every row of the chunk.
    pub(crate) ticks: Vec<u64>,
    /// The code of every row of the chunk.
    pub(crate) codes: Vec<u8>,
    /// Number in the chunk, of each row that was wanted.
    pub(crate) numbers: Vec<u32>,
    /// The rows that were wanted.
    pub(crate) events: Vec<Event>,
}

/// Reads events of some kinds, over what is in `rows`; or, with `only`, the row of that number alone,
/// of those kinds it must be: then nothing is looked at that comes after it.
///
/// `substreams` are those after the head; of those that are not needed, nothing is looked at. The
/// caller has bounded `frame.rows` and their lengths.
pub(crate) fn decode_columns(
    head: &mut Head<'_>,
    substreams: &[&[u8]],
    frame: RowFrame,
    wanted: &EventMask,
    only: Option<u32>,
    rows: &mut Rows,
) -> Result<(), RowError> {
    let needed = head.needed(wanted);
    let mut memory = Memory::new(&head.guesses);
    memory.begin(frame.first_tick);
    let mut columns = Vec::new();
    for (kind, substream) in head.kinds.iter().zip(substreams) {
        let mut from = Bytes::new(substream);
        for len in &kind.lens {
            let column = if needed[head.numbers[usize::from(kind.code)] as usize] {
                from.take(*len).map_err(in_head)?
            } else {
                &[]
            };
            columns.push(Bytes::new(column));
        }
    }
    let wanted: Vec<bool> = head
        .kinds
        .iter()
        .map(|kind| wanted.contains_code(kind.code))
        .collect();
    let kept = head
        .kinds
        .iter()
        .zip(&wanted)
        .filter(|(_, wanted)| **wanted);
    let kept: u32 = match only {
        None => kept.map(|(kind, _)| kind.rows).sum(),
        Some(_) => 1,
    };
    rows.ticks.clear();
    rows.ticks.reserve(frame.rows as usize);
    rows.codes.clear();
    rows.codes.extend_from_slice(head.codes);
    rows.numbers.clear();
    rows.numbers.reserve(kept as usize);
    rows.events.resize_with(kept as usize, Event::blank);
    let mut tick = frame.first_tick;
    let mut at = 0;
    for (row, code) in (0..frame.rows).zip(head.codes) {
        let fail = |rule: WireError| RowError {
            row,
            rule: rule.into(),
        };
        let number = usize::from(head.numbers[usize::from(*code)]);
        let folded = head.ticks[number].varint().map_err(fail)?;
        let unfolded = memory.unfold_tick(number, folded);
        tick = unfolded.ok_or(RowError {
            row,
            rule: RowRule::Tick,
        })?;
        rows.ticks.push(tick);
        memory.begin_row(tick);
        if needed[number] {
            let kind = &head.kinds[number];
            let mut reader = RowReader {
                kind,
                number,
                column: kind.first,
                memory: &mut memory,
                columns: &mut columns,
            };
            if wanted[number] && only.is_none_or(|only| only == row) {
                rows.events[at].get_columns(&mut reader).map_err(fail)?;
                rows.numbers.push(row);
                at += 1;
            } else {
                reader.skip_fields(0).map_err(fail)?;
            }
        }
        memory.end_row(number);
        if only == Some(row) {
            return Ok(());
        }
    }
    let row = frame.rows.saturating_sub(1);
    let rest: usize = columns
        .iter()
        .chain(&head.ticks)
        .map(|column| column.rest().len())
        .sum();
    if rest != 0 {
        let rule = RowRule::Trailing(rest);
        return Err(RowError { row, rule });
    }
    if tick != frame.last_tick {
        let rule = RowRule::LastTick {
            found: tick,
            expected: frame.last_tick,
        };
        return Err(RowError { row, rule });
    }
    Ok(())
}

/// A row on its way out of its columns.
#[derive(Debug)]
pub(crate) struct RowReader<'a, 'b> {
    kind: &'a Kind<'b>,
    number: usize,
    /// The next column.
    column: usize,
    memory: &'a mut Memory,
    columns: &'a mut [Bytes<'b>],
}

impl RowReader<'_, '_> {
    pub(crate) fn code(&self) -> u8 {
        self.kind.code
    }

    /// How many fields the code has in the file.
    #[inline]
    pub(crate) fn fields(&self) -> usize {
        self.kind.fields.len()
    }

    /// A number from the next column.
    #[inline]
    pub(crate) fn int(&mut self) -> Result<u64, WireError> {
        let folded = self.columns[self.column].varint()?;
        let value = self.memory.unfold(self.number, self.column, folded);
        self.column += 1;
        Ok(value)
    }

    /// A number that has at most so many bits.
    #[inline]
    pub(crate) fn narrow<T: TryFrom<u64>>(&mut self, bits: u32) -> Result<T, WireError> {
        T::try_from(self.int()?).map_err(|_| WireError::Overlong { bits })
    }

    /// Bytes from the next column.
    pub(crate) fn bytes(&mut self) -> Result<&[u8], WireError> {
        let column = self.column;
        self.column += 1;
        let from = &mut self.columns[column];
        match from.varint()?.checked_sub(1) {
            None => self.memory.recall(column).ok_or(WireError::Unexpected),
            Some(len) => {
                let bytes = from.take(usize::try_from(len).map_err(|_| WireError::Short)?)?;
                self.memory.remember(column, bytes);
                Ok(bytes)
            }
        }
    }

    /// Sixteen bytes from the next column.
    pub(crate) fn raw16(&mut self) -> Result<[u8; 16], WireError> {
        let raw = self.columns[self.column].take(16)?;
        self.column += 1;
        raw.first_chunk().copied().ok_or(WireError::Short)
    }

    /// Steps over the fields from this one on.
    pub(crate) fn skip_fields(&mut self, from: usize) -> Result<(), WireError> {
        let fields = self.kind.fields.get(from..).unwrap_or_default();
        for ty in fields {
            match ty {
                FieldType::Bytes | FieldType::Text | FieldType::Counts => drop(self.bytes()?),
                FieldType::Raw16 => drop(self.raw16()?),
                _ => {
                    for _ in 0..ty.columns() {
                        self.int()?;
                    }
                }
            }
        }
        Ok(())
    }

    /// All fields, in the form that they have in rows.
    pub(crate) fn row_form(&mut self) -> Result<Vec<u8>, WireError> {
        let mut out = Vec::new();
        for ty in self.kind.fields {
            match ty {
                FieldType::U8 | FieldType::Bool | FieldType::Code => out.push(self.narrow(8)?),
                FieldType::Bytes | FieldType::Text => {
                    let bytes = self.bytes()?;
                    put_varint(bytes.len() as u64, &mut out);
                    out.extend_from_slice(bytes);
                }
                FieldType::Counts => out.extend_from_slice(self.bytes()?),
                FieldType::Raw16 => out.extend_from_slice(&self.raw16()?),
                _ => {
                    for _ in 0..ty.columns() {
                        put_varint(self.int()?, &mut out);
                    }
                }
            }
        }
        Ok(out)
    }
}
