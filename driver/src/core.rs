//! One vCPU with everything its instructions may touch.
//!
//! Instruction bodies see this type and nothing else; which back end calls them they cannot know.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cpu::breakpoint::Armed;
use crate::cpu::fault::{Fault, Trap, TrapCause};
use crate::cpu::state::{Cpu, REG_BLOCK};
use crate::dev::bus::Board;
use crate::dev::event::BoardEvent;
use crate::mem::addr::{Gpa, PAGE_MASK};
use crate::mem::ppram::Ppram;
use crate::mem::tlb::Tlb;
use crate::observer::{Observation, Observations};
use crate::passage::{Exit, Shutdown};
use crate::tick::{Clock, Tick, VirtualTime};
use crate::x86::op::{ADDR16, ADDR32, HIGH_BYTE, Op, STACK32};
use crate::x86::word::Word;

/// The vCPU, its memory, and the board it is plugged into.
#[derive(Debug)]
pub struct Core {
    /// Registers.
    pub cpu: Cpu,
    /// Cached translations.
    pub tlb: Tlb,
    /// Pseudo-physical RAM.
    pub ram: Ppram,
    /// Devices.
    pub board: Board,
    /// How ticks become time.
    pub clock: Clock,
    /// What has been observed.
    pub observations: Observations,
    /// What the observer must remember to make sense of what it sees; part of a snapshot.
    pub watcher: Watcher,
    /// The tick of the running block's first instruction; exact between blocks.
    pub tick: Tick,
    /// 1 in user mode, else 0: which side of the TLB is used.
    pub user: usize,
    /// The block runs while the instruction index is below this.
    pub(crate) stop: usize,
    /// Offset (low half) and index (high half) of the running instruction in its block.
    pub(crate) place: u32,
    /// Why the last instruction did not complete.
    pub(crate) trap: Option<TrapCause>,
    /// Something that may change what happens before the next instruction: look.
    pub(crate) attention: bool,
    /// Why the guest is to be left after this instruction, if it is.
    pub(crate) exit: Option<Exit>,
    /// Pages whose code was overwritten by the running instruction.
    pub(crate) code_writes: Vec<u32>,
    /// The next tick at which a device does something by itself.
    pub(crate) deadline: Tick,
    pub(crate) outputs: Vec<BoardEvent>,
    /// Console bytes for whoever watches the guest right now; not part of the state.
    pub(crate) console_tap: Option<Vec<u8>>,
    /// What translated code keeps in memory.
    pub(crate) native: crate::jit::Native,
    /// The instruction that completes now is followed by #DB, with these bits of DR6.
    pub(crate) debug_trap: Option<u64>,
    /// Addresses whose arrival the observer wants to see, in order; not part of the state.
    pub(crate) hooks: Vec<u64>,
    /// Offsets in a page of instructions that begin a block, in order, whatever page they are in: a
    /// breakpoint may be reached through any mapping of its page.
    pub(crate) cuts: Vec<u16>,
    /// Which of the guest's own breakpoints are enabled: follows from DR7.
    pub(crate) armed: Armed,
    /// Ranges a debugger watches; not part of the state.
    pub(crate) watches: Option<Box<crate::debug::Watches>>,
    /// Which pages were used, for whoever wants to know; not part of the state.
    pub(crate) trail: Option<Box<crate::mem::trail::Tracker>>,
}

/// The observer's memory: which system call a thread is in, and when interrupts were forwarded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watcher {
    /// Open system calls, by page table root and user stack pointer: number and tick.
    pub syscalls: BTreeMap<(u64, u64), (u64, u64)>,
    /// The tick at which each vector was last forwarded.
    pub forwarded: BTreeMap<u8, u64>,
    /// The tick at which the current passage began.
    pub passage_start: u64,
    /// Console bytes not yet reported.
    pub console_line: Vec<u8>,
}

/// Console output is reported in lines, or pieces of this many bytes.
const CONSOLE_PIECE_BYTES_MAX: usize = 1024;
/// A thread that dies in a system call never returns from it; so many are remembered.
const OPEN_SYSCALLS_MAX: usize = 4096;

/// DR6: the trap comes from the trap flag.
pub(crate) const DR6_BS: u64 = 1 << 14;

