//! The architectural registers of one vCPU: plain data, no pointers.

use serde::{Deserialize, Serialize};

use super::flags::{self, LazyFlags};

/// Index of the pseudo register that holds the address of the running block, so that RIP-relative
/// operands need no case of their own.
pub const REG_BLOCK: u8 = 16;
/// Index of the pseudo register that is always zero: an absent base or index.
pub const REG_ZERO: u8 = 17;
/// General registers, pseudo registers, and padding up to a power of two.
pub const REGS: usize = 32;

/// Segment registers in encoding order.
pub mod seg {
    /// Extra.
    pub const ES: usize = 0;
    /// Code.
    pub const CS: usize = 1;
    /// Stack.
    pub const SS: usize = 2;
    /// Data.
    pub const DS: usize = 3;
    /// The F segment: user thread-local storage.
    pub const FS: usize = 4;
    /// The G segment: kernel per-CPU data.
    pub const GS: usize = 5;
    /// A pseudo segment with base zero: what ES, CS, SS and DS are in 64-bit mode.
    pub const FLAT: usize = 6;
}

/// A segment register with its hidden part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The visible selector.
    pub selector: u16,
    /// Access rights as in bits 8-15 and 20-23 of a descriptor's upper half, moved to bits 0-7 and
    /// 12-15.
    pub attr: u16,
    /// Limit in bytes.
    pub limit: u32,
    /// Linear base address.
    pub base: u64,
}

impl Segment {
    /// A 64-bit code segment.
    pub const fn is_long(&self) -> bool {
        self.attr & 1 << 13 != 0
    }

    /// The width of the instructions in this code segment: 64, 32 or 16.
    pub const fn code_bits(&self) -> u32 {
        if self.is_long() {
            64
        } else if self.is_big() {
            32
        } else {
            16
        }
    }

    /// Default operand size 32 (code), or 32-bit stack pointer (stack).
    pub const fn is_big(&self) -> bool {
        self.attr & 1 << 14 != 0
    }
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRegister {
    /// Linear base address.
    pub base: u64,
    /// Limit in bytes.
    pub limit: u16,
}

/// The x87 state, with registers by physical number (not relative to TOP).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct X87 {
    /// R0 to R7 as 80-bit values: significand, then sign and exponent.
    pub regs: [(u64, u16); 8],
    /// Control word.
    pub control: u16,
    /// Status word; bits 11-13 (TOP) included.
    pub status: u16,
    /// Tag bits, one per physical register: set means in use (the FXSAVE form).
    pub tags: u8,
    /// Last opcode (11 bits).
    pub opcode: u16,
    /// Last instruction pointer.
    pub ip: u64,
    /// Last operand pointer.
    pub dp: u64,
}

impl Default for X87 {
    fn default() -> Self {
        X87 {
            regs: [(0, 0); 8],
            control: 0x037f,
            status: 0,
            tags: 0,
            opcode: 0,
            ip: 0,
            dp: 0,
        }
    }
}

/// One vCPU's registers.
#[repr(C)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cpu {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8-R15, then the pseudo registers.
    pub regs: [u64; REGS],
    /// The instruction pointer, exact between blocks.
    pub rip: u64,
    /// The recipe of the status flags.
    pub lazy: LazyFlags,
    /// RFLAGS without the status flags.
    pub system_flags: u64,
    /// ES, CS, SS, DS, FS, GS and the flat pseudo segment.
    pub segs: [Segment; 7],
    /// Current privilege level.
    pub cpl: u8,
    /// Interrupts and single-step traps are held off for one instruction (after STI, MOV SS).
    pub shadow: bool,
    /// HLT executed, waiting for an interrupt.
    pub halted: bool,
    /// An NMI is being handled: the next one waits for IRET.
    pub nmi_blocked: bool,
    /// XMM registers, low half first.
    pub xmm: [[u64; 2]; 16],
    /// SSE control and status.
    pub mxcsr: u32,
    /// The x87 unit.
    pub x87: X87,
    /// Control register 0.
    pub cr0: u64,
    /// Page-fault linear address.
    pub cr2: u64,
    /// Page table root.
    pub cr3: u64,
    /// Control register 4.
    pub cr4: u64,
    /// Extended feature enables.
    pub efer: u64,
    /// Debug registers. 4 holds data breakpoints that have been hit and wait for their trap; 5 is
    /// unused.
    pub dr: [u64; 8],
    /// Global descriptor table.
    pub gdtr: TableRegister,
    /// Interrupt descriptor table.
    pub idtr: TableRegister,
    /// Local descriptor table.
    pub ldtr: Segment,
    /// Task register.
    pub tr: Segment,
    /// The model-specific registers that are nothing but storage for the CPU.
    pub msr: Msrs,
}

