//! The registers as gdb sees them: the target description, and the values in its order.

use colinux_driver::core::Core;
use colinux_driver::cpu::state::{Cpu, X87, seg};

/// Our numbers of the general registers in gdb's order: rax rbx rcx rdx rsi rdi rbp rsp, r8 to r15.
const GENERAL: [usize; 16] = [0, 3, 1, 2, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15];
const GENERAL_NAMES: [&str; 16] = [
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];
const SEGMENTS: [(&str, usize); 6] = [
    ("cs", seg::CS),
    ("ss", seg::SS),
    ("ds", seg::DS),
    ("es", seg::ES),
    ("fs", seg::FS),
    ("gs", seg::GS),
];
const X87_NAMES: [&str; 8] = [
    "fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop",
];
/// Control registers, beyond what gdb knows by itself.
const CONTROL_NAMES: [&str; 6] = ["cr0", "cr2", "cr3", "cr4", "efer", "k_gs_base"];

/// Our number of a general register by its number in gdb's order.
pub(crate) fn register_number(gdb: usize) -> usize {
    GENERAL[gdb % GENERAL.len()]
}

/// The target description.
pub(crate) fn target_description() -> String {
    let mut xml = String::from(
        "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target version=\"1.0\">\
         <architecture>i386:x86-64</architecture>\
         <feature name=\"org.gnu.gdb.i386.core\"><flags id=\"eflags\" size=\"4\">",
    );
    let flags = [
        ("CF", 0),
        ("", 1),
        ("PF", 2),
        ("AF", 4),
        ("ZF", 6),
        ("SF", 7),
        ("TF", 8),
        ("IF", 9),
        ("DF", 10),
        ("OF", 11),
        ("NT", 14),
        ("RF", 16),
        ("VM", 17),
        ("AC", 18),
        ("VIF", 19),
        ("VIP", 20),
        ("ID", 21),
    ];
    for (name, bit) in flags {
        xml += &format!("<field name=\"{name}\" start=\"{bit}\" end=\"{bit}\"/>");
    }
    xml += "</flags>";
    let mut reg = |name: &str, bits: u32, kind: &str, group: &str| {
        xml += &format!("<reg name=\"{name}\" bitsize=\"{bits}\" type=\"{kind}\"{group}/>");
    };
    for name in GENERAL_NAMES {
        let kind = if matches!(name, "rbp" | "rsp") {
            "data_ptr"
        } else {
            "int64"
        };
        reg(name, 64, kind, "");
    }
    reg("rip", 64, "code_ptr", "");
    reg("eflags", 32, "eflags", "");
    for (name, _) in SEGMENTS {
        reg(name, 32, "int32", "");
    }
    for n in 0..8 {
        reg(&format!("st{n}"), 80, "i387_ext", "");
    }
    for name in X87_NAMES {
        reg(name, 32, "int", " group=\"float\"");
    }
    xml += "</feature><feature name=\"org.gnu.gdb.i386.sse\">\
            <vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/>\
            <vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>\
            <vector id=\"v16i8\" type=\"int8\" count=\"16\"/>\
            <vector id=\"v8i16\" type=\"int16\" count=\"8\"/>\
            <vector id=\"v4i32\" type=\"int32\" count=\"4\"/>\
            <vector id=\"v2i64\" type=\"int64\" count=\"2\"/>\
            <union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/>\
            <field name=\"v2_double\" type=\"v2d\"/><field name=\"v16_int8\" type=\"v16i8\"/>\
            <field name=\"v8_int16\" type=\"v8i16\"/><field name=\"v4_int32\" type=\"v4i32\"/>\
            <field name=\"v2_int64\" type=\"v2i64\"/><field name=\"uint128\" type=\"uint128\"/></union>\
            <flags id=\"i386_mxcsr\" size=\"4\"><field name=\"IE\" start=\"0\" end=\"0\"/></flags>";
    for n in 0..16 {
        xml += &format!("<reg name=\"xmm{n}\" bitsize=\"128\" type=\"vec128\"/>");
    }
    xml += "<reg name=\"mxcsr\" bitsize=\"32\" type=\"i386_mxcsr\" group=\"vector\"/></feature>\
            <feature name=\"org.gnu.gdb.i386.segments\">\
            <reg name=\"fs_base\" bitsize=\"64\" type=\"int\"/>\
            <reg name=\"gs_base\" bitsize=\"64\" type=\"int\"/></feature>\
            <feature name=\"org.colinux-trace.control\">";
    for name in CONTROL_NAMES {
        xml += &format!("<reg name=\"{name}\" bitsize=\"64\" type=\"int64\" group=\"system\"/>");
    }
    xml + "</feature></target>"
}

