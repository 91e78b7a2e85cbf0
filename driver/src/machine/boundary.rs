//! Between blocks: deadlines, interrupts, the way out of the guest and back into it.

use super::{Machine, Stop};
use crate::cpu::deliver::{Source, TripleFault};
use crate::observer::Observation;
use crate::passage::{Exit, Shutdown};

impl Machine {
    /// Between blocks, when something asked to be looked at.
    #[inline(never)]
    pub(super) fn boundary(&mut self) -> Option<Stop> {
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

    pub(super) fn leave_passage(&mut self, exit: Exit) {
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

    pub(super) fn enter_passage(&mut self, delivered: u8) {
        self.core
            .observe(|| Observation::PassageEnter { delivered });
    }

    pub(super) fn terminate(&mut self, how: Shutdown) -> Stop {
        self.core.flush_console();
        self.leave_passage(Exit::Terminate(how));
        self.core
            .observe(|| Observation::GuestShutdown { kind: how.code() });
        self.ended = Some(how);
        Stop::Terminated(how)
    }
}
