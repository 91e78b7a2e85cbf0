//! Types written as in C.

use super::{Btf, Type, TypeId};

/// Nesting beyond which a damaged table is suspected.
const MAX_DEPTH: u32 = 32;

impl Btf {
    /// The type as a C programmer writes it: `struct task_struct *`, `int (*)(void *)`.
    pub fn type_name(&self, id: TypeId) -> String {
        self.declare(id, "")
    }

    /// The declaration of `name` with this type: `char comm[16]`.
    pub fn declare(&self, id: TypeId, name: &str) -> String {
        self.declare_at(id, name.to_owned(), 0)
    }

    fn declare_at(&self, id: TypeId, inner: String, depth: u32) -> String {
        if depth > MAX_DEPTH {
            return "...".to_owned();
        }
        let after = |base: &str| {
            if inner.is_empty() {
                base.to_owned()
            } else {
                format!("{base} {inner}")
            }
        };
        let tagged = |word: &str, tag: &str| {
            after(&format!(
                "{word} {}",
                if tag.is_empty() { "{...}" } else { tag }
            ))
        };
        match self.get(id) {
            Some(Type::Void) => after("void"),
            Some(Type::Int(int)) => after(int.name),
            Some(Type::Float(name, _) | Type::Typedef(name, _)) => after(name),
            Some(Type::Composite(c)) => tagged(if c.is_union { "union" } else { "struct" }, c.name),
            Some(Type::Forward(name, union)) => {
                tagged(if union { "union" } else { "struct" }, name)
            }
            Some(Type::Enum(e)) => tagged("enum", e.name),
            Some(Type::Ptr(to)) => {
                let star = format!("*{inner}");
                let grouped = matches!(self.get(to), Some(Type::Array(..) | Type::FuncProto(..)));
                let inner = if grouped { format!("({star})") } else { star };
                self.declare_at(to, inner, depth + 1)
            }
            Some(Type::Array(element, count)) => {
                self.declare_at(element, format!("{inner}[{count}]"), depth + 1)
            }
            Some(Type::FuncProto(result, params)) => {
                let mut list: Vec<String> = params
                    .iter()
                    .map(|(_, ty)| match ty {
                        TypeId(0) => "...".to_owned(),
                        _ => self.declare_at(ty, String::new(), depth + 1),
                    })
                    .collect();
                if list.is_empty() {
                    list.push("void".to_owned());
                }
                self.declare_at(result, format!("{inner}({})", list.join(", ")), depth + 1)
            }
            Some(Type::Modifier("", to)) => self.declare_at(to, inner, depth + 1),
            Some(Type::Modifier(word, to)) if matches!(self.get(to), Some(Type::Ptr(_))) => {
                let gap = if inner.is_empty() { "" } else { " " };
                self.declare_at(to, format!(" {word}{gap}{inner}"), depth + 1)
            }
            Some(Type::Modifier(word, to)) => {
                format!("{word} {}", self.declare_at(to, inner, depth + 1))
            }
            Some(Type::Func(name, proto)) => self.declare_at(proto, name.to_owned(), depth + 1),
            Some(Type::Var(name, ty)) => self.declare_at(ty, name.to_owned(), depth + 1),
            Some(Type::Other) | None => after(&format!("<type {}>", id.0)),
        }
    }
}
