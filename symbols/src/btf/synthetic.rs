//! A small BTF writer for tests.

#[derive(Default)]
pub(crate) struct Builder {
    types: Vec<u8>,
    strings: Vec<u8>,
    count: u32,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            strings: vec![0],
            ..Self::default()
        }
    }

    pub(crate) fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let at = self.strings.len() as u32;
        self.strings.extend_from_slice(text.as_bytes());
        self.strings.push(0);
        at
    }

    pub(crate) fn record(
        &mut self,
        name: &str,
        kind: u32,
        vlen: u32,
        size: u32,
        rest: &[u32],
    ) -> u32 {
        let name = self.string(name);
        for word in [name, kind << 24 | vlen, size].iter().chain(rest) {
            self.types.extend_from_slice(&word.to_le_bytes());
        }
        self.count += 1;
        self.count
    }

    pub(crate) fn int(&mut self, name: &str, size: u32, encoding: u32) -> u32 {
        self.record(name, 1, 0, size, &[(encoding << 24) | (size * 8)])
    }

    pub(crate) fn ptr(&mut self, to: u32) -> u32 {
        self.record("", 2, 0, to, &[])
    }

    pub(crate) fn array(&mut self, of: u32, count: u32) -> u32 {
        self.record("", 3, 0, 0, &[of, 1, count])
    }

    /// Members are (name, type, bit offset, bit size); the flag for bit fields is always set.
    pub(crate) fn composite(
        &mut self,
        kind: u32,
        name: &str,
        size: u32,
        members: &[(&str, u32, u32, u32)],
    ) -> u32 {
        let mut rest = Vec::new();
        for (member, ty, offset, bits) in members {
            rest.extend([self.string(member), *ty, bits << 24 | offset]);
        }
        self.record(name, 0x80 | kind, members.len() as u32, size, &rest)
    }

    pub(crate) fn enumeration(&mut self, name: &str, values: &[(&str, u32)]) -> u32 {
        let rest: Vec<u32> = values
            .iter()
            .flat_map(|(n, v)| [self.string(n), *v])
            .collect();
        self.record(name, 6, values.len() as u32, 4, &rest)
    }

    pub(crate) fn finish(&self) -> Vec<u8> {
        let mut out = vec![0x9f, 0xeb, 1, 0];
        let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
        for word in [24, 0, types, types, strings] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&self.types);
        out.extend_from_slice(&self.strings);
        out
    }
}
