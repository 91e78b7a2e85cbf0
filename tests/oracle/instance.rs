//! A form with operands: random registers, addressing modes, prefixes and immediates, encoded.

use iced_x86::{
    Code, Decoder, DecoderOptions, Encoder, Instruction, MemorySize, Mnemonic,
    OpCodeOperandKind as K, OpKind, Register,
};

use super::forms::{Form, is_choice};
use super::layout::{CODE, CODE_BYTES, DATA, DATA_BYTES, FS_BASE, GS_BASE, PAGE};
use super::random::Random;

/// An encoded instruction at its place in the code pages.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    pub(crate) form: Form,
    /// As decoded again, addresses resolved.
    pub(crate) instruction: Instruction,
    pub(crate) bytes: Vec<u8>,
}

/// The machine decodes these as processors without the newer meanings do.
pub(crate) const DECODER_OPTIONS: u32 =
    DecoderOptions::NO_MPFX_0FBC | DecoderOptions::NO_MPFX_0FBD | DecoderOptions::NO_WBNOINVD;

const GPR64: [Register; 16] = [
    Register::RAX,
    Register::RCX,
    Register::RDX,
    Register::RBX,
    Register::RSP,
    Register::RBP,
    Register::RSI,
    Register::RDI,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];
const HIGH_BYTES: [Register; 4] = [Register::AH, Register::CH, Register::DH, Register::BH];

/// The register of a number in a class that starts with `first`.
fn nth(first: Register, n: u64) -> Register {
    Register::values()
        .nth(first as usize + n as usize)
        .unwrap_or(first)
}

fn gpr(random: &mut Random, bits: u32) -> Register {
    let n = random.below(16);
    match bits {
        8 if random.chance(4) => random.pick(&HIGH_BYTES),
        8 => match n {
            0..4 => nth(Register::AL, n),
            _ => nth(Register::SPL, n - 4),
        },
        16 => nth(Register::AX, n),
        32 => nth(Register::EAX, n),
        _ => nth(Register::RAX, n),
    }
}

/// Builds an instance; a random choice that cannot be encoded is tried again.
pub(crate) fn instance(form: Form, random: &mut Random) -> Option<Instance> {
    (0..200).find_map(|_| attempt(form, random))
}

fn attempt(form: Form, random: &mut Random) -> Option<Instance> {
    // Now and then the instruction crosses from one code page into the next.
    let ip = if random.chance(8) {
        CODE + PAGE - 1 - random.below(8)
    } else {
        CODE + 256 + random.below(CODE_BYTES as u64 - 512)
    };
    let mut insn = Instruction::default();
    insn.set_code(form.code);
    let address32 = random.chance(6);
    let info = form.code.op_code();
    for (i, &kind) in info.op_kinds().iter().enumerate() {
        operand(form, &mut insn, i as u32, kind, address32, ip, random)?;
    }
    prefixes(form, &mut insn, random);
    let mut encoder = Encoder::new(64);
    let len = encoder.encode(&insn, ip).ok()?;
    let bytes = encoder.take_buffer();
    if ip < CODE + PAGE && len > 15 {
        return None;
    }
    let decoded = Decoder::with_ip(64, &bytes, ip, DECODER_OPTIONS).decode();
    if decoded.code() != form.code || decoded.len() != bytes.len() {
        return None;
    }
    // A jump into its own bytes would run something else.
    let target = decoded.near_branch_target();
    if (ip..ip + len as u64).contains(&target) {
        return None;
    }
    Some(Instance {
        form,
        instruction: decoded,
        bytes,
    })
}

fn prefixes(form: Form, insn: &mut Instruction, random: &mut Random) {
    let info = form.code.op_code();
    let writes_memory = insn.op_count() > 0 && insn.op0_kind() == OpKind::Memory;
    if info.can_use_lock_prefix() && writes_memory && random.chance(4) {
        insn.set_has_lock_prefix(true);
    }
    if insn.is_string_instruction() && info.can_use_rep_prefix() {
        match random.below(3) {
            0 => {}
            1 if info.can_use_repne_prefix() => insn.set_has_repne_prefix(true),
            _ => insn.set_has_rep_prefix(true),
        }
    }
}

fn register(insn: &mut Instruction, i: u32, register: Register) {
    insn.set_op_kind(i, OpKind::Register);
    insn.set_op_register(i, register);
}

