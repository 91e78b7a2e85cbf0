//! A program of 221 bytes that tells the machine the exit status of the guest's command.
//!
//! The debug-exit port is an I/O port; Debian's kernels have no `/dev/port` (`CONFIG_DEVPORT` is not
//! set), so a shell cannot write to it. This program can: it asks for the port with ioperm(2).
//! Before that it waits until the console has sent everything (tcdrain), because the machine may end
//! at the write, and the serial driver may still hold the last line.

/// The I/O port the machine takes an exit status from; QEMU's `isa-debug-exit` at the same place
/// serves the same guests.
pub(crate) const PORT: u8 = 0xf4;

/// Where the program is linked; below it nothing is mapped.
const BASE: u64 = 0x40_0000;
const ELF_HEADER_LEN: u16 = 64;
const PROGRAM_HEADER_LEN: u16 = 56;

/// `debug-exit STATUS` reports; without an argument it only drains the console. Exit status 1: the
/// kernel did not give the port.
#[rustfmt::skip]
const CODE: &[u8] = &[
    0xb8, 16, 0, 0, 0,                  // mov eax, 16        ioctl
    0xbf, 1, 0, 0, 0,                   // mov edi, 1         standard output
    0xbe, 0x09, 0x54, 0, 0,             // mov esi, 0x5409    TCSBRK
    0xba, 1, 0, 0, 0,                   // mov edx, 1         not a break: drain
    0x0f, 0x05,                         // syscall
    0x48, 0x8b, 0x74, 0x24, 0x10,       // mov rsi, [rsp+16]  argv[1]
    0x48, 0x85, 0xf6,                   // test rsi, rsi
    0x74, 0x35,                         // jz done
    0x31, 0xdb,                         // xor ebx, ebx
    0x0f, 0xb6, 0x0e,                   // digit: movzx ecx, byte [rsi]
    0x83, 0xe9, b'0',                   // sub ecx, '0'
    0x83, 0xf9, 9,                      // cmp ecx, 9
    0x77, 0x0a,                         // ja report
    0x6b, 0xdb, 10,                     // imul ebx, ebx, 10
    0x01, 0xcb,                         // add ebx, ecx
    0x48, 0xff, 0xc6,                   // inc rsi
    0xeb, 0xeb,                         // jmp digit
    0xb8, 173, 0, 0, 0,                 // report: mov eax, 173   ioperm
    0xbf, PORT, 0, 0, 0,                // mov edi, PORT
    0xbe, 1, 0, 0, 0,                   // mov esi, 1
    0xba, 1, 0, 0, 0,                   // mov edx, 1
    0x0f, 0x05,                         // syscall
    0x85, 0xc0,                         // test eax, eax
    0x75, 0x0d,                         // jnz fail
    0x89, 0xd8,                         // mov eax, ebx
    0xe6, PORT,                         // out PORT, al
    0x31, 0xff,                         // done: xor edi, edi
    0xb8, 60, 0, 0, 0,                  // exit: mov eax, 60
    0x0f, 0x05,                         // syscall
    0xbf, 1, 0, 0, 0,                   // fail: mov edi, 1
    0xeb, 0xf2,                         // jmp exit
];

/// The program as an ELF file: one header, one loadable segment, the code.
pub(crate) fn program() -> Vec<u8> {
    let headers = ELF_HEADER_LEN + PROGRAM_HEADER_LEN;
    let total = u64::from(headers) + CODE.len() as u64;
    let mut file = Vec::new();
    // e_ident: magic, 64-bit, little-endian, version 1, System V.
    file.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    file.extend_from_slice(&2u16.to_le_bytes()); // e_type: ET_EXEC
    file.extend_from_slice(&62u16.to_le_bytes()); // e_machine: EM_X86_64
    file.extend_from_slice(&1u32.to_le_bytes()); // e_version
    file.extend_from_slice(&(BASE + u64::from(headers)).to_le_bytes()); // e_entry
    file.extend_from_slice(&u64::from(ELF_HEADER_LEN).to_le_bytes()); // e_phoff
    file.extend_from_slice(&0u64.to_le_bytes()); // e_shoff
    file.extend_from_slice(&0u32.to_le_bytes()); // e_flags
    // e_ehsize e_phentsize e_phnum e_shentsize e_shnum e_shstrndx
    for value in [ELF_HEADER_LEN, PROGRAM_HEADER_LEN, 1, 0, 0, 0] {
        file.extend_from_slice(&value.to_le_bytes());
    }
    file.extend_from_slice(&1u32.to_le_bytes()); // p_type: PT_LOAD
    file.extend_from_slice(&5u32.to_le_bytes()); // p_flags: read, execute
    // p_offset p_vaddr p_paddr p_filesz p_memsz p_align
    for value in [0, BASE, BASE, total, total, 0x1000] {
        file.extend_from_slice(&value.to_le_bytes());
    }
    file.extend_from_slice(CODE);
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::Endianness;
    use object::elf::{self, FileHeader64};
    use object::read::elf::{FileHeader, ProgramHeader};

    #[test]
    fn the_program_is_a_valid_elf_file() {
        let file = program();
        let header = FileHeader64::<Endianness>::parse(&*file).unwrap();
        let endian = header.endian().unwrap();
        let segments = header.program_headers(endian, &*file).unwrap();
        assert_eq!(segments.len(), 1);
        assert_eq!(segments[0].p_type(endian), elf::PT_LOAD);
        assert_eq!(segments[0].p_filesz(endian), file.len() as u64);
        let entry = header.e_entry(endian);
        assert_eq!(&file[(entry - BASE) as usize..], CODE);
    }

    #[test]
    fn every_jump_lands_where_the_comment_says() {
        // (offset of the jump's displacement byte, offset of its target)
        let find = |bytes: &[u8]| {
            CODE.windows(bytes.len())
                .position(|at| at == bytes)
                .unwrap()
        };
        let digit = find(&[0x0f, 0xb6, 0x0e]);
        let report = find(&[0xb8, 173]);
        let done = find(&[0x31, 0xff]);
        let exit = find(&[0xb8, 60]);
        let fail = exit + 7;
        let jumps = [
            (find(&[0x74, 0x35]), done),
            (find(&[0x77, 0x0a]), report),
            (find(&[0xeb, 0xeb]), digit),
            (find(&[0x75, 0x0d]), fail),
            (find(&[0xeb, 0xf2]), exit),
        ];
        for (at, target) in jumps {
            let displacement = CODE[at + 1].cast_signed();
            assert_eq!(
                (at + 2).checked_add_signed(displacement.into()),
                Some(target),
                "at {at}"
            );
        }
    }
}
