//! What changed in a page, as runs of bytes.

use super::pages::PAGE;

/// Changes that take more bytes than this are not told as such: the whole page packs better.
const BYTES_MAX: usize = PAGE / 2;
/// Runs begin and end at multiples of this.
const WORD: usize = 8;

/// Appends what is other in `now` than in `before`: the number of runs, and for each its offset, its
/// length and its bytes; numbers have two bytes, the low one first. `false`, and nothing appended,
/// when that is too much.
pub(super) fn put(now: &[u8], before: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let mut count = 0u16;
    out.extend([0; 2]);
    // Where the open run begins in a page, and where it begins in `out`.
    let mut open: Option<(usize, usize)> = None;
    let words = now.chunks_exact(WORD).zip(before.chunks_exact(WORD));
    for (n, (word, old)) in words.enumerate() {
        if word == old {
            open = None;
            continue;
        }
        let at = open.unwrap_or_else(|| {
            count += 1;
            let at = out.len();
            out.extend(((n * WORD) as u16).to_le_bytes());
            out.extend([0; 2]);
            (n * WORD, at)
        });
        open = Some(at);
        out.extend_from_slice(word);
        let len = ((n + 1) * WORD - at.0) as u16;
        out[at.1 + 2..at.1 + 4].copy_from_slice(&len.to_le_bytes());
        if out.len() - start > BYTES_MAX {
            out.truncate(start);
            return false;
        }
    }
    out[start..start + 2].copy_from_slice(&count.to_le_bytes());
    true
}

/// Applies the changes at the beginning of `data` to a page; gives what follows them. `None` when
/// they are none.
pub(super) fn apply<'d>(data: &'d [u8], page: &mut [u8]) -> Option<&'d [u8]> {
    let (count, mut rest) = number(data)?;
    for _ in 0..count {
        let (offset, after) = number(rest)?;
        let (len, after) = number(after)?;
        let (bytes, after) = after.split_at_checked(len)?;
        page.get_mut(offset..offset.checked_add(len)?)?
            .copy_from_slice(bytes);
        rest = after;
    }
    Some(rest)
}

fn number(data: &[u8]) -> Option<(usize, &[u8])> {
    let (two, rest) = data.split_first_chunk::<2>()?;
    Some((u16::from_le_bytes(*two).into(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_come_back_and_too_many_are_refused() {
        let before = vec![3; PAGE];
        let mut now = before.clone();
        now[5] = 0;
        now[100..150].fill(9);
        now[PAGE - 1] = 1;
        let mut data = vec![77];
        assert!(put(&now, &before, &mut data));
        data.push(88);
        let mut page = before.clone();
        assert_eq!(apply(&data[1..], &mut page), Some(&[88][..]));
        assert_eq!(page, now);
        for cut in 1..data.len() - 1 {
            assert_eq!(apply(&data[1..cut], &mut page), None, "{cut}");
        }
        let mut same = Vec::new();
        assert!(put(&before, &before, &mut same));
        assert_eq!(same, [0, 0]);
        assert!(!put(&vec![4; PAGE], &before, &mut same));
        assert_eq!(same, [0, 0]);
        assert_eq!(apply(&[1, 0, 0xff, 0xff, 1, 0, 5], &mut page), None);
    }
}
