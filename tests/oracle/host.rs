//! Runs cases on the host's CPU, in a forked child.
//!
//! The child is driven by its own signal handler: every instruction under test ends in a signal
//! (INT3 behind it, or its own fault), the handler saves what the kernel put into the signal frame,
//! replaces the frame by the next case, and returns into it. That costs two microseconds a case,
//! and the frame has what the SDM calls the error code, the vector and CR2.
//!
//! After the bases of FS and GS are set, the child has no thread-local storage: from there on it
//! calls nothing but memory copies.
#![allow(
    unsafe_code,
    reason = "executes generated instructions on the host's CPU"
)]

use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering::Relaxed};

use super::layout::{
    CODE, CODE_BYTES, DATA, DATA_BYTES, FS_BASE, GS_BASE, INT3, PAGE, fill_read_only,
};
use super::state::{Case, End, FX_BYTES, Outcome, Registers};

/// Signals by which an instruction can end.
const SIGNALS: [i32; 5] = [
    libc::SIGTRAP,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
];
/// Vectors of Intel SDM vol. 3, table 6-1.
const VECTOR_BREAKPOINT: u64 = 3;
const VECTOR_PAGE_FAULT: u64 = 14;
/// Bit of a page fault's error code: an instruction fetch.
const FETCH: u64 = 1 << 4;
/// Where the child can write its code pages: at an address that none of the patterned values in
/// registers, which bit strings reach far with, makes.
const CODE_ALIAS: u64 = 0x2b6d_93c5_a000;
/// The child gives up after so many seconds.
const CHILD_SECONDS: u32 = 120;
const ALTERNATE_STACK_BYTES: usize = 256 << 10;

/// What the handler saves.
#[repr(C)]
struct Saved {
    registers: Registers,
    vector: u64,
    error: u64,
    cr2: u64,
    memory: [u8; DATA_BYTES],
}

/// The memory shared with the child: how many cases it has begun, the cases, and their ends.
pub(crate) struct Host {
    begun: *mut AtomicU64,
    cases: *mut Case,
    ends: *mut Saved,
    bytes: usize,
    capacity: usize,
}

impl Host {
    /// Room for so many cases at once.
    pub(crate) fn new(capacity: usize) -> Self {
        let head = PAGE as usize;
        let bytes = head + capacity * (size_of::<Case>() + size_of::<Saved>());
        // SAFETY: a fresh anonymous mapping, all of whose bytes are zero: valid for plain data.
        unsafe {
            let at = libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            assert_ne!(at, libc::MAP_FAILED, "no memory to share with the child");
            let at = at.cast::<u8>();
            let cases = at.add(head).cast::<Case>();
            Host {
                begun: at.cast(),
                cases,
                ends: cases.add(capacity).cast(),
                bytes,
                capacity,
            }
        }
    }

    /// Runs all cases; `None` for a case in which the child died.
    pub(crate) fn run(&mut self, cases: &[Case]) -> Vec<Option<End>> {
        assert!(cases.len() <= self.capacity);
        for (i, case) in cases.iter().enumerate() {
            // SAFETY: `i` is below the capacity; no child is running.
            unsafe { self.cases.add(i).write(case.clone()) };
        }
        let mut ends = Vec::with_capacity(cases.len());
        while ends.len() < cases.len() {
            let first = ends.len();
            let finished = self.fork(first as u64, cases.len() as u64);
            // SAFETY: the child is gone; the header is an initialized integer.
            let begun = unsafe { (*self.begun).load(Relaxed) } as usize;
            let complete = if finished {
                cases.len()
            } else {
                begun.saturating_sub(1).max(first)
            };
            for i in first..complete {
                // SAFETY: the child has saved this end completely.
                ends.push(Some(unsafe { to_end(&*self.ends.add(i)) }));
            }
            if !finished {
                ends.push(None);
            }
        }
        ends
    }

