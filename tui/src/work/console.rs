//! What the guest had written to its console up to a tick.

use std::sync::mpsc::{Receiver, Sender};

use colinux_tracer::{Event, EventKind, EventMask, Reader};

use super::{News, Ticket};
use crate::console::{self, Size, TAIL_BYTES};

/// A job.
#[derive(Debug)]
pub struct Job {
    /// The recording.
    pub reader: Reader,
    /// Up to here, this tick included.
    pub tick: u64,
    /// Of the screen.
    pub size: Size,
    /// Its right to go on.
    pub ticket: Ticket,
}

/// An answer.
#[derive(Debug)]
pub struct ConsoleNews {
    /// The job's ticket.
    pub ticket: Ticket,
    /// The screen.
    pub screen: vt100::Screen,
}

/// Does one job after the other.
pub fn serve(inbox: Receiver<Job>, news: Sender<News>) {
    for job in inbox {
        let Some(output) = output(&job) else { continue };
        let screen = console::screen(&output, job.size);
        let ticket = job.ticket;
        if news
            .send(News::Console(ConsoleNews { ticket, screen }))
            .is_err()
        {
            return;
        }
    }
}

/// The last of the output; `None` if the job was called off.
fn output(job: &Job) -> Option<Vec<u8>> {
    let kinds = EventMask::of(&[EventKind::ConsoleOut]);
    let mut cursor = job.reader.events().with_kinds(kinds);
    let mut pieces = Vec::new();
    let mut bytes = 0;
    // A chunk that cannot be read is left out, as in lists, which say so.
    let _ = cursor.seek_tick(job.tick.saturating_add(1));
    while bytes < TAIL_BYTES {
        if !job.ticket.is_good() {
            return None;
        }
        match cursor.prev() {
            None => break,
            Some(Err(_)) => {}
            Some(Ok(row)) => {
                if let Event::ConsoleOut { bytes: piece, .. } = row.event {
                    bytes += piece.len();
                    pieces.push(piece);
                }
            }
        }
    }
    pieces.reverse();
    Some(pieces.concat())
}
