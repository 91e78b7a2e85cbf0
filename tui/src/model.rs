//! Everything that is drawn, as values. Drawing reads this and nothing else; keys and news change it.

use std::sync::Arc;
use std::time::Instant;

use colinux_replay::Mark;
use colinux_replay::state::Registers;
use ratatui::layout::Rect;

use crate::console::ConsoleView;
use crate::line::Line;
use crate::list::{EventList, ListId};
use crate::moment::Moment;
use crate::names::Names;
use crate::panel::{Panel, Screen};
use crate::places::Places;
use crate::theme::Theme;
use crate::work::file::Fate;
use crate::work::lanes::{Flag, Lanes, Stretch};

/// What a line is typed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineFor {
    /// A command.
    Command,
    /// A search, which began at this event.
    Search(u64),
    /// A filter.
    Filter,
}

/// Who has the keys.
#[derive(Clone, Debug)]
pub enum Mode {
    /// The panels.
    Normal,
    /// A line at the bottom.
    Line(LineFor, Line),
    /// The help, scrolled so far.
    Help(u16),
    /// The guest; after a Ctrl-A, the next key is for the viewer.
    Typing {
        /// Ctrl-A was the last key.
        escaped: bool,
    },
    /// A letter is to come: for a mark to set, or to go to.
    Letter {
        /// To set it.
        set: bool,
    },
}

/// Something said at the bottom, until the next key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What.
    pub text: String,
    /// Something is wrong.
    pub is_alarm: bool,
}

/// A walk that goes on.
#[derive(Clone, Debug)]
pub struct Walking {
    /// In words.
    pub what: String,
    /// Where it began, and where it leads if that is known.
    pub from: u64,
    /// Where it leads.
    pub to: Option<u64>,
    /// Where it is.
    pub tick: Option<u64>,
    /// Since when.
    pub since: Instant,
}

/// The file.
#[derive(Clone, Debug, Default)]
pub struct FileFacts {
    /// Its name, without folders.
    pub name: String,
    /// It is being written.
    pub live: bool,
    /// What has become of it since it was opened.
    pub fate: Fate,
    /// Events in it.
    pub events: u64,
    /// Its last tick.
    pub last_tick: u64,
    /// What it lacks or has lost, in sentences.
    pub lacks: Vec<String>,
    /// Kinds of events that it has none of, and why.
    pub off: Vec<String>,
}

/// What the memory panel shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryView {
    /// From here on; where the stack pointer is if nothing is said.
    pub at: Option<u64>,
    /// The chosen byte, counted from there.
    pub chosen: u64,
    /// As a value of this type.
    pub as_type: Option<String>,
}

