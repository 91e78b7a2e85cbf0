//! The guest's console, as a terminal would show it.

use std::collections::VecDeque;
use std::fmt;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use ratatui::crossterm::event::{KeyCode, KeyModifiers};

use crate::key::Key;

/// Bytes of output that are shown at most.
pub const TAIL_BYTES: usize = 1 << 17;
/// Lines that can be scrolled back.
const LINES_MOST: usize = 2000;
/// Output that waits for the screen; what comes while more is waiting is not shown.
const WAITING_MOST: usize = 4 << 20;

/// Columns and rows.
pub type Size = (u16, u16);

/// A terminal that shows output.
pub struct Terminal {
    parser: vt100::Parser,
    /// The last of the output, to be laid out again in another size.
    tail: VecDeque<u8>,
}

impl fmt::Debug for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminal").finish_non_exhaustive()
    }
}

fn parser((columns, rows): Size) -> vt100::Parser {
    let at_least_one = |n: u16| NonZeroU16::new(n).unwrap_or(NonZeroU16::MIN);
    vt100::Parser::new(at_least_one(rows), at_least_one(columns), LINES_MOST)
}

/// What a screen of this size shows after some output.
pub fn screen(output: &[u8], size: Size) -> vt100::Screen {
    let mut parser = parser(size);
    parser.process(output);
    parser.screen().clone()
}

impl Terminal {
    /// An empty one.
    pub fn new(size: Size) -> Self {
        Terminal {
            parser: parser(size),
            tail: VecDeque::new(),
        }
    }

    /// More output.
    pub fn take(&mut self, output: &[u8]) {
        self.parser.process(output);
        self.tail.extend(output);
        let surplus = self.tail.len().saturating_sub(TAIL_BYTES);
        self.tail.drain(..surplus);
    }

    /// The screen has another size.
    pub fn resize(&mut self, size: Size) {
        self.parser = parser(size);
        self.parser.process(self.tail.make_contiguous());
    }
}

/// What the panel shows.
#[derive(Debug, Default)]
pub struct ConsoleView {
    /// What the guest writes now, where that is heard.
    pub now: Option<Terminal>,
    /// What it had written up to the cursor.
    pub past: Option<vt100::Screen>,
    /// The guest hears what is typed.
    pub can_type: bool,
    /// The size of both.
    pub size: Size,
}

impl ConsoleView {
    /// The screen: that of now, or that of the cursor.
    pub fn screen(&self, now: bool) -> Option<&vt100::Screen> {
        match &self.now {
            Some(terminal) if now => Some(terminal.parser.screen()),
            _ => self.past.as_ref(),
        }
    }

    fn screen_mut(&mut self, now: bool) -> Option<&mut vt100::Screen> {
        match &mut self.now {
            Some(terminal) if now => Some(terminal.parser.screen_mut()),
            _ => self.past.as_mut(),
        }
    }

    /// Scrolls by lines, up if negative.
    pub fn scroll(&mut self, by: isize, now: bool) {
        if let Some(screen) = self.screen_mut(now) {
            let back = screen
                .scrollback()
                .saturating_add_signed(by.saturating_neg());
            screen.set_scrollback(back.min(screen.scrollback_len()));
        }
    }

    /// Scrolls so that a line is to be seen, counted from the first that was kept.
    pub fn show(&mut self, line: usize, now: bool) {
        if let Some(screen) = self.screen_mut(now) {
            let rows = usize::from(screen.size().0.get());
            let back = (screen.scrollback_len() + rows / 2).saturating_sub(line);
            screen.set_scrollback(back.min(screen.scrollback_len()));
        }
    }
}

/// The text of a screen, line by line, with what was scrolled out of it.
pub fn lines(screen: &vt100::Screen) -> Vec<String> {
    let mut screen = screen.clone();
    let (rows, columns) = screen.size();
    let mut lines = Vec::new();
    let mut back = screen.scrollback_len();
    while back > 0 {
        screen.set_scrollback(back);
        let some = back.min(usize::from(rows.get()));
        lines.extend(screen.rows(0, columns.get()).take(some));
        back -= some;
    }
    screen.set_scrollback(0);
    lines.extend(screen.rows(0, columns.get()));
    while lines.last().is_some_and(|line| line.trim().is_empty()) {
        lines.pop();
    }
    lines
}

/// Both ends of the console of a guest that is being recorded, served by threads, so that neither
/// side ever waits for the screen.
#[derive(Debug)]
pub struct Live {
    output: Receiver<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
    input: Option<Sender<Vec<u8>>>,
}

impl Live {
    /// From what the guest writes, and what it is to read; dropping this ends the recording.
    pub fn start(
        mut from: impl Read + Send + 'static,
        mut to: impl Write + Send + 'static,
    ) -> Self {
        let (heard, output) = mpsc::channel();
        let (input, typed) = mpsc::channel::<Vec<u8>>();
        let waiting = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&waiting);
        let thread = |name: &str| thread::Builder::new().name(name.to_owned());
        // Without a thread nothing is shown and nothing can be typed; the recording is whole.
        let _ = thread("console-out").spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                if count.fetch_add(n, Ordering::AcqRel) > WAITING_MOST {
                    count.fetch_sub(n, Ordering::AcqRel);
                } else if heard.send(buffer[..n].to_vec()).is_err() {
                    break;
                }
            }
        });
        let _ = thread("console-in").spawn(move || {
            for bytes in typed {
                if to.write_all(&bytes).and_then(|()| to.flush()).is_err() {
                    break;
                }
            }
        });
        Live {
            output,
            waiting,
            input: Some(input),
        }
    }

    /// What the guest has written since.
    pub(crate) fn heard(&self) -> Vec<u8> {
        let mut all = Vec::new();
        while let Ok(bytes) = self.output.try_recv() {
            all.extend(bytes);
        }
        self.waiting.fetch_sub(all.len(), Ordering::AcqRel);
        all
    }

    /// Types something; false if nobody reads it any more.
    pub(crate) fn say(&self, bytes: Vec<u8>) -> bool {
        self.input
            .as_ref()
            .is_some_and(|input| input.send(bytes).is_ok())
    }

    /// Nothing more will be typed, which ends the recording.
    pub(crate) fn hang_up(&mut self) {
        self.input = None;
    }
}

