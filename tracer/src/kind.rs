//! The kinds of chunk.

use crate::chunk::{BODY_LIMIT, FLAG_ASIDE, FLAG_NEEDED, INDEX_LIMIT};

/// What a chunk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChunkKind {
    /// The manifest.
    Manifest,
    /// The schema of events and inputs.
    Schema,
    /// What the recorder knew of its host. Not compared.
    HostInfo,
    /// Name and digest of a boot file.
    BootFile,
    /// A piece of a boot file or checkpoint.
    Piece,
    /// Inputs.
    Inputs,
    /// Events.
    Events,
    /// A checkpoint: tick, number, digest and where its content is. Not compared.
    Checkpoint,
    /// Notes and bookmarks of the user. Not compared.
    Notes,
    /// The index. Not compared.
    Index,
    /// A trail: the pages used in a stretch of time. Not compared.
    Trail,
    /// A kind of a later build.
    Unknown(u8),
}

impl ChunkKind {
    /// Every kind of this build.
    pub const ALL: &'static [Self] = &[
        Self::Manifest,
        Self::Schema,
        Self::HostInfo,
        Self::BootFile,
        Self::Piece,
        Self::Inputs,
        Self::Events,
        Self::Checkpoint,
        Self::Notes,
        Self::Index,
        Self::Trail,
    ];

    /// The number in the file.
    pub const fn code(self) -> u8 {
        match self {
            Self::Manifest => 1,
            Self::Schema => 2,
            Self::HostInfo => 3,
            Self::BootFile => 4,
            Self::Piece => 5,
            Self::Inputs => 6,
            Self::Events => 7,
            Self::Checkpoint => 8,
            Self::Notes => 9,
            Self::Index => 10,
            Self::Trail => 11,
            Self::Unknown(code) => code,
        }
    }

    /// The kind with this number.
    pub const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Manifest,
            2 => Self::Schema,
            3 => Self::HostInfo,
            4 => Self::BootFile,
            5 => Self::Piece,
            6 => Self::Inputs,
            7 => Self::Events,
            8 => Self::Checkpoint,
            9 => Self::Notes,
            10 => Self::Index,
            11 => Self::Trail,
            code => Self::Unknown(code),
        }
    }

    /// The name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Schema => "schema",
            Self::HostInfo => "host-info",
            Self::BootFile => "boot-file",
            Self::Piece => "piece",
            Self::Inputs => "inputs",
            Self::Events => "events",
            Self::Checkpoint => "checkpoint",
            Self::Notes => "notes",
            Self::Index => "index",
            Self::Trail => "trail",
            Self::Unknown(_) => "unknown",
        }
    }

    /// The flags that this build writes with it.
    pub(crate) const fn flags(self) -> u8 {
        match self {
            Self::Manifest | Self::Schema | Self::BootFile | Self::Piece | Self::Inputs => {
                FLAG_NEEDED
            }
            Self::Events | Self::Unknown(_) => 0,
            Self::HostInfo | Self::Checkpoint | Self::Notes | Self::Index | Self::Trail => {
                FLAG_ASIDE
            }
        }
    }

    pub(crate) const fn body_limit(self) -> u32 {
        if matches!(self, Self::Index) {
            INDEX_LIMIT
        } else {
            BODY_LIMIT
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_mean_themselves() {
        for code in 0..=255 {
            assert_eq!(ChunkKind::from_code(code).code(), code);
        }
        for kind in ChunkKind::ALL {
            assert_eq!(ChunkKind::from_code(kind.code()), *kind);
        }
    }
}
