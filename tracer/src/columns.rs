//! Events on their way into a chunk, column by column.
//!
//! Rows of one kind have much in common and rows of different kinds little, so every field of every
//! kind has a column of its own, and so has the distance in ticks. A column holds differences from
//! what was to be expected (see [`crate::guess`]); the columns of a kind are a substream.

use crate::counts::encode_counts;
use crate::event::Event;
use crate::guess::{self, ColumnRef, Guess};
use crate::memory::{KindGuesses, Memory};
use crate::rows::{ROW_LIMIT, Row};
use crate::schema::Schema;
use crate::wire::{Bytes, FieldType, put_varint};

/// In place of the number of a kind: the code is not in the schema.
const NO_KIND: u16 = u16::MAX;

/// The columns of one kind.
#[derive(Clone, Debug)]
struct Kind {
    guesses: KindGuesses,
    fields: Vec<FieldType>,
    /// Number of its first column.
    first: usize,
    ticks: Vec<u8>,
}

/// Events of one vCPU on their way into a chunk.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    memory: Memory,
    kinds: Vec<Kind>,
    /// By code.
    numbers: Box<[u16; 256]>,
    columns: Vec<Vec<u8>>,
    /// The code of each row.
    codes: Vec<u8>,
    counts: Box<[u32; 256]>,
    first_tick: u64,
    last_tick: u64,
}

impl Columns {
    /// Columns for the codes of a schema.
    pub(crate) fn new(schema: &Schema) -> Self {
        let mut numbers = Box::new([NO_KIND; 256]);
        let mut kinds: Vec<Kind> = Vec::new();
        let mut first = 0;
        for (code, fields) in schema.codes() {
            let count: usize = fields.iter().map(|ty| ty.columns()).sum();
            let columns =
                (0..count as u8).map(|column| guess::of_column(ColumnRef { code, column }));
            numbers[usize::from(code)] = kinds.len() as u16;
            kinds.push(Kind {
                guesses: KindGuesses {
                    code,
                    ticks: guess::of_ticks(code),
                    columns: columns.collect(),
                },
                fields: fields.to_vec(),
                first,
                ticks: Vec::new(),
            });
            first += count;
        }
        let guesses: Vec<_> = kinds.iter().map(|kind| kind.guesses.clone()).collect();
        Self {
            memory: Memory::new(&guesses),
            kinds,
            numbers,
            columns: vec![Vec::new(); first],
            codes: Vec::new(),
            counts: Box::new([0; 256]),
            first_tick: 0,
            last_tick: 0,
        }
    }

    /// Appends an event. The tick must not be before the one before it.
    ///
    /// An event longer than [`ROW_LIMIT`], or of a code that is not in the schema, is left out, and
    /// its length is the error.
    pub(crate) fn put(&mut self, tick: u64, event: &Event) -> Result<(), usize> {
        let (code, bulk) = (event.code(), event.bulk());
        let number = usize::from(self.numbers[usize::from(code)]);
        if bulk > ROW_LIMIT || number >= self.kinds.len() {
            return Err(bulk);
        }
        if self.codes.is_empty() {
            self.first_tick = tick;
            self.memory.begin(tick);
        }
        self.last_tick = tick;
        let kind = &mut self.kinds[number];
        put_varint(self.memory.fold_tick(number, tick), &mut kind.ticks);
        self.memory.begin_row(tick);
        let mut row = RowWriter {
            kind: number,
            fields: &kind.fields,
            column: kind.first,
            memory: &mut self.memory,
            columns: &mut self.columns,
        };
        event.put_columns(&mut row);
        self.memory.end_row(number);
        self.codes.push(code);
        self.counts[usize::from(code)] += 1;
        Ok(())
    }

    pub(crate) fn rows(&self) -> u32 {
        self.codes.len() as u32
    }

    pub(crate) const fn ticks(&self) -> (u64, u64) {
        (self.first_tick, self.last_tick)
    }

    /// The table of counts.
    pub(crate) fn counts(&self) -> Vec<u8> {
        encode_counts(&self.counts)
    }

