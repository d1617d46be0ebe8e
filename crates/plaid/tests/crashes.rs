//! Machines die at any point, disks fill up: what was acknowledged is there, and nothing is there in part.
//!
//! A storage that can lose power: of what was not made durable, a crash keeps any part, in any combination that a file system may
//! leave. Every operation of a writer's life is cut off once, under several such combinations.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use common::{Model, add, check, codec, engine, random};
use maxsim_core::Result;
use maxsim_plaid::store::{Bytes, Guard, MemoryStorage, Sink, Storage, Verify, shared};
use maxsim_plaid::{CreateOptions, Index, IndexWriter};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// What to do when the countdown ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// The power goes: this operation and all later ones fail.
    Crash,
    /// This operation fails, later ones do not.
    Once(io::ErrorKind),
}

#[derive(Default)]
struct Disk {
    /// Every file that was ever created: bytes written, and how many of them are durable.
    files: Vec<(Vec<u8>, usize)>,
    /// Names as processes see them.
    names: BTreeMap<String, usize>,
    /// Names as they are after a crash, but for changes that were not made durable.
    durable: BTreeMap<String, usize>,
    /// Those changes, in order.
    changes: Vec<Change>,
    operations: usize,
    fault: Option<(usize, Fault)>,
    dead: bool,
}

#[derive(Clone)]
enum Change {
    Set(String, usize),
    Rename(String, String, usize),
    Remove(String),
}

impl Disk {
    /// Counts an operation, and fails it if its time has come.
    fn step(&mut self) -> io::Result<()> {
        if self.dead {
            return Err(io::Error::other("no power"));
        }
        let now = self.operations;
        self.operations += 1;
        match self.fault {
            Some((at, Fault::Crash)) if at == now => {
                self.dead = true;
                Err(io::Error::other("no power"))
            }
            Some((at, Fault::Once(kind))) if at == now => Err(kind.into()),
            _ => Ok(()),
        }
    }

    /// What the next boot may find.
    fn after_crash(&self, random: &mut ChaCha8Rng) -> MemoryStorage {
        let mut names = self.durable.clone();
        for change in &self.changes {
            // Each change may have reached the disk or not, whatever the others did.
            if random.random_bool(0.5) {
                continue;
            }
            match change {
                Change::Set(name, file) => {
                    names.insert(name.clone(), *file);
                }
                Change::Rename(from, to, file) => {
                    names.remove(from);
                    names.insert(to.clone(), *file);
                }
                Change::Remove(name) => {
                    names.remove(name);
                }
            }
        }
        let files: Vec<(String, Vec<u8>)> = names
            .into_iter()
            .map(|(name, file)| {
                let (bytes, durable) = &self.files[file];
                let mut kept = bytes[..random.random_range(*durable..=bytes.len())].to_vec();
                // Blocks that were allocated and not written hold anything.
                if kept.len() > *durable && random.random_bool(0.3) {
                    let from = random.random_range(*durable..kept.len());
                    kept[from..].fill(0);
                }
                (name, kept)
            })
            .collect();
        MemoryStorage::with_files(files.iter().map(|(name, bytes)| (name.clone(), &bytes[..])))
    }
}

#[derive(Clone, Default)]
struct Faulty(Arc<Mutex<Disk>>);

impl Faulty {
    fn disk(&self) -> std::sync::MutexGuard<'_, Disk> {
        self.0.lock().unwrap()
    }

    fn failing(at: usize, fault: Fault) -> Self {
        let disk = Disk { fault: Some((at, fault)), ..Disk::default() };
        Self(Arc::new(Mutex::new(disk)))
    }
}

struct Writing<'a>(&'a Faulty, usize);

impl Write for Writing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut disk = self.0.disk();
        disk.step()?;
        disk.files[self.1].0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Writing<'_> {
    fn finish(self: Box<Self>) -> io::Result<()> {
        let mut disk = self.0.disk();
        disk.step()?;
        let file = &mut disk.files[self.1];
        file.1 = file.0.len();
        Ok(())
    }
}

