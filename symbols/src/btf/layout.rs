//! The layout of a structure, row by row, as `ptype /o` and pahole show it.

use super::{Btf, Kind, Type, TypeId};

/// One line of a layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutRow {
    /// 0 for members of the structure itself, one more inside of each anonymous member.
    pub depth: u32,
    /// Where it starts, in bits from the start of the structure.
    pub bit_offset: u64,
    /// Its size in bits; 0 for flexible arrays.
    pub bit_size: u64,
    /// A bit field.
    pub is_bitfield: bool,
    /// Its name; empty for anonymous structures and unions, whose members follow.
    pub name: String,
    /// As a C programmer declares it, without the semicolon.
    pub declaration: String,
}

/// Anonymous members inside anonymous members; deeper is a damaged table.
const MAX_DEPTH: u32 = 16;

impl Btf {
    /// The type that a person names: `task_struct`, `struct task_struct`, `u64`.
    pub fn named(&self, name: &str) -> Option<TypeId> {
        const WORDS: [(&str, Kind); 3] = [
            ("struct ", Kind::Struct),
            ("union ", Kind::Union),
            ("enum ", Kind::Enum),
        ];
        let name = name.trim();
        if let Some((word, kind)) = WORDS.iter().find(|(word, _)| name.starts_with(word)) {
            return self.find(*kind, name[word.len()..].trim());
        }
        let kinds = [
            Kind::Struct,
            Kind::Union,
            Kind::Typedef,
            Kind::Enum,
            Kind::Int,
        ];
        kinds.into_iter().find_map(|kind| self.find(kind, name))
    }

    /// The members of a structure or union, those of anonymous members included; none of any other
    /// type.
    pub fn layout(&self, id: TypeId) -> Vec<LayoutRow> {
        let mut rows = Vec::new();
        self.layout_into(id, 0, 0, &mut rows);
        rows
    }

    fn layout_into(&self, id: TypeId, base: u64, depth: u32, rows: &mut Vec<LayoutRow>) {
        let Some(Type::Composite(composite)) = self.get(self.strip(id)) else {
            return;
        };
        for field in composite.fields() {
            let bit_offset = base + u64::from(field.bit_offset);
            let is_bitfield = field.bit_size > 0;
            let bit_size = if is_bitfield {
                u64::from(field.bit_size)
            } else {
                self.size_of(field.ty).unwrap_or(0) * 8
            };
            let mut declaration = self.declare(field.ty, field.name);
            if is_bitfield {
                declaration.push_str(&format!(":{bit_size}"));
            }
            rows.push(LayoutRow {
                depth,
                bit_offset,
                bit_size,
                is_bitfield,
                name: field.name.to_owned(),
                declaration,
            });
            if field.name.is_empty() && depth < MAX_DEPTH {
                self.layout_into(field.ty, bit_offset, depth + 1, rows);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btf::synthetic::Builder;

    #[test]
    fn members_of_anonymous_members_are_listed_with_their_own_places() {
        let mut b = Builder::new();
        let int = b.int("int", 4, 1);
        let char_ = b.int("char", 1, 0);
        let name = b.array(char_, 16);
        let inner = b.composite(5, "", 4, &[("a", int, 0, 0), ("b", int, 0, 0)]);
        b.composite(
            4,
            "thing",
            24,
            &[
                ("first", int, 0, 0),
                ("", inner, 32, 0),
                ("comm", name, 64, 0),
            ],
        );
        let btf = Btf::parse(&b.finish()).expect("types");
        let id = btf.named("struct thing").expect("type");
        assert_eq!(btf.named("thing"), Some(id));
        assert_eq!(btf.named("union thing"), None);
        let rows: Vec<_> = btf
            .layout(id)
            .into_iter()
            .map(|r| (r.depth, r.bit_offset / 8, r.bit_size / 8, r.declaration))
            .collect();
        let expected = [
            (0, 0, 4, "int first"),
            (0, 4, 4, "union {...}"),
            (1, 4, 4, "int a"),
            (1, 4, 4, "int b"),
            (0, 8, 16, "char comm[16]"),
        ];
        let expected = expected.map(|(depth, at, size, text)| (depth, at, size, text.to_owned()));
        assert_eq!(rows, expected);
        assert!(btf.layout(int_id(&btf)).is_empty());
    }

    fn int_id(btf: &Btf) -> TypeId {
        btf.named("int").expect("int")
    }
}
