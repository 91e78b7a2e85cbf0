//! The connection to gdb, and the packets that are answered right here.
//!
//! gdbstub hands everything it does not know back as unsupported. What debuggers ask beyond that
//! (QEMU's queries, by which gef and pwndbg tell a kernel from a program), and what must be refused
//! with a sentence instead of a number, is picked out of the stream before it gets there.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gdbstub::conn::{Connection, ConnectionExt};

use crate::condition::Condition;

/// The longest packet that is taken.
pub(crate) const PACKET_BYTES_MAX: usize = 0x1_0000;
/// Why nothing can be changed.
const READ_ONLY: &str = "E.a recorded execution cannot be changed";

/// A connection, with a filter on what comes in.
#[derive(Debug)]
pub(crate) struct Wire<S> {
    stream: S,
    /// Bytes for gdbstub.
    passed: VecDeque<u8>,
    /// The packet that is coming in, from its `$`.
    packet: Vec<u8>,
    acknowledged: bool,
    /// What gdbstub writes, until it is whole.
    written: Vec<u8>,
    /// What rr's command has been answered so far, in hexadecimal digits, while one is being run.
    answered: Option<String>,
    shared: Arc<Shared>,
}

/// What the connection knows and the debuggee goes by.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Addresses are pseudo-physical.
    pub(crate) physical: AtomicBool,
    /// Conditions of breakpoints.
    pub(crate) conditions: Mutex<BTreeMap<u64, Vec<Condition>>>,
}

impl Shared {
    /// What a debugger has set does not outlive it.
    pub(crate) fn forget(&self) {
        self.physical.store(false, Ordering::Relaxed);
        self.conditions().clear();
    }

