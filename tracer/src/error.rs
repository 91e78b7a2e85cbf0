//! Everything that can go wrong with a recording file, as sentences with the path and the place.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use crate::chunk::HeaderRule;
use crate::file::FileRule;
use crate::rows::RowRule;
use crate::schema::SchemaError;

/// What was being done when the system refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Making the file.
    Create,
    /// Opening the file.
    Open,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Making what was written durable.
    Sync,
    /// Starting the writer thread.
    StartThread,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "cannot create the recording",
            Self::Open => "cannot open the recording",
            Self::Read => "cannot read",
            Self::Write => "cannot write",
            Self::Sync => "cannot make the recording durable",
            Self::StartThread => "cannot start the writer thread",
        })
    }
}

/// What is wrong with the body of a chunk.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BodyRule {
    /// Its checksum.
    #[error("the checksum does not match")]
    Checksum,
    /// Its substreams.
    #[error("its table of substreams is malformed")]
    Substreams,
    /// Its zstd frame.
    #[error("the zstd frame is damaged")]
    Zstd,
    /// It has another length than the header says.
    #[error("it is {found} bytes long when unpacked, but the header says {expected}")]
    Length {
        /// Unpacked.
        found: usize,
        /// In the header.
        expected: usize,
    },
    /// A row of it.
    #[error("row {row}: {rule}")]
    Row {
        /// Number of the row in the chunk.
        row: u32,
        /// What is wrong with it.
        rule: RowRule,
    },
    /// Its content is not of the form that its kind has.
    #[error("it is not of the form that a chunk of kind {0} has")]
    Form(&'static str),
    /// The ticks and pages of a trail.
    #[error("its ticks or pages do not ascend")]
    Trail,
    /// Its layout version.
    #[error("its layout version {found} is newer than the {known} that this build reads")]
    Version {
        /// In the file.
        found: u8,
        /// The newest known.
        known: u8,
    },
    /// The schema.
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

/// Why a recording cannot be written or read.
#[derive(Clone, Debug, Error)]
pub enum TraceError {
    /// The system refused.
    #[error("{path}: {action}: {error}", path = path.display())]
    Io {
        /// The recording.
        path: PathBuf,
        /// What was being done.
        action: Action,
        /// Why not.
        error: Arc<io::Error>,
    },
    /// The disk is full, or a limit on the file's size was reached.
    #[error(
        "{path}: no space to write {wanted} bytes at offset {offset:#x}: {error}; \
         the recording is readable up to there", path = path.display()
    )]
    NoSpace {
        /// The recording.
        path: PathBuf,
        /// Where the write was to go.
        offset: u64,
        /// How much was to be written.
        wanted: usize,
        /// What the system said.
        error: Arc<io::Error>,
    },
    /// The beginning of the file.
    #[error("{path}: {rule}", path = path.display())]
    File {
        /// The recording.
        path: PathBuf,
        /// What is wrong.
        rule: FileRule,
    },
    /// A chunk header.
    #[error("{path}: chunk header at offset {offset:#x}: {rule}", path = path.display())]
    Header {
        /// The recording.
        path: PathBuf,
        /// Where the chunk begins.
        offset: u64,
        /// What is wrong.
        rule: HeaderRule,
    },
    /// A chunk body.
    #[error("{path}: chunk body at offset {offset:#x}: {rule}", path = path.display())]
    Body {
        /// The recording.
        path: PathBuf,
        /// Where the body begins.
        offset: u64,
        /// What is wrong.
        rule: BodyRule,
    },
    /// A chunk of a kind that this build does not know and must.
    #[error(
        "{path}: chunk at offset {offset:#x}: its kind {kind:#04x} is unknown and marked as needed; \
         a newer build is needed", path = path.display()
    )]
    Needed {
        /// The recording.
        path: PathBuf,
        /// Where the chunk begins.
        offset: u64,
        /// Its kind.
        kind: u8,
    },
    /// Something that every recording holds is not there.
    #[error("{path}: the recording has no {what}", path = path.display())]
    Missing {
        /// The recording.
        path: PathBuf,
        /// What.
        what: String,
    },
    /// The recording ends before something that every recording holds.
    #[error(
        "{path}: it was cut off before its {what} was whole, after the chunk that ends at offset \
         {offset:#x}; it can be looked at, but there is nothing in it to replay",
        path = path.display()
    )]
    CutBefore {
        /// The recording.
        path: PathBuf,
        /// What.
        what: String,
        /// Where the last whole chunk ends.
        offset: u64,
    },
    /// A boot file or checkpoint in the recording is not what it is said to be.
    #[error("{path}: `{name}` is damaged: {rule}", path = path.display())]
    Content {
        /// The recording.
        path: PathBuf,
        /// Its name.
        name: String,
        /// What is wrong.
        rule: String,
    },
    /// A tick before the one before it.
    #[error(
        "{path}: {what} at tick {tick} comes after tick {last} was recorded on vCPU {vcpu}",
        path = path.display()
    )]
    TickBack {
        /// The recording.
        path: PathBuf,
        /// Event or input.
        what: &'static str,
        /// Of which vCPU.
        vcpu: u16,
        /// The tick given.
        tick: u64,
        /// The last one before.
        last: u64,
    },
    /// One row that is too large.
    #[error(
        "{path}: {what} at tick {tick} takes {size} bytes, more than the {limit} a row may have",
        path = path.display()
    )]
    RowTooLarge {
        /// The recording.
        path: PathBuf,
        /// Name of the kind.
        what: &'static str,
        /// Its tick.
        tick: u64,
        /// Its length.
        size: usize,
        /// The longest allowed.
        limit: usize,
    },
    /// Something given to the writer has no form in the file.
    #[error("{path}: {what} cannot be written: {reason}", path = path.display())]
    Unwritable {
        /// The recording.
        path: PathBuf,
        /// What.
        what: &'static str,
        /// Why not.
        reason: String,
    },
    /// The writer has stopped.
    #[error("{path}: the writer has stopped", path = path.display())]
    Stopped {
        /// The recording.
        path: PathBuf,
    },
}

impl TraceError {
    pub(crate) fn io(path: &std::path::Path, action: Action, error: io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            action,
            error: Arc::new(error),
        }
    }
}
