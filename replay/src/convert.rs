//! The machine's observations as events of the trace.

use colinux_driver::mem::ppram::Toucher;
use colinux_driver::observer::{Kind, Observation, Wanted};
use colinux_driver::passage::Shutdown;
use colinux_tracer::{
    Event, EventKind, EventMask, FlushKind, IrqDirection, IrqSource, MarkOrigin, PageAccess,
    PassageReason, ShutdownKind,
};

/// Which events each kind of observation becomes.
#[rustfmt::skip]
const KINDS: &[(Kind, EventKind)] = &[
    (Kind::PassageLeave, EventKind::PassageLeave), (Kind::PassageEnter, EventKind::PassageEnter),
    (Kind::Cr3Write, EventKind::Cr3Write), (Kind::IrqForward, EventKind::IrqForward),
    (Kind::IrqDeliver, EventKind::IrqDeliver), (Kind::IrqEoi, EventKind::IrqEoi),
    (Kind::PpramAlloc, EventKind::PpramAlloc), (Kind::PpramHole, EventKind::PpramHole),
    (Kind::GuestPf, EventKind::GuestPf), (Kind::TlbFlush, EventKind::TlbFlush),
    (Kind::SyscallEnter, EventKind::SyscallEnter), (Kind::SyscallExit, EventKind::SyscallExit),
    (Kind::Pio, EventKind::Pio), (Kind::Mmio, EventKind::Mmio),
    (Kind::IoUnclaimed, EventKind::IoUnclaimed), (Kind::ConsoleOut, EventKind::ConsoleOut),
    (Kind::TimerProgram, EventKind::TimerProgram), (Kind::Exception, EventKind::Exception),
    (Kind::GuestShutdown, EventKind::GuestShutdown), (Kind::Mark, EventKind::Mark),
];

/// The observations a set of events needs.
pub fn wanted(mask: &EventMask) -> Wanted {
    KINDS
        .iter()
        .filter(|(_, event)| mask.contains(*event))
        .fold(Wanted::NONE, |set, (kind, _)| set.with(*kind))
}

/// How the machine's reasons for leaving the guest are called in the trace, by their code.
const REASONS: [PassageReason; 6] = [
    PassageReason::Idle,
    PassageReason::Terminate,
    PassageReason::Device,
    PassageReason::Deadline,
    PassageReason::IrqWindow,
    PassageReason::Quantum,
];

/// Sources of interrupts, by their number in the machine: timer, pin, IPI, APIC error.
const SOURCES: [IrqSource; 4] = [
    IrqSource::Timer,
    IrqSource::Other,
    IrqSource::SelfIpi,
    IrqSource::Other,
];

/// Line of the console on the I/O APIC.
const CONSOLE_LINE: u8 = colinux_driver::layout::SERIAL_IRQ;

fn irq_source(source: u8, line: u8) -> IrqSource {
    match SOURCES.get(usize::from(source)) {
        Some(IrqSource::Other) if source == 1 && line == CONSOLE_LINE => IrqSource::Console,
        Some(known) => *known,
        None => IrqSource::Unknown(source),
    }
}

/// Who touched a page, by number in the machine.
const ACCESSES: [(Toucher, PageAccess); 6] = [
    (Toucher::Read, PageAccess::Read),
    (Toucher::Write, PageAccess::Write),
    (Toucher::Fetch, PageAccess::Fetch),
    (Toucher::Loader, PageAccess::Loader),
    (Toucher::Walk, PageAccess::Walk),
    (Toucher::Dma, PageAccess::Dma),
];

fn page_access(access: u8) -> PageAccess {
    ACCESSES
        .iter()
        .find(|(toucher, _)| *toucher as u8 == access)
        .map_or(PageAccess::Unknown(access), |(_, name)| *name)
}

/// What each scope of a flush is called, by number.
const FLUSHES: [FlushKind; 3] = [FlushKind::Page, FlushKind::NonGlobal, FlushKind::All];

