//! What a person asks to see, in the C of a debugger: `init_task.comm`, `(task_struct)0xffff…`,
//! `current->mm->pgd`, `*modules.next`.
//!
//! `[*] [(TYPE)] NAME|ADDRESS { .MEMBER | ->MEMBER | [INDEX] }`. Types are those of the kernel's own
//! table. A cast says of what type the thing *at* the place is, as `{TYPE}PLACE` does in gdb.

use crate::addr::{GuestMemory, Gva, ReadExt};
use crate::btf::{Btf, Member, PrintContext, Type, TypeId};

/// Where a name is and of what type, as far as that is known.
pub trait Names {
    /// The address of a variable.
    fn address(&self, name: &str) -> Option<Gva>;
    /// Its type.
    fn type_of(&self, name: &str) -> Option<TypeId>;
}

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExprError {
    /// Not the grammar.
    #[error("`{0}` cannot be read from here on; write [*][(TYPE)]NAME.MEMBER->MEMBER[INDEX]")]
    Grammar(String),
    /// No such variable.
    #[error("no symbol is called `{0}`")]
    NoName(String),
    /// Nothing says its type.
    #[error("the type of `{0}` is not known here; say it, as in (task_struct){0}")]
    NoTypeOf(String),
    /// No such type.
    #[error("the kernel's type table has no type `{0}`")]
    NoType(String),
    /// No such member.
    #[error("`{container}` has no member {member}")]
    NoMember {
        /// Of what.
        container: String,
        /// Which.
        member: String,
    },
    /// `->` or `*` on something else.
    #[error("`{0}` is no pointer")]
    NoPointer(String),
    /// Not in memory.
    #[error("the guest has nothing mapped at {0}")]
    Unmapped(Gva),
    /// A type without a size, or larger than any structure.
    #[error("a `{0}` cannot be shown")]
    NoSize(String),
}

/// A place in the guest, and the type of what is there.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Where it is.
    pub gva: Gva,
    /// Its type.
    pub ty: TypeId,
    /// For a bit field: the first bit and the number of bits.
    bits: Option<(u64, u32)>,
}

/// No structure of a kernel is larger; arrays are cut when they are printed.
const MAX_BYTES: u64 = 1 << 20;

/// The place that an expression names.
pub fn evaluate<M: GuestMemory + ?Sized>(
    text: &str,
    btf: &Btf,
    names: &dyn Names,
    memory: &M,
) -> Result<Place, ExprError> {
    let text = text.trim();
    if let Some(inner) = text.strip_prefix('*') {
        return follow(evaluate(inner, btf, names, memory)?, btf, memory);
    }
    let grammar = |rest: &str| ExprError::Grammar(rest.to_owned());
    let (cast, rest) = match text.strip_prefix('(') {
        Some(inner) => {
            let (name, rest) = inner.split_once(')').ok_or_else(|| grammar(text))?;
            let ty = btf
                .named(name)
                .ok_or_else(|| ExprError::NoType(name.to_owned()))?;
            (Some(ty), rest.trim_start())
        }
        None => (None, text),
    };
    let (base, mut rest) = word(rest);
    let number = base
        .strip_prefix("0x")
        .map(|hex| u64::from_str_radix(hex, 16));
    let gva = match number {
        Some(number) => Gva(number.map_err(|_| grammar(base))?),
        None if base.is_empty() => return Err(grammar(rest)),
        None => names
            .address(base)
            .ok_or_else(|| ExprError::NoName(base.to_owned()))?,
    };
    let ty = cast.or_else(|| names.type_of(base));
    let ty = ty.ok_or_else(|| ExprError::NoTypeOf(base.to_owned()))?;
    let mut place = Place {
        gva,
        ty,
        bits: None,
    };
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("->") {
            place = follow(place, btf, memory)?;
            let (name, after) = word(after);
            (place, rest) = (member(place, name, btf)?, after);
        } else if let Some(after) = rest.strip_prefix('.') {
            let (name, after) = word(after);
            // As gdb has it.
            if matches!(btf.get(btf.strip(place.ty)), Some(Type::Ptr(_))) {
                place = follow(place, btf, memory)?;
            }
            (place, rest) = (member(place, name, btf)?, after);
        } else if let Some(after) = rest.strip_prefix('[') {
            let (index, after) = after.split_once(']').ok_or_else(|| grammar(rest))?;
            let index = index.trim().parse().map_err(|_| grammar(rest))?;
            (place, rest) = (element(place, index, btf, memory)?, after);
        } else {
            return Err(grammar(rest));
        }
    }
    Ok(place)
}

/// A name or number, and what follows.
fn word(text: &str) -> (&str, &str) {
    let is_in = |c: char| c.is_alphanumeric() || c == '_';
    text.split_at(text.find(|c| !is_in(c)).unwrap_or(text.len()))
}

fn member(place: Place, name: &str, btf: &Btf) -> Result<Place, ExprError> {
    let found = btf.member_of(place.ty, name);
    let Member {
        bit_offset,
        bit_size,
        ty,
        is_bitfield,
    } = found.map_err(|_| ExprError::NoMember {
        container: btf.type_name(place.ty),
        member: name.to_owned(),
    })?;
    Ok(Place {
        gva: place.gva.plus(bit_offset / 8),
        ty,
        bits: is_bitfield.then_some((bit_offset % 8, bit_size as u32)),
    })
}

