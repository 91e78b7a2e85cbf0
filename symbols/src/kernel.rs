//! All that a kernel's own image says of it, and what is asked of a guest that runs it.
//!
//! One value per kernel build, made once; a guest is given with every question, since what it
//! answers holds for one moment only.

use std::sync::Arc;

use crate::addr::{GuestMemory, Gva, LinkAddr, ReadExt, Slide};
use crate::btf::Btf;
use crate::dmesg::{LogRecord, LogRing};
use crate::error::SymbolError;
use crate::hooks::Hooks;
use crate::image::{BuildId, Image};
use crate::kallsyms::Kallsyms;
use crate::modules::{Module, read_modules};
use crate::orc::{OrcLayout, OrcTable};
use crate::ps::{Task, read_task, read_tasks};
use crate::resolve::Resolver;
use crate::unwind::{MAX_FRAMES, Registers, Stack, unwind};

/// A kernel build: names, types, unwind table.
#[derive(Debug)]
pub struct Kernel {
    /// Its name table.
    pub names: Arc<Kallsyms>,
    /// Its type table, if it carries one.
    pub btf: Option<Arc<Btf>>,
    /// Where its tasks, modules and log are.
    pub hooks: Hooks,
    /// Its unwind table, if it carries one.
    pub orc: Option<OrcTable>,
    /// The layout of unwind entries, of its modules too.
    pub orc_layout: OrcLayout,
    /// The fingerprint of the build.
    pub build_id: Option<BuildId>,
    /// What `uname -r` says.
    pub release: Option<String>,
}

/// What of a CPU's state tells where the kernel runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clues {
    /// IA32_LSTAR: the entry of system calls.
    pub lstar: u64,
    /// The base of the interrupt descriptor table.
    pub idt: u64,
}

/// Vector of the page fault, whose gate every kernel has from its first instructions in C on.
const PAGE_FAULT: u64 = 14;
/// Bytes of a gate (SDM volume 3, 6.14.1).
const GATE: u64 = 16;
/// How the version string begins.
const BANNER: &[u8] = b"Linux version ";

impl Kernel {
    /// From an unpacked vmlinux, stripped or not.
    pub fn from_vmlinux(vmlinux: &[u8]) -> Result<Self, SymbolError> {
        let image = Image::parse(vmlinux)?;
        let names = Kallsyms::from_image(&image)?;
        let btf = Btf::from_image(&image, Some(&names)).ok();
        let hooks = Hooks::find(&names, btf.as_ref());
        let release = hooks.data.banner.and_then(|at| release(&image, at));
        Ok(Self {
            orc: OrcTable::from_image(&image, btf.as_ref()).ok(),
            orc_layout: OrcLayout::of(&image, btf.as_ref()),
            build_id: image.build_id().cloned(),
            names: Arc::new(names),
            btf: btf.map(Arc::new),
            hooks,
            release,
        })
    }

    /// How far the running kernel was moved: from the entries it gave to the CPU, believed when
    /// its version string lies where they say. None before it has set up any.
    pub fn find_slide<M: GuestMemory + ?Sized>(&self, memory: &M, clues: Clues) -> Option<Slide> {
        let handler = || {
            let gate = clues.idt.wrapping_add(PAGE_FAULT * GATE);
            let mut raw = [0; 12];
            memory.read(gate, &mut raw).then(|| {
                let part = |at: usize, len: usize| {
                    let bytes = raw[at..at + len].iter().rev();
                    bytes.fold(0u64, |n, b| n << 8 | u64::from(*b))
                };
                part(0, 2) | part(6, 2) << 16 | part(8, 4) << 32
            })
        };
        // Early handlers are 9 bytes apart (EARLY_IDT_HANDLER_SIZE, with ENDBR 13).
        let linked = |name: &str| self.names.address_of(name);
        let early = |size: u64| Some(linked("early_idt_handler_array")?.plus(PAGE_FAULT * size));
        let handler = handler();
        let candidates = [
            (self.hooks.functions.syscall_entry, Some(clues.lstar)),
            (linked("asm_exc_page_fault"), handler),
            (early(9), handler),
            (early(13), handler),
            (linked("idt_table"), Some(clues.idt)),
            (linked("bringup_idt_table"), Some(clues.idt)),
        ];
        candidates.into_iter().find_map(|(link, run)| {
            let slide = Slide::between(link?, Gva(run.filter(|r| *r != 0)?));
            self.runs_at(memory, slide).then_some(slide)
        })
    }

    /// Whether this kernel lies in the guest under this slide: KASLR moves by multiples of
    /// `CONFIG_PHYSICAL_ALIGN` (2 MiB) inside 1 GiB, and the version string must be there.
    fn runs_at<M: GuestMemory + ?Sized>(&self, memory: &M, slide: Slide) -> bool {
        let possible = slide.0 < 1 << 30 && slide.0.is_multiple_of(2 << 20);
        let banner = self.hooks.data.banner.filter(|_| possible);
        let found = banner.and_then(|at| memory.bytes_at(at.run(slide).0, BANNER.len()));
        found.is_some_and(|bytes| bytes == BANNER)
    }

    /// What is added to an address of the kernel image, less `__START_KERNEL_map`, to get the
    /// physical one: the kernel's own `phys_base`.
    pub fn phys_base<M: GuestMemory + ?Sized>(&self, memory: &M, slide: Slide) -> Option<u64> {
        memory.u64_at(self.names.address_of("phys_base")?.run(slide).0)
    }

    /// A resolver with the kernel's own tables.
    pub fn resolver(&self, slide: Slide) -> Resolver {
        let mut resolver = Resolver::new(Arc::clone(&self.names));
        resolver.set_slide(slide);
        if let Some(orc) = &self.orc {
            resolver.set_orc(orc.clone());
        }
        resolver
    }

