//! Where a reader's bytes come from.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Action, TraceError};

/// A recording, in a file or in memory. Reading moves no position, so any thread may read.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    bytes: Content,
}

#[derive(Debug)]
enum Content {
    File(File),
    Memory(Arc<[u8]>),
}

impl Source {
    pub(crate) fn open(path: &Path) -> Result<Self, TraceError> {
        let file = no_stream(path).and_then(|()| File::open(path));
        let file = file.map_err(|error| TraceError::io(path, Action::Open, error))?;
        Ok(Self {
            path: path.to_owned(),
            bytes: Content::File(file),
        })
    }

    pub(crate) fn memory(name: &Path, bytes: Arc<[u8]>) -> Self {
        Self {
            path: name.to_owned(),
            bytes: Content::Memory(bytes),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its length now; a file that is being written grows.
    pub(crate) fn len(&self) -> Result<u64, TraceError> {
        match &self.bytes {
            Content::File(file) => {
                let metadata = file.metadata();
                metadata
                    .map(|data| data.len())
                    .map_err(|error| self.fail(error))
            }
            Content::Memory(bytes) => Ok(bytes.len() as u64),
        }
    }

    /// Fills `buffer` from `offset`; gives how much there was.
    pub(crate) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, TraceError> {
        match &self.bytes {
            Content::File(file) => {
                let mut filled = 0;
                while filled < buffer.len() {
                    match file.read_at(&mut buffer[filled..], offset + filled as u64) {
                        Ok(0) => break,
                        Ok(count) => filled += count,
                        Err(error) if error.kind() == ErrorKind::Interrupted => {}
                        Err(error) => return Err(self.fail(error)),
                    }
                }
                Ok(filled)
            }
            Content::Memory(bytes) => {
                let rest = usize::try_from(offset)
                    .ok()
                    .and_then(|start| bytes.get(start..));
                let rest = rest.unwrap_or_default();
                let count = rest.len().min(buffer.len());
                buffer[..count].copy_from_slice(&rest[..count]);
                Ok(count)
            }
        }
    }

    /// Exactly `len` bytes from `offset`, which the caller has bounded; `None` if there are fewer.
    pub(crate) fn read_vec(&self, offset: u64, len: usize) -> Result<Option<Vec<u8>>, TraceError> {
        let mut buffer = Vec::new();
        Ok(self.read_over(offset, len, &mut buffer)?.then_some(buffer))
    }

    /// As [`Source::read_vec`], over what is in `buffer`; says whether they are there.
    pub(crate) fn read_over(
        &self,
        offset: u64,
        len: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<bool, TraceError> {
        buffer.resize(len, 0);
        Ok(self.read_at(offset, buffer)? == len)
    }

    fn fail(&self, error: io::Error) -> TraceError {
        TraceError::io(&self.path, Action::Read, error)
    }
}

/// Refuses pipes and sockets, in which there are no places to read from or to come back to. Opening
/// one would wait for its other end.
pub(crate) fn no_stream(path: &Path) -> io::Result<()> {
    let is_stream = fs::metadata(path).is_ok_and(|data| {
        let ty = data.file_type();
        ty.is_fifo() || ty.is_socket()
    });
    if is_stream {
        let what = "it is a pipe or a socket, and a recording is a file";
        return Err(io::Error::new(ErrorKind::InvalidInput, what));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_beyond_the_end_gives_what_there_is() {
        let source = Source::memory(Path::new("memory"), Arc::from(*b"0123456789"));
        let mut buffer = [0; 4];
        assert_eq!(source.read_at(8, &mut buffer).unwrap(), 2);
        assert_eq!(&buffer[..2], b"89");
        assert_eq!(source.read_at(u64::MAX, &mut buffer).unwrap(), 0);
        assert_eq!(source.read_vec(6, 4).unwrap().unwrap(), b"6789");
        assert_eq!(source.read_vec(7, 4).unwrap(), None);
    }

    #[test]
    fn a_socket_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let refused = [
            Source::open(&path).map(drop),
            crate::Writer::create(&path, crate::Options::default()).map(drop),
        ];
        for refused in refused {
            let error = refused.unwrap_err().to_string();
            assert!(error.ends_with("a recording is a file"), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = Source::open(Path::new("/no/such.clt"))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("/no/such.clt: cannot open the recording"),
            "{error}"
        );
    }
}
