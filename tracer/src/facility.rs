//! Facilities, the levels set for them, and the mask of events that follows.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::event::EventKind;

/// A group of events that is switched together, as coLinux's debug facilities were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Facility {
    /// World switches.
    Passage,
    /// Tasks of the guest.
    Task,
    /// Interrupts.
    Irq,
    /// Pseudo-physical memory and page faults.
    Ppram,
    /// System calls.
    Syscall,
    /// Device accesses.
    Device,
    /// The console.
    Console,
    /// Block devices.
    Blockdev,
    /// The network.
    Network,
    /// Timers.
    Timer,
    /// The guest's kernel: log, modules, faults.
    Kernel,
    /// Marks.
    User,
    /// The recording itself. Always on.
    Meta,
    /// Inputs. Always on.
    Input,
}

impl Facility {
    /// Every facility.
    pub const ALL: &'static [Self] = &[
        Self::Passage,
        Self::Task,
        Self::Irq,
        Self::Ppram,
        Self::Syscall,
        Self::Device,
        Self::Console,
        Self::Blockdev,
        Self::Network,
        Self::Timer,
        Self::Kernel,
        Self::User,
        Self::Meta,
        Self::Input,
    ];

    /// The name used on the command line and in the manifest.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passage => "passage",
            Self::Task => "task",
            Self::Irq => "irq",
            Self::Ppram => "ppram",
            Self::Syscall => "syscall",
            Self::Device => "device",
            Self::Console => "console",
            Self::Blockdev => "blockdev",
            Self::Network => "network",
            Self::Timer => "timer",
            Self::Kernel => "kernel",
            Self::User => "user",
            Self::Meta => "meta",
            Self::Input => "input",
        }
    }

    /// Whether its level can be set: what makes a recording readable cannot be switched off.
    pub const fn is_settable(self) -> bool {
        !matches!(self, Self::Meta | Self::Input)
    }

    /// The facility with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|facility| facility.name() == name)
    }
}

impl fmt::Display for Facility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The highest level that means anything.
pub const MAX_LEVEL: u8 = 3;
/// The level of a facility that nothing was said about.
pub const DEFAULT_LEVEL: u8 = 1;

/// What is wrong with a list of levels.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LevelError {
    /// An item without an equals sign.
    #[error("`{item}` is not of the form facility=level")]
    Form {
        /// The item.
        item: String,
    },
    /// A facility that does not exist.
    #[error("there is no facility `{name}`; there are {known}, and `all`")]
    Facility {
        /// The name given.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A facility that is always on.
    #[error("facility `{name}` is always on: without it a recording could not be read")]
    Fixed {
        /// The name given.
        name: String,
    },
    /// A level that does not exist.
    #[error("level `{level}` of `{name}` is not a number from 0 (off) to {MAX_LEVEL} (everything)")]
    Level {
        /// The facility given.
        name: String,
        /// The level given.
        level: String,
    },
}

/// One level per facility: 0 off, 1 default, 2 verbose, 3 hot.
///
/// Written `passage=2,irq=0`; `all=LEVEL` sets every one. Later items override earlier ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels {
    levels: [u8; Facility::ALL.len()],
}

impl Default for Levels {
    fn default() -> Self {
        Self {
            levels: [DEFAULT_LEVEL; Facility::ALL.len()],
        }
    }
}

impl Levels {
    /// Everything off that can be off.
    pub fn off() -> Self {
        let mut levels = Self::default();
        levels.set_all(0);
        levels
    }

    /// The level of a facility.
    pub const fn get(&self, facility: Facility) -> u8 {
        self.levels[facility as usize]
    }

    /// Sets the level of a facility; those that are always on stay as they are.
    pub fn set(&mut self, facility: Facility, level: u8) {
        if facility.is_settable() {
            self.levels[facility as usize] = level.min(MAX_LEVEL);
        }
    }

    /// Sets the level of every facility that can be set.
    pub fn set_all(&mut self, level: u8) {
        Facility::ALL
            .iter()
            .for_each(|&facility| self.set(facility, level));
    }

    /// Applies a list such as `passage=2,irq=1` on top of what is set.
    pub fn apply(&mut self, list: &str) -> Result<(), LevelError> {
        for item in list
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
        {
            let (name, level) = item.split_once('=').ok_or_else(|| LevelError::Form {
                item: item.to_owned(),
            })?;
            let level = level
                .parse()
                .ok()
                .filter(|level| *level <= MAX_LEVEL)
                .ok_or_else(|| LevelError::Level {
                    name: name.to_owned(),
                    level: level.to_owned(),
                })?;
            if name == "all" {
                self.set_all(level);
                continue;
            }
            let facility = Facility::from_name(name).ok_or_else(|| LevelError::Facility {
                name: name.to_owned(),
                known: settable()
                    .map(Facility::name)
                    .collect::<Vec<_>>()
                    .join(", "),
            })?;
            if !facility.is_settable() {
                return Err(LevelError::Fixed {
                    name: name.to_owned(),
                });
            }
            self.set(facility, level);
        }
        Ok(())
    }

