//! SSE, SSE2 and MMX against the host: the same bytes run here and there on the same state.
#![allow(unsafe_code, reason = "runs the same instructions on the host")]

use std::arch::asm;

use crate::core::Core;
use crate::cpu::fault::Trap;
use crate::cpu::flags::STATUS;
use crate::cpu::state::{CR0_NE, CR4_OSFXSR, CR4_OSXMMEXCPT};
use crate::dev::bus::{Board, BoardConfig};
use crate::mem::ppram::Ppram;
use crate::tick::Clock;
use crate::x86::decode::{Decoded, decode};
use crate::x86::op::Op;
use crate::x86::table::Table;

#[path = "sse_fault_tests.rs"]
mod faults;

/// What an instruction may read and write. The memory operand is `[rdi + 32]`.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct State {
    xmm: [[u64; 2]; 2],
    memory: [u64; 3],
    rax: u64,
    flags: u64,
    mxcsr: u32,
    host_mxcsr: u32,
    code: [u64; 2],
    mm: [u64; 2],
}

type Host = fn(&mut State);

/// Instructions with what runs them on the host, and where there their bytes are.
macro_rules! host {
    ($($insn:expr),* $(,)?) => {
        [$(($insn, (|s: &mut State| {
            // SAFETY: the instruction reads and writes the registers named, and memory in `s`.
            unsafe {
                asm!(
                    "movups xmm0, [rdi]", "movups xmm1, [rdi + 16]", "mov rax, [rdi + 56]",
                    "movq mm0, [rdi + 96]", "movq mm1, [rdi + 104]", "ldmxcsr [rdi + 72]",
                    "2:", $insn, "3:",
                    "pushfq", "pop rcx", "mov [rdi + 64], rcx", "stmxcsr [rdi + 72]",
                    "ldmxcsr [rdi + 76]", "movups [rdi], xmm0", "mov [rdi + 56], rax",
                    "movq [rdi + 96], mm0", "emms", "lea rcx, [rip + 2b]", "mov [rdi + 80], rcx",
                    "lea rcx, [rip + 3b]", "mov [rdi + 88], rcx",
                    in("rdi") s, out("rax") _, out("rcx") _, out("xmm0") _, out("xmm1") _,
                    out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                    out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                    out("mm0") _, out("mm1") _, out("mm2") _, out("mm3") _,
                    out("mm4") _, out("mm5") _, out("mm6") _, out("mm7") _,
                );
            }
        }) as Host)),*]
    };
}

/// A small generator, so that failures repeat.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 33) % n
    }

    /// A float of a format: ends of the range, halves of results, NaNs and infinities more often
    /// than their share.
    fn float(&mut self, fraction: u32, exponent: u64) -> u64 {
        let bits = match self.below(5) {
            0 => 0,
            1 => self.next() & self.next() & self.next(),
            2 => u64::MAX << self.below(u64::from(fraction)),
            3 => u64::MAX,
            _ => self.next(),
        } & ((1 << fraction) - 1);
        let bias = exponent / 2;
        let field = match self.below(10) {
            0 => 0,
            1 => exponent,
            2 => 1 + self.below(3),
            3 => exponent - 1 - self.below(3),
            4 => self.below(exponent + 1),
            5 => bias / 2 + self.below(4),
            6 => bias + self.below(70).min(bias - 1),
            7 => bias - (u64::from(fraction) + self.below(8)).min(bias),
            _ => bias - 4 + self.below(8),
        };
        let sign = if fraction == 52 { 63 } else { 31 };
        (self.next() & 1) << sign | field << fraction | bits
    }

    fn half(&mut self) -> u64 {
        match self.below(12) {
            0..5 => self.float(52, 0x7ff),
            // A double in the range where singles end.
            5 => (0x380 - 30 + self.below(340)) << 52 | self.next() & 0x800f_ffff_ffff_ffff,
            6..10 => self.float(23, 0xff) & 0xffff_ffff | self.float(23, 0xff) << 32,
            10 => self.next(),
            _ => self.below(130),
        }
    }

    fn state(&mut self) -> State {
        let mut pair = || [self.half(), self.half()];
        let mut s = State {
            xmm: [pair(), pair()],
            memory: [pair()[0], pair()[0], pair()[0]],
            mm: pair(),
            host_mxcsr: 0x1f80,
            ..State::default()
        };
        if self.below(4) == 0 {
            s.xmm[1] = s.xmm[0];
            s.xmm[1][0] ^= 1 << self.below(64);
        }
        s.rax = self.next() >> self.below(64);
        // Everything masked; half of the time in the state where the host's arithmetic serves.
        s.mxcsr = match self.below(4) {
            0 => 0x1f80,
            1 => 0x1fa0,
            _ => 0x1f80 | self.next() as u32 & 0xe07f,
        };
        s
    }
}

