//! Instructions, and source.

use colinux_replay::disasm::Flow;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::{choice, first_line, frame, line, no_machine, put, sentence};
use crate::model::Model;
use crate::panel::Panel;
use crate::theme::Role;

pub(super) fn draw(model: &Model, rect: Rect, out: &mut Buffer) {
    let Some(moment) = &model.moment else {
        let inside = frame(model, Panel::Code, rect, "", out);
        no_machine(model, inside, out);
        return;
    };
    let name = match &moment.function {
        Some(name) => name.clone(),
        None => format!("{:#x}", moment.registers.rip),
    };
    let stale = model.here().is_none();
    let facts = if stale {
        format!("{name} {}", model.theme.signs.waiting)
    } else {
        name
    };
    let inside = frame(model, Panel::Code, rect, &facts, out);
    if moment.code.is_empty() {
        let text = format!("no memory is mapped at {:#x}", moment.registers.rip);
        sentence(model, inside, &text, out);
        return;
    }
    let rip = moment.registers.rip;
    let chosen = model.code_address();
    let height = usize::from(inside.height);
    let top = top(model, height);
    for (y, insn) in moment.code.iter().skip(top).take(height).enumerate() {
        let at = line(inside, u16::try_from(y).unwrap_or(u16::MAX));
        let is_next = insn.address == rip;
        let (sign, role) = match (is_next, model.breakpoints.contains(&insn.address)) {
            (true, _) => (model.theme.signs.arrow, Role::Cursor),
            (_, true) => (model.theme.signs.breakpoint, Role::Alarm),
            _ => (" ", Role::Dim),
        };
        put(model, out, at, 0, sign, role);
        // Kernel addresses differ in their lower halves.
        let address = if rect.width < 64 && insn.address >> 32 == 0xffff_ffff {
            format!("{:08x}", insn.address & 0xffff_ffff)
        } else {
            format!("{:016x}", insn.address)
        };
        let x = put(model, out, at, 2, &address, Role::Dim) + 1;
        let role = match insn.flow {
            _ if is_next => Role::Cursor,
            Flow::Next => Role::Text,
            Flow::Call | Flow::Return => Role::Symbol,
            Flow::Jump => Role::Key,
            Flow::Invalid => Role::Alarm,
        };
        put(model, out, at, x, &insn.text, role);
        if Some(insn.address) == chosen && (model.focus == Panel::Code || is_next) {
            out.set_style(at, choice(model, Panel::Code));
        }
    }
}

/// The first instruction shown, of so many.
pub(super) fn top(model: &Model, height: usize) -> usize {
    let code = model.moment.as_ref().map_or(&[][..], |moment| &moment.code);
    let chosen = model.code_address();
    let at = code.iter().position(|insn| Some(insn.address) == chosen);
    first_line(at.unwrap_or(0), code.len(), height)
}

/// The chosen instruction.
pub(super) fn chosen_text(model: &Model) -> Option<String> {
    let at = model.code_address()?;
    let moment = model.moment.as_ref()?;
    let insn = moment.code.iter().find(|insn| insn.address == at)?;
    Some(format!("{} {}", model.names.place(at), insn.text))
}

pub(super) fn draw_source(model: &Model, rect: Rect, out: &mut Buffer) {
    let Some(moment) = &model.moment else {
        let inside = frame(model, Panel::Source, rect, "", out);
        no_machine(model, inside, out);
        return;
    };
    let source = match &moment.source {
        Ok(source) => source,
        Err(why) => {
            let inside = frame(model, Panel::Source, rect, "", out);
            sentence(model, inside, why, out);
            return;
        }
    };
    let facts = format!("{}:{}", source.file, source.line);
    let inside = frame(model, Panel::Source, rect, &facts, out);
    let current = source.current();
    let chosen = model.source_line();
    let height = usize::from(inside.height);
    let top = source_top(model, height);
    for (y, text) in source.lines.iter().enumerate().skip(top).take(height) {
        let at = line(inside, u16::try_from(y - top).unwrap_or(u16::MAX));
        let number = format!("{:>6}", source.first as usize + y);
        put(model, out, at, 0, &number, Role::Dim);
        let role = if y == current {
            Role::Cursor
        } else {
            Role::Text
        };
        let sign = if y == current {
            model.theme.signs.arrow
        } else {
            " "
        };
        put(model, out, at, 7, sign, Role::Cursor);
        put(model, out, at, 9, text, role);
        if chosen == Some(y) {
            out.set_style(at, choice(model, Panel::Source));
        }
    }
}

/// The first line shown, of so many.
pub(super) fn source_top(model: &Model, height: usize) -> usize {
    let source = model.moment.as_ref().and_then(|m| m.source.as_ref().ok());
    let lines = source.map_or(0, |source| source.lines.len());
    first_line(model.source_line().unwrap_or(0), lines, height)
}
