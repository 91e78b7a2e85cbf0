//! A symbol file for gdb where there is no vmlinux: the names the kernel carries itself, with those of
//! its modules, as the symbol table of an ELF file that has nothing else.

use colinux_symbols::Resolver;

/// A symbol: name, address, and whether it is code.
struct Symbol<'a>(&'a str, u64, bool);

const SHF_ALLOC_EXEC: u64 = 2 | 4;
const SHT_NULL: u32 = 0;
const SHT_SYMTAB: u32 = 2;
const SHT_STRTAB: u32 = 3;
const SHT_NOBITS: u32 = 8;
/// Section numbers.
const KERNEL: u16 = 1;
const MODULES: u16 = 2;
const STRINGS: u32 = 4;
const ABSOLUTE: u16 = 0xfff1;
const EHDR: usize = 64;
const SHDR: usize = 64;

fn symbols(names: &Resolver) -> Vec<Symbol<'_>> {
    let mut found = Vec::new();
    if let Some(all) = names.names() {
        let linked = all.address_of("_text").map_or(0, |at| at.0);
        let runs = names.address_of("_text").map_or(linked, |at| at.0);
        // Per-CPU offsets say nothing to gdb.
        let kernel = all.iter().filter(|entry| entry.addr.0 >> 63 == 1);
        found.extend(kernel.map(|entry| {
            let at = entry.addr.0.wrapping_add(runs).wrapping_sub(linked);
            Symbol(entry.name, at, entry.is_text())
        }));
    }
    let modules = names.modules().iter().flat_map(|module| &module.symbols);
    found.extend(modules.map(|symbol| Symbol(&symbol.name, symbol.gva.0, true)));
    found
}

/// First address and length of the code in a range.
fn span(all: &[Symbol<'_>], inside: impl Fn(u64) -> bool) -> (u64, u64) {
    let code = all.iter().filter(|s| s.2 && inside(s.1)).map(|s| s.1);
    let (low, high) = code.fold((u64::MAX, 0), |(low, high), at| (low.min(at), high.max(at)));
    if low > high {
        (0, 0)
    } else {
        (low, high - low + 4096)
    }
}

/// The file; `None` where there are no names.
pub(super) fn symbol_file(names: &Resolver) -> Option<Vec<u8>> {
    let all = symbols(names);
    if all.is_empty() {
        return None;
    }
    let is_module = |at: u64| {
        names
            .modules()
            .iter()
            .any(|m| m.contains(colinux_symbols::Gva(at)))
    };
    let kernel = span(&all, |at| !is_module(at));
    let modules = span(&all, is_module);
    let mut strings = vec![0];
    let mut table = vec![0; 24];
    for Symbol(name, address, is_code) in &all {
        let section = match (is_code, is_module(*address)) {
            (false, _) => ABSOLUTE,
            (true, false) => KERNEL,
            (true, true) => MODULES,
        };
        table.extend((strings.len() as u32).to_le_bytes());
        // Global; a function or an object.
        table.push(1 << 4 | if *is_code { 2 } else { 1 });
        table.push(0);
        table.extend(section.to_le_bytes());
        table.extend(address.to_le_bytes());
        table.extend(0u64.to_le_bytes());
        strings.extend(name.bytes().filter(|byte| *byte != 0));
        strings.push(0);
    }
    let section_names = b"\0.text\0.modules\0.symtab\0.strtab\0";
    let strings_at = EHDR + table.len();
    let names_at = strings_at + strings.len();
    let headers_at = (names_at + section_names.len()).next_multiple_of(8);

    let mut file = Vec::with_capacity(headers_at + 6 * SHDR);
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    // ET_EXEC for x86-64, version 1, no entry, no program headers.
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    file.extend([0; 16]);
    file.extend((headers_at as u64).to_le_bytes());
    file.extend([0; 4]);
    for word in [EHDR as u16, 0, 0, SHDR as u16, 6, 5] {
        file.extend(word.to_le_bytes());
    }
    file.extend(&table);
    file.extend(&strings);
    file.extend(section_names);
    file.resize(headers_at, 0);
    let mut section = |name: u32,
                       kind: u32,
                       flags: u64,
                       at: u64,
                       file_at: usize,
                       len: u64,
                       link: u32,
                       entry: u64| {
        for word in [name, kind] {
            file.extend(word.to_le_bytes());
        }
        for long in [flags, at, file_at as u64, len] {
            file.extend(long.to_le_bytes());
        }
        // For a symbol table: one more than the last local symbol.
        for word in [link, u32::from(kind == SHT_SYMTAB)] {
            file.extend(word.to_le_bytes());
        }
        for long in [1, entry] {
            file.extend(long.to_le_bytes());
        }
    };
    section(0, SHT_NULL, 0, 0, 0, 0, 0, 0);
    section(
        1,
        SHT_NOBITS,
        SHF_ALLOC_EXEC,
        kernel.0,
        EHDR,
        kernel.1,
        0,
        0,
    );
    section(
        7,
        SHT_NOBITS,
        SHF_ALLOC_EXEC,
        modules.0,
        EHDR,
        modules.1,
        0,
        0,
    );
    section(16, SHT_SYMTAB, 0, 0, EHDR, table.len() as u64, STRINGS, 24);
    section(24, SHT_STRTAB, 0, 0, strings_at, strings.len() as u64, 0, 0);
    section(
        24,
        SHT_STRTAB,
        0,
        0,
        names_at,
        section_names.len() as u64,
        0,
        0,
    );
    Some(file)
}
