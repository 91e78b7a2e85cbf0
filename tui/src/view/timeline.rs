//! Who did what when: flags, a lane for each facility, a lane for each of the busiest tasks.

use colinux_tracer::EventKind;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

use super::{frame, line, put};
use crate::describe::facility_role;
use crate::model::{LABEL, Model};
use crate::panel::Panel;
use crate::text::{grouped, pad, short, width};
use crate::theme::{Palette, Role};
use crate::work::lanes::{Lanes, Stretch};

pub(super) fn draw(model: &Model, rect: Rect, out: &mut Buffer) {
    let stretch = model.stretch();
    let inside = frame(model, Panel::Timeline, rect, &facts(model, stretch), out);
    if inside.height == 0 || inside.width <= LABEL + 1 {
        return;
    }
    let chart = Rect {
        x: inside.x + LABEL,
        width: inside.width - LABEL,
        ..inside
    };
    axis(model, rect, chart, stretch, out);
    if let Some(lanes) = &model.lanes {
        draw_lanes(model, lanes, inside, chart, stretch, out);
    }
    flags(model, inside, chart, stretch, out);
    columns(model, chart, stretch, out);
}

fn facts(model: &Model, stretch: Stretch) -> String {
    let per_column = (stretch.ticks() / stretch.columns.max(1) as u64).max(1);
    let zoom = format!("{} ticks a column", short(per_column));
    match model.markers {
        [Some(a), Some(b)] => {
            let sign = if b < a { "-" } else { "" };
            format!("A to B {sign}{} ticks  {zoom}", grouped(a.abs_diff(b)))
        }
        _ => zoom,
    }
}

/// Ticks along the lower edge.
fn axis(model: &Model, rect: Rect, chart: Rect, stretch: Stretch, out: &mut Buffer) {
    let edge = Rect {
        y: rect.bottom() - 1,
        height: 1,
        ..chart
    };
    // Enough digits that neighbours differ.
    let label = |tick: u64| {
        let short_form = short(tick);
        if stretch.ticks() < tick / 200 {
            format!("@{}", grouped(tick))
        } else {
            format!("@{short_form}")
        }
    };
    let space = width(&label(stretch.to)) + 6;
    let mut column = 0;
    while column + space < stretch.columns {
        let text = format!(" {} ", label(stretch.tick(column)));
        put(
            model,
            out,
            edge,
            u16::try_from(column).unwrap_or(0),
            &text,
            Role::Dim,
        );
        column += space.max(16);
    }
}

fn draw_lanes(
    model: &Model,
    lanes: &Lanes,
    inside: Rect,
    chart: Rect,
    stretch: Stretch,
    out: &mut Buffer,
) {
    let rows = usize::from(inside.height.saturating_sub(1));
    let all = lanes.facilities.len() + lanes.tasks.len();
    // Both kinds are seen, however many there are of the first.
    let facilities = if model.first_lane > 0 {
        lanes.facilities.len()
    } else {
        lanes.facilities.len().min(rows.saturating_sub(rows / 3))
    };
    let order = order(lanes);
    let shown: Vec<Lane> = order
        .iter()
        .take(facilities)
        .map(|n| Lane::Facility(*n))
        .chain((0..lanes.tasks.len()).map(Lane::Task))
        .skip(model.first_lane.min(all))
        .take(rows)
        .collect();
    for (y, lane) in shown.iter().enumerate() {
        let at = line(inside, u16::try_from(y + 1).unwrap_or(u16::MAX));
        let bar = line(chart, u16::try_from(y + 1).unwrap_or(u16::MAX));
        let ellipsis = model.theme.signs.ellipsis;
        let columns = usize::from(LABEL - 1);
        match lane {
            Lane::Facility(n) => {
                let lane = &lanes.facilities[*n];
                let role = facility_role(lane.facility);
                put(
                    model,
                    out,
                    at,
                    0,
                    &pad(lane.facility.name(), columns, ellipsis),
                    role,
                );
                let most = lane.counts.iter().copied().max().unwrap_or(0);
                let style = model.theme.style(role);
                for column in 0..stretch.columns {
                    let count = sum(lanes, &lane.counts, stretch, column);
                    if count > 0 {
                        level(model, out, bar, column, log_level(count, most), style);
                    }
                }
            }
            Lane::Task(n) => {
                let lane = &lanes.tasks[*n];
                let role = if lane.who.tid == 0 {
                    Role::Dim
                } else {
                    Role::Task
                };
                put(
                    model,
                    out,
                    at,
                    0,
                    &lane.who.label_in(columns, ellipsis),
                    role,
                );
                let style = model.theme.style(role);
                for column in 0..stretch.columns {
                    let share = most(lanes, &lane.shares, stretch, column);
                    if share > 0 {
                        level(model, out, bar, column, usize::from(share) * 7 / 255, style);
                    }
                }
            }
        }
    }
    if let Some(why) = lanes.no_tasks
        && shown.len() < rows
    {
        let y = u16::try_from(shown.len() + 1).unwrap_or(u16::MAX);
        put(model, out, line(chart, y), 0, why, Role::Dim);
    }
}

enum Lane {
    Facility(usize),
    Task(usize),
}

