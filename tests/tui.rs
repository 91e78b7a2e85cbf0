//! The viewer on a real terminal: keys go in, and what is on the screen is looked at.

mod common;

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::Sandbox;
use serde_json::Value;

/// Longest wait for something to appear on the screen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A terminal of tmux, on a server of its own.
struct Terminal {
    server: String,
}

impl Terminal {
    /// Runs the binary in a terminal of this size; its exit status is shown after its end.
    fn run(sandbox: &Sandbox, size: (u16, u16), environment: &str, args: &str) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let server = format!("clt-test-{}-{number}", std::process::id());
        let terminal = Terminal { server };
        let binary = env!("CARGO_BIN_EXE_colinux-trace");
        let script = format!(
            "cd {}; env LANG=C.UTF-8 TERM=screen-256color COLINUX_TRACE_DIR=store {environment} {binary} {args}; \
             echo \"status $?\"; exec cat",
            sandbox.path("").display()
        );
        let (width, height) = (size.0.to_string(), size.1.to_string());
        terminal.tmux(&["new-session", "-d", "-x", &width, "-y", &height, &script]);
        terminal
    }

    fn tmux(&self, args: &[&str]) -> String {
        let output = Command::new("tmux")
            .args(["-L", &self.server, "-f", "/dev/null"])
            .args(args)
            .output()
            .expect("tmux runs (scripts/test installs it)");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until the screen is as it should be.
    #[track_caller]
    fn wait(&self, what: &str, is: impl Fn(&str) -> bool) -> String {
        let began = Instant::now();
        loop {
            let screen = self.screen();
            if is(&screen) {
                return screen;
            }
            assert!(began.elapsed() < PATIENCE, "no {what}:\n{screen}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    #[track_caller]
    fn sees(&self, text: &str) -> String {
        self.wait(text, |screen| screen.contains(text))
    }

    /// Keys by tmux' names.
    fn keys(&self, keys: &[&str]) {
        let mut args = vec!["send-keys"];
        args.extend(keys);
        self.tmux(&args);
    }

    /// A line, from the key that begins it to Enter.
    fn line(&self, begin: &str, text: &str) {
        self.keys(&[begin]);
        self.tmux(&["send-keys", "-l", text]);
        self.keys(&["Enter"]);
    }

    fn pid(&self) -> i32 {
        let pane = self.tmux(&["display-message", "-p", "#{pane_pid}"]);
        let children = format!("/proc/{0}/task/{0}/children", pane.trim());
        let children = std::fs::read_to_string(children).unwrap();
        children.split_whitespace().next().unwrap().parse().unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

/// The tick in the bar at the top.
fn tick(screen: &str) -> u64 {
    let bar = screen.lines().next().unwrap_or_default();
    let at = bar
        .rfind('@')
        .unwrap_or_else(|| panic!("no tick: {screen}"));
    let digits = bar[at + 1..]
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == ',');
    digits
        .filter(char::is_ascii_digit)
        .collect::<String>()
        .parse()
        .unwrap()
}

fn boot(sandbox: &Sandbox) {
    let kernel = common::kernel("6.1");
    let path = sandbox.path("boot.clt");
    sandbox.ok(&[
        "record",
        "--kernel",
        &kernel,
        "--memory",
        "128M",
        "-o",
        path.to_str().unwrap(),
        "--",
        "ls /; true",
    ]);
}

#[test]
fn a_walk_through_a_boot() {
    let sandbox = Sandbox::new();
    boot(&sandbox);
    let terminal = Terminal::run(&sandbox, (120, 40), "", "boot.clt");
    // Open: the timeline, the events, the machine at the first of them.
    terminal.sees("syscall");
    terminal.sees("PpramAlloc");
    terminal.sees("x86_64_start_kernel");
    // The first page fault of a task.
    terminal.line("&", "GuestPf task=ls");
    terminal.keys(&["<"]);
    let first = terminal.wait("page fault of ls", |s| {
        s.contains("GuestPf task=ls  ")
            && s.contains("ls-")
            && s.contains("t1.")
            && !s.contains("replaying")
    });
    let fault = tick(&first);
    let dump = sandbox.ok(&[
        "dump",
        "boot.clt",
        "-e",
        "GuestPf",
        "--json",
        "--from",
        &format!("@{fault}"),
        "-n",
        "1",
    ]);
    assert!(
        dump.out.contains(&format!("\"tick\":{fault}")),
        "{}",
        dump.out
    );
    // Zoom: a column is less time than before.
    let columns = |s: &str| {
        let at = s.find(" ticks a column").unwrap();
        s[..at].rsplit(' ').next().unwrap().to_owned()
    };
    let before = columns(&first);
    terminal.keys(&["+", "+", "+"]);
    terminal.wait("zoom", |s| columns(s) != before);
    // Steps, back and on again.
    terminal.keys(&["4", "S", "S", "S"]);
    let back = terminal.wait("steps back", |s| tick(s) == fault - 3);
    assert!(back.contains("▶"), "{back}");
    terminal.keys(&["s", "s", "s"]);
    terminal.wait("steps on", |s| tick(s) == fault);
    // Out of the function, and back to the call that led into it.
    terminal.keys(&["F"]);
    let call = terminal.wait("the call", |s| tick(s) < fault && s.contains("▶"));
    let line = call.lines().find(|l| l.contains("▶")).unwrap();
    assert!(
        line.contains("call ") || line.contains("sys") || line.contains("int"),
        "{call}"
    );
    // A line of the log: search, and land on the tick that printed it.
    terminal.keys(&["3"]);
    terminal.line("/", "Run /init");
    let init = terminal.wait("the line", |s| {
        s.contains("Run /init") && tick(s) < fault - 1000
    });
    let at = tick(&init);
    let log = sandbox.ok(&[
        "dump",
        "boot.clt",
        "-e",
        "KernelLog",
        "--json",
        "--from",
        &format!("@{at}"),
        "-n",
        "1",
    ]);
    assert!(log.out.contains("Run /init"), "{}", log.out);
    // A bookmark is in the recording, for whoever opens it next.
    terminal.line(":", "bookmark init where userland begins");
    terminal.sees("bm:init is kept in the recording");
    terminal.keys(&["G"]);
    terminal.line(":", "bm:init");
    terminal.wait("the bookmark", |s| tick(s) == at);
    terminal.keys(&["q"]);
    terminal.sees("status 0");
    let again = Terminal::run(&sandbox, (80, 24), "", "tui boot.clt --goto 50%");
    again.wait("the events", |s| s.contains("events"));
    again.keys(&["9"]);
    let places = again.sees("where userland begins");
    assert!(places.contains("bm:init"), "{places}");
    again.keys(&["Enter"]);
    again.wait("the bookmark", |s| tick(s) == at);
    sandbox.ok(&["verify", "boot.clt"]);
}

#[test]
fn the_machine_at_the_end_of_a_boot() {
    let sandbox = Sandbox::new();
    boot(&sandbox);
    let terminal = Terminal::run(&sandbox, (240, 67), "", "tui boot.clt --goto end");
    // Tasks, memory, registers, the log, all of that moment.
    terminal.sees("[kthreadd]");
    terminal.sees("at the stack pointer");
    terminal.line(":", "p task_struct init_task");
    let printed = terminal.sees("thread_info");
    assert!(printed.contains("task_struct at 0xffffffff"), "{printed}");
    terminal.line(":", "memory linux_banner");
    terminal.sees("Linux ve");
}

#[test]
fn the_terminal_is_given_back() {
    let sandbox = Sandbox::new();
    boot(&sandbox);
    for signal in ["TERM", "HUP"] {
        let terminal = Terminal::run(&sandbox, (80, 24), "", "tui boot.clt");
        terminal.sees("timeline");
        let pid = terminal.pid().to_string();
        let killed = Command::new("kill")
            .args(["-s", signal, &pid])
            .status()
            .unwrap();
        assert!(killed.success());
        let shown = terminal.sees("status 1");
        assert!(!shown.contains("timeline"), "{shown}");
        // Echo and lines are back.
        terminal.tmux(&["send-keys", "-l", "hello"]);
        terminal.keys(&["Enter"]);
        terminal.wait("echo", |s| s.matches("hello").count() >= 2);
    }
}

#[test]
fn a_recording_is_seen_while_it_is_made() {
    let sandbox = Sandbox::new();
    let kernel = common::kernel("6.1");
    let record = |name: &str, command: &str| {
        format!("record --tui --kernel {kernel} --memory 128M -o {name} -- '{command}'")
    };
    // One that would not end by itself: the viewer follows it, and its end is the recording's.
    let terminal = Terminal::run(
        &sandbox,
        (120, 40),
        "",
        &record("long.clt", "while true; do ls /; done"),
    );
    let events = |screen: &str| {
        let words: Vec<&str> = screen.lines().next()?.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "events")?;
        words[at - 1].replace(',', "").parse::<u64>().ok()
    };
    let shown = terminal.wait("live recording", |s| {
        s.contains("long.clt  live") && events(s).is_some_and(|n| n > 0)
    });
    terminal.wait("growth", |s| events(s) > events(&shown));
    terminal.keys(&["q"]);
    let shown = terminal.sees("status ");
    assert!(shown.contains("status 0"), "{shown}");
    assert!(shown.contains("recorded "), "{shown}");
    let info: Value = serde_json::from_str(&sandbox.ok(&["info", "--json", "long.clt"]).out)
        .expect("info --json is JSON");
    assert_eq!(info["complete"], true, "{info}");
    // One that ends: its status is the viewer's.
    let terminal = Terminal::run(&sandbox, (120, 40), "", &record("short.clt", "exit 7"));
    terminal.wait("the end of the recording", |s| {
        s.contains("short.clt") && !s.contains("live") && events(s).is_some()
    });
    terminal.keys(&["q"]);
    terminal.sees("status 7");
    // One that never begins says why.
    let terminal = Terminal::run(&sandbox, (120, 40), "", &record("short.clt", "true"));
    let shown = terminal.sees("status 69");
    assert!(shown.contains("short.clt"), "{shown}");
    let run = sandbox.run(&["record", "--tui"]);
    assert_eq!(run.code, Some(69));
    assert!(run.err.contains("wants a terminal"), "{run}");
}

#[test]
fn where_it_cannot_draw_it_says_so() {
    let sandbox = Sandbox::new();
    boot(&sandbox);
    let run = sandbox.run(&["tui", "boot.clt"]);
    assert_eq!(run.code, Some(69));
    assert!(run.err.contains("wants a terminal"), "{run}");
    let terminal = Terminal::run(&sandbox, (80, 24), "TERM=dumb", "tui boot.clt");
    let shown = terminal.sees("status 69");
    assert!(shown.contains("TERM=dumb"), "{shown}");
    let terminal = Terminal::run(&sandbox, (80, 24), "", "tui nothing.clt");
    let shown = terminal.sees("status 4");
    assert!(shown.contains("no such recording"), "{shown}");
    let terminal = Terminal::run(&sandbox, (80, 24), "NO_COLOR=1 LANG=C", "tui boot.clt");
    let shown = terminal.sees("timeline");
    assert!(shown.is_ascii(), "{shown}");
}
