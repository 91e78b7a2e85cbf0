//! Runs cases on the machine.

use colinux_driver::cpu::state::{X87, seg};
use colinux_driver::x86::harness::{self, Bench, Rights};

use super::layout::{
    CODE, CODE_BYTES, DATA, DATA_BYTES, FS_BASE, GS_BASE, INT3, PAGE, READ_ONLY, fill_read_only,
};
use super::state::{
    Case, End, FX_CONTROL, FX_MXCSR, FX_ST, FX_STATUS, FX_TAGS, FX_XMM, Outcome, Registers,
};

/// A machine with the pages of the layout.
pub(crate) struct Guest {
    bench: Bench,
    privilege: u8,
    /// The code now in memory, and where.
    code: (u64, Vec<u8>),
}

impl Guest {
    pub(crate) fn new() -> Self {
        let mut bench = Bench::new();
        let code = Rights {
            write: false,
            execute: true,
        };
        let data = Rights {
            write: true,
            execute: false,
        };
        for page in 0..CODE_BYTES as u64 / PAGE {
            assert!(bench.map(CODE + page * PAGE, code));
        }
        for page in 0..DATA_BYTES as u64 / PAGE {
            assert!(bench.map(DATA + page * PAGE, data));
        }
        assert!(bench.map(READ_ONLY, Rights::default()));
        let mut page = [0; PAGE as usize];
        fill_read_only(&mut page);
        assert!(bench.write(READ_ONLY, &page));
        assert!(bench.write(CODE, &[INT3; CODE_BYTES]));
        Guest {
            bench,
            privilege: 3,
            code: (CODE, Vec::new()),
        }
    }

    /// The privilege, 0 or 3, at which cases run from now on.
    pub(crate) fn set_privilege(&mut self, cpl: u8) {
        self.privilege = cpl;
    }

    /// Runs one case.
    pub(crate) fn run(&mut self, case: &Case) -> End {
        let bench = &mut self.bench;
        let code = &case.code[..case.code_len as usize];
        let rip = case.registers.rip;
        if self.code.0 != rip || self.code.1 != code {
            assert!(bench.write(self.code.0, &vec![INT3; self.code.1.len()]));
            assert!(bench.write(rip, code));
            self.code = (rip, code.to_vec());
        }
        assert!(bench.write(DATA, &case.memory));
        bench.reset();
        bench.set_privilege(self.privilege);
        set_registers(bench, &case.registers);
        let outcome = match bench.step() {
            harness::Outcome::Done => Outcome::Done,
            harness::Outcome::Fault(fault) => Outcome::Fault(
                u64::from(fault.vector),
                u64::from(fault.error.unwrap_or(0)),
                fault.address,
            ),
            harness::Outcome::Interrupt(vector) => Outcome::Fault(u64::from(vector), 0, 0),
            harness::Outcome::Unsupported(_) => Outcome::Unsupported,
        };
        let mut memory = Box::new([0; DATA_BYTES]);
        assert!(bench.read(DATA, memory.as_mut_slice()));
        End {
            registers: registers(bench),
            outcome,
            memory,
        }
    }
}

fn set_registers(bench: &mut Bench, r: &Registers) {
    let cpu = bench.cpu_mut();
    cpu.regs[..16].copy_from_slice(&r.gpr);
    cpu.rip = r.rip;
    cpu.set_rflags(r.rflags);
    cpu.segs[seg::DS].selector = r.ds as u16;
    cpu.segs[seg::ES].selector = r.es as u16;
    cpu.segs[seg::FS].base = FS_BASE;
    cpu.segs[seg::GS].base = GS_BASE;
    for (i, xmm) in cpu.xmm.iter_mut().enumerate() {
        *xmm = r.xmm(i);
    }
    cpu.mxcsr = r.mxcsr();
    cpu.x87 = X87 {
        control: r.word(FX_CONTROL),
        status: r.word(FX_STATUS),
        tags: r.fx[FX_TAGS],
        ..X87::default()
    };
    let top = usize::from(r.word(FX_STATUS) >> 11 & 7);
    for i in 0..8 {
        cpu.x87.regs[(top + i) % 8] = r.st(i);
    }
}

fn registers(bench: &Bench) -> Registers {
    let cpu = bench.cpu();
    let mut r = Registers::new();
    r.gpr.copy_from_slice(&cpu.regs[..16]);
    r.rip = cpu.rip;
    r.rflags = cpu.rflags();
    r.ds = u64::from(cpu.segs[seg::DS].selector);
    r.es = u64::from(cpu.segs[seg::ES].selector);
    for (i, [low, high]) in cpu.xmm.iter().enumerate() {
        r.put(FX_XMM + 16 * i, &low.to_le_bytes());
        r.put(FX_XMM + 16 * i + 8, &high.to_le_bytes());
    }
    r.put(FX_MXCSR, &cpu.mxcsr.to_le_bytes());
    r.put(FX_CONTROL, &cpu.x87.control.to_le_bytes());
    r.put(FX_STATUS, &cpu.x87.status.to_le_bytes());
    r.put(FX_TAGS, &[cpu.x87.tags]);
    let top = usize::from(cpu.x87.status >> 11 & 7);
    for i in 0..8 {
        let (significand, high) = cpu.x87.regs[(top + i) % 8];
        r.put(FX_ST + 16 * i, &significand.to_le_bytes());
        r.put(FX_ST + 16 * i + 8, &high.to_le_bytes());
    }
    r
}
