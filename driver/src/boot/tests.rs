//! Whole kernels through the whole loader.

use proptest::prelude::*;

use super::field::{u32_at, u64_at};
use super::fixture::{Bz, ElfSpec, elf, gzip, lz4_legacy, minimal_elf, sized, zstd};
use super::*;

/// Tables that only have to be copied.
const ACPI: (Gpa, &[u8]) = (layout::RSDP, b"RSD PTR and tables");

fn spec(kernel: &[u8]) -> BootSpec<'_> {
    BootSpec {
        kernel: Bytes::copy_from_slice(kernel),
        initrd: None,
        cmdline: "console=ttyS0",
        memory_bytes: 64 << 20,
        as_bzimage: false,
        acpi: ACPI,
        rsdp: layout::RSDP,
    }
}

fn segment(image: &BootImage, gpa: Gpa) -> &[u8] {
    let found = image.segments.iter().find(|(at, _)| *at == gpa);
    &found.unwrap_or_else(|| panic!("no segment at {gpa}")).1
}

fn lz4_kernel() -> Vec<u8> {
    let file = elf(&minimal_elf());
    Bz::new(&sized(&lz4_legacy(&file), file.len())).build()
}

fn message(spec: &BootSpec<'_>) -> String {
    load(spec).unwrap_err().to_string()
}

#[test]
fn all_packings_of_a_kernel_load_the_same() {
    let file = elf(&minimal_elf());
    let plain = load(&spec(&file)).unwrap();
    assert_eq!(plain.entry, 0x100_0010);
    assert_eq!(plain.kernel, Gpa(0x100_0000)..Gpa(0x120_4000));
    assert_eq!(plain.kernel_text, Gpa(0x100_0000)..Gpa(0x100_1000));
    let text_gva = Gva(0xffff_ffff_8100_0000)..Gva(0xffff_ffff_8100_1000);
    assert_eq!(plain.kernel_text_gva, Some(text_gva));
    assert_eq!(
        segment(&plain, Gpa(0x100_0000)),
        minimal_elf().segments[0].data
    );
    assert_eq!(segment(&plain, Gpa(0x120_0000)), [0xda; 100]);
    assert_eq!(segment(&plain, layout::CMDLINE), b"console=ttyS0\0");
    assert_eq!(segment(&plain, layout::RSDP), ACPI.1);
    assert_eq!(plain.rsi, layout::ZERO_PAGE.0);
    assert_eq!(plain.gdt_limit, 31);
    assert_eq!(plain.version.as_deref(), Some("6.1.0-test (a@b) #1 SMP"));
    // Relocations behind the kernel change nothing.
    let appended = [file.as_slice(), &[0x77; 333]].concat();
    for payload in [
        sized(&lz4_legacy(&file), file.len()),
        sized(&zstd(&appended), appended.len()),
        gzip(&appended),
        sized(&appended, appended.len()),
    ] {
        let bzimage = Bz::new(&payload).build();
        let loaded = load(&spec(&bzimage)).unwrap();
        let again =
            load_extracted(&spec(&bzimage), &vmlinux(&bzimage.clone().into()).unwrap()).unwrap();
        assert_eq!(loaded, again);
        let kernel = |image: &BootImage| image.segments[5..].to_vec();
        assert_eq!(kernel(&loaded), kernel(&plain));
        assert_eq!(loaded.entry, plain.entry);
        assert_eq!(loaded.version, plain.version);
        assert_eq!(
            kernel_version(&bzimage).unwrap(),
            kernel_version(&file).unwrap()
        );
    }
}

#[test]
fn segments_stay_inside_memory_and_apart() {
    let kernel = lz4_kernel();
    let initrd = vec![0x70; 5000];
    for as_bzimage in [false, true] {
        let spec = BootSpec {
            initrd: Some(initrd.clone().into()),
            as_bzimage,
            ..spec(&kernel)
        };
        let image = load(&spec).unwrap();
        let mut ranges: Vec<_> = image
            .segments
            .iter()
            .map(|(gpa, bytes)| (gpa.0, gpa.0 + bytes.len() as u64))
            .collect();
        ranges.sort_unstable();
        assert!(
            ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0),
            "{ranges:x?}"
        );
        assert!(ranges.iter().all(|range| range.1 <= 64 << 20));
    }
}

