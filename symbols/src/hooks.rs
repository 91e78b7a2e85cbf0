//! The places in a kernel at which a tracer can watch tasks, modules and the log.
//!
//! Everything is optional: a kernel lacks one thing or another by version and configuration, and
//! whoever sets hooks needs to know what is missing, by name, to say which events are off.

use crate::addr::{LinkAddr, Slide};
use crate::btf::{Btf, Kind};
use crate::kallsyms::Kallsyms;

/// Entry addresses of functions, with the arguments that matter (System V order: RDI, RSI …).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HookFunctions {
    /// `__switch_to_asm(prev, next)`: two `task_struct` pointers.
    pub task_switch: Option<LinkAddr>,
    /// `wake_up_new_task(task)`: a task is about to run for the first time.
    pub task_new: Option<LinkAddr>,
    /// `begin_new_exec(bprm)`: the point of no return of an exec.
    pub exec_begin: Option<LinkAddr>,
    /// `setup_new_exec(bprm)`: the current task has its new name and address space.
    pub exec_done: Option<LinkAddr>,
    /// `do_exit(code)`: the current task ends.
    pub task_exit: Option<LinkAddr>,
    /// `vprintk_store(facility, level, dev_info, fmt, args)`.
    pub log_store: Option<LinkAddr>,
    /// `prb_final_commit(entry)`: a log record is complete; see [`LogLayout::entry_id`].
    pub log_final_commit: Option<LinkAddr>,
    /// `prb_commit(entry)`: a log record may still be continued.
    pub log_commit: Option<LinkAddr>,
    /// `do_init_module(module)`: loaded, about to run its init function.
    pub module_load: Option<LinkAddr>,
    /// `free_module(module)`.
    pub module_free: Option<LinkAddr>,
    /// `oops_enter()`: also reached by a WARN.
    pub oops_enter: Option<LinkAddr>,
    /// `__die(str, regs, err)`: a fatal exception in the kernel.
    pub die: Option<LinkAddr>,
    /// `panic(fmt, …)`.
    pub panic: Option<LinkAddr>,
    /// `entry_SYSCALL_64`, which the kernel writes to IA32_LSTAR: its run-time address minus this
    /// is the slide.
    pub syscall_entry: Option<LinkAddr>,
}

/// Addresses of kernel variables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HookData {
    /// `init_task`, the idle task of CPU 0 and head of the task list.
    pub init_task: Option<LinkAddr>,
    /// `prb`, the pointer to the log's ring.
    pub log_ring: Option<LinkAddr>,
    /// `modules`, the head of the module list.
    pub modules: Option<LinkAddr>,
    /// `__per_cpu_offset`, the array of the per-CPU areas' bases.
    pub per_cpu_offset: Option<LinkAddr>,
    /// `linux_banner`, the version string.
    pub banner: Option<LinkAddr>,
    /// Offset of the current task's pointer in the per-CPU area (`current_task`, or
    /// `pcpu_hot.current_task` from 6.2 to 6.14): at GS base + this.
    pub current_task: Option<u64>,
}

/// Byte offsets in `task_struct` and what it leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskLayout {
    /// Size of `task_struct`.
    pub size: Option<u64>,
    /// `pid`: the thread's number.
    pub pid: Option<u64>,
    /// `tgid`: the process's number.
    pub tgid: Option<u64>,
    /// `comm`: 16 bytes.
    pub comm: Option<u64>,
    /// `mm`: null for kernel threads.
    pub mm: Option<u64>,
    /// `stack`: the lowest address of the kernel stack.
    pub stack: Option<u64>,
    /// `tasks`: the list of processes.
    pub tasks: Option<u64>,
    /// `real_parent`.
    pub real_parent: Option<u64>,
    /// `__state`.
    pub state: Option<u64>,
    /// `exit_state`.
    pub exit_state: Option<u64>,
    /// `flags`: `PF_*`.
    pub flags: Option<u64>,
    /// `signal`: what the threads of a process share.
    pub signal: Option<u64>,
    /// `thread_node`: the list of threads of a process.
    pub thread_node: Option<u64>,
    /// `signal_struct.thread_head`.
    pub thread_head: Option<u64>,
    /// `thread.sp`: the stack pointer of a task that does not run.
    pub thread_sp: Option<u64>,
    /// `mm_struct.pgd`.
    pub mm_pgd: Option<u64>,
}

