//! Reading what the kernel of a recording says of itself.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;

use colinux_replay::state;
use colinux_tracer::Reader;

use super::News;
use crate::names::Kernel;

/// What came of it.
#[derive(Debug)]
pub struct KernelNews {
    /// What is known.
    pub kernel: Arc<Kernel>,
}

/// Reads it in a thread of its own.
pub fn start(reader: Reader, news: Sender<News>) {
    let thread = thread::Builder::new().name("kernel".to_owned());
    let _ = thread.spawn(move || {
        let kernel = Arc::new(read(&reader));
        let _ = news.send(News::Kernel(KernelNews { kernel }));
    });
}

/// What the kernel of a recording says of itself.
pub fn read(reader: &Reader) -> Kernel {
    // The viewer has one file open, which need not be named.
    let path = format!("{}: ", reader.path().display());
    let moves = match reader.manifest() {
        Ok(manifest) => manifest.as_bzimage,
        Err(error) => return Kernel::unknown(error.to_string().replace(&path, "")),
    };
    match state::vmlinux(reader) {
        Ok(vmlinux) => Kernel::of(&vmlinux, moves),
        Err(error) => {
            let why = error.to_string().replace(&path, "");
            Kernel::unknown(format!("no names: {why}"))
        }
    }
}
