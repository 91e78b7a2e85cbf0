//! The viewer without a terminal: a model, and the workers that fill it.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use colinux_replay::{Halt, Mark};
use colinux_tracer::{EventKind, Reader, TraceError};
use ratatui::layout::Rect;

use crate::filter::Filter;
use crate::list::{EventList, ListId};
use crate::model::{FileFacts, MemoryView, Mode, Model, Walking};
use crate::moment::Wants;
use crate::names::Names;
use crate::panel::Panel;
use crate::places::Places;
use crate::theme::Theme;
use crate::work::lanes::Stretch;
use crate::work::machine::MachineNews;
use crate::work::scan::{Anchor, Found, ScanNews, Source, Want};
use crate::work::{Counter, News, Worker, kernel, lanes, machine, scan};

/// Time between two looks at a file that is being written.
const LOOK_EVERY: Duration = Duration::from_millis(400);
/// Time between two looks whether a finished file was replaced.
const LOOK_EVERY_FINISHED: Duration = Duration::from_secs(5);
/// Bytes of memory that are fetched for the panel.
const MEMORY_BYTES: usize = 4096;
/// Steps that wait for the one before them.
const STEPS_MOST: usize = 100;
/// Tasks that the timeline asks for.
const TASKS_MOST: usize = 64;

/// What the program around it has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Open gdb at a place.
    Gdb(Mark),
    /// Put a text on the clipboard.
    Copy(String),
    /// Write a panel to a file; a name is made if none is given.
    Export(Option<String>),
    /// Draw everything again.
    Redraw,
    /// Leave.
    Quit,
}

/// How to open the viewer.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Colours and signs.
    pub theme: Theme,
    /// Where debug information is.
    pub places: machine::Places,
    /// The screen.
    pub area: Rect,
}

/// The viewer.
#[derive(Debug)]
pub struct App {
    /// What is drawn.
    pub model: Model,
    /// What the program around it has to do.
    pub wishes: Vec<Wish>,
    pub(crate) reader: Reader,
    pub(crate) news: Receiver<News>,
    pub(crate) sender: Sender<News>,
    windows: Worker<scan::Job>,
    long: Worker<scan::Job>,
    lanes: Worker<lanes::Job>,
    machine: Worker<machine::Job>,
    pub(crate) walks: Counter,
    pub(crate) searches: Counter,
    draws: Counter,
    /// The stretch that was asked for last.
    asked: Option<(Stretch, u64)>,
    looked: Instant,
    looking: bool,
    /// Which way a search goes, and what is said since it has come to the end and goes on from the
    /// other one.
    forward: bool,
    turned: Option<&'static str>,
    /// Steps that were asked for while another was being made.
    steps: VecDeque<(machine::Way, String)>,
    pub(crate) commands: Vec<String>,
    pub(crate) patterns: Vec<String>,
    pub(crate) filters: Vec<String>,
    pub(crate) path: PathBuf,
    pub(crate) settings: Settings,
}

impl App {
    /// Opens a recording, whose index alone is read.
    pub fn open(reader: Reader, settings: Settings) -> Result<Self, TraceError> {
        let (sender, news) = mpsc::channel();
        let path = reader.path().to_owned();
        let worker = |name: &str| {
            let news = sender.clone();
            Worker::start(name, move |inbox| scan::serve(inbox, news))
        };
        let (windows, long) = (worker("windows"), worker("searches"));
        let to = sender.clone();
        let lanes = Worker::start("lanes", move |inbox| lanes::serve(inbox, to));
        let (to, places, of) = (sender.clone(), settings.places.clone(), reader.clone());
        let machine = Worker::start("machine", move |inbox| {
            machine::serve(of, &places, inbox, to)
        });
        let log = Filter::of_kinds(&[
            EventKind::KernelLog,
            EventKind::Oops,
            EventKind::Panic,
            EventKind::Mark,
            EventKind::ConsoleOut,
        ]);
        let model = Model {
            area: settings.area,
            theme: settings.theme,
            file: FileFacts::default(),
            names: Names::default(),
            cursor: Mark::default(),
            moment: None,
            before: None,
            no_machine: None,
            walking: None,
            mode: Mode::Normal,
            message: None,
            focus: Panel::Events,
            list: Panel::Events,
            part: Panel::Code,
            events: EventList::new(ListId::Events, Filter::default()),
            log: EventList::new(ListId::Log, log),
            pattern: None,
            span: (0, 2),
            lanes: None,
            first_lane: 0,
            flags: Vec::new(),
            markers: [None; 2],
            places: Places::default(),
            chosen: [0; Panel::ALL.len()],
            chosen_code: None,
            memory: MemoryView::default(),
            breakpoints: Vec::new(),
            watches: Vec::new(),
        };
        let mut app = App {
            model,
            wishes: Vec::new(),
            reader,
            news,
            sender,
            windows,
            long,
            lanes,
            machine,
            walks: Counter::default(),
            searches: Counter::default(),
            draws: Counter::default(),
            asked: None,
            looked: Instant::now(),
            looking: false,
            forward: true,
            turned: None,
            steps: VecDeque::new(),
            commands: Vec::new(),
            patterns: Vec::new(),
            filters: Vec::new(),
            path,
            settings,
        };
        app.facts();
        app.model.span = app.model.whole();
        app.model.places.bookmarks = Places::of_notes(app.reader.notes().unwrap_or_default());
        kernel::start(app.reader.clone(), app.sender.clone());
        app.lanes.ask(lanes::Job::Flags(app.reader.clone()));
        app.window(ListId::Events, Anchor::Start);
        app.window(ListId::Log, Anchor::Start);
        app.count(ListId::Events);
        // With events, the first of them is where it begins.
        if app.model.file.events == 0 {
            app.walk(machine::Way::To(Mark::default()), "");
        }
        Ok(app)
    }