fn operand(
    form: Form,
    insn: &mut Instruction,
    i: u32,
    kind: K,
    address32: bool,
    ip: u64,
    random: &mut Random,
) -> Option<()> {
    let r = random.integer();
    if kind == K::mem || is_choice(kind) && form.memory {
        memory(form.code, insn, i, address32, random);
        return Some(());
    }
    match kind {
        K::r8_reg | K::r8_opcode | K::r8_or_mem => register(insn, i, gpr(random, 8)),
        K::r16_reg | K::r16_opcode | K::r16_or_mem | K::r16_rm => {
            register(insn, i, gpr(random, 16))
        }
        K::r32_reg | K::r32_opcode | K::r32_or_mem | K::r32_rm => {
            register(insn, i, gpr(random, 32))
        }
        K::r64_reg | K::r64_opcode | K::r64_or_mem | K::r64_rm => {
            register(insn, i, gpr(random, 64))
        }
        K::mm_reg | K::mm_rm | K::mm_or_mem => register(insn, i, nth(Register::MM0, r % 8)),
        K::xmm_reg | K::xmm_rm | K::xmm_or_mem => register(insn, i, nth(Register::XMM0, r % 16)),
        K::seg_reg => {
            let all = [
                Register::ES,
                Register::CS,
                Register::SS,
                Register::DS,
                Register::FS,
                Register::GS,
            ];
            let loads = i == 0;
            register(
                insn,
                i,
                random.pick(if loads {
                    &[Register::ES, Register::DS][..]
                } else {
                    &all
                }),
            );
        }
        K::cr_reg => register(insn, i, nth(Register::CR0, random.pick(&[0, 2, 3, 4, 8]))),
        K::dr_reg => register(
            insn,
            i,
            nth(Register::DR0, random.pick(&[0, 1, 2, 3, 6, 7])),
        ),
        K::es => register(insn, i, Register::ES),
        K::cs => register(insn, i, Register::CS),
        K::ss => register(insn, i, Register::SS),
        K::ds => register(insn, i, Register::DS),
        K::fs => register(insn, i, Register::FS),
        K::gs => register(insn, i, Register::GS),
        K::al => register(insn, i, Register::AL),
        K::cl => register(insn, i, Register::CL),
        K::ax => register(insn, i, Register::AX),
        K::dx => register(insn, i, Register::DX),
        K::eax => register(insn, i, Register::EAX),
        K::rax => register(insn, i, Register::RAX),
        K::st0 => register(insn, i, Register::ST0),
        K::sti_opcode => register(insn, i, nth(Register::ST0, r % 8)),
        K::imm8_const_1 => {
            insn.set_op_kind(i, OpKind::Immediate8);
            insn.set_immediate8(1);
        }
        K::imm8 if form.code.mnemonic() == Mnemonic::Enter => {
            insn.set_op_kind(i, OpKind::Immediate8_2nd);
            insn.set_immediate8_2nd(if random.chance(8) {
                r as u8
            } else {
                (r % 4) as u8
            });
        }
        K::imm8 => {
            insn.set_op_kind(i, OpKind::Immediate8);
            insn.set_immediate8(if random.chance(2) {
                (r % 72) as u8
            } else {
                r as u8
            });
        }
        K::imm8sex16 => {
            insn.set_op_kind(i, OpKind::Immediate8to16);
            insn.set_immediate8to16(i16::from(r as i8));
        }
        K::imm8sex32 => {
            insn.set_op_kind(i, OpKind::Immediate8to32);
            insn.set_immediate8to32(i32::from(r as i8));
        }
        K::imm8sex64 => {
            insn.set_op_kind(i, OpKind::Immediate8to64);
            insn.set_immediate8to64(i64::from(r as i8));
        }
        K::imm16 => {
            insn.set_op_kind(i, OpKind::Immediate16);
            let small = matches!(form.code.mnemonic(), Mnemonic::Enter | Mnemonic::Ret);
            insn.set_immediate16(if small && !random.chance(8) {
                (r % 512) as u16
            } else {
                r as u16
            });
        }
        K::imm32 => {
            insn.set_op_kind(i, OpKind::Immediate32);
            insn.set_immediate32(r as u32);
        }
        K::imm32sex64 => {
            insn.set_op_kind(i, OpKind::Immediate32to64);
            insn.set_immediate32to64(i64::from(r as i32));
        }
        K::imm64 => {
            insn.set_op_kind(i, OpKind::Immediate64);
            insn.set_immediate64(r);
        }
        K::seg_rSI | K::seg_rDI | K::es_rDI => {
            let kinds = match kind {
                K::seg_rSI => [OpKind::MemorySegRSI, OpKind::MemorySegESI],
                K::seg_rDI => [OpKind::MemorySegRDI, OpKind::MemorySegEDI],
                _ => [OpKind::MemoryESRDI, OpKind::MemoryESEDI],
            };
            insn.set_op_kind(i, kinds[usize::from(address32)]);
            if kind != K::es_rDI {
                segment(insn, random);
            }
        }
        K::seg_rBX_al => {
            insn.set_op_kind(i, OpKind::Memory);
            insn.set_memory_base(if address32 {
                Register::EBX
            } else {
                Register::RBX
            });
            insn.set_memory_index(Register::AL);
            insn.set_memory_index_scale(1);
            segment(insn, random);
        }
        K::mem_offs => {
            insn.set_op_kind(i, OpKind::Memory);
            segment(insn, random);
            insn.set_memory_displ_size(if address32 { 4 } else { 8 });
            insn.set_memory_displacement64(target(random).wrapping_sub(segment_base(insn)));
        }
        K::br64_1 | K::br64_4 => {
            insn.set_op_kind(i, OpKind::NearBranch64);
            let reach = if kind == K::br64_1 { 120 } else { 250 };
            insn.set_near_branch64(
                ip.wrapping_add(random.below(2 * reach))
                    .wrapping_sub(reach - 8),
            );
        }
        _ => return None,
    }
    Some(())
}

