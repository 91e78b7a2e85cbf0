use super::*;
use crate::addr::LinkAddr;
use crate::btf::synthetic::Builder;
use crate::memory::SparseMemory;

/// The types of a kernel with `mem[]` (new) or `core_layout` (old).
fn types(new: bool) -> Btf {
    let mut b = Builder::new();
    let int = b.int("unsigned int", 4, 0);
    let long = b.int("unsigned long", 8, 0);
    let char_ = b.int("char", 1, 0);
    let name = b.array(char_, 56);
    let part = [("base", long, 0, 0), ("size", int, 64, 0)];
    let part = b.composite(
        4,
        if new {
            "module_memory"
        } else {
            "module_layout"
        },
        16,
        &part,
    );
    let mem = b.array(part, 7);
    let arch = b.composite(
        4,
        "mod_arch_specific",
        24,
        &[
            ("num_orcs", int, 0, 0),
            ("orc_unwind_ip", long, 64, 0),
            ("orc_unwind", long, 128, 0),
        ],
    );
    let mut members = vec![
        ("state", int, 0, 0),
        ("list", long, 64, 0),
        ("name", name, 192, 0),
        ("kallsyms", long, 2000, 0),
        ("sect_attrs", long, 2064, 0),
        ("arch", arch, 2128, 0),
    ];
    if new {
        members.push(("mem", mem, 1024, 0));
    } else {
        members.push(("core_layout", part, 1024, 0));
        members.push(("init_layout", part, 1152, 0));
    }
    b.composite(4, "module", 512, &members);
    b.composite(
        4,
        "mod_kallsyms",
        24,
        &[
            ("symtab", long, 0, 0),
            ("num_symtab", int, 64, 0),
            ("strtab", long, 128, 0),
        ],
    );
    let attribute = b.composite(4, "attribute", 8, &[("name", long, 0, 0)]);
    let bin = b.composite(4, "bin_attribute", 16, &[("attr", attribute, 0, 0)]);
    let attr = b.composite(
        4,
        "module_sect_attr",
        24,
        &[("battr", bin, 0, 0), ("address", long, 128, 0)],
    );
    let attrs = b.array(attr, 0);
    b.composite(
        4,
        "module_sect_attrs",
        16,
        &[("nsections", int, 0, 0), ("attrs", attrs, 64, 0)],
    );
    Btf::parse(&b.finish()).expect("types")
}

const MODULE: u64 = 0x10_0000;
const TEXT: u64 = 0x20_0000;

fn symbol(m: &mut SparseMemory, i: u64, name: u32, section: u16, value: u64) {
    let at = 0x4000 + i * 24;
    m.put(at, &[0; 24]);
    m.put(at, &name.to_le_bytes());
    m.put(at + 6, &section.to_le_bytes());
    m.put_u64(at + 8, value);
    m.put_u64(at + 16, 32);
}

fn guest() -> (SparseMemory, Hooks) {
    let mut m = SparseMemory::default();
    let mut hooks = Hooks::default();
    hooks.data.modules = Some(LinkAddr(0x1000));
    m.put_u64(0x1000, MODULE + 8);
    m.put(MODULE, &[0; 512]);
    m.put_u64(MODULE + 8, 0x1000);
    m.put(MODULE + 24, b"fuse\0");
    m.put_u64(MODULE + 128, TEXT);
    m.put(MODULE + 136, &0x3000u32.to_le_bytes());
    // kallsyms
    m.put_u64(MODULE + 250, 0x3000);
    m.put_u64(0x3000, 0x4000);
    m.put(0x3008, &4u32.to_le_bytes());
    m.put_u64(0x3010, 0x5000);
    m.put(0x5000, b"\0fuse_open\0fuse_read\0printk\0");
    m.put(0x5fff, &[0]);
    symbol(&mut m, 0, 0, 0, 0);
    symbol(&mut m, 1, 11, 1, TEXT + 0x100);
    symbol(&mut m, 2, 1, 1, TEXT + 0x40);
    symbol(&mut m, 3, 21, 0, TEXT + 0x80);
    // sect_attrs
    m.put_u64(MODULE + 258, 0x6000);
    m.put(0x6000, &2u32.to_le_bytes());
    for (i, (name, address)) in [(0x7000, TEXT), (0x7010, TEXT + 0x1000)]
        .into_iter()
        .enumerate()
    {
        m.put_u64(0x6008 + i as u64 * 24, name);
        m.put_u64(0x6008 + i as u64 * 24 + 16, address);
    }
    m.put(0x7000, b".text\0");
    m.put(0x7010, b".note.gnu.build-id\0");
    m.put(0x7fff, &[0]);
    let mut note = vec![4, 0, 0, 0, 20, 0, 0, 0, 3, 0, 0, 0];
    note.extend_from_slice(b"GNU\0");
    note.extend_from_slice(&[0xab; 20]);
    m.put(TEXT + 0x1000, &note);
    (m, hooks)
}

#[test]
fn both_layouts_are_read() {
    for new in [true, false] {
        let (m, hooks) = guest();
        let all = read_modules(&m, &hooks, &types(new), Slide::NONE).expect("modules");
        let [fuse] = &all[..] else { panic!("{all:?}") };
        assert_eq!(
            (fuse.name.as_str(), fuse.state),
            ("fuse", ModuleState::Live)
        );
        assert_eq!(fuse.base(), Some(Gva(TEXT)));
        assert_eq!(fuse.section(".text"), Some(Gva(TEXT)));
        assert_eq!(fuse.build_id, Some(BuildId::new([0xab; 20])));
        let names: Vec<_> = fuse.symbols.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(
            names,
            ["fuse_open", "fuse_read"],
            "undefined symbols are others'"
        );
        let at = |gva| {
            fuse.lookup(Gva(gva))
                .map(|(s, offset)| (s.name.as_str(), offset))
        };
        assert_eq!(at(TEXT + 0x50), Some(("fuse_open", 0x10)));
        assert_eq!(at(TEXT + 0x2fff), Some(("fuse_read", 0x2eff)));
        assert_eq!(at(TEXT + 0x3000), None);
        assert_eq!(at(TEXT), None, "nothing before the first symbol");
        assert_eq!(
            fuse.to_string(),
            "fuse                        12288 Live      0x200000"
        );
    }
}

#[test]
fn a_module_in_the_making_has_no_place() {
    let (mut m, hooks) = guest();
    m.put(MODULE, &3u32.to_le_bytes());
    let all = read_modules(&m, &hooks, &types(true), Slide::NONE).expect("modules");
    assert!(all[0].regions.is_empty() && all[0].symbols.is_empty());
}

#[test]
fn an_unreadable_list_is_named() {
    let (mut m, hooks) = guest();
    m.put_u64(MODULE + 8, 0x6666_0000);
    let said = read_modules(&m, &hooks, &types(true), Slide::NONE)
        .unwrap_err()
        .to_string();
    assert_eq!(said, "the guest's list cannot be read at 0x66660000");
}
