//! Running backward.

use gdbstub::common::Tid;
use gdbstub::target::ext::base::reverse_exec::{ReverseCont, ReverseStep};

use super::resume::Action;
use super::target::Debuggee;
use crate::timeline::TimelineError;

impl ReverseStep<Tid> for Debuggee {
    fn reverse_step(&mut self, _: Tid) -> Result<(), TimelineError> {
        self.action = Action::StepBack;
        Ok(())
    }
}

impl ReverseCont<Tid> for Debuggee {
    fn reverse_cont(&mut self) -> Result<(), TimelineError> {
        self.action = Action::ContinueBack;
        Ok(())
    }
}
