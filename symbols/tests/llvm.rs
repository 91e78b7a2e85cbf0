//! Our frames against llvm-symbolizer's, on real debug images, when both are at hand. Where they
//! differ, the difference is of a known class; anything else fails.

mod common;

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use colinux_symbols::map::FileMap;
use colinux_symbols::{DebugImage, Image, LinkAddr};

/// Function, file and line.
type Frame = (String, String, u32);

/// How two answers differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// Not at all.
    Same,
    /// The outermost function has the name of its ELF symbol there (`.isra.0`, `.cold` …), which
    /// we keep beside the frames.
    SymbolName,
    /// Code without a function in DWARF (assembly): there the ELF symbol is put in.
    NoFunction,
    /// Something else.
    Unexplained,
}

/// `is_symbol`: whether the ELF symbol of that name covers the address, or is a label before it.
fn classify(ours: &[Frame], theirs: &[Frame], is_symbol: &dyn Fn(&str) -> bool) -> Class {
    if ours == theirs {
        return Class::Same;
    }
    let nowhere = (String::new(), String::new(), 0);
    let outermost = |frames: &[Frame]| frames.last().unwrap_or(&nowhere).clone();
    let (our_last, their_last) = (outermost(ours), outermost(theirs));
    let inner = |frames: &[Frame]| frames.split_last().map(|(_, rest)| rest.to_vec());
    let (ours, theirs) = (
        inner(ours).unwrap_or_default(),
        inner(theirs).unwrap_or_default(),
    );
    // Where there is no line, we name no file.
    let same_file = our_last.1 == their_last.1 || our_last.2 == 0;
    let same_place = same_file && our_last.2 == their_last.2;
    if ours != theirs || !same_place || !is_symbol(&their_last.0) {
        return Class::Unexplained;
    }
    if our_last.0.is_empty() {
        Class::NoFunction
    } else {
        Class::SymbolName
    }
}

#[test]
#[allow(
    clippy::print_stderr,
    reason = "the figures of a comparison, and why it is skipped"
)]
fn frames_equal_those_of_llvm_symbolizer() {
    if Command::new("llvm-symbolizer")
        .arg("--version")
        .output()
        .is_err()
    {
        eprintln!("skipped: there is no llvm-symbolizer on this host");
        return;
    }
    for path in common::debug_images() {
        let classes = compare(&path);
        eprintln!("{}:", path.display());
        for (class, all) in &classes {
            eprintln!("  {class:?}: {}", all.len());
            let shown = if *class == Class::Same { 0 } else { 2 };
            for (addr, ours, theirs) in all.iter().take(shown) {
                eprintln!("    {addr} ours {ours:?}\n      theirs {theirs:?}");
            }
        }
        assert!(!classes.contains_key(&Class::Unexplained));
        assert!(
            classes[&Class::Same].len() * 10 > classes.values().map(Vec::len).sum::<usize>() * 8
        );
    }
}

type Answers = BTreeMap<Class, Vec<(LinkAddr, Vec<Frame>, Vec<Frame>)>>;

fn compare(path: &Path) -> Answers {
    let map = FileMap::open(path).expect("a readable file");
    let image = Image::parse(&map).expect("image");
    let mut symbols: HashMap<&str, Vec<(u64, u64)>> = HashMap::new();
    for symbol in image.symbols() {
        symbols
            .entry(symbol.name)
            .or_default()
            .push((symbol.addr.0, symbol.size));
    }
    let probes = common::probes(&image, common::samples(5_000));
    let debug = DebugImage::open(path, None).expect("debug image");
    let mut tool = Command::new("llvm-symbolizer")
        .args([
            "--functions=linkage",
            "--inlines",
            "--no-demangle",
            "--output-style=LLVM",
        ])
        .arg(format!("--obj={}", path.display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("llvm-symbolizer");
    let mut ask = tool.stdin.take().expect("its input");
    let asked = probes.clone();
    let asking = thread::spawn(move || {
        for addr in asked {
            writeln!(ask, "{addr}").expect("its input");
        }
    });
    let mut answers = BufReader::new(tool.stdout.take().expect("its output")).lines();
    let mut classes = Answers::new();
    for addr in probes {
        let mut ours = Vec::new();
        debug
            .frames(addr, &mut |f| {
                let text = |t: Option<&str>| t.unwrap_or_default().to_owned();
                ours.push((text(f.function), file_name(&text(f.file)), f.line));
            })
            .expect("frames");
        let mut theirs = Vec::new();
        // A function and its place for each frame, then an empty line.
        while let Some(function) = answers
            .next()
            .map(|l| l.expect("a line"))
            .filter(|l| !l.is_empty())
        {
            let place = answers.next().expect("a place").expect("a line");
            let mut parts = place.rsplitn(3, ':');
            let (_, line, file) = (parts.next(), parts.next(), parts.next());
            let line = line.and_then(|l| l.parse().ok()).unwrap_or(0);
            theirs.push((function, file_name(file.unwrap_or_default()), line));
        }
        let is_symbol = |name: &str| {
            let all = symbols.get(name).into_iter().flatten();
            all.copied()
                .any(|(start, size)| start <= addr.0 && (size == 0 || addr.0 < start + size))
        };
        let class = classify(&ours, &theirs, &is_symbol);
        classes.entry(class).or_default().push((addr, ours, theirs));
    }
    asking.join().expect("asking");
    let _ = tool.wait();
    classes
}

/// The last part of a path: folders are written as the tool likes.
fn file_name(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or_default();
    if name == "??" {
        String::new()
    } else {
        name.to_owned()
    }
}
