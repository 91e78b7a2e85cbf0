//! Where the content of memory comes from: who wrote there last.

use std::fmt;

use colinux_driver::debug::{WatchHit, WatchSpace};
use colinux_symbols::{Gva, Resolver};

use crate::gdb::{read_physical, read_virtual};
use crate::position::parse_number;
use crate::timeline::{KeepGoing, Mark, Timeline, TimelineError};
use crate::view::GuestKernel;
use crate::watch::{Halt, Stops, Watched, watch};

/// Bytes that are meant where nothing else is said: a pointer.
const LEN: u64 = 8;
/// The most bytes to ask about at once.
const LEN_MAX: u64 = 4096;
/// Bytes whose content is shown.
const SHOWN: usize = 8;

/// A range of memory that is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Which addresses.
    pub space: WatchSpace,
    /// The first byte.
    pub start: u64,
    /// Bytes.
    pub len: u64,
}

/// Why there is no such range.
#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    /// It does not follow the grammar.
    #[error(
        "`{0}` is no place in memory; write ADDRESS, SYMBOL or SYMBOL+0x10, phys:ADDRESS, and :LENGTH"
    )]
    Grammar(String),
    /// The kernel has no such symbol.
    #[error("the kernel has no symbol `{0}` at this tick")]
    Symbol(String),
    /// More than can be watched.
    #[error("{0} bytes are too many to ask about; at most {LEN_MAX} are possible")]
    Length(u64),
}

impl Range {
    /// Reads `ADDRESS|SYMBOL[+OFFSET][:LENGTH]`, with `phys:` before a pseudo-physical address.
    pub fn parse(text: &str, names: &Resolver) -> Result<Self, RangeError> {
        let wrong = || RangeError::Grammar(text.to_owned());
        let (space, rest) = match text.trim().strip_prefix("phys:") {
            Some(rest) => (WatchSpace::Physical, rest),
            None => (WatchSpace::Virtual, text.trim()),
        };
        let (place, len) = match rest.split_once(':') {
            Some((place, len)) => (place, parse_number(len).ok_or_else(wrong)?),
            None => (rest, LEN),
        };
        if len == 0 || place.is_empty() {
            return Err(wrong());
        }
        if len > LEN_MAX {
            return Err(RangeError::Length(len));
        }
        let (name, offset) = match place.split_once('+') {
            Some((name, offset)) => (name, parse_number(offset).ok_or_else(wrong)?),
            None => (place, 0),
        };
        let base = match parse_number(name) {
            Some(address) => address,
            None if name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') => {
                let found = names.address_of(name);
                found.ok_or_else(|| RangeError::Symbol(name.to_owned()))?.0
            }
            None => return Err(wrong()),
        };
        Ok(Range {
            space,
            start: base.wrapping_add(offset),
            len,
        })
    }
}

/// The last write to a range.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The moment before the instruction that wrote.
    pub at: Mark,
    /// Virtual time there, in nanoseconds.
    pub time_ns: u64,
    /// What was written to, and by which instruction.
    pub hit: WatchHit,
    /// The kernel symbol that was written to, if it has one.
    pub symbol: Option<String>,
    /// The kernel function that wrote, if it is known.
    pub function: Option<String>,
    /// The first bytes of the range before.
    pub before: Vec<u8>,
    /// The same after.
    pub after: Vec<u8>,
    /// Thread and name of the task that ran, if it is known.
    pub task: Option<(i32, String)>,
    /// The stack there, innermost first, if it was asked for.
    pub stack: Vec<String>,
}

/// What the search came to.
#[derive(Clone, Debug)]
pub enum Written {
    /// This write.
    By(Box<Origin>),
    /// Nobody wrote there since power-on.
    Never,
    /// The search was interrupted.
    Interrupted,
}

/// A name and where in it.
fn named(names: &Resolver, address: u64) -> Option<String> {
    Some(names.place(Gva(address))?.to_string())
}

