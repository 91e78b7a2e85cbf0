//! Where a member lies: `task_struct`, `se.sum_exec_runtime`, through anonymous members too.

use super::{Btf, Composite, Field, Kind, Type, TypeId};
use crate::error::SymbolError;

/// The place of a member in its container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Start, in bits from the start of the container.
    pub bit_offset: u64,
    /// Width in bits.
    pub bit_size: u64,
    /// Its type.
    pub ty: TypeId,
    /// A bit field, which need not start or end at a byte.
    pub is_bitfield: bool,
}

impl Member {
    /// Start in bytes (of the byte that holds the first bit).
    pub const fn offset(&self) -> u64 {
        self.bit_offset / 8
    }

    /// Size in bytes, rounded up.
    pub const fn size(&self) -> u64 {
        self.bit_size.div_ceil(8)
    }
}

/// Anonymous members inside anonymous members; deeper is a damaged table.
const MAX_DEPTH: u32 = 16;

impl Btf {
    /// The member that `path` (`a.b[2].c`) leads to in the structure, union or typedef
    /// `container`.
    pub fn member(&self, container: &str, path: &str) -> Result<Member, SymbolError> {
        let id = [Kind::Struct, Kind::Union, Kind::Typedef]
            .into_iter()
            .find_map(|kind| self.find(kind, container));
        let missing = || SymbolError::NoType {
            kind: "struct",
            name: container.to_owned(),
        };
        self.member_of(id.ok_or_else(missing)?, path)
    }

    /// The member that `path` leads to in a value of type `id`.
    pub fn member_of(&self, id: TypeId, path: &str) -> Result<Member, SymbolError> {
        let (mut id, mut bit_offset) = (self.strip(id), 0);
        let mut found = None;
        for component in path.split('.') {
            let missing = || SymbolError::NoMember {
                container: self.type_name(id),
                member: component.to_owned(),
            };
            let (name, indices) = split_indices(component).ok_or_else(missing)?;
            let Some(Type::Composite(composite)) = self.get(id) else {
                return Err(missing());
            };
            let (start, field) = self.field_of(composite, name, 0).ok_or_else(missing)?;
            bit_offset += start;
            let mut ty = field.ty;
            for index in indices {
                let Some(Type::Array(element, count)) = self.get(self.strip(ty)) else {
                    return Err(missing());
                };
                // A flexible array has no count.
                if index >= u64::from(count) && count != 0 {
                    return Err(missing());
                }
                let size = self.size_of(element).ok_or_else(missing)?;
                let bits = index.checked_mul(size).and_then(|n| n.checked_mul(8));
                bit_offset = bits
                    .and_then(|n| n.checked_add(bit_offset))
                    .ok_or_else(missing)?;
                ty = element;
            }
            found = Some((ty, field.bit_size));
            id = self.strip(ty);
        }
        let missing = || SymbolError::NoMember {
            container: self.type_name(id),
            member: path.to_owned(),
        };
        let (ty, bits) = found.ok_or_else(missing)?;
        let whole = self.size_of(ty).unwrap_or_default().saturating_mul(8);
        let is_bitfield = bits != 0;
        let bit_size = if is_bitfield { u64::from(bits) } else { whole };
        Ok(Member {
            bit_offset,
            bit_size,
            ty,
            is_bitfield,
        })
    }

    /// A field by name, looked for in anonymous members as well; its start from `composite`'s.
    fn field_of<'b>(
        &'b self,
        composite: Composite<'b>,
        name: &str,
        depth: u32,
    ) -> Option<(u64, Field<'b>)> {
        if depth > MAX_DEPTH {
            return None;
        }
        if let Some(field) = composite.fields().find(|f| f.name == name) {
            return Some((u64::from(field.bit_offset), field));
        }
        composite
            .fields()
            .filter(|f| f.name.is_empty())
            .find_map(|outer| {
                let Some(Type::Composite(inner)) = self.get(self.strip(outer.ty)) else {
                    return None;
                };
                let (start, field) = self.field_of(inner, name, depth + 1)?;
                Some((u64::from(outer.bit_offset) + start, field))
            })
    }
}

/// `name[1][2]` as its name and indices.
fn split_indices(component: &str) -> Option<(&str, Vec<u64>)> {
    let Some((name, rest)) = component.split_once('[') else {
        return Some((component, vec![]));
    };
    let inner = rest.strip_suffix(']')?;
    let indices = inner
        .split("][")
        .map(|n| n.parse().ok())
        .collect::<Option<_>>()?;
    Some((name, indices))
}
