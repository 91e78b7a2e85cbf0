//! The guest's tasks, read from its task list.

use std::fmt;

use crate::addr::{GuestMemory, Gva, ReadExt, Slide};
use crate::error::SymbolError;
use crate::hooks::{Hooks, TaskLayout};

/// What a task is doing, as `ps` abbreviates it (`fs/proc/array.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// R: on a CPU or ready for one.
    Running,
    /// S: waiting, wakes for signals.
    Sleeping,
    /// D: waiting, does not wake for signals.
    DiskSleep,
    /// T: stopped by a signal.
    Stopped,
    /// t: stopped by a debugger.
    Traced,
    /// X: gone.
    Dead,
    /// Z: ended, not waited for yet.
    Zombie,
    /// P: parked (a kernel thread).
    Parked,
    /// I: an idle kernel thread.
    Idle,
}

impl TaskState {
    /// From `__state` and `exit_state`; the bits are `TASK_*` of include/linux/sched.h.
    const fn of(state: u32, exit: u32) -> Self {
        const NOLOAD: u32 = 0x400;
        let all = state | exit;
        if state & NOLOAD != 0 && state & 2 != 0 {
            return Self::Idle;
        }
        // The highest reported bit counts, as task_index_to_char() reckons.
        match all & 0x7f {
            0 => Self::Running,
            bits if bits & 0x40 != 0 => Self::Parked,
            bits if bits & 0x20 != 0 => Self::Zombie,
            bits if bits & 0x10 != 0 => Self::Dead,
            bits if bits & 0x08 != 0 => Self::Traced,
            bits if bits & 0x04 != 0 => Self::Stopped,
            bits if bits & 0x02 != 0 => Self::DiskSleep,
            _ => Self::Sleeping,
        }
    }

    /// The letter of `ps`.
    pub const fn letter(self) -> char {
        match self {
            Self::Running => 'R',
            Self::Sleeping => 'S',
            Self::DiskSleep => 'D',
            Self::Stopped => 'T',
            Self::Traced => 't',
            Self::Dead => 'X',
            Self::Zombie => 'Z',
            Self::Parked => 'P',
            Self::Idle => 'I',
        }
    }
}

/// One task (thread) of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Where its `task_struct` is.
    pub gva: Gva,
    /// Thread number.
    pub pid: i32,
    /// Process number.
    pub tgid: i32,
    /// The parent process's number.
    pub ppid: i32,
    /// Name, up to 15 bytes.
    pub comm: String,
    /// What it is doing.
    pub state: TaskState,
    /// Has no address space of its own.
    pub is_kernel: bool,
    /// Lowest address of its kernel stack.
    pub stack: Gva,
    /// Its kernel stack pointer while it does not run.
    pub saved_sp: Option<Gva>,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pid,
            tgid,
            ppid,
            state,
            comm,
            ..
        } = self;
        let (open, close) = if self.is_kernel { ("[", "]") } else { ("", "") };
        write!(
            f,
            "{pid:7} {tgid:7} {ppid:7} {} {open}{comm}{close}",
            state.letter()
        )
    }
}

/// The kernel's limit of pids on 64-bit machines (`PID_MAX_LIMIT`): more tasks are a broken list.
const MAX_TASKS: usize = 4 << 20;

