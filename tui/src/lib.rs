//! The viewer of colinux-trace.
//!
//! What there is so far is the model of its timeline: how many events each stretch of a recording
//! holds, from the index alone. `info` draws it as one line.

pub mod density;

pub use density::Density;
