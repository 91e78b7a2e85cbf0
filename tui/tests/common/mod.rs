//! Recordings made on the spot, and a terminal without a terminal.

#![allow(dead_code, reason = "each test file uses its part")]

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use colinux_replay::{ConsoleLine, Host, HostIdle, HostTurn, RecordConfig, Recorder};
use colinux_symbols::Gva;
use colinux_symbols::ps::{Task, TaskState};
use colinux_tracer::{
    Comm, EndReason, Event, HostInfo, Levels, LogClass, MarkOrigin, Note, Options, PassageReason,
    Reader, RecordEnd, ShutdownKind, StateDigest, Writer,
};
use colinux_tui::key::Key;
use colinux_tui::moment::{FrameLine, ModuleLine, SourceText};
use colinux_tui::{App, Places, Settings, Theme, view};
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{Event as Input, KeyModifiers, MouseEvent, MouseEventKind};
use ratatui::layout::Rect;
use ratatui::style::Style;

/// Folder of this run's recordings.
fn folder() -> &'static PathBuf {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let dir = FOLDER.get_or_init(|| tempfile::tempdir().unwrap());
        dir.path().to_owned()
    })
}

/// A new name in it, the file's own name always the same.
fn path(name: &str) -> PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let folder = folder().join(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
    std::fs::create_dir_all(&folder).unwrap();
    folder.join(name)
}

fn options() -> Options {
    Options {
        chunk_rows: 64,
        batch_rows: 16,
        sync: false,
        ..Options::default()
    }
}

/// Nothing happened.
pub(crate) fn empty() -> Reader {
    let path = path("empty.clt");
    let mut writer = Writer::create(&path, options()).unwrap();
    writer.manifest(&Default::default()).unwrap();
    finish(writer, 1000);
    Reader::open(path).unwrap()
}

fn finish(writer: Writer, tick: u64) {
    let end = RecordEnd {
        reason: EndReason::GuestShutdown,
        tick,
        digest: StateDigest::default(),
    };
    writer.finish(end).unwrap();
}

/// Tasks that take turns, with faults, calls, a log, an oops, a mark and a note; no machine to it.
pub(crate) fn events() -> Reader {
    let path = path("events.clt");
    let mut writer = Writer::create(&path, options()).unwrap();
    writer.manifest(&Default::default()).unwrap();
    let tasks = [(0, "swapper/0"), (1, "init"), (42, "sh"), (57, "cat")];
    let mut push = |tick: u64, event: Event| writer.push(tick, event).unwrap();
    for n in 0..400u64 {
        let tick = 1_000_000 + n * 2_500_000;
        let (before, now) = (
            tasks[(n / 10 % 4) as usize],
            tasks[((n / 10 + 1) % 4) as usize],
        );
        let comm = |name: &str| Comm::new(name.as_bytes());
        match n % 10 {
            9 => push(
                tick,
                Event::TaskSwitch {
                    prev_pid: before.0,
                    prev_tid: before.0,
                    prev_state: 1,
                    prev_comm: comm(before.1),
                    next_pid: now.0,
                    next_tid: now.0,
                    next_comm: comm(now.1),
                },
            ),
            0 | 5 => push(
                tick,
                Event::KernelLog {
                    level: 6,
                    stamp: tick,
                    class: LogClass::Plain,
                    text: format!("device {n}: link is up"),
                },
            ),
            1 | 6 => push(
                tick,
                Event::SyscallEnter {
                    nr: (n % 7) as u32,
                    args: [n, 0x7ffc_1000, 0x100, 0, 0, 0],
                    rip: 0x40_1000,
                },
            ),
            2 | 7 => push(
                tick,
                Event::SyscallExit {
                    nr: (n % 7) as u32,
                    ret: if n % 3 == 0 { -2 } else { 64 },
                    insns: 900,
                },
            ),
            3 if n / 10 % 4 == 2 => push(
                tick,
                Event::GuestPf {
                    gva: 0x5000 + n * 0x1000,
                    gpa: 0,
                    error: 6,
                    rip: 0x40_2000,
                    cpl: 3,
                },
            ),
            _ => push(
                tick,
                Event::PassageLeave {
                    reason: PassageReason::Quantum,
                    rip: 0xffff_ffff_8100_0000 + n,
                    cpl: 0,
                    insns: 2_500_000,
                },
            ),
        }
    }
    let tick = 1_001_000_000;
    push(
        tick,
        Event::Oops {
            class: LogClass::Oops,
            rip: 0xffff_ffff_8100_1234,
            error: 2,
            tid: 42,
            comm: Comm::new(b"sh"),
            text: "BUG: kernel NULL pointer dereference, address: 0000000000000008".to_owned(),
        },
    );
    push(
        tick + 500,
        Event::Mark {
            origin: MarkOrigin::Guest,
            text: "after the oops".to_owned(),
        },
    );
    push(
        tick + 1000,
        Event::GuestShutdown {
            kind: ShutdownKind::PowerOff,
            code: 0,
        },
    );
    writer
        .note(Note {
            tick: 500_000_000,
            name: "middle".to_owned(),
            text: "half way".to_owned(),
        })
        .unwrap();
    finish(writer, tick + 1000);
    Reader::open(path).unwrap()
}

