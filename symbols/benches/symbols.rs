//! Loading a kernel's tables and asking them; on the image that `COLINUX_TEST_VMLINUX` names.

use std::hint::black_box;

use colinux_symbols::btf::Kind;
use colinux_symbols::{Btf, Hooks, Image, Kallsyms, LinkAddr};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Scattered text addresses, the same in every run.
fn probes(names: &Kallsyms, count: usize) -> Vec<LinkAddr> {
    let from = names.address_of("_text").unwrap_or_default().0;
    let to = names.address_of("_etext").unwrap_or_default().0;
    let span = (to - from).max(1);
    let step = |x: u64| x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    let mut x = 1;
    (0..count)
        .map(|_| {
            x = step(x);
            LinkAddr(from + (x >> 20) % span)
        })
        .collect()
}

fn tables(c: &mut Criterion) {
    let Some(path) = std::env::var_os("COLINUX_TEST_VMLINUX") else {
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

    let probes = probes(&names, 10_000);
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

criterion_group!(benches, tables);
criterion_main!(benches);
