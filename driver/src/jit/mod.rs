//! Tier 1: hot blocks run on the host's own CPU.
//!
//! The guest's instructions are re-encoded for the host: its registers are pinned in the host's,
//! memory operands go through the first layer of the software TLB, flags stay the processor's.
//! Whatever is unusual about an instruction (a miss, a fault, a device, an instruction nobody has
//! taught this tier) is done by tier 0's own body for it, so there is one semantics. A block is
//! entered only if the instruction budget covers all of it.
//!
//! On hosts other than x86-64 Linux, and without the feature `tier1`, tier 0 does everything.

pub(crate) mod compare;
mod state;

#[cfg(all(feature = "tier1", target_arch = "x86_64", target_os = "linux"))]
mod block;
#[cfg(all(feature = "tier1", target_arch = "x86_64", target_os = "linux"))]
mod buffer;
#[cfg(all(feature = "tier1", target_arch = "x86_64", target_os = "linux"))]
mod emit;
#[cfg(all(feature = "tier1", target_arch = "x86_64", target_os = "linux"))]
mod flags;
#[cfg(all(feature = "tier1", target_arch = "x86_64", target_os = "linux"))]
mod form;
#[cfg(all(feature = "tier1", target_arch = "x86_64", target_os = "linux"))]
mod group;
#[cfg(all(feature = "tier1", target_arch = "x86_64", target_os = "linux"))]
mod lower;
#[cfg(all(feature = "tier1", target_arch = "x86_64", target_os = "linux"))]
mod sse;
#[cfg(all(feature = "tier1", target_arch = "x86_64", target_os = "linux"))]
mod string;
#[cfg(all(feature = "tier1", target_arch = "x86_64", target_os = "linux"))]
mod system;
#[cfg(all(feature = "tier1", target_arch = "x86_64", target_os = "linux"))]
mod trampoline;
#[cfg(all(feature = "tier1", target_arch = "x86_64", target_os = "linux"))]
mod translation;
#[cfg(all(feature = "tier1", target_arch = "x86_64", target_os = "linux"))]
mod translator;

#[cfg(not(all(feature = "tier1", target_arch = "x86_64", target_os = "linux")))]
#[path = "absent.rs"]
mod translator;

pub(crate) use state::{Entry, Native, Ran, VARIANTS};
pub use state::{LEAVES, Tier, TierStats};
pub(crate) use translator::Translator;

/// Whether hot code can run on this host's own CPU.
pub fn is_available() -> bool {
    Translator::default().set_tier(Tier::One) == Tier::One
}
