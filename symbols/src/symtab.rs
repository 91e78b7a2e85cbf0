//! The symbol table of an ELF image, sorted for look-up by address.

use crate::addr::LinkAddr;
use crate::image::{ElfSymbol, Image};
use crate::kallsyms::Symbol;

/// Functions and data of `.symtab`, with the sizes that the compiler gave them.
pub struct Symtab {
    /// Address, size, start of the name in `names` and its length; sorted by address.
    entries: Vec<(u64, u64, u32, u32)>,
    names: String,
}

impl std::fmt::Debug for Symtab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Symtab({} symbols)", self.entries.len())
    }
}

impl Symtab {
    /// From a linked image; `None` when it is stripped.
    pub fn from_image(image: &Image<'_>) -> Option<Self> {
        let mut all: Vec<ElfSymbol<'_>> = image.symbols().collect();
        // At one address the kernel's own order of preference: sized before labels, global before
        // local; the table's order otherwise.
        all.sort_by_key(|s| (s.addr, s.size == 0, !s.is_global));
        let mut this = Self {
            entries: Vec::with_capacity(all.len()),
            names: String::new(),
        };
        for symbol in all {
            let (start, len) = (this.names.len() as u32, symbol.name.len() as u32);
            this.names.push_str(symbol.name);
            this.entries.push((symbol.addr.0, symbol.size, start, len));
        }
        (!this.entries.is_empty()).then_some(this)
    }

    /// The symbol that covers `addr`: one whose size says so, or a label that nothing follows.
    pub fn lookup(&self, addr: LinkAddr) -> Option<Symbol<'_>> {
        let next = self.entries.partition_point(|e| e.0 <= addr.0);
        let start = self.entries.get(next.checked_sub(1)?)?.0;
        // The last label of the lower half (absolute symbols) does not reach into the upper one.
        if start >> 63 != addr.0 >> 63 {
            return None;
        }
        let first = self.entries[..next].partition_point(|e| e.0 < start);
        let (_, size, name, len) = self.entries[first];
        let end = if size > 0 {
            start.checked_add(size)?
        } else {
            self.entries.get(next)?.0
        };
        let name = self.names.get(name as usize..(name + len) as usize)?;
        let (offset, size) = (addr.0 - start, end - start);
        (addr.0 < end).then_some(Symbol { name, offset, size })
    }
}
