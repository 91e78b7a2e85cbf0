//! ORC: for every instruction of the kernel, how to find the caller's stack pointer, base pointer
//! and return address (Documentation/arch/x86/orc-unwinder.rst).
//!
//! Two parallel tables, sorted by the linker: the addresses, as 32-bit distances from their own
//! places, and six-byte entries. The bit fields of an entry differ between kernels and are read
//! from the kernel's type table.

use std::sync::Arc;

use crate::addr::{GuestMemory, Gva, LinkAddr, ReadExt, Slide};
use crate::btf::{Btf, Kind};
use crate::bytes::LeBytes;
use crate::error::SymbolError;
use crate::image::Image;

/// What an entry's offset is added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// Nothing is known.
    Undefined,
    /// The caller's stack pointer, which was just found.
    PreviousSp,
    /// RDX.
    Dx,
    /// RDI.
    Di,
    /// RBP.
    Bp,
    /// RSP.
    Sp,
    /// R10.
    R10,
    /// R13.
    R13,
    /// What lies at RBP + offset.
    BpIndirect,
    /// What lies at RSP, plus the offset.
    SpIndirect,
}

/// What lies at the stack pointer that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Nothing is known.
    Undefined,
    /// Nothing calls this.
    EndOfStack,
    /// A return address, just below.
    Call,
    /// All registers (`struct pt_regs`).
    Registers,
    /// What an interrupt pushes: IP, CS, flags, SP, SS.
    Interrupt,
}

/// One decoded entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrcEntry {
    /// Where the caller's stack pointer is reckoned from.
    pub sp_base: Base,
    /// And how far.
    pub sp_offset: i64,
    /// Where the caller's RBP is saved, reckoned from.
    pub bp_base: Base,
    /// And how far.
    pub bp_offset: i64,
    /// What is found there.
    pub shape: Shape,
}

/// Where the bits of an entry's last two bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrcLayout {
    /// Shift and width of each field in the 48-bit entry.
    sp_reg: (u32, u32),
    bp_reg: (u32, u32),
    kind: (u32, u32),
    /// Until 6.3 a bit of its own, and no kind for "undefined".
    end: Option<(u32, u32)>,
    /// What the numbers of registers mean.
    bases: [Base; 16],
}

/// `ORC_REG_*` of arch/x86/include/asm/orc_types.h, by number.
#[rustfmt::skip]
const BASES: [Base; 16] = [
    Base::Undefined, Base::PreviousSp, Base::Dx, Base::Di,
    Base::Bp, Base::Sp, Base::R10, Base::R13,
    Base::BpIndirect, Base::SpIndirect, Base::Undefined, Base::Undefined,
    Base::Undefined, Base::Undefined, Base::Undefined, Base::Undefined,
];
/// The same as seen in 7.2: first the registers.
#[rustfmt::skip]
const BASES_REORDERED: [Base; 16] = [
    Base::Undefined, Base::Undefined, Base::Dx, Base::Sp,
    Base::Bp, Base::Di, Base::R10, Base::R13,
    Base::PreviousSp, Base::BpIndirect, Base::SpIndirect, Base::Undefined,
    Base::Undefined, Base::Undefined, Base::Undefined, Base::Undefined,
];

const ENTRY: usize = 6;

impl OrcLayout {
    /// Kernels up to 6.3 (`sp_reg:4 bp_reg:4 type:2 end:1`).
    pub const OLD: Self = Self {
        sp_reg: (32, 4),
        bp_reg: (36, 4),
        kind: (40, 2),
        end: Some((42, 1)),
        bases: BASES,
    };
    /// Kernels since 6.4 (`sp_reg:4 bp_reg:4 type:3 signal:1`).
    pub const NEW: Self = Self {
        sp_reg: (32, 4),
        bp_reg: (36, 4),
        kind: (40, 3),
        end: None,
        bases: BASES,
    };

