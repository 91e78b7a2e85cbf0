//! Reading bytes forwards, and varints.

use crate::wire::WireError;

/// A place in a byte slice, read forwards.
#[derive(Clone, Debug)]
pub(crate) struct Bytes<'a> {
    rest: &'a [u8],
}

impl<'a> Bytes<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read yet.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(WireError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, WireError> {
        let (&first, rest) = self.rest.split_first().ok_or(WireError::Short)?;
        self.rest = rest;
        Ok(first)
    }

    /// A 64-bit varint.
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, WireError> {
        if let Some((bytes, rest)) = self.rest.split_first_chunk::<8>() {
            let word = u64::from_le_bytes(*bytes);
            // The last byte of a varint is the first without its top bit.
            let ends = !word & TOP_BITS;
            if ends != 0 {
                let used = ends.trailing_zeros() as usize / 8 + 1;
                let kept = u64::MAX >> (64 - 8 * used);
                self.rest = if used == 8 { rest } else { &self.rest[used..] };
                return Ok(gather(word & kept & !TOP_BITS));
            }
        }
        self.long_varint()
    }

    /// A varint of nine or ten bytes, or near the end of the bytes.
    fn long_varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        for (position, &byte) in self.rest.iter().enumerate().take(10) {
            // The tenth byte holds the topmost bit alone.
            if position == 9 && byte > 1 {
                return Err(WireError::Overlong { bits: 64 });
            }
            value |= u64::from(byte & 0x7f) << (7 * position);
            if byte < 0x80 {
                self.rest = &self.rest[position + 1..];
                return Ok(value);
            }
        }
        Err(if self.rest.len() >= 10 {
            WireError::Overlong { bits: 64 }
        } else {
            WireError::Short
        })
    }

    /// A varint length and that many bytes. Nothing is allocated for a length that is not there.
    pub(crate) fn counted(&mut self) -> Result<&'a [u8], WireError> {
        let count = usize::try_from(self.varint()?).map_err(|_| WireError::Short)?;
        self.take(count)
    }
}

/// The top bit of each of eight bytes: set where a varint goes on.
const TOP_BITS: u64 = 0x8080_8080_8080_8080;

/// Spreads 56 bits over eight bytes, seven bits in each.
#[inline]
const fn scatter(value: u64) -> u64 {
    let x = (value & 0x0fff_ffff) | (value & 0x00ff_ffff_f000_0000) << 4;
    let x = (x & 0x0000_3fff_0000_3fff) | (x & 0x0fff_c000_0fff_c000) << 2;
    (x & 0x007f_007f_007f_007f) | (x & 0x3f80_3f80_3f80_3f80) << 1
}

/// The reverse of [`scatter`].
#[inline]
const fn gather(bytes: u64) -> u64 {
    let x = (bytes & 0x007f_007f_007f_007f) | (bytes & 0x7f00_7f00_7f00_7f00) >> 1;
    let x = (x & 0x0000_3fff_0000_3fff) | (x & 0x3fff_0000_3fff_0000) >> 2;
    (x & 0x0fff_ffff) | (x & 0x0fff_ffff_0000_0000) >> 4
}

/// A signed number, as its two's complement, folded so that small ones of both signs are small.
#[inline]
pub(crate) const fn zigzag(number: u64) -> u64 {
    (number << 1) ^ ((number as i64) >> 63) as u64
}

/// The reverse of [`zigzag`].
#[inline]
pub(crate) const fn unzigzag(folded: u64) -> u64 {
    (folded >> 1) ^ (folded & 1).wrapping_neg()
}

/// Appends a varint.
#[inline]
pub(crate) fn put_varint(value: u64, out: &mut Vec<u8>) {
    if value < 0x80 {
        out.push(value as u8);
    } else {
        put_long_varint(value, out);
    }
}

fn put_long_varint(value: u64, out: &mut Vec<u8>) {
    // All bytes are appended and the unused ones taken off again: copying a number of bytes that is
    // known beforehand needs no call.
    let used = (70 - value.leading_zeros() as usize) / 7;
    if used <= 8 {
        let goes_on = TOP_BITS & ((1 << (8 * (used - 1))) - 1);
        out.extend_from_slice(&(scatter(value) | goes_on).to_le_bytes());
        out.truncate(out.len() - (8 - used));
    } else {
        out.extend_from_slice(&(scatter(value) | TOP_BITS).to_le_bytes());
        let top = (value >> 63) as u8;
        out.extend_from_slice(&[(value >> 56) as u8 & 0x7f | top << 7, top]);
        out.truncate(out.len() - (10 - used));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlong_varints_are_refused() {
        assert_eq!(
            Bytes::new(&[0xff; 10]).varint(),
            Err(WireError::Overlong { bits: 64 })
        );
        assert_eq!(Bytes::new(&[0xff; 9]).varint(), Err(WireError::Short));
    }

    #[test]
    fn every_length_is_written_and_read() {
        for bit in 0..64 {
            for value in [(1u64 << bit) - 1, 1 << bit, u64::MAX >> bit] {
                let mut out = Vec::new();
                put_varint(value, &mut out);
                let used = (64 - value.leading_zeros()).max(1).div_ceil(7);
                assert_eq!(out.len(), used as usize);
                // With bytes after it and without, which takes another path.
                let alone = Bytes::new(&out).varint();
                assert_eq!(alone, Ok(value));
                out.extend_from_slice(&[0xff; 9]);
                let mut from = Bytes::new(&out);
                assert_eq!(from.varint(), Ok(value));
                assert_eq!(from.rest(), [0xff; 9]);
            }
        }
    }
}
