//! A second reader, written from `docs/FORMAT.md` alone: what the document leaves out, it does not
//! know. It reads what the first one reads.

mod every;

use std::collections::HashMap;
use std::path::Path;

use colinux_tracer::Reader;
use serde_json::{Value, json};

const TEXT: &str = include_str!("../../docs/FORMAT.md");

/// Bytes read forwards. The document's rules for bad input are the first reader's matter.
struct From<'a>(&'a [u8]);

impl<'a> From<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }

    fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn varint(&mut self) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.byte();
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }

    fn counted(&mut self) -> &'a [u8] {
        let count = self.varint() as usize;
        self.take(count)
    }

    fn text(&mut self) -> String {
        String::from_utf8(self.counted().to_vec()).unwrap()
    }
}

fn unzigzag(folded: u64) -> i64 {
    (folded >> 1) as i64 ^ -((folded & 1) as i64)
}

/// A little-endian number in a header.
fn at(bytes: &[u8], offset: usize, len: usize) -> u64 {
    bytes[offset..offset + len]
        .iter()
        .rev()
        .fold(0, |n, byte| n << 8 | u64::from(*byte))
}

fn unzip(codec: u8, stored: &[u8], raw_len: usize) -> Vec<u8> {
    let raw = match codec {
        0 => stored.to_vec(),
        _ => zstd::bulk::decompress(stored, raw_len).unwrap(),
    };
    assert_eq!(raw.len(), raw_len);
    raw
}

/// The parts of a body, unpacked; a body of one part when it has no substreams.
fn parts(codec: u8, body: &[u8], raw_len: usize) -> Vec<Vec<u8>> {
    if codec != 2 {
        return vec![unzip(codec, body, raw_len)];
    }
    let mut from = From(body);
    let count = from.varint();
    let table: Vec<_> = (0..count)
        .map(|_| (from.byte(), from.varint() as usize, from.varint() as usize))
        .collect();
    let parts = table
        .iter()
        .map(|(codec, raw, stored)| unzip(*codec, from.take(*stored), *raw));
    let parts: Vec<_> = parts.collect();
    assert!(from.0.is_empty());
    assert_eq!(parts.iter().map(Vec::len).sum::<usize>(), raw_len);
    parts
}

/// A code: its name, and name and type of each field.
type Schema = HashMap<u8, (String, Vec<(String, u8)>)>;

fn schema(body: &[u8]) -> Schema {
    let mut from = From(body);
    let count = from.varint();
    (0..count)
        .map(|_| {
            let (code, name) = (from.byte(), from.text());
            let _facility_and_level = (from.text(), from.byte());
            let fields = from.varint();
            let fields = (0..fields).map(|_| (from.text(), from.byte())).collect();
            (code, (name, fields))
        })
        .collect()
}

fn columns_of(ty: u8) -> usize {
    match ty {
        11 => 4,
        12 => 6,
        _ => 1,
    }
}

/// What the document calls a number of a code's field.
fn name_in_list(code: u8, field: &str, number: u64) -> Value {
    let start = format!("| 0x{code:02X} |");
    let row = TEXT.lines().find(|line| line.starts_with(&start)).unwrap();
    let list = row.split(&format!("`{field}` code ")).nth(1).unwrap();
    let list: String = list
        .chars()
        .take_while(char::is_ascii_alphanumeric)
        .collect();
    let start = format!("| {list} |");
    let row = TEXT.lines().find(|line| line.starts_with(&start)).unwrap();
    let items = row[start.len()..].trim_matches([' ', '|']).split(", ");
    let item = items.map(|item| item.split_once(' ').unwrap());
    let found = item.into_iter().find(|(n, _)| n.parse() == Ok(number));
    json!(found.unwrap().1)
}

/// A field's value from its numbers or bytes, as the first reader shows it.
fn shown(code: u8, field: &str, ty: u8, numbers: &[u64], bytes: &[u8], like: &Value) -> Value {
    match ty {
        5 => json!(unzigzag(numbers[0])),
        6 => json!(numbers[0] == 1),
        10 => name_in_list(code, field, numbers[0]),
        7 | 8 if like.is_string() => json!(String::from_utf8(bytes.to_vec()).unwrap()),
        7 => json!(bytes),
        9 => json!(bytes.iter().map(|b| format!("{b:02x}")).collect::<String>()),
        11 | 12 => json!(numbers),
        13 => {
            let mut from = From(bytes);
            let count = from.varint();
            let pairs = (0..count).map(|_| (from.byte(), from.varint()));
            json!(pairs.collect::<Vec<_>>())
        }
        _ => json!(numbers[0]),
    }
}

