//! Stack traces of the guest's kernel, and on into its user program.
//!
//! Each step uses the best there is: ORC; where that knows nothing, a frame pointer; where there is
//! none, the next word on the stack that looks like a return address. Each frame says which, since
//! the last is a guess.

mod step;

use crate::addr::{GuestMemory, Gva, ReadExt};
use crate::btf::Btf;
use crate::dwarf::FrameRegisters;
use crate::orc::OrcSet;

use step::{Next, Walker};

/// How a frame was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// It is where the trace starts.
    Start,
    /// By the kernel's ORC tables: exact.
    Orc,
    /// From registers that an interrupt, exception or system call saved on the stack: exact.
    Saved,
    /// By a chain of frame pointers: right where code keeps them.
    FramePointer,
    /// A word on the stack that points behind a call: a guess.
    Scan,
}

impl Method {
    /// The word for it in a listing.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Orc => "orc",
            Self::Saved => "regs",
            Self::FramePointer => "fp",
            Self::Scan => "scan",
        }
    }
}

/// One frame of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackFrame {
    /// The instruction: where it stands, or, for a caller, where it will go on.
    pub ip: Gva,
    /// The stack pointer in this frame.
    pub sp: Gva,
    /// How it was found.
    pub method: Method,
    /// `ip` is a return address, so that the call is the instruction before it.
    pub is_return: bool,
    /// In the user program.
    pub is_user: bool,
    /// Where all registers of this frame are saved (`struct pt_regs`), if they are.
    pub saved: Option<Gva>,
}

impl StackFrame {
    /// The registers of this frame, where all of them were saved.
    pub fn saved_registers<M: GuestMemory + ?Sized>(&self, memory: &M) -> Option<FrameRegisters> {
        step::saved_registers(memory, self.saved?)
    }

    /// The address to look up: inside of the call, not behind it.
    pub const fn lookup_ip(&self) -> Gva {
        if self.is_return {
            Gva(self.ip.0.wrapping_sub(1))
        } else {
            self.ip
        }
    }
}

/// Why a trace ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At the bottom of a kernel thread's stack, or the first instruction of the kernel.
    Bottom,
    /// In the user program, as far as its frame pointers led.
    User,
    /// Nothing more could be found.
    Lost,
    /// At the limit of frames.
    Limit,
}

/// A whole stack, innermost frame first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// The frames.
    pub frames: Vec<StackFrame>,
    /// Why there are no more.
    pub end: End,
}

/// The registers a trace starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// RIP.
    pub ip: u64,
    /// RSP.
    pub sp: u64,
    /// RBP.
    pub bp: u64,
    /// The others that ORC may ask for: RDX, RDI, R10, R13; none of a task that does not run.
    pub others: Option<OtherRegisters>,
    /// The CPU is in user mode.
    pub is_user: bool,
}

/// Registers that only a few places in the kernel need to unwind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OtherRegisters {
    /// RDX.
    pub dx: u64,
    /// RDI.
    pub di: u64,
    /// R10.
    pub r10: u64,
    /// R13.
    pub r13: u64,
}

impl Registers {
    /// Those of a task that does not run, from the stack pointer saved in its `thread.sp`:
    /// `struct inactive_task_frame` lies there.
    pub fn of_sleeping<M: GuestMemory + ?Sized>(memory: &M, btf: &Btf, sp: Gva) -> Option<Self> {
        let at = |name| Some(btf.member("inactive_task_frame", name).ok()?.offset());
        let ret = at("ret_addr")?;
        Some(Self {
            ip: memory.u64_at(sp.plus(ret).0)?,
            sp: sp.plus(ret + 8).0,
            bp: memory.u64_at(sp.plus(at("bp")?).0)?,
            others: None,
            is_user: false,
        })
    }
}

/// The registers that a task which does not run left on its stack, in the frame that its trace
/// starts from (`struct inactive_task_frame`).
pub fn switched_registers<M: GuestMemory + ?Sized>(
    memory: &M,
    btf: &Btf,
    start: &StackFrame,
) -> FrameRegisters {
    const KEPT: [(&str, usize); 6] = [
        ("bx", 3),
        ("bp", 6),
        ("r12", 12),
        ("r13", 13),
        ("r14", 14),
        ("r15", 15),
    ];
    let at = |name| Some(btf.member("inactive_task_frame", name).ok()?.offset());
    let mut known = FrameRegisters::default();
    let from = at("ret_addr").map(|ret| start.sp.0.wrapping_sub(ret + 8));
    for (name, number) in KEPT {
        let place = from.zip(at(name)).map(|(from, at)| from.wrapping_add(at));
        known.0[number] = place.and_then(|place| memory.u64_at(place));
    }
    known
}

/// More frames than any stack of a kernel (16 KiB) and a program has use for.
pub const MAX_FRAMES: usize = 512;

/// Unwinds from `registers`. Ends after `limit` frames at the latest.
pub fn unwind<M: GuestMemory + ?Sized>(
    memory: &M,
    orc: &OrcSet,
    registers: &Registers,
    limit: usize,
) -> Stack {
    let limit = limit.min(MAX_FRAMES);
    let mut walker = Walker::new(memory, orc, registers);
    let mut frames = vec![walker.frame(Method::Start, false)];
    loop {
        if frames.len() >= limit {
            return Stack {
                frames,
                end: End::Limit,
            };
        }
        match walker.next() {
            Next::Frame(method, is_return) => {
                let frame = walker.frame(method, is_return);
                // A damaged stack can lead in a circle.
                if frames.iter().any(|f| (f.ip, f.sp) == (frame.ip, frame.sp)) {
                    return Stack {
                        frames,
                        end: End::Lost,
                    };
                }
                frames.push(frame);
            }
            Next::End(end) => return Stack { frames, end },
        }
    }
}

#[cfg(test)]
mod tests;
