//! The schema of a file: which codes there are, and what their fields are.
//!
//! Every file carries the schema of the build that wrote it, so that a build which does not know a
//! code can step over its rows, and anything can print them.

use serde::{Deserialize, Serialize};

use crate::event::EventKind;
use crate::input::InputKind;
use crate::wire::{Bytes, FieldType, WireError};

/// Fields that one code may have.
const MAX_FIELDS: usize = 64;
/// In place of a number of fields: the code is not in the schema.
const NO_ROW: u8 = u8::MAX;

/// One code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchemaRow {
    /// The number in the rows.
    pub code: u8,
    /// Its name.
    pub name: String,
    /// The facility it belongs to.
    pub facility: String,
    /// The level from which it is recorded.
    pub level: u8,
    /// Name and type number of each field, in order.
    pub fields: Vec<(String, u8)>,
}

/// The codes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    rows: Vec<SchemaRow>,
    /// Types of the fields by code; `None` for a code without a row.
    fields: Vec<Option<Vec<FieldType>>>,
    /// Number of fields by code, or [`NO_ROW`]: what every row of a chunk asks for.
    lens: Box<[u8; 256]>,
}

/// The fields of a code of this build.
fn known_fields(code: u8) -> Option<&'static [(&'static str, FieldType)]> {
    if let Some(kind) = EventKind::from_code(code) {
        return Some(kind.fields());
    }
    InputKind::from_code(code).map(InputKind::fields)
}

impl Schema {
    /// The schema that this build writes.
    pub fn of_this_build() -> Self {
        let inputs = InputKind::ALL.iter().map(|kind| {
            (
                kind.code(),
                kind.name(),
                kind.facility().name(),
                kind.level(),
                kind.fields(),
            )
        });
        let events = EventKind::ALL.iter().map(|kind| {
            (
                kind.code(),
                kind.name(),
                kind.facility().name(),
                kind.level(),
                kind.fields(),
            )
        });
        let row =
            |(code, name, facility, level, fields): (_, &str, &str, _, &[(&str, FieldType)])| {
                let fields = fields
                    .iter()
                    .map(|(name, ty)| ((*name).to_owned(), ty.code()))
                    .collect();
                SchemaRow {
                    code,
                    name: name.to_owned(),
                    facility: facility.to_owned(),
                    level,
                    fields,
                }
            };
        let rows: Vec<_> = inputs.chain(events).map(row).collect();
        let mut fields = vec![None; 256];
        for row in &rows {
            let types = row
                .fields
                .iter()
                .filter_map(|(_, ty)| FieldType::from_code(*ty))
                .collect();
            fields[usize::from(row.code)] = Some(types);
        }
        Self::new(rows, fields)
    }

    fn new(rows: Vec<SchemaRow>, fields: Vec<Option<Vec<FieldType>>>) -> Self {
        let mut lens = Box::new([NO_ROW; 256]);
        for (len, types) in lens.iter_mut().zip(&fields) {
            *len = types.as_ref().map_or(NO_ROW, |types| types.len() as u8);
        }
        Self { rows, fields, lens }
    }

    /// Reads the body of a schema chunk.
    pub(crate) fn decode(body: &[u8]) -> Result<Self, SchemaError> {
        let rows: Vec<SchemaRow> = postcard::from_bytes(body).map_err(|_| SchemaError::Form)?;
        let mut fields = vec![None; 256];
        for row in &rows {
            if row.fields.len() > MAX_FIELDS {
                return Err(SchemaError::Fields {
                    code: row.code,
                    count: row.fields.len(),
                });
            }
            let types = row.fields.iter().map(|(_, ty)| {
                FieldType::from_code(*ty).ok_or(SchemaError::Wire(WireError::FieldType(*ty)))
            });
            let types = types.collect::<Result<Vec<_>, _>>()?;
            let ours = known_fields(row.code).unwrap_or_default();
            for (field, (theirs, (_, ours))) in types.iter().zip(ours).enumerate() {
                if theirs != ours {
                    let changed = WireError::FieldChanged {
                        code: row.code,
                        field: field as u8,
                    };
                    return Err(SchemaError::Wire(changed));
                }
            }
            fields[usize::from(row.code)] = Some(types);
        }
        Ok(Self::new(rows, fields))
    }

    /// This build's schema with the codes that only `other` has; `None` if `other` gives a code of
    /// this build fields that this build would lose.
    pub(crate) fn merged(&self, other: &Self) -> Option<Self> {
        let mut rows = self.rows.clone();
        let mut fields = self.fields.clone();
        for row in &other.rows {
            let code = usize::from(row.code);
            match (&self.fields[code], &other.fields[code]) {
                (Some(ours), Some(theirs)) if theirs.len() > ours.len() => return None,
                (None, theirs) => {
                    rows.push(row.clone());
                    fields[code].clone_from(theirs);
                }
                _ => {}
            }
        }
        Some(Self::new(rows, fields))
    }

    /// The rows, in the order of the file.
    pub fn rows(&self) -> &[SchemaRow] {
        &self.rows
    }

    /// The name that the file gives a code.
    pub fn name(&self, code: u8) -> Option<&str> {
        self.rows
            .iter()
            .find(|row| row.code == code)
            .map(|row| row.name.as_str())
    }

