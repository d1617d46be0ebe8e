//! Building an index of any size in bounded memory, in two passes over its documents.
//!
//! The first pass takes a sample, on which the codec is trained; the second encodes. Whenever a segment is full it is written, and
//! the build's own manifest is put in place behind it: a build that was killed goes on behind the last full segment. Readers see the
//! index when it is finished, and an index it replaces until then.
//!
//! # Memory
//! First pass and training: the sample, at most [`MAX_SAMPLE`](crate::MAX_SAMPLE) tokens of `2·d` bytes (512 MB at `d = 128`), and
//! what [`train`](crate::train) states. Second pass: about three times
//! [`segment_bytes`](BuildOptions::segment_bytes) (256 MiB by default), and one batch as single precision. None of this grows with
//! the number of documents.

use std::sync::Arc;

use maxsim_core::{Engine, Error, Result, TensorRef, Tokens, TokensBuf};

use crate::encoder::EncoderRecord;
use crate::ids::{DocumentId, IdKind};
use crate::index::Index;
use crate::metadata::Row;
use crate::store::checksum::crc32c;
use crate::store::manifest::{BUILDING, BuildState, CURRENT, Manifest};
use crate::store::{Guard, Storage, Verify, wire};
use crate::times::{BuildTimes, timed};
use crate::train::{MAX_SAMPLE, Sample, TrainOptions, train_timed};
use crate::writer::{CreateOptions, IndexWriter, SEGMENT_BYTES, lock};

/// Documents for [`build`], which are asked for twice and have to be the same both times.
pub trait DocumentSource {
    /// The documents from number `first` on, in order.
    ///
    /// # Errors
    /// Its own; they end the build, as those of the batches do.
    fn pass(&mut self, first: u64) -> Result<Box<dyn Iterator<Item = Result<Batch>> + '_>>;
}

/// Some documents.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Token vectors.
    pub documents: TokensBuf,
    /// An id per document; `None` numbers them from 0.
    pub ids: Option<Vec<DocumentId>>,
    /// A row per document, or none at all.
    pub metadata: Vec<Row>,
}

/// How to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildOptions {
    /// Kind of the ids.
    pub ids: IdKind,
    /// Replace an index that is there. Otherwise that is an error.
    pub replace: bool,
    /// How to train the codec.
    pub train: TrainOptions,
    /// Bytes of codes, residuals and norms at which a segment is full.
    pub segment_bytes: usize,
    /// What made vectors of the documents' texts: the index remembers it. `None` where that is not known.
    pub encoder: Option<EncoderRecord>,
    /// What tells this source from others, such as names and times of files. A build that was not finished is gone on with if
    /// this and the options are the same; otherwise it is begun anew.
    pub source: String,
}

impl Default for BuildOptions {
    fn default() -> Self {
        let train = TrainOptions::default();
        Self {
            ids: IdKind::Number,
            replace: false,
            train,
            segment_bytes: SEGMENT_BYTES,
            encoder: None,
            source: String::new(),
        }
    }
}

impl BuildOptions {
    fn fingerprint(&self) -> u32 {
        let TrainOptions { nbits, centroids, iterations, points_per_centroid, seed } = self.train;
        let mut record = wire::Writer::default();
        record.u32(u32::from(self.ids == IdKind::Text));
        record.u32(nbits);
        record.size(centroids.unwrap_or(0));
        record.size(iterations);
        record.size(points_per_centroid);
        record.u64(seed);
        record.text(&self.source);
        if let Some(encoder) = &self.encoder {
            encoder.write(&mut record);
        }
        crc32c(&record.finish())
    }

    /// Tokens that training can use.
    fn sample(&self) -> usize {
        // A twentieth of the sample is held out from k-means.
        let needed =
            |centroids: usize| centroids.saturating_mul(self.train.points_per_centroid) / 19 * 20 + 20;
        self.train.centroids.map_or(MAX_SAMPLE, needed)
    }
}

/// How far a build is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// First pass: what has been seen.
    Sampling {
        /// Documents.
        documents: u64,
        /// Tokens.
        tokens: u64,
    },
    /// Training: assignments of tokens to centroids.
    Training {
        /// Made.
        done: u64,
        /// To be made.
        total: u64,
    },
    /// Second pass: documents.
    Encoding {
        /// Encoded.
        done: u64,
        /// To be encoded.
        total: u64,
    },
}

/// A build, step by step: for those whose documents come on their own time. [`build`] takes the steps for a [`DocumentSource`].
///
/// Show it all documents ([`sample`](Self::sample)), [`train`](Self::train), then [`add`](Self::add) the same ones again and
/// [`finish`](Self::finish). A build that goes on where another was killed [`is_trained`](Self::is_trained) from the beginning, and
/// wants the documents from number [`done`](Self::done) on.
pub struct Builder {
    engine: Engine,
    storage: Arc<dyn Storage>,
    options: BuildOptions,
    phase: Phase,
    times: BuildTimes,
}