/// A guest that writes to its console.
pub(crate) fn console() -> Reader {
    let path = path("console.clt");
    finish(write_console(&path), 10_000);
    Reader::open(path).unwrap()
}

/// The same while it is being recorded, as the lock says.
pub(crate) fn console_live() -> (Reader, std::fs::File) {
    let path = path("console.clt");
    write_console(&path).close().unwrap();
    let file = std::fs::File::open(&path).unwrap();
    file.lock().unwrap();
    (Reader::open(path).unwrap(), file)
}

fn write_console(path: &PathBuf) -> Writer {
    let mut writer = Writer::create(path, options()).unwrap();
    writer.manifest(&Default::default()).unwrap();
    let lines = [
        "first line\r\n",
        "\x1b[1;31msecond\x1b[0m, in colours, \x1b[7mreversed\x1b[0m\r\n",
        "overwritten\rOVER\r\n",
        "wide 漢字 and \x1b[4munderlined\x1b[0m\r\n",
    ];
    for (n, line) in lines.into_iter().enumerate() {
        let event = Event::ConsoleOut {
            port: 0,
            bytes: line.as_bytes().to_vec(),
        };
        writer.push(1000 + 1000 * n as u64, event).unwrap();
    }
    writer
}

/// Puts a kernel's tasks, modules, source and inlined frames where this machine has none.
pub(crate) fn furnish(app: &mut App) {
    let mut moment = (**app.model.moment.as_ref().unwrap()).clone();
    let task = |pid: i32, ppid: i32, comm: &str, state, is_kernel| Task {
        gva: Gva(0xffff_8880_0000_0000 + pid as u64 * 0x1000),
        pid,
        tgid: pid,
        ppid,
        comm: comm.to_owned(),
        state,
        is_kernel,
        stack: Gva(0),
        saved_sp: None,
    };
    moment.tasks = Ok(Arc::new(vec![
        task(1, 0, "init", TaskState::Sleeping, false),
        task(2, 0, "kthreadd", TaskState::Sleeping, true),
        task(42, 1, "a-name-of-15-ch", TaskState::Running, false),
        task(57, 42, "cat", TaskState::Zombie, false),
    ]));
    moment.current = Some(42);
    let module = |name: &str, size, base| ModuleLine {
        name: name.to_owned(),
        size,
        state: "Live",
        base,
    };
    moment.modules = Ok(vec![
        module("virtio_blk", 28_672, Some(0xffff_ffff_c000_0000)),
        module("virtio_net", 73_728, Some(0xffff_ffff_c001_0000)),
        module("crc32c_generic", 16_384, None),
    ]);
    let lines = (1..=60).map(|n| match n {
        40 => "\tnext = pick_next_task(rq, prev, &rf);".to_owned(),
        _ => format!("/* line {n} */"),
    });
    moment.source = Ok(SourceText {
        file: "kernel/sched/core.c".to_owned(),
        line: 340,
        first: 301,
        lines: lines
            .map(|line| colinux_tui::text::expand(&line, 4))
            .collect(),
    });
    let frame = |ip, name: &str, line, inlined, method| FrameLine {
        ip,
        name: name.to_owned(),
        source: Some(("kernel/sched/core.c".to_owned(), line)),
        inlined,
        method,
    };
    moment.stack = vec![
        frame(1, "pick_next_task", 5990, true, "orc"),
        frame(1, "__schedule+0x2c6", 340, false, "orc"),
        frame(2, "schedule+0x5a", 6636, false, "orc"),
        frame(
            3,
            "a_function_whose_name_is_rather_long_for_a_panel+0x1234",
            1,
            false,
            "fp",
        ),
        frame(4, "guessed", 2, false, "scan"),
    ];
    app.model.moment = Some(Arc::new(moment));
}

