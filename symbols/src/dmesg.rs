//! The kernel log, read from the guest's ring (`kernel/printk/printk_ringbuffer.c`, since 5.10).
//!
//! A ring of descriptors points into a ring of text. A descriptor's state lies in the top two bits
//! of its `state_var`, its id in the rest; the low bits of the id are its index.

use std::fmt;

use crate::addr::{GuestMemory, ReadExt, Slide};
use crate::bytes::LeBytes;
use crate::error::SymbolError;
use crate::hooks::{Hooks, LogLayout};

/// One message of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// Its number, from 0 at boot.
    pub seq: u64,
    /// Guest time in nanoseconds.
    pub time_ns: u64,
    /// Syslog facility; 0 is the kernel.
    pub facility: u8,
    /// Syslog level, 0 (emergency) to 7 (debug).
    pub level: u8,
    /// Still being written, or open for continuation.
    pub open: bool,
    /// The text without prefix; may hold line breaks.
    pub text: String,
}

impl fmt::Display for LogRecord {
    /// As the console shows it: every line with the time.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (
            self.time_ns / 1_000_000_000,
            self.time_ns / 1000 % 1_000_000,
        );
        for (i, line) in self.text.split('\n').enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "[{seconds:5}.{micros:06}] {line}")?;
        }
        Ok(())
    }
}

/// The offsets, all present.
struct Layout {
    count_bits: u64,
    descs: u64,
    infos: u64,
    head_id: u64,
    tail_id: u64,
    text_size_bits: u64,
    text_data: u64,
    desc_size: u64,
    desc_state: u64,
    desc_begin: u64,
    desc_next: u64,
    info_size: u64,
    info_seq: u64,
    info_time: u64,
    info_text_len: u64,
    info_facility: u64,
}

impl Layout {
    fn of(log: &LogLayout) -> Option<Self> {
        Some(Self {
            count_bits: log.count_bits?,
            descs: log.descs?,
            infos: log.infos?,
            head_id: log.head_id?,
            tail_id: log.tail_id?,
            text_size_bits: log.text_size_bits?,
            text_data: log.text_data?,
            desc_size: log.desc_size?,
            desc_state: log.desc_state?,
            desc_begin: log.desc_begin?,
            desc_next: log.desc_next?,
            info_size: log.info_size?,
            info_seq: log.info_seq?,
            info_time: log.info_time?,
            info_text_len: log.info_text_len?,
            info_facility: log.info_facility?,
        })
    }
}

/// The log's ring as it stands in the guest now.
pub struct LogRing<'m, M: GuestMemory + ?Sized> {
    memory: &'m M,
    layout: Layout,
    count_bits: u32,
    descs: u64,
    infos: u64,
    text_bits: u32,
    text: u64,
    head: u64,
    tail: u64,
}

impl<M: GuestMemory + ?Sized> fmt::Debug for LogRing<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogRing({:#x}..={:#x})", self.tail, self.head)
    }
}

/// `DESC_ID_MASK`: all but the two state bits.
const ID_MASK: u64 = !(3 << 62);
const RESERVED: u64 = 0;
const COMMITTED: u64 = 1;
const FINALIZED: u64 = 2;
/// `NO_LPOS`: the block of a record without text.
const NO_TEXT: u64 = 3;
/// A text block starts with the id of its descriptor.
const BLOCK_HEADER: u64 = 8;

impl<'m, M: GuestMemory + ?Sized> LogRing<'m, M> {
    /// Reads the ring's head; an error when the kernel has none yet.
    pub fn open(memory: &'m M, hooks: &Hooks, slide: Slide) -> Result<Self, SymbolError> {
        let pointer = hooks
            .data
            .log_ring
            .ok_or(SymbolError::NoSymbol { name: "prb" })?;
        let layout = Layout::of(&hooks.log).ok_or(SymbolError::NoType {
            kind: "struct",
            name: "printk_ringbuffer".to_owned(),
        })?;
        let what = "log ring";
        let read = |gva: u64| {
            memory
                .u64_at(gva)
                .ok_or(SymbolError::Unmapped { what, gva })
        };
        let ring = read(pointer.run(slide).0)?;
        let field = |offset: u64| read(ring.wrapping_add(offset));
        let (count_bits, text_bits) = (
            field(layout.count_bits)? as u32,
            field(layout.text_size_bits)? as u32,
        );
        // CONFIG_LOG_BUF_SHIFT goes to 25; log_buf_len= to 2 GiB.
        if !(1..=28).contains(&count_bits) || !(4..=32).contains(&text_bits) {
            return Err(SymbolError::BadGuest {
                what,
                rule: "its size is not a log's",
            });
        }
        Ok(Self {
            descs: field(layout.descs)?,
            infos: field(layout.infos)?,
            text: field(layout.text_data)?,
            head: field(layout.head_id)? & ID_MASK,
            tail: field(layout.tail_id)? & ID_MASK,
            memory,
            layout,
            count_bits,
            text_bits,
        })
    }