impl Timeline {
    /// Finds the last write to a range before the cursor, and leaves the cursor where it was. With
    /// `stack`, also who called whom there.
    pub fn last_write(
        &mut self,
        range: Range,
        kernel: Option<&GuestKernel>,
        stack: bool,
        keep_going: KeepGoing<'_>,
    ) -> Result<Written, TimelineError> {
        let from = self.at();
        let watches = vec![watch(range.space, range.start, range.len, Watched::Writes)];
        let ours = Stops {
            watches,
            ..Stops::default()
        };
        let theirs = std::mem::replace(self.stops(), ours);
        let found = self.backward(keep_going);
        *self.stops() = Stops::default();
        let written = match found {
            Ok(Halt::Watch(hit)) => self.origin(range, hit, kernel, stack).map(Written::By),
            Ok(Halt::Interrupted) => Ok(Written::Interrupted),
            Ok(_) => Ok(Written::Never),
            Err(error) => Err(error),
        };
        *self.stops() = theirs;
        self.seek(from, &mut |_| true)?;
        written
    }

    fn origin(
        &mut self,
        range: Range,
        hit: WatchHit,
        kernel: Option<&GuestKernel>,
        stack: bool,
    ) -> Result<Box<Origin>, TimelineError> {
        let at = self.at();
        let time_ns = self.machine().time().0;
        let before = self.content(range);
        let machine = self.machine_mut();
        let names = kernel.map(|k| k.resolver(machine)).unwrap_or_default();
        let task = kernel.and_then(|k| k.current(machine));
        let stack = match kernel {
            Some(kernel) if stack => kernel
                .stack(machine, &names)
                .frames
                .iter()
                .map(|frame| {
                    let name = named(&names, frame.lookup_ip().0);
                    format!("{:#018x} {}", frame.ip.0, name.as_deref().unwrap_or("??"))
                })
                .collect(),
            _ => Vec::new(),
        };
        let origin = Origin {
            at,
            time_ns,
            hit,
            symbol: named(&names, hit.address).filter(|_| range.space == WatchSpace::Virtual),
            function: named(&names, hit.rip),
            before,
            after: Vec::new(),
            task: task.map(|task| (task.pid, task.comm)),
            stack,
        };
        self.step()?;
        let after = self.content(range);
        Ok(Box::new(Origin { after, ..origin }))
    }

    /// The first bytes of a range, as far as they are there.
    fn content(&mut self, range: Range) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(range.len).unwrap_or(SHOWN).min(SHOWN)];
        let machine = self.machine_mut();
        let n = match range.space {
            WatchSpace::Virtual => read_virtual(machine, range.start, &mut bytes),
            WatchSpace::Physical => {
                let start = colinux_driver::mem::addr::Gpa(range.start);
                read_physical(machine, start, &mut bytes)
            }
        };
        bytes.truncate(n);
        bytes
    }
}

/// A value as people read it: a number up to eight bytes, in the guest's order.
fn value(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "not mapped".to_owned();
    }
    bytes
        .iter()
        .rev()
        .fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.hit.address)?;
        if let Some(symbol) = &self.symbol {
            write!(f, " ({symbol})")?;
        }
        let (s, ns) = (self.time_ns / 1_000_000_000, self.time_ns % 1_000_000_000);
        write!(f, " was last written at {} (t{s}.{ns:09})", self.at)?;
        write!(f, " by the instruction at {:#x}", self.hit.rip)?;
        if let Some(function) = &self.function {
            write!(f, " in {function}")?;
        }
        if let Some((tid, comm)) = &self.task {
            write!(f, ", task {tid} `{comm}`")?;
        }
        write!(f, ": {} -> {}", value(&self.before), value(&self.after))?;
        self.stack
            .iter()
            .enumerate()
            .try_for_each(|(n, frame)| write!(f, "\n#{n:<3} {frame}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_as_people_write_them() {
        let names = Resolver::default();
        let range = |text: &str| Range::parse(text, &names).map(|r| (r.space, r.start, r.len));
        assert_eq!(
            range("0xffffffff81000000").unwrap(),
            (WatchSpace::Virtual, 0xffff_ffff_8100_0000, 8)
        );
        assert_eq!(
            range("phys:0x1000+0x10:4096").unwrap(),
            (WatchSpace::Physical, 0x1010, 4096)
        );
        for wrong in ["", ":4", "0x10:0", "0x10:x", "5x", "a b:9z", "0x10:5000"] {
            assert!(range(wrong).is_err(), "{wrong}");
        }
        assert!(matches!(range("jiffies_64"), Err(RangeError::Symbol(_))));
    }
}
