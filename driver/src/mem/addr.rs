//! Addresses as types, so that a pseudo-physical and a guest-virtual address cannot be confused.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Size of a page of pseudo-physical RAM, in bytes.
pub const PAGE_SIZE: u64 = 4096;
/// The bits of an address inside its page.
pub const PAGE_MASK: u64 = PAGE_SIZE - 1;

/// A pseudo-physical address: what the guest believes to be physical.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Gpa(pub u64);

/// A guest-virtual (linear) address.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Gva(pub u64);

impl Gpa {
    /// The pseudo-physical page number.
    pub const fn page(self) -> u64 {
        self.0 / PAGE_SIZE
    }

    /// The offset inside the page.
    pub const fn offset(self) -> u64 {
        self.0 & PAGE_MASK
    }
}

impl Gva {
    /// The virtual page number.
    pub const fn page(self) -> u64 {
        self.0 / PAGE_SIZE
    }

    /// The offset inside the page.
    pub const fn offset(self) -> u64 {
        self.0 & PAGE_MASK
    }
}

impl fmt::Debug for Gpa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gpa:{:#x}", self.0)
    }
}

impl fmt::Debug for Gva {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gva:{:#x}", self.0)
    }
}

impl fmt::Display for Gpa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for Gva {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}