/// An event: tick, vCPU, code, and numbers and bytes of each field.
type Row = (u64, u16, u8, Vec<(Vec<u64>, Vec<u8>)>);

fn rows(body: &[u8], vcpu: u16, rows: usize, first: u64, schema: &Schema) -> Vec<Row> {
    let mut from = From(body);
    let mut tick = first;
    let rows = (0..rows).map(|_| {
        tick += from.varint();
        let code = from.byte();
        let fields = schema[&code].1.iter().map(|(_, ty)| match ty {
            1 | 6 | 10 => (vec![from.byte().into()], Vec::new()),
            7 | 8 => (Vec::new(), from.counted().to_vec()),
            9 => (Vec::new(), from.take(16).to_vec()),
            13 => {
                let start = from.0;
                for _ in 0..from.varint() {
                    let _pair = (from.byte(), from.varint());
                }
                (Vec::new(), start[..start.len() - from.0.len()].to_vec())
            }
            _ => (
                (0..columns_of(*ty)).map(|_| from.varint()).collect(),
                Vec::new(),
            ),
        });
        (tick, vcpu, code, fields.collect())
    });
    let rows = rows.collect();
    assert!(from.0.is_empty());
    rows
}

#[derive(Clone, Copy)]
enum Rule {
    Nothing,
    Latest(u8, u8),
    Since(u8),
    Clock,
    With(u8, u8),
}

fn rule(from: &mut From<'_>) -> Rule {
    match from.byte() {
        0 => Rule::Nothing,
        1 => Rule::Latest(from.byte(), from.byte()),
        2 => Rule::Since(from.byte()),
        3 => Rule::Clock,
        4 => Rule::With(from.byte(), from.byte()),
        other => panic!("rule {other}"),
    }
}

/// What was read of a code: the tick of its last row, the distance to the one before, and the value
/// that its ticks follow, as it was then.
#[derive(Clone, Copy, Default)]
struct Last {
    tick: u64,
    step: u64,
    followed: u64,
}

