//! Random guests, as many as fit into some seconds.
//!
//! `COLINUX_FUZZ_SECONDS` says how long, `COLINUX_FUZZ_SEED` where to begin (with one second, to
//! repeat a failure: the seed is printed).
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stderr,
    reason = "a test reads the clock and the environment; the machine does not"
)]

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[path = "../../../fuzz/guest/mod.rs"]
#[allow(unreachable_pub, reason = "shared with the fuzz target")]
mod guest;

/// Instead of a seed: all cases have ended.
const OVER: u64 = u64::MAX;
/// A case takes milliseconds; one of this length hangs.
const HANG: Duration = Duration::from_secs(60);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// Ends the process when no case has ended for long: a hang inside the machine cannot be unwound.
fn watch(case: &'static AtomicU64) {
    std::thread::spawn(move || {
        let mut last = (OVER, Instant::now());
        loop {
            std::thread::sleep(Duration::from_millis(500));
            let now = case.load(Ordering::Relaxed);
            if now == OVER {
                return;
            }
            if now != last.0 {
                last = (now, Instant::now());
            } else if last.1.elapsed() > HANG {
                eprintln!("the guest of seed {now} hangs");
                std::process::abort();
            }
        }
    });
}

#[test]
fn guest_code_cannot_hurt_the_machine() {
    static CASE: AtomicU64 = AtomicU64::new(0);
    watch(&CASE);
    let first = number("COLINUX_FUZZ_SEED", 0);
    let end = Instant::now() + Duration::from_secs(number("COLINUX_FUZZ_SECONDS", 10));
    let mut slowest = (Duration::ZERO, 0);
    let mut seed = first;
    let mut ends = BTreeMap::new();
    while seed == first || Instant::now() < end {
        CASE.store(seed, Ordering::Relaxed);
        let start = Instant::now();
        let result =
            std::panic::catch_unwind(AssertUnwindSafe(|| guest::check(&seed.to_le_bytes())));
        match result {
            Ok(end) => {
                let stop = end.map_or_else(|| "(given up)".to_owned(), |end| end.stop);
                // Without the place.
                let kind = stop.split(" (bytes").next().unwrap_or_default();
                let kind: String = kind.chars().filter(|c| !c.is_ascii_digit()).collect();
                *ends.entry(kind).or_insert(0u32) += 1;
            }
            Err(panic) => {
                CASE.store(OVER, Ordering::Relaxed);
                eprintln!("seed {seed}");
                std::panic::resume_unwind(panic);
            }
        }
        slowest = slowest.max((start.elapsed(), seed));
        seed += 1;
    }
    CASE.store(OVER, Ordering::Relaxed);
    eprintln!(
        "{ends:#?}\n{} guests, the slowest (seed {}) took {:?}",
        seed - first,
        slowest.1,
        slowest.0
    );
}