/// Byte offsets in the log's ring; see `kernel/printk/printk_ringbuffer.c`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogLayout {
    /// `prb_reserved_entry.id`, in the entry given to the commit functions.
    pub entry_id: Option<u64>,
    /// `printk_ringbuffer.desc_ring.count_bits`.
    pub count_bits: Option<u64>,
    /// `printk_ringbuffer.desc_ring.descs`.
    pub descs: Option<u64>,
    /// `printk_ringbuffer.desc_ring.infos`.
    pub infos: Option<u64>,
    /// `printk_ringbuffer.desc_ring.head_id`.
    pub head_id: Option<u64>,
    /// `printk_ringbuffer.desc_ring.tail_id`.
    pub tail_id: Option<u64>,
    /// `printk_ringbuffer.text_data_ring.size_bits`.
    pub text_size_bits: Option<u64>,
    /// `printk_ringbuffer.text_data_ring.data`.
    pub text_data: Option<u64>,
    /// Size of `prb_desc`.
    pub desc_size: Option<u64>,
    /// `prb_desc.state_var`.
    pub desc_state: Option<u64>,
    /// `prb_desc.text_blk_lpos.begin`.
    pub desc_begin: Option<u64>,
    /// `prb_desc.text_blk_lpos.next`.
    pub desc_next: Option<u64>,
    /// Size of `printk_info`.
    pub info_size: Option<u64>,
    /// `printk_info.seq`.
    pub info_seq: Option<u64>,
    /// `printk_info.ts_nsec`.
    pub info_time: Option<u64>,
    /// `printk_info.text_len`.
    pub info_text_len: Option<u64>,
    /// `printk_info.facility`; the byte behind it holds flags and level.
    pub info_facility: Option<u64>,
    /// `printk_info.caller_id`.
    pub info_caller: Option<u64>,
}

/// All that hooks need of one kernel build.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Functions.
    pub functions: HookFunctions,
    /// Variables.
    pub data: HookData,
    /// The task structure.
    pub task: TaskLayout,
    /// The log's ring.
    pub log: LogLayout,
    /// Byte offset of `module.name`.
    pub module_name: Option<u64>,
    /// Byte offset of `linux_binprm.filename`, a pointer to the path being executed.
    pub exec_filename: Option<u64>,
    /// What this kernel does not have, as C would name it.
    pub missing: Vec<String>,
}

/// Collects what is found and remembers what is not.
struct Finder<'f> {
    names: &'f Kallsyms,
    btf: Option<&'f Btf>,
    missing: Vec<String>,
}

impl Finder<'_> {
    fn note<T>(&mut self, what: &str, found: Option<T>) -> Option<T> {
        if found.is_none() {
            self.missing.push(what.to_owned());
        }
        found
    }

    /// A function or variable of the kernel, under the first of several names.
    fn symbol(&mut self, names: &[&str]) -> Option<LinkAddr> {
        let found = names.iter().find_map(|name| self.names.address_of(name));
        self.note(names.first().copied().unwrap_or_default(), found)
    }

    fn function(&mut self, name: &str) -> Option<LinkAddr> {
        let found = self.names.named(name).find(|e| e.is_text()).map(|e| e.addr);
        self.note(name, found)
    }

    /// Offset of a member, under the first of several paths.
    fn offset(&mut self, container: &str, paths: &[&str]) -> Option<u64> {
        let btf = self.btf;
        let found = paths
            .iter()
            .find_map(|path| Some(btf?.member(container, path).ok()?.offset()));
        let path = paths.first().copied().unwrap_or_default();
        self.note(&format!("{container}.{path}"), found)
    }

    fn size(&mut self, container: &str) -> Option<u64> {
        let found = self
            .btf
            .and_then(|b| b.size_of(b.find(Kind::Struct, container)?));
        self.note(&format!("sizeof(struct {container})"), found)
    }
}

