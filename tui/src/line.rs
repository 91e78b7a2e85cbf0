//! A line that is typed: a command, a search, a filter.

use ratatui::crossterm::event::{KeyCode, KeyModifiers};

use crate::key::Key;

/// Lines remembered.
const HISTORY: usize = 200;

/// What came of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typed {
    /// The line is another now.
    Changed,
    /// The same line, perhaps another place in it.
    Same,
    /// It is done.
    Done,
    /// It was given up.
    GivenUp,
    /// The rest of the word is wanted.
    Complete,
}

/// A line that is typed.
#[derive(Clone, Debug, Default)]
pub struct Line {
    text: Vec<char>,
    at: usize,
    /// What was typed before looking back, and how far back this is.
    back: Option<(Vec<char>, usize)>,
    /// What Tab offers, and which of it was taken last.
    pub offers: Vec<String>,
    offered: usize,
}

impl Line {
    /// A line with a text in it already.
    pub fn with(text: &str) -> Self {
        let text: Vec<char> = text.chars().collect();
        Line {
            at: text.len(),
            text,
            ..Line::default()
        }
    }

    /// What it says.
    pub fn text(&self) -> String {
        self.text.iter().collect()
    }

    /// What is before the place in it.
    pub fn before(&self) -> String {
        self.text[..self.at].iter().collect()
    }

    fn set(&mut self, text: Vec<char>) {
        self.at = text.len();
        self.text = text;
    }

    /// Puts an offer in place of the last word; another one each time.
    pub fn complete(&mut self, offers: Vec<String>, word_start: usize) {
        if self.offers.is_empty() || self.offers != offers {
            self.offers = offers;
            self.offered = 0;
        } else {
            self.offered = (self.offered + 1) % self.offers.len();
        }
        if let Some(offer) = self.offers.get(self.offered) {
            let mut text: Vec<char> = self.before().chars().take(word_start).collect();
            text.extend(offer.chars());
            self.set(text);
        }
    }

    /// The offer that was taken last.
    pub fn offered(&self) -> Option<&str> {
        self.offers.get(self.offered).map(String::as_str)
    }

    /// A key.
    pub fn type_key(&mut self, key: Key, history: &[String]) -> Typed {
        let (code, held) = key.parts();
        let control = held.contains(KeyModifiers::CONTROL);
        if code != KeyCode::Tab {
            self.offers.clear();
        }
        match code {
            KeyCode::Enter => return Typed::Done,
            KeyCode::Esc => return Typed::GivenUp,
            KeyCode::Char('c' | 'g') if control => return Typed::GivenUp,
            KeyCode::Tab => return Typed::Complete,
            KeyCode::Char('a') if control => self.at = 0,
            KeyCode::Char('e') if control => self.at = self.text.len(),
            KeyCode::Home => self.at = 0,
            KeyCode::End => self.at = self.text.len(),
            KeyCode::Left => self.at = self.at.saturating_sub(1),
            KeyCode::Right => self.at = (self.at + 1).min(self.text.len()),
            KeyCode::Up => return self.look_back(history, 1),
            KeyCode::Down => return self.look_back(history, -1),
            KeyCode::Char('u') if control => {
                self.text.drain(..self.at);
                self.at = 0;
                return Typed::Changed;
            }
            KeyCode::Char('w') if control => {
                let end = self.at;
                while self.at > 0 && self.text[self.at - 1] == ' ' {
                    self.at -= 1;
                }
                while self.at > 0 && self.text[self.at - 1] != ' ' {
                    self.at -= 1;
                }
                self.text.drain(self.at..end);
                return Typed::Changed;
            }
            KeyCode::Backspace if self.text.is_empty() => return Typed::GivenUp,
            KeyCode::Backspace if self.at > 0 => {
                self.at -= 1;
                self.text.remove(self.at);
                return Typed::Changed;
            }
            KeyCode::Delete if self.at < self.text.len() => {
                self.text.remove(self.at);
                return Typed::Changed;
            }
            KeyCode::Char(c) if held.is_empty() => {
                self.text.insert(self.at, c);
                self.at += 1;
                return Typed::Changed;
            }
            _ => {}
        }
        Typed::Same
    }

    /// Lines typed before, those that begin as this one did.
    fn look_back(&mut self, history: &[String], by: isize) -> Typed {
        let (typed, depth) = self.back.clone().unwrap_or_else(|| (self.text.clone(), 0));
        let start: String = typed.iter().collect();
        let found: Vec<&String> = history
            .iter()
            .rev()
            .filter(|line| line.starts_with(&start))
            .collect();
        let depth = depth.saturating_add_signed(by).min(found.len());
        let text = match depth.checked_sub(1) {
            Some(at) => found[at].chars().collect(),
            None => typed.clone(),
        };
        self.set(text);
        self.back = (depth > 0).then_some((typed, depth));
        Typed::Changed
    }
}

/// Adds a line to those that are remembered.
pub fn remember(history: &mut Vec<String>, line: &str) {
    if line.is_empty() {
        return;
    }
    history.retain(|known| known != line);
    history.push(line.to_owned());
    let surplus = history.len().saturating_sub(HISTORY);
    history.drain(..surplus);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(line: &mut Line, keys: &[&str], history: &[String]) {
        for name in keys {
            let key = Key::named(name).unwrap_or_else(|| panic!("{name}"));
            line.type_key(key, history);
        }
    }

    #[test]
    fn keys_edit() {
        let mut line = Line::default();
        typed(
            &mut line,
            &["a", "b", "Left", "c", "End", "Space", "d"],
            &[],
        );
        assert_eq!(line.text(), "acb d");
        typed(&mut line, &["Ctrl-w", "Backspace", "Home", "x"], &[]);
        assert_eq!(line.text(), "xacb");
        typed(&mut line, &["Ctrl-u"], &[]);
        assert_eq!(line.text(), "acb");
        assert_eq!(line.before(), "");
    }

    #[test]
    fn history_goes_by_what_was_typed() {
        let history: Vec<String> = ["@1G", "filter a", "@2G"].map(str::to_owned).to_vec();
        let mut line = Line::with("@");
        typed(&mut line, &["Up"], &history);
        assert_eq!(line.text(), "@2G");
        typed(&mut line, &["Up", "Up"], &history);
        assert_eq!(line.text(), "@1G");
        typed(&mut line, &["Down", "Down"], &history);
        assert_eq!(line.text(), "@");
    }

    #[test]
    fn offers_take_turns() {
        let mut line = Line::with("seek sta");
        let offers = vec!["start".to_owned(), "stack".to_owned()];
        line.complete(offers.clone(), 5);
        assert_eq!(line.text(), "seek start");
        line.complete(offers, 5);
        assert_eq!(line.text(), "seek stack");
    }
}
