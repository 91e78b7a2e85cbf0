//! Memory: addresses, pseudo-physical RAM, paging, and the accesses instructions make.

pub mod access;
pub mod addr;
pub mod canonical;
pub mod paging;
pub mod ppram;
pub mod room;
pub mod tlb;
pub mod trail;
