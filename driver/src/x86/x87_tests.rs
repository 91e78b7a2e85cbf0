//! The x87 unit against the host's: random states, one instruction, everything compared.
#![allow(
    unsafe_code,
    reason = "runs the same instructions on the host's x87 unit"
)]

use super::x87_load::Loaded;
use super::x87_round::Calculation;
use super::x87_unit::{C0, C2, C3, ES, EXCEPTIONS};
use super::x87_value::{Extended, is_denormal_double, is_denormal_single};
use crate::cpu::state::X87;

mod arithmetic;
mod machine;
mod memory;
mod moves;

/// Bytes of an FRSTOR image.
pub(super) const IMAGE_BYTES: usize = 108;

/// A state, the memory operand, the status flags.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) x: X87,
    pub(super) memory: [u8; 16],
    pub(super) flags: u64,
}

pub(super) type Host = fn(&mut [u8; IMAGE_BYTES], &mut [u8; 16], &mut u64);

/// Wraps an instruction that the host is to execute; `{m}` is the memory operand.
macro_rules! host {
    ($insn:expr) => {
        |image, memory, flags| {
            let mut f = *flags;
            // SAFETY: the instruction reads and writes x87 state and the 16 bytes at `m`; FNSAVE
            // leaves the unit initialized.
            unsafe {
                std::arch::asm!(
                    "push {f}", "popfq",
                    "frstor [{a}]",
                    concat!("/* {m} */ ", $insn),
                    "fnsave [{a}]",
                    "pushfq", "pop {f}",
                    a = in(reg) image.as_mut_ptr(),
                    m = in(reg) memory.as_mut_ptr(),
                    f = inout(reg) f,
                    out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                    out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                );
            }
            *flags = f;
        }
    };
}

pub(super) use host;

/// A small generator, so that failures repeat.
pub(super) struct Random(pub(super) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 32) % n
    }

    /// A significand: random, sparse, or with long runs, so that ties happen.
    fn significand(&mut self) -> u64 {
        let r = self.next();
        match self.below(6) {
            0 => r,
            1 => 0,
            2 => u64::MAX,
            3 => r & (u64::MAX << self.below(64)),
            4 => r | (u64::MAX >> self.below(64)),
            _ => 1 << self.below(64) | 1 << self.below(64),
        }
    }

    fn value(&mut self) -> (u64, u16) {
        let sign = (self.below(2) as u16) << 15;
        let significand = self.significand();
        let normal = significand | 1 << 63;
        let near = |r: &mut Self, center: u64, by: u64| {
            (center + r.below(2 * by + 1)).wrapping_sub(by) as u16 & 0x7fff
        };
        match self.below(16) {
            0 => (0, sign),
            1 => (1 << 63, sign | 0x7fff),
            2 => (normal, sign | 0x7fff),
            3 => (significand & !(1 << 63), sign),
            4 => (significand, sign | self.below(0x8000) as u16),
            5 => (normal, sign | self.below(70) as u16),
            6 => (normal, sign | (0x7ffe - self.below(70) as u16)),
            7 => (normal, sign | near(self, 0x3fff - 1023, 60)),
            8 => (normal, sign | near(self, 0x3fff + 1023, 3)),
            9 => (normal, sign | near(self, 0x3fff - 127, 30)),
            10 => (normal, sign | near(self, 0x3fff + 127, 3)),
            11 => Extended::from_integer(self.significand() as i64).to_bits(),
            _ => (normal, sign | near(self, 0x3fff, 70)),
        }
    }

    pub(super) fn case(&mut self) -> Case {
        let mut x = X87::default();
        for r in &mut x.regs {
            *r = self.value();
        }
        // Operands that cancel, and ties of NaNs.
        if self.below(4) == 0 {
            let from = x.regs[self.below(8) as usize];
            let sign = (self.below(2) as u16) << 15;
            let i = self.below(8) as usize;
            x.regs[i] = (
                from.0.wrapping_add(self.below(3)).wrapping_sub(1),
                from.1 ^ sign,
            );
        }
        x.tags = if self.below(8) == 0 {
            self.next() as u8
        } else {
            0xff
        };
        let masks = if self.below(4) == 0 {
            self.next() as u16 & EXCEPTIONS
        } else {
            EXCEPTIONS
        };
        let precision = [0, 2, 3][self.below(3) as usize];
        x.control = 0x40 | masks | precision << 8 | (self.below(4) as u16) << 10;
        let mut status = self.next() as u16 & 0x7fff & !0x80;
        status &= !(!masks & EXCEPTIONS);
        if self.below(2) == 0 {
            status &= !0x7f;
        }
        x.status = status;
        let mut memory = [0; 16];
        let operand = self.value();
        let v = Extended::from_bits(operand);
        let mut any = Calculation::new(0x37f);
        match self.below(6) {
            0 => memory[..8].copy_from_slice(&self.significand().to_le_bytes()),
            1 | 2 => {
                let d = any.to_double(v).unwrap_or(0) | self.below(2);
                memory[..8].copy_from_slice(&d.to_le_bytes());
            }
            3 => {
                let s = any.to_single(v).unwrap_or(0) | self.below(2) as u32;
                memory[..4].copy_from_slice(&s.to_le_bytes());
            }
            4 => memory[..8]
                .copy_from_slice(&(self.below(8) << 52 | self.next() >> 16).to_le_bytes()),
            _ => {
                memory[..8].copy_from_slice(&operand.0.to_le_bytes());
                memory[8..10].copy_from_slice(&operand.1.to_le_bytes());
            }
        }
        Case {
            x,
            memory,
            flags: 2 | self.next() & 0x8d5,
        }
    }
}

