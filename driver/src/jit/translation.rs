//! What is kept of a translation: where it is, and who leads to it.

use super::block::{JUMPS, JumpTarget};
use super::buffer::Jump;
use super::trampoline::Site;
use crate::mem::addr::{PAGE_MASK, PAGE_SIZE};

/// A translated block. They are looked at in no order, so what it takes to run one is in one line of
/// the host's cache.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Translation {
    pub(super) entry: u64,
    /// RAM offset of its code.
    pub(super) start: u64,
    pub(super) insns: u32,
    /// The block it is of.
    pub(super) block: u32,
    pub(super) variant: usize,
    pub(super) links: Box<Links>,
}

/// What running a translation does not take.
#[derive(Debug)]
pub(super) struct Links {
    /// Jumps of other blocks that lead here, and where they lead otherwise.
    pub(super) incoming: Vec<(Jump, u64)>,
    /// What tier 0 needs to do instructions of it. Host code points here.
    pub(super) _sites: Box<[Site]>,
}

const _: () = assert!(size_of::<Translation>() == 64);

impl Translation {
    /// RAM offset of the page it is on.
    pub(super) fn page(&self) -> u64 {
        self.start & !PAGE_MASK
    }
}

/// Translations by where their code is in RAM: the same code is at another address in every process.
pub(super) const STARTS: usize = 1 << 16;

/// Where the translation of the code at a RAM offset is: that offset, one up, and the entry. Zeros are
/// none, and an array of them costs no memory until it is used.
pub(super) type Start = [u64; 2];
/// Offsets of the two.
pub(super) const START_ABOVE: usize = 0;
pub(super) const START_CODE: usize = 8;

/// Where translated code looks for others: the tables of one variant.
#[derive(Debug)]
pub(super) struct Targets {
    /// By address.
    jumps: Box<[JumpTarget]>,
    /// By RAM offset.
    starts: Box<[Start]>,
}

impl Targets {
    pub(super) fn new() -> Self {
        Targets {
            jumps: vec![JumpTarget::NONE; JUMPS].into(),
            starts: vec![[0; 2]; STARTS].into(),
        }
    }

    /// Where the tables are in the host's memory.
    pub(super) fn addresses(&self) -> (u64, u64) {
        (
            self.jumps.as_ptr().expose_provenance() as u64,
            self.starts.as_ptr().expose_provenance() as u64,
        )
    }

    /// A translation is at this RAM offset, and a jump to this address leads to it.
    pub(super) fn note(&mut self, start: u64, target: JumpTarget) {
        self.jumps[target.rip as usize & (JUMPS - 1)] = target;
        self.starts[slot_of(start)] = [start + 1, target.code];
    }

    /// Nothing leads to this translation any more. It is at one place of its page, whatever the address
    /// of that is, so there are few entries where it can be.
    pub(super) fn forget(&mut self, gone: &Translation) {
        let first = (gone.start & PAGE_MASK) as usize;
        for target in self.jumps[first..].iter_mut().step_by(PAGE_SIZE as usize) {
            if target.code == gone.entry {
                *target = JumpTarget::NONE;
            }
        }
        let start = &mut self.starts[slot_of(gone.start)];
        if start[1] == gone.entry {
            *start = [0; 2];
        }
    }

    /// Nothing leads anywhere any more.
    pub(super) fn clear(&mut self) {
        self.jumps.fill(JumpTarget::NONE);
        self.starts.fill([0; 2]);
    }
}

/// The bits of an offset above a page are mixed into those within.
pub(super) const PAGE_SHIFT_IN_SLOT: u8 = 8;

/// Which of [`STARTS`] is for a RAM offset.
fn slot_of(start: u64) -> usize {
    (start ^ start >> PAGE_SHIFT_IN_SLOT) as usize & (STARTS - 1)
}

const _: () = assert!(JUMPS.is_multiple_of(PAGE_SIZE as usize));

#[cfg(test)]
mod tests {
    use super::*;

    fn translation(start: u64, entry: u64) -> Translation {
        Translation {
            entry,
            start,
            insns: 1,
            block: 0,
            variant: 0,
            links: Box::new(Links {
                incoming: Vec::new(),
                _sites: Box::default(),
            }),
        }
    }

    #[test]
    fn a_translation_is_forgotten_wherever_it_is_mapped() {
        let (gone, other) = (translation(0x5123, 0x1000), translation(0x6123, 0x2000));
        let mut targets = Targets::new();
        let target = |rip, of: &Translation| JumpTarget {
            rip,
            code: of.entry,
            generation: 1,
            page: of.page(),
        };
        for page in 0..9 {
            targets.note(gone.start, target(page << 12 | 0x123, &gone));
        }
        targets.note(other.start, target(0x6123, &other));
        targets.forget(&gone);
        let left = |code| targets.jumps.iter().filter(|t| t.code == code).count();
        assert_eq!((left(gone.entry), left(other.entry)), (0, 1));
        let starts: Vec<&Start> = targets.starts.iter().filter(|s| **s != [0; 2]).collect();
        assert_eq!(starts, [&[0x6124, 0x2000]]);
        targets.clear();
        assert!(targets.starts.iter().all(|start| *start == [0; 2]));
    }
}
