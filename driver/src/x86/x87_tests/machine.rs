//! The x87 instructions in a machine: decoding, gates, memory images, faults.

use iced_x86::{Code, CpuidFeature};

use super::{IMAGE_BYTES, Random, from_image, to_image};
use crate::core::Core;
use crate::cpu::fault::{Fault, Trap, TrapCause, vector};
use crate::cpu::state::{CR0_EM, CR0_MP, CR0_NE, CR0_TS, REG_BLOCK, Segment, seg};
use crate::dev::bus::{Board, BoardConfig};
use crate::mem::ppram::Ppram;
use crate::tick::Clock;
use crate::x86::decode::{Decoded, decode};
use crate::x86::op::Op;
use crate::x86::table::Table;
use crate::x86::x87_unit::{ES, EXCEPTIONS, IE, ZE};

/// Where the operands are.
const AT: usize = 0x8000;

fn core() -> Core {
    let ram = Ppram::new(0x10000);
    let board = Board::new(&BoardConfig { rtc_epoch_s: 0 });
    let mut c = Core::new(
        ram,
        board,
        Clock {
            ns_per_tick: 1,
            warp_ns: 0,
        },
    );
    c.cpu.cr0 |= CR0_NE;
    c.cpu.segs[seg::CS] = Segment {
        attr: 1 << 13,
        ..Segment::default()
    };
    c.cpu.regs[7] = AT as u64;
    c.cpu.regs[REG_BLOCK as usize] = 0x1234_5678_9abc;
    c
}

fn op(bytes: &[u8]) -> Op {
    let mut decoded = Decoded::default();
    decode(&mut decoded, &Table::default(), bytes, 64, 1);
    assert_eq!(decoded.ops.len(), 1, "{bytes:x?}");
    decoded.ops[0].clone()
}

/// Runs one instruction.
fn run(c: &mut Core, bytes: &[u8]) -> Result<(), Option<TrapCause>> {
    c.trap = None;
    let op = op(bytes);
    (op.run)(c, &op).map_err(|Trap| c.trap.clone())
}

fn fault(vector: u8) -> Result<(), Option<TrapCause>> {
    Err(Some(TrapCause::Fault(Fault::plain(vector))))
}

const FNINIT: &[u8] = &[0xdb, 0xe3];
const FNCLEX: &[u8] = &[0xdb, 0xe2];
const FNSTSW_AX: &[u8] = &[0xdf, 0xe0];
const FLD1: &[u8] = &[0xd9, 0xe8];
const FLDZ: &[u8] = &[0xd9, 0xee];
const FDIVP: &[u8] = &[0xde, 0xf9];
const WAIT: &[u8] = &[0x9b];
const FLDCW_RDI: &[u8] = &[0xd9, 0x2f];
const FNSTENV_RDI: &[u8] = &[0xd9, 0x37];
const FNSAVE_RDI: &[u8] = &[0xdd, 0x37];
const FRSTOR_RDI: &[u8] = &[0xdd, 0x27];
const FSTP_M80_RDI: &[u8] = &[0xdb, 0x3f];
const FXSAVE64_RDI: &[u8] = &[0x48, 0x0f, 0xae, 0x07];
const FXRSTOR64_RDI: &[u8] = &[0x48, 0x0f, 0xae, 0x0f];
const FXSAVE_RDI: &[u8] = &[0x0f, 0xae, 0x07];

/// All two-byte encodings in the x87 opcode space that iced knows to exist have a body, and the
/// opcode the unit remembers is that of the encoding.
#[test]
fn every_encoding_has_a_body_and_its_opcode() {
    let table = Table::default();
    let mut seen = 0;
    for first in 0xd8..=0xdfu8 {
        for modrm in 0..=255u8 {
            // A displacement where there is one; no instruction reads further.
            let bytes = [first, modrm, 0x24, 0x11, 0x22, 0x33, 0x44];
            let mut decoder = iced_x86::Decoder::new(64, &bytes, 0);
            let insn = decoder.decode();
            let sse3 = insn.cpuid_features().contains(&CpuidFeature::SSE3);
            let later = matches!(
                insn.code(),
                Code::Fnstdw_AX | Code::Fnstsg_AX | Code::Frstpm | Code::INVALID
            );
            if sse3 || later {
                continue;
            }
            let body = table.get(insn.mnemonic());
            let mut op = Op::new(|_, _| Ok(()));
            assert!(
                body.and_then(|f| f(&insn, &mut op)).is_some(),
                "{:?}",
                insn.code()
            );
            assert!(crate::x86::table::is_offered(&insn), "{:?}", insn.code());
            let opcode = u64::from(first & 7) << 8 | u64::from(modrm);
            assert_eq!(op.imm, opcode, "{bytes:x?}");
            seen += 1;
        }
    }
    assert_eq!(seen, 1788);
}

