//! What is on the screen: text and styles of every panel, on recordings made here.
//!
//! After an intended change, `INSTA_UPDATE=always cargo test -p colinux-tui` writes the new screens.

mod common;

use colinux_tracer::Reader;
use colinux_tui::action::Action;
use colinux_tui::key::Key;
use colinux_tui::panel::Panel;
use colinux_tui::{App, Live, Palette, Theme};
use common::{Terminal, console, events, guest, screen, text};
use insta::assert_snapshot;
use ratatui::crossterm::event::{MouseButton, MouseEventKind};

fn open(reader: Reader, size: (u16, u16)) -> Terminal {
    Terminal::open(reader, size, Theme::new(Palette::Full, false))
}

#[test]
fn events_and_timeline_at_80x24() {
    let mut terminal = open(events(), (80, 24));
    assert_snapshot!(screen(&mut terminal));
}

#[test]
fn everything_at_200x50() {
    let mut terminal = open(guest(), (200, 50));
    assert_snapshot!(text(&mut terminal));
}

#[test]
fn the_parts_at_120x40() {
    let mut terminal = open(guest(), (120, 40));
    terminal.keys("4 s s s");
    assert_snapshot!(screen(&mut terminal));
}

#[test]
fn one_panel_after_the_other() {
    let mut terminal = open(guest(), (80, 24));
    terminal.line(":", "@40");
    for panel in [Panel::Code, Panel::Stack, Panel::Registers, Panel::Memory] {
        terminal.keys(&panel.digit().unwrap().to_string());
        assert_snapshot!(panel.name(), screen(&mut terminal));
    }
    // What this guest has not got is said in a sentence.
    for panel in [Panel::Tasks, Panel::Modules, Panel::Source] {
        terminal.line(":", &format!("panel {}", panel.name()));
        let name = format!("no_{}", panel.name());
        assert_snapshot!(name, screen(&mut terminal));
    }
}

/// Panels of what only a real kernel has, filled by hand.
#[test]
fn tasks_modules_source_and_inlined_frames() {
    let mut terminal = open(guest(), (80, 24));
    terminal.line(":", "@40");
    common::furnish(&mut terminal.app);
    for panel in [Panel::Tasks, Panel::Modules, Panel::Source, Panel::Stack] {
        terminal.app.focus(panel);
        if panel == Panel::Tasks {
            terminal.app.move_by(2);
        }
        let name = format!("with_{}", panel.name());
        assert_snapshot!(name, screen(&mut terminal));
    }
    let mut terminal = open(guest(), (120, 40));
    terminal.line(":", "@40");
    common::furnish(&mut terminal.app);
    terminal.keys("v");
    assert_snapshot!("source_at_120x40", screen(&mut terminal));
    let theme = Theme::new(Palette::Mono, true);
    let mut terminal = Terminal::open(guest(), (80, 24), theme);
    terminal.line(":", "@40");
    common::furnish(&mut terminal.app);
    terminal.app.focus(Panel::Source);
    let screen = screen(&mut terminal);
    assert!(screen.is_ascii());
    assert_snapshot!("source_without_colour", screen);
}

#[test]
fn the_console() {
    let mut terminal = open(console(), (80, 24));
    terminal.line(":", "end");
    terminal.keys("i");
    assert_snapshot!(screen(&mut terminal));
    // Up to the cursor, and not a line more.
    terminal.line(":", "e0");
    terminal.keys("i");
    let shown = text(&mut terminal);
    assert!(
        shown.contains("first") && !shown.contains("second"),
        "{shown}"
    );
    terminal.line(":", "start");
    terminal.keys("i");
    assert!(text(&mut terminal).contains("nothing to its console"));
}

/// A guest that is being recorded: typed to, looked back at, ended.
#[test]
fn the_console_of_a_guest_that_listens() {
    use std::io::{Read, Write};
    let (reader, _lock) = common::console_live();
    let mut terminal = open(reader, (80, 24));
    let (from_guest, mut guest) = std::io::pipe().unwrap();
    let (mut heard, to_guest) = std::io::pipe().unwrap();
    terminal.app.attach(Live::start(from_guest, to_guest));
    guest.write_all(b"login: \x1b[1;32mgreen\x1b[0m ").unwrap();
    terminal.keys("i");
    terminal.until("green");
    assert_snapshot!("typing", screen(&mut terminal));
    terminal.keys("q : Ctrl-c Ctrl-a a Ctrl-a z Up Enter");
    terminal.keys("Ctrl-a Esc");
    assert!(!text(&mut terminal).contains("typing to the guest"));
    terminal.keys("i Ctrl-a");
    assert!(text(&mut terminal).contains("x end the recording"));
    terminal.keys("x");
    // The end of what is typed is the end of the recording.
    let mut typed = Vec::new();
    heard.read_to_end(&mut typed).unwrap();
    assert_eq!(typed, b"q:\x03\x01\x01z\x1b[A\r");
    terminal.keys("i");
    assert!(!text(&mut terminal).contains("typing to the guest"));
}

