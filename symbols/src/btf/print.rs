//! Values written as gdb writes them: `{pid = 1, comm = "init", '\000' <repeats 11 times>}`.

use std::fmt::Write;

use super::{Btf, Composite, Enumeration, Field, Int, Type, TypeId};
use crate::bytes::LeBytes;

/// What pointers can be shown with.
pub trait PrintContext {
    /// `symbol+offset` of an address, for code and data pointers.
    fn symbol(&self, gva: u64) -> Option<String>;
    /// The bytes of the string at an address, without its NUL and at most `limit` of them.
    fn string(&self, gva: u64, limit: usize) -> Option<Vec<u8>>;
}

/// Pointers are shown as numbers only.
#[derive(Clone, Copy, Debug)]
pub struct NoContext;

impl PrintContext for NoContext {
    fn symbol(&self, _: u64) -> Option<String> {
        None
    }

    fn string(&self, _: u64, _: usize) -> Option<Vec<u8>> {
        None
    }
}

/// gdb's `print elements`.
const MAX_ELEMENTS: usize = 200;
/// gdb's `print repeats`.
const REPEATS: usize = 10;
/// gdb's `print max-depth`.
const MAX_DEPTH: u32 = 20;
/// A value of a damaged table could be endless; no kernel structure comes near.
const MAX_TEXT: usize = 1 << 20;

impl Btf {
    /// The value of type `id` whose bytes are given, in gdb's notation.
    pub fn print(&self, id: TypeId, bytes: &[u8], context: &dyn PrintContext) -> String {
        let mut printer = Printer {
            btf: self,
            context,
            out: String::new(),
        };
        printer.value(id, bytes, 0);
        printer.out
    }

    /// A pointer to a value of type `to`: the table need not have the type of the pointer itself.
    pub fn print_pointer(&self, to: TypeId, value: u64, context: &dyn PrintContext) -> String {
        let mut printer = Printer {
            btf: self,
            context,
            out: String::new(),
        };
        printer.pointer(to, value);
        printer.out
    }

    /// The number in a bit field (`field` of a structure whose bytes are given).
    pub fn bits(&self, bytes: &[u8], bit_offset: u64, bit_size: u32, signed: bool) -> Option<i64> {
        read_bits(bytes, bit_offset, bit_size, signed)
    }
}

/// Bits `bit_offset..+bit_size`, least significant first, sign-extended when `signed`.
fn read_bits(bytes: &[u8], bit_offset: u64, bit_size: u32, signed: bool) -> Option<i64> {
    if bit_size == 0 || bit_size > 64 {
        return None;
    }
    let first = usize::try_from(bit_offset / 8).ok()?;
    let shift = (bit_offset % 8) as u32;
    let count = (shift + bit_size).div_ceil(8) as usize;
    let mut wide = [0u8; 16];
    wide[..count].copy_from_slice(bytes.get(first..first.checked_add(count)?)?);
    let low = (u128::from_le_bytes(wide) >> shift) as u64;
    let unused = 64 - bit_size;
    let up = low << unused;
    Some(if signed {
        (up as i64) >> unused
    } else {
        (up >> unused) as i64
    })
}

struct Printer<'p> {
    btf: &'p Btf,
    context: &'p dyn PrintContext,
    out: String,
}