#[test]
fn task_switched_and_emulation_bits_gate() {
    let mut c = core();
    for bits in [CR0_TS, CR0_EM] {
        c.cpu.cr0 = CR0_NE | bits;
        for insn in [FNINIT, FNCLEX, FLD1, FNSTSW_AX, FXSAVE64_RDI, FXRSTOR64_RDI] {
            assert_eq!(run(&mut c, insn), fault(vector::NM));
        }
        assert_eq!(run(&mut c, WAIT), Ok(()));
    }
    c.cpu.cr0 = CR0_NE | CR0_TS | CR0_MP;
    assert_eq!(run(&mut c, WAIT), fault(vector::NM));
}

#[test]
fn an_unmasked_exception_waits_for_the_next_instruction() {
    let mut c = core();
    let control = 0x37fu16 & !ZE;
    c.ram.bytes_mut()[AT..AT + 2].copy_from_slice(&control.to_le_bytes());
    for insn in [FNINIT, FLDCW_RDI, FLD1, FLDZ, FDIVP] {
        assert_eq!(run(&mut c, insn), Ok(()));
    }
    // Nothing was delivered, nothing popped.
    assert_eq!(c.cpu.x87.tags, 0b1100_0000);
    assert_eq!(c.cpu.x87.opcode, 0x6f9);
    let before = c.cpu.x87;
    for insn in [FLD1, WAIT, FSTP_M80_RDI, FLDCW_RDI, FRSTOR_RDI] {
        assert_eq!(run(&mut c, insn), fault(vector::MF));
        assert_eq!(c.cpu.x87, before);
    }
    assert_eq!(run(&mut c, FNSTSW_AX), Ok(()));
    assert_eq!(c.cpu.regs[0] as u16, 0x8000 | ES | ZE | 6 << 11);
    assert_eq!(run(&mut c, FNCLEX), Ok(()));
    assert_eq!(run(&mut c, FDIVP), Ok(()));
    // Without CR0.NE there would have to be an interrupt controller.
    c.cpu.cr0 &= !CR0_NE;
    assert!(matches!(
        run(&mut c, WAIT),
        Err(Some(TrapCause::Unsupported(_)))
    ));
}

#[test]
fn a_faulting_store_changes_nothing() {
    let mut c = core();
    run(&mut c, FLD1).unwrap();
    let before = c.cpu.x87;
    // Not canonical.
    c.cpu.regs[7] = 1 << 60;
    for insn in [
        FSTP_M80_RDI,
        &[0xdd, 0x1f], // fstp m64
        &[0xdf, 0x3f], // fistp m64
        &[0xdf, 0x37], // fbstp
        &[0xdc, 0x07], // fadd m64
        &[0xdd, 0x07], // fld m64
        FNSTENV_RDI,
        FNSAVE_RDI,
        FRSTOR_RDI,
        FXSAVE64_RDI,
        FXRSTOR64_RDI,
    ] {
        assert_eq!(run(&mut c, insn), Err(Some(TrapCause::Fault(Fault::gp(0)))));
        assert_eq!(c.cpu.x87, before);
    }
    // The last two bytes of ten.
    c.cpu.regs[7] = (1 << 47) - 8;
    assert!(run(&mut c, FSTP_M80_RDI).is_err());
    assert_eq!(c.cpu.x87, before);
}

/// FNSAVE and FRSTOR on the host, with the environment's pointers left out.
fn host_images(image: &mut [u8; IMAGE_BYTES], env: &mut [u8; 28]) {
    // SAFETY: reads and writes the two images; leaves the unit initialized.
    unsafe {
        std::arch::asm!(
            "frstor [{a}]",
            "fnstenv [{e}]",
            "fnsave [{a}]",
            a = in(reg) image.as_mut_ptr(),
            e = in(reg) env.as_mut_ptr(),
            out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
            out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
        );
    }
}

#[test]
fn environment_images_are_the_hosts() {
    let mut random = Random(77);
    let mut c = core();
    for _ in 0..20_000 {
        let mut image = to_image(&random.case().x);
        // Also what the registers cannot hold as such.
        image[..2].copy_from_slice(&(random.next() as u16).to_le_bytes());
        image[4..6].copy_from_slice(&(random.next() as u16).to_le_bytes());
        image[8..10].copy_from_slice(&(random.next() as u16).to_le_bytes());
        c.ram.bytes_mut()[AT..AT + IMAGE_BYTES].copy_from_slice(&image);
        c.cpu.x87 = Default::default();
        let mut env = [0; 28];
        host_images(&mut image, &mut env);
        run(&mut c, FRSTOR_RDI).unwrap();
        let (ip, dp) = (c.cpu.x87.ip, c.cpu.x87.dp);
        assert_eq!((ip, dp), (0, 0));
        run(&mut c, FNSTENV_RDI).unwrap();
        // The selector of the instruction pointer is the host's own.
        env[16..18].fill(0);
        image[16..18].fill(0);
        assert_eq!(&c.ram.bytes()[AT..AT + 28], &env);
        run(&mut c, FNSAVE_RDI).unwrap();
        assert_eq!(&c.ram.bytes()[AT..AT + IMAGE_BYTES], &image);
        assert_eq!(
            c.cpu.x87,
            crate::cpu::state::X87 {
                regs: c.cpu.x87.regs,
                ..Default::default()
            }
        );
    }
}

