//! An index in one file, opened where it lies and fetched by ranges.

mod common;

use std::ops::Range;
use std::sync::{Arc, Mutex};

use common::{add, codec, contents, engine};
use maxsim_core::{BoxFuture, Error, ErrorCode, Result};
use maxsim_plaid::store::{MemorySource, MemoryStorage, PackStorage, Source, Verify, fetch, pack, shared};
use maxsim_plaid::{CreateOptions, Index, IndexWriter};

fn packed() -> (Index, Vec<u8>) {
    let storage = MemoryStorage::new();
    let mut writer = IndexWriter::create_in(&engine(), storage, codec(), CreateOptions::default()).unwrap();
    // Large enough that a segment has several blocks.
    add(&mut writer, &(0..20_000).map(|id| (id, id)).collect::<Vec<_>>()).unwrap();
    writer.commit().unwrap();
    add(&mut writer, &[(30_000, 5)]).unwrap();
    writer.delete(&[7.into()]).unwrap();
    writer.commit().unwrap();
    let index = writer.index().unwrap();
    let mut bytes = Vec::new();
    pack(&index, &mut bytes).unwrap();
    (index, bytes)
}

/// A source that remembers what was asked for.
struct Watched(MemorySource, Arc<Mutex<Vec<Range<u64>>>>);

impl Source for Watched {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read(&self, range: Range<u64>) -> BoxFuture<Result<Vec<u8>>> {
        self.1.lock().unwrap().push(range.clone());
        self.0.read(range)
    }
}

#[test]
fn a_packed_index_is_the_index() {
    let (index, bytes) = packed();
    let expected = contents(&index);
    let storage = PackStorage::new(shared(&bytes), "pack").unwrap();
    let opened = Index::open_in(storage.clone(), Verify::All).unwrap();
    opened.verify().unwrap();
    assert_eq!(contents(&opened), expected);
    let error = IndexWriter::open_in(&engine(), storage).err().unwrap();
    assert_eq!(error.code(), ErrorCode::Io);
    assert!(error.to_string().contains("can only be read"), "{error}");

    let asked = Arc::default();
    let source = Watched(MemorySource::new("pack", shared(&bytes)), Arc::clone(&asked));
    let mut told = Vec::new();
    let mut progress = |done, total| {
        told.push((done, total));
        Ok(())
    };
    let fetched = pollster::block_on(fetch(source, &mut progress)).unwrap();
    let total = told[0].1;
    assert!(told.is_sorted() && told.last() == Some(&(total, total)) && told.len() > 2, "{told:?}");
    // Hardly more was read than there is, and never much at once.
    let asked = asked.lock().unwrap();
    let lengths = asked.iter().map(|range| range.end - range.start);
    assert!(lengths.clone().sum::<u64>() < bytes.len() as u64 + 8192);
    assert!(lengths.max().unwrap() <= (1 << 20) + (1 << 16));
    let mut writer = IndexWriter::open_in(&engine(), fetched.clone()).unwrap();
    assert_eq!(contents(&Index::open_in(fetched.clone(), Verify::All).unwrap()), expected);
    add(&mut writer, &[(40_000, 1)]).unwrap();
    writer.commit().unwrap();
    assert_eq!(Index::open_in(fetched, Verify::All).unwrap().len(), index.len() + 1);
}

#[test]
fn damage_on_the_way_is_noticed() {
    let (_, bytes) = packed();
    let fetched = |bytes: &[u8]| {
        pollster::block_on(fetch(MemorySource::new("pack", shared(bytes)), &mut |_, _| Ok(()))).map(drop)
    };
    fetched(&bytes).unwrap();
    for at in (0..bytes.len()).step_by(bytes.len() / 200) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        // Zeros between sections are nobody's.
        if let Ok(()) = fetched(&damaged) {
            assert_eq!(bytes[at], 0);
        }
        assert!(fetched(&bytes[..at]).is_err());
        assert!(PackStorage::new(shared(&bytes[..at]), "pack").is_err());
    }
    assert_eq!(PackStorage::new(shared(&[1; 100]), "pack").err().unwrap().code(), ErrorCode::Format);
    let mut stop = |_, _| Err(Error::Aborted);
    let stopped = fetch(MemorySource::new("pack", shared(&bytes)), &mut stop);
    assert_eq!(pollster::block_on(stopped).err().unwrap().code(), ErrorCode::Aborted);
}
