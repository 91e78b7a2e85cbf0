//! Trails: which pages the guest may have used in a stretch of a recording.

use serde::{Deserialize, Serialize};

use crate::chunk::ChunkKind;
use crate::error::{BodyRule, TraceError};
use crate::reader::Reader;

/// Numbers of pages, ascending, each once; `None` stands for any page.
pub type Pages = Option<Vec<u64>>;

/// The pages that the guest may have used from a tick on and before another one. It names every such
/// page, and perhaps others: what is not in it need not be looked for there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trail {
    /// The first tick.
    pub from: u64,
    /// The tick before which it ends.
    pub to: u64,
    /// Guest-virtual pages to which instructions may have written.
    pub written: Pages,
    /// Guest-virtual pages of which instructions may have been run.
    pub executed: Pages,
    /// Pseudo-physical pages whose content may have changed.
    pub changed: Pages,
}

/// The body of a trail chunk: pages as distances from the one before.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct TrailRow {
    from: u64,
    to: u64,
    written: Pages,
    executed: Pages,
    changed: Pages,
}

fn distances(pages: &Pages) -> Pages {
    let mut before = 0;
    let distance = |page: &u64| {
        let distance = page.wrapping_sub(before);
        before = *page;
        distance
    };
    Some(pages.as_ref()?.iter().map(distance).collect())
}

/// The pages at these distances, if they ascend.
fn pages(distances: Pages) -> Option<Pages> {
    let Some(mut pages) = distances else {
        return Some(None);
    };
    let mut before = None;
    for page in &mut pages {
        *page = page.checked_add(before.unwrap_or(0))?;
        if before.is_some_and(|before| before >= *page) {
            return None;
        }
        before = Some(*page);
    }
    Some(Some(pages))
}

impl TrailRow {
    pub(crate) fn of(trail: &Trail) -> Self {
        TrailRow {
            from: trail.from,
            to: trail.to,
            written: distances(&trail.written),
            executed: distances(&trail.executed),
            changed: distances(&trail.changed),
        }
    }

    fn trail(self) -> Option<Trail> {
        let trail = Trail {
            from: self.from,
            to: self.to,
            written: pages(self.written)?,
            executed: pages(self.executed)?,
            changed: pages(self.changed)?,
        };
        (trail.from < trail.to).then_some(trail)
    }
}

impl Reader {
    /// The trails that are kept in the recording, in the order of the file; those that cannot be read
    /// as their errors.
    pub fn trails(&self) -> impl Iterator<Item = Result<Trail, TraceError>> + '_ {
        self.index.of_kind(ChunkKind::Trail).map(|entry| {
            let row: TrailRow = self.shared.form(entry, 1)?;
            let wrong = || self.shared.body_error(entry, BodyRule::Trail);
            row.trail().ok_or_else(wrong)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trails_are_what_they_were() {
        let trail = Trail {
            from: 3,
            to: 9,
            written: Some(vec![0, 1, 7, u64::MAX]),
            executed: Some(Vec::new()),
            changed: None,
        };
        assert_eq!(TrailRow::of(&trail).trail(), Some(trail));
    }

    #[test]
    fn pages_that_do_not_ascend_are_refused() {
        let row = |from, to, distances: &[u64]| TrailRow {
            from,
            to,
            written: None,
            executed: Some(distances.to_vec()),
            changed: None,
        };
        assert!(row(3, 9, &[0, 1]).trail().is_some());
        assert!(row(3, 9, &[5, 0]).trail().is_none(), "twice the same");
        assert!(row(3, 9, &[0, 0]).trail().is_none(), "twice the first");
        assert!(row(3, 9, &[5, u64::MAX]).trail().is_none(), "past the end");
        assert!(row(9, 9, &[]).trail().is_none(), "no stretch");
    }
}
