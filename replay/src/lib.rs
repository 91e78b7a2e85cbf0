//! Recording and going back.
//!
//! This crate joins the machine to the trace. *Ground state* is what a recording cannot do without:
//! the manifest, the boot files, the inputs. Everything else, events and digests, is *derived*: a
//! replay produces it again, and comparing the two is what `verify` does.

pub mod checkpoint;
pub mod condition;
pub mod convert;
pub mod disasm;
pub mod divergence;
pub mod entry;
pub mod error;
pub mod export;
pub mod gdb;
pub mod hooks;
pub mod origin;
pub mod position;
pub mod record;
pub mod runner;
pub mod scene;
mod search;
pub mod session;
pub mod setup;
pub mod state;
pub mod timeline;
mod trails;
pub mod verify;
pub mod view;
mod walk;
pub mod watch;

pub use divergence::{Divergence, Verdict};
pub use error::ReplayError;
pub use position::{Position, PositionError};
pub use record::{ConsoleLine, Host, HostIdle, HostTurn, Outcome, Recorder, ResumeError};
pub use runner::{EventSink, Moment, NoSink, Runner};
pub use session::Session;
pub use setup::{RecordConfig, SetupError};
pub use timeline::{Mark, Timeline, TimelineError};
pub use verify::{verify, verify_on};
pub use view::{GuestKernel, MachineMemory, ViewError};
pub use watch::Halt;
