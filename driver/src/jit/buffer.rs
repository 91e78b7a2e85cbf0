//! Memory for machine code: one view to write, another to run, never both in one.
#![expect(unsafe_code, reason = "maps memory, and writes code into it")]

use std::io;
use std::ptr::null_mut;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

/// Bytes of code at most; when they are used up, everything is translated anew.
const CODE_BYTES: usize = 64 << 20;
/// Where in them the code begins that is seldom run: what is run often is close together.
const COLD: usize = 36 << 20;
/// Bytes of the cells jumps between blocks go through, behind the code.
const CELL_BYTES: usize = 16 << 20;

/// Bytes of code that are got from the host at once, in both views: a page at a time takes longer.
const STEP_BYTES: usize = 256 << 10;

/// The code memory of one machine.
#[derive(Debug)]
pub(super) struct CodeBuffer {
    /// Start of the view that is executed; the cells follow it.
    run: usize,
    /// Start of the view that is written.
    write: usize,
    hot: Part,
    cold: Part,
    cells: usize,
    /// Code that may have been run has been changed.
    changed: bool,
}

/// A jump in the code, by where in it its displacement ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Jump(u32);

/// A part of the code memory.
#[derive(Debug)]
struct Part {
    end: usize,
    used: usize,
    /// How much the host has been asked for.
    ready: usize,
}

impl Part {
    fn new(begin: usize, end: usize) -> Self {
        Part {
            end,
            used: begin,
            ready: begin,
        }
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.used + bytes <= self.end
    }
}

/// One indirection of a jump.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct Cell {
    /// Where the jump goes.
    pub(super) target: u64,
    /// The fetch generation for which it may, where that matters...
    pub(super) generation: u64,
    /// ... and the address it is for: the same code may run at several.
    pub(super) rip: u64,
    pub(super) reserved: u64,
}

impl Cell {
    /// A jump that is not linked.
    pub(super) fn unlinked(target: u64) -> Self {
        Cell {
            target,
            generation: 0,
            rip: 0,
            reserved: 0,
        }
    }
}

impl CodeBuffer {
    /// Fails where the host does not allow such memory.
    pub(super) fn new() -> io::Result<Self> {
        let fd = memfd_create("translated", MemfdFlags::CLOEXEC)?;
        ftruncate(&fd, CODE_BYTES as u64)?;
        let rw = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: new mappings at addresses the kernel chooses, except the second and third, which
        // replace parts of the first, which nobody else knows.
        unsafe {
            let total = CODE_BYTES + CELL_BYTES;
            let run = mmap_anonymous(null_mut(), total, ProtFlags::empty(), MapFlags::PRIVATE)?;
            let fixed = MapFlags::SHARED | MapFlags::FIXED;
            let rx = ProtFlags::READ | ProtFlags::EXEC;
            mmap(run, CODE_BYTES, rx, fixed, &fd, 0)?;
            let cells = run.byte_add(CODE_BYTES);
            mmap_anonymous(cells, CELL_BYTES, rw, MapFlags::PRIVATE | MapFlags::FIXED)?;
            let write = mmap(null_mut(), CODE_BYTES, rw, MapFlags::SHARED, &fd, 0)?;
            Ok(CodeBuffer {
                run: run.expose_provenance(),
                write: write.expose_provenance(),
                hot: Part::new(0, COLD),
                cold: Part::new(COLD, CODE_BYTES),
                cells: 0,
                changed: false,
            })
        }
    }

    /// Address at which the next code will run.
    pub(super) fn next(&self) -> u64 {
        (self.run + self.hot.used) as u64
    }

    /// And what of it is seldom run.
    pub(super) fn next_cold(&self) -> u64 {
        (self.run + self.cold.used) as u64
    }

    /// Whether so many bytes and cells more fit.
    pub(super) fn has_room(&self, bytes: usize, cells: usize) -> bool {
        self.hot.has_room(bytes)
            && self.cold.has_room(bytes)
            && (self.cells + cells) * size_of::<Cell>() <= CELL_BYTES
    }

    /// Appends code, which was assembled for [`CodeBuffer::next`] and [`CodeBuffer::next_cold`].
    pub(super) fn append(&mut self, (hot, cold): (&[u8], &[u8])) {
        append(&mut self.hot, hot, self.write, self.run);
        append(&mut self.cold, cold, self.write, self.run);
    }

    /// Bytes used so far.
    pub(super) fn used(&self) -> usize {
        self.hot.used + (self.cold.used - COLD)
    }

    /// Bytes used so far of what is run often.
    pub(super) fn used_hot(&self) -> usize {
        self.hot.used
    }

    /// Throws away what was appended after `used` was so much of what is run often, all of the rest, and
    /// all cells.
    pub(super) fn truncate(&mut self, used: usize) {
        self.hot.used = used.min(self.hot.used);
        self.cold.used = COLD;
        self.cells = 0;
        self.changed = true;
    }

    /// The jump that will end so many bytes into the code appended next.
    pub(super) fn jump(&self, end: usize) -> Jump {
        Jump((self.hot.used + end) as u32)
    }

    /// Has a jump lead elsewhere.
    pub(super) fn aim(&mut self, jump: Jump, target: u64) {
        let end = jump.0 as usize;
        assert!((4..=self.hot.used).contains(&end));
        let distance = target.wrapping_sub((self.run + end) as u64) as i32;
        let at = std::ptr::with_exposed_provenance_mut::<i32>(self.write + end - 4);
        // SAFETY: inside the write view, as just checked; no reference points there.
        unsafe { at.write_unaligned(distance) };
        self.changed = true;
    }

