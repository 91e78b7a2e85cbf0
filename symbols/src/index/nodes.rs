//! Functions and inlined functions, each in as few bits as the largest needs.

/// How many bits each field takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Widths(pub(super) [u8; 4]);

/// One node; every number but the distance is one up, so that 0 says that there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PackedNode {
    /// How many nodes back the enclosing one is; 0 for a function.
    pub(super) parent_back: u32,
    pub(super) name: u32,
    pub(super) call_file: u32,
    pub(super) call_line: u32,
}

impl PackedNode {
    const fn fields(&self) -> [u32; 4] {
        [self.parent_back, self.name, self.call_file, self.call_line]
    }
}

pub(super) struct Nodes<'i> {
    bytes: &'i [u8],
    widths: Widths,
}

impl Widths {
    fn total(self) -> u32 {
        self.0.iter().map(|w| u32::from(*w)).sum()
    }
}

impl<'i> Nodes<'i> {
    pub(super) const fn new(bytes: &'i [u8], widths: Widths) -> Self {
        Self { bytes, widths }
    }

    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<PackedNode> {
        let bit = u64::from(index) * u64::from(self.widths.total());
        let at = usize::try_from(bit / 8).ok()?;
        // The writer leaves room for whole reads behind the last node.
        let raw = self.bytes.get(at..at + 17)?;
        let mut low = [0; 16];
        low.copy_from_slice(&raw[..16]);
        let shift = (bit % 8) as u32;
        let mut word = u128::from_le_bytes(low) >> shift;
        if shift > 0 {
            word |= u128::from(raw[16]) << (128 - shift);
        }
        let mut fields = [0u32; 4];
        for (field, width) in fields.iter_mut().zip(self.widths.0) {
            let width = u32::from(width.min(32));
            *field = (word & ((1u128 << width) - 1)) as u32;
            word >>= width;
        }
        let [parent_back, name, call_file, call_line] = fields;
        Some(PackedNode {
            parent_back,
            name,
            call_file,
            call_line,
        })
    }
}

pub(super) fn write(nodes: &[PackedNode], out: &mut Vec<u8>) -> Widths {
    let mut widths = [0u8; 4];
    for node in nodes {
        for (width, field) in widths.iter_mut().zip(node.fields()) {
            *width = (*width).max((32 - field.leading_zeros()) as u8);
        }
    }
    let (mut pending, mut filled) = (0u128, 0u32);
    for node in nodes {
        for (width, field) in widths.iter().zip(node.fields()) {
            pending |= u128::from(field) << filled;
            filled += u32::from(*width);
            while filled >= 8 {
                out.push(pending as u8);
                pending >>= 8;
                filled -= 8;
            }
        }
    }
    out.push(pending as u8);
    out.extend_from_slice(&[0; 17]);
    Widths(widths)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            raw in proptest::collection::vec((0..70u32, any::<u32>(), 0..5000u32, 0..(1u32 << 19)), 1..50),
        ) {
            let nodes: Vec<_> = raw
                .into_iter()
                .map(|(parent_back, name, call_file, call_line)| PackedNode { parent_back, name, call_file, call_line })
                .collect();
            let mut bytes = Vec::new();
            let widths = write(&nodes, &mut bytes);
            let read = Nodes::new(&bytes, widths);
            for (i, node) in nodes.iter().enumerate() {
                prop_assert_eq!(read.get(i as u32), Some(*node));
            }
        }
    }
}
