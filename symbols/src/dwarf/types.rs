//! The type of a global variable, by the names that the kernel's own type table knows it by.

use gimli::{AttributeValue, Dwarf, Unit, UnitOffset};

use super::{DebugImage, Slice};
use crate::btf::{Btf, Type, TypeId};

/// A type as it is spelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TypeName {
    /// `struct list_head`, `u64`, `unsigned int`.
    Named(String),
    /// A pointer to it.
    Pointer(Box<Self>),
    /// So many of them.
    Array(Box<Self>, u32),
    /// What a `void *` points to.
    Void,
    /// A function; prototypes are not spelled.
    Function,
    /// A type without a name, which only a pointer can lead to.
    Nameless,
}

impl TypeName {
    /// The same type in the kernel's table. Pointers and arrays are there as others use them.
    pub fn find(&self, btf: &Btf) -> Option<TypeId> {
        match self {
            Self::Named(name) => btf.named(name),
            Self::Void => Some(TypeId(0)),
            Self::Function | Self::Nameless => None,
            Self::Pointer(to) => {
                let to = to.find(btf)?;
                btf.ids()
                    .find(|id| matches!(btf.get(*id), Some(Type::Ptr(t)) if t == to))
            }
            Self::Array(of, count) => {
                let of = of.find(btf)?;
                let same = |id: &TypeId| matches!(btf.get(*id), Some(Type::Array(t, n)) if t == of && n == *count);
                btf.ids().find(same)
            }
        }
    }
}

/// Types of types of types; more is a circle.
const MAX_DEPTH: u32 = 16;

impl DebugImage {
    /// The type of the global or static variable called `name`, of the first if there are several.
    /// Reads the units one after the other, which takes up to a second for a kernel.
    pub fn type_of_variable(&self, name: &str) -> Option<TypeName> {
        let dwarf = self.dwarf();
        let mut declared = None;
        for &offset in self.units() {
            let header = dwarf
                .debug_info
                .header_from_offset(gimli::DebugInfoOffset(offset));
            let Ok(unit) = header.and_then(|header| dwarf.unit(header)) else {
                continue;
            };
            let Ok(Some((at, defined))) = variable(&dwarf, &unit, name) else {
                continue;
            };
            let found = spelled(&dwarf, &unit, at, 0);
            if defined && found.is_some() {
                return found;
            }
            declared = declared.or(found);
        }
        // What the linker script or assembly defines is only declared in C.
        declared
    }
}

/// The type of a variable that the unit defines, or else declares; and whether it defines it.
fn variable(
    dwarf: &Dwarf<Slice<'_>>,
    unit: &Unit<Slice<'_>>,
    name: &str,
) -> gimli::Result<Option<(UnitOffset, bool)>> {
    let mut entries = unit.entries_raw(None)?;
    // Declarations have the type that definitions refer to.
    let mut declared: Vec<(usize, UnitOffset)> = Vec::new();
    while !entries.is_empty() {
        let (depth, offset) = (entries.next_depth(), entries.next_offset().0);
        let Some(abbrev) = entries.read_abbreviation()? else {
            continue;
        };
        if depth != 1 || abbrev.tag() != gimli::DW_TAG_variable {
            entries.skip_attributes(abbrev.attributes())?;
            continue;
        }
        let (mut ours, mut ty, mut is_declaration, mut origin) = (false, None, false, None);
        for spec in abbrev.attributes() {
            let attr = entries.read_attribute(*spec)?;
            match (attr.name(), attr.value()) {
                (gimli::DW_AT_name, value) => {
                    let text = dwarf.attr_string(unit, value);
                    ours = text.is_ok_and(|t| t.slice() == name.as_bytes());
                }
                (gimli::DW_AT_type, AttributeValue::UnitRef(at)) => ty = Some(at),
                (gimli::DW_AT_declaration, _) => is_declaration = true,
                (gimli::DW_AT_specification, AttributeValue::UnitRef(at)) => origin = Some(at.0),
                _ => {}
            }
        }
        if let (true, true, Some(ty)) = (ours, is_declaration, ty) {
            declared.push((offset, ty));
        }
        let specified = declared.iter().find(|d| Some(d.0) == origin).map(|d| d.1);
        if let Some(found) = specified.or(ty.filter(|_| ours && !is_declaration)) {
            // A definition may have the whole of an array's type that its declaration lacks.
            return Ok(Some((ty.unwrap_or(found), true)));
        }
    }
    Ok(declared.first().map(|d| (d.1, false)))
}