/// Where the guest's code begins, its call, its store, and what is stored to.
const ENTRY: u64 = 0x100_0000;
pub(crate) const CALL: u64 = ENTRY + 10;
pub(crate) const STORE: u64 = ENTRY + 25;
pub(crate) const CELL: u64 = 0x100_0800;

/// A guest that stores a number that counts down, in a function, until it is zero, and halts.
#[rustfmt::skip]
const CODE: &[u8] = &[
    0xbc, 0x00, 0x10, 0x00, 0x01,                         // 00  mov esp, 0x1001000
    0xb9, 0x14, 0x00, 0x00, 0x00,                         // 05  mov ecx, 20
    0xe8, 0x06, 0x00, 0x00, 0x00,                         // 0a  call 15
    0xff, 0xc9,                                           // 0f  dec ecx
    0x75, 0xf7,                                           // 11  jnz 0a
    0xfa, 0xf4,                                           // 13  cli; hlt
    0x55,                                                 // 15  push rbp
    0x48, 0x89, 0xe5,                                     // 16  mov rbp, rsp
    0x48, 0x89, 0x0c, 0x25, 0x00, 0x08, 0x00, 0x01,       // 19  mov [0x1000800], rcx
    0x5d,                                                 // 21  pop rbp
    0xc3,                                                 // 22  ret
];

struct Nobody;

impl Host for Nobody {
    fn output(&mut self, _: &[u8]) {}
    fn turn(&mut self, _: ConsoleLine) -> HostTurn {
        HostTurn::default()
    }
    fn idle(&mut self, _: Option<u64>, _: ConsoleLine) -> HostIdle {
        HostIdle::Jump
    }
}

