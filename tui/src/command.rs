//! What can be typed after `:`.

use std::path::PathBuf;

use colinux_replay::Position;
use colinux_replay::position::parse_number;

use crate::action::{self, Action};
use crate::model::{Model, register_lines};
use crate::panel::Panel;

/// A command, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Go to a position.
    Go(Position),
    /// What a key would do.
    Do(Action),
    /// Show these events.
    Filter(String),
    /// Show a panel.
    Show(Panel),
    /// Show this stretch of time.
    Zoom(Position, Position),
    /// Show memory.
    Memory(u64),
    /// Show memory as a value of a type.
    Print(String, u64),
    /// Stop at an instruction.
    Break(u64),
    /// Stop at writes to a range.
    Watch(u64, u64),
    /// Remove a breakpoint or watch, or all.
    Delete(Option<u64>),
    /// Go to the last write to a range.
    LastWrite(u64, u64),
    /// Run to an instruction.
    Until(u64),
    /// Keep this place.
    Bookmark(String, String),
    /// Write the panel to a file.
    Export(Option<String>),
    /// Look for sources in this folder.
    Source(PathBuf),
    /// End the recording that is being made.
    Stop,
    /// Open gdb.
    Gdb,
    /// Open the file again.
    Reload,
    /// Show the keys.
    Help,
    /// Leave.
    Quit,
}

/// What the words of a command are, for completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Words {
    None,
    Positions,
    Filter,
    Addresses,
    Panels,
    Files,
    Folders,
    TypeThenAddress,
    Free,
}

/// Name, arguments, kind of words, what it does.
type CommandRow = (&'static str, &'static str, Words, &'static str);

/// The table of commands.
#[rustfmt::skip]
const TABLE: &[CommandRow] = &[
    ("seek",       "POSITION",           Words::Positions,       "go there; a position alone does it too"),
    ("filter",     "[EXPRESSION]",       Words::Filter,          "show these events only"),
    ("memory",     "ADDRESS",            Words::Addresses,       "show memory from there on"),
    ("p",          "TYPE ADDRESS",       Words::TypeThenAddress, "show memory as a value of a kernel type"),
    ("last-write", "ADDRESS[:LENGTH]",   Words::Addresses,       "go to what wrote there last"),
    ("break",      "ADDRESS",            Words::Addresses,       "stop at an instruction"),
    ("watch",      "ADDRESS[:LENGTH]",   Words::Addresses,       "stop at writes"),
    ("delete",     "[ADDRESS]",          Words::Addresses,       "remove a breakpoint or watch, or all"),
    ("until",      "ADDRESS",            Words::Addresses,       "run to an instruction"),
    ("zoom",       "FROM TO",            Words::Positions,       "show this stretch of time"),
    ("bookmark",   "NAME [WORDS]",       Words::Free,            "keep this place in the recording"),
    ("panel",      "NAME",               Words::Panels,          "show a panel"),
    ("source",     "DIR",                Words::Folders,          "look for the kernel's source there"),
    ("stop",       "",                   Words::None,            "end the recording that is being made"),
    ("export",     "[FILE]",             Words::Files,           "write this panel as text"),
    ("gdb",        "",                   Words::None,            "open gdb here"),
    ("reload",     "",                   Words::None,            "open the file again"),
    ("help",       "",                   Words::None,            "show the keys"),
    ("quit",       "",                   Words::None,            "leave"),
];

/// Names, arguments and meanings, for the help.
pub fn table() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    TABLE
        .iter()
        .map(|(name, args, _, help)| (*name, *args, *help))
}