impl Core {
    /// A vCPU at power-on.
    pub fn new(ram: Ppram, board: Board, clock: Clock) -> Self {
        let mut core = Core {
            cpu: Cpu::default(),
            tlb: Tlb::default(),
            ram,
            board,
            clock,
            observations: Observations::default(),
            watcher: Watcher::default(),
            tick: Tick(0),
            user: 0,
            stop: 0,
            place: 0,
            trap: None,
            attention: true,
            exit: None,
            code_writes: Vec::new(),
            deadline: Tick(u64::MAX),
            outputs: Vec::new(),
            console_tap: None,
            native: crate::jit::Native::default(),
            debug_trap: None,
            hooks: Vec::new(),
            cuts: Vec::new(),
            armed: Armed::default(),
            watches: None,
            trail: None,
        };
        core.tlb.ram_base = core.ram.bytes().as_ptr().expose_provenance() as u64;
        core.update_deadline();
        core
    }

    /// The tick of the running instruction.
    #[inline]
    pub fn now(&self) -> Tick {
        Tick(self.tick.0 + u64::from(self.place >> 16))
    }

    /// Virtual time at the running instruction.
    #[inline]
    pub fn time(&self) -> VirtualTime {
        self.clock.time_at(self.now())
    }

    /// Address of the running instruction.
    #[inline]
    pub fn insn_rip(&self) -> u64 {
        self.cpu.regs[REG_BLOCK as usize].wrapping_add(u64::from(self.place & 0xffff))
    }

    /// The time stamp counter at the running instruction: one count per nanosecond.
    pub fn tsc(&self) -> u64 {
        self.time().0.wrapping_add(self.cpu.msr.tsc_adjust)
    }

    /// Lets blocks begin at these addresses; says at which offsets in a page they did not so far.
    pub(crate) fn cut_at(&mut self, addresses: &[u64]) -> Vec<u16> {
        // Old ones cost a little speed; blocks that are already cut may stay so.
        const CUTS_MAX: usize = 64;
        let offsets = addresses.iter().map(|at| (at & PAGE_MASK) as u16);
        let mut new: Vec<u16> = offsets
            .filter(|offset| self.cuts.binary_search(offset).is_err())
            .collect();
        if new.is_empty() {
            return new;
        }
        if self.cuts.len() > CUTS_MAX {
            let again = addresses.iter().map(|at| (at & PAGE_MASK) as u16);
            self.cuts = again.collect();
        } else {
            self.cuts.extend_from_slice(&new);
        }
        for list in [&mut self.cuts, &mut new] {
            list.sort_unstable();
            list.dedup();
        }
        new
    }

    /// Ends the running instruction with an exception.
    #[cold]
    #[inline(never)]
    pub fn raise(&mut self, fault: Fault) -> Trap {
        self.trap = Some(TrapCause::Fault(fault));
        Trap
    }

    /// Ends the run: the instruction promises something that is not implemented.
    #[cold]
    #[inline(never)]
    pub fn unsupported(&mut self, what: impl Into<String>) -> Trap {
        self.trap = Some(TrapCause::Unsupported(what.into()));
        Trap
    }

    /// Pauses a long repetition; the instruction begins again where its registers stand.
    pub(crate) fn restart(&mut self) -> Trap {
        self.trap = Some(TrapCause::Restart);
        Trap
    }

    /// Leaves the block after the running instruction and looks at interrupts and deadlines.
    #[inline]
    pub fn leave(&mut self) {
        self.stop = 0;
        self.attention = true;
    }

    /// Leaves the guest after the running instruction.
    pub fn leave_with(&mut self, exit: Exit) {
        self.leave();
        match (self.exit, exit) {
            // The end of the run is never hidden by an earlier access of the same repetition.
            (Some(Exit::Terminate(_)), _) => {}
            (None, _) | (_, Exit::Terminate(_)) => self.exit = Some(exit),
            _ => {}
        }
    }

    /// Notes an observation at the running instruction, if wanted.
    #[inline(always)]
    pub fn observe(&mut self, what: impl FnOnce() -> Observation) {
        if self.observations.wanted != crate::observer::Wanted::NONE {
            let what = what();
            if self.observations.wanted.has(what.kind()) {
                let now = self.now();
                self.observations.rows.push((now, what));
            }
        }
    }