/// Where the guest's copy of the state is.
const AT: usize = 0x8000;

fn core() -> Core {
    let mut c = Core::new(
        Ppram::new(0x10000),
        Board::new(&BoardConfig { rtc_epoch_s: 0 }),
        Clock {
            ns_per_tick: 1,
            warp_ns: 0,
        },
    );
    c.cpu.cr0 |= CR0_NE;
    c.cpu.cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT;
    c.cpu.regs[7] = AT as u64;
    c
}

fn one(bytes: &[u8]) -> Op {
    let mut decoded = Decoded::default();
    decode(&mut decoded, &Table::default(), bytes, 64, 1);
    assert_eq!(decoded.ops.len(), 1, "{bytes:x?}");
    decoded.ops[0].clone()
}

/// Runs an instruction here on what the host is to get.
fn run(c: &mut Core, op: &Op, s: &mut State) -> Result<(), Trap> {
    c.cpu.xmm[0] = s.xmm[0];
    c.cpu.xmm[1] = s.xmm[1];
    c.cpu.regs[0] = s.rax;
    c.cpu.mxcsr = s.mxcsr;
    for i in 0..2 {
        c.cpu.x87.regs[i] = (s.mm[i], 0xffff);
    }
    for i in 0..3 {
        let at = AT + 32 + 8 * i;
        c.ram.bytes_mut()[at..at + 8].copy_from_slice(&s.memory[i].to_le_bytes());
    }
    (op.run)(c, op)?;
    s.xmm[0] = c.cpu.xmm[0];
    s.rax = c.cpu.regs[0];
    s.mxcsr = c.cpu.mxcsr;
    s.flags = c.cpu.lazy.bits();
    s.mm[0] = c.cpu.x87.regs[0].0;
    for i in 0..3 {
        let at = AT + 32 + 8 * i;
        s.memory[i] = u64::from_le_bytes(c.ram.bytes()[at..at + 8].try_into().unwrap());
    }
    Ok(())
}

/// Compares instructions with the host on random states.
fn compare(instructions: &[(&str, Host)], cases: u32) {
    let mut c = core();
    for (name, host) in instructions {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut probe = random.state();
        host(&mut probe);
        let len = (probe.code[1] - probe.code[0]) as usize;
        // SAFETY: the host has just run these bytes of this program's text.
        let bytes = unsafe { std::slice::from_raw_parts(probe.code[0] as *const u8, len) };
        let op = one(bytes);
        for case in 0..cases {
            let before = random.state();
            let (mut theirs, mut ours) = (before, before);
            host(&mut theirs);
            assert_eq!(
                run(&mut c, &op, &mut ours),
                Ok(()),
                "{name} case {case}: {:?}",
                c.trap
            );
            theirs.code = before.code;
            theirs.flags &= STATUS;
            if !name.contains("comis") {
                theirs.flags = ours.flags;
            }
            assert!(
                ours == theirs,
                "{name} case {case}\n{before:x?}\n{ours:x?}\n{theirs:x?}"
            );
        }
    }
}

