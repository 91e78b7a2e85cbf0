//! Colours and signs: from 256 colours down to none, from Unicode down to ASCII. Nothing is said by
//! colour alone.

use std::env;

use ratatui::style::{Color, Modifier, Style};

/// How much colour the terminal has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Palette {
    /// 256 colours.
    Full,
    /// The sixteen of every terminal, in the user's own shades.
    Sixteen,
    /// None.
    Mono,
}

/// What a piece of the screen means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Ordinary text.
    Text,
    /// What is there to be looked past: frames, labels, zeroes.
    Dim,
    /// The name of a panel.
    Title,
    /// The name and frame of the panel that has the keys.
    Focus,
    /// The line that is chosen, in the panel that has the keys.
    Selected,
    /// The same in another panel.
    Chosen,
    /// The bars at the top and bottom.
    Bar,
    /// A key in the footer.
    Key,
    /// A place in time.
    Tick,
    /// A name of the kernel's.
    Symbol,
    /// A name of a task.
    Task,
    /// A number or address.
    Number,
    /// What has changed since the last moment.
    Changed,
    /// The cursor in the timeline, the next instruction.
    Cursor,
    /// A marker or bookmark.
    Mark,
    /// An oops, a panic, an error.
    Alarm,
    /// What a search looks for.
    Match,
    /// Work that goes on.
    Busy,
    /// Facility: passages.
    Passage,
    /// Facility: interrupts and timers.
    Irq,
    /// Facility: memory.
    Memory,
    /// Facility: system calls.
    Syscall,
    /// Facility: devices and consoles.
    Device,
    /// Facility: the kernel's words.
    Kernel,
}

/// Colour of 256, of 16, and what monochrome has instead.
type Row = (Role, u8, Color, Modifier);

const NONE: Modifier = Modifier::empty();
const BOLD: Modifier = Modifier::BOLD;
const DIM: Modifier = Modifier::DIM;
const REVERSED: Modifier = Modifier::REVERSED;
const UNDERLINED: Modifier = Modifier::UNDERLINED;

/// Foregrounds. The 256 are muted and differ in lightness too, for eyes that mix up red and green.
#[rustfmt::skip]
const ROWS: &[Row] = &[
    (Role::Text,    252, Color::Reset,        NONE),
    (Role::Dim,     243, Color::DarkGray,     DIM),
    (Role::Title,   250, Color::Gray,         NONE),
    (Role::Focus,    80, Color::Cyan,         BOLD),
    (Role::Key,     179, Color::Yellow,       BOLD),
    (Role::Tick,    110, Color::Blue,         NONE),
    (Role::Symbol,  150, Color::Green,        NONE),
    (Role::Task,    182, Color::Magenta,      NONE),
    (Role::Number,  252, Color::Reset,        NONE),
    (Role::Changed, 222, Color::LightYellow,  BOLD),
    (Role::Cursor,  229, Color::LightYellow,  BOLD),
    (Role::Mark,     80, Color::LightCyan,    BOLD),
    (Role::Alarm,   210, Color::LightRed,     BOLD),
    (Role::Match,   222, Color::LightYellow,  UNDERLINED),
    (Role::Busy,    179, Color::Yellow,       BOLD),
    (Role::Passage, 110, Color::Blue,         NONE),
    (Role::Irq,     180, Color::Yellow,       NONE),
    (Role::Memory,  174, Color::Red,          NONE),
    (Role::Syscall, 150, Color::Green,        NONE),
    (Role::Device,  116, Color::Cyan,         NONE),
    (Role::Kernel,  188, Color::White,        NONE),
];

/// The signs that are drawn with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signs {
    /// What is cut off.
    pub ellipsis: &'static str,
    /// From little to much.
    pub levels: &'static [char],
    /// The cursor's column.
    pub column: char,
    /// An instruction that comes next.
    pub arrow: &'static str,
    /// A breakpoint.
    pub breakpoint: &'static str,
    /// A flag in the timeline.
    pub flag: char,
    /// Top left, horizontal, top right, vertical, bottom left, bottom right.
    pub corners: [char; 6],
    /// Between pieces of a bar.
    pub separator: &'static str,
    /// What has not come yet.
    pub waiting: &'static str,
    /// A place where a list goes on.
    pub thumb: char,
}

