//! Writing bookmarks into the recording.

use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::thread;

use colinux_tracer::{Note, Options, TraceError, Writer};

use super::News;

/// Adds a note in a thread of its own: making it durable takes as long as the disk takes.
pub fn write(path: PathBuf, note: Note, news: Sender<News>) {
    let thread = thread::Builder::new().name("note".to_owned());
    let _ = thread.spawn(move || {
        let name = note.name.clone();
        let written = add(&path, note)
            .map(|()| format!("bm:{name} is kept in the recording"))
            .map_err(|error| format!("bm:{name} is kept until you leave only: {error}"));
        let _ = news.send(News::Note(written));
    });
}

fn add(path: &PathBuf, note: Note) -> Result<(), TraceError> {
    let mut writer = Writer::append(path, Options::default())?;
    writer.note(note)?;
    writer.close().map(|_| ())
}
