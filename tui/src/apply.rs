//! What keys and commands do.

use std::sync::Arc;

use colinux_replay::{Mark, Position};
use colinux_tracer::{EventKind, Note};

use crate::action::Action;
use crate::app::{App, Wish};
use crate::command::Command;
use crate::filter::Filter;
use crate::line::{Line, remember};
use crate::list::ListId;
use crate::model::{LineFor, Mode};
use crate::panel::Panel;
use crate::work::machine::Way;
use crate::work::notes;
use crate::work::scan::Anchor;

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
            Action::Redraw => self.wishes.push(Wish::Redraw),
        }
    }

    /// A walk that is remembered as a jump.
    fn far(&mut self, way: Way, what: &str) {
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

    fn turn(&mut self, by: isize) {
        let shown: Vec<Panel> = self.model.screen().panels.iter().map(|(p, _)| *p).collect();
        // On a small screen one panel is shown at a time: they take turns.
        let ring: Vec<Panel> = if shown.len() > 2 {
            shown
        } else {
            Panel::ALL.to_vec()
        };
        let at = ring
            .iter()
            .position(|p| *p == self.model.focus)
            .unwrap_or(0);
        let count = isize::try_from(ring.len()).unwrap_or(1);
        let next = (isize::try_from(at).unwrap_or(0) + by).rem_euclid(count);
        self.focus(ring[usize::try_from(next).unwrap_or(0)]);
    }

    /// Moves the choice of the panel that has the keys.
    pub fn move_by(&mut self, by: isize) {
        let focus = self.model.focus;
        match focus {
            Panel::Events | Panel::Log => {
                let id = if focus == Panel::Log {
                    ListId::Log
                } else {
                    ListId::Events
                };
                self.model.list_mut(id).move_by(by);
                self.follow_choice();
            }
            Panel::Timeline => {
                let count = self.model.lanes.as_ref();
                let count = count.map_or(0, |l| l.facilities.len() + l.tasks.len());
                let last = count.saturating_sub(self.model.lane_rows());
                let first = self.model.first_lane.saturating_add_signed(by);
                self.model.first_lane = first.min(last);
            }
            Panel::Code => {
                let Some(moment) = &self.model.moment else {
                    return;
                };
                let here = self.model.code_address();
                let at = moment.code.iter().position(|i| Some(i.address) == here);
                let last = moment.code.len().saturating_sub(1);
                let at = at.unwrap_or(0).saturating_add_signed(by).min(last);
                self.model.chosen_code = moment.code.get(at).map(|insn| insn.address);
            }
            Panel::Memory => self.memory_by(by * 16),
            panel => {
                let last = self.model.lines(panel).saturating_sub(1);
                let chosen = &mut self.model.chosen[panel.index()];
                *chosen = chosen.saturating_add_signed(by).min(last);
            }
        }
    }

    /// Moves the chosen byte; what is shown moves along.
    fn memory_by(&mut self, bytes: isize) {
        let Some(start) = self.model.memory_start() else {
            return;
        };
        let room = self.model.height(Panel::Memory).saturating_sub(1).max(1) as u64 * 16;
        let memory = &mut self.model.memory;
        let by = i64::try_from(bytes).unwrap_or(0);
        let chosen = i64::try_from(memory.chosen).unwrap_or(0) + by;
        let room = i64::try_from(room).unwrap_or(i64::MAX);
        if (0..room).contains(&chosen) {
            memory.chosen = chosen.unsigned_abs();
            return;
        }
        // By whole rows, so that columns stay where they are.
        let over = if chosen < 0 {
            chosen
        } else {
            chosen - room + 1
        };
        let rows = over.div_euclid(16) + i64::from(chosen >= 0 && over.rem_euclid(16) != 0);
        memory.at = Some(start.wrapping_add_signed(rows * 16));
        memory.chosen = (chosen - rows * 16).unsigned_abs();
        let here = self.model.cursor;
        self.walk(Way::To(here), "");
    }

    fn go_far(&mut self, last: bool) {
        let focus = self.model.focus;
        let id = match focus {
            Panel::Events => ListId::Events,
            Panel::Log => ListId::Log,
            Panel::Timeline => {
                let end = if last { self.model.file.last_tick } else { 0 };
                self.jump(Mark::at(end));
                return;
            }
            _ => {
                self.move_by(if last { isize::MAX / 2 } else { isize::MIN / 2 });
                return;
            }
        };
        let from = self.model.cursor;
        self.model.places.leave(from);
        let list = self.model.list_mut(id);
        let here = if last { list.ends.1 } else { list.ends.0 };
        if here && !list.rows.is_empty() {
            list.selected = if last { list.rows.len() - 1 } else { 0 };
            self.follow_choice();
        } else {
            self.window(id, if last { Anchor::End } else { Anchor::Start });
        }
    }

    fn sideways(&mut self, by: i64) {
        if self.model.focus == Panel::Memory {
            self.memory_by(isize::try_from(by).unwrap_or(0));
            return;
        }
        let stretch = self.model.stretch();
        let step = (stretch.ticks() / stretch.columns.max(1) as u64).max(1);
        let tick = self
            .model
            .cursor
            .tick
            .saturating_add_signed(by * i64::try_from(step).unwrap_or(1));
        self.go(Mark::at(tick));
    }

    fn pan(&mut self, by: i64) {
        let (from, to) = self.model.span;
        let step = i64::try_from((to - from) / 2).unwrap_or(0) * by;
        let last = self.model.whole().1;
        let from = from
            .saturating_add_signed(step)
            .min(last.saturating_sub(to - from));
        let width = to - self.model.span.0;
        self.set_span(from, from + width);
        let (from, to) = self.model.span;
        let tick = self.model.cursor.tick.clamp(from, to - 1);
        if tick != self.model.cursor.tick {
            self.go(Mark::at(tick));
        }
    }

    /// Shows `num / den` times as much time, the cursor staying where it is on the screen.
    pub fn zoom(&mut self, num: u64, den: u64) {
        let (from, to) = self.model.span;
        let tick = self.model.cursor.tick.clamp(from, to);
        let scale = |ticks: u64| {
            let scaled = u128::from(ticks) * u128::from(num) / u128::from(den);
            u64::try_from(scaled).unwrap_or(u64::MAX)
        };
        let (before, width) = (scale(tick - from), scale(to - from).max(8));
        let start = tick.saturating_sub(before.min(width - 1));
        self.set_span(start, start.saturating_add(width));
    }

    fn marker(&mut self, which: usize) {
        let here = self.model.cursor.tick;
        let marker = &mut self.model.markers[which];
        *marker = if *marker == Some(here) {
            None
        } else {
            Some(here)
        };
    }

    fn of_kind(&mut self, forward: bool) {
        let Some(row) = self.model.events.chosen() else {
            return;
        };
        let (kind, number) = (row.event.kind(), row.number);
        self.go_to_kind(kind, number, forward);
    }

    /// To the next event of a kind, or the one before.
    pub fn go_to_kind(&mut self, kind: EventKind, from: u64, forward: bool) {
        use colinux_tracer::EventMask;
        let mut cursor = self.reader.events().with_kinds(EventMask::of(&[kind]));
        // From the index, and one or two chunks.
        let at = from + u64::from(forward);
        let found = match cursor.seek_number(at) {
            Ok(()) if forward => cursor.next(),
            Ok(()) => cursor.prev(),
            Err(error) => Some(Err(error)),
        };
        match found {
            Some(Ok(row)) => {
                let here = self.model.cursor;
                self.model.places.leave(here);
                self.choose_event(ListId::Events, row.number, row.tick);
            }
            Some(Err(error)) => self.model.alarm(error.to_string()),
            None => self.model.say(format!("no more {kind} this way")),
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
                let base = moment.and_then(|m| m.modules.as_ref().ok()?.get(line)?.base());
                if let Some(base) = base {
                    self.show_memory(base.0, None);
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
                let ip = moment.and_then(|m| m.stack.get(line).map(|f| f.ip));
                if let Some(ip) = ip {
                    self.show_memory(ip, None);
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
            Panel::Events | Panel::Log => {
                let here = self.model.cursor;
                self.model.places.leave(here);
                self.follow_choice();
                self.go(here);
            }
            _ => {}
        }
    }

    /// Shows memory from an address on.
    pub fn show_memory(&mut self, at: u64, as_type: Option<String>) {
        self.model.memory.at = Some(at);
        self.model.memory.chosen = 0;
        self.model.memory.as_type = as_type;
        self.focus(Panel::Memory);
        let here = self.model.cursor;
        self.walk(Way::To(here), "");
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

    /// Shows only some events.
    pub fn set_filter(&mut self, text: &str) {
        match Filter::parse(text) {
            Ok(filter) => {
                remember(&mut self.filters, text.trim());
                self.model.events.filter = Arc::new(filter);
                let tick = self.model.cursor.tick;
                self.window(ListId::Events, Anchor::Tick(tick));
                self.count(ListId::Events);
            }
            Err(error) => self.model.alarm(error.to_string()),
        }
    }

    /// Does what was typed.
    pub fn command(&mut self, command: Command) {
        match command {
            Command::Go(position) => self.go_to(&position),
            Command::Filter(text) => {
                self.set_filter(&text);
                self.focus(Panel::Events);
            }
            Command::Show(panel) => self.focus(panel),
            Command::Zoom(from, to) => match (self.tick_of(&from), self.tick_of(&to)) {
                (Ok(Some(from)), Ok(Some(to))) if from < to => {
                    self.set_span(from, to);
                    self.bring_into_view();
                }
                (Err(why), _) | (_, Err(why)) => self.model.alarm(why),
                _ => self.model.alarm("zoom wants two ticks, the earlier first"),
            },
            Command::Memory(at) => self.show_memory(at, None),
            Command::Print(kind, at) => self.show_memory(at, Some(kind)),
            Command::Break(at) => {
                if !self.model.breakpoints.contains(&at) {
                    self.model.breakpoints.push(at);
                }
                let name = self.model.names.place(at);
                self.model
                    .say(format!("a breakpoint at {name}; c and C run to it"));
            }
            Command::Watch(at, len) => {
                self.model.watches.push((at, len));
                self.model
                    .say(format!("writes to {len} bytes at {at:#x} stop c and C"));
            }
            Command::Delete(None) => {
                self.model.breakpoints.clear();
                self.model.watches.clear();
            }
            Command::Delete(Some(at)) => {
                self.model.breakpoints.retain(|a| *a != at);
                self.model.watches.retain(|(a, _)| *a != at);
            }
            Command::LastWrite(at, len) => {
                self.far(Way::LastWrite(at, len), "looking for the last write");
            }
            Command::Until(at) => self.far(Way::Until(at), "running there"),
            Command::Bookmark(name, text) => self.bookmark(name, text),
            Command::Export(file) => self.wishes.push(Wish::Export(file)),
            Command::Gdb => self.wishes.push(Wish::Gdb(self.model.cursor)),
            Command::Reload => self.reload(),
            Command::Help => self.model.mode = Mode::Help(0),
            Command::Quit => self.wishes.push(Wish::Quit),
        }
    }

    /// The tick of a position, if the file says it.
    fn tick_of(&self, position: &Position) -> Result<Option<u64>, String> {
        let model = &self.model;
        match position {
            Position::Bookmark(name) => {
                let mark = model.places.bookmark(name);
                let mark = mark.ok_or_else(|| format!("there is no bookmark `{name}`"))?;
                Ok(Some(mark.tick))
            }
            Position::Checkpoint(number) => {
                let name = format!("cp:{number}");
                let found = model.checkpoints().find(|flag| flag.text == name);
                let found = found.ok_or_else(|| format!("the recording has no {name}"))?;
                Ok(Some(found.tick))
            }
            other => other
                .tick(&self.reader, model.cursor.tick, model.file.last_tick)
                .map_err(|error| error.to_string()),
        }
    }

    fn go_to(&mut self, position: &Position) {
        match (position, self.tick_of(position)) {
            (Position::At(mark), Ok(_)) => self.jump(*mark),
            (Position::Event(number), Ok(Some(tick))) => {
                let here = self.model.cursor;
                self.model.places.leave(here);
                self.choose_event(ListId::Events, *number, tick);
            }
            (_, Ok(Some(tick))) => self.jump(Mark::at(tick)),
            // Times and entries are found by replaying.
            (_, Ok(None)) => self.far(Way::Find(position.clone()), "looking for the place"),
            (_, Err(why)) => self.model.alarm(why),
        }
    }

    fn bookmark(&mut self, name: String, text: String) {
        let note = Note {
            tick: self.model.cursor.tick,
            name: name.clone(),
            text,
        };
        self.model.places.add(note.clone());
        if !self.reader.is_complete() {
            // The writer would cut off what it does not know to be whole.
            self.model.say(format!(
                "bm:{name} is kept until you leave: the recording is not finished"
            ));
            return;
        }
        self.model.say(format!("bm:{name} is being written"));
        notes::write(self.path.clone(), note, self.sender.clone());
    }

    fn reload(&mut self) {
        let opened = colinux_tracer::Reader::open(&self.path);
        let mut settings = self.settings.clone();
        settings.area = self.model.area;
        match opened.and_then(|reader| App::open(reader, settings)) {
            Ok(mut app) => {
                std::mem::swap(&mut app.commands, &mut self.commands);
                std::mem::swap(&mut app.filters, &mut self.filters);
                std::mem::swap(&mut app.patterns, &mut self.patterns);
                *self = app;
                self.model.say("opened again");
            }
            Err(error) => self.model.alarm(error.to_string()),
        }
    }
}
