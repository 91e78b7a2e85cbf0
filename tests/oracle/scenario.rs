//! The state an instance starts from: interesting values, addresses that hit the mapped pages and,
//! now and then, their edges.

use iced_x86::{Instruction, Mnemonic as M, OpKind, Register};

use super::instance::{Instance, memory_bytes, segment_base};
use super::layout::{CODE, CODE_BYTES, DATA, DATA_BYTES, FS_BASE, GS_BASE, PAGE, READ_ONLY};
use super::random::{Kind, Random};
use super::state::{Case, FX_CONTROL, FX_MXCSR, FX_ST, FX_STATUS, FX_TAGS, FX_XMM, Registers};

const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RSP: usize = 4;
const RBP: usize = 5;
const RSI: usize = 6;
const RDI: usize = 7;

/// CF, PF, AF, ZF, SF, OF, DF.
const RANDOM_FLAGS: u64 = 0xcd5;
/// Set in any RFLAGS of a user process: bit 1 and IF.
const FIXED_FLAGS: u64 = 0x202;
/// Flags a process must not set here: TF, NT, AC, ID and what is above.
const FORBIDDEN_FLAGS: u64 = !0xed7;
/// The exceptions of x87 and, shifted by 7 for their masks, of SSE.
const EXCEPTIONS: u16 = 0x3f;

/// Memory images, filled once.
pub(crate) struct Images(Vec<(Kind, Box<[u8; DATA_BYTES]>)>);

impl Images {
    pub(crate) fn new(random: &mut Random) -> Self {
        let mut images = Vec::new();
        for kind in [Kind::Integer, Kind::Single, Kind::Double, Kind::Extended] {
            for _ in 0..4 {
                let mut image = Box::new([0; DATA_BYTES]);
                for chunk in image.chunks_exact_mut(16) {
                    chunk.copy_from_slice(&random.chunk(kind));
                }
                images.push((kind, image));
            }
        }
        Images(images)
    }

    fn pick(&self, kind: Kind, random: &mut Random) -> &[u8; DATA_BYTES] {
        let of_kind: Vec<_> = self.0.iter().filter(|(k, _)| *k == kind).collect();
        &of_kind[random.below(of_kind.len() as u64) as usize].1
    }
}

/// A random state for an instance.
pub(crate) fn case(instance: &Instance, images: &Images, random: &mut Random) -> Case {
    let insn = &instance.instruction;
    let kind = instance.form.kind;
    let mut registers = registers(instance, random);
    registers.rip = insn.ip();
    let mut code = [0; 16];
    code[..instance.bytes.len()].copy_from_slice(&instance.bytes);
    let mut memory = *images.pick(kind, random);
    implicit(insn, &mut registers, random);
    if insn.is_stack_instruction() {
        registers.gpr[RSP] = address(8, random);
        registers.gpr[RBP] = if random.chance(16) {
            random.next()
        } else {
            address(8, random)
        };
    }
    let mut operand = None;
    if (0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::Memory) {
        let bytes = memory_bytes(insn);
        let wanted = address(bytes, random);
        solve(insn, &mut registers, wanted, random);
        operand = operand_address(insn, &registers);
    }
    if let Some(at) = operand {
        contents(instance, &registers, &mut memory, at, random);
    }
    agreements(insn, &mut registers, &mut memory, operand, random);
    Case {
        registers,
        code,
        code_len: instance.bytes.len() as u64,
        memory,
    }
}

