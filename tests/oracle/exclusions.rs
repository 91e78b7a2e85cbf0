//! What the oracle does not execute, and why.

use iced_x86::{Code, Mnemonic as M};

const MODEL: &str = "answers for this CPU model, not for the host";
const TIME: &str = "reads a clock";
const LEAVES: &str = "leaves the prepared area; the .ins cases and the kernels cover it";
const EMULATED: &str = "the host's kernel answers instead of its CPU (UMIP)";
const APPROXIMATE: &str = "the manual promises a bound on the error, not a value";
const TRANSCENDENTAL: &str =
    "the manual promises a bound on the error, not a value; has tests of its own";
const NOT_64: &str = "not in 64-bit mode";
const VENDOR: &str = "Intel and AMD decode it differently; the machine is an Intel one";
const BASES: &str = "would change the bases of FS and GS the tests rely on";

/// Mnemonics of which no form is executed.
pub(crate) const MNEMONICS: &[(M, &str)] = &[
    (M::Cpuid, MODEL),
    (M::Rdpmc, MODEL),
    (M::Rdtsc, TIME),
    (M::Rdtscp, TIME),
    (M::Int, LEAVES),
    (M::Int1, LEAVES),
    (M::Int3, "is the end of every test"),
    (M::Into, NOT_64),
    (M::Jcxz, NOT_64),
    (M::Pushfd, NOT_64),
    (M::Popfd, NOT_64),
    (M::Prefetchwt1, "not offered by this CPU model"),
    (M::Syscall, LEAVES),
    (M::Sysenter, LEAVES),
    (M::Iret, LEAVES),
    (M::Iretd, LEAVES),
    (M::Iretq, LEAVES),
    (M::Retf, LEAVES),
    (M::Sgdt, EMULATED),
    (M::Sidt, EMULATED),
    (M::Sldt, EMULATED),
    (M::Str, EMULATED),
    (M::Smsw, EMULATED),
    (M::Lfs, BASES),
    (M::Lgs, BASES),
    (M::Rcpps, APPROXIMATE),
    (M::Rcpss, APPROXIMATE),
    (M::Rsqrtps, APPROXIMATE),
    (M::Rsqrtss, APPROXIMATE),
    (M::Fsin, TRANSCENDENTAL),
    (M::Fcos, TRANSCENDENTAL),
    (M::Fsincos, TRANSCENDENTAL),
    (M::Fptan, TRANSCENDENTAL),
    (M::Fpatan, TRANSCENDENTAL),
    (M::F2xm1, TRANSCENDENTAL),
    (M::Fyl2x, TRANSCENDENTAL),
    (M::Fyl2xp1, TRANSCENDENTAL),
];

/// Single forms of mnemonics that are executed otherwise.
pub(crate) const CODES: &[(Code, &str)] = &[
    (Code::Jmp_m1616, LEAVES),
    (Code::Jmp_m1632, LEAVES),
    (Code::Jmp_m1664, LEAVES),
    (Code::Call_m1616, LEAVES),
    (Code::Call_m1632, LEAVES),
    (Code::Call_m1664, LEAVES),
    (Code::Lss_r64_m1664, VENDOR),
    (Code::Reservednop_rm16_r16_0F0D, VENDOR),
    (Code::Reservednop_rm32_r32_0F0D, VENDOR),
    (Code::Reservednop_rm64_r64_0F0D, VENDOR),
    (Code::Movsxd_r16_rm16, VENDOR),
    (Code::Ud0, VENDOR),
    (Code::Popw_FS, BASES),
    (Code::Popq_FS, BASES),
    (Code::Popw_GS, BASES),
    (Code::Popq_GS, BASES),
];
