//! The terminal: taken over, and given back whatever happens.

use std::io::{self, IsTerminal, Stdout, Write};
use std::panic;
use std::process;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::thread;
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{
    DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste, EnableMouseCapture,
    KeyboardEnhancementFlags, PopKeyboardEnhancementFlags, PushKeyboardEnhancementFlags,
};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::layout::Rect;
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGTERM, SIGTSTP};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::SignalOnly;

/// The terminal is ours.
static TAKEN: AtomicBool = AtomicBool::new(false);
/// What a worker said when it died.
static LAST_WORDS: Mutex<Option<String>> = Mutex::new(None);

/// Why there is no viewer here, if standard input and output are not a terminal that can draw.
pub fn unfit() -> Option<&'static str> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Some("the viewer wants a terminal; `dump`, `stats` and `bt` write to anything");
    }
    match std::env::var("TERM").as_deref() {
        Ok("dumb") => Some("the viewer cannot draw on a terminal with TERM=dumb; `dump` can"),
        _ => None,
    }
}

/// Gives the terminal back, if it is ours. Errors are of no use here.
pub(crate) fn give_back(mouse: bool) {
    if !TAKEN.swap(false, Ordering::AcqRel) {
        return;
    }
    let mut out = io::stdout();
    if mouse {
        let _ = execute!(out, DisableMouseCapture);
    }
    let _ = execute!(
        out,
        PopKeyboardEnhancementFlags,
        DisableBracketedPaste,
        LeaveAlternateScreen,
        Show
    );
    let _ = disable_raw_mode();
    let _ = out.flush();
}

/// The terminal, ours until this is dropped.
pub(crate) struct Screen {
    pub(crate) terminal: Terminal<CrosstermBackend<Stdout>>,
    mouse: bool,
}

impl Screen {
    /// Takes it over.
    pub(crate) fn take(mouse: bool) -> io::Result<Self> {
        give_back_in_panics();
        begin(mouse)?;
        let terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
        Ok(Screen { terminal, mouse })
    }

    /// All of it.
    pub(crate) fn area(&self) -> io::Result<Rect> {
        let size = self.terminal.size()?;
        Ok(Rect::new(0, 0, size.width, size.height))
    }

    /// Lends it to something else.
    pub(crate) fn lend<T>(&mut self, borrower: impl FnOnce() -> T) -> io::Result<T> {
        give_back(self.mouse);
        let done = borrower();
        begin(self.mouse)?;
        self.terminal.clear()?;
        Ok(done)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back(self.mouse);
    }
}

fn begin(mouse: bool) -> io::Result<()> {
    enable_raw_mode()?;
    TAKEN.store(true, Ordering::Release);
    let mut out = io::stdout();
    execute!(out, EnterAlternateScreen, EnableBracketedPaste)?;
    // So that Ctrl-I is not Tab where the terminal can tell them apart.
    let flags = KeyboardEnhancementFlags::DISAMBIGUATE_ESCAPE_CODES;
    execute!(out, PushKeyboardEnhancementFlags(flags))?;
    if mouse {
        execute!(out, EnableMouseCapture)?;
    }
    Ok(())
}

/// A panic gives the terminal back before it speaks; one of a worker is shown by the viewer.
fn give_back_in_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        let main = thread::current().id();
        panic::set_hook(Box::new(move |info| {
            if thread::current().id() == main {
                give_back(true);
                before(info);
            } else {
                let mut words = LAST_WORDS.lock().unwrap_or_else(PoisonError::into_inner);
                *words = Some(info.to_string().replace('\n', " "));
            }
        }));
    });
}

/// What a worker said when it died, once.
pub(crate) fn last_words() -> Option<String> {
    LAST_WORDS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take()
}

/// Time that the viewer has to end by itself after a signal.
const GRACE: Duration = Duration::from_millis(500);

/// Stops this process, as the shell's job control does; comes back when it is continued.
pub(crate) fn stop() -> io::Result<()> {
    signal_hook::low_level::emulate_default_handler(SIGTSTP)
}

/// Signals that end or stop the viewer.
pub(crate) struct Signals {
    last: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    continued: Arc<AtomicBool>,
}

impl Signals {
    /// Begins to catch them. An interrupt is caught for nothing: it is meant for what the terminal
    /// is lent to, since it is a key like any other while the terminal is ours.
    pub(crate) fn catch() -> io::Result<Self> {
        let caught = Signals {
            last: Arc::default(),
            stop: Arc::default(),
            continued: Arc::default(),
        };
        let mut signals =
            SignalsInfo::<SignalOnly>::new([SIGTERM, SIGHUP, SIGINT, SIGTSTP, SIGCONT])?;
        let seen = Arc::clone(&caught.last);
        let (stop_it, continued) = (Arc::clone(&caught.stop), Arc::clone(&caught.continued));
        let thread = thread::Builder::new().name("signals".to_owned());
        thread.spawn(move || {
            for signal in signals.forever() {
                match signal {
                    SIGINT => continue,
                    SIGCONT => {
                        continued.store(true, Ordering::Release);
                        continue;
                    }
                    SIGTSTP => {
                        // What has borrowed the terminal is stopped with us, at once.
                        if TAKEN.load(Ordering::Acquire) {
                            stop_it.store(true, Ordering::Release);
                        } else {
                            let _ = stop();
                        }
                        continue;
                    }
                    _ => {}
                }
                let number = usize::try_from(signal).unwrap_or(0);
                seen.store(number, Ordering::Relaxed);
                // Who reads from a terminal that is gone may not come back.
                thread::sleep(GRACE);
                give_back(true);
                process::exit(128 + signal);
            }
        })?;
        Ok(caught)
    }

    /// The signal that came, if any.
    pub(crate) fn received(&self) -> Option<u8> {
        let number = self.last.load(Ordering::Relaxed);
        u8::try_from(number).ok().filter(|n| *n != 0)
    }

    /// The viewer is to stop, once.
    pub(crate) fn stops(&self) -> bool {
        self.stop.swap(false, Ordering::AcqRel)
    }

    /// It was continued, perhaps on a terminal that others have used, once.
    pub(crate) fn continued(&self) -> bool {
        self.continued.swap(false, Ordering::AcqRel)
    }
}

/// The sequence that puts a text on the clipboard of the terminal (OSC 52).
pub(crate) fn clipboard(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::from("\x1b]52;c;");
    for piece in text.as_bytes().chunks(3) {
        let mut three = [0u8; 3];
        three[..piece.len()].copy_from_slice(piece);
        let bits = u32::from(three[0]) << 16 | u32::from(three[1]) << 8 | u32::from(three[2]);
        for n in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * n) & 63) as usize];
            out.push(if n <= piece.len() {
                char::from(digit)
            } else {
                '='
            });
        }
    }
    out.push('\x07');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clipboard_gets_base64() {
        for (text, expected) in [
            ("", ""),
            ("@", "QA=="),
            ("@1", "QDE="),
            ("@12", "QDEy"),
            ("@123", "QDEyMw=="),
        ] {
            assert_eq!(clipboard(text), format!("\x1b]52;c;{expected}\x07"));
        }
    }
}
