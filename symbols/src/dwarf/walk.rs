//! Walks the entries of a unit once and collects functions and what is inlined into them.
//!
//! Two things must not confuse it: GCC puts declarations (`DW_TAG_subprogram` without code) into
//! function bodies, and an inlined function's addresses may be scattered.

use gimli::{
    Abbreviation, AttributeValue, DebugInfoOffset, Dwarf, EntriesRaw, RangeListsOffset, Unit,
    UnitOffset,
};

use super::lines::Files;
use super::sweep::NodeRange;
use super::unit::{NONE, Node};
use super::{DebugImage, Slice};

pub(super) struct Walked {
    pub(super) nodes: Vec<Node>,
    pub(super) names: Vec<String>,
    pub(super) ranges: Vec<NodeRange>,
}

/// Where a function's name is, when it has none itself.
#[derive(Clone, Copy)]
enum Origin {
    None,
    Here(usize),
    Elsewhere(usize),
}

/// What is kept of a `DW_TAG_subprogram` to name others by.
struct Named<'d> {
    offset: usize,
    name: Option<Slice<'d>>,
    origin: Origin,
}

/// The attributes of one entry that matter here.
struct Attributes<'d> {
    name: Option<Slice<'d>>,
    linkage: Option<Slice<'d>>,
    origin: Origin,
    low: Option<u64>,
    high: Option<u64>,
    size: Option<u64>,
    ranges: Option<RangeListsOffset<usize>>,
    call_file: Option<u64>,
    call_line: u32,
}

/// Links between names; a longer chain is a circle.
const MAX_LINKS: u32 = 16;

pub(super) fn walk(
    image: &DebugImage,
    dwarf: &Dwarf<Slice<'_>>,
    unit: &Unit<Slice<'_>>,
    files: &mut Files<'_, '_>,
) -> gimli::Result<Walked> {
    let mut nodes: Vec<Node> = Vec::new();
    let mut ranges = Vec::new();
    let mut named: Vec<Named<'_>> = Vec::new();
    // Of each node, where its name is to be found.
    let mut sources: Vec<(Option<Slice<'_>>, Origin)> = Vec::new();
    // The enclosing functions: depth of the entry, its node or none, and how deep it is inlined.
    let mut open: Vec<(isize, u32, u32)> = Vec::new();
    let mut entries = unit.entries_raw(None)?;
    while !entries.is_empty() {
        let (depth, offset) = (entries.next_depth(), entries.next_offset().0);
        let Some(abbrev) = entries.read_abbreviation()? else {
            continue;
        };
        while open.last().is_some_and(|o| o.0 >= depth) {
            open.pop();
        }
        let inlined = match abbrev.tag() {
            gimli::DW_TAG_subprogram => false,
            gimli::DW_TAG_inlined_subroutine => true,
            _ => {
                entries.skip_attributes(abbrev.attributes())?;
                continue;
            }
        };
        let found = read(dwarf, unit, &mut entries, abbrev)?;
        let name = found.linkage.or(found.name);
        if !inlined {
            named.push(Named {
                offset,
                name,
                origin: found.origin,
            });
        }
        let (parent, level) = match (inlined, open.last()) {
            (true, Some(&(_, parent, level))) => (parent, level + 1),
            _ => (NONE, 0),
        };
        // Inside of something without code there is none.
        if inlined && parent == NONE {
            open.push((depth, NONE, 0));
            continue;
        }
        let node = nodes.len() as u32;
        let before = ranges.len();
        each_range(dwarf, unit, &found, |begin, end| {
            if image.text().contains(&begin) {
                ranges.push(NodeRange {
                    begin,
                    end,
                    level,
                    node,
                });
            }
        })?;
        if !inlined && ranges.len() == before {
            open.push((depth, NONE, 0));
            continue;
        }
        let call_file = found.call_file.map_or(NONE, |f| files.index(f));
        nodes.push(Node {
            parent,
            name: NONE,
            call_file,
            call_line: found.call_line,
        });
        sources.push((name, found.origin));
        open.push((depth, node, level));
    }
    let names = name_nodes(image, dwarf, &named, &sources, &mut nodes);
    Ok(Walked {
        nodes,
        names,
        ranges,
    })
}

fn read<'d>(
    dwarf: &Dwarf<Slice<'d>>,
    unit: &Unit<Slice<'d>>,
    entries: &mut EntriesRaw<'_, Slice<'d>>,
    abbrev: &Abbreviation,
) -> gimli::Result<Attributes<'d>> {
    let mut a = Attributes {
        name: None,
        linkage: None,
        origin: Origin::None,
        low: None,
        high: None,
        size: None,
        ranges: None,
        call_file: None,
        call_line: 0,
    };
    for spec in abbrev.attributes() {
        let attr = entries.read_attribute(*spec)?;
        let value = attr.value();
        match attr.name() {
            gimli::DW_AT_name => a.name = dwarf.attr_string(unit, value).ok(),
            gimli::DW_AT_linkage_name | gimli::DW_AT_MIPS_linkage_name => {
                a.linkage = dwarf.attr_string(unit, value).ok();
            }
            gimli::DW_AT_abstract_origin | gimli::DW_AT_specification => {
                a.origin = match value {
                    AttributeValue::UnitRef(UnitOffset(at)) => Origin::Here(at),
                    AttributeValue::DebugInfoRef(DebugInfoOffset(at)) => Origin::Elsewhere(at),
                    _ => a.origin,
                };
            }
            gimli::DW_AT_low_pc => a.low = dwarf.attr_address(unit, value)?,
            gimli::DW_AT_high_pc => match value {
                AttributeValue::Udata(size) => a.size = Some(size),
                other => a.high = dwarf.attr_address(unit, other)?,
            },
            gimli::DW_AT_ranges => a.ranges = dwarf.attr_ranges_offset(unit, value)?,
            gimli::DW_AT_call_file => {
                // Before DWARF 5, file 0 meant that there is none.
                if let AttributeValue::FileIndex(file) = value
                    && (unit.encoding().version >= 5 || file > 0)
                {
                    a.call_file = Some(file);
                }
            }
            gimli::DW_AT_call_line => {
                a.call_line = value
                    .udata_value()
                    .and_then(|l| u32::try_from(l).ok())
                    .unwrap_or(0);
            }
            _ => {}
        }
    }
    Ok(a)
}