    /// The layout of a kernel: from its types, else by the `.orc_header` section, which came with
    /// the new one; and the numbers from its table.
    pub fn of(image: &Image<'_>, btf: Option<&Btf>) -> Self {
        let layout = btf.and_then(Self::from_btf);
        let layout = layout.unwrap_or(match image.section(".orc_header") {
            Some(_) => Self::NEW,
            None => Self::OLD,
        });
        let entries = image.section_data(".orc_unwind").unwrap_or_default();
        layout.numbered_by(entries)
    }

    /// With the numbering that a table uses. Nothing in the image tells it, but nearly every entry
    /// starts from the stack pointer.
    fn numbered_by(self, entries: &[u8]) -> Self {
        let stack_pointers = |bases| {
            let this = Self { bases, ..self };
            // Not all are needed to see what most are.
            let some = entries.as_chunks::<ENTRY>().0.iter().step_by(32);
            some.filter(|raw| this.decode(**raw).sp_base == Base::Sp)
                .count()
        };
        let bases = if stack_pointers(BASES_REORDERED) > stack_pointers(BASES) {
            BASES_REORDERED
        } else {
            BASES
        };
        Self { bases, ..self }
    }

    /// The layout that `struct orc_entry` describes.
    pub fn from_btf(btf: &Btf) -> Option<Self> {
        let id = btf.find(Kind::Struct, "orc_entry")?;
        let field = |name| {
            let member = btf.member_of(id, name).ok()?;
            let fits = member.bit_offset + member.bit_size <= 48;
            fits.then_some((member.bit_offset as u32, member.bit_size as u32))
        };
        let end = field("end");
        (btf.size_of(id) == Some(ENTRY as u64)).then_some(())?;
        Some(Self {
            sp_reg: field("sp_reg")?,
            bp_reg: field("bp_reg")?,
            kind: field("type")?,
            end,
            bases: BASES,
        })
    }

    fn decode(&self, raw: [u8; ENTRY]) -> OrcEntry {
        let word = raw
            .iter()
            .rev()
            .fold(0u64, |word, byte| word << 8 | u64::from(*byte));
        let bits = |(shift, width): (u32, u32)| word >> shift & ((1 << width) - 1);
        let signed = |at: usize| i64::from(i16::from_le_bytes([raw[at], raw[at + 1]]));
        let base = |field: (u32, u32)| self.bases[(bits(field) & 15) as usize];
        let sp_base = base(self.sp_reg);
        let kind = bits(self.kind);
        let shape = match self.end {
            // The old numbering has no "undefined": a register that is none says so.
            Some(end) if sp_base == Base::Undefined => {
                if bits(end) != 0 {
                    Shape::EndOfStack
                } else {
                    Shape::Undefined
                }
            }
            Some(_) => [
                Shape::Call,
                Shape::Registers,
                Shape::Interrupt,
                Shape::Undefined,
            ][(kind & 3) as usize],
            None => match kind {
                1 => Shape::EndOfStack,
                2 => Shape::Call,
                3 => Shape::Registers,
                4 => Shape::Interrupt,
                _ => Shape::Undefined,
            },
        };
        let bp_base = base(self.bp_reg);
        OrcEntry {
            sp_base,
            sp_offset: signed(0),
            bp_base,
            bp_offset: signed(2),
            shape,
        }
    }
}

/// The table of the kernel or of one module.
#[derive(Clone, Debug)]
pub struct OrcTable {
    /// Where the table of addresses lies, since it is relative to itself.
    at: u64,
    ips: Arc<[u8]>,
    entries: Arc<[u8]>,
    layout: OrcLayout,
}

