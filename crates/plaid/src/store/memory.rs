//! An index in memory: for browsers, and for tests.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::storage::{Bytes, Guard, Sink, Storage, shared};

/// Files in memory. Clones are the same files.
#[derive(Clone, Default)]
pub struct MemoryStorage {
    files: Arc<Mutex<BTreeMap<String, Bytes>>>,
    locked: Arc<AtomicBool>,
}

impl MemoryStorage {
    /// No files.
    pub fn new() -> Self {
        Self::default()
    }

    /// These files, e.g. as they were once read from a browser's file system.
    pub fn with_files<'a>(files: impl IntoIterator<Item = (String, &'a [u8])>) -> Self {
        let files = files.into_iter().map(|(name, bytes)| (name, shared(bytes))).collect();
        Self { files: Arc::new(Mutex::new(files)), locked: Arc::default() }
    }

    pub(super) fn files(&self) -> MutexGuard<'_, BTreeMap<String, Bytes>> {
        // No code that can panic runs while this is held.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Unlock(Arc<AtomicBool>);

impl Drop for Unlock {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

struct Growing<'a> {
    memory: &'a MemoryStorage,
    name: String,
    bytes: Vec<u8>,
}

impl Write for Growing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Growing<'_> {
    fn finish(self: Box<Self>) -> io::Result<()> {
        self.memory.files().insert(self.name, shared(&self.bytes));
        Ok(())
    }
}

impl Storage for MemoryStorage {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.files().keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Bytes> {
        self.files().get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn Sink + '_>> {
        Ok(Box::new(Growing { memory: self, name: name.to_owned(), bytes: Vec::new() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files();
        let bytes = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), bytes);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files().remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self) -> io::Result<Guard> {
        if self.locked.swap(true, Ordering::Acquire) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Unlock(self.locked.clone())))
    }
}
