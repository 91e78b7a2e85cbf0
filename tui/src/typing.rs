//! The guest's console: shown as it was at the cursor or as it is now, and typed to.

use ratatui::crossterm::event::KeyCode;

use crate::app::App;
use crate::console::{Live, Terminal, bytes_of};
use crate::key::Key;
use crate::model::Mode;
use crate::panel::Panel;
use crate::work::console;

/// Ctrl-A: what it begins is for the viewer, as it is for `record`.
const ESCAPE: u8 = 1;

impl App {
    /// Shows what a guest that is being recorded writes as it writes it, and lets one type to it.
    pub fn attach(&mut self, live: Live) {
        self.line = Some(live);
        self.model.console.now = Some(Terminal::new(self.model.console.size));
        self.model.console.can_type = true;
        self.focus(Panel::Console);
    }

    /// The console of a viewer that is opened again is the same.
    pub(crate) fn take_line(&mut self, from: &mut App) {
        self.line = from.line.take();
        std::mem::swap(&mut self.model.console, &mut from.model.console);
    }

    /// Shows the console; what is typed from now on is for the guest, if it can hear.
    pub(crate) fn type_to_guest(&mut self) {
        self.focus(Panel::Console);
        if self.model.console.can_type {
            self.model.mode = Mode::Typing { escaped: false };
            self.model.console.scroll(isize::MAX, true);
        } else if self.model.file.live {
            self.model
                .say("somebody else makes this recording: it can be watched, not typed to");
        }
    }

    pub(crate) fn typing_key(&mut self, key: Key, escaped: bool) {
        self.model.message = None;
        let bytes = bytes_of(key);
        let is_escape = bytes == [ESCAPE];
        let mut next = Mode::Typing { escaped: false };
        match (escaped, key.parts().0) {
            (false, _) if is_escape => next = Mode::Typing { escaped: true },
            (false, _) => self.say_to_guest(bytes),
            (true, KeyCode::Char('x' | 'X')) => {
                next = Mode::Normal;
                self.end_recording();
            }
            (true, KeyCode::Esc | KeyCode::Char('q' | 'd')) => next = Mode::Normal,
            (true, KeyCode::Char('a')) => self.say_to_guest(vec![ESCAPE]),
            (true, _) => self.say_to_guest([&[ESCAPE], &bytes[..]].concat()),
        }
        if self.model.console.can_type {
            self.model.mode = next;
        }
    }

    pub(crate) fn say_to_guest(&mut self, bytes: Vec<u8>) {
        self.model.console.scroll(isize::MAX, true);
        if self.line.as_ref().is_none_or(|line| !line.say(bytes)) {
            self.no_more_typing();
            self.model.alarm("the guest does not listen any more");
        }
    }

    /// Ends the recording in order; the viewer goes on with what was recorded.
    pub(crate) fn end_recording(&mut self) {
        if !self.model.console.can_type {
            self.model.alarm("there is no recording here to end");
            return;
        }
        if let Some(line) = &mut self.line {
            line.hang_up();
        }
        self.no_more_typing();
        self.model.say("the recording is being ended");
    }

    pub(crate) fn no_more_typing(&mut self) {
        self.model.console.can_type = false;
        if matches!(self.model.mode, Mode::Typing { .. }) {
            self.model.mode = Mode::Normal;
        }
    }

    /// Keys go to the guest.
    pub fn is_typing(&self) -> bool {
        matches!(self.model.mode, Mode::Typing { .. })
    }

    /// Takes what the guest has written since; true if there is any.
    pub(crate) fn listen(&mut self) -> bool {
        let Some(line) = &self.line else { return false };
        let heard = line.heard();
        if let Some(terminal) = &mut self.model.console.now
            && !heard.is_empty()
        {
            terminal.take(&heard);
        }
        !heard.is_empty()
    }

    /// Asks for the console at the cursor, if it is to be seen.
    pub(crate) fn ask_for_console(&mut self) {
        let Some(place) = self.model.screen().place(Panel::Console) else {
            return;
        };
        let size = (
            place.width.saturating_sub(2),
            place.height.saturating_sub(2),
        );
        let view = &mut self.model.console;
        if view.size != size {
            view.size = size;
            if let Some(terminal) = &mut view.now {
                terminal.resize(size);
            }
        }
        let tick = self.model.cursor.tick;
        // What comes later changes nothing here.
        let at_end = tick >= self.model.file.last_tick;
        let due = (tick, size, if at_end { self.model.file.events } else { 0 });
        if self.model.console_is_now() || self.asked_console == Some(due) {
            return;
        }
        self.asked_console = Some(due);
        self.console_due = true;
        self.console.ask(console::Job {
            reader: self.reader.clone(),
            tick,
            size,
            ticket: self.consoles.next(),
        });
    }

    pub(crate) fn hear_console(&mut self, news: console::ConsoleNews) {
        if news.ticket.is_good() {
            self.console_due = false;
            self.model.console.past = Some(news.screen);
        }
    }
}