fn registers(instance: &Instance, random: &mut Random) -> Registers {
    let kind = instance.form.kind;
    let mut r = Registers::new();
    for gpr in &mut r.gpr {
        *gpr = random.integer();
    }
    r.rflags = FIXED_FLAGS | random.next() & RANDOM_FLAGS;
    // Selectors of Linux' descriptor table that a process can load.
    r.ds = random.pick(&[0, 0x2b, 0x23]);
    r.es = random.pick(&[0, 0x2b, 0x23]);
    for i in 0..16 {
        r.put(
            FX_XMM + 16 * i,
            &random.chunk(if kind == Kind::Extended {
                Kind::Integer
            } else {
                kind
            }),
        );
    }
    for i in 0..8 {
        let (significand, high) = random.extended();
        r.put(FX_ST + 16 * i, &significand.to_le_bytes());
        r.put(FX_ST + 16 * i + 8, &high.to_le_bytes());
    }
    let mut mxcsr = 0x1f80 | (random.below(4) << 13) as u32 | (random.next() as u32 & 0x3f);
    if random.chance(8) {
        mxcsr ^= random.next() as u32 & 0x1f80;
    }
    if random.chance(8) {
        // Flush to zero, denormals are zeros.
        mxcsr |= random.pick(&[0x8000, 0x40, 0x8040]);
    }
    r.put(FX_MXCSR, &mxcsr.to_le_bytes());
    let masks = if random.chance(8) {
        random.next() as u16 & EXCEPTIONS
    } else {
        EXCEPTIONS
    };
    let precision = random.pick(&[0, 2, 3, 3]);
    let control = 0x40 | masks | precision << 8 | (random.below(4) as u16) << 10;
    let mut status = random.next() as u16 & 0x7f7f;
    if !random.chance(32) || masks == EXCEPTIONS {
        status &= !(!masks & EXCEPTIONS);
    } else if status & !masks & EXCEPTIONS != 0 {
        // A pending exception: error summary and busy.
        status |= 0x8080;
    }
    let tags = if random.chance(6) {
        random.next() as u8
    } else {
        0xff
    };
    r.put(FX_CONTROL, &control.to_le_bytes());
    r.put(FX_STATUS, &status.to_le_bytes());
    r.put(FX_TAGS, &[tags]);
    r
}

/// An address for so many bytes: mostly inside the writable pages, aligned or not; sometimes at
/// their edges, in the read-only page, in none, or not canonical.
fn address(bytes: u64, random: &mut Random) -> u64 {
    let room = DATA_BYTES as u64 - bytes;
    let near =
        |random: &mut Random, edge: u64| (edge - bytes).wrapping_add(random.below(bytes * 2 + 8));
    match random.below(32) {
        0..18 => DATA + random.below(room / 16) * 16,
        18..24 => DATA + random.below(room),
        24..27 => near(random, DATA + PAGE),
        27 => near(random, READ_ONLY),
        28 => near(random, READ_ONLY + PAGE),
        29 => near(random, DATA),
        30 => READ_ONLY + random.below((PAGE - bytes) / 16) * 16,
        _ => match random.below(4) {
            0 => random.next() | 1 << 62,
            // What is written in pieces may fault in the first one.
            1 if bytes.is_power_of_two() => 0x8000_0000_0000 - random.below(bytes.min(8)),
            2 => 0xffff_8880_0000_0000,
            _ => random.below(PAGE),
        },
    }
}

/// An address of code: nearly always prepared, else nowhere.
fn code_address(random: &mut Random) -> u64 {
    match random.below(8) {
        0 => 0x1234_5000 + random.below(PAGE),
        1 => random.next() | 1 << 62,
        _ => CODE + 64 + random.below(CODE_BYTES as u64 - 128),
    }
}

/// A target for an indirect branch. Makers differ in whether a bad target or a bad stack is noticed
/// first, so a call without a stack gets a good one.
///
/// And not the branch itself, which would go on for ever.
fn target(insn: &Instruction, writable: bool, random: &mut Random) -> u64 {
    let at = code_address(random);
    let itself = (insn.ip()..insn.next_ip()).contains(&at);
    if itself || insn.mnemonic() == M::Call && !writable {
        CODE + 64
    } else {
        at
    }
}

