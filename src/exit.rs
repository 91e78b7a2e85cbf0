//! Exit codes, and errors that carry one.

use std::fmt;

use colinux_replay::ReplayError;
use colinux_tracer::{Action, TraceError};

/// A condition failed: differs, not found.
pub(crate) const FAILED: u8 = 1;
/// The command line asks for what cannot be.
pub(crate) const USAGE: u8 = 2;
/// A replay is not the recording.
pub(crate) const DIVERGED: u8 = 3;
/// A trace cannot be read.
pub(crate) const UNREADABLE: u8 = 4;
/// Symbols are missing.
pub(crate) const SYMBOLS: u8 = 5;
/// The host lacks something: a tool, space, a file that can be written.
pub(crate) const ENVIRONMENT: u8 = 69;
/// A bug or a gap of ours.
pub(crate) const SOFTWARE: u8 = 70;
/// A budget or timeout ended the run.
pub(crate) const TIMEOUT: u8 = 124;
/// Added to a signal's number.
pub(crate) const SIGNAL: u8 = 128;

/// An error for a person, and the exit code it means.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What to say; empty for nothing more.
    pub(crate) message: String,
    /// The exit code.
    pub(crate) code: u8,
}

impl Failure {
    pub(crate) fn new(code: u8, message: impl fmt::Display) -> Self {
        Failure {
            message: message.to_string(),
            code,
        }
    }

    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(USAGE, message)
    }
}

impl From<TraceError> for Failure {
    fn from(error: TraceError) -> Self {
        let code = match &error {
            TraceError::NoSpace { .. } => ENVIRONMENT,
            TraceError::Io { action, .. } if !matches!(action, Action::Open | Action::Read) => {
                ENVIRONMENT
            }
            _ => UNREADABLE,
        };
        Failure::new(code, error)
    }
}

impl From<ReplayError> for Failure {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Trace(error) => error.into(),
            ReplayError::Setup(error) => Failure::usage(error),
            other => Failure::new(UNREADABLE, other),
        }
    }
}

impl From<crate::guest::GuestError> for Failure {
    fn from(error: crate::guest::GuestError) -> Self {
        Failure::new(error.exit_code(), error)
    }
}

impl From<crate::guest::fetch::FetchError> for Failure {
    fn from(error: crate::guest::fetch::FetchError) -> Self {
        Failure::new(error.exit_code(), error)
    }
}

impl From<crate::guest::cache::CacheError> for Failure {
    fn from(error: crate::guest::cache::CacheError) -> Self {
        Failure::new(ENVIRONMENT, error)
    }
}
