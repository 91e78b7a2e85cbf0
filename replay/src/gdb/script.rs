//! A conversation whose one side is known beforehand: what tests and fuzzers send.

use std::collections::VecDeque;
use std::io;

use gdbstub::conn::{Connection, ConnectionExt};

use super::server::converse;
use super::target::Debuggee;
use super::wire::framed_bytes;
use crate::timeline::TimelineError;

/// Bytes to read, and what was written.
#[derive(Debug, Default)]
struct Script {
    input: VecDeque<u8>,
    output: Vec<u8>,
}

impl Connection for &mut Script {
    type Error = io::Error;

    fn write(&mut self, byte: u8) -> io::Result<()> {
        self.output.push(byte);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl ConnectionExt for &mut Script {
    fn read(&mut self) -> io::Result<u8> {
        let end = || io::ErrorKind::UnexpectedEof.into();
        self.input.pop_front().ok_or_else(end)
    }

    fn peek(&mut self) -> io::Result<Option<u8>> {
        // An acknowledgement is no interruption.
        while self.input.front() == Some(&b'+') {
            self.input.pop_front();
        }
        Ok(self.input.front().copied().filter(|byte| *byte == 3))
    }
}

/// Sends these payloads as packets, and gives what was answered. The debuggee stays where they led.
pub fn converse_with<'p>(
    debuggee: &mut Debuggee,
    payloads: impl IntoIterator<Item = &'p [u8]>,
) -> Result<Vec<u8>, TimelineError> {
    let mut script = Script::default();
    for payload in payloads {
        script.input.extend(framed_bytes(payload));
        script.input.push_back(b'+');
    }
    converse(&mut script, debuggee)?;
    debuggee.detached();
    Ok(script.output)
}
