//! No bytes hurt the readers of kernel images, debug information and guest memory.
#![no_main]

#[path = "../symbols/mod.rs"]
mod symbols;

use std::sync::OnceLock;

static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().expect("a folder"));
    symbols::check(data, folder.path());
});
