//! Damaged, strange and missing files: a sentence each, never a panic. The bodies are those of the
//! fuzz target, and so is the corpus; damage is done to real images made by the C compiler.

#[path = "../../fuzz/symbols/mod.rs"]
mod parsers;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use colinux_symbols::{BuildId, DebugFiles, DebugImage, Image, Kernel, LinkAddr, SymbolError};

/// A function with another inlined into it, scattered by a branch.
const SOURCE: &str = r#"
struct pair { int a; unsigned b:3, c:5; };
static inline __attribute__((always_inline)) int mix(struct pair *p, int n)
{ return n > 3 ? p->a * n + p->b : p->c - n; }
__attribute__((noinline)) int outer(struct pair *p, int n) { return mix(p, n) ^ mix(p, n + 1); }
int main(int argc, char **argv) { struct pair p = { argc, 1, 2 }; return outer(&p, (int)(long)argv); }
"#;

/// A program with debug information: of a DWARF version, and linked or not.
#[allow(clippy::print_stderr, reason = "why a test is skipped")]
fn compiled(folder: &Path, dwarf: u32, linked: bool) -> Option<PathBuf> {
    let (source, made) = (folder.join("a.c"), folder.join(format!("a{dwarf}{linked}")));
    fs::write(&source, SOURCE).expect("source");
    let mut cc = Command::new("cc");
    cc.args([
        "-O2",
        &format!("-gdwarf-{dwarf}"),
        "-Wl,--build-id=sha1",
        "-no-pie",
        "-o",
    ]);
    cc.arg(&made).arg(&source).args((!linked).then_some("-c"));
    match cc.stderr(Stdio::null()).status() {
        Ok(status) => assert!(status.success()),
        Err(_) => {
            eprintln!("skipped: there is no C compiler on this host");
            return None;
        }
    }
    Some(made)
}

fn outer(path: &Path) -> LinkAddr {
    let bytes = fs::read(path).expect("image");
    let image = Image::parse(&bytes).expect("image");
    let found = image.symbols().find(|s| s.name == "outer");
    found.expect("a symbol").addr
}

#[test]
fn both_versions_of_dwarf_give_inlined_functions() {
    let dir = tempfile::tempdir().expect("folder");
    for dwarf in [4, 5] {
        let Some(path) = compiled(dir.path(), dwarf, true) else {
            return;
        };
        let image = DebugImage::open(&path, None).expect("debug image");
        let (start, mut inlined) = (outer(&path), 0);
        for offset in 0..40 {
            let mut names = Vec::new();
            let visit = &mut |f: colinux_symbols::Frame<'_>| {
                names.push((f.function.unwrap_or("??").to_owned(), f.inlined));
            };
            image.frames(start.plus(offset), visit).expect("frames");
            if let [(inner, true), (function, false)] = &names[..] {
                assert_eq!((inner.as_str(), function.as_str()), ("mix", "outer"));
                inlined += 1;
            }
        }
        assert!(inlined > 5, "DWARF {dwarf}: {inlined}");
    }
}

#[test]
#[allow(clippy::print_stderr, reason = "why a test is skipped")]
fn compressed_debug_sections_are_as_good_as_others() {
    let dir = tempfile::tempdir().expect("folder");
    for (linked, kind) in [(true, "zlib"), (true, "zstd"), (false, "zlib")] {
        let Some(plain) = compiled(dir.path(), 5, linked) else {
            return;
        };
        let packed = dir.path().join("packed");
        let option = format!("--compress-debug-sections={kind}");
        let mut objcopy = Command::new("objcopy");
        objcopy.arg(option).arg(&plain).arg(&packed);
        if !objcopy.status().is_ok_and(|status| status.success()) {
            eprintln!("skipped: objcopy of this host does not know {kind}");
            continue;
        }
        let place = |name: &str| (name == ".text").then_some(LinkAddr(0x1000));
        let frames = |path: &Path| {
            let image = DebugImage::open_module(path, None, &place).expect("debug image");
            let start = if linked { outer(path).0 } else { 0x1000 };
            let mut all = Vec::new();
            for addr in start..start + 60 {
                let visit = &mut |f: colinux_symbols::Frame<'_>| {
                    all.push((addr, f.function.map(str::to_owned), f.line, f.inlined));
                };
                image.frames(LinkAddr(addr), visit).expect("frames");
            }
            all
        };
        let expected = frames(&plain);
        assert!(expected.len() > 30, "{expected:?}");
        let size = |path: &Path| {
            let bytes = fs::read(path).expect("image");
            let image = Image::parse(&bytes).expect("image");
            image.section(".debug_info").expect("section").data.len()
        };
        assert!(size(&packed) < size(&plain), "{kind}");
        assert_eq!(frames(&packed), expected, "{kind}");
    }
}

