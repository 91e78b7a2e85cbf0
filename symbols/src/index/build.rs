//! Makes an index: all units' tables, merged and written down.

use std::collections::HashMap;

use super::format::{HEADER, Header};
use super::nodes::{self, PackedNode};
use super::steps;
use crate::dwarf::{DebugImage, NONE, UnitTable};
use crate::error::SymbolError;
use crate::image::BuildId;

/// Equal strings once, numbered from 0.
#[derive(Default)]
struct Strings {
    known: HashMap<String, u32>,
    all: Vec<String>,
}

impl Strings {
    fn number(&mut self, text: String) -> u32 {
        if let Some(&known) = self.known.get(&text) {
            return known;
        }
        let number = self.all.len() as u32;
        self.all.push(text.clone());
        self.known.insert(text, number);
        number
    }

    /// A count, the ends of all strings, the strings.
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.all.len() as u32).to_le_bytes());
        let mut end = 0;
        for text in &self.all {
            end += text.len() as u32;
            out.extend_from_slice(&end.to_le_bytes());
        }
        self.all
            .iter()
            .for_each(|text| out.extend_from_slice(text.as_bytes()));
    }
}

#[derive(Default)]
struct Merged {
    names: Strings,
    files: Strings,
    lines: Vec<(u32, u32, u32)>,
    spans: Vec<(u32, u32, u32)>,
    nodes: Vec<PackedNode>,
}

impl Merged {
    fn add(&mut self, table: UnitTable, base: u64) {
        let names: Vec<u32> = table
            .names
            .into_iter()
            .map(|n| self.names.number(n) + 1)
            .collect();
        let files: Vec<u32> = table
            .files
            .into_iter()
            .map(|f| self.files.number(f) + 1)
            .collect();
        let get = |list: &[u32], i: u32| list.get(i as usize).copied().unwrap_or(0);
        let first = self.nodes.len() as u32;
        // An image spans less than 2 GiB; whatever lies further was discarded by the linker.
        let offset = |addr: u64| addr.checked_sub(base).and_then(|o| u32::try_from(o).ok());
        for row in table.rows {
            if let Some(at) = offset(row.addr) {
                self.lines.push((at, get(&files, row.file), row.line));
            }
        }
        for (addr, node) in table.spans {
            if let Some(at) = offset(addr) {
                self.spans
                    .push((at, if node == NONE { 0 } else { first + node + 1 }, 0));
            }
        }
        for (i, node) in table.nodes.iter().enumerate() {
            let parent_back = if node.parent == NONE {
                0
            } else {
                i as u32 - node.parent
            };
            let (name, call_file) = (get(&names, node.name), get(&files, node.call_file));
            let call_line = node.call_line;
            self.nodes.push(PackedNode {
                parent_back,
                name,
                call_file,
                call_line,
            });
        }
    }
}

/// Sorts the entries of all units; where the end of one meets the start of another, or several
/// claim an address, the last that says something counts. Entries that change nothing are dropped.
fn settle(entries: &mut Vec<(u32, u32, u32)>) {
    entries.sort_by_key(|e| (e.0, e.1 != 0));
    let mut kept: Vec<(u32, u32, u32)> = Vec::with_capacity(entries.len());
    for &entry in entries.iter() {
        if kept.last().is_some_and(|last| last.0 == entry.0) {
            kept.pop();
        }
        if kept
            .last()
            .is_none_or(|last| (last.1, last.2) != (entry.1, entry.2))
        {
            kept.push(entry);
        }
    }
    *entries = kept;
}

/// The bytes of the index file of `image`.
pub(super) fn build(
    image: &DebugImage,
    build_id: &BuildId,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<u8>, SymbolError> {
    let base = image.text().start;
    let units = image.units();
    let mut merged = Merged::default();
    for (done, &unit) in units.iter().enumerate() {
        progress(done, units.len());
        merged.add(image.build_table(unit)?, base);
    }
    settle(&mut merged.lines);
    settle(&mut merged.spans);
    let mut header = Header {
        base,
        ..Header::default()
    };
    let mut body = Vec::new();
    let end = |body: &Vec<u8>| (HEADER + body.len()) as u64;
    header.lines = steps::write(&merged.lines, &mut body);
    header.ends[0] = end(&body);
    header.spans = steps::write(&merged.spans, &mut body);
    header.ends[1] = end(&body);
    header.widths = nodes::write(&merged.nodes, &mut body);
    header.ends[2] = end(&body);
    merged.names.write(&mut body);
    header.ends[3] = end(&body);
    merged.files.write(&mut body);
    header.ends[4] = end(&body);
    let mut bytes = header.seal(build_id, &body);
    bytes.append(&mut body);
    progress(units.len(), units.len());
    Ok(bytes)
}
