//! The whole virtual computer: one vCPU, PPRAM, the board; run until something stops it.

mod boundary;
mod run;
mod state;

use crate::boot::BootImage;
use crate::core::Core;
use crate::cpu::segment::flat;
use crate::cpu::state::{self as cpu_state, TableRegister, seg};
use crate::debug::{Arrival, DebugPlan, DebugStop, Stops};
use crate::dev::bus::{Board, BoardConfig};
use crate::jit::{Tier, TierStats, Translator, compare};
use crate::layout;
use crate::mem::addr::PAGE_SIZE;
use crate::mem::ppram::{Ppram, Toucher};
use crate::mem::trail::Trail;
use crate::observer::{Observation, Wanted};
use crate::passage::Shutdown;
use crate::tick::{Clock, Tick, VirtualTime};
use crate::x86::block::BlockCache;

/// What a machine is built from, besides the boot image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineConfig {
    /// Size of PPRAM in bytes.
    pub memory_bytes: u64,
    /// What the real-time clock shows at power-on, in seconds since 1970.
    pub rtc_epoch_s: u64,
    /// Nanoseconds of virtual time per tick.
    pub ns_per_tick: u32,
    /// Ticks after which the host gets its turn.
    pub quantum_ticks: u64,
}

/// Why [`Machine::run`] returned. The machine can be run on after all but the last two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The tick asked for has been reached.
    Limit,
    /// A host quantum ended: the moment for input.
    Quantum,
    /// The vCPU is halted. [`Machine::warp_to`] jumps to the next deadline, if there is one;
    /// console input may also end it.
    Idle(Option<VirtualTime>),
    /// The next instruction is at an address given to [`Machine::hook`]. Running on executes it.
    Hook(u64),
    /// Nothing about the guest: the caller may want to look at signals, or drain observations.
    Pause,
    /// The guest ended the run.
    Terminated(Shutdown),
    /// The guest asked for something the machine does not implement.
    Unsupported(Box<Unsupported>),
}

/// What the machine does not implement, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// What it is.
    pub what: String,
    /// The instruction's bytes, as far as they can be read.
    pub bytes: Vec<u8>,
    /// The instruction as text.
    pub text: String,
    /// Its address.
    pub rip: u64,
    /// When.
    pub tick: Tick,
}

impl std::fmt::Display for Unsupported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes: Vec<String> = self.bytes.iter().map(|b| format!("{b:02x}")).collect();
        write!(
            f,
            "{}: `{}` (bytes {}) at rip {:#x}, tick {}",
            self.what,
            self.text,
            bytes.join(" "),
            self.rip,
            self.tick
        )
    }
}

/// The machine.
#[derive(Debug)]
pub struct Machine {
    core: Core,
    blocks: BlockCache,
    translator: Translator,
    quantum_ticks: u64,
    next_quantum: Tick,
    ended: Option<Shutdown>,
    /// Exceptions delivered since an instruction completed, and at which tick.
    barren: (Tick, u32),
    /// Pieces of the running repetition.
    restarts: u32,
    /// The host is owed a turn.
    pause: bool,
    /// What a debugger wants to be stopped for; not part of the state.
    stops: Stops,
    /// The hook at the next instruction has been reported.
    hook_passed: bool,
    /// A second machine to compare with, see [`Tier::Compare`].
    twin: Option<Box<Machine>>,
}

impl Machine {
    /// A machine without any content, to restore a snapshot into.
    pub fn empty(config: &MachineConfig) -> Self {
        let ram = Ppram::new(config.memory_bytes);
        let board = Board::new(&BoardConfig {
            rtc_epoch_s: config.rtc_epoch_s,
        });
        let clock = Clock {
            ns_per_tick: config.ns_per_tick.max(1),
            warp_ns: 0,
        };
        let quantum_ticks = config.quantum_ticks.max(1);
        Machine {
            blocks: BlockCache::new(ram.page_count()),
            translator: Translator::default(),
            core: Core::new(ram, board, clock),
            quantum_ticks,
            next_quantum: Tick(quantum_ticks),
            ended: None,
            hook_passed: false,
            twin: None,
            barren: (Tick(0), 0),
            restarts: 0,
            pause: false,
            stops: Stops::default(),
        }
    }

