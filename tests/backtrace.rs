//! Our stacks against those that a real gdb unwinds by DWARF from the same machine state, at ticks
//! scattered over a boot. Needs gdb and the kernel's debug image (`guest fetch --debug`); without
//! either nothing runs. `COLINUX_TEST_SAMPLES` says how many ticks.

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use colinux_replay::{GuestKernel, Mark, Timeline, view};
use colinux_symbols::unwind::{End, MAX_FRAMES, Method, Stack};
use colinux_symbols::{Gva, Resolver, Slide};
use colinux_tracer::Reader;
use common::Sandbox;

/// Prints a line for each tick: the tick, then the instruction of every frame on the stack. Inlined
/// functions have none, and no more have those that gdb adds for calls in tail position.
const SCRIPT: &str = r#"
import gdb
gdb.execute("set pagination off")
gdb.execute("set stack-cache off")
gdb.execute("set code-cache off")
gdb.execute("set backtrace past-main on")
gdb.execute("set backtrace past-entry on")
for tick in open(TICKS).read().split():
    gdb.execute("monitor seek @" + tick, to_string=True)
    gdb.execute("maintenance flush register-cache", to_string=True)
    found = []
    try:
        frame = gdb.newest_frame()
        while frame is not None and len(found) < 200:
            if frame.type() not in (gdb.INLINE_FRAME, gdb.TAILCALL_FRAME):
                found.append("%x" % frame.pc())
            frame = frame.older()
    except gdb.error as error:
        found.append("!")
    print("BT", tick, *found, flush=True)
"#;

/// Why two stacks are not the same, as far as they differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// All frames up to where both end, or where assembly without CFI begins, in which gdb guesses.
    Same,
    /// It stands in assembly, of which DWARF says nothing.
    StartsInAssembly,
    /// Ours ends before gdb's, though not at the bottom.
    OursIsShorter,
    /// gdb's ends before ours, though in code that DWARF describes.
    TheirsIsShorter,
    /// The frames differ.
    Differs,
}

fn cached_vmlinux(kernel: &str) -> Option<PathBuf> {
    let vmlinux = Path::new(kernel).with_file_name("vmlinux");
    vmlinux.is_file().then_some(vmlinux)
}

/// Whether DWARF describes the code of a function at an address: C, not assembly.
fn is_c(resolver: &Resolver, ip: u64) -> bool {
    let mut c = false;
    resolver.frames(Gva(ip), &mut |frame| c |= frame.function.is_some());
    c
}

fn classify(resolver: &Resolver, ours: &Stack, theirs: &[u64]) -> Class {
    let kernel: Vec<u64> = ours
        .frames
        .iter()
        .filter(|f| !f.is_user)
        .map(|f| f.ip.0)
        .collect();
    // As far as gdb has something to go by: through the first frame in assembly.
    let start = is_c(resolver, kernel[0]);
    if !start && kernel.iter().zip(theirs).take(2).any(|(a, b)| a != b) {
        return Class::StartsInAssembly;
    }
    let known = kernel
        .iter()
        .position(|ip| !is_c(resolver, ip - 1))
        .filter(|_| start)
        .map_or(kernel.len(), |at| at + 1);
    for at in 0..known.max(theirs.len()) {
        match (kernel.get(at), theirs.get(at)) {
            _ if at >= known => return Class::Same,
            (Some(a), Some(b)) if a == b => {}
            (Some(_), Some(_)) => return Class::Differs,
            (None, _) if ours.end == End::Bottom => return Class::Same,
            (None, _) => return Class::OursIsShorter,
            (Some(_), None) => return Class::TheirsIsShorter,
        }
    }
    Class::Same
}

#[test]
fn stacks_equal_those_of_gdb() {
    compare(&[]);
}

#[test]
fn stacks_of_a_kernel_that_moved_itself_equal_those_of_gdb() {
    compare(&["--as-bzimage"]);
}

