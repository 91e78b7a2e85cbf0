//! The machine's instructions against the host's CPU: same instruction, same random state, same
//! end.
//!
//! `COLINUX_ORACLE_STATES` is the number of states per form (default 40; 1000 for a thorough run),
//! `COLINUX_ORACLE_SEED` another seed, `COLINUX_ORACLE_ONLY` the beginning of a form's name.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

#[allow(dead_code, reason = "shared with the cases of tests/ins")]
mod oracle;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use colinux_driver::x86::table::FAMILIES;
use oracle::compare::differences;
use oracle::forms::{self, Form};
use oracle::guest::Guest;
use oracle::host::Host;
use oracle::instance::{Instance, instance};
use oracle::random::Random;
use oracle::scenario::{self, Images};
use oracle::state::{Case, Outcome};

/// Forms that must be executed, so that a table that shrinks is noticed.
const FORMS_MIN: usize = 500;
const STATES: u64 = 40;
const SEED: u64 = 0x0c01_1900;
/// States per choice of operands.
const STATES_PER_INSTANCE: u64 = 4;
/// Cases that one child runs.
const BATCH: usize = 512;
/// Differing states shown per form.
const SHOWN: usize = 2;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|v| v.parse().ok())
        .unwrap_or(default)
}

/// Executes all forms that begin with `only`; returns a report of the differences.
struct Run {
    forms: Vec<Form>,
    states: u64,
    seed: u64,
    next: AtomicUsize,
    report: Mutex<String>,
    failed: AtomicUsize,
    done: AtomicUsize,
    faulted: AtomicUsize,
}

impl Run {
    fn worker(&self) {
        let mut host = Host::new(BATCH);
        let mut guest = Guest::new();
        let images = Images::new(&mut Random::new(self.seed));
        while let Some(form) = self.forms.get(self.next.fetch_add(1, Relaxed)) {
            let mut random =
                Random::new(self.seed ^ (form.code as u64) << 32 ^ u64::from(form.memory));
            let mut left = self.states;
            let mut bad = (0, String::new());
            while left > 0 {
                let now = left.min(BATCH as u64);
                left -= now;
                self.batch(
                    *form,
                    now,
                    &images,
                    &mut random,
                    &mut host,
                    &mut guest,
                    &mut bad,
                );
            }
            if bad.0 > 0 {
                self.failed.fetch_add(1, Relaxed);
                let head = format!("{form}: {} of {} states differ\n", bad.0, self.states);
                self.report.lock().unwrap().push_str(&(head + &bad.1));
            }
        }
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "what a worker owns, borrowed apart"
    )]
    fn batch(
        &self,
        form: Form,
        count: u64,
        images: &Images,
        random: &mut Random,
        host: &mut Host,
        guest: &mut Guest,
        bad: &mut (usize, String),
    ) {
        let mut cases = Vec::with_capacity(count as usize);
        let mut instances: Vec<Instance> = Vec::new();
        for i in 0..count {
            if i % STATES_PER_INSTANCE == 0 {
                let Some(built) = instance(form, random) else {
                    *bad = (1, "  cannot be encoded\n".to_owned());
                    return;
                };
                instances.push(built);
            }
            cases.push(scenario::case(
                &instances[instances.len() - 1],
                images,
                random,
            ));
        }
        for (i, end) in host.run(&cases).into_iter().enumerate() {
            let of = &instances[i / STATES_PER_INSTANCE as usize];
            let ours = guest.run(&cases[i]);
            let lines = match &end {
                Some(theirs) => {
                    match theirs.outcome {
                        Outcome::Done => self.done.fetch_add(1, Relaxed),
                        _ => self.faulted.fetch_add(1, Relaxed),
                    };
                    differences(&of.instruction, &cases[i], theirs, &ours)
                }
                None => vec!["the child died".to_owned()],
            };
            if !lines.is_empty() {
                bad.0 += 1;
                if bad.0 <= SHOWN {
                    show(of, &cases[i], &lines, &mut bad.1);
                }
            }
        }
    }
}

fn show(of: &Instance, case: &Case, lines: &[String], out: &mut String) {
    let bytes: Vec<String> = of.bytes.iter().map(|b| format!("{b:02x}")).collect();
    let _ = writeln!(
        out,
        "  {} ({})",
        colinux_driver::x86::decode::describe(&of.bytes, 64),
        bytes.join(" ")
    );
    let _ = writeln!(
        out,
        "    from rip {:#x} rflags {:#x} gpr {:x?} fcw {:#x} fsw {:#x} ftw {:#x} mxcsr {:#x}",
        case.registers.rip,
        case.registers.rflags,
        case.registers.gpr,
        case.registers.word(0),
        case.registers.word(2),
        case.registers.fx[4],
        case.registers.mxcsr(),
    );
    for line in lines {
        let _ = writeln!(out, "    {line}");
    }
}

fn say(text: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[test]
fn the_machine_does_what_the_host_does() {
    let all = forms::all();
    assert!(all.len() >= FORMS_MIN, "only {} forms", all.len());
    let only = std::env::var("COLINUX_ORACLE_ONLY").unwrap_or_default();
    let selected = all
        .into_iter()
        .filter(|f| f.to_string().starts_with(&only))
        .collect();
    let run = Run {
        forms: selected,
        states: setting("COLINUX_ORACLE_STATES", STATES),
        seed: setting("COLINUX_ORACLE_SEED", SEED),
        next: AtomicUsize::new(0),
        report: Mutex::default(),
        failed: AtomicUsize::new(0),
        done: AtomicUsize::new(0),
        faulted: AtomicUsize::new(0),
    };
    let workers = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(4);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| run.worker());
        }
    });
    let (forms, failed) = (run.forms.len(), run.failed.load(Relaxed));
    let (done, faulted) = (run.done.load(Relaxed), run.faulted.load(Relaxed));
    say(&format!(
        "{forms} forms, {done} states completed, {faulted} faulted, {failed} forms differ"
    ));
    let report = run.report.lock().unwrap();
    assert!(
        report.is_empty(),
        "{failed} of {forms} forms differ\n{report}"
    );
}

#[test]
fn every_mnemonic_of_the_table_is_executed_or_excluded() {
    let executed: BTreeSet<_> = forms::all()
        .iter()
        .map(|f| f.code.mnemonic() as usize)
        .collect();
    let mut missing = String::new();
    for (family, rows) in FAMILIES {
        for (mnemonic, _) in *rows {
            let excluded = oracle::exclusions::MNEMONICS
                .iter()
                .any(|(m, _)| m == mnemonic);
            if executed.contains(&(*mnemonic as usize)) == excluded {
                let _ = writeln!(missing, "{mnemonic:?} of {family}: excluded: {excluded}");
            }
        }
    }
    assert!(
        missing.is_empty(),
        "executed and excluded, or neither:\n{missing}"
    );
    assert!(
        oracle::exclusions::CODES
            .iter()
            .all(|(_, reason)| !reason.is_empty())
    );
}
