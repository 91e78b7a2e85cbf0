//! Gets a Debian kernel and busybox into the cache, with the distribution's own package tools.
//!
//! Root is not needed: packages are downloaded and opened, not installed. Where the host has no
//! package lists, or not the wanted version, apt is given a state directory of its own in the cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use thiserror::Error;

use super::apt::{self, Apt, AptError, Source};
use super::cache::{Cache, CacheError};
use super::unpacked::{bytes_below, collect_modules, largest_file, move_file};
use super::version::{self, Flavour};
use crate::words::sized;

const IMAGES: &str = "linux-image-";
/// How many versions an error message lists.
const MAX_LISTED: usize = 8;
/// What a disk needs of a Debian kernel that builds it as modules, in the order of loading.
pub(crate) const DISK_MODULES: &[&str] = &[
    "virtio_ring",
    "virtio",
    "virtio_mmio",
    "virtio_blk",
    "crc16",
    "crc32c_generic",
    "libcrc32c",
    "mbcache",
    "jbd2",
    "ext4",
];
/// The same for a network card.
pub(crate) const NET_MODULES: &[&str] = &[
    "virtio",
    "virtio_ring",
    "virtio_mmio",
    "failover",
    "net_failover",
    "virtio_net",
];

/// What to fetch.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// A version ("6.1", "6.12.117+deb12") or a whole release; none for the one Debian recommends.
    pub(crate) version: Option<String>,
    /// Which build of it.
    pub(crate) flavour: Flavour,
    /// The vmlinux with debug information as well, some gigabytes.
    pub(crate) debug: bool,
}

/// What is in the cache now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fetched {
    /// The release, such as `6.1.0-50-cloud-amd64`.
    pub(crate) release: String,
    /// The kernel.
    pub(crate) kernel: PathBuf,
    /// A static busybox.
    pub(crate) busybox: PathBuf,
    /// The vmlinux with debug information, if it was asked for.
    pub(crate) vmlinux: Option<PathBuf>,
}

/// What is told on the way.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step<'a> {
    /// One line.
    Say(&'a str),
    /// Something long has come so far, in bytes, of so many if that is known.
    Bytes(&'a str, u64, Option<u64>),
    /// And is done.
    Done,
}

/// Why nothing was fetched.
#[derive(Debug, Error)]
pub(crate) enum FetchError {
    /// No apt.
    #[error(
        "{tool} is not on this host: fetching needs Debian's apt-get, apt-cache, dpkg-deb and tar. \
         On another distribution, take a kernel package from a Debian mirror, open it with \
         `ar x PACKAGE.deb && tar xf data.tar.xz ./boot`, and give the kernel with --kernel"
    )]
    NoTool {
        /// The tool that is missing.
        tool: &'static str,
    },
    /// Apt has no lists and could not get them.
    #[error(
        "apt knows no kernel packages, even after an update{}\nLook at the network and at the sources in \
         /etc/apt, then type:\n  sudo apt-get update\n  colinux-trace guest fetch",
        if said.is_empty() { ".".into() } else { format!(", which said:\n  {said}") }
    )]
    NoLists {
        /// What the update warned about.
        said: String,
    },
    /// No package of that version.
    #[error(
        "there is no {flavour} kernel {wanted} in this host's package sources{}. To see what there \
         is, type:\n  sudo apt-get update\n  apt-cache search --names-only '^linux-image-.*{}$'",
        listed(available), flavour.suffix()
    )]
    NoVersion {
        /// The version wanted.
        wanted: String,
        /// The flavour wanted.
        flavour: Flavour,
        /// What there is of that flavour.
        available: Vec<String>,
    },
    /// A package has not the file it should have.
    #[error("the package {package} has no {file}")]
    NotInPackage {
        /// The package.
        package: String,
        /// What was looked for.
        file: &'static str,
    },
    /// It would not fit.
    #[error(
        "{package} needs about {} in {place:?}, where {} are free; make room, or let \
         XDG_CACHE_HOME name a folder with more",
        sized(*need), sized(*have)
    )]
    NoSpace {
        /// The package.
        package: String,
        /// The cache.
        place: PathBuf,
        /// Bytes needed.
        need: u64,
        /// Bytes free.
        have: u64,
    },
    /// A package tool failed.
    #[error("{0}\nIs the network up? The same command can be tried by hand.")]
    Apt(#[source] AptError),
    /// The cache could not be written.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

impl From<AptError> for FetchError {
    fn from(error: AptError) -> FetchError {
        match error {
            AptError::Missing(tool) => FetchError::NoTool { tool },
            other => FetchError::Apt(other),
        }
    }
}

fn listed(available: &[String]) -> String {
    if available.is_empty() {
        return String::new();
    }
    let mut shown = available[..available.len().min(MAX_LISTED)].join(", ");
    if available.len() > MAX_LISTED {
        shown.push_str(", …");
    }
    format!(" (there are {shown})")
}

/// Fetches a kernel and busybox. `progress` is told every step.
pub(crate) fn fetch(
    cache: &Cache,
    request: &Request,
    progress: &mut dyn FnMut(Step<'_>),
) -> Result<Fetched, FetchError> {
    let scratch = cache.scratch()?;
    let mut fetcher = Fetcher {
        apt: Apt::system(scratch.path())?,
        backports: None,
        private: false,
        cache,
        scratch: scratch.path(),
        progress,
    };
    let release = fetcher.resolve(request)?;
    let kernel = fetcher.kernel(&release)?;
    let vmlinux = if request.debug {
        Some(fetcher.debug(&release)?)
    } else {
        None
    };
    let busybox = fetcher.busybox()?;
    Ok(Fetched {
        release,
        kernel,
        busybox,
        vmlinux,
    })
}

struct Fetcher<'a> {
    apt: Apt,
    /// Where kernels come from if the host's own suites do not have the wanted one.
    backports: Option<Apt>,
    private: bool,
    cache: &'a Cache,
    scratch: &'a Path,
    progress: &'a mut dyn FnMut(Step<'_>),
}