#[test]
fn clicks_choose_and_the_wheel_scrolls_in_every_panel() {
    let mut terminal = open(guest(), (80, 24));
    terminal.line(":", "@40");
    common::furnish(&mut terminal.app);
    // The third line of the lower panel.
    for (panel, chosen) in [
        (Panel::Tasks, 2),
        (Panel::Modules, 2),
        (Panel::Stack, 2),
        (Panel::Registers, 6),
    ] {
        terminal.app.focus(panel);
        terminal.mouse(MouseEventKind::Down(MouseButton::Left), (5, 12));
        assert_eq!(
            terminal.app.model.chosen_line(panel),
            chosen,
            "{}",
            panel.name()
        );
        terminal.mouse(MouseEventKind::ScrollUp, (5, 12));
        assert_eq!(
            terminal.app.model.chosen_line(panel),
            chosen.saturating_sub(3)
        );
    }
    terminal.app.focus(Panel::Code);
    let before = terminal.app.model.code_address();
    terminal.mouse(MouseEventKind::ScrollDown, (5, 12));
    assert_ne!(terminal.app.model.code_address(), before);
    terminal.mouse(MouseEventKind::Down(MouseButton::Left), (5, 10));
    let moment = terminal.app.model.moment.clone().unwrap();
    assert_eq!(
        terminal.app.model.code_address(),
        Some(moment.code[0].address)
    );
    terminal.app.focus(Panel::Source);
    let current = terminal.app.model.source_line();
    terminal.mouse(MouseEventKind::Down(MouseButton::Left), (5, 10));
    assert_ne!(terminal.app.model.source_line(), current);
    terminal.app.focus(Panel::Memory);
    // The second byte of the second line, by its digits and by its character.
    terminal.mouse(MouseEventKind::Down(MouseButton::Left), (24, 11));
    assert_eq!(terminal.app.model.memory.chosen, 9);
    terminal.mouse(MouseEventKind::Down(MouseButton::Left), (47, 11));
    assert_eq!(terminal.app.model.memory.chosen, 10);
}

#[test]
fn every_action_has_a_name_that_does_it() {
    let mut terminal = open(events(), (80, 24));
    terminal.line(":", "50%");
    let begin = terminal.app.model.cursor;
    terminal.line(":", "next-of-kind");
    let next = terminal.app.model.cursor;
    assert!(next > begin);
    terminal.line(":", "previous-of-kind");
    assert!(terminal.app.model.cursor < next);
    terminal.keys("J K");
    let span = terminal.app.model.span;
    terminal.line(":", "zoom-in");
    assert_ne!(terminal.app.model.span, span);
    terminal.line(":", "help");
    assert!(text(&mut terminal).contains(" keys ─"));
}

#[test]
fn the_log_and_its_search() {
    let mut terminal = open(events(), (80, 24));
    terminal.keys("3");
    terminal.line("/", "oops");
    assert_snapshot!(screen(&mut terminal));
}

#[test]
fn places() {
    let mut terminal = open(events(), (80, 24));
    terminal.keys("m a G");
    terminal.line(":", "bookmark end the last event");
    terminal.keys("9");
    terminal.settle();
    // The way of saying that it was written is another matter.
    terminal.app.model.message = None;
    assert_snapshot!(screen(&mut terminal));
}

#[test]
fn markers_and_zoom() {
    let mut terminal = open(events(), (80, 24));
    terminal.line(":", "30%");
    terminal.keys("1 a");
    terminal.line(":", "60%");
    terminal.keys("b + +");
    assert_snapshot!(screen(&mut terminal));
}

#[test]
fn the_line_at_the_bottom() {
    let mut terminal = open(events(), (80, 24));
    terminal.keys(":");
    terminal.typed("se");
    terminal.keys("Tab");
    assert_snapshot!("command_line", screen(&mut terminal));
    terminal.keys("Esc &");
    terminal.typed("gva>x");
    terminal.keys("Enter");
    assert_snapshot!("a_filter_that_is_none", text(&mut terminal));
}