pub(super) fn to_image(x: &X87) -> [u8; IMAGE_BYTES] {
    let mut image = [0; IMAGE_BYTES];
    image[..2].copy_from_slice(&x.control.to_le_bytes());
    image[4..6].copy_from_slice(&x.status.to_le_bytes());
    let tags = (0..8).fold(0u16, |w, n| {
        w | if x.tags >> n & 1 == 0 {
            3 << (2 * n)
        } else {
            0
        }
    });
    image[8..10].copy_from_slice(&tags.to_le_bytes());
    for i in 0..8 {
        let (significand, high) = x.bits(i);
        let at = 28 + 10 * usize::from(i);
        image[at..at + 8].copy_from_slice(&significand.to_le_bytes());
        image[at + 8..at + 10].copy_from_slice(&high.to_le_bytes());
    }
    image
}

pub(super) fn from_image(image: &[u8; IMAGE_BYTES]) -> X87 {
    let word = |at: usize| u16::from_le_bytes([image[at], image[at + 1]]);
    let mut x = X87 {
        control: word(0),
        status: word(4),
        ..X87::default()
    };
    for n in 0..8 {
        x.tags |= u8::from(word(8) >> (2 * n) & 3 != 3) << n;
    }
    for i in 0..8 {
        let at = 28 + 10 * usize::from(i);
        let mut significand = [0; 8];
        significand.copy_from_slice(&image[at..at + 8]);
        let n = x.physical(i);
        x.regs[n] = (u64::from_le_bytes(significand), word(at + 8));
    }
    x
}

/// Runs both. `ignored`: bits of the status word that are not defined.
fn agree(
    name: &str,
    cases: u32,
    ignored: u16,
    host: impl Fn(&mut [u8; IMAGE_BYTES], &mut [u8; 16], &mut u64),
    model: impl Fn(&mut Case),
) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ name.len() as u64);
    for n in 0..cases {
        let before = random.case();
        let mut theirs = before.clone();
        let mut image = to_image(&before.x);
        host(&mut image, &mut theirs.memory, &mut theirs.flags);
        theirs.x = from_image(&image);
        let mut ours = before.clone();
        model(&mut ours);
        // Makers differ in whether a comparison that raised an unmasked exception is delivered.
        let undelivered = name.starts_with("compare") && ours.x.status & ES != 0;
        for case in [&mut ours, &mut theirs] {
            case.x.status &= !ignored;
            if undelivered {
                case.x.status &= !(C0 | C2 | C3);
                case.flags = 0;
            }
            case.flags &= 0x8d5;
        }
        assert!(
            ours.x == theirs.x && ours.memory == theirs.memory && ours.flags == theirs.flags,
            "{name}, case {n}:\nbefore {before:x?}\nours   {ours:x?}\ntheirs {theirs:x?}"
        );
    }
}

pub(super) const CASES: u32 = 60_000;

fn single(c: &Case) -> Loaded {
    let bits = c.memory[..4]
        .iter()
        .rev()
        .fold(0, |v, b| v << 8 | u32::from(*b));
    Loaded {
        value: Extended::from_single(bits),
        denormal: is_denormal_single(bits),
    }
}

fn low64(c: &Case) -> u64 {
    c.memory[..8]
        .iter()
        .rev()
        .fold(0, |v, b| v << 8 | u64::from(*b))
}

fn double(c: &Case) -> Loaded {
    let bits = low64(c);
    Loaded {
        value: Extended::from_double(bits),
        denormal: is_denormal_double(bits),
    }
}

fn integer(c: &Case, bits: u32) -> Loaded {
    let value = (low64(c) as i64) << (64 - bits) >> (64 - bits);
    Loaded {
        value: Extended::from_integer(value),
        denormal: false,
    }
}
