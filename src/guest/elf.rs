//! What an ELF program needs to run: its interpreter and its shared libraries, read from the file.
//! Nothing is executed (ldd(1) may run the program).

use object::elf::{
    DT_NEEDED, DT_NULL, DT_RPATH, DT_RUNPATH, DT_STRSZ, DT_STRTAB, EM_386, EM_AARCH64, EM_ARM,
    EM_RISCV, EM_X86_64, FileHeader64, Machine, PT_DYNAMIC, PT_INTERP, PT_LOAD,
};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::{Endianness, FileKind};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use thiserror::Error;

/// Why an ELF file cannot run in the guest.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum ElfError {
    /// For another machine.
    #[error("it is a program for {0}, the guest is x86-64")]
    OtherMachine(String),
    /// The file is damaged.
    #[error("it is not a readable ELF file: {0}")]
    Malformed(&'static str),
}

/// The dependencies an ELF file names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// The dynamic loader; none for static programs and libraries.
    pub(crate) interpreter: Option<PathBuf>,
    /// Library names (or paths) in the order of the file.
    pub(crate) libraries: Vec<PathBuf>,
    /// DT_RPATH entries, as written; ld.so ignores them where there is a DT_RUNPATH.
    pub(crate) rpath: Vec<PathBuf>,
    /// DT_RUNPATH entries, as written.
    pub(crate) runpath: Vec<PathBuf>,
}

/// Whether the bytes begin as an ELF file.
pub(crate) fn is_elf(data: &[u8]) -> bool {
    data.starts_with(b"\x7fELF")
}

/// Reads the dependencies from the program headers (section headers may be stripped).
pub(crate) fn needs(data: &[u8]) -> Result<Needs, ElfError> {
    match FileKind::parse(data) {
        Ok(FileKind::Elf64) => {}
        Ok(FileKind::Elf32) => return Err(ElfError::OtherMachine(machine(data))),
        _ => return Err(ElfError::Malformed("the header is damaged")),
    }
    let damaged = |what| move |_| ElfError::Malformed(what);
    let header = FileHeader64::<Endianness>::parse(data).map_err(damaged("the header"))?;
    let endian = header.endian().map_err(damaged("the byte order"))?;
    if header.e_machine(endian) != EM_X86_64 || header.is_big_endian() {
        return Err(ElfError::OtherMachine(machine(data)));
    }
    let segments = header
        .program_headers(endian, data)
        .map_err(damaged("the program headers are cut off"))?;

    let mut found = Needs::default();
    let mut dynamic = None;
    for segment in segments {
        match segment.p_type(endian) {
            PT_INTERP => {
                let bytes = segment.data(endian, data);
                let bytes = bytes.map_err(|()| ElfError::Malformed("PT_INTERP is cut off"))?;
                found.interpreter = path(bytes);
            }
            PT_DYNAMIC => dynamic = Some(segment),
            _ => {}
        }
    }
    let Some(dynamic) = dynamic else {
        return Ok(found);
    };
    let entries = dynamic
        .data_as_array::<<FileHeader64<Endianness> as FileHeader>::Dyn, _>(endian, data)
        .map_err(|()| ElfError::Malformed("PT_DYNAMIC is cut off"))?;
    let entries = || {
        let all = entries
            .iter()
            .map(|entry| (entry.d_tag(endian), entry.d_val(endian)));
        all.take_while(|(tag, _)| *tag != DT_NULL)
    };
    let value = |wanted| {
        entries()
            .find(|(tag, _)| *tag == wanted)
            .map(|(_, value)| value)
    };
    let strings = value(DT_STRTAB)
        .zip(value(DT_STRSZ))
        .and_then(|(address, size)| {
            // DT_STRTAB is an address; the segment that loads it says where it is in the file.
            segments
                .iter()
                .filter(|segment| segment.p_type(endian) == PT_LOAD)
                .find_map(|segment| {
                    let offset = address.checked_sub(segment.p_vaddr(endian))?;
                    let bytes = segment
                        .data(endian, data)
                        .ok()?
                        .get(usize::try_from(offset).ok()?..)?;
                    bytes.get(..usize::try_from(size).ok()?)
                })
        });
    let string = |at: u64| {
        let bytes = strings.and_then(|strings| strings.get(usize::try_from(at).ok()?..));
        bytes
            .and_then(path)
            .ok_or(ElfError::Malformed("a name is outside its string table"))
    };
    for (tag, value) in entries() {
        match tag {
            DT_NEEDED => found.libraries.push(string(value)?),
            DT_RPATH => found.rpath.extend(split(&string(value)?)),
            DT_RUNPATH => found.runpath.extend(split(&string(value)?)),
            _ => {}
        }
    }
    Ok(found)
}

/// The C string at the start of the bytes, if it is not empty.
fn path(bytes: &[u8]) -> Option<PathBuf> {
    let text = bytes
        .split(|&byte| byte == 0)
        .next()
        .filter(|text| !text.is_empty())?;
    Some(PathBuf::from(OsStr::from_bytes(text)))
}

/// The directories of a colon-separated search path.
fn split(list: &std::path::Path) -> Vec<PathBuf> {
    let parts = list.as_os_str().as_bytes().split(|&byte| byte == b':');
    parts
        .filter(|part| !part.is_empty())
        .map(|part| OsStr::from_bytes(part).into())
        .collect()
}

/// The machine an ELF header names, in words.
fn machine(data: &[u8]) -> String {
    let bytes = [data.get(18), data.get(19)].map(|byte| byte.copied().unwrap_or(0));
    let big = data.get(5) == Some(&2);
    let number = if big {
        u16::from_be_bytes(bytes)
    } else {
        u16::from_le_bytes(bytes)
    };
    match Machine(number) {
        EM_386 => "32-bit x86".into(),
        EM_X86_64 => "x86-64 with 32-bit pointers (x32)".into(),
        EM_AARCH64 => "AArch64".into(),
        EM_ARM => "ARM".into(),
        EM_RISCV => "RISC-V".into(),
        Machine(other) => format!("ELF machine {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::debug_exit;
    use super::*;

    #[test]
    fn a_dynamic_program_names_its_loader_and_libraries() {
        // The test itself is a dynamic program on the hosts this is developed on.
        let data = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let needs = needs(&data).unwrap();
        let loader = needs.interpreter.unwrap();
        assert!(loader.to_str().unwrap().contains("/ld-"), "{loader:?}");
        assert!(
            needs
                .libraries
                .iter()
                .any(|name| name.to_str().unwrap().starts_with("libc."))
        );
    }

    #[test]
    fn a_static_program_needs_nothing() {
        assert_eq!(needs(&debug_exit::program()), Ok(Needs::default()));
    }

    #[test]
    fn other_machines_are_named_and_damage_is_an_error() {
        let mut file = debug_exit::program();
        file[18] = 183;
        assert_eq!(needs(&file), Err(ElfError::OtherMachine("AArch64".into())));
        let file = debug_exit::program();
        for len in 0..file.len() {
            // Whatever the cut, an answer and no panic.
            let _ = needs(&file[..len]);
        }
        assert!(
            needs(&file[..100]).is_err(),
            "the program headers are cut off"
        );
        assert!(needs(b"\x7fELF").is_err() && !is_elf(b"#!/bin/sh"));
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 0xff;
            let _ = needs(&damaged);
        }
    }

    #[test]
    fn search_paths_are_split() {
        let parts = split(std::path::Path::new("$ORIGIN/../lib::/opt/x"));
        assert_eq!(parts, ["$ORIGIN/../lib", "/opt/x"].map(PathBuf::from));
    }
}
