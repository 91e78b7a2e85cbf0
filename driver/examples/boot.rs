//! Boots a kernel without recording it, to look at the machine alone.
//!
//! `cargo run --release -p colinux-driver --example boot -- KERNEL INITRD [COMMAND LINE]`
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a program for people, outside of the machine"
)]

use std::io::Write;

use colinux_driver::boot::{self, BootSpec};
use colinux_driver::layout;
use colinux_driver::machine::{Machine, MachineConfig, Stop};
use colinux_driver::observer::{Kind, Observation, Wanted};
use colinux_driver::tick::Tick;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let kernel = std::fs::read(args.get(1).ok_or("KERNEL is missing")?)?.into();
    let initrd = std::fs::read(args.get(2).ok_or("INITRD is missing")?)?.into();
    let cmdline = args.get(3).map_or("console=ttyS0 panic=-1", String::as_str);
    let tables = colinux_driver::dev::acpi::tables(1, layout::RSDP);
    let config = MachineConfig {
        memory_bytes: 512 << 20,
        rtc_epoch_s: 1_700_000_000,
        ns_per_tick: 1,
        quantum_ticks: 1 << 22,
    };
    let image = boot::load(&BootSpec {
        kernel,
        initrd: Some(initrd),
        cmdline,
        memory_bytes: config.memory_bytes,
        as_bzimage: false,
        acpi: (layout::RSDP, &tables),
        rsdp: layout::RSDP,
    })?;
    let mut machine = Machine::new(&config, &image);
    machine.want(
        Wanted::NONE
            .with(Kind::ConsoleOut)
            .with(Kind::GuestShutdown),
    );
    let verbose = std::env::var_os("BOOT_VERBOSE").is_some();
    if let Some(at) = std::env::var("BOOT_TRACE")
        .ok()
        .and_then(|v| v.parse::<u64>().ok())
    {
        while machine.tick().0 < at {
            if let Stop::Idle(Some(time)) = machine.run(Tick(at)) {
                machine.warp_to(time);
            }
        }
        for i in 1..200 {
            let c = machine.core();
            let r = &c.cpu.regs;
            eprintln!(
                "{} rip {:x} rax {:x} rcx {:x} rdx {:x} rbx {:x} rsp {:x} rbp {:x} rsi {:x} rdi {:x} fl {:x} cr2 {:x}",
                machine.tick(),
                c.cpu.rip,
                r[0],
                r[1],
                r[2],
                r[3],
                r[4],
                r[5],
                r[6],
                r[7],
                c.cpu.rflags(),
                c.cpu.cr2
            );
            machine.run(Tick(at + i));
        }
    }
    let start = std::time::Instant::now();
    let stop = loop {
        let stop = machine.run(Tick(u64::MAX));
        let mut out = std::io::stdout().lock();
        machine.drain(|_, what| {
            if let Observation::ConsoleOut { bytes, .. } = what {
                let _ = out.write_all(&bytes);
            }
        });
        out.flush()?;
        match stop {
            Stop::Quantum | Stop::Pause => {
                if verbose {
                    eprintln!("{} rip {:#x}", machine.tick(), machine.core().cpu.rip);
                }
            }
            Stop::Idle(Some(time)) => machine.warp_to(time),
            other => break other,
        }
    };
    let seconds = start.elapsed().as_secs_f64();
    let ticks = machine.tick().0;
    eprintln!(
        "{stop:?} at {}: {seconds:.2} s, {:.1} million instructions a second, {} blocks, digest {:032x}",
        machine.tick(),
        ticks as f64 / seconds / 1e6,
        machine.blocks_decoded(),
        machine.digest()
    );
    if let Stop::Unsupported(what) = stop {
        eprintln!("{what}");
    }
    eprintln!("rip {:#x}", machine.core().cpu.rip);
    Ok(())
}
