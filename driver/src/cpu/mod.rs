//! The vCPU: its registers, and what the processor does between and around instructions.

pub(crate) mod breakpoint;
pub mod cpuid;
pub mod deliver;
pub mod fault;
pub mod flags;
pub mod msr;
pub mod segment;
pub mod state;
