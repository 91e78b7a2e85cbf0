//! Conditions of breakpoints, evaluated where the machine is: the bytecode of gdb's agent expressions
//! (gdb manual, appendix F).
//!
//! A condition that gdb evaluates costs two stops and a conversation each time its breakpoint is come
//! by; here it costs a microsecond.

use colinux_driver::cpu::state::seg;
use colinux_driver::machine::Machine;

use crate::gdb::register_number;

/// Operations of one evaluation: a loop without end is an error.
const STEPS_MAX: u32 = 10_000;
/// Values on the stack.
const STACK_MAX: usize = 256;

/// A condition, as gdb compiled it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition(Vec<u8>);

/// The expression cannot be evaluated here.
struct Failed;

impl Condition {
    /// From bytecode.
    pub fn new(bytecode: &[u8]) -> Self {
        Condition(bytecode.to_vec())
    }

    /// Whether it holds. What cannot be evaluated counts as holding: better one stop too many.
    pub fn holds(&self, machine: &mut Machine) -> bool {
        let mut run = Run {
            code: &self.0,
            at: 0,
            stack: Vec::new(),
            machine,
        };
        run.evaluate().map_or(true, |value| value != 0)
    }
}

struct Run<'a> {
    code: &'a [u8],
    at: usize,
    stack: Vec<u64>,
    machine: &'a mut Machine,
}

impl Run<'_> {
    /// The next bytes of the code, big-endian.
    fn operand(&mut self, bytes: usize) -> Result<u64, Failed> {
        let operand = self.code.get(self.at..self.at + bytes).ok_or(Failed)?;
        self.at += bytes;
        Ok(operand.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)))
    }

    fn pop(&mut self) -> Result<u64, Failed> {
        self.stack.pop().ok_or(Failed)
    }

    fn push(&mut self, value: u64) -> Result<(), Failed> {
        if self.stack.len() >= STACK_MAX {
            return Err(Failed);
        }
        self.stack.push(value);
        Ok(())
    }

    /// Takes two values, the upper one last.
    fn two(&mut self, f: impl FnOnce(u64, u64) -> Option<u64>) -> Result<(), Failed> {
        let (b, a) = (self.pop()?, self.pop()?);
        self.push(f(a, b).ok_or(Failed)?)
    }

    fn read(&mut self, bytes: usize) -> Result<(), Failed> {
        let address = self.pop()?;
        let mut value = [0; 8];
        let mut done = 0;
        while done < bytes {
            // An access may cross pages, which lie anywhere.
            let at = address.wrapping_add(done as u64);
            if !self.machine.core_mut().peek(at, &mut value[done..=done]) {
                return Err(Failed);
            }
            done += 1;
        }
        self.push(u64::from_le_bytes(value))
    }

    fn register(&mut self, number: u64) -> Result<(), Failed> {
        let cpu = &self.machine.core().cpu;
        let value = match number {
            0..16 => cpu.regs[register_number(number as usize)],
            16 => cpu.rip,
            17 => cpu.rflags(),
            57 => cpu.segs[seg::FS].base,
            58 => cpu.segs[seg::GS].base,
            _ => return Err(Failed),
        };
        self.push(value)
    }

    fn evaluate(&mut self) -> Result<u64, Failed> {
        let shift = |n: u64| u32::try_from(n).ok().filter(|n| *n < 64);
        for _ in 0..STEPS_MAX {
            let code = self.operand(1)? as u8;
            match code {
                0x02 => self.two(|a, b| Some(a.wrapping_add(b)))?,
                0x03 => self.two(|a, b| Some(a.wrapping_sub(b)))?,
                0x04 => self.two(|a, b| Some(a.wrapping_mul(b)))?,
                0x05 => self.two(|a, b| (a as i64).checked_div(b as i64).map(|n| n as u64))?,
                0x06 => self.two(u64::checked_div)?,
                0x07 => self.two(|a, b| (a as i64).checked_rem(b as i64).map(|n| n as u64))?,
                0x08 => self.two(u64::checked_rem)?,
                0x09 => self.two(|a, b| Some(shift(b).map_or(0, |n| a << n)))?,
                0x0a => self.two(|a, b| Some((a as i64 >> shift(b).unwrap_or(63)) as u64))?,
                0x0b => self.two(|a, b| Some(shift(b).map_or(0, |n| a >> n)))?,
                0x0e => {
                    let value = self.pop()?;
                    self.push(u64::from(value == 0))?;
                }
                0x0f => self.two(|a, b| Some(a & b))?,
                0x10 => self.two(|a, b| Some(a | b))?,
                0x11 => self.two(|a, b| Some(a ^ b))?,
                0x12 => {
                    let value = self.pop()?;
                    self.push(!value)?;
                }
                0x13 => self.two(|a, b| Some(u64::from(a == b)))?,
                0x14 => self.two(|a, b| Some(u64::from((a as i64) < b as i64)))?,
                0x15 => self.two(|a, b| Some(u64::from(a < b)))?,
                0x16 | 0x2a => {
                    let unused = 64 - self.operand(1)?.clamp(1, 64);
                    let value = self.pop()? << unused;
                    self.push(if code == 0x16 {
                        (value as i64 >> unused) as u64
                    } else {
                        value >> unused
                    })?;
                }
                0x17 => self.read(1)?,
                0x18 => self.read(2)?,
                0x19 => self.read(4)?,
                0x1a => self.read(8)?,
                0x20 => {
                    let to = self.operand(2)? as usize;
                    if self.pop()? != 0 {
                        self.at = to;
                    }
                }
                0x21 => self.at = self.operand(2)? as usize,
                0x22..=0x25 => {
                    let value = self.operand(1 << (code - 0x22))?;
                    self.push(value)?;
                }
                0x26 => {
                    let number = self.operand(2)?;
                    self.register(number)?;
                }
                0x27 => return self.pop(),
                0x28 => {
                    let value = self.pop()?;
                    self.push(value)?;
                    self.push(value)?;
                }
                0x29 => drop(self.pop()?),
                0x2b => {
                    let (b, a) = (self.pop()?, self.pop()?);
                    self.push(b)?;
                    self.push(a)?;
                }
                0x32 => {
                    let depth = self.operand(1)? as usize;
                    let at = self.stack.len().checked_sub(depth + 1).ok_or(Failed)?;
                    self.push(self.stack[at])?;
                }
                0x33 => {
                    let (c, b, a) = (self.pop()?, self.pop()?, self.pop()?);
                    [c, a, b].into_iter().try_for_each(|v| self.push(v))?;
                }
                _ => return Err(Failed),
            }
        }
        Err(Failed)
    }
}

