//! Keys by name: `j`, `Ctrl-o`, `Down`.

use std::fmt;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// A key with what is held down beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    code: KeyCode,
    held: KeyModifiers,
}

/// Names of keys that are no characters.
const NAMES: &[(&str, KeyCode)] = &[
    ("Enter", KeyCode::Enter),
    ("Esc", KeyCode::Esc),
    ("Tab", KeyCode::Tab),
    ("Backspace", KeyCode::Backspace),
    ("Space", KeyCode::Char(' ')),
    ("Up", KeyCode::Up),
    ("Down", KeyCode::Down),
    ("Left", KeyCode::Left),
    ("Right", KeyCode::Right),
    ("PgUp", KeyCode::PageUp),
    ("PgDn", KeyCode::PageDown),
    ("Home", KeyCode::Home),
    ("End", KeyCode::End),
    ("F1", KeyCode::F(1)),
];

impl Key {
    /// What the terminal said. Shift is part of a character already.
    pub fn of(event: KeyEvent) -> Self {
        let mut held = event.modifiers & (KeyModifiers::CONTROL | KeyModifiers::ALT);
        let mut code = event.code;
        if code == KeyCode::BackTab {
            code = KeyCode::Tab;
            held |= KeyModifiers::SHIFT;
        }
        Key { code, held }
    }

    /// A key by its name.
    pub fn named(name: &str) -> Option<Self> {
        const HELD: [(&str, KeyModifiers); 3] = [
            ("Ctrl-", KeyModifiers::CONTROL),
            ("Alt-", KeyModifiers::ALT),
            ("Shift-", KeyModifiers::SHIFT),
        ];
        let (mut rest, mut held) = (name, KeyModifiers::empty());
        for (prefix, modifier) in HELD {
            if let Some(after) = rest.strip_prefix(prefix).filter(|a| !a.is_empty()) {
                (rest, held) = (after, held | modifier);
            }
        }
        let named = NAMES.iter().find(|(known, _)| *known == rest);
        let mut chars = rest.chars();
        let code = match (named, chars.next(), chars.next()) {
            (Some((_, code)), ..) => *code,
            (None, Some(c), None) => KeyCode::Char(c),
            _ => return None,
        };
        Some(Key { code, held })
    }

    /// The character, if it is one and nothing is held down.
    pub fn character(self) -> Option<char> {
        match self.code {
            KeyCode::Char(c) if self.held.is_empty() => Some(c),
            _ => None,
        }
    }

    /// The code and what is held down.
    pub const fn parts(self) -> (KeyCode, KeyModifiers) {
        (self.code, self.held)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.held.contains(KeyModifiers::CONTROL) {
            f.write_str("Ctrl-")?;
        }
        if self.held.contains(KeyModifiers::ALT) {
            f.write_str("Alt-")?;
        }
        if self.held.contains(KeyModifiers::SHIFT) {
            f.write_str("Shift-")?;
        }
        match NAMES.iter().find(|(_, code)| *code == self.code) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "{}", self.code),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_keys_and_back() {
        for name in [
            "j",
            "G",
            "Ctrl-o",
            "Alt-Left",
            "Shift-Tab",
            "PgUp",
            "/",
            "-",
            "Space",
        ] {
            assert_eq!(Key::named(name).unwrap().to_string(), name);
        }
        let shifted = KeyEvent::new(KeyCode::Char('G'), KeyModifiers::SHIFT);
        assert_eq!(Key::of(shifted), Key::named("G").unwrap());
        assert_eq!(Key::named("nothing"), None);
    }
}