fn columns(parts: &[Vec<u8>], vcpu: u16, rows: usize, first: u64, schema: &Schema) -> Vec<Row> {
    let mut head = From(&parts[0]);
    let kinds = head.varint() as usize;
    let mut listed = Vec::new();
    let mut columns: HashMap<(u8, u8), (Rule, From<'_>)> = HashMap::new();
    for number in 0..kinds {
        let code = head.byte();
        listed.push((code, rule(&mut head), head.varint() as usize));
        let mut part = From(&parts[number + 1]);
        for column in 0..head.byte() {
            let (rule, len) = (rule(&mut head), head.varint() as usize);
            columns.insert((code, column), (rule, From(part.take(len))));
        }
        assert!(part.0.is_empty());
    }
    let codes = head.take(rows);
    let mut ticks: HashMap<u8, (Rule, From<'_>)> = HashMap::new();
    for (code, rule, len) in listed {
        ticks.insert(code, (rule, From(head.take(len))));
    }
    assert!(head.0.is_empty());
    let mut numbers: HashMap<(u8, u8), u64> = HashMap::new();
    let mut texts: HashMap<(u8, u8), Vec<u8>> = HashMap::new();
    let mut with: HashMap<(u8, u8, u64), Vec<u8>> = HashMap::new();
    let mut last: HashMap<u8, Last> = HashMap::new();
    let mut tick = first;
    let read = codes.iter().map(|&code| {
        let (tick_rule, from) = ticks.get_mut(&code).unwrap();
        let before = last.get(&code).copied().unwrap_or_default();
        let stands = from.varint();
        let followed = |numbers: &HashMap<_, u64>| match *tick_rule {
            Rule::Latest(code, column) => numbers.get(&(code, column)).copied().unwrap_or(0),
            _ => 0,
        };
        let less = unzigzag(stands) as u64;
        tick = match *tick_rule {
            Rule::Clock => before.tick.wrapping_add(before.step).wrapping_add(less),
            Rule::Latest(..) => {
                let passed = followed(&numbers).wrapping_sub(before.followed);
                before.tick.wrapping_add(passed).wrapping_add(less)
            }
            _ => tick + stands,
        };
        let mut column = 0;
        let fields = schema[&code].1.iter().map(|(_, ty)| {
            let (mut values, mut bytes) = (Vec::new(), Vec::new());
            for _ in 0..columns_of(*ty) {
                let here = (code, column);
                let (rule, from) = columns.get_mut(&here).unwrap();
                match ty {
                    9 => bytes = from.take(16).to_vec(),
                    7 | 8 | 13 => {
                        let key = match *rule {
                            Rule::With(c, k) => {
                                Some((code, column, numbers.get(&(c, k)).copied().unwrap_or(0)))
                            }
                            _ => None,
                        };
                        bytes = match (from.varint(), *rule, key) {
                            (0, Rule::Latest(c, k), _) => {
                                texts.get(&(c, k)).cloned().unwrap_or_default()
                            }
                            (0, _, Some(key)) => with[&key].clone(),
                            (len, ..) => from.take(len as usize - 1).to_vec(),
                        };
                        let short = if bytes.len() <= 64 {
                            bytes.clone()
                        } else {
                            Vec::new()
                        };
                        texts.insert(here, short.clone());
                        if let Some(key) = key {
                            with.insert(key, short);
                        }
                    }
                    _ => {
                        let expected = match *rule {
                            Rule::Nothing | Rule::With(..) => None,
                            Rule::Latest(c, k) => Some(numbers.get(&(c, k)).copied().unwrap_or(0)),
                            Rule::Since(c) => Some(tick - last.get(&c).map_or(0, |last| last.tick)),
                            Rule::Clock => {
                                let value = numbers.get(&here).copied().unwrap_or(0);
                                Some(value.wrapping_add(tick - before.tick))
                            }
                        };
                        let stands = from.varint();
                        let value = match expected {
                            None => stands,
                            Some(expected) => expected.wrapping_add(unzigzag(stands) as u64),
                        };
                        numbers.insert(here, value);
                        values.push(value);
                    }
                }
                column += 1;
            }
            (values, bytes)
        });
        let fields = fields.collect();
        let now = Last {
            tick,
            step: tick.wrapping_sub(before.tick),
            followed: followed(&numbers),
        };
        last.insert(code, now);
        (tick, vcpu, code, fields)
    });
    let read = read.collect();
    assert!(
        columns
            .values()
            .chain(ticks.values())
            .all(|(_, from)| from.0.is_empty())
    );
    read
}

/// The schema and the events of a file, in their order.
fn read(file: &[u8]) -> (Schema, Vec<Row>) {
    assert_eq!(&file[..8], b"\x89CLT\r\n\x1a\n");
    assert_eq!(at(file, 8, 2), 1);
    let (mut known, mut found) = (Schema::new(), Vec::new());
    let mut offset = 32;
    while file[offset..].starts_with(b"CLTC") {
        let header = &file[offset..];
        let (version, kind, codec) = (header[4], header[5], header[6]);
        let (len, rows_count) = (at(header, 10, 2) as usize, at(header, 12, 4) as usize);
        let (raw_len, stored) = (at(header, 20, 4) as usize, at(header, 24, 4) as usize);
        let (vcpu, first) = (at(header, 8, 2) as u16, at(header, 32, 8));
        let body = &header[len..len + stored];
        assert_eq!(u64::from(crc32fast::hash(body)), at(header, 28, 4));
        match (kind, version) {
            (2, 1) => known = schema(&parts(codec, body, raw_len)[0]),
            (7, 1) => {
                let parts = parts(codec, body, raw_len);
                found.extend(rows(&parts[0], vcpu, rows_count, first, &known));
            }
            (7, 2) => {
                let parts = parts(codec, body, raw_len);
                found.extend(columns(&parts, vcpu, rows_count, first, &known));
            }
            (7, other) => panic!("layout version {other}"),
            _ => {}
        }
        offset += len + stored;
    }
    // By tick, then vCPU, then their order in the chunks of that vCPU.
    found.sort_by_key(|(tick, vcpu, ..)| (*tick, *vcpu));
    (known, found)
}

fn both_read_the_same(path: &Path) {
    let file = std::fs::read(path).unwrap();
    let (schema, mut found) = read(&file);
    let found = &mut found.drain(..);
    for row in Reader::open(path).unwrap().events() {
        let row = row.unwrap();
        let (tick, vcpu, code, fields) = found.next().unwrap();
        let (name, types) = &schema[&code];
        assert_eq!(
            (tick, vcpu, code),
            (row.tick, row.vcpu, row.event.kind().code())
        );
        let event = serde_json::to_value(&row.event).unwrap();
        for ((field, ty), (numbers, bytes)) in types.iter().zip(&fields) {
            let like = &event[name][field];
            let value = shown(code, field, *ty, numbers, bytes, like);
            assert_eq!(&value, like, "{name}.{field} at {tick}");
        }
    }
    assert!(found.next().is_none());
}

#[test]
fn both_readers_read_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new.clt");
    every::write(&path);
    both_read_the_same(&path);
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    let mut files = 0;
    for entry in std::fs::read_dir(golden).unwrap() {
        both_read_the_same(&entry.unwrap().path());
        files += 1;
    }
    assert!(files >= 2);
}
