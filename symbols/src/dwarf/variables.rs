//! Arguments and local variables of the functions at an address.

use gimli::{
    AttributeValue, DebuggingInformationEntry, DwTag, Dwarf, EntriesTreeIter, Unit, UnitOffset,
};

use super::calls::function_at;
use super::locate::Locator;
use super::types::{self, TypeName};
use super::{DebugImage, FrameState, Slice, damaged};
use crate::addr::LinkAddr;
use crate::error::SymbolError;

/// An argument or local variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// It is an argument.
    pub is_argument: bool,
    /// Its type, where it has a name.
    pub ty: Option<TypeName>,
    /// The bytes of its value; none where the compiler left no trace of it at this address, or
    /// what it left leads through a register that is not known.
    pub bytes: Option<Vec<u8>>,
}

/// Links from a concrete entry to what it is an instance of, and blocks without code in each other;
/// more is damage.
const MAX_LINKS: u32 = 16;
/// Blocks in blocks; more than compilers make.
const MAX_DEPTH: usize = 256;

type Entry<'d> = DebuggingInformationEntry<Slice<'d>>;

/// What one function or block around the address declares.
struct Scope {
    own: Vec<Variable>,
    /// What only the original of an inlined function declares, since nothing was left of it here.
    lost: Vec<(UnitOffset, Variable)>,
    /// The originals of what was left.
    made: Vec<UnitOffset>,
    /// The block or inlined function in it that the address is in.
    inner: Option<(UnitOffset, DwTag)>,
}

impl DebugImage {
    /// The variables of each frame of the source at `addr`, in the order of
    /// [`DebugImage::frames`]; in each, those of the innermost block first.
    pub fn variables(
        &self,
        addr: LinkAddr,
        state: &FrameState<'_>,
    ) -> Result<Vec<Vec<Variable>>, SymbolError> {
        let dwarf = self.dwarf();
        for offset in self.units_of(addr.0) {
            let unit = self.unit(&dwarf, offset)?;
            let found = in_unit(self, &dwarf, &unit, addr.0, state).map_err(damaged)?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }
}

fn in_unit<'d>(
    image: &DebugImage,
    dwarf: &Dwarf<Slice<'d>>,
    unit: &Unit<Slice<'d>>,
    addr: u64,
    state: &FrameState<'_>,
) -> gimli::Result<Vec<Vec<Variable>>> {
    let function = function_at(dwarf, unit, addr);
    let mut locator = Locator {
        image,
        dwarf,
        unit,
        addr,
        state,
        frame_base: None,
        function,
    };
    let mut next = None;
    if let Some(at) = function {
        let base = unit.entry(at)?.attr_value(gimli::DW_AT_frame_base);
        locator.frame_base = base.and_then(|base| locator.base(base));
        next = Some((at, gimli::DW_TAG_subprogram));
    }
    let mut scopes = Vec::new();
    while let Some((at, tag)) = next.take().filter(|_| scopes.len() < MAX_DEPTH) {
        let scope = scope(&locator, at)?;
        next = scope.inner;
        scopes.push((tag, scope));
    }
    let (mut frames, mut current, mut made) = (Vec::new(), Vec::new(), Vec::new());
    for (tag, scope) in scopes.into_iter().rev() {
        made.extend(scope.made);
        current.extend(scope.own);
        let lost = scope
            .lost
            .into_iter()
            .filter(|lost| !made.contains(&lost.0));
        current.extend(lost.map(|lost| lost.1));
        if tag != gimli::DW_TAG_lexical_block {
            frames.push(std::mem::take(&mut current));
            made.clear();
        }
    }
    Ok(frames)
}

pub(super) fn covers<'d>(
    dwarf: &Dwarf<Slice<'d>>,
    unit: &Unit<Slice<'d>>,
    entry: &Entry<'d>,
    addr: u64,
) -> bool {
    let Ok(mut ranges) = dwarf.die_ranges(unit, entry) else {
        return false;
    };
    while let Ok(Some(range)) = ranges.next() {
        if (range.begin..range.end).contains(&addr) {
            return true;
        }
    }
    false
}

