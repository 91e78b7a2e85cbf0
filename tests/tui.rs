//! The viewer on a real terminal: keys go in, and what is on the screen is looked at.

mod common;
mod terminal;

use std::process::Command;

use common::Sandbox;
use terminal::{Terminal, tick};

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
    let log = sandbox.ok(&["dump", "boot.clt", "-e", "KernelLog", "--json"]);
    let line = log.out.lines().find(|line| line.contains("Run /init"));
    let line: serde_json::Value = serde_json::from_str(line.unwrap()).unwrap();
    let at = line["tick"].as_u64().unwrap();
    // On the way there, what is typed finds other lines.
    terminal.wait("the line", |s| s.contains("Run /init") && tick(s) == at);
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
    terminal.wait("the task that runs", |s| {
        s.lines()
            .any(|l| l.contains("▶") && l.contains(" R debug-exit"))
    });
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

/// gdb at the place of the cursor, and back: the same cursor, the terminal as it was.
#[test]
fn gdb_is_opened_here_and_left_again() {
    let sandbox = Sandbox::new();
    boot(&sandbox);
    let terminal = Terminal::shell(&sandbox, (120, 40), "", "tui boot.clt");
    terminal.sees("timeline");
    terminal.line(":", "bp:kernel_clone#3");
    let there = terminal.wait("the function", |s| {
        s.contains("kernel_clone ─") && !s.contains("replaying")
    });
    let at = tick(&there);
    terminal.keys(&["g"]);
    terminal.sees("(clt)");
    terminal.tmux(&["send-keys", "-l", "info symbol $pc\nmonitor when\n"]);
    let asked = terminal.wait("answers of gdb", |s| {
        s.contains("kernel_clone in section") && s.contains(&at.to_string())
    });
    assert!(!asked.contains("timeline"), "{asked}");
    // An interrupt is gdb's; and the screen gets another size meanwhile.
    terminal.keys(&["C-c"]);
    terminal.sees("Quit");
    terminal.resize((100, 30));
    // Stopped and continued by the shell, gdb goes on.
    terminal.keys(&["C-z"]);
    terminal.sees("Stopped");
    terminal.tmux(&["send-keys", "-l", "fg\n"]);
    terminal.tmux(&["send-keys", "-l", "print 41+1\n"]);
    terminal.sees("= 42");
    terminal.tmux(&["send-keys", "-l", "reverse-stepi\nquit\n"]);
    let back = terminal.wait("the viewer", |s| {
        s.contains("timeline") && s.contains("? help")
    });
    assert_eq!(tick(&back), at, "{back}");
    assert!(back.lines().count() <= 30, "{back}");
    assert!(
        back.lines()
            .any(|line| line.ends_with('╮') && line.chars().count() == 100)
    );
    terminal.keys(&["4", "s"]);
    terminal.wait("a step", |s| tick(s) == at + 1);
    // Stopped by itself, the shell has its terminal; continued, the viewer has it.
    terminal.keys(&["C-z"]);
    let stopped = terminal.sees("Stopped");
    assert!(!stopped.contains("timeline"), "{stopped}");
    terminal.tmux(&["send-keys", "-l", "echo sh$((40+2)); fg\n"]);
    let back = terminal.wait("the viewer", |s| {
        s.contains("timeline") && s.contains("? help")
    });
    assert_eq!(tick(&back), at + 1);
    terminal.keys(&["q"]);
    let shell = terminal.sees("sh42");
    assert!(!shell.contains("timeline"), "{shell}");
    terminal.tmux(&["send-keys", "-l", "echo st$?\n"]);
    terminal.sees("st0");
    // Without gdb, a sentence.
    let none = Terminal::run(&sandbox, (120, 40), "PATH=/nowhere", "tui boot.clt");
    none.sees("timeline");
    none.keys(&["g"]);
    let said = none.sees("gdb is not installed");
    assert!(said.contains("timeline"), "{said}");
}

