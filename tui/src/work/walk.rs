//! Steps of a debugger, in both directions.

use colinux_replay::disasm::{Disassembler, Flow, Insn};
use colinux_replay::watch::{Watched, virtual_watch};
use colinux_replay::{Halt, Mark, Position, PositionError, Timeline, TimelineError};
use colinux_tracer::Reader;

/// A way to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Walk {
    /// To a place.
    To(Mark),
    /// To a place that has to be looked up by replaying.
    Find(Position),
    /// One instruction.
    Step,
    /// One instruction back.
    StepBack,
    /// One instruction, calls as one.
    Next,
    /// The same back.
    NextBack,
    /// To the caller, behind the call.
    Finish,
    /// To the call that led here.
    FinishBack,
    /// To the next stop.
    Continue,
    /// To the stop before.
    ContinueBack,
    /// To an instruction.
    Until(u64),
    /// To the instruction that last wrote so many bytes here.
    LastWrite(u64, u64),
}

impl Walk {
    /// Where it leads does not depend on where it begins.
    pub const fn is_absolute(&self) -> bool {
        matches!(self, Walk::To(_))
    }
}

/// A return address on the stack, and where it leads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    /// Where execution goes on.
    pub(crate) ip: u64,
    /// The stack pointer then.
    pub(crate) sp: u64,
}

/// Why a walk came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WalkError {
    #[error(transparent)]
    Timeline(#[from] TimelineError),
    #[error(transparent)]
    Position(#[from] PositionError),
    #[error("the caller is not known here")]
    NoCaller,
    #[error("{0:#x} has not been written before")]
    NeverWritten(u64),
}

type KeepGoing<'a> = &'a mut dyn FnMut(u64) -> bool;

/// A breakpoint that the walk itself has set is where it was to arrive.
fn arrival(halt: Halt, ours: bool) -> Halt {
    match halt {
        Halt::Breakpoint if ours => Halt::Arrived,
        other => other,
    }
}

/// Stack pointers further apart than this are on different stacks.
const SAME_STACK: u64 = 64 << 10;

/// Walks in a timeline.
pub(crate) struct Walker<'a> {
    pub(crate) timeline: &'a mut Timeline,
    pub(crate) reader: &'a Reader,
    pub(crate) keep_going: KeepGoing<'a>,
}

impl Walker<'_> {
    /// Goes a way. `caller` finds who called.
    pub(crate) fn go(
        &mut self,
        walk: &Walk,
        caller: &dyn Fn(&mut Timeline) -> Option<Caller>,
    ) -> Result<Halt, WalkError> {
        Ok(match walk {
            Walk::To(mark) => self.timeline.seek(*mark, self.keep_going)?,
            Walk::Find(position) => {
                let found = position.find(self.reader, self.timeline, self.keep_going);
                let mark = match found {
                    Err(PositionError::Interrupted) => return Ok(Halt::Interrupted),
                    found => found?,
                };
                self.timeline.seek(mark, self.keep_going)?
            }
            Walk::Step => self.timeline.step()?,
            Walk::StepBack => self.timeline.step_back()?,
            Walk::Next => self.next()?,
            Walk::NextBack => self.next_back()?,
            Walk::Finish => {
                let caller = caller(self.timeline).ok_or(WalkError::NoCaller)?;
                self.run_to(caller.ip, caller.sp)?
            }
            Walk::FinishBack => {
                let caller = caller(self.timeline).ok_or(WalkError::NoCaller)?;
                // The call wrote the return address.
                self.back_to_write(caller.sp.wrapping_sub(8), 8)?
            }
            Walk::Continue => self.timeline.forward(self.keep_going)?,
            Walk::ContinueBack => self.timeline.backward(self.keep_going)?,
            Walk::Until(address) => {
                let theirs = self.timeline.stops().breakpoints.contains(address);
                self.with_breakpoint(*address, |walker| {
                    let halt = walker.timeline.forward(walker.keep_going)?;
                    let there = walker.timeline.registers().rip == *address;
                    Ok(arrival(halt, there && !theirs))
                })?
            }
            Walk::LastWrite(address, len) => match self.back_to_write(*address, *len)? {
                Halt::Start => return Err(WalkError::NeverWritten(*address)),
                halt => halt,
            },
        })
    }

    fn insn(&mut self) -> Option<Insn> {
        let registers = self.timeline.registers();
        let memory = self.timeline.memory();
        let mut found =
            Disassembler::new(|_| None).run(&memory, registers.rip, registers.code_bits, 1);
        found.pop()
    }

    /// With one more breakpoint for as long as this takes.
    fn with_breakpoint<T>(
        &mut self,
        address: u64,
        run: impl FnOnce(&mut Self) -> Result<T, WalkError>,
    ) -> Result<T, WalkError> {
        self.timeline.stops().breakpoints.push(address);
        let done = run(self);
        self.timeline.stops().remove_breakpoint(address);
        done
    }

    /// On to an address on this stack, not deeper than `sp`.
    fn run_to(&mut self, address: u64, sp: u64) -> Result<Halt, WalkError> {
        let theirs = self.timeline.stops().breakpoints.clone();
        self.with_breakpoint(address, |walker| {
            loop {
                let halt = walker.timeline.forward(walker.keep_going)?;
                let registers = walker.timeline.registers();
                let here = registers.rsp();
                let deeper = here < sp || here - sp > SAME_STACK;
                let ours = halt == Halt::Breakpoint && registers.rip == address;
                if ours && deeper && !theirs.contains(&address) {
                    continue;
                }
                return Ok(arrival(halt, ours && !theirs.contains(&address)));
            }
        })
    }

    fn next(&mut self) -> Result<Halt, WalkError> {
        let sp = self.timeline.registers().rsp();
        match self.insn() {
            Some(insn) if insn.flow == Flow::Call => self.run_to(insn.next(), sp),
            _ => Ok(self.timeline.step()?),
        }
    }

    fn next_back(&mut self) -> Result<Halt, WalkError> {
        let halt = self.timeline.step_back()?;
        let returned = self.insn().is_some_and(|insn| insn.flow == Flow::Return);
        if halt != Halt::Arrived || !returned {
            return Ok(halt);
        }
        // Back over what returned: to whatever wrote the return address that is taken here.
        let here = self.timeline.at();
        let sp = self.timeline.registers().rsp();
        match self.back_to_write(sp, 8)? {
            Halt::Start => Ok(self.timeline.seek(here, self.keep_going)?),
            halt => Ok(halt),
        }
    }

    fn back_to_write(&mut self, address: u64, len: u64) -> Result<Halt, WalkError> {
        let from = self.timeline.at();
        let mut ours = colinux_replay::watch::Stops::default();
        ours.watches
            .push(virtual_watch(address, len.max(1), Watched::Writes));
        let theirs = std::mem::replace(self.timeline.stops(), ours);
        let found = self.timeline.backward(self.keep_going);
        *self.timeline.stops() = theirs;
        let halt = found?;
        if halt == Halt::Start {
            self.timeline.seek(from, self.keep_going)?;
        }
        Ok(match halt {
            Halt::Watch(_) => Halt::Arrived,
            other => other,
        })
    }
}