/// What a pointer points to.
fn follow<M: GuestMemory + ?Sized>(
    place: Place,
    btf: &Btf,
    memory: &M,
) -> Result<Place, ExprError> {
    let Some(Type::Ptr(to)) = btf.get(btf.strip(place.ty)) else {
        return Err(ExprError::NoPointer(btf.type_name(place.ty)));
    };
    let at = memory
        .u64_at(place.gva.0)
        .ok_or(ExprError::Unmapped(place.gva))?;
    Ok(Place {
        gva: Gva(at),
        ty: to,
        bits: None,
    })
}

fn element<M: GuestMemory + ?Sized>(
    place: Place,
    index: u64,
    btf: &Btf,
    memory: &M,
) -> Result<Place, ExprError> {
    let (start, ty) = match btf.get(btf.strip(place.ty)) {
        Some(Type::Array(element, _)) => (place.gva, element),
        _ => {
            let first = follow(place, btf, memory)?;
            (first.gva, first.ty)
        }
    };
    let size = btf
        .size_of(ty)
        .ok_or_else(|| ExprError::NoSize(btf.type_name(ty)))?;
    Ok(Place {
        gva: start.plus(index.wrapping_mul(size)),
        ty,
        bits: None,
    })
}

/// The value at a place, as gdb writes it.
pub fn show<M: GuestMemory + ?Sized>(
    place: &Place,
    btf: &Btf,
    memory: &M,
    context: &dyn PrintContext,
) -> Result<String, ExprError> {
    let size = match place.bits {
        Some((first, count)) => (first + u64::from(count)).div_ceil(8),
        None => btf.size_of(place.ty).unwrap_or(0),
    };
    if size == 0 || size > MAX_BYTES {
        return Err(ExprError::NoSize(btf.type_name(place.ty)));
    }
    let bytes = memory.bytes_at(place.gva.0, size as usize);
    let bytes = bytes.ok_or(ExprError::Unmapped(place.gva))?;
    Ok(match place.bits {
        None => btf.print(place.ty, &bytes, context),
        Some((first, count)) => {
            let signed = match btf.get(btf.strip(place.ty)) {
                Some(Type::Int(int)) => int.signed,
                Some(Type::Enum(e)) => e.signed,
                _ => false,
            };
            // A bit field is shown as a number of its type that has just these bits.
            let value = btf.bits(&bytes, first, count, signed).unwrap_or_default();
            btf.print(place.ty, &value.to_le_bytes(), context)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btf::NoContext;
    use crate::btf::synthetic::Builder;
    use crate::memory::SparseMemory;

    struct Known(TypeId);

    impl Names for Known {
        fn address(&self, name: &str) -> Option<Gva> {
            ["thing", "other"].contains(&name).then_some(Gva(0x1000))
        }
        fn type_of(&self, name: &str) -> Option<TypeId> {
            (name == "thing").then_some(self.0)
        }
    }

    #[test]
    fn expressions_lead_through_members_pointers_and_arrays() {
        let mut b = Builder::new();
        let int = b.int("int", 4, 1);
        let row = b.array(int, 4);
        let inner = b.composite(4, "inner", 16, &[("row", row, 0, 0)]);
        let pointer = b.ptr(inner);
        let members = [
            ("n", int, 0, 0),
            ("to", pointer, 64, 0),
            ("flag", int, 128, 3),
        ];
        let thing = b.composite(4, "thing", 24, &members);
        let btf = Btf::parse(&b.finish()).expect("types");
        let names = Known(TypeId(thing));
        let mut m = SparseMemory::default();
        m.put(0x1000, &[0; 24]);
        m.put(0x1000, &7u32.to_le_bytes());
        m.put_u64(0x1008, 0x2000);
        m.put(0x1010, &[0b101]);
        for i in 0..4u32 {
            m.put(0x2000 + u64::from(i) * 4, &(10 * i).to_le_bytes());
        }
        let ask = |text: &str| {
            let place = evaluate(text, &btf, &names, &m).map_err(|e| e.to_string())?;
            show(&place, &btf, &m, &NoContext).map_err(|e| e.to_string())
        };
        for (text, value) in [
            ("thing.n", "7"),
            ("thing.to->row[2]", "20"),
            ("thing.to.row[1]", "10"),
            ("thing.to[0].row[3]", "30"),
            ("*thing.to", "{row = {0, 10, 20, 30}}"),
            ("(inner)0x2000.row", "{0, 10, 20, 30}"),
            ("(struct thing)other.n", "7"),
            ("thing.flag", "-3"),
        ] {
            assert_eq!(ask(text).as_deref(), Ok(value), "{text}");
        }
        for (text, sentence) in [
            (
                "other.n",
                "the type of `other` is not known here; say it, as in (task_struct)other",
            ),
            ("nothing", "no symbol is called `nothing`"),
            ("thing.m", "`struct thing` has no member m"),
            ("thing.n->x", "`int` is no pointer"),
            ("(what)thing", "the kernel's type table has no type `what`"),
            ("(inner)0x9000", "the guest has nothing mapped at 0x9000"),
        ] {
            assert_eq!(ask(text), Err(sentence.to_owned()));
        }
        assert!(
            ask("thing.n +").is_err_and(|e| e.contains("`+` cannot be read") || e.contains("` +`"))
        );
        assert!(ask("").is_err());
    }
}