    /// Effective address of the memory operand, with the segment base.
    #[inline(always)]
    pub fn ea(&self, op: &Op) -> u64 {
        let r = &self.cpu.regs;
        let ea = r[op.base as usize & 31]
            .wrapping_add(r[op.index as usize & 31] << (op.scale & 3))
            .wrapping_add(op.disp);
        if op.prefix & (ADDR32 | ADDR16) != 0 {
            return self.narrow_ea(op, ea);
        }
        ea.wrapping_add(self.cpu.segs[op.seg as usize % 7].base)
    }

    /// Outside 64-bit mode, linear addresses have 32 bits as well.
    #[inline(never)]
    pub(crate) fn narrow_ea(&self, op: &Op, ea: u64) -> u64 {
        let ea = ea
            & if op.prefix & ADDR16 != 0 {
                0xffff
            } else {
                0xffff_ffff
            };
        let linear = ea.wrapping_add(self.cpu.segs[op.seg as usize % 7].base);
        if op.prefix & STACK32 != 0 {
            linear & 0xffff_ffff
        } else {
            linear
        }
    }

    /// A register operand.
    #[inline(always)]
    pub fn reg<W: Word>(&self, n: u8) -> W {
        if W::BITS == 8 {
            W::low(self.cpu.regs[n as usize & 31] >> ((n & HIGH_BYTE) >> 3))
        } else {
            W::low(self.cpu.regs[n as usize & 31])
        }
    }

    /// Writes a register operand: 32-bit results clear the upper half, narrower ones leave it.
    #[inline(always)]
    pub fn set_reg<W: Word>(&mut self, n: u8, value: W) {
        let r = &mut self.cpu.regs[n as usize & 31];
        match W::BITS {
            64 | 32 => *r = value.zext(),
            16 => *r = *r & !0xffff | value.zext(),
            _ => {
                let shift = (n & HIGH_BYTE) >> 3;
                *r = *r & !(0xff << shift) | value.zext() << shift;
            }
        }
    }

    /// Jumps to an offset from the block's start.
    #[inline(always)]
    pub fn jump_relative(&mut self, offset: u64) {
        self.cpu.rip = self.cpu.regs[REG_BLOCK as usize].wrapping_add(offset);
    }

    /// A set trap flag traps right after the running instruction: SYSRET, whose restored flag
    /// counts at once, and STI, whose shadow holds off interrupts but no traps.
    pub(crate) fn trap_if_stepping(&mut self) {
        if self.cpu.system_flags & crate::cpu::flags::TF != 0 {
            self.debug_trap = Some(DR6_BS);
        }
    }

    /// Recomputes when the board next does something by itself.
    pub(crate) fn update_deadline(&mut self) {
        self.deadline = match self.board.next_deadline() {
            Some(time) => self.clock.tick_at(time),
            None => Tick(u64::MAX),
        };
    }

    /// Lets the board catch up with the current time.
    pub(crate) fn advance_board(&mut self) {
        self.board.advance(self.clock.time_at(self.tick));
        self.after_board();
    }

    /// Takes up what the board did: outputs become observations and exits, deadlines move.
    pub(crate) fn after_board(&mut self) {
        let mut outputs = std::mem::take(&mut self.outputs);
        self.board.drain_outputs(&mut outputs);
        for event in outputs.drain(..) {
            self.board_event(event);
        }
        self.outputs = outputs;
        self.update_deadline();
        self.attention = true;
    }

    fn board_event(&mut self, event: BoardEvent) {
        match event {
            BoardEvent::ConsoleOut { byte, .. } => {
                if let Some(tap) = &mut self.console_tap {
                    tap.push(byte);
                }
                self.watcher.console_line.push(byte);
                if byte == b'\n' || self.watcher.console_line.len() >= CONSOLE_PIECE_BYTES_MAX {
                    self.flush_console();
                }
            }
            BoardEvent::IrqForward {
                source,
                line,
                vector,
            } => {
                let now = self.now().0;
                self.watcher.forwarded.insert(vector, now);
                let source = source as u8;
                self.observe(|| Observation::IrqForward {
                    to_host: false,
                    source,
                    line,
                    vector,
                });
            }
            BoardEvent::IrqEoi { vector } => self.observe(|| Observation::IrqEoi { vector }),
            BoardEvent::TimerProgram { deadline } => {
                self.observe(|| Observation::TimerProgram {
                    deadline: deadline.0,
                });
            }
            BoardEvent::Shutdown(kind) => self.leave_with(Exit::Terminate(Shutdown::from(kind))),
            BoardEvent::DebugExit { code } => {
                self.leave_with(Exit::Terminate(Shutdown::DebugExit(code)));
            }
            BoardEvent::Mark(text) => self.observe(|| Observation::Mark { text }),
        }
    }

