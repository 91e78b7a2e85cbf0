//! The transcendental instructions against the host's, to the last place but one.
#![allow(
    unsafe_code,
    reason = "runs the same instructions on the host's x87 unit"
)]

use super::Angle;
use crate::x86::x87_tests::{CASES, Case, Host, Random, from_image, host, to_image};
use crate::x86::x87_unit::{C1, EXCEPTIONS, UE};

/// Runs both with all exceptions masked. Results may differ by one unit in the last place, and not
/// many do. The operand in ST(0) gets an exponent from `range`.
fn nearly_agree(name: &str, range: Range, host: Host, model: impl Fn(&mut Case)) {
    let mut random = Random(0x1234_5678_9abc_def1 ^ name.len() as u64);
    let mut different = 0;
    for n in 0..CASES {
        let mut before = random.case();
        before.x.control |= EXCEPTIONS;
        let (significand, high) = before.x.bits(0);
        if !(high & 0x7fff == 0 || high & 0x7fff == 0x7fff) {
            let exponent = match range {
                Range::All => high & 0x7fff,
                Range::Near(least, most) => {
                    least + (u64::from(high) * 40503 % u64::from(most - least + 1)) as u16
                }
            };
            let top = before.x.physical(0);
            before.x.regs[top] = (significand | 1 << 63, high & 0x8000 | exponent);
        }
        let mut theirs = before.clone();
        let mut image = to_image(&before.x);
        host(&mut image, &mut theirs.memory, &mut theirs.flags);
        theirs.x = from_image(&image);
        let mut ours = before.clone();
        model(&mut ours);
        let mut same = true;
        for i in 0..8 {
            let (a, b) = (ours.x.regs[i], theirs.x.regs[i]);
            let place = |v: (u64, u16)| i128::from(v.1 & 0x7fff) << 63 | i128::from(v.0 << 1 >> 1);
            same &= (place(a) - place(b)).abs() <= 1 && (a.1 ^ b.1) >> 15 == 0;
            different += u32::from(a != b);
        }
        // C1, and whether a borderline result is tiny, depend on the last bits.
        let defined = !(C1 | if same { UE } else { 0 });
        same &= ours.x.status & defined == theirs.x.status & defined;
        same &= ours.x.tags == theirs.x.tags;
        assert!(
            same,
            "{name}, case {n}:\nbefore {before:x?}\nours   {ours:x?}\ntheirs {theirs:x?}"
        );
    }
    assert!(
        different < CASES / 4,
        "{name}: {different} results differ in the last place"
    );
}

/// Exponents of the operand in ST(0).
#[derive(Clone, Copy)]
enum Range {
    All,
    Near(u16, u16),
}

#[test]
fn transcendentals_nearly_agree_with_the_host() {
    let angles = Range::Near(0x3fff - 40, 0x3fff + 64);
    nearly_agree("fsin", angles, host!("fsin"), |c| c.x.angle(Angle::Sine));
    nearly_agree("fcos", angles, host!("fcos"), |c| c.x.angle(Angle::Cosine));
    nearly_agree("fsincos", angles, host!("fsincos"), |c| {
        c.x.angle(Angle::SineCosine)
    });
    nearly_agree("fptan", angles, host!("fptan"), |c| {
        c.x.angle(Angle::Tangent)
    });
    nearly_agree("fsin all", Range::All, host!("fsin"), |c| {
        c.x.angle(Angle::Sine)
    });
    nearly_agree("fptan all", Range::All, host!("fptan"), |c| {
        c.x.angle(Angle::Tangent)
    });
    let below_one = Range::Near(0x3fff - 80, 0x3fff - 1);
    nearly_agree("f2xm1", below_one, host!("f2xm1"), |c| {
        c.x.power_minus_one()
    });
    nearly_agree(
        "fyl2xp1",
        Range::Near(0x3fff - 80, 0x3fff - 3),
        host!("fyl2xp1"),
        |c| {
            c.x.y_log2_plus_one();
        },
    );
    nearly_agree("fyl2x", Range::All, host!("fyl2x"), |c| c.x.y_log2());
    nearly_agree(
        "fyl2x near one",
        Range::Near(0x3ffe, 0x3fff),
        host!("fyl2x"),
        |c| c.x.y_log2(),
    );
    nearly_agree("fpatan", Range::All, host!("fpatan"), |c| c.x.arc_tangent());
}
