//! From ranges at several depths to one list: from each address on, the innermost node.

use super::unit::{NONE, Node};

/// Addresses that belong to a node.
#[derive(Clone, Copy, Debug)]
pub(super) struct NodeRange {
    pub(super) begin: u64,
    pub(super) end: u64,
    /// 0 for a function, one more for each level of inlining.
    pub(super) level: u32,
    pub(super) node: u32,
}

/// Inlining deeper than this is cut; the kernel's maximum is 15.
const MAX_LEVEL: u32 = 255;

/// The change points of the innermost node. A node counts only where every level above it has one,
/// since an inlined function without a surrounding one is nowhere.
pub(super) fn flatten(ranges: Vec<NodeRange>, nodes: &[Node]) -> Vec<(u64, u32)> {
    let mut events: Vec<(u64, bool, NodeRange)> = Vec::with_capacity(ranges.len() * 2);
    for range in ranges.into_iter().filter(|r| r.level <= MAX_LEVEL) {
        events.push((range.begin, true, range));
        events.push((range.end, false, range));
    }
    // Ends before beginnings at the same address.
    events.sort_unstable_by_key(|e| (e.0, e.1, e.2.level, e.2.node));
    let mut active: Vec<u32> = Vec::new();
    let mut spans: Vec<(u64, u32)> = Vec::new();
    let mut i = 0;
    while i < events.len() {
        let at = events[i].0;
        while let Some(&(_, begins, range)) = events.get(i).filter(|e| e.0 == at) {
            let level = range.level as usize;
            if active.len() <= level {
                active.resize(level + 1, NONE);
            }
            if begins {
                active[level] = range.node;
            } else if active[level] == range.node {
                active[level] = NONE;
            }
            i += 1;
        }
        let depth = active
            .iter()
            .position(|n| *n == NONE)
            .unwrap_or(active.len());
        let innermost = depth.checked_sub(1).map_or(NONE, |d| active[d]);
        // Nodes are numbered as they are nested; anything else is a damaged table.
        debug_assert!(innermost == NONE || (innermost as usize) < nodes.len());
        if spans.last().map_or(NONE, |s| s.1) != innermost {
            spans.push((at, innermost));
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(ranges: &[(u64, u64, u32, u32)]) -> Vec<(u64, u32)> {
        let ranges = ranges.iter().map(|&(begin, end, level, node)| NodeRange {
            begin,
            end,
            level,
            node,
        });
        let node = Node {
            parent: NONE,
            name: NONE,
            call_file: NONE,
            call_line: 0,
        };
        flatten(ranges.collect(), &[node; 16])
    }

    #[test]
    fn scattered_inlined_ranges_come_out_in_order() {
        let found = spans(&[
            (100, 200, 0, 0),
            (110, 120, 1, 1),
            (150, 160, 1, 1),
            (115, 120, 2, 2),
            (155, 158, 2, 3),
            (200, 210, 0, 4),
        ]);
        let expected = [
            (100, 0),
            (110, 1),
            (115, 2),
            (120, 0),
            (150, 1),
            (155, 3),
            (158, 1),
            (160, 0),
            (200, 4),
            (210, NONE),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn an_inlined_range_outside_of_its_function_is_nowhere() {
        assert_eq!(
            spans(&[(100, 110, 0, 0), (105, 120, 1, 1)]),
            [(100, 0), (105, 1), (110, NONE)]
        );
        assert_eq!(
            spans(&[(100, 110, 0, 0), (100, 110, 2, 1)]),
            [(100, 0), (110, NONE)]
        );
    }
}
