//! An index with its tables taken apart in memory, for very many questions: each is then answered
//! by a few reads of plain arrays.

use super::format::Parts;
use super::nodes::Nodes;
use super::steps::Steps;
use super::{Header, Index};
use crate::addr::LinkAddr;
use crate::dwarf::Frame;

/// Addresses to a bucket: as many as hold one change on average.
const BUCKET_BITS: u32 = 4;

/// What holds from one address to the next; file and node are one up, so that 0 says that there is
/// none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Step {
    file: u32,
    line: u32,
    node: u32,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    /// Number of the enclosing one, one up; 0 for a function.
    parent: u32,
    name: u32,
    call_file: u32,
    call_line: u32,
}

/// Strings one after another; number 0 is none.
#[derive(Debug, Default)]
struct Strings {
    text: String,
    ends: Vec<u32>,
}

impl Strings {
    fn of(part: &[u8]) -> Self {
        let mut this = Self {
            text: String::new(),
            ends: vec![0],
        };
        for index in 0.. {
            let Some(text) = super::text(part, index) else {
                break;
            };
            this.text.push_str(text);
            this.ends.push(this.text.len() as u32);
        }
        this
    }

    #[inline]
    fn get(&self, number: u32) -> Option<&str> {
        let at = (number as usize).checked_sub(1)?;
        let (from, to) = (*self.ends.get(at)?, *self.ends.get(at + 1)?);
        self.text.get(from as usize..to as usize)
    }
}

/// The tables of an index, unpacked.
#[derive(Debug)]
pub struct Unpacked {
    base: u64,
    /// For each bucket, the step that holds at its start.
    buckets: Vec<u32>,
    starts: Vec<u32>,
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
        let mut buckets = Vec::new();
        let mut at = 0usize;
        let end = starts.last().map_or(0, |last| (last >> BUCKET_BITS) + 1);
        for bucket in 0..=end {
            let start = u64::from(bucket) << BUCKET_BITS;
            while starts
                .get(at + 1)
                .is_some_and(|next| u64::from(*next) <= start)
            {
                at += 1;
            }
            buckets.push(at as u32);
        }
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
            buckets,
            starts,
            nodes: nodes.collect(),
            steps,
            names: Strings::of(parts.names),
            files: Strings::of(parts.files),
        })
    }

    /// As [`Index::frames`].
    #[inline]
    pub fn frames(&self, addr: LinkAddr, visit: &mut dyn FnMut(Frame<'_>)) -> bool {
        self.frames_at(addr, visit).unwrap_or(false)
    }

    fn frames_at(&self, addr: LinkAddr, visit: &mut dyn FnMut(Frame<'_>)) -> Option<bool> {
        let offset = u32::try_from(addr.0.checked_sub(self.base)?).ok()?;
        let bucket = (offset >> BUCKET_BITS) as usize;
        let mut at = *self.buckets.get(bucket).or(self.buckets.last())? as usize;
        if *self.starts.get(at)? > offset {
            return None;
        }
        while self.starts.get(at + 1).is_some_and(|next| *next <= offset) {
            at += 1;
        }
        let step = self.steps.get(at)?;
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
        let words = self.buckets.capacity() + self.starts.capacity();
        let strings = |s: &Strings| s.text.capacity() + 4 * s.ends.capacity();
        4 * words
            + 12 * self.steps.capacity()
            + 16 * self.nodes.capacity()
            + strings(&self.names)
            + strings(&self.files)
    }
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
