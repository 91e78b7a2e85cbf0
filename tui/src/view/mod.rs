//! Drawing: from the model, and from nothing else.
//!
//! ```text
//!  header    the file, the cursor
//!  timeline  flags, lanes of facilities, lanes of tasks
//!  panels    see `panel.rs`
//!  footer    keys of the panel, a message, or the line that is typed
//! ```

mod bars;
mod code;
mod console;
mod events;
pub mod help;
mod hit;
mod machine;
mod memory;
mod rows;
mod timeline;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;

use crate::model::{Mode, Model};
use crate::panel::{Panel, SMALLEST};
use crate::text::{fit, width, wrap};
use crate::theme::Role;

pub use hit::{Hit, hit};
pub use rows::places;

/// Draws everything. Gives the place of the terminal's cursor, if a line is typed.
pub fn draw(model: &Model, out: &mut Buffer) -> Option<(u16, u16)> {
    let area = model.area.intersection(out.area);
    out.set_style(area, model.theme.style(Role::Text));
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let text = format!("the viewer wants {} x {} at least", SMALLEST.0, SMALLEST.1);
        put(model, out, area, 0, &text, Role::Text);
        return None;
    }
    let screen = model.screen();
    bars::header(model, screen.header, out);
    for (panel, rect) in &screen.panels {
        draw_panel(model, *panel, *rect, out);
    }
    if let Mode::Help(top) = model.mode {
        help::draw(model, area, top, out);
    }
    let cursor = bars::footer(model, screen.footer, out);
    match (&model.mode, screen.place(Panel::Console)) {
        (Mode::Typing { .. }, Some(rect)) => console::cursor(model, inner(rect)),
        _ => cursor,
    }
}

/// What is inside the frame of a panel.
fn inner(rect: Rect) -> Rect {
    Rect {
        x: rect.x + 1,
        y: rect.y + 1,
        width: rect.width.saturating_sub(2),
        height: rect.height.saturating_sub(2),
    }
}

/// Draws one panel with its frame.
pub fn draw_panel(model: &Model, panel: Panel, rect: Rect, out: &mut Buffer) {
    match panel {
        Panel::Timeline => timeline::draw(model, rect, out),
        Panel::Events => events::draw(model, rect, out),
        Panel::Log => events::draw_log(model, rect, out),
        Panel::Console => console::draw(model, rect, out),
        Panel::Code => code::draw(model, rect, out),
        Panel::Source => code::draw_source(model, rect, out),
        Panel::Registers => machine::draw_registers(model, rect, out),
        Panel::Stack => machine::draw_stack(model, rect, out),
        Panel::Memory => memory::draw(model, rect, out),
        Panel::Tasks | Panel::Modules | Panel::Places => rows::draw(model, panel, rect, out),
    }
}

