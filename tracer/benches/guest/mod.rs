//! A stream of events like a guest's: the mix of kinds of a Debian boot and shell.
//!
//! A deterministic guest repeats itself: a program that is run again makes the same calls from the
//! same places with nearly the same distances in ticks. Each program here is a script of events; one
//! step in twelve varies in its distance and one in twenty in an argument, pages come from a counter,
//! and timer interrupts fall in at their deadlines.

use colinux_tracer::{Comm, Event, IrqDirection, IrqSource, PageAccess, PassageReason};

const NAMES: [&[u8]; 8] = [
    b"sh",
    b"cat",
    b"init",
    b"ls",
    b"find",
    b"kworker/0:1",
    b"grep",
    b"dash",
];

/// Makes events, the same ones every time.
#[derive(Debug)]
pub(crate) struct Guest {
    random: u64,
    tick: u64,
    page: u64,
    deadline: u64,
    entered: u64,
    scripts: Vec<Vec<(u64, Event)>>,
    script: usize,
    step: usize,
    queue: Vec<(u64, Event)>,
}

impl Guest {
    /// A guest at its beginning.
    pub(crate) fn new() -> Self {
        let mut guest = Self {
            random: 0x9e37_79b9_7f4a_7c15,
            tick: 0,
            page: 0x1000,
            deadline: 4_000_000,
            entered: 0,
            scripts: Vec::new(),
            script: 0,
            step: 0,
            queue: Vec::new(),
        };
        for number in 0..NAMES.len() as u32 {
            let script = guest.write_script(number);
            guest.scripts.push(script);
        }
        guest
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit
    }

    fn write_script(&mut self, number: u32) -> Vec<(u64, Event)> {
        let pid = 100 + number;
        let mut script = vec![(
            190,
            Event::TaskSwitch {
                prev_pid: 99,
                prev_tid: 99,
                prev_state: 1,
                prev_comm: Comm::new(b"swapper/0"),
                next_pid: pid,
                next_tid: pid,
                next_comm: Comm::new(NAMES[number as usize]),
            },
        )];
        let mut heap = 0x5555_5555_0000 + u64::from(number) * 0x100_0000;
        // A program is loops: a few calls or faults from the same places, some times over.
        for _ in 0..20 + self.below(30) {
            let mut body = Vec::new();
            let rip = 0x7fff_f7d0_0000 + self.below(0x15_0000);
            for _ in 0..1 + self.below(4) {
                let nr = self.below(120) as u32;
                let buffer = 0x7fff_ffff_e000 + self.below(64) * 0x40;
                let length = [0, 1, 64, 512, 4096][self.below(5) as usize];
                let args = [self.below(8), buffer, length, 0, 0, 0];
                body.push((120 + self.below(700), Event::SyscallEnter { nr, args, rip }));
                let insns = 150 + self.below(2000);
                let ret = if self.below(12) == 0 {
                    -2
                } else {
                    length as i64
                };
                body.push((insns, Event::SyscallExit { nr, ret, insns }));
            }
            let faults = self.below(3) == 0;
            for _ in 0..1 + self.below(12) {
                if faults {
                    heap += 0x1000;
                    script.push((
                        412,
                        Event::GuestPf {
                            gva: heap,
                            gpa: 0,
                            error: 6,
                            rip,
                            cpl: 3,
                        },
                    ));
                } else {
                    script.extend(body.iter().cloned());
                }
            }
        }
        script
    }

    fn put(&mut self, after: u64, event: Event) {
        self.tick += after;
        self.queue.push((self.tick, event));
    }

    fn interrupt(&mut self, rip: u64) {
        let (direction, source) = (IrqDirection::ToGuest, IrqSource::Timer);
        let insns = self.tick - self.entered;
        self.put(
            0,
            Event::PassageLeave {
                reason: PassageReason::Deadline,
                rip,
                cpl: 3,
                insns,
            },
        );
        self.put(
            0,
            Event::IrqForward {
                direction,
                source,
                line: 0,
                vector: 0xec,
            },
        );
        self.put(
            0,
            Event::IrqDeliver {
                vector: 0xec,
                rip,
                cpl: 3,
                latency: 0,
            },
        );
        self.put(0, Event::PassageEnter { delivered: 0xec });
        self.entered = self.tick;
        self.deadline = self.tick + 4_000_000;
        self.put(
            812,
            Event::TimerProgram {
                deadline: self.deadline,
            },
        );
    }

    fn play(&mut self) {
        let script = &self.scripts[self.script];
        let Some((mut after, mut event)) = script.get(self.step).cloned() else {
            self.script = self.below(NAMES.len() as u64) as usize;
            self.step = 0;
            return;
        };
        self.step += 1;
        if self.below(12) == 0 {
            after += self.below(64);
        }
        match &mut event {
            Event::SyscallEnter { args, .. } if self.below(10) == 0 => {
                args[1] += self.below(256) * 8;
            }
            Event::SyscallExit { insns, .. } => *insns = after,
            _ => {}
        }
        let is_fault = matches!(event, Event::GuestPf { .. });
        self.put(after, event);
        if is_fault && self.below(3) == 0 {
            self.page += 1;
            let (gpfn, rip) = (self.page, 0xffff_ffff_8192_4a10);
            self.put(
                221,
                Event::PpramAlloc {
                    gpfn,
                    access: PageAccess::Write,
                    rip,
                },
            );
        }
        if self.tick >= self.deadline {
            let rip = 0x7fff_f7d0_0000 + self.below(0x15_0000);
            self.interrupt(rip);
        }
    }
}

impl Iterator for Guest {
    type Item = (u64, Event);

    fn next(&mut self) -> Option<(u64, Event)> {
        while self.queue.is_empty() {
            self.play();
            self.queue.reverse();
        }
        self.queue.pop()
    }
}
