//! The status flags, kept as the recipe they come from and made into bits only on demand.
//!
//! An arithmetic instruction leaves its sign-extended result and its carry vector; every flag is a
//! function of these two words (the scheme of Bochs' `lazy_flags.h`). Any combination of the six
//! flags can be written back as such a pair, so a saved state needs nothing else.

use serde::{Deserialize, Serialize};

use crate::x86::word::Word;

/// Carry flag.
pub const CF: u64 = 1 << 0;
/// Parity flag.
pub const PF: u64 = 1 << 2;
/// Auxiliary carry flag.
pub const AF: u64 = 1 << 4;
/// Zero flag.
pub const ZF: u64 = 1 << 6;
/// Sign flag.
pub const SF: u64 = 1 << 7;
/// Trap flag: a debug exception after each instruction.
pub const TF: u64 = 1 << 8;
/// Interrupt enable flag.
pub const IF: u64 = 1 << 9;
/// Direction flag of string instructions.
pub const DF: u64 = 1 << 10;
/// Overflow flag.
pub const OF: u64 = 1 << 11;
/// I/O privilege level, two bits.
pub const IOPL: u64 = 3 << 12;
/// Nested task.
pub const NT: u64 = 1 << 14;
/// Resume flag.
pub const RF: u64 = 1 << 16;
/// Virtual-8086 mode.
pub const VM: u64 = 1 << 17;
/// Alignment check, and SMAP override.
pub const AC: u64 = 1 << 18;
/// CPUID is available: only its being writable matters.
pub const ID: u64 = 1 << 21;
/// The six flags that arithmetic writes.
pub const STATUS: u64 = CF | PF | AF | ZF | SF | OF;
/// Always set.
pub const FIXED: u64 = 1 << 1;

/// In `aux`: carry out of the most significant bit.
const AUX_CARRY: u64 = 1 << 63;
/// In `aux`: carry into the most significant bit.
const AUX_CARRY_IN: u64 = 1 << 62;
/// In `aux`: the sign flag is the inverse of the result's sign.
const AUX_SIGN_FLIP: u64 = 1 << 0;
/// In `aux`: auxiliary carry.
const AUX_AF: u64 = 1 << 3;
/// In `aux`: eight bits that are XORed with the result's low byte before taking parity.
const AUX_PARITY_SHIFT: u32 = 8;

/// The recipe of the six status flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[repr(C)]
pub struct LazyFlags {
    /// The last result, sign-extended.
    pub result: u64,
    /// Carries and corrections.
    pub aux: u64,
}

impl LazyFlags {
    /// Carry flag.
    #[inline(always)]
    pub fn cf(&self) -> bool {
        (self.aux as i64) < 0
    }

    /// Overflow flag.
    #[inline(always)]
    pub fn of(&self) -> bool {
        ((self.aux ^ (self.aux << 1)) as i64) < 0
    }

    /// Zero flag.
    #[inline(always)]
    pub fn zf(&self) -> bool {
        self.result == 0
    }

    /// Sign flag.
    #[inline(always)]
    pub fn sf(&self) -> bool {
        ((self.result ^ (self.aux << 63)) as i64) < 0
    }

    /// Parity flag.
    #[inline(always)]
    pub fn pf(&self) -> bool {
        ((self.result ^ (self.aux >> AUX_PARITY_SHIFT)) as u8).count_ones() & 1 == 0
    }

    /// Auxiliary carry flag.
    #[inline(always)]
    pub fn af(&self) -> bool {
        self.aux & AUX_AF != 0
    }

    /// The six flags as bits of RFLAGS.
    pub fn bits(&self) -> u64 {
        let bit = |on: bool, mask: u64| if on { mask } else { 0 };
        bit(self.cf(), CF)
            | bit(self.pf(), PF)
            | bit(self.af(), AF)
            | bit(self.zf(), ZF)
            | bit(self.sf(), SF)
            | bit(self.of(), OF)
    }

    /// The recipe for given bits of RFLAGS.
    pub fn from_bits(bits: u64) -> Self {
        let has = |mask: u64| bits & mask != 0;
        // The result only carries ZF; sign and parity are corrected through `aux`.
        let result = u64::from(!has(ZF));
        let mut aux = 0;
        if has(CF) {
            aux |= AUX_CARRY;
        }
        if has(CF) != has(OF) {
            aux |= AUX_CARRY_IN;
        }
        // of = carry ^ carry_in, so carry_in = cf ^ of.
        if has(SF) {
            aux |= AUX_SIGN_FLIP;
        }
        if has(AF) {
            aux |= AUX_AF;
        }
        let parity_of_result = (result as u8).count_ones() & 1 == 0;
        if parity_of_result != has(PF) {
            aux |= 1 << AUX_PARITY_SHIFT;
        }
        LazyFlags { result, aux }
    }

