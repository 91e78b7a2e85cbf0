//! The kernel's own name table, read from its image alone.
//!
//! `scripts/kallsyms.c` writes it into `.rodata` without any marker, so it is found by its shape
//! (see `locate`) and then unpacked once: names in one string, addresses as 32-bit offsets.

mod locate;
#[cfg(test)]
pub(crate) mod synthetic;

use std::ops::Range;
use std::sync::OnceLock;

use crate::addr::LinkAddr;
use crate::by_name::ByName;
use crate::error::SymbolError;
use crate::image::Image;

use locate::{Located, uleb_len};

/// What `kallsyms` says about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol<'k> {
    /// The symbol's name.
    pub name: &'k str,
    /// How far into it the address lies.
    pub offset: u64,
    /// Its size: the distance to the next symbol, as the kernel itself reckons.
    pub size: u64,
}

/// One entry of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'k> {
    /// Link-time address; per-CPU symbols have their offset in the per-CPU area.
    pub addr: LinkAddr,
    /// The type letter of `nm`; upper case for global symbols.
    pub kind: u8,
    /// The name.
    pub name: &'k str,
}

impl Entry<'_> {
    /// Code (`t`, `T`, `w`, `W`).
    pub const fn is_text(&self) -> bool {
        matches!(self.kind, b't' | b'T' | b'w' | b'W')
    }
}

/// All symbols of a kernel image, in address order.
pub struct Kallsyms {
    /// The type letter and the name of each symbol, one after another.
    arena: String,
    /// Where each begins in `arena`, and one more for the end of the last.
    starts: Vec<u32>,
    /// Addresses; see [`Self::addr_of`].
    offsets: Vec<i32>,
    base: u64,
    /// The offsets are `CONFIG_KALLSYMS_ABSOLUTE_PERCPU`'s: negative ones count down from the base.
    signed: bool,
    /// Made at the first look-up by name.
    by_name: OnceLock<ByName>,
}

impl std::fmt::Debug for Kallsyms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kallsyms")
            .field("len", &self.len())
            .field("base", &format_args!("{:#x}", self.base))
            .finish_non_exhaustive()
    }
}

impl Kallsyms {
    /// From an unpacked vmlinux, stripped or not.
    pub fn from_vmlinux(vmlinux: &[u8]) -> Result<Self, SymbolError> {
        Self::from_image(&Image::parse(vmlinux)?)
    }

    /// From an image whose headers are read already.
    pub fn from_image(image: &Image<'_>) -> Result<Self, SymbolError> {
        // Images without section headers are searched whole.
        let whole = || Self::from_placed(image.data(), |at| image.addr_of_offset(at));
        match image.section(".rodata") {
            Some(rodata) if !rodata.data.is_empty() => {
                let place = |at| Some(LinkAddr(rodata.addr.0.wrapping_add(at as u64)));
                Self::from_placed(rodata.data, place).or_else(|_| whole())
            }
            _ => whole(),
        }
    }

    /// From any bytes that hold the table: `.rodata`, a whole image, or guest memory. `place` tells
    /// the link-time address of an offset in them, which the tables of newer kernels count from.
    pub fn from_placed(
        bytes: &[u8],
        place: impl Fn(usize) -> Option<LinkAddr>,
    ) -> Result<Self, SymbolError> {
        let table = locate::locate(bytes)?;
        Self::unpack(bytes, &table, place(table.offsets)).ok_or(SymbolError::NoKallsyms {
            searched: bytes.len(),
            reason: "its names do not unpack",
        })
    }

    fn unpack(bytes: &[u8], table: &Located, place: Option<LinkAddr>) -> Option<Self> {
        let count = table.count;
        let (arena, starts) = names(bytes, table)?;
        let raw = bytes.get(table.offsets..table.offsets + count * 4)?;
        let words = raw.as_chunks::<4>().0.iter();
        let mut offsets: Vec<i32> = words.map(|b| i32::from_le_bytes(*b)).collect();
        let (base, signed) = match table.base {
            // With absolute per-CPU symbols nearly every offset is negative; without, none can be,
            // since an image is far smaller than 2 GiB.
            Some(base) => (base, offsets.iter().filter(|o| **o < 0).count() > count / 2),
            None => {
                let first = *offsets.first()?;
                let base = place?.0.wrapping_add(i64::from(first) as u64);
                for (i, offset) in (0u32..).zip(&mut offsets) {
                    *offset = offset.wrapping_add_unsigned(4 * i).wrapping_sub(first);
                }
                (base, false)
            }
        };
        let by_name = OnceLock::new();
        let mut all = Self {
            arena,
            starts,
            offsets,
            base,
            signed,
            by_name,
        };
        all.restore_order();
        Some(all)
    }

    /// The table is written sorted by address; a damaged one must not break the searches.
    fn restore_order(&mut self) {
        let in_order = (1..self.len()).all(|i| self.addr_of(i - 1) <= self.addr_of(i));
        if in_order {
            return;
        }
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_by_key(|&i| self.addr_of(i));
        let mut arena = String::with_capacity(self.arena.len());
        let mut starts = Vec::with_capacity(self.starts.len());
        for &i in &order {
            starts.push(arena.len() as u32);
            arena.push_str(self.arena.get(self.span(i)).unwrap_or_default());
        }
        starts.push(arena.len() as u32);
        self.offsets = order.iter().map(|&i| self.offsets[i]).collect();
        (self.arena, self.starts) = (arena, starts);
    }