/// Keys that are sent as a sequence (`ctlseqs.html` of xterm, "PC-Style Function Keys").
const SEQUENCES: &[(KeyCode, &str)] = &[
    (KeyCode::Enter, "\r"),
    (KeyCode::Tab, "\t"),
    (KeyCode::Esc, "\x1b"),
    (KeyCode::Backspace, "\x7f"),
    (KeyCode::Up, "\x1b[A"),
    (KeyCode::Down, "\x1b[B"),
    (KeyCode::Right, "\x1b[C"),
    (KeyCode::Left, "\x1b[D"),
    (KeyCode::Home, "\x1b[H"),
    (KeyCode::End, "\x1b[F"),
    (KeyCode::Insert, "\x1b[2~"),
    (KeyCode::Delete, "\x1b[3~"),
    (KeyCode::PageUp, "\x1b[5~"),
    (KeyCode::PageDown, "\x1b[6~"),
    (KeyCode::F(1), "\x1bOP"),
    (KeyCode::F(2), "\x1bOQ"),
    (KeyCode::F(3), "\x1bOR"),
    (KeyCode::F(4), "\x1bOS"),
    (KeyCode::F(5), "\x1b[15~"),
    (KeyCode::F(6), "\x1b[17~"),
    (KeyCode::F(7), "\x1b[18~"),
    (KeyCode::F(8), "\x1b[19~"),
    (KeyCode::F(9), "\x1b[20~"),
    (KeyCode::F(10), "\x1b[21~"),
    (KeyCode::F(11), "\x1b[23~"),
    (KeyCode::F(12), "\x1b[24~"),
];

/// The bytes that a terminal sends for a key; none if it sends nothing.
pub fn bytes_of(key: Key) -> Vec<u8> {
    let (code, held) = key.parts();
    let mut bytes = Vec::new();
    if held.contains(KeyModifiers::ALT) {
        bytes.push(0x1b);
    }
    match code {
        KeyCode::Char(c) if held.contains(KeyModifiers::CONTROL) => match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '[' | '\\' | ']' | '^' | '_' | '@') => bytes.push(c as u8 & 0x1f),
            ' ' | '2' => bytes.push(0),
            '4'..='7' => bytes.push(c as u8 - b'4' + 0x1c),
            '/' => bytes.push(0x1f),
            _ => return Vec::new(),
        },
        KeyCode::Char(c) => bytes.extend(c.to_string().bytes()),
        KeyCode::Tab if held.contains(KeyModifiers::SHIFT) => bytes.extend(b"\x1b[Z"),
        code => match SEQUENCES.iter().find(|(known, _)| *known == code) {
            Some((_, sequence)) => bytes.extend(sequence.bytes()),
            None => return Vec::new(),
        },
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_bytes() {
        for (name, expected) in [
            ("a", &b"a"[..]),
            ("A", b"A"),
            ("Ctrl-c", b"\x03"),
            ("Ctrl-@", b"\0"),
            ("Ctrl-]", b"\x1d"),
            ("Alt-b", b"\x1bb"),
            ("Enter", b"\r"),
            ("Backspace", b"\x7f"),
            ("Up", b"\x1b[A"),
            ("Shift-Tab", b"\x1b[Z"),
            ("F1", b"\x1bOP"),
        ] {
            assert_eq!(bytes_of(Key::named(name).unwrap()), expected, "{name}");
        }
        assert_eq!(bytes_of(Key::named("é").unwrap()), "é".as_bytes());
    }

    #[test]
    fn what_was_scrolled_out_is_still_there() {
        let output: String = (0..30).map(|n| format!("line {n}\r\n")).collect();
        let mut terminal = Terminal::new((20, 4));
        terminal.take(output.as_bytes());
        let expected: Vec<String> = (0..30).map(|n| format!("line {n}")).collect();
        assert_eq!(lines(terminal.parser.screen()), expected);
        // A narrower screen breaks the lines elsewhere, and loses nothing.
        terminal.resize((5, 3));
        let text = lines(terminal.parser.screen()).concat();
        assert_eq!(text.replace(' ', ""), expected.concat().replace(' ', ""));
        let mut view = ConsoleView {
            now: Some(terminal),
            ..ConsoleView::default()
        };
        view.scroll(isize::MIN, true);
        let first = view.screen(true).unwrap().rows(0, 5).next();
        assert_eq!(first.as_deref(), Some("line "));
        view.scroll(isize::MAX, true);
        assert_eq!(view.screen(true).unwrap().scrollback(), 0);
    }

    #[test]
    fn both_ends_are_served() {
        let (mut guest, typed) = std::io::pipe().unwrap();
        let mut line = Live::start(&b"login: "[..], typed);
        assert!(line.say(b"root\r".to_vec()));
        line.hang_up();
        let mut all = String::new();
        guest.read_to_string(&mut all).unwrap();
        assert_eq!(all, "root\r");
        let mut heard = Vec::new();
        while heard.len() < 7 {
            heard.extend(line.heard());
        }
        assert_eq!(heard, b"login: ");
        assert!(!line.say(b"x".to_vec()));
    }
}
