//! Finds the kallsyms tables by their shape.
//!
//! The anchor is `kallsyms_token_table`: 256 NUL-terminated strings, of which those of the digits
//! are the digits themselves, so that `"0\0" "1\0" … "9\0"` stands in the image. Every further
//! table is confirmed by redundancy: the token index by the tokens' own offsets, the names by the
//! markers (the offset of every 256th name).
//!
//! Order of the tables (`scripts/kallsyms.c`):
//! - up to 6.3: `offsets relative_base num_syms names markers [seqs_of_names] token_table
//!   token_index`
//! - since 6.4: `num_syms names markers token_table token_index offsets relative_base
//!   seqs_of_names`
//! - seen in 7.2: the same at multiples of 4, without `relative_base`: every offset counts from its
//!   own place

use std::ops::Range;

use memchr::memmem;

use crate::bytes::LeBytes;
use crate::error::SymbolError;

/// Where the tables lie in the bytes searched.
pub(super) struct Located {
    /// Number of symbols.
    pub(super) count: usize,
    /// Offset of the compressed names.
    pub(super) names: usize,
    /// Offset of the address offsets.
    pub(super) offsets: usize,
    /// `kallsyms_relative_base`; without it, offsets count from their own place.
    pub(super) base: Option<u64>,
    /// The text of every token.
    pub(super) tokens: Vec<Range<usize>>,
}

/// More than any kernel has, and few enough that 32-bit sizes hold.
const MAX_SYMBOLS: usize = 2_000_000;
/// Fewer is not a kernel; keeps stray words from being tried as a count.
const MIN_SYMBOLS: usize = 300;
/// The names of a kernel take 1 to 4 MB; the table is not searched further back than this.
const MAX_NAMES: usize = 32 << 20;
/// A token is a piece of a symbol name.
const MAX_TOKEN: usize = 512;
/// Tries before a hostile image is given up.
const MAX_TRIES: usize = 4096;
/// Where x86-64 links its kernel, and may run it (Documentation/arch/x86/x86_64/mm.rst).
const KERNEL_IMAGE: Range<u64> = 0xffff_ffff_8000_0000..0xffff_ffff_c000_0000;

pub(super) fn locate(bytes: &[u8]) -> Result<Located, SymbolError> {
    let digits: Vec<u8> = (b'0'..=b'9').flat_map(|d| [d, 0]).collect();
    let mut reason = "no token table";
    let mut tries = MAX_TRIES;
    for anchor in memmem::find_iter(bytes, &digits).take(64) {
        let Some((tokens, index)) = token_table(bytes, anchor) else {
            continue;
        };
        let start = tokens[0].start;
        reason = "no name table before the token table";
        let (count, names, address) = if let Some((count, names)) = packed_name_table(bytes, start)
        {
            (count, names, behind(bytes, index + 512, count))
        } else if let Some((count, names)) = name_table(bytes, start, &mut tries) {
            // The count is the label just before the names.
            (
                count,
                names,
                address_table(bytes, names - 8, index + 512, count),
            )
        } else {
            continue;
        };
        reason = "no address table beside the names";
        let Some((offsets, base)) = address else {
            continue;
        };
        return Ok(Located {
            count,
            names,
            offsets,
            base,
            tokens,
        });
    }
    Err(SymbolError::NoKallsyms {
        searched: bytes.len(),
        reason,
    })
}

const fn align4(at: usize) -> usize {
    (at + 3) & !3
}

const fn align8(at: usize) -> usize {
    (at + 7) & !7
}

/// The ranges of the 256 tokens and the offset of the token index, from the place of token `'0'`.
fn token_table(bytes: &[u8], anchor: usize) -> Option<(Vec<Range<usize>>, usize)> {
    let mut tokens = vec![0..0; 256];
    // Backwards from '0' to token 1, whose start is known by the NUL that ends token 0.
    let mut end = anchor.checked_sub(1)?;
    for token in tokens[1..usize::from(b'0')].iter_mut().rev() {
        let floor = end.saturating_sub(MAX_TOKEN);
        let before = memchr::memrchr(0, &bytes[floor..end])?;
        *token = floor + before + 1..end;
        end = floor + before;
    }
    let mut at = anchor;
    for token in &mut tokens[usize::from(b'0')..] {
        let len = bytes.c_str(at)?.len();
        *token = at..at + len;
        at += len + 1;
    }
    // Token 0 may follow a table without padding: its start is an aligned place which the token
    // index confirms.
    let mut start = end & !3;
    loop {
        if end - start > MAX_TOKEN || bytes[start..end].contains(&0) {
            return None;
        }
        tokens[0] = start..end;
        let confirmed = |index: &usize| {
            tokens.iter().enumerate().all(|(i, token)| {
                bytes.le_u16(index + 2 * i).map(usize::from) == Some(token.start - start)
            })
        };
        if let Some(index) = [align8(at), align4(at)].into_iter().find(confirmed) {
            return Some((tokens, index));
        }
        start = start.checked_sub(4)?;
    }
}

