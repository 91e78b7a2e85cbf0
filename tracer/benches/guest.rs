//! A stream of events like a guest's: the mix of kinds of a Debian boot and shell, few code
//! addresses met again and again, data addresses that walk, distances in ticks that vary.

use colinux_tracer::{
    Comm, Event, IrqDirection, IrqSource, PageAccess, PassageReason,
};

/// Makes events, the same ones every time.
#[derive(Debug)]
pub struct Guest {
    random: u64,
    tick: u64,
    heap: u64,
    page: u64,
    /// System calls of each program: numbers and return addresses.
    programs: Vec<Vec<(u32, u64)>>,
    program: usize,
    step: usize,
    entered: u64,
    queue: Vec<(u64, Event)>,
}

impl Guest {
    /// A guest at its beginning.
    pub fn new() -> Self {
        let mut guest = Self {
            random: 0x9e37_79b9_7f4a_7c15,
            tick: 0,
            heap: 0x5555_5555_0000,
            page: 0x1000,
            programs: Vec::new(),
            program: 0,
            step: 0,
            entered: 0,
            queue: Vec::new(),
        };
        for _ in 0..6 {
            let calls = 5 + guest.below(60);
            let program = (0..calls)
                .map(|_| (guest.below(120) as u32, 0x7fff_f7d0_0000 + guest.below(0x15_0000)))
                .collect();
            guest.programs.push(program);
        }
        guest
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit
    }

    fn put(&mut self, after: u64, event: Event) {
        self.tick += after;
        self.queue.push((self.tick, event));
    }

    fn interrupt(&mut self, rip: u64) {
        let insns = self.tick - self.entered;
        self.put(0, Event::PassageLeave { reason: PassageReason::Deadline, rip, cpl: 3, insns });
        self.put(0, Event::IrqForward {
            direction: IrqDirection::ToGuest,
            source: IrqSource::Timer,
            line: 0,
            vector: 0xec,
        });
        self.put(0, Event::IrqDeliver { vector: 0xec, rip, cpl: 3, latency: 0 });
        self.put(0, Event::PassageEnter { delivered: 0xec });
        self.entered = self.tick;
        let deadline = self.tick + 4_000_000;
        self.put(812, Event::TimerProgram { deadline });
    }

    fn fault(&mut self) {
        let rip = 0x7fff_f7d0_0000 + self.below(16) * 0x1237;
        self.heap += 0x1000;
        let after = 300 + self.below(900);
        self.put(after, Event::GuestPf { gva: self.heap, gpa: 0, error: 6, rip, cpl: 3 });
        if self.below(3) == 0 {
            self.page += 1;
            let rip = 0xffff_ffff_8192_4a10;
            self.put(221, Event::PpramAlloc { gpfn: self.page, access: PageAccess::Write, rip });
        }
    }

    fn switch(&mut self) {
        let next = self.below(6) as u32;
        let prev = self.program as u32;
        self.put(190, Event::TaskSwitch {
            prev_pid: 100 + prev,
            prev_tid: 100 + prev,
            prev_state: 1,
            next_pid: 100 + next,
            next_tid: 100 + next,
            next_comm: Comm::new([&b"sh"[..], b"cat", b"init", b"ls", b"find", b"kworker/0:1"]
                [next as usize]),
        });
        self.program = next as usize;
    }

    fn call(&mut self) {
        let program = &self.programs[self.program];
        let (nr, rip) = program[self.step % program.len()];
        self.step += 1;
        let after = 120 + self.below(700);
        let buffer = 0x7fff_ffff_e000 + self.below(8) * 0x40;
        let length = [0, 1, 64, 512, 4096][self.below(5) as usize];
        let args = [self.below(8), buffer, length, 0, 0, 0];
        self.put(after, Event::SyscallEnter { nr, args, rip });
        let insns = 150 + u64::from(nr) * 7 + self.below(60);
        let failed = self.below(12) == 0;
        let ret = if failed { -2 } else { length as i64 };
        self.put(insns, Event::SyscallExit { nr, ret, insns });
    }
}

impl Iterator for Guest {
    type Item = (u64, Event);

    fn next(&mut self) -> Option<(u64, Event)> {
        while self.queue.is_empty() {
            match self.below(40) {
                0 => self.interrupt(0x7fff_f7d8_1234),
                1..=2 => self.switch(),
                3..=14 => self.fault(),
                _ => self.call(),
            }
            self.queue.reverse();
        }
        self.queue.pop()
    }
}
