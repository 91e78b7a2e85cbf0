//! Recordings that are being made: seen to grow, followed, and seen to end.

use std::time::{Duration, Instant};

use colinux_replay::Mark;

use crate::app::App;
use crate::list::ListId;
use crate::work::file::{Fate, Growth};
use crate::work::scan::Anchor;
use crate::work::{machine, scan};

/// Time between two looks at a file that is being written.
const LOOK_EVERY: Duration = Duration::from_millis(400);
/// Time between two looks whether a finished file was replaced.
const LOOK_EVERY_FINISHED: Duration = Duration::from_secs(5);
/// A file that has grown within this time is being written.
const GROWS_WITHIN: Duration = Duration::from_secs(10);
/// Events that a list skips, rather than reads, while it follows a recording.
const JUMP_FROM: u64 = 2000;

impl App {
    /// Whether the recording is being made. Who makes it holds a lock, or is seen to write.
    pub(crate) fn is_live(&self) -> bool {
        let grows = self.grown.is_some_and(|at| at.elapsed() < GROWS_WITHIN);
        (self.is_written || grows) && !matches!(self.reader.end(), Ok(Some(_)))
    }

    /// Goes along with the end of a recording that is being made. The machine there is not shown: to
    /// replay each time would be to replay all the time.
    pub(crate) fn follow(&mut self) {
        self.stop_walking();
        self.arrive(Mark::at(self.model.file.last_tick));
        self.model.moment = None;
        self.model.following = true;
    }

    /// The recording that is followed has grown.
    pub(crate) fn follow_on(&mut self) {
        let last = self.model.file.last_tick;
        self.model.cursor = Mark::at(last);
        for id in [ListId::Events, ListId::Log] {
            let events = self.model.file.events;
            let list = self.model.list_mut(id);
            let newest = list.rows.back().map_or(0, |row| row.number);
            // What comes after the rows that are here is asked for anyway, unless that is much.
            if list.tail && (id == ListId::Log || events - newest < JUMP_FROM) {
                list.choose_last();
            } else {
                self.window(id, Anchor::Tick(last));
            }
        }
        self.bring_into_view();
    }

    pub(crate) fn look_after_file(&mut self) {
        let every = if self.model.file.live {
            LOOK_EVERY
        } else {
            LOOK_EVERY_FINISHED
        };
        if !self.looking && self.looked.elapsed() > every {
            self.looking = true;
            let reader = Box::new(self.reader.clone());
            let identity = self.identity.clone();
            self.windows.ask(scan::Job::Refresh(reader, identity));
        }
    }

    pub(crate) fn hear_growth(&mut self, growth: Growth) {
        self.looking = false;
        self.looked = Instant::now();
        self.identity = growth.identity;
        if self.model.file.fate != Fate::There && growth.fate == Fate::There {
            // What was cut short and grows again is another recording.
            return;
        }
        if self.model.file.fate != growth.fate {
            self.model.file.fate = growth.fate;
            if let Some(sentence) = growth.fate.sentence() {
                self.model.alarm(sentence);
            }
        }
        if let Some(trouble) = growth.trouble {
            self.model.alarm(trouble);
            return;
        }
        let grown = growth.reader.chunks().len() != self.reader.chunks().len();
        let by_lock = self.is_written || growth.written;
        self.is_written = growth.written;
        if grown {
            // Where there are locks, they say it better.
            self.grown = (!by_lock).then(Instant::now);
            self.reader = growth.reader;
        }
        let was_live = self.model.file.live;
        if grown || was_live != self.is_live() {
            self.take_growth(was_live);
        }
    }

    /// The recording is longer than it was, or whoever made it does so no more.
    fn take_growth(&mut self, was_live: bool) {
        let showed_all = self.model.span.1 == self.model.whole().1;
        self.facts();
        let live = self.model.file.live;
        self.flags_due = true;
        if !was_live && !live {
            // Notes and checkpoints alone are added to a finished recording.
            return;
        }
        self.machine
            .ask(machine::Job::Reader(Box::new(self.reader.clone())));
        self.model.events.grown();
        self.model.log.grown();
        self.count(ListId::Events);
        if showed_all {
            self.model.span = (self.model.span.0, self.model.whole().1);
        }
        let followed = self.model.following;
        if live && followed {
            self.follow_on();
        }
        if live {
            return;
        }
        self.model.following = false;
        self.no_more_typing();
        if self.reader.is_complete() {
            self.model.say("the recording is finished");
        } else {
            self.model
                .alarm("whoever made this recording is gone; what was written is shown");
        }
        if followed {
            self.go(Mark::at(self.model.file.last_tick));
        }
    }
}