    /// The substreams: which columns there are, the codes and the ticks of the rows; then the columns
    /// of each kind, by code.
    pub(crate) fn substreams(&self) -> Vec<Vec<u8>> {
        let used = |kind: &&Kind| self.counts[usize::from(kind.guesses.code)] != 0;
        let kinds: Vec<&Kind> = self.kinds.iter().filter(used).collect();
        let mut head = Vec::with_capacity(self.codes.len() * 2 + kinds.len() * 40);
        put_varint(kinds.len() as u64, &mut head);
        let mut substreams = vec![Vec::new()];
        for kind in &kinds {
            let columns = &self.columns[kind.first..kind.first + kind.guesses.columns.len()];
            head.push(kind.guesses.code);
            put_column(kind.guesses.ticks, &kind.ticks, &mut head);
            head.push(columns.len() as u8);
            for (guess, column) in kind.guesses.columns.iter().zip(columns) {
                put_column(*guess, column, &mut head);
            }
            substreams.push(columns.concat());
        }
        head.extend_from_slice(&self.codes);
        kinds
            .iter()
            .for_each(|kind| head.extend_from_slice(&kind.ticks));
        substreams[0] = head;
        substreams
    }

    pub(crate) fn clear(&mut self) {
        self.columns.iter_mut().for_each(Vec::clear);
        self.kinds.iter_mut().for_each(|kind| kind.ticks.clear());
        self.codes.clear();
        self.counts.fill(0);
    }
}

/// What the head says of a column: its rule and its length.
fn put_column(guess: Guess, column: &[u8], head: &mut Vec<u8>) {
    guess.put(head);
    put_varint(column.len() as u64, head);
}

/// A row on its way into its columns.
#[derive(Debug)]
pub(crate) struct RowWriter<'a> {
    kind: usize,
    fields: &'a [FieldType],
    /// The next column.
    column: usize,
    memory: &'a mut Memory,
    columns: &'a mut [Vec<u8>],
}

impl RowWriter<'_> {
    /// Puts a number into the next column.
    #[inline]
    pub(crate) fn int(&mut self, value: u64) {
        let folded = self.memory.fold(self.kind, self.column, value);
        put_varint(folded, &mut self.columns[self.column]);
        self.column += 1;
    }

    /// Puts bytes into the next column: 0 for the expected ones, else one more than their length,
    /// and them.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let column = &mut self.columns[self.column];
        if self.memory.is_expected(self.column, bytes) {
            column.push(0);
        } else {
            put_varint(bytes.len() as u64 + 1, column);
            column.extend_from_slice(bytes);
        }
        self.column += 1;
    }

    /// Puts sixteen bytes into the next column.
    pub(crate) fn raw16(&mut self, bytes: &[u8; 16]) {
        self.columns[self.column].extend_from_slice(bytes);
        self.column += 1;
    }

    /// Puts the fields of a row of a later build, which are in the form they have in rows.
    pub(crate) fn row_form(&mut self, body: &[u8]) {
        let mut from = Bytes::new(body);
        for ty in self.fields {
            // A body that was read by the schema has what the schema says; of another, the rest is
            // zero and empty.
            match ty {
                FieldType::U8 | FieldType::Bool | FieldType::Code => {
                    self.int(u64::from(from.byte().unwrap_or_default()));
                }
                FieldType::U16 | FieldType::U32 | FieldType::U64 | FieldType::I64 => {
                    self.int(from.varint().unwrap_or_default());
                }
                FieldType::Words4 | FieldType::Words6 => {
                    for _ in 0..ty.columns() {
                        self.int(from.varint().unwrap_or_default());
                    }
                }
                FieldType::Bytes | FieldType::Text => {
                    self.bytes(from.counted().unwrap_or_default());
                }
                FieldType::Raw16 => {
                    let raw = from.take(16).ok().and_then(|raw| raw.first_chunk());
                    self.raw16(raw.unwrap_or(&[0; 16]));
                }
                FieldType::Counts => {
                    let rest = from.rest();
                    let _ = ty.skip(&mut from);
                    self.bytes(&rest[..rest.len() - from.rest().len()]);
                }
            }
        }
    }
}