    /// All records still in the ring, oldest first.
    pub fn records(&self) -> impl Iterator<Item = LogRecord> + '_ {
        let span = self.head.wrapping_sub(self.tail) & ID_MASK;
        let count = span.min((1 << self.count_bits) - 1);
        (0..=count).filter_map(|i| self.record(self.tail.wrapping_add(i) & ID_MASK))
    }

    /// The record of descriptor `id` (what `prb_reserved_entry.id` names), when it still exists.
    pub fn record(&self, id: u64) -> Option<LogRecord> {
        self.record_in_state(id, &[COMMITTED, FINALIZED])
    }

    /// The same for a record whose writer is about to commit it: its text is complete.
    pub fn record_about_to_commit(&self, id: u64) -> Option<LogRecord> {
        self.record_in_state(id, &[RESERVED, COMMITTED, FINALIZED])
    }

    fn record_in_state(&self, id: u64, states: &[u64]) -> Option<LogRecord> {
        let l = &self.layout;
        let index = id & ((1 << self.count_bits) - 1);
        let at = self.descs.wrapping_add(index * l.desc_size);
        let word = |offset: u64| self.memory.u64_at(at.wrapping_add(offset));
        let state = word(l.desc_state)?;
        if !states.contains(&(state >> 62)) {
            return None;
        }
        let open = state >> 62 != FINALIZED;
        if state & ID_MASK != id & ID_MASK {
            return None;
        }
        let info = self.memory.bytes_at(
            self.infos.wrapping_add(index * l.info_size),
            usize::try_from(l.info_size)
                .ok()
                .filter(|size| *size <= 4096)?,
        )?;
        let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
        let facility = at(l.info_facility);
        let length = u64::from(info.le_u16(at(l.info_text_len))?);
        let text = self.text_of(word(l.desc_begin)?, word(l.desc_next)?, length)?;
        Some(LogRecord {
            seq: info.le_u64(at(l.info_seq))?,
            time_ns: info.le_u64(at(l.info_time))?,
            facility: *info.get(facility)?,
            // `u8 flags:5, level:3` behind the facility.
            level: info.get(facility.checked_add(1)?)? >> 5,
            open,
            text: String::from_utf8_lossy(&text).into_owned(),
        })
    }

    /// `get_data()` of the ring buffer.
    fn text_of(&self, begin: u64, next: u64, length: u64) -> Option<Vec<u8>> {
        if begin & 1 != 0 && next & 1 != 0 {
            return (begin == NO_TEXT && next == NO_TEXT).then(Vec::new);
        }
        let size = 1u64 << self.text_bits;
        let wraps = |lpos: u64| lpos >> self.text_bits;
        let (start, room) = if wraps(begin) == wraps(next) && begin < next {
            (begin & (size - 1), next - begin)
        } else if wraps(begin.wrapping_add(size)) == wraps(next) {
            // A block never straddles the end: it starts over at the beginning.
            (0, next & (size - 1))
        } else {
            return None;
        };
        let length = length.min(room.checked_sub(BLOCK_HEADER)?);
        let from = self.text.wrapping_add(start).wrapping_add(BLOCK_HEADER);
        self.memory.bytes_at(from, usize::try_from(length).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::LinkAddr;
    use crate::memory::SparseMemory;

    const RING: u64 = 0x1000;
    const DESCS: u64 = 0x2000;
    const INFOS: u64 = 0x3000;
    const TEXT: u64 = 0x4000;

    fn hooks() -> Hooks {
        let mut hooks = Hooks::default();
        hooks.data.log_ring = Some(LinkAddr(0x100));
        hooks.log = LogLayout {
            entry_id: Some(0),
            count_bits: Some(0),
            descs: Some(8),
            infos: Some(16),
            head_id: Some(24),
            tail_id: Some(32),
            text_size_bits: Some(48),
            text_data: Some(56),
            desc_size: Some(24),
            desc_state: Some(0),
            desc_begin: Some(8),
            desc_next: Some(16),
            info_size: Some(88),
            info_seq: Some(0),
            info_time: Some(8),
            info_text_len: Some(16),
            info_facility: Some(18),
            info_caller: Some(20),
        };
        hooks
    }

    /// A ring of 4 descriptors and 64 bytes of text.
    fn ring(tail: u64, head: u64) -> SparseMemory {
        let mut m = SparseMemory::default();
        m.put_u64(0x100, RING);
        for (offset, value) in [
            (0, 2),
            (8, DESCS),
            (16, INFOS),
            (24, head),
            (32, tail),
            (48, 6),
            (56, TEXT),
        ] {
            m.put_u64(RING + offset, value);
        }
        m.put(TEXT, &[0; 64]);
        m
    }

    fn record(m: &mut SparseMemory, id: u64, state: u64, lpos: (u64, u64), text: &[u8]) {
        let index = id & 3;
        m.put_u64(DESCS + index * 24, state << 62 | id);
        m.put_u64(DESCS + index * 24 + 8, lpos.0);
        m.put_u64(DESCS + index * 24 + 16, lpos.1);
        let mut info = vec![0u8; 88];
        info[..8].copy_from_slice(&id.to_le_bytes());
        info[8..16].copy_from_slice(&1_234_567_890u64.to_le_bytes());
        info[16..18].copy_from_slice(&(text.len() as u16).to_le_bytes());
        info[19] = 6 << 5 | 2;
        m.put(INFOS + index * 88, &info);
        let start = if lpos.0 & 1 == 0 && lpos.0 >> 6 != lpos.1 >> 6 {
            0
        } else {
            lpos.0 & 63
        };
        if !text.is_empty() {
            m.put(TEXT + start + 8, text);
        }
    }

    #[test]
    fn records_come_in_order_with_wraps_and_gaps() {
        let mut m = ring(5, 8);
        record(&mut m, 5, 2, (32, 48), b"first");
        record(&mut m, 6, 2, (48, 64 + 24), b"wrapped\nline");
        record(&mut m, 7, 2, (3, 3), b"");
        record(&mut m, 8, 1, (64 + 24, 64 + 40), b"open");
        let hooks = hooks();
        let ring = LogRing::open(&m, &hooks, Slide::NONE).expect("ring");
        let all: Vec<_> = ring.records().collect();
        let texts: Vec<_> = all
            .iter()
            .map(|r| (r.seq, r.text.as_str(), r.open))
            .collect();
        let expected = [
            (5, "first", false),
            (6, "wrapped\nline", false),
            (7, "", false),
            (8, "open", true),
        ];
        assert_eq!(texts, expected);
        assert_eq!((all[0].level, all[0].facility), (6, 0));
        assert_eq!(
            all[1].to_string(),
            "[    1.234567] wrapped\n[    1.234567] line"
        );
        assert_eq!(ring.record(8).map(|r| r.text).as_deref(), Some("open"));
        assert_eq!(ring.record(4), None, "its descriptor is another's now");
    }

    #[test]
    fn unfinished_and_reused_records_are_left_out() {
        let mut m = ring(5, 6);
        record(&mut m, 5, 0, (0, 16), b"reserved");
        record(&mut m, 6, 3, (16, 32), b"reusable");
        let hooks = hooks();
        let ring = LogRing::open(&m, &hooks, Slide::NONE).expect("ring");
        assert_eq!(ring.records().count(), 0);
    }

    #[test]
    fn a_ring_that_is_none_is_refused() {
        let mut m = ring(0, 0);
        m.put_u64(RING, 77);
        let hooks = hooks();
        let said = LogRing::open(&m, &hooks, Slide::NONE)
            .unwrap_err()
            .to_string();
        assert_eq!(
            said,
            "the guest's log ring is inconsistent: its size is not a log's"
        );
        let empty = SparseMemory::default();
        let said = LogRing::open(&empty, &hooks, Slide(0x200000))
            .unwrap_err()
            .to_string();
        assert_eq!(said, "the guest's log ring cannot be read at 0x200100");
    }
}