impl OrcTable {
    /// The kernel's, from its image; addresses are link-time ones.
    pub fn from_image(image: &Image<'_>, btf: Option<&Btf>) -> Result<Self, SymbolError> {
        let missing = SymbolError::NoSection {
            section: ".orc_unwind_ip",
        };
        let ip = image.section(".orc_unwind_ip").ok_or(missing)?;
        let entries = image.section_data(".orc_unwind")?;
        let layout = OrcLayout::of(image, btf);
        Ok(Self {
            at: ip.addr.0,
            ips: ip.data.into(),
            entries: entries.into(),
            layout,
        })
    }

    /// A module's, from the guest; addresses are run-time ones.
    pub fn from_guest<M: GuestMemory + ?Sized>(
        memory: &M,
        ips: Gva,
        entries: Gva,
        count: u32,
        layout: OrcLayout,
    ) -> Option<Self> {
        // The largest module has some tens of thousands.
        let count = usize::try_from(count)
            .ok()
            .filter(|n| (1..1 << 22).contains(n))?;
        let (at, ips) = (ips.0, memory.bytes_at(ips.0, count * 4)?);
        Some(Self {
            at,
            ips: ips.into(),
            entries: memory.bytes_at(entries.0, count * ENTRY)?.into(),
            layout,
        })
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        (self.ips.len() / 4).min(self.entries.len() / ENTRY)
    }

    /// No entries at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn address(&self, i: usize) -> Option<u64> {
        let distance = i64::from(self.ips.le_u32(4 * i)? as i32);
        Some(
            self.at
                .wrapping_add(4 * i as u64)
                .wrapping_add_signed(distance),
        )
    }

    /// The entry that holds at `addr`, an address of the table's own kind.
    pub fn find(&self, addr: u64) -> Option<OrcEntry> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.address(middle)? <= addr {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let at = low.checked_sub(1)? * ENTRY;
        let raw = self.entries.get(at..at + ENTRY)?.try_into().ok()?;
        Some(self.layout.decode(raw))
    }
}

/// A table with the run-time addresses it is good for.
#[derive(Clone, Debug)]
struct Area {
    from: Gva,
    to: Gva,
    slide: Slide,
    table: OrcTable,
}

/// The tables of the running kernel and its modules.
#[derive(Clone, Debug, Default)]
pub struct OrcSet {
    areas: Vec<Area>,
}

impl OrcSet {
    /// Adds the kernel's table: it holds for link-time addresses `from..to`.
    pub fn add_kernel(&mut self, table: OrcTable, from: LinkAddr, to: LinkAddr, slide: Slide) {
        self.areas.push(Area {
            from: from.run(slide),
            to: to.run(slide),
            slide,
            table,
        });
    }

    /// Adds a module's table for one region of its code.
    pub fn add_module(&mut self, table: OrcTable, from: Gva, to: Gva) {
        self.areas.push(Area {
            from,
            to,
            slide: Slide::NONE,
            table,
        });
    }

    /// Whether an address is in code that a table describes.
    pub fn covers(&self, gva: Gva) -> bool {
        self.areas.iter().any(|a| a.from <= gva && gva < a.to)
    }

