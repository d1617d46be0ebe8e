//! Documents come and go; what an index says about those it has never changes.

mod common;

use common::{DIM, Model, add, add_as, check, codec, contents, engine};
use maxsim_core::{Error, PlaidOptions, Tokens};
use maxsim_plaid::store::{DirectoryStorage, MemoryStorage, Storage, Verify};
use maxsim_plaid::{CreateOptions, DocumentId, Filter, IdKind, Index, IndexWriter, Selection, Value};

fn new_in(storage: &MemoryStorage) -> IndexWriter {
    IndexWriter::create_in(&engine(), storage.clone(), codec(), CreateOptions::default()).unwrap()
}

fn open(storage: &MemoryStorage) -> Index {
    Index::open_in(storage.clone(), Verify::All).unwrap()
}

#[test]
fn nothing_shows_before_a_commit_and_everything_after() {
    let storage = MemoryStorage::new();
    let mut writer = new_in(&storage);
    let before = open(&storage);
    add(&mut writer, &[(5, 50), (3, 30)]).unwrap();
    assert!(open(&storage).is_empty() && writer.len() == 2);
    assert_eq!(writer.commit().unwrap(), before.generation() + 1);
    check(&open(&storage), &Model::from([(5, 50), (3, 30)]));
    assert_eq!(writer.delete(&[5.into(), 77.into()]).unwrap(), 1);
    add(&mut writer, &[(5, 51)]).unwrap();
    check(&open(&storage), &Model::from([(5, 50), (3, 30)]));
    let old = open(&storage);
    writer.commit().unwrap();
    check(&old.refresh().unwrap(), &Model::from([(5, 51), (3, 30)]));
    // Readers keep what they opened.
    assert!(before.is_empty());
    assert_eq!(old.len(), 2);
    assert_eq!(old.metadata(&5.into()), open(&storage).metadata(&5.into()).map(|_| common::row(50)));
    let generation = writer.commit().unwrap();
    assert_eq!(generation, writer.commit().unwrap(), "a commit without changes is none");
}

#[test]
fn a_rollback_forgets_and_dropping_a_writer_does_too() {
    let storage = MemoryStorage::new();
    let mut writer = new_in(&storage).with_segment_bytes(100);
    add(&mut writer, &[(1, 1), (2, 2), (3, 3)]).unwrap();
    writer.commit().unwrap();
    // Segments this small are full at once: some of these documents are in files already.
    for id in 10..30 {
        add(&mut writer, &[(id, id)]).unwrap();
    }
    writer.delete(&[1.into()]).unwrap();
    let files = storage.names().unwrap().len();
    writer.rollback().unwrap();
    assert!(storage.names().unwrap().len() < files);
    assert_eq!(writer.len(), 3);
    add(&mut writer, &[(4, 4)]).unwrap();
    writer.commit().unwrap();
    add(&mut writer, &[(9, 9)]).unwrap();
    drop(writer);
    check(&open(&storage), &Model::from([(1, 1), (2, 2), (3, 3), (4, 4)]));
}

#[test]
fn ids_are_given_once() {
    let storage = MemoryStorage::new();
    let mut writer = new_in(&storage);
    add(&mut writer, &[(1, 1), (2, 2)]).unwrap();
    let duplicate = |writer: &mut IndexWriter, documents: &[(u64, u64)]| {
        let error = add(writer, documents).unwrap_err();
        assert_eq!(error.argument(), Some("ids"), "{error}");
        error.to_string()
    };
    assert_eq!(
        duplicate(&mut writer, &[(7, 7), (2, 8)]),
        "ids[1]: expected an id that no other document has, got 2 again"
    );
    duplicate(&mut writer, &[(7, 7), (7, 8)]);
    writer.commit().unwrap();
    duplicate(&mut writer, &[(7, 7), (2, 8)]);
    // Nothing of the refused batches is there.
    check(&open(&storage), &Model::from([(1, 1), (2, 2)]));
    assert_eq!(writer.len(), 2);
    writer.delete(&[2.into()]).unwrap();
    add(&mut writer, &[(2, 8)]).unwrap();
    duplicate(&mut writer, &[(2, 9)]);
    writer.delete(&[2.into()]).unwrap();
    add(&mut writer, &[(2, 9)]).unwrap();
    writer.commit().unwrap();
    check(&open(&storage), &Model::from([(1, 1), (2, 9)]));
}

