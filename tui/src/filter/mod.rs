//! Filter expressions: which events a list shows.
//!
//! `GuestPf`, `syscall`, `task=sh`, `tid=42`, `nr=openat`, `sym=copy_*`, `latency>1000`, `"text"`, put
//! together by `and` (or nothing), `or`, `not` and parentheses.

mod parse;

use std::fmt;

use colinux_tracer::{Event, EventKind, EventMask};
use serde_json::Value;

use crate::describe;
use crate::names::Names;
use crate::row::{Row, Who};

use parse::{Parser, tokens};

/// Why a filter is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("filter: {what} at column {column}")]
pub struct FilterError {
    what: String,
    column: usize,
}

/// How a field is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Equal,
    Unequal,
    Less,
    AtMost,
    More,
    AtLeast,
}

/// What a field is compared with.
#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Number(i128),
    Glob(String),
}

#[derive(Clone, Debug, PartialEq)]
enum Expr {
    All,
    /// The kernel's words, and what programs write to the console.
    Log,
    Kinds(Vec<EventKind>),
    Task(Relation, Operand),
    Tid(Relation, Operand),
    Symbol(Relation, String),
    Field(String, Relation, Operand),
    Text(String),
    Not(Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
}

/// Which events a list shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    text: String,
    expr: Expr,
    mask: EventMask,
}

impl Default for Filter {
    fn default() -> Self {
        Filter {
            text: String::new(),
            expr: Expr::All,
            mask: EventMask::ALL,
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Filter {
    /// Reads an expression; an empty one lets everything through.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let tokens = tokens(text)?;
        let mut parser = Parser { tokens, at: 0 };
        let expr = if parser.tokens.is_empty() {
            Expr::All
        } else {
            parser.either()?
        };
        if let Some((token, column)) = parser.tokens.get(parser.at) {
            return Err(FilterError {
                what: format!("`{token}` is one too many"),
                column: *column,
            });
        }
        let mask = mask(&expr);
        Ok(Filter {
            text: text.trim().to_owned(),
            expr,
            mask,
        })
    }

    /// What the kernel and programs have said. Lines of the kernel's log that are on the console as
    /// well are left out there, unless only the console has them.
    pub fn of_log(has_log: bool) -> Self {
        let kinds = Expr::Kinds(LOG_KINDS.to_vec());
        let mask = mask(&kinds);
        Filter {
            text: String::new(),
            expr: if has_log { Expr::Log } else { kinds },
            mask,
        }
    }

    /// Everything passes.
    pub fn is_open(&self) -> bool {
        self.expr == Expr::All
    }

    /// Kinds that may pass: others need not be read.
    pub const fn mask(&self) -> EventMask {
        self.mask
    }

    /// The kind alone decides.
    pub fn is_by_kind(&self) -> bool {
        matches!(self.expr, Expr::All | Expr::Kinds(_))
    }

    /// Whether an event passes. `who` is asked only if need be.
    pub fn passes(&self, row: &mut Candidate<'_>) -> bool {
        passes(&self.expr, row)
    }
}

/// An event that may pass.
pub struct Candidate<'a> {
    /// It.
    pub event: &'a Event,
    /// Who was running.
    pub who: &'a mut dyn FnMut() -> Option<Who>,
    /// Names.
    pub names: &'a Names,
}

impl fmt::Debug for Candidate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Candidate").field(self.event).finish()
    }
}

fn passes(expr: &Expr, row: &mut Candidate<'_>) -> bool {
    match expr {
        Expr::All => true,
        Expr::Log => match row.event {
            Event::ConsoleOut { bytes, .. } => !is_stamped(bytes),
            other => LOG_KINDS.contains(&other.kind()),
        },
        Expr::Kinds(kinds) => kinds.contains(&row.event.kind()),
        Expr::Task(relation, operand) => (row.who)().is_some_and(|who| match operand {
            Operand::Number(n) => compares(i128::from(who.tid), *relation, *n),
            Operand::Glob(pattern) => {
                let label = who.label();
                let is = glob(pattern, &who.comm.to_text()) || glob(pattern, &label);
                is == (*relation == Relation::Equal)
            }
        }),
        Expr::Tid(relation, operand) => match operand {
            Operand::Number(n) => {
                (row.who)().is_some_and(|who| compares(i128::from(who.tid), *relation, *n))
            }
            Operand::Glob(_) => false,
        },
        Expr::Symbol(relation, pattern) => {
            let is = addresses(row.event).into_iter().any(|gva| {
                row.names
                    .function(gva)
                    .is_some_and(|name| glob(pattern, name))
            });
            is == (*relation == Relation::Equal)
        }
        Expr::Field(name, relation, operand) => {
            let fields = describe::fields(row.event);
            let value = fields.iter().find(|(known, _)| known == name);
            value.is_some_and(|(_, value)| field(value, *relation, operand, row.names))
        }
        Expr::Text(part) => {
            let row = Row {
                number: 0,
                tick: 0,
                event: row.event.clone(),
                who: (row.who)(),
            }
            .text(row.names);
            contains(&row, part)
        }
        Expr::Not(inner) => !passes(inner, row),
        Expr::And(a, b) => passes(a, row) && passes(b, row),
        Expr::Or(a, b) => passes(a, row) || passes(b, row),
    }
}

