//! `cut`: a copy with the events of a stretch only.

use colinux_tracer::{Options, Reader, cut};

use super::dump::span;
use crate::args::Cut;
use crate::exit::Failure;
use crate::report::Report;
use crate::store;
use crate::words::{grouped, sized};

pub(crate) fn run(args: &Cut, report: &Report) -> Result<u8, Failure> {
    let path = store::find(args.trace.as_deref())?;
    let reader = Reader::open(&path)?;
    let (from, to) = span(args.from.as_ref(), args.to.as_ref(), &reader)?;
    let options = Options {
        overwrite: args.force,
        ..Options::default()
    };
    let summary = cut(&reader, &args.output, from..=to, options)?;
    report.note(format!(
        "{} events, {}: {}",
        grouped(summary.events),
        sized(summary.bytes),
        summary.path.display()
    ));
    Ok(0)
}
