//! Digests of content and of machine states.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::columns::RowWriter;
use crate::table::RowReader;
use crate::wire::{Bytes, Field, FieldType, WireError};

/// A BLAKE3 digest: what a file that the recording depends on is known by.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

/// A digest of a machine state, 128 bits. To people it is hexadecimal, as text.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StateDigest(pub [u8; 16]);

impl Serialize for StateDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for StateDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return Deserialize::deserialize(deserializer).map(Self);
        }
        let text = String::deserialize(deserializer)?;
        let number = u128::from_str_radix(&text, 16).map_err(D::Error::custom)?;
        Ok(Self(number.to_be_bytes()))
    }
}

impl From<u128> for StateDigest {
    fn from(value: u128) -> Self {
        Self(value.to_le_bytes())
    }
}

impl From<StateDigest> for u128 {
    fn from(digest: StateDigest) -> Self {
        Self::from_le_bytes(digest.0)
    }
}

impl Field for StateDigest {
    const TYPE: FieldType = FieldType::Raw16;
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
    fn get(from: &mut Bytes<'_>) -> Result<Self, WireError> {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(from.take(16)?);
        Ok(Self(bytes))
    }
    fn put_columns(&self, row: &mut RowWriter<'_>) {
        row.raw16(&self.0);
    }
    fn get_columns(row: &mut RowReader<'_, '_>) -> Result<Self, WireError> {
        row.raw16().map(Self)
    }
}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Display for StateDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for StateDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_read_as_hexadecimal() {
        // The digest of nothing, from the BLAKE3 paper's test vectors.
        let text = Digest::of(b"").to_string();
        assert_eq!(
            text,
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
        assert_eq!(
            StateDigest::from(1u128).to_string(),
            "01000000000000000000000000000000"
        );
        assert_eq!(u128::from(StateDigest::from(77u128)), 77);
        let digest = StateDigest(*b"0123456789abcdef");
        let text = serde_json::to_string(&digest).unwrap();
        assert_eq!(text, "\"30313233343536373839616263646566\"");
        assert_eq!(serde_json::from_str::<StateDigest>(&text).unwrap(), digest);
        assert_eq!(postcard::to_stdvec(&digest).unwrap(), digest.0);
    }
}
