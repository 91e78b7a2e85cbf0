//! What keys do: one table, from which keys are looked up, and the help and the footer are written.

use crate::key::Key;
use crate::panel::Panel;

/// Something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the table says it in words")]
pub enum Action {
    Quit,
    Leave,
    Help,
    Command,
    NextPanel,
    PreviousPanel,
    Up,
    Down,
    HalfUp,
    HalfDown,
    PageUp,
    PageDown,
    First,
    Last,
    Left,
    Right,
    PanLeft,
    PanRight,
    Enter,
    Search,
    SearchNext,
    SearchPrevious,
    Filter,
    Type,
    Source,
    NextOfKind,
    PreviousOfKind,
    ZoomIn,
    ZoomOut,
    ZoomAll,
    MarkerA,
    MarkerB,
    Step,
    StepBack,
    Next,
    NextBack,
    Finish,
    FinishBack,
    Continue,
    ContinueBack,
    RunTo,
    Breakpoint,
    LastWrite,
    SetMark,
    GoMark,
    JumpBack,
    JumpForward,
    Bookmark,
    Gdb,
    Yank,
    YankLine,
    Export,
    Redraw,
    Stop,
}

/// Where keys have this meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everywhere.
    Any,
    /// In lists.
    Lists,
    /// In the panels of the machine and in the timeline.
    Machine,
    /// In these panels.
    In(&'static [Panel]),
}

impl Scope {
    /// Whether a panel is meant.
    pub fn has(self, panel: Panel) -> bool {
        match self {
            Any => true,
            Lists => panel.is_list(),
            Machine => !panel.is_list(),
            In(panels) => panels.contains(&panel),
        }
    }
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// What is done.
    pub action: Action,
    /// By which keys.
    pub keys: &'static [&'static str],
    /// Where.
    pub scope: Scope,
    /// A word for the footer; empty for none.
    pub word: &'static str,
    /// A line for the help.
    pub help: &'static str,
}

/// The groups of the help.
pub const GROUPS: [(&str, &[Action]); 5] = [
    (
        "Move",
        &[
            Action::Down,
            Action::Up,
            Action::HalfDown,
            Action::HalfUp,
            Action::PageDown,
            Action::PageUp,
            Action::First,
            Action::Last,
            Action::NextPanel,
            Action::PreviousPanel,
            Action::Enter,
        ],
    ),
    (
        "Time",
        &[
            Action::Left,
            Action::Right,
            Action::PanLeft,
            Action::PanRight,
            Action::ZoomIn,
            Action::ZoomOut,
            Action::ZoomAll,
            Action::MarkerA,
            Action::MarkerB,
            Action::NextOfKind,
            Action::PreviousOfKind,
        ],
    ),
    (
        "Walk",
        &[
            Action::Step,
            Action::StepBack,
            Action::Next,
            Action::NextBack,
            Action::Finish,
            Action::FinishBack,
            Action::Continue,
            Action::ContinueBack,
            Action::RunTo,
            Action::Breakpoint,
            Action::LastWrite,
        ],
    ),
    (
        "Find",
        &[
            Action::Search,
            Action::SearchNext,
            Action::SearchPrevious,
            Action::Filter,
            Action::SetMark,
            Action::GoMark,
            Action::JumpBack,
            Action::JumpForward,
            Action::Bookmark,
        ],
    ),
    (
        "Other",
        &[
            Action::Command,
            Action::Type,
            Action::Source,
            Action::Gdb,
            Action::Yank,
            Action::YankLine,
            Action::Export,
            Action::Redraw,
            Action::Stop,
            Action::Help,
            Action::Leave,
            Action::Quit,
        ],
    ),
];

use Action as A;
use Panel as P;
use Scope::{Any, In, Lists, Machine};

const fn row(
    action: Action,
    keys: &'static [&'static str],
    scope: Scope,
    word: &'static str,
    help: &'static str,
) -> Binding {
    Binding {
        action,
        keys,
        scope,
        word,
        help,
    }
}

