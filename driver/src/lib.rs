//! The deterministic machine.
//!
//! This crate does no I/O, reads no clock, starts no thread and iterates no hash map: the same
//! snapshot and the same inputs give the same states on any host.

pub mod boot;
pub mod core;
pub mod cpu;
pub mod debug;
pub mod dev;
pub mod jit;
pub mod layout;
pub mod machine;
pub mod mem;
pub mod observer;
pub mod passage;
pub mod snapshot;
pub mod tick;
pub mod x86;
