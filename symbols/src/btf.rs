//! The kernel's type table (BTF), as it stands in the image (Documentation/bpf/btf.rst).
//!
//! Only the place of every record is worked out when the table is read; a record is decoded when
//! it is asked for, and the index of names is made at the first question by name.

mod layout;
mod member;
mod name;
mod print;
#[cfg(test)]
pub(crate) mod synthetic;
mod view;

use std::sync::{Arc, OnceLock};

use crate::addr::LinkAddr;
use crate::by_name::ByName;
use crate::bytes::LeBytes;
use crate::error::SymbolError;
use crate::image::Image;
use crate::kallsyms::Kallsyms;

pub use layout::LayoutRow;
pub use member::Member;
pub use print::{NoContext, PrintContext};
pub use view::{Composite, Enumeration, Field, Int, Params};

/// Number of a type in its table; 0 is `void`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeId(pub u32);

/// What kind of type a name is looked up as (C has one name space for tags, one for the rest).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A number type.
    Int = 1,
    /// A structure.
    Struct = 4,
    /// A union.
    Union = 5,
    /// An enumeration (of either width).
    Enum = 6,
    /// A typedef.
    Typedef = 8,
    /// A function.
    Func = 12,
    /// A global variable (the kernel has those of per-CPU data).
    Var = 14,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Int => "number type",
            Self::Struct => "struct",
            Self::Union => "union",
            Self::Enum => "enum",
            Self::Typedef => "typedef",
            Self::Func => "function",
            Self::Var => "variable",
        }
    }
}

