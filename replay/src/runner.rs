//! A machine that runs and tells: the part that recording and replaying have in common, so that
//! both see the same events and the same digest points.

use colinux_driver::machine::{Machine, Stop, Unsupported};
use colinux_driver::passage::Shutdown;
use colinux_driver::tick::{Tick, VirtualTime};
use colinux_symbols::SymbolError;
use colinux_symbols::dmesg::LogRecord;
use colinux_symbols::ps::Task;
use colinux_tracer::{Event, EventKind, EventMask, StateDigest};

use crate::convert;
use crate::error::ReplayError;
use crate::hooks::{HookState, KernelHooks};

/// Where events go.
pub trait EventSink {
    /// Takes one event. Ticks never go back.
    fn event(&mut self, tick: u64, event: Event) -> Result<(), ReplayError>;
}

/// Nowhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSink;

impl EventSink for NoSink {
    fn event(&mut self, _: u64, _: Event) -> Result<(), ReplayError> {
        Ok(())
    }
}

impl<F: FnMut(u64, Event)> EventSink for F {
    fn event(&mut self, tick: u64, event: Event) -> Result<(), ReplayError> {
        self(tick, event);
        Ok(())
    }
}

/// Why the machine came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The tick asked for.
    Limit,
    /// The end of a host quantum: the moment for input.
    Quantum,
    /// Halted until the given time, or for ever.
    Idle(Option<VirtualTime>),
    /// Nothing about the guest: a chance to look at signals and console.
    Pause,
    /// The guest ended.
    Ended(Shutdown),
    /// The guest asked for something the machine does not have.
    Unsupported(Box<Unsupported>),
}

/// A machine, and which events to make of what it does.
#[derive(Debug)]
pub struct Runner {
    machine: Machine,
    mask: EventMask,
    digest_interval: u64,
    next_digest: u64,
    hooks: Option<KernelHooks>,
}

impl Runner {
    /// Events of these kinds, and a digest point every so many ticks (0: none).
    pub fn new(mut machine: Machine, mask: EventMask, digest_interval: u64) -> Self {
        machine.want(convert::wanted(&mask));
        let next_digest = if digest_interval == 0 {
            u64::MAX
        } else {
            digest_interval
        };
        Runner {
            machine,
            mask,
            digest_interval,
            next_digest,
            hooks: None,
        }
    }

    /// Makes events of the guest's kernel as well, as far as they are wanted.
    pub fn with_hooks(mut self, mut hooks: KernelHooks) -> Self {
        self.machine.hook(hooks.addresses(&self.mask));
        self.hooks = Some(hooks);
        self
    }

    /// The machine has been put elsewhere, where the hooks remembered this.
    pub(crate) fn moved(&mut self, remembered: &HookState) {
        if let Some(digests) = self.tick().checked_div(self.digest_interval) {
            self.next_digest = (digests + 1) * self.digest_interval;
        }
        let Some(hooks) = &mut self.hooks else {
            return;
        };
        let before = hooks.slide();
        hooks.restore(remembered);
        if hooks.slide() != before {
            let addresses = hooks.addresses(&self.mask);
            self.machine.hook(addresses);
        }
    }

    /// The hooks on the guest's kernel.
    pub fn hooks(&self) -> Option<&KernelHooks> {
        self.hooks.as_ref()
    }

    /// The guest's tasks at this moment.
    pub fn tasks(&mut self) -> Result<Vec<Task>, SymbolError> {
        match &self.hooks {
            Some(hooks) => hooks.tasks(&mut self.machine),
            None => Err(SymbolError::NoSymbol { name: "init_task" }),
        }
    }

    /// The guest's kernel log at this moment.
    pub fn log(&mut self) -> Result<Vec<LogRecord>, SymbolError> {
        match &self.hooks {
            Some(hooks) => hooks.log(&mut self.machine),
            None => Err(SymbolError::NoSymbol { name: "prb" }),
        }
    }

    /// The machine.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The machine, for input.
    pub fn machine_mut(&mut self) -> &mut Machine {
        &mut self.machine
    }

    /// The position in execution.
    pub fn tick(&self) -> u64 {
        self.machine.tick().0
    }

    /// The digest of the state.
    pub fn digest(&mut self) -> StateDigest {
        StateDigest::from(self.machine.digest())
    }

    /// Runs until a tick, or until something else comes first.
    pub fn run(&mut self, until: u64, sink: &mut dyn EventSink) -> Result<Moment, ReplayError> {
        loop {
            let stop = self.machine.run(Tick(until.min(self.next_digest)));
            self.hand_over(&stop, sink)?;
            return Ok(match stop {
                Stop::Limit if self.tick() >= self.next_digest => {
                    self.digest_point(sink)?;
                    if self.tick() < until {
                        continue;
                    }
                    Moment::Limit
                }
                Stop::Limit => Moment::Limit,
                Stop::Hook(address) => {
                    if self.hooked(address, sink)? {
                        return Ok(Moment::Pause);
                    }
                    continue;
                }
                Stop::Quantum => {
                    self.find_slide();
                    Moment::Quantum
                }
                Stop::Idle(time) => Moment::Idle(time),
                Stop::Pause => Moment::Pause,
                Stop::Terminated(how) => Moment::Ended(how),
                Stop::Unsupported(what) => Moment::Unsupported(what),
            });
        }
    }

    fn hand_over(&mut self, stop: &Stop, sink: &mut dyn EventSink) -> Result<(), ReplayError> {
        let ended = if let Stop::Terminated(how) = stop {
            Some(*how)
        } else {
            None
        };
        let mut result = Ok(());
        self.machine.drain(|tick, what| {
            if result.is_ok() {
                result = sink.event(tick.0, convert::event(what, ended));
            }
        });
        result
    }

    /// Says whether it was something to look up from running for.
    fn hooked(&mut self, address: u64, sink: &mut dyn EventSink) -> Result<bool, ReplayError> {
        let Some(hooks) = &mut self.hooks else {
            return Ok(false);
        };
        let Some(event) = hooks.hit(address, &mut self.machine) else {
            return Ok(false);
        };
        let alarm = matches!(event.kind(), EventKind::Oops | EventKind::Panic);
        if self.mask.contains(event.kind()) {
            sink.event(self.machine.tick().0, event)?;
        }
        Ok(alarm)
    }

    /// Quanta are the same on replay, so that hooks begin to count at the same tick.
    fn find_slide(&mut self) {
        if let Some(hooks) = &mut self.hooks
            && hooks.look_for_slide(&self.machine)
        {
            let addresses = hooks.addresses(&self.mask);
            self.machine.hook(addresses);
        }
    }

    fn digest_point(&mut self, sink: &mut dyn EventSink) -> Result<(), ReplayError> {
        let tick = self.tick();
        self.next_digest = (tick / self.digest_interval + 1) * self.digest_interval;
        if self.mask.contains(EventKind::DigestPoint) {
            let digest = self.digest();
            sink.event(tick, Event::DigestPoint { digest })?;
        }
        Ok(())
    }
}
