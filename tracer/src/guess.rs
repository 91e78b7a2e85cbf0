//! What a column's values are expected to be, so that only the difference is stored.
//!
//! A guest says most things twice: the task that is switched from is the one that was switched to, an
//! interrupt is taken where the passage ended, and the length of a system call is the distance of two
//! ticks. The rules are few, and which one a column follows is written beside it, so that a writer
//! may choose better ones without a new format.

use crate::event::EventKind;
use crate::wire::{Bytes, WireError};

/// A column of a kind of row, by the kind's code and its number among the columns of that kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ColumnRef {
    pub(crate) code: u8,
    pub(crate) column: u8,
}

/// What a value is expected to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guess {
    /// Nothing: the value is stored as it is.
    Nothing,
    /// The latest value of a column: in this row if that column comes before, or in an earlier one.
    Latest(ColumnRef),
    /// The ticks that have passed since the latest row of a kind.
    Since(u8),
    /// The value before it, and the ticks that have passed since: a clock.
    Clock,
    /// What this column held when the other one last held what it holds now.
    With(ColumnRef),
}

impl Guess {
    /// Appends its form in the file.
    pub(crate) fn put(self, out: &mut Vec<u8>) {
        match self {
            Self::Nothing => out.push(0),
            Self::Latest(of) => out.extend_from_slice(&[1, of.code, of.column]),
            Self::Since(code) => out.extend_from_slice(&[2, code]),
            Self::Clock => out.push(3),
            Self::With(of) => out.extend_from_slice(&[4, of.code, of.column]),
        }
    }

    pub(crate) fn get(from: &mut Bytes<'_>) -> Result<Self, WireError> {
        let column = |from: &mut Bytes<'_>| {
            let (code, column) = (from.byte()?, from.byte()?);
            Ok(ColumnRef { code, column })
        };
        Ok(match from.byte()? {
            0 => Self::Nothing,
            1 => Self::Latest(column(from)?),
            2 => Self::Since(from.byte()?),
            3 => Self::Clock,
            4 => Self::With(column(from)?),
            other => return Err(WireError::Guess(other)),
        })
    }
}