    pub(crate) fn conditions(&self) -> MutexGuard<'_, BTreeMap<u64, Vec<Condition>>> {
        self.conditions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What we can do that gdbstub does not know of.
const MORE_FEATURES: &str = ";ConditionalBreakpoints+";

/// What is said to a packet that cannot be read.
const MALFORMED: &str = "E.this packet is malformed";

/// Adds our features to the answer that lists gdbstub's.
fn with_features(packet: Vec<u8>) -> Vec<u8> {
    match payload_of(&packet) {
        Some(payload) if payload.starts_with("PacketSize=") => {
            framed(&format!("{payload}{MORE_FEATURES}"))
        }
        _ => packet,
    }
}

/// What is between the `$` and the `#` of a packet.
fn payload_of(packet: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(packet).ok()?;
    Some(text.strip_prefix('$')?.rsplit_once('#')?.0)
}

/// The monitor command that rr's packet `NAME:THREAD[:ARGUMENT...]` stands for, arguments being in
/// hexadecimal digits (rr, `src/GdbCommandHandler.cc`), as a packet for gdbstub.
fn monitor_packet(rr: &str) -> Option<Vec<u8>> {
    let mut parts = rr.split(':');
    let mut command = parts.next()?.as_bytes().to_vec();
    // There is one thread, so it does not matter which is meant.
    for argument in parts.skip(1) {
        command.push(b' ');
        for at in (0..argument.len()).step_by(2) {
            command.push(u8::from_str_radix(argument.get(at..at + 2)?, 16).ok()?);
        }
    }
    let digits: String = command.iter().map(|byte| format!("{byte:02x}")).collect();
    Some(framed(&format!("qRcmd,{digits}")))
}

/// The address and the conditions of a packet that sets a breakpoint:
/// `Z0,ADDRESS,KIND;XLENGTH,BYTECODE...`
fn conditions(payload: &str) -> Option<(u64, Vec<Condition>)> {
    let rest = payload
        .strip_prefix("Z0,")
        .or_else(|| payload.strip_prefix("Z1,"))?;
    let (address, rest) = rest.split_once(',')?;
    let address = u64::from_str_radix(address, 16).ok()?;
    let mut found = Vec::new();
    let lists = rest.split(';').skip(1).filter(|l| !l.starts_with("cmds"));
    for one in lists
        .flat_map(|list| list.split('X'))
        .filter(|c| !c.is_empty())
    {
        let (length, hex) = one.split_once(',')?;
        let length = usize::from_str_radix(length, 16).ok()?;
        let byte = |n: usize| u8::from_str_radix(hex.get(2 * n..2 * n + 2)?, 16).ok();
        let code: Option<Vec<u8>> = (0..length.min(PACKET_BYTES_MAX)).map(byte).collect();
        found.push(Condition::new(&code?));
    }
    Some((address, found))
}

/// Whether a packet that reads something has the shape that gdbstub insists on: it hangs up otherwise,
/// and people type packets (`maintenance packet`).
fn is_well_formed(payload: &str) -> bool {
    let hex = |text: &str| {
        (1..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let pair = |text: &str| text.split_once(',').is_some_and(|(a, b)| hex(a) && hex(b));
    match (payload.as_bytes().first(), payload.get(1..)) {
        (Some(b'm'), Some(rest)) => pair(rest),
        (Some(b'p'), Some(rest)) => hex(rest.split(';').next().unwrap_or_default()),
        _ if payload.starts_with("qXfer:") => payload.rsplit(':').next().is_some_and(pair),
        _ => true,
    }
}

/// A packet on the wire: the payload between `$` and `#`, and two digits of its sum.
pub(crate) fn framed(payload: &str) -> Vec<u8> {
    framed_bytes(payload.as_bytes())
}

/// The same of any bytes.
pub(crate) fn framed_bytes(payload: &[u8]) -> Vec<u8> {
    let sum = payload.iter().copied().fold(0u8, u8::wrapping_add);
    let mut packet = vec![b'$'];
    packet.extend_from_slice(payload);
    packet.extend_from_slice(format!("#{sum:02x}").as_bytes());
    packet
}

impl<S: ConnectionExt<Error = io::Error>> Wire<S> {
    pub(crate) fn new(stream: S, shared: Arc<Shared>) -> Self {
        Wire {
            stream,
            passed: VecDeque::new(),
            packet: Vec::new(),
            acknowledged: true,
            written: Vec::new(),
            answered: None,
            shared,
        }
    }

    /// Says something that gdb prints while it waits for the machine to stop (the packet `O`).
    pub(super) fn tell(&mut self, text: &str) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let digits: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        self.stream.write_all(&framed(&format!("O{digits}")))?;
        self.stream.flush()
    }

    /// Takes a byte that came in.
    fn take(&mut self, byte: u8) -> io::Result<()> {
        if self.packet.is_empty() {
            match byte {
                b'$' => self.packet.push(byte),
                // That a packet has arrived is of no interest: none is sent again.
                b'+' => {}
                _ => self.passed.push_back(byte),
            }
            return Ok(());
        }
        self.packet.push(byte);
        let whole = self.packet.iter().rev().nth(2) == Some(&b'#');
        if !whole {
            if self.packet.len() > PACKET_BYTES_MAX {
                let why = format!("a packet is longer than {PACKET_BYTES_MAX} bytes");
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            return Ok(());
        }
        let packet = std::mem::take(&mut self.packet);
        let payload = packet.get(1..packet.len() - 3).unwrap_or_default();
        let text = std::str::from_utf8(payload).ok();
        if let Some(command) = text
            .and_then(|text| text.strip_prefix("qRRCmd:"))
            .and_then(monitor_packet)
        {
            self.answered = Some(String::new());
            self.passed.extend(command);
            return Ok(());
        }
        // The list of features may be left out.
        if text == Some("qSupported") {
            self.passed.extend(framed("qSupported:"));
            return Ok(());
        }
        match self.answer(payload) {
            Some(answer) => {
                if self.acknowledged {
                    self.stream.write(b'+')?;
                }
                self.stream.write_all(&framed(&answer))?;
                self.stream.flush()
            }
            None => {
                self.passed.extend(packet);
                Ok(())
            }
        }
    }

    /// What is to be sent instead of a packet. A monitor command prints by packets of their own before
    /// it is done; rr's commands have it all in their one answer.
    fn for_rr(&mut self, packet: Vec<u8>) -> Option<Vec<u8>> {
        let Some(answered) = &mut self.answered else {
            return Some(packet);
        };
        let payload = payload_of(&packet);
        if let Some(printed) = payload.and_then(|payload| payload.strip_prefix('O'))
            && printed != "K"
        {
            answered.push_str(printed);
            return None;
        }
        let answered = self.answered.take()?;
        Some(match payload {
            Some("OK") => framed(&answered),
            _ => packet,
        })
    }

    /// The answer to a packet that gdbstub is not to see.
    fn answer(&mut self, payload: &[u8]) -> Option<String> {
        let text = std::str::from_utf8(payload).ok();
        let first = payload.first().copied().unwrap_or(0);
        match (first, text) {
            (_, Some("QStartNoAckMode")) => {
                self.acknowledged = false;
                None
            }
            (_, Some("qqemu.sstepbits" | "Qqemu.sstepbits")) => {
                Some("ENABLE=1,NOIRQ=2,NOTIMER=4".to_owned())
            }
            // A step never holds off interrupts: it would not be the recorded execution.
            (_, Some("qqemu.sstep")) => Some("0x1".to_owned()),
            (_, Some("Qqemu.sstep=1")) => Some("OK".to_owned()),
            (_, Some("qqemu.PhyMemMode")) => {
                Some(u8::from(self.shared.physical.load(Ordering::Relaxed)).to_string())
            }
            (_, Some("Qqemu.PhyMemMode:1" | "Qqemu.PhyMemMode:0")) => {
                self.shared
                    .physical
                    .store(payload.ends_with(b"1"), Ordering::Relaxed);
                Some("OK".to_owned())
            }
            (b'Z', Some(text)) => {
                if let Some((address, found)) = conditions(text) {
                    self.shared.conditions().insert(address, found);
                }
                None
            }
            // There is one thread, so it does not matter which are meant.
            (b'H', Some("Hc-1" | "Hc0" | "Hcp1.-1" | "Hcp0.0" | "Hcp1.0")) => Some("OK".to_owned()),
            (b'G' | b'P' | b'M', _) => Some(READ_ONLY.to_owned()),
            (b'm' | b'p' | b'q', Some(text)) if !is_well_formed(text) => Some(MALFORMED.to_owned()),
            (b'X', _) => {
                // No bytes: only asks whether the packet is known.
                let none = payload.ends_with(b",0:");
                Some(if none {
                    "OK".to_owned()
                } else {
                    READ_ONLY.to_owned()
                })
            }
            _ => None,
        }
    }
}

impl<S: ConnectionExt<Error = io::Error>> Connection for Wire<S> {
    type Error = io::Error;

    fn write(&mut self, byte: u8) -> io::Result<()> {
        if self.written.is_empty() && byte != b'$' {
            return self.stream.write(byte);
        }
        self.written.push(byte);
        Ok(())
    }

    fn write_all(&mut self, buf: &[u8]) -> io::Result<()> {
        buf.iter().try_for_each(|byte| self.write(*byte))
    }

    fn flush(&mut self) -> io::Result<()> {
        let packet = with_features(std::mem::take(&mut self.written));
        let Some(packet) = self.for_rr(packet) else {
            return Ok(());
        };
        self.stream.write_all(&packet)?;
        self.stream.flush()
    }

    fn on_session_start(&mut self) -> io::Result<()> {
        self.stream.on_session_start()
    }
}

impl<S: ConnectionExt<Error = io::Error>> ConnectionExt for Wire<S> {
    fn read(&mut self) -> io::Result<u8> {
        loop {
            if let Some(byte) = self.passed.pop_front() {
                return Ok(byte);
            }
            if !self.written.is_empty() {
                self.flush()?;
            }
            let byte = self.stream.read()?;
            self.take(byte)?;
        }
    }

    fn peek(&mut self) -> io::Result<Option<u8>> {
        if let Some(byte) = self.passed.front() {
            return Ok(Some(*byte));
        }
        loop {
            match self.stream.peek()? {
                // Nor is it an interruption.
                Some(b'+') if self.packet.is_empty() => self.stream.read()?,
                byte => return Ok(byte),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes to read, and what was written.
    struct Script(VecDeque<u8>, Vec<u8>);

    impl Connection for Script {
        type Error = io::Error;
        fn write(&mut self, byte: u8) -> io::Result<()> {
            self.1.push(byte);
            Ok(())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl ConnectionExt for Script {
        fn read(&mut self) -> io::Result<u8> {
            self.0
                .pop_front()
                .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        }
        fn peek(&mut self) -> io::Result<Option<u8>> {
            Ok(self.0.front().copied())
        }
    }

    /// What passes through to gdbstub, and what is answered.
    fn through(bytes: &[u8]) -> (Vec<u8>, String, io::ErrorKind) {
        let script = Script(bytes.iter().copied().collect(), Vec::new());
        let mut wire = Wire::new(script, Arc::default());
        let mut passed = Vec::new();
        loop {
            match wire.read() {
                Ok(byte) => passed.push(byte),
                Err(error) => {
                    let answered = String::from_utf8_lossy(&wire.stream.1).into_owned();
                    return (passed, answered, error.kind());
                }
            }
        }
    }

    #[test]
    fn what_is_told_meanwhile_is_printed_and_its_acknowledgement_no_interruption() {
        let mut wire = Wire::new(Script(VecDeque::new(), Vec::new()), Arc::default());
        wire.tell("").unwrap();
        wire.tell("yes\n").unwrap();
        assert_eq!(wire.stream.1, framed("O7965730a"));
        wire.stream.0.extend(b"++");
        assert_eq!(wire.peek().unwrap(), None);
        wire.stream.0.extend(b"+\x03");
        assert_eq!(wire.peek().unwrap(), Some(3));
        assert_eq!(wire.read().unwrap(), 3);
    }

    #[test]
    fn what_gdbstub_knows_passes_through_unchanged() {
        let (passed, _, _) = through(b"$qSupported#37");
        assert_eq!(passed, framed("qSupported:"));
        let bytes = b"$qSupported:swbreak+#00\x03$m0,4#fd-";
        assert_eq!(through(bytes).0, bytes);
    }

    #[test]
    fn writes_are_refused_with_a_sentence_and_probes_answered() {
        for (packet, answer) in [
            ("$P10=00#00", READ_ONLY),
            ("$M0,1:00#00", READ_ONLY),
            ("$X0,1:a#00", READ_ONLY),
            ("$X0,0:#00", "OK"),
            ("$Qqemu.sstepbits#00", "ENABLE=1,NOIRQ=2,NOTIMER=4"),
            ("$qqemu.PhyMemMode#00", "0"),
            ("$mzz#00", MALFORMED),
            ("$m10,#00", MALFORMED),
            ("$p#00", MALFORMED),
            ("$qXfer:auxv:read::0#00", MALFORMED),
        ] {
            let (passed, answered, _) = through(packet.as_bytes());
            assert!(passed.is_empty());
            let expected = String::from_utf8(framed(answer)).unwrap();
            assert_eq!(answered, format!("+{expected}"), "{packet}");
        }
        let (_, answered, _) =
            through(b"$QStartNoAckMode#b0$Qqemu.PhyMemMode:1#00$qqemu.PhyMemMode#00");
        assert_eq!(answered, "$OK#9a$1#31");
    }

    #[test]
    fn commands_of_rr_become_monitor_commands() {
        // `when` and `seek-ticks 3M`.
        for (packet, expected) in [
            ("$qRRCmd:when:1#00", "qRcmd,7768656e"),
            ("$qRRCmd:when:-1#00", "qRcmd,7768656e"),
            (
                "$qRRCmd:seek-ticks:1:334d#00",
                "qRcmd,7365656b2d7469636b7320334d",
            ),
        ] {
            let (passed, answered, _) = through(packet.as_bytes());
            assert_eq!(passed, framed(expected), "{packet}");
            assert_eq!(answered, "");
        }
        // What is none is left to gdbstub, which does not know it.
        for packet in [
            "$qRRCmd:when:1:3#00",
            "$qRRCmd:when:1:zz#00",
            "$qRRCmd:x:1:\u{e9}\u{e9}#00",
        ] {
            assert_eq!(through(packet.as_bytes()).0, packet.as_bytes(), "{packet}");
        }
    }

    #[test]
    fn commands_of_rr_get_one_answer() {
        let mut wire = Wire::new(Script(VecDeque::new(), Vec::new()), Arc::default());
        wire.answered = Some(String::new());
        for packet in ["O6162", "O630a", "OK", "OK"] {
            wire.write_all(&framed(packet)).unwrap();
            wire.flush().unwrap();
        }
        assert_eq!(wire.stream.1, [framed("6162630a"), framed("OK")].concat());
    }

    #[test]
    fn any_bytes_end_in_an_error_and_not_in_memory() {
        let (_, _, kind) = through(&[b'$'; PACKET_BYTES_MAX * 2]);
        assert_eq!(kind, io::ErrorKind::InvalidData);
        let noise: Vec<u8> = (0..20_000u32).map(|i| ((i * i) >> 3) as u8).collect();
        assert_eq!(through(&noise).2, io::ErrorKind::UnexpectedEof);
    }
}
