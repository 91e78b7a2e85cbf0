//! gdb's remote protocol on a timeline: forward, backward, breakpoints, watchpoints.
//!
//! One debugger at a time, on the loopback interface or a unix socket only: whoever may connect may
//! read all of the guest's memory.

mod breakpoint;
mod live;
mod mappings;
mod memory;
mod monitor;
mod progress;
mod resume;
mod reverse;
mod script;
mod server;
mod target;
mod wire;
mod xml;

pub(crate) use memory::{read_physical, read_virtual};
pub use script::converse_with;
pub use server::{Listen, ListenError, ServeError, Server};
pub(crate) use xml::register_number;

pub use target::{Debuggee, NoRegister, RawRegisters, X8664};
