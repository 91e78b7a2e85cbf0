//! What the machine and its blocks keep for tier 1, on every host.

/// Which back end runs the guest. It is invisible in all states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tier {
    /// The interpreter alone.
    #[default]
    Zero,
    /// Hot blocks translated, where the host can.
    One,
    /// Tier 1, with a second machine in tier 0 that it is compared with all the time.
    Compare,
}

/// What tier 1 has done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TierStats {
    /// Blocks translated.
    pub translated: u64,
    /// Instructions translated.
    pub translated_insns: u64,
    /// Bytes of host code.
    pub code_bytes: u64,
    /// Translations whose code was overwritten.
    pub invalidated: u64,
    /// Times all translations were thrown away.
    pub flushes: u64,
    /// Times translated code was entered.
    pub entries: u64,
    /// Ticks spent in translated code.
    pub ticks: u64,
    /// Instructions that tier 0 did inside translated code, because nobody translates them...
    pub calls: u64,
    /// ... or because their memory access was not an everyday one.
    pub slow_accesses: u64,
    /// The former by iced's `Code`, most frequent first...
    pub by_code: Vec<(String, u64)>,
    /// ... and the latter.
    pub slow_by_code: Vec<(String, u64)>,
    /// Times translated code was left, for each of [`LEAVES`].
    pub leaves: [u64; LEAVES.len()],
}

/// Why translated code is left.
pub const LEAVES: [&str; 5] = [
    "ticks were used up",
    "something asked for attention",
    "a jump whose target had to be looked up",
    "an instruction of tier 0 that ends a block",
    "an exception",
];

/// What a translation takes for granted: privilege (bit 0: user), and floats that are not plain (bit 1).
pub(crate) const VARIANTS: usize = 4;

/// What MXCSR controls, as it is at power-on: all exceptions masked, rounding to nearest, subnormal
/// numbers respected (SDM vol. 1, 10.2.3).
pub(crate) const MXCSR_PLAIN: u32 = 0x1f80;
/// The bits of MXCSR that are no control bits: what has happened so far.
const MXCSR_FLAGS: u32 = 0x3f;

/// Whether arithmetic is done under [`MXCSR_PLAIN`], which is also what the host's own code expects.
pub(crate) const fn plain_floats(mxcsr: u32) -> bool {
    mxcsr & !MXCSR_FLAGS == MXCSR_PLAIN
}

/// A block's translation for one of [`VARIANTS`]: how often it has run, until it is translated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry(u32);

/// Executions after which a block is translated. Waiting longer costs more in tier 0 than it saves
/// in translations that do not pay.
pub(crate) const HOT: u32 = 16;
const TRANSLATED: u32 = 1 << 31;
const NEVER: u32 = u32::MAX;

#[allow(dead_code, reason = "unused where tier 1 is absent")]
impl Entry {
    /// Counts an execution; says whether it is time to translate, which it is after `hot` of them.
    #[inline]
    pub(crate) fn warm(&mut self, hot: u32) -> bool {
        if self.0 >= TRANSLATED {
            return false;
        }
        self.0 += 1;
        self.0 >= hot
    }

    /// The number of the translation.
    #[inline]
    pub(crate) fn number(self) -> Option<u32> {
        (self.0 & TRANSLATED != 0 && self.0 != NEVER).then_some(self.0 & !TRANSLATED)
    }

    pub(crate) fn set(&mut self, number: u32) {
        self.0 = number | TRANSLATED;
    }

    /// It cannot be translated.
    pub(crate) fn set_never(&mut self) {
        self.0 = NEVER;
    }

    /// Its translation is gone.
    pub(crate) fn reset(&mut self) {
        self.0 = 0;
    }
}

/// How a stretch of translated code ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ran {
    /// After a whole instruction.
    Completed,
    /// Before the instruction at RIP, of this length, which trapped.
    Trapped(u8),
}

/// What translated code keeps in memory. Not part of the state of the machine: it means something
/// only while translated code runs.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Native {
    /// Ticks that may still be spent; goes down at the entry of every block.
    pub(crate) budget: i64,
    /// The tick at which the budget is zero.
    pub(crate) end: u64,
    /// AH after LAHF in the second byte, the overflow flag in the first.
    pub(crate) flags: u64,
    /// MXCSR while translated code runs. The guest's own if it is plain; else no translated
    /// instruction computes with floats.
    pub(crate) mxcsr: u32,
    /// The target of a call, while the return address is pushed.
    pub(crate) target: u64,
    /// The translation of that target.
    pub(crate) target_code: u64,
    /// Table of jump targets of the current privilege.
    pub(crate) jumps: u64,
    /// Table of translations by where their code is.
    pub(crate) starts: u64,
    /// The cells.
    pub(crate) cells: u64,
    /// The cell of the jump that left translated code, or one of the numbers no cell has.
    pub(crate) exit_cell: u32,
    /// No interrupt waits, so that enabling them delivers none. What could change that, a device or a
    /// deadline, leaves translated code first.
    pub(crate) quiet: u32,
    /// A translation, by number, whose groups keep crossing pages.
    pub(crate) straddler: Option<u32>,
    /// The instruction that tier 0 ran last.
    pub(crate) site: usize,
    /// Calls by iced's `Code`, then slow accesses.
    pub(crate) histograms: [Vec<u64>; 2],
}
