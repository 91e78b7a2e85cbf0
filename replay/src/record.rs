//! Recording: a machine that runs live, and everything that comes from outside written down before
//! the guest acts on it.

mod resume;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use colinux_driver::debug::DebugPlan;
use colinux_driver::jit::Tier;
use colinux_driver::machine::{Machine, Unsupported};
use colinux_driver::passage::Shutdown;
use colinux_driver::tick::VirtualTime;
use colinux_tracer::{
    EndReason, Event, EventMask, HostInfo, INITRD_FILE, Input, KERNEL_FILE, Levels, Options,
    RecordEnd, Summary, Writer,
};

use crate::checkpoint::Interval;
use crate::checkpoint::keeper::Keeper;
use crate::error::ReplayError;
use crate::gdb::Server;
use crate::runner::{EventSink, Moment, Runner};
use crate::setup::{self, RecordConfig};

pub use resume::ResumeError;

/// For how many ticks, at most, events stay in memory alone. A boot has fewer than a chunk holds, and
/// would be lost whole with its recorder; the chunks this ends early cost some hundred bytes each.
const IN_MEMORY_TICKS: u64 = 500_000_000;
/// For how many nanoseconds, while an idle guest waits for somebody to type. Without anybody, only ticks
/// count, which follow from the guest: recordings of the same thing stay equal.
const IN_MEMORY_IDLE_NS: u64 = 2_000_000_000;

/// What the host wants at one of its turns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostTurn {
    /// Bytes for the guest's console.
    pub input: Vec<u8>,
    /// End the recording now.
    pub stop: Option<EndReason>,
    /// Write out what there is, for somebody who follows the recording.
    pub publish: bool,
}

/// What the host made of an idle guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostIdle {
    /// Let virtual time jump to the deadline.
    Jump,
    /// So many nanoseconds have passed, and then this happened.
    Woke(u64, HostTurn),
}

/// What the guest's console can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsoleLine {
    /// Bytes of input that fit.
    pub room: usize,
    /// The guest has asked to be interrupted when there is input.
    pub listening: bool,
}

/// The live side: a person at a terminal, a pipe, or nobody.
pub trait Host {
    /// Bytes the guest wrote to its console.
    fn output(&mut self, bytes: &[u8]);
    /// The end of a quantum: what the host wants, without waiting.
    fn turn(&mut self, line: ConsoleLine) -> HostTurn;
    /// The guest is idle for so many nanoseconds, or until there is input.
    fn idle(&mut self, ns: Option<u64>, line: ConsoleLine) -> HostIdle;
    /// Whether an idle guest waits on the host's clock now, rather than jump to its deadline.
    fn waits(&self) -> bool {
        false
    }
}

/// How a recording ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Why.
    pub reason: EndReason,
    /// How the guest ended, if it did.
    pub shutdown: Option<Shutdown>,
    /// What the machine does not have, if that ended it.
    pub unsupported: Option<Box<Unsupported>>,
    /// The kernel function the guest was in at the end, if it is known.
    pub function: Option<String>,
    /// The first oops and the first panic, if there were any.
    pub alarms: Vec<Alarm>,
    /// The last tick.
    pub tick: u64,
    /// How many instructions were executed for it: all of them, or those since it was gone on with.
    pub executed: u64,
    /// Virtual time at the end.
    pub time: VirtualTime,
    /// What was written.
    pub summary: Summary,
}

/// Something that went wrong in the guest's kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// When.
    pub tick: u64,
    /// A panic rather than an oops.
    pub panic: bool,
    /// What the kernel said.
    pub text: String,
}

/// Writes events, remembers the first alarm of each kind, and says whether there was one at all.
struct ToWriter<'a> {
    writer: &'a mut Writer,
    alarms: &'a mut Vec<Alarm>,
    events: &'a mut u64,
    alarmed: bool,
}

