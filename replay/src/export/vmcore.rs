//! A core dump of the guest at one tick, as a kernel that crashed with kdump would leave it.
//!
//! ELF64 `ET_CORE`: a `PT_NOTE` with the registers of each vCPU (`NT_PRSTATUS`) and the kernel's own
//! `VMCOREINFO`, then a `PT_LOAD` for each range of RAM. `p_paddr` is the pseudo-physical address,
//! `p_vaddr` where the kernel maps it directly. Pages the guest never touched are holes in the file.
//! Source: the kernel's `Documentation/admin-guide/kdump/vmcoreinfo.rst`, `fs/proc/vmcore.c`.

use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Range;

use colinux_driver::layout::{RangeKind, memory_map};
use colinux_driver::machine::Machine;
use colinux_driver::mem::addr::{Gpa, PAGE_SIZE};
use colinux_symbols::{GuestMemory, Resolver};
use object::LittleEndian as LE;
use object::elf;
use object::pod::bytes_of;

use crate::state::Registers;
use crate::timeline::Timeline;
use crate::view::MachineMemory;

/// Size of `struct elf_prstatus` on x86-64, and where in it the thread and its registers are.
const PRSTATUS_SIZE: usize = 336;
const PRSTATUS_PID: usize = 32;
const PRSTATUS_REGS: usize = 112;
/// `VMCOREINFO` is at most a page; anything longer is no such text.
const VMCOREINFO_MAX: u64 = 4096;
/// Where kernels with four levels of page tables map all RAM, unless KASLR moved it.
const DIRECT_MAP: u64 = 0xffff_8880_0000_0000;

/// What a core dump holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dumped {
    /// Bytes of RAM in it, holes left out.
    pub bytes: u64,
    /// Whether the kernel had already written its `VMCOREINFO`.
    pub has_info: bool,
}

/// Writes the machine at the cursor of a timeline. The file must be empty.
pub fn write<W: Write + Seek>(
    timeline: &mut Timeline,
    names: &Resolver,
    thread: u32,
    out: &mut W,
) -> io::Result<Dumped> {
    let registers = timeline.registers();
    let machine = timeline.machine_mut();
    let info = vmcoreinfo(machine, names);
    let direct_map = variable(machine, names, "page_offset_base").unwrap_or(DIRECT_MAP);
    let mut notes = note(b"CORE\0", elf::NT_PRSTATUS, &prstatus(&registers, thread));
    if let Some(info) = &info {
        notes.extend(note(b"VMCOREINFO\0", elf::NoteType(0), info));
    }
    let memory = machine.core().ram.size();
    let ranges: Vec<_> = memory_map(memory)
        .into_iter()
        .filter(|range| range.kind == RangeKind::Ram)
        .collect();
    let headers = 1 + ranges.len();
    let notes_at = (size_of::<elf::FileHeader64<LE>>()
        + headers * size_of::<elf::ProgramHeader64<LE>>()) as u64;
    let data_at = (notes_at + notes.len() as u64).next_multiple_of(PAGE_SIZE);

    out.write_all(&file_header(headers))?;
    let size = notes.len() as u64;
    out.write_all(&program_header(elf::PT_NOTE, notes_at, 0, 0, size))?;
    let mut at = data_at;
    for range in &ranges {
        let (start, size) = (range.start.0, range.end.0 - range.start.0);
        let gva = direct_map.wrapping_add(start);
        out.write_all(&program_header(elf::PT_LOAD, at, gva, start, size))?;
        at += size;
    }
    out.write_all(&notes)?;

    let mut bytes = 0;
    let mut at = data_at;
    for range in &ranges {
        bytes += range_bytes(machine, range.start..range.end, at, out)?;
        at += range.end.0 - range.start.0;
    }
    // The file is as long as its headers say, also when it ends in a hole.
    out.seek(SeekFrom::Start(at - 1))?;
    let last = ranges.last().map_or(0, |range| range.end.0 - 1);
    let ram = &machine.core().ram;
    let last = ram.offset(Gpa(last)).map_or(0, |at| ram.bytes()[at]);
    out.write_all(&[last])?;
    out.flush()?;
    Ok(Dumped {
        bytes,
        has_info: info.is_some(),
    })
}

/// Writes the pages of a range that were ever touched, the first of it at `at`; says how many bytes.
fn range_bytes<W: Write + Seek>(
    machine: &Machine,
    range: Range<Gpa>,
    at: u64,
    out: &mut W,
) -> io::Result<u64> {
    let ram = &machine.core().ram;
    let Some(offset) = ram.offset(range.start) else {
        return Ok(0);
    };
    let (first, size) = (offset / PAGE_SIZE as usize, PAGE_SIZE as usize);
    let pages = ((range.end.0 - range.start.0) / PAGE_SIZE) as usize;
    let mut bytes = 0;
    let mut next = None;
    for page in (first..first + pages).filter(|page| ram.is_allocated(*page)) {
        let to = at + ((page - first) * size) as u64;
        if next != Some(to) {
            out.seek(SeekFrom::Start(to))?;
        }
        out.write_all(ram.page_bytes(page))?;
        next = Some(to + PAGE_SIZE);
        bytes += PAGE_SIZE;
    }
    Ok(bytes)
}

