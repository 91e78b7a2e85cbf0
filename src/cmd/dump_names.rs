//! Names for the addresses in a dump.
//!
//! The kernel's own come from the recording's kernel. Modules come and go: where the recording says
//! that one did, the guest's list is read by a replay to that tick.

use colinux_replay::{Mark, Timeline};
use colinux_symbols::modules::Module;
use colinux_symbols::{Gva, Resolver};
use colinux_tracer::{EventKind, EventMask, Reader};

use crate::args::DebugArgs;
use crate::console::Signals;
use crate::exit::{self, Failure};
use crate::names::{Demand, Names};
use crate::progress::Progress;
use crate::report::Report;

/// Fields that hold addresses worth a name.
const ADDRESSES: &[&str] = &["rip", "gva", "addr"];

/// Names addresses, tick by tick.
pub(crate) struct Namer {
    resolver: Resolver,
    /// The modules from each tick on, latest first.
    modules: Vec<(u64, Vec<Module>)>,
}

impl Namer {
    /// For events up to the tick `to`.
    pub(crate) fn of(
        reader: &Reader,
        args: &DebugArgs,
        to: u64,
        report: &Report,
    ) -> Result<Self, Failure> {
        let mut names = Names::of(reader, args, &Demand::Few, report)?;
        let changes = [EventKind::ModuleLoad, EventKind::ModuleUnload];
        let mut ticks = Vec::new();
        for row in reader.events().with_kinds(EventMask::of(&changes)) {
            ticks.push(row?.tick);
        }
        ticks.retain(|tick| *tick <= to);
        ticks.dedup();
        let moves = reader.manifest()?.as_bzimage;
        if ticks.is_empty() && !moves {
            let (resolver, modules) = (names.linked(), Vec::new());
            return Ok(Namer { resolver, modules });
        }
        let signals = Signals::catch()
            .map_err(|error| Failure::new(exit::ENVIRONMENT, format!("signals: {error}")))?;
        let mut progress = Progress::new("reading the guest's modules");
        let mut timeline = Timeline::open(reader)?;
        if moves {
            ticks.push(to.min(timeline.last_tick()));
            ticks.dedup();
        }
        let last = ticks.last().copied().unwrap_or(0) as usize;
        let mut modules = Vec::new();
        for tick in ticks {
            timeline.seek(Mark::at(tick), &mut |at| {
                progress.at(at as usize, last);
                signals.received().is_none()
            })?;
            if let Some(signal) = signals.received() {
                return Err(Failure::new(exit::SIGNAL + signal, ""));
            }
            let read = names.kernel.modules(timeline.machine_mut());
            modules.push((tick, read.unwrap_or_default()));
        }
        modules.reverse();
        let mut resolver = names.resolver(timeline.machine_mut(), report);
        resolver.set_modules(Vec::new());
        Ok(Namer { resolver, modules })
    }

    /// Events from here on are at this tick or later.
    pub(crate) fn at(&mut self, tick: u64) {
        let mut current = None;
        while self.modules.last().is_some_and(|(from, _)| *from <= tick) {
            current = self.modules.pop();
        }
        if let Some((_, modules)) = current {
            self.resolver.set_modules(modules);
        }
    }

    /// What is at the address that a field of this name holds.
    pub(crate) fn name(&self, key: &str, address: u64) -> Option<String> {
        if !ADDRESSES.contains(&key) {
            return None;
        }
        Some(self.resolver.place(Gva(address))?.to_string())
    }
}
