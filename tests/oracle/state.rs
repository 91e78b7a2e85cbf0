//! What a test begins and ends with.

use super::layout::{CODE, DATA_BYTES};

/// Bytes of an FXSAVE area.
pub(crate) const FX_BYTES: usize = 512;
/// Offset of the x87 control word in the FXSAVE area; status and tags follow.
pub(crate) const FX_CONTROL: usize = 0;
/// Offset of the x87 status word.
pub(crate) const FX_STATUS: usize = 2;
/// Offset of the abridged x87 tags.
pub(crate) const FX_TAGS: usize = 4;
/// Offset of MXCSR.
pub(crate) const FX_MXCSR: usize = 24;
/// Offset of ST(0); 16 bytes each.
pub(crate) const FX_ST: usize = 32;
/// Offset of XMM0; 16 bytes each.
pub(crate) const FX_XMM: usize = 160;

/// The registers a user process sees.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Registers {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub(crate) gpr: [u64; 16],
    pub(crate) rip: u64,
    pub(crate) rflags: u64,
    pub(crate) ds: u64,
    pub(crate) es: u64,
    /// x87 and SSE state as FXSAVE64 writes it.
    pub(crate) fx: [u8; FX_BYTES],
}

impl Registers {
    /// Zeros, and control words as after a reset.
    pub(crate) fn new() -> Self {
        let mut r = Registers {
            gpr: [0; 16],
            rip: CODE,
            rflags: 2,
            ds: 0x2b,
            es: 0x2b,
            fx: [0; FX_BYTES],
        };
        r.put(FX_CONTROL, &0x37f_u16.to_le_bytes());
        r.put(FX_MXCSR, &0x1f80_u32.to_le_bytes());
        r
    }

    /// Writes into the FXSAVE area.
    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) {
        self.fx[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// A 16-bit word of the FXSAVE area.
    pub(crate) fn word(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.fx[at], self.fx[at + 1]])
    }

    /// MXCSR.
    pub(crate) fn mxcsr(&self) -> u32 {
        u32::from(self.word(FX_MXCSR)) | u32::from(self.word(FX_MXCSR + 2)) << 16
    }

    /// ST(i) as significand, then sign and exponent.
    pub(crate) fn st(&self, i: usize) -> (u64, u16) {
        let at = FX_ST + 16 * i;
        (self.quad(at), self.word(at + 8))
    }

    /// An XMM register, low half first.
    pub(crate) fn xmm(&self, i: usize) -> [u64; 2] {
        let at = FX_XMM + 16 * i;
        [self.quad(at), self.quad(at + 8)]
    }

    fn quad(&self, at: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.fx[at..at + 8]);
        u64::from_le_bytes(bytes)
    }
}

/// One instruction and the state it starts from. Plain data: it lies in memory shared with a child.
#[repr(C)]
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) registers: Registers,
    /// The instruction, at RIP.
    pub(crate) code: [u8; 16],
    pub(crate) code_len: u64,
    /// The writable pages.
    pub(crate) memory: [u8; DATA_BYTES],
}

/// How an instruction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// Vector, error code (0 where there is none), linear address of a page fault (else 0).
    Fault(u64, u64, u64),
    /// The machine says that it does not implement the instruction.
    Unsupported,
}

/// The state after the instruction.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) registers: Registers,
    pub(crate) outcome: Outcome,
    pub(crate) memory: Box<[u8; DATA_BYTES]>,
}
