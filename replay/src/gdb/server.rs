//! Waiting for debuggers, and serving one at a time.

use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use colinux_driver::debug::DebugPlan;
use gdbstub::conn::ConnectionExt;
use gdbstub::stub::run_blocking::BlockingEventLoop;
use gdbstub::stub::{DisconnectReason, GdbStub};
use gdbstub::target::Target;

use super::live::{Live, LiveLoop};
use super::resume::EventLoop;
use super::target::Debuggee;
use super::wire::{PACKET_BYTES_MAX, Shared, Wire, framed};
use crate::error::ReplayError;
use crate::record::{Ending, Host, Recorder};
use crate::timeline::TimelineError;

/// The port debuggers expect.
const PORT: u16 = 1234;
/// Longest wait before it is looked at whether to go on.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long a debugger that is refused has for its first packet, and for leaving.
const REFUSAL_WAIT: Duration = Duration::from_secs(1);

/// Where to wait for debuggers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A port of the loopback interface.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

/// Why nobody can be waited for there.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Not an address.
    #[error("`{0}` is not an address; write 1234, 127.0.0.1:1234 or the path of a unix socket")]
    Address(String),
    /// An address others can reach.
    #[error(
        "{0} can be reached by others, who could then read all of the guest's memory; \
         use 127.0.0.1 (and ssh -L), or a unix socket"
    )]
    NotLoopback(SocketAddr),
    /// The system refused.
    #[error("cannot listen on {0}: {1}")]
    Refused(Listen, io::Error),
}

