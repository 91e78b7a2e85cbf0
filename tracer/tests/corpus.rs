//! What the fuzzer found worth keeping, run as a plain test; and pieces of it, put together anew.

#[path = "../../fuzz/reader/mod.rs"]
mod reader;

use std::fs;
use std::path::Path;

use proptest::prelude::*;

fn corpus() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dirs = ["../fuzz/corpus/reader", "../tests/golden"];
    let files = dirs
        .iter()
        .flat_map(|dir| fs::read_dir(root.join(dir)).unwrap());
    let mut files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|path| fs::read(path).unwrap()).collect()
}

#[test]
fn the_corpus_is_read_without_a_panic() {
    let corpus = corpus();
    assert!(corpus.len() > 8, "{}", corpus.len());
    // Both golden files, what was cut off them, and the chunks of events that were taken out.
    let read = corpus.iter().filter(|data| reader::check(data) > 0).count();
    assert_eq!(read, 10);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn pieces_of_the_corpus_are_read_without_a_panic(
        first: prop::sample::Index,
        second: prop::sample::Index,
        cut: prop::sample::Index,
        from: prop::sample::Index,
        patches in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let corpus = corpus();
        let (first, second) = (first.get(&corpus), second.get(&corpus));
        let mut data = first[..cut.index(first.len())].to_vec();
        data.extend_from_slice(&second[from.index(second.len())..]);
        for (at, byte) in patches {
            if !data.is_empty() {
                let at = at.index(data.len());
                data[at] = byte;
            }
        }
        let _ = reader::check(&data);
    }
}
