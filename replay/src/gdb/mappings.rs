//! Which of the guest's addresses are mapped, from its page tables (SDM vol. 3, 4.5.4), as QEMU's `info mem`
//! tells it: pwndbg reads that.

use std::collections::BTreeMap;
use std::fmt;

use colinux_driver::core::Core;
use colinux_driver::cpu::state::{CR0_PG, EFER_LMA};
use colinux_driver::mem::addr::Gpa;

const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
/// The entry maps a large page.
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const RIGHTS: u64 = WRITE | USER;
const ENTRIES: u64 = 512;
/// Tables that are looked through at most: more are only there where tables contain themselves.
const TABLES_MAX: u32 = 1 << 20;

/// Addresses that are mapped with the same rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    start: u64,
    /// Less than the start at the end of the address space.
    end: u64,
    rights: u64,
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flag = |right, letter| {
            if self.rights & right != 0 {
                letter
            } else {
                '-'
            }
        };
        let Mapping { start, end, .. } = self;
        let size = end.wrapping_sub(*start);
        let (user, write) = (flag(USER, 'u'), flag(WRITE, 'w'));
        write!(f, "{start:016x}-{end:016x} {size:016x} {user}r{write}")
    }
}

/// Why nothing can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unmapped {
    /// Paging is off.
    #[error("PG disabled")]
    NoPaging,
    /// Another mode.
    #[error("unknown command: the vCPU is not in long mode")]
    NotLong,
    /// Too many.
    #[error("unknown command: the page tables contain themselves")]
    Nested,
}

/// What all addresses below a table have in common: rights, no mapping, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Common {
    Mapped(u64),
    Nothing,
    Mixed,
}

struct Walk<'c> {
    core: &'c Core,
    /// By table and level. KASAN has the same few tables for terabytes.
    known: BTreeMap<(u64, u32), Common>,
    tables: u32,
    found: Vec<Mapping>,
}

/// All mappings, by address.
pub(super) fn mappings(core: &Core) -> Result<Vec<Mapping>, Unmapped> {
    if core.cpu.cr0 & CR0_PG == 0 {
        return Err(Unmapped::NoPaging);
    }
    if core.cpu.efer & EFER_LMA == 0 {
        return Err(Unmapped::NotLong);
    }
    let mut walk = Walk {
        core,
        known: BTreeMap::new(),
        tables: 0,
        found: Vec::new(),
    };
    walk.visit(core.cpu.cr3 & ADDRESS, 4, 0, RIGHTS)?;
    Ok(walk.found)
}

/// Bytes that an entry of a table at this level stands for.
fn span(level: u32) -> u64 {
    1 << (12 + 9 * (level - 1))
}

fn is_leaf(entry: u64, level: u32) -> bool {
    level == 1 || level < 4 && entry & LARGE != 0
}

impl Walk<'_> {
    fn entry(&self, table: u64, index: u64) -> u64 {
        let at = self.core.ram.offset(Gpa(table + index * 8));
        let bytes = at.and_then(|at| self.core.ram.bytes().get(at..at + 8));
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    }

    fn common(&mut self, table: u64, level: u32) -> Result<Common, Unmapped> {
        if let Some(known) = self.known.get(&(table, level)) {
            return Ok(*known);
        }
        self.tables += 1;
        if self.tables > TABLES_MAX {
            return Err(Unmapped::Nested);
        }
        let mut all = None;
        for index in 0..ENTRIES {
            let entry = self.entry(table, index);
            let one = if entry & PRESENT == 0 {
                Common::Nothing
            } else if is_leaf(entry, level) {
                Common::Mapped(entry & RIGHTS)
            } else {
                match self.common(entry & ADDRESS, level - 1)? {
                    Common::Mapped(rights) => Common::Mapped(rights & entry),
                    other => other,
                }
            };
            if *all.get_or_insert(one) != one {
                all = Some(Common::Mixed);
                break;
            }
        }
        let all = all.unwrap_or(Common::Nothing);
        self.known.insert((table, level), all);
        Ok(all)
    }

    fn visit(&mut self, table: u64, level: u32, base: u64, rights: u64) -> Result<(), Unmapped> {
        match self.common(table, level)? {
            Common::Nothing => return Ok(()),
            Common::Mapped(own) if level < 4 => {
                self.add(base, span(level + 1), own & rights);
                return Ok(());
            }
            _ => {}
        }
        self.tables += 1;
        if self.tables > TABLES_MAX {
            return Err(Unmapped::Nested);
        }
        for index in 0..ENTRIES {
            let entry = self.entry(table, index);
            if entry & PRESENT == 0 {
                continue;
            }
            let mut at = base + index * span(level);
            if level == 4 && index >= ENTRIES / 2 {
                at |= u64::MAX << 48;
            }
            if is_leaf(entry, level) {
                self.add(at, span(level), entry & rights);
            } else {
                self.visit(entry & ADDRESS, level - 1, at, entry & rights)?;
            }
        }
        Ok(())
    }

    /// Adds addresses, or makes what was added last go on.
    fn add(&mut self, start: u64, size: u64, rights: u64) {
        let end = start.wrapping_add(size);
        match self.found.last_mut() {
            Some(last) if last.end == start && last.rights == rights => last.end = end,
            _ => self.found.push(Mapping { start, end, rights }),
        }
    }
}

