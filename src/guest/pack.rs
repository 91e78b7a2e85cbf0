//! Makes initial file systems: the default one with a shell, and one that runs a command of the
//! host.
//!
//! A command is looked for in this order: a file (if its name has a slash), a program on the PATH, a
//! busybox applet, and, if it is a single argument that looks like shell text, a line for busybox's
//! shell.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::busybox;
use super::cpio::CpioError;
use super::elf::ElfError;
use super::host::{Host, NOT_FROM_HOST, Strictness};
use super::init;
use super::programs::find_program;
use super::tree::Tree;

/// A file named as an argument is packed up to this size; a larger one belongs on a disk.
const MAX_ARGUMENT_FILE: u64 = 64 << 20;

/// Why a command could not be packed.
#[derive(Debug, Error)]
pub(crate) enum PackError {
    /// No command was given.
    #[error("there is no command after --")]
    NoCommand,
    /// The command is nothing the host or busybox has.
    #[error(
        "{name:?} is not a file, not a program on the PATH and not a busybox applet; \
         shell text has to be one quoted argument, as in -- 'ls /; uname -a'"
    )]
    NotFound {
        /// The command as given.
        name: OsString,
    },
    /// A path that should be a file is something else.
    #[error("{path:?} is not a regular file, so it cannot be packed")]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Links that lead in a circle.
    #[error("{path:?} goes through more than 40 symbolic links")]
    LinkLoop {
        /// The path.
        path: PathBuf,
    },
    /// The host does not let us read a file.
    #[error("cannot read {path:?} to pack it: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A program the guest cannot run.
    #[error("{path:?} cannot run in the guest: {source}")]
    Unsupported {
        /// The program.
        path: PathBuf,
        /// Why.
        source: ElfError,
    },
    /// A library that is nowhere.
    #[error("{needed_by:?} needs the library {library:?}, which is in no directory ld.so searches")]
    MissingLibrary {
        /// The library's name.
        library: PathBuf,
        /// Who needs it.
        needed_by: PathBuf,
    },
    /// An interpreter or loader that is not there.
    #[error("{path:?} needs the interpreter {interpreter:?}, which this host does not have")]
    MissingInterpreter {
        /// The program or script.
        path: PathBuf,
        /// What it names.
        interpreter: PathBuf,
    },
    /// A file that is too large to go into memory twice.
    #[error(
        "{path:?} has {len} bytes; a file named as an argument is packed up to {limit} bytes, give a \
         larger one to the guest with --disk"
    )]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        len: u64,
        /// The limit.
        limit: u64,
    },
    /// All files together are too large.
    #[error("the files to pack have more than {limit} bytes together ({len} so far)")]
    TooLarge {
        /// How many were counted when the limit was passed.
        len: u64,
        /// The limit.
        limit: u64,
    },
    /// The working directory is gone.
    #[error("cannot tell the current directory: {0}")]
    NoDirectory(#[source] io::Error),
    /// The archive could not be written.
    #[error(transparent)]
    Cpio(#[from] CpioError),
}

/// The initial file system of a guest with an interactive shell on its console; when the shell
/// ends, the guest powers off. `modules` are kernel modules to load first, in this order.
pub(crate) fn default_initramfs(busybox: &[u8], modules: &[PathBuf]) -> Result<Vec<u8>, PackError> {
    let mut tree = Tree::new();
    add_modules(&mut tree, modules)?;
    init::populate(&mut tree, busybox, init::shell(!modules.is_empty()));
    Ok(tree.to_cpio()?)
}

/// The initial file system of a guest that runs `argv`, reports its exit status through the
/// debug-exit port and powers off. `extra` are more files and directories to pack (`--pack`),
/// `modules` kernel modules to load first, in this order.
pub(crate) fn command_initramfs(
    busybox: &[u8],
    argv: &[OsString],
    extra: &[PathBuf],
    modules: &[PathBuf],
) -> Result<Vec<u8>, PackError> {
    let here = env::current_dir().map_err(PackError::NoDirectory)?;
    let mut packer = Packer {
        host: Host::new(),
        here,
        uses_directory: false,
    };
    let words = packer.command(busybox, argv)?;
    for path in extra {
        packer.extra(path)?;
    }
    let Packer {
        mut host,
        here,
        uses_directory,
    } = packer;
    // The directory's name goes into the recording, so only where something in it is used.
    let directory = if uses_directory {
        Some(host.way(&here)?)
    } else {
        None
    };
    add_modules(&mut host.tree, modules)?;
    let script = init::command(&words, directory.as_deref(), !modules.is_empty());
    init::populate(&mut host.tree, busybox, script);
    Ok(host.tree.to_cpio()?)
}

fn add_modules(tree: &mut Tree, modules: &[PathBuf]) -> Result<(), PackError> {
    let mut read = Vec::new();
    for path in modules {
        let data = fs::read(path).map_err(|source| PackError::Unreadable {
            path: path.clone(),
            source,
        })?;
        read.push((path.file_name().unwrap_or_default(), data));
    }
    init::add_modules(tree, read);
    Ok(())
}

struct Packer {
    host: Host,
    here: PathBuf,
    uses_directory: bool,
}

impl Packer {
    /// Packs a command and gives the words init runs.
    fn command(&mut self, busybox: &[u8], argv: &[OsString]) -> Result<Vec<OsString>, PackError> {
        let [name, arguments @ ..] = argv else {
            return Err(PackError::NoCommand);
        };
        if name.is_empty() {
            return Err(PackError::NotFound { name: name.clone() });
        }
        let not_found = || PackError::NotFound { name: name.clone() };
        let is_line = arguments.is_empty() && looks_like_shell(name);
        let mut words = argv.to_vec();
        if has_slash(name) {
            let path = self.here.join(name);
            if path.is_file() {
                self.uses_directory |= Path::new(name).is_relative();
                self.host.program(&path, Strictness::MustRun)?;
            } else if is_line {
                return Ok(init::shell_line(name));
            } else {
                return Err(not_found());
            }
        } else if let Some(path) = find_program(name) {
            self.host.program(&path, Strictness::MustRun)?;
            self.host.make_reachable(name, &path);
            words[0] = path.into_os_string();
        } else if name
            .to_str()
            .is_some_and(|name| busybox::applets(busybox).contains(&name))
        {
            words.insert(0, init::BUSYBOX.into());
        } else if is_line {
            return Ok(init::shell_line(name));
        } else {
            return Err(not_found());
        }
        for argument in arguments {
            self.argument(argument)?;
        }
        Ok(words)
    }

    /// Packs an argument if it names a file.
    fn argument(&mut self, argument: &OsStr) -> Result<(), PackError> {
        let path = self.here.join(argument);
        let from_host = !NOT_FROM_HOST.iter().any(|dir| path.starts_with(dir));
        let Ok(found) = fs::metadata(&path) else {
            return Ok(());
        };
        if !found.is_file() || !from_host {
            return Ok(());
        }
        if found.len() > MAX_ARGUMENT_FILE {
            let (len, limit) = (found.len(), MAX_ARGUMENT_FILE);
            return Err(PackError::FileTooLarge { path, len, limit });
        }
        self.uses_directory |= Path::new(argument).is_relative();
        self.host.program(&path, Strictness::MayRun)
    }

    /// Packs what `--pack` names: a file, a directory, or a program on the PATH.
    fn extra(&mut self, name: &Path) -> Result<(), PackError> {
        let path = self.here.join(name);
        match fs::metadata(&path) {
            Ok(found) => {
                self.uses_directory |= name.is_relative();
                if found.is_dir() {
                    self.host.directory(&path, &|_| false)
                } else {
                    self.host.program(&path, Strictness::MayRun)
                }
            }
            Err(source) => match find_program(name.as_os_str()) {
                Some(program) if !has_slash(name.as_os_str()) => {
                    self.host.make_reachable(name.as_os_str(), &program);
                    self.host.program(&program, Strictness::MustRun)
                }
                _ => Err(PackError::Unreadable { path, source }),
            },
        }
    }
}

fn has_slash(name: &OsStr) -> bool {
    name.as_bytes().contains(&b'/')
}

/// Whether a word has a character that only shell text has.
fn looks_like_shell(word: &OsStr) -> bool {
    let special =
        |byte: &u8| byte.is_ascii_whitespace() || b"|&;<>()$`\\\"'*?[]{}=!~#".contains(byte);
    word.as_bytes().iter().any(special)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUSYBOX: &[u8] = b"\x7fELF [\0[[\0ash\0only-in-busybox\0sh\0\0";

    fn pack(argv: &[&str], extra: &[&str]) -> Result<Vec<u8>, PackError> {
        let argv: Vec<OsString> = argv.iter().map(OsString::from).collect();
        let extra: Vec<PathBuf> = extra.iter().map(PathBuf::from).collect();
        command_initramfs(BUSYBOX, &argv, &extra, &[])
    }

    fn has(cpio: &[u8], text: &str) -> bool {
        cpio.windows(text.len())
            .any(|window| window == text.as_bytes())
    }

    #[test]
    fn a_program_of_the_host_brings_its_loader_and_libraries() {
        let this_test = env::current_exe().unwrap();
        let cpio = pack(&[this_test.to_str().unwrap(), "it's"], &[]).unwrap();
        let name = &this_test.to_str().unwrap()[1..];
        assert!(has(&cpio, name) && has(&cpio, "libc.") && has(&cpio, "/ld-"));
        assert!(has(&cpio, "cttyhack '/") && has(&cpio, " 'it'\\''s'\n/.clt/debug-exit $?"));
        assert!(
            cpio == pack(&[this_test.to_str().unwrap(), "it's"], &[]).unwrap(),
            "same bytes"
        );
    }

    #[test]
    fn applets_and_shell_lines_need_nothing_from_the_host() {
        let cpio = pack(&["only-in-busybox", "-x"], &[]).unwrap();
        assert!(has(
            &cpio,
            "cttyhack '/.clt/busybox' 'only-in-busybox' '-x'\n"
        ));
        let cpio = pack(&["cat /proc/version | wc -c"], &[]).unwrap();
        assert!(has(
            &cpio,
            "'/.clt/busybox' 'sh' '-c' 'cat /proc/version | wc -c'\n"
        ));
        assert!(has(&cpio, "cd '/root'\n"));
    }

    #[test]
    fn what_is_not_there_is_said() {
        let name = |argv: &[&str]| match pack(argv, &[]) {
            Err(PackError::NotFound { name }) => name.into_string().unwrap(),
            other => panic!("{:?}", other.map(|cpio| cpio.len())),
        };
        assert_eq!(name(&["no-such-program-here"]), "no-such-program-here");
        assert_eq!(name(&["./no-such-file", "a"]), "./no-such-file");
        assert_eq!(
            name(&["no such program", "two arguments"]),
            "no such program"
        );
        assert_eq!(name(&[""]), "");
        assert!(matches!(pack(&[], &[]), Err(PackError::NoCommand)));
        let missing = pack(&["exit 0"], &["/nonexistent/x"]);
        assert!(matches!(missing, Err(PackError::Unreadable { .. })));
    }

    #[test]
    fn arguments_that_are_files_and_extra_paths_are_packed() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data.txt");
        fs::write(&data, "the content of the file").unwrap();
        let cpio = pack(&["only-in-busybox", data.to_str().unwrap()], &[]).unwrap();
        assert!(has(&cpio, "the content of the file") && has(&cpio, "cd '/root'"));
        let cpio = pack(&["exit 0"], &[dir.path().to_str().unwrap()]).unwrap();
        assert!(has(&cpio, "the content of the file"));
        // A relative path is found in the guest because the command starts in the same directory.
        let cpio = pack(&["only-in-busybox", "Cargo.toml"], &[]).unwrap();
        let here = env::current_dir().unwrap();
        assert!(has(&cpio, &format!("cd '{}'\n", here.display())));
        fs::File::create(&data)
            .unwrap()
            .set_len(MAX_ARGUMENT_FILE + 1)
            .unwrap();
        let large = pack(&["only-in-busybox", data.to_str().unwrap()], &[]);
        assert!(matches!(large, Err(PackError::FileTooLarge { .. })));
        // The guest's own device, not a copy.
        assert!(pack(&["only-in-busybox", "/proc/self/status", "/dev/null"], &[]).is_ok());
    }

    #[test]
    fn the_default_guest_has_a_shell() {
        let cpio = default_initramfs(BUSYBOX, &[]).unwrap();
        assert!(has(&cpio, "setsid cttyhack sh\n") && has(&cpio, "usr/bin/only-in-busybox"));
        assert!(!has(&cpio, "insmod"));
        assert!(
            cpio == default_initramfs(BUSYBOX, &[]).unwrap(),
            "same bytes"
        );
    }

    #[test]
    fn modules_keep_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let modules = ["zzz.ko", "aaa.ko.xz"].map(|name| dir.path().join(name));
        for module in &modules {
            fs::write(module, "module").unwrap();
        }
        let cpio = default_initramfs(BUSYBOX, &modules).unwrap();
        assert!(has(&cpio, "00-zzz.ko") && has(&cpio, "01-aaa.ko.xz") && has(&cpio, "insmod"));
        let missing = default_initramfs(BUSYBOX, &[dir.path().join("missing.ko")]);
        assert!(matches!(missing, Err(PackError::Unreadable { .. })));
    }
}
