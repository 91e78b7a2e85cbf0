//! What workers tell, and what they are asked for next.

use std::sync::Arc;
use std::time::{Duration, Instant};

use colinux_replay::Halt;

use crate::app::{App, panel_of};
use crate::list::ListId;
use crate::panel::Panel;
use crate::work::machine::MachineNews;
use crate::work::scan::{Found, ScanNews};
use crate::work::{News, lanes, machine};

/// Least and most time between two drawings of a timeline that is followed.
const DRAW_EVERY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10));
/// It rests so many times as long as a drawing took.
const REST: u32 = 200;
/// Tasks that the timeline asks for.
const TASKS_MOST: usize = 64;

impl App {
    /// Takes what workers have to tell; true if anything is to be drawn.
    pub fn catch_up(&mut self) -> bool {
        let mut changed = false;
        while let Ok(news) = self.news.try_recv() {
            changed = true;
            self.hear(news);
        }
        changed |= self.listen();
        self.look_after_file();
        self.ask_for_more();
        changed
    }

    /// Waits for news for a while: for tests and for the first frame.
    pub fn wait(&mut self, most: Duration) -> bool {
        match self.news.recv_timeout(most) {
            Ok(news) => {
                self.hear(news);
                self.catch_up();
                true
            }
            Err(_) => {
                self.ask_for_more();
                false
            }
        }
    }

