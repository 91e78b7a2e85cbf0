//! The viewer without a terminal: a model, and the workers that fill it.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use colinux_replay::Mark;
use colinux_tracer::{EndedFacility, Facility, Reader, TraceError};
use ratatui::layout::Rect;

use crate::console::{ConsoleView, Live, Size};
use crate::filter::Filter;
use crate::list::{EventList, ListId};
use crate::model::{FileFacts, MemoryView, Mode, Model, Walking};
use crate::moment::Wants;
use crate::names::Names;
use crate::panel::Panel;
use crate::places::Places;
use crate::theme::Theme;
use crate::work::file::{self, Identity};
use crate::work::lanes::Stretch;
use crate::work::scan::{Anchor, Source, Want};
use crate::work::{Counter, News, Worker, console, kernel, lanes, machine, scan};

/// Bytes of memory that are fetched for the panel.
const MEMORY_BYTES: usize = 4096;
/// Steps that wait for the one before them.
const STEPS_MOST: usize = 100;

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
    /// Stop, until the shell continues it.
    Stop,
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
    pub(crate) windows: Worker<scan::Job>,
    pub(crate) long: Worker<scan::Job>,
    pub(crate) lanes: Worker<lanes::Job>,
    pub(crate) machine: Worker<machine::Job>,
    pub(crate) console: Worker<console::Job>,
    /// Both ends of the guest's console, if it is being recorded here.
    pub(crate) line: Option<Live>,
    pub(crate) walks: Counter,
    pub(crate) searches: Counter,
    pub(crate) draws: Counter,
    pub(crate) consoles: Counter,
    /// The stretch that was asked for last.
    pub(crate) asked: Option<(Stretch, u64)>,
    pub(crate) drawn: Option<Instant>,
    /// How long a timeline that is followed is left as it is.
    pub(crate) drawing_rests: Duration,
    pub(crate) flags_due: bool,
    /// The console that was asked for last: the tick, the size, the events there are.
    pub(crate) asked_console: Option<(u64, Size, u64)>,
    pub(crate) console_due: bool,
    /// The file, somebody writes to it, and when it was last seen to grow.
    pub(crate) identity: Option<Identity>,
    pub(crate) is_written: bool,
    pub(crate) grown: Option<Instant>,
    pub(crate) looked: Instant,
    pub(crate) looking: bool,
    /// Which way a search goes, and what is said since it has come to the end and goes on from the
    /// other one.
    pub(crate) forward: bool,
    pub(crate) turned: Option<&'static str>,
    /// Names have come while the machine was on its way.
    pub(crate) renamed: bool,
    /// Steps that were asked for while another was being made.
    pub(crate) steps: VecDeque<(machine::Way, String)>,
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
        let to = sender.clone();
        let console = Worker::start("console", move |inbox| console::serve(inbox, to));
        let ended = reader.manifest().map(|manifest| manifest.ended);
        let is_off = |ended: &EndedFacility| ended.facility == Facility::Kernel.name();
        let has_log = ended.is_ok_and(|ended| !ended.iter().any(is_off));
        let log = Filter::of_log(has_log);
        let model = Model {
            area: settings.area,
            theme: settings.theme,
            file: FileFacts::default(),
            names: Names::default(),
            cursor: Mark::default(),
            following: false,
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
            console: ConsoleView::default(),
            pattern: None,
            span: (0, 2),
            lanes: None,
            first_lane: 0,
            flags: Vec::new(),
            markers: [None; 2],
            places: Places::default(),
            chosen: [0; Panel::ALL.len()],
            chosen_code: None,
            chosen_source: None,
            frame: 0,
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
            console,
            line: None,
            walks: Counter::default(),
            searches: Counter::default(),
            draws: Counter::default(),
            consoles: Counter::default(),
            asked: None,
            drawn: None,
            drawing_rests: Duration::ZERO,
            flags_due: true,
            asked_console: None,
            console_due: false,
            identity: Identity::of(&path),
            is_written: file::is_written(&path),
            grown: None,
            looked: Instant::now(),
            looking: false,
            forward: true,
            turned: None,
            renamed: false,
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
        app.window(ListId::Events, Anchor::Start);
        app.window(ListId::Log, Anchor::Start);
        app.count(ListId::Events);
        // With events, the first of them is where it begins; what is being made is followed.
        if app.model.file.live {
            app.follow();
        } else if app.model.file.events == 0 {
            app.walk(machine::Way::To(Mark::default()), "");
        }
        Ok(app)
    }

    /// Says something first: what there is to say, or what the recording lacks.
    pub fn greet(&mut self, greeting: Option<String>) {
        match (greeting, self.model.file.lacks.as_slice()) {
            (Some(text), _) => self.model.say(text),
            (None, []) => {}
            (None, [one]) => self.model.say(one.clone()),
            (None, several) => {
                let text = format!("{} things are missing here: ? lists them", several.len());
                self.model.say(text);
            }
        }
    }

    /// What is known of the file from its index.
    pub(crate) fn facts(&mut self) {
        let end = self.reader.end().ok().flatten();
        let last = end.as_ref().map(|end| end.tick);
        let rows = self.reader.ticks().map(|_| self.reader.reach());
        let (mut lacks, mut off): (Vec<String>, Vec<String>) = Default::default();
        let live = self.is_live();
        if let Some(recovery) = self.reader.recovery()
            && !live
        {
            lacks.push(recovery.to_string());
        }
        if let Ok(manifest) = self.reader.manifest() {
            let ended = manifest.ended.iter();
            off.extend(ended.map(|off| format!("{}: {}", off.facility, off.reason)));
        }
        lacks.extend(self.model.names.kernel.lacks.iter().cloned());
        self.model.file = FileFacts {
            name: self
                .path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            live,
            fate: self.model.file.fate,
            events: self.reader.event_count(),
            last_tick: last.or(rows).unwrap_or(0),
            lacks,
            off,
        };
    }

    pub(crate) fn source(&self, id: ListId) -> Source {
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
        let list = self.model.list_mut(id);
        list.rests = false;
        let want = list.around(anchor);
        self.ask_for_rows(id, want);
    }

    pub(crate) fn ask_for_rows(&mut self, id: ListId, want: Want) {
        let source = self.source(id);
        let ticket = self.model.list_mut(id).ticket(&want);
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

    pub(crate) fn find_from(&mut self, id: ListId, from: u64, forward: bool, here: bool) {
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
        // Who wants to see the machine stays where it is.
        self.model.following = false;
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

    pub(crate) fn begin(&mut self, walk: machine::Way, what: &str) {
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
            frame: model.frame,
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
        self.model.following = false;
        self.model.chosen_code = None;
        self.model.chosen_source = None;
        self.model.frame = 0;
        for id in [ListId::Events, ListId::Log] {
            if !self.model.list_mut(id).choose_tick(mark.tick) {
                self.window(id, Anchor::Tick(mark.tick));
                self.model.list_mut(id).rests = true;
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

    /// Chooses an event of a list, and goes there.
    pub(crate) fn choose_event(&mut self, id: ListId, number: u64, tick: u64) {
        let list = self.model.list_mut(id);
        match list.rows.iter().position(|row| row.number == number) {
            Some(at) => list.selected = at,
            None => self.window(id, Anchor::Number(number)),
        }
        self.model.cursor = Mark::at(tick);
        self.model.following = false;
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

    /// The screen has another size.
    pub fn resize(&mut self, area: Rect) {
        self.model.area = area;
        for id in [ListId::Events, ListId::Log] {
            let height = self.model.height(panel_of(id));
            self.model.list_mut(id).settle(height);
        }
    }
}

pub(crate) const fn panel_of(id: ListId) -> Panel {
    match id {
        ListId::Events => Panel::Events,
        ListId::Log => Panel::Log,
    }
}
