use super::*;

#[test]
fn units_are_found_by_address() {
    let ranges = [(10..20, 1), (20..30, 2), (25..40, 3)];
    let at = |addr| units_at(&ranges, addr).collect::<Vec<_>>();
    assert_eq!(at(9), []);
    assert_eq!(at(10), [1]);
    assert_eq!(at(20), [2]);
    assert_eq!(at(27), [3, 2]);
    assert_eq!(at(40), []);
}

#[test]
fn a_file_that_is_no_debug_image_is_named() {
    let said = |path: &str| {
        DebugImage::open(Path::new(path), None)
            .unwrap_err()
            .to_string()
    };
    assert!(said("/nowhere/vmlinux").starts_with("cannot read /nowhere/vmlinux: "));
    let directory = std::env::temp_dir();
    let text = said(&directory.to_string_lossy());
    assert!(text.contains("cannot read"), "{text}");
}
