//! Rows of events and inputs: the body of their chunks.
//!
//! A row is the distance in ticks from the row before it (from the chunk's first tick for the first
//! row), as a varint; the code; the fields. Addresses are absolute: a general compressor finds exact
//! repeats, and differences hide them.

use crate::columns::RowWriter;
use crate::counts::encode_counts;
use crate::schema::Schema;
use crate::table::RowReader;
use crate::wire::{Bytes, WireError, put_varint};

/// The longest row, so that any row fits in a chunk beside others.
pub(crate) const ROW_LIMIT: usize = 4 << 20;

/// An event or an input.
pub(crate) trait Row: Sized {
    /// Its code.
    fn code(&self) -> u8;
    /// Appends its code and fields.
    fn put(&self, out: &mut Vec<u8>);
    /// Appends its fields to their columns.
    fn put_columns(&self, row: &mut RowWriter<'_>);
    /// How many bytes of its fields have no fixed bound.
    fn bulk(&self) -> usize;
    /// About how many bytes it takes in a chunk: a number that follows from the row alone.
    fn weight(&self) -> usize;
    /// A row to read into.
    fn blank() -> Self;
    /// Reads a code and its fields, into the place where the row will stay: copying it there takes
    /// longer than reading it.
    fn get(&mut self, from: &mut Bytes<'_>, schema: &Schema) -> Result<(), WireError>;
    /// Reads its fields from their columns.
    fn get_columns(&mut self, row: &mut RowReader<'_, '_>) -> Result<(), WireError>;
}

/// What is wrong with a row, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowError {
    /// Number of the row in its chunk.
    pub(crate) row: u32,
    /// What is wrong.
    pub(crate) rule: RowRule,
}

/// What is wrong with a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RowRule {
    /// Its bytes.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Its tick does not fit in 64 bits, or is before the one before it.
    #[error("its tick does not fit in 64 bits, or is before that of the row before")]
    Tick,
    /// The last tick is not the one that the header gives.
    #[error("the last tick is {found}, but the header says {expected}")]
    LastTick {
        /// In the rows.
        found: u64,
        /// In the header.
        expected: u64,
    },
    /// There are bytes after the last row.
    #[error("{0} bytes follow the last row")]
    Trailing(usize),
}

/// Rows on their way into a chunk.
#[derive(Clone, Debug)]
pub(crate) struct RowBuffer {
    bytes: Vec<u8>,
    rows: u32,
    first_tick: u64,
    last_tick: u64,
    counts: Box<[u32; 256]>,
}

impl Default for RowBuffer {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            rows: 0,
            first_tick: 0,
            last_tick: 0,
            counts: Box::new([0; 256]),
        }
    }
}

impl RowBuffer {
    /// Appends a row. The tick must not be before the one before it.
    ///
    /// A row longer than [`ROW_LIMIT`] is left out, and its length is the error.
    pub(crate) fn put(&mut self, tick: u64, row: &impl Row) -> Result<(), usize> {
        if self.rows == 0 {
            self.first_tick = tick;
            self.last_tick = tick;
        }
        let before = self.bytes.len();
        put_varint(tick.saturating_sub(self.last_tick), &mut self.bytes);
        row.put(&mut self.bytes);
        let size = self.bytes.len() - before;
        if size > ROW_LIMIT {
            self.bytes.truncate(before);
            return Err(size);
        }
        self.last_tick = self.last_tick.max(tick);
        self.rows += 1;
        self.counts[usize::from(row.code())] += 1;
        Ok(())
    }

    pub(crate) const fn rows(&self) -> u32 {
        self.rows
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) const fn ticks(&self) -> (u64, u64) {
        (self.first_tick, self.last_tick)
    }

    /// The table of counts.
    pub(crate) fn counts(&self) -> Vec<u8> {
        encode_counts(&self.counts)
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.rows = 0;
        self.counts.fill(0);
    }
}

/// What the header of a chunk says about its rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowFrame {
    pub(crate) rows: u32,
    pub(crate) first_tick: u64,
    pub(crate) last_tick: u64,
}

