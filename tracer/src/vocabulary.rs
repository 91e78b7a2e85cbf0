//! The macro that makes a vocabulary from one table: the rows' types, their codes, names, facilities
//! and levels, and both directions of the encoding.

/// Makes an enum of rows and an enum of their kinds.
///
/// Each row of the table reads `CODE facility LEVEL Name { field: Type, … }`. Codes are never reused;
/// fields are only ever appended.
macro_rules! vocabulary {
    (
        $(#[$row_doc:meta])* $Row:ident,
        $(#[$kind_doc:meta])* $Kind:ident {
            $(
                $(#[$doc:meta])*
                $code:literal $facility:ident $level:literal $name:ident {
                    $( $(#[$field_doc:meta])* $field:ident: $type:ty, )*
                }
            )*
        }
    ) => {
        $(#[$row_doc])*
        #[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub enum $Row {
            $(
                $(#[$doc])*
                $name {
                    $( $(#[$field_doc])* $field: $type, )*
                },
            )*
            /// A row of a later build: its code, and the bytes of its fields.
            Unknown {
                /// Its code.
                code: u8,
                /// Its fields, as they are in the file.
                body: Vec<u8>,
            },
        }

        $(#[$kind_doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord,
            serde::Serialize, serde::Deserialize,
        )]
        #[repr(u8)]
        pub enum $Kind {
            /// A kind of a later build. Never in a file under this number.
            Unknown = 0,
            $( $(#[$doc])* $name = $code, )*
        }

        impl $Kind {
            /// Every kind of this build, by code.
            pub const ALL: &'static [Self] = &[$( Self::$name, )*];

            /// The number in the file.
            #[inline]
            pub const fn code(self) -> u8 {
                self as u8
            }

            /// The kind with this number.
            pub const fn from_code(code: u8) -> Option<Self> {
                match code {
                    $( $code => Some(Self::$name), )*
                    _ => None,
                }
            }

            /// The name.
            pub const fn name(self) -> &'static str {
                match self {
                    Self::Unknown => "Unknown",
                    $( Self::$name => stringify!($name), )*
                }
            }

            /// The kind with this name, in any case of letters.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|kind| kind.name().eq_ignore_ascii_case(name))
            }

            /// The facility it belongs to.
            pub const fn facility(self) -> $crate::facility::Facility {
                match self {
                    Self::Unknown => $crate::facility::Facility::Meta,
                    $( Self::$name => $crate::facility::Facility::$facility, )*
                }
            }

            /// The level of its facility from which it is recorded.
            pub const fn level(self) -> u8 {
                match self {
                    Self::Unknown => 0,
                    $( Self::$name => $level, )*
                }
            }

            /// Names and types of its fields, in the order of the file.
            pub const fn fields(self) -> &'static [(&'static str, $crate::wire::FieldType)] {
                match self {
                    Self::Unknown => &[],
                    $( Self::$name => &[
                        $( (
                            stringify!($field),
                            <$type as $crate::wire::Field>::TYPE,
                        ), )*
                    ], )*
                }
            }
        }

        impl std::fmt::Display for $Kind {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl $Row {
            /// Its kind.
            #[inline]
            pub const fn kind(&self) -> $Kind {
                match self {
                    $( Self::$name { .. } => $Kind::$name, )*
                    Self::Unknown { .. } => $Kind::Unknown,
                }
            }
        }

        impl $crate::rows::Row for $Row {
            fn code(&self) -> u8 {
                match self {
                    Self::Unknown { code, .. } => *code,
                    known => known.kind().code(),
                }
            }

            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $( Self::$name { $( $field, )* } => {
                        out.push($code);
                        $( $crate::wire::Field::put($field, out); )*
                    } )*
                    Self::Unknown { code, body } => {
                        out.push(*code);
                        out.extend_from_slice(body);
                    }
                }
            }

            fn put_columns(&self, row: &mut $crate::columns::RowWriter<'_>) {
                match self {
                    $( Self::$name { $( $field, )* } => {
                        $( $crate::wire::Field::put_columns($field, row); )*
                    } )*
                    Self::Unknown { body, .. } => row.row_form(body),
                }
            }

            fn bulk(&self) -> usize {
                match self {
                    $( Self::$name { $( $field, )* } => {
                        0 $( + $crate::wire::Field::bulk($field) )*
                    } )*
                    Self::Unknown { body, .. } => body.len(),
                }
            }

            #[inline]
            fn weight(&self) -> usize {
                match self {
                    $( Self::$name { $( $field, )* } => {
                        2 $( + 2 * <$type as $crate::wire::Field>::TYPE.columns() )*
                            $( + $crate::wire::Field::bulk($field) )*
                    } )*
                    Self::Unknown { body, .. } => 2 + body.len(),
                }
            }

            fn blank() -> Self {
                Self::Unknown { code: 0, body: Vec::new() }
            }

            fn get(
                &mut self,
                from: &mut $crate::wire::Bytes<'_>,
                schema: &$crate::schema::Schema,
            ) -> Result<(), $crate::wire::WireError> {
                let code = from.byte()?;
                match code {
                    $( $code => {
                        let fields = schema.field_count(code)?;
                        let mut at = 0;
                        // Fields that an older file lacks get their default; see `FORMAT.md`.
                        $(
                            let $field: $type = if at < fields {
                                at += 1;
                                $crate::wire::Field::get(from)?
                            } else {
                                Default::default()
                            };
                        )*
                        if at < fields {
                            schema.skip_fields(code, at, from)?;
                        }
                        *self = Self::$name { $( $field, )* };
                    } )*
                    _ => {
                        let start = from.rest();
                        schema.skip_fields(code, 0, from)?;
                        let body = &start[..start.len() - from.rest().len()];
                        *self = Self::Unknown { code, body: body.to_vec() };
                    }
                }
                Ok(())
            }

            fn get_columns(
                &mut self,
                row: &mut $crate::table::RowReader<'_, '_>,
            ) -> Result<(), $crate::wire::WireError> {
                let code = row.code();
                match code {
                    $( $code => {
                        let fields = row.fields();
                        let mut at = 0;
                        $(
                            let $field: $type = if at < fields {
                                at += 1;
                                $crate::wire::Field::get_columns(row)?
                            } else {
                                Default::default()
                            };
                        )*
                        row.skip_fields(at)?;
                        *self = Self::$name { $( $field, )* };
                    } )*
                    _ => *self = Self::Unknown { code, body: row.row_form()? },
                }
                Ok(())
            }
        }
    };
}

pub(crate) use vocabulary;
