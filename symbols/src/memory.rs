//! Guest memory made of pieces: for tests, and for reading a kernel's initial data from its image.

use std::collections::BTreeMap;

use crate::addr::{GuestMemory, LinkAddr, Slide};
use crate::image::Image;

/// Memory in which only what was put is mapped.
#[derive(Clone, Debug, Default)]
pub struct SparseMemory {
    pieces: BTreeMap<u64, Vec<u8>>,
}

impl SparseMemory {
    /// Places `bytes` at `gva`; pieces that are written later win.
    pub fn put(&mut self, gva: u64, bytes: &[u8]) {
        for (i, &byte) in bytes.iter().enumerate() {
            let at = gva.wrapping_add(i as u64);
            // Pages keep the map small, whatever the order of writes.
            let page = self.pieces.entry(at & !0xfff).or_default();
            let offset = (at & 0xfff) as usize;
            if page.len() <= offset {
                page.resize(offset + 1, 0);
            }
            page[offset] = byte;
        }
    }

    /// Places a 64-bit number.
    pub fn put_u64(&mut self, gva: u64, value: u64) {
        self.put(gva, &value.to_le_bytes());
    }
}

impl GuestMemory for SparseMemory {
    fn read(&self, gva: u64, buf: &mut [u8]) -> bool {
        buf.iter_mut().enumerate().all(|(i, byte)| {
            let Some(at) = gva.checked_add(i as u64) else {
                return false;
            };
            let page = self.pieces.get(&(at & !0xfff));
            let found = page.and_then(|p| p.get((at & 0xfff) as usize));
            found.map(|b| *byte = *b).is_some()
        })
    }
}

/// The kernel's own image as memory: what the guest holds before it has run.
#[derive(Debug)]
pub struct ImageMemory<'i, 'd> {
    image: &'i Image<'d>,
    slide: Slide,
}

impl<'i, 'd> ImageMemory<'i, 'd> {
    /// The image as if loaded with `slide` (pointers in it are not relocated).
    pub const fn new(image: &'i Image<'d>, slide: Slide) -> Self {
        Self { image, slide }
    }
}

impl GuestMemory for ImageMemory<'_, '_> {
    fn read(&self, gva: u64, buf: &mut [u8]) -> bool {
        let addr = LinkAddr(gva.wrapping_sub(self.slide.0));
        let found = self.image.bytes_at(addr, buf.len());
        found.map(|bytes| buf.copy_from_slice(bytes)).is_some()
    }
}
