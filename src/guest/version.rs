//! Kernel release names as Debian writes them, such as `6.12.117+deb12-cloud-amd64`.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// Which of Debian's builds of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// For virtual machines: small, quick to boot. The default.
    Cloud,
    /// The general one.
    Amd64,
    /// With PREEMPT_RT.
    Rt,
}

impl Flavour {
    /// How release names of this flavour end, and the name of its meta-package after `linux-image-`.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Flavour::Cloud => "cloud-amd64",
            Flavour::Amd64 => "amd64",
            Flavour::Rt => "rt-amd64",
        }
    }
}

impl fmt::Display for Flavour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Flavour::Cloud => "cloud",
            Flavour::Amd64 => "amd64",
            Flavour::Rt => "rt",
        })
    }
}

impl FromStr for Flavour {
    type Err = String;

    fn from_str(name: &str) -> Result<Flavour, String> {
        match name {
            "cloud" => Ok(Flavour::Cloud),
            "amd64" => Ok(Flavour::Amd64),
            "rt" => Ok(Flavour::Rt),
            _ => Err(format!(
                "{name:?} is not a flavour; known are cloud, amd64 and rt"
            )),
        }
    }
}

/// The part of a release before its flavour, if it is of this flavour and names one exact build.
/// `6.12-cloud-amd64` is a meta-package without a kernel: a build has at least three numbers.
fn base(release: &str, flavour: Flavour) -> Option<&str> {
    let base = release.strip_suffix(flavour.suffix())?.strip_suffix('-')?;
    let other = [Flavour::Cloud, Flavour::Rt]
        .iter()
        .any(|other| base.ends_with(other.suffix().trim_end_matches("-amd64")));
    let exact = base.starts_with(|c: char| c.is_ascii_digit()) && base.matches('.').count() >= 2;
    (exact && !other).then_some(base)
}

/// Whether a release is of this flavour and, if given, of this version: the whole release, the whole
/// version, or its first numbers ("6.1" for 6.1.0-50, not for 6.12).
pub(crate) fn matches(release: &str, flavour: Flavour, wanted: Option<&str>) -> bool {
    let Some(base) = base(release, flavour) else {
        return false;
    };
    let Some(wanted) = wanted else { return true };
    if wanted == release {
        return true;
    }
    base.strip_prefix(wanted)
        .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// The newest matching release.
pub(crate) fn newest(
    releases: impl IntoIterator<Item = String>,
    flavour: Flavour,
    wanted: Option<&str>,
) -> Option<String> {
    releases
        .into_iter()
        .filter(|release| matches(release, flavour, wanted))
        .max_by(|a, b| compare(a, b).then_with(|| b.cmp(a)))
}

/// Orders releases by their numbers, so that 6.1.0-9 comes before 6.1.0-50.
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (text_a, rest_a) = split_where(a, |c| c.is_ascii_digit());
        let (text_b, rest_b) = split_where(b, |c| c.is_ascii_digit());
        let (number_a, next_a) = split_where(rest_a, |c| !c.is_ascii_digit());
        let (number_b, next_b) = split_where(rest_b, |c| !c.is_ascii_digit());
        let order = text_a
            .cmp(text_b)
            .then_with(|| compare_digits(number_a, number_b));
        if order != Ordering::Equal || (next_a.is_empty() && next_b.is_empty()) {
            return order;
        }
        (a, b) = (next_a, next_b);
    }
}

fn split_where(text: &str, at: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(at).unwrap_or(text.len()))
}

/// Decimal numbers of any length.
fn compare_digits(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_ordered_by_number() {
        assert_eq!(
            compare("6.1.0-9-cloud-amd64", "6.1.0-50-cloud-amd64"),
            Ordering::Less
        );
        assert_eq!(compare("6.12.94+deb12", "6.12.117+deb12"), Ordering::Less);
        assert_eq!(compare("6.12.0", "6.1.0-99"), Ordering::Greater);
        assert_eq!(compare("6.1", "6.1.0"), Ordering::Less);
        assert_eq!(compare("6.01", "6.1"), Ordering::Equal);
        assert_eq!(compare("", ""), Ordering::Equal);
    }

    #[test]
    fn a_version_matches_whole_numbers_only() {
        let cloud = |release, wanted| matches(release, Flavour::Cloud, wanted);
        assert!(cloud("6.1.0-50-cloud-amd64", Some("6.1")));
        assert!(!cloud("6.12.117+deb12-cloud-amd64", Some("6.1")));
        assert!(cloud("6.12.117+deb12-cloud-amd64", Some("6.12")));
        assert!(cloud(
            "6.12.117+deb12-cloud-amd64",
            Some("6.12.117+deb12-cloud-amd64")
        ));
        assert!(!cloud("6.12-cloud-amd64", None), "a meta-package");
        assert!(!cloud("cloud-amd64", None), "a meta-package");
        assert!(!cloud("6.1.0-50-cloud-amd64-dbg", None) && !cloud("6.1.0-50-amd64", None));
        assert!(!matches("6.1.0-50-cloud-amd64", Flavour::Amd64, None));
        assert!(!matches("6.1.0-50-rt-amd64", Flavour::Amd64, None));
        assert!(matches("6.1.0-50-rt-amd64", Flavour::Rt, None));
        assert!(!matches("6.1.0-50-amd64-unsigned", Flavour::Amd64, None));
    }

    #[test]
    fn the_newest_is_the_one_with_the_highest_numbers() {
        let releases = [
            "6.1.0-9-cloud-amd64",
            "6.1.0-10-cloud-amd64",
            "6.12-cloud-amd64",
        ];
        let found = newest(releases.map(String::from), Flavour::Cloud, Some("6.1"));
        assert_eq!(found.as_deref(), Some("6.1.0-10-cloud-amd64"));
        assert_eq!(newest([], Flavour::Cloud, None), None);
    }
}