    /// Reports console bytes that do not make a whole line.
    pub fn flush_console(&mut self) {
        if !self.watcher.console_line.is_empty() {
            let bytes = std::mem::take(&mut self.watcher.console_line);
            self.observe(|| Observation::ConsoleOut { port: 0, bytes });
        }
    }

    /// Reads device memory.
    pub(crate) fn device_read(&mut self, gpa: Gpa, size: u8) -> u64 {
        let now = self.time();
        let rip = self.insn_rip();
        match self.board.mmio_read(gpa, size, now) {
            Some(value) => {
                self.observe(|| Observation::Mmio {
                    write: false,
                    gpa: gpa.0,
                    size,
                    value,
                    rip,
                });
                self.device_exit();
                value
            }
            None => {
                self.observe(|| Observation::PpramHole {
                    gpa: gpa.0,
                    size,
                    write: false,
                    rip,
                });
                u64::MAX
            }
        }
    }

    /// Writes device memory.
    pub(crate) fn device_write(&mut self, gpa: Gpa, size: u8, value: u64) {
        let now = self.time();
        let rip = self.insn_rip();
        if self.board.mmio_write(gpa, size, value, now) {
            self.observe(|| Observation::Mmio {
                write: true,
                gpa: gpa.0,
                size,
                value,
                rip,
            });
            self.device_exit();
        } else {
            self.observe(|| Observation::PpramHole {
                gpa: gpa.0,
                size,
                write: true,
                rip,
            });
        }
    }

    /// Reads a port.
    pub(crate) fn port_in(&mut self, port: u16, size: u8) -> u32 {
        let now = self.time();
        let rip = self.insn_rip();
        match self.board.pio_read(port, size, now) {
            Some(value) => {
                self.observe(|| Observation::Pio {
                    write: false,
                    port,
                    size,
                    value,
                    rip,
                });
                self.device_exit();
                value
            }
            None => {
                let value = u32::MAX;
                self.observe(|| Observation::IoUnclaimed {
                    port,
                    size,
                    write: false,
                    value,
                    rip,
                });
                value
            }
        }
    }

    /// Writes a port.
    pub(crate) fn port_out(&mut self, port: u16, size: u8, value: u32) {
        let now = self.time();
        let rip = self.insn_rip();
        if self.board.pio_write(port, size, value, now) {
            self.observe(|| Observation::Pio {
                write: true,
                port,
                size,
                value,
                rip,
            });
            self.device_exit();
        } else {
            self.observe(|| Observation::IoUnclaimed {
                port,
                size,
                write: true,
                value,
                rip,
            });
        }
    }

    fn device_exit(&mut self) {
        self.after_board();
        self.leave_with(Exit::Device);
    }

    /// Notes the beginning of a system call.
    pub(crate) fn syscall_begins(&mut self, return_rip: u64) {
        let r = &self.cpu.regs;
        let (nr, args) = (r[0], [r[7], r[6], r[2], r[10], r[8], r[9]]);
        let key = (self.cpu.cr3, r[4]);
        let now = self.now().0;
        if self.watcher.syscalls.len() >= OPEN_SYSCALLS_MAX {
            self.watcher.syscalls.clear();
        }
        self.watcher.syscalls.insert(key, (nr, now));
        self.observe(|| Observation::SyscallEnter {
            nr,
            args,
            rip: return_rip,
        });
    }

    /// Notes a return to user mode, which may end a system call.
    pub(crate) fn returned_to_user(&mut self) {
        let key = (self.cpu.cr3, self.cpu.regs[4]);
        if let Some((nr, began)) = self.watcher.syscalls.remove(&key) {
            let ret = self.cpu.regs[0];
            let insns = self.now().0.saturating_sub(began);
            self.observe(|| Observation::SyscallExit { nr, ret, insns });
        }
    }
}
