//! Conversations with a real gdb.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use common::Sandbox;

/// Where the conversations begin: early in the kernel.
const PLACE: &str = "@3M";

/// One short recording for all.
fn recording() -> &'static Sandbox {
    static ONE: OnceLock<Sandbox> = OnceLock::new();
    ONE.get_or_init(|| {
        let sandbox = Sandbox::new();
        let kernel = common::kernel("6.1");
        let until = ["--until", "@6M", "--memory", "128M", "-o", "boot.clt"];
        sandbox.ok(&[&["record", "--kernel", &kernel], &until[..]].concat());
        sandbox
    })
}

#[allow(clippy::print_stderr, reason = "why a test is skipped")]
fn has_gdb() -> bool {
    let found = Command::new("gdb").arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped: there is no gdb on this host");
    }
    found
}

/// A server on the recording.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(goto: &str) -> Self {
        let mut child = recording()
            .command(&["gdb", "boot.clt", "--listen", "127.0.0.1:0", "--goto", goto])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut notes = BufReader::new(child.stderr.take().unwrap());
        notes.read_line(&mut line).unwrap();
        let address = line
            .split('`')
            .nth(1)
            .unwrap()
            .rsplit(' ')
            .next()
            .unwrap()
            .to_owned();
        // The rest is read, so that the server never waits for us.
        thread::spawn(move || std::io::copy(&mut notes, &mut std::io::sink()));
        Server { child, address }
    }

    /// What gdb says to these commands.
    fn gdb(&self, commands: &[&str]) -> String {
        let mut gdb = Command::new("gdb");
        gdb.args(["-nx", "-batch", "-ex", "set pagination off"]);
        gdb.args(["-ex", &format!("target remote {}", self.address)]);
        for command in commands {
            gdb.args(["-ex", command]);
        }
        let output = gdb.stdin(Stdio::null()).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).into_owned()
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The values of gdb's numbered answers, `$1 = 0x...`, in order.
fn answers(text: &str) -> Vec<u64> {
    text.lines()
        .filter_map(|line| line.strip_prefix('$')?.split_once(" = "))
        .filter_map(|(_, value)| u64::from_str_radix(value.trim().strip_prefix("0x")?, 16).ok())
        .collect()
}

/// The ticks that `monitor when` said.
fn ticks(text: &str) -> Vec<u64> {
    text.lines()
        .filter_map(|line| line.strip_prefix("Current position: @"))
        .filter_map(|rest| rest.split([' ', '\'']).next()?.parse().ok())
        .collect()
}

const WHEN: &str = "monitor when";
const PC: &str = "p/x $pc";

#[test]
fn stepping_both_ways_and_both_ends_of_history() {
    if !has_gdb() {
        return;
    }
    let server = Server::start(PLACE);
    let said = server.gdb(&[
        PC,
        "stepi",
        PC,
        WHEN,
        "stepi",
        "reverse-stepi",
        PC,
        WHEN,
        "reverse-stepi",
        PC,
        WHEN,
        "reverse-stepi",
        WHEN,
        "reverse-continue",
        WHEN,
        "reverse-stepi",
        WHEN,
        "continue",
        WHEN,
        "stepi",
        WHEN,
    ]);
    let pc = answers(&said);
    assert_eq!(pc.len(), 4, "{said}");
    assert!(pc[0] == pc[3] && pc[1] == pc[2] && pc[0] != pc[1], "{said}");
    let expected = [
        3_000_001, 3_000_001, 3_000_000, 2_999_999, 0, 0, 6_000_000, 6_000_000,
    ];
    assert_eq!(ticks(&said), expected, "{said}");
    assert_eq!(
        said.matches("No more reverse-execution history").count(),
        4,
        "{said}"
    );
}

#[test]
fn breakpoints_stop_before_their_instruction_in_both_directions() {
    if !has_gdb() {
        return;
    }
    let server = Server::start(PLACE);
    let pc = format!("*{:#x}", answers(&server.gdb(&[PC]))[0]);
    for kind in ["break", "hbreak"] {
        let said = server.gdb(&[
            "monitor seek @3M",
            &format!("{kind} {pc}"),
            "monitor seek @2999990",
            "continue",
            WHEN,
            PC,
            "monitor seek @3000010",
            "stepi",
            "reverse-continue",
            WHEN,
            PC,
            "x/10i $pc",
            "info breakpoints",
        ]);
        assert_eq!(said.matches("Breakpoint 1, ").count(), 2, "{said}");
        // The loop it may be in has hits before and after.
        let (at, pcs) = (ticks(&said), answers(&said));
        assert!(at.contains(&3_000_000) || at.len() > 4, "{said}");
        assert!(
            pcs[0] == pcs[1] && format!("*{:#x}", pcs[0]) == pc,
            "{said}"
        );
        assert!(said.contains("already hit 2 times"), "{said}");
        assert!(said.matches("\n   0x").count() >= 9, "{said}");
    }
}