fn scope(locator: &Locator<'_, '_>, at: UnitOffset) -> gimli::Result<Scope> {
    let Locator {
        dwarf, unit, addr, ..
    } = *locator;
    let mut scope = Scope {
        own: Vec::new(),
        lost: Vec::new(),
        made: Vec::new(),
        inner: None,
    };
    let mut tree = unit.entries_tree(Some(at))?;
    let root = tree.root()?;
    let original = origin(root.entry());
    each_child(root.children(), 0, &mut |entry| {
        scope.made.extend(origin(entry));
        match entry.tag() {
            gimli::DW_TAG_formal_parameter | gimli::DW_TAG_variable => {
                scope.own.extend(variable(locator, entry));
            }
            tag @ (gimli::DW_TAG_lexical_block | gimli::DW_TAG_inlined_subroutine)
                if scope.inner.is_none() && covers(dwarf, unit, entry, addr) =>
            {
                scope.inner = Some((entry.offset(), tag));
            }
            _ => {}
        }
        true
    })?;
    if let Some(original) = original {
        let mut tree = unit.entries_tree(Some(original))?;
        each_child(tree.root()?.children(), 0, &mut |entry| {
            let (at, tag) = (entry.offset(), entry.tag());
            let kinds = [gimli::DW_TAG_formal_parameter, gimli::DW_TAG_variable];
            if kinds.contains(&tag) {
                let lost = variable(locator, entry);
                scope.lost.extend(lost.map(|lost| (at, lost)));
            }
            !scope.made.contains(&at)
        })?;
    }
    Ok(scope)
}

/// Calls `visit` with each child and, where it says so, with those of blocks that have no code of
/// their own: what they declare belongs to what is around them.
fn each_child<'d>(
    mut children: EntriesTreeIter<'_, '_, Slice<'d>>,
    depth: u32,
    visit: &mut dyn FnMut(&Entry<'d>) -> bool,
) -> gimli::Result<()> {
    while let Some(child) = children.next()? {
        let entry = child.entry();
        let bounds = [gimli::DW_AT_low_pc, gimli::DW_AT_ranges];
        let is_bare = entry.tag() == gimli::DW_TAG_lexical_block
            && bounds.iter().all(|bound| entry.attr(*bound).is_none());
        if visit(entry) && is_bare && depth < MAX_LINKS {
            each_child(child.children(), depth + 1, visit)?;
        }
    }
    Ok(())
}

fn origin(entry: &Entry<'_>) -> Option<UnitOffset> {
    match entry.attr_value(gimli::DW_AT_abstract_origin)? {
        AttributeValue::UnitRef(at) => Some(at),
        _ => None,
    }
}

/// An attribute of the entry or of what it is an instance of.
pub(super) fn attribute<'d>(
    unit: &Unit<Slice<'d>>,
    entry: &Entry<'d>,
    name: gimli::DwAt,
) -> Option<AttributeValue<Slice<'d>>> {
    if let Some(value) = entry.attr_value(name) {
        return Some(value);
    }
    let mut next = origin(entry);
    for _ in 0..MAX_LINKS {
        let entry = unit.entry(next?).ok()?;
        if let Some(value) = entry.attr_value(name) {
            return Some(value);
        }
        next = origin(&entry);
    }
    None
}

/// None for what has no name, or is only declared.
fn variable<'d>(locator: &Locator<'_, 'd>, entry: &Entry<'d>) -> Option<Variable> {
    let Locator { dwarf, unit, .. } = *locator;
    let get = |name| attribute(unit, entry, name);
    if get(gimli::DW_AT_declaration).is_some() {
        return None;
    }
    let name = dwarf.attr_string(unit, get(gimli::DW_AT_name)?).ok()?;
    let ty = match get(gimli::DW_AT_type) {
        Some(AttributeValue::UnitRef(at)) => Some(at),
        _ => None,
    };
    let size = ty.and_then(|ty| types::size(unit, ty, 0));
    let constant = || constant(get(gimli::DW_AT_const_value)?, size?);
    let located = || locator.bytes(get(gimli::DW_AT_location)?, size?);
    Some(Variable {
        name: name.to_string_lossy().into_owned(),
        is_argument: entry.tag() == gimli::DW_TAG_formal_parameter,
        ty: ty.and_then(|ty| types::spelled(dwarf, unit, ty, 0)),
        bytes: constant().or_else(located),
    })
}

fn constant(value: AttributeValue<Slice<'_>>, size: u64) -> Option<Vec<u8>> {
    let size = usize::try_from(size).ok()?;
    let bytes = match value {
        AttributeValue::Block(block) => return Some(block.slice().get(..size)?.to_vec()),
        AttributeValue::Sdata(value) => value.to_le_bytes(),
        other => other.udata_value()?.to_le_bytes(),
    };
    Some(bytes.get(..size)?.to_vec())
}
