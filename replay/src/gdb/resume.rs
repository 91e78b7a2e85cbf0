//! Running forward: what gdb asks for, and what it is told when the machine has stopped.

use gdbstub::common::{Signal, Tid};
use gdbstub::conn::{Connection, ConnectionExt};
use gdbstub::stub::MultiThreadStopReason;
use gdbstub::stub::run_blocking::{BlockingEventLoop, Event, WaitForStopReasonError};
use gdbstub::target::ext::base::multithread::{
    MultiThreadRangeStepping, MultiThreadRangeSteppingOps, MultiThreadResume,
    MultiThreadSchedulerLocking, MultiThreadSchedulerLockingOps, MultiThreadSingleStep,
    MultiThreadSingleStepOps,
};
use gdbstub::target::ext::base::reverse_exec::{ReplayLogPosition, ReverseContOps, ReverseStepOps};
use gdbstub::target::ext::breakpoints::WatchKind;

use super::progress::Progress;
use super::target::{Debuggee, VCPU};
use super::wire::Wire;
use crate::timeline::TimelineError;
use crate::watch::Halt;

/// Steps in a range before it is looked whether gdb wants to interrupt them.
const STEPS_PER_LOOK: u32 = 4096;

/// What the next resumption does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Step,
    /// Step while the next instruction is in this range.
    StepRange(u64, u64),
    Continue,
    StepBack,
    ContinueBack,
}

impl MultiThreadResume for Debuggee {
    fn resume(&mut self) -> Result<(), TimelineError> {
        // The event loop runs the machine.
        Ok(())
    }

    fn clear_resume_actions(&mut self) -> Result<(), TimelineError> {
        self.action = Action::Continue;
        Ok(())
    }

    fn set_resume_action_continue(
        &mut self,
        _: Tid,
        _: Option<Signal>,
    ) -> Result<(), TimelineError> {
        // There is nobody in the guest to take a signal.
        self.action = Action::Continue;
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_range_step(&mut self) -> Option<MultiThreadRangeSteppingOps<'_, Self>> {
        Some(self)
    }

    fn support_reverse_step(&mut self) -> Option<ReverseStepOps<'_, Tid, Self>> {
        Some(self)
    }

    fn support_reverse_cont(&mut self) -> Option<ReverseContOps<'_, Tid, Self>> {
        Some(self)
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadSingleStep for Debuggee {
    fn set_resume_action_step(&mut self, _: Tid, _: Option<Signal>) -> Result<(), TimelineError> {
        self.action = Action::Step;
        Ok(())
    }
}

impl MultiThreadRangeStepping for Debuggee {
    fn set_resume_action_range_step(
        &mut self,
        _: Tid,
        start: u64,
        end: u64,
    ) -> Result<(), TimelineError> {
        self.action = Action::StepRange(start, end);
        Ok(())
    }
}

impl MultiThreadSchedulerLocking for Debuggee {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), TimelineError> {
        // There is one thread.
        Ok(())
    }
}

impl Debuggee {
    fn go(&mut self, keep_going: &mut dyn FnMut(u64) -> bool) -> Result<Halt, TimelineError> {
        let conditions = self.shared.conditions().clone();
        self.timeline.stops().conditions = conditions;
        match self.action {
            Action::Step => self.timeline.step(),
            Action::StepRange(start, end) => self.step_range(start, end, keep_going),
            Action::Continue => self.timeline.forward(keep_going),
            Action::StepBack => self.timeline.step_back(),
            Action::ContinueBack => self.timeline.backward(keep_going),
        }
    }

    /// The tick at which the next resumption would end if nothing stopped it.
    fn heading(&self) -> u64 {
        match self.action {
            Action::StepBack | Action::ContinueBack => 0,
            _ => self.timeline.last_tick(),
        }
    }

