//! Shifts and rotates.
//!
//! Flags the manual leaves undefined are canonical: AF is 0, and OF for counts other than one
//! follows the formula for one.

use iced_x86::{Instruction, Mnemonic as N};

use super::op::{Body, Op};
use super::shape::{I, Lower, R, bits, by_width, is_imm, is_mem, modify};
use super::word::Word;
use crate::core::Core;
use crate::cpu::fault::Trap;
use crate::cpu::flags::LazyFlags;

trait Shift {
    /// `count` is already masked to 5 or 6 bits and not zero.
    fn eval<W: Word>(a: W, count: u32, f: &mut LazyFlags) -> W;
}

macro_rules! shift {
    ($($name:ident |$a:ident, $n:ident, $f:ident, $W:ident| $e:expr;)*) => {$(
        struct $name;
        impl Shift for $name {
            #[inline(always)]
            fn eval<$W: Word>($a: $W, $n: u32, $f: &mut LazyFlags) -> $W {
                $e
            }
        }
    )*};
}

/// The most significant bit of a value of width `W`.
fn msb<W: Word>(v: u64) -> bool {
    v >> (W::BITS - 1) & 1 != 0
}

shift! {
    Shl |a, n, f, W| {
        let wide = u128::from(a.zext()) << n;
        let r = W::low(wide as u64);
        let cf = wide >> W::BITS & 1 != 0;
        f.set_cf_of(r, cf, msb::<W>(r.zext()) != cf);
        r
    };
    Shr |a, n, f, W| {
        let wide = (u128::from(a.zext()) << 1) >> n;
        let r = W::low((wide >> 1) as u64);
        // OF is the sign of the original operand for a count of one.
        f.set_cf_of(r, wide & 1 != 0, (r.zext() << 1 ^ r.zext()) >> (W::BITS - 1) & 1 != 0);
        r
    };
    Sar |a, n, f, W| {
        let wide = (i128::from(a.sext() as i64) << 1) >> n;
        let r = W::low((wide >> 1) as u64);
        f.set_cf_of(r, wide & 1 != 0, false);
        r
    };
    Rol |a, n, f, W| {
        let n = n % W::BITS;
        let v = a.zext();
        let r = W::low(if n == 0 { v } else { v << n | v >> (W::BITS - n) });
        let cf = r.zext() & 1 != 0;
        f.replace_cf_of(cf, msb::<W>(r.zext()) != cf);
        r
    };
    Ror |a, n, f, W| {
        let n = n % W::BITS;
        let v = a.zext();
        let r = W::low(if n == 0 { v } else { v >> n | v << (W::BITS - n) });
        let cf = msb::<W>(r.zext());
        f.replace_cf_of(cf, cf != msb::<W>(r.zext() << 1));
        r
    };
    Rcl |a, n, f, W| {
        let (r, cf) = rotate_through_carry::<W>(a, n % (W::BITS + 1), f.cf());
        f.replace_cf_of(cf, msb::<W>(r.zext()) != cf);
        r
    };
    Rcr |a, n, f, W| {
        let left = (W::BITS + 1 - n % (W::BITS + 1)) % (W::BITS + 1);
        let (r, cf) = rotate_through_carry::<W>(a, left, f.cf());
        f.replace_cf_of(cf, msb::<W>(r.zext()) != msb::<W>(r.zext() << 1));
        r
    };
}

/// Rotates the value with the carry on top of it left by `n`, at most its width.
fn rotate_through_carry<W: Word>(a: W, n: u32, carry: bool) -> (W, bool) {
    let total = W::BITS + 1;
    let v = u128::from(a.zext()) | u128::from(carry) << W::BITS;
    let r = if n == 0 { v } else { v << n | v >> (total - n) };
    (W::low(r as u64), r >> W::BITS & 1 != 0)
}

const fn count_mask(bits: u32) -> u64 {
    if bits == 64 { 63 } else { 31 }
}

