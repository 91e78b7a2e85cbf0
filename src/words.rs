//! Numbers as people write them: `512M`, `@1.2G`, `10M`.

use std::str::FromStr;

use colinux_replay::checkpoint::Interval;

/// A size in bytes. A plain number is MiB, as coLinux and QEMU have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) u64);

/// A number of ticks, or a tick: decimal suffixes, an optional `@`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count(pub(crate) u64);

/// A number with a suffix out of a table, or `plain` without one; fractions are fine if the result
/// is whole.
fn number(text: &str, suffixes: &[(char, u64)], plain: u64) -> Option<u64> {
    let upper = text.trim().to_ascii_uppercase();
    let (digits, unit) = match suffixes.iter().find(|(c, _)| upper.ends_with(*c)) {
        Some((c, unit)) => (upper.strip_suffix(*c)?, *unit),
        None => (upper.as_str(), plain),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.len() > 12 {
        return None;
    }
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    if !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let parse = |s: &str| -> Option<u64> {
        let s = s.replace('_', "");
        if s.is_empty() {
            Some(0)
        } else {
            s.parse().ok()
        }
    };
    let scale = 10u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part = u128::from(parse(fraction)?) * u128::from(unit);
    if !part.is_multiple_of(u128::from(scale)) {
        return None;
    }
    let total = u128::from(parse(whole)?) * u128::from(unit) + part / u128::from(scale);
    u64::try_from(total).ok()
}

impl FromStr for Bytes {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        const UNITS: &[(char, u64)] = &[('K', 1 << 10), ('M', 1 << 20), ('G', 1 << 30), ('B', 1)];
        let text = s.trim_end_matches("iB");
        number(text, UNITS, 1 << 20).map(Bytes).ok_or_else(|| {
            format!("`{s}` is not a size; write a number with K, M or G, or a number of MiB")
        })
    }
}

impl FromStr for Count {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        const UNITS: &[(char, u64)] = &[('K', 1_000), ('M', 1_000_000), ('G', 1_000_000_000)];
        let text = s.strip_prefix('@').unwrap_or(s);
        number(text, UNITS, 1)
            .map(Count)
            .ok_or_else(|| format!("`{s}` is not a tick; write it as @123456789 or @1.2G"))
    }
}

/// How far apart checkpoints are to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckpointInterval(pub(crate) Interval);

impl FromStr for CheckpointInterval {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let interval = match s {
            "auto" => Interval::Spread,
            _ => match s.parse::<Count>() {
                Ok(Count(0)) => Interval::Never,
                Ok(Count(ticks)) => Interval::Every(ticks),
                Err(_) => return Err(format!("`{s}` is neither a number of ticks nor `auto`")),
            },
        };
        Ok(CheckpointInterval(interval))
    }
}

/// Where a recording is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    Tick(u64),
    Panic,
}

impl FromStr for Until {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        if s == "panic" {
            Ok(Until::Panic)
        } else {
            s.parse::<Count>().map(|c| Until::Tick(c.0))
        }
    }
}

/// Thousands separated, for people.
pub(crate) fn grouped(n: u64) -> String {
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

/// A size with a binary unit.
pub(crate) fn sized(n: u64) -> String {
    const UNITS: &[(&str, u64)] = &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    for (name, unit) in UNITS {
        if n >= *unit {
            return format!("{:.1} {name}", n as f64 / *unit as f64);
        }
    }
    format!("{n} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ticks_as_people_write_them() {
        let bytes = |s: &str| s.parse::<Bytes>().map(|b| b.0);
        assert_eq!(bytes("512M"), Ok(512 << 20));
        assert_eq!(bytes("64"), Ok(64 << 20));
        assert_eq!(bytes("1.5G"), Ok(3 << 29));
        assert_eq!(bytes("1048576B"), Ok(1 << 20));
        assert!(bytes("lots").is_err() && bytes("").is_err() && bytes("-1").is_err());
        let tick = |s: &str| s.parse::<Count>().map(|c| c.0);
        assert_eq!(tick("@1.2G"), Ok(1_200_000_000));
        assert_eq!(tick("123_456"), Ok(123_456));
        assert!(tick("1.23456").is_err() && tick("@").is_err());
        assert!(tick("99999999999999G").is_err());
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(12), "12");
        assert_eq!(sized(3 << 29), "1.5 GiB");
    }
}