/// What an instruction wants in registers it does not name.
fn implicit(insn: &Instruction, r: &mut Registers, random: &mut Random) {
    if insn.is_string_instruction() {
        let bytes = memory_bytes(insn);
        r.gpr[RSI] = address(bytes, random);
        r.gpr[RDI] = if random.chance(6) {
            // Overlapping.
            r.gpr[RSI].wrapping_add(random.below(64)).wrapping_sub(32)
        } else {
            address(bytes, random)
        };
        r.gpr[RCX] = random.below(24);
        if (0..insn.op_count())
            .any(|i| matches!(insn.op_kind(i), OpKind::MemorySegESI | OpKind::MemoryESEDI))
        {
            for n in [RCX, RSI, RDI] {
                r.gpr[n] = r.gpr[n] & 0xffff_ffff | random.next() << 32;
            }
        }
        if insn.memory_segment() == Register::FS || insn.memory_segment() == Register::GS {
            r.gpr[RSI] = r.gpr[RSI].wrapping_sub(segment_base(insn));
        }
    }
    for i in 0..insn.op_count() {
        if matches!(insn.op_kind(i), OpKind::MemorySegRDI | OpKind::MemorySegEDI) {
            // Which bytes the mask forbids may still be looked at is up to the processor.
            let inside = DATA + random.below(DATA_BYTES as u64 - 16);
            r.gpr[RDI] = inside.wrapping_sub(segment_base(insn));
            if insn.op_kind(i) == OpKind::MemorySegEDI {
                r.gpr[RDI] = r.gpr[RDI] & 0xffff_ffff | random.next() << 32;
            }
        }
    }
    match insn.mnemonic() {
        M::Shl
        | M::Shr
        | M::Sar
        | M::Sal
        | M::Rol
        | M::Ror
        | M::Rcl
        | M::Rcr
        | M::Shld
        | M::Shrd => {
            r.gpr[RCX] = r.gpr[RCX] & !0xff | random.below(72);
        }
        M::Loop | M::Loope | M::Loopne | M::Jrcxz | M::Jecxz | M::Jcxz if random.chance(2) => {
            r.gpr[RCX] = random.below(3) | random.below(2) << 32;
        }
        M::Div | M::Idiv if random.chance(2) => {
            // A dividend that fits: sign or zero extension of the lower half.
            let sign = insn.mnemonic() == M::Idiv && random.chance(2);
            r.gpr[RDX] = if sign { u64::MAX } else { random.below(3) };
        }
        _ => {}
    }
}

/// A register's value as part of an address.
pub(crate) fn value(r: &Registers, register: Register) -> u64 {
    match register {
        Register::FS => FS_BASE,
        Register::GS => GS_BASE,
        Register::AL => r.gpr[RAX] & 0xff,
        _ if register.is_segment_register() => 0,
        _ if register.is_gpr32() => r.gpr[register.number()] & 0xffff_ffff,
        _ if register.is_gpr() => r.gpr[register.number()],
        _ => 0,
    }
}

/// Where the memory operand is.
pub(crate) fn operand_address(insn: &Instruction, r: &Registers) -> Option<u64> {
    let operand = (0..insn.op_count()).find(|&i| insn.op_kind(i) == OpKind::Memory)?;
    insn.virtual_address(operand, 0, |register, _, _| Some(value(r, register)))
}

/// Sets the base or index register so that the memory operand lies at `wanted`.
fn solve(insn: &Instruction, r: &mut Registers, wanted: u64, random: &mut Random) {
    let (base, index) = (insn.memory_base(), insn.memory_index());
    let scale = u64::from(insn.memory_index_scale());
    let offset = wanted.wrapping_sub(segment_base(insn));
    let mut set = |register: Register, v: u64| {
        let upper = if register.is_gpr32() {
            random.next() << 32
        } else {
            0
        };
        let v = if register.is_gpr32() {
            v & 0xffff_ffff
        } else {
            v
        };
        r.gpr[register.number()] = v | upper;
    };
    let rest = offset.wrapping_sub(insn.memory_displacement64());
    match (base, index) {
        (Register::None | Register::RIP | Register::EIP, Register::None) => {}
        (Register::None, _) => set(index, rest / scale),
        (_, Register::None) => set(base, rest),
        _ => {
            let part = if index == Register::AL {
                r.gpr[RAX] & 0xff
            } else {
                value(r, index).wrapping_mul(scale)
            };
            let rest = rest.wrapping_sub(part);
            let upper = if base.is_gpr32() {
                random.next() << 32
            } else {
                0
            };
            let rest = if base.is_gpr32() {
                rest & 0xffff_ffff
            } else {
                rest
            };
            r.gpr[base.number()] = rest | upper;
        }
    }
}

