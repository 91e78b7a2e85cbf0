//! Making the bytes of checkpoints while recording: what a page holds is said by as little as
//! possible.

use std::collections::HashMap;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_128;

use super::cpio;
use super::form::{Body, Row};
use super::pages::PAGE;
use super::runs;

/// Bytes of pages' earlier contents that are remembered, so that a page can be told by what changed.
const BASES_BYTES_MAX: usize = 24 << 20;
/// Number of the checkpoint that is the anchor, from 0: up to it, the content of RAM at power-on is
/// remembered; later, nearly all that is still to be written differs from it altogether. The first of
/// a new chain is relative to the anchor.
pub(crate) const ANCHOR: u32 = 7;

/// What RAM holds at power-on: pieces with their offsets, later ones over earlier ones.
pub(crate) type Image = Vec<(u64, Bytes)>;

/// Pages as they were at a checkpoint.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// Page numbers, ascending.
    pub(crate) numbers: Vec<u32>,
    /// Their contents, one after the other.
    pub(crate) bytes: Vec<u8>,
    /// They are all that were written since the anchor, to which they are relative.
    pub(crate) anew: bool,
}

/// Turns written pages into rows.
#[derive(Debug)]
pub(crate) struct Encoder {
    power_on: Option<Image>,
    /// Hash of what each page holds; 0 for zeros and for what was never touched.
    hashes: Vec<u128>,
    power_on_hashes: Vec<u128>,
    /// The hashes at the anchor.
    anchor: Vec<u128>,
    /// A page that holds this, if its hash still says so.
    holders: HashMap<u128, u32>,
    /// Pieces of files in the initial RAM disk, by the hash of the page they will fill.
    files: HashMap<u128, (u64, u16)>,
    /// Earlier contents, with the number of the checkpoint that told them.
    bases: HashMap<u32, (u32, Box<[u8]>)>,
    clock: u32,
}

static ZEROS: [u8; PAGE] = [0; PAGE];

fn hash(bytes: &[u8]) -> u128 {
    if *bytes == ZEROS {
        0
    } else {
        xxh3_128(bytes).max(1)
    }
}

impl Encoder {
    /// For RAM of so many pages, with this content at power-on.
    pub(crate) fn new(pages: usize, power_on: Image, initrd: Option<(u64, u64)>) -> Self {
        let mut encoder = Encoder {
            power_on: None,
            hashes: Vec::new(),
            power_on_hashes: vec![0; pages],
            anchor: Vec::new(),
            holders: HashMap::new(),
            files: HashMap::new(),
            bases: HashMap::new(),
            clock: 0,
        };
        let mut buffer = vec![0; PAGE];
        let mut numbers: Vec<usize> = power_on
            .iter()
            .flat_map(|(at, bytes)| {
                *at as usize / PAGE..(*at as usize + bytes.len()).div_ceil(PAGE)
            })
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        for page in numbers.into_iter().filter(|page| *page < pages) {
            read(&power_on, (page * PAGE) as u64, &mut buffer);
            encoder.power_on_hashes[page] = hash(&buffer);
        }
        if let Some((start, end)) = initrd {
            let mut archive = vec![0; end.saturating_sub(start) as usize];
            read(&power_on, start, &mut archive);
            for (at, len) in cpio::pages(&archive) {
                buffer.fill(0);
                buffer[..len].copy_from_slice(&archive[at..at + len]);
                let place = (start + at as u64, len as u16);
                encoder.files.insert(hash(&buffer), place);
            }
        }
        encoder.power_on = Some(power_on);
        encoder.hashes.clone_from(&encoder.power_on_hashes);
        encoder.holders = holders(&encoder.hashes);
        encoder
    }

    /// The bytes of a checkpoint with these pages.
    pub(crate) fn encode(&mut self, mut body: Body, written: &Written) -> Vec<u8> {
        if written.anew {
            self.hashes.clone_from(&self.anchor);
            self.holders = holders(&self.hashes);
            self.bases.clear();
        }
        let mut data = Vec::new();
        let mut last = 0;
        for (page, bytes) in written.numbers.iter().zip(written.bytes.chunks_exact(PAGE)) {
            if let Some(row) = self.row(*page, bytes, &mut data) {
                body.rows.push((page - last, row));
                last = *page;
            }
        }
        if self.clock == ANCHOR {
            self.power_on = None;
            self.anchor.clone_from(&self.hashes);
        }
        self.clock += 1;
        self.shrink();
        body.encode(&data)
    }

    fn row(&mut self, page: u32, bytes: &[u8], data: &mut Vec<u8>) -> Option<Row> {
        let hash = hash(bytes);
        let before = std::mem::replace(self.hashes.get_mut(page as usize)?, hash);
        if hash == 0 {
            // A page that is zero before and after may have been touched in between.
            return Some(Row::Zero);
        }
        if hash == before {
            return None;
        }
        if let Some((offset, len)) = self.files.get(&hash) {
            let (offset, len) = (*offset, *len);
            self.holders.entry(hash).or_insert(page);
            return Some(Row::PowerOn { offset, len });
        }
        if let Some(other) = self.holders.get(&hash)
            && *other != page
            && self.hashes.get(*other as usize) == Some(&hash)
        {
            return Some(Row::Copy(*other));
        }
        self.holders.insert(hash, page);
        let copy: Box<[u8]> = bytes.into();
        let old = self.bases.insert(page, (self.clock, copy));
        let old = match (old, &self.power_on) {
            (Some((_, old)), _) => Some(old),
            (None, Some(image))
                if before != 0 && self.power_on_hashes.get(page as usize) == Some(&before) =>
            {
                let mut old = vec![0; PAGE];
                read(image, u64::from(page) * PAGE as u64, &mut old);
                Some(old.into())
            }
            _ => None,
        };
        // Only what the page held before can be told apart from it.
        if let Some(old) = old.filter(|old| self::hash(old) == before)
            && runs::put(bytes, &old, data)
        {
            return Some(Row::Changes);
        }
        data.extend_from_slice(bytes);
        Some(Row::Whole)
    }

