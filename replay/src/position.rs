//! Positions as people write them: one grammar everywhere.
//!
//! `@123456789`, `@1.2G`, `+5000`, `-5000`, `e1234` (an event by its number), `t12.345678` (seconds of
//! the guest), `50%`, `start`, `end`, `panic`, `oops`, `bm:NAME`, `cp:3`, `bp:FUNC#42` (the 42nd time
//! that a function is entered; `bp:FUNC` is the first).

use std::fmt;
use std::str::FromStr;

use colinux_tracer::{EventKind, EventMask, Reader, TraceError};

use crate::entry::Entered;
use crate::timeline::{KeepGoing, Mark, Timeline, TimelineError};
use crate::view::{GuestKernel, ViewError};
use crate::watch::Halt;

/// A position, not yet looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// A tick, or an attempt at one.
    At(Mark),
    /// So many ticks later.
    Later(u64),
    /// So many ticks earlier.
    Earlier(u64),
    /// An event, by its number from 0.
    Event(u64),
    /// Virtual time since power-on, in nanoseconds.
    Time(u64),
    /// A share of the recording, in millionths.
    Share(u64),
    /// Power-on.
    Start,
    /// The last tick.
    End,
    /// The first kernel panic.
    Panic,
    /// The first oops.
    Oops,
    /// A named place.
    Bookmark(String),
    /// A numbered place.
    Checkpoint(u64),
    /// The so-many-th time, from 1, that a function of the guest's kernel is entered: its name, or
    /// the address of an instruction.
    Entry(String, u64),
}

/// Why a position is none.
#[derive(Debug, thiserror::Error)]
pub enum PositionError {
    /// It does not follow the grammar.
    #[error(
        "`{0}` is not a position; write @123456789, @1.2G, +5000, -5000, e1234, t12.345, 50%, \
         start, end, panic, bm:NAME, cp:3 or bp:FUNC#42"
    )]
    Grammar(String),
    /// It names something that cannot be looked up here.
    #[error("`{0}` can be used inside a debugger session only")]
    Here(String),
    /// The recording has no such thing.
    #[error("the recording has no {what}; it ends at @{last}")]
    Missing {
        /// What.
        what: String,
        /// Its last tick.
        last: u64,
    },
    /// A function is not entered so often.
    #[error("`{name}` was entered only {}; the recording ends at @{last}", times(*.count))]
    Fewer {
        /// The function.
        name: String,
        /// How often it is entered.
        count: u64,
        /// The last tick.
        last: u64,
    },
    /// The guest's kernel knows no such name.
    #[error("the guest's kernel has no function `{0}` at the end of the recording")]
    NoFunction(String),
    /// Looking it up was interrupted.
    #[error("interrupted")]
    Interrupted,
    /// The guest's kernel cannot be read.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The recording cannot be read.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The recording cannot be replayed.
    #[error(transparent)]
    Timeline(#[from] TimelineError),
}

fn times(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    }
}

/// A number with an optional fraction, times `unit`; whole in the end.
fn scaled(text: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    if whole.is_empty() && fraction.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole = if whole.is_empty() {
        0
    } else {
        whole.replace('_', "").parse::<u64>().ok()?
    };
    let fraction = fraction.replace('_', "");
    let scale = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part = if fraction.is_empty() {
        0
    } else {
        fraction.parse::<u128>().ok()?
    };
    let part = part.checked_mul(unit.into())?;
    if part % scale != 0 {
        return None;
    }
    u64::try_from(u128::from(whole) * u128::from(unit) + part / scale).ok()
}

/// A number of ticks, with K, M or G.
fn ticks(text: &str) -> Option<u64> {
    let unit = match text.as_bytes().last()? {
        b'K' | b'k' => 1_000,
        b'M' | b'm' => 1_000_000,
        b'G' | b'g' => 1_000_000_000,
        _ => return scaled(text, 1),
    };
    scaled(&text[..text.len() - 1], unit)
}

