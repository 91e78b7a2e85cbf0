//! Integers, strings and small arrays as bytes.
//!
//! The encoding is postcard's (<https://postcard.jamesmunns.com/wire-format>): little-endian base-128
//! varints for integers wider than a byte, zigzag for signed ones, a varint length before bytes and
//! text. It is written by hand because the general serializer costs several times as much per event,
//! and because a reader must be able to step over a field that it does not know.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub(crate) use crate::bytes::{Bytes, put_varint, unzigzag, zigzag};
use crate::columns::RowWriter;
use crate::table::RowReader;

/// What is wrong with the bytes of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// The bytes end inside a value.
    #[error("the bytes end inside a value")]
    Short,
    /// A varint does not fit its type.
    #[error("a varint does not fit in {bits} bits")]
    Overlong {
        /// Width of the type.
        bits: u32,
    },
    /// A truth value that is neither 0 nor 1.
    #[error("a truth value is {0}, neither 0 nor 1")]
    Bool(u8),
    /// Text that is not UTF-8.
    #[error("text is not UTF-8")]
    Utf8,
    /// A field type code that this build does not know, so that its length is unknown too.
    #[error("field type {0:#04x} is unknown, so its length is too")]
    FieldType(u8),
    /// An event code for which the schema has no row.
    #[error("code {0:#04x} is not in the schema of the file")]
    Code(u8),
    /// A rule of a column that this build does not know.
    #[error("rule {0} of a column is unknown")]
    Guess(u8),
    /// The columns of a kind are not those that its fields need.
    #[error("code {code:#04x} has {found} columns, but its fields need {expected}")]
    Columns {
        /// Code of the event.
        code: u8,
        /// In the chunk.
        found: usize,
        /// By the schema.
        expected: usize,
    },
    /// A kind is listed twice, or out of order.
    #[error("code {0:#04x} is not in its place among the columns")]
    Order(u8),
    /// Bytes are said to be the expected ones, and none are expected.
    #[error("bytes are said to be as expected, but none are")]
    Unexpected,
    /// A field whose type in the file is not the type that its code was given for ever.
    #[error("field {field} of code {code:#04x} has another type than this format gives it")]
    FieldChanged {
        /// Code of the event or input.
        code: u8,
        /// Position of the field, from 0.
        field: u8,
    },
}

/// The types a field can have; the numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum FieldType {
    /// One byte.
    U8 = 1,
    /// Varint of at most 16 bits.
    U16 = 2,
    /// Varint of at most 32 bits.
    U32 = 3,
    /// Varint of at most 64 bits.
    U64 = 4,
    /// Zigzag varint of at most 64 bits.
    I64 = 5,
    /// One byte, 0 or 1.
    Bool = 6,
    /// Varint length, then that many bytes.
    Bytes = 7,
    /// Varint length, then that many bytes of UTF-8.
    Text = 8,
    /// Sixteen bytes.
    Raw16 = 9,
    /// One byte, a code of an append-only list.
    Code = 10,
    /// Four 64-bit varints.
    Words4 = 11,
    /// Six 64-bit varints.
    Words6 = 12,
    /// Varint length, then that many pairs of a byte and a 64-bit varint.
    Counts = 13,
}

