//! Loads and stores against the host.

use super::{CASES, Case, Host, agree, double, host, integer, low64, single};
use crate::x86::x87_bcd::{BCD_INDEFINITE, from_bcd};
use crate::x86::x87_load::Loaded;
use crate::x86::x87_round::Calculation;
use crate::x86::x87_value::Extended;

/// Makes all digits decimal.
fn make_decimal(memory: &mut [u8; 16]) {
    for b in &mut memory[..9] {
        *b &= 0x77;
    }
}

fn tword(c: &Case) -> (u64, u16) {
    (low64(c), u16::from_le_bytes([c.memory[8], c.memory[9]]))
}

fn put_tword(c: &mut Case, value: Option<(u64, u16)>) {
    if let Some((low, high)) = value {
        c.memory[..8].copy_from_slice(&low.to_le_bytes());
        c.memory[8..10].copy_from_slice(&high.to_le_bytes());
    }
}

#[test]
fn loads_agree_with_the_host() {
    agree("fld m32", CASES, 0, host!("fld dword ptr [{m}]"), |c| {
        c.x.load(single(c), true)
    });
    agree("fld m64", CASES, 0, host!("fld qword ptr [{m}]"), |c| {
        c.x.load(double(c), true)
    });
    agree("fld m80", CASES, 0, host!("fld tbyte ptr [{m}]"), |c| {
        let value = Extended::from_bits(tword(c));
        c.x.load(
            Loaded {
                value,
                denormal: false,
            },
            false,
        );
    });
    agree("fild m16", CASES, 0, host!("fild word ptr [{m}]"), |c| {
        c.x.load(integer(c, 16), false)
    });
    agree("fild m32", CASES, 0, host!("fild dword ptr [{m}]"), |c| {
        c.x.load(integer(c, 32), false)
    });
    agree("fild m64", CASES, 0, host!("fild qword ptr [{m}]"), |c| {
        c.x.load(integer(c, 64), false)
    });
    let fbld: Host = host!("fbld tbyte ptr [{m}]");
    let decimal_fbld = |image: &mut _, memory: &mut _, flags: &mut _| {
        make_decimal(memory);
        fbld(image, memory, flags);
    };
    agree("fbld", CASES, 0, decimal_fbld, |c| {
        make_decimal(&mut c.memory);
        let value = from_bcd(tword(c));
        c.x.load(
            Loaded {
                value,
                denormal: false,
            },
            false,
        );
    });
}

#[test]
fn stores_agree_with_the_host() {
    macro_rules! store {
        ($insn:literal, $pop:literal, $indefinite:expr, $convert:expr) => {
            agree($insn, CASES, 0, host!($insn), |c| {
                let s = c.x.prepare_store($indefinite, $convert);
                if let Some(v) = s.value {
                    let bytes = v.to_le_bytes();
                    c.memory[..bytes.len()].copy_from_slice(&bytes);
                }
                c.x.complete_store(&s, $pop);
            });
        };
    }
    store!(
        "fstp qword ptr [{m}]",
        true,
        0xfff8 << 48,
        Calculation::to_double
    );
    store!(
        "fst dword ptr [{m}]",
        false,
        0xffc0_0000,
        Calculation::to_single
    );
    store!("fistp word ptr [{m}]", true, i16::MIN, |k, v| k
        .to_integer(v, 16)
        .map(|v| v as i16));
    store!("fist dword ptr [{m}]", false, i32::MIN, |k, v| k
        .to_integer(v, 32)
        .map(|v| v as i32));
    store!("fistp qword ptr [{m}]", true, i64::MIN, |k, v| k
        .to_integer(v, 64));
    agree("fstp m80", CASES, 0, host!("fstp tbyte ptr [{m}]"), |c| {
        let s =
            c.x.prepare_store(Extended::INDEFINITE.to_bits(), |_, v| Some(v.to_bits()));
        put_tword(c, s.value);
        c.x.complete_store(&s, true);
    });
    agree("fbstp", CASES, 0, host!("fbstp tbyte ptr [{m}]"), |c| {
        let s = c.x.prepare_store(BCD_INDEFINITE, Calculation::to_bcd);
        put_tword(c, s.value);
        c.x.complete_store(&s, true);
    });
}
