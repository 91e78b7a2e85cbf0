//! The guest's `/init` and the files every guest has.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::tree::Tree;
use super::{busybox, debug_exit};

/// Our busybox, apart from all directories a host program may live in, so that neither hides the other.
pub(crate) const BUSYBOX: &str = "/.clt/busybox";
/// Kernel modules to load before anything else.
const MODULES: &str = "/.clt/modules";
/// Our exit helper.
const DEBUG_EXIT: &str = "/.clt/debug-exit";

/// Runs before anything else. `mount`, `ln` and `ip` are applets of the busybox that reads this;
/// the shell's own redirections are preferred where they do, since every process is recorded. `/tmp`
/// is in memory like everything else, and files packed there must stay visible.
const PROLOGUE: &str = "\
#!/.clt/busybox sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root USER=root SHELL=/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
ln -s fd/1 /dev/stdout
ln -s fd/2 /dev/stderr
echo colinux >/proc/sys/kernel/hostname
ip link set lo up 2>/dev/null
";

/// Disks and networks need drivers that Debian builds as modules.
const LOAD_MODULES: &str = "\
for module in /.clt/modules/*; do insmod \"$module\"; done
";

/// An interactive shell. `setsid cttyhack` makes the console its controlling terminal: without one
/// there is no job control and no Ctrl-C.
const SHELL: &str = "\
read release </proc/sys/kernel/osrelease
echo \"Linux $release, a busybox shell; exit, poweroff or Ctrl-D ends the run.\"
cd /root
export ENV=/etc/shrc PS1='\\w # '
setsid cttyhack sh
/.clt/debug-exit
poweroff -f
";

/// Read by interactive shells. There is no init that could be asked to shut down, so the plain words
/// act at once.
const SHELL_RC: &str = "\
alias poweroff='/.clt/debug-exit; /.clt/busybox poweroff -f'
alias halt=poweroff
alias reboot='/.clt/debug-exit; /.clt/busybox reboot -f'
";

/// The `/init` of a guest with an interactive shell.
pub(crate) fn shell(has_modules: bool) -> Vec<u8> {
    [PROLOGUE, load(has_modules), SHELL].concat().into_bytes()
}

fn load(has_modules: bool) -> &'static str {
    if has_modules { LOAD_MODULES } else { "" }
}

/// Adds kernel modules, numbered so that the shell's sorted `*` loads them in this order.
pub(crate) fn add_modules<'a>(
    tree: &mut Tree,
    modules: impl IntoIterator<Item = (&'a OsStr, Vec<u8>)>,
) {
    for (number, (name, data)) in modules.into_iter().enumerate() {
        let mut numbered = OsString::from(format!("{number:02}-"));
        numbered.push(name);
        tree.file(&Path::new(MODULES).join(numbered), 0o644, data);
    }
}

/// The `/init` of a guest that runs one command, reports its exit status (128 + n when signal n
/// killed it, as shells count) and powers off.
pub(crate) fn command(argv: &[OsString], directory: Option<&Path>, has_modules: bool) -> Vec<u8> {
    let mut script = [PROLOGUE, load(has_modules)].concat().into_bytes();
    script.extend_from_slice(b"cd ");
    script.extend(quote(directory.unwrap_or(Path::new("/root")).as_os_str()));
    script.extend_from_slice(b"\nsetsid cttyhack");
    for word in argv {
        script.push(b' ');
        script.extend(quote(word));
    }
    script.extend_from_slice(b"\n/.clt/debug-exit $?\npoweroff -f\n");
    script
}

/// The words that run a line of shell text under busybox.
pub(crate) fn shell_line(line: &OsStr) -> Vec<OsString> {
    [BUSYBOX.as_ref(), "sh".as_ref(), "-c".as_ref(), line]
        .map(OsStr::to_os_string)
        .into()
}