#[test]
fn a_watchpoint_finds_the_write_in_both_directions() {
    if !has_gdb() {
        return;
    }
    let server = Server::start(PLACE);
    let address = answers(&server.gdb(&["p/x $sp"]))[0] & !7;
    let watch = format!("watch *(unsigned long *) {:#x}", address - 8);
    let said = server.gdb(&[
        &watch,
        "continue",
        WHEN,
        "continue",
        WHEN,
        "reverse-continue",
        WHEN,
        "reverse-continue",
        WHEN,
        "reverse-stepi",
        "stepi",
        "stepi",
        WHEN,
        &format!("monitor last-write {:#x}", address - 8),
        WHEN,
    ]);
    let at = ticks(&said);
    assert_eq!(at.len(), 6, "{said}");
    assert!(at[0] > 3_000_000 && at[1] > at[0], "{said}");
    // Backward it stops before the write, so that the old value is there.
    assert_eq!(
        (at[2], at[3], at[4], at[5]),
        (at[1] - 1, at[0] - 1, at[0], at[0]),
        "{said}"
    );
    let values: Vec<&str> = said
        .lines()
        .filter(|l| l.starts_with("Old value") || l.starts_with("New value"))
        .collect();
    let value = |n: usize| values[n].rsplit(' ').next().unwrap();
    assert_eq!((value(4), value(5)), (value(3), value(2)), "{said}");
    assert_eq!((value(6), value(7)), (value(1), value(0)), "{said}");
    assert!(
        said.contains(&format!("was last written at @{} ", at[0] - 1)),
        "{said}"
    );
}

#[test]
fn what_cannot_be_is_refused_and_said() {
    if !has_gdb() {
        return;
    }
    let server = Server::start(PLACE);
    let said = server.gdb(&[
        "x/4xb 0x7ffffffff000",
        "x/i $pc",
        "p $rax = 1",
        "set *(int *) $sp = 1",
        "info threads",
        "monitor seek @7M",
        "monitor seek nowhere",
        "monitor nonsense",
        "monitor seek e0",
        WHEN,
        "p/x $cr3",
        "p/x $gs_base",
        "monitor checkpoint",
        "monitor seek 50%",
        "monitor restart 1",
        WHEN,
        "monitor info registers",
        "monitor seek t0.004",
        WHEN,
    ]);
    assert!(
        said.contains("Cannot access memory at address 0x7ffffffff000"),
        "{said}"
    );
    assert!(
        said.contains("a recorded execution cannot be changed"),
        "{said}"
    );
    assert!(said.contains("vCPU 0, kernel, @3000000"), "{said}");
    assert!(
        said.contains("@7000000 is not in the recording") || said.contains("no @7000000"),
        "{said}"
    );
    assert!(said.contains("`nowhere` is not a position"), "{said}");
    assert!(said.contains("unknown command: `nonsense`"), "{said}");
    assert!(
        answers(&said)[0] & 0xfff == 0 && answers(&said)[0] != 0,
        "{said}"
    );
    assert!(said.contains("Checkpoint 1 at @"), "{said}");
    assert!(said.contains("CR3="), "{said}");
    assert_eq!(ticks(&said).last(), Some(&4_000_000), "{said}");
}

