//! Moves and comparisons against the host.

use super::{CASES, Case, agree, double, host, integer, single};
use crate::x86::x87_compare::order_flags;
use crate::x86::x87_load::Loaded;
use crate::x86::x87_move::constant;
use crate::x86::x87_unit::C1;
use crate::x86::x87_value::Extended;

#[test]
fn moves_agree_with_the_host() {
    let few = CASES / 6;
    agree("fld st0", few, 0, host!("fld st(0)"), |c| c.x.duplicate(0));
    agree("fld st3", few, 0, host!("fld st(3)"), |c| c.x.duplicate(3));
    agree("fld st7", few, 0, host!("fld st(7)"), |c| c.x.duplicate(7));
    agree("fst st2", few, 0, host!("fst st(2)"), |c| {
        c.x.copy_to(2, false)
    });
    agree("fstp st2", few, 0, host!("fstp st(2)"), |c| {
        c.x.copy_to(2, true)
    });
    agree("fstp st0", few, 0, host!("fstp st(0)"), |c| {
        c.x.copy_to(0, true)
    });
    agree("fstpnce", few, 0, host!(".byte 0xd9, 0xda"), |c| {
        c.x.copy_unchecked(2)
    });
    agree("fxch", few, 0, host!("fxch st(5)"), |c| c.x.exchange(5));
    agree("fxch st0", few, 0, host!("fxch st(0)"), |c| c.x.exchange(0));
    agree("fchs", few, 0, host!("fchs"), |c| {
        c.x.change_sign(|h| h ^ 0x8000)
    });
    agree("fabs", few, 0, host!("fabs"), |c| {
        c.x.change_sign(|h| h & 0x7fff)
    });
    agree("fcmovb", few, 0, host!("fcmovb st, st(2)"), |c| {
        c.x.move_if(2, c.flags & 1 != 0)
    });
    agree("fcmovnu", few, 0, host!("fcmovnu st, st(2)"), |c| {
        c.x.move_if(2, c.flags & 4 == 0)
    });
    agree("fldz", few, 0, host!("fldz"), |c| {
        c.x.push_constant(Extended::zero(false))
    });
    agree("fincstp", few, 0, host!("fincstp"), |c| {
        c.x.set_c1(false);
        c.x.rotate(1);
    });
    agree("fdecstp", few, 0, host!("fdecstp"), |c| {
        c.x.set_c1(false);
        c.x.rotate(7);
    });
    agree("ffree", few, 0, host!("ffree st(3)"), |c| {
        c.x.set_c1(false);
        c.x.free(3);
    });
    agree("ffreep", few, 0, host!(".byte 0xdf, 0xc3"), |c| {
        c.x.set_c1(false);
        c.x.free(3);
        c.x.pop();
    });
    agree("fnop", few, 0, host!("fnop"), |_| {});
}

#[test]
fn constants_agree_with_the_host() {
    macro_rules! same {
        ($($name:literal $n:literal)*) => {$(
            agree($name, CASES / 30, 0, host!($name), |c| c.x.push_constant(constant($n, c.x.control)));
        )*};
    }
    same!("fld1" 0 "fldl2t" 1 "fldl2e" 2 "fldpi" 3 "fldlg2" 4 "fldln2" 5 "fldz" 6);
}

#[test]
fn comparisons_agree_with_the_host() {
    agree("compare fcom", CASES, 0, host!("fcom st(1)"), |c| {
        com(c, 1, true, 0)
    });
    agree("compare fcomp", CASES, 0, host!("fcomp st(2)"), |c| {
        com(c, 2, true, 1)
    });
    agree("compare fcompp", CASES, 0, host!("fcompp"), |c| {
        com(c, 1, true, 2)
    });
    agree("compare fucom", CASES, 0, host!("fucom st(1)"), |c| {
        com(c, 1, false, 0)
    });
    agree("compare fucompp", CASES, 0, host!("fucompp"), |c| {
        com(c, 1, false, 2)
    });
    agree(
        "compare fcom m32",
        CASES,
        0,
        host!("fcom dword ptr [{m}]"),
        |c| {
            let order = c.x.compare_with(single(c), true);
            c.x.deliver_order(order, 0);
        },
    );
    agree(
        "compare fcomp m64",
        CASES,
        0,
        host!("fcomp qword ptr [{m}]"),
        |c| {
            let order = c.x.compare_with(double(c), true);
            c.x.deliver_order(order, 1);
        },
    );
    agree(
        "compare ficom m16",
        CASES,
        0,
        host!("ficom word ptr [{m}]"),
        |c| {
            let order = c.x.compare_with(integer(c, 16), true);
            c.x.deliver_order(order, 0);
        },
    );
    agree("compare ftst", CASES, 0, host!("ftst"), |c| {
        let zero = Loaded {
            value: Extended::zero(false),
            denormal: false,
        };
        let order = c.x.compare_with(zero, true);
        c.x.deliver_order(order, 0);
    });
    agree("fxam", CASES, 0, host!("fxam"), |c| c.x.examine());
    // Makers differ in whether FCOMI clears C1; the SDM says so.
    agree("compare fcomi", CASES, C1, host!("fcomi st, st(1)"), |c| {
        comi(c, 1, true, false)
    });
    agree(
        "compare fucomi",
        CASES,
        C1,
        host!("fucomi st, st(2)"),
        |c| comi(c, 2, false, false),
    );
    agree(
        "compare fucomip",
        CASES,
        C1,
        host!("fucomip st, st(1)"),
        |c| comi(c, 1, false, true),
    );
}

fn com(c: &mut Case, i: u8, signal: bool, pops: u8) {
    let order = c.x.compare(i, signal);
    c.x.deliver_order(order, pops);
}

fn comi(c: &mut Case, i: u8, signal: bool, pop: bool) {
    if let Some(order) = c.x.compare(i, signal) {
        c.flags = order_flags(order);
        if pop {
            c.x.pop();
        }
    }
}
