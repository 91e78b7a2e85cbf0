//! Checks on a real kernel image, when one is at hand: `COLINUX_TEST_VMLINUX` names an unpacked
//! vmlinux, `COLINUX_TEST_SYSTEM_MAP` the System.map of the same build. Without them nothing runs.

use std::collections::HashSet;
use std::path::PathBuf;

use colinux_symbols::btf::{Kind, NoContext, Type};
use colinux_symbols::{Btf, Hooks, Image, Kallsyms, LinkAddr};

fn vmlinux() -> Option<Vec<u8>> {
    let path = PathBuf::from(std::env::var_os("COLINUX_TEST_VMLINUX")?);
    Some(std::fs::read(&path).expect("COLINUX_TEST_VMLINUX must name a readable file"))
}

#[test]
fn kallsyms_equals_system_map() {
    let (Some(bytes), Some(map)) = (vmlinux(), std::env::var_os("COLINUX_TEST_SYSTEM_MAP")) else {
        return;
    };
    let names = Kallsyms::from_vmlinux(&bytes).expect("kallsyms");
    let map = std::fs::read_to_string(map).expect("System.map");
    let listed: HashSet<(u64, &str)> = map
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            let addr = u64::from_str_radix(words.next()?, 16).ok()?;
            Some((addr, words.nth(1)?))
        })
        .collect();
    let ours: HashSet<(u64, &str)> = names.iter().map(|e| (e.addr.0, e.name)).collect();
    let missing: Vec<_> = listed.difference(&ours).take(20).collect();
    let extra: Vec<_> = ours.difference(&listed).take(20).collect();
    assert!(extra.is_empty(), "not in System.map: {extra:x?}");
    // System.map keeps a few names that kallsyms leaves out on purpose.
    assert!(
        listed.len() - ours.len() < 100,
        "not in kallsyms: {missing:x?}"
    );
}

#[test]
fn every_symbol_is_found_by_address_and_by_name() {
    let Some(bytes) = vmlinux() else { return };
    let names = Kallsyms::from_vmlinux(&bytes).expect("kallsyms");
    assert!(names.len() > 10_000);
    let text = names.address_of("_text").expect("_text");
    let all: Vec<_> = names.iter().collect();
    for entry in all.iter().filter(|e| e.addr >= text) {
        assert!(
            names.named(entry.name).any(|e| e.addr == entry.addr),
            "{}",
            entry.name
        );
        // Behind the last symbol there is nothing to reckon a size from.
        if entry.addr < all[all.len() - 1].addr {
            let found = names.lookup(entry.addr).expect("a symbol");
            assert_eq!(found.offset, 0, "{}", entry.name);
            assert!(names.named(found.name).any(|e| e.addr == entry.addr));
        }
    }
    assert_eq!(names.lookup(LinkAddr(text.0 - 1)), None);
}

#[test]
fn every_type_can_be_named_and_printed() {
    let Some(bytes) = vmlinux() else { return };
    let image = Image::parse(&bytes).expect("image");
    let btf = Btf::from_image(&image, None).expect("BTF");
    let zeros = vec![0; 1 << 16];
    let mut structs = 0;
    for id in btf.ids() {
        assert!(!btf.type_name(id).is_empty());
        if let Some(Type::Composite(c)) = btf.get(id) {
            structs += 1;
            let text = btf.print(id, &zeros, &NoContext);
            assert!(
                text.starts_with('{') || c.size > 1 << 16,
                "{} {text}",
                c.name
            );
            for field in c.fields() {
                let bits = u64::from(field.bit_size);
                let size = if bits > 0 {
                    bits
                } else {
                    btf.size_of(field.ty).unwrap_or(0) * 8
                };
                let end = u64::from(field.bit_offset) + size;
                assert!(end <= u64::from(c.size) * 8, "{}.{}", c.name, field.name);
            }
        }
    }
    assert!(structs > 5000, "{structs}");
    let comm = btf.member("task_struct", "comm").expect("comm");
    assert_eq!(
        (comm.size(), btf.type_name(comm.ty).as_str()),
        (16, "char [16]")
    );
    assert!(btf.find(Kind::Struct, "module").is_some());
}

#[test]
fn a_stock_kernel_has_every_hook() {
    let Some(bytes) = vmlinux() else { return };
    let image = Image::parse(&bytes).expect("image");
    let names = Kallsyms::from_image(&image).expect("kallsyms");
    let btf = Btf::from_image(&image, Some(&names)).expect("BTF");
    let hooks = Hooks::find(&names, Some(&btf));
    assert!(hooks.missing.is_empty(), "missing: {:?}", hooks.missing);
}