pub(super) fn spelled(
    dwarf: &Dwarf<Slice<'_>>,
    unit: &Unit<Slice<'_>>,
    at: UnitOffset,
    depth: u32,
) -> Option<TypeName> {
    let entry = unit.entry(at).ok().filter(|_| depth < MAX_DEPTH)?;
    let inner = || match entry.attr_value(gimli::DW_AT_type)? {
        AttributeValue::UnitRef(to) => spelled(dwarf, unit, to, depth + 1),
        _ => None,
    };
    let named = |word: &str| {
        let name = entry.attr_value(gimli::DW_AT_name)?;
        let name = dwarf.attr_string(unit, name).ok()?;
        Some(TypeName::Named(format!("{word}{}", name.to_string_lossy())))
    };
    match entry.tag() {
        gimli::DW_TAG_structure_type => named("struct "),
        gimli::DW_TAG_union_type => named("union "),
        gimli::DW_TAG_enumeration_type => named("enum "),
        gimli::DW_TAG_base_type | gimli::DW_TAG_typedef => named(""),
        gimli::DW_TAG_const_type | gimli::DW_TAG_volatile_type
            if entry.attr_value(gimli::DW_AT_type).is_none() =>
        {
            Some(TypeName::Void)
        }
        gimli::DW_TAG_const_type | gimli::DW_TAG_volatile_type | gimli::DW_TAG_restrict_type => {
            inner()
        }
        gimli::DW_TAG_pointer_type if entry.attr_value(gimli::DW_AT_type).is_none() => {
            Some(TypeName::Pointer(Box::new(TypeName::Void)))
        }
        gimli::DW_TAG_pointer_type => {
            let to = inner().unwrap_or(TypeName::Nameless);
            Some(TypeName::Pointer(Box::new(to)))
        }
        gimli::DW_TAG_subroutine_type => Some(TypeName::Function),
        gimli::DW_TAG_array_type => {
            let counts = counts(unit, at)?;
            let array = |of, count: &u32| TypeName::Array(Box::new(of), *count);
            Some(counts.iter().rev().fold(inner()?, array))
        }
        _ => None,
    }
}

/// How many elements an array has in each of its dimensions.
fn counts(unit: &Unit<Slice<'_>>, at: UnitOffset) -> Option<Vec<u32>> {
    let mut tree = unit.entries_tree(Some(at)).ok()?;
    let mut children = tree.root().ok()?.children();
    let mut counts = Vec::new();
    while let Ok(Some(child)) = children.next() {
        let entry = child.entry();
        let value = |name| entry.attr_value(name).and_then(|v| v.udata_value());
        let upper = || value(gimli::DW_AT_upper_bound)?.checked_add(1);
        let count = value(gimli::DW_AT_count).or_else(upper).unwrap_or(0);
        counts.push(u32::try_from(count).ok()?);
    }
    Some(counts)
}

/// The size of a value of the type at `at`, in bytes.
pub(super) fn size(unit: &Unit<Slice<'_>>, at: UnitOffset, depth: u32) -> Option<u64> {
    let entry = unit.entry(at).ok().filter(|_| depth < MAX_DEPTH)?;
    if let Some(size) = entry.attr_value(gimli::DW_AT_byte_size) {
        return size.udata_value();
    }
    let inner = || match entry.attr_value(gimli::DW_AT_type)? {
        AttributeValue::UnitRef(to) => size(unit, to, depth + 1),
        _ => None,
    };
    match entry.tag() {
        gimli::DW_TAG_pointer_type => Some(8),
        gimli::DW_TAG_array_type => {
            let counts = counts(unit, at)?;
            counts
                .iter()
                .try_fold(inner()?, |size, count| size.checked_mul(u64::from(*count)))
        }
        gimli::DW_TAG_typedef
        | gimli::DW_TAG_const_type
        | gimli::DW_TAG_volatile_type
        | gimli::DW_TAG_restrict_type => inner(),
        _ => None,
    }
}