    /// A machine with its boot image loaded, about to enter the kernel.
    pub fn new(config: &MachineConfig, image: &BootImage) -> Self {
        let mut machine = Self::empty(config);
        let core = &mut machine.core;
        for (gpa, bytes) in &image.segments {
            let mut at = gpa.0;
            for piece in bytes.chunks(PAGE_SIZE as usize) {
                let mut piece = piece;
                // The first piece may begin inside a page.
                while !piece.is_empty() {
                    let room = (PAGE_SIZE - at % PAGE_SIZE) as usize;
                    let (now, later) = piece.split_at(room.min(piece.len()));
                    if let Some(offset) = core.ram.offset(crate::mem::addr::Gpa(at)) {
                        core.store_ram(offset, now, Toucher::Loader);
                    }
                    at += now.len() as u64;
                    piece = later;
                }
            }
        }
        let cpu = &mut core.cpu;
        cpu.rip = image.entry;
        cpu.regs[6] = image.rsi;
        cpu.regs[4] = image.rsp;
        cpu.cr0 = cpu_state::CR0_PE | cpu_state::CR0_PG | cpu_state::CR0_WP | cpu_state::CR0_ET;
        cpu.cr3 = image.cr3;
        cpu.cr4 = cpu_state::CR4_PAE;
        cpu.efer = cpu_state::EFER_LME | cpu_state::EFER_LMA;
        cpu.segs[seg::CS] = flat::code64(layout::BOOT_CS, 0);
        for which in [seg::DS, seg::ES, seg::SS] {
            cpu.segs[which] = flat::data(layout::BOOT_DS, 0);
        }
        cpu.gdtr = TableRegister {
            base: image.gdt_base,
            limit: image.gdt_limit,
        };
        cpu.idtr = TableRegister {
            base: layout::BOOT_IDT.0,
            limit: 0,
        };
        machine
    }

    /// Chooses the back end; says which one it has become, since not every host can run tier 1. No
    /// state depends on it.
    pub fn set_tier(&mut self, tier: Tier) -> Tier {
        let tier = self.translator.set_tier(tier);
        self.twin = None;
        if tier == Tier::Compare {
            let config = MachineConfig {
                memory_bytes: self.core.ram.size(),
                rtc_epoch_s: 0,
                ns_per_tick: self.core.clock.ns_per_tick,
                quantum_ticks: self.quantum_ticks,
            };
            let mut twin = compare::twin(self, &config);
            twin.hook(self.core.hooks.clone());
            twin.hook_passed = self.hook_passed;
            self.twin = Some(twin);
        }
        tier
    }

    /// Executions after which tier 1 translates a block; what is best is set already. With 1, every
    /// block is, which is how tests get at it.
    pub fn translate_after(&mut self, executions: u32) {
        self.translator.translate_after(executions);
    }

    /// The back end in use.
    pub fn tier(&self) -> Tier {
        self.translator.tier()
    }

    /// What tier 1 has done so far.
    pub fn tier_stats(&self) -> TierStats {
        self.translator.stats(&self.core)
    }

    /// Which observations to collect from now on.
    pub fn want(&mut self, wanted: Wanted) {
        self.core.observations.wanted = wanted;
    }

    /// The position in execution.
    pub fn tick(&self) -> Tick {
        self.core.tick
    }

    /// Virtual time.
    pub fn time(&self) -> VirtualTime {
        self.core.clock.time_at(self.core.tick)
    }

    /// The vCPU and all it touches.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// The vCPU, for a debugger that reads memory.
    pub fn core_mut(&mut self) -> &mut Core {
        &mut self.core
    }

