//! Any bytes as a recording: whole, or as one chunk behind sound checksums.
//!
//! Nothing here catches a panic or a hang; whoever calls [`check`] does.

use colinux_tracer::{EventKind, EventMask, FILE_HEADER_LEN, Reader};

/// Reads everything that a reader can be asked for, and gives the number of events.
fn read(bytes: Vec<u8>) -> usize {
    let Ok(mut reader) = Reader::from_bytes("fuzz.clt", bytes) else {
        return 0;
    };
    let _ = (
        reader.manifest(),
        reader.host_info(),
        reader.end(),
        reader.notes(),
    );
    let _ = (reader.stats(), reader.row_bytes(), reader.check());
    let rows = reader.events().take(1 << 18).filter_map(Result::ok).count();
    assert!(rows as u64 <= reader.event_count());
    for kind in [EventKind::IrqDeliver, EventKind::TaskSwitch] {
        let _ = reader.events().with_kinds(EventMask::of(&[kind])).count();
    }
    let mut cursor = reader.events();
    let _ = (cursor.seek_number(7), cursor.seek_tick(1100));
    let _ = (cursor.prev(), cursor.next());
    let _ = (reader.inputs(), reader.refresh());
    rows
}

fn number<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
    let (first, rest) = bytes.split_at(bytes.len().min(N));
    let mut number = [0; N];
    number[..first.len()].copy_from_slice(first);
    *bytes = rest;
    number
}

/// One chunk after a file header, with checksums that hold. The first bytes say what its header says.
fn sealed(mut bytes: &[u8]) -> Vec<u8> {
    let mut file = b"\x89CLT\r\n\x1a\n\x01\0\0\0\0\0\0\0".to_vec();
    file.resize(FILE_HEADER_LEN - 4, 0);
    file.extend_from_slice(&crc32fast::hash(&file).to_le_bytes());
    let [kind, version, codec] = number(&mut bytes);
    let [low, middle, high] = number(&mut bytes);
    let rows = u32::from(u16::from_le_bytes(number(&mut bytes)));
    let ticks: [u8; 16] = number(&mut bytes);
    let raw_len = match u32::from_le_bytes([low, middle, high, 0]) {
        // What most bodies need, so that it need not be guessed.
        0 => bytes.len() as u32,
        length => length,
    };
    let start = file.len();
    let counts: &[u8] = &match rows {
        0 => Vec::new(),
        1..128 => vec![0x2a, rows as u8],
        _ => vec![
            0x2a,
            rows as u8 | 0x80,
            (rows >> 7) as u8 | 0x80,
            (rows >> 14) as u8,
        ],
    };
    file.extend_from_slice(b"CLTC");
    file.extend_from_slice(&[version % 4, kind % 12, codec % 4, 0, 0, 0]);
    file.extend_from_slice(&(52 + counts.len() as u16).to_le_bytes());
    let lens = [rows, 0, raw_len, bytes.len() as u32, crc32fast::hash(bytes)];
    lens.iter()
        .for_each(|word| file.extend_from_slice(&word.to_le_bytes()));
    file.extend_from_slice(&ticks);
    file.extend_from_slice(counts);
    let check = crc32fast::hash(&file[start..]);
    file.extend_from_slice(&check.to_le_bytes());
    file.extend_from_slice(bytes);
    file
}

/// Reads the bytes as a file, and as a chunk; gives the number of events that were found.
pub(crate) fn check(data: &[u8]) -> usize {
    read(data.to_vec()) + read(sealed(data))
}
