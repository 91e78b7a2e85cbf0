//! Breakpoints and watchpoints, as gdb sets them.

use std::sync::atomic::Ordering;

use colinux_driver::debug::{Watch, WatchSpace};
use gdbstub::target::TargetResult;
use gdbstub::target::ext::breakpoints::{
    Breakpoints, HwBreakpoint, HwBreakpointOps, HwWatchpoint, HwWatchpointOps, SwBreakpoint,
    SwBreakpointOps, WatchKind,
};

use super::target::Debuggee;
use super::wire::Shared;
use crate::watch::{Watched, watch};

/// A write that changes nothing is no event for gdb, so it is not told of it.
pub(super) fn watch_for(shared: &Shared, start: u64, len: u64, kind: WatchKind) -> Watch {
    let what = match kind {
        WatchKind::Write => Watched::Changes,
        WatchKind::Read => Watched::Reads,
        WatchKind::ReadWrite => Watched::Accesses,
    };
    let space = if shared.physical.load(Ordering::Relaxed) {
        WatchSpace::Physical
    } else {
        WatchSpace::Virtual
    };
    watch(space, start, len.max(1), what)
}

impl Breakpoints for Debuggee {
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

impl SwBreakpoint for Debuggee {
    fn add_sw_breakpoint(&mut self, addr: u64, _: usize) -> TargetResult<bool, Self> {
        self.timeline.stops().breakpoints.push(addr);
        Ok(true)
    }

    fn remove_sw_breakpoint(&mut self, addr: u64, _: usize) -> TargetResult<bool, Self> {
        Ok(self.timeline.stops().remove_breakpoint(addr))
    }
}

impl HwBreakpoint for Debuggee {
    fn add_hw_breakpoint(&mut self, addr: u64, _: usize) -> TargetResult<bool, Self> {
        self.timeline.stops().breakpoints.push(addr);
        self.hardware.push(addr);
        Ok(true)
    }

    fn remove_hw_breakpoint(&mut self, addr: u64, _: usize) -> TargetResult<bool, Self> {
        if let Some(at) = self.hardware.iter().position(|known| *known == addr) {
            self.hardware.remove(at);
        }
        Ok(self.timeline.stops().remove_breakpoint(addr))
    }
}

impl HwWatchpoint for Debuggee {
    fn add_hw_watchpoint(
        &mut self,
        addr: u64,
        len: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        let watch = watch_for(&self.shared, addr, len, kind);
        self.timeline.stops().watches.push(watch);
        Ok(true)
    }

    fn remove_hw_watchpoint(
        &mut self,
        addr: u64,
        len: u64,
        kind: WatchKind,
    ) -> TargetResult<bool, Self> {
        let watch = watch_for(&self.shared, addr, len, kind);
        Ok(self.timeline.stops().remove_watch(&watch))
    }
}
