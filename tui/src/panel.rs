//! The panels, and where they are on a screen of some size.

use ratatui::layout::Rect;

/// A part of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Panel {
    /// Who did what when.
    Timeline,
    /// The events, one a line.
    Events,
    /// The kernel's log, as an index of time.
    Log,
    /// Bookmarks, marks, the way come.
    Places,
    /// What the guest writes to its console.
    Console,
    /// The guest's tasks.
    Tasks,
    /// The guest's modules.
    Modules,
    /// Instructions.
    Code,
    /// Source lines.
    Source,
    /// Stack frames.
    Stack,
    /// Registers.
    Registers,
    /// Memory.
    Memory,
}

impl Panel {
    /// All of them; their keys are their numbers.
    pub const ALL: [Panel; 12] = [
        Panel::Timeline,
        Panel::Events,
        Panel::Log,
        Panel::Code,
        Panel::Stack,
        Panel::Registers,
        Panel::Memory,
        Panel::Tasks,
        Panel::Places,
        Panel::Modules,
        Panel::Source,
        Panel::Console,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Panel::Timeline => "timeline",
            Panel::Events => "events",
            Panel::Log => "log",
            Panel::Console => "console",
            Panel::Places => "places",
            Panel::Tasks => "tasks",
            Panel::Modules => "modules",
            Panel::Code => "code",
            Panel::Source => "source",
            Panel::Stack => "stack",
            Panel::Registers => "registers",
            Panel::Memory => "memory",
        }
    }

    /// The digit that shows it; the last three have none.
    pub fn digit(self) -> Option<char> {
        let at = Panel::ALL.iter().position(|p| *p == self)?;
        char::from_digit(u32::try_from(at).ok()? + 1, 10)
    }

    /// Its place in [`Panel::ALL`].
    pub fn index(self) -> usize {
        Panel::ALL.iter().position(|p| *p == self).unwrap_or(0)
    }

    /// The panel with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Panel::ALL.into_iter().find(|p| p.name() == name)
    }

    /// A list in which one looks and searches, rather than a part of the machine.
    pub const fn is_list(self) -> bool {
        matches!(
            self,
            Panel::Events
                | Panel::Log
                | Panel::Console
                | Panel::Places
                | Panel::Tasks
                | Panel::Modules
        )
    }
}

/// The smallest screen that is drawn on.
pub const SMALLEST: (u16, u16) = (40, 10);

/// Where everything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Screen {
    /// The bar at the top.
    pub header: Rect,
    /// The bar at the bottom.
    pub footer: Rect,
    /// The panels.
    pub panels: Vec<(Panel, Rect)>,
}

impl Screen {
    /// The place of a panel, if it is shown.
    pub fn place(&self, panel: Panel) -> Option<Rect> {
        self.panels
            .iter()
            .find(|(p, _)| *p == panel)
            .map(|(_, rect)| *rect)
    }

    /// Arranges the panels.
    ///
    /// ```text
    ///  small           medium (110 x 30)        large (180 x 48)
    ///  +----------+    +-----------------+     +--------------------------+
    ///  | timeline |    |    timeline     |     |         timeline         |
    ///  +----------+    +--------+--------+     +---------+--------+-------+
    ///  |          |    |        | code   |     | events  | code   | regs  |
    ///  |  focus   |    | list   +--------+     |         |        +-------+
    ///  |          |    |        | stack  |     +---------+--------+ stack |
    ///  |          |    |        +--------+     | log     | memory +-------+
    ///  |          |    |        | regs   |     |         |        | tasks |
    ///  +----------+    +--------+--------+     +---------+--------+-------+
    /// ```
    ///
    /// `list` and `part` are the panels that were last looked at on the left and on the right.
    pub fn arrange(area: Rect, focus: Panel, list: Panel, part: Panel) -> Self {
        let header = Rect { height: 1, ..area };
        let footer = Rect {
            y: area.bottom().saturating_sub(1),
            height: 1,
            ..area
        };
        let body = Rect {
            y: area.y + 1,
            height: area.height.saturating_sub(2),
            ..area
        };
        let timeline_rows = match body.height {
            0..=14 => 0,
            15..=27 => 8,
            28..=47 => 11,
            _ => 16,
        };
        let (top, rest) = split_rows(body, timeline_rows);
        let mut panels = Vec::new();
        if top.height > 0 {
            panels.push((Panel::Timeline, top));
        }
        if area.width >= 180 && area.height >= 48 {
            large(rest, list, part, &mut panels);
        } else if area.width >= 110 && area.height >= 30 {
            medium(rest, list, part, &mut panels);
        } else {
            let shown = match focus {
                Panel::Timeline if top.height > 0 => list,
                other => other,
            };
            panels.push((shown, rest));
        }
        Screen {
            header,
            footer,
            panels,
        }
    }
}