    /// Stops for these things from now on, with [`Stop::Pause`]; then
    /// [`Machine::take_debug_stop`] says for which. Changes nothing about the guest.
    pub fn debug(&mut self, plan: &DebugPlan) {
        self.stops.follow(plan, &mut self.core);
        let new = self.core.cut_at(&plan.breakpoints);
        if !new.is_empty() {
            self.blocks.forget_across(&mut self.core, &new);
        }
    }

    /// Begins to note which pages the guest uses, for [`Machine::take_trail`]. Changes nothing about
    /// the guest.
    pub fn leave_trail(&mut self) {
        self.core.trail.get_or_insert_default();
        self.take_trail();
    }

    /// The pages used since the last call, if they are noted, and begins anew.
    pub fn take_trail(&mut self) -> Option<Trail> {
        let core = &mut self.core;
        let trail = core.trail.as_mut()?.take();
        core.tlb.drop_writes();
        core.tlb.fetch_anew();
        Some(trail)
    }

    /// What the machine stopped for, if it did.
    pub fn take_debug_stop(&mut self) -> Option<DebugStop> {
        self.stops.take()
    }

    /// The next instruction to be tried. Exact where the machine stopped for its debugger.
    pub fn arrival(&self) -> Arrival {
        self.stops.arrival(self.core.tick)
    }

    /// The last tick at which tries came to nothing, and how many, since the machine was restored.
    pub fn stalls(&self) -> Arrival {
        self.stops.stalls()
    }

    /// Blocks decoded so far.
    pub fn blocks_decoded(&self) -> u64 {
        self.blocks.decoded
    }

    /// Hands out what has been observed.
    pub fn drain(&mut self, mut take: impl FnMut(Tick, Observation)) {
        for (tick, what) in self.core.observations.rows.drain(..) {
            take(tick, what);
        }
    }

    /// Stops with [`Stop::Hook`] whenever an instruction at one of these guest-virtual addresses is
    /// about to run. Changes nothing about the guest.
    pub fn hook(&mut self, mut addresses: Vec<u64>) {
        addresses.sort_unstable();
        addresses.dedup();
        if let Some(twin) = &mut self.twin {
            compare::catch_up(twin, self.core.tick);
            twin.hook(addresses.clone());
        }
        self.core.hooks = addresses;
        self.hook_passed = false;
        self.blocks.clear(&mut self.core);
    }

    /// Begins to keep console bytes for [`Machine::take_console`].
    pub fn tap_console(&mut self) {
        self.core.console_tap = Some(Vec::new());
    }

    /// The console bytes since the last call, if they are kept: whole lines or not.
    pub fn take_console(&mut self) -> Vec<u8> {
        self.core
            .console_tap
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// How many bytes of console input fit now.
    pub fn console_space(&self) -> usize {
        self.core.board.console_space()
    }

    /// Whether the guest has asked to be interrupted when there is console input.
    pub const fn console_listening(&self) -> bool {
        self.core.board.console_listening()
    }

    /// Gives console input to the guest, at the current tick; says how much was taken.
    pub fn console_input(&mut self, bytes: &[u8]) -> usize {
        if let Some(twin) = &mut self.twin {
            compare::catch_up(twin, self.core.tick);
            twin.console_input(bytes);
        }
        let now = self.time();
        let taken = self.core.board.console_input(bytes, now);
        self.core.after_board();
        taken
    }

    /// While halted: lets virtual time jump forward.
    pub fn warp_to(&mut self, time: VirtualTime) {
        if let Some(twin) = &mut self.twin {
            compare::catch_up(twin, self.core.tick);
            twin.warp_to(time);
        }
        let now = self.time();
        self.core.clock.warp_ns += time.0.saturating_sub(now.0);
        self.core.update_deadline();
        self.core.attention = true;
    }
}
