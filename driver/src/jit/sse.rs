//! SSE instructions, each on its own operands in memory.
//!
//! Floats run on the host's own unit: every x86 computes the same sums, products, quotients, roots
//! and conversions, and raises the same flags (SDM vol. 1, 11.5 and appendix E). RCPPS and RSQRTPS,
//! which differ between makers, are left to tier 0, and so is all arithmetic while the guest's MXCSR
//! asks for anything but the rounding and the masks of power-on.

use iced_x86::{Instruction, Mnemonic as N, OpKind, Register};

use super::block::Builder;
use super::emit::S2;
use super::flags::{ALL, Overflow};
use super::form::{Form, Mode, Shape, number};
use super::lower::{aim_at_pointer, sized};
use super::trampoline::{guest, guest_xmm, pinned};

/// Classifies an instruction with an XMM operand.
pub(super) fn classify(insn: &Instruction, s: &mut Shape, memory: Option<u32>, mode: Mode) {
    let unaligned = matches!(insn.mnemonic(), N::Movdqu | N::Movups | N::Movupd);
    match insn.mnemonic() {
        N::Movdqa
        | N::Movaps
        | N::Movapd
        | N::Movdqu
        | N::Movups
        | N::Movupd
        | N::Movntdq
        | N::Movntps
        | N::Movntpd
        | N::Movd
        | N::Movq
        | N::Pshufd
        | N::Pshufhw
        | N::Pshuflw
        | N::Pmovmskb
        | N::Movmskps
        | N::Movmskpd
        | N::Pextrw => s.replaces = true,
        N::Movss | N::Movsd => s.replaces = memory.is_some(),
        N::Movlps
        | N::Movlpd
        | N::Movhps
        | N::Movhpd
        | N::Movhlps
        | N::Movlhps
        | N::Pand
        | N::Pandn
        | N::Por
        | N::Pxor
        | N::Andps
        | N::Andpd
        | N::Andnps
        | N::Andnpd
        | N::Orps
        | N::Orpd
        | N::Xorps
        | N::Xorpd
        | N::Paddb
        | N::Paddw
        | N::Paddd
        | N::Paddq
        | N::Psubb
        | N::Psubw
        | N::Psubd
        | N::Psubq
        | N::Paddsb
        | N::Paddsw
        | N::Paddusb
        | N::Paddusw
        | N::Psubsb
        | N::Psubsw
        | N::Psubusb
        | N::Psubusw
        | N::Pminub
        | N::Pmaxub
        | N::Pminsw
        | N::Pmaxsw
        | N::Pavgb
        | N::Pavgw
        | N::Pcmpeqb
        | N::Pcmpeqw
        | N::Pcmpeqd
        | N::Pcmpgtb
        | N::Pcmpgtw
        | N::Pcmpgtd
        | N::Pmullw
        | N::Pmulhw
        | N::Pmulhuw
        | N::Pmuludq
        | N::Pmaddwd
        | N::Psadbw
        | N::Psllw
        | N::Pslld
        | N::Psllq
        | N::Psrlw
        | N::Psrld
        | N::Psrlq
        | N::Psraw
        | N::Psrad
        | N::Pslldq
        | N::Psrldq
        | N::Punpcklbw
        | N::Punpcklwd
        | N::Punpckldq
        | N::Punpcklqdq
        | N::Punpckhbw
        | N::Punpckhwd
        | N::Punpckhdq
        | N::Punpckhqdq
        | N::Packsswb
        | N::Packssdw
        | N::Packuswb
        | N::Shufps
        | N::Shufpd
        | N::Unpcklps
        | N::Unpckhps
        | N::Unpcklpd
        | N::Unpckhpd
        | N::Pinsrw => {}
        _ if mode.floats => match float(insn.mnemonic()) {
            Some(Float::Merges) => {}
            Some(Float::Replaces) => s.replaces = true,
            Some(Float::Compares) => {
                s.form = Form::Sse;
                s.reads = 0;
                s.writes = ALL;
                return;
            }
            None => return,
        },
        _ => return,
    }
    s.form = Form::Sse;
    s.sets[0] = true;
    s.reads = 0;
    s.aligned = memory.is_some() && s.size == 16 && !unaligned;
}

