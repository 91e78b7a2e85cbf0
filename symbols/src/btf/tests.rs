use proptest::prelude::*;

use super::synthetic::Builder;
use super::*;

/// `struct task`: numbers, a name, an anonymous union, bit fields, an array, pointers.
fn table() -> Builder {
    let mut b = Builder::new();
    let int = b.int("int", 4, 1);
    let char_ = b.int("char", 1, 0);
    let long = b.int("unsigned long", 8, 0);
    let bool_ = b.int("_Bool", 1, 4);
    let name = b.array(char_, 16);
    let pid_t = b.record("pid_t", 8, 0, int, &[]);
    let union = b.composite(5, "", 8, &[("low", int, 0, 0), ("whole", long, 0, 0)]);
    let hidden = b.composite(4, "", 16, &[("before", long, 0, 0), ("", union, 64, 0)]);
    let list = b.composite(4, "list_head", 16, &[]);
    let to_list = b.ptr(list);
    let color = b.enumeration("color", &[("RED", 0), ("GREEN", 1), ("BLUE", 2)]);
    let lists = b.array(list, 3);
    let const_char = b.record("", 10, 0, char_, &[]);
    let text = b.ptr(const_char);
    let bools = b.array(bool_, 12);
    b.composite(
        4,
        "task",
        160,
        &[
            ("pid", pid_t, 0, 0),
            ("flags", int, 32, 3),
            ("more", long, 35, 5),
            ("comm", name, 64, 0),
            ("", hidden, 192, 0),
            ("next", to_list, 320, 0),
            ("color", color, 384, 0),
            ("alive", bool_, 416, 0),
            ("letter", char_, 424, 0),
            ("lists", lists, 448, 0),
            ("text", text, 832, 0),
            ("bools", bools, 896, 0),
        ],
    );
    let proto = b.record("", 13, 2, int, &[0, text, 0, 0]);
    b.ptr(proto);
    b.record("printk", 12, 1, proto, &[]);
    b
}

fn btf() -> Btf {
    Btf::parse(&table().finish()).expect("table")
}

#[test]
fn members_are_found_through_anonymous_ones() {
    let btf = btf();
    let at = |path| {
        btf.member("task", path)
            .map(|m| (m.bit_offset, m.bit_size, m.is_bitfield))
    };
    assert_eq!(at("pid").unwrap(), (0, 32, false));
    assert_eq!(at("flags").unwrap(), (32, 3, true));
    assert_eq!(at("more").unwrap(), (35, 5, true));
    assert_eq!(at("low").unwrap(), (256, 32, false));
    assert_eq!(at("whole").unwrap(), (256, 64, false));
    assert_eq!(at("lists[2]").unwrap(), (448 + 256, 128, false));
    assert_eq!(at("comm[3]").unwrap(), (64 + 24, 8, false));
    let said = |path| btf.member("task", path).unwrap_err().to_string();
    assert_eq!(said("nice"), "struct task has no member nice");
    assert_eq!(said("lists[3]"), "struct task has no member lists[3]");
    assert_eq!(said("pid.x"), "int has no member x");
    let said = btf.member("mm", "pgd").unwrap_err().to_string();
    assert_eq!(said, "the kernel's type table has no struct named mm");
}

#[test]
fn values_look_as_in_gdb() {
    let btf = btf();
    let mut bytes = vec![0u8; 160];
    bytes[..4].copy_from_slice(&(-5i32).to_le_bytes());
    bytes[4] = 0b1111_1101;
    bytes[8..12].copy_from_slice(b"init");
    bytes[32..40].copy_from_slice(&0x1_0000_0002u64.to_le_bytes());
    bytes[40..48].copy_from_slice(&0xffff_8880_0000_1000u64.to_le_bytes());
    bytes[48] = 3;
    bytes[52] = 1;
    bytes[53] = b'A';
    let id = btf.find(Kind::Struct, "task").expect("task");
    let text = btf.print(id, &bytes, &NoContext);
    let expected = "{pid = -5, flags = -3, more = 31, \
        comm = \"init\", '\\000' <repeats 11 times>, \
        {before = 0, {low = 2, whole = 4294967298}}, next = 0xffff888000001000, \
        color = (GREEN | BLUE), alive = true, letter = 65 'A', lists = {{}, {}, {}}, \
        text = 0x0, bools = {false <repeats 12 times>}}";
    assert_eq!(text, expected);
    assert_eq!(btf.print(id, &bytes[..100], &NoContext), "<cut off>");
}

#[test]
fn strings_break_where_gdb_breaks_them() {
    let btf = btf();
    let id = btf.member("task", "comm").expect("comm").ty;
    let show = |text: &[u8; 16]| btf.print(id, text, &NoContext);
    assert_eq!(
        show(b"swapper/0\0\0\0\0\0\0\0"),
        r#""swapper/0\000\000\000\000\000\000""#
    );
    assert_eq!(show(b"aaaaaaaaaaaaaaa\0"), "'a' <repeats 15 times>");
    assert_eq!(
        show(b"q\"\\\n\x1b\xff\0\0\0\0\0\0\0\0\0\0"),
        r#""q\"\\\n\033\377\000\000\000\000\000\000\000\000\000""#
    );
    assert_eq!(show(&[0; 16]), r"'\000' <repeats 15 times>");
}

#[test]
fn types_are_written_as_in_c() {
    let btf = btf();
    let names: Vec<String> = btf.ids().map(|id| btf.type_name(id)).collect();
    for name in [
        "char [16]",
        "struct list_head *",
        "const char *",
        "int (*)(const char *, ...)",
        "int printk(const char *, ...)",
        "union {...}",
    ] {
        assert!(names.iter().any(|n| n == name), "{name} in {names:?}");
    }
}

#[test]
fn a_module_table_continues_the_kernel_one() {
    let base = Arc::new(btf());
    let count = base.len() as u32;
    let mut b = Builder::new();
    // A pointer to the base's first type, and a structure that names both.
    b.ptr(1);
    b.composite(4, "own", 8, &[("p", count + 1, 0, 0)]);
    let mut bytes = b.finish();
    // String offsets of a split table start behind the base's.
    let shift = base.strings.len() as u32;
    for at in [24 + 12, 24 + 12 + 12] {
        let word = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) + shift;
        bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }
    let split = Btf::parse_split(&bytes, base).expect("split");
    let member = split.member("own", "p").expect("own.p");
    assert_eq!(split.type_name(member.ty), "int *");
    assert!(
        split.find(Kind::Struct, "task").is_some(),
        "the base is searched too"
    );
}

#[test]
fn damage_is_named() {
    let said = |bytes: &[u8]| Btf::parse(bytes).unwrap_err().to_string();
    assert!(said(b"").contains("magic number"));
    let whole = table().finish();
    assert!(said(&whole[..whole.len() - 1]).starts_with("the BTF string section is cut off"));
    let mut bad = whole;
    bad[24 + 7] = 0x1f;
    assert_eq!(
        said(&bad),
        "the BTF table is damaged at offset 0x0: an unknown kind of type"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn damage_never_panics(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..30),
        value in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = table().finish();
        for (at, with) in edits {
            let at = at.index(bytes.len());
            bytes[at] = with;
        }
        if let Ok(btf) = Btf::parse(&bytes) {
            for id in btf.ids() {
                btf.type_name(id);
                btf.size_of(id);
                btf.print(id, &value, &NoContext);
                let _ = btf.member_of(id, "low");
            }
            let _ = btf.member("task", "comm[3]");
        }
    }
}