#[test]
fn initrd_is_at_the_top_of_low_memory() {
    let kernel = lz4_kernel();
    let initrd = vec![0x70; 5000];
    let place = |memory_bytes| {
        let spec = BootSpec {
            initrd: Some(initrd.clone().into()),
            memory_bytes,
            ..spec(&kernel)
        };
        let image = load(&spec).unwrap();
        let range = image.initrd.clone().unwrap();
        assert_eq!(segment(&image, range.start), initrd);
        let page = segment(&image, layout::ZERO_PAGE);
        assert_eq!(u32_at(page, 0x218).map(u64::from), Some(range.start.0));
        assert_eq!(u32_at(page, 0x21c), Some(5000));
        range.start
    };
    assert_eq!(place(64 << 20), Gpa((64 << 20) - 8192));
    // initrd_addr_max, then, is what limits it.
    assert_eq!(place(8 << 30), Gpa((2 << 30) - 8192));
}

#[test]
fn the_decompressor_is_entered_at_0x200() {
    let kernel = lz4_kernel();
    let spec = BootSpec {
        as_bzimage: true,
        ..spec(&kernel)
    };
    let image = load(&spec).unwrap();
    assert_eq!(image.entry, 0x100_0200);
    assert_eq!(image.kernel, Gpa(0x100_0000)..Gpa(0x180_0000));
    assert_eq!(image.kernel_text_gva, None);
    assert_eq!(segment(&image, Gpa(0x100_0000)), &kernel[0x600..]);
    let page = segment(&image, layout::ZERO_PAGE);
    assert_eq!(u32_at(page, 0x214), Some(0x100_0000));
    assert_eq!(u64_at(page, 0x070), Some(layout::RSDP.0));
}

#[test]
fn a_fixed_decompressor_goes_to_code32_start() {
    let mut kernel = lz4_kernel();
    kernel[0x234] = 0;
    let spec = BootSpec {
        as_bzimage: true,
        ..spec(&kernel)
    };
    let image = load(&spec).unwrap();
    assert_eq!(image.entry, 0x10_0200);
    assert_eq!(image.kernel, Gpa(0x10_0000)..Gpa(0x180_0000));
}

#[test]
fn as_bzimage_refusals() {
    let good = lz4_kernel();
    let with = |offset: usize, bytes: &[u8]| {
        let mut kernel = good.clone();
        kernel[offset..offset + bytes.len()].copy_from_slice(bytes);
        message(&BootSpec {
            as_bzimage: true,
            ..spec(&kernel)
        })
    };
    assert!(with(0x206, &[0x0a, 2]).contains("2.10, but the 64-bit entry point"));
    assert!(with(0x236, &[0, 0]).contains("32-bit kernel"));
    assert!(with(0x260, &[1, 0, 0, 0]).contains("init_size"));
    assert!(with(0x260, &[0, 0, 0, 0x70]).contains("needs 1895825408 bytes"));
    assert!(with(0x258, &[0; 8]).contains("below 1 MiB"));
    assert!(with(0x258, &[0xff; 8]).contains("but the machine has only"));
    assert!(with(0x1f4, &[0xff, 0xff]).contains("truncated: the protected-mode code"));
    let file = elf(&minimal_elf());
    let plain = message(&BootSpec {
        as_bzimage: true,
        ..spec(&file)
    });
    assert!(plain.contains("plain ELF vmlinux"));
}

