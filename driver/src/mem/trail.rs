//! Which pages the guest's instructions may have written to, and run code of, in some stretch of time.
//!
//! Both are noted where they are looked at anyway: a page becomes fast-writable, or is found to hold
//! code, once and then again only after it has been forgotten; a new stretch begins with forgetting.
//! So a trail costs little, and it names every such page, and perhaps others.

use super::addr::PAGE_SIZE;

/// Guest-virtual pages, by number, ascending; `None` stands for any page.
pub type PageSet = Option<Vec<u64>>;

/// What was used in a stretch of time. No part of the state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trail {
    /// Pages that may have been written to.
    pub written: PageSet,
    /// Pages of which instructions may have been run.
    pub executed: PageSet,
}

/// Notes a trail.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    pub(crate) written: Noted,
    pub(crate) executed: Noted,
}

/// Pages that were noted since the last time, some of them more than once.
#[derive(Debug)]
pub(crate) struct Noted {
    /// The last one noted of those that fall together here, plus one.
    recent: Box<[u64; RECENT]>,
    pages: Vec<u64>,
    many: bool,
}

const RECENT: usize = 2048;
/// More pages than this are all pages: the guest decides how many it uses.
const PAGES_MAX: usize = 1 << 17;

impl Default for Noted {
    fn default() -> Self {
        Noted {
            recent: Box::new([0; RECENT]),
            pages: Vec::new(),
            many: false,
        }
    }
}

impl Noted {
    /// Notes the page of an address.
    #[inline]
    pub(crate) fn note(&mut self, va: u64) {
        let page = va / PAGE_SIZE;
        let recent = &mut self.recent[page as usize % RECENT];
        if *recent != page + 1 {
            *recent = page + 1;
            self.push(page);
        }
    }

    #[cold]
    fn push(&mut self, page: u64) {
        if self.pages.len() >= PAGES_MAX {
            self.tidy();
            // Half of it is to stay free, so that this is rare.
            self.many |= self.pages.len() > PAGES_MAX / 2;
        }
        if !self.many {
            self.pages.push(page);
        }
    }

    /// Any page may have been used.
    pub(crate) fn note_all(&mut self) {
        self.many = true;
    }

    fn tidy(&mut self) {
        self.pages.sort_unstable();
        self.pages.dedup();
    }

    fn take(&mut self) -> PageSet {
        self.tidy();
        self.recent.fill(0);
        let pages = std::mem::take(&mut self.pages);
        (!std::mem::take(&mut self.many)).then_some(pages)
    }
}

impl Tracker {
    pub(crate) fn take(&mut self) -> Trail {
        Trail {
            written: self.written.take(),
            executed: self.executed.take(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_noted_once_in_order_and_not_without_end() {
        let mut noted = Noted::default();
        let last = u64::MAX;
        for va in [0, 1, PAGE_SIZE * 9, RECENT as u64 * PAGE_SIZE, 5, last] {
            noted.note(va);
        }
        let all = vec![0, 9, RECENT as u64, last / PAGE_SIZE];
        assert_eq!(noted.take(), Some(all));
        assert_eq!(noted.take(), Some(Vec::new()));
        (0..=PAGES_MAX as u64).for_each(|page| noted.note(page * PAGE_SIZE));
        assert_eq!(noted.take(), None);
        noted.note(PAGE_SIZE);
        assert_eq!(noted.take(), Some(vec![1]));
    }
}
