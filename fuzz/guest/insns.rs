//! Random code that means something: every encoding the machine implements, with operands that
//! often point to memory, and short sequences that do what only kernels do.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use colinux_driver::x86::table::{Table, is_offered};
use iced_x86::{Code, Decoder, DecoderOptions, Mnemonic};

use super::bytes::Choices;
use super::world::{self, CODE, DATA, KERNEL};

/// The fixed part of an encoding.
#[derive(Clone, Copy, Debug)]
struct Template {
    prefix: Option<u8>,
    wide: bool,
    map: &'static [u8],
    opcode: u8,
    modrm: u8,
}

impl Template {
    fn start(&self, rex: u8) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.prefix.into_iter().collect();
        let rex = rex & 7 | u8::from(self.wide) << 3;
        if rex != 0 {
            bytes.push(0x40 | rex);
        }
        bytes.extend_from_slice(self.map);
        bytes.push(self.opcode);
        bytes
    }
}

/// All encodings whose mnemonic has a row in the table, by form, so that forms are equally likely.
fn templates() -> &'static [Vec<Template>] {
    static ALL: OnceLock<Vec<Vec<Template>>> = OnceLock::new();
    ALL.get_or_init(|| {
        let table = Table::default();
        let mut forms: BTreeMap<Code, Vec<Template>> = BTreeMap::new();
        for map in [&[][..], &[0x0f], &[0x0f, 0x38], &[0x0f, 0x3a]] {
            for prefix in [None, Some(0x66), Some(0xf3), Some(0xf2), Some(0xf0)] {
                for (wide, opcode) in [false, true]
                    .into_iter()
                    .flat_map(|w| (0..=255).map(move |o| (w, o)))
                {
                    // Memory with each group number, then registers with each pair of numbers.
                    for modrm in (0..8).map(|reg| reg << 3).chain(0xc0..=0xff) {
                        let template = Template {
                            prefix,
                            wide,
                            map,
                            opcode,
                            modrm,
                        };
                        let mut bytes = template.start(0);
                        bytes.push(modrm);
                        bytes.extend_from_slice(&[0; 10]);
                        let insn = Decoder::new(64, &bytes, DecoderOptions::NONE).decode();
                        // A halt would end most guests before anything has happened.
                        let known = !insn.is_invalid()
                            && insn.mnemonic() != Mnemonic::Hlt
                            && is_offered(&insn);
                        if known && table.get(insn.mnemonic()).is_some() {
                            forms.entry(insn.code()).or_default().push(template);
                        }
                    }
                }
            }
        }
        forms.into_values().collect()
    })
}

/// Appends one random instruction.
fn random(code: &mut Vec<u8>, from: &mut Choices<'_>) {
    let forms = templates();
    let form = &forms[from.below(forms.len())];
    let template = form[from.below(form.len())];
    match from.below(32) {
        0 => code.push(0x64),
        1 => code.push(0x65),
        2 => code.push(0x67),
        _ => {}
    }
    let rex = if from.chance(64) { from.byte() } else { 0 };
    code.extend_from_slice(&template.start(rex));
    if template.modrm >= 0xc0 {
        code.push(template.modrm);
    } else {
        let group = template.modrm & 0x38;
        match from.below(8) {
            0 => code.push(group | 0xc0 | from.byte() & 7),
            // Relative to RIP: code that reads and writes itself, or the page behind it.
            1 | 2 => {
                code.push(group | 5);
                let near = from.pick(&[0i32, 8, 64, -64, 0x800, 0x1000, -0x1000]);
                code.extend_from_slice(&(near + i32::from(from.byte() as i8)).to_le_bytes());
            }
            3 => {
                code.push(group | 4);
                code.push(from.byte());
            }
            _ => {
                let base = from.pick(&[0, 1, 2, 3, 5, 6, 7]);
                code.push(group | 0x40 | base);
                code.push(from.byte());
            }
        }
    }
    // Immediates and displacements; what is too much is decoded as more code.
    for _ in 0..from.below(5) {
        code.push(from.byte());
    }
}

fn load(code: &mut Vec<u8>, register: u8, value: u64) {
    code.extend_from_slice(&[0x48 | register >> 3, 0xb8 | register & 7]);
    code.extend_from_slice(&value.to_le_bytes());
}

/// An address that probably is mapped, often close to the end of its page.
pub fn pointer(from: &mut Choices<'_>) -> u64 {
    let page = match from.below(8) {
        0 => CODE + 0x1000 * from.below(16) as u64,
        1 => KERNEL + 0x1000 * from.below(256) as u64,
        2 => 0x1000 * from.below(512) as u64,
        3 => from.pick(world::STRANGE_ADDRESSES),
        _ => DATA + 0x1000 * from.below(32) as u64,
    };
    let inside = if from.chance(96) {
        0x1000 - from.below(20)
    } else {
        from.below(4096)
    };
    page.wrapping_add(inside as u64)
}