    /// What is known of the file from its index.
    fn facts(&mut self) {
        let end = self.reader.end().ok().flatten();
        let last = end.as_ref().map(|end| end.tick);
        let rows = self.reader.ticks().map(|_| self.reader.reach());
        let mut lacks: Vec<String> = Vec::new();
        let live = end.is_none();
        if let Some(recovery) = self.reader.recovery()
            && !live
        {
            lacks.push(recovery.to_string());
        }
        if let Ok(manifest) = self.reader.manifest() {
            let off = manifest.ended.iter();
            lacks.extend(off.map(|off| format!("{}: {}", off.facility, off.reason)));
        }
        self.model.file = FileFacts {
            name: self
                .path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            live,
            events: self.reader.event_count(),
            last_tick: last.or(rows).unwrap_or(0),
            lacks,
        };
    }

    fn source(&self, id: ListId) -> Source {
        let list = match id {
            ListId::Events => &self.model.events,
            ListId::Log => &self.model.log,
        };
        Source {
            reader: self.reader.clone(),
            filter: Arc::clone(&list.filter),
            names: self.model.names.clone(),
        }
    }

    /// Asks for the rows of a list around a place.
    pub(crate) fn window(&mut self, id: ListId, anchor: Anchor) {
        let source = self.source(id);
        let list = self.model.list_mut(id);
        let want = list.around(anchor);
        let ticket = list.ticket(&want);
        self.windows.ask(scan::Job::Scan {
            list: id,
            source,
            want,
            ticket,
        });
    }

    /// Asks how many rows a list has.
    pub(crate) fn count(&mut self, id: ListId) {
        let source = self.source(id);
        let list = self.model.list_mut(id);
        list.total = None;
        let ticket = list.ticket(&Want::Count);
        self.long.ask(scan::Job::Scan {
            list: id,
            source,
            want: Want::Count,
            ticket,
        });
    }

    /// Looks for a text in a list.
    pub(crate) fn find(&mut self, id: ListId, from: u64, forward: bool, here: bool) {
        self.turned = None;
        self.find_from(id, from, forward, here);
    }

    fn find_from(&mut self, id: ListId, from: u64, forward: bool, here: bool) {
        self.forward = forward;
        let Some(pattern) = self.model.pattern.clone() else {
            return;
        };
        let source = self.source(id);
        let ticket = self.searches.next();
        self.model.list_mut(id).waiting = Some(0);
        self.long.ask(scan::Job::Scan {
            list: id,
            source,
            want: Want::Find {
                pattern,
                from,
                forward,
                here,
            },
            ticket,
        });
    }

    /// Asks the machine to go a way; `what` says so while it takes long.
    pub(crate) fn walk(&mut self, walk: machine::Way, what: &str) {
        let goes = self.model.walking.as_ref();
        if goes.is_some_and(|walking| walking.to.is_none()) && !walk.is_absolute() {
            // Where it leads depends on where the one before leads.
            if self.steps.len() < STEPS_MOST {
                self.steps.push_back((walk, what.to_owned()));
            }
            return;
        }
        self.steps.clear();
        self.begin(walk, what);
    }