impl Hooks {
    /// Looks everything up; without types only the addresses are found.
    pub fn find(names: &Kallsyms, btf: Option<&Btf>) -> Self {
        let mut f = Finder {
            names,
            btf,
            missing: Vec::new(),
        };
        let functions = HookFunctions {
            task_switch: f.function("__switch_to_asm"),
            task_new: f.function("wake_up_new_task"),
            exec_begin: f.function("begin_new_exec"),
            exec_done: f.function("setup_new_exec"),
            task_exit: f.function("do_exit"),
            log_store: f.function("vprintk_store"),
            log_final_commit: f.function("prb_final_commit"),
            log_commit: f.function("prb_commit"),
            module_load: f.function("do_init_module"),
            module_free: f.function("free_module"),
            oops_enter: f.function("oops_enter"),
            die: f.function("__die"),
            panic: f.function("panic"),
            syscall_entry: f.function("entry_SYSCALL_64"),
        };
        let data = HookData {
            init_task: f.symbol(&["init_task"]),
            log_ring: f.symbol(&["prb"]),
            modules: f.symbol(&["modules"]),
            per_cpu_offset: f.symbol(&["__per_cpu_offset"]),
            banner: f.symbol(&["linux_banner"]),
            current_task: f.current_task(),
        };
        let (task, log) = (f.task_layout(), f.log_layout());
        let module_name = f.offset("module", &["name"]);
        let exec_filename = f.offset("linux_binprm", &["filename"]);
        let missing = f.missing;
        Self {
            functions,
            data,
            task,
            log,
            module_name,
            exec_filename,
            missing,
        }
    }

    /// The run-time slide, from the value the kernel wrote to IA32_LSTAR.
    pub fn slide_from_lstar(&self, lstar: crate::addr::Gva) -> Option<Slide> {
        let slide = Slide::between(self.functions.syscall_entry?, lstar);
        // KASLR moves by multiples of CONFIG_PHYSICAL_ALIGN (2 MiB) inside 1 GiB; anything else
        // is another entry (a compatibility or hypervisor one) or another kernel.
        (slide.0 < 1 << 30 && slide.0.is_multiple_of(2 << 20)).then_some(slide)
    }
}

