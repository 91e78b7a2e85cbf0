//! The state as a value, and its digest.

use xxhash_rust::xxh3::Xxh3;

use super::Machine;
use crate::cpu::state::{Cpu, REG_BLOCK};
use crate::debug::Arrival;
use crate::jit::Tier;
use crate::snapshot::MachineState;

impl Machine {
    /// The state, all but RAM.
    pub fn state(&self) -> MachineState {
        let core = &self.core;
        MachineState {
            tick: core.tick,
            cpu: self.canonical_cpu(),
            board: core.board.clone(),
            clock: core.clock,
            tlb: core.tlb.state(),
            watcher: core.watcher.clone(),
            next_quantum: self.next_quantum,
            attention: core.attention,
            barren: if self.barren.0 == core.tick {
                self.barren.1
            } else {
                0
            },
            ended: self.ended,
        }
    }

    fn canonical_cpu(&self) -> Cpu {
        let mut cpu = self.core.cpu.clone();
        cpu.canonicalize();
        cpu
    }

    /// Back to a state. RAM must have been restored by the caller, page by page.
    pub fn restore(&mut self, state: &MachineState) {
        let core = &mut self.core;
        for (page, granules) in core.ram.take_replaced_code() {
            self.blocks
                .invalidate_granules(core, page as usize, granules);
        }
        self.blocks.forget_written(core);
        core.cpu = state.cpu.clone();
        core.cpu.regs[REG_BLOCK as usize] = core.cpu.rip;
        core.board = state.board.clone();
        core.clock = state.clock;
        core.tlb.restore(&state.tlb);
        core.watcher = state.watcher.clone();
        core.tick = state.tick;
        core.attention = state.attention;
        core.exit = None;
        core.trap = None;
        core.debug_trap = None;
        core.breakpoints_restored();
        core.place = 0;
        core.code_writes.clear();
        core.observations.rows.clear();
        core.set_cpl(state.cpu.cpl);
        core.update_deadline();
        self.next_quantum = state.next_quantum;
        self.ended = state.ended;
        self.barren = (state.tick, state.barren);
        self.restarts = 0;
        self.pause = false;
        self.hook_passed = false;
        let tick = state.tick;
        self.stops
            .moved(Arrival { tick, attempt: 0 }, &mut self.core);
        if self.twin.is_some() {
            self.set_tier(Tier::Compare);
        }
    }

    /// The digest of the whole state: equal states have equal digests on every host.
    pub fn digest(&mut self) -> u128 {
        let ram = self.core.ram.digest();
        self.core.tlb.drop_writes();
        let core = &self.core;
        let mut hash = Xxh3::new();
        let parts = (core.tick, &self.canonical_cpu(), &core.board, core.clock);
        // Serializing plain data into memory cannot fail.
        hash.update(&postcard::to_allocvec(&parts).unwrap_or_default());
        hash.update(&ram.to_le_bytes());
        hash.digest128()
    }
}
