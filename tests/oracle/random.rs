//! Random values that are interesting to an instruction more often than uniform ones are.

/// A small generator (splitmix64), so that failures repeat.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

/// What kind of values an instruction looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Integer,
    Single,
    Double,
    /// x87 values of all widths.
    Extended,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 32) % n
    }

    pub(crate) fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// An integer: zero, all-ones, extremes of every width, small, powers of two, or any.
    pub(crate) fn integer(&mut self) -> u64 {
        let r = self.next();
        match self.below(12) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << self.below(64),
            3 => (1u64 << self.below(64)).wrapping_sub(1),
            4 => self.pick(&[
                0x7f,
                0x80,
                0x7fff,
                0x8000,
                0x7fff_ffff,
                0x8000_0000,
                1 << 63,
            ]),
            5 => !self.pick(&[
                0x7f,
                0x80,
                0x7fff,
                0x8000,
                0x7fff_ffff,
                0x8000_0000,
                1 << 63,
            ]),
            6 => self.below(256),
            7 => self.below(256).wrapping_neg(),
            8 => r >> self.below(64),
            9 => u64::from_le_bytes([r as u8; 8]),
            _ => r,
        }
    }

    /// The bits of a single: zeros, denormals, infinities, both NaNs, limits, near one, integers.
    pub(crate) fn single(&mut self) -> u32 {
        let r = self.next() as u32;
        let sign = r & 1 << 31;
        let magnitude = match self.below(14) {
            0 => 0,
            1 => 0x7f80_0000,
            2 => 0x7fc0_0000 | r & 0x3f_ffff,
            3 => 0x7f80_0001 | r & 0x3f_ffff,
            4 => r & 0x7f_ffff,
            5 => self.pick(&[1, 0x7f_ffff, 0x80_0000, 0x7f7f_ffff, 0x3f80_0000]),
            6 => 0x3f80_0000u32.wrapping_add(r & 15).wrapping_sub(8),
            7 => (self.below(1 << 20) as f32).to_bits(),
            8 => (self.below(64) as f32 + 0.5).to_bits(),
            9 => 0x4f00_0000 - 4 + (r & 7),
            10 => 0x3400_0000 + (r & 0x0fff_ffff) / 2,
            11 => 0x7f7f_ffff - (r & 0xff_ffff),
            12 => 0x80_0000 + (r & 0xff_ffff),
            _ => r & 0x7fff_ffff,
        };
        magnitude | sign
    }

    /// The bits of a double, as [`Random::single`].
    pub(crate) fn double(&mut self) -> u64 {
        let r = self.next();
        let sign = r & 1 << 63;
        let fraction = r & ((1 << 52) - 1);
        let magnitude = match self.below(15) {
            0 => 0,
            1 => 0x7ff << 52,
            2 => 0x7ff8 << 48 | fraction >> 1,
            3 => 0x7ff << 52 | 1 | fraction >> 1,
            4 => fraction,
            5 => self.pick(&[
                1,
                (1 << 52) - 1,
                1 << 52,
                0x7fef_ffff_ffff_ffff,
                0x3ff << 52,
            ]),
            6 => (0x3ffu64 << 52).wrapping_add(r & 15).wrapping_sub(8),
            7 => (self.below(1 << 30) as f64).to_bits(),
            8 => (self.below(64) as f64 + 0.5).to_bits(),
            9 => 0x41e0_0000_0000_0000 - 4 + (r & 7),
            10 => 0x43e0_0000_0000_0000 - 4 + (r & 7),
            // The range of singles and its edges.
            11 => (0x380 + self.below(4)) << 52 | fraction,
            12 => (0x47e + self.below(3)) << 52 | fraction,
            13 => (0x3ff - 40 + self.below(80)) << 52 | fraction,
            _ => r >> 1,
        };
        magnitude | sign
    }

    /// An 80-bit value, unsupported encodings included.
    pub(crate) fn extended(&mut self) -> (u64, u16) {
        let r = self.next();
        let sign = (self.below(2) as u16) << 15;
        let normal = r | 1 << 63;
        match self.below(12) {
            0 => (0, sign),
            1 => (1 << 63, sign | 0x7fff),
            2 => (normal, sign | 0x7fff),
            3 => (r & !(1 << 63), sign),
            4 => (r, sign | self.below(0x8000) as u16),
            5 => (1 << 63 | 1 << self.below(63), sign | 0x3fff),
            6 => (
                u64::MAX << self.below(64),
                sign | (0x3fff + self.below(66) as u16),
            ),
            _ => (normal, sign | (0x3fff - 40 + self.below(80) as u16)),
        }
    }

    /// Sixteen bytes of a kind of values.
    pub(crate) fn chunk(&mut self, kind: Kind) -> [u8; 16] {
        let mut out = [0; 16];
        match kind {
            Kind::Single => {
                for lane in out.chunks_exact_mut(4) {
                    lane.copy_from_slice(&self.single().to_le_bytes());
                }
            }
            Kind::Double => {
                for lane in out.chunks_exact_mut(8) {
                    lane.copy_from_slice(&self.double().to_le_bytes());
                }
            }
            Kind::Integer => {
                for lane in out.chunks_exact_mut(8) {
                    lane.copy_from_slice(&self.integer().to_le_bytes());
                }
                if self.chance(3) {
                    for lane in out.chunks_exact_mut(2) {
                        lane.copy_from_slice(&self.integer().to_le_bytes()[..2]);
                    }
                }
            }
            Kind::Extended => match self.below(5) {
                0 => return self.chunk(Kind::Single),
                1 => return self.chunk(Kind::Double),
                2 => return self.chunk(Kind::Integer),
                3 => {
                    // Packed decimal digits.
                    for byte in &mut out {
                        *byte = (self.below(10) << 4 | self.below(10)) as u8;
                    }
                    out[9] = (self.below(2) << 7) as u8;
                }
                _ => {
                    let (significand, high) = self.extended();
                    out[..8].copy_from_slice(&significand.to_le_bytes());
                    out[8..10].copy_from_slice(&high.to_le_bytes());
                }
            },
        }
        out
    }
}
