//! The machine as a whole, with guests of a few instructions instead of a kernel.

#[path = "../common/mod.rs"]
#[allow(unreachable_pub, reason = "shared by the tests of this directory")]
mod common;

mod code;
mod determinism;
mod exceptions;
mod fuzz;
mod interrupts;
mod privilege;
mod tlb;