    /// To be called before code is run: many jumps are aimed between two runs, and one IRET is enough for all.
    pub(super) fn settle(&mut self) {
        if std::mem::take(&mut self.changed) {
            serialize();
        }
    }

    /// Number of a new cell.
    pub(super) fn new_cell(&mut self) -> u32 {
        assert!(self.has_room(0, 1));
        self.cells += 1;
        (self.cells - 1) as u32
    }

    /// Address of the first cell.
    pub(super) fn cells(&self) -> u64 {
        self.cell_address(0)
    }

    /// Address of a cell.
    pub(super) fn cell_address(&self, cell: u32) -> u64 {
        (self.run + CODE_BYTES + cell as usize * size_of::<Cell>()) as u64
    }

    /// Sets a cell.
    pub(super) fn set_cell(&mut self, cell: u32, value: Cell) {
        assert!((cell as usize) < self.cells);
        let at = std::ptr::with_exposed_provenance_mut::<Cell>(self.cell_address(cell) as usize);
        // SAFETY: inside the cells, as just checked; aligned, since cells are 32 bytes apart.
        unsafe { at.write(value) };
    }
}

/// What was written through another address than it is run from takes a serializing instruction in between
/// (SDM vol. 3, 8.1.3). IRET is one that a virtual machine runs by itself, unlike CPUID.
fn serialize() {
    // SAFETY: IRETQ takes back the five words that were pushed, which leaves the stack, the flags and the segments
    // as they were, and goes on at the label. As it pushes, it is not `nostack`.
    unsafe {
        std::arch::asm!(
            "mov {sp}, rsp",
            "mov {segment:e}, ss",
            "push {segment}",
            "push {sp}",
            "pushfq",
            "mov {segment:e}, cs",
            "push {segment}",
            "lea {segment}, [rip + 2f]",
            "push {segment}",
            "iretq",
            "2:",
            sp = out(reg) _,
            segment = out(reg) _,
        );
    }
}

/// Appends to a part of code memory, given its two views.
fn append(part: &mut Part, code: &[u8], write: usize, run: usize) {
    assert!(part.has_room(code.len()));
    while part.ready < part.used + code.len() {
        get_ready(part, write, run);
    }
    let to = std::ptr::with_exposed_provenance_mut::<u8>(write + part.used);
    // SAFETY: inside the write view, as just checked; no reference points there.
    unsafe { to.copy_from_nonoverlapping(code.as_ptr(), code.len()) };
    part.used = (part.used + code.len()).next_multiple_of(16).min(part.end);
}

/// Has the next pages of both views ready.
fn get_ready(part: &mut Part, write: usize, run: usize) {
    let views = [
        (write, Advice::LinuxPopulateWrite),
        (run, Advice::LinuxPopulateRead),
    ];
    for (view, advice) in views {
        let start = std::ptr::with_exposed_provenance_mut(view + part.ready);
        // SAFETY: inside the view, of which each part is a multiple of a step; no content changes. A
        // host that does not know the advice gets the pages ready as they are touched.
        let _ = unsafe { madvise(start, STEP_BYTES, advice) };
    }
    part.ready += STEP_BYTES;
}

impl Drop for CodeBuffer {
    fn drop(&mut self) {
        let run = std::ptr::with_exposed_provenance_mut(self.run);
        let write = std::ptr::with_exposed_provenance_mut(self.write);
        // SAFETY: made by `new` in these sizes, and nobody runs code any more: it is only run
        // through the machine that owns this.
        unsafe {
            let _ = munmap(run, CODE_BYTES + CELL_BYTES);
            let _ = munmap(write, CODE_BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jit::emit::Asm;

    /// `mov eax, value; ret`
    fn constant(a: &mut Asm, value: u8) -> u64 {
        let at = a.address(a.position());
        a.bytes(&[0xb8, value, 0, 0, 0, 0xc3]);
        at
    }

    fn run(buffer: &mut CodeBuffer, code: u64) -> u32 {
        buffer.settle();
        let code = std::ptr::with_exposed_provenance::<u8>(code as usize);
        // SAFETY: the tests put functions of this type there.
        let code: extern "C" fn() -> u32 = unsafe { std::mem::transmute(code) };
        code()
    }

    #[test]
    fn a_jump_leads_where_it_was_aimed_last() {
        let mut buffer = CodeBuffer::new().expect("a host that lets code be made");
        let mut a = Asm::new(buffer.next(), buffer.next_cold());
        let fixup = a.jmp();
        let jump = buffer.jump(fixup.end());
        let often = constant(&mut a, 1);
        a.begin_cold();
        a.bind(fixup);
        let seldom = constant(&mut a, 2);
        let entry = a.address(0);
        buffer.append(a.parts());
        assert!(seldom - often >= (COLD - STEP_BYTES) as u64);
        assert_eq!(run(&mut buffer, entry), 2);
        for _ in 0..100 {
            for (target, value) in [(often, 1), (seldom, 2)] {
                buffer.aim(jump, target);
                assert_eq!(run(&mut buffer, entry), value);
            }
        }
    }

    #[test]
    fn memory_that_was_given_back_is_used_anew() {
        let mut buffer = CodeBuffer::new().expect("a host that lets code be made");
        for value in 0..100 {
            let mut a = Asm::new(buffer.next(), buffer.next_cold());
            let fixup = a.jmp();
            a.begin_cold();
            a.bind(fixup);
            constant(&mut a, value);
            let entry = a.address(0);
            buffer.append(a.parts());
            assert_eq!(run(&mut buffer, entry), u32::from(value));
            assert_eq!(buffer.used(), 32);
            buffer.truncate(0);
        }
    }
}