impl Finder<'_> {
    fn current_task(&mut self) -> Option<u64> {
        // Per-CPU symbols are offsets in the per-CPU area.
        let direct = self.names.address_of("current_task").map(|a| a.0);
        let in_hot = || {
            let hot = self.names.address_of("pcpu_hot")?;
            Some(
                hot.plus(self.btf?.member("pcpu_hot", "current_task").ok()?.offset())
                    .0,
            )
        };
        let found = direct.or_else(in_hot);
        self.note("current_task", found)
    }

    fn task_layout(&mut self) -> TaskLayout {
        let mut at = |paths: &[&str]| self.offset("task_struct", paths);
        TaskLayout {
            pid: at(&["pid"]),
            tgid: at(&["tgid"]),
            comm: at(&["comm"]),
            mm: at(&["mm"]),
            stack: at(&["stack"]),
            tasks: at(&["tasks"]),
            real_parent: at(&["real_parent"]),
            state: at(&["__state", "state"]),
            exit_state: at(&["exit_state"]),
            flags: at(&["flags"]),
            signal: at(&["signal"]),
            thread_node: at(&["thread_node"]),
            thread_sp: at(&["thread.sp"]),
            size: self.size("task_struct"),
            thread_head: self.offset("signal_struct", &["thread_head"]),
            mm_pgd: self.offset("mm_struct", &["pgd"]),
        }
    }

    fn log_layout(&mut self) -> LogLayout {
        let mut at = |path: &str| self.offset("printk_ringbuffer", &[path]);
        LogLayout {
            count_bits: at("desc_ring.count_bits"),
            descs: at("desc_ring.descs"),
            infos: at("desc_ring.infos"),
            head_id: at("desc_ring.head_id"),
            tail_id: at("desc_ring.tail_id"),
            text_size_bits: at("text_data_ring.size_bits"),
            text_data: at("text_data_ring.data"),
            entry_id: self.offset("prb_reserved_entry", &["id"]),
            desc_size: self.size("prb_desc"),
            desc_state: self.offset("prb_desc", &["state_var"]),
            desc_begin: self.offset("prb_desc", &["text_blk_lpos.begin"]),
            desc_next: self.offset("prb_desc", &["text_blk_lpos.next"]),
            info_size: self.size("printk_info"),
            info_seq: self.offset("printk_info", &["seq"]),
            info_time: self.offset("printk_info", &["ts_nsec"]),
            info_text_len: self.offset("printk_info", &["text_len"]),
            info_facility: self.offset("printk_info", &["facility"]),
            info_caller: self.offset("printk_info", &["caller_id"]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::Gva;
    use crate::btf::synthetic::Builder;
    use crate::kallsyms::synthetic::{BASE, Order, build, place};

    fn names() -> Kallsyms {
        let filler: Vec<String> = (0..400).map(|i| format!("filler_{i}")).collect();
        let mut all = vec![(0x35000, b'D', "pcpu_hot")];
        all.extend(
            filler
                .iter()
                .enumerate()
                .map(|(i, n)| (BASE + i as u64, b'T', n.as_str())),
        );
        all.push((BASE + 0x1000, b'T', "__switch_to_asm"));
        // A variable of a function's name is no hook.
        all.push((BASE + 0x1800, b'd', "panic"));
        all.push((BASE + 0x2000, b'T', "panic"));
        all.push((BASE + 0x3000, b'T', "entry_SYSCALL_64"));
        all.push((BASE + 0x4000, b'D', "init_task"));
        Kallsyms::from_placed(&build(Order::OffsetsLast, &all), place).expect("table")
    }

    #[test]
    fn what_is_there_is_found_and_the_rest_is_named() {
        let mut b = Builder::new();
        let int = b.int("int", 4, 1);
        b.composite(
            4,
            "task_struct",
            64,
            &[("pid", int, 96, 0), ("state", int, 32, 0)],
        );
        b.composite(4, "pcpu_hot", 64, &[("current_task", int, 128, 0)]);
        let btf = Btf::parse(&b.finish()).expect("btf");
        let hooks = Hooks::find(&names(), Some(&btf));
        assert_eq!(hooks.functions.task_switch, Some(LinkAddr(BASE + 0x1000)));
        assert_eq!(hooks.functions.panic, Some(LinkAddr(BASE + 0x2000)));
        assert_eq!(hooks.data.current_task, Some(0x35010));
        let task = hooks.task;
        assert_eq!(
            (task.pid, task.state, task.size),
            (Some(12), Some(4), Some(64))
        );
        assert_eq!(task.comm, None);
        for name in [
            "do_exit",
            "prb",
            "task_struct.comm",
            "sizeof(struct prb_desc)",
        ] {
            assert!(
                hooks.missing.iter().any(|m| m == name),
                "{name}: {:?}",
                hooks.missing
            );
        }
        assert!(
            !hooks
                .missing
                .iter()
                .any(|m| m.contains("state") && m.contains("task_struct.__"))
        );
    }

    #[test]
    fn the_slide_follows_from_lstar() {
        let hooks = Hooks::find(&names(), None);
        let entry = BASE + 0x3000;
        assert_eq!(hooks.slide_from_lstar(Gva(entry)), Some(Slide::NONE));
        assert_eq!(
            hooks.slide_from_lstar(Gva(entry + 0x2180_0000)),
            Some(Slide(0x2180_0000))
        );
        assert_eq!(hooks.slide_from_lstar(Gva(entry + 0x1000)), None);
        assert_eq!(hooks.slide_from_lstar(Gva(entry - 0x20_0000)), None);
    }
}