fn medium(area: Rect, list: Panel, part: Panel, panels: &mut Vec<(Panel, Rect)>) {
    let right = (area.width * 45 / 100).clamp(50, 72);
    let (left, right) = split_columns(area, area.width - right);
    panels.push((list, left));
    match part {
        Panel::Code | Panel::Stack | Panel::Registers => {
            let (code, rest) = split_rows(right, right.height * 2 / 5);
            let registers = 9.min(rest.height / 2 + 1);
            let (stack, registers) = split_rows(rest, rest.height - registers);
            panels.push((Panel::Code, code));
            panels.push((Panel::Stack, stack));
            panels.push((Panel::Registers, registers));
        }
        Panel::Source => {
            let (source, stack) = split_rows(right, right.height * 3 / 5);
            panels.push((Panel::Source, source));
            panels.push((Panel::Stack, stack));
        }
        other => panels.push((other, right)),
    }
}

fn large(area: Rect, list: Panel, part: Panel, panels: &mut Vec<(Panel, Rect)>) {
    let (left, rest) = split_columns(area, area.width * 40 / 100);
    let (middle, right) = split_columns(rest, rest.width * 52 / 100);
    let (upper, lower) = split_rows(left, left.height * 3 / 5);
    let below = if matches!(list, Panel::Events | Panel::Tasks) {
        Panel::Log
    } else {
        list
    };
    panels.push((Panel::Events, upper));
    panels.push((below, lower));
    let (code, memory) = split_rows(middle, middle.height * 3 / 5);
    panels.push((Panel::Code, code));
    let below = if part == Panel::Source {
        Panel::Source
    } else {
        Panel::Memory
    };
    panels.push((below, memory));
    let (registers, rest) = split_rows(right, 15.min(right.height / 2));
    let (stack, tasks) = split_rows(rest, rest.height * 3 / 5);
    panels.push((Panel::Registers, registers));
    panels.push((Panel::Stack, stack));
    panels.push((Panel::Tasks, tasks));
}

fn split_rows(area: Rect, rows: u16) -> (Rect, Rect) {
    let rows = rows.min(area.height);
    let upper = Rect {
        height: rows,
        ..area
    };
    let lower = Rect {
        y: area.y + rows,
        height: area.height - rows,
        ..area
    };
    (upper, lower)
}

fn split_columns(area: Rect, columns: u16) -> (Rect, Rect) {
    let columns = columns.min(area.width);
    let left = Rect {
        width: columns,
        ..area
    };
    let right = Rect {
        x: area.x + columns,
        width: area.width - columns,
        ..area
    };
    (left, right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_cover_the_screen_and_never_overlap() {
        for (width, height) in [
            (40, 10),
            (80, 24),
            (110, 30),
            (120, 40),
            (200, 50),
            (240, 67),
        ] {
            for focus in Panel::ALL {
                let list = if focus.is_list() {
                    focus
                } else {
                    Panel::Events
                };
                let part = if focus.is_list() || focus == Panel::Timeline {
                    Panel::Code
                } else {
                    focus
                };
                let area = Rect::new(0, 0, width, height);
                let screen = Screen::arrange(area, focus, list, part);
                let mut cells = vec![0u8; usize::from(width) * usize::from(height)];
                let rects = screen.panels.iter().map(|(_, rect)| *rect);
                for rect in rects.chain([screen.header, screen.footer]) {
                    for position in rect.positions() {
                        let at = usize::from(position.y) * usize::from(width);
                        cells[at + usize::from(position.x)] += 1;
                    }
                }
                assert!(cells.iter().all(|n| *n == 1), "{width}x{height} {focus:?}");
                let shown = screen.place(focus).is_some();
                assert!(shown || height < 17, "{width}x{height} {focus:?}");
            }
        }
    }
}
