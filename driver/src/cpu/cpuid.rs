//! The CPU we claim to be: one fixed table, whatever the host is.
//!
//! GenuineIntel family 6 model 1Ch stepping 10 (Bonnell) is on Linux' list of processors without
//! speculation bugs, so stock kernels run without retpolines, page-table isolation or VERW. Leaves
//! 15h and 16h with TSC-deadline mean that nothing is calibrated against a PIT.

/// One row: leaf, subleaf (or any), EAX, EBX, ECX, EDX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// EAX on input.
    pub leaf: u32,
    /// ECX on input, where the leaf has subleaves.
    pub subleaf: Option<u32>,
    /// EAX, EBX, ECX, EDX.
    pub values: [u32; 4],
}

const fn row(leaf: u32, values: [u32; 4]) -> Row {
    Row {
        leaf,
        subleaf: None,
        values,
    }
}

const fn sub(leaf: u32, subleaf: u32, values: [u32; 4]) -> Row {
    Row {
        leaf,
        subleaf: Some(subleaf),
        values,
    }
}

/// Four bytes of a name.
const fn text(s: &[u8; 48], at: usize) -> u32 {
    u32::from_le_bytes([s[at], s[at + 1], s[at + 2], s[at + 3]])
}

const fn brand(part: usize) -> [u32; 4] {
    const NAME: &[u8; 48] = b"colinux-trace virtual CPU @ 1.00GHz\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let at = part * 16;
    [
        text(NAME, at),
        text(NAME, at + 4),
        text(NAME, at + 8),
        text(NAME, at + 12),
    ]
}

/// Name of this table, as the manifest records it.
pub const MODEL_NAME: &str = "bonnell-1";
/// Frequency of the time stamp counter and of the LAPIC timer, in hertz.
pub const TSC_HZ: u32 = 1_000_000_000;

/// FPU DE PSE TSC MSR PAE CX8 APIC SEP PGE CMOV PAT CLFSH MMX FXSR SSE SSE2.
const LEAF1_EDX: u32 = 1 << 0
    | 1 << 2
    | 1 << 3
    | 1 << 4
    | 1 << 5
    | 1 << 6
    | 1 << 8
    | 1 << 9
    | 1 << 11
    | 1 << 13
    | 1 << 15
    | 1 << 16
    | 1 << 19
    | 1 << 23
    | 1 << 24
    | 1 << 25
    | 1 << 26;
/// CX16, TSC-deadline.
const LEAF1_ECX: u32 = 1 << 13 | 1 << 24;

/// The table. Leaves not listed are zero.
pub const ROWS: &[Row] = &[
    row(0, [0x16, 0x756e_6547, 0x6c65_746e, 0x4965_6e69]),
    // Family 6, model 1Ch, stepping 10; CLFLUSH line 8 quadwords; one logical processor.
    row(1, [0x0001_06ca, 0x0001_0800, LEAF1_ECX, LEAF1_EDX]),
    row(2, [0x0000_0001, 0, 0, 0]),
    // ARAT: the LAPIC timer runs in every C-state.
    row(6, [1 << 2, 0, 0, 0]),
    // TSC_ADJUST: with an invariant TSC this disables the clocksource watchdog.
    sub(7, 0, [0, 1 << 1, 0, 0]),
    row(0x15, [1, 1, TSC_HZ, 0]),
    row(0x16, [TSC_HZ / 1_000_000, TSC_HZ / 1_000_000, 100, 0]),
    row(0x8000_0000, [0x8000_0008, 0, 0, 0]),
    // LAHF in 64-bit mode; SYSCALL, NX, 1 GiB pages, RDTSCP, long mode.
    row(
        0x8000_0001,
        [0, 0, 1, 1 << 11 | 1 << 20 | 1 << 26 | 1 << 27 | 1 << 29],
    ),
    row(0x8000_0002, brand(0)),
    row(0x8000_0003, brand(1)),
    row(0x8000_0004, brand(2)),
    // Invariant TSC.
    row(0x8000_0007, [0, 0, 0, 1 << 8]),
    // 40 physical and 48 linear address bits.
    row(0x8000_0008, [40 | 48 << 8, 0, 0, 0]),
];

/// EAX, EBX, ECX, EDX for a leaf. A basic leaf beyond the last answers as the last one.
pub fn lookup(leaf: u32, subleaf: u32) -> [u32; 4] {
    const LAST_BASIC: u32 = 0x16;
    const LAST_EXTENDED: u32 = 0x8000_0008;
    let leaf = if leaf < 0x8000_0000 && leaf > LAST_BASIC || leaf > LAST_EXTENDED {
        LAST_BASIC
    } else {
        leaf
    };
    ROWS.iter()
        .find(|r| r.leaf == leaf && r.subleaf.is_none_or(|s| s == subleaf))
        .map_or([0; 4], |r| r.values)
}
