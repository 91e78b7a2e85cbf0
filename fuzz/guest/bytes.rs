//! Choices taken from a byte string, and from a generator it seeds when it ends.
//!
//! A coverage-guided fuzzer steers through the bytes; a plain seed is a string of eight.

/// A source of choices.
#[derive(Clone, Debug)]
pub struct Choices<'a> {
    bytes: &'a [u8],
    state: u64,
}

impl<'a> Choices<'a> {
    /// Choices from these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        let state = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Choices {
            bytes,
            state: state | 1,
        }
    }

    /// A byte.
    pub fn byte(&mut self) -> u8 {
        if let Some((first, rest)) = self.bytes.split_first() {
            self.bytes = rest;
            return *first;
        }
        self.word() as u8
    }

    /// A word from the generator alone: bulk that is not worth steering.
    pub fn word(&mut self) -> u64 {
        // xorshift64*
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }

    /// A number below `end`, at most 65536.
    pub fn below(&mut self, end: usize) -> usize {
        let mut number = usize::from(self.byte());
        if end > 256 {
            number = number << 8 | usize::from(self.byte());
        }
        number % end.max(1)
    }

    /// True in `part` of 256 cases.
    pub fn chance(&mut self, part: u16) -> bool {
        u16::from(self.byte()) < part
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// A number that is interesting at some width: small, near a power of two, or anything.
    pub fn number(&mut self) -> u64 {
        match self.below(6) {
            0 => u64::from(self.byte()),
            1 => u64::from(self.byte()).wrapping_neg(),
            2 | 3 => {
                let near = 1u64 << self.below(64);
                near.wrapping_add(self.below(17) as u64).wrapping_sub(8)
            }
            4 => 0x0000_8000_0000_0000_u64.wrapping_sub(self.below(64) as u64),
            _ => self.word() << 8 | u64::from(self.byte()),
        }
    }
}