    /// The guest's tasks.
    pub fn tasks<M: GuestMemory + ?Sized>(
        &self,
        memory: &M,
        slide: Slide,
    ) -> Result<Vec<Task>, SymbolError> {
        read_tasks(memory, &self.hooks, slide)
    }

    /// Where CPU 0 keeps the pointer to the task that it runs.
    pub fn current_slot<M: GuestMemory + ?Sized>(&self, memory: &M, slide: Slide) -> Option<Gva> {
        let per_cpu = self.hooks.data.per_cpu_offset?.run(slide);
        Some(Gva(memory.u64_at(per_cpu.0)?).plus(self.hooks.data.current_task?))
    }

    /// The task that runs on CPU 0.
    pub fn current<M: GuestMemory + ?Sized>(&self, memory: &M, slide: Slide) -> Option<Task> {
        let task = memory.u64_at(self.current_slot(memory, slide)?.0)?;
        read_task(memory, &self.hooks.task, Gva(task)).ok()
    }

    /// The guest's kernel log.
    pub fn log<M: GuestMemory + ?Sized>(
        &self,
        memory: &M,
        slide: Slide,
    ) -> Result<Vec<LogRecord>, SymbolError> {
        Ok(LogRing::open(memory, &self.hooks, slide)?
            .records()
            .collect())
    }

    /// The guest's modules.
    pub fn modules<M: GuestMemory + ?Sized>(
        &self,
        memory: &M,
        slide: Slide,
    ) -> Result<Vec<Module>, SymbolError> {
        let btf = self
            .btf
            .as_deref()
            .ok_or(SymbolError::NoSection { section: ".BTF" })?;
        read_modules(memory, &self.hooks, btf, slide)
    }

    /// The stack from these registers, by the tables of the kernel and of the resolver's modules.
    pub fn stack<M: GuestMemory + ?Sized>(
        &self,
        memory: &M,
        resolver: &Resolver,
        registers: &Registers,
    ) -> Stack {
        let orc = resolver.orc(memory, self.orc_layout);
        unwind(memory, &orc, registers, MAX_FRAMES)
    }

    /// The registers of a task that does not run.
    pub fn registers_of<M: GuestMemory + ?Sized>(
        &self,
        memory: &M,
        task: &Task,
    ) -> Option<Registers> {
        Registers::of_sleeping(memory, self.btf.as_deref()?, task.saved_sp?)
    }
}

/// The third word of the version string.
fn release(image: &Image<'_>, banner: LinkAddr) -> Option<String> {
    let bytes = image.bytes_at(banner, BANNER.len() + 65)?;
    let rest = bytes.strip_prefix(BANNER)?;
    let end = rest.iter().position(|b| *b == b' ' || *b == 0)?;
    Some(String::from_utf8_lossy(&rest[..end]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kallsyms::synthetic::{BASE, Order, build, place};
    use crate::memory::SparseMemory;

    fn kernel() -> Kernel {
        let filler: Vec<String> = (0..400).map(|i| format!("f{i}")).collect();
        let list = filler.iter().enumerate();
        let mut all: Vec<_> = list
            .map(|(i, n)| (BASE + i as u64, b'T', n.as_str()))
            .collect();
        all.extend([
            (BASE + 0x1000, b'T', "asm_exc_page_fault"),
            (BASE + 0x2000, b'T', "entry_SYSCALL_64"),
            (BASE + 0x3000, b'D', "linux_banner"),
            (BASE + 0x4000, b'D', "phys_base"),
            (BASE + 0x5000, b'D', "idt_table"),
        ]);
        let names = Kallsyms::from_placed(&build(Order::OffsetsFirst, &all), place).expect("table");
        let hooks = Hooks::find(&names, None);
        Kernel {
            names: Arc::new(names),
            btf: None,
            hooks,
            orc: None,
            orc_layout: OrcLayout::NEW,
            build_id: None,
            release: None,
        }
    }

    #[test]
    fn the_slide_is_found_by_each_clue_and_believed_by_the_banner() {
        let kernel = kernel();
        let slide = Slide(0x1220_0000);
        let run = |at: u64| BASE + at + slide.0;
        let mut guest = SparseMemory::default();
        let lstar = Clues {
            lstar: run(0x2000),
            idt: 0,
        };
        assert_eq!(kernel.find_slide(&guest, lstar), None, "nothing is there");
        guest.put(run(0x3000), b"Linux version 6.1.0 (");
        guest.put_u64(run(0x4000), 0x77);
        assert_eq!(kernel.find_slide(&guest, lstar), Some(slide));
        let table = Clues {
            lstar: 0,
            idt: run(0x5000),
        };
        assert_eq!(kernel.find_slide(&guest, table), Some(slide));
        // A table elsewhere, whose gate leads to the handler.
        let handler = run(0x1000);
        let mut gate = [0; 16];
        gate[..2].copy_from_slice(&handler.to_le_bytes()[..2]);
        gate[6..12].copy_from_slice(&handler.to_le_bytes()[2..]);
        guest.put(0xffff_fe00_0000_00e0, &gate);
        let moved = Clues {
            lstar: 0,
            idt: 0xffff_fe00_0000_0000,
        };
        assert_eq!(kernel.find_slide(&guest, moved), Some(slide));
        assert_eq!(kernel.phys_base(&guest, slide), Some(0x77));
        assert_eq!(kernel.find_slide(&guest, Clues::default()), None);
        let odd = Clues {
            lstar: run(0x2001),
            idt: 0,
        };
        assert_eq!(kernel.find_slide(&guest, odd), None);
    }
}
