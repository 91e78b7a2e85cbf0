//! Registers and the stack.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::{choice, first_line, frame, line, no_machine, put};
use crate::model::{Model, register_lines};
use crate::moment::FrameLine;
use crate::panel::Panel;
use crate::text::width;
use crate::theme::Role;

/// Columns of a register: its name, sixteen digits, a space.
const REGISTER: u16 = 23;

pub(super) fn draw_registers(model: &Model, rect: Rect, out: &mut Buffer) {
    let Some(moment) = &model.moment else {
        let inside = frame(model, Panel::Registers, rect, "", out);
        no_machine(model, inside, out);
        return;
    };
    let flags: Vec<&str> = moment.registers.flag_names().collect();
    let facts = flags.join(" ");
    let inside = frame(model, Panel::Registers, rect, &facts, out);
    let lines = register_lines(&moment.registers);
    let before = model.before.as_ref().map(register_lines);
    let wide = inside.width >= REGISTER + 24;
    let chosen = model.chosen_line(Panel::Registers);
    let (per_line, top) = register_grid(model, inside, lines.len());
    for (n, (name, value)) in lines.iter().enumerate() {
        let (row, column) = (n / per_line, n % per_line);
        let Some(y) = row.checked_sub(top).and_then(|y| u16::try_from(y).ok()) else {
            continue;
        };
        if y >= inside.height {
            break;
        }
        let at = line(inside, y);
        let x = u16::try_from(column).unwrap_or(0) * REGISTER;
        // What is not at the cursor is not known to have changed there.
        let changed = before
            .as_ref()
            .and_then(|old| old.get(n))
            .is_some_and(|(_, old)| old != value);
        let role = match (changed, *value) {
            (true, _) => Role::Changed,
            (_, 0) => Role::Dim,
            _ => Role::Number,
        };
        let name_role = if changed { Role::Changed } else { Role::Title };
        let sign = if changed { "*" } else { " " };
        put(model, out, at, x, sign, Role::Changed);
        put(model, out, at, x + 1, &format!("{name:<5}"), name_role);
        let end = put(model, out, at, x + 6, &format!("{value:016x}"), role);
        if per_line == 1
            && wide
            && let Some(symbol) = model.names.name(*value)
        {
            put(model, out, at, end + 2, &symbol, Role::Symbol);
        }
        if n == chosen && model.focus == Panel::Registers {
            let cell = Rect {
                x: at.x + x,
                width: REGISTER - 1,
                ..at
            };
            out.set_style(cell.intersection(at), choice(model, Panel::Registers));
        }
    }
}

/// How many registers a line has, and which line is the first shown.
fn register_grid(model: &Model, inside: Rect, count: usize) -> (usize, usize) {
    let height = usize::from(inside.height);
    let per_line = if model.focus == Panel::Registers && height >= count {
        1
    } else {
        usize::from(inside.width / REGISTER).max(1)
    };
    let chosen = model.chosen_line(Panel::Registers) / per_line;
    (
        per_line,
        first_line(chosen, count.div_ceil(per_line), height),
    )
}

/// The register at a place inside.
pub(super) fn register_at(model: &Model, inside: Rect, x: u16, y: usize) -> Option<usize> {
    let count = model.lines(Panel::Registers);
    let (per_line, top) = register_grid(model, inside, count);
    let column = if per_line == 1 {
        0
    } else {
        usize::from(x / REGISTER)
    };
    let at = (top + y) * per_line + column;
    (column < per_line && at < count).then_some(at)
}

/// Registers as lines of text.
pub(super) fn register_texts(model: &Model) -> Vec<String> {
    let registers = model.moment.as_ref().map(|m| register_lines(&m.registers));
    let text =
        |(name, value): (&str, u64)| format!("{name} {value:#x} {}", model.names.place(value));
    registers.into_iter().flatten().map(text).collect()
}

pub(super) fn draw_stack(model: &Model, rect: Rect, out: &mut Buffer) {
    let Some(moment) = &model.moment else {
        let inside = frame(model, Panel::Stack, rect, "", out);
        no_machine(model, inside, out);
        return;
    };
    let inside = frame(model, Panel::Stack, rect, moment.stack_end, out);
    let chosen = model.chosen_line(Panel::Stack);
    let height = usize::from(inside.height);
    let top = first_line(chosen, moment.stack.len(), height);
    // Functions that were inlined have the number of the frame they are in.
    let mut number = moment.stack.iter().take(top).filter(|l| !l.inlined).count();
    for (y, frame) in moment.stack.iter().enumerate().skip(top).take(height) {
        let at = line(inside, u16::try_from(y - top).unwrap_or(u16::MAX));
        let label = format!("{number:>2} ");
        let x = put(model, out, at, 1, &label, Role::Dim);
        let role = if frame.method == "scan" {
            Role::Dim
        } else {
            Role::Symbol
        };
        let x = put(model, out, at, x, &frame.name, role) + 1;
        let room = usize::from(at.width.saturating_sub(x));
        put(model, out, at, x, &about(frame, room), Role::Dim);
        number += usize::from(!frame.inlined);
        if y == chosen && model.focus == Panel::Stack {
            out.set_style(at, choice(model, Panel::Stack));
        }
    }
}

/// Where a frame's source is and how the frame was found. The folders are left out where there is no
/// room for them.
fn about(frame: &FrameLine, room: usize) -> String {
    let with = |file: &str| {
        let mut words = Vec::new();
        if frame.inlined {
            words.push("(inlined)".to_owned());
        }
        if let Some((_, line)) = &frame.source {
            words.push(format!("{file}:{line}"));
        }
        if matches!(frame.method, "scan" | "fp" | "regs") {
            words.push(format!("({})", frame.method));
        }
        words.join(" ")
    };
    let file = frame.source.as_ref().map_or("", |(file, _)| file);
    let whole = with(file);
    if width(&whole) <= room {
        return whole;
    }
    with(file.rsplit('/').next().unwrap_or(file))
}

/// The stack as lines of text.
pub(super) fn stack_texts(model: &Model) -> Vec<String> {
    let stack = model.moment.iter().flat_map(|m| &m.stack);
    stack
        .map(|frame| format!("{:#x} {}", frame.ip, frame.name))
        .collect()
}
