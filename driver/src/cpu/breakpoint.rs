//! Hardware breakpoints: DR0 to DR3 under DR7 (SDM vol. 3, 18.2 and 18.3).
//!
//! An instruction breakpoint is looked for between blocks, and a block ends before the next one.
//! Accesses to bytes with a data breakpoint are seen by the slow path of memory accesses, since
//! their pages are kept out of the first layer of the TLB. With DR7 disarmed, both cost nothing.
//!
//! A data breakpoint traps after its instruction, or after an iteration of a repetition; what has
//! been hit waits in DR4, which has no register of its own (its number means DR6). It waits
//! longer than that only behind MOV SS and POP SS, which hold traps off for one instruction, and
//! in front of a handler entered by that instruction (SDM vol. 3, 6.8.3).

use super::fault::{Fault, Trap, vector};
use super::flags;
use super::state::CR4_DE;
use crate::core::Core;
use crate::mem::addr::PAGE_SIZE;
use crate::x86::block::Block;

/// DR6: a debug register was touched under general detect.
const DR6_BD: u64 = 1 << 13;
/// DR7: general detect.
const DR7_GD: u64 = 1 << 13;
/// Where hits wait.
const PENDING: usize = 4;

/// What an R/W field of DR7 asks for.
const ON_FETCH: u64 = 0;
const ON_WRITE: u64 = 1;
const ON_PORT: u64 = 2;
const ON_ACCESS: u64 = 3;

/// Which kinds of breakpoints are enabled: follows from DR7.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Armed {
    fetch: bool,
    data: bool,
}

impl Armed {
    /// Whether there is anything to look for.
    #[inline(always)]
    pub(crate) fn any(self) -> bool {
        self.fetch | self.data
    }
}

/// The R/W field of breakpoint `n`, if it is enabled.
fn kind(dr7: u64, n: usize) -> Option<u64> {
    (dr7 >> (2 * n) & 3 != 0).then_some(dr7 >> (16 + 4 * n) & 3)
}

/// Bytes of breakpoint `n`.
fn len(dr7: u64, n: usize) -> u64 {
    [1, 2, 8, 4][(dr7 >> (18 + 4 * n) & 3) as usize]
}

impl Core {
    /// After a change of DR7 or DR0 to DR3.
    pub(crate) fn breakpoints_changed(&mut self) -> Result<(), Trap> {
        let dr7 = self.cpu.dr[7];
        if self.cpu.cr4 & CR4_DE != 0 && (0..4).any(|n| kind(dr7, n) == Some(ON_PORT)) {
            return Err(self.unsupported("breakpoint on a port"));
        }
        self.breakpoints_restored();
        Ok(())
    }

    /// The debug registers are those of a snapshot.
    pub(crate) fn breakpoints_restored(&mut self) {
        let kinds = || (0..4).filter_map(|n| kind(self.cpu.dr[7], n));
        self.armed = Armed {
            fetch: kinds().any(|k| k == ON_FETCH),
            data: kinds().any(|k| k == ON_WRITE || k == ON_ACCESS),
        };
        if self.armed.data {
            self.tlb.flush_fast();
        }
    }

    /// Whether accesses to this page must be looked at one by one.
    #[inline]
    pub(crate) fn has_data_breakpoint(&self, va: u64) -> bool {
        self.armed.data && (0..4).any(|n| self.cpu.dr[n] / PAGE_SIZE == va / PAGE_SIZE)
    }

    /// Notes the breakpoints an access hits.
    #[cold]
    pub(crate) fn note_data_breakpoint(&mut self, va: u64, size: u64, write: bool) {
        let dr7 = self.cpu.dr[7];
        for n in 0..4 {
            let len = len(dr7, n);
            let start = self.cpu.dr[n] & !(len - 1);
            let meets = va.wrapping_sub(start) < len || start.wrapping_sub(va) < size;
            let counts = match kind(dr7, n) {
                Some(ON_WRITE) => write,
                Some(ON_ACCESS) => true,
                _ => false,
            };
            if meets && counts {
                self.cpu.dr[PENDING] |= 1 << n;
                // The block ends behind this instruction.
                self.stop = 0;
            }
        }
    }

    /// Whether a data breakpoint has been hit and its trap is still to come.
    #[inline(always)]
    pub(crate) fn data_breakpoint_pending(&self) -> bool {
        self.cpu.dr[PENDING] != 0
    }

    /// The hits whose trap comes now, as bits of DR6.
    pub(crate) fn take_data_breakpoints(&mut self) -> u64 {
        std::mem::take(&mut self.cpu.dr[PENDING])
    }

    /// Before the instruction at RIP: the bits of DR6, if an instruction breakpoint comes first,
    /// or a trap that MOV SS has held off.
    #[cold]
    pub(crate) fn breakpoint_before(&mut self) -> Option<u64> {
        if self.data_breakpoint_pending() && !self.cpu.shadow {
            return Some(self.take_data_breakpoints());
        }
        if !self.armed.fetch || self.cpu.system_flags & flags::RF != 0 {
            return None;
        }
        let (dr7, rip) = (self.cpu.dr[7], self.cpu.linear_rip());
        let hits = (0..4)
            .filter(|n| kind(dr7, *n) == Some(ON_FETCH) && self.cpu.dr[*n] == rip)
            .fold(0, |bits, n| bits | 1 << n);
        (hits != 0).then_some(hits)
    }

    /// How many operations of the block at RIP come before the next instruction breakpoint.
    #[cold]
    pub(crate) fn until_breakpoint(&self, block: &Block) -> usize {
        let (dr7, rip) = (self.cpu.dr[7], self.cpu.linear_rip());
        (0..4)
            .filter(|n| kind(dr7, *n) == Some(ON_FETCH))
            .filter_map(|n| {
                let offset = self.cpu.dr[n].wrapping_sub(rip);
                block
                    .ops
                    .iter()
                    .position(|op| offset != 0 && u64::from(op.offset) == offset)
            })
            .min()
            .unwrap_or(usize::MAX)
    }

    /// MOV SS and POP SS suppress an instruction breakpoint on the next instruction, as RF does.
    pub(crate) fn hold_breakpoints_off(&mut self) {
        if self.armed.fetch {
            self.cpu.system_flags |= flags::RF;
        }
    }

    /// Under general detect, touching a debug register is a fault.
    pub(crate) fn check_general_detect(&mut self) -> Result<(), Trap> {
        if self.cpu.dr[7] & DR7_GD == 0 {
            return Ok(());
        }
        self.cpu.dr[6] |= DR6_BD;
        Err(self.raise(Fault::plain(vector::DB)))
    }
}