/// An address or a length, as debuggers write them.
pub fn parse_number(text: &str) -> Option<u64> {
    let text = text.trim();
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(&hex.replace(['_', '`'], ""), 16).ok(),
        None => text.parse().ok(),
    }
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let text = text.trim();
        let wrong = || PositionError::Grammar(text.to_owned());
        let found = match text {
            "start" | "begin" => Some(Position::Start),
            "end" => Some(Position::End),
            "panic" => Some(Position::Panic),
            "oops" => Some(Position::Oops),
            _ => None,
        };
        if let Some(found) = found {
            return Ok(found);
        }
        if let Some(name) = text.strip_prefix("bm:").filter(|name| !name.is_empty()) {
            return Ok(Position::Bookmark(name.to_owned()));
        }
        if let Some(entry) = text.strip_prefix("bp:") {
            let (name, nth) = entry.rsplit_once('#').unwrap_or((entry, "1"));
            return match nth.parse() {
                Ok(nth) if nth > 0 && !name.is_empty() => Ok(Position::Entry(name.to_owned(), nth)),
                _ => Err(wrong()),
            };
        }
        if let Some(number) = text.strip_prefix("cp:") {
            return number
                .parse()
                .map(Position::Checkpoint)
                .map_err(|_| wrong());
        }
        if let Some(share) = text.strip_suffix('%') {
            return match scaled(share, 10_000) {
                Some(share) if share <= 1_000_000 => Ok(Position::Share(share)),
                _ => Err(wrong()),
            };
        }
        let mut rest = text.chars();
        let position = match rest.next() {
            Some('@') => {
                let (tick, attempt) = rest
                    .as_str()
                    .split_once('\'')
                    .unwrap_or((rest.as_str(), "0"));
                let attempt = attempt.parse().map_err(|_| wrong())?;
                ticks(tick).map(|tick| Position::At(Mark { tick, attempt }))
            }
            Some('+') => ticks(rest.as_str()).map(Position::Later),
            Some('-') => ticks(rest.as_str()).map(Position::Earlier),
            Some('e') => rest.as_str().parse().ok().map(Position::Event),
            Some('t') => scaled(rest.as_str(), 1_000_000_000).map(Position::Time),
            Some('0'..='9') => ticks(text).map(|tick| Position::At(Mark::at(tick))),
            _ => None,
        };
        position.ok_or_else(wrong)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Position::At(mark) => write!(f, "{mark}"),
            Position::Later(ticks) => write!(f, "+{ticks}"),
            Position::Earlier(ticks) => write!(f, "-{ticks}"),
            Position::Event(number) => write!(f, "e{number}"),
            Position::Time(ns) => {
                write!(f, "t{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
            }
            Position::Share(share) => write!(f, "{}.{:04}%", share / 10_000, share % 10_000),
            Position::Start => f.write_str("start"),
            Position::End => f.write_str("end"),
            Position::Panic => f.write_str("panic"),
            Position::Oops => f.write_str("oops"),
            Position::Bookmark(name) => write!(f, "bm:{name}"),
            Position::Checkpoint(number) => write!(f, "cp:{number}"),
            Position::Entry(name, nth) => write!(f, "bp:{name}#{nth}"),
        }
    }
}

impl Position {
    /// The tick it means, as far as the file alone can say: `None` for a virtual time and for an
    /// entry. `now` is what it is relative to, `last` the last tick.
    pub fn tick(&self, reader: &Reader, now: u64, last: u64) -> Result<Option<u64>, PositionError> {
        let missing = || PositionError::Missing {
            what: self.to_string(),
            last,
        };
        let first_of = |kind| -> Result<u64, PositionError> {
            let mut events = reader.events().with_kinds(EventMask::of(&[kind]));
            Ok(events.next().ok_or_else(missing)??.tick)
        };
        let tick = match self {
            Position::At(mark) => mark.tick,
            Position::Later(ticks) => now.saturating_add(*ticks),
            Position::Earlier(ticks) => now.saturating_sub(*ticks),
            Position::Event(number) => {
                let mut events = reader.events();
                events.seek_number(*number)?;
                events.next().ok_or_else(missing)??.tick
            }
            Position::Time(_) | Position::Entry(..) => return Ok(None),
            Position::Share(share) => {
                let tick = u128::from(last) * u128::from(*share) / 1_000_000;
                u64::try_from(tick).unwrap_or(last)
            }
            Position::Start => 0,
            Position::End => last,
            Position::Panic => first_of(EventKind::Panic)?,
            Position::Oops => first_of(EventKind::Oops)?,
            Position::Bookmark(_) | Position::Checkpoint(_) => {
                return Err(PositionError::Here(self.to_string()));
            }
        };
        if tick > last {
            Err(missing())
        } else {
            Ok(Some(tick))
        }
    }