/// Reads one task.
pub fn read_task<M: GuestMemory + ?Sized>(
    memory: &M,
    layout: &TaskLayout,
    task: Gva,
) -> Result<Task, SymbolError> {
    let lacking = |name: &str| SymbolError::NoMember {
        container: "struct task_struct".to_owned(),
        member: name.to_owned(),
    };
    let unmapped = SymbolError::Unmapped {
        what: "task",
        gva: task.0,
    };
    let comm_at = layout.comm.ok_or_else(|| lacking("comm"))?;
    let pid_at = layout.pid.ok_or_else(|| lacking("pid"))?;
    let word = |offset: Option<u64>| memory.u32_at(task.plus(offset?).0);
    let long = |offset: Option<u64>| memory.u64_at(task.plus(offset?).0);
    let mut comm = [0; 16];
    if !memory.read(task.plus(comm_at).0, &mut comm) {
        return Err(unmapped);
    }
    let end = comm.iter().position(|b| *b == 0).unwrap_or(comm.len());
    let pid = word(Some(pid_at)).ok_or(unmapped)? as i32;
    let parent = long(layout.real_parent).filter(|p| *p != 0);
    let ppid = parent.and_then(|p| memory.u32_at(p.wrapping_add(layout.tgid?)));
    let (state, exit) = (word(layout.state), word(layout.exit_state));
    Ok(Task {
        gva: task,
        pid,
        tgid: word(layout.tgid).map_or(pid, |n| n as i32),
        ppid: ppid.unwrap_or_default() as i32,
        comm: String::from_utf8_lossy(&comm[..end]).into_owned(),
        state: TaskState::of(state.unwrap_or_default(), exit.unwrap_or_default()),
        is_kernel: long(layout.mm) == Some(0),
        stack: Gva(long(layout.stack).unwrap_or_default()),
        saved_sp: long(layout.thread_sp).map(Gva),
    })
}

/// All tasks, the idle task of CPU 0 first, then processes in list order with their threads.
pub fn read_tasks<M: GuestMemory + ?Sized>(
    memory: &M,
    hooks: &Hooks,
    slide: Slide,
) -> Result<Vec<Task>, SymbolError> {
    let init = hooks
        .data
        .init_task
        .ok_or(SymbolError::NoSymbol { name: "init_task" })?;
    let layout = &hooks.task;
    let tasks = layout.tasks.ok_or_else(|| SymbolError::NoMember {
        container: "struct task_struct".to_owned(),
        member: "tasks".to_owned(),
    })?;
    let init = init.run(slide);
    let mut all = vec![read_task(memory, layout, init)?];
    for process in list(memory, init.plus(tasks), tasks)? {
        threads(memory, layout, process, &mut all)?;
    }
    Ok(all)
}

/// The threads of one process, its leader first.
fn threads<M: GuestMemory + ?Sized>(
    memory: &M,
    layout: &TaskLayout,
    leader: Gva,
    all: &mut Vec<Task>,
) -> Result<(), SymbolError> {
    let head = || {
        let signal = memory
            .u64_at(leader.plus(layout.signal?).0)
            .filter(|s| *s != 0)?;
        Some((Gva(signal).plus(layout.thread_head?), layout.thread_node?))
    };
    let members = match head() {
        Some((head, node)) => list(memory, head, node).unwrap_or_default(),
        None => Vec::new(),
    };
    all.push(read_task(memory, layout, leader)?);
    for thread in members.into_iter().filter(|t| *t != leader) {
        all.push(read_task(memory, layout, thread)?);
    }
    Ok(())
}

