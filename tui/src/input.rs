//! Keys and the mouse.

use colinux_replay::Mark;
use ratatui::crossterm::event::{
    Event, KeyCode, KeyEventKind, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};
use ratatui::layout::{Position, Rect};

use crate::action::{self, Action};
use crate::app::{App, Wish};
use crate::command;
use crate::key::Key;
use crate::line::{Line, Typed, remember};
use crate::model::{LABEL, LineFor, Mode};
use crate::panel::Panel;
use crate::view::Hit;

impl App {
    /// Takes what the terminal has to tell; true if anything is to be drawn.
    pub fn input(&mut self, event: &Event) -> bool {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => self.key(Key::of(*key)),
            Event::Mouse(mouse) => self.mouse(mouse),
            Event::Resize(width, height) => self.resize(Rect::new(0, 0, *width, *height)),
            Event::Paste(text) => {
                if matches!(self.model.mode, Mode::Typing { .. }) {
                    // A terminal sends returns for the ends of lines.
                    self.say_to_guest(text.replace('\n', "\r").into_bytes());
                    return true;
                }
                for c in text.chars().filter(|c| !c.is_control()) {
                    if let (Mode::Line(..), Some(key)) =
                        (&self.model.mode, Key::named(&c.to_string()))
                    {
                        self.key(key);
                    }
                }
            }
            _ => return false,
        }
        true
    }

    /// A key.
    pub fn key(&mut self, key: Key) {
        match std::mem::replace(&mut self.model.mode, Mode::Normal) {
            Mode::Normal => {
                if let Some(panel) = panel_of(key) {
                    self.model.message = None;
                    self.focus(panel);
                } else if let Some(action) = action::of_key(key, self.model.focus) {
                    self.apply(action);
                }
            }
            Mode::Typing { escaped } => self.typing_key(key, escaped),
            Mode::Help(top) => self.help_key(key, top),
            Mode::Letter { set } => self.letter(key, set),
            Mode::Line(purpose, line) => self.line_key(key, purpose, line),
        }
    }

    fn help_key(&mut self, key: Key, top: u16) {
        let page = self.model.area.height.saturating_sub(6).max(1);
        let top = match action::of_key(key, Panel::Events) {
            Some(Action::Down) => top + 1,
            Some(Action::Up) => top.saturating_sub(1),
            Some(Action::PageDown | Action::HalfDown) => top + page,
            Some(Action::PageUp | Action::HalfUp) => top.saturating_sub(page),
            Some(Action::First) => 0,
            Some(Action::Last) => u16::MAX / 2,
            _ => return,
        };
        self.model.mode = Mode::Help(top.min(crate::view::help::last_top(&self.model)));
    }

    fn letter(&mut self, key: Key, set: bool) {
        let here = self.model.cursor;
        match (key.character(), set) {
            (Some(letter), true) if letter.is_alphanumeric() => {
                self.model.places.letters.insert(letter, here);
                self.model.say(format!("'{letter} is {here}"));
            }
            (Some('\''), false) => match self.model.places.last() {
                Some(mark) => self.jump(mark),
                None => self.model.say("you have not jumped yet"),
            },
            (Some(letter), false) => match self.model.places.letters.get(&letter).copied() {
                Some(mark) => self.jump(mark),
                None => self.model.alarm(format!("there is no mark '{letter}")),
            },
            _ => {}
        }
    }

    fn line_key(&mut self, key: Key, purpose: LineFor, mut line: Line) {
        let history = match purpose {
            LineFor::Command => &self.commands,
            LineFor::Search(_) => &self.patterns,
            LineFor::Filter => &self.filters,
        };
        match line.type_key(key, history) {
            Typed::Done => self.line_done(purpose, &line.text()),
            Typed::GivenUp => self.line_given_up(purpose),
            Typed::Complete => {
                self.complete(purpose, &mut line);
                self.model.mode = Mode::Line(purpose, line);
            }
            typed => {
                if typed == Typed::Changed
                    && let LineFor::Search(from) = purpose
                {
                    self.search_for(&line.text(), from);
                }
                self.model.mode = Mode::Line(purpose, line);
            }
        }
    }

    /// The search goes along with what is typed.
    fn search_for(&mut self, text: &str, from: u64) {
        self.model.message = None;
        self.model.pattern = (!text.is_empty()).then(|| text.to_owned());
        let focus = self.model.focus;
        match (
            self.model.list_of(focus).map(|list| list.id),
            text.is_empty(),
        ) {
            (_, true) => self.searches.cancel(),
            (Some(id), _) => self.find(id, from, true, true),
            (None, _) => self.find_line(focus, text, true, true),
        }
    }

    fn line_done(&mut self, purpose: LineFor, text: &str) {
        match purpose {
            LineFor::Search(_) => {
                remember(&mut self.patterns, text);
                let here = self.model.cursor;
                self.model.places.leave(here);
            }
            LineFor::Filter => self.set_filter(text),
            LineFor::Command => {
                let text = text.trim();
                if text.is_empty() {
                    return;
                }
                remember(&mut self.commands, text);
                match command::parse(text, &self.model) {
                    Ok(command) => self.command(command),
                    Err(why) => self.model.alarm(why),
                }
            }
        }
    }

    fn line_given_up(&mut self, purpose: LineFor) {
        if let LineFor::Search(from) = purpose {
            self.searches.cancel();
            self.model.pattern = None;
            self.model.message = None;
            // Back to where it began.
            if let Some(list) = self.model.list_of(self.model.focus) {
                let (id, row) = (list.id, list.rows.iter().find(|r| r.number == from));
                if let Some((number, tick)) = row.map(|r| (r.number, r.tick)) {
                    self.choose_event(id, number, tick);
                }
                self.model.list_mut(id).waiting = None;
            }
        }
    }

    fn complete(&mut self, purpose: LineFor, line: &mut Line) {
        let before = line.before();
        let offered = line.offered().map(str::to_owned);
        let (offers, start) = match purpose {
            // Another Tab: the next of the same offers.
            _ if offered
                .as_ref()
                .is_some_and(|o| before.ends_with(o.as_str())) =>
            {
                let word = offered.map_or(0, |o| o.chars().count());
                (line.offers.clone(), before.chars().count() - word)
            }
            LineFor::Command => command::complete(&before, &self.model),
            LineFor::Filter => {
                let start = before.rfind([' ', '(']).map_or(0, |at| at + 1);
                let word = before[start..].to_lowercase();
                let offers = command::filter_words();
                let offers = offers.filter(|o| o.to_lowercase().starts_with(&word));
                (offers.collect(), before[..start].chars().count())
            }
            LineFor::Search(_) => return,
        };
        if offers.is_empty() {
            return;
        }
        line.complete(offers, start);
    }

    fn mouse(&mut self, mouse: &MouseEvent) {
        let at = Position::new(mouse.column, mouse.row);
        let screen = self.model.screen();
        let hit = screen.panels.iter().find(|(_, rect)| rect.contains(at));
        let Some((panel, rect)) = hit.copied() else {
            return;
        };
        let control = mouse.modifiers.contains(KeyModifiers::CONTROL);
        match mouse.kind {
            MouseEventKind::Down(MouseButton::Left) => {
                if panel != Panel::Console || !matches!(self.model.mode, Mode::Typing { .. }) {
                    self.model.mode = Mode::Normal;
                }
                self.focus(panel);
                self.click(panel, rect, at);
            }
            MouseEventKind::Drag(MouseButton::Left) if panel == Panel::Timeline => {
                self.click(panel, rect, at);
            }
            MouseEventKind::ScrollUp if panel == Panel::Timeline || control => self.zoom(2, 3),
            MouseEventKind::ScrollDown if panel == Panel::Timeline || control => self.zoom(3, 2),
            MouseEventKind::ScrollUp => {
                self.focus(panel);
                self.move_by(-3);
            }
            MouseEventKind::ScrollDown => {
                self.focus(panel);
                self.move_by(3);
            }
            _ => {}
        }
    }

    fn click(&mut self, panel: Panel, rect: Rect, at: Position) {
        let row = usize::from(at.y.saturating_sub(rect.y + 1));
        match panel {
            Panel::Timeline => {
                let stretch = self.model.stretch();
                let column = at.x.saturating_sub(rect.x + 1 + LABEL);
                let column = usize::from(column).min(stretch.columns.saturating_sub(1));
                self.go(Mark::at(stretch.tick(column)));
            }
            Panel::Events | Panel::Log => {
                let Some(list) = self.model.list_of(panel) else {
                    return;
                };
                let (id, row) = (list.id, list.top + row);
                if row < list.rows.len() {
                    self.model.list_mut(id).selected = row;
                    self.follow_choice();
                }
            }
            _ => match crate::view::hit(&self.model, panel, rect, at) {
                Some(Hit::Line(line)) => self.choose_line(panel, line),
                Some(Hit::Byte(byte)) => self.model.memory.chosen = byte,
                None => {}
            },
        }
    }

    fn choose_line(&mut self, panel: Panel, line: usize) {
        match panel {
            Panel::Source => self.model.chosen_source = Some(line),
            Panel::Code => {
                let moment = self.model.moment.as_ref();
                let insn = moment.and_then(|moment| moment.code.get(line));
                self.model.chosen_code = insn.map(|insn| insn.address);
            }
            Panel::Console => {}
            _ => self.model.chosen[panel.index()] = line,
        }
    }

    /// Takes the wishes there are.
    pub fn take_wishes(&mut self) -> Vec<Wish> {
        std::mem::take(&mut self.wishes)
    }
}

/// The panel of a digit.
fn panel_of(key: Key) -> Option<Panel> {
    match key.parts() {
        (KeyCode::Char(c @ '1'..='9'), held) if held.is_empty() => {
            Panel::ALL.into_iter().find(|p| p.digit() == Some(c))
        }
        _ => None,
    }
}