/// Facilities as people look for them; the recording's own come last.
fn order(lanes: &Lanes) -> Vec<usize> {
    const ORDER: [&str; 12] = [
        "syscall", "ppram", "irq", "kernel", "task", "passage", "timer", "device", "console",
        "blockdev", "network", "user",
    ];
    let rank = |n: &usize| {
        let name = lanes.facilities[*n].facility.name();
        ORDER.iter().position(|o| *o == name).unwrap_or(ORDER.len())
    };
    let mut all: Vec<usize> = (0..lanes.facilities.len()).collect();
    all.sort_by_key(rank);
    all
}

/// The lanes' columns that a column of the screen covers: one, unless the screen shows another
/// stretch by now.
fn covered(lanes: &Lanes, stretch: Stretch, column: usize) -> Option<(usize, usize)> {
    if lanes.stretch == stretch {
        return Some((column, column));
    }
    let of = lanes.stretch;
    let (from, to) = (
        stretch.tick(column),
        stretch.tick(column + 1).max(stretch.tick(column) + 1),
    );
    let (from, to) = (from.max(of.from), (to - 1).min(of.to.saturating_sub(1)));
    Some((of.column(from)?, of.column(to)?)).filter(|(a, b)| a <= b)
}

fn sum(lanes: &Lanes, counts: &[u64], stretch: Stretch, column: usize) -> u64 {
    let Some((a, b)) = covered(lanes, stretch, column) else {
        return 0;
    };
    counts
        .get(a..=b)
        .map_or(0, |all| all.iter().copied().max().unwrap_or(0))
}

fn most(lanes: &Lanes, shares: &[u8], stretch: Stretch, column: usize) -> u8 {
    let Some((a, b)) = covered(lanes, stretch, column) else {
        return 0;
    };
    shares
        .get(a..=b)
        .and_then(|all| all.iter().copied().max())
        .unwrap_or(0)
}

/// Logarithmic: a burst does not hide the rest.
fn log_level(count: u64, most: u64) -> usize {
    let scale = (most as f64 + 1.0).ln();
    let step = ((count as f64 + 1.0).ln() / scale.max(f64::MIN_POSITIVE) * 7.0).round();
    (step as usize).min(7)
}

fn level(model: &Model, out: &mut Buffer, bar: Rect, column: usize, level: usize, style: Style) {
    let x = u16::try_from(column).unwrap_or(u16::MAX);
    if x < bar.width
        && let Some(cell) = out.cell_mut((bar.x + x, bar.y))
    {
        cell.set_char(model.theme.signs.levels[level.min(7)])
            .set_style(style);
    }
}

/// Oopses, panics, marks, bookmarks, checkpoints, on the first line.
fn flags(model: &Model, inside: Rect, chart: Rect, stretch: Stretch, out: &mut Buffer) {
    let mut sign = |tick: u64, c: char, role: Role| {
        let Some(x) = stretch.column(tick).and_then(|c| u16::try_from(c).ok()) else {
            return;
        };
        if x < chart.width
            && let Some(cell) = out.cell_mut((chart.x + x, chart.y))
        {
            cell.set_char(c).set_style(model.theme.style(role));
        }
    };
    // What matters more is drawn over the rest.
    for flag in model.checkpoints() {
        sign(flag.tick, '.', Role::Dim);
    }
    for note in &model.places.bookmarks {
        sign(note.tick, model.theme.signs.flag, Role::Mark);
    }
    for (letter, mark) in &model.places.letters {
        sign(mark.tick, *letter, Role::Mark);
    }
    for flag in &model.flags {
        match flag.kind {
            Some(EventKind::Oops) => sign(flag.tick, '!', Role::Alarm),
            Some(EventKind::Panic) => sign(flag.tick, 'P', Role::Alarm),
            Some(EventKind::Mark) => sign(flag.tick, model.theme.signs.flag, Role::Mark),
            Some(_) => sign(flag.tick, 'x', Role::Dim),
            None => {}
        }
    }
    for (tick, letter) in model.markers.iter().zip(['A', 'B']) {
        if let Some(tick) = tick {
            sign(*tick, letter, Role::Mark);
        }
    }
    put(model, out, inside, 0, "flags", Role::Dim);
}

/// The cursor and the markers, over all lanes.
fn columns(model: &Model, chart: Rect, stretch: Stretch, out: &mut Buffer) {
    let cursor = match model.theme.palette {
        Palette::Full => model.theme.style(Role::Selected),
        Palette::Sixteen | Palette::Mono => Style::new().add_modifier(Modifier::REVERSED),
    };
    let marker = model.theme.style(Role::Chosen);
    let markers = model.markers.iter().flatten().map(|tick| (*tick, marker));
    for (tick, style) in markers.chain([(model.cursor.tick, cursor)]) {
        let Some(x) = stretch.column(tick).and_then(|c| u16::try_from(c).ok()) else {
            continue;
        };
        for y in chart.y..chart.bottom() {
            let Some(cell) = out.cell_mut((chart.x + x, y)) else {
                continue;
            };
            if cell.symbol() == " " {
                cell.set_char(model.theme.signs.column);
                cell.set_style(
                    model
                        .theme
                        .style(Role::Cursor)
                        .remove_modifier(Modifier::BOLD),
                );
            }
            cell.set_style(style);
        }
    }
}
