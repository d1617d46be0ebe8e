//! Building from documents that are gone through twice: the same index whatever came in between, in memory that does not grow.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use common::{DIM, contents, engine, random, row, vectors};
use maxsim_core::{Cancel, Error, ErrorCode, Result, Tokens};
use maxsim_plaid::store::{DirectoryStorage, MemoryStorage, Storage, Verify};
use maxsim_plaid::{
    Batch, BuildOptions, Builder, DocumentId, DocumentSource, IdKind, Index, IndexWriter, Progress,
    TrainOptions, build,
};
use rand::RngExt;

/// Counts what is allocated, so that a test can say what a build takes.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to `System` unchanged; counting touches atomics only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(NOW.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Tests of this file take turns, so that one does not count what another allocates.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> std::sync::MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Documents 0, 1, 2, … in batches.
struct Generated {
    documents: u64,
    batch: u64,
    texts: bool,
    /// Fails at this document of the second pass.
    fails_at: Option<u64>,
    passes: Vec<u64>,
}

impl Generated {
    fn new(documents: u64, batch: u64) -> Self {
        Self { documents, batch, texts: false, fails_at: None, passes: Vec::new() }
    }
}

fn id(name: u64, texts: bool) -> DocumentId {
    if texts { format!("document {name}").into() } else { DocumentId::Number(3 * name) }
}

impl DocumentSource for Generated {
    fn pass(&mut self, first: u64) -> Result<Box<dyn Iterator<Item = Result<Batch>> + '_>> {
        let second = !self.passes.is_empty() || first > 0;
        self.passes.push(first);
        let batches = (first..self.documents).step_by(self.batch as usize).map(move |from| {
            let names = from..(from + self.batch).min(self.documents);
            if second && self.fails_at.is_some_and(|at| names.contains(&at)) {
                return Err(Error::io("source", "the network is gone"));
            }
            let mut data = Vec::new();
            let mut offsets = vec![0u32];
            for name in names.clone() {
                data.extend(vectors(name).iter().map(|x| x * 3.0));
                offsets.push((data.len() / DIM) as u32);
            }
            Ok(Batch {
                documents: Tokens::packed(&data, DIM, &offsets)?.to_buf(),
                ids: Some(names.clone().map(|name| id(name, self.texts)).collect()),
                metadata: names.map(row).collect(),
            })
        });
        Ok(Box::new(batches))
    }
}

fn options() -> BuildOptions {
    BuildOptions {
        segment_bytes: 3000,
        train: TrainOptions { centroids: Some(16), ..TrainOptions::default() },
        ..BuildOptions::default()
    }
}

fn silent() -> impl FnMut(Progress) {
    |_| ()
}

#[test]
fn batches_and_segments_do_not_show() {
    let _turn = turn();
    let built = |batch: u64, segment_bytes: usize| {
        let options = BuildOptions { segment_bytes, ..options() };
        let storage = MemoryStorage::new();
        let index =
            build(&engine(), storage.clone(), &mut Generated::new(500, batch), options, &mut silent())
                .unwrap();
        index.verify().unwrap();
        assert_eq!(storage.names().unwrap().len(), index.info().segments + 2);
        (index.info().segments, contents(&index))
    };
    let (one, expected) = built(500, 1 << 20);
    assert_eq!((one, expected.documents.len()), (1, 500));
    let ids: Vec<_> = expected.documents.iter().map(|(id, _)| id.clone()).collect();
    assert_eq!(ids, (0..500).map(|name| id(name, false)).collect::<Vec<_>>());
    for (batch, segment_bytes) in [(1, 3000), (7, 3000), (64, 100)] {
        let (segments, found) = built(batch, segment_bytes);
        assert!(segments > 5);
        assert_eq!(found, expected);
    }
}