#[allow(
    clippy::print_stderr,
    reason = "the figures of a comparison, and why it is skipped"
)]
fn compare(options: &[&str]) {
    let kernel = common::kernel("6.1");
    let gdb = Command::new("gdb").arg("--version").output().is_ok();
    let (Some(vmlinux), true) = (cached_vmlinux(&kernel), gdb) else {
        eprintln!("skipped: needs gdb, and the debug image of the kernel in the cache");
        return;
    };
    let samples = std::env::var("COLINUX_TEST_SAMPLES").ok();
    let samples: usize = samples.and_then(|n| n.parse().ok()).unwrap_or(40);
    let sandbox = Sandbox::new();
    let line = "for i in 1 2 3 4 5 6 7 8; do ls -lR /proc/self | tail -1; dmesg | wc; done";
    let record = ["record", "--kernel", &kernel, "-o", "boot.clt"];
    sandbox.ok(&[&record[..], options, &["--", line]].concat());

    // Ours first, which also says which ticks are in the kernel.
    let reader = Reader::open(sandbox.path("boot.clt")).unwrap();
    let guest = GuestKernel::of(&reader).unwrap();
    let mut timeline = Timeline::open(&reader).unwrap();
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    let mut ticks: Vec<u64> = (0..samples * 4)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x % timeline.last_tick()
        })
        .collect();
    // Half of them from the last tenth, where programs run.
    let last = timeline.last_tick();
    for tick in ticks.iter_mut().skip(1).step_by(2) {
        *tick = last - *tick / 10;
    }
    ticks.truncate(samples * 4);
    ticks.sort_unstable();
    ticks.dedup();
    let debug = colinux_symbols::DebugImage::open(&vmlinux, None).unwrap();
    let mut source = Some(debug);
    let mut ours: BTreeMap<u64, Stack> = BTreeMap::new();
    let mut shown = None;
    let mut slide = Slide::NONE;
    let step = ticks.len().div_ceil(samples * 2).max(1);
    for tick in ticks.into_iter().step_by(step) {
        timeline.seek(Mark::at(tick), &mut |_| true).unwrap();
        if view::registers(timeline.machine()).is_user {
            continue;
        }
        // Before the kernel has told where it runs there are no names to compare.
        let Some(found) = guest.slide(timeline.machine_mut()) else {
            continue;
        };
        slide = found;
        let resolver = guest.resolver(timeline.machine_mut());
        let stack = guest.stack(timeline.machine_mut(), &resolver);
        assert!(stack.frames.len() <= MAX_FRAMES && !stack.frames.is_empty());
        ours.insert(tick, stack);
        let shown: &mut Resolver = shown.get_or_insert(resolver);
        if let Some(debug) = source.take() {
            shown.set_source(colinux_symbols::resolve::Source::Dwarf(debug));
        }
    }
    let resolver = shown.unwrap();
    while ours.len() > samples {
        let middle = *ours.keys().nth(ours.len() / 2).unwrap();
        ours.remove(&middle);
    }

    let theirs = by_gdb(&sandbox, &vmlinux, slide, ours.keys().copied());
    let mut classes: BTreeMap<Class, Vec<u64>> = BTreeMap::new();
    for (tick, stack) in &ours {
        let class = classify(&resolver, stack, &theirs[tick]);
        classes.entry(class).or_default().push(*tick);
    }
    for (class, ticks) in &classes {
        eprintln!("{class:?}: {}", ticks.len());
        if *class == Class::Same {
            continue;
        }
        for tick in ticks.iter().take(6) {
            eprintln!("  @{tick}");
            let name = |ip: u64| {
                resolver
                    .place(Gva(ip))
                    .map_or_else(|| "??".to_owned(), |p| p.to_string())
            };
            for frame in &ours[tick].frames {
                eprintln!(
                    "    ours {:5} {:#x} {}",
                    frame.method.word(),
                    frame.ip.0,
                    name(frame.ip.0)
                );
            }
            for ip in &theirs[tick] {
                eprintln!("    gdb        {ip:#x} {}", name(*ip));
            }
        }
    }
    let same = classes.get(&Class::Same).map_or(0, Vec::len);
    let guessed = ours.values().flat_map(|s| &s.frames);
    let guessed = guessed.filter(|f| f.method == Method::Scan).count();
    eprintln!(
        "{same} of {} the same; {guessed} frames by a scan",
        ours.len()
    );
    let differ = ours.len() - same;
    assert!(differ <= (ours.len() / 100).max(2), "{differ} differ");
}

/// What gdb unwinds at each tick.
fn by_gdb(
    sandbox: &Sandbox,
    vmlinux: &Path,
    slide: Slide,
    ticks: impl Iterator<Item = u64>,
) -> BTreeMap<u64, Vec<u64>> {
    let list: Vec<String> = ticks.map(|t| t.to_string()).collect();
    let ticks = sandbox.file("ticks", list.join("\n").as_bytes());
    let script = sandbox.file(
        "bt.py",
        SCRIPT.replace("TICKS", &format!("{ticks:?}")).as_bytes(),
    );
    let mut server = sandbox
        .command(&["gdb", "boot.clt", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut notes = BufReader::new(server.stderr.take().unwrap());
    let mut line = String::new();
    notes.read_line(&mut line).unwrap();
    let address = line
        .split('`')
        .nth(1)
        .unwrap()
        .rsplit(' ')
        .next()
        .unwrap()
        .to_owned();
    thread::spawn(move || std::io::copy(&mut notes, &mut std::io::sink()));
    let output = Command::new("gdb")
        .args(["-nx", "-batch", "-ex", "set confirm off"])
        .args([
            "-ex",
            &format!("symbol-file {} -o {slide}", vmlinux.display()),
        ])
        .args(["-ex", &format!("target remote {address}"), "-x", &script])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let _ = server.kill();
    let _ = server.wait();
    let text = String::from_utf8_lossy(&output.stdout);
    let mut all = BTreeMap::new();
    for line in text.lines().filter_map(|l| l.strip_prefix("BT ")) {
        let mut words = line.split(' ');
        let tick: u64 = words.next().unwrap().parse().unwrap();
        let ips = words
            .filter_map(|w| u64::from_str_radix(w, 16).ok())
            .collect();
        all.insert(tick, ips);
    }
    assert_eq!(
        all.len(),
        list.len(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    all
}
