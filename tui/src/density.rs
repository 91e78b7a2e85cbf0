//! How many events each stretch of a recording holds, counted from chunk headers: no body is read,
//! so any recording is summed up at once.

use colinux_tracer::Reader;

/// Shades from none to most, eight steps.
const SHADES: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// The same without Unicode.
const SHADES_ASCII: [char; 8] = ['.', ':', '-', '=', '+', '*', '#', '@'];

/// Events by column, over equal stretches of ticks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Density {
    /// Ticks from the first to the last event.
    pub ticks: (u64, u64),
    /// Events in each column.
    pub columns: Vec<u64>,
}

impl Density {
    /// Counts a recording's events into so many columns. A chunk that spans several columns is
    /// spread over them evenly, which is what its header tells.
    pub fn of(reader: &Reader, columns: usize) -> Self {
        let spans = reader.chunks().iter().filter_map(|entry| {
            let events: u64 = reader
                .chunk_counts(entry)
                .filter(|(code, _)| *code >= 0x20)
                .map(|(_, count)| u64::from(count))
                .sum();
            let header = &entry.header;
            (events > 0).then_some((header.first_tick, header.last_tick, events))
        });
        Self::from_spans(&spans.collect::<Vec<_>>(), columns)
    }

    /// From spans of first tick, last tick and number of events.
    fn from_spans(spans: &[(u64, u64, u64)], columns: usize) -> Self {
        let first = spans.iter().map(|s| s.0).min().unwrap_or(0);
        let last = spans.iter().map(|s| s.1).max().unwrap_or(0);
        let mut counts = vec![0u64; columns.max(1)];
        let width = last.saturating_sub(first) / counts.len() as u64 + 1;
        for &(from, to, events) in spans {
            let a = (from.saturating_sub(first) / width) as usize;
            let b = (to.max(from).saturating_sub(first) / width) as usize;
            let (a, b) = (a.min(counts.len() - 1), b.min(counts.len() - 1));
            let n = (b - a + 1) as u64;
            for (i, count) in counts[a..=b].iter_mut().enumerate() {
                // The remainder goes to the first columns, so that nothing is lost.
                *count += events / n + u64::from((i as u64) < events % n);
            }
        }
        Density {
            ticks: (first, last),
            columns: counts,
        }
    }

    /// One character a column; empty stretches are blank.
    pub fn line(&self, ascii: bool) -> String {
        let shades = if ascii { SHADES_ASCII } else { SHADES };
        let most = self.columns.iter().copied().max().unwrap_or(0);
        self.columns
            .iter()
            .map(|&n| match n {
                0 => ' ',
                // Logarithmic: a burst does not hide the rest.
                n => {
                    let scale = (most as f64 + 1.0).ln();
                    let step = ((n as f64 + 1.0).ln() / scale * 7.0).round();
                    shades[(step as usize).min(7)]
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_in_spreading() {
        let spans = [(0, 99, 1000), (50, 60, 7), (100, 400, 13), (400, 400, 1)];
        for columns in [1, 2, 3, 7, 80, 1000] {
            let density = Density::from_spans(&spans, columns);
            assert_eq!(
                density.columns.iter().sum::<u64>(),
                1021,
                "{columns} columns"
            );
            assert_eq!(density.columns.len(), columns);
            assert_eq!(density.line(true).chars().count(), columns);
        }
    }

    #[test]
    fn shades_go_with_counts() {
        let density = Density {
            ticks: (0, 4),
            columns: vec![0, 1, 10, 1000],
        };
        assert_eq!(density.line(true), " ::@".replace("::", ":-"));
    }

    #[test]
    fn no_events_are_a_blank_line() {
        let density = Density::from_spans(&[], 5);
        assert_eq!(density.line(false), "     ");
    }
}