/// The table. The first row that fits counts; the order is that of the footer.
#[rustfmt::skip]
pub const TABLE: &[Binding] = &[
    row(A::Help,           &["?", "F1"],                  Any,                 "help",   "show the keys"),
    row(A::Quit,           &["q", "Ctrl-c"],              Any,                 "quit",   "leave the viewer"),
    row(A::NextPanel,      &["Tab"],                      Any,                 "panel",  "go to the next panel"),
    row(A::PreviousPanel,  &["Shift-Tab"],                Any,                 "",       "go to the panel before"),
    row(A::Search,         &["/"],                        Lists,               "search", "search as you type; small letters find capitals too"),
    row(A::SearchNext,     &["n"],                        Lists,               "next",   "the next match, from the start again after the last"),
    row(A::SearchPrevious, &["N"],                        Lists,               "",       "the match before"),
    row(A::Filter,         &["&"],                        In(&[P::Events]),    "filter", "show only some events: GuestPf task=sh, nr=open*, cpl=3"),
    row(A::NextOfKind,     &["]", "J"],                        In(&[P::Events, P::Log, P::Timeline]), "of kind", "the next event of the same kind"),
    row(A::PreviousOfKind, &["[", "K"],                        In(&[P::Events, P::Log, P::Timeline]), "",       "the event of the same kind before"),
    row(A::Left,           &["h", "Left"],                In(&[P::Timeline, P::Memory]), "back", "a column back; in memory, a byte"),
    row(A::Right,          &["l", "Right"],               In(&[P::Timeline, P::Memory]), "on",   "a column on; in memory, a byte"),
    row(A::PanLeft,        &["H"],                        In(&[P::Timeline]),  "",       "half a screen back"),
    row(A::PanRight,       &["L"],                        In(&[P::Timeline]),  "",       "half a screen on"),
    row(A::MarkerA,        &["a"],                        In(&[P::Timeline, P::Events, P::Log]), "A",    "set marker A here"),
    row(A::MarkerB,        &["b"],                        In(&[P::Timeline, P::Events, P::Log]), "B",    "set marker B here"),
    row(A::Step,           &["s"],                        Any,                 "step",   "one instruction on"),
    row(A::StepBack,       &["S"],                        Any,                 "",       "one instruction back"),
    row(A::Next,           &["n"],                        Machine,             "next",   "one instruction on, over calls"),
    row(A::NextBack,       &["N"],                        Machine,             "",       "one instruction back, over calls"),
    row(A::Finish,         &["f"],                        Any,                 "finish", "on to the caller"),
    row(A::FinishBack,     &["F"],                        Any,                 "",       "back to the call that led here"),
    row(A::Continue,       &["c"],                        Any,                 "cont",   "on to a breakpoint or watched write, or the end"),
    row(A::ContinueBack,   &["C"],                        Any,                 "",       "back to a breakpoint or watched write, or the start"),
    row(A::RunTo,          &["u"],                        In(&[P::Code]),      "until",  "on to the chosen instruction"),
    row(A::Breakpoint,     &["b"],                        In(&[P::Code]),      "break",  "set or remove a breakpoint at the chosen instruction"),
    row(A::LastWrite,      &["w"],                        In(&[P::Memory]),    "writer", "back to what last wrote the chosen eight bytes"),
    row(A::ZoomIn,         &["+", "="],                   Any,                 "zoom",   "show less time"),
    row(A::ZoomOut,        &["-"],                        Any,                 "",       "show more time"),
    row(A::ZoomAll,        &["0"],                        Any,                 "",       "show all of the recording"),
    row(A::Command,        &[":", "Alt-x"],                        Any,                 "command", "a command, or a position to go to; Tab completes"),
    row(A::Type,           &["i"],                        Any,                 "console", "the console; in record --tui, type to the guest until Ctrl-A Esc"),
    row(A::Source,         &["v"],                        Any,                 "source", "the source of the code here, and the code of the source"),
    row(A::SetMark,        &["m"],                        Any,                 "mark",   "name this place by a letter"),
    row(A::GoMark,         &["'"],                        Any,                 "",       "go to the place of a letter; '' to where you came from"),
    row(A::JumpBack,       &["Ctrl-o", "Alt-Left"],       Any,                 "",       "back on the way you came"),
    row(A::JumpForward,    &["Ctrl-i", "Alt-Right"],      Any,                 "",       "forward on the way you came"),
    row(A::Bookmark,       &["B"],                        Any,                 "",       "keep this place in the recording, with a name and words"),
    row(A::Gdb,            &["g"],                        Any,                 "gdb",    "open gdb here, and come back"),
    row(A::Yank,           &["y"],                        Any,                 "yank",   "copy the position (the address, in memory and code)"),
    row(A::YankLine,       &["Y"],                        Any,                 "",       "copy the chosen line"),
    row(A::Export,         &["e"],                        Any,                 "",       "write this panel to a file as text"),
    row(A::Down,           &["j", "Down"],                Any,                 "",       "down"),
    row(A::Up,             &["k", "Up"],                  Any,                 "",       "up"),
    row(A::HalfDown,       &["Ctrl-d"],                   Any,                 "",       "half a page down"),
    row(A::HalfUp,         &["Ctrl-u"],                   Any,                 "",       "half a page up"),
    row(A::PageDown,       &["PgDn", "Space", "Ctrl-f"],  Any,                 "",       "a page down"),
    row(A::PageUp,         &["PgUp", "Ctrl-b"],           Any,                 "",       "a page up"),
    row(A::First,          &["<", "Home"],                Any,                 "",       "to the first line"),
    row(A::Last,           &[">", "G", "End"],            Any,                 "",       "to the last line"),
    row(A::Enter,          &["Enter"],                    Any,                 "",       "follow the chosen line: its place, its task's events, its memory"),
    row(A::Leave,          &["Esc"],                      Any,                 "",       "stop a walk or search, close what is open"),
    row(A::Stop,           &["Ctrl-z"],                   Any,                 "",       "stop the viewer; fg continues it"),
    row(A::Redraw,         &["Ctrl-l"],                   Any,                 "",       "draw the screen again"),
];