/// Why serving ended early.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The timeline failed.
    #[error(transparent)]
    Timeline(#[from] TimelineError),
    /// Nobody can be waited for any more.
    #[error("waiting for debuggers failed")]
    Waiting,
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => write!(f, "{address}"),
            Listen::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        let local = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Listen::Unix(path.into()));
        }
        if text.contains('/') {
            return Ok(Listen::Unix(text.into()));
        }
        let port = text
            .strip_prefix("localhost:")
            .or_else(|| text.strip_prefix(':'));
        let address = match port.unwrap_or(text).parse::<u16>() {
            Ok(port) => local(port),
            Err(_) if text == "localhost" || text.is_empty() => local(PORT),
            Err(_) => match text.parse() {
                Ok(address) => address,
                Err(_) => text
                    .parse::<IpAddr>()
                    .map(|ip| SocketAddr::new(ip, PORT))
                    .map_err(|_| ListenError::Address(text.to_owned()))?,
            },
        };
        if address.ip().is_loopback() {
            Ok(Listen::Tcp(address))
        } else {
            Err(ListenError::NotLoopback(address))
        }
    }
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Stream {
    fn try_clone(&self) -> io::Result<Stream> {
        Ok(match self {
            Stream::Tcp(stream) => Stream::Tcp(stream.try_clone()?),
            Stream::Unix(stream) => Stream::Unix(stream.try_clone()?),
        })
    }

    fn hang_up(&self) {
        // Whoever has left already has hung up.
        let _ = match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

impl Listener {
    fn accept(&self) -> io::Result<Stream> {
        match self {
            Listener::Tcp(listener) => Ok(Stream::Tcp(listener.accept()?.0)),
            Listener::Unix(listener) => Ok(Stream::Unix(listener.accept()?.0)),
        }
    }
}

/// Waits for debuggers.
#[derive(Debug)]
pub struct Server {
    address: Listen,
    accepted: Receiver<Stream>,
    busy: Arc<AtomicBool>,
}

impl Server {
    /// Begins to wait.
    pub fn bind(listen: &Listen) -> Result<Self, ListenError> {
        let refused = |error| ListenError::Refused(listen.clone(), error);
        let (listener, address) = match listen {
            Listen::Tcp(address) => {
                let listener = TcpListener::bind(address).map_err(refused)?;
                let address = listener.local_addr().map_err(refused)?;
                (Listener::Tcp(listener), Listen::Tcp(address))
            }
            Listen::Unix(path) => {
                remove_dead_socket(path);
                let listener = UnixListener::bind(path).map_err(refused)?;
                (Listener::Unix(listener), listen.clone())
            }
        };
        let busy = Arc::new(AtomicBool::new(false));
        let (send, accepted) = mpsc::channel();
        let taken = Arc::clone(&busy);
        thread::Builder::new()
            .name("gdb-accept".to_owned())
            .spawn(move || {
                while let Ok(stream) = listener.accept() {
                    if taken.swap(true, Ordering::AcqRel) {
                        refuse(stream);
                    } else if send.send(stream).is_err() {
                        break;
                    }
                }
            })
            .map_err(refused)?;
        Ok(Server {
            address,
            accepted,
            busy,
        })
    }

    /// Where it waits; the port, if it was to be found.
    pub fn address(&self) -> &Listen {
        &self.address
    }

    /// Serves one debugger after the other, until it is `over`, whatever a debugger does then. `note`
    /// is told what happens.
    pub fn serve(
        &self,
        debuggee: &mut Debuggee,
        over: impl Fn() -> bool + Clone + Send + 'static,
        note: &mut dyn FnMut(&str),
    ) -> Result<(), ServeError> {
        while !over() {
            match self.accepted.recv_timeout(LOOK_EVERY) {
                Ok(stream) => {
                    let _line = HangUp::when(over.clone(), &stream);
                    let said = match stream {
                        Stream::Tcp(stream) => converse(stream, debuggee),
                        Stream::Unix(stream) => converse(stream, debuggee),
                    };
                    debuggee.detached();
                    self.busy.store(false, Ordering::Release);
                    note(&said?);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(ServeError::Waiting),
            }
        }
        Ok(())
    }
}

impl Server {
    /// Serves a debugger on a machine that is being recorded, if one is waiting, until it leaves, the
    /// recording ends, or `signal` is not zero any more. How the recording ended, if it did.
    pub(crate) fn attend(
        &self,
        recorder: &mut Recorder,
        host: &mut dyn Host,
        signal: &Arc<AtomicUsize>,
    ) -> Result<Option<Ending>, ReplayError> {
        let Ok(stream) = self.accepted.try_recv() else {
            return Ok(None);
        };
        let mut live = Live::new(recorder, host);
        let shared = Arc::clone(&live.shared);
        let signal = Arc::clone(signal);
        let _line = HangUp::when(move || signal.load(Ordering::Relaxed) != 0, &stream);
        let said = match stream {
            Stream::Tcp(stream) => talk::<_, LiveLoop<'_, _>>(stream, &mut live, shared),
            Stream::Unix(stream) => talk::<_, LiveLoop<'_, _>>(stream, &mut live, shared),
        };
        let ending = live.ending.take();
        recorder.machine().debug(&DebugPlan::default());
        self.busy.store(false, Ordering::Release);
        said.map(|_| ending)
    }
}

/// Ends a conversation when it is over, as when a signal came, which a debugger that keeps the machine
/// stopped would hold up.
struct HangUp(Arc<AtomicBool>);

impl HangUp {
    fn when(over: impl Fn() -> bool + Send + 'static, line: &Stream) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        if let Ok(line) = line.try_clone() {
            let done = Arc::clone(&done);
            thread::spawn(move || {
                while !over() {
                    if done.load(Ordering::Relaxed) {
                        return;
                    }
                    thread::sleep(LOOK_EVERY);
                }
                line.hang_up();
            });
        }
        HangUp(done)
    }
}

impl Drop for HangUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Listen::Unix(path) = &self.address {
            let _ = fs::remove_file(path);
        }
    }
}

/// Removes a socket that nobody listens on any more.
fn remove_dead_socket(path: &Path) {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    if is_socket
        && UnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    {
        let _ = fs::remove_file(path);
    }
}

/// Talks to one debugger until it leaves; says how that was.
pub(super) fn converse<S>(stream: S, debuggee: &mut Debuggee) -> Result<String, TimelineError>
where
    S: ConnectionExt<Error = io::Error>,
{
    let shared = Arc::clone(&debuggee.shared);
    talk::<S, EventLoop<S>>(stream, debuggee, shared)
}