    fn begin(&mut self, walk: machine::Way, what: &str) {
        let model = &mut self.model;
        let ticket = self.walks.next();
        model.walking = Some(Walking {
            what: what.to_owned(),
            from: model.cursor.tick,
            to: match &walk {
                machine::Way::To(mark) => Some(mark.tick),
                _ => None,
            },
            tick: None,
            since: Instant::now(),
        });
        let wants = Wants {
            memory: model.memory.at,
            bytes: MEMORY_BYTES,
            as_type: model.memory.as_type.clone(),
            lists: true,
        };
        self.machine.ask(machine::Job::Walk {
            from: model.cursor,
            walk,
            stops: (model.breakpoints.clone(), model.watches.clone()),
            wants,
            ticket,
        });
    }

    /// Calls off what the machine is doing; true if it was doing something.
    pub(crate) fn stop_walking(&mut self) -> bool {
        self.steps.clear();
        self.walks.cancel();
        self.model.walking.take().is_some_and(|w| w.tick.is_some())
    }

    /// Goes to a place in time; every panel follows.
    pub(crate) fn go(&mut self, mark: Mark) {
        let last = self.model.file.last_tick;
        let mark = if mark.tick > last {
            Mark::at(last)
        } else {
            mark
        };
        self.arrive(mark);
        self.walk(machine::Way::To(mark), "going");
    }

    /// The same, remembered as a jump.
    pub(crate) fn jump(&mut self, mark: Mark) {
        let from = self.model.cursor;
        self.model.places.leave(from);
        self.go(mark);
    }

    /// The cursor is at another place: lists and timeline follow.
    pub(crate) fn arrive(&mut self, mark: Mark) {
        self.model.cursor = mark;
        self.model.chosen_code = None;
        for id in [ListId::Events, ListId::Log] {
            if !self.model.list_mut(id).choose_tick(mark.tick) {
                self.window(id, Anchor::Tick(mark.tick));
            }
        }
        self.bring_into_view();
    }

    /// Moves the timeline so that the cursor is on it.
    pub(crate) fn bring_into_view(&mut self) {
        let (from, to) = self.model.span;
        let tick = self.model.cursor.tick;
        if (from..to).contains(&tick) {
            return;
        }
        let width = to - from;
        let start = tick.saturating_sub(width / 2);
        self.set_span(start, start.saturating_add(width));
    }

    /// Shows a stretch of time, as far as there is any.
    pub(crate) fn set_span(&mut self, from: u64, to: u64) {
        let (first, last) = self.model.whole();
        let width = to.saturating_sub(from).clamp(8, last.max(8));
        let from = from.max(first).min(last.saturating_sub(width.min(last)));
        self.model.span = (from, from.saturating_add(width));
    }