/// Writes bytes into the image, as far as they lie in it.
fn put(memory: &mut [u8; DATA_BYTES], at: u64, bytes: &[u8]) {
    for (i, byte) in bytes.iter().enumerate() {
        let offset = at.wrapping_add(i as u64).wrapping_sub(DATA);
        if let Some(place) = memory.get_mut(offset as usize) {
            *place = *byte;
        }
    }
}

fn get(memory: &[u8; DATA_BYTES], at: u64) -> u64 {
    let mut bytes = [0; 8];
    for (i, byte) in bytes.iter_mut().enumerate() {
        let offset = at.wrapping_add(i as u64).wrapping_sub(DATA);
        *byte = memory.get(offset as usize).copied().unwrap_or(0);
    }
    u64::from_le_bytes(bytes)
}

/// Fresh values in the memory operand, and images an instruction can load without a fault.
fn contents(
    instance: &Instance,
    r: &Registers,
    memory: &mut [u8; DATA_BYTES],
    at: u64,
    random: &mut Random,
) {
    let insn = &instance.instruction;
    put(memory, at, &random.chunk(instance.form.kind));
    let mxcsr = if random.chance(8) {
        0x1_0000 << random.below(16)
    } else {
        random.next() & 0xffff
    };
    // Bit 17 exists on AMD processors only.
    let mxcsr = (mxcsr & !0x2_0000) as u32;
    match insn.mnemonic() {
        M::Ldmxcsr => put(memory, at, &mxcsr.to_le_bytes()),
        M::Fxrstor | M::Fxrstor64 => {
            put(memory, at, &r.fx[..FX_MXCSR]);
            put(memory, at + FX_MXCSR as u64, &mxcsr.to_le_bytes());
            for i in (FX_ST..FX_XMM + 256).step_by(16) {
                put(memory, at + i as u64, &random.chunk(Kind::Extended));
            }
            put(
                memory,
                at,
                &(0x37f | (random.below(16) << 8) as u16).to_le_bytes(),
            );
            put(memory, at + 4, &[random.next() as u8, 0, 0, 0]);
        }
        M::Fldenv | M::Frstor | M::Fldcw => {
            put(
                memory,
                at,
                &(0x37f_u16 | (random.below(16) << 8) as u16).to_le_bytes(),
            );
        }
        _ => {}
    }
}

