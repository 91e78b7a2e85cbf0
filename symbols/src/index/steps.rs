//! A sorted table from addresses to pairs of numbers, valid from one address to the next.
//!
//! Entries are stored as differences, sixteen to a block:
//! - `pages`: for each 4 KiB page of addresses, the first block that starts in it or later (u32),
//!   and one more at the end;
//! - `blocks`: address of the first entry and offset in the stream (u32 each);
//! - `stream`: per entry a varint `distance << 2 | a changed << 1 | b changed`, then the zigzag
//!   varint difference of each number that changed. A block starts from zero; one of less than
//!   sixteen entries, but for the last, ends with a zero (no two entries have one address).

use crate::bytes::LeBytes;

const BLOCK: usize = 16;
const PAGE_BITS: u32 = 12;

/// Sizes of a table's three pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) pages: u32,
    pub(super) blocks: u32,
}

pub(super) struct Steps<'i> {
    pages: &'i [u8],
    blocks: &'i [u8],
    stream: &'i [u8],
}

impl<'i> Steps<'i> {
    pub(super) fn new(bytes: &'i [u8], shape: Shape) -> Self {
        let split = |bytes: &'i [u8], n: u64| {
            bytes
                .split_at_checked(usize::try_from(n).unwrap_or(usize::MAX))
                .unwrap_or((&[], &[]))
        };
        let (pages, rest) = split(bytes, u64::from(shape.pages) * 4);
        let (blocks, stream) = split(rest, u64::from(shape.blocks) * 8);
        Self {
            pages,
            blocks,
            stream,
        }
    }

    /// All entries in order; ends at the first damaged one.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, u32, u32)> + use<'i> {
        let (blocks, all) = (self.blocks, self.stream);
        let count = blocks.len() / 8;
        (0..count).flat_map(move |block| {
            let start = blocks.le_u32(8 * block).unwrap_or_default();
            let offset = blocks.le_u32(8 * block + 4).unwrap_or(u32::MAX);
            let mut stream = all.get(offset as usize..).unwrap_or_default();
            let mut now = (start, 0u32, 0u32);
            let mut i = 0;
            std::iter::from_fn(move || {
                let head = varint(&mut stream).filter(|head| i < BLOCK && (*head > 0 || i == 0))?;
                i += 1;
                now.0 = now.0.wrapping_add(head >> 2);
                if head & 2 != 0 {
                    now.1 = now.1.wrapping_add(unzigzag(varint(&mut stream)?));
                }
                if head & 1 != 0 {
                    now.2 = now.2.wrapping_add(unzigzag(varint(&mut stream)?));
                }
                Some(now)
            })
        })
    }

    /// The numbers of the last entry at or before `addr`.
    #[inline]
    pub(super) fn find(&self, addr: u32) -> Option<(u32, u32)> {
        let page = (addr >> PAGE_BITS) as usize;
        let last = (self.pages.len() / 4).checked_sub(1)?;
        let from = self.pages.le_u32(4 * page.min(last))?;
        let to = self.pages.le_u32(4 * (page + 1).min(last))?;
        // The first block behind the address.
        let (mut low, mut high) = (from, to.max(from));
        while low < high {
            let middle = u32::midpoint(low, high);
            if self.blocks.le_u32(8 * middle as usize)? <= addr {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let block = 8 * low.checked_sub(1)? as usize;
        let mut at = self.blocks.le_u32(block)?;
        let mut stream = self.stream.get(self.blocks.le_u32(block + 4)? as usize..)?;
        let (mut a, mut b) = (0u32, 0u32);
        let mut found = None;
        for i in 0..BLOCK {
            let Some(head) = varint(&mut stream) else {
                break;
            };
            if head == 0 && i > 0 {
                break;
            }
            at = at.wrapping_add(head >> 2);
            if at > addr {
                break;
            }
            if head & 2 != 0 {
                a = a.wrapping_add(unzigzag(varint(&mut stream)?));
            }
            if head & 1 != 0 {
                b = b.wrapping_add(unzigzag(varint(&mut stream)?));
            }
            found = Some((a, b));
        }
        found
    }
}

/// Writes the table of `entries` (address, a, b), which are sorted by strictly rising address and
/// whose distances within a block are below 2^30.
pub(super) fn write(entries: &[(u32, u32, u32)], out: &mut Vec<u8>) -> Shape {
    let (mut blocks, mut stream) = (Vec::new(), Vec::new());
    let mut rest = entries;
    while let [first, ..] = rest {
        // A gap too wide for the head starts a block.
        let near = |e: &(u32, u32, u32)| e.0 - first.0 < 1 << 29;
        let count = rest.iter().take(BLOCK).take_while(|e| near(e)).count();
        let (these, others) = rest.split_at(count);
        blocks.push((first.0, stream.len() as u32));
        let mut last = (first.0, 0u32, 0u32);
        for &entry in these {
            let changed = (u32::from(entry.1 != last.1) << 1) | u32::from(entry.2 != last.2);
            put_varint(&mut stream, (entry.0 - last.0) << 2 | changed);
            if entry.1 != last.1 {
                put_varint(&mut stream, zigzag(entry.1.wrapping_sub(last.1)));
            }
            if entry.2 != last.2 {
                put_varint(&mut stream, zigzag(entry.2.wrapping_sub(last.2)));
            }
            last = entry;
        }
        if count < BLOCK && !others.is_empty() {
            put_varint(&mut stream, 0);
        }
        rest = others;
    }
    let pages = entries.last().map_or(0, |e| e.0 >> PAGE_BITS) + 2;
    let mut block = 0;
    for page in 0..pages {
        let start = u64::from(page) << PAGE_BITS;
        while blocks
            .get(block)
            .is_some_and(|b: &(u32, u32)| u64::from(b.0) < start)
        {
            block += 1;
        }
        out.extend_from_slice(&(block as u32).to_le_bytes());
    }
    for (addr, offset) in &blocks {
        out.extend_from_slice(&addr.to_le_bytes());
        out.extend_from_slice(&offset.to_le_bytes());
    }
    out.extend_from_slice(&stream);
    Shape {
        pages,
        blocks: blocks.len() as u32,
    }
}

#[inline]
fn varint(bytes: &mut &[u8]) -> Option<u32> {
    let (&first, mut rest) = bytes.split_first()?;
    let mut value = u32::from(first & 0x7f);
    let mut byte = first;
    let mut shift = 7;
    while byte & 0x80 != 0 {
        let (&next, after) = rest.split_first()?;
        (byte, rest) = (next, after);
        value |= u32::from(byte & 0x7f).checked_shl(shift)?;
        shift += 7;
    }
    *bytes = rest;
    Some(value)
}

fn put_varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

const fn zigzag(difference: u32) -> u32 {
    difference << 1 ^ ((difference as i32 >> 31) as u32)
}

const fn unzigzag(value: u32) -> u32 {
    value >> 1 ^ (value & 1).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_found(
            entries in proptest::collection::btree_map(any::<u32>(), (any::<u32>(), 0..9u32), 0..200),
            near in proptest::collection::btree_map(0..20_000u32, (0..5u32, any::<u32>()), 0..200),
            probes in proptest::collection::vec(any::<u32>(), 20),
        ) {
            let all: std::collections::BTreeMap<u32, (u32, u32)> = entries.into_iter().chain(near).collect();
            let flat: Vec<_> = all.iter().map(|(k, v)| (*k, v.0, v.1)).collect();
            let mut bytes = Vec::new();
            let shape = write(&flat, &mut bytes);
            let steps = Steps::new(&bytes, shape);
            prop_assert_eq!(steps.iter().collect::<Vec<_>>(), flat);
            let ends = all.keys().flat_map(|k| [*k, k.saturating_sub(1), k.saturating_add(1)]);
            for probe in probes.into_iter().chain(ends) {
                let expected = all.range(..=probe).next_back().map(|e| *e.1);
                prop_assert_eq!(steps.find(probe), expected, "{}", probe);
            }
        }

        #[test]
        fn damage_never_panics(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
            pages in 0..50u32, blocks in 0..30u32, probe in any::<u32>(),
        ) {
            let steps = Steps::new(&bytes, Shape { pages, blocks });
            steps.find(probe);
            steps.iter().for_each(drop);
        }
    }
}