    /// The entry for a run-time address.
    pub fn find(&self, gva: Gva) -> Option<OrcEntry> {
        let area = self.areas.iter().find(|a| a.from <= gva && gva < a.to)?;
        area.table.find(gva.link(area.slide).0)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A table at 0x100 from (address, entry bits).
    pub(crate) fn table(list: &[(u64, [u8; 6])], layout: OrcLayout) -> OrcTable {
        let at = 0x100u64;
        let (mut ips, mut entries) = (Vec::new(), Vec::new());
        for (i, (addr, raw)) in list.iter().enumerate() {
            let distance = addr.wrapping_sub(at + 4 * i as u64) as i32;
            ips.extend_from_slice(&distance.to_le_bytes());
            entries.extend_from_slice(raw);
        }
        OrcTable {
            at,
            ips: ips.into(),
            entries: entries.into(),
            layout,
        }
    }

    /// An entry: offsets, registers, and the byte of type and flags.
    pub(crate) const fn raw(sp: i16, bp: i16, sp_reg: u8, bp_reg: u8, kind: u8) -> [u8; 6] {
        let (sp, bp) = (sp.to_le_bytes(), bp.to_le_bytes());
        [sp[0], sp[1], bp[0], bp[1], sp_reg | bp_reg << 4, kind]
    }

    #[test]
    fn old_and_new_entries_say_the_same() {
        let cases = [
            (raw(16, -16, 5, 1, 0), raw(16, -16, 5, 1, 2), Shape::Call),
            (raw(8, 0, 5, 0, 1), raw(8, 0, 5, 0, 3), Shape::Registers),
            (raw(0, 0, 5, 0, 2), raw(0, 0, 5, 0, 4), Shape::Interrupt),
            (raw(0, 0, 0, 0, 4), raw(0, 0, 0, 0, 1), Shape::EndOfStack),
            (raw(0, 0, 0, 0, 0), raw(0, 0, 0, 0, 0), Shape::Undefined),
        ];
        for (old, new, shape) in cases {
            let (old, new) = (OrcLayout::OLD.decode(old), OrcLayout::NEW.decode(new));
            assert_eq!(old, new);
            assert_eq!(old.shape, shape);
        }
        let entry = OrcLayout::OLD.decode(raw(-24, -16, 8, 4, 0));
        assert_eq!((entry.sp_base, entry.sp_offset), (Base::BpIndirect, -24));
        assert_eq!((entry.bp_base, entry.bp_offset), (Base::Bp, -16));
    }

    #[test]
    fn the_numbering_of_registers_is_seen_in_the_table() {
        // `push rbp; mov rbp, rsp; …`, as 6.12 and as 7.2 have it.
        let call = |sp, bp, sp_reg, bp_reg| raw(sp, bp, sp_reg, bp_reg, 2);
        let old = [call(8, 0, 5, 0), call(16, -16, 5, 1), call(16, -16, 4, 1)];
        let new = [call(8, 0, 3, 0), call(16, -16, 3, 8), call(16, -16, 4, 8)];
        for (table, bases) in [(old, BASES), (new, BASES_REORDERED)] {
            let layout = OrcLayout::NEW.numbered_by(&table.concat());
            assert_eq!(layout.bases, bases);
            let bases = |raw| {
                let entry = layout.decode(raw);
                (entry.sp_base, entry.bp_base)
            };
            let [first, second, third] = table.map(bases);
            assert_eq!(first, (Base::Sp, Base::Undefined));
            assert_eq!(second, (Base::Sp, Base::PreviousSp));
            assert_eq!(third, (Base::Bp, Base::PreviousSp));
        }
        assert_eq!(OrcLayout::OLD.numbered_by(&[]), OrcLayout::OLD);
    }

    #[test]
    fn the_last_entry_before_an_address_holds() {
        let t = table(
            &[
                (0x1000, raw(8, 0, 5, 0, 2)),
                (0x1010, raw(16, 0, 5, 0, 2)),
                (0x1020, [0; 6]),
            ],
            OrcLayout::NEW,
        );
        let at = |addr| t.find(addr).map(|e| (e.sp_offset, e.shape));
        assert_eq!(at(0xfff), None);
        assert_eq!(at(0x100f), Some((8, Shape::Call)));
        assert_eq!(at(0x1010), Some((16, Shape::Call)));
        assert_eq!(at(0x5000), Some((0, Shape::Undefined)));
    }

    #[test]
    fn the_kernel_is_found_under_its_slide() {
        let mut set = OrcSet::default();
        let t = table(&[(0x1000, raw(8, 0, 5, 0, 2))], OrcLayout::NEW);
        set.add_kernel(t, LinkAddr(0x1000), LinkAddr(0x2000), Slide(0x10_0000));
        assert!(set.find(Gva(0x10_1800)).is_some());
        assert!(set.find(Gva(0x1800)).is_none());
        assert!(!set.covers(Gva(0x10_2000)));
    }
}
