//! The viewer of colinux-trace: a recording on a screen, walked through in both directions.
//!
//! [`App`] is the viewer without a terminal: a frozen [`model::Model`] that is drawn, and workers that
//! fill it. [`run`] puts it on a terminal. Drawing reads the model alone, so that it never waits.

pub mod action;
pub mod app;
mod apply;
pub mod command;
mod commands;
pub mod console;
pub mod density;
pub mod describe;
pub mod filter;
mod follow;
mod hear;
mod input;
pub mod key;
pub mod line;
pub mod list;
pub mod model;
pub mod moment;
mod moves;
pub mod names;
pub mod panel;
pub mod places;
pub mod row;
pub mod syscalls;
mod terminal;
pub mod text;
pub mod theme;
mod typing;
pub mod view;
pub mod work;

use std::fs;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use colinux_replay::{Mark, Position};
use colinux_tracer::{Reader, TraceError};
use ratatui::crossterm::event;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{BeginSynchronizedUpdate, EndSynchronizedUpdate};

pub use app::{App, Settings, Wish};
pub use console::Live;
pub use density::Density;
pub use terminal::unfit;
pub use theme::{Palette, Theme};
pub use work::machine::Places;

/// Time between two looks at the workers while they work, and while they do not.
const BUSY: Duration = Duration::from_millis(8);
const IDLE: Duration = Duration::from_millis(100);
/// The same while one types to a guest, which answers soon.
const TYPING: Duration = Duration::from_millis(16);
/// No more frames than 60 a second.
const FRAME: Duration = Duration::from_millis(16);

/// What opens the viewer.
#[derive(Debug)]
pub struct Options {
    /// Colours and signs.
    pub theme: Theme,
    /// The mouse is used.
    pub mouse: bool,
    /// Where to begin.
    pub goto: Option<Position>,
    /// The console of the guest, if it is being recorded here.
    pub live: Option<Live>,
    /// Something to say first.
    pub greeting: Option<String>,
    /// Where debug information is.
    pub places: Places,
}

/// Why the viewer could not be opened, or ended.
#[derive(Debug, thiserror::Error)]
pub enum TuiError {
    /// It wants a terminal that can draw.
    #[error("{0}")]
    Unfit(&'static str),
    /// The terminal failed.
    #[error("the terminal: {0}")]
    Terminal(#[from] io::Error),
    /// The recording cannot be read.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// A signal ended it.
    #[error("ended by signal {0}")]
    Signal(u8),
}

/// Opens gdb on the recording at a place, with the terminal as it was before, and waits for its end.
pub type OpenGdb<'a> = &'a mut dyn FnMut(Mark) -> Result<(), String>;

/// Shows a recording until the user leaves.
pub fn run(reader: Reader, options: Options, open_gdb: OpenGdb<'_>) -> Result<(), TuiError> {
    if let Some(why) = unfit() {
        return Err(TuiError::Unfit(why));
    }
    let signals = terminal::Signals::catch()?;
    let mut screen = terminal::Screen::take(options.mouse)?;
    let settings = Settings {
        theme: options.theme,
        places: options.places,
        area: screen.area()?,
    };
    let mut app = App::open(reader, settings)?;
    if let Some(live) = options.live {
        app.attach(live);
    }
    app.greet(options.greeting);
    if let Some(position) = options.goto {
        app.command(command::Command::Go(position));
    }
    let mut dirty = true;
    let mut drawn = Instant::now() - FRAME;
    loop {
        if dirty && drawn.elapsed() >= FRAME {
            paint(&mut screen, &app)?;
            (dirty, drawn) = (false, Instant::now());
        }
        let wait = match (dirty, app.is_waiting()) {
            (true, _) => FRAME.saturating_sub(drawn.elapsed()),
            (_, true) => BUSY,
            _ if app.is_typing() => TYPING,
            _ => IDLE,
        };
        if event::poll(wait)? {
            dirty |= app.input(&event::read()?);
        }
        dirty |= app.catch_up();
        if let Some(words) = terminal::last_words() {
            app.model.alarm(format!("a bug: {words}"));
            dirty = true;
        }
        if let Some(signal) = signals.received() {
            return Err(TuiError::Signal(signal));
        }
        if signals.stops() {
            app.wishes.push(Wish::Stop);
        }
        if signals.continued() {
            // Whoever had the terminal meanwhile has left it in its own way.
            screen.lend(|| ())?;
            app.resize(screen.area()?);
            dirty = true;
        }
        for wish in app.take_wishes() {
            dirty = true;
            match wish {
                Wish::Quit => return Ok(()),
                Wish::Redraw => screen.terminal.clear()?,
                Wish::Stop => {
                    screen.lend(terminal::stop)??;
                    app.resize(screen.area()?);
                }
                Wish::Copy(text) => {
                    let mut out = io::stdout();
                    out.write_all(terminal::clipboard(&text).as_bytes())?;
                    out.flush()?;
                }
                Wish::Export(name) => export(&mut app, name),
                Wish::Gdb(mark) => {
                    let opened = screen.lend(|| open_gdb(mark))?;
                    app.resize(screen.area()?);
                    if let Err(why) = opened {
                        app.model.alarm(why);
                    }
                }
            }
        }
    }
}

fn paint(screen: &mut terminal::Screen, app: &App) -> io::Result<()> {
    // Drawn at once by terminals that know how.
    execute!(io::stdout(), BeginSynchronizedUpdate)?;
    screen.terminal.draw(|frame| {
        if let Some(cursor) = view::draw(&app.model, frame.buffer_mut()) {
            frame.set_cursor_position(cursor);
        }
    })?;
    execute!(io::stdout(), EndSynchronizedUpdate)
}

fn export(app: &mut App, name: Option<String>) {
    let model = &app.model;
    let name = name.unwrap_or_else(|| {
        let stem = model.file.name.trim_end_matches(".clt");
        format!("{stem}-{}-{}.txt", model.focus.name(), model.cursor.tick)
    });
    let text = view::panel_text(model, model.focus);
    match fs::write(&name, text) {
        Ok(()) => app.model.say(format!("written to {name}")),
        Err(error) => app.model.alarm(format!("{name}: {error}")),
    }
}