#[cfg(test)]
mod tests {
    use colinux_driver::machine::MachineConfig;

    use super::*;

    fn holds(code: &[u8]) -> bool {
        let mut machine = Machine::empty(&MachineConfig {
            memory_bytes: 1 << 20,
            rtc_epoch_s: 0,
            ns_per_tick: 1,
            quantum_ticks: 1,
        });
        // rdi, the sixth in gdb's order.
        machine.core_mut().cpu.regs[7] = 42;
        Condition::new(code).holds(&mut machine)
    }

    #[test]
    fn expressions_as_gdb_compiles_them() {
        // $rdi == 42, $rdi == 43
        assert!(holds(b"\x26\x00\x05\x22\x2a\x13\x27"));
        assert!(!holds(b"\x26\x00\x05\x22\x2b\x13\x27"));
        // (signed char) 0xff < 0
        assert!(holds(b"\x22\xff\x16\x08\x22\x00\x14\x27"));
        assert!(!holds(b"\x22\xff\x2a\x08\x22\x00\x14\x27"));
        // 1 ? 0 : 1, by jumps
        assert!(!holds(b"\x22\x01\x20\x00\x08\x22\x01\x27\x22\x00\x27"));
    }

    #[test]
    fn what_cannot_be_evaluated_stops() {
        for code in [
            &b""[..],
            b"\x27",
            b"\x21\x00\x00",
            b"\x22\x00\x22\x00\x05\x27",
            b"\x28",
            b"\x22\x05\x28\x21\x00\x02",
            b"\xff",
            b"\x26\xff\xff\x27",
            b"\x32\xff",
        ] {
            assert!(holds(code), "{code:x?}");
        }
        let mut noise = 1u32;
        for _ in 0..2_000 {
            let code: Vec<u8> = (0..20)
                .map(|_| {
                    noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (noise >> 24) as u8 & 0x3f
                })
                .collect();
            holds(&code);
        }
    }
}