/// An ELF file with one segment, where it is linked and loaded alike.
fn elf(code: &[u8]) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    for half in [2u16, 62] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1u32.to_le_bytes());
    for word in [ENTRY, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    for word in [1u32, 7] {
        file.extend(word.to_le_bytes());
    }
    let gva = 0xffff_ffff_8000_0000 + ENTRY;
    let size = code.len() as u64;
    for word in [120, gva, ENTRY, size, 0x2000, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    file
}

/// A machine that runs that guest, recorded.
pub(crate) fn guest() -> Reader {
    let path = path("guest.clt");
    let config = RecordConfig {
        kernel: elf(CODE).into(),
        initrd: None,
        cmdline: String::new(),
        memory: 32 << 20,
        ns_per_tick: 1,
        seed: 0,
        epoch: 0,
        levels: Levels::default(),
        digest_interval: 0,
        as_bzimage: false,
        command: None,
    };
    let info = HostInfo::default();
    let recorder = Recorder::create(config, &path, options(), &info, u64::MAX).unwrap();
    recorder.run(&mut Nobody, |_| HostInfo::default()).unwrap();
    Reader::open(path).unwrap()
}

/// The viewer with a screen in memory.
pub(crate) struct Terminal {
    pub(crate) app: App,
    screen: ratatui::Terminal<TestBackend>,
}

impl Terminal {
    pub(crate) fn open(reader: Reader, (width, height): (u16, u16), theme: Theme) -> Self {
        let settings = Settings {
            theme,
            places: Places::default(),
            area: Rect::new(0, 0, width, height),
        };
        let app = App::open(reader, settings).unwrap();
        let screen = ratatui::Terminal::new(TestBackend::new(width, height)).unwrap();
        let mut terminal = Terminal { app, screen };
        terminal.settle();
        terminal
    }

    pub(crate) fn resize(&mut self, (width, height): (u16, u16)) {
        self.screen.backend_mut().resize(width, height);
        self.app.resize(Rect::new(0, 0, width, height));
    }

    /// Until every answer has come.
    pub(crate) fn settle(&mut self) {
        let began = Instant::now();
        let mut quiet = 0;
        while quiet < 2 {
            let heard = self.app.wait(Duration::from_millis(20));
            quiet = if heard || self.app.is_waiting() {
                0
            } else {
                quiet + 1
            };
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "no answer: {:?}",
                self.app.model
            );
        }
    }

    /// Keys by name, each with what comes of it.
    pub(crate) fn keys(&mut self, names: &str) {
        for name in names.split(' ') {
            self.app
                .key(Key::named(name).unwrap_or_else(|| panic!("{name}")));
            self.settle();
        }
    }

    /// The mouse, at a column and row of the screen.
    pub(crate) fn mouse(&mut self, kind: MouseEventKind, (column, row): (u16, u16)) {
        self.app.input(&Input::Mouse(MouseEvent {
            kind,
            column,
            row,
            modifiers: KeyModifiers::NONE,
        }));
    }

    /// Until a text is on the screen.
    pub(crate) fn until(&mut self, what: &str) {
        let began = Instant::now();
        while !text(self).contains(what) {
            self.app.wait(Duration::from_millis(5));
            self.app.catch_up();
            assert!(began.elapsed() < Duration::from_secs(60), "no {what}");
        }
    }

    /// Text into the line at the bottom.
    pub(crate) fn typed(&mut self, text: &str) {
        for c in text.chars() {
            let key = if c == ' ' {
                "Space".to_owned()
            } else {
                c.to_string()
            };
            self.keys(&key);
        }
    }

    /// A line, from the key that begins it to Enter.
    pub(crate) fn line(&mut self, begin: &str, text: &str) {
        self.keys(begin);
        self.typed(text);
        self.keys("Enter");
    }

    pub(crate) fn draw(&mut self) {
        self.screen
            .draw(|frame| {
                view::draw(&self.app.model, frame.buffer_mut());
            })
            .unwrap();
    }

    fn lines(&self) -> Vec<Vec<(String, Style)>> {
        let buffer = self.screen.backend().buffer();
        let cells: Vec<(String, Style)> = buffer
            .content()
            .iter()
            .map(|cell| (cell.symbol().to_owned(), cell.style()))
            .collect();
        cells
            .chunks(usize::from(buffer.area.width))
            .map(<[_]>::to_vec)
            .collect()
    }
}

/// The text of the screen.
pub(crate) fn text(terminal: &mut Terminal) -> String {
    terminal.draw();
    let mut out = String::new();
    for line in terminal.lines() {
        let line: String = line.into_iter().map(|(symbol, _)| symbol).collect();
        writeln!(out, "{}", line.trim_end()).unwrap();
    }
    out
}

/// The text of the screen, then a letter for the style of each cell, then what the letters mean.
pub(crate) fn screen(terminal: &mut Terminal) -> String {
    let mut out = text(terminal);
    let mut styles: Vec<Style> = Vec::new();
    out.push('\n');
    for line in terminal.lines() {
        let letters: String = line
            .iter()
            .map(|(_, style)| {
                let known = styles.iter().position(|s| s == style);
                let at = known.unwrap_or_else(|| {
                    styles.push(*style);
                    styles.len() - 1
                });
                char::from(b'a' + u8::try_from(at).unwrap())
            })
            .collect();
        writeln!(out, "{letters}").unwrap();
    }
    out.push('\n');
    for (n, style) in styles.iter().enumerate() {
        let letter = char::from(b'a' + u8::try_from(n).unwrap());
        let fg = style
            .fg
            .map_or_else(String::new, |c| format!(" on-black {c}"));
        let bg = style.bg.map_or_else(String::new, |c| format!(" over {c}"));
        writeln!(
            out,
            "{letter}{}{} {:?}",
            fg.replace("on-black ", ""),
            bg,
            style.add_modifier
        )
        .unwrap();
    }
    out
}