impl EventSink for ToWriter<'_> {
    fn event(&mut self, tick: u64, event: Event) -> Result<(), ReplayError> {
        let alarm = match &event {
            Event::Panic { text, .. } => Some((true, text)),
            Event::Oops { text, .. } => Some((false, text)),
            _ => None,
        };
        *self.events += 1;
        self.alarmed |= alarm.is_some();
        if let Some((panic, text)) = alarm
            && !self.alarms.iter().any(|a| a.panic == panic)
        {
            self.alarms.push(Alarm {
                tick,
                panic,
                text: text.trim_end().to_owned(),
            });
        }
        Ok(self.writer.push(tick, event)?)
    }
}

/// A recording in progress.
#[derive(Debug)]
pub struct Recorder {
    runner: Runner,
    writer: Writer,
    tick_limit: u64,
    until_panic: bool,
    alarms: Vec<Alarm>,
    keeper: Keeper,
    /// Inputs the machine has been given.
    given: u64,
    /// Events that were written.
    events: u64,
    /// Tick and time at which the events were last put into the file.
    settled: (u64, u64),
    /// Where debuggers are waited for, and the signal that ends a conversation.
    server: Option<(Server, Arc<AtomicUsize>)>,
}

/// The end of a recording, before it is written.
#[derive(Debug)]
pub(crate) struct Ending {
    reason: EndReason,
    shutdown: Option<Shutdown>,
    unsupported: Option<Box<Unsupported>>,
}

impl Ending {
    fn of(reason: EndReason) -> Self {
        Ending {
            reason,
            shutdown: None,
            unsupported: None,
        }
    }
}

impl Recorder {
    /// Builds the machine, then creates the file. Nothing is written if the machine cannot be
    /// built.
    pub fn create(
        config: RecordConfig,
        path: &std::path::Path,
        options: Options,
        host: &HostInfo,
        tick_limit: u64,
    ) -> Result<Self, ReplayError> {
        let mut manifest = config.manifest();
        let (mut machine, hooks, image) =
            setup::build_from(&manifest, &config.kernel, config.initrd.as_ref())?;
        let keeper = Keeper::new(&mut machine, image.segments, image.initrd);
        manifest.ended.extend_from_slice(hooks.ended());
        machine.tap_console();
        let mut writer = Writer::create(path, options)?;
        writer.manifest(&manifest)?;
        writer.host_info(host)?;
        writer.boot_file(KERNEL_FILE, config.kernel)?;
        if let Some(initrd) = config.initrd {
            writer.boot_file(INITRD_FILE, initrd)?;
        }
        writer.flush_inputs()?;
        let mask = EventMask::from_levels(&config.levels);
        let runner = Runner::new(machine, mask, manifest.digest_interval).with_hooks(hooks);
        Ok(Recorder {
            runner,
            writer,
            tick_limit,
            until_panic: false,
            alarms: Vec::new(),
            keeper,
            given: 0,
            events: 0,
            settled: (0, 0),
            server: None,
        })
    }

    /// Lets debuggers stop the machine and read from it, until `signal` is not zero any more.
    pub fn debuggers(mut self, server: Server, signal: Arc<AtomicUsize>) -> Self {
        self.server = Some((server, signal));
        self
    }

    pub(crate) fn machine(&mut self) -> &mut Machine {
        self.runner.machine_mut()
    }

    /// Runs on this back end, if the host can.
    pub fn tier(mut self, tier: Tier) -> Self {
        self.runner.machine_mut().set_tier(tier);
        self
    }

    /// Keeps checkpoints in the recording this far apart.
    pub fn checkpoints(mut self, interval: Interval) -> Self {
        self.keeper.set_interval(interval);
        self
    }

    /// Ends the recording at the first host quantum after a panic.
    pub fn until_panic(mut self, yes: bool) -> Self {
        self.until_panic = yes;
        self
    }

