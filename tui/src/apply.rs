//! What keys and commands do.

use crate::action::Action;
use crate::app::{App, Wish};
use crate::line::Line;
use crate::model::{LineFor, Mode};
use crate::panel::Panel;
use crate::work::machine::Way;

impl App {
    /// Gives a panel the keys, and shows it.
    pub fn focus(&mut self, panel: Panel) {
        let model = &mut self.model;
        model.focus = panel;
        if panel.is_list() {
            model.list = panel;
        } else if panel != Panel::Timeline {
            model.part = panel;
        }
        let screen = model.screen();
        // A screen without room for the timeline shows something else in its place.
        if screen.place(panel).is_none()
            && let Some((first, _)) = screen.panels.first()
        {
            model.focus = *first;
        }
    }

    /// Does something.
    pub fn apply(&mut self, action: Action) {
        self.model.message = None;
        let page = isize::try_from(self.model.height(self.model.focus).max(2)).unwrap_or(2);
        match action {
            Action::Quit => self.wishes.push(Wish::Quit),
            Action::Leave => self.leave(),
            Action::Help => self.model.mode = Mode::Help(0),
            Action::Command => self.model.mode = Mode::Line(LineFor::Command, Line::default()),
            Action::NextPanel => self.turn(1),
            Action::PreviousPanel => self.turn(-1),
            Action::Down => self.move_by(1),
            Action::Up => self.move_by(-1),
            Action::HalfDown => self.move_by(page / 2),
            Action::HalfUp => self.move_by(-page / 2),
            Action::PageDown => self.move_by(page - 1),
            Action::PageUp => self.move_by(1 - page),
            Action::First => self.go_far(false),
            Action::Last => self.go_far(true),
            Action::Left => self.sideways(-1),
            Action::Right => self.sideways(1),
            Action::PanLeft => self.pan(-1),
            Action::PanRight => self.pan(1),
            Action::Enter => self.enter(),
            Action::Search => self.search(),
            Action::SearchNext => self.search_on(true),
            Action::SearchPrevious => self.search_on(false),
            Action::Filter => {
                let text = self.model.events.filter.to_string();
                self.model.mode = Mode::Line(LineFor::Filter, Line::with(&text));
            }
            Action::NextOfKind => self.of_kind(true),
            Action::PreviousOfKind => self.of_kind(false),
            Action::ZoomIn => self.zoom(1, 2),
            Action::ZoomOut => self.zoom(2, 1),
            Action::ZoomAll => self.model.span = self.model.whole(),
            Action::MarkerA => self.marker(0),
            Action::MarkerB => self.marker(1),
            Action::Step => self.walk(Way::Step, "stepping"),
            Action::StepBack => self.walk(Way::StepBack, "stepping back"),
            Action::Next => self.walk(Way::Next, "stepping over"),
            Action::NextBack => self.walk(Way::NextBack, "stepping back over"),
            Action::Finish => self.far(Way::Finish, "going to the caller"),
            Action::FinishBack => self.far(Way::FinishBack, "going back to the call"),
            Action::Continue => self.far(Way::Continue, "running on"),
            Action::ContinueBack => self.far(Way::ContinueBack, "running back"),
            Action::RunTo => {
                if let Some(address) = self.model.code_address() {
                    self.far(Way::Until(address), "running there");
                }
            }
            Action::Breakpoint => {
                if let Some(address) = self.model.code_address() {
                    self.toggle_breakpoint(address);
                }
            }
            Action::LastWrite => {
                if let Some(start) = self.model.memory_start() {
                    let at = start.wrapping_add(self.model.memory.chosen) & !7;
                    // What is looked at stays, wherever the stack pointer goes.
                    self.model.memory.at = Some(start);
                    self.far(Way::LastWrite(at, 8), "looking for the last write");
                }
            }
            Action::Source => self.focus(match self.model.focus {
                Panel::Source => Panel::Code,
                _ => Panel::Source,
            }),
            Action::Type => self.type_to_guest(),
            Action::SetMark => self.model.mode = Mode::Letter { set: true },
            Action::GoMark => self.model.mode = Mode::Letter { set: false },
            Action::JumpBack => {
                let here = self.model.cursor;
                match self.model.places.back(here) {
                    Some(mark) => self.go(mark),
                    None => self.model.say("this is where the way begins"),
                }
            }
            Action::JumpForward => match self.model.places.forward() {
                Some(mark) => self.go(mark),
                None => self.model.say("this is where the way ends"),
            },
            Action::Bookmark => {
                self.model.mode = Mode::Line(LineFor::Command, Line::with("bookmark "));
            }
            Action::Gdb => self.wishes.push(Wish::Gdb(self.model.cursor)),
            Action::Yank => self.yank(),
            Action::YankLine => {
                if let Some(line) = crate::view::chosen_line(&self.model) {
                    self.copy(line);
                }
            }
            Action::Export => self.wishes.push(Wish::Export(None)),
            Action::Stop => self.wishes.push(Wish::Stop),
            Action::Redraw => self.wishes.push(Wish::Redraw),
        }
    }

    /// A walk that is remembered as a jump.
    pub(crate) fn far(&mut self, way: Way, what: &str) {
        let from = self.model.cursor;
        self.model.places.leave(from);
        self.walk(way, what);
    }

