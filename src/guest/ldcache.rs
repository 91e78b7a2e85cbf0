//! Reads `/etc/ld.so.cache`, where the host's dynamic loader finds most libraries.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// glibc, sysdeps/generic/dl-cache.h: `CACHEMAGIC_VERSION_NEW`.
const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
const HEADER_LEN: usize = 48;
const ENTRY_LEN: usize = 24;
/// `FLAG_ELF_LIBC6 | FLAG_X8664_LIB64`.
const X86_64_LIBRARY: u32 = 0x0303;

/// Library names and where they are.
#[derive(Debug, Default)]
pub(crate) struct LdCache {
    paths: BTreeMap<Vec<u8>, PathBuf>,
}

impl LdCache {
    /// Reads a cache file's bytes. What cannot be understood is left out: the default directories
    /// are searched as well.
    pub(crate) fn parse(data: &[u8]) -> LdCache {
        LdCache {
            paths: paths(data).unwrap_or_default(),
        }
    }

    /// Where the library of this name is.
    pub(crate) fn find(&self, name: &Path) -> Option<&Path> {
        self.paths
            .get(name.as_os_str().as_bytes())
            .map(PathBuf::as_path)
    }
}

fn paths(data: &[u8]) -> Option<BTreeMap<Vec<u8>, PathBuf>> {
    // Offsets count from the header, which older hosts put behind one of an older format.
    let start = data
        .windows(MAGIC.len())
        .position(|window| window == MAGIC)?;
    let data = &data[start..];
    let word = |at: usize| Some(u32::from_le_bytes(*data.get(at..)?.first_chunk()?));
    let string = |at: u32| {
        data.get(usize::try_from(at).ok()?..)?
            .split(|&byte| byte == 0)
            .next()
    };
    let count = usize::try_from(word(MAGIC.len())?).ok()?;
    let mut found = BTreeMap::new();
    for entry in data.get(HEADER_LEN..)?.chunks_exact(ENTRY_LEN).take(count) {
        let field = |at: usize| Some(u32::from_le_bytes(*entry.get(at..)?.first_chunk()?));
        let (flags, key, value) = (field(0)?, field(4)?, field(8)?);
        // Entries with a hardware capability are for newer CPUs than the guest's.
        let baseline = entry[16..24] == [0; 8];
        if flags != X86_64_LIBRARY || !baseline {
            continue;
        }
        if let (Some(name), Some(path)) = (string(key), string(value)) {
            found
                .entry(name.to_vec())
                .or_insert_with(|| PathBuf::from(OsStr::from_bytes(path)));
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(entries: &[(u32, &str, &str, u64)]) -> Vec<u8> {
        let mut file = MAGIC.to_vec();
        file.extend((entries.len() as u32).to_le_bytes());
        file.resize(HEADER_LEN, 0);
        let mut strings = Vec::new();
        let base = HEADER_LEN + entries.len() * ENTRY_LEN;
        for (flags, name, path, hwcap) in entries {
            let mut place = |text: &str| {
                let at = (base + strings.len()) as u32;
                strings.extend_from_slice(text.as_bytes());
                strings.push(0);
                at
            };
            for field in [*flags, place(name), place(path), 0] {
                file.extend(field.to_le_bytes());
            }
            file.extend(hwcap.to_le_bytes());
        }
        file.extend(strings);
        file
    }

    #[test]
    fn only_libraries_the_guest_can_load_are_found() {
        let file = cache(&[
            (0x0003, "libx.so", "/lib32/libx.so", 0),
            (0x0303, "libx.so", "/v3/libx.so", 1 << 62),
            (0x0303, "libx.so", "/lib/libx.so", 0),
            (0x0303, "libx.so", "/other/libx.so", 0),
        ]);
        let find = |file: &[u8], name| {
            LdCache::parse(file)
                .find(Path::new(name))
                .map(PathBuf::from)
        };
        assert_eq!(find(&file, "libx.so"), Some("/lib/libx.so".into()));
        assert_eq!(find(&file, "liby.so"), None);
        let mut older_first = b"ld.so-1.7.0\0\0\0\0\0".to_vec();
        older_first.extend(&file);
        assert_eq!(find(&older_first, "libx.so"), Some("/lib/libx.so".into()));
    }

    #[test]
    fn a_damaged_cache_finds_less_and_does_not_panic() {
        let file = cache(&[(0x0303, "libx.so", "/lib/libx.so", 0)]);
        for len in 0..file.len() {
            let _ = LdCache::parse(&file[..len]);
        }
        let mut file = file;
        file[HEADER_LEN + 4..HEADER_LEN + 12].fill(0xff);
        assert!(LdCache::parse(&file).find(Path::new("libx.so")).is_none());
    }
}