    /// Forgets the contents that were told longest ago, until the others fit.
    fn shrink(&mut self) {
        while self.bases.len() * PAGE > BASES_BYTES_MAX {
            let Some(oldest) = self.bases.values().map(|(clock, _)| *clock).min() else {
                return;
            };
            self.bases.retain(|_, (clock, _)| *clock != oldest);
        }
    }
}

fn holders(hashes: &[u128]) -> HashMap<u128, u32> {
    let rows = (0u32..).zip(hashes).filter(|(_, hash)| **hash != 0);
    rows.map(|(page, hash)| (*hash, page)).collect()
}

/// Reads bytes of RAM as it is at power-on.
fn read(image: &Image, offset: u64, out: &mut [u8]) {
    out.fill(0);
    let end = offset + out.len() as u64;
    for (at, bytes) in image {
        let (from, to) = (offset.max(*at), end.min(*at + bytes.len() as u64));
        if from < to {
            let (into, out_of) = ((from - offset) as usize, (from - at) as usize);
            let n = (to - from) as usize;
            out[into..into + n].copy_from_slice(&bytes[out_of..out_of + n]);
        }
    }
}

#[cfg(test)]
mod tests {
    use colinux_driver::machine::{Machine, MachineConfig};

    use super::super::form::Body;
    use super::super::pages::{Pages, Pool};
    use super::*;
    use crate::hooks::HookState;

    const COUNT: usize = 600;

    struct Dice(u64);

    impl Dice {
        fn below(&mut self, n: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % n
        }
    }

    fn page_of(image: &Image, page: usize) -> Vec<u8> {
        let mut bytes = vec![0; PAGE];
        read(image, (page * PAGE) as u64, &mut bytes);
        bytes
    }

    /// Some pages are written in one of several ways.
    fn scribble(dice: &mut Dice, ram: &mut [Vec<u8>]) -> Vec<usize> {
        let mut numbers: Vec<usize> = (0..40).map(|_| dice.below(COUNT as u64) as usize).collect();
        numbers.sort_unstable();
        numbers.dedup();
        for &page in &numbers {
            match dice.below(5) {
                0 => ram[page].fill(0),
                1 => ram[page] = ram[dice.below(COUNT as u64) as usize].clone(),
                2 => (0..9).for_each(|i| ram[page][i * 400] ^= dice.below(256) as u8),
                3 => ram[page].fill(dice.below(4) as u8),
                _ => ram[page]
                    .iter_mut()
                    .for_each(|b| *b = dice.below(256) as u8),
            }
        }
        numbers
    }

    #[test]
    fn what_is_encoded_decodes_to_the_same_pages_in_every_chain() {
        let mut dice = Dice(0x1234_5678_9abc_def1);
        let image: Image = vec![
            (0x800, (0..50_000u32).map(|n| (n >> 3) as u8).collect()),
            (300 * PAGE as u64, vec![7; 3 * PAGE + 100].into()),
        ];
        let machine = Machine::empty(&MachineConfig {
            memory_bytes: 1 << 20,
            rtc_epoch_s: 0,
            ns_per_tick: 1,
            quantum_ticks: 1,
        });
        let mut pool = Pool::new();
        let mut power_on = Pages::default();
        let mut ram: Vec<Vec<u8>> = (0..COUNT).map(|page| page_of(&image, page)).collect();
        for (page, bytes) in ram.iter().enumerate() {
            if bytes.iter().any(|byte| *byte != 0) {
                power_on.set(page, Some(pool.version(bytes, None)));
            }
        }
        let mut encoder = Encoder::new(COUNT, image, None);
        let mut decoded: Vec<Pages> = Vec::new();
        let mut since_anchor = Vec::new();
        for id in 0..3 * ANCHOR {
            let mut numbers = scribble(&mut dice, &mut ram);
            let anew = id > ANCHOR && id % 5 == 0;
            if id > ANCHOR {
                since_anchor.extend_from_slice(&numbers);
                since_anchor.sort_unstable();
                since_anchor.dedup();
            }
            if anew {
                numbers.clone_from(&since_anchor);
            }
            let parent = if anew {
                Some(ANCHOR)
            } else {
                id.checked_sub(1)
            };
            let written = Written {
                bytes: numbers.iter().flat_map(|page| ram[*page].clone()).collect(),
                numbers: numbers.iter().map(|page| *page as u32).collect(),
                anew,
            };
            let body = Body::new(parent, (0, 0), HookState::default(), machine.state());
            let bytes = encoder.encode(body, &written);
            let (body, data) = Body::decode(&bytes).unwrap();
            let from = parent.map_or(&power_on, |parent| &decoded[parent as usize]);
            let pages = body.pages(data, from, &power_on, COUNT, &mut pool).unwrap();
            for (page, expected) in ram.iter().enumerate() {
                let mut found = vec![0; PAGE];
                pages.read((page * PAGE) as u64, &mut found);
                assert!(found == *expected, "page {page} of checkpoint {id}");
            }
            // Cut anywhere, it is refused or it is another checkpoint, and nothing worse.
            for cut in (0..bytes.len()).step_by(977) {
                if let Ok((body, data)) = Body::decode(&bytes[..cut]) {
                    assert!(body.pages(data, from, &power_on, COUNT, &mut pool).is_err());
                }
            }
            decoded.push(pages);
        }
    }
}
