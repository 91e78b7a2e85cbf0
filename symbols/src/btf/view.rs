//! Records with parts: numbers, structures, enumerations and parameter lists, read as they lie.

use super::{Btf, TypeId};
use crate::bytes::LeBytes;

/// A number type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Int<'b> {
    /// `unsigned long` and so on.
    pub name: &'b str,
    /// Size in bytes.
    pub size: u32,
    /// Has a sign.
    pub signed: bool,
    /// Shown as a character.
    pub is_char: bool,
    /// `_Bool`.
    pub is_bool: bool,
}

/// A structure or union.
#[derive(Clone, Copy, Debug)]
pub struct Composite<'b> {
    /// Its tag; empty when it has none.
    pub name: &'b str,
    /// Size in bytes.
    pub size: u32,
    /// A union rather than a structure.
    pub is_union: bool,
    pub(super) btf: &'b Btf,
    pub(super) raw: &'b [u8],
    pub(super) has_bitfields: bool,
}

/// One member of a structure, union or one parameter of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'b> {
    /// Its name; empty for an anonymous member.
    pub name: &'b str,
    /// Its type.
    pub ty: TypeId,
    /// Where it starts, in bits.
    pub bit_offset: u32,
    /// Width of a bit field, 0 for an ordinary member.
    pub bit_size: u32,
}

/// An enumeration.
#[derive(Clone, Copy, Debug)]
pub struct Enumeration<'b> {
    /// Its tag; empty when it has none.
    pub name: &'b str,
    /// Size in bytes.
    pub size: u32,
    /// Has negative values.
    pub signed: bool,
    pub(super) btf: &'b Btf,
    pub(super) raw: &'b [u8],
    pub(super) wide: bool,
}

/// The parameters of a function prototype.
#[derive(Clone, Copy, Debug)]
pub struct Params<'b> {
    pub(super) btf: &'b Btf,
    pub(super) raw: &'b [u8],
}

impl<'b> Composite<'b> {
    /// The members in order of declaration.
    pub fn fields(&self) -> impl Iterator<Item = Field<'b>> + use<'b> {
        let Self {
            btf, has_bitfields, ..
        } = *self;
        self.raw.as_chunks::<12>().0.iter().filter_map(move |raw| {
            let place = raw.le_u32(8)?;
            let split = (place & 0x00ff_ffff, place >> 24);
            let (bit_offset, bit_size) = if has_bitfields { split } else { (place, 0) };
            let (name, ty) = (btf.string(raw.le_u32(0)?), TypeId(raw.le_u32(4)?));
            Some(Field {
                name,
                ty,
                bit_offset,
                bit_size,
            })
        })
    }
}

impl<'b> Enumeration<'b> {
    /// Names and values; unsigned 64-bit values keep their bits.
    pub fn values(&self) -> impl Iterator<Item = (&'b str, i64)> + use<'b> {
        let Self {
            btf, wide, signed, ..
        } = *self;
        let step = if wide { 12 } else { 8 };
        self.raw.chunks_exact(step).filter_map(move |raw| {
            let low = raw.le_u32(4)?;
            let value = match (wide, signed) {
                (true, _) => (u64::from(raw.le_u32(8)?) << 32 | u64::from(low)) as i64,
                (false, true) => i64::from(low as i32),
                (false, false) => i64::from(low),
            };
            Some((btf.string(raw.le_u32(0)?), value))
        })
    }
}

impl<'b> Params<'b> {
    /// Name and type of each parameter; the last may be unnamed `void` for `...`.
    pub fn iter(&self) -> impl Iterator<Item = (&'b str, TypeId)> + use<'b> {
        let btf = self.btf;
        self.raw
            .as_chunks::<8>()
            .0
            .iter()
            .filter_map(move |raw| Some((btf.string(raw.le_u32(0)?), TypeId(raw.le_u32(4)?))))
    }
}
