//! The packed decimal format: eighteen digits and a sign.

use super::x87_round::Calculation;
use super::x87_unit::IE;
use super::x87_value::Extended;

/// Digits of the format.
const DIGITS: u32 = 18;
/// The first integer with too many digits.
const LIMIT: u128 = 10u128.pow(DIGITS);
/// What is stored for what does not fit.
pub const BCD_INDEFINITE: (u64, u16) = (0xc000 << 48, 0xffff);

/// Reads packed decimal. Nibbles above nine count as what they are; the manual leaves them
/// undefined.
pub fn from_bcd((low, high): (u64, u16)) -> Extended {
    let digits = u128::from(low) | u128::from(high & 0xff) << 64;
    let mut magnitude = 0u64;
    for i in (0..DIGITS).rev() {
        magnitude = magnitude * 10 + (digits >> (4 * i) & 15) as u64;
    }
    Extended::from_magnitude(high >> 15 != 0, magnitude)
}

impl Calculation {
    /// Rounds to packed decimal; `None` if nothing is to be stored.
    pub fn to_bcd(&mut self, value: Extended) -> Option<(u64, u16)> {
        let Some(magnitude) = self.to_magnitude(value, |m, _| m < LIMIT) else {
            return self.masked(IE).then_some(BCD_INDEFINITE);
        };
        let mut rest = magnitude as u64;
        let mut digits = 0u128;
        for i in 0..DIGITS {
            digits |= u128::from(rest % 10) << (4 * i);
            rest /= 10;
        }
        Some((
            digits as u64,
            (digits >> 64) as u16 | u16::from(value.negative()) << 15,
        ))
    }
}
