//! What is under the mouse.

use ratatui::layout::{Position, Rect};

use super::{code, first_line, inner, machine, memory};
use crate::model::Model;
use crate::panel::Panel;

/// What a click chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hit {
    /// A line of a panel whose lines are all here, by its number.
    Line(usize),
    /// A byte of memory, counted from the first that could be shown.
    Byte(u64),
}

/// What of a panel is at a place of the screen.
pub fn hit(model: &Model, panel: Panel, rect: Rect, at: Position) -> Option<Hit> {
    let inside = inner(rect);
    if !inside.contains(at) {
        return None;
    }
    let (x, y) = (at.x - inside.x, usize::from(at.y - inside.y));
    let height = usize::from(inside.height);
    let lines = match panel {
        Panel::Memory => {
            return memory::byte_at(model, inside, (x, at.y - inside.y)).map(Hit::Byte);
        }
        Panel::Registers => return machine::register_at(model, inside, x, y).map(Hit::Line),
        Panel::Code => model.moment.as_ref().map_or(0, |moment| moment.code.len()),
        _ => model.lines(panel),
    };
    let top = match panel {
        Panel::Code => code::top(model, height),
        Panel::Source => code::source_top(model, height),
        _ => {
            let chosen = model.chosen_line(panel).min(lines.saturating_sub(1));
            first_line(chosen, lines, height)
        }
    };
    (top + y < lines).then_some(Hit::Line(top + y))
}