#[cfg(test)]
mod tests {
    use colinux_driver::machine::{Machine, MachineConfig};

    use super::*;

    /// A machine with these page table entries: table, index, entry.
    fn machine(entries: &[(u64, u64, u64)]) -> Machine {
        let mut machine = Machine::empty(&MachineConfig {
            memory_bytes: 1 << 20,
            rtc_epoch_s: 0,
            ns_per_tick: 1,
            quantum_ticks: 1,
        });
        let core = machine.core_mut();
        let mut pages: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for (table, index, entry) in entries {
            let page = pages.entry(*table).or_insert_with(|| vec![0; 4096]);
            let at = *index as usize * 8;
            page[at..at + 8].copy_from_slice(&entry.to_le_bytes());
        }
        for (table, page) in pages {
            core.ram.restore_page(table as usize / 4096, &page, true);
        }
        core.cpu.cr0 |= CR0_PG;
        core.cpu.efer |= EFER_LMA;
        core.cpu.cr3 = 0x1000;
        machine
    }

    fn lines(machine: &Machine) -> Vec<String> {
        let found = mappings(machine.core()).unwrap();
        found.iter().map(Mapping::to_string).collect()
    }

    #[test]
    fn neighbours_of_equal_rights_are_one_and_rights_are_those_of_all_levels() {
        let machine = machine(&[
            (0x1000, 0, 0x2000 | PRESENT | USER | WRITE),
            (0x2000, 0, 0x3000 | PRESENT | USER),
            (0x3000, 0, 0x4000 | PRESENT | USER | WRITE),
            (0x4000, 1, 0x9000 | PRESENT | USER | WRITE),
            (0x4000, 2, 0x5000 | PRESENT | USER),
            (0x4000, 3, 0x5000 | PRESENT),
            (0x3000, 1, 0x20_0000 | PRESENT | LARGE),
            (0x1000, 511, 0x6000 | PRESENT | WRITE),
            (0x6000, 511, PRESENT | LARGE | WRITE),
        ]);
        assert_eq!(
            lines(&machine),
            [
                "0000000000001000-0000000000003000 0000000000002000 ur-",
                "0000000000003000-0000000000004000 0000000000001000 -r-",
                "0000000000200000-0000000000400000 0000000000200000 -r-",
                "ffffffffc0000000-0000000000000000 0000000040000000 -rw",
            ]
        );
    }

    #[test]
    fn the_same_tables_everywhere_are_looked_through_once() {
        let all = |table, entry| (0..512).map(move |index| (table, index, entry));
        let entries: Vec<_> = all(0x2000, 0x3000 | PRESENT)
            .chain(all(0x3000, 0x4000 | PRESENT))
            .chain(all(0x4000, 0x5000 | PRESENT))
            .chain([
                (0x1000, 256, 0x2000 | PRESENT),
                (0x1000, 257, 0x2000 | PRESENT),
            ])
            .collect();
        let line = "ffff800000000000-ffff810000000000 0000010000000000 -r-";
        assert_eq!(lines(&machine(&entries)), [line]);
    }

    #[test]
    fn tables_that_contain_themselves_come_to_an_end() {
        let all = (0..512).map(|index| (0x1000, index, 0x1000 | PRESENT));
        let whole = machine(&all.collect::<Vec<_>>());
        assert_eq!(lines(&whole).len(), 2);
        let odd = (0..511).map(|index| (0x1000, index, 0x1000 | PRESENT));
        let odd = machine(&odd.collect::<Vec<_>>());
        assert_eq!(mappings(odd.core()), Err(Unmapped::Nested));
        let mut off = odd;
        off.core_mut().cpu.cr0 &= !CR0_PG;
        assert_eq!(mappings(off.core()), Err(Unmapped::NoPaging));
    }
}
