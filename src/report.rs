//! What is said to people: results on standard output, everything else on standard error.

use std::io::{self, Write};

use colinux_driver::jit::Tier;

use crate::args::{BackEnd, Common};
use crate::exit::Failure;

/// Where things are said, and how much.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    common: Common,
}

impl Report {
    pub(crate) fn new(common: Common) -> Self {
        Report { common }
    }

    /// Whether more was asked for.
    pub(crate) fn is_verbose(&self) -> bool {
        self.common.verbose > 0
    }

    /// The back end that was asked for.
    pub(crate) fn tier(&self) -> Tier {
        match self.common.tier {
            BackEnd::Interpreter => Tier::Zero,
            BackEnd::Host => Tier::One,
            BackEnd::Compare => Tier::Compare,
        }
    }

    /// A line of a result. A closed pipe ends the program quietly, as it does others.
    pub(crate) fn line(&self, text: impl AsRef<str>) {
        let mut out = io::stdout().lock();
        if writeln!(out, "{}", text.as_ref()).is_err() {
            std::process::exit(0);
        }
    }

    /// A note beside the result.
    pub(crate) fn note(&self, text: impl AsRef<str>) {
        if !self.common.quiet {
            let _ = writeln!(io::stderr().lock(), "colinux-trace: {}", text.as_ref());
        }
    }

    /// A note for those who asked for more.
    pub(crate) fn detail(&self, text: impl AsRef<str>) {
        if self.is_verbose() {
            self.note(text);
        }
    }

    /// Why it did not work.
    pub(crate) fn failure(&self, failure: &Failure) {
        if !failure.message.is_empty() {
            let _ = writeln!(io::stderr().lock(), "colinux-trace: {}", failure.message);
        }
    }
}