#[test]
fn progress_is_told_and_documents_can_be_added_later() {
    let _turn = turn();
    let storage = MemoryStorage::new();
    let mut told = Vec::new();
    let options = BuildOptions { ids: IdKind::Text, ..options() };
    let mut source = Generated { texts: true, ..Generated::new(100, 9) };
    let index =
        build(&engine(), storage.clone(), &mut source, options, &mut |progress| told.push(progress)).unwrap();
    assert_eq!(source.passes, [0, 0]);
    let tokens = index.info().tokens as u64;
    assert!(told.contains(&Progress::Sampling { documents: 100, tokens }));
    assert_eq!(told.last(), Some(&Progress::Encoding { done: 100, total: 100 }));
    assert!(told.iter().any(|p| matches!(p, Progress::Training { done, total } if done == total)));
    let mut writer = IndexWriter::open_in(&engine(), storage.clone()).unwrap();
    common::add_as(&mut writer, &["new".into()], &[1000]).unwrap();
    writer.commit().unwrap();
    assert_eq!(Index::open_in(storage, Verify::All).unwrap().len(), 101);
}

#[test]
fn a_build_that_ended_early_is_gone_on_with() {
    let _turn = turn();
    let expected = {
        let index =
            build(&engine(), MemoryStorage::new(), &mut Generated::new(400, 10), options(), &mut silent());
        contents(&index.unwrap())
    };
    let storage = MemoryStorage::new();
    let attempt = |fails_at: Option<u64>, options: BuildOptions| {
        let mut source = Generated { fails_at, ..Generated::new(400, 10) };
        let result = build(&engine(), storage.clone(), &mut source, options, &mut silent());
        (result, source.passes)
    };
    let (result, passes) = attempt(Some(250), options());
    assert_eq!((result.unwrap_err().code(), passes), (ErrorCode::Io, vec![0, 0]));
    // Nobody sees it.
    let error = Index::open_in(storage.clone(), Verify::All).unwrap_err();
    assert!(error.to_string().contains("a build of it was not finished"), "{error}");
    assert!(IndexWriter::open_in(&engine(), storage.clone()).is_err());
    let (result, passes) = attempt(Some(350), options());
    assert_eq!(result.unwrap_err().code(), ErrorCode::Io);
    assert_eq!(passes.len(), 1, "the codec is kept");
    assert!((150..=250).contains(&passes[0]), "{passes:?}");
    let (result, passes) = attempt(None, options());
    assert!((250..=350).contains(&passes[0]), "{passes:?}");
    let index = result.unwrap();
    index.verify().unwrap();
    assert_eq!(contents(&index), expected);
    assert_eq!(storage.names().unwrap().len(), index.info().segments + 2);
    let (result, _) = attempt(None, options());
    assert_eq!(result.unwrap_err().argument(), Some("path"), "there is one now");
}

#[test]
fn other_options_or_another_source_begin_anew() {
    let _turn = turn();
    let storage = MemoryStorage::new();
    let attempt = |fails_at: Option<u64>, options: BuildOptions| {
        let mut source = Generated { fails_at, ..Generated::new(200, 10) };
        let result = build(&engine(), storage.clone(), &mut source, options, &mut silent());
        (result.map(|index| index.info()), source.passes)
    };
    assert!(attempt(Some(150), options()).0.is_err());
    let two = TrainOptions { nbits: 2, ..options().train };
    let (result, passes) = attempt(Some(150), BuildOptions { train: two, ..options() });
    assert!(result.is_err());
    assert_eq!(passes, [0, 0]);
    let (result, passes) = attempt(None, BuildOptions { train: two, source: "other".into(), ..options() });
    assert_eq!((result.unwrap().nbits, passes), (2, vec![0, 0]));
    // Replacing: the old index is there until the new one is.
    let replace = || BuildOptions { replace: true, ..options() };
    assert!(attempt(Some(150), replace()).0.is_err());
    let old = Index::open_in(storage.clone(), Verify::All).unwrap();
    old.verify().unwrap();
    assert_eq!((old.info().nbits, old.len()), (2, 200));
    // So it is while it is written to.
    let mut writer = IndexWriter::open_in(&engine(), storage.clone()).unwrap();
    common::add(&mut writer, &[(5000, 1)]).unwrap();
    writer.commit().unwrap();
    drop(writer);
    let (result, passes) = attempt(None, replace());
    assert_eq!((result.unwrap().nbits, passes.len()), (4, 1));
    let new = old.refresh().unwrap();
    new.verify().unwrap();
    assert!(new.len() == 200 && new.generation() > old.generation());
    assert_eq!(storage.names().unwrap().len(), new.info().segments + 2);
}

