//! What is on the screen: text and styles of every panel, on recordings made here.
//!
//! After an intended change, `INSTA_UPDATE=always cargo test -p colinux-tui` writes the new screens.

mod common;

use colinux_tracer::Reader;
use colinux_tui::action::Action;
use colinux_tui::key::Key;
use colinux_tui::panel::Panel;
use colinux_tui::{App, Palette, Theme};
use common::{Terminal, events, guest, screen, text};
use insta::assert_snapshot;

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
        assert_snapshot!(panel.name(), text(&mut terminal));
    }
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