/// What becomes of the first operand of an instruction on floats.
enum Float {
    /// Its old value is an operand, or part of the result.
    Merges,
    /// It is written whole.
    Replaces,
    /// It is compared, and the flags are written instead.
    Compares,
}

fn float(mnemonic: N) -> Option<Float> {
    Some(match mnemonic {
        N::Addss | N::Addsd | N::Addps | N::Addpd => Float::Merges,
        N::Subss | N::Subsd | N::Subps | N::Subpd => Float::Merges,
        N::Mulss | N::Mulsd | N::Mulps | N::Mulpd => Float::Merges,
        N::Divss | N::Divsd | N::Divps | N::Divpd => Float::Merges,
        N::Minss | N::Minsd | N::Minps | N::Minpd => Float::Merges,
        N::Maxss | N::Maxsd | N::Maxps | N::Maxpd => Float::Merges,
        N::Cmpss | N::Cmpsd | N::Cmpps | N::Cmppd => Float::Merges,
        N::Sqrtss | N::Sqrtsd => Float::Merges,
        N::Sqrtps | N::Sqrtpd => Float::Replaces,
        N::Cvtsi2ss | N::Cvtsi2sd | N::Cvtss2sd | N::Cvtsd2ss => Float::Merges,
        N::Cvtss2si | N::Cvtsd2si | N::Cvttss2si | N::Cvttsd2si => Float::Replaces,
        N::Cvtdq2ps | N::Cvtdq2pd | N::Cvtps2pd | N::Cvtpd2ps => Float::Replaces,
        N::Cvtps2dq | N::Cvtpd2dq | N::Cvttps2dq | N::Cvttpd2dq => Float::Replaces,
        N::Ucomiss | N::Ucomisd | N::Comiss | N::Comisd => Float::Compares,
        _ => return None,
    })
}

impl Builder<'_> {
    pub(super) fn sse(&mut self, i: usize) -> Option<()> {
        let shape = self.shapes[i];
        let old = self.insns[i];
        let mut insn = old;
        insn.set_segment_prefix(Register::None);
        insn.set_has_rep_prefix(false);
        insn.set_has_repne_prefix(false);
        aim_at_pointer(&mut insn, self.displacement(i));
        let mut resident = None;
        for k in 0..old.op_count().min(2) {
            if old.op_kind(k) != OpKind::Register {
                continue;
            }
            let r = old.op_register(k);
            if r.is_xmm() {
                insn.set_op_register(
                    k,
                    if k == 0 {
                        Register::XMM0
                    } else {
                        Register::XMM1
                    },
                );
            } else {
                let n = number(r);
                if pinned(n).is_none() {
                    resident = Some((n, k));
                }
                insn.set_op_register(k, sized(pinned(n).unwrap_or(S2), r.size()));
            }
        }
        self.encoder.encode(&insn, 0).ok()?;
        let code = self.encoder.take_buffer();
        if let Some(touch) = shape.touch {
            self.access_operand(i, touch, shape.size);
            if shape.aligned && !self.in_group() {
                self.require_alignment(i);
            }
        }
        let xmm = |k: u32| {
            let is_register = k < old.op_count() && old.op_kind(k) == OpKind::Register;
            (is_register && old.op_register(k).is_xmm()).then(|| old.op_register(k).number() as u8)
        };
        let (first, second) = (xmm(0), xmm(1));
        if let Some(n) = first
            && !shape.replaces
        {
            self.asm.load_xmm(0, guest_xmm(n));
        }
        if let Some(n) = second {
            self.asm.load_xmm(1, guest_xmm(n));
        }
        if let Some((n, 1)) = resident {
            self.asm.load(S2, guest(n));
        }
        self.asm.bytes(&code);
        if shape.writes != 0 {
            self.flags.written(shape.clear_af, Overflow::Host);
        }
        if let Some(n) = first
            && shape.sets[0]
        {
            self.asm.store_xmm(guest_xmm(n), 0);
        }
        if let Some((n, 0)) = resident {
            self.asm.store(guest(n), S2);
        }
        Some(())
    }
}