    /// Takes what workers have to tell; true if anything is to be drawn.
    pub fn catch_up(&mut self) -> bool {
        let mut changed = false;
        while let Ok(news) = self.news.try_recv() {
            changed = true;
            self.hear(news);
        }
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
        let lanes_due = model.lanes.as_ref().map(|l| l.stretch) != Some(model.stretch());
        model.walking.is_some()
            || lists.iter().any(|list| list.waiting.is_some())
            || (lanes_due && model.screen().place(Panel::Timeline).is_some())
            || model.events.total.is_none_or(|(_, all)| !all)
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Kernel(news) => {
                self.model.names.kernel = Arc::clone(&news.kernel);
                self.model.file.lacks.extend(news.kernel.lacks.clone());
                self.machine.ask(machine::Job::Kernel(news.kernel));
                // What is known already is made again, with names.
                if self.model.moment.is_some() || self.model.walking.is_some() {
                    let at = self.model.cursor;
                    self.walk(machine::Way::To(at), "");
                }
            }
            News::Scan(news) => self.hear_scan(news),
            News::Lanes(lanes) => self.model.lanes = Some(lanes),
            News::Flags(flags) => self.model.flags = flags,
            News::Machine(news) => self.hear_machine(news),
            News::Note(Ok(said)) => self.model.say(said),
            News::Note(Err(said)) => self.model.alarm(said),
            News::Grown(growth) => self.hear_growth(*growth),
        }
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
        let height = self.model.height(panel_of(id));
        self.model.list_mut(id).settle(height);
        if whole && id == ListId::Events {
            if self.model.focus == Panel::Events {
                self.follow_choice();
            }
            if self.model.moment.is_none() && self.model.walking.is_none() {
                let at = self.model.cursor;
                self.walk(machine::Way::To(at), "");
            }
        }
    }

    /// Chooses an event of a list, and goes there.
    pub(crate) fn choose_event(&mut self, id: ListId, number: u64, tick: u64) {
        let list = self.model.list_mut(id);
        match list.rows.iter().position(|row| row.number == number) {
            Some(at) => list.selected = at,
            None => self.window(id, Anchor::Number(number)),
        }
        self.model.cursor = Mark::at(tick);
        let other = match id {
            ListId::Events => ListId::Log,
            ListId::Log => ListId::Events,
        };
        if !self.model.list_mut(other).choose_tick(tick) {
            self.window(other, Anchor::Tick(tick));
        }
        self.bring_into_view();
        self.walk(machine::Way::To(Mark::at(tick)), "going");
    }

    /// The cursor goes where the chosen event is.
    pub(crate) fn follow_choice(&mut self) {
        let Some(list) = self.model.list_of(self.model.focus) else {
            return;
        };
        let Some(row) = list.chosen() else { return };
        let (id, number, tick) = (list.id, row.number, row.tick);
        if tick != self.model.cursor.tick {
            self.choose_event(id, number, tick);
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
                if let Ok(modules) = &moment.modules {
                    model.names.modules = Arc::clone(modules);
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

    fn look_after_file(&mut self) {
        let every = if self.model.file.live {
            LOOK_EVERY
        } else {
            LOOK_EVERY_FINISHED
        };
        if !self.looking && self.looked.elapsed() > every {
            self.looking = true;
            let reader = Box::new(self.reader.clone());
            self.windows.ask(scan::Job::Refresh(reader));
        }
    }

    fn hear_growth(&mut self, growth: scan::Growth) {
        self.looking = false;
        self.looked = Instant::now();
        if growth.replaced {
            self.model
                .alarm("the file has been replaced; :reload opens the new one");
            return;
        }
        if let Some(trouble) = growth.trouble {
            self.model.alarm(trouble);
            return;
        }
        let model = &self.model;
        let chunks = growth.reader.chunks().len();
        if chunks == self.reader.chunks().len() {
            return;
        }
        let (was_live, showed_all) = (model.file.live, model.span.1 == model.whole().1);
        let at_end = model.cursor.tick == model.file.last_tick;
        self.reader = growth.reader;
        let lacks = std::mem::take(&mut self.model.file.lacks);
        self.facts();
        self.model.file.lacks = lacks;
        if !was_live {
            // Notes and checkpoints alone are added to a finished recording.
            self.lanes.ask(lanes::Job::Flags(self.reader.clone()));
            return;
        }
        self.machine
            .ask(machine::Job::Reader(Box::new(self.reader.clone())));
        self.lanes.ask(lanes::Job::Flags(self.reader.clone()));
        self.model.events.grown();
        self.model.log.grown();
        self.count(ListId::Events);
        self.asked = None;
        if showed_all {
            self.model.span = (self.model.span.0, self.model.whole().1);
        }
        // Who looks at the end goes with it.
        if at_end && self.model.file.last_tick > self.model.cursor.tick {
            let last = Mark::at(self.model.file.last_tick);
            // To replay each time would be to replay all the time.
            if self.model.file.live {
                self.arrive(last);
            } else {
                self.go(last);
            }
        }
    }

    /// Asks for what the screen will need next.
    fn ask_for_more(&mut self) {
        for id in [ListId::Events, ListId::Log] {
            let height = self.model.height(panel_of(id));
            self.model.list_mut(id).settle(height);
            if let Some(want) = self.model.list_mut(id).wants(height) {
                let source = self.source(id);
                let list = self.model.list_mut(id);
                let ticket = list.ticket(&want);
                self.windows.ask(scan::Job::Scan {
                    list: id,
                    source,
                    want,
                    ticket,
                });
            }
        }
        let stretch = self.model.stretch();
        let due = (stretch, self.model.file.events);
        if self.model.screen().place(Panel::Timeline).is_some() && self.asked != Some(due) {
            self.asked = Some(due);
            self.lanes.ask(lanes::Job::Draw {
                reader: self.reader.clone(),
                stretch,
                tasks: TASKS_MOST,
                ticket: self.draws.next(),
            });
        }
    }

    /// The screen has another size.
    pub fn resize(&mut self, area: Rect) {
        self.model.area = area;
        for id in [ListId::Events, ListId::Log] {
            let height = self.model.height(panel_of(id));
            self.model.list_mut(id).settle(height);
        }
    }
}

const fn panel_of(id: ListId) -> Panel {
    match id {
        ListId::Events => Panel::Events,
        ListId::Log => Panel::Log,
    }
}