/// A segment override now and then; those other than FS and GS do nothing in 64-bit mode.
fn segment(insn: &mut Instruction, random: &mut Random) {
    let prefix = match random.below(12) {
        0 => Register::FS,
        1 => Register::GS,
        2 => random.pick(&[Register::ES, Register::CS, Register::SS, Register::DS]),
        _ => return,
    };
    insn.set_segment_prefix(prefix);
}

/// The segment base the instruction's memory operand is relative to.
pub(crate) fn segment_base(insn: &Instruction) -> u64 {
    match insn.memory_segment() {
        Register::FS => FS_BASE,
        Register::GS => GS_BASE,
        _ => 0,
    }
}

/// Some address in the writable pages, aligned for anything.
fn target(random: &mut Random) -> u64 {
    DATA + random.below((DATA_BYTES as u64 - 512) / 16) * 16
}

/// A memory operand with a random addressing mode. Registers are solved for by the state, so only
/// modes without registers say here where they point.
fn memory(code: Code, insn: &mut Instruction, i: u32, address32: bool, random: &mut Random) {
    insn.set_op_kind(i, OpKind::Memory);
    segment(insn, random);
    let bits = if address32 { 32 } else { 64 };
    let any = |random: &mut Random| {
        if address32 {
            gpr(random, 32)
        } else {
            random.pick(&GPR64)
        }
    };
    let base = any(random);
    let mut index = any(random);
    let scale = random.pick(&[1, 2, 4, 8]);
    // Index 4 means none; an index equal to the base could not be solved for.
    if index.full_register() == Register::RSP || index == base {
        index = Register::None;
    }
    let (displacement, size) = match random.below(4) {
        0 => (0, 0),
        1 => (i64::from(random.next() as i8), 1),
        _ => (
            i64::from(random.next() as i32 >> random.below(24)),
            bits / 8,
        ),
    };
    // LEA may point anywhere.
    let displacement = if code.mnemonic() == Mnemonic::Lea {
        displacement
    } else {
        displacement & !7
    };
    match random.below(10) {
        0 => {
            insn.set_memory_base(if address32 {
                Register::EIP
            } else {
                Register::RIP
            });
            insn.set_memory_displ_size(bits / 8);
            insn.set_memory_displacement64(target(random).wrapping_sub(segment_base(insn)));
        }
        1 => {
            insn.set_memory_displ_size(bits / 8);
            insn.set_memory_displacement64(target(random).wrapping_sub(segment_base(insn)));
        }
        2 if index != Register::None => {
            insn.set_memory_index(index);
            insn.set_memory_index_scale(scale);
            insn.set_memory_displ_size(bits / 8);
            insn.set_memory_displacement64(displacement as u64);
        }
        3..6 if index != Register::None => {
            insn.set_memory_base(base);
            insn.set_memory_index(index);
            insn.set_memory_index_scale(scale);
            insn.set_memory_displ_size(size);
            insn.set_memory_displacement64(displacement as u64);
        }
        _ => {
            insn.set_memory_base(base);
            insn.set_memory_displ_size(size);
            insn.set_memory_displacement64(displacement as u64);
        }
    }
}

/// Bytes of the memory operand.
pub(crate) fn memory_bytes(insn: &Instruction) -> u64 {
    match insn.memory_size() {
        MemorySize::Fxsave_512Byte | MemorySize::Fxsave64_512Byte => 512,
        size => size.size().max(1) as u64,
    }
}
