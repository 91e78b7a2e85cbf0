//! The bars at the top and the bottom.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::{put, put_styled};
use crate::action;
use crate::model::{LineFor, Mode, Model};
use crate::text::{fit, grouped, seconds, short, width};
use crate::theme::Role;
use crate::work::file::Fate;

/// The file at the left, the cursor at the right.
pub(super) fn header(model: &Model, rect: Rect, out: &mut Buffer) {
    let bar = model.theme.style(Role::Bar);
    out.set_style(rect, bar);
    let file = &model.file;
    let mut right: Vec<(String, Role)> = Vec::new();
    if let Some(who) = model.who() {
        right.push((who, Role::Task));
    }
    if let Some(moment) = model.here() {
        let ring = match (moment.registers.halted, moment.registers.cpl) {
            (true, _) => "idle",
            (_, 3) => "user",
            _ => "kernel",
        };
        right.push((ring.to_owned(), Role::Text));
        right.push((seconds(moment.time_ns), Role::Text));
    }
    right.push((format!("@{}", grouped(model.cursor.tick)), Role::Tick));
    if model.cursor.attempt > 0
        && let Some((text, _)) = right.last_mut()
    {
        text.push_str(&format!("'{}", model.cursor.attempt));
    }
    let share = model.cursor.tick as f64 * 100.0 / file.last_tick.max(1) as f64;
    right.push((format!("{share:.1}%"), Role::Dim));
    let total = |parts: &[(String, Role)]| parts.iter().map(|(t, _)| width(t) + 2).sum::<usize>();
    // The position stays; what is less needed goes first.
    let own = width(&file.name) + 8;
    while total(&right) + own > usize::from(rect.width) && right.len() > 2 {
        right.remove(0);
    }
    let start = usize::from(rect.width).saturating_sub(total(&right));
    let mut x = u16::try_from(start).unwrap_or(0);
    for (text, role) in &right {
        x = put_styled(
            model,
            out,
            rect,
            x,
            text,
            bar.patch(model.theme.style(*role)),
        ) + 2;
    }
    let live = match (file.live, model.following) {
        (true, true) => "  live",
        (true, false) => "  live, not followed",
        (false, _) => match model.file.fate {
            Fate::There => "",
            Fate::Replaced => "  replaced",
            Fate::Removed => "  removed",
            Fate::Shortened => "  cut short",
        },
    };
    let room = start.saturating_sub(1);
    let parts = [
        format!("  {} ticks", short(file.last_tick)),
        format!("  {} events", grouped(file.events)),
    ];
    let mut name = fit(
        &format!(" {}{live}", file.name),
        room,
        model.theme.signs.ellipsis,
    );
    for part in parts {
        if width(&name) + width(&part) <= room {
            name.push_str(&part);
        }
    }
    put_styled(model, out, rect, 0, &name, bar);
}

