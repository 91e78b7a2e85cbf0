//! A real terminal: keys go in, and what is on the screen is looked at.

#![allow(dead_code, reason = "each test file uses its part")]

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::Sandbox;

/// Longest wait for something to appear on the screen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A terminal of tmux, on a server of its own.
pub(crate) struct Terminal {
    server: String,
}

impl Terminal {
    /// Runs the binary in a terminal of this size; its exit status is shown after its end.
    pub(crate) fn run(sandbox: &Sandbox, size: (u16, u16), environment: &str, args: &str) -> Self {
        let command = command(environment, args);
        Self::script(
            sandbox,
            size,
            &format!("{command}; echo \"status $?\"; exec cat"),
        )
    }

    /// The same from a shell with job control, whose prompt is `ready>`.
    pub(crate) fn shell(
        sandbox: &Sandbox,
        size: (u16, u16),
        environment: &str,
        args: &str,
    ) -> Self {
        let terminal = Self::script(sandbox, size, "PS1='ready> ' exec bash --norc -i");
        terminal.sees("ready>");
        terminal.tmux(&["send-keys", "-l", &command(environment, args)]);
        terminal.keys(&["Enter"]);
        terminal
    }

    fn script(sandbox: &Sandbox, size: (u16, u16), script: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let server = format!("clt-test-{}-{number}", std::process::id());
        let terminal = Terminal { server };
        let script = format!("cd {}; {script}", sandbox.path("").display());
        let (width, height) = (size.0.to_string(), size.1.to_string());
        terminal.tmux(&["new-session", "-d", "-x", &width, "-y", &height, &script]);
        terminal
    }

    /// The screen with its colours and other looks.
    pub(crate) fn styled_screen(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e"])
    }

    pub(crate) fn resize(&self, (width, height): (u16, u16)) {
        let (width, height) = (width.to_string(), height.to_string());
        self.tmux(&["resize-window", "-x", &width, "-y", &height]);
    }

    pub(crate) fn tmux(&self, args: &[&str]) -> String {
        let output = Command::new("tmux")
            .args(["-L", &self.server, "-f", "/dev/null"])
            .args(args)
            .output()
            .expect("tmux runs (scripts/test installs it)");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until the screen is as it should be.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, is: impl Fn(&str) -> bool) -> String {
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
    pub(crate) fn sees(&self, text: &str) -> String {
        self.wait(text, |screen| screen.contains(text))
    }

    /// Keys by tmux' names.
    pub(crate) fn keys(&self, keys: &[&str]) {
        let mut args = vec!["send-keys"];
        args.extend(keys);
        self.tmux(&args);
    }

    /// A line, from the key that begins it to Enter.
    pub(crate) fn line(&self, begin: &str, text: &str) {
        self.keys(&[begin]);
        self.tmux(&["send-keys", "-l", text]);
        self.keys(&["Enter"]);
    }

    pub(crate) fn pid(&self) -> i32 {
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

/// What is typed to run the binary.
fn command(environment: &str, args: &str) -> String {
    let binary = env!("CARGO_BIN_EXE_colinux-trace");
    format!(
        "env LANG=C.UTF-8 TERM=screen-256color COLINUX_TRACE_DIR=store {environment} {binary} {args}"
    )
}

/// The tick in the bar at the top; none has the largest, as while the screen is cleared.
pub(crate) fn tick(screen: &str) -> u64 {
    let bar = screen.lines().next().unwrap_or_default();
    let Some(at) = bar.rfind('@') else {
        return u64::MAX;
    };
    let digits = bar[at + 1..]
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == ',');
    digits
        .filter(char::is_ascii_digit)
        .collect::<String>()
        .parse()
        .unwrap()
}
