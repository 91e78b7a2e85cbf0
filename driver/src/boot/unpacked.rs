//! Room for an unpacked kernel: tens of megabytes that are written once and read for a moment. In large
//! pages, where the host has them, getting them takes a fraction of what the unpacking takes.

use std::io;
use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

/// A vmlinux: the file itself, or what was inside it.
#[derive(Debug)]
pub enum Unpacked<'a> {
    /// It was not packed.
    File(&'a [u8]),
    /// It is in memory.
    Memory(Room),
}

impl Deref for Unpacked<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Unpacked::File(bytes) => bytes,
            Unpacked::Memory(room) => room,
        }
    }
}

/// Bytes in pages of their own, zeros at first.
#[derive(Debug)]
pub struct Room {
    pages: MmapMut,
    len: usize,
}

impl Room {
    pub(super) fn new(len: usize) -> io::Result<Self> {
        let pages = MmapMut::map_anon(len.max(1))?;
        #[cfg(target_os = "linux")]
        {
            // A host without them has small ones.
            let _ = pages.advise(memmap2::Advice::HugePage);
        }
        Ok(Room { pages, len })
    }

    pub(super) fn holding(bytes: &[u8]) -> io::Result<Self> {
        let mut room = Room::new(bytes.len())?;
        room.copy_from_slice(bytes);
        Ok(room)
    }
}

impl Deref for Room {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.pages[..self.len]
    }
}

impl DerefMut for Room {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.pages[..self.len]
    }
}