impl Storage for Faulty {
    fn describe(&self) -> String {
        "disk".to_owned()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.disk().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Bytes> {
        let disk = self.disk();
        let file = disk.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(shared(&disk.files[*file].0))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn Sink + '_>> {
        let mut disk = self.disk();
        disk.step()?;
        let file = disk.files.len();
        disk.files.push((Vec::new(), 0));
        disk.names.insert(name.to_owned(), file);
        disk.changes.push(Change::Set(name.to_owned(), file));
        Ok(Box::new(Writing(self, file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step()?;
        let file = disk.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        disk.names.insert(to.to_owned(), file);
        disk.changes.push(Change::Rename(from.to_owned(), to.to_owned(), file));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step()?;
        disk.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        disk.changes.push(Change::Remove(name.to_owned()));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step()?;
        disk.durable = disk.names.clone();
        disk.changes.clear();
        Ok(())
    }

    fn lock(&self) -> io::Result<Guard> {
        Ok(Box::new(()))
    }
}

/// A writer's life: what it meant to hold after each commit that it began, and how many of these were acknowledged.
#[derive(Default)]
struct Life {
    begun: Vec<Model>,
    acknowledged: usize,
}

impl Life {
    /// Lives it on `storage` to its end or its first error. With `retry`, a commit that fails is tried once more.
    fn live(&mut self, storage: &Faulty, retry: bool) -> Result<()> {
        let mut model = Model::new();
        self.begun.push(model.clone());
        let options = CreateOptions { replace: true, ..CreateOptions::default() };
        let mut writer = IndexWriter::create_in(&engine(), storage.clone(), codec(), options)
            .or_else(|error| match retry {
                true => IndexWriter::create_in(&engine(), storage.clone(), codec(), options),
                false => Err(error),
            })?
            .with_segment_bytes(600);
        self.acknowledged += 1;
        for round in 0..8u64 {
            for id in 0..3 + round {
                let (id, name) = (10 * round + id, 7 * round + id);
                let added = add(&mut writer, &[(id, name)]);
                if retry && added.is_err() {
                    // A segment could not be written: nothing of the batch is there, and it can be added again.
                    add(&mut writer, &[(id, name)])?;
                } else {
                    added?;
                }
                model.insert(id, name);
            }
            if round % 2 == 1 {
                let ids: Vec<u64> = model.keys().copied().filter(|id| id % 3 == 0).collect();
                writer.delete(&ids.iter().map(|&id| id.into()).collect::<Vec<_>>())?;
                model.retain(|id, _| !ids.contains(id));
            }
            self.begun.push(model.clone());
            let mut commit = || if round % 4 == 3 { writer.compact() } else { writer.commit() };
            let committed = commit();
            if retry && committed.is_err() {
                commit()?;
            } else {
                committed?;
            }
            self.acknowledged += 1;
        }
        Ok(())
    }
}

fn operations() -> usize {
    let storage = Faulty::default();
    let mut life = Life::default();
    life.live(&storage, false).unwrap();
    assert_eq!(life.acknowledged, life.begun.len());
    let operations = storage.disk().operations;
    assert!(operations > 200, "{operations}");
    operations
}

#[test]
fn a_crash_at_any_operation_loses_nothing_acknowledged() {
    let mut found = BTreeSet::new();
    for at in 0..operations() {
        let storage = Faulty::failing(at, Fault::Crash);
        let mut life = Life::default();
        // A crash while files are removed, which comes after the commit, may go unnoticed.
        let _ = life.live(&storage, false);
        for seed in 0..6 {
            let disk = storage.disk().after_crash(&mut random(1000 * at as u64 + seed));
            let index = match Index::open_in(disk.clone(), Verify::All) {
                Ok(index) => index,
                Err(error) => {
                    assert_eq!(
                        (life.acknowledged, error.code().as_str()),
                        (0, "ERR_FORMAT"),
                        "{at}: {error}"
                    );
                    continue;
                }
            };
            // The last acknowledged commit, or the one under way: never anything else.
            let generation = index.generation() as usize;
            assert!((life.acknowledged..=life.begun.len()).contains(&generation), "{at}");
            found.insert(generation > life.acknowledged);
            check(&index, &life.begun[generation - 1]);
            // Life goes on, and what the dead writer left behind is removed.
            let mut model = life.begun[generation - 1].clone();
            let mut writer = IndexWriter::open_in(&engine(), disk.clone()).unwrap();
            add(&mut writer, &[(5000, 1), (5001, 2)]).unwrap();
            model.extend([(5000, 1), (5001, 2)]);
            writer.commit().unwrap();
            let index = Index::open_in(disk.clone(), Verify::All).unwrap();
            check(&index, &model);
            assert_eq!(disk.names().unwrap().len(), index.info().segments + 2);
        }
    }
    assert_eq!(found.len(), 2, "commits under way were found done, and undone");
}

#[test]
fn after_an_operation_that_fails_work_can_be_tried_again() {
    let mut broken = 0;
    for at in 0..operations() {
        let storage = Faulty::failing(at, Fault::Once(io::ErrorKind::StorageFull));
        let mut life = Life::default();
        match life.live(&storage, true) {
            Ok(()) => check(&Index::open_in(storage, Verify::All).unwrap(), life.begun.last().unwrap()),
            Err(error) => {
                // Names could not be made durable behind a renamed manifest: nobody knows which one a crash would leave.
                assert_eq!(error.code().as_str(), "ERR_IO");
                broken += 1;
                let index = Index::open_in(storage.clone(), Verify::All).unwrap();
                check(&index, &life.begun[index.generation() as usize - 1]);
                let mut writer = IndexWriter::open_in(&engine(), storage).unwrap();
                writer.commit().unwrap();
            }
        }
    }
    assert!((1..=9).contains(&broken), "once per commit at most, {broken}");
}