#[test]
fn pointers_follow_the_last_instruction_that_is_not_control() {
    let mut c = core();
    c.cpu.regs[REG_BLOCK as usize] = 0xffff_8000_0000_1000;
    run(&mut c, &[0xdd, 0x47, 0x08]).unwrap(); // fld qword ptr [rdi + 8]
    run(&mut c, FNCLEX).unwrap();
    let x = c.cpu.x87;
    assert_eq!(
        (x.ip, x.dp, x.opcode),
        (0xffff_8000_0000_1000, AT as u64 + 8, 0x547)
    );
    // The offset in the segment counts.
    c.cpu.segs[seg::FS].base = 0x100;
    run(&mut c, &[0x64, 0xdd, 0x07]).unwrap();
    assert_eq!(c.cpu.x87.dp, AT as u64);
    run(&mut c, FXSAVE64_RDI).unwrap();
    let area = &c.ram.bytes()[AT..AT + 32];
    assert_eq!(area[6..8], 0x507u16.to_le_bytes());
    assert_eq!(area[8..16], 0xffff_8000_0000_1000u64.to_le_bytes());
    assert_eq!(area[16..24], (AT as u64).to_le_bytes());
    run(&mut c, FXSAVE_RDI).unwrap();
    let area = &c.ram.bytes()[AT..AT + 32];
    assert_eq!(area[8..16], 0x1000u64.to_le_bytes());
}

#[test]
fn fxsave_writes_its_area_and_fxrstor_reads_it() {
    let mut random = Random(99);
    let mut c = core();
    for _ in 0..200 {
        c.ram.bytes_mut()[AT..AT + 512].fill(0xcc);
        c.cpu.x87 = random.case().x;
        c.cpu.xmm = std::array::from_fn(|_| [random.next(), random.next()]);
        c.cpu.mxcsr = random.next() as u32 & 0xffff;
        let before = c.cpu.clone();
        run(&mut c, FXSAVE64_RDI).unwrap();
        let area = c.ram.bytes()[AT..AT + 512].to_vec();
        assert_eq!(area[..2], before.x87.control.to_le_bytes());
        assert_eq!(area[2..4], before.x87.status.to_le_bytes());
        assert_eq!(area[4..6], [before.x87.tags, 0]);
        assert_eq!(
            area[24..32],
            [&before.mxcsr.to_le_bytes()[..], &[0xff, 0xff, 0, 0]].concat()
        );
        assert_eq!(area[32..40], before.x87.bits(0).0.to_le_bytes());
        assert_eq!(area[42..48], [0; 6]);
        assert_eq!(
            area[160 + 16 * 15..168 + 16 * 15],
            before.xmm[15][0].to_le_bytes()
        );
        assert_eq!(area[416..], [0xcc; 96]);
        c.cpu.x87 = Default::default();
        c.cpu.xmm = Default::default();
        c.cpu.mxcsr = 0x1f80;
        run(&mut c, FXRSTOR64_RDI).unwrap();
        assert_eq!(c.cpu, before);
        // Reserved bits of MXCSR.
        c.ram.bytes_mut()[AT + 26] = 1;
        assert_eq!(
            run(&mut c, FXRSTOR64_RDI),
            Err(Some(TrapCause::Fault(Fault::gp(0))))
        );
        assert_eq!(c.cpu, before);
    }
    c.cpu.regs[7] += 8;
    for insn in [FXSAVE64_RDI, FXRSTOR64_RDI] {
        assert_eq!(run(&mut c, insn), Err(Some(TrapCause::Fault(Fault::gp(0)))));
    }
}

#[test]
fn a_loaded_image_can_hold_pending_exceptions() {
    let mut c = core();
    let mut image = to_image(&c.cpu.x87);
    image[0] = (EXCEPTIONS & !IE) as u8;
    image[4] = IE as u8;
    c.ram.bytes_mut()[AT..AT + IMAGE_BYTES].copy_from_slice(&image);
    run(&mut c, FRSTOR_RDI).unwrap();
    assert_eq!(run(&mut c, WAIT), fault(vector::MF));
    // FNSTENV masks everything, and with that the exception no longer waits.
    run(&mut c, FNSTENV_RDI).unwrap();
    assert_eq!(run(&mut c, WAIT), Ok(()));
    assert_eq!(from_image(&image).status & IE, IE);
}
