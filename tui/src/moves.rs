//! Moving about: in panels, along the timeline, to the next event of a kind.

use colinux_replay::Mark;
use colinux_tracer::{EventKind, EventMask};

use crate::app::App;
use crate::list::ListId;
use crate::panel::Panel;
use crate::work::machine::Way;
use crate::work::scan::Anchor;

impl App {
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
            Panel::Console => {
                let now = self.model.console_is_now();
                self.model.console.scroll(by, now);
            }
            Panel::Source => {
                let last = self.model.lines(Panel::Source).saturating_sub(1);
                if let Some(line) = self.model.source_line() {
                    self.model.chosen_source = Some(line.saturating_add_signed(by).min(last));
                }
            }
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

    pub(crate) fn go_far(&mut self, last: bool) {
        let focus = self.model.focus;
        let in_time = matches!(
            focus,
            Panel::Events | Panel::Log | Panel::Timeline | Panel::Console
        );
        if last && in_time && self.model.file.live {
            self.follow();
            self.model.console.scroll(isize::MAX, true);
            return;
        }
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

    pub(crate) fn sideways(&mut self, by: i64) {
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

    pub(crate) fn pan(&mut self, by: i64) {
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

    pub(crate) fn marker(&mut self, which: usize) {
        let here = self.model.cursor.tick;
        let marker = &mut self.model.markers[which];
        *marker = if *marker == Some(here) {
            None
        } else {
            Some(here)
        };
    }

    pub(crate) fn of_kind(&mut self, forward: bool) {
        let Some(row) = self.model.events.chosen() else {
            return;
        };
        let (kind, number) = (row.event.kind(), row.number);
        self.go_to_kind(kind, number, forward);
    }

    /// To the next event of a kind, or the one before.
    pub fn go_to_kind(&mut self, kind: EventKind, from: u64, forward: bool) {
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

    pub(crate) fn turn(&mut self, by: isize) {
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
}
