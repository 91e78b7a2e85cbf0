//! The digest of what two recordings of the same thing have in common.

use xxhash_rust::xxh3::Xxh3;

use crate::chunk::{ChunkHeader, ChunkKind, HeaderRule};
use crate::digest::StateDigest;
use crate::error::TraceError;
use crate::facility::EventMask;
use crate::index::ChunkEntry;
use crate::reader::{Reader, Shared};

/// Which chunks go into a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// Everything that is compared.
    Everything,
    /// Everything but events: equal for recordings at different levels.
    GroundState,
}

impl Reader {
    /// A digest of what the recording says about the guest: equal for two recordings of the same
    /// thing with the same options, on any host.
    ///
    /// Bodies are hashed unpacked, so that another version of the compressor changes nothing.
    pub fn compared_digest(&self, what: Compared) -> Result<StateDigest, TraceError> {
        let mut hasher = Xxh3::new();
        let mut entries: Vec<_> = self.chunks().iter().collect();
        entries.retain(|entry| {
            let is_event = entry.header.kind == ChunkKind::Events;
            entry.header.is_compared() && (what == Compared::Everything || !is_event)
        });
        // Substreams one after the other: how they interleave in the file says nothing.
        entries.sort_by_key(|entry| (entry.header.kind.code(), entry.header.vcpu));
        for entry in entries {
            let header = entry.header;
            let body = self.shared.body(entry)?;
            hasher.update(&[header.kind.code(), header.version]);
            hasher.update(&header.vcpu.to_le_bytes());
            hasher.update(&header.rows.to_le_bytes());
            hasher.update(&header.first_tick.to_le_bytes());
            hasher.update(&(body.len() as u64).to_le_bytes());
            hasher.update(&body);
        }
        Ok(hasher.digest128().into())
    }

    /// Reads every chunk, and says what is wrong with the first that is damaged.
    pub fn check(&self) -> Result<(), TraceError> {
        for entry in self.chunks() {
            self.shared.check_header(entry)?;
            match entry.header.kind {
                ChunkKind::Events => drop(self.shared.events(entry, &EventMask::ALL)?),
                ChunkKind::Inputs => drop(self.shared.inputs(entry)?),
                _ => drop(self.shared.body(entry)?),
            }
        }
        for file in self.boot_files()? {
            self.boot_file(&file.name)?;
        }
        for checkpoint in self.checkpoints()? {
            self.checkpoint(&checkpoint)?;
        }
        self.trails().try_for_each(|trail| trail.map(drop))?;
        Ok(())
    }
}

impl Shared {
    /// Compares the header of a chunk with what the index says of it.
    fn check_header(&self, entry: &ChunkEntry) -> Result<(), TraceError> {
        let mut bytes = vec![0; usize::from(entry.header.len)];
        let count = self.source.read_at(entry.offset, &mut bytes)?;
        let header = ChunkHeader::decode(&bytes[..count], true).map(|(header, _)| header);
        let rule = match header {
            Ok(header) if header == entry.header => return Ok(()),
            Ok(_) => HeaderRule::Index,
            Err(rule) => rule,
        };
        Err(TraceError::Header {
            path: self.source.path().to_owned(),
            offset: entry.offset,
            rule,
        })
    }
}