impl Printer<'_> {
    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.out.write_fmt(text);
    }

    fn value(&mut self, id: TypeId, bytes: &[u8], depth: u32) {
        if self.out.len() > MAX_TEXT {
            self.out.push_str("...");
            return;
        }
        let id = self.btf.strip(id);
        let short = self
            .btf
            .size_of(id)
            .is_some_and(|size| (bytes.len() as u64) < size);
        match self.btf.get(id) {
            _ if short => self.out.push_str("<cut off>"),
            Some(Type::Int(int)) => match read_bits(bytes, 0, int.size * 8, int.signed) {
                Some(value) => self.int(int, value),
                None => self.hex(bytes, int.size as usize),
            },
            Some(Type::Enum(e)) => {
                let value = read_bits(bytes, 0, e.size * 8, e.signed).unwrap_or_default();
                self.enumerator(e, value);
            }
            Some(Type::Float(_, 4)) => {
                let value = f32::from_bits(bytes.le_u32(0).unwrap_or_default());
                self.put(format_args!("{value}"));
            }
            Some(Type::Float(_, 8)) => {
                let value = f64::from_bits(bytes.le_u64(0).unwrap_or_default());
                self.put(format_args!("{value}"));
            }
            Some(Type::Float(_, size)) => self.hex(bytes, size as usize),
            Some(Type::Ptr(to)) => self.pointer(to, bytes.le_u64(0).unwrap_or_default()),
            Some(Type::Composite(_) | Type::Array(..)) if depth >= MAX_DEPTH => {
                self.out.push_str("{...}");
            }
            Some(Type::Composite(c)) => self.composite(c, bytes, depth),
            Some(Type::Array(element, count)) => self.array(element, count, bytes, depth),
            Some(Type::Void) => self.out.push_str("void"),
            Some(Type::Forward(..)) => self.out.push_str("<incomplete type>"),
            _ => self.out.push_str("<no value>"),
        }
    }

    /// Numbers wider than 64 bits, as gdb prints `__int128`.
    fn hex(&mut self, bytes: &[u8], size: usize) {
        let digits: String = bytes
            .iter()
            .take(size)
            .rev()
            .map(|b| format!("{b:02x}"))
            .collect();
        let digits = digits.trim_start_matches('0');
        self.put(format_args!(
            "0x{}",
            if digits.is_empty() { "0" } else { digits }
        ));
    }

    fn int(&mut self, int: Int<'_>, value: i64) {
        if int.is_bool || int.name == "_Bool" {
            match value {
                0 => self.out.push_str("false"),
                1 => self.out.push_str("true"),
                other => self.put(format_args!("{other}")),
            }
        } else if int.signed {
            self.put(format_args!("{value}"));
        } else {
            self.put(format_args!("{}", value as u64));
        }
        if is_char(int) {
            self.out.push_str(" '");
            self.character(value as u8, '\'');
            self.out.push('\'');
        }
    }

    fn enumerator(&mut self, e: Enumeration<'_>, value: i64) {
        if let Some((name, _)) = e.values().find(|v| v.1 == value) {
            self.out.push_str(name);
            return;
        }
        // gdb's "flag enum": every value has its own bits.
        let mut all = 0i64;
        let disjoint = e.values().filter(|v| v.1 != 0).all(|(_, v)| {
            let fresh = v > 0 && all & v == 0 && is_run_of_bits(v);
            all |= v;
            fresh
        });
        if !disjoint || value == 0 || all == 0 {
            self.put(format_args!("{value}"));
            return;
        }
        let mut names: Vec<String> = e
            .values()
            .filter(|v| v.1 & value != 0)
            .map(|v| v.0.to_owned())
            .collect();
        if value & !all != 0 {
            names.push(format!("unknown: {:#x}", value & !all));
        }
        self.put(format_args!("({})", names.join(" | ")));
    }

    fn pointer(&mut self, to: TypeId, value: u64) {
        self.put(format_args!("{value:#x}"));
        let target = self.btf.get(self.btf.strip(to));
        match target {
            _ if value == 0 => {}
            Some(Type::Int(int)) if is_char(int) => {
                if let Some(text) = self.context.string(value, MAX_ELEMENTS) {
                    self.out.push(' ');
                    self.string(&text, text.len() == MAX_ELEMENTS);
                }
            }
            _ => {
                if let Some(symbol) = self.context.symbol(value) {
                    self.put(format_args!(" <{symbol}>"));
                }
            }
        }
    }

    fn composite(&mut self, composite: Composite<'_>, bytes: &[u8], depth: u32) {
        self.out.push('{');
        for (i, field) in composite.fields().enumerate() {
            if i > 0 {
                self.out.push_str(", ");
            }
            if !field.name.is_empty() {
                self.put(format_args!("{} = ", field.name));
            }
            self.field(field, bytes, depth);
        }
        self.out.push('}');
    }

    fn field(&mut self, field: Field<'_>, bytes: &[u8], depth: u32) {
        if field.bit_size == 0 {
            let rest = bytes
                .get((field.bit_offset / 8) as usize..)
                .unwrap_or_default();
            self.value(field.ty, rest, depth + 1);
            return;
        }
        let (offset, size) = (u64::from(field.bit_offset), field.bit_size);
        let read = |signed| read_bits(bytes, offset, size, signed);
        match self.btf.get(self.btf.strip(field.ty)) {
            Some(Type::Int(int)) => match read(int.signed && !int.is_bool) {
                Some(value) => self.int(int, value),
                None => self.out.push_str("<cut off>"),
            },
            Some(Type::Enum(e)) => match read(e.signed) {
                Some(value) => self.enumerator(e, value),
                None => self.out.push_str("<cut off>"),
            },
            _ => self.out.push_str("<no value>"),
        }
    }

    fn array(&mut self, element: TypeId, count: u32, bytes: &[u8], depth: u32) {
        let count = count as usize;
        let inner = self.btf.strip(element);
        if let Some(Type::Int(int)) = self.btf.get(inner)
            && is_char(int)
        {
            let mut text = bytes.get(..count).unwrap_or(bytes);
            let cut = text.len() > MAX_ELEMENTS;
            // One trailing NUL goes without saying.
            if !cut && let [head @ .., 0] = text {
                text = head;
            }
            self.string(&text[..text.len().min(MAX_ELEMENTS)], cut);
            return;
        }
        let size = self
            .btf
            .size_of(element)
            .and_then(|s| usize::try_from(s).ok())
            .unwrap_or(0);
        let piece = |i: usize| {
            let from = i.checked_mul(size)?;
            bytes.get(from..from.checked_add(size)?)
        };
        self.out.push('{');
        let (mut i, mut shown) = (0, 0);
        while i < count && shown < MAX_ELEMENTS {
            let Some(this) = piece(i) else { break };
            if i > 0 {
                self.out.push_str(", ");
            }
            let mut same = 1;
            while i + same < count && size > 0 && piece(i + same) == Some(this) {
                same += 1;
            }
            self.value(element, this, depth + 1);
            if same > REPEATS {
                self.put(format_args!(" <repeats {same} times>"));
                i += same;
                shown += REPEATS;
            } else {
                i += 1;
                shown += 1;
            }
        }
        if i < count && i > 0 {
            self.out.push_str("...");
        }
        self.out.push('}');
    }

    /// A string; runs of more than ten equal characters stand apart.
    fn string(&mut self, text: &[u8], cut: bool) {
        if text.is_empty() {
            self.out.push_str("\"\"");
        }
        let (mut i, mut open) = (0, false);
        while let Some(&c) = text.get(i) {
            let same = text[i..].iter().take_while(|b| **b == c).count();
            if same > REPEATS {
                self.out.push_str(if open {
                    "\", '"
                } else if i > 0 {
                    ", '"
                } else {
                    "'"
                });
                self.character(c, '\'');
                self.put(format_args!("' <repeats {same} times>"));
                (i, open) = (i + same, false);
            } else {
                if !open {
                    self.out.push_str(if i > 0 { ", \"" } else { "\"" });
                    open = true;
                }
                self.character(c, '"');
                i += 1;
            }
        }
        if open {
            self.out.push('"');
        }
        if cut {
            self.out.push_str("...");
        }
    }

    fn character(&mut self, c: u8, quote: char) {
        match c {
            b'\n' => self.out.push_str("\\n"),
            b'\t' => self.out.push_str("\\t"),
            b'\r' => self.out.push_str("\\r"),
            7 => self.out.push_str("\\a"),
            8 => self.out.push_str("\\b"),
            11 => self.out.push_str("\\v"),
            12 => self.out.push_str("\\f"),
            27 => self.out.push_str("\\033"),
            b'\\' => self.out.push_str("\\\\"),
            _ if char::from(c) == quote => self.put(format_args!("\\{quote}")),
            b' '..=b'~' => self.out.push(char::from(c)),
            _ => self.put(format_args!("\\{c:03o}")),
        }
    }
}

/// BTF of the kernel does not mark characters; their name does.
fn is_char(int: Int<'_>) -> bool {
    int.size == 1 && !int.is_bool && (int.is_char || int.name.contains("char"))
}

const fn is_run_of_bits(v: i64) -> bool {
    let v = v as u64;
    let shifted = v >> v.trailing_zeros();
    shifted & shifted.wrapping_add(1) == 0
}
