//! The whole virtual computer: one vCPU, PPRAM, the board; run until something stops it.

use xxhash_rust::xxh3::Xxh3;

use crate::boot::BootImage;
use crate::core::{Core, DR6_BS};
use crate::cpu::deliver::{Source, TripleFault};
use crate::cpu::fault::{Fault, Trap, TrapCause, vector};
use crate::cpu::flags;
use crate::cpu::segment::flat;
use crate::cpu::state::{self, Cpu, REG_BLOCK, TableRegister, seg};
use crate::debug::{Arrival, DebugPlan, DebugStop, Stops};
use crate::dev::bus::{Board, BoardConfig};
use crate::jit::{Ran, Tier, TierStats, Translator, compare};
use crate::layout;
use crate::mem::addr::PAGE_SIZE;
use crate::mem::ppram::{Ppram, Toucher};
use crate::mem::trail::Trail;
use crate::observer::{Observation, Wanted};
use crate::passage::{Exit, Shutdown};
use crate::snapshot::MachineState;
use crate::tick::{Clock, Tick, VirtualTime};
use crate::x86::block::{Block, BlockCache};
use crate::x86::decode::{INSN_BYTES_MAX, describe};

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
        cpu.cr0 = state::CR0_PE | state::CR0_PG | state::CR0_WP | state::CR0_ET;
        cpu.cr3 = image.cr3;
        cpu.cr4 = state::CR4_PAE;
        cpu.efer = state::EFER_LME | state::EFER_LMA;
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

    fn delivered(&mut self, result: Result<(), TripleFault>) -> Option<Stop> {
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

    /// Between blocks, when something asked to be looked at.
    #[inline(never)]
    fn boundary(&mut self) -> Option<Stop> {
        let core = &mut self.core;
        core.attention = false;
        self.blocks.forget_written(core);
        if core.tick >= core.deadline {
            core.exit.get_or_insert(Exit::Timer);
            core.advance_board();
            core.attention = false;
        }
        let exit = core.exit.take();
        if let Some(Exit::Terminate(how)) = exit {
            return Some(self.terminate(how));
        }
        let open = core.cpu.interrupts_enabled() && !core.cpu.shadow;
        let waiting = core.board.interrupt_pending();
        let nmi = core.board.nmi_pending() && !core.cpu.nmi_blocked;
        if core.cpu.shadow && waiting {
            // Look again after the one instruction.
            core.attention = true;
        }
        let take = nmi && !core.cpu.shadow || waiting && open;
        let exit = match exit {
            Some(exit) => exit,
            None if take => Exit::IrqWindow,
            // That the guest halted has been reported when it did.
            None => return self.halted(),
        };
        if exit == Exit::Idle {
            // A prompt has no newline; the guest waits now, so it is whole.
            core.flush_console();
        }
        self.leave_passage(exit);
        if take {
            let delivered = self.take_interrupt(nmi);
            if let Some(stop) = self.delivered(delivered) {
                return Some(stop);
            }
        } else {
            self.enter_passage(0);
        }
        self.halted()
    }

    /// What becomes of a vCPU that waits for an interrupt.
    fn halted(&mut self) -> Option<Stop> {
        if !self.core.cpu.halted {
            return None;
        }
        if !self.core.cpu.interrupts_enabled() {
            return Some(self.terminate(Shutdown::Halt));
        }
        self.core.attention = true;
        let next = self.core.board.next_deadline();
        Some(Stop::Idle(next))
    }

    fn take_interrupt(&mut self, nmi: bool) -> Result<(), TripleFault> {
        const NMI: u8 = 2;
        let core = &mut self.core;
        let v = if nmi && core.board.take_nmi() {
            core.cpu.nmi_blocked = true;
            NMI
        } else {
            match core.board.acknowledge() {
                Some(v) => v,
                None => return Ok(()),
            }
        };
        core.after_board();
        core.cpu.halted = false;
        let (rip, cpl) = (core.cpu.rip, core.cpu.cpl);
        let forwarded = core.watcher.forwarded.remove(&v).unwrap_or(core.tick.0);
        let latency = core.tick.0.saturating_sub(forwarded);
        core.observe(|| Observation::IrqDeliver {
            vector: v,
            rip,
            cpl,
            latency,
        });
        self.enter_passage(v);
        self.core.deliver(v, Source::External)
    }

    fn leave_passage(&mut self, exit: Exit) {
        let core = &mut self.core;
        let (rip, cpl) = (core.cpu.rip, core.cpu.cpl);
        let insns = core.tick.0.saturating_sub(core.watcher.passage_start);
        core.watcher.passage_start = core.tick.0;
        let reason = exit.code();
        core.observe(|| Observation::PassageLeave {
            reason,
            rip,
            cpl,
            insns,
        });
    }

    fn enter_passage(&mut self, delivered: u8) {
        self.core
            .observe(|| Observation::PassageEnter { delivered });
    }

    fn terminate(&mut self, how: Shutdown) -> Stop {
        self.core.flush_console();
        self.leave_passage(Exit::Terminate(how));
        self.core
            .observe(|| Observation::GuestShutdown { kind: how.code() });
        self.ended = Some(how);
        Stop::Terminated(how)
    }

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