const UNICODE: Signs = Signs {
    ellipsis: "…",
    levels: &['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'],
    column: '│',
    arrow: "▶",
    breakpoint: "●",
    flag: '▾',
    corners: ['╭', '─', '╮', '│', '╰', '╯'],
    separator: "  ",
    waiting: "…",
    thumb: '┃',
};

const ASCII: Signs = Signs {
    ellipsis: "~",
    levels: &['.', ':', '-', '=', '+', '*', '#', '@'],
    column: '|',
    arrow: ">",
    breakpoint: "*",
    flag: 'v',
    corners: ['+', '-', '+', '|', '+', '+'],
    separator: "  ",
    waiting: "...",
    thumb: '#',
};

/// Colours and signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    /// The colours.
    pub palette: Palette,
    /// The signs.
    pub signs: Signs,
}

impl Theme {
    /// A theme.
    pub const fn new(palette: Palette, ascii: bool) -> Self {
        let signs = if ascii { ASCII } else { UNICODE };
        Theme { palette, signs }
    }

    /// What the environment says of the terminal: `NO_COLOR`, `TERM`, `COLORTERM`, the locale.
    pub fn of_environment(palette: Option<Palette>, ascii: bool) -> Self {
        let get = |name: &str| env::var(name).unwrap_or_default();
        let term = get("TERM");
        let guess = if !get("NO_COLOR").is_empty() {
            Palette::Mono
        } else if term.contains("256") || !get("COLORTERM").is_empty() || term.contains("direct") {
            Palette::Full
        } else if term.starts_with("vt") {
            Palette::Mono
        } else {
            Palette::Sixteen
        };
        // The first of these that is set counts (POSIX, XBD 8.2).
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .iter()
            .map(|name| get(name))
            .find(|value| !value.is_empty())
            .unwrap_or_default()
            .to_uppercase();
        let utf8 = locale.contains("UTF-8") || locale.contains("UTF8");
        Theme::new(palette.unwrap_or(guess), ascii || !utf8)
    }

    /// Whether the signs are ASCII.
    pub fn is_ascii(&self) -> bool {
        self.signs.ellipsis == ASCII.ellipsis
    }

    /// The style of a role.
    pub fn style(&self, role: Role) -> Style {
        match (role, self.palette) {
            (Role::Selected, Palette::Full) => Style::new()
                .fg(Color::Indexed(231))
                .bg(Color::Indexed(24))
                .add_modifier(BOLD),
            (Role::Selected, Palette::Sixteen) => Style::new().add_modifier(REVERSED | BOLD),
            (Role::Selected, Palette::Mono) => Style::new().add_modifier(REVERSED),
            (Role::Chosen, Palette::Full) => Style::new().bg(Color::Indexed(237)),
            (Role::Chosen, Palette::Sixteen | Palette::Mono) => {
                Style::new().add_modifier(UNDERLINED)
            }
            (Role::Bar, Palette::Full) => {
                Style::new().fg(Color::Indexed(252)).bg(Color::Indexed(236))
            }
            (Role::Bar, Palette::Sixteen) => Style::new().add_modifier(NONE),
            (Role::Bar, Palette::Mono) => Style::new(),
            _ => {
                let row = ROWS.iter().find(|row| row.0 == role);
                let (_, full, sixteen, mono) = row.copied().unwrap_or(ROWS[0]);
                match self.palette {
                    Palette::Full => {
                        let style = Style::new().fg(Color::Indexed(full));
                        style.add_modifier(mono & (BOLD | UNDERLINED))
                    }
                    Palette::Sixteen => Style::new()
                        .fg(sixteen)
                        .add_modifier(mono & (BOLD | UNDERLINED)),
                    Palette::Mono => Style::new().add_modifier(mono),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_colour_nothing_has_one() {
        let theme = Theme::new(Palette::Mono, true);
        for role in ROWS
            .iter()
            .map(|row| row.0)
            .chain([Role::Selected, Role::Chosen, Role::Bar])
        {
            let style = theme.style(role);
            assert_eq!((style.fg, style.bg), (None, None), "{role:?}");
        }
        assert!(theme.is_ascii());
        let signs = theme.signs;
        let all: String = signs.levels.iter().chain(&signs.corners).collect();
        let text = [
            signs.ellipsis,
            signs.arrow,
            signs.breakpoint,
            signs.waiting,
            signs.separator,
        ];
        assert!(all.is_ascii() && text.concat().is_ascii());
        assert!(signs.column.is_ascii() && signs.flag.is_ascii() && signs.thumb.is_ascii());
    }
}