fn shift<K: Shift, W: Word, const MEM: bool, const SRC: u8>(
    c: &mut Core,
    op: &Op,
) -> Result<(), Trap> {
    let count = if SRC == I { op.imm } else { c.cpu.regs[1] };
    let count = (count & count_mask(W::BITS)) as u32;
    modify::<W, MEM>(
        c,
        op,
        |a, f| if count == 0 { a } else { K::eval(a, count, f) },
    )
}

fn lower_shift<K: Shift>(insn: &Instruction, op: &mut Op) -> Option<Body> {
    let width = bits(insn, 0);
    if is_imm(insn, 1) {
        op.imm = u64::from(insn.immediate8());
    }
    match (is_mem(insn, 0), is_imm(insn, 1)) {
        (false, true) => by_width!(width, W => shift::<K, W, false, I>),
        (false, false) => by_width!(width, W => shift::<K, W, false, R>),
        (true, true) => by_width!(width, W => shift::<K, W, true, I>),
        (true, false) => by_width!(width, W => shift::<K, W, true, R>),
    }
}

/// SHLD and SHRD. A 16-bit shift by more than 16 is undefined; canonically the bits come from the
/// destination and source concatenated again.
fn double_shift<W: Word, const LEFT: bool, const MEM: bool, const SRC: u8>(
    c: &mut Core,
    op: &Op,
) -> Result<(), Trap> {
    let count = if SRC == I { op.imm } else { c.cpu.regs[1] };
    let n = (count & count_mask(W::BITS)) as u32;
    let fill = c.reg::<W>(op.src);
    modify::<W, MEM>(c, op, |a, f| {
        if n == 0 {
            return a;
        }
        let bits = W::BITS;
        let (hi, lo) = if LEFT { (a, fill) } else { (fill, a) };
        let both = u128::from(hi.zext()) << bits | u128::from(lo.zext());
        let (r, cf) = if LEFT {
            let v = both << (128 - 2 * bits);
            let v = v.rotate_left(n);
            let top = both.checked_shr(2 * bits - n).unwrap_or(0);
            if bits == 16 && n > 16 {
                // Rotating the 48-bit value a:b:a gives what processors do.
                let triple = u64::from(a.zext() as u16) << 32 | fill.zext() << 16 | a.zext();
                let s = triple << (n - 16) >> 16;
                (W::low(s), triple >> (48 - n) & 1 != 0)
            } else {
                (W::low((v >> (128 - bits)) as u64), top & 1 != 0)
            }
        } else if bits == 16 && n > 16 {
            let triple = a.zext() << 32 | fill.zext() << 16 | a.zext();
            (W::low(triple >> n), triple >> (n - 1) & 1 != 0)
        } else {
            (W::low((both >> n) as u64), both >> (n - 1) & 1 != 0)
        };
        f.set_cf_of(r, cf, msb::<W>(r.zext()) != msb::<W>(a.zext()));
        r
    })
}

fn lower_double<const LEFT: bool>(insn: &Instruction, op: &mut Op) -> Option<Body> {
    let width = bits(insn, 0);
    if width == 8 {
        return None;
    }
    if is_imm(insn, 2) {
        op.imm = u64::from(insn.immediate8());
    }
    match (is_mem(insn, 0), is_imm(insn, 2)) {
        (false, true) => by_width!(width, W => double_shift::<W, LEFT, false, I>),
        (false, false) => by_width!(width, W => double_shift::<W, LEFT, false, R>),
        (true, true) => by_width!(width, W => double_shift::<W, LEFT, true, I>),
        (true, false) => by_width!(width, W => double_shift::<W, LEFT, true, R>),
    }
}

/// The rows of this family.
#[rustfmt::skip]
pub const ROWS: &[(N, Lower)] = &[
    (N::Shl, lower_shift::<Shl>), (N::Sal, lower_shift::<Shl>), (N::Shr, lower_shift::<Shr>),
    (N::Sar, lower_shift::<Sar>), (N::Rol, lower_shift::<Rol>), (N::Ror, lower_shift::<Ror>),
    (N::Rcl, lower_shift::<Rcl>), (N::Rcr, lower_shift::<Rcr>),
    (N::Shld, lower_double::<true>), (N::Shrd, lower_double::<false>),
];
