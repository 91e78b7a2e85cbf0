//! Events as people read them.

use colinux_tracer::{Event, EventKind, Facility, IrqDirection};
use serde_json::Value;

use crate::names::Names;
use crate::syscalls;
use crate::theme::Role;

/// What a facility's events are drawn as.
pub fn role(kind: EventKind) -> Role {
    match kind {
        EventKind::Oops | EventKind::Panic | EventKind::PpramHole | EventKind::Lost => Role::Alarm,
        EventKind::Mark => Role::Mark,
        _ => facility_role(kind.facility()),
    }
}

/// What a facility is drawn as.
pub const fn facility_role(facility: Facility) -> Role {
    match facility {
        Facility::Passage => Role::Passage,
        Facility::Task => Role::Task,
        Facility::Irq | Facility::Timer => Role::Irq,
        Facility::Ppram => Role::Memory,
        Facility::Syscall => Role::Syscall,
        Facility::Device | Facility::Console | Facility::Blockdev | Facility::Network => {
            Role::Device
        }
        Facility::Kernel => Role::Kernel,
        Facility::User => Role::Mark,
        Facility::Meta | Facility::Input => Role::Dim,
    }
}

/// A number of errors the kernel has, by name (include/uapi/asm-generic/errno-base.h and errno.h).
const ERRNO: &[(i64, &str)] = &[
    (1, "EPERM"),
    (2, "ENOENT"),
    (3, "ESRCH"),
    (4, "EINTR"),
    (5, "EIO"),
    (6, "ENXIO"),
    (7, "E2BIG"),
    (9, "EBADF"),
    (10, "ECHILD"),
    (11, "EAGAIN"),
    (12, "ENOMEM"),
    (13, "EACCES"),
    (14, "EFAULT"),
    (16, "EBUSY"),
    (17, "EEXIST"),
    (19, "ENODEV"),
    (20, "ENOTDIR"),
    (21, "EISDIR"),
    (22, "EINVAL"),
    (24, "EMFILE"),
    (25, "ENOTTY"),
    (28, "ENOSPC"),
    (29, "ESPIPE"),
    (32, "EPIPE"),
    (34, "ERANGE"),
    (38, "ENOSYS"),
    (95, "EOPNOTSUPP"),
    (110, "ETIMEDOUT"),
    (512, "ERESTARTSYS"),
];

/// Exceptions by vector (SDM vol. 3, table 6-1).
const EXCEPTIONS: [&str; 20] = [
    "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "", "#TS", "#NP", "#SS", "#GP",
    "#PF", "", "#MF", "#AC", "#MC", "#XM",
];

fn syscall(number: u32) -> String {
    syscalls::name(number).map_or_else(|| format!("syscall {number}"), str::to_owned)
}

fn result(ret: i64) -> String {
    match ret {
        -4095..=-1 => match ERRNO.iter().find(|(n, _)| *n == -ret) {
            Some((_, name)) => format!("-{name}"),
            None => ret.to_string(),
        },
        0..=0xffff => ret.to_string(),
        _ => format!("{ret:#x}"),
    }
}

fn ring(cpl: u8) -> &'static str {
    if cpl == 3 { "user" } else { "kernel" }
}

