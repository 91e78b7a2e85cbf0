//! The guest's console on ours: a terminal in raw mode with an escape key, a pipe, or nobody.

use std::io::{self, IsTerminal, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use colinux_replay::{ConsoleLine, Host, HostIdle, HostTurn};
use colinux_tracer::EndReason;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::{SigId, flag};

/// The escape key: Ctrl-A, then `x` to end, or `a` for a Ctrl-A to the guest.
const ESCAPE: u8 = 1;
/// A guest that listens to its console and has not been idle for so many turns gets the input of a
/// pipe all the same: something in it never sleeps.
const PATIENCE_TURNS: u32 = 256;
/// Time between two times that a viewer is shown what was recorded; and while the guest only looks
/// at its clock.
const PUBLISH_EVERY: Duration = Duration::from_millis(250);
const PUBLISH_EVERY_IDLE: Duration = Duration::from_secs(2);
/// Longest wait before signals are looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// From here on a file that may not grow any more is a write that fails, rather than our end.
pub(crate) fn survive_size_limits() -> io::Result<()> {
    flag::register(SIGXFSZ, Arc::default()).map(drop)
}

/// Signals that end a recording in order.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    received: Arc<AtomicUsize>,
    /// What is done at an interrupt.
    interrupt: [SigId; 2],
}

impl Signals {
    /// Begins to catch them. A second one of the same kind acts as it would have.
    pub(crate) fn catch() -> io::Result<Self> {
        let received = Arc::new(AtomicUsize::new(0));
        let catch = |signal| {
            let seen = Arc::new(AtomicBool::new(false));
            let second = flag::register_conditional_default(signal, Arc::clone(&seen))?;
            flag::register(signal, seen)?;
            let number = usize::try_from(signal).unwrap_or(0);
            let first = flag::register_usize(signal, Arc::clone(&received), number)?;
            Ok::<_, io::Error>([second, first])
        };
        let interrupt = catch(SIGINT)?;
        catch(SIGTERM)?;
        catch(SIGHUP)?;
        Ok(Signals {
            received,
            interrupt,
        })
    }

    /// From here on interrupts mean nothing to us: they are for somebody else on the same terminal.
    pub(crate) fn leave_interrupts(&self) {
        for id in self.interrupt {
            signal_hook::low_level::unregister(id);
        }
    }

    /// The signal that arrived, if any.
    pub(crate) fn received(&self) -> Option<u8> {
        u8::try_from(self.received.load(Ordering::Relaxed))
            .ok()
            .filter(|n| *n != 0)
    }
}

/// Puts the terminal back when dropped.
#[derive(Debug)]
struct RawMode {
    before: Termios,
}

