//! One instruction on a bare machine, for tests: a few mapped pages, no devices in reach, no
//! interrupt table. Faults come back as values instead of being delivered.

use super::block::BlockCache;
use super::op::Op;
use crate::core::Core;
use crate::cpu::fault::{Fault, Trap, TrapCause};
use crate::cpu::segment::flat;
use crate::cpu::state::{self, Cpu, REG_BLOCK, TableRegister, seg};
use crate::dev::bus::{Board, BoardConfig};
use crate::mem::addr::{Gpa, PAGE_MASK, PAGE_SIZE};
use crate::mem::ppram::{Ppram, Toucher};
use crate::tick::Clock;

/// What the page tables allow user mode to do with a page. Every mapped page can be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// Writes.
    pub write: bool,
    /// Instruction fetches.
    pub execute: bool,
}

/// How an instruction ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It completed.
    Done,
    /// It raised an exception; RIP is at the instruction.
    Fault(Fault),
    /// INT3 or INT n with this vector; RIP is at the instruction. INT1, a trap, is `Done`.
    Interrupt(u8),
    /// The machine does not implement it.
    Unsupported(String),
}

/// Selectors of the descriptor table, which is the one Linux has for 64-bit user processes.
pub mod selector {
    /// 64-bit kernel code.
    pub const KERNEL_CODE: u16 = 0x10;
    /// Kernel data.
    pub const KERNEL_DATA: u16 = 0x18;
    /// 32-bit user code.
    pub const USER_CODE32: u16 = 0x23;
    /// User data.
    pub const USER_DATA: u16 = 0x2b;
    /// 64-bit user code.
    pub const USER_CODE: u16 = 0x33;
}

/// Null, 32-bit kernel code, kernel code, kernel data, 32-bit user code, user data, user code.
const DESCRIPTORS: [u64; 7] = [
    0,
    0x00cf_9b00_0000_ffff,
    0x00af_9b00_0000_ffff,
    0x00cf_9300_0000_ffff,
    0x00cf_fb00_0000_ffff,
    0x00cf_f300_0000_ffff,
    0x00af_fb00_0000_ffff,
];

const RAM_BYTES: u64 = 1 << 20;
const GDT: Gpa = Gpa(0x1000);
/// Where the descriptor table is in the guest's address space; only the kernel may read it.
pub const GDT_ADDRESS: u64 = 0xffff_ffff_8000_0000;
const ROOT: Gpa = Gpa(0x2000);

const PRESENT: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const NO_EXECUTE: u64 = 1 << 63;

/// The bare machine.
#[derive(Debug)]
pub struct Bench {
    core: Core,
    blocks: BlockCache,
    next_free: u64,
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

impl Bench {
    /// A machine in 64-bit user mode, without any user page.
    pub fn new() -> Self {
        let ram = Ppram::new(RAM_BYTES);
        let blocks = BlockCache::new(ram.page_count());
        let board = Board::new(&BoardConfig { rtc_epoch_s: 0 });
        let core = Core::new(
            ram,
            board,
            Clock {
                ns_per_tick: 1,
                warp_ns: 0,
            },
        );
        let mut bench = Bench {
            core,
            blocks,
            next_free: ROOT.0 + PAGE_SIZE,
        };
        for (i, raw) in DESCRIPTORS.iter().enumerate() {
            bench.store(Gpa(GDT.0 + 8 * i as u64), &raw.to_le_bytes());
        }
        bench.map_at(GDT_ADDRESS, GDT.0 | PRESENT | WRITE | NO_EXECUTE);
        bench.reset();
        bench
    }

    /// Registers as after a fresh start of a user process; memory stays.
    pub fn reset(&mut self) {
        let mut cpu = Cpu {
            cr0: state::CR0_PE
                | state::CR0_MP
                | state::CR0_ET
                | state::CR0_NE
                | state::CR0_WP
                | state::CR0_AM
                | state::CR0_PG,
            cr3: ROOT.0,
            cr4: state::CR4_PAE | state::CR4_OSFXSR | state::CR4_OSXMMEXCPT,
            efer: state::EFER_SCE | state::EFER_LME | state::EFER_LMA | state::EFER_NXE,
            gdtr: TableRegister {
                base: GDT_ADDRESS,
                limit: (8 * DESCRIPTORS.len() - 1) as u16,
            },
            ..Cpu::default()
        };
        cpu.segs[seg::CS] = flat::code64(selector::USER_CODE, 3);
        cpu.segs[seg::SS] = flat::data(selector::USER_DATA, 3);
        self.core.cpu = cpu;
        self.core.set_cpl(3);
    }

    /// Goes to privilege 0 or 3, with the code and stack segments Linux has there.
    pub fn set_privilege(&mut self, cpl: u8) {
        let (code, stack) = if cpl == 3 {
            (selector::USER_CODE, selector::USER_DATA)
        } else {
            (selector::KERNEL_CODE, selector::KERNEL_DATA)
        };
        self.core.cpu.segs[seg::CS] = flat::code64(code, u16::from(cpl));
        self.core.cpu.segs[seg::SS] = flat::data(stack, u16::from(cpl));
        self.core.set_cpl(cpl);
    }

    /// Maps a zeroed user page. False if there is no memory left for it.
    pub fn map(&mut self, va: u64, rights: Rights) -> bool {
        let Some(page) = self.take_page() else {
            return false;
        };
        let mut entry = page | PRESENT | USER;
        if rights.write {
            entry |= WRITE;
        }
        if !rights.execute {
            entry |= NO_EXECUTE;
        }
        self.map_at(va, entry)
    }

    /// The registers.
    pub fn cpu(&self) -> &Cpu {
        &self.core.cpu
    }