/// How the guest ended, as the trace says it: kind, and exit code where there is one.
pub fn shutdown(how: Shutdown) -> (ShutdownKind, u32) {
    match how {
        Shutdown::PowerOff => (ShutdownKind::PowerOff, 0),
        Shutdown::Reset => (ShutdownKind::Reboot, 0),
        Shutdown::DebugExit(code) => (ShutdownKind::DebugExit, code),
        Shutdown::TripleFault => (ShutdownKind::TripleFault, 0),
        Shutdown::Halt => (ShutdownKind::Halt, 0),
    }
}

/// One observation as an event. `ended` is how the guest ended, once it has.
pub fn event(what: Observation, ended: Option<Shutdown>) -> Event {
    match what {
        Observation::PassageLeave {
            reason,
            rip,
            cpl,
            insns,
        } => Event::PassageLeave {
            reason: REASONS
                .get(usize::from(reason))
                .copied()
                .unwrap_or(PassageReason::Unknown(reason)),
            rip,
            cpl,
            insns,
        },
        Observation::PassageEnter { delivered } => Event::PassageEnter { delivered },
        Observation::Cr3Write { old, new } => Event::Cr3Write { old, new },
        Observation::IrqForward {
            to_host,
            source,
            line,
            vector,
        } => Event::IrqForward {
            direction: if to_host {
                IrqDirection::ToHost
            } else {
                IrqDirection::ToGuest
            },
            source: irq_source(source, line),
            line: u32::from(line),
            vector,
        },
        Observation::IrqDeliver {
            vector,
            rip,
            cpl,
            latency,
        } => Event::IrqDeliver {
            vector,
            rip,
            cpl,
            latency,
        },
        Observation::IrqEoi { vector } => Event::IrqEoi { vector },
        Observation::PpramAlloc { gpfn, access, rip } => Event::PpramAlloc {
            gpfn,
            access: page_access(access),
            rip,
        },
        Observation::PpramHole {
            gpa,
            size,
            write,
            rip,
        } => Event::PpramHole {
            gpa,
            size,
            write,
            rip,
        },
        Observation::GuestPf {
            gva,
            gpa,
            error,
            rip,
            cpl,
        } => {
            // The architecture defines the low 16 bits of the code only.
            Event::GuestPf {
                gva,
                gpa,
                error: error as u16,
                rip,
                cpl,
            }
        }
        Observation::TlbFlush { scope, gva } => Event::TlbFlush {
            kind: FLUSHES
                .get(usize::from(scope))
                .copied()
                .unwrap_or(FlushKind::Unknown(scope)),
            gva,
        },
        Observation::SyscallEnter { nr, args, rip } => Event::SyscallEnter {
            nr: nr as u32,
            args,
            rip,
        },
        Observation::SyscallExit { nr, ret, insns } => Event::SyscallExit {
            nr: nr as u32,
            ret: ret as i64,
            insns,
        },
        Observation::Pio {
            write,
            port,
            size,
            value,
            rip,
        } => Event::Pio {
            write,
            addr: u64::from(port),
            size,
            value: u64::from(value),
            rip,
        },
        Observation::Mmio {
            write,
            gpa,
            size,
            value,
            rip,
        } => Event::Mmio {
            write,
            addr: gpa,
            size,
            value,
            rip,
        },
        Observation::IoUnclaimed {
            port,
            size,
            write,
            value,
            rip,
        } => Event::IoUnclaimed {
            addr: u64::from(port),
            mmio: false,
            size,
            write,
            value: u64::from(value),
            rip,
        },
        Observation::ConsoleOut { port, bytes } => Event::ConsoleOut { port, bytes },
        Observation::TimerProgram { deadline } => Event::TimerProgram { deadline },
        Observation::Exception {
            vector,
            error,
            rip,
            cpl,
        } => Event::Exception {
            vector,
            error,
            rip,
            cpl,
        },
        Observation::GuestShutdown { .. } => {
            let (kind, code) = ended.map(shutdown).unwrap_or_default();
            Event::GuestShutdown { kind, code }
        }
        Observation::Mark { text } => Event::Mark {
            origin: MarkOrigin::Guest,
            text,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_observation_has_an_event() {
        for kind in Kind::ALL {
            assert!(KINDS.iter().any(|(k, _)| k == kind), "{kind:?}");
        }
    }
}
