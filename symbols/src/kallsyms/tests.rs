use proptest::prelude::*;

use super::synthetic::{BASE, Order, build, place};
use super::*;

fn sample() -> Vec<(u64, u8, String)> {
    let mut all = vec![
        (0, b'A', "fixed_percpu_data".to_owned()),
        (0x1fc40, b'A', "current_task".to_owned()),
        (BASE, b'T', "startup_64".to_owned()),
        (BASE, b'T', "_stext".to_owned()),
        (BASE, b'T', "_text".to_owned()),
    ];
    let mut addr = BASE + 0x40;
    for i in 0..1000u64 {
        let name = match i % 4 {
            0 => format!("sys_{i}_lock"),
            1 => format!("x{i}.isra.0"),
            2 => format!("{}{i}", "very".repeat(60)),
            _ => format!("long_token_of_many_letters{i}"),
        };
        all.push((addr, b"tTdDbr"[(i % 6) as usize], name));
        addr += 16 + i % 48;
    }
    all.push((addr, b't', "twin".to_owned()));
    all.push((addr + 0x100, b't', "twin".to_owned()));
    all.push((addr + 0x200, b'B', "_end".to_owned()));
    all
}

fn built(order: Order) -> (Vec<(u64, u8, String)>, Vec<u8>) {
    let mut all = sample();
    // Kernels with packed tables have their per-CPU symbols in the image like all others.
    all.retain(|(addr, ..)| order != Order::Packed || *addr >= BASE);
    let refs: Vec<_> = all.iter().map(|(a, k, n)| (*a, *k, n.as_str())).collect();
    let bytes = build(order, &refs);
    (all, bytes)
}

#[test]
fn all_orders_read_back_what_was_written() {
    for order in [Order::OffsetsFirst, Order::OffsetsLast, Order::Packed] {
        let (all, bytes) = built(order);
        let table = Kallsyms::from_placed(&bytes, place).expect("table");
        assert_eq!(table.len(), all.len(), "{order:?}");
        for (entry, (addr, kind, name)) in table.iter().zip(&all) {
            assert_eq!(
                (entry.addr.0, entry.kind, entry.name),
                (*addr, *kind, name.as_str())
            );
        }
    }
}

#[test]
fn lookup_follows_the_kernel() {
    let (all, bytes) = built(Order::OffsetsLast);
    let table = Kallsyms::from_placed(&bytes, place).expect("table");
    let at = |addr| {
        table
            .lookup(LinkAddr(addr))
            .map(|s| (s.name, s.offset, s.size))
    };
    assert_eq!(
        at(BASE + 5),
        Some(("startup_64", 5, 0x40)),
        "the first alias"
    );
    assert_eq!(at(BASE - 1), None, "nothing before the image");
    assert_eq!(
        at(0x1fc48),
        None,
        "the last per-CPU symbol has no known end"
    );
    assert_eq!(at(0x1000), Some(("fixed_percpu_data", 0x1000, 0x1fc40)));
    let last = all.last().expect("symbols").0;
    assert_eq!(at(last), None, "nothing behind the end");
    assert_eq!(at(last - 1), Some(("twin", 0xff, 0x100)));
}

#[test]
fn names_lead_to_addresses_and_twins_to_both() {
    let (all, bytes) = built(Order::OffsetsFirst);
    let table = Kallsyms::from_placed(&bytes, place).expect("table");
    for (addr, _, name) in all.iter().filter(|s| s.2 != "twin") {
        assert_eq!(table.address_of(name), Some(LinkAddr(*addr)), "{name}");
    }
    assert_eq!(table.named("twin").count(), 2);
    assert_eq!(table.address_of("no such symbol"), None);
}

#[test]
fn what_is_missing_is_said() {
    let said = |bytes: &[u8]| Kallsyms::from_placed(bytes, place).unwrap_err().to_string();
    assert_eq!(
        said(b"nothing"),
        "no kallsyms table was found in 7 bytes: no token table"
    );
    let (_, mut bytes) = built(Order::OffsetsLast);
    let cut = bytes.len() - 600;
    bytes.truncate(cut);
    assert!(
        said(&bytes).ends_with("no address table beside the names"),
        "{}",
        said(&bytes)
    );
    let zip = [0x50, 0x4b, 3, 4, 0, 0];
    let said = Kallsyms::from_vmlinux(&zip).unwrap_err().to_string();
    assert_eq!(
        said,
        "not an ELF image: it begins with 50 4b 03 04 where 7f 45 4c 46 is expected"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damage_never_panics(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        cut in any::<prop::sample::Index>(),
        order in 0usize..3,
        truncate in any::<bool>(),
    ) {
        let order = [Order::OffsetsFirst, Order::OffsetsLast, Order::Packed][order];
        let (_, mut bytes) = built(order);
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if truncate {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(table) = Kallsyms::from_placed(&bytes, place) {
            for probe in [0, 1, BASE, BASE + 100, u64::MAX] {
                table.lookup(LinkAddr(probe));
            }
            table.address_of("_end");
        }
    }
}