    /// Steps until the next instruction is outside a range, or has a breakpoint.
    fn step_range(
        &mut self,
        start: u64,
        end: u64,
        keep_going: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Halt, TimelineError> {
        for taken in 1u32.. {
            let halt = self.timeline.step()?;
            let rip = self.timeline.machine().core().cpu.rip;
            if halt != Halt::Arrived || !(start..end).contains(&rip) {
                return Ok(halt);
            }
            if self.timeline.stops().breakpoints.contains(&rip) {
                return Ok(Halt::Breakpoint);
            }
            if taken % STEPS_PER_LOOK == 0 && !keep_going(self.timeline.at().tick) {
                break;
            }
        }
        Ok(Halt::Interrupted)
    }

    fn reason(&self, halt: Halt) -> MultiThreadStopReason<u64> {
        let rip = self.timeline.machine().core().cpu.rip;
        reason(halt, self.hardware.contains(&rip))
    }
}

/// What gdb is told of a stop. `hardware`: a breakpoint here was set as a hardware one.
pub(super) fn reason(halt: Halt, hardware: bool) -> MultiThreadStopReason<u64> {
    let tid = VCPU;
    match halt {
        Halt::Arrived => MultiThreadStopReason::SignalWithThread {
            tid,
            signal: Signal::SIGTRAP,
        },
        Halt::Interrupted => MultiThreadStopReason::SignalWithThread {
            tid,
            signal: Signal::SIGINT,
        },
        Halt::Breakpoint if hardware => MultiThreadStopReason::HwBreak(tid),
        Halt::Breakpoint => MultiThreadStopReason::SwBreak(tid),
        Halt::Watch(hit) => {
            let kind = match (hit.watch.read, hit.watch.write) {
                (true, true) => WatchKind::ReadWrite,
                (true, false) => WatchKind::Read,
                _ => WatchKind::Write,
            };
            MultiThreadStopReason::Watch {
                tid,
                kind,
                addr: hit.address,
            }
        }
        Halt::Start => MultiThreadStopReason::ReplayLog {
            tid: Some(tid),
            pos: ReplayLogPosition::Begin,
        },
        Halt::End => MultiThreadStopReason::ReplayLog {
            tid: Some(tid),
            pos: ReplayLogPosition::End,
        },
    }
}

/// The connection while the machine runs.
struct Line<'c, S> {
    conn: &'c mut Wire<S>,
    interrupted: bool,
    broken: Option<std::io::Error>,
}

impl<S: ConnectionExt<Error = std::io::Error>> Line<'_, S> {
    /// Tells gdb something, if there is something, and says whether the machine is to run on.
    fn look(&mut self, told: Option<String>) -> bool {
        let told = told.map_or(Ok(()), |text| self.conn.tell(&text));
        match told.and_then(|()| self.conn.peek()) {
            Ok(None) => true,
            Ok(Some(_)) => {
                self.interrupted = true;
                false
            }
            Err(error) => {
                self.broken = Some(error);
                false
            }
        }
    }
}

/// Runs a command instead of a step.
fn at_step<S: ConnectionExt<Error = std::io::Error>>(
    target: &mut Debuggee,
    command: &str,
    line: &mut Line<'_, S>,
) -> Result<Halt, TimelineError> {
    let mut progress: Option<Progress> = None;
    let said = target.monitor(command, &mut |tick, towards| {
        let progress = match &mut progress {
            Some(progress) if progress.towards() == towards => progress,
            other => other.insert(Progress::new(tick, towards)),
        };
        line.look(progress.at(tick))
    })?;
    line.look(Some(said));
    Ok(if line.interrupted {
        Halt::Interrupted
    } else {
        Halt::Arrived
    })
}

/// Runs the machine while gdb waits, looking at the connection now and then.
#[derive(Debug)]
pub(crate) struct EventLoop<S>(std::marker::PhantomData<S>);

type WaitError<S> = WaitForStopReasonError<TimelineError, <S as Connection>::Error>;

impl<S: ConnectionExt<Error = std::io::Error>> BlockingEventLoop for EventLoop<S> {
    type Target = Debuggee;
    type Connection = Wire<S>;
    type StopReason = MultiThreadStopReason<u64>;

    fn wait_for_stop_reason(
        target: &mut Debuggee,
        conn: &mut Wire<S>,
    ) -> Result<Event<Self::StopReason>, WaitError<S>> {
        let mut line = Line {
            conn,
            interrupted: false,
            broken: None,
        };
        let halt = match target.at_step.take() {
            Some(command) => at_step(target, &command, &mut line),
            None => {
                let mut progress = Progress::new(target.timeline.at().tick, target.heading());
                target.go(&mut |tick| line.look(progress.at(tick)))
            }
        };
        if let Some(error) = line.broken {
            return Err(WaitForStopReasonError::Connection(error));
        }
        match halt {
            Ok(Halt::Interrupted) => {
                // What came is Ctrl-C, or the end of the connection.
                let byte = conn.read().map_err(WaitForStopReasonError::Connection)?;
                Ok(Event::IncomingData(byte))
            }
            Ok(halt) => Ok(Event::TargetStopped(target.reason(halt))),
            Err(error) => Err(WaitForStopReasonError::Target(error)),
        }
    }

    fn on_interrupt(target: &mut Debuggee) -> Result<Option<Self::StopReason>, TimelineError> {
        Ok(Some(target.reason(Halt::Interrupted)))
    }
}
