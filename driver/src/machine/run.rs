//! Running: block by block, and what becomes of instructions that do not complete.

use super::{Machine, Stop, Unsupported};
use crate::core::{Core, DR6_BS};
use crate::cpu::deliver::TripleFault;
use crate::cpu::fault::{Fault, Trap, TrapCause, vector};
use crate::cpu::flags;
use crate::cpu::state::{REG_BLOCK, seg};
use crate::jit::{Ran, compare};
use crate::passage::{Exit, Shutdown};
use crate::tick::Tick;
use crate::x86::block::Block;
use crate::x86::decode::{INSN_BYTES_MAX, describe};

/// The debug exception; its cause is in DR6.
const DEBUG: Fault = Fault::plain(vector::DB);
/// Observations after which `run` pauses, so that its caller drains them.
const OBSERVATIONS_MAX: usize = 4096;
/// Pieces of one long repetition after which `run` pauses.
const RESTARTS_PER_PAUSE: u32 = 16;
/// Exceptions in a row, without an instruction that completes, after which `run` pauses...
const BARREN_PER_PAUSE: u32 = 4096;
/// ... and after which the run ends: no tick will ever come again.
const BARREN_MAX: u32 = 1 << 16;

impl Machine {
    /// Runs until `until`, or until something else stops it.
    pub fn run(&mut self, until: Tick) -> Stop {
        let Some(mut twin) = self.twin.take() else {
            return self.run_tier(until);
        };
        let stop = compare::run(self, &mut twin, until);
        self.twin = Some(twin);
        stop
    }

    /// As [`Machine::run`], this machine alone.
    pub(crate) fn run_tier(&mut self, until: Tick) -> Stop {
        if let Some(how) = self.ended {
            return Stop::Terminated(how);
        }
        loop {
            // What is due at a tick comes first, whatever else ends there: the state at a tick must
            // not depend on whether something happened to ask for attention.
            if (self.core.attention || self.core.tick >= self.core.deadline)
                && let Some(stop) = self.boundary()
            {
                return stop;
            }
            let tick = self.core.tick;
            if tick >= until {
                return Stop::Limit;
            }
            if self.pause || self.core.observations.rows.len() >= OBSERVATIONS_MAX {
                self.pause = false;
                return Stop::Pause;
            }
            if tick >= self.next_quantum {
                self.next_quantum = Tick((tick.0 / self.quantum_ticks + 1) * self.quantum_ticks);
                self.leave_passage(Exit::Quantum);
                self.enter_passage(0);
                return Stop::Quantum;
            }
            let end = until.min(self.next_quantum).min(self.core.deadline);
            let limit = end.0.saturating_sub(tick.0).max(1);
            if let Some(stop) = self.run_block(limit) {
                return stop;
            }
        }
    }

    /// One block, or the part of it that `limit` allows.
    #[inline]
    fn run_block(&mut self, limit: u64) -> Option<Stop> {
        let core = &mut self.core;
        if self.stops.armed && self.stops.arrive(core) {
            return Some(Stop::Pause);
        }
        if core.armed.any()
            && let Some(bits) = core.breakpoint_before()
        {
            if let Some(trail) = &mut core.trail {
                trail.executed.note(core.cpu.linear_rip());
            }
            self.stops.stalled(core.tick);
            return self
                .debug_exception(bits)
                .or_else(|| self.barren_exception(DEBUG));
        }
        let Ok(id) = self.blocks.lookup(core) else {
            return self.trapped(0);
        };
        let block = self.blocks.get(id)?;
        if block.hooked && core.hooks.binary_search(&core.cpu.linear_rip()).is_ok() {
            self.hook_passed = !self.hook_passed;
            if self.hook_passed {
                return Some(Stop::Hook(core.cpu.rip));
            }
        }
        if !self.stops.exact
            && !core.armed.any()
            && let Some(ran) = self.translator.run(core, &mut self.blocks, id, limit)
        {
            return self.after_translated(ran);
        }
        let block = self.blocks.get(id)?;
        core.cpu.regs[REG_BLOCK as usize] = core.cpu.rip;
        let mut most = (block.ops.len() as u64).min(limit) as usize;
        let tracing = core.cpu.system_flags & flags::TF != 0;
        if tracing || core.cpu.shadow {
            most = most.min(1);
        }
        if core.armed.any() {
            most = most.min(core.until_breakpoint(block));
        }
        core.cpu.shadow = false;
        // The resume flag lets one instruction past its breakpoint.
        core.cpu.system_flags &= !flags::RF;
        let cpl = core.cpu.cpl;
        let (done, completed) = execute(core, block, most);
        // Where the next instruction is: said by the last one, or behind it.
        if done < block.ops.len() {
            core.jump_relative(u64::from(block.ops[done].offset));
        } else if !block.sets_rip {
            core.jump_relative(u64::from(block.len));
        }
        core.tick.0 += done as u64;
        core.place = 0;
        core.cpu.regs[REG_BLOCK as usize] = core.cpu.rip;
        core.cpu.cut_rip();
        if !completed {
            let len = block.ops.get(done).map_or(0, |op| op.len);
            return self.trapped(len);
        }
        // A trap flag that was set when the instruction began traps after it. SYSCALL masks the
        // flag before that; so does no other instruction.
        let masked = core.cpu.cpl < cpl && core.cpu.system_flags & flags::TF == 0;
        if tracing && done > 0 && !core.cpu.shadow && !masked {
            *core.debug_trap.get_or_insert(0) |= DR6_BS;
        }
        if core.armed.any() && core.data_breakpoint_pending() && !core.cpu.shadow {
            *core.debug_trap.get_or_insert(0) |= core.take_data_breakpoints();
        }
        let bits = core.debug_trap.take()?;
        self.debug_exception(bits)
    }