/// All registers, in the order of the description.
pub(crate) fn registers(core: &Core) -> Vec<u8> {
    let cpu = &core.cpu;
    let mut out = Vec::with_capacity(640);
    for n in GENERAL {
        out.extend(cpu.regs[n].to_le_bytes());
    }
    out.extend(cpu.rip.to_le_bytes());
    out.extend((cpu.rflags() as u32).to_le_bytes());
    for (_, which) in SEGMENTS {
        out.extend(u32::from(cpu.segs[which].selector).to_le_bytes());
    }
    x87(&cpu.x87, &mut out);
    for [low, high] in cpu.xmm {
        out.extend(low.to_le_bytes());
        out.extend(high.to_le_bytes());
    }
    out.extend(cpu.mxcsr.to_le_bytes());
    out.extend(cpu.segs[seg::FS].base.to_le_bytes());
    out.extend(cpu.segs[seg::GS].base.to_le_bytes());
    for value in control(cpu) {
        out.extend(value.to_le_bytes());
    }
    out
}

fn control(cpu: &Cpu) -> [u64; 6] {
    [
        cpu.cr0,
        cpu.cr2,
        cpu.cr3,
        cpu.cr4,
        cpu.efer,
        cpu.msr.kernel_gs_base,
    ]
}

/// The stack of the x87 unit from its top, then its other registers.
fn x87(unit: &X87, out: &mut Vec<u8>) {
    let top = usize::from(unit.status >> 11 & 7);
    for n in 0..8 {
        let (significand, exponent) = unit.regs[(top + n) % 8];
        out.extend(significand.to_le_bytes());
        out.extend(exponent.to_le_bytes());
    }
    // Two bits each: valid, zero, special, empty (SDM vol. 1, section 8.1.7).
    let tag = |n: usize| -> u32 {
        let (significand, exponent) = unit.regs[n];
        match (unit.tags >> n & 1, significand, exponent & 0x7fff) {
            (0, ..) => 3,
            (_, 0, 0) => 1,
            (_, _, 0 | 0x7fff) => 2,
            (_, s, _) if s >> 63 == 0 => 2,
            _ => 0,
        }
    };
    let tags = (0..8).fold(0, |all, n| all | tag(n) << (2 * n));
    let words = [
        unit.control.into(),
        unit.status.into(),
        tags,
        (unit.ip >> 32) as u32,
        unit.ip as u32,
        (unit.dp >> 32) as u32,
        unit.dp as u32,
        unit.opcode.into(),
    ];
    for word in words {
        out.extend(word.to_le_bytes());
    }
}

/// The registers as text, for people.
pub(crate) fn text(core: &Core) -> String {
    let cpu = &core.cpu;
    let mut out = String::new();
    for (i, (name, n)) in GENERAL_NAMES.iter().zip(GENERAL).enumerate() {
        let end = if i % 4 == 3 { '\n' } else { ' ' };
        out += &format!("{name:>3}={:016x}{end}", cpu.regs[n]);
    }
    out += &format!(
        "rip={:016x} eflags={:08x} cpl={} halted={}\n",
        cpu.rip,
        cpu.rflags(),
        cpu.cpl,
        u8::from(cpu.halted)
    );
    for (name, which) in SEGMENTS {
        let s = &cpu.segs[which];
        out += &format!(
            "{name}={:04x} {:016x} {:08x} {:04x}\n",
            s.selector, s.base, s.limit, s.attr
        );
    }
    for (name, value) in CONTROL_NAMES.iter().zip(control(cpu)) {
        out += &format!("{}={value:016x}\n", name.to_uppercase());
    }
    out
}

/// A piece of the description, of the one file that it has.
pub(super) fn piece<'d>(
    description: &'d str,
    annex: &[u8],
    offset: u64,
    length: usize,
) -> Option<&'d [u8]> {
    if annex != b"target.xml" {
        return None;
    }
    let at = usize::try_from(offset).ok();
    let rest = at.and_then(|at| description.as_bytes().get(at..));
    let rest = rest.unwrap_or_default();
    rest.get(..rest.len().min(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_values_are_as_long_as_the_description_says() {
        let xml = target_description();
        let bits: usize = xml
            .split("bitsize=\"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap().parse::<usize>().unwrap())
            .sum();
        let machine =
            colinux_driver::machine::Machine::empty(&colinux_driver::machine::MachineConfig {
                memory_bytes: 1 << 20,
                rtc_epoch_s: 0,
                ns_per_tick: 1,
                quantum_ticks: 1,
            });
        assert_eq!(registers(machine.core()).len() * 8, bits);
        for (open, close) in [("<feature ", "</feature>"), ("<union ", "</union>")] {
            assert_eq!(xml.matches(open).count(), xml.matches(close).count());
        }
    }
}