impl RawMode {
    fn enter() -> Option<Self> {
        let before = tcgetattr(io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        // The guest sends its own carriage returns, but our messages do not.
        raw.output_modes = before.output_modes;
        tcsetattr(io::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(RawMode { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Who types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Typist {
    /// Somebody, on a terminal that is ours.
    Person,
    /// Somebody, in a viewer that has the terminal. The recording ends when it hangs up.
    Viewer,
    /// Whatever was prepared.
    Pipe,
}

impl Typist {
    /// By what standard input is.
    pub(crate) fn of_stdin() -> Self {
        if io::stdin().is_terminal() {
            Typist::Person
        } else {
            Typist::Pipe
        }
    }
}

/// The host side of a live console.
#[derive(Debug)]
pub(crate) struct Console {
    input: Option<Receiver<Vec<u8>>>,
    pending: Vec<u8>,
    escaped: bool,
    terminal: Option<RawMode>,
    /// Turns for which input that nobody types waits until the guest is ready for it.
    patience: u32,
    signals: Signals,
    deadline: Option<Instant>,
    stop: Option<EndReason>,
    silent: bool,
    typist: Typist,
    /// The guest has run, or said something, since the viewer was last shown something, and when
    /// that was.
    has_run: bool,
    has_said: bool,
    published: Instant,
    /// Never waits for long, since somebody else may want something of the machine.
    brief: bool,
}

impl Console {
    /// Takes over standard input. `timeout` ends the recording.
    pub(crate) fn attach(timeout: Option<Duration>, typist: Typist) -> io::Result<Self> {
        let signals = Signals::catch()?;
        let terminal = match typist {
            Typist::Person => RawMode::enter(),
            _ => None,
        };
        // That a viewer hangs up is seen even if the guest does not read what was typed.
        let (send, receive) = mpsc::sync_channel(match typist {
            Typist::Viewer => 1 << 16,
            _ => 16,
        });
        thread::Builder::new()
            .name("console-in".to_owned())
            .spawn(move || {
                let mut buffer = [0; 256];
                loop {
                    match io::stdin().lock().read(&mut buffer) {
                        Ok(0) => break,
                        Ok(n) => {
                            if send.send(buffer[..n].to_vec()).is_err() {
                                break;
                            }
                        }
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(_) => break,
                    }
                }
            })?;
        Ok(Console {
            input: Some(receive),
            pending: Vec::new(),
            escaped: false,
            patience: match typist {
                Typist::Person => 0,
                Typist::Viewer | Typist::Pipe => PATIENCE_TURNS,
            },
            terminal,
            signals,
            deadline: timeout.map(|t| Instant::now() + t),
            stop: None,
            silent: false,
            typist,
            has_run: false,
            has_said: false,
            published: Instant::now(),
            brief: false,
        })
    }

    /// Comes back from idle time at least so often that a debugger does not wait.
    pub(crate) fn brief(&mut self) {
        self.brief = true;
    }

    /// The signal that ended the recording, once it has come; 0 before.
    pub(crate) fn signal_flag(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.signals.received)
    }

    /// The signal that ended the recording, if one did.
    pub(crate) fn signal(&self) -> Option<u8> {
        self.signals.received()
    }

    /// Takes typed bytes, looking for the escape key if they were typed on a terminal.
    fn take(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.terminal.is_none() {
                self.pending.push(byte);
            } else if self.escaped {
                self.escaped = false;
                match byte {
                    b'x' | b'X' => self.stop = Some(EndReason::Stopped),
                    b'a' | ESCAPE => self.pending.push(ESCAPE),
                    other => self.pending.extend([ESCAPE, other]),
                }
            } else if byte == ESCAPE {
                self.escaped = true;
            } else {
                self.pending.push(byte);
            }
        }
    }

    /// Whether the recording is to end.
    fn wants_stop(&self) -> Option<EndReason> {
        if self.signals.received().is_some() {
            return Some(EndReason::Signal);
        }
        if self
            .deadline
            .is_some_and(|deadline| Instant::now() >= deadline)
        {
            return Some(EndReason::Timeout);
        }
        self.stop
    }

    fn hand_out(&mut self, line: ConsoleLine) -> HostTurn {
        let room = if self.patience == 0 { line.room } else { 0 };
        let n = room.min(self.pending.len());
        HostTurn {
            input: self.pending.drain(..n).collect(),
            stop: self.wants_stop(),
            publish: self.publish(),
        }
    }

    /// A viewer that has not been shown anything for a while is to be shown what there is.
    fn has_news(&self) -> bool {
        let every = match (self.has_said, self.has_run) {
            (true, _) => PUBLISH_EVERY,
            (_, true) => PUBLISH_EVERY_IDLE,
            _ => return false,
        };
        self.typist == Typist::Viewer && self.published.elapsed() >= every
    }

    fn publish(&mut self) -> bool {
        let due = self.has_news();
        if due {
            (self.has_run, self.has_said) = (false, false);
            self.published = Instant::now();
        }
        due
    }

    /// Nothing more will be typed.
    fn hung_up(&mut self) {
        self.input = None;
        if self.typist == Typist::Viewer {
            self.stop = Some(EndReason::Stopped);
        }
    }

    /// Waits for input until `until` (for ever if none); false when it came to nothing.
    fn wait(&mut self, until: Option<Instant>) -> bool {
        loop {
            if !self.pending.is_empty() || self.wants_stop().is_some() {
                return true;
            }
            let mut slice = LOOK_EVERY;
            if let Some(until) = until {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return false;
                }
                slice = slice.min(left);
            }
            let Some(input) = &self.input else {
                return false;
            };
            match input.recv_timeout(slice) {
                Ok(bytes) => self.take(&bytes),
                Err(RecvTimeoutError::Timeout) if self.brief || self.has_news() => {
                    return until.is_none_or(|until| Instant::now() < until);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.hung_up();
                    return self.stop.is_some();
                }
            }
        }
    }
}

impl Host for Console {
    fn output(&mut self, bytes: &[u8]) {
        self.has_said = true;
        if self.silent {
            return;
        }
        let mut out = io::stdout().lock();
        if out.write_all(bytes).and_then(|()| out.flush()).is_err() {
            // Nobody listens any more; the recording goes on.
            self.silent = true;
        }
    }

    fn turn(&mut self, line: ConsoleLine) -> HostTurn {
        self.has_said = true;
        if line.listening {
            self.patience = self.patience.saturating_sub(1);
        }
        while let Some(input) = &self.input {
            match input.try_recv() {
                Ok(bytes) => self.take(&bytes),
                Err(mpsc::TryRecvError::Empty) => break,
                Err(mpsc::TryRecvError::Disconnected) => self.hung_up(),
            }
        }
        self.hand_out(line)
    }

    fn idle(&mut self, ns: Option<u64>, line: ConsoleLine) -> HostIdle {
        let began = Instant::now();
        // What a pipe holds would be lost on a driver that empties the receiver as it starts. A
        // guest that listens and has nothing else to do waits for it.
        if line.listening {
            self.patience = 0;
        }
        // Nobody can type any more: idle time is skipped, not waited for.
        if self.input.is_none() && self.pending.is_empty() {
            return match self.wants_stop() {
                Some(_) => HostIdle::Woke(0, self.hand_out(line)),
                None => HostIdle::Jump,
            };
        }
        let waits = line.room == 0 || self.patience > 0;
        if !self.pending.is_empty() && waits && self.wants_stop().is_none() {
            // The guest has not taken what it has, or would lose it.
            return HostIdle::Jump;
        }
        if !self.wait(ns.map(|ns| began + Duration::from_nanos(ns))) {
            if ns.is_none() && self.input.is_none() {
                return self.idle(ns, line);
            }
            self.has_run = true;
            return HostIdle::Jump;
        }
        let elapsed = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        HostIdle::Woke(elapsed, self.hand_out(line))
    }

    fn waits(&self) -> bool {
        self.input.is_some() || !self.pending.is_empty()
    }
}