impl FieldType {
    /// The type with this number.
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::U8,
            2 => Self::U16,
            3 => Self::U32,
            4 => Self::U64,
            5 => Self::I64,
            6 => Self::Bool,
            7 => Self::Bytes,
            8 => Self::Text,
            9 => Self::Raw16,
            10 => Self::Code,
            11 => Self::Words4,
            12 => Self::Words6,
            13 => Self::Counts,
            _ => return None,
        })
    }

    /// The number of this type.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// How many columns values of this type take.
    pub(crate) const fn columns(self) -> usize {
        match self {
            Self::Words4 => 4,
            Self::Words6 => 6,
            _ => 1,
        }
    }

    /// Steps over one value of this type.
    pub(crate) fn skip(self, from: &mut Bytes<'_>) -> Result<(), WireError> {
        match self {
            Self::U8 | Self::Bool | Self::Code => from.take(1).map(drop),
            Self::U16 | Self::U32 | Self::U64 | Self::I64 => from.varint().map(drop),
            Self::Bytes | Self::Text => from.counted().map(drop),
            Self::Raw16 => from.take(16).map(drop),
            Self::Words4 => (0..4).try_for_each(|_| from.varint().map(drop)),
            Self::Words6 => (0..6).try_for_each(|_| from.varint().map(drop)),
            Self::Counts => {
                let pairs = from.varint()?;
                for _ in 0..pairs {
                    from.take(1)?;
                    from.varint()?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for FieldType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::U8 => "u8",
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::Bool => "bool",
            Self::Bytes => "bytes",
            Self::Text => "text",
            Self::Raw16 => "raw16",
            Self::Code => "code",
            Self::Words4 => "words4",
            Self::Words6 => "words6",
            Self::Counts => "counts",
        })
    }
}

/// A value that can be a field of an event or input.
pub(crate) trait Field: Sized + Default {
    /// Its type in the schema.
    const TYPE: FieldType;
    /// Appends it.
    fn put(&self, out: &mut Vec<u8>);
    /// Reads it.
    fn get(from: &mut Bytes<'_>) -> Result<Self, WireError>;
    /// Appends it to its columns.
    fn put_columns(&self, row: &mut RowWriter<'_>);
    /// Reads it from its columns.
    fn get_columns(row: &mut RowReader<'_, '_>) -> Result<Self, WireError>;
    /// How many bytes of it have no fixed bound.
    #[inline]
    fn bulk(&self) -> usize {
        0
    }
}

impl Field for u8 {
    const TYPE: FieldType = FieldType::U8;
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        out.push(*self);
    }
    #[inline]
    fn get(from: &mut Bytes<'_>) -> Result<Self, WireError> {
        from.byte()
    }
    #[inline]
    fn put_columns(&self, row: &mut RowWriter<'_>) {
        row.int(u64::from(*self));
    }
    #[inline]
    fn get_columns(row: &mut RowReader<'_, '_>) -> Result<Self, WireError> {
        row.narrow(8)
    }
}

macro_rules! unsigned_field {
    ($($ty:ty, $name:ident, $bits:literal;)*) => {$(
        impl Field for $ty {
            const TYPE: FieldType = FieldType::$name;
            #[inline]
    fn put(&self, out: &mut Vec<u8>) {
                put_varint(u64::from(*self), out);
            }
            #[inline]
    fn get(from: &mut Bytes<'_>) -> Result<Self, WireError> {
                <$ty>::try_from(from.varint()?).map_err(|_| WireError::Overlong { bits: $bits })
            }
            #[inline]
            fn put_columns(&self, row: &mut RowWriter<'_>) {
                row.int(u64::from(*self));
            }
            #[inline]
            fn get_columns(row: &mut RowReader<'_, '_>) -> Result<Self, WireError> {
                row.narrow($bits)
            }
        }
    )*};
}
unsigned_field! { u16, U16, 16; u32, U32, 32; }

impl Field for u64 {
    const TYPE: FieldType = FieldType::U64;
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(*self, out);
    }
    #[inline]
    fn get(from: &mut Bytes<'_>) -> Result<Self, WireError> {
        from.varint()
    }
    #[inline]
    fn put_columns(&self, row: &mut RowWriter<'_>) {
        row.int(*self);
    }
    #[inline]
    fn get_columns(row: &mut RowReader<'_, '_>) -> Result<Self, WireError> {
        row.int()
    }
}