    /// Whether answers are still to come.
    pub fn is_waiting(&self) -> bool {
        let model = &self.model;
        let lists = [&model.events, &model.log];
        let asked = self.asked.map(|(stretch, _)| stretch);
        let lanes_due = model.lanes.as_ref().map(|l| l.stretch) != asked;
        model.walking.is_some()
            || self.console_due
            || lists.iter().any(|list| list.waiting.is_some())
            || (lanes_due && model.screen().place(Panel::Timeline).is_some())
            || model.events.total.is_none_or(|(_, all)| !all)
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Kernel(news) => {
                self.model.names.kernel = Arc::clone(&news.kernel);
                self.facts();
                if self.model.message.is_none() {
                    self.greet(None);
                }
                self.machine.ask(machine::Job::Kernel(news.kernel));
                // What is known already is made again, with names.
                if self.is_searching() {
                    self.renamed = true;
                } else if self.model.moment.is_some() || self.model.walking.is_some() {
                    let at = self.model.cursor;
                    self.walk(machine::Way::To(at), "");
                }
            }
            News::Scan(news) => self.hear_scan(news),
            News::Lanes(lanes) => {
                let took = self.drawn.map_or(Duration::ZERO, |at| at.elapsed());
                self.drawing_rests = (took * REST).clamp(DRAW_EVERY.0, DRAW_EVERY.1);
                self.model.lanes = Some(lanes);
            }
            News::Flags(flags) => self.model.flags = flags,
            News::Machine(news) => self.hear_machine(news),
            News::Note(Ok(said)) => self.model.say(said),
            News::Note(Err(said)) => self.model.alarm(said),
            News::Console(news) => self.hear_console(news),
            News::Grown(growth) => self.hear_growth(*growth),
        }
    }

    /// The machine is on a way whose end is not known yet; to call it off is for the user.
    fn is_searching(&self) -> bool {
        let walking = self.model.walking.as_ref();
        walking.is_some_and(|walking| walking.to.is_none())
    }

    fn hear_scan(&mut self, news: ScanNews) {
        let id = news.list;
        if let Found::Match(found) = news.found {
            if !news.ticket.is_good() {
                return;
            }
            self.model.list_mut(id).waiting = None;
            match found {
                Some((number, tick)) => {
                    self.model.message = None;
                    if let Some(turned) = self.turned.take() {
                        self.model.say(turned);
                    }
                    self.choose_event(id, number, tick);
                }
                None if self.turned.is_none() && self.forward => {
                    self.turned = Some("from the start again");
                    self.find_from(id, 0, true, true);
                }
                None if self.turned.is_none() => {
                    self.turned = Some("from the end again");
                    let last = self.model.file.events;
                    self.find_from(id, last, false, true);
                }
                None => {
                    self.turned = None;
                    let pattern = self.model.pattern.clone().unwrap_or_default();
                    self.model.alarm(format!("nothing has `{pattern}` in it"));
                }
            }
            return;
        }
        if !news.ticket.is_good() {
            return;
        }
        let whole = self.model.list_mut(id).take(news);
        if self.model.following && !whole {
            self.model.list_mut(id).choose_last();
        }
        let height = self.model.height(panel_of(id));
        self.model.list_mut(id).settle(height);
        if whole && id == ListId::Events {
            let leads = !self.model.following && !self.model.events.rests;
            if self.model.focus == Panel::Events && leads && !self.is_searching() {
                self.follow_choice();
            }
            let nowhere = self.model.moment.is_none() && self.model.walking.is_none();
            if nowhere && !self.model.following {
                let at = self.model.cursor;
                self.walk(machine::Way::To(at), "");
            }
        }
    }

    fn hear_machine(&mut self, news: MachineNews) {
        match news {
            MachineNews::Progress { ticket, tick } if ticket.is_good() => {
                if let Some(walking) = &mut self.model.walking {
                    walking.tick = Some(tick);
                }
            }
            MachineNews::There {
                ticket,
                moment,
                halt,
            } if ticket.is_good() => {
                let what = self
                    .model
                    .walking
                    .take()
                    .map(|w| w.what)
                    .unwrap_or_default();
                let model = &mut self.model;
                model.no_machine = None;
                if let Some(last) = &model.moment
                    && last.mark != moment.mark
                {
                    model.before = Some(last.registers.clone());
                }
                if moment.modules.is_ok() {
                    model.names.modules = Arc::clone(&moment.loaded);
                }
                let mark = moment.mark;
                model.moment = Some(moment);
                match halt {
                    Halt::Breakpoint => model.say("at a breakpoint"),
                    Halt::Watch(hit) => {
                        let text = format!("{:#x} is written at {:#x}", hit.address, hit.rip);
                        model.say(text);
                    }
                    Halt::Start if what != "going" => model.say("the start of the recording"),
                    Halt::End if what != "going" => model.say("the end of the recording"),
                    _ => {}
                }
                if mark != model.cursor {
                    self.arrive(mark);
                }
                if std::mem::take(&mut self.renamed) && self.steps.is_empty() {
                    self.walk(machine::Way::To(mark), "");
                }
                if let Some((walk, what)) = self.steps.pop_front() {
                    self.begin(walk, &what);
                }
            }
            MachineNews::Failed { ticket, why } if ticket.as_ref().is_none_or(|t| t.is_good()) => {
                self.model.walking = None;
                self.steps.clear();
                if self.model.moment.is_none() {
                    self.model.no_machine = Some(why);
                } else {
                    self.model.alarm(why);
                }
            }
            _ => {}
        }
    }

    /// Asks for what the screen will need next.
    fn ask_for_more(&mut self) {
        for id in [ListId::Events, ListId::Log] {
            let height = self.model.height(panel_of(id));
            self.model.list_mut(id).settle(height);
            if let Some(want) = self.model.list_mut(id).wants(height) {
                self.ask_for_rows(id, want);
            }
        }
        self.ask_for_console();
        // A timeline that grows by a little all the time need not be drawn each time.
        let rests = |at: Instant| at.elapsed() < self.drawing_rests;
        if self.model.following && self.drawn.is_some_and(rests) {
            return;
        }
        if std::mem::take(&mut self.flags_due) {
            self.lanes.ask(lanes::Job::Flags(self.reader.clone()));
        }
        let stretch = self.model.stretch();
        let due = (stretch, self.model.file.events);
        if self.model.screen().place(Panel::Timeline).is_some() && self.asked != Some(due) {
            self.asked = Some(due);
            self.drawn = Some(Instant::now());
            self.lanes.ask(lanes::Job::Draw {
                reader: self.reader.clone(),
                stretch,
                tasks: TASKS_MOST,
                ticket: self.draws.next(),
            });
        }
    }
}
