//! Where tier 1 is not available.

use super::state::{Entry, Ran, Tier, TierStats};
use crate::core::Core;
use crate::x86::block::BlockCache;

/// Nothing to translate with.
#[derive(Debug, Default)]
pub(crate) struct Translator;

impl Translator {
    pub(crate) fn set_tier(&mut self, _: Tier) -> Tier {
        Tier::Zero
    }

    pub(crate) fn translate_after(&mut self, _: u32) {}

    pub(crate) fn tier(&self) -> Tier {
        Tier::Zero
    }

    #[inline(always)]
    pub(crate) fn run(&mut self, _: &mut Core, _: &mut BlockCache, _: u32, _: u64) -> Option<Ran> {
        None
    }

    pub(crate) fn stats(&self, _: &Core) -> TierStats {
        TierStats::default()
    }
}

const _: fn(&mut Entry, u32) -> bool = Entry::warm;