#[test]
fn moves_are_the_hosts() {
    compare(
        &host![
            "movaps xmm0, xmm1",
            "movups xmm0, [rdi + 32]",
            "movdqa [rdi + 32], xmm1",
            "movdqu [rdi + 33], xmm1",
            "movss xmm0, xmm1",
            "movss xmm0, [rdi + 33]",
            "movss [rdi + 33], xmm1",
            "movsd xmm0, xmm1",
            "movsd xmm0, [rdi + 33]",
            "movsd [rdi + 33], xmm1",
            "movlps xmm0, [rdi + 33]",
            "movhpd xmm0, [rdi + 33]",
            "movlpd [rdi + 33], xmm1",
            "movhps [rdi + 33], xmm1",
            "movhlps xmm0, xmm1",
            "movlhps xmm0, xmm1",
            "movd xmm0, eax",
            "movq xmm0, rax",
            "movd eax, xmm0",
            "movq rax, xmm0",
            "movd [rdi + 35], xmm1",
            "movq [rdi + 35], xmm1",
            "movd xmm0, dword ptr [rdi + 32]",
            "movq xmm0, qword ptr [rdi + 32]",
            "movq xmm0, xmm1",
            "movmskps eax, xmm0",
            "movmskpd eax, xmm1",
            "pmovmskb eax, xmm1",
            "movnti [rdi + 32], rax",
            "movntps [rdi + 32], xmm1",
            "movd mm0, eax",
            "movq mm0, mm1",
            "movq rax, mm0",
            "movd mm0, [rdi + 32]",
            "movq [rdi + 32], mm1",
            "movq2dq xmm0, mm1",
            "movdq2q mm0, xmm1",
            "movntq [rdi + 32], mm1",
            "pmovmskb eax, mm1",
            "pinsrw xmm0, eax, 13",
            "pinsrw xmm0, [rdi + 35], 2",
            "pinsrw mm0, eax, 7",
            "pextrw eax, xmm1, 14",
            "pextrw eax, mm1, 6",
            "stmxcsr [rdi + 33]",
        ],
        1000,
    );
}

/// Instructions with registers and memory as their source.
macro_rules! xmm_forms {
    ($($name:literal)*) => {
        host![$(concat!($name, " xmm0, xmm1"), concat!($name, " xmm0, [rdi + 32]")),*]
    };
}

/// The same for MMX.
macro_rules! mm_forms {
    ($($name:literal)*) => {
        host![$(concat!($name, " mm0, mm1"), concat!($name, " mm0, [rdi + 32]")),*]
    };
}

/// Calls a macro with the packed integer operations that both register sets have.
macro_rules! packed_integers {
    ($forms:ident) => {
        $forms! {
            "paddb" "paddw" "paddd" "paddq" "psubb" "psubw" "psubd" "psubq" "paddsb" "paddsw"
            "paddusb" "paddusw" "psubsb" "psubsw" "psubusb" "psubusw" "pminub" "pmaxub" "pminsw"
            "pmaxsw" "pavgb" "pavgw" "pcmpeqb" "pcmpeqw" "pcmpeqd" "pcmpgtb" "pcmpgtw" "pcmpgtd"
            "pmullw" "pmulhw" "pmulhuw" "pmuludq" "pmaddwd" "psadbw" "pand" "pandn" "por" "pxor"
            "psllw" "pslld" "psllq" "psrlw" "psrld" "psrlq" "psraw" "psrad" "packsswb" "packuswb"
            "packssdw" "punpcklbw" "punpcklwd" "punpckldq" "punpckhbw" "punpckhwd" "punpckhdq"
        }
    };
}

#[test]
fn packed_integers_are_the_hosts() {
    compare(&packed_integers!(xmm_forms), 4000);
    compare(&packed_integers!(mm_forms), 4000);
}