    /// The place it means on a timeline. Looking up a virtual time or an entry moves the cursor.
    pub fn find(
        &self,
        reader: &Reader,
        timeline: &mut Timeline,
        keep_going: KeepGoing<'_>,
    ) -> Result<Mark, PositionError> {
        let last = timeline.last_tick();
        match self {
            Position::Time(ns) => {
                let found = timeline.at_time(*ns)?;
                let what = self.to_string();
                return found.ok_or(PositionError::Missing { what, last });
            }
            Position::Entry(name, nth) => {
                let address = match parse_number(name) {
                    Some(address) => address,
                    None => function(name, reader, timeline, keep_going)?,
                };
                return match timeline.entry(address, *nth, keep_going)? {
                    Entered::Here(mark) => Ok(mark),
                    Entered::Interrupted => Err(PositionError::Interrupted),
                    Entered::Only(count) => {
                        let name = name.clone();
                        Err(PositionError::Fewer { name, count, last })
                    }
                };
            }
            _ => {}
        }
        let tick = self.tick(reader, timeline.at().tick, last)?.unwrap_or(last);
        Ok(match self {
            Position::At(mark) => *mark,
            _ => Mark::at(tick),
        })
    }
}

/// Where a function of the guest's kernel or of a module is: what is known at the end holds for the
/// whole recording, unless a module is gone by then.
fn function(
    name: &str,
    reader: &Reader,
    timeline: &mut Timeline,
    keep_going: KeepGoing<'_>,
) -> Result<u64, PositionError> {
    let kernel = GuestKernel::of(reader)?;
    let end = Mark::at(timeline.last_tick());
    if timeline.seek(end, keep_going)? == Halt::Interrupted {
        return Err(PositionError::Interrupted);
    }
    let names = kernel.resolver(timeline.machine_mut());
    let found = names.address_of(name);
    found.map_or_else(
        || Err(PositionError::NoFunction(name.to_owned())),
        |gva| Ok(gva.0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_as_people_write_them() {
        for (text, expected) in [
            ("@123456789", Position::At(Mark::at(123_456_789))),
            ("@1.2G", Position::At(Mark::at(1_200_000_000))),
            ("77", Position::At(Mark::at(77))),
            (
                "@77'2",
                Position::At(Mark {
                    tick: 77,
                    attempt: 2,
                }),
            ),
            ("+5000", Position::Later(5000)),
            ("-1.5K", Position::Earlier(1500)),
            ("e1234", Position::Event(1234)),
            ("t12.345678", Position::Time(12_345_678_000)),
            ("50%", Position::Share(500_000)),
            ("12.5%", Position::Share(125_000)),
            ("start", Position::Start),
            ("end", Position::End),
            ("panic", Position::Panic),
            ("bm:crash", Position::Bookmark("crash".to_owned())),
            ("cp:3", Position::Checkpoint(3)),
            ("bp:do_exit", Position::Entry("do_exit".to_owned(), 1)),
            ("bp:do_exit#42", Position::Entry("do_exit".to_owned(), 42)),
        ] {
            assert_eq!(text.parse::<Position>().unwrap(), expected, "{text}");
            let again: Position = expected.to_string().parse().unwrap();
            assert_eq!(again, expected, "{expected}");
        }
        for wrong in [
            "bp:", "bp:#3", "bp:x#", "bp:x#0", "bp:x#y", "", "@", "@1.23", "1x", "e", "e-1", "t",
            "101%", "%", "bm:", "cp:x", "@1'x", "-", "é",
        ] {
            assert!(wrong.parse::<Position>().is_err(), "{wrong}");
        }
        assert_eq!(parse_number("0xffff_ffff"), Some(0xffff_ffff));
    }
}