impl Fetcher<'_> {
    /// The release to fetch; switches to private package lists if the host's are not enough.
    fn resolve(&mut self, request: &Request) -> Result<String, FetchError> {
        let (flavour, wanted) = (request.flavour, request.version.as_deref());
        // An exact release that is here needs no package lists.
        if let Some(wanted) = wanted
            && version::matches(wanted, flavour, None)
            && self.cache.kernel(wanted).is_some()
        {
            return Ok(wanted.to_string());
        }
        let mut releases = self.releases()?;
        if releases.is_empty() {
            let said = self.update()?;
            releases = self.releases()?;
            if releases.is_empty() {
                return Err(FetchError::NoLists { said });
            }
        }
        if wanted.is_none() {
            let recommended = self.apt.depends(&format!("{IMAGES}{}", flavour.suffix()));
            let recommended = recommended.unwrap_or_default();
            let recommended = recommended
                .iter()
                .filter_map(|name| name.strip_prefix(IMAGES));
            let found = version::newest(recommended.map(String::from), flavour, None);
            if let Some(found) = found {
                return Ok(found);
            }
        }
        if let Some(found) = version::newest(releases.clone(), flavour, wanted) {
            return Ok(found);
        }
        if self.use_backports()? {
            let more = self.releases()?;
            if let Some(found) = version::newest(more, flavour, wanted) {
                return Ok(found);
            }
        }
        let mut available = releases;
        available.retain(|release| version::matches(release, flavour, None));
        available.sort_by(|a, b| version::compare(b, a));
        let wanted = wanted.unwrap_or("at all").to_string();
        Err(FetchError::NoVersion {
            wanted,
            flavour,
            available,
        })
    }

    fn active(&self) -> &Apt {
        self.backports.as_ref().unwrap_or(&self.apt)
    }

    fn releases(&self) -> Result<Vec<String>, FetchError> {
        let names = self.active().names(IMAGES)?;
        let releases = names.iter().filter_map(|name| name.strip_prefix(IMAGES));
        Ok(releases.map(String::from).collect())
    }

    /// Updates the package lists: the system's for root, else our own.
    fn update(&mut self) -> Result<String, FetchError> {
        if self.backports.is_none() && !self.private && !rustix::process::geteuid().is_root() {
            self.apt = Apt::private(&self.cache.root().join("apt"), self.scratch)?;
            self.private = true;
        }
        self.say("updating the package lists with apt-get");
        Ok(self.active().update()?)
    }

    /// Adds the backports suite of the mirror the host already uses; false if there is none.
    fn use_backports(&mut self) -> Result<bool, FetchError> {
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let Some(list) = backports(&release, &self.apt.sources()?) else {
            return Ok(false);
        };
        let dir = self.cache.root().join("apt");
        let apt = Apt::private(&dir.join("backports"), self.scratch)?
            .with_sources(&self.scratch.join("sources.list.d"), &list)?;
        self.say("looking in the backports suite of the same mirror");
        // A suite the mirror does not have is no reason to stop: the version is just not found.
        if apt.update().is_err() {
            return Ok(false);
        }
        self.backports = Some(apt);
        Ok(true)
    }

    fn say(&mut self, line: &str) {
        (self.progress)(Step::Say(line));
    }

    /// Downloads a package; lists that are too old name files a mirror no longer has, so once more
    /// after an update.
    fn download(&mut self, package: &str) -> Result<PathBuf, FetchError> {
        self.say(&format!("downloading {package} with apt-get"));
        match self.download_once(package) {
            Err(AptError::Failed { .. }) => {
                self.update()?;
                Ok(self.download_once(package)?)
            }
            done => Ok(done?),
        }
    }

    fn download_once(&mut self, package: &str) -> Result<PathBuf, AptError> {
        let apt = self.active().clone();
        let size = apt.sizes(package).map(|sizes| sizes.0);
        let into = self.scratch;
        watch_folder(into, "downloading", size, self.progress, || {
            apt.download(package, into)
        })
    }

    fn kernel(&mut self, release: &str) -> Result<PathBuf, FetchError> {
        let place = self.cache.kernel_dir(release);
        let kernel = place.join("vmlinuz");
        if kernel.is_file() {
            self.say(&format!("{release} is in the cache"));
            return Ok(kernel);
        }
        let package = format!("{IMAGES}{release}");
        let deb = self.download(&package)?;
        let unpacked = self.directory("kernel")?;
        apt::unpack(&deb, &["./boot/*"], &unpacked)?;
        // Newer packages have their modules below /usr, and a flavour may have none of these.
        let names = DISK_MODULES.iter().chain(NET_MODULES);
        let patterns: Vec<String> = names.map(|name| format!("*/{name}.ko*")).collect();
        let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
        let modules = self.directory("modules")?;
        let _ = apt::unpack(&deb, &patterns, &modules);

        let made = self.directory("made")?;
        let boot = unpacked.join("boot");
        for (from, to) in [("vmlinuz", "vmlinuz"), ("config", "config")] {
            let from = boot.join(format!("{from}-{release}"));
            move_file(&from, &made.join(to)).map_err(|_| FetchError::NotInPackage {
                package: package.clone(),
                file: "boot/vmlinuz and boot/config of its release",
            })?;
        }
        collect_modules(&modules, &made.join("modules"))?;
        apt::decompress_modules(&made.join("modules"));
        self.cache.keep_dir(&made, &place)?;
        let _ = fs::remove_file(deb);
        Ok(kernel)
    }

    fn debug(&mut self, release: &str) -> Result<PathBuf, FetchError> {
        let place = self.cache.kernel_dir(release);
        let (vmlinux, modules) = (place.join("vmlinux"), place.join("debug"));
        if vmlinux.is_file() && modules.is_dir() {
            self.say(&format!("the debug image of {release} is in the cache"));
            return Ok(vmlinux);
        }
        let package = format!("{IMAGES}{release}-dbg");
        self.check_space(&package)?;
        let deb = self.download(&package)?;
        self.say("unpacking vmlinux and the modules that guests use");
        let unpacked = self.directory("debug")?;
        // One pass over the package: taking it apart is most of the work.
        let mut patterns = vec!["*/vmlinux*".to_owned()];
        let names = DISK_MODULES.iter().chain(NET_MODULES);
        patterns.extend(names.map(|name| format!("*/{name}.ko*")));
        let what = "unpacking vmlinux";
        let done = watch_folder(&unpacked, what, None, self.progress, || {
            let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
            apt::unpack(&deb, &patterns, &unpacked)
        });
        let Some(found) = largest_file(&unpacked, "vmlinux") else {
            // What went wrong, or a package without one.
            done?;
            return Err(FetchError::NotInPackage {
                package,
                file: "vmlinux",
            });
        };
        // tar complains of modules that this kernel does not have, and has unpacked the others.
        move_file(&found, &vmlinux)?;
        let made = self.directory("debug-modules")?;
        collect_modules(&unpacked.join("usr/lib/debug/lib/modules"), &made)?;
        self.cache.keep_dir(&made, &modules)?;
        let _ = fs::remove_file(deb);
        Ok(vmlinux)
    }

    /// Whether the cache's file system has room for a package and what is taken out of it: of a
    /// debug package less than half, vmlinux being a third of Debian's.
    fn check_space(&self, package: &str) -> Result<(), FetchError> {
        let Some((packed, unpacked)) = self.active().sizes(package) else {
            return Ok(());
        };
        let need = packed + unpacked / 2;
        let place = self.cache.root();
        match rustix::fs::statvfs(place).map(|free| free.f_bavail.saturating_mul(free.f_frsize)) {
            Ok(have) if have < need => Err(FetchError::NoSpace {
                package: package.to_owned(),
                place: place.to_owned(),
                need,
                have,
            }),
            _ => Ok(()),
        }
    }

    fn busybox(&mut self) -> Result<PathBuf, FetchError> {
        if let Some(busybox) = self.cache.busybox() {
            return Ok(busybox);
        }
        // Backports have kernels, not this.
        self.backports = None;
        let package = "busybox-static";
        let deb = self.download(package)?;
        let unpacked = self.directory("busybox")?;
        apt::unpack(&deb, &["*/bin/busybox"], &unpacked)?;
        let place = self.cache.root().join("busybox");
        let Some(found) = largest_file(&unpacked, "busybox") else {
            return Err(FetchError::NotInPackage {
                package: package.into(),
                file: "busybox",
            });
        };
        move_file(&found, &place)?;
        Ok(place)
    }

    fn directory(&self, name: &str) -> Result<PathBuf, FetchError> {
        let dir = self.scratch.join(name);
        fs::create_dir_all(&dir).map_err(|source| CacheError::Io {
            action: "create",
            path: dir.clone(),
            source,
        })?;
        Ok(dir)
    }
}

