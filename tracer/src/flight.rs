//! The flight recorder: only the last events are kept, and what was let go is counted exactly.

use std::collections::{BTreeMap, VecDeque};

use crate::columns::Columns;
use crate::event::Event;
use crate::pack::{PackedChunk, Packer};
use crate::schema::Schema;
use crate::sink::pack_columns;

/// Events of one vCPU that were let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LostMark {
    pub(crate) vcpu: u16,
    pub(crate) count: u64,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl LostMark {
    /// The chunk that says so: one `Lost` event.
    pub(crate) fn pack(self, packer: &mut Packer, at: u64) -> PackedChunk {
        let mut columns = Columns::new(&Schema::of_this_build());
        let event = Event::Lost {
            count: self.count,
            first: self.first,
            last: self.last,
        };
        // A row of three integers is far below the limit.
        let _ = columns.put(at, &event);
        pack_columns(packer, self.vcpu, &columns)
    }
}

/// The last chunks of events.
#[derive(Debug)]
pub(crate) struct Flight {
    limit: u64,
    bytes: u64,
    chunks: VecDeque<PackedChunk>,
    lost: BTreeMap<u16, LostMark>,
}

impl Flight {
    pub(crate) const fn new(limit: u64) -> Self {
        Self {
            limit,
            bytes: 0,
            chunks: VecDeque::new(),
            lost: BTreeMap::new(),
        }
    }

    /// Keeps a chunk, and lets the oldest go while there are more bytes than wanted. The newest
    /// always stays.
    pub(crate) fn keep(&mut self, chunk: PackedChunk) {
        self.bytes += chunk.body.len() as u64;
        self.chunks.push_back(chunk);
        while self.bytes > self.limit && self.chunks.len() > 1 {
            let Some(oldest) = self.chunks.pop_front() else {
                break;
            };
            self.bytes -= oldest.body.len() as u64;
            let header = oldest.header;
            let mark = self.lost.entry(header.vcpu).or_insert(LostMark {
                vcpu: header.vcpu,
                count: 0,
                first: header.first_tick,
                last: header.last_tick,
            });
            mark.count += u64::from(header.rows);
            mark.last = header.last_tick;
        }
    }

    /// What was let go, and what was kept.
    pub(crate) fn land(self) -> (Vec<LostMark>, VecDeque<PackedChunk>) {
        (self.lost.into_values().collect(), self.chunks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(packer: &mut Packer, vcpu: u16, first: u64, rows: u64) -> PackedChunk {
        let mut columns = Columns::new(&Schema::of_this_build());
        for tick in first..first + rows {
            columns
                .put(
                    tick,
                    &Event::Cr3Write {
                        old: tick << 20,
                        new: tick << 30,
                    },
                )
                .unwrap();
        }
        pack_columns(packer, vcpu, &columns)
    }

    #[test]
    fn what_is_let_go_is_counted_per_vcpu() {
        let mut packer = Packer::new(1).unwrap();
        let mut flight = Flight::new(1);
        for (vcpu, first) in [(0, 0), (1, 5), (0, 100), (0, 200)] {
            flight.keep(chunk(&mut packer, vcpu, first, 10));
        }
        let (lost, kept) = flight.land();
        assert_eq!(
            lost,
            [
                LostMark {
                    vcpu: 0,
                    count: 20,
                    first: 0,
                    last: 109
                },
                LostMark {
                    vcpu: 1,
                    count: 10,
                    first: 5,
                    last: 14
                },
            ]
        );
        assert_eq!(kept.len(), 1);
        assert_eq!(kept[0].header.first_tick, 200);
    }

    #[test]
    fn within_the_limit_nothing_is_lost() {
        let mut packer = Packer::new(1).unwrap();
        let mut flight = Flight::new(1 << 20);
        (0..9).for_each(|n| flight.keep(chunk(&mut packer, 0, n * 10, 10)));
        let (lost, kept) = flight.land();
        assert!(lost.is_empty());
        assert_eq!(kept.len(), 9);
    }
}