/// A machine register with its value, as the panel lists them.
pub type RegisterLine = (&'static str, u64);

/// Everything that is drawn.
#[derive(Debug)]
pub struct Model {
    /// The screen.
    pub area: Rect,
    /// Colours and signs.
    pub theme: Theme,
    /// The file.
    pub file: FileFacts,
    /// Names.
    pub names: Names,
    /// The place in time that every panel follows.
    pub cursor: Mark,
    /// The cursor goes along with the end of a recording that is being made.
    pub following: bool,
    /// The machine, there or where it was last.
    pub moment: Option<Arc<Moment>>,
    /// Registers of the moment before, to mark what has changed.
    pub before: Option<Registers>,
    /// Why the machine is not known here.
    pub no_machine: Option<String>,
    /// The walk that goes on.
    pub walking: Option<Walking>,
    /// Who has the keys.
    pub mode: Mode,
    /// Something said.
    pub message: Option<Message>,
    /// The panel that has the keys.
    pub focus: Panel,
    /// The list that was last looked at.
    pub list: Panel,
    /// The part of the machine that was last looked at.
    pub part: Panel,
    /// The events.
    pub events: EventList,
    /// The kernel's log.
    pub log: EventList,
    /// The guest's console.
    pub console: ConsoleView,
    /// What is searched for.
    pub pattern: Option<String>,
    /// The timeline's first tick, and the one after its last.
    pub span: (u64, u64),
    /// Its lanes, perhaps of another stretch as yet.
    pub lanes: Option<Arc<Lanes>>,
    /// The first lane shown.
    pub first_lane: usize,
    /// Oopses, marks, checkpoints.
    pub flags: Vec<Flag>,
    /// Markers A and B.
    pub markers: [Option<u64>; 2],
    /// Places one comes back to.
    pub places: Places,
    /// The chosen line of panels that are lists of what is here.
    pub chosen: [usize; Panel::ALL.len()],
    /// The chosen instruction, if it is not the next one.
    pub chosen_code: Option<u64>,
    /// The stack frame whose code and source are shown; the innermost is 0.
    pub frame: usize,
    /// The chosen line of the source, if it is not the current one.
    pub chosen_source: Option<usize>,
    /// What the memory panel shows.
    pub memory: MemoryView,
    /// Breakpoints.
    pub breakpoints: Vec<u64>,
    /// Watched ranges: start and length.
    pub watches: Vec<(u64, u64)>,
}

/// Columns of labels at the left of the timeline.
pub const LABEL: u16 = 13;

impl Model {
    /// Where everything is.
    pub fn screen(&self) -> Screen {
        Screen::arrange(self.area, self.focus, self.list, self.part)
    }

    /// A list by its name.
    pub fn list_mut(&mut self, id: ListId) -> &mut EventList {
        match id {
            ListId::Events => &mut self.events,
            ListId::Log => &mut self.log,
        }
    }

    /// The list of a panel.
    pub fn list_of(&self, panel: Panel) -> Option<&EventList> {
        match panel {
            Panel::Events => Some(&self.events),
            Panel::Log => Some(&self.log),
            _ => None,
        }
    }

    /// Rows inside the frame of a panel.
    pub fn height(&self, panel: Panel) -> usize {
        let place = self.screen().place(panel);
        place.map_or(0, |rect| usize::from(rect.height.saturating_sub(2)))
    }

    /// The machine, if it is known at the cursor.
    pub fn here(&self) -> Option<&Moment> {
        self.moment.as_deref().filter(|m| m.mark == self.cursor)
    }

    /// The timeline's stretch in the columns it has on this screen.
    pub fn stretch(&self) -> Stretch {
        let place = self.screen().place(Panel::Timeline);
        let width = place.map_or(0, |rect| rect.width.saturating_sub(2 + LABEL));
        Stretch {
            from: self.span.0,
            to: self.span.1,
            columns: usize::from(width.max(1)),
        }
    }

    /// Lanes below the flags of the timeline.
    pub fn lane_rows(&self) -> usize {
        self.height(Panel::Timeline).saturating_sub(1)
    }

    /// The whole recording.
    pub fn whole(&self) -> (u64, u64) {
        (0, self.file.last_tick.saturating_add(1).max(2))
    }

    /// Says something until the next key.
    pub fn say(&mut self, text: impl Into<String>) {
        self.message = Some(Message {
            text: text.into(),
            is_alarm: false,
        });
    }

    /// Says what is wrong.
    pub fn alarm(&mut self, text: impl Into<String>) {
        self.message = Some(Message {
            text: text.into(),
            is_alarm: true,
        });
    }

    /// The line that is chosen in a panel whose lines are all here.
    pub fn chosen_line(&self, panel: Panel) -> usize {
        self.chosen[panel.index()]
    }

    /// How many lines such a panel has.
    pub fn lines(&self, panel: Panel) -> usize {
        let moment = self.moment.as_deref();
        match panel {
            Panel::Places => self.places.lines().len() + self.checkpoints().count(),
            Panel::Tasks => moment
                .and_then(|m| m.tasks.as_ref().ok())
                .map_or(0, |tasks| tasks.len()),
            Panel::Modules => moment
                .and_then(|m| m.modules.as_ref().ok())
                .map_or(0, |modules| modules.len()),
            Panel::Stack => moment.map_or(0, |m| m.stack.len()),
            Panel::Registers => moment.map_or(0, |m| register_lines(&m.registers).len()),
            Panel::Source => moment
                .and_then(|m| m.source.as_ref().ok())
                .map_or(0, |source| source.lines.len()),
            _ => 0,
        }
    }

    /// The checkpoints of the recording.
    pub fn checkpoints(&self) -> impl Iterator<Item = &Flag> {
        self.flags.iter().filter(|flag| flag.kind.is_none())
    }

    /// The address that is chosen in the code.
    pub fn code_address(&self) -> Option<u64> {
        let moment = self.moment.as_deref()?;
        let there = |a: &u64| moment.code.iter().any(|insn| insn.address == *a);
        Some(
            self.chosen_code
                .filter(there)
                .unwrap_or(moment.registers.rip),
        )
    }

    /// The chosen line among those of the source: the current one, unless one has looked about.
    pub fn source_line(&self) -> Option<usize> {
        let source = self.moment.as_deref()?.source.as_ref().ok()?;
        let chosen = self.chosen_source.filter(|_| self.focus == Panel::Source);
        let last = source.lines.len().saturating_sub(1);
        Some(chosen.unwrap_or(source.current()).min(last))
    }

    /// Where the memory panel begins.
    pub fn memory_start(&self) -> Option<u64> {
        self.memory
            .at
            .or_else(|| self.moment.as_ref().map(|m| m.registers.rsp() & !15))
    }

    /// The console that is shown is that of now, rather than that of the cursor.
    pub fn console_is_now(&self) -> bool {
        let typing = matches!(self.mode, Mode::Typing { .. });
        self.console.now.is_some() && (typing || self.following)
    }

    /// The console's screen, if it is known.
    pub fn console_screen(&self) -> Option<&vt100::Screen> {
        self.console.screen(self.console_is_now())
    }

    /// Who runs at the cursor, as far as the events say.
    pub fn who(&self) -> Option<String> {
        let row = self.events.chosen()?;
        if row.tick > self.cursor.tick {
            return None;
        }
        // Of an event that changes who runs, the row says who it was before.
        let comes = crate::row::Who::after(&row.event);
        comes.or(row.who).map(|who| who.label())
    }
}

/// All registers in the order of the panel.
pub fn register_lines(registers: &Registers) -> Vec<RegisterLine> {
    let mut lines: Vec<RegisterLine> = vec![("rip", registers.rip)];
    lines.extend(
        colinux_replay::state::GENERAL
            .iter()
            .map(|(name, n)| (*name, registers.general[*n])),
    );
    lines.push(("rfl", registers.rflags));
    let control = Registers::CONTROL_NAMES.iter().zip(registers.control);
    lines.extend(control.map(|(name, value)| (*name, value)));
    let bases = Registers::SEGMENT_NAMES.iter().zip(registers.segments);
    let bases = bases.filter(|(name, _)| matches!(**name, "fs" | "gs"));
    lines.extend(bases.map(|(name, (_, base))| (*name, base)));
    lines
}