/// Adds `/init`, busybox with a link per applet, and the few files programs expect. What is in the
/// tree already stays, so a packed host program comes before the applet of the same name.
pub(crate) fn populate(tree: &mut Tree, busybox_binary: &[u8], init: Vec<u8>) {
    // One directory for programs, as distributions have it, unless the host's own layout is there.
    for (link, target) in [("/bin", "usr/bin"), ("/sbin", "usr/sbin")] {
        if !tree.contains(Path::new(link)) {
            tree.symlink(Path::new(link), Path::new(target));
        }
    }
    tree.file(Path::new("/init"), 0o755, init);
    tree.file(Path::new(BUSYBOX), 0o755, busybox_binary.to_vec());
    tree.file(Path::new(DEBUG_EXIT), 0o755, debug_exit::program());
    for dir in [
        "/proc",
        "/sys",
        "/run",
        "/mnt",
        "/usr/bin",
        "/usr/sbin",
        "/usr/lib",
        "/var/tmp",
    ] {
        tree.directory(Path::new(dir), 0o755);
    }
    tree.directory(Path::new("/root"), 0o700);
    tree.directory(Path::new("/tmp"), 0o1777);
    // The kernel opens /dev/console for init before anything can be mounted.
    tree.char_device(Path::new("/dev/console"), 0o600, 5, 1);
    tree.char_device(Path::new("/dev/null"), 0o666, 1, 3);
    tree.char_device(Path::new("/dev/zero"), 0o666, 1, 5);
    tree.char_device(Path::new("/dev/tty"), 0o666, 5, 0);
    for (path, text) in [
        (
            "/etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        ),
        ("/etc/group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"),
        ("/etc/hosts", "127.0.0.1 localhost\n"),
        ("/etc/shrc", SHELL_RC),
    ] {
        tree.file(Path::new(path), 0o644, text.into());
    }
    let applets = busybox::applets(busybox_binary);
    for name in applets.iter().chain(&["busybox", "sh"]) {
        let link = Path::new("/bin").join(name);
        if !tree.contains(&Path::new("/sbin").join(name)) {
            tree.symlink(&link, Path::new(BUSYBOX));
        }
    }
}

/// A word as the shell reads it back unchanged: within single quotes, where nothing is special but
/// the quote itself.
fn quote(word: &OsStr) -> Vec<u8> {
    let mut quoted = vec![b'\''];
    for &byte in word.as_bytes() {
        match byte {
            b'\'' => quoted.extend_from_slice(b"'\\''"),
            other => quoted.push(other),
        }
    }
    quoted.push(b'\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_host_shell_reads_quoted_words_back() {
        for word in ["", "plain", "it's", "a b\t'\"\\$(x)`y`\n*", "''"] {
            let mut script = b"printf %s ".to_vec();
            script.extend(quote(OsStr::new(word)));
            let output = Command::new("sh")
                .arg("-c")
                .arg(OsStr::from_bytes(&script))
                .output();
            assert_eq!(output.unwrap().stdout, word.as_bytes());
        }
    }

    #[test]
    fn both_scripts_are_valid_shell() {
        let argv = ["prog", "it's", "-x"].map(OsString::from);
        for script in [shell(true), command(&argv, Some(Path::new("/a b")), true)] {
            let checked = Command::new("sh")
                .args(["-n", "-c"])
                .arg(OsStr::from_bytes(&script))
                .output();
            assert!(checked.unwrap().status.success());
            assert!(script.starts_with(b"#!/.clt/busybox sh\n"));
            assert!(script.ends_with(b"poweroff -f\n"));
        }
    }

    #[test]
    fn what_is_packed_comes_before_the_applets() {
        let busybox = b"[\0[[\0ash\0ip\0ls\0sh\0";
        let mut tree = Tree::new();
        tree.file(Path::new("/usr/bin/ls"), 0o755, b"host".to_vec());
        tree.file(Path::new("/usr/sbin/ip"), 0o755, b"host".to_vec());
        populate(&mut tree, busybox, shell(false));
        assert!(tree.contains(Path::new("/bin/sh")) && tree.contains(Path::new("/.clt/busybox")));
        assert!(
            !tree.contains(Path::new("/bin/ip")),
            "the host's is in /sbin"
        );
        let cpio = tree.to_cpio().unwrap();
        let has = |text: &[u8]| cpio.windows(text.len()).any(|window| window == text);
        assert!(has(b"host") && has(b"dev/console"));
    }
}
