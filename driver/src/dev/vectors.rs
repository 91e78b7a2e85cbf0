//! A set of interrupt vectors, stored as the eight registers the guest sees.

use serde::{Deserialize, Serialize};

/// A set of the 256 vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VectorSet([u32; 8]);

impl VectorSet {
    /// The highest vector of the set.
    pub fn highest(&self) -> Option<u8> {
        let (index, word) = self
            .0
            .iter()
            .enumerate()
            .rev()
            .find(|(_, word)| **word != 0)?;
        Some((index as u32 * 32 + 31 - word.leading_zeros()) as u8)
    }

    /// Whether a vector is in the set.
    pub const fn contains(&self, vector: u8) -> bool {
        self.0[vector as usize / 32] & (1 << (vector % 32)) != 0
    }

    /// Puts a vector in, or takes it out.
    pub const fn assign(&mut self, vector: u8, member: bool) {
        let bit = 1 << (vector % 32);
        if member {
            self.0[vector as usize / 32] |= bit;
        } else {
            self.0[vector as usize / 32] &= !bit;
        }
    }

    /// Register `index` of eight: 32 vectors, from `32 * index`.
    pub const fn register(&self, index: usize) -> u32 {
        self.0[index & 7]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_member_is_found_across_registers() {
        let mut set = VectorSet::default();
        assert_eq!(set.highest(), None);
        for vector in [0, 31, 32, 200, 255] {
            set.assign(vector, true);
            assert_eq!(set.highest(), Some(vector));
        }
        assert_eq!((set.register(0), set.register(6)), (0x8000_0001, 1 << 8));
        set.assign(255, false);
        assert!(set.contains(200) && !set.contains(255));
        assert_eq!(set.highest(), Some(200));
    }
}