#[test]
fn documents_without_ids_are_numbered_on() {
    let storage = MemoryStorage::new();
    let mut writer = new_in(&storage);
    let vectors = [0.5f32; 3 * DIM];
    let tokens = |count: usize| Tokens::padded(&vectors[..count * DIM], &[count, 1, DIM]).unwrap();
    writer.add(&tokens(2), None, &[]).unwrap();
    writer.add(&tokens(1), Some(&[9.into()]), &[]).unwrap();
    writer.commit().unwrap();
    drop(writer);
    let mut writer = IndexWriter::open_in(&engine(), storage.clone()).unwrap();
    writer.add(&tokens(1), None, &[]).unwrap();
    writer.commit().unwrap();
    let index = open(&storage);
    let ids: Vec<DocumentId> = (0..4).map(|i| index.id(i)).collect();
    assert_eq!(ids, [0.into(), 1.into(), 9.into(), 10.into()]);
    writer.add(&tokens(1), Some(&[u64::MAX.into()]), &[]).unwrap();
    assert_eq!(writer.add(&tokens(1), None, &[]).unwrap_err().argument(), Some("ids"));
}

#[test]
fn ids_may_be_texts() {
    let storage = MemoryStorage::new();
    let options = CreateOptions { ids: IdKind::Text, ..CreateOptions::default() };
    let mut writer = IndexWriter::create_in(&engine(), storage.clone(), codec(), options).unwrap();
    let names = ["b", "", "ä/ö", "a"].map(DocumentId::from);
    add_as(&mut writer, &names, &[1, 2, 3, 4]).unwrap();
    assert_eq!(add(&mut writer, &[(1, 1)]).unwrap_err().argument(), Some("ids"));
    let vectors = [0.5f32; DIM];
    let one = Tokens::padded(&vectors, &[1, 1, DIM]).unwrap();
    assert_eq!(writer.add(&one, None, &[]).unwrap_err().argument(), Some("ids"));
    let long = DocumentId::from("x".repeat(70_000));
    assert_eq!(writer.add(&one, Some(&[long]), &[]).unwrap_err().argument(), Some("ids"));
    writer.delete(&["".into(), "zz".into()]).unwrap();
    assert_eq!(writer.delete(&[3.into()]).unwrap_err().argument(), Some("ids"));
    writer.commit().unwrap();
    let index = open(&storage);
    let found: Vec<_> = contents(&index).documents.into_iter().map(|(id, _)| id).collect();
    assert_eq!(found, [names[0].clone(), names[2].clone(), names[3].clone()]);
    assert_eq!(index.position(&"".into()), None);
    assert_eq!(index.position(&4.into()), None);
}

#[test]
fn what_does_not_fit_is_refused_and_adds_nothing() {
    let storage = MemoryStorage::new();
    let mut writer = new_in(&storage);
    add(&mut writer, &[(0, 0)]).unwrap();
    let vectors = [0.5f32; 2 * DIM];
    let two = || Tokens::padded(&vectors, &[2, 1, DIM]).unwrap();
    let narrow = Tokens::padded(&vectors, &[4, 1, DIM / 2]).unwrap();
    let infinite = [f32::INFINITY; DIM];
    let infinite = Tokens::padded(&infinite, &[1, 1, DIM]).unwrap();
    let year = |value| vec![("name".to_owned(), value)];
    let mut refused =
        |tokens: &Tokens<'_>, ids: Option<&[DocumentId]>, rows: &[maxsim_plaid::Row], message: &str| {
            let error = writer.add(tokens, ids, rows).unwrap_err();
            assert_eq!(error.to_string(), message);
        };
    refused(&narrow, None, &[], "documents: expected d = 16 as in the index, got d = 8");
    refused(&infinite, None, &[], "documents[0]: expected a finite number, got inf");
    refused(&two(), Some(&[1.into()]), &[], "ids: expected one for each of 2 documents, got 1 ids");
    refused(&two(), None, &[vec![]], "metadata: expected a row for each of 2 documents, got 1 rows");
    refused(
        &two(),
        None,
        &[vec![], year(Value::Text("x".into()))],
        "metadata[1]: expected values of type integer for \"name\", got \"x\"",
    );
    refused(
        &two(),
        None,
        &[vec![], year(Value::Float(0.5))],
        "metadata[1]: expected values of type integer for \"name\", got 0.5",
    );
    let twice = [year(Value::Int(1)), year(Value::Int(1))].concat();
    refused(&two(), None, &[twice, vec![]], "metadata[0]: expected each column once, got \"name\" twice");
    let new = |value| vec![("new".to_owned(), value)];
    refused(
        &two(),
        None,
        &[new(Value::Int(1)), new(Value::Bool(true))],
        "metadata[1]: expected values of type integer for \"new\", got true",
    );
    // The column that came with the refused batch is not there: its type is free.
    writer.add(&two(), None, &[new(Value::Bool(true)), vec![]]).unwrap();
    writer.commit().unwrap();
    assert_eq!(open(&storage).len(), 3);
}

