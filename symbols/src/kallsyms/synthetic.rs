//! A small kallsyms writer for tests, in all table orders.

use crate::addr::LinkAddr;

/// Where the address table stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Up to 6.3.
    OffsetsFirst,
    /// Since 6.4.
    OffsetsLast,
    /// Seen in 7.2.
    Packed,
}

pub(crate) const BASE: u64 = 0xffff_ffff_8100_0000;
/// Where the bytes that [`build`] makes are linked.
const PLACE: u64 = 0xffff_ffff_8200_0000;

/// The link-time address of an offset in the bytes that [`build`] makes.
pub(crate) fn place(at: usize) -> Option<LinkAddr> {
    Some(LinkAddr(PLACE + at as u64))
}

/// Tokens that stand for more than themselves, so that unpacking has work to do.
const LONG: [(u8, &str); 4] = [
    (0, "long_token_of_many_letters"),
    (1, "sys_"),
    (200, "Tsys_"),
    (255, "_lock"),
];

fn tokens() -> Vec<String> {
    let mut tokens: Vec<String> = (0..=255u8)
        .map(|c| {
            if c.is_ascii_graphic() {
                char::from(c).to_string()
            } else {
                String::new()
            }
        })
        .collect();
    for (code, text) in LONG {
        tokens[usize::from(code)] = text.to_owned();
    }
    tokens
}

fn compress(kind: u8, name: &str) -> Vec<u8> {
    let mut text = format!("{}{name}", char::from(kind));
    let mut codes = Vec::new();
    while !text.is_empty() {
        let long = LONG.iter().find(|(_, t)| text.starts_with(t));
        let (code, len) = long.map_or((text.as_bytes()[0], 1), |(c, t)| (*c, t.len()));
        codes.push(code);
        text.drain(..len);
    }
    codes
}

fn pad(out: &mut Vec<u8>, order: Order) {
    let multiple = if order == Order::Packed { 4 } else { 8 };
    out.resize(out.len().next_multiple_of(multiple), 0);
}

/// The tables for `symbols` (address, kind, name), sorted by the caller; addresses below the base
/// are per-CPU ones.
pub(crate) fn build(order: Order, symbols: &[(u64, u8, &str)]) -> Vec<u8> {
    // Something before the tables, with a misleading end.
    let mut out = b"0\x001\x002\x00 not a token table ".to_vec();
    out.resize(4096, 0xff);
    let addresses = |out: &mut Vec<u8>| {
        for (addr, ..) in symbols {
            let offset = if order == Order::Packed {
                addr.wrapping_sub(PLACE + out.len() as u64) as i64
            } else if *addr < BASE {
                *addr as i64
            } else {
                -1 - (addr - BASE) as i64
            };
            out.extend_from_slice(&(offset as i32).to_le_bytes());
        }
        if order == Order::Packed {
            return;
        }
        pad(out, order);
        out.extend_from_slice(&BASE.to_le_bytes());
    };
    if order == Order::OffsetsFirst {
        addresses(&mut out);
    }
    out.extend_from_slice(&(symbols.len() as u32).to_le_bytes());
    pad(&mut out, order);
    let names = out.len();
    let mut markers = Vec::new();
    for (i, (_, kind, name)) in symbols.iter().enumerate() {
        if i % 256 == 0 {
            markers.push((out.len() - names) as u32);
        }
        let codes = compress(*kind, name);
        if codes.len() < 128 {
            out.push(codes.len() as u8);
        } else {
            out.extend_from_slice(&[codes.len() as u8 | 0x80, (codes.len() >> 7) as u8]);
        }
        out.extend_from_slice(&codes);
    }
    pad(&mut out, order);
    markers
        .iter()
        .for_each(|m| out.extend_from_slice(&m.to_le_bytes()));
    pad(&mut out, order);
    if order == Order::OffsetsFirst {
        // Three bytes per symbol, filled to the next table without a zero before it.
        let seqs = (symbols.len() * 3).next_multiple_of(8);
        out.resize(out.len() + seqs, 0x5a);
    }
    let tokens = tokens();
    let mut index = Vec::new();
    let start = out.len();
    for token in &tokens {
        index.extend_from_slice(&((out.len() - start) as u16).to_le_bytes());
        out.extend_from_slice(token.as_bytes());
        out.push(0);
    }
    pad(&mut out, order);
    out.extend_from_slice(&index);
    if order != Order::OffsetsFirst {
        pad(&mut out, order);
        addresses(&mut out);
    }
    out.resize(out.len() + 64, 0);
    out
}
