//! A machine that is being recorded, as gdb's target: it stops and is read, and goes on. There is no
//! way back, since its recording is not finished; and nothing is seen in the guest, whose time is
//! counted in instructions.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use colinux_driver::debug::{Arrival, DebugPlan, DebugStop};
use colinux_driver::mem::addr::Gpa;
use gdbstub::common::{Signal, Tid};
use gdbstub::conn::{Connection, ConnectionExt};
use gdbstub::stub::MultiThreadStopReason;
use gdbstub::stub::run_blocking::{BlockingEventLoop, Event, WaitForStopReasonError};
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{
    MultiThreadBase, MultiThreadResume, MultiThreadResumeOps, MultiThreadSchedulerLocking,
    MultiThreadSchedulerLockingOps, MultiThreadSingleStep, MultiThreadSingleStepOps,
};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps,
    SwBreakpoint, SwBreakpointOps, WatchKind,
};
use gdbstub::target::ext::target_description_xml_override::{
    TargetDescriptionXmlOverride, TargetDescriptionXmlOverrideOps,
};
use gdbstub::target::{Target, TargetError, TargetResult};

use super::breakpoint::watch_for;
use super::target::{RawRegisters, VCPU, X8664, fill};
use super::wire::{Shared, Wire};
use super::{memory, resume, xml};
use crate::error::ReplayError;
use crate::record::{Ending, Host, Recorder};
use crate::watch::{Halt, Stops};

/// A recorder, while a debugger is attached to it.
pub(crate) struct Live<'a> {
    recorder: &'a mut Recorder,
    host: &'a mut (dyn Host + 'a),
    stops: Stops,
    hardware: Vec<u64>,
    step: bool,
    /// Where the machine stopped, if its breakpoint has been looked at.
    arrived: Option<Arrival>,
    pub(crate) shared: Arc<Shared>,
    /// How the recording ended, if it did.
    pub(crate) ending: Option<Ending>,
    description: String,
}

impl<'a> Live<'a> {
    pub(crate) fn new(recorder: &'a mut Recorder, host: &'a mut (dyn Host + 'a)) -> Self {
        Live {
            recorder,
            host,
            stops: Stops::default(),
            hardware: Vec::new(),
            step: false,
            arrived: None,
            shared: Arc::default(),
            ending: None,
            description: xml::target_description(),
        }
    }

    /// Records until something stops the machine; `None` if the recording ended.
    fn go(&mut self, keep_going: &mut dyn FnMut() -> bool) -> Result<Option<Halt>, ReplayError> {
        self.stops.conditions = self.shared.conditions().clone();
        let at = self.recorder.machine().arrival();
        let next = Arrival {
            attempt: at.attempt.saturating_add(1),
            ..at
        };
        let mut plan = DebugPlan {
            breakpoints: self.stops.breakpoints.clone(),
            watches: self.stops.watches.clone(),
            after: self.arrived.take(),
            from: self.step.then_some(next),
        };
        self.recorder.machine().debug(&plan);
        let halt = loop {
            self.ending = self.recorder.turn(self.host)?;
            if self.ending.is_some() {
                return Ok(None);
            }
            let machine = self.recorder.machine();
            if let Some(stop) = machine.take_debug_stop() {
                let at = machine.arrival();
                if stop == DebugStop::Breakpoint && !self.stops.holds(machine) {
                    plan.after = Some(at);
                    machine.debug(&plan);
                    continue;
                }
                self.arrived = Some(at).filter(|_| !matches!(stop, DebugStop::Watch(_)));
                break stop.into();
            }
            if !keep_going() {
                break Halt::Interrupted;
            }
        };
        self.recorder.machine().debug(&DebugPlan::default());
        Ok(Some(halt))
    }

    fn reason(&mut self, halt: Halt) -> MultiThreadStopReason<u64> {
        let rip = self.recorder.machine().core().cpu.rip;
        resume::reason(halt, self.hardware.contains(&rip))
    }
}

impl Target for Live<'_> {
    type Arch = X8664;
    type Error = ReplayError;

    fn base_ops(&mut self) -> BaseOps<'_, X8664, ReplayError> {
        BaseOps::MultiThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn support_target_description_xml_override(
        &mut self,
    ) -> Option<TargetDescriptionXmlOverrideOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadBase for Live<'_> {
    fn read_registers(&mut self, regs: &mut RawRegisters, _: Tid) -> TargetResult<(), Self> {
        *regs = RawRegisters::of(self.recorder.machine().core());
        Ok(())
    }

    fn write_registers(&mut self, _: &RawRegisters, _: Tid) -> TargetResult<(), Self> {
        Err(TargetError::Errno(memory::EROFS))
    }

    fn read_addrs(&mut self, start: u64, data: &mut [u8], _: Tid) -> TargetResult<usize, Self> {
        let machine = self.recorder.machine();
        let read = if self.shared.physical.load(Ordering::Relaxed) {
            memory::read_physical(machine, Gpa(start), data)
        } else {
            memory::read_virtual(machine, start, data)
        };
        match read {
            0 if !data.is_empty() => Err(TargetError::Errno(memory::EFAULT)),
            n => Ok(n),
        }
    }

