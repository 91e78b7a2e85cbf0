use proptest::prelude::*;

use super::nodes::PackedNode;
use super::*;

fn id() -> BuildId {
    BuildId::new([1, 2, 3, 4])
}

/// One function with one inlined function, written by hand.
fn sample() -> Vec<u8> {
    let mut header = Header {
        base: 0x1000,
        ..Header::default()
    };
    let mut body = Vec::new();
    let strings = |list: &[&str], body: &mut Vec<u8>| {
        body.extend_from_slice(&(list.len() as u32).to_le_bytes());
        let mut end = 0;
        for text in list {
            end += text.len() as u32;
            body.extend_from_slice(&end.to_le_bytes());
        }
        list.iter()
            .for_each(|t| body.extend_from_slice(t.as_bytes()));
    };
    header.lines = steps::write(&[(0, 1, 10), (8, 2, 5), (16, 1, 12), (32, 0, 0)], &mut body);
    header.ends[0] = (format::HEADER + body.len()) as u64;
    header.spans = steps::write(&[(0, 1, 0), (8, 2, 0), (16, 1, 0), (24, 0, 0)], &mut body);
    header.ends[1] = (format::HEADER + body.len()) as u64;
    let outer = PackedNode {
        parent_back: 0,
        name: 1,
        call_file: 0,
        call_line: 0,
    };
    let inner = PackedNode {
        parent_back: 1,
        name: 2,
        call_file: 1,
        call_line: 11,
    };
    header.widths = nodes::write(&[outer, inner], &mut body);
    header.ends[2] = (format::HEADER + body.len()) as u64;
    strings(&["outer", "inner"], &mut body);
    header.ends[3] = (format::HEADER + body.len()) as u64;
    strings(&["a.c", "b.h"], &mut body);
    header.ends[4] = (format::HEADER + body.len()) as u64;
    let mut bytes = header.seal(&id(), &body);
    bytes.append(&mut body);
    bytes
}

fn open(bytes: &[u8]) -> Result<Index, SymbolError> {
    let folder = tempfile::tempdir().expect("folder");
    format::write(&Index::path_in(folder.path(), &id()), bytes).expect("written");
    Index::open(folder.path(), &id())
}

fn frames(index: &Index, addr: u64) -> Vec<(String, String, u32, bool)> {
    let mut all = Vec::new();
    index.frames(LinkAddr(addr), &mut |f| {
        let text = |t: Option<&str>| t.unwrap_or("?").to_owned();
        all.push((text(f.function), text(f.file), f.line, f.inlined));
    });
    all
}

#[test]
fn frames_come_innermost_first() {
    let index = open(&sample()).expect("index");
    index.verify().expect("sound");
    let frame = |f: &str, file: &str, line, inlined| (f.to_owned(), file.to_owned(), line, inlined);
    assert_eq!(
        frames(&index, 0x1009),
        [
            frame("inner", "b.h", 5, true),
            frame("outer", "a.c", 11, false)
        ]
    );
    assert_eq!(frames(&index, 0x1010), [frame("outer", "a.c", 12, false)]);
    assert_eq!(
        frames(&index, 0x101c),
        [frame("?", "a.c", 12, false)],
        "a line without a function"
    );
    assert_eq!(frames(&index, 0x1020), []);
    assert_eq!(frames(&index, 0xfff), []);
}

#[test]
fn an_index_that_is_damaged_or_foreign_is_refused() {
    let said = |bytes: &[u8]| match open(bytes).and_then(Index::verified) {
        Ok(_) => String::new(),
        Err(SymbolError::BadIndex { reason, .. }) => reason.to_owned(),
        Err(other) => other.to_string(),
    };
    let good = sample();
    assert_eq!(said(&good), "");
    assert_eq!(said(&good[..100]), "it is cut off");
    assert_eq!(said(&good[..good.len() - 1]), "it is cut off");
    let with = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        said(&bytes)
    };
    assert_eq!(with(0, 0), "it is not a symbol index");
    assert_eq!(with(8, 99), "another version of the program wrote it");
    assert_eq!(with(90, 99), "its header is damaged");
    assert_eq!(with(good.len() - 1, 0), "its checksum does not match");
    assert_eq!(said(b""), "it is cut off");
    let folder = tempfile::tempdir().expect("folder");
    let other = BuildId::new([9, 9]);
    format::write(&Index::path_in(folder.path(), &other), &good).expect("written");
    let text = Index::open(folder.path(), &other).unwrap_err().to_string();
    assert!(text.ends_with("it belongs to another build"), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_damaged_body_never_panics(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
    ) {
        let mut bytes = sample();
        let body = bytes.len() - format::HEADER;
        for (at, value) in edits {
            let at = format::HEADER + at.index(body);
            bytes[at] = value;
        }
        let index = open(&bytes).expect("the header is whole");
        for addr in 0xff0..0x1040 {
            frames(&index, addr);
        }
    }
}
