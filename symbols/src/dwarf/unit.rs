//! What one compilation unit says about addresses, as flat sorted tables.

use gimli::{Dwarf, Unit};

use super::{DebugImage, Frame, Slice, lines, sweep, walk};

/// No file, no name, no node.
pub(crate) const NONE: u32 = u32::MAX;

/// The line from `addr` on, up to the next row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) addr: u64,
    /// Index in [`UnitTable::files`], or [`NONE`] where a sequence ends.
    pub(crate) file: u32,
    pub(crate) line: u32,
}

/// A function, or a function inlined into its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Index of the enclosing node, or [`NONE`]; always smaller than the node's own.
    pub(crate) parent: u32,
    /// Index in [`UnitTable::names`], or [`NONE`].
    pub(crate) name: u32,
    pub(crate) call_file: u32,
    pub(crate) call_line: u32,
}

/// The tables of one unit.
#[derive(Debug, Default)]
pub(crate) struct UnitTable {
    pub(crate) files: Vec<String>,
    pub(crate) names: Vec<String>,
    pub(crate) rows: Vec<Row>,
    pub(crate) nodes: Vec<Node>,
    /// From each address on, the innermost node, or [`NONE`].
    pub(crate) spans: Vec<(u64, u32)>,
}

impl UnitTable {
    pub(super) fn build(
        image: &DebugImage,
        dwarf: &Dwarf<Slice<'_>>,
        unit: &Unit<Slice<'_>>,
    ) -> gimli::Result<Self> {
        let mut files = lines::Files::new(dwarf, unit);
        let rows = lines::rows(unit, &mut files, image.text())?;
        let rows = lines::clip(rows, &lines::unit_ranges(dwarf, unit)?);
        let walked = walk::walk(image, dwarf, unit, &mut files)?;
        let spans = sweep::flatten(walked.ranges, &walked.nodes);
        let files = files.into_paths();
        Ok(Self {
            files,
            names: walked.names,
            rows,
            nodes: walked.nodes,
            spans,
        })
    }

    fn file(&self, index: u32) -> Option<&str> {
        self.files.get(index as usize).map(String::as_str)
    }

    /// Visits the frames at `addr`, innermost first; false when there are none.
    pub(super) fn frames(&self, addr: u64, visit: &mut dyn FnMut(Frame<'_>)) -> bool {
        let row = self.rows.partition_point(|r| r.addr <= addr).checked_sub(1);
        let row = row.map(|i| self.rows[i]).filter(|r| r.file != NONE);
        let span = self.spans.partition_point(|s| s.0 <= addr).checked_sub(1);
        let mut node = span.map_or(NONE, |i| self.spans[i].1);
        let (mut file, mut line) = row.map_or((None, 0), |r| (self.file(r.file), r.line));
        if node == NONE {
            if row.is_some() {
                visit(Frame {
                    function: None,
                    file,
                    line,
                    inlined: false,
                });
            }
            return row.is_some();
        }
        while let Some(&this) = self.nodes.get(node as usize) {
            let function = self.names.get(this.name as usize).map(String::as_str);
            visit(Frame {
                function,
                file,
                line,
                inlined: this.parent != NONE,
            });
            (file, line) = (self.file(this.call_file), this.call_line);
            node = this.parent;
        }
        true
    }
}