#[test]
fn a_build_is_stopped_and_gone_on_with() {
    let _turn = turn();
    let storage = MemoryStorage::new();
    let cancel = Cancel::new();
    let stopped = engine().with_cancel(cancel.clone());
    let mut stop = |progress| {
        if matches!(progress, Progress::Encoding { done, .. } if done >= 100) {
            cancel.cancel();
        }
    };
    let error =
        build(&stopped, storage.clone(), &mut Generated::new(300, 10), options(), &mut stop).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Aborted);
    let mut source = Generated::new(300, 10);
    let index = build(&engine(), storage, &mut source, options(), &mut silent()).unwrap();
    assert!(source.passes.len() == 1 && source.passes[0] > 0);
    assert_eq!(index.len(), 300);
}

#[test]
fn a_source_that_changes_between_its_passes_is_refused() {
    let _turn = turn();
    for (second, expected) in [(90u64, "90 of "), (110, "110 of ")] {
        let mut builder = Builder::new(&engine(), MemoryStorage::new(), options()).unwrap();
        let show = |builder: &mut Builder, documents: u64, add: bool| -> Result<()> {
            let mut source = Generated::new(documents, 10);
            for batch in source.pass(0)? {
                let Batch { documents, ids, metadata } = batch?;
                if add {
                    builder.add(&documents.as_tokens(), ids.as_deref(), &metadata)?;
                } else {
                    builder.sample(&documents.as_tokens())?;
                }
            }
            Ok(())
        };
        assert_eq!(show(&mut builder, 1, true).unwrap_err().argument(), Some("add"));
        show(&mut builder, 100, false).unwrap();
        builder.train(&mut silent()).unwrap();
        assert_eq!(show(&mut builder, 1, false).unwrap_err().argument(), Some("sample"));
        let error = show(&mut builder, second, true).and_then(|()| builder.finish().map(drop)).unwrap_err();
        assert_eq!(error.argument(), Some("documents"));
        assert!(error.to_string().contains(expected), "{error}");
    }
    let mut empty = Builder::new(&engine(), MemoryStorage::new(), options()).unwrap();
    assert_eq!(empty.train(&mut silent()).unwrap_err().argument(), Some("documents"));
}

/// Documents that nobody keeps: made when they are asked for.
struct Endless(u64);

impl DocumentSource for Endless {
    fn pass(&mut self, first: u64) -> Result<Box<dyn Iterator<Item = Result<Batch>> + '_>> {
        const BATCH: u64 = 100;
        const TOKENS: usize = 20;
        Ok(Box::new((first / BATCH..self.0 / BATCH).map(|batch| {
            let mut random = random(batch);
            let values: Vec<f32> =
                (0..BATCH as usize * TOKENS * DIM).map(|_| random.random_range(-1.0..1.0)).collect();
            let documents = Tokens::padded(&values, &[BATCH as usize, TOKENS, DIM])?.to_buf();
            Ok(Batch { documents, ids: None, metadata: Vec::new() })
        })))
    }
}

#[test]
fn memory_does_not_grow_with_the_corpus() {
    let _turn = turn();
    let directory = tempfile::tempdir().unwrap();
    // On one thread: how much of the packing is under way at once would be a matter of luck on several.
    let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let peak = |documents: u64| {
        let storage = DirectoryStorage::new(directory.path().join(documents.to_string()));
        let train = TrainOptions { centroids: Some(64), ..TrainOptions::default() };
        let options = BuildOptions { train, segment_bytes: 1 << 18, ..BuildOptions::default() };
        let before = NOW.load(Relaxed);
        PEAK.store(before, Relaxed);
        let build = || build(&engine(), storage, &mut Endless(documents), options, &mut silent());
        let index = alone.install(build).unwrap();
        assert_eq!((index.len() as u64, index.info().tokens as u64), (documents, 20 * documents));
        PEAK.load(Relaxed) - before
    };
    // Enough for the sample and a segment to be full.
    let (small, large) = (peak(3000), peak(30_000));
    println!("peak: {small} bytes for 60,000 tokens, {large} for 600,000");
    // What is left that grows: the list of segments, and where a map of each begins.
    assert!(large < small + small / 10, "{small} bytes for 60,000 tokens, {large} for 600,000");
}
