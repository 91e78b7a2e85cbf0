//! Memory: bytes, or a value of a type.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::{choice, frame, line, no_machine, put};
use crate::model::Model;
use crate::panel::Panel;
use crate::theme::Role;

pub(super) fn draw(model: &Model, rect: Rect, out: &mut Buffer) {
    let (Some(moment), Some(start)) = (&model.moment, model.memory_start()) else {
        let inside = frame(model, Panel::Memory, rect, "", out);
        no_machine(model, inside, out);
        return;
    };
    let chosen = start.wrapping_add(model.memory.chosen);
    let mut facts = match model.memory.at {
        None => "at the stack pointer".to_owned(),
        Some(_) => model.names.name(chosen).unwrap_or_default(),
    };
    if let Some(kind) = &model.memory.as_type {
        facts = format!("{kind} at {start:#x}");
    }
    let inside = frame(model, Panel::Memory, rect, &facts, out);
    if model.memory.as_type.is_some() {
        typed(model, inside, out);
        return;
    }
    let byte = |address: u64| {
        let at = address.wrapping_sub(moment.memory.start);
        let at = usize::try_from(at).ok()?;
        moment.memory.bytes.get(at).copied()
    };
    let (per_line, top) = layout(model, inside);
    for y in 0..inside.height {
        let at = line(inside, y);
        let address = start.wrapping_add((top + u64::from(y)) * u64::from(per_line));
        put(model, out, at, 1, &format!("{address:016x}"), Role::Dim);
        for n in 0..per_line {
            let address = address.wrapping_add(n.into());
            let (hex, character, role) = match byte(address) {
                Some(Some(0)) => ("00".to_owned(), '.', Role::Dim),
                Some(Some(b)) if b.is_ascii_graphic() || b == b' ' => {
                    (format!("{b:02x}"), char::from(b), Role::Text)
                }
                Some(Some(b)) => (format!("{b:02x}"), '.', Role::Text),
                Some(None) => ("--".to_owned(), ' ', Role::Dim),
                None => ("..".to_owned(), ' ', Role::Dim),
            };
            let (x, text) = columns(per_line, n);
            put(model, out, at, x, &hex, role);
            put(model, out, at, text, &character.to_string(), role);
            if address == chosen {
                let style = choice(model, Panel::Memory);
                for (x, width) in [(x, 2), (text, 1)] {
                    let cell = Rect {
                        x: at.x + x,
                        width,
                        ..at
                    };
                    out.set_style(cell.intersection(at), style);
                }
            }
        }
    }
}

/// Bytes a line (sixteen, or eight where there is no room), and the first line shown.
fn layout(model: &Model, inside: Rect) -> (u16, u64) {
    let per_line: u16 = if inside.width >= 16 * 4 + 21 { 16 } else { 8 };
    let chosen_line = model.memory.chosen / u64::from(per_line);
    let height = u64::from(inside.height.max(1));
    (per_line, chosen_line.saturating_sub(height - 1))
}

/// Where the two digits and the character of a byte of a line are.
const fn columns(per_line: u16, n: u16) -> (u16, u16) {
    (19 + n * 3 + n / 8, 19 + per_line * 3 + per_line / 8 + n)
}

/// The byte at a place inside.
pub(super) fn byte_at(model: &Model, inside: Rect, (x, y): (u16, u16)) -> Option<u64> {
    let (per_line, top) = layout(model, inside);
    let is_there = |n: &u16| {
        let (hex, text) = columns(per_line, *n);
        (hex..hex + 3).contains(&x) || text == x
    };
    let n = (0..per_line).find(is_there)?;
    Some((top + u64::from(y)) * u64::from(per_line) + u64::from(n))
}

fn typed(model: &Model, inside: Rect, out: &mut Buffer) {
    let typed = model.moment.as_ref().and_then(|m| m.memory.typed.as_ref());
    let Some((kind, lines)) = typed else { return };
    if Some(kind) != model.memory.as_type.as_ref() {
        return;
    }
    // Scrolled by the same keys as bytes are: a row is sixteen of them.
    let top = usize::try_from(model.memory.chosen / 16).unwrap_or(0);
    let top = top.min(lines.len().saturating_sub(1));
    for (y, text) in lines
        .iter()
        .skip(top)
        .take(usize::from(inside.height))
        .enumerate()
    {
        let at = line(inside, u16::try_from(y).unwrap_or(u16::MAX));
        match text.split_once(" = ") {
            Some((name, value)) => {
                let x = put(model, out, at, 1, name, Role::Text);
                let x = put(model, out, at, x, " = ", Role::Dim);
                put(model, out, at, x, value, Role::Symbol);
            }
            None => {
                put(model, out, at, 1, text, Role::Dim);
            }
        }
    }
}