/// The address ranges of an entry, empty ones left out.
fn each_range(
    dwarf: &Dwarf<Slice<'_>>,
    unit: &Unit<Slice<'_>>,
    a: &Attributes<'_>,
    mut add: impl FnMut(u64, u64),
) -> gimli::Result<()> {
    if let Some(offset) = a.ranges {
        let mut list = dwarf.ranges(unit, offset)?;
        while let Some(range) = list.next()? {
            if range.begin < range.end {
                add(range.begin, range.end);
            }
        }
        return Ok(());
    }
    if let Some(low) = a.low {
        let end = a.high.or_else(|| low.checked_add(a.size?));
        if let Some(end) = end.filter(|end| low < *end) {
            add(low, end);
        }
    }
    Ok(())
}

/// Gives every node its name; equal names are kept once.
fn name_nodes<'d>(
    image: &DebugImage,
    dwarf: &Dwarf<Slice<'d>>,
    named: &[Named<'d>],
    sources: &[(Option<Slice<'d>>, Origin)],
    nodes: &mut [Node],
) -> Vec<String> {
    let mut names = Vec::new();
    let mut known = std::collections::HashMap::new();
    for (node, &(own, origin)) in nodes.iter_mut().zip(sources) {
        let Some(name) = own.or_else(|| origin_name(image, dwarf, named, origin)) else {
            continue;
        };
        node.name = *known.entry(name.slice()).or_insert_with(|| {
            names.push(name.to_string_lossy().into_owned());
            names.len() as u32 - 1
        });
    }
    names
}

fn origin_name<'d>(
    image: &DebugImage,
    dwarf: &Dwarf<Slice<'d>>,
    named: &[Named<'d>],
    mut origin: Origin,
) -> Option<Slice<'d>> {
    for _ in 0..MAX_LINKS {
        match origin {
            Origin::None => return None,
            Origin::Here(at) => {
                // The entries were met in the order of their offsets.
                let entry = &named[named.binary_search_by_key(&at, |n| n.offset).ok()?];
                if entry.name.is_some() {
                    return entry.name;
                }
                origin = entry.origin;
            }
            Origin::Elsewhere(at) => return foreign_name(image, dwarf, at, MAX_LINKS),
        }
    }
    None
}

/// The name of an entry of another unit (link-time optimization refers across units).
fn foreign_name<'d>(
    image: &DebugImage,
    dwarf: &Dwarf<Slice<'d>>,
    at: usize,
    links: u32,
) -> Option<Slice<'d>> {
    let units = image.units();
    let start = units[units.partition_point(|u| *u <= at).checked_sub(1)?];
    let header = dwarf
        .debug_info
        .header_from_offset(DebugInfoOffset(start))
        .ok()?;
    let unit = dwarf.unit(header).ok()?;
    let mut entries = unit.entries_raw(Some(UnitOffset(at - start))).ok()?;
    let abbrev = entries.read_abbreviation().ok()??;
    let found = read(dwarf, &unit, &mut entries, abbrev).ok()?;
    let next = match found.origin {
        Origin::None => None,
        Origin::Here(next) => start.checked_add(next),
        Origin::Elsewhere(next) => Some(next),
    };
    let own = found.linkage.or(found.name);
    own.or_else(|| foreign_name(image, dwarf, next?, links.checked_sub(1)?))
}
