//! A small assembler for the code around the guest's own instructions.

/// RAX of the host.
pub(super) const RAX: u8 = 0;
/// RBP of the host.
pub(super) const RBP: u8 = 5;
/// Where the guest's RSP lives.
pub(super) const GUEST_SP: u8 = 12;
/// First scratch register: an address, then the pointer it became.
pub(super) const S1: u8 = 13;
/// Second scratch register.
pub(super) const S2: u8 = 14;
/// Points into [`crate::core::Core`].
pub(super) const ENV: u8 = 15;
/// No base register.
pub(super) const NONE: u8 = 0xff;

/// Condition codes as in the encoding of Jcc.
pub(super) mod cc {
    pub(in crate::jit) const E: u8 = 4;
    pub(in crate::jit) const NE: u8 = 5;
    pub(in crate::jit) const BE: u8 = 6;
    pub(in crate::jit) const AE: u8 = 3;
    pub(in crate::jit) const A: u8 = 7;
    pub(in crate::jit) const S: u8 = 8;
}

/// The eight operations of the first arithmetic group, by their number in the encoding.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
pub(super) enum Alu {
    Add = 0,
    Or = 1,
    And = 4,
    Sub = 5,
    Xor = 6,
    Cmp = 7,
}

/// A memory operand of the host.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mem {
    pub(super) base: u8,
    /// Register and shift.
    pub(super) index: Option<(u8, u8)>,
    pub(super) disp: i32,
}

impl Mem {
    pub(super) fn at(base: u8, disp: i32) -> Self {
        Mem {
            base,
            index: None,
            disp,
        }
    }
}

/// A jump whose target is not known yet: where its displacement ends.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub(super) struct Fixup(usize);

impl Fixup {
    /// Offset behind the jump.
    pub(super) fn end(self) -> usize {
        self.0
    }
}

/// Machine code being written.
#[derive(Debug)]
pub(super) struct Asm {
    /// The code so far.
    pub(super) code: Vec<u8>,
    /// The address at which it will run.
    base: u64,
    /// The address at which what is seldom run will be, and the offset at which that begins.
    cold: (u64, usize),
}

impl Asm {
    /// For code at the first address; at the second what comes after [`Asm::begin_cold`].
    pub(super) fn new(base: u64, cold: u64) -> Self {
        Asm {
            code: Vec::with_capacity(1024),
            base,
            cold: (cold, usize::MAX),
        }
    }

    /// What comes is seldom run, and nothing runs into it.
    pub(super) fn begin_cold(&mut self) {
        self.cold.1 = self.code.len();
    }

    /// What is often run, and what is not.
    pub(super) fn parts(&self) -> (&[u8], &[u8]) {
        self.code.split_at(self.cold.1.min(self.code.len()))
    }

    /// Offset of the next instruction.
    pub(super) fn position(&self) -> usize {
        self.code.len()
    }

    /// Address of an offset.
    pub(super) fn address(&self, position: usize) -> u64 {
        let (cold, begin) = self.cold;
        match position.checked_sub(begin) {
            Some(into) => cold.wrapping_add(into as u64),
            None => self.base.wrapping_add(position as u64),
        }
    }

    /// The distance to an address from behind a displacement at an offset.
    fn distance(&self, displacement: usize, target: u64) -> i32 {
        target.wrapping_sub(self.address(displacement).wrapping_add(4)) as i32
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.code.extend_from_slice(bytes);
    }

    fn imm32(&mut self, v: i32) {
        self.bytes(&v.to_le_bytes());
    }

    fn rex(&mut self, wide: bool, reg: u8, index: u8, base: u8, force: bool) {
        let rex = 0x40
            | u8::from(wide) << 3
            | (reg >> 3 & 1) << 2
            | (index >> 3 & 1) << 1
            | (base >> 3 & 1);
        if rex != 0x40 || force {
            self.code.push(rex);
        }
    }

