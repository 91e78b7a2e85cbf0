//! From one frame to its caller (the order of `unwind_next_frame()` in
//! arch/x86/kernel/unwind_orc.c).

use super::{End, Method, OtherRegisters, Registers, StackFrame};
use crate::addr::{GuestMemory, Gva, ReadExt};
use crate::dwarf::FrameRegisters;
use crate::orc::{Base, OrcEntry, OrcSet, Shape};

/// Offsets in `struct pt_regs` (arch/x86/include/asm/ptrace.h).
mod pt_regs {
    pub(super) const R13: u64 = 16;
    pub(super) const BP: u64 = 32;
    pub(super) const R10: u64 = 56;
    pub(super) const DX: u64 = 96;
    pub(super) const DI: u64 = 112;
    pub(super) const IP: u64 = 128;
    pub(super) const CS: u64 = 136;
    pub(super) const SP: u64 = 152;
}

/// Where the user's half of the address space ends (4-level paging).
const USER_END: u64 = 0x0000_8000_0000_0000;
/// How far a scan looks: a kernel stack is 16 KiB.
const SCAN_WORDS: u64 = 2048;
/// How far apart two frames of one program may be.
const FRAME_SPAN: u64 = 1 << 20;

/// Where `struct pt_regs` has the registers, in the order of the instruction set.
const SAVED: [u64; 16] = [
    80, 88, 96, 40, 152, 32, 104, 112, 72, 64, 56, 48, 24, 16, 8, 0,
];

/// All registers that `struct pt_regs` at `gva` holds.
pub(super) fn saved_registers<M: GuestMemory + ?Sized>(
    memory: &M,
    gva: Gva,
) -> Option<FrameRegisters> {
    let mut all = [0; 16];
    for (register, offset) in all.iter_mut().zip(SAVED) {
        *register = memory.u64_at(gva.plus(offset).0)?;
    }
    Some(FrameRegisters::all(&all))
}

/// What a step came to.
pub(super) enum Next {
    /// The caller, how it was found, and whether its address is a return address.
    Frame(Method, bool),
    End(End),
}

/// The place in the stack that has been reached.
pub(super) struct Walker<'w, M: ?Sized> {
    memory: &'w M,
    orc: &'w OrcSet,
    ip: u64,
    sp: u64,
    bp: u64,
    others: Option<OtherRegisters>,
    is_user: bool,
    /// The address is where the frame stands, not where it will return to.
    is_exact: bool,
    /// Where all registers of the frame are saved.
    saved: Option<Gva>,
}

impl<'w, M: GuestMemory + ?Sized> Walker<'w, M> {
    pub(super) const fn new(memory: &'w M, orc: &'w OrcSet, r: &Registers) -> Self {
        let Registers {
            ip,
            sp,
            bp,
            others,
            is_user,
        } = *r;
        // A sleeping task's address is the return address of its switch.
        let is_exact = others.is_some() || is_user;
        Self {
            memory,
            orc,
            ip,
            sp,
            bp,
            others,
            is_user,
            is_exact,
            saved: None,
        }
    }

    pub(super) const fn frame(&self, method: Method, is_return: bool) -> StackFrame {
        let (ip, sp, is_user) = (Gva(self.ip), Gva(self.sp), self.is_user);
        StackFrame {
            ip,
            sp,
            method,
            is_return,
            is_user,
            saved: self.saved,
        }
    }

    pub(super) fn next(&mut self) -> Next {
        self.saved = None;
        if self.is_user {
            return self.user_step().map_or(Next::End(End::User), |()| {
                Next::Frame(Method::FramePointer, true)
            });
        }
        // A call may be the last instruction of its function: the address behind it is another's.
        let at = if self.is_exact {
            self.ip
        } else {
            self.ip.wrapping_sub(1)
        };
        if let Some(entry) = self.orc.find(Gva(at)) {
            if entry.shape == Shape::EndOfStack {
                return Next::End(End::Bottom);
            }
            if let Some(next) = self.orc_step(&entry) {
                return next;
            }
        }
        if self.frame_pointer_step().is_some() {
            return Next::Frame(Method::FramePointer, true);
        }
        match self.scan_step() {
            Some(()) => Next::Frame(Method::Scan, true),
            None => Next::End(End::Lost),
        }
    }

    fn orc_step(&mut self, entry: &OrcEntry) -> Option<Next> {
        let offset = entry.sp_offset;
        let found = match entry.sp_base {
            Base::Sp => self.sp.wrapping_add_signed(offset),
            Base::Bp => self.bp.wrapping_add_signed(offset),
            Base::BpIndirect => self.memory.u64_at(self.bp.wrapping_add_signed(offset))?,
            Base::SpIndirect => self.memory.u64_at(self.sp)?.wrapping_add_signed(offset),
            Base::Dx => self.others?.dx,
            Base::Di => self.others?.di,
            Base::R10 => self.others?.r10,
            Base::R13 => self.others?.r13,
            Base::PreviousSp | Base::Undefined => return None,
        };
        match entry.shape {
            Shape::Call => self.call_step(entry, found),
            Shape::Registers => {
                let read = |offset: u64| self.memory.u64_at(found.wrapping_add(offset));
                let others = OtherRegisters {
                    dx: read(pt_regs::DX)?,
                    di: read(pt_regs::DI)?,
                    r10: read(pt_regs::R10)?,
                    r13: read(pt_regs::R13)?,
                };
                let bp = read(pt_regs::BP)?;
                self.saved_step(found, Some(others))?;
                self.bp = bp;
                self.saved = Some(Gva(found));
                Some(Next::Frame(Method::Saved, false))
            }
            Shape::Interrupt => {
                let bp = self.saved_bp(entry, found);
                self.saved_step(found.wrapping_sub(pt_regs::IP), self.others)?;
                self.bp = bp.unwrap_or(self.bp);
                Some(Next::Frame(Method::Saved, false))
            }
            Shape::Undefined | Shape::EndOfStack => None,
        }
    }