    /// How many fields a code has in the file.
    #[inline]
    pub(crate) fn field_count(&self, code: u8) -> Result<usize, WireError> {
        match self.lens[usize::from(code)] {
            NO_ROW => Err(WireError::Code(code)),
            len => Ok(usize::from(len)),
        }
    }

    /// The codes there are, and the types of their fields, by code.
    pub(crate) fn codes(&self) -> impl Iterator<Item = (u8, &[FieldType])> {
        let all = (0..=255u8).zip(&self.fields);
        all.filter_map(|(code, fields)| Some((code, fields.as_deref()?)))
    }

    /// The types of the fields of a code.
    pub(crate) fn types(&self, code: u8) -> Result<&[FieldType], WireError> {
        match self.fields.get(usize::from(code)) {
            Some(Some(types)) => Ok(types),
            _ => Err(WireError::Code(code)),
        }
    }

    /// Steps over the fields of a code from field number `from_field` on.
    pub(crate) fn skip_fields(
        &self,
        code: u8,
        from_field: usize,
        from: &mut Bytes<'_>,
    ) -> Result<(), WireError> {
        let types = self.types(code)?.get(from_field..).unwrap_or_default();
        types.iter().try_for_each(|ty| ty.skip(from))
    }
}

/// What is wrong with a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// It is not a postcard list of rows.
    #[error("the schema is not a list of rows")]
    Form,
    /// A code has too many fields.
    #[error("code {code:#04x} has {count} fields, more than {MAX_FIELDS}")]
    Fields {
        /// The code.
        code: u8,
        /// How many.
        count: usize,
    },
    /// A type is unknown, or not the one that was given for ever.
    #[error(transparent)]
    Wire(WireError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;
    use crate::rows::Row;

    fn edited(edit: impl FnOnce(&mut Vec<SchemaRow>)) -> Result<Schema, SchemaError> {
        let mut rows = Schema::of_this_build().rows;
        edit(&mut rows);
        Schema::decode(&postcard::to_stdvec(&rows).unwrap())
    }

    fn get(from: &mut Bytes<'_>, schema: &Schema) -> Result<Event, WireError> {
        let mut event = Event::blank();
        event.get(from, schema).map(|()| event)
    }

    fn row(rows: &mut [SchemaRow], code: u8) -> &mut SchemaRow {
        rows.iter_mut().find(|row| row.code == code).unwrap()
    }

    #[test]
    fn a_schema_reads_back() {
        let schema = Schema::of_this_build();
        assert_eq!(
            Schema::decode(&postcard::to_stdvec(schema.rows()).unwrap()),
            Ok(schema.clone())
        );
        assert_eq!(schema.name(0x20), Some("PassageLeave"));
        assert_eq!(
            schema.rows().len(),
            EventKind::ALL.len() + InputKind::ALL.len()
        );
    }

    #[test]
    fn a_later_field_is_stepped_over() {
        let later = edited(|rows| {
            row(rows, 0x2a)
                .fields
                .push(("why".into(), FieldType::Text.code()))
        });
        let later = later.unwrap();
        let mut from = Bytes::new(b"\x2a\x40\x03odd\x2a\x41\x00");
        assert_eq!(get(&mut from, &later), Ok(Event::IrqEoi { vector: 0x40 }));
        assert_eq!(get(&mut from, &later), Ok(Event::IrqEoi { vector: 0x41 }));
        assert!(from.rest().is_empty());
    }

    #[test]
    fn a_field_that_an_older_file_lacks_is_zero() {
        let older = edited(|rows| row(rows, 0x3d).fields.truncate(1)).unwrap();
        let mut from = Bytes::new(&[0x3d, 60]);
        let event = Event::SyscallExit {
            nr: 60,
            ret: 0,
            insns: 0,
        };
        assert_eq!(get(&mut from, &older), Ok(event));
        assert!(from.rest().is_empty());
    }

    #[test]
    fn a_later_kind_is_kept_as_it_is() {
        let later = edited(|rows| {
            rows.push(SchemaRow {
                code: 0x99,
                name: "Later".into(),
                facility: "later".into(),
                level: 1,
                fields: vec![("a".into(), FieldType::U64.code()), ("b".into(), 7)],
            });
        });
        let bytes = b"\x99\xff\x01\x02hi";
        let mut from = Bytes::new(bytes);
        let event = get(&mut from, &later.unwrap()).unwrap();
        assert_eq!(
            event,
            Event::Unknown {
                code: 0x99,
                body: bytes[1..].to_vec()
            }
        );
        let mut out = Vec::new();
        event.put(&mut out);
        assert_eq!(out, bytes, "an unknown row is written as it was read");
        let ours = Schema::of_this_build();
        assert_eq!(
            get(&mut Bytes::new(bytes), &ours),
            Err(WireError::Code(0x99))
        );
    }

    #[test]
    fn a_changed_field_is_refused() {
        let changed = edited(|rows| row(rows, 0x2a).fields[0].1 = FieldType::Text.code());
        let rule = WireError::FieldChanged {
            code: 0x2a,
            field: 0,
        };
        assert_eq!(changed, Err(SchemaError::Wire(rule)));
        let unknown = edited(|rows| row(rows, 0x2a).fields[0].1 = 200);
        assert_eq!(unknown, Err(SchemaError::Wire(WireError::FieldType(200))));
        assert_eq!(Schema::decode(b"\xff\xff"), Err(SchemaError::Form));
    }
}