/// Understands a line, or says in one sentence why not.
pub fn parse(line: &str, model: &Model) -> Result<Command, String> {
    let line = line.trim();
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    let beginning: Vec<&CommandRow> = TABLE
        .iter()
        .filter(|row| row.0.starts_with(word) && !word.is_empty())
        .collect();
    let exact = TABLE.iter().find(|row| row.0 == word);
    let position = line.parse::<Position>();
    if let (None, true, Some(action)) = (exact, rest.is_empty(), action::of_name(word)) {
        return Ok(Command::Do(action));
    }
    let row = match (exact, beginning.as_slice(), position) {
        (Some(row), ..) => *row,
        (None, _, Ok(position)) => return Ok(Command::Go(position)),
        (None, [row], _) => **row,
        (None, [], Err(_)) => {
            return Err(format!(
                "`{line}` is neither a command nor a position; ? shows both"
            ));
        }
        (None, several, _) => {
            let names: Vec<&str> = several.iter().map(|row| row.0).collect();
            return Err(format!("`{word}` could be {}", names.join(", ")));
        }
    };
    let (name, args, ..) = row;
    let usage = || format!("`{name}` wants {args}");
    let position = |text: &str| text.parse::<Position>().map_err(|error| error.to_string());
    if rest.is_empty() && !args.is_empty() && !args.starts_with('[') {
        return Err(usage());
    }
    Ok(match name {
        "seek" => Command::Go(position(rest)?),
        "filter" => Command::Filter(rest.to_owned()),
        "memory" => Command::Memory(address(rest, model)?),
        "p" => {
            let (kind, at) = rest.rsplit_once(char::is_whitespace).ok_or_else(usage)?;
            Command::Print(kind.trim().to_owned(), address(at, model)?)
        }
        "last-write" | "watch" => {
            let (at, len) = rest.split_once(':').unwrap_or((rest, "8"));
            let len = parse_number(len).filter(|n| *n > 0);
            let len = len.ok_or_else(|| format!("`{rest}`: the length is not a number"))?;
            let at = address(at, model)?;
            if name == "watch" {
                Command::Watch(at, len)
            } else {
                Command::LastWrite(at, len)
            }
        }
        "break" => Command::Break(address(rest, model)?),
        "delete" if rest.is_empty() => Command::Delete(None),
        "delete" => Command::Delete(Some(address(rest, model)?)),
        "until" => Command::Until(address(rest, model)?),
        "zoom" => {
            let (from, to) = rest.split_once(char::is_whitespace).ok_or_else(usage)?;
            Command::Zoom(position(from)?, position(to)?)
        }
        "bookmark" => {
            let (name, text) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
            Command::Bookmark(name.to_owned(), text.trim().to_owned())
        }
        "panel" => {
            let panel = Panel::from_name(rest);
            Command::Show(panel.ok_or_else(|| format!("there is no panel `{rest}`"))?)
        }
        "export" => Command::Export((!rest.is_empty()).then(|| rest.to_owned())),
        "source" => Command::Source(rest.into()),
        "stop" => Command::Stop,
        "gdb" => Command::Gdb,
        "reload" => Command::Reload,
        "quit" => Command::Quit,
        _ => Command::Help,
    })
}

/// An address: terms of numbers, registers and symbols, added or taken away.
pub fn address(text: &str, model: &Model) -> Result<u64, String> {
    let text = text.trim().trim_start_matches('*');
    let mut sum = 0u64;
    let mut sign = '+';
    let mut rest = text;
    loop {
        let end = rest.find(['+', '-']).unwrap_or(rest.len());
        let value = term(rest[..end].trim(), model)?;
        sum = match sign {
            '+' => sum.wrapping_add(value),
            _ => sum.wrapping_sub(value),
        };
        match rest[end..].chars().next() {
            Some(next) => {
                sign = next;
                rest = &rest[end + 1..];
            }
            None => return Ok(sum),
        }
    }
}

fn term(text: &str, model: &Model) -> Result<u64, String> {
    if let Some(number) = parse_number(text) {
        return Ok(number);
    }
    let bare = text.trim_start_matches('$').to_lowercase();
    let registers = model.here().map(|moment| register_lines(&moment.registers));
    let register = registers
        .iter()
        .flatten()
        .find(|(name, _)| *name == bare)
        .map(|(_, value)| *value);
    register
        .or_else(|| model.names.address(text))
        .ok_or_else(|| format!("`{text}` is no number, register or symbol"))
}

