//! One machine replayed forwards from a recording.

use colinux_driver::machine::Machine;
use colinux_driver::passage::Shutdown;
use colinux_driver::tick::VirtualTime;
use colinux_tracer::{
    EndReason, EventKind, EventMask, INITRD_FILE, Input, KERNEL_FILE, Levels, Manifest, Reader,
    RecordEnd,
};

use crate::checkpoint::Checkpoint;
use crate::error::ReplayError;
use crate::runner::{EventSink, Moment, Runner};
use crate::setup;

/// Where a session has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The tick asked for.
    Reached,
    /// The recording's end.
    End(Option<Shutdown>),
    /// There is more; a chance to look at signals and console.
    More,
    /// The replay cannot go on as the recording did.
    Lost(String),
}

/// A recording being replayed.
#[derive(Debug)]
pub struct Session {
    runner: Runner,
    manifest: Manifest,
    inputs: Vec<(u64, Input)>,
    /// How many of them the machine has been given.
    given: usize,
    end: Option<RecordEnd>,
    last_tick: u64,
    /// The recording ends while the guest is idle, woken by its last input.
    ends_idle: bool,
}

impl Session {
    /// A session at power-on, with the events of the recording's own levels.
    pub fn open(reader: &Reader) -> Result<Self, ReplayError> {
        let manifest = reader.manifest()?;
        let mut levels = Levels::off();
        for (facility, level) in &manifest.levels {
            // A facility of a later build makes no events here.
            let _ = levels.apply(&format!("{facility}={level}"));
        }
        Self::with_events(reader, EventMask::from_levels(&levels))
    }

    /// A session at power-on that makes events of these kinds.
    pub fn with_events(reader: &Reader, mask: EventMask) -> Result<Self, ReplayError> {
        let manifest = reader.manifest()?;
        let kernel = reader.boot_file(KERNEL_FILE)?.into();
        let initrd = match manifest.initrd {
            Some(_) => Some(reader.boot_file(INITRD_FILE)?.into()),
            None => None,
        };
        let (mut machine, hooks) = setup::build(&manifest, &kernel, initrd.as_ref())?;
        machine.tap_console();
        let digests = mask.contains(EventKind::DigestPoint);
        let runner = Runner::new(
            machine,
            mask,
            if digests { manifest.digest_interval } else { 0 },
        )
        .with_hooks(hooks);
        let end = reader.end()?;
        let mut inputs = reader.inputs()?;
        inputs.retain(|(_, input)| !matches!(input, Input::RecordEnd { .. }));
        let last_tick = end.as_ref().map_or_else(|| reader.reach(), |end| end.tick);
        // The guest's own end, or that of the ticks, comes whether it is idle or not.
        let ends_idle = end.as_ref().is_some_and(|end| {
            let own = [EndReason::TickLimit, EndReason::GuestShutdown];
            let idle = inputs.last().is_some_and(|(tick, input)| {
                *tick == end.tick && matches!(input, Input::IdleWarp { .. })
            });
            idle && !own.contains(&end.reason)
        });
        Ok(Session {
            ends_idle,
            runner,
            manifest,
            inputs,
            given: 0,
            end,
            last_tick,
        })
    }