    /// Runs to the end and finishes the file. `closing` is asked for the host's notes once it is known
    /// how many instructions that took.
    pub fn run(
        mut self,
        host: &mut dyn Host,
        closing: impl FnOnce(u64) -> HostInfo,
    ) -> Result<Outcome, ReplayError> {
        let began = self.runner.tick();
        let ending = self.record(host)?;
        if ending.reason != EndReason::Unsupported {
            self.checkpoint()?;
        }
        let digest = self.runner.digest();
        let tick = self.runner.tick();
        let time = self.runner.machine().time();
        let rip = self.runner.machine().core().cpu.rip;
        let function = self.runner.hooks().and_then(|hooks| hooks.name_of(rip));
        self.writer.host_info(&closing(tick - began))?;
        let summary = self.writer.finish(RecordEnd {
            reason: ending.reason,
            tick,
            digest,
        })?;
        let Ending {
            reason,
            shutdown,
            unsupported,
        } = ending;
        let alarms = self.alarms;
        Ok(Outcome {
            reason,
            shutdown,
            unsupported,
            function,
            alarms,
            tick,
            executed: tick - began,
            time,
            summary,
        })
    }

    fn record(&mut self, host: &mut dyn Host) -> Result<Ending, ReplayError> {
        let server = self.server.take();
        loop {
            if let Some((server, signal)) = &server
                && let Some(ending) = server.attend(self, host, signal)?
            {
                return Ok(ending);
            }
            if let Some(ending) = self.turn(host)? {
                return Ok(ending);
            }
        }
    }

    /// Runs until something has to be looked at, and looks at it. The ending, if this was it.
    pub(crate) fn turn(&mut self, host: &mut dyn Host) -> Result<Option<Ending>, ReplayError> {
        let until = self.tick_limit.min(self.keeper.next());
        let mut sink = ToWriter {
            writer: &mut self.writer,
            alarms: &mut self.alarms,
            events: &mut self.events,
            alarmed: false,
        };
        let moment = self.runner.run(until, &mut sink)?;
        if sink.alarmed && !self.keeper.is_near(self.runner.tick()) {
            self.checkpoint()?;
        }
        let output = self.runner.machine_mut().take_console();
        if !output.is_empty() {
            host.output(&output);
        }
        match moment {
            Moment::Pause => {
                // Not a place where a recording can be ended: it is not the same on replay.
            }
            Moment::Quantum => {
                let turn = host.turn(self.line());
                self.console_input(turn.input)?;
                if turn.publish || self.runner.tick() - self.settled.0 >= IN_MEMORY_TICKS {
                    self.settle()?;
                }
                if let Some(reason) = turn.stop {
                    return self.stop(reason).map(Some);
                }
                if self.until_panic && self.alarms.iter().any(|a| a.panic) {
                    return self.stop(EndReason::Panic).map(Some);
                }
            }
            Moment::Idle(deadline) => {
                return self.idle(deadline, host);
            }
            Moment::Limit if self.runner.tick() < self.tick_limit => self.checkpoint()?,
            Moment::Limit => return Ok(Some(Ending::of(EndReason::TickLimit))),
            Moment::Ended(how) => {
                return Ok(Some(Ending {
                    shutdown: Some(how),
                    ..Ending::of(EndReason::GuestShutdown)
                }));
            }
            Moment::Unsupported(what) => {
                return Ok(Some(Ending {
                    unsupported: Some(what),
                    ..Ending::of(EndReason::Unsupported)
                }));
            }
        }
        Ok(None)
    }

    /// Ends at a quantum. The next tick is a place that a replay reaches in the same way.
    fn stop(&mut self, reason: EndReason) -> Result<Ending, ReplayError> {
        let until = self.runner.tick() + 1;
        // A debugger's stops are not for this one.
        self.machine().debug(&DebugPlan::default());
        loop {
            let mut sink = ToWriter {
                writer: &mut self.writer,
                alarms: &mut self.alarms,
                events: &mut self.events,
                alarmed: false,
            };
            match self.runner.run(until, &mut sink)? {
                Moment::Pause | Moment::Quantum => {}
                Moment::Ended(how) => {
                    return Ok(Ending {
                        shutdown: Some(how),
                        ..Ending::of(EndReason::GuestShutdown)
                    });
                }
                Moment::Idle(_) => {
                    self.woken(self.runner.machine().time())?;
                    return Ok(Ending::of(reason));
                }
                Moment::Limit | Moment::Unsupported(_) => return Ok(Ending::of(reason)),
            }
        }
    }