/// Kinds of events that say something in words.
const LOG_KINDS: [EventKind; 5] = [
    EventKind::KernelLog,
    EventKind::Oops,
    EventKind::Panic,
    EventKind::Mark,
    EventKind::ConsoleOut,
];

/// Whether a line begins as the kernel begins those of its log: `[    1.213874] `.
fn is_stamped(line: &[u8]) -> bool {
    let stamp = line.strip_prefix(b"[").unwrap_or_default();
    let end = stamp.iter().position(|byte| *byte == b']');
    end.is_some_and(|end| {
        let stamp = stamp[..end].trim_ascii_start();
        let dots = stamp.iter().filter(|byte| **byte == b'.').count();
        dots == 1
            && stamp
                .iter()
                .all(|byte| byte.is_ascii_digit() || *byte == b'.')
    })
}

/// Whether a text has another in it; capitals count only where the part has some.
pub fn contains(text: &str, part: &str) -> bool {
    if part.chars().any(char::is_uppercase) {
        text.contains(part)
    } else {
        text.to_lowercase().contains(part)
    }
}

fn compares(a: i128, relation: Relation, b: i128) -> bool {
    match relation {
        Relation::Equal => a == b,
        Relation::Unequal => a != b,
        Relation::Less => a < b,
        Relation::AtMost => a <= b,
        Relation::More => a > b,
        Relation::AtLeast => a >= b,
    }
}

fn field(value: &Value, relation: Relation, operand: &Operand, names: &Names) -> bool {
    let number = value
        .as_u64()
        .map(i128::from)
        .or_else(|| value.as_i64().map(i128::from))
        .or_else(|| value.as_bool().map(i128::from));
    match (operand, number) {
        (Operand::Number(n), Some(a)) => compares(a, relation, *n),
        (Operand::Glob(pattern), Some(a)) => {
            let symbol = u64::try_from(a).ok().and_then(|gva| names.function(gva));
            symbol.is_some_and(|name| glob(pattern, name)) == (relation == Relation::Equal)
        }
        (Operand::Glob(pattern), None) => {
            let text = value.as_str().unwrap_or_default();
            glob(pattern, text) == (relation == Relation::Equal)
        }
        (Operand::Number(n), None) => match value {
            Value::Array(items) => items.iter().any(|item| {
                item.as_u64()
                    .is_some_and(|a| compares(a.into(), relation, *n))
            }),
            _ => value.as_str() == Some(&n.to_string()),
        },
    }
}

/// The addresses in an event that may have names.
fn addresses(event: &Event) -> Vec<u64> {
    describe::fields(event)
        .into_iter()
        .filter(|(name, _)| matches!(name.as_str(), "rip" | "gva" | "base"))
        .filter_map(|(_, value)| value.as_u64())
        .collect()
}

