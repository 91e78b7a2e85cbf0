//! The table of counts in a chunk header.

use crate::wire::{Bytes, put_varint};

/// How many rows of each code a chunk holds, by code.
#[derive(Clone, Debug)]
pub struct Counts<'a> {
    from: Bytes<'a>,
}

impl<'a> Counts<'a> {
    pub(crate) const fn new(table: &'a [u8]) -> Self {
        Self {
            from: Bytes::new(table),
        }
    }

    /// The table as it is in the file.
    pub(crate) const fn table(&self) -> &'a [u8] {
        self.from.rest()
    }

    /// The sum of the counts; `None` if the table is not of the form it has.
    pub(crate) fn total(&self) -> Option<u64> {
        let mut from = self.from.clone();
        let (mut sum, mut next) = (0, 0);
        while !from.rest().is_empty() {
            let code = from.byte().ok()?;
            if u16::from(code) < next {
                return None;
            }
            next = u16::from(code) + 1;
            sum += u64::from(u32::try_from(from.varint().ok()?).ok()?);
        }
        Some(sum)
    }
}

impl Iterator for Counts<'_> {
    type Item = (u8, u32);

    fn next(&mut self) -> Option<(u8, u32)> {
        let code = self.from.byte().ok()?;
        let count = self.from.varint().ok()?;
        Some((code, u32::try_from(count).ok()?))
    }
}

/// Makes a table of counts from the rows of each code.
pub(crate) fn encode_counts(counts: &[u32; 256]) -> Vec<u8> {
    let mut table = Vec::new();
    for (code, count) in (0..=255u8).zip(counts) {
        if *count != 0 {
            table.push(code);
            put_varint(u64::from(*count), &mut table);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::ROWS_LIMIT;

    #[test]
    fn a_table_of_counts_has_one_form() {
        let mut counts = [0; 256];
        (counts[0], counts[3], counts[255]) = (1, 300, ROWS_LIMIT);
        let table = encode_counts(&counts);
        let read: Vec<_> = Counts::new(&table).collect();
        assert_eq!(read, [(0, 1), (3, 300), (255, ROWS_LIMIT)]);
        assert_eq!(
            Counts::new(&table).total(),
            Some(301 + u64::from(ROWS_LIMIT))
        );
        assert_eq!(
            Counts::new(b"\x03\x01\x03\x01").total(),
            None,
            "a code twice"
        );
        assert_eq!(
            Counts::new(b"\x04\x01\x03\x01").total(),
            None,
            "codes that go down"
        );
        assert_eq!(Counts::new(b"\x04\x80").total(), None, "cut short");
        assert_eq!(
            Counts::new(b"\x04\xff\xff\xff\xff\x7f").total(),
            None,
            "more than 32 bits"
        );
    }
}
