//! Where the files of an initial RAM disk are in it: the guest copies them, page by page, into the
//! file system it begins with.

use super::pages::PAGE;

/// Bytes of a header of the "newc" format, see cpio(5).
const HEADER: usize = 110;
const MAGIC: [&[u8]; 2] = [b"070701", b"070702"];

/// The pieces of at most a page of every file in an archive: where, and how many bytes. Stops at the
/// first bytes that are no archive, as a compressed one.
pub(crate) fn pages(archive: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut at = 0usize;
    while let Some(header) = archive.get(at..at.saturating_add(HEADER)) {
        if !MAGIC.contains(&&header[..6]) {
            // Archives follow one another with zeros between.
            if header[0] == 0 {
                at = (at + 4) & !3;
                continue;
            }
            break;
        }
        let field = |n: usize| -> Option<usize> {
            let digits = std::str::from_utf8(header.get(6 + 8 * n..14 + 8 * n)?).ok()?;
            usize::from_str_radix(digits, 16).ok()
        };
        let (Some(size), Some(name)) = (field(6), field(11)) else {
            break;
        };
        let Some(data) = at.checked_add(HEADER + name).map(|end| (end + 3) & !3) else {
            break;
        };
        let Some(end) = data.checked_add(size).filter(|end| *end <= archive.len()) else {
            break;
        };
        found.extend((data..end).step_by(PAGE).map(|at| (at, PAGE.min(end - at))));
        at = (end + 3) & !3;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, content: &[u8]) -> Vec<u8> {
        let mut fields = [0; 13];
        fields[6] = content.len();
        fields[11] = name.len() + 1;
        let mut out = b"070701".to_vec();
        for field in fields {
            out.extend(format!("{field:08X}").bytes());
        }
        out.extend(name.bytes());
        out.push(0);
        while !out.len().is_multiple_of(4) {
            out.push(0);
        }
        out.extend(content);
        while !out.len().is_multiple_of(4) {
            out.push(0);
        }
        out
    }

    #[test]
    fn files_are_found_page_by_page_and_garbage_ends_the_search() {
        let mut archive = member("a", &[1; PAGE + 5]);
        let second = archive.len() + 512;
        archive.resize(second, 0);
        archive.extend(member("TRAILER!!!", b"xyz"));
        archive.extend(b"\x1f\x8b compressed");
        let found = pages(&archive);
        assert_eq!(found.len(), 3);
        assert_eq!((found[0].1, found[1].1, found[2].1), (PAGE, 5, 3));
        assert_eq!(found[1].0, found[0].0 + PAGE);
        assert_eq!(&archive[found[2].0..][..3], b"xyz");
        for cut in 0..archive.len() {
            let _ = pages(&archive[..cut]);
        }
        assert!(pages(b"070701ZZZZ").is_empty());
        assert!(pages(&[b'f'; 300]).is_empty());
    }
}
