//! The line table of a unit: rows in address order, and the paths of the files they name.

use std::ops::Range;

use gimli::{Dwarf, LineProgramHeader, Unit};

use super::Slice;
use super::unit::{NONE, Row};

/// The files of a unit, rendered when they are first named (a unit lists hundreds and uses few).
pub(super) struct Files<'u, 'd> {
    dwarf: &'u Dwarf<Slice<'d>>,
    unit: &'u Unit<Slice<'d>>,
    header: Option<LineProgramHeader<Slice<'d>>>,
    /// From the unit's file index to ours.
    known: Vec<u32>,
    paths: Vec<String>,
}

impl<'u, 'd> Files<'u, 'd> {
    pub(super) fn new(dwarf: &'u Dwarf<Slice<'d>>, unit: &'u Unit<Slice<'d>>) -> Self {
        let header = unit.line_program.as_ref().map(|p| p.header().clone());
        Self {
            dwarf,
            unit,
            header,
            known: Vec::new(),
            paths: Vec::new(),
        }
    }

    /// Our index for the unit's file `index`; [`NONE`] when there is no such file.
    pub(super) fn index(&mut self, index: u64) -> u32 {
        let Some(at) = usize::try_from(index).ok().filter(|i| *i < 1 << 20) else {
            return NONE;
        };
        if let Some(known) = self.known.get(at).filter(|k| **k != NONE) {
            return *known;
        }
        let Some(path) = self.render(index) else {
            return NONE;
        };
        if self.known.len() <= at {
            self.known.resize(at + 1, NONE);
        }
        // GCC lists the unit's own file twice, as 0 and as 1.
        let same = self.paths.iter().position(|p| *p == path);
        let ours = same.unwrap_or_else(|| {
            self.paths.push(path);
            self.paths.len() - 1
        }) as u32;
        self.known[at] = ours;
        ours
    }

    fn render(&self, index: u64) -> Option<String> {
        let header = self.header.as_ref()?;
        let file = header.file(index)?;
        let mut path = self.unit.comp_dir.map_or_else(String::new, |d| lossy(d));
        // Directory 0 is the compilation directory itself.
        if file.directory_index() != 0
            && let Some(directory) = file.directory(header)
        {
            join(
                &mut path,
                &lossy(self.dwarf.attr_string(self.unit, directory).ok()?),
            );
        }
        join(
            &mut path,
            &lossy(self.dwarf.attr_string(self.unit, file.path_name()).ok()?),
        );
        Some(path)
    }

    pub(super) fn into_paths(self) -> Vec<String> {
        self.paths
    }
}

fn lossy(text: Slice<'_>) -> String {
    text.to_string_lossy().into_owned()
}

fn join(path: &mut String, piece: &str) {
    if piece.starts_with('/') {
        path.clear();
    } else if !path.is_empty() && !path.ends_with('/') {
        path.push('/');
    }
    path.push_str(piece);
}

/// The rows of all sequences that lie in `text`, sorted, each sequence closed by a row without file.
pub(super) fn rows(
    unit: &Unit<Slice<'_>>,
    files: &mut Files<'_, '_>,
    text: &Range<u64>,
) -> gimli::Result<Vec<Row>> {
    let Some(program) = unit.line_program.clone() else {
        return Ok(Vec::new());
    };
    let mut sequences: Vec<Vec<Row>> = Vec::new();
    let mut current: Vec<Row> = Vec::new();
    let mut rows = program.rows();
    while let Some((_, row)) = rows.next_row()? {
        let addr = row.address();
        if row.end_sequence() {
            let mut sequence = std::mem::take(&mut current);
            let start = sequence.first().map(|r| r.addr);
            if start.is_some_and(|start| start < addr && text.contains(&start)) {
                // Only changes matter.
                sequence.dedup_by(|next, kept| next.file == kept.file && next.line == kept.line);
                sequence.push(Row {
                    addr,
                    file: NONE,
                    line: 0,
                });
                sequences.push(sequence);
            }
            continue;
        }
        let line = row
            .line()
            .map_or(0, |l| u32::try_from(l.get()).unwrap_or(0));
        let row = Row {
            addr,
            file: files.index(row.file_index()),
            line,
        };
        match current.last_mut() {
            // Of several rows at one address the last one counts.
            Some(last) if last.addr == addr => *last = row,
            _ => current.push(row),
        }
    }
    sequences.sort_by_key(|s| s[0].addr);
    let mut all: Vec<Row> = Vec::with_capacity(sequences.iter().map(Vec::len).sum());
    for sequence in sequences {
        // The end of one sequence is often the start of the next.
        if all.last().is_some_and(|last| last.addr == sequence[0].addr) {
            all.pop();
        }
        all.extend(sequence);
    }
    Ok(all)
}