    /// Lets a child run the cases from `first`; says whether it came to the end of them.
    fn fork(&self, first: u64, count: u64) -> bool {
        // SAFETY: the child calls only functions that are safe between fork and exec, and exits.
        unsafe {
            (*self.begun).store(first, Relaxed);
            let pid = libc::fork();
            assert!(pid >= 0, "the host refuses to fork");
            if pid == 0 {
                BEGUN.store(self.begun, Relaxed);
                CASES.store(self.cases, Relaxed);
                ENDS.store(self.ends, Relaxed);
                COUNT.store(count, Relaxed);
                child(first);
            }
            let mut status = 0;
            while libc::waitpid(pid, &mut status, 0) != pid {}
            libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, to which no reference is left.
        unsafe { libc::munmap(self.begun.cast(), self.bytes) };
    }
}

fn to_end(saved: &Saved) -> End {
    let mut registers = saved.registers;
    let outcome = match saved.vector {
        VECTOR_BREAKPOINT => {
            registers.rip = registers.rip.wrapping_sub(1);
            Outcome::Done
        }
        // The instruction jumped, and nothing can be fetched there: not its own fault.
        VECTOR_PAGE_FAULT if saved.error & FETCH != 0 && saved.cr2 == registers.rip => {
            Outcome::Done
        }
        VECTOR_PAGE_FAULT => Outcome::Fault(VECTOR_PAGE_FAULT, saved.error, saved.cr2),
        vector => Outcome::Fault(vector, saved.error, 0),
    };
    End {
        registers,
        outcome,
        memory: Box::new(saved.memory),
    }
}

static BEGUN: AtomicPtr<AtomicU64> = AtomicPtr::new(std::ptr::null_mut());
static CASES: AtomicPtr<Case> = AtomicPtr::new(std::ptr::null_mut());
static ENDS: AtomicPtr<Saved> = AtomicPtr::new(std::ptr::null_mut());
static COUNT: AtomicU64 = AtomicU64::new(0);
/// The case that is running, plus one; or the first one to run, with `STARTING`.
static RUNNING: AtomicU64 = AtomicU64::new(0);
const STARTING: u64 = 1 << 63;

/// Sets up the child and enters the handler, which never comes back.
///
/// # Safety
///
/// Only for a freshly forked child whose statics point to the shared memory.
unsafe fn child(first: u64) -> ! {
    // SAFETY: system calls of a process that owns its whole address space; the fixed mappings
    // refuse to replace another one.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::alarm(CHILD_SECONDS);
        let rw = libc::PROT_READ | libc::PROT_WRITE;
        let fixed = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let map = |at: u64, bytes: usize, rights: i32| {
            let flags = fixed | libc::MAP_FIXED_NOREPLACE;
            let got = libc::mmap(at as *mut libc::c_void, bytes, rights, flags, -1, 0);
            if got as u64 != at {
                libc::_exit(2);
            }
        };
        // Code is not writable where it runs, lest a stray store changes the next test.
        let code = libc::memfd_create(c"code".as_ptr(), 0);
        libc::ftruncate(code, CODE_BYTES as i64);
        for (at, rights) in [(CODE, libc::PROT_READ | libc::PROT_EXEC), (CODE_ALIAS, rw)] {
            let flags = libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE;
            let got = libc::mmap(at as *mut libc::c_void, CODE_BYTES, rights, flags, code, 0);
            if got as u64 != at {
                libc::_exit(2);
            }
        }
        std::ptr::write_bytes(CODE_ALIAS as *mut u8, INT3, CODE_BYTES);
        map(DATA, DATA_BYTES + PAGE as usize, rw);
        let read_only = (DATA as usize + DATA_BYTES) as *mut libc::c_void;
        fill_read_only(std::slice::from_raw_parts_mut(
            read_only.cast(),
            PAGE as usize,
        ));
        libc::mprotect(read_only, PAGE as usize, libc::PROT_READ);
        let stack = libc::mmap(
            std::ptr::null_mut(),
            ALTERNATE_STACK_BYTES,
            rw,
            fixed,
            -1,
            0,
        );
        let alternate = libc::stack_t {
            ss_sp: stack,
            ss_flags: 0,
            ss_size: ALTERNATE_STACK_BYTES,
        };
        libc::sigaltstack(&alternate, std::ptr::null_mut());
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        for signal in SIGNALS {
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
        RUNNING.store(first | STARTING, Relaxed);
        const ARCH_SET_GS: i64 = 0x1001;
        const ARCH_SET_FS: i64 = 0x1002;
        for (which, base) in [(ARCH_SET_GS, GS_BASE), (ARCH_SET_FS, FS_BASE)] {
            std::arch::asm!(
                "syscall",
                inout("rax") libc::SYS_arch_prctl => _,
                in("rdi") which,
                in("rsi") base,
                out("rcx") _,
                out("r11") _,
            );
        }
        std::arch::asm!("int3", options(noreturn));
    }
}

/// Index of each general register of [`Registers`] in the signal frame.
const GREGS: [i32; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// Saves the case that ended and starts the next one.
extern "C" fn handler(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid frame; the shared arrays have COUNT elements; the pages
    // written are those mapped by `child`. No other thread exists.
    unsafe {
        // NT, AC and ID are not in what the kernel restores: a POPF under test may have set them.
        std::arch::asm!("pushfq", "and qword ptr [rsp], {m}", "popfq", m = const -0x24_4001_i64);
        let frame = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext;
        let running = RUNNING.load(Relaxed);
        let next = if running & STARTING != 0 {
            running & !STARTING
        } else {
            let ended = (running - 1) as usize;
            save(frame, &mut *ENDS.load(Relaxed).add(ended));
            let code = (*CASES.load(Relaxed).add(ended)).registers.rip - CODE;
            std::ptr::write_bytes((CODE_ALIAS + code) as *mut u8, INT3, 15);
            running
        };
        if next >= COUNT.load(Relaxed) {
            std::arch::asm!(
                "syscall",
                in("rax") libc::SYS_exit_group,
                in("rdi") 0,
                options(noreturn),
            );
        }
        (*BEGUN.load(Relaxed)).store(next + 1, Relaxed);
        RUNNING.store(next + 1, Relaxed);
        load(frame, &*CASES.load(Relaxed).add(next as usize));
    }
}

/// # Safety
///
/// Inside the handler only: `frame` is the signal frame.
unsafe fn save(frame: &mut libc::mcontext_t, end: &mut Saved) {
    // SAFETY: the frame's floating-point part begins with an FXSAVE area; the data is mapped.
    unsafe {
        for (i, &at) in GREGS.iter().enumerate() {
            end.registers.gpr[i] = frame.gregs[at as usize] as u64;
        }
        end.registers.rip = frame.gregs[libc::REG_RIP as usize] as u64;
        end.registers.rflags = frame.gregs[libc::REG_EFL as usize] as u64;
        end.vector = frame.gregs[libc::REG_TRAPNO as usize] as u64;
        end.error = frame.gregs[libc::REG_ERR as usize] as u64;
        end.cr2 = frame.gregs[libc::REG_CR2 as usize] as u64;
        std::arch::asm!(
            "mov {d:x}, ds",
            "mov {e:x}, es",
            d = inout(reg) 0_u64 => end.registers.ds,
            e = inout(reg) 0_u64 => end.registers.es,
        );
        std::ptr::copy_nonoverlapping(
            frame.fpregs.cast::<u8>(),
            (&raw mut end.registers.fx).cast::<u8>(),
            FX_BYTES,
        );
        std::ptr::copy_nonoverlapping(
            DATA as *const u8,
            (&raw mut end.memory).cast::<u8>(),
            DATA_BYTES,
        );
    }
}

/// # Safety
///
/// Inside the handler only: `frame` is the signal frame.
unsafe fn load(frame: &mut libc::mcontext_t, case: &Case) {
    /// Bytes of the FXSAVE area left to software: where the kernel describes what follows it.
    const SOFTWARE: usize = 464;
    /// x87 and SSE, in the header behind the area: to be loaded rather than initialized.
    const X87_AND_SSE: u64 = 3;
    // SAFETY: as above; the kernel writes the header whenever the CPU has XSAVE, and says so.
    unsafe {
        for (i, &at) in GREGS.iter().enumerate() {
            frame.gregs[at as usize] = case.registers.gpr[i] as i64;
        }
        frame.gregs[libc::REG_RIP as usize] = case.registers.rip as i64;
        frame.gregs[libc::REG_EFL as usize] = case.registers.rflags as i64;
        let area = frame.fpregs.cast::<u8>();
        std::ptr::copy_nonoverlapping((&raw const case.registers.fx).cast::<u8>(), area, SOFTWARE);
        const HAS_HEADER: u32 = 0x4650_5853;
        if area.add(SOFTWARE).cast::<u32>().read_unaligned() == HAS_HEADER {
            let present = area.add(FX_BYTES).cast::<u64>();
            present.write_unaligned(present.read_unaligned() | X87_AND_SSE);
        }
        std::ptr::copy_nonoverlapping(
            case.code.as_ptr(),
            (case.registers.rip - CODE + CODE_ALIAS) as *mut u8,
            case.code_len as usize,
        );
        std::ptr::copy_nonoverlapping(case.memory.as_ptr(), DATA as *mut u8, DATA_BYTES);
        std::arch::asm!(
            "mov ds, {d:x}",
            "mov es, {e:x}",
            d = in(reg) case.registers.ds,
            e = in(reg) case.registers.es,
        );
    }
}
