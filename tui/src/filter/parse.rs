//! From the text of a filter to its expression.

use colinux_tracer::{EventKind, Facility};

use super::{Expr, FilterError, Operand, Relation, glob};
use crate::syscalls;

/// Words with the columns where they begin, from 1. A quoted text keeps its first quote.
pub(super) fn tokens(text: &str) -> Result<Vec<(String, usize)>, FilterError> {
    let mut found = Vec::new();
    let mut word = String::new();
    let mut begins = 0;
    let mut chars = text.chars().enumerate().peekable();
    let close = |word: &mut String, begins: usize, found: &mut Vec<(String, usize)>| {
        if !word.is_empty() {
            found.push((std::mem::take(word), begins));
        }
    };
    while let Some((at, c)) = chars.next() {
        match c {
            c if c.is_whitespace() => close(&mut word, begins, &mut found),
            '(' | ')' => {
                close(&mut word, begins, &mut found);
                found.push((c.to_string(), at + 1));
            }
            '"' => {
                let in_word = !word.is_empty();
                if !in_word {
                    begins = at + 1;
                    word.push('"');
                }
                loop {
                    match chars.next() {
                        Some((_, '"')) => break,
                        Some((_, c)) => word.push(c),
                        None => {
                            return Err(FilterError {
                                what: "a quote is not closed".to_owned(),
                                column: at + 1,
                            });
                        }
                    }
                }
                if !in_word {
                    close(&mut word, begins, &mut found);
                }
            }
            '!' if word.is_empty() && chars.peek().is_none_or(|(_, next)| *next != '=') => {
                found.push(("not".to_owned(), at + 1));
            }
            c => {
                if word.is_empty() {
                    begins = at + 1;
                }
                word.push(c);
            }
        }
    }
    close(&mut word, begins, &mut found);
    Ok(found)
}

pub(super) struct Parser {
    pub(super) tokens: Vec<(String, usize)>,
    pub(super) at: usize,
}

impl Parser {
    fn peek(&self) -> Option<&str> {
        self.tokens.get(self.at).map(|(token, _)| token.as_str())
    }

    fn take(&mut self, words: &[&str]) -> bool {
        let is = self.peek().is_some_and(|token| words.contains(&token));
        self.at += usize::from(is);
        is
    }

    pub(super) fn either(&mut self) -> Result<Expr, FilterError> {
        let mut expr = self.both()?;
        while self.take(&["or", "||"]) {
            expr = Expr::Or(Box::new(expr), Box::new(self.both()?));
        }
        Ok(expr)
    }

    fn both(&mut self) -> Result<Expr, FilterError> {
        let mut expr = self.one()?;
        loop {
            let spoken = self.take(&["and", "&&"]);
            let more = self.peek().is_some_and(|t| !matches!(t, ")" | "or" | "||"));
            if !spoken && !more {
                return Ok(expr);
            }
            expr = Expr::And(Box::new(expr), Box::new(self.one()?));
        }
    }

    fn one(&mut self) -> Result<Expr, FilterError> {
        if self.take(&["not"]) {
            return Ok(Expr::Not(Box::new(self.one()?)));
        }
        if self.take(&["("]) {
            let expr = self.either()?;
            if !self.take(&[")"]) {
                return Err(self.wrong("a parenthesis is not closed"));
            }
            return Ok(expr);
        }
        let Some((token, column)) = self.tokens.get(self.at).cloned() else {
            return Err(self.wrong("something is missing"));
        };
        if matches!(token.as_str(), ")" | "or" | "and" | "&&" | "||") {
            return Err(self.wrong(&format!("`{token}` has nothing before it")));
        }
        self.at += 1;
        primary(&token, column)
    }

    fn wrong(&self, what: &str) -> FilterError {
        let end = self.tokens.last().map_or(1, |(t, c)| c + t.chars().count());
        FilterError {
            what: what.to_owned(),
            column: self.tokens.get(self.at).map_or(end, |(_, column)| *column),
        }
    }
}