#[test]
fn logic_and_shuffles_are_the_hosts() {
    compare(
        &xmm_forms! {
            "andps" "andnpd" "orps" "xorpd" "punpcklqdq" "punpckhqdq" "unpcklps" "unpckhps"
            "unpcklpd" "unpckhpd"
        },
        1000,
    );
    compare(
        &host![
            "pshufd xmm0, xmm1, 0x1b",
            "pshufd xmm0, [rdi + 32], 0xe4",
            "pshuflw xmm0, xmm1, 0x72",
            "pshufhw xmm0, xmm1, 0x9c",
            "shufps xmm0, xmm1, 0xb1",
            "shufpd xmm0, xmm1, 1",
            "shufpd xmm0, xmm1, 2",
            "pshufw mm0, mm1, 0x39",
            "pslldq xmm0, 6",
            "psrldq xmm0, 13",
            "pslldq xmm0, 200",
            "psrldq xmm0, 0",
            "psllw xmm0, 7",
            "pslld xmm0, 31",
            "psllq xmm0, 63",
            "psrlw xmm0, 16",
            "psrld xmm0, 1",
            "psrlq xmm0, 200",
            "psraw xmm0, 17",
            "psrad xmm0, 255",
            "psraw mm0, 3",
            "psllq mm0, 33",
        ],
        1000,
    );
}

#[test]
fn float_arithmetic_is_the_hosts_in_its_bits_and_flags() {
    compare(
        &xmm_forms! {
            "addss" "addsd" "addps" "addpd" "subss" "subsd" "subps" "subpd" "mulss" "mulsd" "mulps"
            "mulpd" "divss" "divsd" "divps" "divpd" "sqrtss" "sqrtsd" "sqrtps" "sqrtpd"
        },
        50_000,
    );
}

#[test]
fn float_comparisons_are_the_hosts() {
    compare(
        &xmm_forms! {
            "minss" "minsd" "minps" "minpd" "maxss" "maxsd" "maxps" "maxpd" "comiss" "comisd"
            "ucomiss" "ucomisd"
        },
        25_000,
    );
    compare(
        &host![
            "cmpeqsd xmm0, xmm1",
            "cmpltsd xmm0, xmm1",
            "cmplesd xmm0, xmm1",
            "cmpunordsd xmm0, xmm1",
            "cmpneqsd xmm0, xmm1",
            "cmpnltsd xmm0, xmm1",
            "cmpnlesd xmm0, xmm1",
            "cmpordsd xmm0, xmm1",
            "cmpeqps xmm0, xmm1",
            "cmpltps xmm0, [rdi + 32]",
            "cmplepd xmm0, xmm1",
            "cmpunordps xmm0, xmm1",
            "cmpneqss xmm0, xmm1",
            "cmpnltpd xmm0, xmm1",
            "cmpnleps xmm0, xmm1",
            "cmpordss xmm0, xmm1",
        ],
        20_000,
    );
}

#[test]
fn conversions_are_the_hosts() {
    compare(
        &xmm_forms! {
            "cvtss2sd" "cvtsd2ss" "cvtps2pd" "cvtpd2ps" "cvtdq2ps" "cvtps2dq" "cvttps2dq"
            "cvtdq2pd" "cvtpd2dq" "cvttpd2dq"
        },
        50_000,
    );
    compare(
        &host![
            "cvtsi2ss xmm0, eax",
            "cvtsi2ss xmm0, rax",
            "cvtsi2sd xmm0, eax",
            "cvtsi2sd xmm0, rax",
            "cvtsi2sd xmm0, dword ptr [rdi + 36]",
            "cvtsi2ss xmm0, qword ptr [rdi + 32]",
            "cvtss2si eax, xmm1",
            "cvtss2si rax, xmm1",
            "cvttss2si eax, xmm1",
            "cvttss2si rax, xmm1",
            "cvtsd2si eax, xmm1",
            "cvtsd2si rax, xmm1",
            "cvttsd2si eax, xmm1",
            "cvttsd2si rax, xmm1",
            "cvttsd2si rax, [rdi + 32]",
            "cvtpi2ps xmm0, mm1",
            "cvtpi2pd xmm0, mm1",
            "cvtps2pi mm0, xmm1",
            "cvttps2pi mm0, xmm1",
            "cvtpd2pi mm0, xmm1",
            "cvttpd2pi mm0, xmm1",
        ],
        50_000,
    );
}
