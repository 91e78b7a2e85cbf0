//! The order of the house: who may import whom, how long files are, and words that have no place in
//! the text.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The edges that are allowed between our crates.
const EDGES: &[(&str, &[&str])] = &[
    ("driver", &[]),
    ("tracer", &[]),
    ("symbols", &[]),
    ("replay", &["driver", "tracer", "symbols"]),
    ("tui", &["replay", "symbols", "tracer"]),
    (".", &["driver", "tracer", "symbols", "replay", "tui"]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Our crates among the dependencies of a manifest, tests' own ones left out.
fn imports(manifest: &str) -> Vec<String> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in manifest.lines() {
        let line = line.trim();
        if line.starts_with('[') {
            inside = line == "[dependencies]";
        } else if inside && let Some(rest) = line.strip_prefix("colinux-") {
            let name: String = rest
                .chars()
                .take_while(char::is_ascii_alphanumeric)
                .collect();
            found.push(name);
        }
    }
    found
}

#[test]
fn crates_import_along_the_agreed_edges_only() {
    for (name, allowed) in EDGES {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
        for import in imports(&manifest) {
            assert!(
                allowed.contains(&import.as_str()),
                "{name} must not import {import}"
            );
        }
    }
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !matches!(name.as_str(), "target" | ".git" | "corpus" | "golden") {
                sources(&path, found);
            }
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

fn all_sources() -> BTreeMap<PathBuf, String> {
    let mut found = Vec::new();
    sources(root(), &mut found);
    found
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path, text)
        })
        .collect()
}

#[test]
fn files_have_one_subject() {
    const LINES_MAX: usize = 900;
    for (path, text) in all_sources() {
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines", path.display());
        assert_ne!(path.file_name().unwrap(), "util.rs", "{}", path.display());
    }
}

#[test]
fn unsafe_code_says_why() {
    let marker = concat!("unsafe", "_code");
    for (path, text) in all_sources() {
        for (number, line) in text.lines().enumerate() {
            if line.contains(marker) && (line.contains("allow(") || line.contains("expect(")) {
                let reason = text
                    .lines()
                    .skip(number)
                    .take(6)
                    .any(|l| l.contains("reason"));
                assert!(reason, "{}:{} has no reason", path.display(), number + 1);
            }
        }
    }
}

#[test]
fn every_device_has_a_row_in_the_determinism_table() {
    let table = fs::read_to_string(root().join("docs/DETERMINISM.md")).unwrap();
    for device in [
        "lapic.rs",
        "ioapic.rs",
        "serial.rs",
        "rtc.rs",
        "power.rs",
        "mark.rs",
    ] {
        assert!(
            root().join("driver/src/dev").join(device).exists(),
            "{device}"
        );
        assert!(
            table.contains(device),
            "docs/DETERMINISM.md says nothing about {device}"
        );
    }
}
