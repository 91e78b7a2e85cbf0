//! Room for many megabytes at once: pages of their own, zeros at first, taken from the host as they are
//! touched. In large pages, where the host has them: getting 2 MiB one small page at a time takes
//! longer than filling them.

use std::io;
use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

/// Bytes in pages of their own.
#[derive(Debug)]
pub struct Room(MmapMut);

impl Room {
    /// Zeros.
    pub fn new(len: usize) -> io::Result<Self> {
        let pages = MmapMut::map_anon(len)?;
        #[cfg(target_os = "linux")]
        {
            // A host without them has small ones.
            let _ = pages.advise(memmap2::Advice::HugePage);
        }
        Ok(Room(pages))
    }

    /// A copy of these bytes.
    pub(crate) fn holding(bytes: &[u8]) -> io::Result<Self> {
        let mut room = Room::new(bytes.len())?;
        room.copy_from_slice(bytes);
        Ok(room)
    }
}

impl Deref for Room {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Room {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl AsRef<[u8]> for Room {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::Room;

    #[test]
    fn rooms_of_any_size_hold_what_is_put_into_them() {
        for len in [0, 1, 4095, 4096, 3 << 20] {
            let mut room = Room::new(len).unwrap();
            assert!(room.len() == len && room.iter().all(|byte| *byte == 0));
            room.fill(7);
            assert_eq!(*Room::holding(&room).unwrap(), *room);
        }
    }
}
