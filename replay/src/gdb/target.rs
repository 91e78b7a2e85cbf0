//! The timeline as gdb's target: one thread per vCPU.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use colinux_driver::core::Core;
use colinux_driver::mem::addr::Gpa;
use colinux_tracer::Reader;
use gdbstub::arch::{Arch, RegId, Registers};
use gdbstub::common::Tid;
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{MultiThreadBase, MultiThreadResumeOps};
use gdbstub::target::ext::breakpoints::BreakpointsOps;
use gdbstub::target::ext::monitor_cmd::MonitorCmdOps;
use gdbstub::target::ext::target_description_xml_override::{
    TargetDescriptionXmlOverride, TargetDescriptionXmlOverrideOps,
};
use gdbstub::target::ext::thread_extra_info::{ThreadExtraInfo, ThreadExtraInfoOps};
use gdbstub::target::{Target, TargetError, TargetResult};

use super::resume::Action;
use super::wire::Shared;
use super::{memory, xml};
use crate::timeline::{Mark, Timeline, TimelineError};
use crate::view::GuestKernel;

/// The one vCPU's thread.
pub(crate) const VCPU: Tid = NonZeroUsize::MIN;

/// x86-64 as gdb's protocol has it.
#[derive(Clone, Copy, Debug)]
pub enum X8664 {}

/// All registers, in the order of the target description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawRegisters(Vec<u8>, u64);

/// Registers are only read all at once.
#[derive(Clone, Copy, Debug)]
pub enum NoRegister {}

impl RawRegisters {
    /// Those of a machine.
    pub(super) fn of(core: &Core) -> Self {
        RawRegisters(xml::registers(core), core.cpu.rip)
    }
}

impl RegId for NoRegister {
    fn from_raw_id(_: usize) -> Option<(Self, Option<NonZeroUsize>)> {
        None
    }
}

impl Registers for RawRegisters {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        self.1
    }

    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        for byte in &self.0 {
            write_byte(Some(*byte));
        }
    }

    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        self.0 = bytes.to_vec();
        Ok(())
    }
}

impl Arch for X8664 {
    type Usize = u64;
    type Registers = RawRegisters;
    type BreakpointKind = usize;
    type RegId = NoRegister;
}

/// A recording, as a debugger walks in it. It outlives the connections.
#[derive(Debug)]
pub struct Debuggee {
    pub(crate) timeline: Timeline,
    pub(crate) reader: Reader,
    pub(crate) action: Action,
    /// The command that the next resumption runs instead.
    pub(crate) at_step: Option<String>,
    /// Breakpoints that were set as hardware ones.
    pub(crate) hardware: Vec<u64>,
    /// Named places.
    pub(crate) marks: BTreeMap<String, Mark>,
    /// Numbered places, as rr has them.
    pub(crate) numbered: BTreeMap<u64, Mark>,
    pub(crate) next_number: u64,
    /// Where journeys began, and those that were taken back.
    pub(crate) been: Vec<Mark>,
    pub(crate) undone: Vec<Mark>,
    /// The guest's kernel once it has been asked for, or why nothing is known of it.
    pub(crate) kernel: Option<Result<GuestKernel, String>>,
    pub(crate) shared: Arc<Shared>,
    description: String,
}

impl Debuggee {
    /// A debugger's view of a timeline.
    pub fn new(reader: Reader, timeline: Timeline) -> Self {
        Debuggee {
            timeline,
            reader,
            action: Action::Continue,
            at_step: None,
            hardware: Vec::new(),
            marks: BTreeMap::new(),
            numbered: BTreeMap::new(),
            next_number: 1,
            been: Vec::new(),
            undone: Vec::new(),
            kernel: None,
            shared: Arc::default(),
            description: xml::target_description(),
        }
    }

    /// The timeline.
    pub fn timeline(&mut self) -> &mut Timeline {
        &mut self.timeline
    }

    /// What a debugger has set does not outlive it.
    pub(crate) fn detached(&mut self) {
        *self.timeline.stops() = Default::default();
        self.hardware.clear();
        self.at_step = None;
        self.shared.forget();
    }
}

impl Target for Debuggee {
    type Arch = X8664;
    type Error = TimelineError;

    fn base_ops(&mut self) -> BaseOps<'_, X8664, TimelineError> {
        BaseOps::MultiThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }

    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }

    fn support_target_description_xml_override(
        &mut self,
    ) -> Option<TargetDescriptionXmlOverrideOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadBase for Debuggee {
    fn read_registers(&mut self, regs: &mut RawRegisters, _: Tid) -> TargetResult<(), Self> {
        *regs = RawRegisters::of(self.timeline.machine().core());
        Ok(())
    }

    fn write_registers(&mut self, _: &RawRegisters, _: Tid) -> TargetResult<(), Self> {
        Err(TargetError::Errno(memory::EROFS))
    }

    fn read_addrs(&mut self, start: u64, data: &mut [u8], _: Tid) -> TargetResult<usize, Self> {
        let machine = self.timeline.machine_mut();
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
    ) -> Result<(), TimelineError> {
        thread_is_active(VCPU);
        Ok(())
    }

    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }

    fn support_thread_extra_info(&mut self) -> Option<ThreadExtraInfoOps<'_, Self>> {
        Some(self)
    }
}

/// Copies as much as fits.
pub(super) fn fill(text: &[u8], buf: &mut [u8]) -> usize {
    let n = text.len().min(buf.len());
    buf[..n].copy_from_slice(&text[..n]);
    n
}

impl ThreadExtraInfo for Debuggee {
    fn thread_extra_info(&self, _: Tid, buf: &mut [u8]) -> Result<usize, TimelineError> {
        let cpu = &self.timeline.machine().core().cpu;
        let what = if cpu.halted {
            "halted"
        } else if cpu.cpl == 0 {
            "kernel"
        } else {
            "user"
        };
        Ok(fill(
            format!("vCPU 0, {what}, {}", self.timeline.at()).as_bytes(),
            buf,
        ))
    }
}

impl TargetDescriptionXmlOverride for Debuggee {
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