    fn operand(&mut self, reg: u8, m: Mem) {
        let reg = (reg & 7) << 3;
        if m.base == NONE {
            self.code.push(reg | 4);
            let (index, scale) = m.index.unwrap_or((4, 0));
            self.code.push(scale << 6 | (index & 7) << 3 | 5);
            self.imm32(m.disp);
            return;
        }
        let low = m.base & 7;
        let mode = match m.disp {
            0 if low != 5 => 0,
            -128..=127 => 0x40,
            _ => 0x80,
        };
        match m.index {
            Some((index, scale)) => {
                self.code.push(mode | reg | 4);
                self.code.push(scale << 6 | (index & 7) << 3 | low);
            }
            None if low == 4 => {
                self.code.push(mode | reg | 4);
                self.code.push(0x24);
            }
            None => self.code.push(mode | reg | low),
        }
        match mode {
            0 => {}
            0x40 => self.code.push(m.disp as i8 as u8),
            _ => self.imm32(m.disp),
        }
    }

    /// An instruction with a register and a memory operand.
    fn rm(&mut self, prefix: &[u8], wide: bool, opcode: &[u8], reg: u8, m: Mem, byte: bool) {
        self.bytes(prefix);
        let index = m.index.map_or(0, |(i, _)| i);
        let base = if m.base == NONE { 0 } else { m.base };
        self.rex(wide, reg, index, base, byte && (4..8).contains(&reg));
        self.bytes(opcode);
        self.operand(reg, m);
    }

    /// An instruction with two register operands.
    fn rr(&mut self, wide: bool, opcode: &[u8], reg: u8, rm: u8) {
        self.rex(wide, reg, 0, rm, false);
        self.bytes(opcode);
        self.code.push(0xc0 | (reg & 7) << 3 | rm & 7);
    }

    pub(super) fn mov(&mut self, to: u8, from: u8) {
        self.rr(true, &[0x8b], to, from);
    }

    pub(super) fn mov32(&mut self, to: u8, from: u8) {
        self.rr(false, &[0x8b], to, from);
    }

    pub(super) fn load(&mut self, to: u8, m: Mem) {
        self.rm(&[], true, &[0x8b], to, m, false);
    }

    pub(super) fn load32(&mut self, to: u8, m: Mem) {
        self.rm(&[], false, &[0x8b], to, m, false);
    }

    pub(super) fn load_u16(&mut self, to: u8, m: Mem) {
        self.rm(&[], false, &[0x0f, 0xb7], to, m, false);
    }

    pub(super) fn store(&mut self, m: Mem, from: u8) {
        self.rm(&[], true, &[0x89], from, m, false);
    }

    /// A store of 1, 2, 4 or 8 bytes.
    pub(super) fn store_sized(&mut self, m: Mem, from: u8, size: u64) {
        match size {
            1 => self.rm(&[], false, &[0x88], from, m, true),
            2 => self.rm(&[0x66], false, &[0x89], from, m, false),
            4 => self.rm(&[], false, &[0x89], from, m, false),
            _ => self.store(m, from),
        }
    }

    /// A load of 1, 2, 4 or 8 bytes; the narrow ones leave the rest of the register.
    pub(super) fn load_sized(&mut self, to: u8, m: Mem, size: u64) {
        match size {
            1 => self.rm(&[], false, &[0x8a], to, m, true),
            2 => self.rm(&[0x66], false, &[0x8b], to, m, false),
            4 => self.load32(to, m),
            _ => self.load(to, m),
        }
    }

    /// A move of 1, 2, 4 or 8 bytes between registers.
    pub(super) fn mov_sized(&mut self, to: u8, from: u8, size: u64) {
        match size {
            1 => {
                self.rex(
                    false,
                    to,
                    0,
                    from,
                    (4..8).contains(&to) || (4..8).contains(&from),
                );
                self.bytes(&[0x8a, 0xc0 | (to & 7) << 3 | from & 7]);
            }
            2 => {
                self.code.push(0x66);
                self.rr(false, &[0x8b], to, from);
            }
            4 => self.mov32(to, from),
            _ => self.mov(to, from),
        }
    }

    pub(super) fn lea(&mut self, to: u8, m: Mem) {
        self.rm(&[], true, &[0x8d], to, m, false);
    }

    pub(super) fn lea32(&mut self, to: u8, m: Mem) {
        self.rm(&[], false, &[0x8d], to, m, false);
    }

