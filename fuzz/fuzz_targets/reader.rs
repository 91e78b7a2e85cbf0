//! Any bytes as a recording.
#![no_main]

#[path = "../reader/mod.rs"]
mod reader;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = reader::check(data);
});