/// A line that is typed, a walk that goes on, a message, or the keys. Gives the place of the
/// terminal's cursor.
pub(super) fn footer(model: &Model, rect: Rect, out: &mut Buffer) -> Option<(u16, u16)> {
    let bar = model.theme.style(Role::Bar);
    out.set_style(rect, bar);
    let styled = |role| bar.patch(model.theme.style(role));
    match &model.mode {
        Mode::Line(purpose, line) => {
            let prompt = match purpose {
                LineFor::Command => ":",
                LineFor::Search(_) => "/",
                LineFor::Filter => "filter: ",
            };
            let x = put_styled(model, out, rect, 1, prompt, styled(Role::Key));
            let before = line.before();
            let room = usize::from(rect.width.saturating_sub(x + 2));
            // The end that is typed at stays on the screen.
            let surplus = width(&before).saturating_sub(room);
            let shown: String = line.text().chars().skip(surplus).collect();
            let mut end = put_styled(model, out, rect, x, &shown, bar);
            let cursor = x + u16::try_from(width(&before) - surplus).unwrap_or(0);
            if !line.offers.is_empty() {
                end += 3;
                // The one that was taken is to be seen, with some that come before it.
                let taken = line.offers.iter().position(|o| line.offered() == Some(o));
                let room = usize::from(rect.width.saturating_sub(end));
                let mut first = taken.unwrap_or(0);
                let mut columns = line.offers.get(first).map_or(0, |o| width(o));
                while let Some(before) = first.checked_sub(1) {
                    columns += width(&line.offers[before]) + 2;
                    if columns > room {
                        break;
                    }
                    first = before;
                }
                for offer in &line.offers[first..] {
                    let chosen = line.offered() == Some(offer.as_str());
                    let role = if chosen { Role::Key } else { Role::Dim };
                    end = put_styled(model, out, rect, end, offer, styled(role)) + 2;
                }
            } else if let Some(message) = &model.message {
                put_styled(model, out, rect, end + 3, &message.text, styled(Role::Dim));
            }
            return Some((rect.x + cursor.min(rect.width.saturating_sub(1)), rect.y));
        }
        Mode::Typing { escaped } => {
            let keys: &[(&str, &str)] = if *escaped {
                &[
                    ("Esc", "to the viewer"),
                    ("x", "end the recording"),
                    ("a", "send Ctrl-A"),
                ]
            } else {
                &[
                    ("Ctrl-A Esc", "to the viewer"),
                    ("Ctrl-A x", "end the recording"),
                    ("Ctrl-A a", "send Ctrl-A"),
                ]
            };
            let mut x = put_styled(
                model,
                out,
                rect,
                1,
                "typing to the guest",
                styled(Role::Busy),
            );
            for (key, word) in keys {
                x = put_styled(model, out, rect, x + 2, key, styled(Role::Key));
                x = put_styled(model, out, rect, x + 1, word, styled(Role::Dim));
            }
            return None;
        }
        Mode::Letter { set } => {
            let text = if *set {
                "mark this place by a letter"
            } else {
                "go to the place of a letter, or ' to where you came from"
            };
            put_styled(model, out, rect, 1, text, styled(Role::Busy));
            return None;
        }
        _ => {}
    }
    if let Some(message) = &model.message {
        let role = if message.is_alarm {
            Role::Alarm
        } else {
            Role::Text
        };
        put_styled(model, out, rect, 1, &message.text, styled(role));
        return None;
    }
    if let Some(text) = busy(model) {
        let x = put_styled(model, out, rect, 1, &text, styled(Role::Busy));
        let x = put_styled(model, out, rect, x + 2, "Esc", styled(Role::Key));
        put_styled(model, out, rect, x, " stops it", styled(Role::Dim));
        return None;
    }
    keys(model, rect, out);
    None
}

/// What goes on, if it takes long enough to be said.
fn busy(model: &Model) -> Option<String> {
    if let Some(walking) = &model.walking
        && let Some(tick) = walking.tick
    {
        let elapsed = walking.since.elapsed().as_secs_f64();
        let what = if walking.what.is_empty() {
            "replaying"
        } else {
            &walking.what
        };
        let at = format!("{what}: at @{}", grouped(tick));
        return Some(match walking.to {
            // How long it will take, by how long it took so far.
            Some(to) if to > tick && tick > walking.from => {
                let left = elapsed * (to - tick) as f64 / (tick - walking.from) as f64;
                format!("{at}, {left:.0} s to go")
            }
            _ => at,
        });
    }
    let list = model.list_of(model.focus)?;
    let tick = list.waiting.filter(|tick| *tick > 0)?;
    Some(format!("looking: at @{}", grouped(tick)))
}

fn keys(model: &Model, rect: Rect, out: &mut Buffer) {
    let bar = model.theme.style(Role::Bar);
    let mut x = 1;
    for (key, word) in action::footer(model.focus) {
        let needed = u16::try_from(width(key) + width(word) + 1).unwrap_or(0);
        if x + needed > rect.width {
            break;
        }
        x = put_styled(
            model,
            out,
            rect,
            x,
            key,
            bar.patch(model.theme.style(Role::Key)),
        );
        x = put(model, out, rect, x + 1, word, Role::Dim);
        out.set_style(
            Rect {
                x: rect.x + x,
                width: 0,
                ..rect
            },
            bar,
        );
        x += 2;
    }
}