    /// The registers. Use [`Bench::set_privilege`] to change the privilege level.
    pub fn cpu_mut(&mut self) -> &mut Cpu {
        &mut self.core.cpu
    }

    /// Writes memory, past all rights. False if a page of it is not mapped.
    pub fn write(&mut self, va: u64, bytes: &[u8]) -> bool {
        let (mut va, mut rest) = (va, bytes);
        while !rest.is_empty() {
            let room = (PAGE_SIZE - (va & PAGE_MASK)) as usize;
            let (now, later) = rest.split_at(room.min(rest.len()));
            let Some(gpa) = self.core.probe(va) else {
                return false;
            };
            self.store(gpa, now);
            va = va.wrapping_add(now.len() as u64);
            rest = later;
        }
        true
    }

    /// Reads memory. False if a page of it is not mapped.
    pub fn read(&mut self, va: u64, out: &mut [u8]) -> bool {
        self.core.peek(va, out)
    }

    /// Runs the instruction at RIP.
    pub fn step(&mut self) -> Outcome {
        let core = &mut self.core;
        while let Some(page) = core.code_writes.pop() {
            self.blocks.invalidate_page(core, page as usize);
        }
        core.place = 0;
        core.trap = None;
        core.exit = None;
        core.debug_trap = None;
        core.cpu.regs[REG_BLOCK as usize] = core.cpu.rip;
        let Ok(id) = self.blocks.lookup(core) else {
            return outcome(core);
        };
        let Some((op, sets_rip)) = self.blocks.get(id).and_then(|block| {
            let op = block.ops.first()?;
            Some((op, block.sets_rip && block.ops.len() == 1))
        }) else {
            return Outcome::Unsupported("an empty block".to_owned());
        };
        run(core, op, sets_rip)
    }

    fn store(&mut self, gpa: Gpa, bytes: &[u8]) {
        if let Some(offset) = self.core.ram.offset(gpa) {
            self.core.store_ram(offset, bytes, Toucher::Loader);
        }
    }

    fn take_page(&mut self) -> Option<u64> {
        let page = self.next_free;
        if page + PAGE_SIZE > RAM_BYTES {
            return None;
        }
        self.next_free += PAGE_SIZE;
        Some(page)
    }

    fn map_at(&mut self, va: u64, entry: u64) -> bool {
        let mut table = ROOT.0;
        for level in (1..4).rev() {
            let at = table + (va >> (12 + 9 * level) & 511) * 8;
            let mut bytes = [0; 8];
            if !self.core.peek_physical(Gpa(at), &mut bytes) {
                return false;
            }
            let mut next = u64::from_le_bytes(bytes);
            if next & PRESENT == 0 {
                let Some(page) = self.take_page() else {
                    return false;
                };
                next = page | PRESENT | WRITE | USER;
                self.store(Gpa(at), &next.to_le_bytes());
            }
            table = next & !PAGE_MASK;
        }
        self.store(Gpa(table + (va >> 12 & 511) * 8), &entry.to_le_bytes());
        true
    }
}

/// Runs one operation and leaves RIP exact, as the machine does between blocks.
fn run(core: &mut Core, op: &Op, sets_rip: bool) -> Outcome {
    core.stop = 1;
    core.cpu.shadow = false;
    if let Err(Trap) = (op.run)(core, op) {
        return outcome(core);
    }
    if !sets_rip {
        core.jump_relative(op.next());
    }
    if !core.cpu.segs[seg::CS].is_long() {
        core.cpu.rip &= 0xffff_ffff;
    }
    Outcome::Done
}

fn outcome(core: &mut Core) -> Outcome {
    match core.trap.take() {
        Some(TrapCause::Fault(fault)) => Outcome::Fault(fault),
        Some(TrapCause::SoftwareInterrupt { vector }) => Outcome::Interrupt(vector),
        Some(TrapCause::Restart) => Outcome::Unsupported("the repetition is too long".to_owned()),
        Some(TrapCause::Unsupported(what)) => Outcome::Unsupported(what),
        None => Outcome::Unsupported("an instruction failed without saying why".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: u64 = 0x40_0000;
    const DATA: u64 = 0x50_0000;

    fn bench(code: &[u8]) -> Bench {
        let mut bench = Bench::new();
        assert!(bench.map(
            CODE,
            Rights {
                write: false,
                execute: true
            }
        ));
        assert!(bench.map(DATA, Rights::default()));
        assert!(bench.write(CODE, code));
        bench.cpu_mut().rip = CODE;
        bench
    }

    #[test]
    fn an_instruction_runs_and_faults_come_back() {
        // add eax, ecx; mov [rdx], eax
        let mut bench = bench(&[0x01, 0xc8, 0x89, 0x02]);
        bench.cpu_mut().regs[1] = 5;
        bench.cpu_mut().regs[2] = DATA;
        assert_eq!(bench.step(), Outcome::Done);
        assert_eq!((bench.cpu().regs[0], bench.cpu().rip), (5, CODE + 2));
        let Outcome::Fault(fault) = bench.step() else {
            panic!("the page is read-only")
        };
        assert_eq!(
            (fault.vector, fault.error, fault.address),
            (14, Some(7), DATA)
        );
        assert_eq!(bench.cpu().rip, CODE + 2);
    }

    #[test]
    fn new_code_is_seen() {
        let mut bench = bench(&[0xb0, 1]);
        assert_eq!(bench.step(), Outcome::Done);
        assert!(bench.write(CODE, &[0xb0, 2]));
        bench.cpu_mut().rip = CODE;
        assert_eq!(bench.step(), Outcome::Done);
        assert_eq!(bench.cpu().regs[0], 2);
    }
}