    /// Another one of the same recording, whose machine is still to be restored. It makes no events.
    pub(crate) fn fork(&self) -> Session {
        let ours = self.runner.machine();
        let memory = ours.core().ram.size();
        let mut machine = Machine::empty(&setup::machine_config(&self.manifest, memory));
        machine.set_tier(ours.tier());
        Session {
            runner: Runner::new(machine, EventMask::NONE, 0),
            manifest: self.manifest.clone(),
            inputs: self.inputs.clone(),
            given: 0,
            end: self.end,
            last_tick: self.last_tick,
            ends_idle: self.ends_idle,
        }
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The machine and its events.
    pub fn runner(&self) -> &Runner {
        &self.runner
    }

    /// The machine, for reading memory and console.
    pub fn runner_mut(&mut self) -> &mut Runner {
        &mut self.runner
    }

    /// Its machine, to go on with.
    pub(crate) fn into_runner(self) -> Runner {
        self.runner
    }

    /// How the recording ended, if it ended in order.
    pub fn end(&self) -> Option<&RecordEnd> {
        self.end.as_ref()
    }

    /// The last tick that the recording knows of.
    pub fn last_tick(&self) -> u64 {
        self.last_tick
    }

    /// How many inputs the machine has been given.
    pub fn given(&self) -> usize {
        self.given
    }

    /// Whether a machine at this tick can have been given so many inputs.
    pub(crate) fn agrees(&self, tick: u64, given: usize) -> bool {
        given <= self.inputs.len()
            && self.inputs[..given].iter().all(|(at, _)| *at <= tick)
            && self.inputs[given..].iter().all(|(at, _)| *at >= tick)
    }

    /// The machine has been restored to this checkpoint.
    pub(crate) fn restored(&mut self, checkpoint: &Checkpoint) {
        self.given = checkpoint.inputs;
        self.runner.moved(&checkpoint.hooks);
    }

    /// The next input, with its tick.
    fn next_input(&self) -> Option<&(u64, Input)> {
        self.inputs.get(self.given)
    }

    /// Runs on toward a tick, giving the machine its inputs where they were given.
    pub fn advance(
        &mut self,
        until: u64,
        sink: &mut dyn EventSink,
    ) -> Result<Progress, ReplayError> {
        let target = until.min(self.last_tick);
        let moment = self.runner.run(target, sink)?;
        let tick = self.runner.tick();
        if let Some((at, input)) = self.next_input()
            && *at < tick
        {
            return Ok(Progress::Lost(format!(
                "the replay is at tick @{tick} and did not stop for the input {} at tick @{at}",
                input.kind()
            )));
        }
        match moment {
            Moment::Pause => Ok(Progress::More),
            Moment::Limit if target == self.last_tick => Ok(Progress::End(None)),
            Moment::Limit => Ok(Progress::Reached),
            Moment::Quantum => {
                self.feed(tick)?;
                Ok(Progress::More)
            }
            Moment::Idle(deadline) => self.idle(tick, deadline),
            Moment::Ended(how) => Ok(Progress::End(Some(how))),
            Moment::Unsupported(what) => {
                // A recording that ended here replays to here.
                if self
                    .end
                    .as_ref()
                    .is_some_and(|end| end.reason == EndReason::Unsupported)
                {
                    return Ok(Progress::End(None));
                }
                Ok(Progress::Lost(what.to_string()))
            }
        }
    }

    /// Inputs other than idle warps, at this tick.
    fn feed(&mut self, tick: u64) -> Result<(), ReplayError> {
        while let Some((at, input)) = self.inputs.get(self.given) {
            if *at != tick || matches!(input, Input::IdleWarp { .. }) {
                break;
            }
            match input {
                Input::ConsoleIn { bytes, .. } => {
                    self.runner.machine_mut().console_input(bytes);
                }
                other => {
                    let kind = other.kind().to_string();
                    return Err(ReplayError::UnknownInput { kind, tick });
                }
            }
            self.given += 1;
        }
        Ok(())
    }

    fn idle(&mut self, tick: u64, deadline: Option<VirtualTime>) -> Result<Progress, ReplayError> {
        if self.ends_idle && self.next_input().is_none() && tick >= self.last_tick {
            return Ok(Progress::End(None));
        }
        // The guest may be idle more than once at one tick, when a deadline wakes nobody. A recorded
        // wake-up belongs to the halt whose deadline is after it.
        let woken = match self.next_input() {
            Some((at, Input::IdleWarp { ns }))
                if *at == tick && deadline.is_none_or(|d| *ns < d.0) =>
            {
                Some(*ns)
            }
            _ => None,
        };
        match (woken, deadline) {
            (Some(ns), _) => {
                self.given += 1;
                self.runner.machine_mut().warp_to(VirtualTime(ns));
                self.feed(tick)?;
                if self.next_input().is_none() && tick >= self.last_tick {
                    return Ok(Progress::End(None));
                }
                Ok(Progress::More)
            }
            (_, Some(deadline)) => {
                self.runner.machine_mut().warp_to(deadline);
                Ok(Progress::More)
            }
            (_, None) if tick >= self.last_tick => Ok(Progress::End(None)),
            (_, None) => Ok(Progress::Lost(format!(
                "the guest is idle for ever at tick @{tick}; the recording goes on to @{}",
                self.last_tick
            ))),
        }
    }
}
