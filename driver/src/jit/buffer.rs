//! Memory for machine code: one view to write, another to run, never both in one.
#![expect(unsafe_code, reason = "maps memory, and writes code into it")]

use std::io;
use std::ptr::null_mut;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

/// Bytes of code at most; when they are used up, everything is translated anew.
const CODE_BYTES: usize = 64 << 20;
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
    used: usize,
    /// How much the host has been asked for.
    ready: usize,
    cells: usize,
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
                used: 0,
                ready: 0,
                cells: 0,
            })
        }
    }

    /// Address at which the next code will run.
    pub(super) fn next(&self) -> u64 {
        (self.run + self.used) as u64
    }

    /// Whether so many bytes and cells more fit.
    pub(super) fn has_room(&self, bytes: usize, cells: usize) -> bool {
        self.used + bytes <= CODE_BYTES && (self.cells + cells) * size_of::<Cell>() <= CELL_BYTES
    }

    /// Appends code, which was assembled for [`CodeBuffer::next`].
    pub(super) fn append(&mut self, code: &[u8]) {
        assert!(self.has_room(code.len(), 0));
        while self.ready < self.used + code.len() {
            self.get_ready();
        }
        let to = std::ptr::with_exposed_provenance_mut::<u8>(self.write + self.used);
        // SAFETY: inside the write view, as just checked; no reference points there.
        unsafe { to.copy_from_nonoverlapping(code.as_ptr(), code.len()) };
        self.used = (self.used + code.len())
            .next_multiple_of(16)
            .min(CODE_BYTES);
    }

    /// Has the next pages of both views ready.
    fn get_ready(&mut self) {
        let views = [
            (self.write, Advice::LinuxPopulateWrite),
            (self.run, Advice::LinuxPopulateRead),
        ];
        for (view, advice) in views {
            let start = std::ptr::with_exposed_provenance_mut(view + self.ready);
            // SAFETY: inside the view, whose size is a multiple of a step; no content changes. A
            // host that does not know the advice gets the pages ready as they are touched.
            let _ = unsafe { madvise(start, STEP_BYTES, advice) };
        }
        self.ready += STEP_BYTES;
    }

    /// Bytes used so far.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// Throws away what was appended after `used` was so much, and all cells.
    pub(super) fn truncate(&mut self, used: usize) {
        self.used = used.min(self.used);
        self.cells = 0;
        // The same physical bytes will be written through another address than they are run from,
        // which takes a serializing instruction in between (SDM vol. 3, 8.1.3).
        std::arch::x86_64::__cpuid(0);
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
