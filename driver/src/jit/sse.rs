//! SSE instructions that depend on no control register but those that allow them.

use iced_x86::{Instruction, Mnemonic as N, OpKind, Register};

use super::block::Builder;
use super::emit::S2;
use super::form::{Form, Shape, number};
use super::lower::{aim_at_pointer, sized};
use super::trampoline::{guest, guest_xmm, pinned};

/// Classifies an instruction with an XMM operand.
pub(super) fn classify(insn: &Instruction, s: &mut Shape, memory: Option<u32>) {
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
        _ => return,
    }
    s.form = Form::Sse;
    s.sets[0] = true;
    s.reads = 0;
    s.aligned = memory.is_some() && s.size == 16 && !unaligned;
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
        if let Some(n) = first {
            self.asm.store_xmm(guest_xmm(n), 0);
        }
        if let Some((n, 0)) = resident {
            self.asm.store(guest(n), S2);
        }
        Some(())
    }
}