    /// Result and carry vector of an addition or subtraction.
    #[inline(always)]
    fn set_carries<W: Word>(&mut self, result: W, carries: u64) {
        self.result = result.sext();
        // Bit 3 stays, the two top bits move to 63 and 62; what lies between is noise and cleared,
        // since two equal states must be equal in their bits.
        self.aux = (carries << (64 - W::BITS)) & (AUX_CARRY | AUX_CARRY_IN) | carries & AUX_AF;
    }

    /// `a + b + carry`.
    #[inline(always)]
    pub fn add<W: Word>(&mut self, a: W, b: W, carry: bool) -> W {
        let (a, b) = (a.zext(), b.zext());
        let r = a.wrapping_add(b).wrapping_add(u64::from(carry));
        self.set_carries(W::low(r), (a & b) | ((a | b) & !r));
        W::low(r)
    }

    /// `a - b - borrow`.
    #[inline(always)]
    pub fn sub<W: Word>(&mut self, a: W, b: W, borrow: bool) -> W {
        let (a, b) = (a.zext(), b.zext());
        let r = a.wrapping_sub(b).wrapping_sub(u64::from(borrow));
        self.set_carries(W::low(r), (!a & b) | ((!a | b) & r));
        W::low(r)
    }

    /// A logical result: CF = OF = 0, and AF, undefined in the manual, canonically 0.
    #[inline(always)]
    pub fn logic<W: Word>(&mut self, result: W) -> W {
        self.result = result.sext();
        self.aux = 0;
        result
    }

    /// INC and DEC: as `add`/`sub` of one, CF unchanged.
    #[inline(always)]
    pub fn keep_carry(&mut self, carry: bool) {
        if self.cf() != carry {
            // Flipping both top bits changes CF and leaves OF, their difference.
            self.aux ^= AUX_CARRY | AUX_CARRY_IN;
        }
    }

    /// Sign, zero and parity from the result, given CF and OF; AF canonically 0.
    #[inline(always)]
    pub fn set_cf_of<W: Word>(&mut self, result: W, cf: bool, of: bool) {
        self.result = result.sext();
        self.aux = (u64::from(cf) << 63) | (u64::from(cf != of) << 62);
    }

    /// Replaces CF and OF, leaving the other four.
    #[inline(always)]
    pub fn replace_cf_of(&mut self, cf: bool, of: bool) {
        self.aux = self.aux & !(AUX_CARRY | AUX_CARRY_IN)
            | (u64::from(cf) << 63)
            | (u64::from(cf != of) << 62);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_survives_the_round_trip() {
        for n in 0..64u64 {
            let bits = [CF, PF, AF, ZF, SF, OF]
                .iter()
                .enumerate()
                .map(|(i, f)| if n >> i & 1 == 1 { *f } else { 0 })
                .sum::<u64>();
            assert_eq!(LazyFlags::from_bits(bits).bits(), bits, "{bits:#x}");
        }
    }

    #[test]
    fn eight_bit_addition_matches_a_bit_by_bit_reference() {
        for a in 0..=255u8 {
            for b in 0..=255u8 {
                for c in [false, true] {
                    let mut f = LazyFlags::default();
                    let r = f.add(a, b, c);
                    let wide = u16::from(a) + u16::from(b) + u16::from(c);
                    assert_eq!(r, wide as u8);
                    assert_eq!(f.cf(), wide > 255);
                    assert_eq!(f.af(), (a & 15) + (b & 15) + u8::from(c) > 15);
                    let signed = i16::from(a as i8) + i16::from(b as i8) + i16::from(c);
                    assert_eq!(f.of(), !(-128..=127).contains(&signed));
                    let r = f.sub(a, b, c);
                    assert_eq!(r, a.wrapping_sub(b).wrapping_sub(u8::from(c)));
                    assert_eq!(f.cf(), u16::from(a) < u16::from(b) + u16::from(c));
                    let signed = i16::from(a as i8) - i16::from(b as i8) - i16::from(c);
                    assert_eq!(f.of(), !(-128..=127).contains(&signed));
                    assert_eq!(f.sf(), (r as i8) < 0);
                    assert_eq!(f.zf(), r == 0);
                    assert_eq!(f.pf(), r.count_ones() % 2 == 0);
                }
            }
        }
    }
}
