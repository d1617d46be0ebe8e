//! What an index needs of the place it is kept in.

use std::io;
use std::sync::Arc;

use maxsim_core::plaid::SharedBytes;
use maxsim_core::{Error, MaybeSendSync, Result};

/// A file's contents: a memory map, or memory.
pub type Bytes = Arc<dyn SharedBytes>;

/// Whatever unlocks when it is dropped.
pub type Guard = Box<dyn MaybeSendSync>;

/// A file being written.
pub trait Sink: io::Write {
    /// Makes everything written durable. A file that is dropped before is as good as lost.
    ///
    /// # Errors
    /// The system's.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// A flat set of named files with the few promises that crash safety is made of.
///
/// Names consist of lower-case letters, digits, `.` and `-`. Errors are the system's own: the index says which file they are
/// about.
pub trait Storage: MaybeSendSync {
    /// How errors name this place, e.g. the path.
    fn describe(&self) -> String;

    /// Names of all files.
    ///
    /// # Errors
    /// The system's.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Contents of a file as they are now: what happens to the file later (it is removed, or another one renamed to its name)
    /// does not change them.
    ///
    /// # Errors
    /// The system's; [`io::ErrorKind::NotFound`] if there is no such file.
    fn open(&self, name: &str) -> io::Result<Bytes>;

    /// A new, empty file in place of any of that name.
    ///
    /// # Errors
    /// The system's.
    fn create(&self, name: &str) -> io::Result<Box<dyn Sink + '_>>;

    /// Gives a file another name; a file of that name is replaced in one step. Durable after [`sync`](Self::sync).
    ///
    /// # Errors
    /// The system's; the files are then as they were.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// The system's.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names durable: files created, renamed and removed so far.
    ///
    /// # Errors
    /// The system's.
    fn sync(&self) -> io::Result<()>;

    /// Takes the writer lock, which dies with its process. Never waits.
    ///
    /// # Errors
    /// The system's; [`io::ErrorKind::WouldBlock`] if someone has it.
    fn lock(&self) -> io::Result<Guard>;
}

/// The error of a storage about one of its files.
pub(crate) fn failed(storage: &dyn Storage, name: &str, error: &io::Error) -> Error {
    Error::io(format!("{}/{name}", storage.describe()), error)
}

/// [`Storage::open`]; `None` if there is no such file.
pub(crate) fn open(storage: &dyn Storage, name: &str) -> Result<Option<Bytes>> {
    match storage.open(name) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(storage, name, &error)),
    }
}

/// Writes a file whose contents are durable when this returns. Of one that cannot be written nothing is left, so that a full disk
/// is no fuller afterwards.
pub(crate) fn write<T>(
    storage: &dyn Storage,
    name: &str,
    contents: impl FnOnce(&mut dyn Sink) -> io::Result<T>,
) -> io::Result<T> {
    let mut sink = storage.create(name)?;
    let result = contents(&mut *sink).and_then(|result| sink.finish().map(|()| result));
    if result.is_err() {
        let _ = storage.remove(name);
    }
    result
}

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Memory aligned as sections of files are, so that views of either need no copy.
pub struct Aligned {
    lines: Vec<Line>,
    len: usize,
}

impl Aligned {
    /// As many zeros, to be filled.
    pub fn zeroed(len: usize) -> Self {
        Self { lines: vec![Line([0; 64]); len.div_ceil(64)], len }
    }
}

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl AsMut<[u8]> for Aligned {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

/// A copy of `bytes` that starts at a multiple of 64.
pub fn shared(bytes: &[u8]) -> Bytes {
    let mut copy = Aligned::zeroed(bytes.len());
    copy.as_mut().copy_from_slice(bytes);
    Arc::new(copy)
}