/// Where the unit says that it has code, sorted; empty when it does not say.
pub(super) fn unit_ranges(
    dwarf: &Dwarf<Slice<'_>>,
    unit: &Unit<Slice<'_>>,
) -> gimli::Result<Vec<Range<u64>>> {
    let mut list = dwarf.unit_ranges(unit)?;
    let mut all = Vec::new();
    while let Some(range) = list.next()? {
        if range.begin < range.end {
            all.push(range.begin..range.end);
        }
    }
    all.sort_unstable_by_key(|r| (r.start, r.end));
    Ok(all)
}

/// Leaves of `rows` what lies in `ranges`: a sequence may run on into the padding before the next
/// function, which belongs to nobody.
pub(super) fn clip(rows: Vec<Row>, ranges: &[Range<u64>]) -> Vec<Row> {
    if ranges.is_empty() {
        return rows;
    }
    let mut kept: Vec<Row> = Vec::with_capacity(rows.len());
    let mut ranges = ranges.iter().peekable();
    for (i, row) in rows.iter().enumerate() {
        let end = rows.get(i + 1).map_or(u64::MAX, |next| next.addr);
        if row.file == NONE {
            push(&mut kept, *row);
            continue;
        }
        while let Some(range) = ranges.peek().filter(|r| r.start < end) {
            let start = row.addr.max(range.start);
            if start < range.end {
                push(
                    &mut kept,
                    Row {
                        addr: start,
                        ..*row
                    },
                );
            }
            if range.end > end {
                break;
            }
            push(
                &mut kept,
                Row {
                    addr: range.end,
                    file: NONE,
                    line: 0,
                },
            );
            ranges.next();
        }
    }
    kept
}

/// Adds a row behind the others; one that lies before the last is the remainder of a range that
/// has been dealt with.
fn push(kept: &mut Vec<Row>, row: Row) {
    match kept.last_mut() {
        Some(last) if last.addr > row.addr => {}
        Some(last) if last.file == NONE && row.file == NONE => {}
        Some(last) if last.addr == row.addr => *last = row,
        _ => kept.push(row),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_outside_of_the_unit_are_cut_away() {
        let row = |addr, line| Row {
            addr,
            file: if line == 0 { NONE } else { 0 },
            line,
        };
        let rows = vec![
            row(10, 1),
            row(20, 2),
            row(40, 3),
            row(50, 0),
            row(60, 4),
            row(70, 0),
        ];
        assert_eq!(clip(rows.clone(), &[]), rows);
        let expected = [
            row(10, 1),
            row(15, 0),
            row(18, 1),
            row(20, 2),
            row(30, 0),
            row(60, 4),
            row(65, 0),
        ];
        assert_eq!(clip(rows.clone(), &[10..15, 18..30, 60..65]), expected);
        assert_eq!(clip(rows.clone(), &[0..55, 55..100]), rows);
    }

    #[test]
    fn paths_are_joined_as_the_compiler_meant() {
        let joined = |pieces: &[&str]| {
            let mut path = String::new();
            pieces.iter().for_each(|p| join(&mut path, p));
            path
        };
        assert_eq!(joined(&["/src", "mm", "slab.c"]), "/src/mm/slab.c");
        assert_eq!(
            joined(&["/src/", "/usr/include", "a.h"]),
            "/usr/include/a.h"
        );
        assert_eq!(joined(&["a.c"]), "a.c");
    }
}