    /// Keeps the state as it is in the recording, if it can be come back to by its tick alone.
    fn checkpoint(&mut self) -> Result<(), ReplayError> {
        if self.runner.machine().arrival().attempt == 0 {
            self.keeper.take(
                &mut self.runner,
                (self.given, self.events),
                &mut self.writer,
            )?;
        }
        Ok(())
    }

    fn idle(
        &mut self,
        deadline: Option<VirtualTime>,
        host: &mut dyn Host,
    ) -> Result<Option<Ending>, ReplayError> {
        let now = self.runner.machine().time().0;
        let wait = deadline.map(|d| d.0.saturating_sub(now));
        let until = deadline.map_or(u64::MAX, |deadline| deadline.0);
        if host.waits() && until.saturating_sub(self.settled.1) >= IN_MEMORY_IDLE_NS {
            self.settle()?;
        }
        match (host.idle(wait, self.line()), deadline) {
            (HostIdle::Jump, Some(deadline)) => {
                self.runner.machine_mut().warp_to(deadline);
                Ok(None)
            }
            (HostIdle::Jump, None) => {
                // Nobody will ever wake the guest.
                self.woken(VirtualTime(now))?;
                Ok(Some(Ending::of(EndReason::Stopped)))
            }
            (HostIdle::Woke(ns, turn), _) => {
                // Strictly before the deadline, which is how a replay knows which halt it was.
                let ns = wait.map_or(ns, |most| ns.min(most.saturating_sub(1)));
                self.woken(VirtualTime(now.saturating_add(ns)))?;
                self.console_input(turn.input)?;
                if turn.publish {
                    self.settle()?;
                } else {
                    self.writer.flush_inputs()?;
                }
                Ok(turn.stop.map(Ending::of))
            }
        }
    }

    fn line(&self) -> ConsoleLine {
        let machine = self.runner.machine();
        ConsoleLine {
            room: machine.console_space(),
            listening: machine.console_listening(),
        }
    }

    /// The idle guest is woken at this time.
    fn woken(&mut self, time: VirtualTime) -> Result<(), ReplayError> {
        let tick = self.runner.tick();
        self.input(tick, Input::IdleWarp { ns: time.0 })?;
        self.runner.machine_mut().warp_to(time);
        Ok(())
    }

    /// Puts all events into the file.
    fn settle(&mut self) -> Result<(), ReplayError> {
        self.settled = (self.runner.tick(), self.runner.machine().time().0);
        Ok(self.writer.flush()?)
    }

    fn input(&mut self, tick: u64, input: Input) -> Result<(), ReplayError> {
        self.given += 1;
        Ok(self.writer.input(tick, input)?)
    }

    /// What does not fit is dropped as a real UART would overrun; hosts look at the room first.
    fn console_input(&mut self, mut bytes: Vec<u8>) -> Result<(), ReplayError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let taken = self.runner.machine_mut().console_input(&bytes);
        bytes.truncate(taken);
        if !bytes.is_empty() {
            let tick = self.runner.tick();
            self.input(tick, Input::ConsoleIn { port: 0, bytes })?;
            // On disk before the guest can act on it.
            self.writer.flush_inputs()?;
        }
        Ok(())
    }
}

/// Levels for a recording of inputs and digests alone.
pub fn inputs_only() -> Levels {
    let mut levels = Levels::off();
    levels.set(colinux_tracer::Facility::Meta, 1);
    levels
}