/// What could follow, and the column (in characters) of the word that is completed.
pub fn complete(before: &str, model: &Model) -> (Vec<String>, usize) {
    const MOST: usize = 50;
    let start = before.rfind(char::is_whitespace).map_or(0, |at| {
        at + before[at..].chars().next().map_or(1, char::len_utf8)
    });
    let (head, word) = before.split_at(start);
    let column = head.chars().count();
    let is_first = head.trim().is_empty();
    let words = head
        .split_whitespace()
        .next()
        .and_then(|name| TABLE.iter().find(|row| row.0 == name))
        .map_or(Words::None, |row| row.2);
    let mut all: Vec<String> = Vec::new();
    let positions = || {
        let fixed = ["start", "end", "panic", "oops"].map(str::to_owned);
        let bookmarks = model
            .places
            .bookmarks
            .iter()
            .map(|n| format!("bm:{}", n.name));
        let kept = model.checkpoints().map(|flag| flag.text.clone());
        fixed.into_iter().chain(bookmarks).chain(kept)
    };
    if let Some(start) = word.strip_prefix("bp:")
        && (is_first || words == Words::Positions)
    {
        let functions = model.names.beginning(start, MOST);
        all.extend(functions.into_iter().map(|name| format!("bp:{name}#1")));
    }
    if is_first {
        all.extend(TABLE.iter().map(|row| row.0.to_owned()));
        all.extend(action::names());
        all.extend(positions());
    } else {
        match words {
            Words::Positions => all.extend(positions()),
            Words::Files => all.extend(files(word)),
            Words::Folders => {
                all.extend(files(word).into_iter().filter(|name| name.ends_with('/')))
            }
            Words::Panels => all.extend(Panel::ALL.map(|p| p.name().to_owned())),
            Words::Addresses => all.extend(model.names.beginning(word, MOST)),
            Words::TypeThenAddress if head.split_whitespace().count() > 1 => {
                all.extend(model.names.beginning(word, MOST));
            }
            Words::TypeThenAddress => {
                let common = [
                    "task_struct",
                    "pt_regs",
                    "mm_struct",
                    "file",
                    "inode",
                    "page",
                ];
                all.extend(common.map(str::to_owned));
            }
            Words::Filter => all.extend(filter_words()),
            Words::None | Words::Free => {}
        }
    }
    all.retain(|offer| offer.starts_with(word) || offer.to_lowercase().starts_with(word));
    all.truncate(MOST);
    (all, column)
}

/// Names of files and folders that begin like this.
fn files(word: &str) -> Vec<String> {
    let (folder, begins) = word.rsplit_once('/').map_or(("", word), |(f, b)| (f, b));
    let prefix = &word[..word.len() - begins.len()];
    let folder = match (prefix, folder) {
        ("", _) => ".",
        (_, "") => "/",
        (_, folder) => folder,
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let end = if entry.path().is_dir() { "/" } else { "" };
            (!name.starts_with('.') || begins.starts_with('.'))
                .then(|| format!("{prefix}{name}{end}"))
        })
        .collect();
    names.sort();
    names
}

/// What a filter can begin with.
pub fn filter_words() -> impl Iterator<Item = String> {
    use colinux_tracer::{EventKind, Facility};
    let kinds = EventKind::ALL.iter().map(|kind| kind.name().to_owned());
    let facilities = Facility::ALL.iter().map(|f| f.name().to_owned());
    let fields = [
        "task=", "tid=", "sym=", "nr=", "cpl=", "rip=", "gva=", "not", "or",
    ];
    kinds.chain(facilities).chain(fields.map(str::to_owned))
}
