//! Arguments that a function no longer has, by what its caller passed. The programs are those of the
//! fuzz corpus: the same code with debug information as DWARF 4 and as DWARF 5 have it.

use std::fs;
use std::path::Path;

use colinux_symbols::dwarf::{CallerState, FrameRegisters, FrameState};
use colinux_symbols::memory::SparseMemory;
use colinux_symbols::{DebugImage, LinkAddr, Slide};

/// DWARF's number of RDX.
const RDX: usize = 1;

/// The arguments of the function at `addr`, called from where `returns_to` is behind the call.
fn arguments(image: &DebugImage, addr: u64, returns_to: Option<u64>) -> Vec<(String, Option<u64>)> {
    let mut registers = FrameRegisters::default();
    registers.0[RDX] = Some(5);
    let caller = returns_to.map(|at| CallerState {
        image,
        returns_to: LinkAddr(at),
        registers,
        cfa: Some(0x2000),
        slide: Slide::NONE,
    });
    let state = FrameState {
        registers: FrameRegisters::default(),
        cfa: Some(0x1000),
        slide: Slide::NONE,
        memory: &SparseMemory::default(),
        callers: &[caller],
    };
    let frames = image.variables(LinkAddr(addr), &state).expect("variables");
    let number = |bytes: Vec<u8>| bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
    frames
        .into_iter()
        .flatten()
        .filter(|v| v.is_argument)
        .map(|v| (v.name, v.bytes.map(number)))
        .collect()
}

#[test]
fn what_a_caller_passed_is_known_after_the_register_is_lost() {
    let dir = tempfile::tempdir().expect("folder");
    for dwarf in [4, 5] {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/symbols");
        let bytes = fs::read(corpus.join(format!("calls-dwarf-{dwarf}"))).expect("corpus");
        let path = dir.path().join("calls");
        fs::write(&path, &bytes[1..]).expect("written");
        let image = DebugImage::open(&path, None).expect("image");
        let named = |n: Option<u64>, p: Option<u64>, names: [&str; 2]| {
            vec![(names[0].to_owned(), n), (names[1].to_owned(), p)]
        };
        let used = |from| arguments(&image, 0x1020, from);
        let tail = |from| arguments(&image, 0x1050, from);
        // `used(k + 7, 0)`, where k is in RDX, and `tail(k, 9)`.
        assert_eq!(used(Some(0x106c)), named(Some(12), None, ["n", "p"]));
        assert_eq!(tail(Some(0x107a)), named(Some(5), Some(9), ["a", "b"]));
        // A call of another function, no call, and no caller.
        for from in [Some(0x107a), Some(0x1071), Some(0x9000), None] {
            assert_eq!(used(from), named(None, None, ["n", "p"]), "{from:x?}");
        }
    }
}
