//! The keys and commands, over everything else: made from the tables that are in force.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::{line, put};
use crate::action::{GROUPS, Scope, TABLE};
use crate::command;
use crate::model::Model;
use crate::text::{pad, wrap};
use crate::theme::Role;

/// Columns of the widest help, and of the keys in it.
const WIDTH_MOST: u16 = 96;
const KEYS: usize = 22;

enum Piece {
    Title(&'static str),
    Row(String, String),
    Text(String),
    Blank,
}

fn pieces(model: &Model) -> Vec<Piece> {
    let mut all = Vec::new();
    let (lacks, off) = (&model.file.lacks, &model.file.off);
    if !lacks.is_empty() || !off.is_empty() {
        all.push(Piece::Title("This recording lacks"));
        let lines = lacks.iter().chain(off);
        let lines = lines.flat_map(|text| wrap(text, usize::from(columns(model))));
        all.extend(lines.map(Piece::Text));
        all.push(Piece::Blank);
    }
    for (title, actions) in GROUPS {
        all.push(Piece::Title(title));
        for action in actions {
            for row in TABLE.iter().filter(|row| row.action == *action) {
                let place = match row.scope {
                    Scope::Any => String::new(),
                    Scope::Lists => " (lists)".to_owned(),
                    Scope::Machine => " (machine, timeline)".to_owned(),
                    Scope::In(panels) => {
                        let names: Vec<&str> = panels.iter().map(|p| p.name()).collect();
                        format!(" ({})", names.join(", "))
                    }
                };
                all.push(Piece::Row(
                    row.keys.join(" "),
                    format!("{}{place}", row.help),
                ));
            }
        }
        all.push(Piece::Blank);
    }
    all.push(Piece::Title("Panels"));
    all.push(Piece::Row(
        "1 to 9".to_owned(),
        "show a panel; the digit is in its title".to_owned(),
    ));
    all.push(Piece::Row(
        "mouse".to_owned(),
        "click and wheel; in the timeline, go and zoom".to_owned(),
    ));
    all.push(Piece::Blank);
    all.push(Piece::Title("Commands"));
    for (name, args, help) in command::table() {
        all.push(Piece::Row(format!(":{name} {args}"), help.to_owned()));
    }
    all.push(Piece::Blank);
    all.push(Piece::Title("Positions"));
    for (text, help) in [
        ("@1.2G  @123456789", "a tick"),
        ("+5000  -1.5K", "so many ticks from here"),
        ("e1234", "an event"),
        ("t12.345", "seconds of the guest"),
        ("50%  start  end", "a share of the recording"),
        ("panic  oops", "the first of them"),
        ("bm:NAME  cp:3", "a bookmark, a checkpoint"),
    ] {
        all.push(Piece::Row(text.to_owned(), help.to_owned()));
    }
    let room = usize::from(columns(model)).saturating_sub(KEYS + 2).max(20);
    all.into_iter()
        .flat_map(|piece| in_lines(piece, room))
        .collect()
}

/// A piece whose words have so many columns.
fn in_lines(piece: Piece, room: usize) -> Vec<Piece> {
    let Piece::Row(name, help) = piece else {
        return vec![piece];
    };
    let lines = wrap(&help, room).into_iter().enumerate();
    let named = |(n, line)| Piece::Row(if n == 0 { name.clone() } else { String::new() }, line);
    lines.map(named).collect()
}

/// Columns inside the frame.
fn columns(model: &Model) -> u16 {
    model.area.width.min(WIDTH_MOST).saturating_sub(4)
}

/// Rows of text in the help of a screen.
fn height(model: &Model) -> u16 {
    model.area.height.saturating_sub(4)
}

/// How far the help can be scrolled.
pub fn last_top(model: &Model) -> u16 {
    let rows = u16::try_from(pieces(model).len()).unwrap_or(u16::MAX);
    rows.saturating_sub(height(model))
}

/// Draws the help, from line `top` on.
pub(super) fn draw(model: &Model, area: Rect, top: u16, out: &mut Buffer) {
    let width = area.width.min(WIDTH_MOST);
    let rect = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + 1,
        width,
        height: area.height.saturating_sub(2),
    };
    for position in rect.positions() {
        if let Some(cell) = out.cell_mut(position) {
            cell.reset();
        }
    }
    out.set_style(rect, model.theme.style(Role::Text));
    let [left_top, across, right_top, down, left_bottom, right_bottom] = model.theme.signs.corners;
    let edge = model.theme.style(Role::Focus);
    for position in rect.positions() {
        let (left, right) = (position.x == rect.x, position.x == rect.right() - 1);
        let (upper, lower) = (position.y == rect.y, position.y == rect.bottom() - 1);
        let sign = match (left, right, upper, lower) {
            (true, _, true, _) => left_top,
            (_, true, true, _) => right_top,
            (true, _, _, true) => left_bottom,
            (_, true, _, true) => right_bottom,
            (true, ..) | (_, true, ..) => down,
            (_, _, true, _) | (.., true) => across,
            _ => continue,
        };
        if let Some(cell) = out.cell_mut(position) {
            cell.set_char(sign).set_style(edge);
        }
    }
    let title = Rect::new(rect.x + 1, rect.y, rect.width - 2, 1);
    put(model, out, title, 1, " keys ", Role::Focus);
    let more = if top < last_top(model) {
        " j for more, any key closes "
    } else {
        " any key closes "
    };
    let x = title
        .width
        .saturating_sub(u16::try_from(more.len()).unwrap_or(0) + 1);
    put(model, out, title, x, more, Role::Dim);
    let inside = Rect::new(rect.x + 2, rect.y + 1, rect.width - 4, rect.height - 2);
    for (y, piece) in pieces(model)
        .iter()
        .skip(top.into())
        .take(inside.height.into())
        .enumerate()
    {
        let at = line(inside, u16::try_from(y).unwrap_or(u16::MAX));
        match piece {
            Piece::Title(title) => {
                put(model, out, at, 0, title, Role::Focus);
            }
            Piece::Row(name, help) => {
                let name = pad(name, KEYS, model.theme.signs.ellipsis);
                let x = put(model, out, at, 1, &name, Role::Key) + 1;
                put(model, out, at, x, help, Role::Text);
            }
            Piece::Text(text) => {
                put(model, out, at, 1, text, Role::Text);
            }
            Piece::Blank => {}
        }
    }
}