#[test]
fn filters_and_ids_choose_among_live_documents() {
    let storage = MemoryStorage::new();
    let mut writer = new_in(&storage);
    for batch in [[0u64, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]] {
        add(&mut writer, &batch.map(|name| (name + 100, name))).unwrap();
        writer.commit().unwrap();
    }
    writer.delete(&[106.into()]).unwrap();
    writer.commit().unwrap();
    let index = open(&storage);
    let chosen = |expression: &str, ids: Option<&[DocumentId]>| -> Vec<u64> {
        let filter = Filter::parse(expression, &[]).unwrap();
        let selection = Selection { filter: Some(&filter), ids };
        let query = [0.3f32; DIM];
        let options = PlaidOptions::top_k(100);
        let q = Tokens::padded(&query, &[1, 1, DIM]).unwrap();
        let hits = index.search(&engine(), q, options, selection).unwrap().remove(0);
        let mut found: Vec<u64> = hits
            .into_iter()
            .map(|hit| match hit.id {
                DocumentId::Number(id) => id - 100,
                DocumentId::Text(_) => unreachable!(),
            })
            .collect();
        found.sort_unstable();
        found
    };
    assert_eq!(chosen("name >= 3 AND name < 8", None), [3, 4, 5, 7]);
    assert_eq!(chosen("title LIKE 'document %'", None), [0, 3, 9]);
    assert_eq!(chosen("even = TRUE", None), [0, 2, 4, 8, 10]);
    assert_eq!(chosen("NOT even = TRUE", None), [3, 7, 11]);
    assert_eq!(chosen("even IS NULL", None), [1, 5, 9]);
    let ids: Vec<DocumentId> = [103u64, 106, 109, 999].map(DocumentId::from).into();
    assert_eq!(chosen("name > 0", Some(&ids)), [3, 9]);
    assert_eq!(chosen("name > 5", Some(&ids)), [9]);
    let filter = Filter::parse("nome = 3", &[]).unwrap();
    let error = index.select(Selection { filter: Some(&filter), ids: None }).unwrap_err();
    assert_eq!(error.to_string(), "filter: expected a column of the index (name, title, even), got \"nome\"");
}

#[test]
fn small_commits_do_not_make_many_segments() {
    let storage = MemoryStorage::new();
    let mut writer = new_in(&storage);
    let mut model = Model::new();
    for id in 0..200 {
        add(&mut writer, &[(id, id)]).unwrap();
        model.insert(id, id);
        if id % 7 == 3 {
            writer.delete(&[(id / 2).into()]).unwrap();
            model.remove(&(id / 2));
        }
        writer.commit().unwrap();
    }
    let index = open(&storage);
    assert!(index.info().segments <= 10, "{} segments", index.info().segments);
    check(&index, &model);
    // Files of segments that were merged are gone: a segment each, the codec, the manifest.
    assert_eq!(storage.names().unwrap().len(), index.info().segments + 2);
    // In the order in which they were added.
    let ids: Vec<_> = contents(&index).documents.into_iter().map(|(id, _)| id).collect();
    assert!(ids.is_sorted());
}

#[test]
fn compaction_leaves_live_documents_in_order() {
    let storage = MemoryStorage::new();
    // So small that compaction makes several segments.
    let mut writer = new_in(&storage).with_segment_bytes(1000);
    let mut model = Model::new();
    for id in 0..150 {
        add(&mut writer, &[(id, id)]).unwrap();
        model.insert(id, id);
    }
    writer.commit().unwrap();
    for id in (0..150).filter(|id| id % 3 != 0) {
        writer.delete(&[id.into()]).unwrap();
        model.remove(&id);
    }
    writer.commit().unwrap();
    let before = open(&storage);
    let expected = contents(&before);
    assert!(before.info().deleted > 0);
    writer.compact().unwrap();
    let after = open(&storage);
    assert_eq!(after.info().deleted, 0);
    assert!(after.info().segments > 1 && after.info().segments < before.info().segments);
    assert_eq!(contents(&after), expected);
    check(&after, &model);
    // What a reader has open stays.
    assert_eq!(contents(&before), expected);
    let generation = after.generation();
    assert_eq!(writer.compact().unwrap(), generation, "there is nothing left to do");
    for id in 0..150 {
        writer.delete(&[id.into()]).unwrap();
    }
    writer.commit().unwrap();
    assert_eq!(open(&storage).info().segments, 0);
    assert!(contents(&open(&storage)).hits.is_empty());
}

