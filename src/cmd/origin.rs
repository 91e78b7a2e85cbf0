//! `last-write` and `why`: where the content of memory comes from.

use colinux_replay::GuestKernel;
use colinux_replay::origin::{Origin, Range, RangeError, Written};
use serde_json::json;

use super::state::Moment;
use crate::args::{At, LastWrite};
use crate::console::Signals;
use crate::exit::{self, Failure};
use crate::report::Report;

pub(crate) fn last_write(args: &LastWrite, report: &Report) -> Result<u8, Failure> {
    run(args, false, report)
}

pub(crate) fn why(args: &LastWrite, report: &Report) -> Result<u8, Failure> {
    run(args, true, report)
}

fn run(args: &LastWrite, stack: bool, report: &Report) -> Result<u8, Failure> {
    let at = At {
        trace: args.trace.clone(),
        at: args.at.clone(),
        json: args.json,
    };
    let mut moment = Moment::find(&at, report)?;
    // Without names, addresses do.
    let kernel = GuestKernel::of(&moment.reader).ok();
    let machine = moment.timeline.machine_mut();
    let names = kernel.as_ref().map(|k| k.resolver(machine));
    let range = Range::parse(&args.place, &names.unwrap_or_default())?;
    let signals = Signals::catch()
        .map_err(|error| Failure::new(exit::ENVIRONMENT, format!("signals: {error}")))?;
    let from = moment.timeline.at();
    let mut go_on = |_| signals.received().is_none();
    let timeline = &mut moment.timeline;
    match timeline.last_write(range, kernel.as_ref(), stack, &mut go_on)? {
        Written::By(origin) => {
            report.line(if args.json {
                row(&origin)
            } else {
                origin.to_string()
            });
            Ok(0)
        }
        Written::Never => Err(Failure::new(
            exit::FAILED,
            format!("{:#x} has not been written before {from}", range.start),
        )),
        Written::Interrupted => Ok(exit::SIGNAL + signals.received().unwrap_or(2)),
    }
}

fn row(origin: &Origin) -> String {
    let (tid, comm) = origin.task.clone().unzip();
    json!({
        "tick": origin.at.tick, "attempt": origin.at.attempt, "ns": origin.time_ns,
        "address": origin.hit.address, "symbol": origin.symbol,
        "rip": origin.hit.rip, "function": origin.function,
        "before": origin.before, "after": origin.after,
        "tid": tid, "comm": comm, "stack": origin.stack,
    })
    .to_string()
}

impl From<RangeError> for Failure {
    fn from(error: RangeError) -> Self {
        match error {
            RangeError::Symbol(_) => Failure::new(exit::SYMBOLS, error),
            _ => Failure::usage(error),
        }
    }
}