#[test]
fn what_does_not_fit_is_refused_with_numbers() {
    let kernel = lz4_kernel();
    let spec = || spec(&kernel);
    let small = BootSpec {
        memory_bytes: 17 << 20,
        ..spec()
    };
    assert_eq!(
        message(&small),
        "the kernel takes memory from 0x1000000 to 0x1204000, so it needs 18890752 bytes, but the machine has only 17825792 below its device hole"
    );
    assert!(
        message(&BootSpec {
            memory_bytes: 8 << 20,
            ..spec()
        })
        .contains("too small")
    );
    let initrd = Bytes::from(vec![0; 46 << 20]);
    assert_eq!(
        message(&BootSpec {
            initrd: Some(initrd.clone()),
            ..spec()
        }),
        "the initrd has 48234496 bytes, but only 48218112 are free between the kernel's end at 0x1204000 and 0x4000000"
    );
    let fits = initrd.slice(..48_218_112);
    assert!(
        load(&BootSpec {
            initrd: Some(fits),
            ..spec()
        })
        .is_ok()
    );
    let huge = Bytes::from(vec![0; 65 << 20]);
    assert!(
        message(&BootSpec {
            initrd: Some(huge),
            ..spec()
        })
        .contains("68157440 bytes")
    );
    let long = "x".repeat(2048);
    assert_eq!(
        message(&BootSpec {
            cmdline: &long,
            ..spec()
        }),
        "the kernel command line has 2048 bytes, but this kernel takes at most 2047"
    );
    assert!(
        load(&BootSpec {
            cmdline: &long[1..],
            ..spec()
        })
        .is_ok()
    );
    assert!(
        message(&BootSpec {
            cmdline: "a\0b",
            ..spec()
        })
        .contains("offset 1")
    );
    let wrong = BootSpec {
        acpi: (Gpa(0x8000), b"RSD PTR"),
        rsdp: Gpa(0x8000),
        ..spec()
    };
    assert!(message(&wrong).contains("reserved memory from 0x9fc00 to 0x100000"));
    let apart = BootSpec {
        rsdp: Gpa(0x10),
        ..spec()
    };
    assert!(message(&apart).contains("root pointer at 0x10"));
}

#[test]
fn a_kernel_over_the_boot_data_is_refused() {
    let ElfSpec {
        entry,
        mut segments,
    } = minimal_elf();
    segments[1].gpa = 0x7000;
    let file = elf(&ElfSpec { entry, segments });
    assert!(message(&spec(&file)).contains("begins at 0x7000, below 1 MiB"));
}

#[test]
fn no_acpi_and_an_empty_initrd_are_fine() {
    let kernel = lz4_kernel();
    let none = BootSpec {
        acpi: (Gpa(0), b""),
        rsdp: Gpa(0),
        initrd: Some(Bytes::new()),
        ..spec(&kernel)
    };
    let image = load(&none).unwrap();
    assert_eq!(image.initrd, None);
    assert_eq!(u64_at(segment(&image, layout::ZERO_PAGE), 0x070), Some(0));
}

#[test]
fn every_cut_file_is_an_error() {
    let file = elf(&minimal_elf());
    for payload in [
        sized(&lz4_legacy(&file), file.len()),
        sized(&zstd(&file), file.len()),
        gzip(&file),
        sized(&file, file.len()),
    ] {
        let kernel = Bz::new(&payload).build();
        // The padding of the last paragraph may be missing.
        let end = 0x600 + 0x2cc + payload.len();
        for len in 0..end {
            for as_bzimage in [false, true] {
                let spec = BootSpec {
                    as_bzimage,
                    ..spec(&kernel[..len])
                };
                let cut = load(&spec);
                assert!(cut.is_err(), "length {len} of {end}: {cut:?}");
            }
        }
        assert!(load(&spec(&kernel[..end])).is_ok());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever is changed, the answer is a kernel inside memory or an error.
    #[test]
    fn damaged_kernels_never_panic(
        pack in 0..5usize,
        as_bzimage: bool,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        header_only: bool,
    ) {
        let file = elf(&minimal_elf());
        let mut kernel = match pack {
            0 => file.clone(),
            1 => lz4_kernel(),
            2 => Bz::new(&sized(&zstd(&file), file.len())).build(),
            3 => Bz::new(&gzip(&file)).build(),
            _ => Bz::new(&sized(&file, file.len())).build(),
        };
        // Half of the time only what is parsed by hand.
        let (start, end) = match (header_only, pack) {
            (true, 0) => (0, 64 + 2 * 56),
            (true, _) => (0x1f1, 0x26c),
            (false, _) => (0, kernel.len()),
        };
        for (index, byte) in changes {
            kernel[start + index.index(end - start)] = byte;
        }
        if let Ok(image) = load(&BootSpec { as_bzimage, ..spec(&kernel) }) {
            for (gpa, bytes) in &image.segments {
                prop_assert!(gpa.0 + bytes.len() as u64 <= 64 << 20);
            }
        }
        let _ = kernel_version(&kernel);
    }
}
