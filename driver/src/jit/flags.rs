//! Where the guest's status flags are: in the processor's, in memory, or both.

use std::mem::offset_of;

use iced_x86::RflagsBits as F;

use super::emit::{Asm, RAX, S2};
use super::state::Native;
use super::trampoline::native;

/// All six, in iced's numbering.
pub(super) const ALL: u32 = F::OF | F::SF | F::ZF | F::AF | F::CF | F::PF;

/// Status bits of RFLAGS from the packed form: AH of LAHF in the second byte, OF in the first.
pub(super) fn unpack(packed: u64) -> u64 {
    packed >> 8 & 0xd5 | (packed & 1) << 11
}

/// The packed form of status bits of RFLAGS.
pub(super) fn pack(bits: u64) -> u64 {
    (bits & 0xd5) << 8 | bits >> 11 & 1
}

/// What the overflow flag has to become: tier 0's canonical choice where the manual leaves it open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overflow {
    /// What the processor says.
    Host,
    /// Zero.
    Clear,
    /// SF XOR CF.
    SignXorCarry,
}

/// What is true of the flags at a point of a translation.
#[derive(Clone, Copy, Debug)]
pub(super) struct FlagState {
    /// They are in memory.
    pub(super) saved: bool,
    /// Which of them the processor has.
    pub(super) host: u32,
    /// AF has to be cleared when they are saved.
    pub(super) clear_af: bool,
    /// What OF becomes when they are saved.
    pub(super) overflow: Overflow,
}

impl FlagState {
    /// As at the entry of a block.
    pub(super) fn in_memory() -> Self {
        FlagState {
            saved: true,
            host: 0,
            clear_af: false,
            overflow: Overflow::Host,
        }
    }

    /// An instruction has written them all.
    pub(super) fn written(&mut self, clear_af: bool, overflow: Overflow) {
        *self = FlagState {
            saved: false,
            host: ALL,
            clear_af,
            overflow,
        };
    }

    /// Puts them into memory. S2 is lost.
    pub(super) fn save(&mut self, a: &mut Asm) {
        if self.saved {
            return;
        }
        debug_assert_eq!(
            self.host, ALL,
            "flags that are not saved are all in the processor"
        );
        a.mov(S2, RAX);
        a.bytes(&[0x9f]); // lahf
        match self.overflow {
            Overflow::Host => a.bytes(&[0x0f, 0x90, 0xc0]), // seto al
            Overflow::Clear => a.bytes(&[0xb0, 0]),         // mov al, 0
            Overflow::SignXorCarry => {
                a.bytes(&[0x88, 0xe0]); // mov al, ah
                a.bytes(&[0xc0, 0xe8, 7]); // shr al, 7
                a.bytes(&[0x30, 0xe0]); // xor al, ah
                a.bytes(&[0x24, 1]); // and al, 1
            }
        }
        let kept = !self.clear_af && self.overflow != Overflow::SignXorCarry;
        if self.clear_af {
            a.bytes(&[0x80, 0xe4, 0xef]); // and ah, ~AF
        }
        if !kept {
            a.bytes(&[0x9e]); // sahf
        }
        a.store_sized(native(offset_of!(Native, flags)), RAX, 2);
        a.mov(RAX, S2);
        self.saved = true;
        if !kept || self.overflow != Overflow::Host {
            self.host = ALL & !F::OF;
        }
        self.clear_af = false;
        self.overflow = Overflow::Host;
    }

    /// Makes sure the processor has these. S2 is lost.
    pub(super) fn need(&mut self, a: &mut Asm, which: u32) {
        let pending = self.clear_af && which & F::AF != 0
            || self.overflow != Overflow::Host && which & F::OF != 0;
        if pending {
            self.save(a);
        }
        if self.host & which == which {
            return;
        }
        debug_assert!(self.saved);
        a.mov(S2, RAX);
        a.load_u16(RAX, native(offset_of!(Native, flags)));
        a.bytes(&[0x04, 0x7f]); // add al, 127: sets OF if al is 1
        a.bytes(&[0x9e]); // sahf
        a.mov(RAX, S2);
        self.host = ALL;
    }

    /// Something has overwritten the processor's, which had been saved.
    pub(super) fn clobbered(&mut self) {
        debug_assert!(self.saved);
        self.host = 0;
    }
}