    /// `mov to, imm`, sign-extended.
    pub(super) fn mov_imm(&mut self, to: u8, imm: i32) {
        self.rex(true, 0, 0, to, false);
        self.bytes(&[0xc7, 0xc0 | to & 7]);
        self.imm32(imm);
    }

    pub(super) fn mov_imm64(&mut self, to: u8, imm: u64) {
        self.rex(true, 0, 0, to, false);
        self.code.push(0xb8 | to & 7);
        self.bytes(&imm.to_le_bytes());
    }

    /// `to = to OP [m]`, 64 bits.
    pub(super) fn alu_load(&mut self, op: Alu, to: u8, m: Mem) {
        self.rm(&[], true, &[(op as u8) << 3 | 3], to, m, false);
    }

    /// `to = to OP from`, 64 bits or 32.
    pub(super) fn alu(&mut self, wide: bool, op: Alu, to: u8, from: u8) {
        self.rr(wide, &[(op as u8) << 3 | 3], to, from);
    }

    /// `movsxd to, from`.
    pub(super) fn sign_extend32(&mut self, to: u8, from: u8) {
        self.rr(true, &[0x63], to, from);
    }

    /// DIV (6) or IDIV (7) by a register.
    pub(super) fn divide(&mut self, wide: bool, kind: u8, by: u8) {
        self.rr(wide, &[0xf7], kind, by);
    }

    /// BT and its kin: `kind` is 0xa3, 0xab, 0xb3 or 0xbb.
    pub(super) fn bit_test(&mut self, wide: bool, kind: u8, of: u8, bit: u8) {
        self.rr(wide, &[0x0f, kind], bit, of);
    }

    /// `movups xmm, [m]`.
    pub(super) fn load_xmm(&mut self, xmm: u8, m: Mem) {
        self.rm(&[], false, &[0x0f, 0x10], xmm, m, false);
    }

    /// `ldmxcsr [m]`.
    pub(super) fn load_mxcsr(&mut self, m: Mem) {
        self.rm(&[], false, &[0x0f, 0xae], 2, m, false);
    }

    /// `stmxcsr [m]`.
    pub(super) fn store_mxcsr(&mut self, m: Mem) {
        self.rm(&[], false, &[0x0f, 0xae], 3, m, false);
    }

    /// `movups [m], xmm`.
    pub(super) fn store_xmm(&mut self, m: Mem, xmm: u8) {
        self.rm(&[], false, &[0x0f, 0x11], xmm, m, false);
    }

    /// `to = to OP imm`, 64 bits or 32.
    pub(super) fn alu_imm(&mut self, wide: bool, op: Alu, to: u8, imm: i32) {
        self.rex(wide, 0, 0, to, false);
        let short = i8::try_from(imm).is_ok();
        self.bytes(&[
            if short { 0x83 } else { 0x81 },
            0xc0 | (op as u8) << 3 | to & 7,
        ]);
        if short {
            self.code.push(imm as u8)
        } else {
            self.imm32(imm)
        }
    }

    /// `[m] = [m] OP imm`, 64 bits.
    pub(super) fn alu_store_imm(&mut self, op: Alu, m: Mem, imm: i32) {
        let short = i8::try_from(imm).is_ok();
        self.rm(
            &[],
            true,
            &[if short { 0x83 } else { 0x81 }],
            op as u8,
            m,
            false,
        );
        if short {
            self.code.push(imm as u8)
        } else {
            self.imm32(imm)
        }
    }

    /// `test dword [m], imm`.
    pub(super) fn test_mem32(&mut self, m: Mem, imm: u32) {
        self.rm(&[], false, &[0xf7], 0, m, false);
        self.imm32(imm as i32);
    }

    /// `cmp` of a memory operand of 1, 2, 4 or 8 bytes with zero.
    pub(super) fn cmp_zero_sized(&mut self, m: Mem, size: u64) {
        match size {
            1 => self.rm(&[], false, &[0x80], 7, m, false),
            2 => self.rm(&[0x66], false, &[0x83], 7, m, false),
            4 => self.rm(&[], false, &[0x83], 7, m, false),
            _ => self.rm(&[], true, &[0x83], 7, m, false),
        }
        self.code.push(0);
    }

