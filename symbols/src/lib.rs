//! Names for the addresses of a running Linux kernel.
//!
//! Everything here works from the kernel's own image: the name table it carries ([`kallsyms`]),
//! the type table it carries ([`btf`]), and, where a debug image is at hand, DWARF. The guest is
//! reached only through [`GuestMemory`], so that the crate knows nothing of the machine.

#![warn(missing_docs)]

pub mod addr;
pub mod btf;
mod by_name;
mod bytes;
pub mod dmesg;
pub mod dwarf;
pub mod error;
pub mod expr;
pub mod find;
pub mod hooks;
pub mod image;
pub mod index;
pub mod kallsyms;
pub mod kernel;
pub mod map;
pub mod memory;
pub mod modules;
pub mod orc;
pub mod ps;
pub mod resolve;
pub mod symtab;
pub mod unwind;

pub use addr::{GuestMemory, Gva, LinkAddr, Slide};
pub use btf::{Btf, TypeId};
pub use dwarf::{DebugImage, Frame};
pub use error::SymbolError;
pub use find::DebugFiles;
pub use hooks::Hooks;
pub use image::{BuildId, Image};
pub use index::Index;
pub use kallsyms::{Kallsyms, Symbol};
pub use kernel::{Clues, Kernel};
pub use resolve::Resolver;
pub use symtab::Symtab;
