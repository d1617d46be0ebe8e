//! An index in one file, opened where it lies and fetched by ranges.

mod common;

use std::ops::Range;
use std::sync::{Arc, Mutex};

use common::{add, codec, contents, engine};
use maxsim_core::oracle::plaid_search;
use maxsim_core::plaid::Segment;
use maxsim_core::{BoxFuture, Error, ErrorCode, Hit, PlaidOptions, PlaidSearch, Precision, Result, Tokens};
use maxsim_plaid::store::{MemorySource, MemoryStorage, PackStorage, Source, Verify, fetch, pack, shared};
use maxsim_plaid::{CreateOptions, DocumentId, Filter, Index, IndexWriter, RemoteIndex, Selection};

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

#[test]
fn candidates_are_the_oracles() {
    let (index, _) = packed();
    let query: Vec<f32> = (40..47).flat_map(common::vectors).take(3 * common::DIM).collect();
    let q = Tokens::padded(&query, &[1, 3, common::DIM]).unwrap();
    let segments: Vec<&Segment> = index.segments().collect();
    let candidates = |options| {
        let options = PlaidOptions { candidates_only: true, ..options };
        let mut op = PlaidSearch::new(q.clone(), index.codec().as_codec(), segments.clone(), options);
        op.live = Some(index.live());
        let numbers = |hits: Vec<Vec<Hit>>| hits[0].iter().map(|hit| hit.document).collect::<Vec<_>>();
        (numbers(engine().plaid_search(op.clone()).unwrap()), numbers(plaid_search(&op).hits))
    };
    let all =
        PlaidOptions { n_ivf_probe: 2, n_full_scores: Some(4 * index.len() - 4), ..PlaidOptions::default() };
    let (found, expected) = candidates(all);
    assert_eq!(found, expected);
    assert!(2000 < found.len() && found.len() < index.len() - 2000, "{} of {}", found.len(), index.len());
    // What is cut is decided by scores that are rounded to a byte.
    let (found, expected) = candidates(PlaidOptions { n_full_scores: Some(4000), ..all });
    let common = found.iter().filter(|document| expected.contains(document)).count();
    assert!(found.is_sorted() && found.len() == 1000 && common > 900, "{common} in common");
    let (found, expected) = candidates(PlaidOptions { exact: true, ..all });
    assert!(found == expected && found.len() == index.len());
}

#[test]
fn a_search_reads_no_more_than_its_candidates() {
    let (index, bytes) = packed();
    let open = |bytes: &[u8], asked: &Arc<Mutex<Vec<Range<u64>>>>| {
        let source = Watched(MemorySource::new("pack", shared(bytes)), Arc::clone(asked));
        let mut told = Vec::new();
        let mut progress = |done, total| {
            told.push((done, total));
            Ok(())
        };
        let opened = pollster::block_on(RemoteIndex::open(Arc::new(source), &mut progress));
        opened.inspect(|_| assert!(told.is_sorted() && told[told.len() - 1].0 == told[0].1, "{told:?}"))
    };
    let asked: Arc<Mutex<Vec<Range<u64>>>> = Arc::default();
    let read = || asked.lock().unwrap().drain(..).map(|range| range.end - range.start).sum::<u64>();
    let remote = open(&bytes, &asked).unwrap();
    let opening = read();
    let residuals: u64 = index.segments().map(|segment| segment.parts().residuals.len() as u64).sum();
    assert!(opening < bytes.len() as u64 - residuals + 3 * 4096, "{opening} of {}", bytes.len());
    assert_eq!(remote.index().info(), index.info());
    assert_eq!(remote.index().metadata(&12.into()), index.metadata(&12.into()));

    let queries: Vec<f32> = (0..7).flat_map(|name| common::vectors(name + 40)).collect();
    let q = Tokens::padded(&queries, &[1, queries.len() / common::DIM, common::DIM]).unwrap();
    let both = [&queries[..2 * common::DIM], &queries[4 * common::DIM..6 * common::DIM]].concat();
    let both = Tokens::padded(&both, &[2, 2, common::DIM]).unwrap();
    let filter = Filter::parse("name > 500 AND even = TRUE", &[]).unwrap();
    let ids: Vec<_> = (100..400).map(DocumentId::from).collect();
    let few = PlaidOptions { n_full_scores: Some(40), explain: true, ..PlaidOptions::top_k(3) };
    let mut total = 0;
    for (q, options, selection) in [
        (q.clone(), few, Selection { filter: None, ids: Some(&ids) }),
        (q.clone(), few, Selection::default()),
        (q.clone(), few, Selection { filter: Some(&filter), ids: None }),
        (q.clone(), PlaidOptions { precision: Precision::Exact, ..few }, Selection::default()),
        (both.clone(), PlaidOptions { n_full_scores: Some(800), ..few }, Selection::default()),
        (q.clone(), few, Selection { filter: None, ids: Some(&ids[..5]) }),
        (q.clone(), few, Selection { filter: None, ids: Some(&[]) }),
        (q.clone(), PlaidOptions { n_full_scores: Some(400), top_k: 60, ..few }, Selection::default()),
        (both, PlaidOptions { exact: true, ..few }, Selection::default()),
    ] {
        let expected = index.search(&engine(), q.clone(), options, selection).unwrap();
        let found = pollster::block_on(remote.search(&engine(), q.clone(), options, selection)).unwrap();
        assert_eq!(found, expected, "{options:?}");
        let first = total == 0;
        total += read();
        let again = pollster::block_on(remote.search(&engine(), q, options, selection)).unwrap();
        assert_eq!((again, read()), (expected, 0), "what was read is kept");
        if first {
            // Neighbours, of which the first segment has some thousands in a block.
            assert!(0 < total && total <= 2 << 16 && 2 * total < residuals, "{total} of {residuals}");
        }
    }
    // All documents were scored in the end; only what lies between two reads may be read twice.
    assert!(residuals <= total && total < 2 * residuals, "{total} of {residuals}");

    for at in (0..bytes.len()).step_by(bytes.len() / 150) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        let searched = open(&damaged, &asked).and_then(|remote| {
            let everything = PlaidOptions { exact: true, ..few };
            pollster::block_on(remote.search(&engine(), q.clone(), everything, Selection::default()))
        });
        match searched {
            // Zeros between sections are nobody's.
            Ok(_) => assert_eq!(bytes[at], 0, "byte {at}"),
            Err(error) => assert!(
                matches!(error.code(), ErrorCode::Corrupt | ErrorCode::Format | ErrorCode::Version),
                "{error}"
            ),
        }
        assert!(open(&bytes[..at], &asked).is_err());
    }
}

/// Packed indexes whose containers another program wrote, following the documentation of the format.
#[test]
fn what_others_write_is_read() {
    for (name, ids) in [("good_numbers", 3), ("good_texts", 3)] {
        let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fuzz/seeds/index");
        let index = Index::open(format!("{seeds}/{name}.mxi")).unwrap();
        index.verify().unwrap();
        assert_eq!(index.len(), ids, "{name}");
    }
}
