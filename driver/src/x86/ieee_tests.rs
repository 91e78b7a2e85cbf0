//! Tests of the arithmetic: what random states of the host comparison rarely meet.

use super::*;
use crate::x86::ieee::mxcsr::{DE, OE, UE};

fn flags(control: u32, f: impl Fn(&mut Env) -> u64) -> (u64, u32) {
    let mut env = Env::new(control);
    let r = f(&mut env);
    (r, env.raised)
}

#[test]
fn tininess_is_judged_before_the_exponent_is_bounded() {
    // (1 - 2^-24) * 2^-126 rounds up to the smallest normal single, yet is tiny: its magnitude
    // has a single's 24 bits exactly.
    let tiny = (1.0 - 2f64.powi(-24)) * 2f64.powi(-126);
    let narrow = |control| flags(control, |e| convert::<Double, Single>(tiny.to_bits(), e));
    assert_eq!(narrow(DEFAULT), (1 << 23, UE | PE));
    assert_eq!(narrow(DEFAULT | FTZ), (0, UE | PE));
    // With one bit more, 25 of them, rounding to 24 reaches the smallest normal number.
    let tiny = (1.0 - 2f64.powi(-25)) * 2f64.powi(-126);
    let narrow = |control| flags(control, |e| convert::<Double, Single>(tiny.to_bits(), e));
    assert_eq!(narrow(DEFAULT), (1 << 23, PE));
    assert_eq!(narrow(DEFAULT | FTZ), (1 << 23, PE));
}

#[test]
fn overflow_goes_where_the_rounding_mode_points() {
    let max = f64::MAX.to_bits();
    let sum = |mode: u32| flags(DEFAULT | mode << 13, |e| add::<Double>(max, max, e));
    assert_eq!(sum(0), (Double::INFINITY, OE | PE));
    assert_eq!(sum(1), (max, OE | PE));
    assert_eq!(sum(2), (Double::INFINITY, OE | PE));
    assert_eq!(sum(3), (max, OE | PE));
}

#[test]
fn the_first_nan_wins_and_becomes_quiet() {
    let (quiet, signalling) = (0x7ff8_0000_0000_0001, 0xfff0_0000_0000_0002);
    let sum = |a, b| flags(DEFAULT, |e| add::<Double>(a, b, e));
    assert_eq!(sum(quiet, signalling), (quiet, IE));
    assert_eq!(sum(signalling, quiet), (0xfff8_0000_0000_0002, IE));
    assert_eq!(sum(1, quiet), (quiet, 0));
    let difference = flags(DEFAULT, |e| {
        sub::<Double>(Double::INFINITY, Double::INFINITY, e)
    });
    assert_eq!(difference, (Double::DEFAULT_NAN, IE));
}

#[test]
fn the_host_is_asked_only_where_it_cannot_err() {
    // With the inexact flag set already, denormal operands must still be noted.
    let r = flags(DEFAULT | PE, |e| mul::<Double>(1, 3f64.to_bits(), e));
    assert_eq!(r, (3, DE));
    let r = flags(DEFAULT | PE, |e| {
        add::<Double>(1f64.to_bits(), 2f64.to_bits(), e)
    });
    assert_eq!(r, (3f64.to_bits(), 0));
}

#[test]
fn approximations_stay_within_half_a_place_of_thirteen_bits() {
    let single = |bits: u64| f64::from(f32::from_bits(bits as u32));
    for i in 0..200_000u64 {
        let a = i.wrapping_mul(0x9e37_79b9) & 0x7fff_ffff;
        // Where neither operand nor result leaves the normal range.
        if !(1 << 23..0x7e80_0000).contains(&a) {
            continue;
        }
        let error = (single(reciprocal(a)) * single(a) - 1.0).abs();
        assert!(error <= 2f64.powi(-13), "1/{a:#x}: {error}");
        let error = (single(reciprocal_root(a)) * single(a).sqrt() - 1.0).abs();
        assert!(
            error <= 2f64.powi(-13) * 1.000_001,
            "1/sqrt {a:#x}: {error}"
        );
    }
}

#[test]
fn approximations_of_what_is_not_ordinary() {
    let minus = |x: u64| x | Single::SIGN;
    assert_eq!(reciprocal(minus(0)), minus(Single::INFINITY));
    assert_eq!(reciprocal(5), Single::INFINITY);
    assert_eq!(reciprocal(minus(Single::INFINITY)), minus(0));
    assert_eq!(reciprocal(0x7f00_0000), 0);
    assert_eq!(reciprocal(0x3f80_0000), 0x3f80_0000);
    assert_eq!(reciprocal_root(minus(0)), minus(Single::INFINITY));
    assert_eq!(reciprocal_root(minus(0x3f80_0000)), Single::DEFAULT_NAN);
    assert_eq!(
        reciprocal_root(minus(Single::INFINITY)),
        Single::DEFAULT_NAN
    );
    assert_eq!(reciprocal_root(0x4080_0000), 0x3f00_0000);
    assert_eq!(reciprocal_root(Single::INFINITY), 0);
    assert_eq!(reciprocal_root(0x7f80_0001), 0x7fc0_0001);
}