#[test]
fn damage_gives_a_sentence_or_less() {
    let dir = tempfile::tempdir().expect("folder");
    let rounds = std::env::var("COLINUX_TEST_SAMPLES").ok();
    let rounds = rounds.and_then(|n| n.parse().ok()).unwrap_or(300);
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as usize
    };
    for (dwarf, linked) in [(4, true), (5, true), (5, false)] {
        let Some(path) = compiled(dir.path(), dwarf, linked) else {
            return;
        };
        let whole = fs::read(&path).expect("image");
        for round in 0..rounds {
            let mut bytes = vec![[0, 3][round % 2]];
            bytes.extend_from_slice(&whole);
            if round % 5 == 0 {
                bytes.truncate(next() % bytes.len());
            } else {
                for _ in 0..1 + next() % 8 {
                    let at = 1 + next() % (bytes.len() - 1);
                    bytes[at] = next() as u8;
                }
            }
            parsers::check(&bytes, dir.path());
        }
    }
}

#[test]
fn the_corpus_is_harmless() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/symbols");
    let dir = tempfile::tempdir().expect("folder");
    let mut count = 0;
    for entry in fs::read_dir(corpus).expect("the corpus") {
        let bytes = fs::read(entry.expect("an entry").path()).expect("a file");
        parsers::check(&bytes, dir.path());
        count += 1;
    }
    assert!(count > 5, "{count}");
}

#[test]
fn each_kind_of_wrong_file_has_its_sentence() {
    let dir = tempfile::tempdir().expect("folder");
    let Some(path) = compiled(dir.path(), 5, true) else {
        return;
    };
    let whole = fs::read(&path).expect("image");
    let put = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).expect("file");
        path
    };
    let id = BuildId::new([0xab; 20]);
    let said = |path: PathBuf| {
        let files = DebugFiles::with_system(Some(path), Vec::new(), dir.path().join("system"));
        match files.kernel(Some(&id), None) {
            Ok((found, passed)) => {
                assert!(found.is_none());
                passed[0].to_string()
            }
            Err(error) => error.to_string(),
        }
    };
    let mut other = whole.clone();
    other[18..20].copy_from_slice(&183u16.to_le_bytes());
    let stripped = dir.path().join("stripped");
    let strip = Command::new("strip")
        .arg("-o")
        .arg(&stripped)
        .arg(&path)
        .status();
    let own = Image::parse(&whole)
        .expect("image")
        .build_id()
        .expect("build id")
        .to_string();
    let expected_own = DebugImage::open(&stripped, None)
        .map(|_| ())
        .map_err(|e| e.to_string());
    let cases = [
        (
            put("cut", &whole[..40]),
            "the ELF header is cut off: 64 bytes are needed at offset 0x0, 40 are there",
        ),
        (
            put("half", &whole[..whole.len() / 2]),
            "the ELF image is damaged",
        ),
        (put("arm", &other), "the image is for arm64, not for x86-64"),
        (
            put("text", b"hello"),
            "not an ELF image: it begins with 68 65 6c 6c",
        ),
        (
            put("empty", b""),
            "not an ELF image: it begins with nothing",
        ),
        (dir.path().to_owned(), "it is not a regular file"),
        (dir.path().join("nowhere"), "cannot read"),
        (
            path.clone(),
            &format!("has build id {own}, but the guest's kernel has {id}"),
        ),
    ];
    for (file, sentence) in cases {
        let text = said(file.clone());
        assert!(text.contains(sentence), "{text:?} has no {sentence:?}");
        assert!(
            text.contains(&*file.to_string_lossy()),
            "{text:?} names no file"
        );
    }
    if strip.is_ok_and(|s| s.success()) {
        let text = expected_own.expect_err("it is stripped");
        assert_eq!(text, "the image has no debug information (it is stripped)");
    }
    assert!(matches!(
        Kernel::from_vmlinux(&whole),
        Err(SymbolError::NoKallsyms { .. })
    ));
}
