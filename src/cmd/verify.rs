//! `verify`: replay and compare everything.

use std::time::Instant;

use colinux_replay::{Verdict, verify_on};
use colinux_tracer::Reader;
use serde_json::json;

use crate::args::Verify;
use crate::console::Signals;
use crate::exit::{self, Failure};
use crate::report::Report;
use crate::store;
use crate::words::grouped;

pub(crate) fn run(args: &Verify, report: &Report) -> Result<u8, Failure> {
    let path = store::find(args.trace.as_deref())?;
    let reader = Reader::open(&path)?;
    if let Some(recovery) = reader.recovery() {
        report.note(format!("{}: {recovery}", path.display()));
    }
    let signals = Signals::catch()
        .map_err(|error| Failure::new(exit::ENVIRONMENT, format!("signals: {error}")))?;
    let began = Instant::now();
    let verdict = verify_on(args.jobs.into(), &reader, report.tier(), &mut |_| {
        signals.received().is_none()
    })?;
    let seconds = began.elapsed().as_secs_f64().max(1e-9);
    match verdict {
        None => Ok(exit::SIGNAL + signals.received().unwrap_or(2)),
        Some(Verdict::Same(compared)) => {
            let speed = compared.tick as f64 / seconds / 1e6;
            if args.json {
                report.line(
                    json!({
                        "same": true, "cut": compared.cut, "tick": compared.tick,
                        "events": compared.events, "digests": compared.digests,
                        "seconds": seconds, "mips": speed,
                    })
                    .to_string(),
                );
            } else {
                let cut = if compared.cut { " up to the cut" } else { "" };
                report.line(format!(
                    "the same{cut}: {} instructions, {} events, {} digests; {seconds:.1} s, {speed:.0} \
                     million instructions a second",
                    grouped(compared.tick),
                    grouped(compared.events),
                    compared.digests,
                ));
            }
            Ok(0)
        }
        Some(Verdict::Diverged(divergence)) => {
            if args.json {
                report.line(
                    json!({
                        "same": false, "tick": divergence.tick, "rip": divergence.rip,
                        "difference": format!("{:?}", divergence.what),
                    })
                    .to_string(),
                );
            }
            Err(Failure::new(
                exit::DIVERGED,
                format!("{}: {divergence}", path.display()),
            ))
        }
    }
}