/// The row of an action that counts in a panel, else its first.
pub fn binding(action: Action, panel: Panel) -> Option<&'static Binding> {
    let of_action = || TABLE.iter().filter(|row| row.action == action);
    of_action()
        .find(|row| row.scope.has(panel))
        .or_else(|| of_action().next())
}

/// The name of an action as a command: `next-of-kind`.
pub fn name(action: Action) -> String {
    let mut name = String::new();
    for c in format!("{action:?}").chars() {
        if c.is_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(c.to_ascii_lowercase());
    }
    name
}

/// The action with this name.
pub fn of_name(word: &str) -> Option<Action> {
    let named = |row: &&Binding| name(row.action) == word;
    TABLE.iter().find(named).map(|row| row.action)
}

/// All names.
pub fn names() -> impl Iterator<Item = String> {
    let actions = GROUPS.iter().flat_map(|(_, actions)| actions.iter());
    actions.map(|action| name(*action))
}

/// What a key means in a panel.
pub fn of_key(key: Key, panel: Panel) -> Option<Action> {
    let means = |row: &&Binding| {
        row.scope.has(panel) && row.keys.iter().any(|name| Key::named(name) == Some(key))
    };
    TABLE.iter().find(means).map(|row| row.action)
}

/// Keys and words for the footer of a panel, the most useful first.
pub fn footer(panel: Panel) -> impl Iterator<Item = (&'static str, &'static str)> {
    // What this panel alone offers comes first.
    let rank = |scope: Scope| match scope {
        In(_) => 0,
        Lists => 1,
        Machine => 2,
        Any => 3,
    };
    let mut rows: Vec<&Binding> = TABLE
        .iter()
        .filter(|row| !row.word.is_empty() && row.scope.has(panel))
        .collect();
    rows.sort_by_key(|row| match row.action {
        Action::Help => -1,
        _ => rank(row.scope),
    });
    rows.into_iter().map(|row| (row.keys[0], row.word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_name_and_no_key_means_two_things_in_a_panel() {
        for panel in Panel::ALL {
            let mut seen: Vec<Key> = Vec::new();
            for row in TABLE.iter().filter(|row| row.scope.has(panel)) {
                for name in row.keys {
                    let key = Key::named(name).unwrap_or_else(|| panic!("{name} is no key"));
                    assert!(!seen.contains(&key), "{name} in {}", panel.name());
                    seen.push(key);
                }
            }
        }
    }

    #[test]
    fn the_help_has_every_row_once() {
        let grouped: Vec<Action> = GROUPS
            .iter()
            .flat_map(|(_, all)| all.iter().copied())
            .collect();
        for row in TABLE {
            let times = grouped.iter().filter(|a| **a == row.action).count();
            assert_eq!(times, 1, "{:?}", row.action);
            assert!(!row.help.is_empty());
        }
        assert_eq!(grouped.len(), TABLE.len());
    }
}
