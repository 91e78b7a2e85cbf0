//! Places in time that one comes back to: marks by letter, bookmarks by name, and the way come.

use std::collections::BTreeMap;

use colinux_replay::Mark;
use colinux_tracer::Note;

/// Places on the way that are remembered.
const WAY_MOST: usize = 200;

/// Places in time.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// By letter.
    pub letters: BTreeMap<char, Mark>,
    /// By name, with words; kept in the recording.
    pub bookmarks: Vec<Note>,
    way: Vec<Mark>,
    /// Where on the way this is: everything from here on is ahead.
    at: usize,
}

/// One of them, as the list has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceLine {
    /// Its name: `bm:NAME`, `'a`, `cp:1`.
    pub name: String,
    /// Where.
    pub mark: Mark,
    /// What it says.
    pub text: String,
}

impl Places {
    /// Those that were kept in a recording. The last of a name counts; one without place and text
    /// was taken back.
    pub fn of_notes(notes: Vec<Note>) -> Vec<Note> {
        let mut kept: Vec<Note> = Vec::new();
        for note in notes {
            kept.retain(|known| known.name != note.name);
            kept.push(note);
        }
        kept.sort_by_key(|note| note.tick);
        kept
    }

    /// Adds a bookmark, in place of another of its name.
    pub fn add(&mut self, note: Note) {
        let mut all = std::mem::take(&mut self.bookmarks);
        all.push(note);
        self.bookmarks = Self::of_notes(all);
    }

    /// A bookmark by its name.
    pub fn bookmark(&self, name: &str) -> Option<Mark> {
        let found = self.bookmarks.iter().find(|note| note.name == name);
        found.map(|note| Mark::at(note.tick))
    }

    /// Remembers where a jump begins.
    pub fn leave(&mut self, from: Mark) {
        self.way.truncate(self.at);
        if self.way.last() != Some(&from) {
            self.way.push(from);
        }
        let surplus = self.way.len().saturating_sub(WAY_MOST);
        self.way.drain(..surplus);
        self.at = self.way.len();
    }

    /// Where the last jump began.
    pub fn last(&self) -> Option<Mark> {
        self.at
            .checked_sub(1)
            .and_then(|at| self.way.get(at))
            .copied()
    }

    /// Back on the way; `here` is where this is.
    pub fn back(&mut self, here: Mark) -> Option<Mark> {
        let mut at = self.at.checked_sub(1)?;
        if self.at == self.way.len() && self.way[at] != here {
            self.way.push(here);
        } else if self.way[at] == here {
            at = at.checked_sub(1)?;
        }
        self.at = at;
        self.way.get(at).copied()
    }

    /// Forward on it again.
    pub fn forward(&mut self) -> Option<Mark> {
        let found = self.way.get(self.at + 1).copied()?;
        self.at += 1;
        Some(found)
    }

    /// All of them for the list: bookmarks, letters, then the way, the latest first.
    pub fn lines(&self) -> Vec<PlaceLine> {
        let bookmarks = self.bookmarks.iter().map(|note| PlaceLine {
            name: format!("bm:{}", note.name),
            mark: Mark::at(note.tick),
            text: note.text.clone(),
        });
        let letters = self.letters.iter().map(|(letter, mark)| PlaceLine {
            name: format!("'{letter}"),
            mark: *mark,
            text: String::new(),
        });
        let way = self
            .way
            .iter()
            .enumerate()
            .rev()
            .map(|(n, mark)| PlaceLine {
                name: if n == self.at { "here" } else { "way" }.to_owned(),
                mark: *mark,
                text: String::new(),
            });
        bookmarks.chain(letters).chain(way).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_is_walked_both_ways() {
        let mut places = Places::default();
        let mark = Mark::at;
        // From 1 to 2 to 3.
        places.leave(mark(1));
        places.leave(mark(2));
        assert_eq!(places.last(), Some(mark(2)));
        assert_eq!(places.back(mark(3)), Some(mark(2)));
        assert_eq!(places.back(mark(2)), Some(mark(1)));
        assert_eq!(places.back(mark(1)), None);
        assert_eq!(places.forward(), Some(mark(2)));
        assert_eq!(places.forward(), Some(mark(3)));
        assert_eq!(places.forward(), None);
        // Another jump from 2 forgets 3.
        assert_eq!(places.back(mark(3)), Some(mark(2)));
        places.leave(mark(2));
        assert_eq!(places.forward(), None);
        assert_eq!(places.back(mark(9)), Some(mark(2)));
    }

    #[test]
    fn the_last_bookmark_of_a_name_counts() {
        let note = |name: &str, tick| Note {
            tick,
            name: name.to_owned(),
            text: String::new(),
        };
        let kept = Places::of_notes(vec![note("a", 9), note("b", 5), note("a", 1)]);
        let all: Vec<_> = kept.iter().map(|n| (n.name.as_str(), n.tick)).collect();
        assert_eq!(all, [("a", 1), ("b", 5)]);
    }
}
