//! Looking through all events at once, on several threads.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::chunk::ChunkKind;
use crate::error::TraceError;
use crate::event::Event;
use crate::facility::EventMask;
use crate::index::ChunkEntry;
use crate::reader::Reader;
use crate::table::Rows;

/// What a scan asks for. Chunks without it are not read, and of the others only the columns of these
/// kinds are.
#[derive(Clone, Debug)]
pub struct Scan {
    /// Kinds.
    pub kinds: EventMask,
    /// Ticks.
    pub ticks: RangeInclusive<u64>,
    /// Threads, at least one.
    pub threads: usize,
}

impl Default for Scan {
    fn default() -> Self {
        Self {
            kinds: EventMask::ALL,
            ticks: 0..=u64::MAX,
            threads: thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

impl Reader {
    /// Gives every event that `scan` asks for, with its tick and vCPU, to `see`, and gives back what
    /// each thread made of those that it saw. Events come in no order.
    pub fn scan<T: Default + Send>(
        &self,
        scan: &Scan,
        see: impl Fn(&mut T, u64, u16, &Event) + Sync,
    ) -> Result<Vec<T>, TraceError> {
        let wanted = |entry: &&ChunkEntry| {
            let header = entry.header;
            let mut counts = self.chunk_counts(entry);
            header.kind == ChunkKind::Events
                && header.last_tick >= *scan.ticks.start()
                && header.first_tick <= *scan.ticks.end()
                && counts.any(|(code, _)| scan.kinds.contains_code(code))
        };
        let chunks: Vec<&ChunkEntry> = self.chunks().iter().filter(wanted).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            let (mut found, mut rows) = (T::default(), Rows::default());
            while let Some(entry) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.shared.events_over(entry, &scan.kinds, &mut rows)?;
                for (number, event) in rows.numbers.iter().zip(&rows.events) {
                    let tick = rows.ticks[*number as usize];
                    if scan.ticks.contains(&tick) {
                        see(&mut found, tick, entry.header.vcpu, event);
                    }
                }
            }
            Ok(found)
        };
        let threads = scan.threads.clamp(1, chunks.len().max(1));
        thread::scope(|scope| {
            let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut found = vec![work()];
            for helper in helpers {
                match helper.join() {
                    Ok(part) => found.push(part),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            found.into_iter().collect()
        })
    }
}