fn talk<S, L>(
    stream: S,
    target: &mut L::Target,
    shared: Arc<Shared>,
) -> Result<String, <L::Target as Target>::Error>
where
    S: ConnectionExt<Error = io::Error>,
    L: BlockingEventLoop<Connection = Wire<S>>,
    <L::Target as Target>::Error: fmt::Debug + fmt::Display,
{
    let wire = Wire::new(stream, shared);
    let stub = match GdbStub::builder(wire)
        .packet_buffer_size(PACKET_BYTES_MAX)
        .build()
    {
        Ok(stub) => stub,
        Err(error) => return Ok(format!("the debugger cannot be served: {error}")),
    };
    match stub.run_blocking::<L>(target) {
        Ok(DisconnectReason::Disconnect) => Ok("the debugger detached".to_owned()),
        Ok(DisconnectReason::Kill) => Ok("the debugger is done".to_owned()),
        Ok(_) => Ok("the debugger left".to_owned()),
        Err(error) if error.is_target_error() => match error.into_target_error() {
            Some(error) => Err(error),
            None => Ok("the debugger left".to_owned()),
        },
        Err(error) => Ok(format!("the debugger is gone: {error}")),
    }
}

/// Tells a debugger that it is not its turn.
///
/// An answer before the question would be taken for noise, and closing a socket with bytes in it that
/// nobody read makes the other side lose what it was told: so the question is read to its end, and
/// then whatever else comes until the debugger has left.
fn refuse(stream: Stream) {
    fn tell<S: Read + Write>(mut stream: S, hang_up: impl FnOnce(&S) -> io::Result<()>) {
        let until = Instant::now() + REFUSAL_WAIT;
        let mut question = Vec::new();
        let mut piece = [0; 4096];
        while !has_packet(&question) {
            match stream.read(&mut piece) {
                Ok(n) if n > 0 && Instant::now() < until && question.len() < PACKET_BYTES_MAX => {
                    question.extend_from_slice(&piece[..n]);
                }
                _ => return,
            }
        }
        let sentence = framed("E.another debugger is attached to this recording");
        let told = stream
            .write_all(b"+")
            .and_then(|()| stream.write_all(&sentence))
            .and_then(|()| hang_up(&stream));
        if told.is_ok() {
            while stream.read(&mut piece).is_ok_and(|n| n > 0) && Instant::now() < until {}
        }
    }
    match stream {
        Stream::Tcp(stream) => {
            let _ = stream.set_read_timeout(Some(REFUSAL_WAIT));
            tell(stream, |stream| stream.shutdown(Shutdown::Write));
        }
        Stream::Unix(stream) => {
            let _ = stream.set_read_timeout(Some(REFUSAL_WAIT));
            tell(stream, |stream| stream.shutdown(Shutdown::Write));
        }
    }
}

/// Whether a whole packet is in what came.
fn has_packet(bytes: &[u8]) -> bool {
    let begun = bytes.iter().position(|byte| *byte == b'$');
    begun.is_some_and(|at| bytes[at..].iter().rev().skip(2).any(|byte| *byte == b'#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_others_cannot_reach() {
        for (text, expected) in [
            ("1234", "127.0.0.1:1234"),
            (":9000", "127.0.0.1:9000"),
            ("localhost:9000", "127.0.0.1:9000"),
            ("127.0.0.1", "127.0.0.1:1234"),
            ("[::1]:77", "[::1]:77"),
            ("/run/x.sock", "/run/x.sock"),
            ("unix:x.sock", "x.sock"),
        ] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), expected);
        }
        let open = "0.0.0.0:1234".parse::<Listen>();
        assert!(matches!(open, Err(ListenError::NotLoopback(_))), "{open:?}");
        assert!(matches!(
            "a b".parse::<Listen>(),
            Err(ListenError::Address(_))
        ));
    }
}
