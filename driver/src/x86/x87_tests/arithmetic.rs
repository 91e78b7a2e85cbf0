//! Arithmetic against the host.

use super::{CASES, agree, double, host, integer, single};
use crate::x86::x87_arith::operation;
use crate::x86::x87_round::Calculation;

#[test]
fn arithmetic_agrees_with_the_host() {
    agree("fadd", CASES, 0, host!("fadd st, st(1)"), |c| {
        c.x.binary(0, 1, false, operation(0))
    });
    agree("fmul", CASES, 0, host!("fmul st, st(1)"), |c| {
        c.x.binary(0, 1, false, operation(1))
    });
    agree("fsub", CASES, 0, host!("fsub st, st(1)"), |c| {
        c.x.binary(0, 1, false, operation(4))
    });
    agree("fdivr", CASES, 0, host!("fdivr st, st(1)"), |c| {
        c.x.binary(0, 1, false, operation(7))
    });
    agree("fdiv", CASES, 0, host!("fdiv st, st(1)"), |c| {
        c.x.binary(0, 1, false, operation(6))
    });
    agree("fsqrt", CASES, 0, host!("fsqrt"), |c| {
        c.x.unary(Calculation::square_root)
    });
    agree("frndint", CASES, 0, host!("frndint"), |c| {
        c.x.unary(Calculation::round_to_integral)
    });
}

#[test]
fn arithmetic_with_stack_registers_agrees_with_the_host() {
    let few = CASES / 3;
    agree("fadd sti", few, 0, host!("fadd st(3), st"), |c| {
        c.x.binary(3, 0, false, operation(0))
    });
    agree("faddp", few, 0, host!("faddp st(1), st"), |c| {
        c.x.binary(1, 0, true, operation(0))
    });
    agree("fsubp", few, 0, host!(".byte 0xde, 0xea"), |c| {
        c.x.binary(2, 0, true, operation(4))
    });
    agree("fsubrp", few, 0, host!(".byte 0xde, 0xe2"), |c| {
        c.x.binary(2, 0, true, operation(5))
    });
    agree("fdivp", few, 0, host!(".byte 0xde, 0xf9"), |c| {
        c.x.binary(1, 0, true, operation(6))
    });
    agree("fdivrp", few, 0, host!(".byte 0xde, 0xf1"), |c| {
        c.x.binary(1, 0, true, operation(7))
    });
    agree("fadd st, st", few, 0, host!("fadd st, st(0)"), |c| {
        c.x.binary(0, 0, false, operation(0))
    });
}

#[test]
fn arithmetic_with_memory_agrees_with_the_host() {
    macro_rules! with {
        ($name:literal, $n:literal) => {
            agree(
                $name,
                CASES,
                0,
                host!(concat!($name, " dword ptr [{m}]")),
                |c| {
                    c.x.binary_with(single(c), operation($n));
                },
            );
            agree(
                $name,
                CASES,
                0,
                host!(concat!($name, " qword ptr [{m}]")),
                |c| {
                    c.x.binary_with(double(c), operation($n));
                },
            );
        };
    }
    with!("fadd", 0);
    with!("fmul", 1);
    with!("fsub", 4);
    with!("fsubr", 5);
    with!("fdiv", 6);
    with!("fdivr", 7);
    agree("fiadd", CASES, 0, host!("fiadd word ptr [{m}]"), |c| {
        c.x.binary_with(integer(c, 16), operation(0));
    });
    agree("fidivr", CASES, 0, host!("fidivr dword ptr [{m}]"), |c| {
        c.x.binary_with(integer(c, 32), operation(7));
    });
}

#[test]
fn partial_operations_agree_with_the_host() {
    agree("fprem", CASES, 0, host!("fprem"), |c| c.x.remainder(false));
    agree("fprem1", CASES, 0, host!("fprem1"), |c| c.x.remainder(true));
    agree("fscale", CASES, 0, host!("fscale"), |c| c.x.scale());
    agree("fxtract", CASES, 0, host!("fxtract"), |c| c.x.extract());
}