/// `*` is any text, `?` any one character.
pub fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && (pattern[p] == '?' || pattern[p] == text[t]) && pattern[p] != '*' {
            (p, t) = (p + 1, t + 1);
        } else if p < pattern.len() && pattern[p] == '*' {
            star = Some((p, t));
            p += 1;
        } else if let Some((from, at)) = star {
            star = Some((from, at + 1));
            (p, t) = (from + 1, at + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Kinds that may pass an expression.
fn mask(expr: &Expr) -> EventMask {
    let kinds = |wanted: &dyn Fn(EventKind) -> bool| {
        let list: Vec<EventKind> = EventKind::ALL
            .iter()
            .copied()
            .filter(|k| wanted(*k))
            .collect();
        EventMask::of(&list)
    };
    match expr {
        Expr::Kinds(list) => EventMask::of(list),
        Expr::Field(name, ..) => kinds(&|kind| kind.fields().iter().any(|(f, _)| f == name)),
        Expr::Not(inner) => match &**inner {
            Expr::Kinds(list) => kinds(&|kind| !list.contains(&kind)),
            _ => EventMask::ALL,
        },
        Expr::And(a, b) => {
            let (a, b) = (mask(a), mask(b));
            if a == EventMask::ALL {
                return b;
            }
            if b == EventMask::ALL {
                return a;
            }
            kinds(&|kind| a.contains(kind) && b.contains(kind))
        }
        Expr::Or(a, b) => {
            let (a, b) = (mask(a), mask(b));
            if a == EventMask::ALL || b == EventMask::ALL {
                return EventMask::ALL;
            }
            kinds(&|kind| a.contains(kind) || b.contains(kind))
        }
        _ => EventMask::ALL,
    }
}

#[cfg(test)]
mod tests {
    use colinux_tracer::Comm;

    use super::*;

    fn lets(filter: &str, event: &Event) -> bool {
        let filter = Filter::parse(filter).unwrap_or_else(|error| panic!("{filter}: {error}"));
        let who = Who {
            tid: 42,
            comm: Comm::new(b"sh"),
        };
        let passes = filter.passes(&mut Candidate {
            event,
            who: &mut || Some(who),
            names: &Names::default(),
        });
        assert!(!passes || filter.mask().contains(event.kind()), "{filter}");
        passes
    }

    #[test]
    fn expressions_choose() {
        let fault = Event::GuestPf {
            gva: 0x5000,
            gpa: 0,
            error: 6,
            rip: 0x401000,
            cpl: 3,
        };
        let call = Event::SyscallEnter {
            nr: 257,
            args: [3, 0, 0, 0, 0, 0],
            rip: 0x401000,
        };
        for (filter, on_fault, on_call) in [
            ("", true, true),
            ("GuestPf", true, false),
            ("guestpf", true, false),
            ("syscall", false, true),
            ("Guest*", true, false),
            ("GuestPf task=sh", true, false),
            ("GuestPf task=sh-42", true, false),
            ("GuestPf and task=init", false, false),
            ("tid=42", true, true),
            ("tid!=42", false, false),
            ("not GuestPf", false, true),
            ("!GuestPf", false, true),
            ("GuestPf or SyscallEnter", true, true),
            ("(GuestPf or SyscallEnter) cpl=3", true, false),
            ("cpl=3", true, false),
            ("gva>=0x5000 gva<0x6000", true, false),
            ("gva>0x5000", false, false),
            ("nr=openat", false, true),
            ("nr=open*", false, true),
            ("nr!=openat", true, false),
            ("args=3", false, true),
            ("\"absent\"", true, false),
            ("openat", false, true),
            ("kind=GuestPf", true, false),
            ("kind!=GuestPf", false, true),
            ("sym=nothing", false, false),
        ] {
            assert_eq!(lets(filter, &fault), on_fault, "{filter}");
            assert_eq!(lets(filter, &call), on_call, "{filter}");
        }
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (filter, expected) in [
            ("(GuestPf", "a parenthesis is not closed at column 9"),
            ("GuestPf )", "`)` is one too many at column 9"),
            ("a or", "something is missing at column 5"),
            ("\"a", "a quote is not closed at column 1"),
            ("gvb=1", "no event has a field `gvb` at column 1"),
            ("x gva>y", "`y` is not a number at column 3"),
            ("gva=", "`gva=` is not FIELD=VALUE at column 1"),
            ("or", "`or` has nothing before it at column 1"),
            ("nr=opne", "there is no system call `opne` at column 1"),
        ] {
            let error = Filter::parse(filter).unwrap_err().to_string();
            assert_eq!(error, format!("filter: {expected}"));
        }
    }

    #[test]
    fn the_kernel_speaks_once() {
        for (line, expected) in [
            (&b"[    1.213874] Run /init\r\n"[..], true),
            (b"[12345.678901] x", true),
            (b"[ok] a service", false),
            (b"[  OK  ] Started", false),
            (b"hello", false),
            (b"[1", false),
            (b"", false),
        ] {
            assert_eq!(is_stamped(line), expected);
        }
    }

    #[test]
    fn globs() {
        for (pattern, text, expected) in [
            ("copy_*", "copy_page", true),
            ("*page", "copy_page", true),
            ("c?py*g?", "copy_page", true),
            ("*", "", true),
            ("", "a", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b", "abc", false),
        ] {
            assert_eq!(glob(pattern, text), expected, "{pattern} {text}");
        }
    }
}
