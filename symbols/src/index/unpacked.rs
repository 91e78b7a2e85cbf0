//! An index with its tables taken apart in memory, for very many questions: each is then answered
//! by a few reads of plain arrays.

use super::format::Parts;
use super::large::in_large_pages;
use super::nodes::Nodes;
use super::steps::Steps;
use super::{Header, Index};
use crate::addr::LinkAddr;
use crate::dwarf::Frame;

/// Bytes of code to a cell, as a power of two: one bit of a word for each.
const CELL_BITS: u32 = 6;
/// No kernel is larger (`KERNEL_IMAGE_SIZE`).
const MAX_IMAGE: u32 = 1 << 30;

/// Where steps begin in a stretch of code, one bit for each byte of it. A step is found by counting
/// bits, without a look at what is beside it.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    starts: u64,
    /// How many steps begin before this stretch.
    before: u32,
}

/// What holds from one address to the next; file and node are one up, so that 0 says that there is
/// none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Step {
    file: u32,
    line: u32,
    node: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Node {
    /// Number of the enclosing one, one up; 0 for a function.
    parent: u32,
    name: u32,
    call_file: u32,
    call_line: u32,
}

/// Strings by number; number 0 is none. Each by itself, since a piece of a longer one cannot be
/// lent without a look at the bytes where it is cut.
#[derive(Debug, Default)]
struct Strings(Vec<Box<str>>);

impl Strings {
    fn of(part: &[u8]) -> Self {
        let texts = (0..).map_while(|index| super::text(part, index));
        Self(texts.map(Box::from).collect())
    }

    #[inline]
    fn get(&self, number: u32) -> Option<&str> {
        self.0
            .get((number as usize).checked_sub(1)?)
            .map(|text| &**text)
    }
}

/// The tables of an index, unpacked.
#[derive(Debug)]
pub struct Unpacked {
    base: u64,
    cells: Vec<Cell>,
    steps: Vec<Step>,
    nodes: Vec<Node>,
    names: Strings,
    files: Strings,
}

impl Unpacked {
    pub(super) fn of(index: &Index) -> Option<Self> {
        let header = &index.header;
        let parts = header.parts(&index.map)?;
        let (starts, steps) = merge(&parts, header);
        let packed = Nodes::new(parts.nodes, header.widths);
        let count = steps.iter().map(|s| s.node).max().unwrap_or(0);
        let nodes = (0..count).map_while(|i| {
            let node = packed.get(i)?;
            let parent = match node.parent_back {
                0 => 0,
                back => (i + 1).checked_sub(back)?,
            };
            Some(Node {
                parent,
                name: node.name,
                call_file: node.call_file,
                call_line: node.call_line,
            })
        });
        Some(Self {
            base: header.base,
            cells: in_large_pages(&cells(&starts)?),
            nodes: in_large_pages(&nodes.collect::<Vec<_>>()),
            steps: in_large_pages(&steps),
            names: Strings::of(parts.names),
            files: Strings::of(parts.files),
        })
    }

    /// As [`Index::frames`].
    #[inline]
    pub fn frames(&self, addr: LinkAddr, visit: impl FnMut(Frame<'_>)) -> bool {
        self.frames_at(addr, visit).unwrap_or(false)
    }

    /// The last step that begins at or before an address.
    #[inline]
    fn step(&self, addr: LinkAddr) -> Option<Step> {
        let offset = u32::try_from(addr.0.checked_sub(self.base)?).ok()?;
        let Some(cell) = self.cells.get((offset >> CELL_BITS) as usize) else {
            return self.steps.last().copied();
        };
        let upto = u64::MAX >> (u64::BITS - 1 - offset % u64::BITS);
        let count = cell.before + (cell.starts & upto).count_ones();
        self.steps.get((count as usize).checked_sub(1)?).copied()
    }

    #[inline]
    fn frames_at(&self, addr: LinkAddr, mut visit: impl FnMut(Frame<'_>)) -> Option<bool> {
        let step = self.step(addr)?;
        let (mut file, mut line) = (self.files.get(step.file), step.line);
        if file.is_none() {
            line = 0;
        }
        if step.node == 0 {
            if file.is_some() {
                visit(Frame {
                    function: None,
                    file,
                    line,
                    inlined: false,
                });
            }
            return Some(file.is_some());
        }
        let mut number = step.node;
        while let Some(node) = self.nodes.get((number as usize).checked_sub(1)?) {
            let inlined = node.parent != 0;
            visit(Frame {
                function: self.names.get(node.name),
                file,
                line,
                inlined,
            });
            if !inlined {
                return Some(true);
            }
            (file, line) = (self.files.get(node.call_file), node.call_line);
            // Parents come first, so that this ends.
            number = node.parent;
        }
        None
    }

    /// Bytes of heap in use.
    pub fn heap_bytes(&self) -> usize {
        let strings = |s: &Strings| -> usize {
            let texts: usize = s.0.iter().map(|text| text.len()).sum();
            texts + s.0.capacity() * size_of::<Box<str>>()
        };
        self.cells.capacity() * size_of::<Cell>()
            + self.steps.capacity() * size_of::<Step>()
            + self.nodes.capacity() * size_of::<Node>()
            + strings(&self.names)
            + strings(&self.files)
    }
}

/// The cells of steps with these starts, which rise; none for more code than a kernel has.
fn cells(starts: &[u32]) -> Option<Vec<Cell>> {
    let end = starts.last().map_or(0, |last| (last >> CELL_BITS) + 1);
    (end <= MAX_IMAGE >> CELL_BITS).then_some(())?;
    let mut cells = vec![Cell::default(); end as usize];
    for start in starts {
        // Those of a damaged index may not rise.
        cells.get_mut((start >> CELL_BITS) as usize)?.starts |= 1 << (start % u64::BITS);
    }
    let mut before = 0;
    for cell in &mut cells {
        cell.before = before;
        before += cell.starts.count_ones();
    }
    Some(cells)
}

/// Lines and spans in one table: a new step wherever either changes.
fn merge(parts: &Parts<'_>, header: &Header) -> (Vec<u32>, Vec<Step>) {
    let lines = Steps::new(parts.lines, header.lines);
    let spans = Steps::new(parts.spans, header.spans);
    let (mut lines, mut spans) = (lines.iter().peekable(), spans.iter().peekable());
    let (mut starts, mut steps) = (Vec::new(), Vec::new());
    let mut now = Step::default();
    loop {
        let next = [lines.peek().map(|e| e.0), spans.peek().map(|e| e.0)];
        let Some(at) = next.into_iter().flatten().min() else {
            break;
        };
        if let Some((_, file, line)) = lines.next_if(|e| e.0 == at) {
            (now.file, now.line) = (file, line);
        }
        if let Some((_, node, _)) = spans.next_if(|e| e.0 == at) {
            now.node = node;
        }
        starts.push(at);
        steps.push(now);
    }
    (starts, steps)
}
