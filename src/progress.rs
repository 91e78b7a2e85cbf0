//! How far long work is: one line on a terminal, nothing elsewhere.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::words::sized;

/// Work that takes longer than this says how far it has come.
const PATIENCE: Duration = Duration::from_millis(300);
/// Characters of the bar.
const WIDTH: usize = 30;

/// A line that is overwritten, and gone when the work is done.
#[derive(Debug)]
pub(crate) struct Progress {
    what: String,
    began: Instant,
    shown: String,
    terminal: bool,
}

impl Progress {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Progress {
            what: what.into(),
            began: Instant::now(),
            shown: String::new(),
            terminal: io::stderr().is_terminal(),
        }
    }

    /// So many of all are done.
    pub(crate) fn at(&mut self, done: usize, all: usize) {
        self.show(&bar(done as u64, all as u64));
    }

    /// So many bytes are done, of so many if that is known.
    pub(crate) fn bytes(&mut self, done: u64, all: Option<u64>) {
        match all {
            Some(all) => self.show(&format!("{} {}", bar(done, all), sized(done))),
            None => self.show(&sized(done)),
        }
    }

    fn show(&mut self, text: &str) {
        if !self.terminal || self.began.elapsed() < PATIENCE || self.shown == text {
            return;
        }
        text.clone_into(&mut self.shown);
        let _ = write!(io::stderr(), "\r\x1b[Kcolinux-trace: {} {text}", self.what);
    }
}

fn bar(done: u64, all: u64) -> String {
    let percent = usize::try_from(done * 100 / all.max(1)).map_or(100, |p| p.min(100));
    let full = percent * WIDTH / 100;
    format!(
        "[{}{}] {percent} %",
        "#".repeat(full),
        ".".repeat(WIDTH - full)
    )
}

impl Drop for Progress {
    fn drop(&mut self) {
        if !self.shown.is_empty() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_bar_is_never_overfull() {
        assert_eq!(super::bar(0, 0), format!("[{}] 0 %", ".".repeat(30)));
        assert_eq!(
            super::bar(5, 10),
            format!("[{}{}] 50 %", "#".repeat(15), ".".repeat(15))
        );
        assert_eq!(super::bar(12, 10), format!("[{}] 100 %", "#".repeat(30)));
    }
}