/// An address at which something may be executed or stored.
pub fn place(from: &mut Choices<'_>) -> u64 {
    let half = from.pick(&[0, KERNEL, world::ALIAS]);
    match from.below(3) {
        0 => half + DATA + u64::from(from.byte()),
        1 => half + world::HANDLERS + 4 * u64::from(from.byte()),
        _ => half + CODE + u64::from(from.byte()),
    }
}

/// Sequences that random instructions would hardly ever make.
fn sequence(code: &mut Vec<u8>, from: &mut Choices<'_>) {
    match from.below(14) {
        // MOV CRn, after a change of some bits.
        0 => {
            let cr = from.pick(&[0u8, 3, 3, 4, 8]);
            code.extend_from_slice(&[0x0f, 0x20, 0xc0 | cr << 3]);
            if from.chance(128) {
                let bit = from.below(32) as u8;
                code.extend_from_slice(&[0x48, 0x0f, 0xba, 0xf8, bit]);
            }
            code.extend_from_slice(&[0x0f, 0x22, 0xc0 | cr << 3]);
        }
        // INVLPG [RBX]
        1 => code.extend_from_slice(&[0x0f, 0x01, 0x3b]),
        // WRMSR and RDMSR
        2 => {
            load(code, 1, u64::from(from.pick(world::MSRS)));
            let value = if from.chance(128) {
                pointer(from)
            } else {
                from.number()
            };
            load(code, 0, value & 0xffff_ffff);
            load(code, 2, value >> 32);
            code.extend_from_slice(&[0x0f, from.pick(&[0x30, 0x30, 0x32])]);
        }
        // IN and OUT
        3 => {
            load(code, 2, u64::from(from.pick(world::PORTS)));
            code.push(from.pick(&[0xec, 0xed, 0xee, 0xef]));
        }
        4 => code.push(from.pick(&[0xfa, 0xfb, 0xfb, 0xfc, 0xfd, 0x9c, 0x9d, 0xf1])),
        // STI; HLT
        5 => code.extend_from_slice(&[0xfb, 0xf4]),
        // A write to an APIC register.
        6 => {
            load(
                code,
                7,
                from.pick(&[world::LAPIC, world::LAPIC, world::IOAPIC]),
            );
            load(code, 0, from.number());
            let register = 0x10 * from.below(0x40) as u32;
            code.extend_from_slice(&[from.pick(&[0x89, 0x89, 0x8b]), 0x87]);
            code.extend_from_slice(&register.to_le_bytes());
        }
        // A repetition, with any count.
        7 => {
            let count = if from.chance(16) {
                from.number()
            } else {
                from.word() >> from.pick(&[48, 54])
            };
            load(code, 1, count);
            load(code, 6, pointer(from));
            load(code, 7, pointer(from));
            code.push(from.pick(&[0xf3, 0xf3, 0xf2]));
            if from.chance(64) {
                code.push(0x48);
            }
            code.push(from.pick(&[0xa4, 0xa5, 0xaa, 0xab, 0xac, 0xad, 0xa6, 0xae, 0x6c, 0x6e]));
        }
        // A write into the code ahead, or close by through another mapping.
        8 => {
            code.extend_from_slice(&[0xc6, 0x05]);
            code.extend_from_slice(&u32::from(from.byte()).to_le_bytes());
            code.push(from.byte());
        }
        9 => {
            let alias = world::ALIAS + (CODE & 0xf_ffff) + from.below(4096) as u64;
            load(code, 3, alias);
            code.extend_from_slice(&[0x89, 0x03]);
        }
        // A page table entry, through the window onto the tables.
        10 => {
            load(code, 3, KERNEL + 0x1000 + from.below(0x8000) as u64 / 8 * 8);
            let entry = world::entry(from);
            load(code, 0, entry);
            code.extend_from_slice(&[0x48, 0x89, 0x03]);
        }
        // SYSCALL, SYSRET, INT n, IRET
        11 => code.extend_from_slice(from.pick(&[
            &[0x0f, 0x05],
            &[0x48, 0x0f, 0x07],
            &[0xcd, 0x80],
            &[0x48, 0xcf],
            &[0x0f, 0x01, 0xf8],
        ])),
        // A short loop back.
        12 => code.extend_from_slice(&[from.pick(&[0xe2, 0x75]), from.byte() | 0xc0]),
        _ => {
            load(code, from.byte() & 7, from.number());
        }
    }
}

/// Fills a stretch of memory with code.
pub fn fill(len: usize, from: &mut Choices<'_>) -> Vec<u8> {
    let mut code = Vec::with_capacity(len + 32);
    let raw = from.below(8) == 0;
    while code.len() < len {
        if raw {
            code.push(from.word() as u8);
            continue;
        }
        match from.below(16) {
            0 => load(
                &mut code,
                from.pick(&[0, 1, 2, 3, 5, 6, 7, 12]),
                pointer(from),
            ),
            1 | 2 => sequence(&mut code, from),
            // A jump forward, over what is in the middle of something.
            3 => {
                code.extend_from_slice(&[from.pick(&[0xeb, 0x74, 0x72, 0x7c]), from.byte() & 0x1f])
            }
            _ => random(&mut code, from),
        }
    }
    code.truncate(len);
    code
}