    /// Delivers #DB with these bits of DR6.
    fn debug_exception(&mut self, bits: u64) -> Option<Stop> {
        self.core.cpu.dr[6] |= bits;
        let delivered = self.core.deliver_exception(DEBUG);
        self.delivered(delivered)
    }

    /// What tier 1 leaves to be done, as after a block of tier 0.
    fn after_translated(&mut self, ran: Ran) -> Option<Stop> {
        let core = &mut self.core;
        core.cpu.cut_rip();
        if let Ran::Trapped(len) = ran {
            return self.trapped(len);
        }
        let bits = core.debug_trap.take()?;
        core.cpu.dr[6] |= bits;
        let delivered = core.deliver_exception(Fault::plain(vector::DB));
        self.delivered(delivered)
    }

    /// The instruction at RIP, of length `len`, did not complete.
    #[cold]
    fn trapped(&mut self, len: u8) -> Option<Stop> {
        let core = &mut self.core;
        core.cpu.regs[REG_BLOCK as usize] = core.cpu.rip;
        // Whatever it did before, like a page fault on the second page, is as if it had not begun.
        let trap = core.trap.take();
        self.stops.stalled(core.tick);
        match trap {
            Some(TrapCause::Fault(fault)) => {
                // What it hit before the fault it will hit again.
                core.take_data_breakpoints();
                let delivered = core.deliver_exception(fault);
                self.delivered(delivered)
                    .or_else(|| self.barren_exception(fault))
            }
            Some(TrapCause::SoftwareInterrupt { vector }) => {
                let rip = core.cpu.rip;
                core.cpu.rip = rip.wrapping_add(u64::from(len));
                match core.deliver_software(vector, rip) {
                    Ok(true) => {
                        self.core.tick.0 += 1;
                        None
                    }
                    // A gate that refuses is a fault of the instruction.
                    Ok(false) => self.barren_exception(Fault::plain(vector)),
                    Err(triple) => self.delivered(Err(triple)),
                }
            }
            Some(TrapCause::Restart) => {
                core.attention = true;
                self.restarts += 1;
                if self.restarts >= RESTARTS_PER_PAUSE {
                    self.restarts = 0;
                    self.pause = true;
                }
                if self.core.data_breakpoint_pending() {
                    let bits = self.core.take_data_breakpoints();
                    return self.debug_exception(bits);
                }
                None
            }
            Some(TrapCause::Unsupported(what)) => Some(self.unsupported(what)),
            None => Some(self.unsupported("an instruction failed without saying why".to_owned())),
        }
    }

    /// Counts exceptions that follow each other without an instruction that completes: a handler
    /// whose first instruction faults again takes the vCPU to no further tick, ever.
    fn barren_exception(&mut self, fault: Fault) -> Option<Stop> {
        let now = self.core.tick;
        let count = if self.barren.0 == now {
            self.barren.1 + 1
        } else {
            1
        };
        self.barren = (now, count);
        if count >= BARREN_MAX {
            let v = fault.vector;
            let what = format!("exceptions without end (vector {v}): no instruction completes");
            return Some(self.unsupported(what));
        }
        self.pause |= count % BARREN_PER_PAUSE == 0;
        None
    }

    pub(super) fn delivered(&mut self, result: Result<(), TripleFault>) -> Option<Stop> {
        match result {
            Ok(()) => None,
            Err(TripleFault) => {
                if let Some(TrapCause::Unsupported(what)) = self.core.trap.take() {
                    return Some(self.unsupported(what));
                }
                Some(self.terminate(Shutdown::TripleFault))
            }
        }
    }

    fn unsupported(&mut self, what: String) -> Stop {
        let (rip, linear) = (self.core.cpu.rip, self.core.cpu.linear_rip());
        let mut bytes = Vec::new();
        let mut one = [0];
        while bytes.len() < INSN_BYTES_MAX
            && self
                .core
                .peek(linear.wrapping_add(bytes.len() as u64), &mut one)
        {
            bytes.push(one[0]);
        }
        let text = describe(&bytes, self.core.cpu.segs[seg::CS].code_bits());
        Stop::Unsupported(Box::new(Unsupported {
            what,
            bytes,
            text,
            rip,
            tick: self.core.tick,
        }))
    }
}

/// Runs up to `most` operations of a block; says how many completed, and whether none trapped.
#[inline(always)]
fn execute(core: &mut Core, block: &Block, most: usize) -> (usize, bool) {
    core.stop = most;
    let mut i = 0;
    while i < core.stop {
        let Some(op) = block.ops.get(i) else { break };
        core.place = u32::from(op.index_in_block) << 16 | u32::from(op.offset);
        if let Err(Trap) = (op.run)(core, op) {
            return (i, false);
        }
        i += 1;
    }
    (i, true)
}
