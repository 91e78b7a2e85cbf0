//! Little-endian reads from a slice that may be too short.

/// Reads that answer `None` beyond the end instead of panicking.
pub(crate) trait LeBytes {
    fn le_u16(&self, at: usize) -> Option<u16>;
    fn le_u32(&self, at: usize) -> Option<u32>;
    fn le_u64(&self, at: usize) -> Option<u64>;
    /// The bytes from `at` up to the next NUL.
    fn c_str(&self, at: usize) -> Option<&[u8]>;
}

impl LeBytes for [u8] {
    #[inline]
    fn le_u16(&self, at: usize) -> Option<u16> {
        let b = self.get(at..at.checked_add(2)?)?;
        Some(u16::from_le_bytes(b.try_into().ok()?))
    }

    #[inline]
    fn le_u32(&self, at: usize) -> Option<u32> {
        let b = self.get(at..at.checked_add(4)?)?;
        Some(u32::from_le_bytes(b.try_into().ok()?))
    }

    #[inline]
    fn le_u64(&self, at: usize) -> Option<u64> {
        let b = self.get(at..at.checked_add(8)?)?;
        Some(u64::from_le_bytes(b.try_into().ok()?))
    }

    fn c_str(&self, at: usize) -> Option<&[u8]> {
        let rest = self.get(at..)?;
        rest.get(..memchr::memchr(0, rest)?)
    }
}
