//! Text that fits: every string of the guest or a file goes through here before it is drawn.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Replaces what would move the cursor of the terminal.
pub fn clean(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' | '\r' => ' ',
            c if c.is_control() => '.',
            c => c,
        })
        .collect()
}

/// The same, with tabs as the columns up to the next stop.
pub fn expand(text: &str, stop: usize) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if c == '\t' {
            let room = stop - width(&out) % stop;
            out.extend(std::iter::repeat_n(' ', room));
        } else {
            out.push_str(&clean(c.encode_utf8(&mut [0; 4])));
        }
    }
    out
}

/// Columns that a text takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// The text in at most so many columns; what is cut off leaves `mark` behind.
pub fn fit(text: &str, columns: usize, mark: &str) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let room = columns.saturating_sub(mark.width());
    let mut out = String::new();
    let mut used = 0;
    for c in text.chars() {
        let w = c.width().unwrap_or(0);
        if used + w > room {
            break;
        }
        out.push(c);
        used += w;
    }
    if columns >= mark.width() {
        out.push_str(mark);
    }
    out
}

/// The text in exactly so many columns, flush left.
pub fn pad(text: &str, columns: usize, mark: &str) -> String {
    let mut out = fit(text, columns, mark);
    let used = out.width();
    out.extend(std::iter::repeat_n(' ', columns.saturating_sub(used)));
    out
}

/// Thousands separated, for people.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// A number of ticks in few columns: `1.23G`, `45.6M`, `789`.
pub fn short(n: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, "G"), (1_000_000, "M"), (1_000, "K")];
    for (unit, name) in UNITS {
        if n >= unit {
            let value = n as f64 / unit as f64;
            let digits = if value < 10.0 {
                2
            } else {
                usize::from(value < 100.0)
            };
            return format!("{value:.digits$}{name}");
        }
    }
    n.to_string()
}

/// Virtual time as positions have it, to the microsecond.
pub fn seconds(ns: u64) -> String {
    format!("t{}.{:06}", ns / 1_000_000_000, ns % 1_000_000_000 / 1_000)
}

/// A text in lines of so many columns, broken between words.
pub fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last().map_or(0, |line| width(line));
        if last > 0 && last + 1 + width(word) > columns {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_off_says_so() {
        assert_eq!(fit("copy_page", 20, "…"), "copy_page");
        assert_eq!(fit("copy_page", 6, "…"), "copy_…");
        assert_eq!(fit("copy_page", 6, "~"), "copy_~");
        assert_eq!(fit("日本語", 4, "…"), "日…");
        assert_eq!(pad("日本語", 4, "…"), "日… ");
        assert_eq!(pad("ab", 4, "…"), "ab  ");
        assert_eq!(clean("a\tb\x1b[2J\n"), "a b.[2J ");
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(short(999), "999");
        assert_eq!(short(1_500), "1.50K");
        assert_eq!(short(45_600_000), "45.6M");
        assert_eq!(short(123_000_000_000), "123G");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(seconds(12_345_678_999), "t12.345678");
    }

    #[test]
    fn tabs_are_columns() {
        assert_eq!(expand("\ta\tbc\x1b", 4), "    a   bc.");
        assert_eq!(expand("abcd\te", 4), "abcd    e");
    }

    #[test]
    fn lines_are_broken_between_words() {
        assert_eq!(wrap("a bc def g", 4), ["a bc", "def", "g"]);
        assert_eq!(wrap("longer a", 3), ["longer", "a"]);
        assert_eq!(wrap("", 3), [""]);
    }
}
