//! The guest's console.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use super::events::found;
use super::{frame, line, sentence};
use crate::model::{Mode, Model};
use crate::panel::Panel;
use crate::theme::{Palette, Theme};

/// The sixteen colours in the order of the terminal's numbers.
const SIXTEEN: [Color; 16] = [
    Color::Black,
    Color::Red,
    Color::Green,
    Color::Yellow,
    Color::Blue,
    Color::Magenta,
    Color::Cyan,
    Color::Gray,
    Color::DarkGray,
    Color::LightRed,
    Color::LightGreen,
    Color::LightYellow,
    Color::LightBlue,
    Color::LightMagenta,
    Color::LightCyan,
    Color::White,
];

pub(super) fn draw(model: &Model, rect: Rect, out: &mut Buffer) {
    let screen = model.console_screen();
    let back = screen.map_or(0, vt100::Screen::scrollback);
    let facts = match (&model.mode, model.console_is_now()) {
        _ if back > 0 => format!("{back} lines back"),
        (Mode::Typing { .. }, _) => "Ctrl-A Esc: back to the viewer".to_owned(),
        (_, true) if model.console.can_type => "now; i: type to the guest".to_owned(),
        (_, true) => "now".to_owned(),
        _ => "up to the cursor".to_owned(),
    };
    let inside = frame(model, Panel::Console, rect, &facts, out);
    let Some(screen) = screen else {
        return sentence(model, inside, model.theme.signs.waiting, out);
    };
    let typing = matches!(model.mode, Mode::Typing { .. });
    if !typing && back == 0 && screen.contents().trim().is_empty() {
        let text = "the guest has written nothing to its console up to here";
        return sentence(model, inside, text, out);
    }
    let (rows, columns) = screen.size();
    for row in 0..rows.get().min(inside.height) {
        for column in 0..columns.get().min(inside.width) {
            let Some(from) = screen.cell(row, column) else {
                continue;
            };
            let Some(to) = out.cell_mut((inside.x + column, inside.y + row)) else {
                continue;
            };
            if !from.is_wide_continuation() && from.has_contents() {
                let is_shown = !model.theme.is_ascii() || from.contents().is_ascii();
                to.set_symbol(if is_shown { from.contents() } else { "?" });
            }
            to.set_style(style(from, &model.theme));
        }
        let text: String = (0..columns.get())
            .filter_map(|column| screen.cell(row, column))
            .filter(|cell| !cell.is_wide_continuation())
            .map(|cell| {
                if cell.has_contents() {
                    cell.contents()
                } else {
                    " "
                }
            })
            .collect();
        found(model, line(inside, row), 0, &text, out);
    }
}

/// Where the terminal's cursor belongs while one types.
pub(super) fn cursor(model: &Model, inside: Rect) -> Option<(u16, u16)> {
    let screen = model.console_screen()?;
    let (row, column) = screen.cursor_position();
    let shown = screen.scrollback() == 0 && !screen.hide_cursor();
    let inside_it = row < inside.height && column < inside.width;
    (shown && inside_it).then_some((inside.x + column, inside.y + row))
}

fn style(cell: &vt100::Cell, theme: &Theme) -> Style {
    let mut style = Style::new();
    if let Some(color) = color(cell.fgcolor(), theme) {
        style = style.fg(color);
    }
    if let Some(color) = color(cell.bgcolor(), theme) {
        style = style.bg(color);
    }
    for (has, modifier) in [
        (cell.bold(), Modifier::BOLD),
        (cell.dim(), Modifier::DIM),
        (cell.underline(), Modifier::UNDERLINED),
        (cell.inverse(), Modifier::REVERSED),
    ] {
        if has {
            style = style.add_modifier(modifier);
        }
    }
    style
}

/// The guest's colours as far as the theme has colours.
fn color(color: vt100::Color, theme: &Theme) -> Option<Color> {
    match (color, theme.palette) {
        (vt100::Color::Default, _) | (_, Palette::Mono) => None,
        (vt100::Color::Idx(n @ 0..16), _) => Some(SIXTEEN[usize::from(n)]),
        (_, Palette::Sixteen) => None,
        (vt100::Color::Idx(n), _) => Some(Color::Indexed(n)),
        (vt100::Color::Rgb(r, g, b), _) => Some(Color::Rgb(r, g, b)),
    }
}
