//! The deterministic machine.
//!
//! This crate does no I/O, reads no clock, starts no thread and iterates no hash map: the same
//! snapshot and the same inputs give the same states on any host.

pub mod mem;
pub mod tick;
