//! The mark ports: the guest names the place it is at by writing text.

use serde::{Deserialize, Serialize};

use super::event::BoardEvent;

/// Most bytes of one mark; the rest of a longer line is dropped.
pub const MARK_MAX: usize = 256;

/// The text of a mark that is not complete yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkPort {
    text: Vec<u8>,
}

impl MarkPort {
    /// Takes a byte; a newline or NUL completes the mark. Empty lines are no marks, and bytes
    /// that are no UTF-8 are replaced.
    pub fn write(&mut self, byte: u8, out: &mut Vec<BoardEvent>) {
        match byte {
            b'\n' | 0 => {
                let text = std::mem::take(&mut self.text);
                if !text.is_empty() {
                    out.push(BoardEvent::Mark(
                        String::from_utf8_lossy(&text).into_owned(),
                    ));
                }
            }
            _ if self.text.len() < MARK_MAX => self.text.push(byte),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(bytes: &[u8]) -> Vec<BoardEvent> {
        let (mut port, mut out) = (MarkPort::default(), Vec::new());
        bytes.iter().for_each(|byte| port.write(*byte, &mut out));
        out
    }

    #[test]
    fn lines_become_marks() {
        let expected = ["a", "b\u{fffd}"].map(|text| BoardEvent::Mark(text.to_owned()));
        assert_eq!(marks(b"a\n\n\0b\xff\0rest"), expected);
    }

    #[test]
    fn length_is_bounded() {
        let line = [[b'x'; 10_000].as_slice(), b"\n"].concat();
        assert_eq!(marks(&line), [BoardEvent::Mark("x".repeat(MARK_MAX))]);
    }
}
