//! An index in memory whose changes are carried over to another place, one at a time.

mod common;

use common::{Model, add, check, codec, contents, engine, random};
use maxsim_plaid::store::{
    Change, DeferredStorage, MemoryStorage, PackStorage, Storage, Verify, pack, shared,
};
use maxsim_plaid::{CreateOptions, Index, IndexWriter};
use rand::RngExt;

fn make(place: &MemoryStorage, change: Change) {
    match change {
        Change::Write(name, bytes) => {
            let mut sink = place.create(&name).unwrap();
            sink.write_all((*bytes).as_ref()).unwrap();
            sink.finish().unwrap();
        }
        Change::Remove(name) => place.remove(&name).unwrap(),
    }
}

fn load(place: &MemoryStorage) -> DeferredStorage {
    let storage = DeferredStorage::new("place");
    storage.load("manifest.mxi", place.open("manifest.mxi").unwrap());
    for (name, length) in storage.needed("manifest.mxi").unwrap() {
        let bytes = place.open(&name).unwrap();
        assert_eq!((*bytes).as_ref().len() as u64, length);
        storage.load(&name, bytes);
    }
    storage
}

/// What an index holds, and whether anything is wrong with it.
fn opened(place: &MemoryStorage) -> common::Contents {
    let index = Index::open_in(place.clone(), Verify::All).unwrap();
    index.verify().unwrap();
    contents(&index)
}

#[test]
fn whenever_it_is_cut_short_the_place_holds_the_index_of_before_or_after() {
    let (place, mut random) = (MemoryStorage::new(), random(3));
    let mut storage = DeferredStorage::new("place");
    let mut writer =
        IndexWriter::create_in(&engine(), storage.clone(), codec(), CreateOptions::default()).unwrap();
    storage.changes().into_iter().for_each(|change| make(&place, change));
    storage.made();
    let mut model = Model::new();
    let mut cut = 0;
    for round in 0..120u64 {
        let before = opened(&place);
        let ids: Vec<(u64, u64)> = (0..3).map(|i| (100 * round + i, 10 * round + i)).collect();
        add(&mut writer, &ids).unwrap();
        let mut changed = model.clone();
        changed.extend(ids);
        if let Some(&victim) = model.keys().nth(random.random_range(0..model.len().max(1))) {
            writer.delete(&[victim.into()]).unwrap();
            changed.remove(&victim);
        }
        if round % 7 == 0 { writer.compact() } else { writer.commit() }.unwrap();
        let after = contents(&writer.index().unwrap());
        let changes = storage.changes();
        let end = random.random_range(0..2 * changes.len());
        if end < changes.len() {
            // The tab is closed in the middle, or the disk is full: what was begun is forgotten.
            changes.into_iter().take(end).for_each(|change| make(&place, change));
            let now = opened(&place);
            assert!(now == before || now == after, "round {round}: neither before nor after");
            if round % 2 == 0 {
                drop(writer);
                storage.revert();
                assert_eq!(contents(&Index::open_in(storage.clone(), Verify::All).unwrap()), before);
            }
            model = if now == after { changed } else { model };
            storage = load(&place);
            writer = IndexWriter::open_in(&engine(), storage.clone()).unwrap();
            cut += 1;
        } else {
            changes.into_iter().for_each(|change| make(&place, change));
            storage.made();
            assert!(storage.changes().is_empty());
            model = changed;
        }
        check(&Index::open_in(place.clone(), Verify::All).unwrap(), &model);
    }
    assert!(cut > 30, "{cut} cuts");
}

#[test]
fn a_packed_index_can_be_written_to_in_memory() {
    let storage = MemoryStorage::new();
    let mut writer = IndexWriter::create_in(&engine(), storage, codec(), CreateOptions::default()).unwrap();
    add(&mut writer, &[(1, 1), (2, 2)]).unwrap();
    writer.commit().unwrap();
    let mut bytes = Vec::new();
    pack(&writer.index().unwrap(), &mut bytes).unwrap();
    let storage = DeferredStorage::unpacked(&PackStorage::new(shared(&bytes), "pack").unwrap());
    assert!(storage.changes().is_empty());
    let mut writer = IndexWriter::open_in(&engine(), storage.clone()).unwrap();
    add(&mut writer, &[(3, 3)]).unwrap();
    writer.commit().unwrap();
    check(&Index::open_in(storage, Verify::All).unwrap(), &[(1, 1), (2, 2), (3, 3)].into());
}
