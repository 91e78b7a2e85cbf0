//! The instruction set.
//!
//! To add an instruction: write its body `fn(&mut Core, &Op) -> Result<(), Trap>` in the file of
//! its family, in terms of the shapes; pick the instance of the body for the operand forms in a
//! `lower_…` function; add a row (mnemonic, lower) to the family's `ROWS`. Operands are in the
//! [`op::Op`] already: see [`decode`]. If the family is new, name it in [`table`].

pub mod arith;
pub mod atomic;
pub mod bits;
pub mod block;
pub mod branch;
pub mod cond;
pub mod decode;
pub mod far;
pub mod flagops;
pub mod fxsave;
pub mod harness;
pub mod ieee;
pub mod ieee_ops;
pub mod io;
pub mod mmx;
pub mod mov;
pub mod muldiv;
pub mod op;
pub mod segload;
pub mod shape;
pub mod shift;
pub mod sse;
pub mod sse_control;
pub mod sse_convert;
pub mod sse_float;
pub mod sse_int;
pub mod sse_mov;
pub mod sse_shuffle;
pub mod stack;
pub mod string;
pub mod system;
pub mod table;
pub mod word;
pub mod x87_arith;
pub mod x87_basic;
pub mod x87_bcd;
pub mod x87_compare;
pub mod x87_env;
pub mod x87_load;
pub mod x87_math;
pub mod x87_move;
pub mod x87_partial;
pub mod x87_round;
pub mod x87_series;
pub mod x87_unit;
pub mod x87_value;
pub mod x87_wide;

#[cfg(all(test, target_arch = "x86_64"))]
mod x87_tests;