enum Phase {
    Sampling {
        guard: Guard,
        sample: Option<Box<Sample>>,
        documents: u64,
    },
    Encoding {
        writer: Box<IndexWriter>,
        state: BuildState,
        done: u64,
        tokens: u64,
    },
    /// Training failed; what was sampled is gone.
    Failed,
}

impl Builder {
    /// Begins a build, or goes on with one.
    ///
    /// # Errors
    /// `ERR_VALUE` if there is an index and it is not to be replaced, `ERR_LOCKED` if there is another writer, `ERR_IO`.
    pub fn new(engine: &Engine, storage: impl Storage + 'static, options: BuildOptions) -> Result<Self> {
        let storage: Arc<dyn Storage> = Arc::new(storage);
        let guard = lock(&*storage)?;
        crate::writer::free_numbers(&*storage, options.replace)?;
        let phase = match resumable(&*storage, &options)? {
            None => Phase::Sampling { guard, sample: None, documents: 0 },
            Some((manifest, state)) => {
                let tokens = manifest.segments.iter().map(|s| s.tokens as u64).sum();
                let index = Index::from_manifest(storage.clone(), Verify::Structure, manifest, None)?;
                let writer = IndexWriter::over(Some(engine), guard, &index, BUILDING);
                let writer = Box::new(writer.with_segment_bytes(options.segment_bytes));
                Phase::Encoding { writer, done: state.done, tokens, state }
            }
        };
        Ok(Self { engine: engine.clone(), storage, options, phase, times: BuildTimes::default() })
    }

    /// Computes with another engine from now on, for instance with one that is stopped by another `Cancel`.
    pub fn set_engine(&mut self, engine: &Engine) {
        self.engine = engine.clone();
        if let Phase::Encoding { writer, .. } = &mut self.phase {
            writer.set_engine(engine);
        }
    }

    /// Whether the first pass is over.
    pub fn is_trained(&self) -> bool {
        matches!(self.phase, Phase::Encoding { .. })
    }

    /// Documents that were added, those of an earlier process included.
    pub fn done(&self) -> u64 {
        match self.phase {
            Phase::Encoding { done, .. } => done,
            _ => 0,
        }
    }

    /// Documents seen in the first pass.
    pub fn documents(&self) -> u64 {
        match &self.phase {
            Phase::Sampling { documents, .. } => *documents,
            Phase::Encoding { state, .. } => state.documents,
            Phase::Failed => 0,
        }
    }

    /// Tokens seen in the first pass.
    pub fn tokens(&self) -> u64 {
        match &self.phase {
            Phase::Sampling { sample, .. } => sample.as_ref().map_or(0, |sample| sample.seen()),
            Phase::Encoding { state, .. } => state.tokens,
            Phase::Failed => 0,
        }
    }

    /// Shows documents for the first time.
    ///
    /// # Errors
    /// `ERR_SHAPE` for another dimension, `ERR_DTYPE`, `ERR_NON_FINITE`, `ERR_VALUE` after [`train`](Self::train).
    pub fn sample(&mut self, documents: &Tokens<'_>) -> Result<()> {
        self.engine.cancel().check()?;
        let capacity = self.options.sample();
        let Phase::Sampling { sample, documents: count, .. } = &mut self.phase else {
            return Err(Error::value("sample", "a build that is not trained yet", "one that is"));
        };
        let dim = documents.dim();
        let sample = match sample {
            Some(sample) => sample,
            None => sample.insert(Box::new(Sample::new(dim, capacity, self.options.train.seed)?)),
        };
        let rows: Vec<usize> = documents.sequences().kept_rows().collect();
        for rows in rows.chunks(SAMPLE_TOKENS) {
            let mut add = || {
                let values = documents.vectors(rows);
                let x = TensorRef::new(&values, &[rows.len(), dim])?;
                sample.add(&x).map_err(|error| error.map_argument(|_| "documents".into()))
            };
            timed(&mut self.times.sampling, &mut add)?;
        }
        *count += documents.count() as u64;
        Ok(())
    }

    /// Ends the first pass. Afterwards the codec is on the disk: a build that is killed need not train again.
    ///
    /// # Errors
    /// As [`train`](crate::train), `ERR_IO`.
    pub fn train(&mut self, progress: &mut dyn FnMut(Progress)) -> Result<()> {
        let Phase::Sampling { guard, sample, documents } = std::mem::replace(&mut self.phase, Phase::Failed)
        else {
            return Err(Error::value("train", "a build that is not trained yet", "one that is"));
        };
        let empty = || Error::value("documents", "at least one token to train on", "none");
        let sample = sample.filter(|sample| !sample.is_empty()).ok_or_else(empty)?;
        let tokens = sample.seen();
        let mut told = |done, total| progress(Progress::Training { done, total });
        let codec = train_timed(&self.engine, &sample, &self.options.train, &mut told, &mut self.times)?;
        drop(sample);
        let state = BuildState { documents, tokens, done: 0, options: self.options.fingerprint() };
        let create = CreateOptions { ids: self.options.ids, replace: self.options.replace };
        let writer = IndexWriter::begin(&self.engine, self.storage.clone(), guard, codec, create, BUILDING)?;
        let mut writer = Box::new(writer.with_segment_bytes(self.options.segment_bytes));
        writer.set_encoder(self.options.encoder.clone());
        writer.checkpoint(state.clone())?;
        self.phase = Phase::Encoding { writer, state, done: 0, tokens: 0 };
        Ok(())
    }