/// A machine that is being recorded stops for gdb, and its recording knows nothing of it.
#[test]
fn a_machine_that_is_recorded_is_looked_at() {
    if !has_gdb() {
        return;
    }
    let sandbox = Sandbox::new();
    let kernel = common::kernel("6.1");
    let address = |name: &str| {
        let found = sandbox.ok(&["symbols", "--kernel", &kernel, name]).out;
        let digits = found.strip_prefix("0x").unwrap();
        let end = digits.find(|c: char| !c.is_ascii_hexdigit());
        format!("0x{}", &digits[..end.unwrap_or(digits.len())])
    };
    let (clone, banner) = (address("kernel_clone"), address("linux_banner"));
    let socket = sandbox.path("gdb.sock");
    let socket = socket.to_str().unwrap();
    let mut record = sandbox
        .command(&[
            "record", "--kernel", &kernel, "--memory", "128M", "-o", "live.clt",
        ])
        .args([
            "--gdb",
            socket,
            "--",
            "while read x; do (echo got $x); [ $x = three ] && exit 7; done",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut keys = record.stdin.take().unwrap();
    let mut output = BufReader::new(record.stdout.take().unwrap());
    let mut line = String::new();
    writeln!(keys, "one").unwrap();
    while !line.contains("got one") {
        line.clear();
        assert!(output.read_line(&mut line).unwrap() > 0);
    }
    // The guest waits for a key that comes once gdb waits for the guest.
    let gdb = |commands: &[&str]| {
        let mut gdb = Command::new("gdb");
        gdb.args(["-nx", "-batch", "-ex", "set pagination off"]);
        gdb.args(["-ex", &format!("target remote {socket}")]);
        for command in commands {
            gdb.args(["-ex", command]);
        }
        gdb.stdin(Stdio::null()).stdout(Stdio::piped());
        gdb.stderr(Stdio::inherit()).spawn().unwrap()
    };
    let here = format!("break *{clone}");
    let banner = format!("x/s {banner}");
    let asked = gdb(&[
        &here,
        "continue",
        PC,
        &banner,
        "stepi",
        "p $rax = 1",
        "reverse-stepi",
        "detach",
    ]);
    thread::sleep(Duration::from_millis(500));
    writeln!(keys, "two").unwrap();
    let said = asked.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert_eq!(format!("{:#x}", answers(&said)[0]), clone, "{said}");
    assert!(said.contains("Linux version 6.1"), "{said}");
    // Killed in the middle, and gone.
    let mut killed = gdb(&["continue"]);
    thread::sleep(Duration::from_millis(300));
    killed.kill().unwrap();
    killed.wait().unwrap();
    writeln!(keys, "three").unwrap();
    drop(keys);
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert!(
        rest.contains("got two") && rest.contains("got three"),
        "{rest}"
    );
    assert_eq!(record.wait().unwrap().code(), Some(7));
    sandbox.ok(&["verify", "live.clt"]);
    assert!(!std::path::Path::new(socket).exists());
}

/// As rr's own commands in gdb do.
#[test]
fn commands_of_rr_are_answered() {
    if !has_gdb() {
        return;
    }
    let server = Server::start(PLACE);
    // `seek-ticks 4000000`, `checkpoint` with a place that rr's script adds, and none.
    let said = server.gdb(&[
        "maint packet qRRCmd:seek-ticks:1:34303030303030",
        "maint packet qRRCmd:when-ticks:1",
        "maint packet qRRCmd:checkpoint:1:783a31",
        "maint packet qRRCmd:info checkpoints:-1",
        "maint packet qRRCmd:nonsense:1",
        WHEN,
        PC,
    ]);
    let received: Vec<String> = said
        .lines()
        .filter_map(|line| line.strip_prefix("received: \"")?.strip_suffix('"'))
        .map(|digits| {
            let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
            String::from_utf8((0..digits.len()).step_by(2).map(byte).collect()).unwrap()
        })
        .collect();
    assert_eq!(received.len(), 5, "{said}");
    assert!(
        received[0].starts_with("Current position: @4000000 "),
        "{said}"
    );
    assert_eq!(received[1], "Current tick: 4000000\n");
    assert_eq!(received[2], "Checkpoint 1 at @4000000\n");
    assert!(received[3].starts_with("1\t@4000000\n"), "{received:?}");
    assert!(
        received[4].contains("unknown command: `nonsense`"),
        "{received:?}"
    );
    // And the conversation goes on.
    assert_eq!(ticks(&said).last(), Some(&4_000_000), "{said}");
    assert_eq!(answers(&said).len(), 1, "{said}");
}

#[test]
fn one_debugger_at_a_time_and_the_next_after_it() {
    if !has_gdb() {
        return;
    }
    let server = Server::start(PLACE);
    let first = server.connect();
    // It has been taken up as soon as it answers.
    let mut asking = first.try_clone().unwrap();
    asking.write_all(b"$?#3f").unwrap();
    let mut byte = [0];
    asking.read_exact(&mut byte).unwrap();
    let refused = server.gdb(&[]);
    assert!(
        refused.contains("another debugger is attached"),
        "{refused}"
    );
    drop((first, asking));
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let said = server.gdb(&["stepi", WHEN, "detach"]);
        if ticks(&said) == [3_000_001] {
            break;
        }
        assert!(Instant::now() < deadline, "{said}");
    }
    // Where it was left.
    let said = server.gdb(&[WHEN, "monitor seek @5M", "kill"]);
    assert_eq!(ticks(&said), [3_000_001, 5_000_000], "{said}");
    assert_eq!(ticks(&server.gdb(&[WHEN])), [5_000_000]);
}

#[test]
fn noise_and_vanishing_clients_do_no_harm() {
    let server = Server::start(PLACE);
    let noise: Vec<u8> = (0..50_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    for bytes in [
        &noise[..],
        b"$vCont;s:zz#00",
        b"$m,#00",
        b"$Z9,,#00$qXfer:::#aa",
        b"$c#63",
        b"$",
    ] {
        let mut stream = server.connect();
        let _ = stream.write_all(bytes);
        drop(stream);
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let mut stream = server.connect();
        stream.write_all(b"$?#3f").unwrap();
        let mut answer = [0; 16];
        let n = stream.read(&mut answer).unwrap_or(0);
        let text = String::from_utf8_lossy(&answer[..n]).into_owned();
        if text.contains("T05") || n == 1 && answer[0] == b'+' {
            break;
        }
        assert!(Instant::now() < deadline, "{text}");
    }
}

/// What comes, up to something.
fn until(stream: &mut TcpStream, what: &[u8]) -> String {
    let mut told = Vec::new();
    let mut byte = [0];
    while !told.ends_with(what) {
        stream.read_exact(&mut byte).unwrap();
        told.push(byte[0]);
    }
    String::from_utf8_lossy(&told).into_owned()
}

#[test]
fn a_running_machine_is_interrupted_in_both_directions() {
    let server = Server::start("50%");
    let mut stream = server.connect();
    stream.write_all(b"$QStartNoAckMode#b0").unwrap();
    until(&mut stream, b"OK#9a");
    stream.write_all(b"+").unwrap();
    // The interrupt is there when the machine looks for the first time, however fast it runs: it
    // must neither be overlooked nor get to either end of the recording first.
    for resume in [&b"$c#63\x03"[..], b"$bc#c5\x03"] {
        stream.write_all(resume).unwrap();
        let told = until(&mut stream, b"#");
        assert!(told.contains("T02"), "{told}");
    }
}

#[test]
fn a_command_at_a_step_is_interrupted_as_a_run_is() {
    let hex = |text: &str| -> String { text.bytes().map(|b| format!("{b:02x}")).collect() };
    let server = Server::start("end");
    let mut stream = server.connect();
    // Whoever acknowledges packets interrupts nothing by that.
    for command in ["seek start", "seek end", "last-write 0xffffffff81000000:8"] {
        let payload = format!("qRcmd,{}", hex(&format!("at-step {command}")));
        let sum = payload.bytes().fold(0u8, u8::wrapping_add);
        write!(stream, "${payload}#{sum:02x}").unwrap();
        until(&mut stream, b"OK#9a");
        if command.starts_with("last-write") {
            stream.write_all(b"++$s#73+++\x03").unwrap();
            let said = until(&mut stream, b"$T02");
            assert!(said.contains(&hex("was not looked further")), "{said}");
        } else {
            stream.write_all(b"++$s#73+++").unwrap();
            let said = until(&mut stream, b"$T05");
            assert!(said.contains(&hex("Current position: @")), "{said}");
        }
        until(&mut stream, b"#");
    }
}

#[test]
fn a_command_is_run_at_a_step_instead_of_it() {
    if !has_gdb() {
        return;
    }
    let server = Server::start(PLACE);
    let said = server.gdb(&[
        "monitor at-step seek @4M",
        WHEN,
        "stepi",
        WHEN,
        PC,
        "stepi",
        "monitor at-step nonsense",
        "reverse-stepi",
        WHEN,
        "monitor seek @4M",
        "maintenance flush register-cache",
        PC,
    ]);
    let (at, there) = (3_000_000, 4_000_000);
    assert_eq!(ticks(&said), [at, there, there, there + 1, there], "{said}");
    assert!(said.contains("unknown command: `nonsense`"), "{said}");
    let pcs = answers(&said);
    assert_eq!(pcs[0], pcs[1], "{said}");
}

#[test]
fn a_signal_ends_the_server_though_a_debugger_keeps_it_stopped() {
    let mut server = Server::start(PLACE);
    let mut debugger = server.connect();
    debugger.write_all(b"+$?#3f").unwrap();
    assert!(debugger.read(&mut [0; 64]).unwrap() > 0);
    let pid = server.child.id().to_string();
    let sent = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    assert!(sent.success());
    let until = Instant::now() + Duration::from_secs(10);
    let status = loop {
        if let Some(status) = server.child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < until, "it goes on");
        thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(status.code(), Some(143));
}
