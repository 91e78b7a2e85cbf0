//! Memory: addresses, pseudo-physical RAM, paging, and the accesses instructions make.

pub mod addr;
