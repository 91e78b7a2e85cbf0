//! Guest code cannot hurt us.
#![no_main]

#[path = "../guest/mod.rs"]
mod guest;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    guest::check(data);
});