/// Reads the rows of a chunk with their ticks, over what is in `rows`.
///
/// The caller has bounded `frame.rows` and the length of `body`.
pub(crate) fn decode_rows<T: Row>(
    body: &[u8],
    frame: RowFrame,
    schema: &Schema,
    rows: &mut Vec<(u64, T)>,
) -> Result<(), RowError> {
    let mut from = Bytes::new(body);
    let mut tick = frame.first_tick;
    rows.resize_with(frame.rows as usize, || (0, T::blank()));
    for (row, slot) in (0..frame.rows).zip(rows) {
        let fail = |rule: WireError| RowError {
            row,
            rule: rule.into(),
        };
        let delta = from.varint().map_err(fail)?;
        tick = tick.checked_add(delta).ok_or(RowError {
            row,
            rule: RowRule::Tick,
        })?;
        slot.0 = tick;
        slot.1.get(&mut from, schema).map_err(fail)?;
    }
    let row = frame.rows.saturating_sub(1);
    if !from.rest().is_empty() {
        return Err(RowError {
            row,
            rule: RowRule::Trailing(from.rest().len()),
        });
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::columns::Columns;
    use crate::event::{Event, EventKind};
    use crate::facility::EventMask;
    use crate::input::{Input, InputKind};
    use crate::schema::SchemaRow;
    use crate::table::{Head, Rows, decode_columns};
    use crate::wire::{Field, FieldType};

    fn decode<T: Row>(body: &[u8], frame: RowFrame) -> Result<Vec<(u64, T)>, RowError> {
        // What was there before does not show.
        let mut rows = vec![(77, T::blank())];
        decode_rows(body, frame, &Schema::of_this_build(), &mut rows).map(|()| rows)
    }

    fn sample() -> (RowBuffer, RowFrame) {
        let mut buffer = RowBuffer::default();
        for (tick, vector) in [(1_000_000, 1), (1_000_000, 2), (1_000_300, 3)] {
            buffer.put(tick, &Event::IrqEoi { vector }).unwrap();
        }
        let flush = Event::TlbFlush {
            kind: crate::FlushKind::Page,
            gva: 0x1000,
        };
        buffer.put(1_000_301, &flush).unwrap();
        let (first_tick, last_tick) = buffer.ticks();
        let frame = RowFrame {
            rows: buffer.rows(),
            first_tick,
            last_tick,
        };
        (buffer, frame)
    }

    #[test]
    fn rows_read_back_with_their_ticks() {
        let (buffer, frame) = sample();
        let rows = decode::<Event>(buffer.bytes(), frame).unwrap();
        let ticks: Vec<_> = rows.iter().map(|row| row.0).collect();
        assert_eq!(ticks, [1_000_000, 1_000_000, 1_000_300, 1_000_301]);
        assert_eq!(buffer.counts(), b"\x2a\x03\x35\x01");
        assert_eq!(
            &buffer.bytes()[..6],
            [0, 0x2a, 1, 0, 0x2a, 2],
            "the first tick is in the header"
        );
    }

    #[test]
    fn the_header_and_the_rows_must_agree() {
        let (buffer, frame) = sample();
        let read = |body: &[u8], frame| decode::<Event>(body, frame);
        let fewer = RowFrame { rows: 3, ..frame };
        assert!(matches!(
            read(buffer.bytes(), fewer).unwrap_err().rule,
            RowRule::Trailing(5)
        ));
        let more = RowFrame { rows: 5, ..frame };
        assert_eq!(
            read(buffer.bytes(), more).unwrap_err().rule,
            WireError::Short.into()
        );
        let other = RowFrame {
            last_tick: 7,
            ..frame
        };
        assert!(matches!(
            read(buffer.bytes(), other).unwrap_err().rule,
            RowRule::LastTick { .. }
        ));
        let late = RowFrame {
            first_tick: u64::MAX - 10,
            ..frame
        };
        assert_eq!(read(buffer.bytes(), late).unwrap_err().rule, RowRule::Tick);
    }

    /// Any row of a kind, as bytes: its code, then a value of each field's type.
    fn any_row(
        code: u8,
        fields: &'static [(&'static str, FieldType)],
    ) -> impl Strategy<Value = Vec<u8>> {
        let values = fields.iter().map(|(_, ty)| {
            let ty = *ty;
            let parts = (any::<u64>(), 0..64u32, any::<[u8; 16]>(), ".{0,20}");
            (
                parts,
                proptest::collection::vec((any::<u8>(), any::<u64>()), 0..4),
            )
                .prop_map(move |((number, shift, raw, text), counts)| {
                    let number = number >> shift;
                    let mut out = Vec::new();
                    match ty {
                        FieldType::U8 | FieldType::Code => (number as u8).put(&mut out),
                        FieldType::U16 => (number as u16).put(&mut out),
                        FieldType::U32 => (number as u32).put(&mut out),
                        FieldType::U64 => number.put(&mut out),
                        FieldType::I64 => (number as i64).put(&mut out),
                        FieldType::Bool => (number & 1 != 0).put(&mut out),
                        FieldType::Bytes => text.replace('\0', "").into_bytes()[..]
                            .iter()
                            .take(16)
                            .copied()
                            .collect::<Vec<u8>>()
                            .put(&mut out),
                        FieldType::Text => text.put(&mut out),
                        FieldType::Raw16 => out.extend_from_slice(&raw),
                        FieldType::Words4 => [number, 0, number / 3, 7].put(&mut out),
                        FieldType::Words6 => [1, number, 2, 0, number / 5, 9].put(&mut out),
                        FieldType::Counts => counts.put(&mut out),
                    }
                    out
                })
        });
        values.collect::<Vec<_>>().prop_map(move |values| {
            let mut row = vec![code];
            values.iter().for_each(|value| row.extend_from_slice(value));
            row
        })
    }

    fn any_event() -> impl Strategy<Value = Vec<u8>> {
        proptest::sample::select(EventKind::ALL)
            .prop_flat_map(|kind| any_row(kind.code(), kind.fields()))
    }

    fn any_input() -> impl Strategy<Value = Vec<u8>> {
        proptest::sample::select(InputKind::ALL)
            .prop_flat_map(|kind| any_row(kind.code(), kind.fields()))
    }

    fn frame_of(columns: &Columns) -> RowFrame {
        let (first_tick, last_tick) = columns.ticks();
        RowFrame {
            rows: columns.rows(),
            first_tick,
            last_tick,
        }
    }

    fn decode_parts(
        parts: &[Vec<u8>],
        frame: RowFrame,
        schema: &Schema,
        wanted: &EventMask,
    ) -> Result<Vec<(u64, Event)>, RowError> {
        let mut head = Head::get(&parts[0], frame.rows, schema)?;
        let mut kept: Vec<&[u8]> = parts[1..].iter().map(Vec::as_slice).collect();
        kept.resize(head.substreams(), &[]);
        for (part, needed) in kept.iter_mut().zip(head.needed(wanted)) {
            if !needed {
                *part = &[];
            }
        }
        let mut rows = Rows::default();
        decode_columns(&mut head, &kept, frame, wanted, None, &mut rows)?;
        // One row alone is the same as among the others.
        for (number, event) in rows.numbers.iter().zip(&rows.events).rev().take(3) {
            let mut head = Head::get(&parts[0], frame.rows, schema)?;
            let mut one = Rows::default();
            decode_columns(&mut head, &kept, frame, wanted, Some(*number), &mut one)?;
            assert_eq!(
                (&one.numbers[..], &one.events[..]),
                (&[*number][..], &[event.clone()][..])
            );
        }
        let ticks = rows
            .numbers
            .iter()
            .map(|number| rows.ticks[*number as usize]);
        Ok(ticks.zip(rows.events).collect())
    }

    fn in_columns(
        columns: &Columns,
        schema: &Schema,
        wanted: &EventMask,
    ) -> Result<Vec<(u64, Event)>, RowError> {
        decode_parts(&columns.substreams(), frame_of(columns), schema, wanted)
    }

    fn one<T: Row>(bytes: &[u8]) -> T {
        let mut from = Bytes::new(bytes);
        let mut row = T::blank();
        row.get(&mut from, &Schema::of_this_build()).unwrap();
        assert!(from.rest().is_empty());
        let mut out = Vec::new();
        row.put(&mut out);
        assert_eq!(out, bytes);
        row
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn any_rows_read_back(
            rows in proptest::collection::vec((any_event(), any::<u32>()), 1..20),
            input in any_input(),
        ) {
            one::<Input>(&input);
            let mut buffer = RowBuffer::default();
            let mut tick = 0;
            let mut expected = Vec::new();
            for (bytes, distance) in &rows {
                tick += u64::from(*distance);
                let event: Event = one(bytes);
                buffer.put(tick, &event).unwrap();
                expected.push((tick, event));
            }
            let (first_tick, last_tick) = buffer.ticks();
            let frame = RowFrame { rows: buffer.rows(), first_tick, last_tick };
            prop_assert_eq!(decode(buffer.bytes(), frame), Ok(expected.clone()));
            // The same in columns, all of them and those of one kind.
            let ours = Schema::of_this_build();
            let mut columns = Columns::new(&ours);
            for round in 0..2 {
                columns.clear();
                for (tick, event) in &expected {
                    columns.put(*tick, event).unwrap();
                }
                prop_assert_eq!(columns.counts(), buffer.counts());
                let found = in_columns(&columns, &ours, &EventMask::ALL);
                prop_assert_eq!(found, Ok(expected.clone()), "round {}", round);
            }
            let one = expected[0].1.kind();
            let found = in_columns(&columns, &ours, &EventMask::of(&[one]));
            expected.retain(|(_, event)| event.kind() == one);
            prop_assert_eq!(found, Ok(expected));
        }

        #[test]
        fn columns_of_a_later_build_are_stepped_over_and_kept(
            rows in proptest::collection::vec((any_event(), any::<u32>()), 1..20),
        ) {
            // Another field at the end of every kind, and a kind that is not known.
            let ours = Schema::of_this_build();
            let mut listed = ours.rows().to_vec();
            listed.iter_mut().for_each(|row| row.fields.push(("more".into(), FieldType::Words4.code())));
            let field = |name: &str, ty: FieldType| (name.to_owned(), ty.code());
            let odd = SchemaRow {
                code: 0xee,
                name: "Odd".into(),
                facility: "odd".into(),
                level: 1,
                fields: vec![field("a", FieldType::U8), field("b", FieldType::Text)],
            };
            listed.push(odd);
            let later = Schema::decode(&postcard::to_stdvec(&listed).unwrap()).unwrap();
            let mut columns = Columns::new(&later);
            let mut expected = Vec::new();
            for (tick, (bytes, code)) in (0..).zip(&rows) {
                let mut body = bytes[1..].to_vec();
                [1, 0, u64::from(*code), 3].put(&mut body);
                let known: Event = one(bytes);
                columns.put(tick, &Event::Unknown { code: bytes[0], body }).unwrap();
                expected.push((tick, known));
            }
            let odd = Event::Unknown { code: 0xee, body: b"\x07\x02hi".to_vec() };
            columns.put(rows.len() as u64, &odd).unwrap();
            expected.push((rows.len() as u64, odd));
            prop_assert_eq!(in_columns(&columns, &later, &EventMask::ALL), Ok(expected));
        }

        #[test]
        fn any_columns_are_read_without_a_panic(
            rows in proptest::collection::vec((any_event(), any::<u32>()), 1..8),
            patches in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..4),
            head in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let ours = Schema::of_this_build();
            let mut columns = Columns::new(&ours);
            for (tick, (bytes, _)) in (0..).zip(&rows) {
                columns.put(tick, &one::<Event>(bytes)).unwrap();
            }
            let frame = frame_of(&columns);
            let mut parts = columns.substreams();
            for (at, byte) in patches {
                let part = usize::from(at) % parts.len();
                let len = parts[part].len().max(1);
                if let Some(place) = parts[part].get_mut(usize::from(at) % len) {
                    *place = byte;
                }
            }
            let _ = decode_parts(&parts, frame, &ours, &EventMask::ALL);
            parts[0] = head;
            let _ = decode_parts(&parts, frame, &ours, &EventMask::ALL);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(
            body in proptest::collection::vec(any::<u8>(), 0..400),
            rows in 0..100u32,
            first_tick: u64,
        ) {
            let frame = RowFrame { rows, first_tick, last_tick: first_tick };
            let _ = decode::<Event>(&body, frame);
            let _ = decode::<Input>(&body, frame);
            let _ = Schema::decode(&body);
        }
    }
}
