//! What is kept of a translation: where it is, and who leads to it.

use super::block::JUMPS;
use super::state::VARIANTS;
use super::trampoline::Site;

/// Places at which a translation is a jump target. The same code is at another address in every process,
/// so over time there is no end to them.
const TARGETS_MAX: usize = 8;

/// A translated block. They are looked at in no order, so what it takes to run one is in one line of
/// the host's cache.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Translation {
    pub(super) entry: u64,
    /// RAM offset of its page.
    pub(super) page: u64,
    pub(super) insns: u32,
    /// The block it is of.
    pub(super) block: u32,
    pub(super) targets: Targets,
    pub(super) links: Box<Links>,
}

/// What running a translation does not take.
#[derive(Debug)]
pub(super) struct Links {
    /// Cells of other blocks that jump here.
    pub(super) incoming: Vec<(u32, u64)>,
    /// What tier 0 needs to do instructions of it. Host code points here.
    pub(super) _sites: Box<[Site]>,
}

/// A place among the jump targets: of which variant the table is, and which entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place(u16);

const _: () = assert!(VARIANTS * JUMPS == 1 << u16::BITS);
const _: () = assert!(size_of::<Translation>() == 64);

impl Place {
    /// Where the target for an address is.
    pub(super) fn of(variant: usize, rip: u64) -> Self {
        Place((variant * JUMPS + (rip as usize & (JUMPS - 1))) as u16)
    }

    pub(super) fn table(self) -> usize {
        usize::from(self.0) / JUMPS
    }

    pub(super) fn slot(self) -> usize {
        usize::from(self.0) % JUMPS
    }
}

/// The latest places at which a translation has become a jump target.
#[derive(Debug, Default)]
pub(super) struct Targets {
    places: [Place; TARGETS_MAX],
    len: u8,
}

impl Targets {
    /// Adds a place; gives the one that has to go for it.
    pub(super) fn note(&mut self, place: Place) -> Option<Place> {
        let len = usize::from(self.len);
        if self.places[..len].contains(&place) {
            return None;
        }
        if len < TARGETS_MAX {
            self.places[len] = place;
            self.len += 1;
            return None;
        }
        let first = self.places[0];
        self.places.copy_within(1.., 0);
        self.places[TARGETS_MAX - 1] = place;
        Some(first)
    }

    /// All of them, which are none any more.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Place> + use<> {
        let Targets { places, len } = std::mem::take(self);
        places.into_iter().take(len.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_places_are_kept_and_each_is_there_once() {
        let place = |n| Place::of(3, n);
        let mut targets = Targets::default();
        for n in 0..TARGETS_MAX as u64 {
            assert_eq!(targets.note(place(n)), None);
            assert_eq!(targets.note(place(n)), None);
        }
        assert_eq!(targets.note(place(100)), Some(place(0)));
        assert_eq!(targets.note(place(3)), None);
        assert_eq!(targets.note(place(0)), Some(place(1)));
        let all: Vec<Place> = targets.take().collect();
        assert_eq!(all, [2, 3, 4, 5, 6, 7, 100, 0].map(place));
        assert_eq!(targets.take().count(), 0);
    }

    #[test]
    fn a_place_tells_its_table_and_entry() {
        let place = Place::of(VARIANTS - 1, 0xffff_ffff_8123_4567);
        assert_eq!((place.table(), place.slot()), (VARIANTS - 1, 0x567));
        assert_eq!(Place::of(1, JUMPS as u64 - 1).slot(), JUMPS - 1);
    }
}