    fn write_addrs(&mut self, _: u64, data: &[u8], _: Tid) -> TargetResult<(), Self> {
        // gdb asks with no bytes whether it could.
        if data.is_empty() {
            Ok(())
        } else {
            Err(TargetError::Errno(memory::EROFS))
        }
    }

    fn list_active_threads(
        &mut self,
        thread_is_active: &mut dyn FnMut(Tid),
    ) -> Result<(), ReplayError> {
        thread_is_active(VCPU);
        Ok(())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadResume for Live<'_> {
    fn resume(&mut self) -> Result<(), ReplayError> {
        // The event loop runs the machine.
        Ok(())
    }

    fn clear_resume_actions(&mut self) -> Result<(), ReplayError> {
        self.step = false;
        Ok(())
    }

    fn set_resume_action_continue(&mut self, _: Tid, _: Option<Signal>) -> Result<(), ReplayError> {
        // There is nobody in the guest to take a signal.
        self.step = false;
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadSingleStep for Live<'_> {
    fn set_resume_action_step(&mut self, _: Tid, _: Option<Signal>) -> Result<(), ReplayError> {
        self.step = true;
        Ok(())
    }
}

impl MultiThreadSchedulerLocking for Live<'_> {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), ReplayError> {
        // There is one thread.
        Ok(())
    }
}

impl Breakpoints for Live<'_> {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }

    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

impl SwBreakpoint for Live<'_> {
    fn add_sw_breakpoint(&mut self, addr: u64, _: usize) -> TargetResult<bool, Self> {
        self.stops.breakpoints.push(addr);
        Ok(true)
    }

    fn remove_sw_breakpoint(&mut self, addr: u64, _: usize) -> TargetResult<bool, Self> {
        Ok(self.stops.remove_breakpoint(addr))
    }
}

impl HwBreakpoint for Live<'_> {
    fn add_hw_breakpoint(&mut self, addr: u64, kind: usize) -> TargetResult<bool, Self> {
        self.hardware.push(addr);
        self.add_sw_breakpoint(addr, kind)
    }

    fn remove_hw_breakpoint(&mut self, addr: u64, kind: usize) -> TargetResult<bool, Self> {
        if let Some(at) = self.hardware.iter().position(|known| *known == addr) {
            self.hardware.remove(at);
        }
        self.remove_sw_breakpoint(addr, kind)
    }
}

impl HwWatchpoint for Live<'_> {
    fn add_hw_watchpoint(
        &mut self,
        addr: u64,
        len: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        let watch = watch_for(&self.shared, addr, len, kind);
        self.stops.watches.push(watch);
        Ok(true)
    }

    fn remove_hw_watchpoint(
        &mut self,
        addr: u64,
        len: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        let watch = watch_for(&self.shared, addr, len, kind);
        Ok(self.stops.remove_watch(&watch))
    }
}

impl TargetDescriptionXmlOverride for Live<'_> {
    fn target_description_xml(
        &self,
        annex: &[u8],
        offset: u64,
        length: usize,
        buf: &mut [u8],
    ) -> TargetResult<usize, Self> {
        xml::piece(&self.description, annex, offset, length)
            .map(|piece| fill(piece, buf))
            .ok_or(TargetError::NonFatal)
    }
}

/// Records while gdb waits, looking at the connection at every turn.
pub(crate) struct LiveLoop<'a, S>(std::marker::PhantomData<(&'a (), S)>);

type WaitError<S> = WaitForStopReasonError<ReplayError, <S as Connection>::Error>;

impl<'a, S: ConnectionExt<Error = io::Error>> BlockingEventLoop for LiveLoop<'a, S> {
    type Target = Live<'a>;
    type Connection = Wire<S>;
    type StopReason = MultiThreadStopReason<u64>;

    fn wait_for_stop_reason(
        target: &mut Live<'a>,
        conn: &mut Wire<S>,
    ) -> Result<Event<Self::StopReason>, WaitError<S>> {
        let mut broken = None;
        let halt = target.go(&mut || match conn.peek() {
            Ok(None) => true,
            Ok(Some(_)) => false,
            Err(error) => {
                broken = Some(error);
                false
            }
        });
        if let Some(error) = broken {
            return Err(WaitForStopReasonError::Connection(error));
        }
        match halt {
            Ok(None) => Ok(Event::TargetStopped(MultiThreadStopReason::Exited(0))),
            Ok(Some(Halt::Interrupted)) => {
                // What came is Ctrl-C, or the end of the connection.
                let byte = conn.read().map_err(WaitForStopReasonError::Connection)?;
                Ok(Event::IncomingData(byte))
            }
            Ok(Some(halt)) => Ok(Event::TargetStopped(target.reason(halt))),
            Err(error) => Err(WaitForStopReasonError::Target(error)),
        }
    }

    fn on_interrupt(target: &mut Live<'a>) -> Result<Option<Self::StopReason>, ReplayError> {
        Ok(Some(target.reason(Halt::Interrupted)))
    }
}
