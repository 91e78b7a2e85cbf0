//! Lists of events: what happened, one a line; and the kernel's log.

use colinux_tracer::{Event, EventKind};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::{choice, frame, line, put, sentence};
use crate::describe::{details, role};
use crate::list::EventList;
use crate::model::Model;
use crate::panel::Panel;
use crate::row::Row;
use crate::text::{clean, fit, grouped, pad, width};
use crate::theme::Role;

/// Columns of the tick, the task and the kind.
const TICK: usize = 15;
const WHO: usize = 15;
const KIND: usize = 13;
/// Columns of a list from which on it says who ran; the bar at the top says it of the cursor.
const WHO_FROM: u16 = 72;

pub(super) fn draw(model: &Model, rect: Rect, out: &mut Buffer) {
    let list = &model.events;
    let inside = frame(model, Panel::Events, rect, &facts(model, list), out);
    rows(model, Panel::Events, list, inside, out, |row, at, out| {
        let tick = format!("{:>width$}", grouped(row.tick), width = TICK - 2);
        let mut x = put(model, out, at, 1, &tick, Role::Tick) + 2;
        let ellipsis = model.theme.signs.ellipsis;
        if at.width >= WHO_FROM {
            let who = row
                .who
                .map_or_else(|| " ".repeat(WHO), |who| who.label_in(WHO, ellipsis));
            x = put(model, out, at, x, &who, Role::Task) + 1;
        }
        let kind = row.event.kind();
        x = put(
            model,
            out,
            at,
            x,
            &pad(kind.name(), KIND, ellipsis),
            role(kind),
        ) + 1;
        let text = clean(&details(&row.event, &model.names));
        let begins = x;
        put(model, out, at, x, &text, Role::Text);
        found(model, at, begins, &text, out);
    });
    if let Some(row) = list.chosen() {
        let text = clean(&details(&row.event, &model.names));
        at_edge(model, rect, &text, out);
    }
}

/// What of the chosen line does not fit into its panel, in the lower edge.
fn at_edge(model: &Model, rect: Rect, text: &str, out: &mut Buffer) {
    let inside = rect.width.saturating_sub(2);
    let who = if inside >= WHO_FROM { WHO + 1 } else { 0 };
    let room = usize::from(inside).saturating_sub(1 + TICK + who + KIND + 1);
    if width(text) <= room || rect.height < 4 || inside < 8 {
        return;
    }
    let edge = Rect {
        x: rect.x + 2,
        y: rect.bottom() - 1,
        width: rect.width - 4,
        height: 1,
    };
    let text = fit(
        text,
        usize::from(edge.width) - 2,
        model.theme.signs.ellipsis,
    );
    put(model, out, edge, 0, &format!(" {text} "), Role::Text);
}

pub(super) fn draw_log(model: &Model, rect: Rect, out: &mut Buffer) {
    let list = &model.log;
    let inside = frame(model, Panel::Log, rect, "", out);
    rows(model, Panel::Log, list, inside, out, |row, at, out| {
        let (stamp, text, role) = log_parts(row, model);
        let x = put(model, out, at, 1, &stamp, Role::Tick) + 1;
        let text = clean(&text);
        put(model, out, at, x, &text, role);
        found(model, at, x, &text, out);
    });
}

/// Stamp, text and looks of a line of the log.
fn log_parts(row: &Row, model: &Model) -> (String, String, Role) {
    match &row.event {
        Event::KernelLog {
            level, stamp, text, ..
        } => {
            let us = stamp / 1000;
            let stamp = format!("[{:5}.{:06}]", us / 1_000_000, us % 1_000_000);
            let role = if *level <= 3 { Role::Alarm } else { Role::Text };
            (stamp, text.clone(), role)
        }
        Event::ConsoleOut { bytes, .. } => {
            let text = String::from_utf8_lossy(bytes);
            let stamp = format!("{:>14}", "console");
            (stamp, text.trim_end().to_owned(), Role::Device)
        }
        other => (
            format!("{:>14}", other.kind().name()),
            details(other, &model.names),
            role(other.kind()),
        ),
    }
}

/// Which event is chosen, of how many; and what passes the filter.
fn facts(model: &Model, list: &EventList) -> String {
    let number = list
        .chosen()
        .map_or_else(String::new, |row| format!("e{}", row.number));
    let all = grouped(model.file.events);
    if list.filter.is_open() {
        return format!("{number} of {all}");
    }
    let passed = match list.total {
        Some((total, true)) => grouped(total),
        Some((total, false)) => format!("{} so far", grouped(total)),
        None => model.theme.signs.waiting.to_owned(),
    };
    format!("{}  {passed} of {all}  {number}", list.filter)
}

fn rows(
    model: &Model,
    panel: Panel,
    list: &EventList,
    inside: Rect,
    out: &mut Buffer,
    mut draw_row: impl FnMut(&Row, Rect, &mut Buffer),
) {
    if list.rows.is_empty() {
        let text = match (&list.trouble, list.waiting) {
            (Some(trouble), _) => trouble.clone(),
            (None, Some(_)) => format!("looking{}", model.theme.signs.waiting),
            (None, None) if list.filter.is_open() => "the recording has no events".to_owned(),
            (None, None) if panel == Panel::Log => {
                "the recording has no lines of the kernel's log".to_owned()
            }
            (None, None) => format!("no event passes `{}`", list.filter),
        };
        sentence(model, inside, &text, out);
        return;
    }
    let height = usize::from(inside.height);
    let top = list.top.min(list.rows.len().saturating_sub(1));
    for (y, row) in list.rows.iter().skip(top).take(height).enumerate() {
        let at = line(inside, u16::try_from(y).unwrap_or(u16::MAX));
        draw_row(row, at, out);
        if top + y == list.selected {
            out.set_style(at, choice(model, panel));
        } else if row.event.kind() == EventKind::Panic {
            out.set_style(at, model.theme.style(Role::Alarm));
        }
    }
}

/// Marks what is searched for in a text that was drawn at `x`.
pub(super) fn found(model: &Model, at: Rect, x: u16, text: &str, out: &mut Buffer) {
    let Some(pattern) = model.pattern.as_deref().filter(|p| !p.is_empty()) else {
        return;
    };
    let any_case = !pattern.chars().any(char::is_uppercase);
    let searched = if any_case {
        text.to_lowercase()
    } else {
        text.to_owned()
    };
    let room = usize::from(at.width.saturating_sub(x));
    let visible = fit(text, room, "").len();
    for (start, part) in searched.match_indices(pattern) {
        if start + part.len() > visible || !searched.is_char_boundary(start) {
            break;
        }
        let before = width(&searched[..start]);
        let rect = Rect {
            x: at.x + x + u16::try_from(before).unwrap_or(u16::MAX),
            width: u16::try_from(width(part)).unwrap_or(0),
            ..at
        };
        out.set_style(rect.intersection(at), model.theme.style(Role::Match));
    }
}