/// What this build expects of a field: a word for each rule, fields by name.
enum Rule {
    /// The value before it in the same column.
    Before,
    /// The latest value of that field.
    Same(EventKind, &'static str),
    /// Ticks since the latest event of the kind.
    Since(EventKind),
    Clock,
    /// What went with that field of the same kind.
    With(&'static str),
}

use EventKind as K;
use Rule::{Before, Clock, Same, Since, With};

/// The fields of which something is expected. Addresses are not among them where they repeat: a
/// general compressor finds exact repeats, and differences hide them.
const RULES: &[(EventKind, &str, Rule)] = &[
    (K::PassageLeave, "insns", Since(K::PassageEnter)),
    (K::TaskSwitch, "prev_pid", Same(K::TaskSwitch, "next_pid")),
    (K::TaskSwitch, "prev_tid", Same(K::TaskSwitch, "next_tid")),
    (K::TaskSwitch, "prev_comm", Same(K::TaskSwitch, "next_comm")),
    (K::TaskSwitch, "next_tid", Same(K::TaskSwitch, "next_pid")),
    (K::TaskSwitch, "next_comm", With("next_tid")),
    (K::TaskNew, "pid", Before),
    (K::TaskNew, "tid", Same(K::TaskNew, "pid")),
    (K::TaskNew, "parent", Same(K::TaskSwitch, "next_pid")),
    (K::TaskNew, "comm", Same(K::TaskSwitch, "next_comm")),
    (K::TaskExec, "pid", Same(K::TaskSwitch, "next_pid")),
    (K::TaskExec, "tid", Same(K::TaskSwitch, "next_tid")),
    (K::TaskExit, "pid", Same(K::TaskSwitch, "next_pid")),
    (K::TaskExit, "tid", Same(K::TaskSwitch, "next_tid")),
    (K::TaskExit, "comm", Same(K::TaskSwitch, "next_comm")),
    (K::Cr3Write, "old", Same(K::Cr3Write, "new")),
    (K::IrqDeliver, "rip", Same(K::PassageLeave, "rip")),
    (K::IrqEoi, "vector", Same(K::IrqDeliver, "vector")),
    (K::PpramAlloc, "gpfn", Before),
    (K::IoUnclaimed, "rip", Before),
    (K::Pio, "addr", Before),
    (K::Pio, "rip", Before),
    (K::Mmio, "addr", Before),
    (K::Mmio, "rip", Before),
    (K::SyscallEnter, "args.1", Before),
    (K::SyscallEnter, "args.5", Before),
    (K::SyscallEnter, "rip", Before),
    (K::SyscallExit, "nr", Same(K::SyscallEnter, "nr")),
    (K::SyscallExit, "insns", Since(K::SyscallEnter)),
    (K::BlkSubmit, "id", Before),
    (K::BlkComplete, "id", Same(K::BlkSubmit, "id")),
    (K::BlkComplete, "latency", Since(K::BlkSubmit)),
    (K::TimerProgram, "deadline", Clock),
    (K::KernelLog, "stamp", Clock),
];

/// The kinds whose ticks are expected elsewhere than just after the row before: at even distances, or
/// where a field says.
const TICK_RULES: &[(EventKind, Rule)] = &[
    (K::DigestPoint, Clock),
    (K::IrqForward, Same(K::TimerProgram, "deadline")),
];

/// The column of a field of a kind; of a field with several, that of the number after a full stop.
fn column_of(kind: EventKind, field: &str) -> ColumnRef {
    let (field, word) = field.split_once('.').unwrap_or((field, "0"));
    let before = kind.fields().iter().take_while(|(name, _)| *name != field);
    let columns: usize = before.map(|(_, ty)| ty.columns()).sum();
    ColumnRef {
        code: kind.code(),
        column: columns as u8 + word.parse::<u8>().unwrap_or(0),
    }
}

fn guess(rule: &Rule, this: ColumnRef) -> Guess {
    match rule {
        Before => Guess::Latest(this),
        Same(kind, field) => Guess::Latest(column_of(*kind, field)),
        Since(kind) => Guess::Since(kind.code()),
        Clock => Guess::Clock,
        With(field) => match EventKind::from_code(this.code) {
            Some(kind) => Guess::With(column_of(kind, field)),
            None => Guess::Nothing,
        },
    }
}

/// What this build expects of a column when it writes.
pub(crate) fn of_column(this: ColumnRef) -> Guess {
    let rule = RULES
        .iter()
        .find(|(kind, field, _)| column_of(*kind, field) == this);
    rule.map_or(Guess::Nothing, |(.., rule)| guess(rule, this))
}

/// What this build expects of the ticks of a kind when it writes.
pub(crate) fn of_ticks(code: u8) -> Guess {
    let rule = TICK_RULES.iter().find(|(kind, _)| kind.code() == code);
    let none = ColumnRef { code, column: 0 };
    rule.map_or(Guess::Nothing, |(_, rule)| guess(rule, none))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_name_fields_that_there_are() {
        let is_field = |kind: EventKind, field: &str| {
            let name = field.split('.').next();
            kind.fields().iter().any(|(f, _)| Some(*f) == name)
        };
        for (kind, field, rule) in RULES {
            assert!(is_field(*kind, field), "{kind}.{field}");
            match rule {
                Same(kind, field) => assert!(is_field(*kind, field), "{kind}.{field}"),
                With(other) => assert!(is_field(*kind, other), "{kind}.{other}"),
                Before | Since(_) | Clock => {}
            }
        }
    }

    #[test]
    fn every_rule_reads_back() {
        let of = ColumnRef { code: 7, column: 3 };
        for guess in [
            Guess::Nothing,
            Guess::Latest(of),
            Guess::Since(9),
            Guess::Clock,
            Guess::With(of),
        ] {
            let mut out = Vec::new();
            guess.put(&mut out);
            let mut from = Bytes::new(&out);
            assert_eq!(Guess::get(&mut from), Ok(guess));
            assert!(from.rest().is_empty());
        }
        assert_eq!(Guess::get(&mut Bytes::new(&[5])), Err(WireError::Guess(5)));
    }
}