/// Does work that fills a folder, and tells now and then how full it is.
fn watch_folder<T: Send>(
    folder: &Path,
    what: &str,
    all: Option<u64>,
    progress: &mut dyn FnMut(Step<'_>),
    work: impl FnOnce() -> T + Send,
) -> T {
    const LOOK_EVERY: Duration = Duration::from_millis(200);
    let (done, is_done) = mpsc::channel();
    let result = thread::scope(|scope| {
        let worker = scope.spawn(move || {
            let result = work();
            let _ = done.send(());
            result
        });
        while is_done.recv_timeout(LOOK_EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
            progress(Step::Bytes(what, bytes_below(folder), all));
        }
        worker.join()
    });
    progress(Step::Done);
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A source line for the backports suite of the mirror of the host's own release.
fn backports(os_release: &str, sources: &[Source]) -> Option<String> {
    let codename = os_release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    let codename = codename.trim_matches('"');
    let source = sources.iter().find(|source| source.codename == codename)?;
    let plain = !source.signed_by.is_empty() && source.signed_by.starts_with('/');
    let key = if plain {
        format!("[signed-by={}] ", source.signed_by)
    } else {
        String::new()
    };
    Some(format!(
        "deb {key}{} {codename}-backports main\n",
        source.uri
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backports_come_from_the_mirror_the_host_uses() {
        let source = |codename: &str, signed_by: &str| Source {
            uri: "http://mirror/debian/".into(),
            codename: codename.into(),
            signed_by: signed_by.into(),
        };
        let release = "ID=debian\nVERSION_CODENAME=bookworm\n";
        let sources = [
            source("bookworm-security", ""),
            source("bookworm", "/keys/x.gpg"),
        ];
        assert_eq!(
            backports(release, &sources).unwrap(),
            "deb [signed-by=/keys/x.gpg] http://mirror/debian/ bookworm-backports main\n"
        );
        assert_eq!(backports(release, &sources[..1]), None);
        assert_eq!(backports("ID=other\n", &sources), None);
    }

    #[test]
    fn an_exact_release_in_the_cache_needs_no_package_tools() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().to_path_buf());
        let release = "6.1.0-50-cloud-amd64";
        fs::create_dir_all(cache.kernel_dir(release)).unwrap();
        fs::write(cache.kernel_dir(release).join("vmlinuz"), "kernel").unwrap();
        fs::write(dir.path().join("busybox"), "busybox").unwrap();
        let mut lines = Vec::new();
        let request = Request {
            version: Some(release.into()),
            flavour: Flavour::Cloud,
            debug: false,
        };
        let fetched = fetch(&cache, &request, &mut |step| {
            if let Step::Say(line) = step {
                lines.push(line.to_string());
            }
        })
        .unwrap();
        assert_eq!(fetched.kernel, cache.kernel(release).unwrap());
        assert_eq!(lines, ["6.1.0-50-cloud-amd64 is in the cache"]);
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            2,
            "no temporary directory is left"
        );
    }

    #[test]
    fn messages_say_what_there_is_and_what_to_type() {
        let error = FetchError::NoVersion {
            wanted: "5.4".into(),
            flavour: Flavour::Cloud,
            available: vec!["6.1.0-50-cloud-amd64".into()],
        };
        let text = error.to_string();
        assert!(
            text.contains("cloud kernel 5.4") && text.contains("(there are 6.1.0-50-cloud-amd64)")
        );
        assert!(text.contains("sudo apt-get update"));
        let text = FetchError::from(AptError::Missing("apt-get")).to_string();
        assert!(text.contains("apt-get is not on this host") && text.contains("--kernel"));
    }
}
