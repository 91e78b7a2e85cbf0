//! The trace buffer and the recording file of colinux-trace.
//!
//! A [`Writer`] takes [`Event`]s and [`Input`]s from the vCPU thread in batches, and a thread of its
//! own packs them into checksummed, compressed chunks of one file. A [`Reader`] opens that file,
//! finished, cut off or still growing, and gives [`Cursor`]s over it. `docs/FORMAT.md` is the
//! normative description of the file.
//!
//! This crate knows nothing of the machine: everything in an event is a plain number.

mod append;
mod bytes;
mod channel;
mod chunk;
mod codes;
mod columns;
mod comm;
mod compare;
mod content;
mod counts;
mod cursor;
mod cut;
mod digest;
mod error;
mod event;
mod facility;
mod file;
mod flight;
mod guess;
#[cfg(not(loom))]
mod handover;
#[cfg(loom)]
#[doc(hidden)]
pub mod handover;
mod index;
mod input;
mod kind;
mod lane;
mod manifest;
mod memory;
mod options;
mod pack;
mod parallel;
mod reader;
mod rows;
mod scan;
mod schema;
mod sink;
mod source;
mod stats;
mod store;
mod substreams;
mod table;
mod tail;
mod trail;
mod vocabulary;
mod wire;
mod writer;

pub use chunk::{
    BODY_LIMIT, CHUNK_MAGIC, ChunkHeader, ChunkKind, Codec, FLAG_ASIDE, FLAG_NEEDED, HeaderRule,
    INDEX_LIMIT, NO_VCPU, ROWS_LIMIT,
};
pub use codes::{
    BlkOp, ControlVerb, EndReason, FlushKind, IrqDirection, IrqSource, LogClass, MarkOrigin,
    PageAccess, PassageReason, PokeTarget, ShutdownKind, SwitchReason,
};
pub use comm::{COMM_LEN, Comm};
pub use compare::Compared;
pub use content::{BootFileInfo, CONTENT_LIMIT, CheckpointInfo, Note};
pub use counts::Counts;
pub use cursor::{Cursor, EventRow};
pub use cut::cut;
pub use digest::{Digest, StateDigest};
pub use error::{Action, BodyRule, TraceError};
pub use event::{Event, EventKind};
pub use facility::{DEFAULT_LEVEL, EventMask, Facility, LevelError, Levels, MAX_LEVEL};
pub use file::{FILE_HEADER_LEN, FILE_MAGIC, FORMAT_VERSION, FileRule, TRAILER_LEN, TRAILER_MAGIC};
pub use index::ChunkEntry;
pub use input::{Input, InputKind, RecordEnd};
pub use manifest::{
    Backing, Command, CpuModel, CpuidRow, Device, EndedFacility, HostInfo, INITRD_FILE,
    InitrdImage, KERNEL_FILE, KernelImage, KernelKind, Manifest,
};
pub use options::Options;
pub use parallel::Scan;
pub use reader::Reader;
pub use rows::RowRule;
pub use scan::{LossRule, Recovery};
pub use schema::{Schema, SchemaError, SchemaRow};
pub use sink::Summary;
pub use stats::{ChunkStats, KindCount, Stats};
pub use tail::Refresh;
pub use trail::{Pages, Trail};
pub use wire::{FieldType, WireError};
pub use writer::{Making, Writer};