impl Field for i64 {
    const TYPE: FieldType = FieldType::I64;
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(zigzag(*self as u64), out);
    }
    #[inline]
    fn get(from: &mut Bytes<'_>) -> Result<Self, WireError> {
        Ok(unzigzag(from.varint()?) as i64)
    }
    #[inline]
    fn put_columns(&self, row: &mut RowWriter<'_>) {
        row.int(zigzag(*self as u64));
    }
    #[inline]
    fn get_columns(row: &mut RowReader<'_, '_>) -> Result<Self, WireError> {
        Ok(unzigzag(row.int()?) as i64)
    }
}

impl Field for bool {
    const TYPE: FieldType = FieldType::Bool;
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    #[inline]
    fn get(from: &mut Bytes<'_>) -> Result<Self, WireError> {
        match from.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(WireError::Bool(other)),
        }
    }
    #[inline]
    fn put_columns(&self, row: &mut RowWriter<'_>) {
        row.int(u64::from(*self));
    }
    #[inline]
    fn get_columns(row: &mut RowReader<'_, '_>) -> Result<Self, WireError> {
        match row.narrow(8)? {
            0u8 => Ok(false),
            1 => Ok(true),
            other => Err(WireError::Bool(other)),
        }
    }
}

impl Field for Vec<u8> {
    const TYPE: FieldType = FieldType::Bytes;
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(self.len() as u64, out);
        out.extend_from_slice(self);
    }
    #[inline]
    fn get(from: &mut Bytes<'_>) -> Result<Self, WireError> {
        Ok(from.counted()?.to_vec())
    }
    fn put_columns(&self, row: &mut RowWriter<'_>) {
        row.bytes(self);
    }
    fn get_columns(row: &mut RowReader<'_, '_>) -> Result<Self, WireError> {
        row.bytes().map(<[u8]>::to_vec)
    }
    fn bulk(&self) -> usize {
        self.len()
    }
}

impl Field for String {
    const TYPE: FieldType = FieldType::Text;
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(self.len() as u64, out);
        out.extend_from_slice(self.as_bytes());
    }
    #[inline]
    fn get(from: &mut Bytes<'_>) -> Result<Self, WireError> {
        let text = std::str::from_utf8(from.counted()?).map_err(|_| WireError::Utf8)?;
        Ok(text.to_owned())
    }
    fn put_columns(&self, row: &mut RowWriter<'_>) {
        row.bytes(self.as_bytes());
    }
    fn get_columns(row: &mut RowReader<'_, '_>) -> Result<Self, WireError> {
        let text = std::str::from_utf8(row.bytes()?).map_err(|_| WireError::Utf8)?;
        Ok(text.to_owned())
    }
    fn bulk(&self) -> usize {
        self.len()
    }
}

macro_rules! words_field {
    ($($count:literal, $name:ident;)*) => {$(
        impl Field for [u64; $count] {
            const TYPE: FieldType = FieldType::$name;
            #[inline]
    fn put(&self, out: &mut Vec<u8>) {
                for word in self {
                    put_varint(*word, out);
                }
            }
            #[inline]
    fn get(from: &mut Bytes<'_>) -> Result<Self, WireError> {
                let mut words = [0; $count];
                for word in &mut words {
                    *word = from.varint()?;
                }
                Ok(words)
            }
            #[inline]
            fn put_columns(&self, row: &mut RowWriter<'_>) {
                for word in self {
                    row.int(*word);
                }
            }
            #[inline]
            fn get_columns(row: &mut RowReader<'_, '_>) -> Result<Self, WireError> {
                let mut words = [0; $count];
                for word in &mut words {
                    *word = row.int()?;
                }
                Ok(words)
            }
        }
    )*};
}
words_field! { 4, Words4; 6, Words6; }

