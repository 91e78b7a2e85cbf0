//! The name of a task.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::columns::RowWriter;
use crate::table::RowReader;
use crate::wire::{Bytes, Field, FieldType, WireError, put_varint};

/// Length of the kernel's `task_struct.comm`, with its final NUL.
pub const COMM_LEN: usize = 16;

/// A task's `comm`: at most 16 bytes, cut at the first NUL.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Comm([u8; COMM_LEN]);

impl Comm {
    /// The name in a `comm` field; what follows the first NUL is left out.
    pub fn new(bytes: &[u8]) -> Self {
        let end = bytes.iter().take(COMM_LEN).position(|&byte| byte == 0);
        let end = end.unwrap_or(bytes.len().min(COMM_LEN));
        let mut comm = [0; COMM_LEN];
        comm[..end].copy_from_slice(&bytes[..end]);
        Self(comm)
    }

    /// The bytes before the first NUL.
    pub fn as_bytes(&self) -> &[u8] {
        let end = self
            .0
            .iter()
            .position(|&byte| byte == 0)
            .unwrap_or(COMM_LEN);
        &self.0[..end]
    }

    /// The name as text; bytes that are not UTF-8 are replaced.
    pub fn to_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.as_bytes())
    }
}

impl Field for Comm {
    const TYPE: FieldType = FieldType::Bytes;
    fn put(&self, out: &mut Vec<u8>) {
        let bytes = self.as_bytes();
        put_varint(bytes.len() as u64, out);
        out.extend_from_slice(bytes);
    }
    fn get(from: &mut Bytes<'_>) -> Result<Self, WireError> {
        Ok(Self::new(from.counted()?))
    }
    fn put_columns(&self, row: &mut RowWriter<'_>) {
        row.bytes(self.as_bytes());
    }
    fn get_columns(row: &mut RowReader<'_, '_>) -> Result<Self, WireError> {
        row.bytes().map(Self::new)
    }
}

impl fmt::Display for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.to_text())
    }
}

impl fmt::Debug for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_text(), f)
    }
}

impl Serialize for Comm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_text())
    }
}

impl<'de> Deserialize<'de> for Comm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self::new(text.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_ends_at_the_first_nul() {
        assert_eq!(
            Comm::new(b"kworker/0:1\0\0\0\0\0").as_bytes(),
            b"kworker/0:1"
        );
        assert_eq!(Comm::new(b"sh\0junk").to_string(), "sh");
        assert_eq!(
            Comm::new(b"sixteen-bytes-ok").as_bytes(),
            b"sixteen-bytes-ok"
        );
        assert_eq!(
            Comm::new(b"more-than-sixteen-bytes").as_bytes(),
            b"more-than-sixtee"
        );
        assert_eq!(Comm::new(b"").as_bytes(), b"");
    }

    #[test]
    fn the_wire_carries_only_the_name() {
        let mut out = Vec::new();
        Comm::new(b"init").put(&mut out);
        assert_eq!(out, b"\x04init");
        assert_eq!(Comm::get(&mut Bytes::new(&out)), Ok(Comm::new(b"init")));
    }
}