    fn call_step(&mut self, entry: &OrcEntry, found: u64) -> Option<Next> {
        let ip = self.memory.u64_at(found.wrapping_sub(8))?;
        // At the bottom lies a zero, or whatever the boot code left.
        if ip == 0 {
            return Some(Next::End(End::Bottom));
        }
        if !self.orc.covers(Gva(ip)) && !looks_like_code(self.memory, ip) {
            return None;
        }
        self.bp = self.saved_bp(entry, found).unwrap_or(self.bp);
        (self.ip, self.sp, self.others, self.is_exact) = (ip, found, None, false);
        Some(Next::Frame(Method::Orc, true))
    }

    /// The caller's RBP, where the entry says that it was saved.
    fn saved_bp(&self, entry: &OrcEntry, found: u64) -> Option<u64> {
        let from = match entry.bp_base {
            Base::PreviousSp => found,
            Base::Bp => self.bp,
            _ => return None,
        };
        self.memory
            .u64_at(from.wrapping_add_signed(entry.bp_offset))
    }

    /// Goes on where the `pt_regs` at `regs` say.
    fn saved_step(&mut self, regs: u64, others: Option<OtherRegisters>) -> Option<()> {
        let read = |offset: u64| self.memory.u64_at(regs.wrapping_add(offset));
        let (ip, cs, sp) = (read(pt_regs::IP)?, read(pt_regs::CS)?, read(pt_regs::SP)?);
        let is_user = cs & 3 == 3;
        // Saved registers of the kernel lie in its half, those of a program in the other.
        if is_user != (ip < USER_END) {
            return None;
        }
        (self.ip, self.sp, self.others) = (ip, sp, others);
        (self.is_user, self.is_exact) = (is_user, true);
        Some(())
    }

    /// `push %rbp; mov %rsp,%rbp`: the caller's RBP at RBP, the return address above it.
    fn frame_pointer_step(&mut self) -> Option<()> {
        let near = self.bp >= self.sp && self.bp - self.sp < 8 * SCAN_WORDS;
        if !near || !self.bp.is_multiple_of(8) {
            return None;
        }
        let (bp, ip) = (
            self.memory.u64_at(self.bp)?,
            self.memory.u64_at(self.bp.wrapping_add(8))?,
        );
        if !(self.orc.covers(Gva(ip)) && looks_like_code(self.memory, ip)) {
            return None;
        }
        (self.ip, self.sp, self.bp) = (ip, self.bp.wrapping_add(16), bp);
        (self.others, self.is_exact) = (None, false);
        Some(())
    }

    /// The next word on the stack that points behind a call in known code.
    fn scan_step(&mut self) -> Option<()> {
        let mut at = self.sp.checked_add(7)? & !7;
        // An address on a stack of the user's, or none at all, is not searched.
        if at < USER_END {
            return None;
        }
        for _ in 0..SCAN_WORDS {
            let ip = self.memory.u64_at(at)?;
            at = at.checked_add(8)?;
            if self.orc.covers(Gva(ip)) && looks_like_code(self.memory, ip) {
                (self.ip, self.sp, self.others, self.is_exact) = (ip, at, None, false);
                return Some(());
            }
        }
        None
    }

    fn user_step(&mut self) -> Option<()> {
        let at = self.bp;
        let up = at.checked_sub(self.sp)?;
        if up > FRAME_SPAN || !at.is_multiple_of(8) {
            return None;
        }
        let (bp, ip) = (
            self.memory.u64_at(at)?,
            self.memory.u64_at(at.checked_add(8)?)?,
        );
        let inside = (0x1000..USER_END).contains(&ip) && looks_like_code(self.memory, ip);
        inside.then(|| (self.ip, self.sp, self.bp, self.is_exact) = (ip, at + 16, bp, false))
    }
}

/// Whether a call ends at `ip`: `e8 rel32`, or `ff /2` in its lengths (SDM volume 2, CALL).
fn looks_like_code<M: GuestMemory + ?Sized>(memory: &M, ip: u64) -> bool {
    let mut before = [0; 7];
    if !memory.read(ip.wrapping_sub(7), &mut before) {
        return false;
    }
    let is_near = before[2] == 0xe8;
    let is_indirect = |length: usize| {
        let at = 7 - length;
        before[at] == 0xff && before[at + 1] >> 3 & 7 == 2
    };
    is_near || [2, 3, 4, 6, 7].into_iter().any(is_indirect)
}
