//! Guest code cannot hurt us: random guests, each run in several ways that must agree.
//!
//! Nothing here catches a panic or a hang; whoever calls [`check`] does.

pub mod bytes;
pub mod insns;
pub mod world;

use colinux_driver::debug::{DebugPlan, Watch, WatchSpace};
use colinux_driver::jit::Tier;
use colinux_driver::machine::{Machine, MachineConfig, Stop};
use colinux_driver::observer::{Kind, Observation, Wanted};
use colinux_driver::tick::Tick;

use bytes::Choices;
use world::World;

/// Ticks each guest runs.
pub const TICKS: u64 = 20_000;
/// Pauses after which a repetition is not waited for any more. An endless row of exceptions ends by
/// itself before that.
const PAUSES_MAX: u32 = 80;
/// Observations of a whole run after which it is not waited for any more.
const ROWS_MAX: usize = 1 << 20;
/// Observations between two calls of `run`: one piece of a repetition and one block.
const ROWS_PER_CALL: usize = 200_000;

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The last stop in words.
    pub stop: String,
    /// Where it ended.
    pub tick: u64,
    digest: u128,
}

struct Run {
    machine: Machine,
    rows: Vec<(Tick, Observation)>,
    /// Pauses in this tick.
    pauses: u32,
    /// Virtual time spent idle, which no tick counts.
    warps: u32,
    ended: Option<Stop>,
    plan: DebugPlan,
}

impl Run {
    fn new(machine: Machine, wanted: Wanted) -> Self {
        let mut run = Run {
            machine,
            rows: Vec::new(),
            pauses: 0,
            warps: 0,
            ended: None,
            plan: DebugPlan::default(),
        };
        run.machine.want(wanted);
        run
    }

    /// Stops in some places from now on.
    fn disturb(&mut self, from: &mut Choices<'_>) {
        let places = |from: &mut Choices<'_>| -> Vec<u64> {
            (0..from.below(6)).map(|_| insns::place(from)).collect()
        };
        self.machine.hook(places(from));
        self.plan.breakpoints = places(from);
        for start in places(from) {
            self.plan.watches.push(Watch {
                space: from.pick(&[WatchSpace::Virtual, WatchSpace::Physical]),
                start,
                len: 1 << from.below(10),
                read: from.chance(128),
                write: from.chance(200),
                changes_only: from.chance(128),
            });
        }
        self.machine.debug(&self.plan);
    }

    /// Runs to a tick, or to the end of the run.
    fn until(&mut self, tick: u64) {
        while self.ended.is_none() && self.machine.tick().0 < tick {
            let before = (self.machine.tick(), self.rows.len());
            let stop = self.machine.run(Tick(tick));
            let rows = &mut self.rows;
            self.machine.drain(|tick, what| rows.push((tick, what)));
            assert!(
                rows.len() - before.1 < ROWS_PER_CALL,
                "too many observations"
            );
            if self.machine.tick() > before.0 {
                self.pauses = 0;
            }
            let stopped = self.machine.take_debug_stop();
            match stop {
                Stop::Limit | Stop::Quantum | Stop::Hook(_) => {}
                Stop::Pause if stopped.is_some() => {
                    self.plan.after = Some(self.machine.arrival());
                    self.machine.debug(&self.plan);
                }
                Stop::Pause if self.pauses < PAUSES_MAX && rows.len() < ROWS_MAX => {
                    self.pauses += 1;
                }
                Stop::Idle(Some(time)) if self.warps < 200 => {
                    self.warps += 1;
                    self.machine.warp_to(time);
                }
                stop => self.ended = Some(stop),
            }
        }
    }

    /// A repetition of days, or something else that was not waited for: it always came back, and
    /// where it was left says nothing.
    fn given_up(&self) -> bool {
        self.ended == Some(Stop::Pause)
    }

    fn end(mut self) -> (End, Vec<(Tick, Observation)>) {
        let stop = match self.ended {
            None => "limit".to_owned(),
            Some(Stop::Unsupported(what)) => what.to_string(),
            Some(other) => format!("{other:?}"),
        };
        let end = End {
            stop,
            tick: self.machine.tick().0,
            digest: self.machine.digest(),
        };
        (end, self.rows)
    }
}

/// A fresh machine in the same state.
fn copy(machine: &Machine, config: &MachineConfig) -> Machine {
    let mut other = Machine::empty(config);
    let ram = &machine.core().ram;
    for page in 0..ram.page_count() {
        if ram.is_allocated(page) {
            other
                .core_mut()
                .ram
                .restore_page(page, ram.page_bytes(page), true);
        }
    }
    other.restore(&machine.state());
    other
}

/// Compares what was observed in one go with what was observed in another way.
fn same<'a>(
    one_go: impl Iterator<Item = &'a (Tick, Observation)>,
    other: &'a [(Tick, Observation)],
    way: &str,
) {
    let mut other = other.iter();
    for (i, row) in one_go.enumerate() {
        assert_eq!(
            Some(row),
            other.next(),
            "observation {i}, in one go and {way}"
        );
    }
    assert_eq!(None, other.next(), "in one go and {way}");
}

/// Makes a guest from these bytes and runs it in one go; in pieces, observed less, stopped for a
/// debugger and digested often, perhaps translated; and translated, with a change to another machine in the middle. What it came to, if it was waited
/// for.
pub fn check(bytes: &[u8]) -> Option<End> {
    let from = &mut Choices::new(bytes);
    let config = world::config(from);
    let world = World::new(&config, from);
    let start = world.state.tick.0;
    let limit = start + TICKS;

    let mut run = Run::new(world.machine(&config), Wanted::ALL);
    run.until(limit);
    if run.given_up() {
        return None;
    }
    let (whole, seen) = run.end();

    let wanted = if from.chance(64) {
        Wanted::NONE
    } else {
        Wanted::NONE
            .with(from.pick(Kind::ALL))
            .with(from.pick(Kind::ALL))
    };
    let mut run = Run::new(world.machine(&config), wanted);
    if from.chance(96) {
        run.disturb(from);
    }
    if from.chance(128) {
        run.machine.set_tier(Tier::One);
    }
    let mut cut = start;
    while run.ended.is_none() && cut < limit {
        cut += match from.word() % 4 {
            0 => 1,
            1 => 1 + from.word() % 16,
            _ => 1 + from.word() % 3000,
        };
        run.until(cut.min(limit));
        if from.chance(128) {
            run.machine.digest();
        }
    }
    if run.given_up() {
        return None;
    }
    let (pieces, less) = run.end();
    assert_eq!(whole, pieces, "in one go and in pieces");
    let kept = seen.iter().filter(|(_, what)| wanted.has(what.kind()));
    same(kept, &less, "in pieces");

    let mut run = Run::new(world.machine(&config), Wanted::ALL);
    run.machine.set_tier(Tier::One);
    run.until(start + 1 + from.word() % whole.tick.saturating_sub(start).clamp(1, TICKS));
    let other = copy(&run.machine, &config);
    assert_eq!(other.state(), run.machine.state(), "state after a restore");
    run.machine = other;
    run.machine.set_tier(Tier::One);
    run.machine.want(Wanted::ALL);
    run.until(limit);
    if run.given_up() {
        return None;
    }
    let (restored, again) = run.end();
    assert_eq!(whole, restored, "in one go and with a restore");
    same(seen.iter(), &again, "with a restore");
    Some(whole)
}