#[test]
fn the_help() {
    let mut terminal = open(events(), (100, 40));
    terminal.keys("?");
    assert_snapshot!(text(&mut terminal));
}

#[test]
fn without_colour_and_unicode() {
    let theme = Theme::new(Palette::Mono, true);
    let mut terminal = Terminal::open(guest(), (80, 24), theme);
    terminal.keys("4");
    let screen = screen(&mut terminal);
    assert!(screen.is_ascii());
    assert_snapshot!(screen);
}

#[test]
fn with_sixteen_colours() {
    let theme = Theme::new(Palette::Sixteen, false);
    let mut terminal = Terminal::open(events(), (80, 24), theme);
    assert_snapshot!(screen(&mut terminal));
}

#[test]
fn a_screen_of_any_size_is_drawn() {
    let mut terminal = open(guest(), (80, 24));
    for width in (1..250).step_by(13) {
        for height in [1, 2, 5, 9, 10, 11, 16, 17, 24, 30, 47, 48, 70] {
            terminal.resize((width, height));
            for panel in Panel::ALL {
                terminal.app.focus(panel);
                terminal.draw();
            }
            terminal.app.apply(Action::Help);
            terminal.draw();
            terminal.app.key(Key::named("Esc").unwrap());
        }
    }
}

#[test]
fn a_recording_without_anything_says_so() {
    let reader = common::empty();
    let mut terminal = open(reader, (80, 24));
    assert_snapshot!("no_events", text(&mut terminal));
    terminal.keys("4");
    let shown = text(&mut terminal);
    assert!(shown.contains("no boot file `kernel`"), "{shown}");
}

#[test]
fn a_recording_that_was_cut_is_shown_up_to_the_damage() {
    let whole = std::fs::read(events().path()).unwrap();
    for share in [1, 2, 3, 5, 9] {
        let bytes = &whole[..whole.len() * share / 10];
        let Ok(reader) = Reader::from_bytes("cut.clt", bytes) else {
            continue;
        };
        let kept = reader.event_count();
        let mut terminal = open(reader, (80, 24));
        terminal.keys("G");
        let shown = text(&mut terminal);
        assert!(shown.contains("cut.clt"), "{shown}");
        assert!(
            kept == 0 || shown.contains(&format!("e{}", kept - 1)),
            "{shown}"
        );
    }
}

/// A walk back and forth ends where it began, and the panels say where that is.
#[test]
fn steps_lead_both_ways() {
    let mut terminal = open(guest(), (120, 40));
    terminal.line(":", "@40");
    let at = |app: &App| app.model.cursor;
    let begin = at(&terminal.app);
    terminal.keys("4 s s s s");
    assert_eq!(at(&terminal.app).tick, begin.tick + 4);
    terminal.keys("S S S S");
    assert_eq!(at(&terminal.app), begin);
    // Over the call and back.
    terminal.line(":", "@1");
    terminal.line(":", &format!("until {:#x}", common::CALL));
    let call = at(&terminal.app);
    terminal.keys("n");
    let after = at(&terminal.app);
    assert!(after.tick > call.tick + 2, "{call} {after}");
    terminal.keys("N");
    assert_eq!(at(&terminal.app), call);
    // The way leads back over the far ones.
    terminal.keys("Ctrl-o");
    assert_eq!(at(&terminal.app).tick, 1);
    terminal.keys("Ctrl-o");
    assert_eq!(at(&terminal.app), begin);
    terminal.keys("Ctrl-i");
    assert_eq!(at(&terminal.app).tick, 1);
}

#[test]
fn breakpoints_and_last_writes_are_found_both_ways() {
    let mut terminal = open(guest(), (120, 40));
    terminal.line(":", &format!("break {:#x}", common::CALL));
    terminal.line(":", "start");
    terminal.keys("4 c");
    let first = terminal.app.model.cursor;
    terminal.keys("c c C C");
    assert_eq!(terminal.app.model.cursor, first);
    terminal.line(":", "delete");
    terminal.line(":", "end");
    terminal.line(":", &format!("last-write {:#x}", common::CELL));
    let moment = terminal.app.model.moment.clone().unwrap();
    assert_eq!(moment.registers.rip, common::STORE);
    // The last turn of the loop wrote a one.
    assert_eq!(moment.registers.general[1], 1);
}
