//! Every parser of `colinux-symbols` on any bytes: none may panic or run away. Used by the fuzz
//! target and, with its corpus, by a plain test.

use std::fs;
use std::path::Path;

use colinux_symbols::btf::NoContext;
use colinux_symbols::dwarf::{CallerState, FrameRegisters, FrameState};
use colinux_symbols::modules::read_modules;
use colinux_symbols::unwind::{OtherRegisters, Registers, unwind};
use colinux_symbols::{
    Btf, BuildId, DebugImage, GuestMemory, Image, Index, Kallsyms, Kernel, LinkAddr, Resolver,
    Slide, Symtab,
};

/// The first byte says which parser, the rest is its input. `folder` is for files: some parsers
/// map them.
pub(crate) fn check(data: &[u8], folder: &Path) {
    let Some((&which, data)) = data.split_first() else {
        return;
    };
    match which % 6 {
        0 => image(data),
        1 => types(data),
        2 => names(data),
        3 => debug_image(data, folder),
        4 => index(data, folder),
        _ => guest(data),
    }
}

/// Some addresses, near and far.
fn probes() -> impl Iterator<Item = LinkAddr> {
    let near = (0..64).map(|i| 0x1000 + i * 13);
    let kernel = (0..32).map(|i| 0xffff_ffff_8100_0000 + i * 97);
    near.chain(kernel).chain([0, u64::MAX]).map(LinkAddr)
}

fn image(data: &[u8]) {
    let Ok(image) = Image::parse(data) else {
        return;
    };
    let _ = (image.sections().count(), image.symbols().count());
    if let Some(symtab) = Symtab::from_image(&image) {
        probes().for_each(|p| _ = symtab.lookup(p));
    }
    if let Ok(kernel) = Kernel::from_vmlinux(data) {
        let resolver = kernel.resolver(Slide::NONE);
        probes().for_each(|p| _ = resolver.place(p.run(Slide::NONE)));
    }
}

fn types(data: &[u8]) {
    let Ok(btf) = Btf::parse(data) else { return };
    let zeros = [0; 256];
    for id in btf.ids().take(200) {
        let _ = (btf.type_name(id), btf.layout(id).len(), btf.size_of(id));
        let _ = btf.print(id, &zeros, &NoContext);
        let _ = btf.member_of(id, "a[1].b");
    }
    let _ = btf.named("struct task_struct");
}

fn names(data: &[u8]) {
    let place = |at| Some(LinkAddr(0xffff_ffff_8100_0000 + at as u64));
    let Ok(names) = Kallsyms::from_placed(data, place) else {
        return;
    };
    probes().for_each(|p| _ = names.lookup(p));
    for entry in names.iter().take(50) {
        let _ = (names.address_of(entry.name), names.lookup(entry.addr));
    }
}

/// DWARF, linked and to be relocated, and the index made from it.
fn debug_image(data: &[u8], folder: &Path) {
    let path = folder.join("image");
    if fs::write(&path, data).is_err() {
        return;
    }
    let placed = |_: &str| Some(LinkAddr(0x1000));
    let images = [
        DebugImage::open(&path, None),
        DebugImage::open_module(&path, None, &placed),
    ];
    for image in images.into_iter().flatten() {
        for probe in probes() {
            let _ = image.frames(probe, &mut |_| ());
        }
        variables(&image, data);
        if let Ok(index) = Index::build(&image, folder, &mut |_, _| ()) {
            probes().for_each(|p| _ = index.frames(p, &mut |_| ()));
            let _ = fs::remove_file(index.path());
        }
    }
}

/// Variables of a function that the same image calls, from registers and memory that say anything.
fn variables(image: &DebugImage, data: &[u8]) {
    let memory = Anything(data);
    let registers = FrameRegisters::all(&std::array::from_fn(|i| 0x1000 + 24 * i as u64));
    for probe in probes() {
        let caller = CallerState {
            image,
            returns_to: LinkAddr(probe.0.wrapping_add(13)),
            registers,
            cfa: Some(0x1200),
            slide: Slide::NONE,
        };
        let state = FrameState {
            registers,
            cfa: Some(0x1100),
            slide: Slide::NONE,
            memory: &memory,
            callers: &[Some(caller.clone()), Some(caller)],
        };
        let _ = image.variables(probe, &state);
        let _ = image.caller_registers(probe, &state);
    }
    let _ = image.type_of_variable("a");
}

fn index(data: &[u8], folder: &Path) {
    let id = BuildId::new([1, 2, 3, 4]);
    let path = Index::path_in(folder, &id);
    if fs::write(&path, data).is_err() {
        return;
    }
    if let Ok(index) = Index::open(folder, &id) {
        let _ = index.verify();
        let unpacked = index.unpack();
        for probe in probes() {
            let _ = index.frames(probe, &mut |_| ());
            let _ = unpacked.as_ref().map(|u| u.frames(probe, |_| ()));
        }
    }
    let _ = fs::remove_file(path);
}

/// A guest whose memory is these bytes, over and over: lists, rings and stacks in it lead anywhere.
struct Anything<'d>(&'d [u8]);

impl GuestMemory for Anything<'_> {
    fn read(&self, gva: u64, buf: &mut [u8]) -> bool {
        let len = self.0.len() as u64;
        if len == 0 || gva < 0x1000 || buf.len() > 1 << 20 {
            return false;
        }
        for (i, byte) in buf.iter_mut().enumerate() {
            *byte = self.0[(gva.wrapping_add(i as u64) % len) as usize];
        }
        true
    }
}

fn guest(data: &[u8]) {
    let memory = Anything(data);
    let word = |at: usize| {
        let bytes = data.get(at..at + 8).and_then(|b| b.try_into().ok());
        u64::from_le_bytes(bytes.unwrap_or_default())
    };
    let registers = Registers {
        ip: word(0),
        sp: word(8),
        bp: word(16),
        others: Some(OtherRegisters {
            dx: word(24),
            di: word(32),
            r10: word(40),
            r13: word(48),
        }),
        is_user: word(56) & 1 == 1,
    };
    let resolver = Resolver::default();
    let orc = resolver.orc(&memory, colinux_symbols::orc::OrcLayout::NEW);
    let _ = unwind(&memory, &orc, &registers, 64);
    if let Ok(btf) = Btf::parse(data.get(64..).unwrap_or_default()) {
        let mut hooks = colinux_symbols::Hooks::default();
        hooks.data.modules = Some(LinkAddr(0x2000));
        let _ = read_modules(&memory, &hooks, &btf, Slide::NONE);
    }
}