/// Length of the compressed name at `at`, and of the length field itself (two bytes, ULEB128,
/// when a name is longer than 127: `CONFIG_KALLSYMS` "big symbols", since 6.1).
#[inline]
pub(super) fn uleb_len(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let low = usize::from(*bytes.get(at)?);
    if low & 0x80 == 0 {
        return Some((low, 1));
    }
    let high = usize::from(*bytes.get(at + 1)?);
    Some(((low & 0x7f) | high << 7, 2))
}

/// Number of symbols and offset of the names, searched backwards from the token table.
fn name_table(bytes: &[u8], tokens: usize, tries: &mut usize) -> Option<(usize, usize)> {
    let floor = tokens.saturating_sub(MAX_NAMES);
    let mut at = tokens & !7;
    while let Some(next) = at.checked_sub(8).filter(|&next| next >= floor) {
        at = next;
        // `.long n` followed by padding up to the names.
        let count = bytes.le_u64(at)?;
        if !(MIN_SYMBOLS as u64..=MAX_SYMBOLS as u64).contains(&count) {
            continue;
        }
        // Each name takes two bytes at least.
        let count = count as usize;
        if count * 2 > tokens - at {
            continue;
        }
        if names_match_markers(bytes, at + 8, count, tokens) {
            return Some((count, at + 8));
        }
        *tries = tries.checked_sub(1)?;
    }
    None
}

/// The same where everything stands at multiples of 4: the markers end where the tokens begin, and
/// say how many names there are within 256 and how long they are.
fn packed_name_table(bytes: &[u8], tokens: usize) -> Option<(usize, usize)> {
    let mut markers = tokens;
    let mut last = None;
    loop {
        markers = markers.checked_sub(4)?;
        let marker = bytes.le_u32(markers)?;
        if !markers.is_multiple_of(4) || last.is_some_and(|last| marker >= last) {
            return None;
        }
        if marker == 0 {
            break;
        }
        last = Some(marker);
    }
    let blocks = (tokens - markers) / 4;
    let counts = (blocks - 1) * 256 + 1..=blocks * 256;
    let whole = bytes.le_u32(tokens - 4)? as usize;
    let latest = markers.checked_sub(whole + 4)? & !3;
    let earliest = latest.saturating_sub(256 * MAX_TOKEN);
    (earliest..=latest).rev().step_by(4).find_map(|at| {
        let count = bytes.le_u32(at)? as usize;
        let plausible = counts.contains(&count) && count >= MIN_SYMBOLS;
        (plausible && names_match_markers(bytes, at + 4, count, markers)).then_some((count, at + 4))
    })
}

fn names_match_markers(bytes: &[u8], names: usize, count: usize, limit: usize) -> bool {
    let mut markers = Vec::with_capacity(count.div_ceil(256));
    let mut at = names;
    for i in 0..count {
        if i % 256 == 0 {
            markers.push((at - names) as u32);
        }
        match uleb_len(bytes, at) {
            Some((len @ 1.., skip)) if at + skip + len <= limit => at += skip + len,
            _ => return false,
        }
    }
    [align8(at), align4(at)].iter().any(|table| {
        let found = |i: usize| bytes.le_u32(table + 4 * i);
        let mut markers = markers.iter().enumerate();
        markers.all(|(i, m)| found(i) == Some(*m))
    })
}

/// Offset of the address table and its base, on either side of the names.
fn address_table(
    bytes: &[u8],
    num_syms: usize,
    after_index: usize,
    count: usize,
) -> Option<(usize, Option<u64>)> {
    let before = || {
        let at = num_syms.checked_sub(8)?;
        let base = base_at(bytes, at)?;
        Some((at.checked_sub(align8(count * 4))?, Some(base)))
    };
    before().or_else(|| behind(bytes, align8(after_index), count))
}

/// The same, known to stand behind the token index.
fn behind(bytes: &[u8], at: usize, count: usize) -> Option<(usize, Option<u64>)> {
    if let Some(base) = base_at(bytes, align8(at + count * 4)) {
        return Some((at, Some(base)));
    }
    // Places rise by 4 from one offset to the next, and addresses never fall.
    let address = |i: usize| Some(bytes.le_u32(at + 4 * i)?.wrapping_add(4 * i as u32) as i32);
    let ordered = (1..count).all(|i| address(i - 1).is_some_and(|a| Some(a) <= address(i)));
    ordered.then_some((at, None))
}

fn base_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.le_u64(at).filter(|base| KERNEL_IMAGE.contains(base))
}
