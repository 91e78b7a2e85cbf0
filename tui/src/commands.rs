//! What is typed after `:`, done.

use std::sync::Arc;

use colinux_replay::{Mark, Position};
use colinux_tracer::{Note, Reader};

use crate::app::{App, Wish};
use crate::command::Command;
use crate::filter::Filter;
use crate::line::remember;
use crate::list::ListId;
use crate::model::Mode;
use crate::panel::Panel;
use crate::work::machine::{self, Way};
use crate::work::notes;
use crate::work::scan::Anchor;

impl App {
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
            Command::Source(folder) => {
                if !folder.is_dir() {
                    let text = format!("{} is not a folder", folder.display());
                    self.model.alarm(text);
                    return;
                }
                let folders = &mut self.settings.places.sources;
                folders.retain(|known| *known != folder);
                folders.insert(0, folder);
                self.machine.ask(machine::Job::Sources(folders.clone()));
                self.focus(Panel::Source);
                let here = self.model.cursor;
                self.walk(Way::To(here), "");
            }
            Command::Stop => self.end_recording(),
            Command::Do(action) => self.apply(action),
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
            (Position::End, _) if self.model.file.live => self.follow(),
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
        let opened = Reader::open(&self.path);
        let mut settings = self.settings.clone();
        settings.area = self.model.area;
        match opened.and_then(|reader| App::open(reader, settings)) {
            Ok(mut app) => {
                std::mem::swap(&mut app.commands, &mut self.commands);
                std::mem::swap(&mut app.filters, &mut self.filters);
                std::mem::swap(&mut app.patterns, &mut self.patterns);
                app.take_line(self);
                *self = app;
                self.model.say("opened again");
            }
            Err(error) => self.model.alarm(error.to_string()),
        }
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

    /// Shows memory from an address on.
    pub fn show_memory(&mut self, at: u64, as_type: Option<String>) {
        self.model.memory.at = Some(at);
        self.model.memory.chosen = 0;
        self.model.memory.as_type = as_type;
        self.focus(Panel::Memory);
        let here = self.model.cursor;
        self.walk(Way::To(here), "");
    }
}