    /// The levels that can be set, by name: what the manifest keeps.
    pub fn to_map(&self) -> BTreeMap<String, u8> {
        settable()
            .map(|facility| (facility.name().to_owned(), self.get(facility)))
            .collect()
    }
}

fn settable() -> impl Iterator<Item = Facility> {
    Facility::ALL
        .iter()
        .copied()
        .filter(|facility| facility.is_settable())
}

impl FromStr for Levels {
    type Err = LevelError;

    fn from_str(list: &str) -> Result<Self, LevelError> {
        let mut levels = Self::default();
        levels.apply(list)?;
        Ok(levels)
    }
}

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, facility) in settable().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{facility}={}", self.get(facility))?;
        }
        Ok(())
    }
}

/// A set of event kinds, asked once per possible event.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct EventMask {
    bits: [u64; 4],
}

impl EventMask {
    /// No kind.
    pub const NONE: Self = Self { bits: [0; 4] };
    /// Every kind, also those of later builds.
    pub const ALL: Self = Self {
        bits: [u64::MAX; 4],
    };

    /// The kinds whose level is at most the level set for their facility.
    pub fn from_levels(levels: &Levels) -> Self {
        let mut mask = Self::NONE;
        for &kind in EventKind::ALL {
            if kind.level() <= levels.get(kind.facility()) {
                mask.insert(kind);
            }
        }
        mask
    }

    /// These kinds.
    pub fn of(kinds: &[EventKind]) -> Self {
        let mut mask = Self::NONE;
        kinds.iter().for_each(|&kind| mask.insert(kind));
        mask
    }

    /// The kind with this code, also of a later build.
    pub(crate) const fn of_code(code: u8) -> Self {
        let mut mask = Self::NONE;
        mask.bits[(code >> 6) as usize] = 1 << (code & 63);
        mask
    }

    /// Whether the kind is in the set.
    #[inline]
    pub const fn contains(&self, kind: EventKind) -> bool {
        self.contains_code(kind.code())
    }

    /// Whether the kind with this code is in the set.
    #[inline]
    pub const fn contains_code(&self, code: u8) -> bool {
        self.bits[(code >> 6) as usize] >> (code & 63) & 1 != 0
    }

    /// Adds a kind.
    pub const fn insert(&mut self, kind: EventKind) {
        self.bits[(kind.code() >> 6) as usize] |= 1 << (kind.code() & 63);
    }

    /// Takes a kind out.
    pub const fn remove(&mut self, kind: EventKind) {
        self.bits[(kind.code() >> 6) as usize] &= !(1 << (kind.code() & 63));
    }
}

impl From<&Levels> for EventMask {
    fn from(levels: &Levels) -> Self {
        Self::from_levels(levels)
    }
}

impl fmt::Debug for EventMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(EventKind::ALL.iter().filter(|kind| self.contains(**kind)))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_levels_switch_the_verbose_kinds_off() {
        let mask = EventMask::from_levels(&Levels::default());
        assert!(mask.contains(EventKind::PassageLeave));
        assert!(!mask.contains(EventKind::Pio));
        assert!(!mask.contains(EventKind::TlbFlush));
        let mask = EventMask::from_levels(&"device=2,passage=0".parse().unwrap());
        assert!(!mask.contains(EventKind::PassageLeave));
        assert!(mask.contains(EventKind::Pio));
        assert!(mask.contains(EventKind::Lost), "meta events are always on");
    }

    #[test]
    fn later_items_override_and_the_text_reads_back() {
        let levels: Levels = "passage=3, all=0 ,irq=2,".parse().unwrap();
        assert_eq!(levels.get(Facility::Passage), 0);
        assert_eq!(levels.get(Facility::Irq), 2);
        assert_eq!(levels.get(Facility::Meta), DEFAULT_LEVEL);
        assert_eq!(levels.to_string().parse::<Levels>(), Ok(levels));
    }

    #[test]
    fn mistakes_are_named() {
        let error = "sysall=1".parse::<Levels>().unwrap_err().to_string();
        assert!(
            error.contains("`sysall`") && error.contains("syscall"),
            "{error}"
        );
        assert!(matches!(
            "irq".parse::<Levels>(),
            Err(LevelError::Form { .. })
        ));
        assert!(matches!(
            "irq=4".parse::<Levels>(),
            Err(LevelError::Level { .. })
        ));
        assert!(matches!(
            "irq=".parse::<Levels>(),
            Err(LevelError::Level { .. })
        ));
        assert!(matches!(
            "meta=0".parse::<Levels>(),
            Err(LevelError::Fixed { .. })
        ));
    }

    #[test]
    fn a_mask_holds_every_code() {
        for &kind in EventKind::ALL {
            let mut mask = EventMask::NONE;
            mask.insert(kind);
            assert!(mask.contains(kind));
            assert_eq!(
                (0..=255).filter(|&code| mask.contains_code(code)).count(),
                1
            );
            mask.remove(kind);
            assert_eq!(mask, EventMask::NONE);
        }
    }
}