    /// How many symbols there are.
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// No symbols at all.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// `kallsyms_sym_address()` of kernel/kallsyms.c.
    fn addr_of(&self, i: usize) -> u64 {
        let offset = self.offsets[i];
        match (self.signed, offset) {
            (false, _) => self.base.wrapping_add(u64::from(offset as u32)),
            (true, 0..) => offset as u64,
            (true, _) => self
                .base
                .wrapping_sub(1)
                .wrapping_sub(i64::from(offset) as u64),
        }
    }

    /// Where the letter and the name of a symbol are in the arena.
    fn span(&self, i: usize) -> Range<usize> {
        self.starts[i] as usize..self.starts[i + 1] as usize
    }

    fn name_of(&self, i: usize) -> &str {
        let Range { start, end } = self.span(i);
        // A damaged table may put the end of one name into a character of the next.
        self.arena.get(start + 1..end).unwrap_or_default()
    }

    fn entry(&self, i: usize) -> Entry<'_> {
        Entry {
            addr: LinkAddr(self.addr_of(i)),
            kind: self.arena.as_bytes()[self.starts[i] as usize],
            name: self.name_of(i),
        }
    }

    /// Every symbol, in address order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Entry<'_>> + '_ {
        (0..self.len()).map(|i| self.entry(i))
    }

    /// First index whose address is greater than `addr`.
    fn upper_bound(&self, addr: u64) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.addr_of(middle) <= addr {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The symbol that covers `addr`; of several at one address the first, as the kernel does.
    ///
    /// Addresses behind the last symbol, and kernel addresses before the first, have none.
    pub fn lookup(&self, addr: LinkAddr) -> Option<Symbol<'_>> {
        let next = self.upper_bound(addr.0);
        let start = self.addr_of(next.checked_sub(1)?);
        let end = self.offsets.get(next).map(|_| self.addr_of(next))?;
        // The gap between the per-CPU offsets and the image belongs to nobody.
        if addr.0 >= self.base && start < self.base || addr.0 < self.base && end >= self.base {
            return None;
        }
        let mut first = next - 1;
        while first > 0 && self.addr_of(first - 1) == start {
            first -= 1;
        }
        let name = self.name_of(first);
        Some(Symbol {
            name,
            offset: addr.0 - start,
            size: end - start,
        })
    }

    /// The address of the symbol called `name`; the lowest one when several bear that name.
    pub fn address_of(&self, name: &str) -> Option<LinkAddr> {
        self.named(name).next().map(|e| e.addr)
    }

    /// Every symbol called `name`, in address order (static functions may share a name).
    pub fn named<'k>(&'k self, name: &'k str) -> impl Iterator<Item = Entry<'k>> + 'k {
        let arena = self.arena.as_bytes();
        let names =
            || (0..self.len()).map(|i| &arena[self.starts[i] as usize + 1..self.span(i).end]);
        let table = self.by_name.get_or_init(|| ByName::new(names()));
        let all = table.candidates(name).iter();
        all.map(|i| self.entry(*i as usize))
            .filter(move |e| e.name == name)
    }

    /// Bytes of heap in use.
    pub fn heap_bytes(&self) -> usize {
        let index = self.by_name.get().map_or(0, ByName::heap_bytes);
        let per_symbol = self.starts.capacity() * 4 + self.offsets.capacity() * 4;
        self.arena.capacity() + per_symbol + index
    }
}

/// Most tokens are no longer; those are copied whole, which is quicker than to their length.
const SHORT: usize = 16;

/// All names with their letters, unpacked, and where each begins; one more for the end of the last.
fn names(bytes: &[u8], table: &Located) -> Option<(String, Vec<u32>)> {
    let mut short = [([0; SHORT], 0u8); 256];
    let mut texts = [&[][..]; 256];
    for ((short, text), token) in short.iter_mut().zip(&mut texts).zip(&table.tokens) {
        *text = bytes.get(token.clone())?;
        let len = text.len().min(SHORT);
        short.0[..len].copy_from_slice(&text[..len]);
        short.1 = u8::try_from(text.len()).unwrap_or(u8::MAX);
    }
    let mut arena = vec![0; table.count * 32];
    let mut starts = Vec::with_capacity(table.count + 1);
    let (mut from, mut to) = (table.names, 0);
    for _ in 0..table.count {
        let (len, skip) = uleb_len(bytes, from)?;
        let codes = bytes.get(from + skip..from + skip + len)?;
        from += skip + len;
        let start = to;
        starts.push(u32::try_from(start).ok()?);
        for &code in codes {
            let (text, len) = &short[usize::from(code)];
            let len = usize::from(*len);
            match arena.get_mut(to..).and_then(<[u8]>::first_chunk_mut) {
                Some(place) if len <= SHORT => {
                    *place = *text;
                    to += len;
                }
                _ => {
                    let text = texts[usize::from(code)];
                    arena.resize(arena.len().max(2 * to) + text.len() + SHORT, 0);
                    arena[to..to + text.len()].copy_from_slice(text);
                    to += text.len();
                }
            }
        }
        // Every one has a letter, which is no piece of anything longer.
        arena[..to].get(start).filter(|letter| letter.is_ascii())?;
    }
    starts.push(u32::try_from(to).ok()?);
    arena.truncate(to);
    arena.shrink_to_fit();
    match String::from_utf8(arena) {
        Ok(arena) => Some((arena, starts)),
        Err(error) => Some(replaced(&error.into_bytes(), &starts)),
    }
}

/// The same with replacement characters, for names that are no text.
fn replaced(arena: &[u8], starts: &[u32]) -> (String, Vec<u32>) {
    let (mut text, mut places) = (String::new(), vec![0]);
    for span in starts.windows(2) {
        let name = &arena[span[0] as usize..span[1] as usize];
        text.push_str(&String::from_utf8_lossy(name));
        places.push(text.len() as u32);
    }
    (text, places)
}

#[cfg(test)]
mod tests;