/// What an event says, in one line, with names for addresses.
pub fn details(event: &Event, names: &Names) -> String {
    let at = |rip: &u64| names.place(*rip);
    match event {
        Event::PassageLeave {
            reason, rip, insns, ..
        } => format!("{reason} at {} after {insns}", at(rip)),
        Event::PassageEnter { delivered: 0 } => String::new(),
        Event::PassageEnter { delivered } => format!("delivering {delivered:#04x}"),
        Event::TaskSwitch {
            prev_tid,
            prev_state,
            prev_comm,
            next_tid,
            next_comm,
            ..
        } => {
            let state = match prev_state {
                0 => "R",
                1 => "S",
                2 => "D",
                0x10 | 0x20 | 0x80 => "X",
                _ => "-",
            };
            format!("{prev_comm}-{prev_tid} {state} => {next_comm}-{next_tid}")
        }
        Event::TaskNew {
            tid, parent, comm, ..
        } => format!("{comm}-{tid}, child of {parent}"),
        Event::TaskExec {
            tid, comm, path, ..
        } => format!("{comm}-{tid} runs {path}"),
        Event::TaskExit {
            tid, code, comm, ..
        } => match (code >> 8 & 0xff, code & 0x7f) {
            (status, 0) => format!("{comm}-{tid} exits with {status}"),
            (_, signal) => format!("{comm}-{tid} killed by signal {signal}"),
        },
        Event::IrqForward {
            direction,
            source,
            line,
            vector,
        } => {
            let way = match direction {
                IrqDirection::ToGuest => "to the guest",
                IrqDirection::ToHost => "to the host",
                IrqDirection::Unknown(_) => "somewhere",
            };
            format!("{source} {way}, line {line}, vector {vector:#04x}")
        }
        Event::IrqDeliver {
            vector,
            rip,
            cpl,
            latency,
        } => format!(
            "vector {vector:#04x} at {} ({}), {latency} ticks late",
            at(rip),
            ring(*cpl)
        ),
        Event::IrqEoi { vector } => format!("vector {vector:#04x}"),
        Event::PpramAlloc { gpfn, access, rip } => {
            format!("page {gpfn:#x}, {access} by {}", at(rip))
        }
        Event::PpramHole {
            gpa,
            size,
            write,
            rip,
        } => {
            let what = if *write { "write" } else { "read" };
            format!("{what} of {size} at {gpa:#x} by {}", at(rip))
        }
        Event::GuestPf {
            gva,
            error,
            rip,
            cpl,
            ..
        } => {
            // SDM vol. 3, figure 4-12.
            let what = match error & 0x12 {
                0 => "read",
                2 => "write",
                _ => "fetch",
            };
            let why = if error & 1 == 0 {
                "absent"
            } else {
                "forbidden"
            };
            format!("{gva:#x} {what}, {why}, by {} ({})", at(rip), ring(*cpl))
        }
        Event::Exception {
            vector,
            error,
            rip,
            cpl,
        } => {
            let name = EXCEPTIONS.get(usize::from(*vector)).copied().unwrap_or("");
            format!(
                "{name} ({vector}) error {error:#x} at {} ({})",
                at(rip),
                ring(*cpl)
            )
        }
        Event::SyscallEnter { nr, args, .. } => {
            // How many arguments there are is not known; trailing zeroes are most likely none.
            let count = args.iter().rposition(|a| *a != 0).map_or(0, |n| n + 1);
            let args: Vec<String> = args[..count]
                .iter()
                .map(|a| {
                    if *a < 10 {
                        a.to_string()
                    } else {
                        format!("{a:#x}")
                    }
                })
                .collect();
            format!("{}({})", syscall(*nr), args.join(", "))
        }
        Event::SyscallExit { nr, ret, insns } => {
            format!("{} = {}, {insns} ticks", syscall(*nr), result(*ret))
        }
        Event::IoUnclaimed {
            addr,
            mmio,
            size,
            write,
            value,
            rip,
        } => {
            let what = if *write { "write" } else { "read" };
            let space = if *mmio { "address" } else { "port" };
            format!(
                "{what} of {size} at {space} {addr:#x}: {value:#x}, by {}",
                at(rip)
            )
        }
        Event::ConsoleOut { bytes, .. } => format!("{:?}", String::from_utf8_lossy(bytes)),
        Event::KernelLog { text, .. } => text.clone(),
        Event::TimerProgram { deadline: 0 } => "off".to_owned(),
        Event::TimerProgram { deadline } => format!("for {}", crate::text::seconds(*deadline)),
        Event::ModuleLoad {
            name, base, size, ..
        } => format!("{name}, {size} bytes at {base:#x}"),
        Event::ModuleUnload { name, base } => format!("{name} at {base:#x}"),
        Event::Oops {
            rip,
            tid,
            comm,
            text,
            ..
        } => format!("{text} at {} in {comm}-{tid}", at(rip)),
        Event::Panic {
            tid, comm, text, ..
        } => format!("{text} in {comm}-{tid}"),
        Event::GuestShutdown { kind, code } => format!("{kind}, code {code}"),
        Event::Mark { text, origin } => format!("{text} ({origin})"),
        Event::DigestPoint { digest } => digest.to_string(),
        Event::Lost { count, first, last } => {
            format!("{count} events were let go between @{first} and @{last}")
        }
        other => generic(other, names),
    }
}

/// The fields of an event by name, as the file has them.
pub fn fields(event: &Event) -> Vec<(String, Value)> {
    let fields = match serde_json::to_value(event) {
        Ok(Value::Object(map)) => map.into_iter().next().map(|(_, fields)| fields),
        _ => None,
    };
    match fields {
        Some(Value::Object(fields)) => fields.into_iter().collect(),
        _ => Vec::new(),
    }
}

/// Kinds that have no words of their own: their fields.
fn generic(event: &Event, names: &Names) -> String {
    let shown = |(name, value): (String, Value)| match value.as_u64() {
        Some(n) if name == "rip" => format!("{name}={}", names.place(n)),
        Some(n) if n > 0xffff => format!("{name}={n:#x}"),
        _ => match value {
            Value::String(text) => format!("{name}={text}"),
            other => format!("{name}={other}"),
        },
    };
    let all: Vec<String> = fields(event).into_iter().map(shown).collect();
    all.join(" ")
}

#[cfg(test)]
mod tests {
    use colinux_tracer::Comm;

    use super::*;

    #[test]
    fn events_read_as_sentences() {
        let names = Names::default();
        let comm = |name: &str| Comm::new(name.as_bytes());
        for (event, expected) in [
            (
                Event::SyscallEnter {
                    nr: 257,
                    args: [0xffff_ff9c, 0x7ffc, 0, 0, 0, 0],
                    rip: 1,
                },
                "openat(0xffffff9c, 0x7ffc)",
            ),
            (
                Event::SyscallExit {
                    nr: 257,
                    ret: -2,
                    insns: 77,
                },
                "openat = -ENOENT, 77 ticks",
            ),
            (
                Event::GuestPf {
                    gva: 0x5000,
                    gpa: 0,
                    error: 6,
                    rip: 0x401000,
                    cpl: 3,
                },
                "0x5000 write, absent, by 0x401000 (user)",
            ),
            (
                Event::TaskExit {
                    pid: 5,
                    tid: 5,
                    code: 0x100,
                    comm: comm("sh"),
                },
                "sh-5 exits with 1",
            ),
            (
                Event::TaskExit {
                    pid: 5,
                    tid: 5,
                    code: 11,
                    comm: comm("sh"),
                },
                "sh-5 killed by signal 11",
            ),
            (
                Event::Exception {
                    vector: 13,
                    error: 0,
                    rip: 0x401000,
                    cpl: 3,
                },
                "#GP (13) error 0x0 at 0x401000 (user)",
            ),
            (
                Event::VqKick {
                    dev: 1,
                    queue: 0,
                    avail: 3,
                },
                "avail=3 dev=1 queue=0",
            ),
        ] {
            assert_eq!(details(&event, &names), expected);
        }
    }
}
