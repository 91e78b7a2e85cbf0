//! Names for the addresses of a running Linux kernel.
//!
//! Everything here works from the kernel's own image: the name table it carries ([`kallsyms`]),
//! the type table it carries ([`btf`]), and, where a debug image is at hand, DWARF. The guest is
//! reached only through [`GuestMemory`], so that the crate knows nothing of the machine.

#![warn(missing_docs)]

pub mod addr;
pub mod btf;
mod bytes;
pub mod dmesg;
pub mod error;
pub mod hooks;
pub mod image;
pub mod kallsyms;
pub mod memory;
pub mod ps;

pub use addr::{GuestMemory, Gva, LinkAddr, Slide};
pub use btf::{Btf, TypeId};
pub use error::SymbolError;
pub use hooks::Hooks;
pub use image::{BuildId, Image};
pub use kallsyms::{Kallsyms, Symbol};