/// What becomes of the file while it is looked at.
#[test]
fn a_file_that_changes_is_noticed() {
    let sandbox = Sandbox::new();
    boot(&sandbox);
    let path = sandbox.path("boot.clt");
    let copy = |name: &str| {
        std::fs::copy(&path, sandbox.path(name)).unwrap();
        sandbox.path(name)
    };
    let (replaced, removed, cut) = (copy("replaced.clt"), copy("removed.clt"), copy("cut.clt"));
    let open = |name: &str| {
        let terminal = Terminal::run(&sandbox, (120, 40), "", &format!("tui {name}"));
        terminal.wait("the machine", |s| s.contains("▶"));
        terminal
    };
    let works = |terminal: &Terminal| {
        terminal.line(":", "t0.3");
        terminal.wait("a place", |s| s.contains("▶") && s.contains("t0.3"));
    };
    let terminal = open("removed.clt");
    std::fs::remove_file(removed).unwrap();
    terminal.wait("that it is removed", |s| {
        s.contains("removed.clt  removed") && s.contains("shown until you leave")
    });
    works(&terminal);
    terminal.line(":", "reload");
    terminal.wait("why not", |s| {
        s.contains("removed.clt") && s.contains("No such file")
    });
    works(&terminal);
    drop(terminal);
    // Another recording under the same name, then opened.
    let terminal = open("replaced.clt");
    sandbox.ok(&[
        "record",
        "-f",
        "--kernel",
        &common::kernel("6.1"),
        "--memory",
        "128M",
        "--until",
        "@300M",
        "-o",
        replaced.to_str().unwrap(),
    ]);
    terminal.sees("replaced.clt  replaced");
    terminal.line(":", "reload");
    terminal.wait("the other one", |s| {
        s.contains("opened again") && s.contains("M ticks") && !s.contains("replaced.clt  replaced")
    });
    drop(terminal);
    let terminal = open("cut.clt");
    let len = std::fs::metadata(&cut).unwrap().len();
    let file = std::fs::OpenOptions::new().write(true).open(&cut).unwrap();
    file.set_len(len / 2).unwrap();
    terminal.sees("cut.clt  cut short");
    terminal.line(":", "reload");
    terminal.wait("what is left", |s| {
        s.contains("timeline") && !s.contains("cut short")
    });
    drop(terminal);
    // A file that was cut before: what lacks is said.
    let cut_at = |share: u64| file.set_len(len * share / 100).unwrap();
    cut_at(48);
    let terminal = Terminal::run(&sandbox, (80, 24), "", "tui cut.clt");
    let shown = terminal.wait("a sentence", |s| {
        s.contains("cut.clt") && s.contains("lost")
    });
    assert!(!shown.contains("live"), "{shown}");
}

/// Recordings that have less than others: no events, no checkpoints, no debug information.
#[test]
fn what_lacks_is_said_and_the_rest_is_shown() {
    let sandbox = Sandbox::new();
    let kernel = common::kernel("6.1");
    let record = |name: &str, options: &[&str]| {
        let path = sandbox.path(name);
        let mut args = vec![
            "record", "--kernel", &kernel, "--memory", "128M", "--until", "@400M",
        ];
        args.extend(options);
        args.extend(["-o", path.to_str().unwrap(), "--", "true"]);
        sandbox.ok(&args);
    };
    record("bare.clt", &["--no-trace", "--checkpoint-interval", "0"]);
    // No kernel of the cache lends its debug image here.
    let nothing = format!("XDG_CACHE_HOME={}", sandbox.path("cache").display());
    let terminal = Terminal::run(&sandbox, (80, 24), &nothing, "tui bare.clt");
    terminal.sees("the recording has no task switches");
    terminal.keys(&["4"]);
    terminal.wait("the machine", |s| s.contains("▶"));
    terminal.line(":", "50%");
    let shown = terminal.wait("the machine there", |s| {
        s.contains("▶") && tick(s) > 100_000_000
    });
    terminal.keys(&["S"]);
    terminal.wait("a step back", |s| tick(s) == tick(&shown) - 1);
    terminal.keys(&["v"]);
    terminal.sees("debug image is not here");
    terminal.keys(&["3"]);
    terminal.sees("no lines of the kernel's log");
    terminal.keys(&["i"]);
    terminal.sees("nothing to its console");
    terminal.keys(&["9"]);
    terminal.wait("no checkpoints", |s| {
        s.contains("9 places") && !s.contains("cp:")
    });
    terminal.keys(&["8"]);
    terminal.sees("[swapper/0]");
    // What there is none of is named in the help.
    terminal.keys(&["?"]);
    terminal.sees("This recording lacks");
}
