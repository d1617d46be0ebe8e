//! An index in memory that is kept in a place which can only be awaited: a browser's file system.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use maxsim_core::Result;

use super::manifest::{BUILDING, CURRENT, Manifest};
use super::storage::{Bytes, Guard, Sink, Storage};
use super::{MemoryStorage, PackStorage};

/// Files in memory, and what is known to be kept of them in the place they come from.
///
/// An index reads and writes the memory. Whoever can reach the place asks for the [`changes`](Self::changes) after a commit, makes
/// them one by one in their order, and says that they [`were made`](Self::made), or goes [`back`](Self::revert) if one of them
/// failed. However many of them were made, the place holds the index of before or after.
///
/// Clones are the same files.
#[derive(Clone, Default)]
pub struct DeferredStorage {
    name: Arc<str>,
    memory: MemoryStorage,
    kept: Arc<Mutex<BTreeMap<String, Bytes>>>,
}

/// What has to be done to a place so that it holds what is in memory.
#[derive(Clone)]
pub enum Change {
    /// Write a file, in one step: it has all of its bytes, or there is the one of that name that was there before.
    Write(String, Bytes),
    /// Remove a file.
    Remove(String),
}

impl DeferredStorage {
    /// No files; `name` is for errors.
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// The files of an index in one file, which share its memory.
    pub fn unpacked(pack: &PackStorage) -> Self {
        let unpacked = Self::new(&pack.describe());
        pack.files().iter().for_each(|(name, bytes)| unpacked.load(name, bytes.clone()));
        unpacked
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<String, Bytes>> {
        // No code that can panic runs while this is held.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a file that was read from the place.
    pub fn load(&self, name: &str, bytes: Bytes) {
        self.memory.files().insert(name.to_owned(), bytes.clone());
        self.kept().insert(name.to_owned(), bytes);
    }

    /// Lets go of a file that is not in the place any more.
    pub fn forget(&self, name: &str) {
        self.memory.files().remove(name);
        self.kept().remove(name);
    }

    /// Names and lengths of the files that the manifest of this name relies on, whether they are there or not: `manifest.mxi` or
    /// `building.mxi`.
    ///
    /// # Errors
    /// As [`Index::open`](crate::Index::open), about `manifest.mxi`. A build that cannot be read needs nothing: it is begun anew.
    pub fn needed(&self, manifest: &str) -> Result<Vec<(String, u64)>> {
        let found = match Manifest::read(self, manifest) {
            Err(_) if manifest == BUILDING => None,
            found => found?,
        };
        let files = |manifest: Manifest| {
            let segments = manifest.segments.into_iter().map(|segment| segment.file);
            std::iter::once(manifest.codec).chain(segments).map(|file| (file.name(), file.fingerprint.length))
        };
        Ok(found.into_iter().flat_map(files).collect())
    }

    /// What the place lacks, in the order in which it has to be done: new files first, then manifests, which rely on them; what
    /// is superfluous goes last.
    pub fn changes(&self) -> Vec<Change> {
        let (files, kept) = (self.memory.files(), self.kept());
        let differs =
            |(name, bytes): &(&String, &Bytes)| kept.get(*name).is_none_or(|kept| !Arc::ptr_eq(kept, bytes));
        let (manifests, others): (Vec<_>, Vec<_>) =
            files.iter().filter(differs).partition(|(name, _)| *name == CURRENT || *name == BUILDING);
        let written = others.into_iter().chain(manifests);
        let written = written.map(|(name, bytes)| Change::Write(name.clone(), bytes.clone()));
        let removed = kept.keys().filter(|name| !files.contains_key(*name)).cloned().map(Change::Remove);
        written.chain(removed).collect()
    }

    /// All changes were made.
    pub fn made(&self) {
        *self.kept() = self.memory.files().clone();
    }

    /// Goes back to what is kept. Writers have to be opened anew.
    pub fn revert(&self) {
        *self.memory.files() = self.kept().clone();
    }
}

impl Storage for DeferredStorage {
    fn describe(&self) -> String {
        self.name.to_string()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        self.memory.names()
    }

    fn open(&self, name: &str) -> io::Result<Bytes> {
        self.memory.open(name)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn Sink + '_>> {
        self.memory.create(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.memory.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.memory.remove(name)
    }

    fn sync(&self) -> io::Result<()> {
        self.memory.sync()
    }

    fn lock(&self) -> io::Result<Guard> {
        self.memory.lock()
    }
}
