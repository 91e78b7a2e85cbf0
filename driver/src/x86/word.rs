//! Operand widths as types, so that one body serves 8, 16, 32 and 64 bits.

/// An unsigned integer of an operand's width.
pub trait Word: Copy + Eq + Ord + std::fmt::Debug + 'static {
    /// Width in bits.
    const BITS: u32;
    /// Width in bytes.
    const BYTES: u64;
    /// The low bits of `v`.
    fn low(v: u64) -> Self;
    /// Zero-extended to 64 bits.
    fn zext(self) -> u64;
    /// Sign-extended to 64 bits.
    fn sext(self) -> u64;
    /// Little-endian load from the first bytes of a slice at least this wide.
    fn load(bytes: &[u8]) -> Self;
    /// Little-endian store to the first bytes of a slice at least this wide.
    fn store(self, bytes: &mut [u8]);
}

macro_rules! word {
    ($($t:ty, $s:ty);*) => {$(
        impl Word for $t {
            const BITS: u32 = <$t>::BITS;
            const BYTES: u64 = (<$t>::BITS / 8) as u64;
            #[inline(always)]
            fn low(v: u64) -> Self {
                v as $t
            }
            #[inline(always)]
            fn zext(self) -> u64 {
                self as u64
            }
            #[inline(always)]
            fn sext(self) -> u64 {
                self as $s as i64 as u64
            }
            #[inline(always)]
            fn load(bytes: &[u8]) -> Self {
                let mut a = [0; size_of::<$t>()];
                a.copy_from_slice(&bytes[..size_of::<$t>()]);
                <$t>::from_le_bytes(a)
            }
            #[inline(always)]
            fn store(self, bytes: &mut [u8]) {
                bytes[..size_of::<$t>()].copy_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}

word!(u8, i8; u16, i16; u32, i32; u64, i64);
