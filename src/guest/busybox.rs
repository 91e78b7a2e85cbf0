//! Reads from a busybox binary which applets it has, without running it.

/// Busybox keeps the sorted names of its applets as consecutive C strings (`applet_names`), and `[`
/// and `[[` sort before all others.
const FIRST_NAMES: &[u8] = b"[\0[[\0";
/// More than busybox has ever had; a list that is longer is something else.
const MAX_APPLETS: usize = 1000;

/// The names of the applets, sorted; empty if the binary does not look like a busybox.
pub(crate) fn applets(binary: &[u8]) -> Vec<&str> {
    let starts = binary.windows(FIRST_NAMES.len()).enumerate();
    starts
        .filter(|(_, window)| *window == FIRST_NAMES)
        .filter_map(|(at, _)| name_list(&binary[at..]))
        .max_by_key(Vec::len)
        .unwrap_or_default()
}

/// The strings up to the first one that cannot be the next name.
fn name_list(bytes: &[u8]) -> Option<Vec<&str>> {
    let mut names: Vec<&str> = Vec::new();
    for name in bytes.split(|&byte| byte == 0).take(MAX_APPLETS) {
        let Ok(name) = std::str::from_utf8(name) else {
            break;
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "[_-+.".contains(c);
        if name.is_empty() || !name.chars().all(plain) || names.last().is_some_and(|&l| l >= name) {
            break;
        }
        names.push(name);
    }
    names.contains(&"sh").then_some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_ends_where_the_names_stop_being_names() {
        let binary = b"junk[\0[[\0junk\0\0[\0[[\0ash\0cat\0sh\0wc\0\0zcat\0";
        assert_eq!(applets(binary), ["[", "[[", "ash", "cat", "sh", "wc"]);
        assert_eq!(
            applets(b"[\0[[\0ash\0sh\0Usage\0"),
            ["[", "[[", "ash", "sh"]
        );
    }

    #[test]
    fn other_binaries_have_no_applets() {
        assert!(applets(b"").is_empty());
        assert!(
            applets(b"[\0[[\0ash\0cat\0").is_empty(),
            "no shell, no busybox"
        );
    }
}