/// One record of the table.
#[derive(Clone, Copy, Debug)]
pub enum Type<'b> {
    /// `void`.
    Void,
    /// A number.
    Int(Int<'b>),
    /// A floating-point number, by name and size.
    Float(&'b str, u32),
    /// A pointer.
    Ptr(TypeId),
    /// An array of `.1` elements of type `.0`.
    Array(TypeId, u32),
    /// A structure or union.
    Composite(Composite<'b>),
    /// An enumeration.
    Enum(Enumeration<'b>),
    /// A structure (or a union, `.1`) that is only declared.
    Forward(&'b str, bool),
    /// Another name for a type.
    Typedef(&'b str, TypeId),
    /// `const`, `volatile`, `restrict`, or a tag, which has no word in C.
    Modifier(&'static str, TypeId),
    /// A function with its prototype.
    Func(&'b str, TypeId),
    /// A prototype: the result type and the raw parameters.
    FuncProto(TypeId, Params<'b>),
    /// A variable with its type.
    Var(&'b str, TypeId),
    /// A section, or a remark on another record: nothing a value can have.
    Other,
}

/// A type table; that of a module continues the kernel's.
#[derive(Debug)]
pub struct Btf {
    base: Option<Arc<Self>>,
    types: Vec<u8>,
    strings: Vec<u8>,
    /// Offset of each record in `types`; the first is number `first_id`.
    records: Vec<u32>,
    first_id: u32,
    first_string: u32,
    by_name: OnceLock<ByName>,
}

const MAGIC: u16 = 0xeb9f;
const RECORD: usize = 12;

impl Btf {
    /// From the `.BTF` section, or, in an image without section headers, from the place that
    /// the kernel's own symbols name.
    pub fn from_image(image: &Image<'_>, names: Option<&Kallsyms>) -> Result<Self, SymbolError> {
        let error = match image.section_data(".BTF") {
            Ok(bytes) => return Self::parse(bytes),
            Err(error) => error,
        };
        let at = |name| names.and_then(|n| n.address_of(name));
        let (Some(LinkAddr(start)), Some(LinkAddr(stop))) = (at("__start_BTF"), at("__stop_BTF"))
        else {
            return Err(error);
        };
        let len = stop
            .checked_sub(start)
            .and_then(|len| usize::try_from(len).ok());
        let bytes = len.and_then(|len| image.bytes_at(LinkAddr(start), len));
        bytes.map_or(Err(error), Self::parse)
    }

    /// From the bytes of the table.
    pub fn parse(bytes: &[u8]) -> Result<Self, SymbolError> {
        Self::parse_with(bytes, None)
    }

    /// From the bytes of a module's table, which refers to the kernel's.
    pub fn parse_split(bytes: &[u8], base: Arc<Self>) -> Result<Self, SymbolError> {
        Self::parse_with(bytes, Some(base))
    }

    fn parse_with(bytes: &[u8], base: Option<Arc<Self>>) -> Result<Self, SymbolError> {
        let bad = |offset: usize, rule| SymbolError::BadBtf {
            offset: offset as u64,
            rule,
        };
        let word = |at: usize| bytes.le_u32(at).ok_or(bad(at, "the header is cut off"));
        if bytes.le_u16(0) != Some(MAGIC) {
            return Err(bad(0, "the magic number 0xeb9f is missing"));
        }
        if bytes.get(2) != Some(&1) {
            return Err(bad(2, "the format version is not 1"));
        }
        let header = word(4)? as usize;
        let part = |at: usize, what| -> Result<&[u8], SymbolError> {
            let (offset, len) = (
                header as u64 + u64::from(word(at)?),
                u64::from(word(at + 4)?),
            );
            let range = usize::try_from(offset)
                .ok()
                .zip(usize::try_from(offset + len).ok());
            range
                .and_then(|(from, to)| bytes.get(from..to))
                .ok_or(SymbolError::Truncated {
                    what,
                    offset,
                    need: len,
                    have: (bytes.len() as u64).saturating_sub(offset),
                })
        };
        let types = part(8, "the BTF type section")?.to_vec();
        let strings = part(16, "the BTF string section")?.to_vec();
        if types.len() > u32::MAX as usize || strings.len() > u32::MAX as usize {
            return Err(bad(8, "a section is larger than 4 GiB"));
        }
        let mut records = Vec::with_capacity(types.len() / 40);
        let mut at = 0;
        while at < types.len() {
            let size = record_size(&types, at).ok_or_else(|| bad(at, "an unknown kind of type"))?;
            if types.len() - at < size {
                return Err(bad(at, "the last record is cut off"));
            }
            records.push(at as u32);
            at += size;
        }
        records.shrink_to_fit();
        let first_id = base
            .as_ref()
            .map_or(1, |b| b.first_id + b.records.len() as u32);
        let first_string = base
            .as_ref()
            .map_or(0, |b| b.first_string + b.strings.len() as u32);
        let by_name = OnceLock::new();
        Ok(Self {
            base,
            types,
            strings,
            records,
            first_id,
            first_string,
            by_name,
        })
    }

    /// How many types there are, `void` and those of the base table not counted.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// No types at all.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The numbers of all types of this table.
    pub fn ids(&self) -> impl Iterator<Item = TypeId> + use<> {
        (self.first_id..self.first_id + self.records.len() as u32).map(TypeId)
    }

    fn string(&self, offset: u32) -> &str {
        std::str::from_utf8(self.raw_string(offset)).unwrap_or_default()
    }

    fn raw_string(&self, offset: u32) -> &[u8] {
        match (offset.checked_sub(self.first_string), &self.base) {
            (None, Some(base)) => base.raw_string(offset),
            (None, None) => &[],
            (Some(at), _) => self.strings.c_str(at as usize).unwrap_or_default(),
        }
    }

    /// The record numbered `id`; `None` when there is no such number.
    pub fn get(&self, id: TypeId) -> Option<Type<'_>> {
        if id.0 == 0 {
            return Some(Type::Void);
        }
        let Some(index) = id.0.checked_sub(self.first_id) else {
            return self.base.as_ref()?.get(id);
        };
        let at = *self.records.get(index as usize)? as usize;
        let (info, size) = (self.types.le_u32(at + 4)?, self.types.le_u32(at + 8)?);
        let name = self.string(self.types.le_u32(at)?);
        let len = record_size(&self.types, at)?;
        let raw = self.types.get(at + RECORD..at + len)?;
        let target = TypeId(size);
        let flag = info >> 31 != 0;
        Some(match kind_of(info) {
            1 => {
                let encoding = raw.le_u32(0)? >> 24;
                let [signed, is_char, is_bool] = [1, 2, 4].map(|bit| encoding & bit != 0);
                Type::Int(Int {
                    name,
                    size,
                    signed,
                    is_char,
                    is_bool,
                })
            }
            2 => Type::Ptr(target),
            3 => Type::Array(TypeId(raw.le_u32(0)?), raw.le_u32(8)?),
            kind @ (4 | 5) => {
                let (is_union, has_bitfields) = (kind == 5, flag);
                Type::Composite(Composite {
                    name,
                    size,
                    is_union,
                    btf: self,
                    raw,
                    has_bitfields,
                })
            }
            kind @ (6 | 19) => {
                let wide = kind == 19;
                Type::Enum(Enumeration {
                    name,
                    size,
                    signed: flag,
                    btf: self,
                    raw,
                    wide,
                })
            }
            7 => Type::Forward(name, flag),
            8 => Type::Typedef(name, target),
            9 => Type::Modifier("volatile", target),
            10 => Type::Modifier("const", target),
            11 => Type::Modifier("restrict", target),
            12 => Type::Func(name, target),
            13 => Type::FuncProto(target, Params { btf: self, raw }),
            14 => Type::Var(name, target),
            16 => Type::Float(name, size),
            18 => Type::Modifier("", target),
            _ => Type::Other,
        })
    }

    /// The type called `name` among those of one kind.
    pub fn find(&self, kind: Kind, name: &str) -> Option<TypeId> {
        let table = self.by_name.get_or_init(|| self.index_names());
        let own = table.candidates(name).iter().find_map(|&index| {
            let at = self.records[index as usize] as usize;
            let found = kind_of(self.types.le_u32(at + 4)?);
            let same = found == kind as u32 || (found == 19 && kind == Kind::Enum);
            let matches = same && self.string(self.types.le_u32(at)?) == name;
            matches.then_some(TypeId(self.first_id + index))
        });
        own.or_else(|| self.base.as_ref()?.find(kind, name))
    }

    /// As [`Self::find`]; the error names what is missing.
    pub fn require(&self, kind: Kind, name: &str) -> Result<TypeId, SymbolError> {
        let missing = || SymbolError::NoType {
            kind: kind.word(),
            name: name.to_owned(),
        };
        self.find(kind, name).ok_or_else(missing)
    }

    fn index_names(&self) -> ByName {
        let name = |at: &u32| self.types.le_u32(*at as usize).map(|n| self.raw_string(n));
        ByName::new(self.records.iter().map(|at| name(at).unwrap_or_default()))
    }

    /// The type behind typedefs and modifiers.
    pub fn strip(&self, id: TypeId) -> TypeId {
        let mut id = id;
        // A damaged table may lead in circles.
        for _ in 0..64 {
            match self.get(id) {
                Some(Type::Typedef(_, to) | Type::Modifier(_, to) | Type::Var(_, to)) => id = to,
                _ => break,
            }
        }
        id
    }

    /// Size of a value of this type in bytes; `None` for those without (`void`, functions).
    pub fn size_of(&self, id: TypeId) -> Option<u64> {
        let (mut id, mut times) = (id, 1u64);
        for _ in 0..64 {
            id = self.strip(id);
            let size = match self.get(id)? {
                Type::Int(int) => u64::from(int.size),
                Type::Float(_, size) => u64::from(size),
                Type::Ptr(_) => 8,
                Type::Composite(c) => u64::from(c.size),
                Type::Enum(e) => u64::from(e.size),
                Type::Array(element, count) => {
                    times = times.checked_mul(u64::from(count))?;
                    id = element;
                    continue;
                }
                _ => return None,
            };
            return times.checked_mul(size);
        }
        None
    }

    /// Bytes of heap in use, the base table not counted.
    pub fn heap_bytes(&self) -> usize {
        let index = self.by_name.get().map_or(0, ByName::heap_bytes);
        self.types.capacity() + self.strings.capacity() + self.records.capacity() * 4 + index
    }
}

const fn kind_of(info: u32) -> u32 {
    info >> 24 & 0x1f
}

/// Length of the record at `at` with what follows it, by kind.
fn record_size(types: &[u8], at: usize) -> Option<usize> {
    let info = types.le_u32(at + 4)?;
    let count = (info & 0xffff) as usize;
    Some(
        RECORD
            + match kind_of(info) {
                1 | 14 | 17 => 4,
                3 => 12,
                4 | 5 | 15 | 19 => 12 * count,
                6 | 13 => 8 * count,
                2 | 7..=12 | 16 | 18 => 0,
                _ => return None,
            },
    )
}

#[cfg(test)]
mod tests;