/// The containers on a kernel list (`struct list_head`), the head itself left out.
pub(crate) fn list<M: GuestMemory + ?Sized>(
    memory: &M,
    head: Gva,
    member: u64,
) -> Result<Vec<Gva>, SymbolError> {
    let what = "list";
    let mut found = Vec::new();
    let mut at = head;
    loop {
        let next = memory
            .u64_at(at.0)
            .ok_or(SymbolError::Unmapped { what, gva: at.0 })?;
        at = Gva(next);
        if at == head {
            return Ok(found);
        }
        if found.len() >= MAX_TASKS {
            return Err(SymbolError::BadGuest {
                what,
                rule: "it never comes back to its head",
            });
        }
        found.push(Gva(next.wrapping_sub(member)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::LinkAddr;
    use crate::memory::SparseMemory;

    fn hooks() -> Hooks {
        let mut hooks = Hooks::default();
        hooks.data.init_task = Some(LinkAddr(0x1000));
        hooks.task = TaskLayout {
            size: Some(256),
            pid: Some(0),
            tgid: Some(4),
            state: Some(8),
            exit_state: Some(12),
            comm: Some(16),
            mm: Some(32),
            stack: Some(40),
            tasks: Some(48),
            real_parent: Some(64),
            flags: Some(72),
            signal: Some(80),
            thread_node: Some(88),
            thread_head: Some(16),
            thread_sp: Some(104),
            mm_pgd: None,
        };
        hooks
    }

    fn task(m: &mut SparseMemory, at: u64, ids: (u32, u32), state: u32, comm: &str, mm: u64) {
        m.put(at, &[0; 112]);
        m.put(at, &ids.0.to_le_bytes());
        m.put(at + 4, &ids.1.to_le_bytes());
        m.put(at + 8, &state.to_le_bytes());
        m.put(at + 16, comm.as_bytes());
        m.put_u64(at + 32, mm);
        m.put_u64(at + 64, 0x1000);
    }

    fn guest() -> SparseMemory {
        let mut m = SparseMemory::default();
        task(&mut m, 0x1000, (0, 0), 0, "swapper/0", 0);
        task(&mut m, 0x2000, (1, 1), 1, "init", 0x9000);
        task(&mut m, 0x3000, (2, 2), 0x402, "kthreadd", 0);
        task(&mut m, 0x4000, (7, 1), 2, "thread", 0x9000);
        // tasks: 1000 -> 2000 -> 3000 -> 1000
        for (from, to) in [(0x1000, 0x2000), (0x2000, 0x3000), (0x3000, 0x1000)] {
            m.put_u64(from + 48, to + 48);
        }
        // The threads of init: head in its signal_struct -> 2000 -> 4000.
        m.put_u64(0x2000 + 80, 0x5000);
        m.put_u64(0x5010, 0x2000 + 88);
        m.put_u64(0x2000 + 88, 0x4000 + 88);
        m.put_u64(0x4000 + 88, 0x5010);
        m
    }

    #[test]
    fn processes_and_threads_are_listed() {
        let tasks = read_tasks(&guest(), &hooks(), Slide::NONE).expect("tasks");
        let text: Vec<String> = tasks.iter().map(Task::to_string).collect();
        let expected = [
            "      0       0       0 R [swapper/0]",
            "      1       1       0 S init",
            "      7       1       0 D thread",
            "      2       2       0 I [kthreadd]",
        ];
        assert_eq!(text, expected);
    }

    #[test]
    fn states_have_the_letters_of_ps() {
        let letter = |state, exit| TaskState::of(state, exit).letter();
        let cases = [
            (0, 0, 'R'),
            (1, 0, 'S'),
            (2, 0, 'D'),
            (4, 0, 'T'),
            (8, 0, 't'),
        ];
        for (state, exit, expected) in cases {
            assert_eq!(letter(state, exit), expected);
        }
        assert_eq!(letter(0x80, 0x20), 'Z');
        assert_eq!(letter(0x80, 0x10), 'X');
        assert_eq!(letter(0x40, 0), 'P');
        assert_eq!(letter(0x402, 0), 'I');
    }

    #[test]
    fn a_broken_list_ends_in_a_sentence() {
        let mut m = guest();
        m.put_u64(0x3000 + 48, 0x7000_0000);
        let said = read_tasks(&m, &hooks(), Slide::NONE)
            .unwrap_err()
            .to_string();
        assert_eq!(said, "the guest's list cannot be read at 0x70000000");
        // A list that leads into a circle without the head.
        m.put_u64(0x3000 + 48, 0x3000 + 48);
        let said = read_tasks(&m, &hooks(), Slide::NONE)
            .unwrap_err()
            .to_string();
        assert_eq!(
            said,
            "the guest's list is inconsistent: it never comes back to its head"
        );
    }
}