/// A panel as text, as it is on the screen.
pub fn panel_text(model: &Model, panel: Panel) -> String {
    let rect = model.screen().place(panel).unwrap_or(model.area);
    let mut out = Buffer::empty(Rect::new(0, 0, rect.width, rect.height));
    draw_panel(model, panel, out.area, &mut out);
    let mut text = String::new();
    for y in 1..rect.height.saturating_sub(1) {
        let line: String = (1..rect.width.saturating_sub(1))
            .filter_map(|x| out.cell((x, y)).map(|cell| cell.symbol().to_owned()))
            .collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The chosen line of the panel that has the keys.
pub fn chosen_line(model: &Model) -> Option<String> {
    let panel = model.focus;
    match panel {
        Panel::Events | Panel::Log => {
            let row = model.list_of(panel)?.chosen()?;
            let text = row.text(&model.names);
            Some(format!("@{} {text}", row.tick))
        }
        Panel::Code => code::chosen_text(model),
        _ => lines(model, panel)
            .into_iter()
            .nth(model.chosen_line(panel)),
    }
}

/// All lines of a panel whose lines are all here.
pub fn lines(model: &Model, panel: Panel) -> Vec<String> {
    match panel {
        Panel::Tasks | Panel::Modules | Panel::Places => rows::texts(model, panel),
        Panel::Stack => machine::stack_texts(model),
        Panel::Registers => machine::register_texts(model),
        Panel::Console => model
            .console_screen()
            .map_or_else(Vec::new, crate::console::lines),
        _ => Vec::new(),
    }
}

/// Writes text at a column of a rectangle's first line; what does not fit leaves an ellipsis. Gives
/// the column after it.
fn put(model: &Model, out: &mut Buffer, rect: Rect, x: u16, text: &str, role: Role) -> u16 {
    put_styled(model, out, rect, x, text, model.theme.style(role))
}

fn put_styled(
    model: &Model,
    out: &mut Buffer,
    rect: Rect,
    x: u16,
    text: &str,
    style: Style,
) -> u16 {
    if x >= rect.width || rect.height == 0 {
        return x;
    }
    let room = usize::from(rect.width - x);
    let text = fit(text, room, model.theme.signs.ellipsis);
    out.set_stringn(rect.x + x, rect.y, &text, room, style);
    x + u16::try_from(width(&text)).unwrap_or(0)
}

/// The line of a rectangle, `y` from its top.
fn line(rect: Rect, y: u16) -> Rect {
    Rect {
        y: rect.y + y,
        height: u16::from(y < rect.height),
        ..rect
    }
}

/// Draws a frame with a title at the left and facts at the right; gives what is inside.
fn frame(model: &Model, panel: Panel, rect: Rect, facts: &str, out: &mut Buffer) -> Rect {
    let has_keys = model.focus == panel;
    let edge = model
        .theme
        .style(if has_keys { Role::Focus } else { Role::Dim });
    let [left_top, across, right_top, down, left_bottom, right_bottom] = model.theme.signs.corners;
    if rect.width < 2 || rect.height < 2 {
        return Rect { height: 0, ..rect };
    }
    let (right, bottom) = (rect.right() - 1, rect.bottom() - 1);
    let mut cell = |x: u16, y: u16, c: char| {
        if let Some(cell) = out.cell_mut((x, y)) {
            cell.set_char(c).set_style(edge);
        }
    };
    for x in rect.x..=right {
        cell(x, rect.y, across);
        cell(x, bottom, across);
    }
    for y in rect.y..=bottom {
        cell(rect.x, y, down);
        cell(right, y, down);
    }
    cell(rect.x, rect.y, left_top);
    cell(right, rect.y, right_top);
    cell(rect.x, bottom, left_bottom);
    cell(right, bottom, right_bottom);
    let title = match panel.digit() {
        Some(digit) => format!(" {digit} {} ", panel.name()),
        None => format!(" {} ", panel.name()),
    };
    let inside = Rect::new(rect.x + 1, rect.y, rect.width - 2, 1);
    let role = if has_keys { Role::Focus } else { Role::Title };
    let end = put(model, out, inside, 1, &title, role);
    if !facts.is_empty() {
        let room = usize::from(inside.width.saturating_sub(end + 3));
        let text = format!(
            " {} ",
            fit(facts, room.saturating_sub(2), model.theme.signs.ellipsis)
        );
        let columns = u16::try_from(width(&text)).unwrap_or(0);
        if room > 4 {
            let x = inside.width.saturating_sub(columns + 1);
            put(model, out, inside, x, &text, Role::Dim);
        }
    }
    inner(rect)
}

/// What the chosen line of a panel looks like.
fn choice(model: &Model, panel: Panel) -> Style {
    model.theme.style(if model.focus == panel {
        Role::Selected
    } else {
        Role::Chosen
    })
}

/// A sentence in place of what a panel would show.
fn sentence(model: &Model, inside: Rect, text: &str, out: &mut Buffer) {
    let columns = usize::from(inside.width.saturating_sub(2)).max(1);
    for (y, row) in wrap(text, columns).iter().enumerate() {
        let at = line(inside, u16::try_from(y).unwrap_or(u16::MAX));
        put(model, out, at, 1, row, Role::Dim);
    }
}

/// Why the machine is not shown.
fn no_machine(model: &Model, inside: Rect, out: &mut Buffer) {
    let waiting = model.theme.signs.waiting;
    match (&model.no_machine, &model.walking) {
        (Some(why), _) => sentence(model, inside, why, out),
        (None, Some(_)) => sentence(model, inside, &format!("replaying{waiting}"), out),
        (None, None) if model.following => {
            let text = "the recording is being followed; Enter or a step shows the machine here";
            sentence(model, inside, text, out);
        }
        (None, None) => sentence(model, inside, "nothing is known here", out),
    }
}

/// The first line to show of so many, so that the chosen one is among them.
fn first_line(chosen: usize, lines: usize, height: usize) -> usize {
    let height = height.max(1);
    let top = chosen.saturating_sub(height / 2);
    top.min(lines.saturating_sub(height))
}
