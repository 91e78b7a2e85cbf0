//! Memory read as a value of one of the kernel's types, in lines.

use colinux_symbols::GuestMemory;
use colinux_symbols::btf::Kind;

use crate::names::{Kernel, Names};

/// What pointers of a printed value are shown with.
struct Context<'a, M>(&'a M, &'a Names);

impl<M: GuestMemory> colinux_symbols::btf::PrintContext for Context<'_, M> {
    fn symbol(&self, gva: u64) -> Option<String> {
        self.1.name(gva)
    }

    fn string(&self, gva: u64, limit: usize) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        let mut one = [0];
        while text.len() < limit {
            if !self.0.read(gva.wrapping_add(text.len() as u64), &mut one) {
                return None;
            }
            if one[0] == 0 {
                break;
            }
            text.push(one[0]);
        }
        Some(text)
    }
}

pub(super) fn typed(
    memory: &impl GuestMemory,
    name: &str,
    at: u64,
    kernel: &Kernel,
    names: &Names,
) -> Result<Vec<String>, String> {
    let tables = kernel.tables.as_ref();
    let btf = tables.and_then(|tables| tables.btf.as_ref());
    let btf = btf.ok_or("the kernel has no types")?;
    let bare = name.trim_start_matches("struct ").trim();
    let kinds = [
        Kind::Struct,
        Kind::Union,
        Kind::Typedef,
        Kind::Int,
        Kind::Enum,
    ];
    let id = kinds.into_iter().find_map(|kind| btf.find(kind, bare));
    let id = id.ok_or_else(|| format!("the kernel has no type `{name}`"))?;
    let size = btf.size_of(id).unwrap_or(0).min(1 << 16);
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    if !memory.read(at, &mut bytes) {
        return Err(format!("{at:#x} is not mapped"));
    }
    Ok(in_lines(&btf.print(id, &bytes, &Context(memory, names))))
}

/// A printed value, a member a line, indented by depth.
fn in_lines(value: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    let (mut depth, mut quoted) = (0usize, false);
    let mut chars = value.chars().peekable();
    let new_line = |lines: &mut Vec<String>, depth: usize| lines.push("  ".repeat(depth));
    while let Some(c) = chars.next() {
        let last = lines.len() - 1;
        match c {
            '"' | '\'' => {
                quoted = !quoted;
                lines[last].push(c);
            }
            '\\' if quoted => {
                lines[last].push(c);
                lines[last].extend(chars.next());
            }
            _ if quoted => lines[last].push(c),
            '{' => {
                lines[last].push(c);
                depth += 1;
                new_line(&mut lines, depth);
            }
            '}' => {
                depth = depth.saturating_sub(1);
                new_line(&mut lines, depth);
                let last = lines.len() - 1;
                lines[last].push(c);
            }
            ',' => {
                lines[last].push(c);
                new_line(&mut lines, depth);
                while chars.peek() == Some(&' ') {
                    chars.next();
                }
            }
            c => lines[last].push(c),
        }
    }
    lines.retain(|line| !line.trim().is_empty());
    lines
}