    /// Shows documents for the second time: all, or on error none.
    ///
    /// # Errors
    /// As [`IndexWriter::add`], `ERR_VALUE` before [`train`](Self::train) or for more documents than in the first pass.
    pub fn add(
        &mut self,
        documents: &Tokens<'_>,
        ids: Option<&[DocumentId]>,
        metadata: &[Row],
    ) -> Result<()> {
        let Phase::Encoding { writer, state, done, tokens } = &mut self.phase else {
            return Err(Error::value("add", "a build that is trained", "one that is not"));
        };
        let (count, kept) = (documents.count() as u64, documents.kept());
        if *done + count > state.documents || *tokens + kept as u64 > state.tokens {
            return Err(changed(state, *done + count, *tokens + kept as u64));
        }
        if writer.is_full(kept) {
            writer.checkpoint(state.clone())?;
        }
        writer.add(documents, ids, metadata)?;
        *done += count;
        *tokens += kept as u64;
        Ok(())
    }

    /// Makes the index visible and durable.
    ///
    /// # Errors
    /// `ERR_VALUE` if there were fewer documents than in the first pass, `ERR_IO`.
    pub fn finish(mut self) -> Result<Index> {
        self.finish_timed().map(|(index, _)| index)
    }

    fn finish_timed(&mut self) -> Result<(Index, BuildTimes)> {
        let Phase::Encoding { writer, state, done, tokens } = &mut self.phase else {
            return Err(Error::value("finish", "a build that is trained", "one that is not"));
        };
        if (*done, *tokens) != (state.documents, state.tokens) {
            return Err(changed(state, *done, *tokens));
        }
        writer.finish_build()?;
        let index = writer.index()?;
        Ok((index, self.times()))
    }

    /// Where the time went so far.
    pub fn times(&mut self) -> BuildTimes {
        match &mut self.phase {
            Phase::Encoding { writer, .. } => {
                let BuildTimes { converting, assigning, packing, writing, .. } = *writer.times();
                BuildTimes { converting, assigning, packing, writing, ..self.times }
            }
            _ => self.times,
        }
    }
}

/// Tokens taken from a batch at a time in the first pass.
const SAMPLE_TOKENS: usize = 1 << 15;

fn changed(state: &BuildState, documents: u64, tokens: u64) -> Error {
    let expected = format!("{} documents of {} tokens, as in the first pass", state.documents, state.tokens);
    Error::value("documents", expected, format!("{documents} of {tokens}"))
}

/// The build that these options go on with. Another one is overwritten later.
fn resumable(storage: &dyn Storage, options: &BuildOptions) -> Result<Option<(Manifest, BuildState)>> {
    let Ok(found) = Manifest::read(storage, BUILDING) else { return Ok(None) };
    let Some(manifest) = found else { return Ok(None) };
    let current = Manifest::read(storage, CURRENT).ok().flatten();
    // The build of the index that is there: only its manifest could not be removed.
    let finished = current.is_some_and(|current| current.codec == manifest.codec);
    match manifest.build.clone() {
        Some(state) if !finished && state.options == options.fingerprint() => Ok(Some((manifest, state))),
        _ => Ok(None),
    }
}

/// Builds an index, going on with a build of the same options and source that was not finished. `engine`'s `Cancel` stops it, to be
/// gone on with later.
///
/// # Errors
/// Those of [`Builder`] and of the source.
pub fn build(
    engine: &Engine,
    storage: impl Storage + 'static,
    source: &mut dyn DocumentSource,
    options: BuildOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<Index> {
    build_timed(engine, storage, source, options, progress).map(|(index, _)| index)
}

/// [`build`], and where the time went.
///
/// # Errors
/// As [`build`].
pub fn build_timed(
    engine: &Engine,
    storage: impl Storage + 'static,
    source: &mut dyn DocumentSource,
    options: BuildOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<(Index, BuildTimes)> {
    let mut builder = Builder::new(engine, storage, options)?;
    if !builder.is_trained() {
        for batch in source.pass(0)? {
            builder.sample(&batch?.documents.as_tokens())?;
            progress(Progress::Sampling { documents: builder.documents(), tokens: builder.tokens() });
        }
        builder.train(progress)?;
    }
    for batch in source.pass(builder.done())? {
        let Batch { documents, ids, metadata } = batch?;
        builder.add(&documents.as_tokens(), ids.as_deref(), &metadata)?;
        progress(Progress::Encoding { done: builder.done(), total: builder.documents() });
    }
    builder.finish_timed()
}