#[test]
fn there_is_one_writer_and_any_number_of_readers() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("index");
    let storage = || DirectoryStorage::new(&path);
    let missing = Index::open(&path).unwrap_err();
    assert_eq!(missing.code().as_str(), "ERR_FORMAT");
    assert!(IndexWriter::open(&engine(), &path).is_err() && !path.exists(), "opening makes nothing");
    let mut writer = IndexWriter::create_in(&engine(), storage(), codec(), CreateOptions::default()).unwrap();
    let locked = |error: Option<Error>| assert_eq!(error.unwrap().code().as_str(), "ERR_LOCKED");
    locked(IndexWriter::open(&engine(), &path).err());
    let replace = CreateOptions { replace: true, ..CreateOptions::default() };
    locked(IndexWriter::create_in(&engine(), storage(), codec(), replace).err());
    add(&mut writer, &[(1, 1)]).unwrap();
    writer.commit().unwrap();
    check(&Index::open(&path).unwrap(), &Model::from([(1, 1)]));
    drop(writer);
    let exists = IndexWriter::create_in(&engine(), storage(), codec(), CreateOptions::default()).err();
    assert_eq!(exists.unwrap().argument(), Some("path"));
    let old = Index::open(&path).unwrap();
    let mut writer = IndexWriter::create_in(&engine(), storage(), codec(), replace).unwrap();
    add(&mut writer, &[(2, 2)]).unwrap();
    writer.commit().unwrap();
    check(&old.refresh().unwrap(), &Model::from([(2, 2)]));
    assert_eq!(contents(&old).documents.len(), 1, "its files are gone, and it has them still");
    assert_eq!(std::fs::read_dir(&path).unwrap().count(), 4, "manifest, codec, segment, lock");
}

mod random_lives {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Add(Vec<(u64, u64)>),
        Delete(Vec<u64>),
        Commit,
        Rollback,
        Compact,
        Reopen,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            5 => proptest::collection::vec((0..40u64, 0..1000u64), 0..6).prop_map(Step::Add),
            3 => proptest::collection::vec(0..40u64, 0..6).prop_map(Step::Delete),
            3 => Just(Step::Commit),
            1 => Just(Step::Rollback),
            1 => Just(Step::Compact),
            1 => Just(Step::Reopen),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn an_index_is_what_was_done_to_it(
            steps in proptest::collection::vec(step(), 1..40),
            segment_bytes in prop_oneof![Just(300usize), Just(1500), Just(1 << 20)],
        ) {
            let storage = MemoryStorage::new();
            let mut writer = new_in(&storage).with_segment_bytes(segment_bytes);
            let (mut model, mut committed) = (Model::new(), Model::new());
            for step in steps {
                match step {
                    Step::Add(documents) => {
                        let mut ids: Vec<u64> = documents.iter().map(|d| d.0).collect();
                        ids.sort_unstable();
                        let fits = ids.windows(2).all(|pair| pair[0] != pair[1])
                            && ids.iter().all(|id| !model.contains_key(id));
                        prop_assert_eq!(add(&mut writer, &documents).is_ok(), fits);
                        if fits {
                            model.extend(documents);
                        }
                    }
                    Step::Delete(ids) => {
                        let there = ids.iter().filter(|id| model.remove(id).is_some()).count();
                        let ids: Vec<DocumentId> = ids.into_iter().map(Into::into).collect();
                        prop_assert_eq!(writer.delete(&ids).unwrap(), there);
                    }
                    Step::Commit => {
                        writer.commit().unwrap();
                        committed.clone_from(&model);
                    }
                    Step::Rollback => {
                        writer.rollback().unwrap();
                        model.clone_from(&committed);
                    }
                    Step::Compact => {
                        writer.compact().unwrap();
                        committed.clone_from(&model);
                    }
                    Step::Reopen => {
                        drop(writer);
                        model.clone_from(&committed);
                        writer = IndexWriter::open_in(&engine(), storage.clone())
                            .unwrap()
                            .with_segment_bytes(segment_bytes);
                    }
                }
                prop_assert_eq!(writer.len(), model.len());
                prop_assert_eq!(open(&storage).len(), committed.len());
            }
            check(&open(&storage), &committed);
        }
    }
}
