//! Loading a kernel's tables and asking them. `COLINUX_TEST_VMLINUX` names an unpacked vmlinux,
//! `COLINUX_TEST_DEBUG_VMLINUX` one with debug information; what is not named is left out.

use std::hint::black_box;
use std::path::PathBuf;

use addr2line::gimli::{self, EndianSlice, LittleEndian};
use colinux_symbols::btf::Kind;
use colinux_symbols::{Btf, DebugImage, Hooks, Image, Index, Kallsyms, LinkAddr};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn named_file(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from)
}

/// Scattered addresses inside of functions, the same in every run.
fn scatter(functions: &[(u64, u64)], count: usize) -> Vec<LinkAddr> {
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    (0..count)
        .map(|_| {
            let (start, size) = functions[(next() % functions.len() as u64) as usize];
            LinkAddr(start + next() % size)
        })
        .collect()
}

fn tables(c: &mut Criterion) {
    let Some(path) = named_file("COLINUX_TEST_VMLINUX") else {
        return;
    };
    let bytes = std::fs::read(path).expect("COLINUX_TEST_VMLINUX must name a readable file");
    let image = Image::parse(&bytes).expect("image");
    let names = Kallsyms::from_image(&image).expect("kallsyms");
    let btf = Btf::from_image(&image, Some(&names)).expect("BTF");

    let mut load = c.benchmark_group("load");
    load.sample_size(20);
    load.bench_function("kallsyms", |b| b.iter(|| Kallsyms::from_vmlinux(&bytes)));
    load.bench_function("btf", |b| b.iter(|| Btf::from_image(&image, None)));
    load.bench_function("all, with hooks", |b| {
        b.iter(|| {
            let image = Image::parse(&bytes).expect("image");
            let names = Kallsyms::from_image(&image).expect("kallsyms");
            let btf = Btf::from_image(&image, Some(&names)).expect("BTF");
            Hooks::find(&names, Some(&btf))
        });
    });
    load.finish();

    let text: Vec<_> = names
        .iter()
        .filter(|e| e.is_text() && e.addr.0 >> 63 != 0)
        .filter_map(|e| Some((e.addr.0, names.lookup(e.addr)?.size)))
        .collect();
    let probes = scatter(&text, 10_000);
    let mut ask = c.benchmark_group("ask");
    ask.throughput(Throughput::Elements(probes.len() as u64));
    ask.bench_function("kallsyms by address", |b| {
        b.iter(|| {
            probes
                .iter()
                .filter(|a| black_box(names.lookup(**a)).is_some())
                .count()
        });
    });
    ask.throughput(Throughput::Elements(1));
    ask.bench_function("kallsyms by name", |b| {
        b.iter(|| names.address_of("do_exit"))
    });
    ask.bench_function("btf member", |b| {
        b.iter(|| btf.member("task_struct", "thread.sp"))
    });
    ask.bench_function("btf find", |b| {
        b.iter(|| btf.find(Kind::Struct, "task_struct"))
    });
    ask.finish();
}

fn lines(c: &mut Criterion) {
    let Some(path) = named_file("COLINUX_TEST_DEBUG_VMLINUX") else {
        return;
    };
    let debug = DebugImage::open(&path, None).expect("debug image");
    let map = colinux_symbols::map::FileMap::open(&path).expect("file");
    let image = Image::parse(&map).expect("image");
    let functions: Vec<_> = image
        .symbols()
        .filter(|s| s.is_text && s.size > 0 && s.addr.0 >> 63 != 0)
        .map(|s| (s.addr.0, s.size))
        .collect();
    let probes = scatter(&functions, 100_000);
    let folder = tempfile::tempdir().expect("folder");
    let index = Index::build(&debug, folder.path(), &mut |_, _| ()).expect("index");
    let id = image.build_id().expect("build id");

    let mut group = c.benchmark_group("lines");
    group.sample_size(10);
    let name = format!("index build ({} bytes)", index.file_bytes());
    group.bench_function(name, |b| {
        b.iter(|| Index::build(&debug, folder.path(), &mut |_, _| ()));
    });
    group.bench_function("first address, no index", |b| {
        b.iter(|| {
            let debug = DebugImage::open(&path, None).expect("debug image");
            debug.frames(probes[0], &mut |f| _ = black_box(f))
        });
    });
    group.bench_function("first address, index", |b| {
        b.iter(|| {
            let index = Index::open(folder.path(), id).expect("index");
            index.frames(probes[0], &mut |f| _ = black_box(f))
        });
    });
    let section = |id: gimli::SectionId| {
        let data = image.section(id.name()).map_or(&[][..], |s| s.data);
        Ok::<_, gimli::Error>(EndianSlice::new(data, LittleEndian))
    };
    let context = || {
        let dwarf = gimli::Dwarf::load(section).expect("sections");
        addr2line::Context::from_dwarf(dwarf).expect("context")
    };
    let theirs = |context: &addr2line::Context<_>, probe: LinkAddr| {
        let mut frames = context
            .find_frames(probe.0)
            .skip_all_loads()
            .expect("frames");
        while let Some(frame) = frames.next().expect("frame") {
            black_box((
                frame.function.as_ref().map(|f| f.raw_name().is_ok()),
                &frame.location,
            ));
        }
    };
    group.bench_function("first address, addr2line crate", |b| {
        b.iter(|| theirs(&context(), probes[0]));
    });
    let unpacked = index.unpack().expect("a sound index");
    let name = format!("index unpack (to {} bytes)", unpacked.heap_bytes());
    group.bench_function(name, |b| b.iter(|| index.unpack()));
    group.throughput(Throughput::Elements(probes.len() as u64));
    let warm = context();
    probes.iter().for_each(|probe| theirs(&warm, *probe));
    group.bench_function("inline stacks, addr2line crate", |b| {
        b.iter(|| probes.iter().for_each(|probe| theirs(&warm, *probe)));
    });
    group.bench_function("inline stacks, unpacked index", |b| {
        b.iter(|| {
            for probe in &probes {
                unpacked.frames(*probe, |f| _ = black_box(f));
            }
        });
    });
    group.bench_function("inline stacks, index", |b| {
        b.iter(|| {
            for probe in &probes {
                index.frames(*probe, &mut |f| _ = black_box(f));
            }
        });
    });
    group.finish();
}

criterion_group!(benches, tables, lines);
criterion_main!(benches);
