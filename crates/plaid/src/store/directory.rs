//! An index in a directory of the file system.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

use super::storage::{Bytes, Guard, Sink, Storage, shared};

/// Name of the file whose advisory lock writers hold. It has no contents and is never removed: two writers could otherwise
/// lock two files of this name.
const LOCK: &str = "lock";

/// A directory. Files are memory-mapped.
#[derive(Debug, Clone)]
pub struct DirectoryStorage {
    path: PathBuf,
}

impl DirectoryStorage {
    /// The directory at `path`, which need not exist: it is made when the first file is.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn make(&self) -> io::Result<()> {
        if self.path.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(&self.path)?;
        // The directory's own name has to be durable before anything in it can be.
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
            _ => sync_directory(Path::new(".")),
        }
    }
}

/// Windows has no way to do this, and needs none: it journals names.
fn sync_directory(path: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

/// Maps a file of an index.
pub(super) fn map(path: &Path) -> io::Result<Bytes> {
    let file = File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(shared(&[]));
    }
    // SAFETY: the mapping is read-only. Files of an index are never written to once they have a name that a manifest
    // mentions: they are replaced by renaming and removed by unlinking, neither of which touches a mapping. What Rust cannot
    // rule out is a foreign process that writes to or truncates the file: bytes, every pattern of which is a valid number,
    // may then change under a reader, whose accesses to memory are bounds-checked or by values checked when the file
    // was opened, or the system stops the process with a signal. Indexes others may write to have to be copied first.
    Ok(Arc::new(unsafe { Mmap::map(&file) }?))
}

struct Writing(BufWriter<File>);

impl Write for Writing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Sink for Writing {
    fn finish(self: Box<Self>) -> io::Result<()> {
        self.0.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }
}

impl Storage for DirectoryStorage {
    fn describe(&self) -> String {
        self.path.display().to_string()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
            Err(error) => return Err(error),
        };
        for entry in entries {
            // Names that are not UTF-8 are none of ours.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Bytes> {
        map(&self.path.join(name))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn Sink + '_>> {
        self.make()?;
        Ok(Box::new(Writing(BufWriter::with_capacity(1 << 16, File::create(self.path.join(name))?))))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        sync_directory(&self.path)
    }

    fn lock(&self) -> io::Result<Guard> {
        self.make()?;
        let file = File::options().create(true).truncate(false).write(true).open(self.path.join(LOCK))?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}