/// Model-specific registers with a meaning to the CPU itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "named as in the SDM, vol. 4")]
pub struct Msrs {
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub sfmask: u64,
    pub kernel_gs_base: u64,
    pub tsc_aux: u64,
    pub tsc_adjust: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub pat: u64,
    pub misc_enable: u64,
    pub bios_sign_id: u64,
}

/// CR0.PE
pub const CR0_PE: u64 = 1 << 0;
/// CR0.MP
pub const CR0_MP: u64 = 1 << 1;
/// CR0.EM
pub const CR0_EM: u64 = 1 << 2;
/// CR0.TS
pub const CR0_TS: u64 = 1 << 3;
/// CR0.ET
pub const CR0_ET: u64 = 1 << 4;
/// CR0.NE
pub const CR0_NE: u64 = 1 << 5;
/// CR0.WP
pub const CR0_WP: u64 = 1 << 16;
/// CR0.AM
pub const CR0_AM: u64 = 1 << 18;
/// CR0.PG
pub const CR0_PG: u64 = 1 << 31;
/// CR4.TSD
pub const CR4_TSD: u64 = 1 << 2;
/// CR4.DE
pub const CR4_DE: u64 = 1 << 3;
/// CR4.PSE
pub const CR4_PSE: u64 = 1 << 4;
/// CR4.PAE
pub const CR4_PAE: u64 = 1 << 5;
/// CR4.MCE
pub const CR4_MCE: u64 = 1 << 6;
/// CR4.PGE
pub const CR4_PGE: u64 = 1 << 7;
/// CR4.PCE
pub const CR4_PCE: u64 = 1 << 8;
/// CR4.OSFXSR
pub const CR4_OSFXSR: u64 = 1 << 9;
/// CR4.OSXMMEXCPT
pub const CR4_OSXMMEXCPT: u64 = 1 << 10;
/// EFER.SCE: SYSCALL enabled.
pub const EFER_SCE: u64 = 1 << 0;
/// EFER.LME
pub const EFER_LME: u64 = 1 << 8;
/// EFER.LMA
pub const EFER_LMA: u64 = 1 << 10;
/// EFER.NXE
pub const EFER_NXE: u64 = 1 << 11;

impl Default for Cpu {
    /// The state at power-on, as far as a 64-bit entry leaves it visible.
    fn default() -> Self {
        Cpu {
            regs: [0; REGS],
            rip: 0,
            lazy: LazyFlags::from_bits(0),
            system_flags: flags::FIXED,
            segs: [Segment::default(); 7],
            cpl: 0,
            shadow: false,
            halted: false,
            nmi_blocked: false,
            xmm: [[0; 2]; 16],
            mxcsr: 0x1f80,
            x87: X87::default(),
            cr0: CR0_ET,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            efer: 0,
            dr: [0, 0, 0, 0, 0, 0, 0xffff_0ff0, 0x400],
            gdtr: TableRegister::default(),
            idtr: TableRegister::default(),
            ldtr: Segment::default(),
            tr: Segment::default(),
            msr: Msrs {
                pat: 0x0007_0406_0007_0406,
                misc_enable: 1,
                ..Msrs::default()
            },
        }
    }
}

impl Cpu {
    /// RFLAGS with its status flags made into bits.
    pub fn rflags(&self) -> u64 {
        self.system_flags | self.lazy.bits()
    }

    /// Sets all of RFLAGS.
    pub fn set_rflags(&mut self, value: u64) {
        const SYSTEM: u64 = flags::TF
            | flags::IF
            | flags::DF
            | flags::IOPL
            | flags::NT
            | flags::RF
            | flags::AC
            | flags::ID;
        self.system_flags = value & SYSTEM | flags::FIXED;
        self.lazy = LazyFlags::from_bits(value);
    }

    /// Linear address of the next instruction: only outside 64-bit mode, the code segment's base
    /// counts.
    #[inline(always)]
    pub fn linear_rip(&self) -> u64 {
        let cs = &self.segs[seg::CS];
        if cs.is_long() {
            self.rip
        } else {
            cs.base.wrapping_add(self.rip) & 0xffff_ffff
        }
    }

    /// After an instruction: outside 64-bit mode the instruction pointer has 32 bits. 16-bit code
    /// has them too, but its jumps stay in the first 64 KiB, where all of its code is.
    #[inline(always)]
    pub(crate) fn cut_rip(&mut self) {
        match self.segs[seg::CS].code_bits() {
            64 => {}
            32 => self.rip &= 0xffff_ffff,
            _ => self.rip &= 0xffff,
        }
    }

    /// Whether interrupts are enabled.
    #[inline]
    pub fn interrupts_enabled(&self) -> bool {
        self.system_flags & flags::IF != 0
    }

    /// Brings what can be written in several ways into one form, so that equal states are equal
    /// bytes: the flag recipe and the pseudo registers.
    pub fn canonicalize(&mut self) {
        self.lazy = LazyFlags::from_bits(self.lazy.bits());
        for r in &mut self.regs[16..] {
            *r = 0;
        }
    }
}
