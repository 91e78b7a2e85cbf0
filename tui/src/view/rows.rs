//! Panels that are tables of what is here: tasks, modules, places.

use colinux_replay::Mark;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::{choice, first_line, frame, line, no_machine, put, sentence};
use crate::model::Model;
use crate::panel::Panel;
use crate::places::PlaceLine;
use crate::text::{clean, grouped, pad};
use crate::theme::Role;

/// A cell: its text, its columns (0 for the rest of the line), its looks.
type Cell = (String, usize, Role);

pub(super) fn draw(model: &Model, panel: Panel, rect: Rect, out: &mut Buffer) {
    let table = table(model, panel);
    let facts = match &table {
        Ok(rows) => rows.len().to_string(),
        Err(_) => String::new(),
    };
    let inside = frame(model, panel, rect, &facts, out);
    let rows = match table {
        Ok(rows) => rows,
        Err(Some(why)) => return sentence(model, inside, &why, out),
        Err(None) => return no_machine(model, inside, out),
    };
    if rows.is_empty() {
        let text = match panel {
            Panel::Modules => "no module is loaded here",
            Panel::Places => "no places yet: m names one by a letter, B keeps one in the recording",
            _ => "nothing",
        };
        return sentence(model, inside, text, out);
    }
    let mut chosen = model.chosen_line(panel).min(rows.len() - 1);
    if panel == Panel::Tasks && model.focus != panel {
        // Until one looks for another, the task that runs is to be seen.
        let moment = model.moment.as_ref();
        let tasks = moment.and_then(|m| Some((m.tasks.as_ref().ok()?, m.current?)));
        let runs = tasks.and_then(|(tasks, current)| tasks.iter().position(|t| t.pid == current));
        chosen = runs.unwrap_or(chosen);
    }
    let height = usize::from(inside.height);
    let top = first_line(chosen, rows.len(), height);
    for (y, cells) in rows.iter().enumerate().skip(top).take(height) {
        let at = line(inside, u16::try_from(y - top).unwrap_or(u16::MAX));
        let mut x = 1;
        for (text, columns, role) in cells {
            let text = clean(text);
            let text = if *columns == 0 {
                text
            } else {
                pad(&text, *columns, model.theme.signs.ellipsis)
            };
            x = put(model, out, at, x, &text, *role) + 1;
        }
        if y == chosen && model.focus == panel {
            out.set_style(at, choice(model, panel));
        }
    }
}

/// The rows of a panel; else why there are none, or nothing while that is not known.
fn table(model: &Model, panel: Panel) -> Result<Vec<Vec<Cell>>, Option<String>> {
    if panel == Panel::Places {
        return Ok(places(model).into_iter().map(place_row).collect());
    }
    let moment = model.moment.as_ref().ok_or(None)?;
    if panel == Panel::Modules {
        let modules = moment.modules.as_ref().map_err(|why| Some(why.clone()))?;
        return Ok(modules
            .iter()
            .map(|module| {
                let base = module.base.map_or_else(String::new, |b| format!("{b:#x}"));
                vec![
                    (module.name.clone(), 24, Role::Symbol),
                    (format!("{:>9}", grouped(module.size)), 9, Role::Text),
                    (module.state.to_owned(), 9, Role::Dim),
                    (base, 0, Role::Number),
                ]
            })
            .collect());
    }
    let tasks = moment.tasks.as_ref().map_err(|why| Some(why.clone()))?;
    Ok(tasks
        .iter()
        .map(|task| {
            let runs = Some(task.pid) == moment.current;
            let sign = if runs { model.theme.signs.arrow } else { " " };
            let name = if task.is_kernel {
                format!("[{}]", task.comm)
            } else {
                task.comm.clone()
            };
            let role = match (runs, task.is_kernel) {
                (true, _) => Role::Cursor,
                (_, true) => Role::Dim,
                _ => Role::Task,
            };
            vec![
                (sign.to_owned(), 1, Role::Cursor),
                (format!("{:>6}", task.pid), 6, Role::Text),
                (format!("{:>6}", task.ppid), 6, Role::Dim),
                (task.state.letter().to_string(), 1, Role::Text),
                (name, 0, role),
            ]
        })
        .collect())
}

/// All places that one may go to.
pub fn places(model: &Model) -> Vec<PlaceLine> {
    let mut all = model.places.lines();
    all.extend(model.checkpoints().map(|flag| PlaceLine {
        name: flag.text.clone(),
        mark: Mark::at(flag.tick),
        text: "checkpoint".to_owned(),
    }));
    all
}

fn place_row(place: PlaceLine) -> Vec<Cell> {
    let role = if place.name.starts_with("bm:") || place.name.starts_with('\'') {
        Role::Mark
    } else {
        Role::Dim
    };
    vec![
        (place.name, 16, role),
        (format!("@{}", grouped(place.mark.tick)), 16, Role::Tick),
        (place.text, 0, Role::Text),
    ]
}

/// The rows as text.
pub(super) fn texts(model: &Model, panel: Panel) -> Vec<String> {
    let rows = table(model, panel).unwrap_or_default();
    let joined = |cells: Vec<Cell>| {
        let words: Vec<String> = cells.into_iter().map(|(text, ..)| text).collect();
        words.join(" ").trim().to_owned()
    };
    rows.into_iter().map(joined).collect()
}
