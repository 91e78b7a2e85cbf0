//! Addition, subtraction, comparison and logic; INC, DEC, NEG, NOT.

use iced_x86::{Instruction, Mnemonic as N};

use super::op::{Body, Op};
use super::shape::{I, Lower, M, R, bits, by_width, is_mem, look, modify, source, source_kind};
use super::word::Word;
use crate::core::Core;
use crate::cpu::fault::Trap;
use crate::cpu::flags::LazyFlags;

/// A two-operand operation.
trait Alu {
    /// CMP and TEST only set flags.
    const WRITES: bool = true;
    fn eval<W: Word>(a: W, b: W, f: &mut LazyFlags) -> W;
}

macro_rules! alu {
    ($($(#[$doc:meta])* $name:ident $writes:literal |$a:ident, $b:ident, $f:ident, $W:ident| $e:expr;)*) => {$(
        $(#[$doc])*
        struct $name;
        impl Alu for $name {
            const WRITES: bool = $writes;
            #[inline(always)]
            fn eval<$W: Word>($a: $W, $b: $W, $f: &mut LazyFlags) -> $W {
                $e
            }
        }
    )*};
}

alu! {
    Add true |a, b, f, W| f.add(a, b, false);
    Adc true |a, b, f, W| f.add(a, b, f.cf());
    Sub true |a, b, f, W| f.sub(a, b, false);
    Sbb true |a, b, f, W| f.sub(a, b, f.cf());
    Cmp false |a, b, f, W| f.sub(a, b, false);
    And true |a, b, f, W| f.logic(W::low(a.zext() & b.zext()));
    Or true |a, b, f, W| f.logic(W::low(a.zext() | b.zext()));
    Xor true |a, b, f, W| f.logic(W::low(a.zext() ^ b.zext()));
    Test false |a, b, f, W| f.logic(W::low(a.zext() & b.zext()));
}

fn alu<K: Alu, W: Word, const MEM: bool, const SRC: u8>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    let b = source::<W, SRC>(c, op)?;
    if K::WRITES {
        modify::<W, MEM>(c, op, |a, f| K::eval(a, b, f))
    } else {
        let a = look::<W, MEM>(c, op)?;
        K::eval(a, b, &mut c.cpu.lazy);
        Ok(())
    }
}

fn lower_alu<K: Alu>(insn: &Instruction, _: &mut Op) -> Option<Body> {
    let width = bits(insn, 0);
    match (is_mem(insn, 0), source_kind(insn, 1)) {
        (false, R) => by_width!(width, W => alu::<K, W, false, R>),
        (false, M) => by_width!(width, W => alu::<K, W, false, M>),
        (true, R) => by_width!(width, W => alu::<K, W, true, R>),
        (false, _) => by_width!(width, W => alu::<K, W, false, I>),
        (true, _) => by_width!(width, W => alu::<K, W, true, I>),
    }
}

trait Unary {
    fn eval<W: Word>(a: W, f: &mut LazyFlags) -> W;
}

macro_rules! unary {
    ($($name:ident |$a:ident, $f:ident, $W:ident| $e:expr;)*) => {$(
        struct $name;
        impl Unary for $name {
            #[inline(always)]
            fn eval<$W: Word>($a: $W, $f: &mut LazyFlags) -> $W {
                $e
            }
        }
    )*};
}

unary! {
    Inc |a, f, W| { let c = f.cf(); let r = f.add(a, W::low(1), false); f.keep_carry(c); r };
    Dec |a, f, W| { let c = f.cf(); let r = f.sub(a, W::low(1), false); f.keep_carry(c); r };
    Neg |a, f, W| f.sub(W::low(0), a, false);
    Not |a, _f, W| W::low(!a.zext());
}

fn unary<K: Unary, W: Word, const MEM: bool>(c: &mut Core, op: &Op) -> Result<(), Trap> {
    modify::<W, MEM>(c, op, |a, f| K::eval(a, f))
}

fn lower_unary<K: Unary>(insn: &Instruction, _: &mut Op) -> Option<Body> {
    let width = bits(insn, 0);
    if is_mem(insn, 0) {
        by_width!(width, W => unary::<K, W, true>)
    } else {
        by_width!(width, W => unary::<K, W, false>)
    }
}

/// The rows of this family.
#[rustfmt::skip]
pub const ROWS: &[(N, Lower)] = &[
    (N::Add, lower_alu::<Add>), (N::Adc, lower_alu::<Adc>), (N::Sub, lower_alu::<Sub>),
    (N::Sbb, lower_alu::<Sbb>), (N::Cmp, lower_alu::<Cmp>), (N::And, lower_alu::<And>),
    (N::Or, lower_alu::<Or>), (N::Xor, lower_alu::<Xor>), (N::Test, lower_alu::<Test>),
    (N::Inc, lower_unary::<Inc>), (N::Dec, lower_unary::<Dec>),
    (N::Neg, lower_unary::<Neg>), (N::Not, lower_unary::<Not>),
];