/// The text that the kernel keeps for readers of its dumps, once it has written it.
fn vmcoreinfo(machine: &mut Machine, names: &Resolver) -> Option<Vec<u8>> {
    let text = variable(machine, names, "vmcoreinfo_data")?;
    let size = variable(machine, names, "vmcoreinfo_size")?;
    if text == 0 || !(1..=VMCOREINFO_MAX).contains(&size) {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(size).ok()?];
    let is_there = MachineMemory::new(machine).read(text, &mut bytes);
    is_there.then_some(bytes)
}

/// A 64-bit variable of the kernel.
fn variable(machine: &mut Machine, names: &Resolver, name: &str) -> Option<u64> {
    let at = names.address_of(name)?;
    let mut bytes = [0; 8];
    let is_there = MachineMemory::new(machine).read(at.0, &mut bytes);
    is_there.then(|| u64::from_le_bytes(bytes))
}

fn file_header(program_headers: usize) -> Vec<u8> {
    let (header, entry) = (
        size_of::<elf::FileHeader64<LE>>(),
        size_of::<elf::ProgramHeader64<LE>>(),
    );
    bytes_of(&elf::FileHeader64::<LE> {
        e_ident: elf::Ident {
            magic: elf::ELFMAG,
            class: elf::ELFCLASS64,
            data: elf::ELFDATA2LSB,
            version: elf::EV_CURRENT,
            os_abi: elf::ELFOSABI_NONE,
            abi_version: 0,
            padding: [0; 7],
        },
        e_type: elf::ET_CORE.into(),
        e_machine: elf::EM_X86_64.into(),
        e_version: 1.into(),
        e_entry: 0.into(),
        e_phoff: (header as u64).into(),
        e_shoff: 0.into(),
        e_flags: elf::FileFlags(0).into(),
        e_ehsize: (header as u16).into(),
        e_phentsize: (entry as u16).into(),
        e_phnum: (program_headers as u16).into(),
        e_shentsize: 0.into(),
        e_shnum: 0.into(),
        e_shstrndx: elf::SymbolSection(0).into(),
    })
    .to_vec()
}

fn program_header(kind: elf::ProgramType, at: u64, gva: u64, gpa: u64, size: u64) -> Vec<u8> {
    let flags = match kind {
        elf::PT_LOAD => elf::PF_R | elf::PF_W | elf::PF_X,
        _ => elf::ProgramFlags(0),
    };
    bytes_of(&elf::ProgramHeader64::<LE> {
        p_type: kind.into(),
        p_flags: flags.into(),
        p_offset: at.into(),
        p_vaddr: gva.into(),
        p_paddr: gpa.into(),
        p_filesz: size.into(),
        p_memsz: size.into(),
        p_align: 0.into(),
    })
    .to_vec()
}

/// A note: header, name and content, each padded to four bytes.
fn note(name: &[u8], kind: elf::NoteType, content: &[u8]) -> Vec<u8> {
    let mut note = bytes_of(&elf::NoteHeader64::<LE> {
        n_namesz: (name.len() as u32).into(),
        n_descsz: (content.len() as u32).into(),
        n_type: kind.into(),
    })
    .to_vec();
    for part in [name, content] {
        note.extend(part);
        note.resize(note.len().next_multiple_of(4), 0);
    }
    note
}

/// `struct elf_prstatus`: which thread, and `struct user_regs_struct` as ptrace has it.
fn prstatus(registers: &Registers, thread: u32) -> Vec<u8> {
    let mut status = vec![0; PRSTATUS_SIZE];
    status[PRSTATUS_PID..PRSTATUS_PID + 4].copy_from_slice(&thread.to_le_bytes());
    let [
        rax,
        rcx,
        rdx,
        rbx,
        rsp,
        rbp,
        rsi,
        rdi,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
    ] = registers.general;
    let [cs, ss, ds, es, fs, gs] = registers.segments.map(|(selector, _)| selector.into());
    let [fs_base, gs_base] = [registers.segments[4].1, registers.segments[5].1];
    // In the order of the structure; after RDI comes the number of an interrupted system call.
    let values: [u64; 27] = [
        r15,
        r14,
        r13,
        r12,
        rbp,
        rbx,
        r11,
        r10,
        r9,
        r8,
        rax,
        rcx,
        rdx,
        rsi,
        rdi,
        u64::MAX,
        registers.rip,
        cs,
        registers.rflags,
        rsp,
        ss,
        fs_base,
        gs_base,
        ds,
        es,
        fs,
        gs,
    ];
    for (value, place) in values
        .iter()
        .zip(status[PRSTATUS_REGS..].chunks_exact_mut(8))
    {
        place.copy_from_slice(&value.to_le_bytes());
    }
    status
}