/// Makes things equal that an instruction compares, and targets reachable it jumps to.
fn agreements(
    insn: &Instruction,
    r: &mut Registers,
    memory: &mut [u8; DATA_BYTES],
    operand: Option<u64>,
    random: &mut Random,
) {
    match insn.mnemonic() {
        M::Cmpxchg if random.chance(2) => match operand {
            Some(at) => r.gpr[RAX] = solved(insn, RAX, r).unwrap_or(get(memory, at)),
            None => r.gpr[RAX] = r.gpr[insn.op0_register().full_register().number()],
        },
        M::Cmpxchg8b | M::Cmpxchg16b if random.chance(2) => {
            if let Some(at) = operand {
                let wide = insn.mnemonic() == M::Cmpxchg16b;
                let pair = if wide {
                    [r.gpr[RAX].to_le_bytes(), r.gpr[RDX].to_le_bytes()].concat()
                } else {
                    (r.gpr[RAX] & 0xffff_ffff | r.gpr[RDX] << 32)
                        .to_le_bytes()
                        .to_vec()
                };
                put(memory, at, &pair);
            }
        }
        M::Bt | M::Bts | M::Btr | M::Btc
            if operand.is_some() && insn.op1_kind() == OpKind::Register =>
        {
            let n = insn.op1_register().full_register().number();
            if solved(insn, n, r).is_none() && !random.chance(8) {
                let bits = random.below(4096).wrapping_sub(2048);
                r.gpr[n] = match insn.op1_register().size() {
                    2 => bits & 0xffff | random.next() << 16,
                    4 => bits & 0xffff_ffff | random.next() << 32,
                    _ => bits,
                };
            }
        }
        M::Jmp | M::Call
            if insn.op0_kind() == OpKind::Register && insn.op0_register() != Register::RSP =>
        {
            let writable = (DATA + 8..=DATA + DATA_BYTES as u64).contains(&r.gpr[RSP]);
            r.gpr[insn.op0_register().number()] = target(insn, writable, random);
        }
        M::Jmp | M::Call if insn.op0_kind() == OpKind::Memory => {
            if let Some(at) = operand {
                let writable = (DATA + 8..=DATA + DATA_BYTES as u64).contains(&r.gpr[RSP]);
                put(memory, at, &target(insn, writable, random).to_le_bytes());
            }
        }
        M::Ret => put(
            memory,
            r.gpr[RSP],
            &target(insn, true, random).to_le_bytes(),
        ),
        M::Popf | M::Popfq => {
            let image = random.next() & !FORBIDDEN_FLAGS | random.next() << 32;
            put(memory, r.gpr[RSP], &image.to_le_bytes());
        }
        M::Pop | M::Mov | M::Lss | M::Lar | M::Lsl | M::Verr | M::Verw => {
            selectors(insn, r, memory, operand, random)
        }
        M::Enter => {
            // Nested frames are copied from below RBP.
            r.gpr[RBP] = DATA + 512 + random.below(DATA_BYTES as u64 - 1024) / 8 * 8;
        }
        _ => {}
    }
}

/// The register's value, if the memory operand's address depends on it.
fn solved(insn: &Instruction, n: usize, r: &Registers) -> Option<u64> {
    [insn.memory_base(), insn.memory_index()]
        .iter()
        .any(|used| used.is_gpr() && used.full_register().number() == n)
        .then(|| r.gpr[n])
}

/// Selectors worth loading or asking about, where the source of a segment instruction is.
fn selectors(
    insn: &Instruction,
    r: &mut Registers,
    memory: &mut [u8; DATA_BYTES],
    operand: Option<u64>,
    random: &mut Random,
) {
    let loads = insn.op0_kind() == OpKind::Register && insn.op0_register().is_segment_register();
    if let (M::Lss, Some(at)) = (insn.mnemonic(), operand) {
        put(
            memory,
            at + memory_bytes(insn) - 2,
            &(random.below(7) << 3 | random.below(4)).to_le_bytes()[..2],
        );
    }
    let asks = matches!(insn.mnemonic(), M::Lar | M::Lsl | M::Verr | M::Verw);
    if !loads && !asks {
        return;
    }
    let selector = match random.below(8) {
        0 => random.below(4),
        // Beyond the descriptors both tables have, and a local table neither has.
        1 => 4 | random.below(0x2000) << 3,
        2 => 0xfff8 | random.below(4),
        _ => random.below(7) << 3 | random.below(4),
    };
    if insn.mnemonic() == M::Pop {
        put(memory, r.gpr[RSP], &selector.to_le_bytes());
    } else if let Some(at) = operand {
        put(memory, at, &selector.to_le_bytes()[..2]);
    } else {
        let source = insn.op_count() - 1;
        let n = insn.op_register(source).full_register().number();
        r.gpr[n] = r.gpr[n] & !0xffff | selector;
    }
}
