//! What can go wrong with a recording that is not a divergence.

use colinux_tracer::TraceError;

use crate::setup::SetupError;

/// Why a recording could not be made or replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The file could not be written or read.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The machine could not be built.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// An input of a kind this build cannot apply.
    #[error("the input {kind} at tick @{tick} is of a kind that this build cannot replay")]
    UnknownInput {
        /// Its kind.
        kind: String,
        /// Its tick.
        tick: u64,
    },
}