const RELATIONS: [(&str, Relation); 7] = [
    ("==", Relation::Equal),
    ("!=", Relation::Unequal),
    ("<=", Relation::AtMost),
    (">=", Relation::AtLeast),
    ("=", Relation::Equal),
    ("<", Relation::Less),
    (">", Relation::More),
];

fn primary(token: &str, column: usize) -> Result<Expr, FilterError> {
    if let Some(text) = token.strip_prefix('"') {
        return Ok(Expr::Text(text.to_owned()));
    }
    let split = RELATIONS
        .iter()
        .filter_map(|(sign, relation)| Some((token.find(sign)?, *sign, *relation)))
        .min_by_key(|(at, sign, _)| (*at, std::cmp::Reverse(sign.len())));
    let Some((at, sign, relation)) = split else {
        return Ok(named(token));
    };
    let (name, value) = (&token[..at], &token[at + sign.len()..]);
    if name.is_empty() || value.is_empty() {
        return Err(FilterError {
            what: format!("`{token}` is not FIELD{sign}VALUE"),
            column,
        });
    }
    comparison(name, relation, value).map_err(|what| FilterError { what, column })
}

/// A word alone: a kind, a facility, or text to look for.
fn named(word: &str) -> Expr {
    let pattern = word.to_lowercase();
    let kinds: Vec<EventKind> = EventKind::ALL
        .iter()
        .copied()
        .filter(|kind| glob(&pattern, &kind.name().to_lowercase()))
        .collect();
    let facility = Facility::from_name(&pattern);
    let of_facility = EventKind::ALL
        .iter()
        .copied()
        .filter(|kind| Some(kind.facility()) == facility);
    let all: Vec<EventKind> = if kinds.is_empty() {
        of_facility.collect()
    } else {
        kinds
    };
    if all.is_empty() {
        Expr::Text(word.to_owned())
    } else {
        Expr::Kinds(all)
    }
}

fn comparison(name: &str, relation: Relation, value: &str) -> Result<Expr, String> {
    let number = number(value);
    let ordered = !matches!(relation, Relation::Equal | Relation::Unequal);
    if ordered && number.is_none() {
        return Err(format!("`{value}` is not a number"));
    }
    let operand = number.map_or_else(|| Operand::Glob(value.to_owned()), Operand::Number);
    Ok(match name {
        "task" | "comm" => Expr::Task(relation, operand),
        "tid" => Expr::Tid(relation, operand),
        "sym" | "symbol" => Expr::Symbol(relation, value.to_owned()),
        "kind" | "facility" => match named(value) {
            Expr::Kinds(kinds) if relation == Relation::Equal => Expr::Kinds(kinds),
            Expr::Kinds(kinds) => Expr::Not(Box::new(Expr::Kinds(kinds))),
            _ => return Err(format!("there is no kind of event `{value}`")),
        },
        // A system call by its name.
        "nr" if number.is_none() => {
            let all = (0..512u32).filter(|n| syscalls::name(*n).is_some_and(|s| glob(value, s)));
            let any = all
                .map(|n| Expr::Field("nr".to_owned(), Relation::Equal, Operand::Number(n.into())))
                .reduce(|a, b| Expr::Or(Box::new(a), Box::new(b)));
            let any = any.ok_or_else(|| format!("there is no system call `{value}`"))?;
            match relation {
                Relation::Unequal => Expr::Not(Box::new(any)),
                _ => any,
            }
        }
        field => {
            let known = EventKind::ALL
                .iter()
                .any(|kind| kind.fields().iter().any(|(f, _)| *f == field));
            if !known {
                return Err(format!("no event has a field `{field}`"));
            }
            Expr::Field(field.to_owned(), relation, operand)
        }
    })
}

fn number(text: &str) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    let value = match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(&hex.replace('_', ""), 16).ok(),
        None => digits.replace('_', "").parse::<u64>().ok(),
    };
    value.map(|n| sign * i128::from(n))
}