impl Field for Vec<(u8, u64)> {
    const TYPE: FieldType = FieldType::Counts;
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(self.len() as u64, out);
        for (code, count) in self {
            out.push(*code);
            put_varint(*count, out);
        }
    }
    #[inline]
    fn get(from: &mut Bytes<'_>) -> Result<Self, WireError> {
        let pairs = from.varint()?;
        let mut counts = Self::new();
        // Every pair takes at least two bytes, so the loop ends with the input.
        for _ in 0..pairs {
            counts.push((from.byte()?, from.varint()?));
        }
        Ok(counts)
    }
    fn put_columns(&self, row: &mut RowWriter<'_>) {
        let mut bytes = Vec::new();
        self.put(&mut bytes);
        row.bytes(&bytes);
    }
    fn get_columns(row: &mut RowReader<'_, '_>) -> Result<Self, WireError> {
        let mut from = Bytes::new(row.bytes()?);
        let counts = <Self as Field>::get(&mut from)?;
        if from.rest().is_empty() {
            Ok(counts)
        } else {
            Err(WireError::Short)
        }
    }
    fn bulk(&self) -> usize {
        self.len() * 11
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip<T: Field + PartialEq + fmt::Debug + Serialize>(value: T) {
        let mut ours = Vec::new();
        value.put(&mut ours);
        assert_eq!(
            ours,
            postcard::to_stdvec(&value).unwrap(),
            "the encoding is postcard's"
        );
        let mut from = Bytes::new(&ours);
        assert_eq!(T::get(&mut from), Ok(value));
        assert!(from.rest().is_empty());
        let mut from = Bytes::new(&ours);
        assert_eq!(T::TYPE.skip(&mut from), Ok(()));
        assert!(from.rest().is_empty(), "skipping ends where reading does");
        ours.extend_from_slice(&[0xff; 9]);
        let mut from = Bytes::new(&ours);
        assert!(T::get(&mut from).is_ok());
        assert_eq!(from.rest(), [0xff; 9], "what follows is left alone");
        ours.truncate(ours.len() - 9);
        for cut in 0..ours.len() {
            assert!(T::get(&mut Bytes::new(&ours[..cut])).is_err());
        }
    }

    #[test]
    fn edges_are_postcards() {
        for value in [
            0,
            1,
            0x7f,
            0x80,
            0x3fff,
            0x4000,
            u64::from(u32::MAX),
            1 << 63,
            u64::MAX,
        ] {
            round_trip(value);
            round_trip(value as u32);
            round_trip(value as u16);
            round_trip(value as u8);
            round_trip(value as i64);
        }
        round_trip([1, 2, 300, u64::MAX]);
        round_trip([0u64; 6]);
        round_trip(true);
    }

    #[test]
    fn a_wide_varint_is_refused() {
        let mut wide = Vec::new();
        put_varint(0x1_0000, &mut wide);
        assert_eq!(
            u16::get(&mut Bytes::new(&wide)),
            Err(WireError::Overlong { bits: 16 })
        );
    }

    #[test]
    fn a_length_that_is_not_there_allocates_nothing() {
        let mut huge = Vec::new();
        put_varint(u64::MAX / 2, &mut huge);
        assert_eq!(
            Vec::<u8>::get(&mut Bytes::new(&huge)),
            Err(WireError::Short)
        );
        assert_eq!(
            Vec::<(u8, u64)>::get(&mut Bytes::new(&huge)),
            Err(WireError::Short)
        );
        assert_eq!(
            FieldType::Counts.skip(&mut Bytes::new(&huge)),
            Err(WireError::Short)
        );
    }

    #[test]
    fn type_codes_name_themselves() {
        for code in 0..=255 {
            if let Some(field) = FieldType::from_code(code) {
                assert_eq!(field.code(), code);
            }
        }
    }

    proptest! {
        #[test]
        fn any_value_is_postcards(
            number: u64, signed: i64, bytes: Vec<u8>, text: String, counts: Vec<(u8, u64)>,
        ) {
            round_trip(number);
            round_trip(signed);
            round_trip(bytes);
            round_trip(text);
            round_trip(counts);
        }
    }
}