    /// `test r, r` of 1, 2, 4 or 8 bytes.
    pub(super) fn test_sized(&mut self, r: u8, size: u64) {
        match size {
            1 => {
                self.rex(false, r, 0, r, (4..8).contains(&r));
                self.bytes(&[0x84, 0xc0 | (r & 7) << 3 | r & 7]);
            }
            2 => {
                self.code.push(0x66);
                self.rr(false, &[0x85], r, r);
            }
            4 => self.rr(false, &[0x85], r, r),
            _ => self.rr(true, &[0x85], r, r),
        }
    }

    /// `test r8, imm8`.
    pub(super) fn test8_imm(&mut self, r: u8, imm: u8) {
        self.rex(false, 0, 0, r, (4..8).contains(&r));
        self.bytes(&[0xf6, 0xc0 | r & 7, imm]);
    }

    /// `setcc r8`.
    pub(super) fn setcc(&mut self, cc: u8, r: u8) {
        self.rex(false, 0, 0, r, (4..8).contains(&r));
        self.bytes(&[0x0f, 0x90 | cc, 0xc0 | r & 7]);
    }

    /// A shift of a 64-bit register (or 32) by a constant; `kind` is 4 SHL, 5 SHR, 7 SAR.
    pub(super) fn shift_imm(&mut self, wide: bool, kind: u8, r: u8, count: u8) {
        self.rex(wide, 0, 0, r, false);
        self.bytes(&[0xc1, 0xc0 | kind << 3 | r & 7, count]);
    }

    pub(super) fn jcc(&mut self, cc: u8) -> Fixup {
        self.bytes(&[0x0f, 0x80 | cc, 0, 0, 0, 0]);
        Fixup(self.code.len())
    }

    pub(super) fn jcc_back(&mut self, cc: u8, position: usize) {
        self.bytes(&[0x0f, 0x80 | cc]);
        self.relative(self.address(position));
    }

    pub(super) fn jmp(&mut self) -> Fixup {
        self.bytes(&[0xe9, 0, 0, 0, 0]);
        Fixup(self.code.len())
    }

    /// Lets a jump arrive here.
    pub(super) fn bind(&mut self, fixup: Fixup) {
        let here = self.address(self.code.len());
        let distance = self.distance(fixup.0 - 4, here);
        self.code[fixup.0 - 4..fixup.0].copy_from_slice(&distance.to_le_bytes());
    }

    pub(super) fn jmp_back(&mut self, position: usize) {
        self.jmp_address(self.address(position));
    }

    pub(super) fn call_back(&mut self, position: usize) {
        self.call_address(self.address(position));
    }

    fn relative(&mut self, target: u64) {
        let distance = self.distance(self.code.len(), target);
        self.imm32(distance);
    }

    pub(super) fn jmp_address(&mut self, target: u64) {
        self.code.push(0xe9);
        self.relative(target);
    }

    pub(super) fn call_address(&mut self, target: u64) {
        self.code.push(0xe8);
        self.relative(target);
    }

    pub(super) fn call_register(&mut self, r: u8) {
        self.rex(false, 0, 0, r, false);
        self.bytes(&[0xff, 0xd0 | r & 7]);
    }

    pub(super) fn jmp_register(&mut self, r: u8) {
        self.rex(false, 0, 0, r, false);
        self.bytes(&[0xff, 0xe0 | r & 7]);
    }

    pub(super) fn jmp_mem(&mut self, m: Mem) {
        self.rm(&[], false, &[0xff], 4, m, false);
    }

    /// `jmp [address]`, the address being near the code.
    pub(super) fn jmp_cell(&mut self, cell: u64) {
        self.bytes(&[0xff, 0x25]);
        self.relative(cell);
    }

    pub(super) fn push(&mut self, r: u8) {
        self.rex(false, 0, 0, r, false);
        self.code.push(0x50 | r & 7);
    }

    pub(super) fn pop(&mut self, r: u8) {
        self.rex(false, 0, 0, r, false);
        self.code.push(0x58 | r & 7);
    }

    /// `cmp r, [address]`, 64 bits.
    pub(super) fn cmp_cell(&mut self, r: u8, cell: u64) {
        self.rex(true, r, 0, 0, false);
        self.bytes(&[0x3b, 0x05 | (r & 7) << 3]);
        self.relative(cell);
    }
}
