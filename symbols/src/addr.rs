//! Addresses as types: where the linker put a thing, where the guest runs it, and the distance.

use std::fmt;

/// An address as the guest uses it (linear, at run time).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gva(pub u64);

/// An address as the linker assigned it; equal to the run-time one only when the slide is zero.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkAddr(pub u64);

/// Run-time minus link-time address (KASLR moves the whole kernel image by one slide).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slide(pub u64);

impl Slide {
    /// The kernel runs where it was linked.
    pub const NONE: Self = Self(0);

    /// The slide that takes `link` to `run`.
    pub const fn between(link: LinkAddr, run: Gva) -> Self {
        Self(run.0.wrapping_sub(link.0))
    }
}

impl Gva {
    /// The address `offset` bytes further; wraps as addresses do.
    pub const fn plus(self, offset: u64) -> Self {
        Self(self.0.wrapping_add(offset))
    }

    /// Where the linker had put what runs here.
    pub const fn link(self, slide: Slide) -> LinkAddr {
        LinkAddr(self.0.wrapping_sub(slide.0))
    }
}

impl LinkAddr {
    /// The address `offset` bytes further; wraps as addresses do.
    pub const fn plus(self, offset: u64) -> Self {
        Self(self.0.wrapping_add(offset))
    }

    /// Where the guest runs what the linker put here.
    pub const fn run(self, slide: Slide) -> Gva {
        Gva(self.0.wrapping_add(slide.0))
    }
}

macro_rules! hex_debug {
    ($($t:ident),*) => {$(
        impl fmt::Debug for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($t), "({:#x})"), self.0)
            }
        }
        impl fmt::Display for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    )*};
}
hex_debug!(Gva, LinkAddr, Slide);

/// What this crate needs of a guest: its memory, by linear address, as the kernel sees it.
pub trait GuestMemory {
    /// Fills `buf` from `gva`; false when any byte of it is not mapped. Must change nothing.
    fn read(&self, gva: u64, buf: &mut [u8]) -> bool;
}

impl<M: GuestMemory + ?Sized> GuestMemory for &M {
    fn read(&self, gva: u64, buf: &mut [u8]) -> bool {
        (**self).read(gva, buf)
    }
}

/// Fixed-size little-endian reads over any [`GuestMemory`].
pub(crate) trait ReadExt: GuestMemory {
    fn u64_at(&self, gva: u64) -> Option<u64> {
        let mut b = [0; 8];
        self.read(gva, &mut b).then(|| u64::from_le_bytes(b))
    }

    fn u32_at(&self, gva: u64) -> Option<u32> {
        let mut b = [0; 4];
        self.read(gva, &mut b).then(|| u32::from_le_bytes(b))
    }

    fn bytes_at(&self, gva: u64, len: usize) -> Option<Vec<u8>> {
        let mut b = vec![0; len];
        self.read(gva, &mut b).then_some(b)
    }
}

impl<M: GuestMemory + ?Sized> ReadExt for M {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slide_goes_both_ways() {
        let link = LinkAddr(0xffff_ffff_81c0_0080);
        let run = Gva(0xffff_ffff_a340_0080);
        let slide = Slide::between(link, run);
        assert_eq!(slide, Slide(0x2180_0000));
        assert_eq!(link.run(slide), run);
        assert_eq!(run.link(slide), link);
        assert_eq!(
            format!("{run} {link:?}"),
            "0xffffffffa3400080 LinkAddr(0xffffffff81c00080)"
        );
    }
}