    fn leave(&mut self) {
        if self.stop_walking() {
            // The machine is somewhere on the way; the cursor is where it was.
            self.model.say("stopped");
            return;
        }
        let model = &mut self.model;
        self.searches.cancel();
        for list in [&mut model.events, &mut model.log] {
            if list.rows.is_empty() {
                continue;
            }
            list.waiting = None;
        }
        model.pattern = None;
        if model.chosen_code.take().is_none() && model.focus == Panel::Memory {
            model.memory.as_type = None;
        }
    }

    fn enter(&mut self) {
        let model = &self.model;
        let line = model.chosen_line(model.focus);
        let moment = model.moment.clone();
        match model.focus {
            Panel::Places => {
                if let Some(place) = crate::view::places(model).into_iter().nth(line) {
                    self.jump(place.mark);
                }
            }
            Panel::Tasks => {
                let task = moment.and_then(|m| m.tasks.as_ref().ok()?.get(line).cloned());
                if let Some(task) = task {
                    self.set_filter(&format!("tid={}", task.pid));
                    self.focus(Panel::Events);
                }
            }
            Panel::Modules => {
                let base = moment.and_then(|m| m.modules.as_ref().ok()?.get(line)?.base);
                if let Some(base) = base {
                    self.show_memory(base, None);
                }
            }
            Panel::Registers => {
                let value = moment.and_then(|m| {
                    crate::model::register_lines(&m.registers)
                        .get(line)
                        .copied()
                });
                if let Some((_, value)) = value {
                    self.show_memory(value, None);
                }
            }
            Panel::Stack => {
                let frame = moment.and_then(|m| m.stack.get(line).cloned());
                if let Some(frame) = frame {
                    self.model.frame = line;
                    self.model.chosen_source = None;
                    self.model.chosen_code = Some(frame.ip);
                    let has_source = frame.source.is_some();
                    let next = if has_source {
                        Panel::Source
                    } else {
                        Panel::Code
                    };
                    let here = self.model.cursor;
                    self.walk(Way::To(here), "");
                    self.focus(next);
                }
            }
            Panel::Code => {
                let target = moment.and_then(|m| {
                    let at = self.model.code_address()?;
                    m.code.iter().find(|i| i.address == at)?.target
                });
                if let Some(target) = target {
                    self.far(Way::Until(target), "running there");
                }
            }
            Panel::Console if model.console.can_type => self.type_to_guest(),
            Panel::Console => {
                let here = model.cursor;
                self.go(here);
            }
            Panel::Events | Panel::Log => {
                let here = self.model.cursor;
                self.model.places.leave(here);
                self.follow_choice();
                self.go(here);
            }
            _ => {}
        }
    }

    fn toggle_breakpoint(&mut self, address: u64) {
        let known = &mut self.model.breakpoints;
        match known.iter().position(|a| *a == address) {
            Some(at) => {
                known.remove(at);
            }
            None => known.push(address),
        }
    }

    fn search(&mut self) {
        let from = self
            .model
            .list_of(self.model.focus)
            .and_then(|l| l.chosen());
        let from = from.map_or(0, |row| row.number);
        self.model.mode = Mode::Line(LineFor::Search(from), Line::default());
    }

    fn search_on(&mut self, forward: bool) {
        let Some(pattern) = self.model.pattern.clone() else {
            self.model.say("nothing is searched for; / begins");
            return;
        };
        let Some(list) = self.model.list_of(self.model.focus) else {
            let focus = self.model.focus;
            self.find_line(focus, &pattern, forward, false);
            return;
        };
        let (id, from) = (list.id, list.chosen().map_or(0, |row| row.number));
        self.find(id, from, forward, false);
    }

    /// Looks in a panel whose lines are all here.
    pub(crate) fn find_line(&mut self, panel: Panel, pattern: &str, forward: bool, here: bool) {
        let lines = crate::view::lines(&self.model, panel);
        let at = self.model.chosen_line(panel);
        let fits = |n: &usize| crate::filter::contains(&lines[*n], pattern);
        let (at, all) = (at.min(lines.len()), 0..lines.len());
        // On from the other end, like a search in events.
        let found = if forward {
            let from = (at + usize::from(!here)).min(lines.len());
            (from..lines.len()).chain(all).find(fits)
        } else {
            (0..at).rev().chain(all.rev()).find(fits)
        };
        match found {
            Some(line) if panel == Panel::Console => {
                self.model.chosen[panel.index()] = line;
                let now = self.model.console_is_now();
                self.model.console.show(line, now);
            }
            Some(line) => self.model.chosen[panel.index()] = line,
            None => self.model.alarm(format!("nothing has `{pattern}` in it")),
        }
    }

    fn yank(&mut self) {
        let model = &self.model;
        let address = match model.focus {
            Panel::Code => model.code_address(),
            Panel::Memory => model
                .memory_start()
                .map(|a| a.wrapping_add(model.memory.chosen)),
            _ => None,
        };
        let text = address.map_or_else(|| model.cursor.to_string(), |a| format!("{a:#x}"));
        self.copy(text);
    }

    fn copy(&mut self, text: String) {
        self.model.say(format!("copied {text}"));
        self.wishes.push(Wish::Copy(text));
    }
}
