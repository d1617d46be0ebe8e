//! An index of which only what searches need is read: over HTTP, from a browser's file system.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use maxsim_core::plaid::{Bitmap, Segment};
use maxsim_core::{Engine, Error, Hit, Op, PlaidIndex, PlaidOptions, PlaidSearch, Result, Tokens};

use crate::codec::Encoded;
use crate::index::{Index, SearchHit, Selection};
use crate::search::hits;
use crate::store::container::{BLOCK, Blocks, Remote};
use crate::store::files::{RESIDUALS, SEGMENT, read_codec, segment_of};
use crate::store::manifest::{CURRENT, Manifest};
use crate::store::pack::{KIND, NAMES, read_names, tag};
use crate::store::source::PartSource;
use crate::store::{DeferredStorage, Source, Verify, corrupt, shared};

/// Reads that are under way at the same time.
const CONCURRENT: usize = 16;
/// Blocks between two that are needed which are rather read along than left out by another read.
const GAP: u64 = 1;
/// Blocks of one read at most.
const RUN: u64 = 32;

/// An index in one file that is opened without its residuals, which are most of it. A search reads those of its candidates, in blocks
/// of 64 KiB that it checks and keeps.
///
/// Opening reads centroids, codes, inverted lists, inverse norms, ids and metadata. Searches have the hits and scores that
/// [`Index::search`] has, on backends that find candidates alone
/// ([`candidates_only`](PlaidOptions::candidates_only)). How much a search reads depends on
/// [`PlaidOptions::kept`], the number of its candidates: a document of 60 tokens of 32 bytes lies in one block or two.
pub struct RemoteIndex {
    index: Index,
    segments: Vec<RemoteSegment>,
}

struct RemoteSegment {
    file: Remote<PartSource>,
    /// Number of the first document.
    first: usize,
    /// Residuals that were read, by block.
    blocks: Mutex<BTreeMap<u64, Arc<Vec<u8>>>>,
}

impl RemoteIndex {
    /// Opens what [`pack`](fn@crate::store::pack) wrote. `progress` is told bytes read and bytes to be read for this; an error of its own
    /// ends it.
    ///
    /// # Errors
    /// As [`Index::open`], the source's, and that of `progress`.
    pub async fn open(
        source: Arc<dyn Source>,
        progress: &mut dyn FnMut(u64, u64) -> Result<()>,
    ) -> Result<Self> {
        let what = source.name().to_owned();
        let pack = Remote::open(source.clone(), KIND).await?;
        let names = read_names(&pack.read(NAMES, 0..pack.length(NAMES)?).await?, &what)?;
        let missing =
            |name: &str| corrupt(&what, format!("the manifest speaks of {name}, which is not in it"));
        let place = |name: &str| names.iter().position(|n| n == name).map(tag).ok_or_else(|| missing(name));

        let storage = DeferredStorage::new(&what);
        let whole = async |name: &str| {
            let section = place(name)?;
            let bytes = pack.read(section, 0..pack.length(section)?).await?;
            storage.load(name, shared(&bytes));
            Ok::<_, Error>(bytes.len() as u64)
        };
        let mut done = whole(CURRENT).await?;
        let manifest = Manifest::read(&storage, CURRENT)?.ok_or_else(|| missing(CURRENT))?;

        // Headers first: they say how much there is to read.
        let mut segments = Vec::with_capacity(manifest.segments.len());
        let mut total = done + manifest.codec.fingerprint.length;
        let mut first = 0;
        for segment in &manifest.segments {
            let name = segment.file.name();
            let part = PartSource::new(source.clone(), &name, pack.range(place(&name)?)?);
            let file = Remote::open(part, SEGMENT).await?;
            if file.header().fingerprint() != segment.file.fingerprint {
                return Err(corrupt(
                    &format!("{what}/{name}"),
                    "it is not the file that the manifest speaks of",
                ));
            }
            total += file.range(RESIDUALS)?.start;
            segments.push(RemoteSegment { file, first, blocks: Mutex::default() });
            first += segment.documents;
        }
        progress(done, total)?;
        done += whole(&manifest.codec.name()).await?;
        progress(done, total)?;
        let codec = read_codec(&storage, &manifest.codec)?;
        let mut stored = Vec::with_capacity(segments.len());
        for (segment, reference) in segments.iter().zip(&manifest.segments) {
            let mut read = |bytes| {
                done += bytes;
                progress(done, total)
            };
            let file = segment.file.before(RESIDUALS, &mut read).await?;
            stored.push(Arc::new(segment_of(&file, reference, &codec, manifest.ids, false)?));
        }
        let index = Index::new(Arc::new(storage), Verify::default(), manifest, Arc::new(codec), stored);
        Ok(Self { index, segments })
    }

    /// Everything but searches. Its own searches are refused: they have no residuals.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// [`Index::search`], reading the candidates' residuals unless they were read before.
    ///
    /// # Errors
    /// As [`Index::search`], the source's, and `ERR_CORRUPT` for residuals that do not match their checksums.
    pub async fn search(
        &self,
        engine: &Engine,
        q: Tokens<'_>,
        options: PlaidOptions,
        selection: Selection<'_>,
    ) -> Result<Vec<Vec<SearchHit>>> {
        let index = &self.index;
        let subset = index.chosen(selection)?;
        let segments: Vec<&Segment> = index.segments().collect();
        let codec = index.codec().as_codec();
        let op = PlaidSearch {
            q: q.clone(),
            index: PlaidIndex::Host { codec: codec.clone(), segments },
            live: index.deleted_from(),
            subset: subset.as_ref(),
            options: PlaidOptions { candidates_only: true, ..options },
        };
        let candidates = hits(engine.run_async(&Op::PlaidSearch(op)).await?);
        let mut all: Vec<u32> = candidates.iter().flatten().map(|hit| hit.document).collect();
        all.sort_unstable();
        all.dedup();
        let gathered = self.gather(engine, &all).await?;

        let mut found = Vec::with_capacity(candidates.len());
        for (query, candidates) in candidates.iter().enumerate() {
            let place = |document: u32| all.partition_point(|&other| other < document);
            let own = candidates.iter().map(|hit| place(hit.document));
            // No more than are scored well anyway: nobody probes for them again.
            let subset = Bitmap::of(all.len(), own).expect("places among all candidates");
            let op = PlaidSearch {
                q: q.slice(query..query + 1),
                index: PlaidIndex::Host { codec: codec.clone(), segments: vec![&gathered] },
                live: None,
                subset: Some(&subset),
                options,
            };
            let best = hits(engine.run_async(&Op::PlaidSearch(op)).await?).remove(0);
            let hit = |hit: Hit| {
                let position = all[hit.document as usize] as usize;
                SearchHit { id: index.id(position), position, score: hit.score, winners: hit.winners }
            };
            found.push(best.into_iter().map(hit).collect());
        }
        Ok(found)
    }

    /// The documents at these positions, ascending, as a segment.
    async fn gather(&self, engine: &Engine, positions: &[u32]) -> Result<Segment> {
        let (codec, mut rest) = (self.index.codec(), positions);
        let (mut offsets, mut encoded) = (vec![0u32], Encoded::default());
        for (remote, segment) in self.segments.iter().zip(self.index.segments()) {
            let end = remote.first + segment.documents();
            let (here, later) = rest.split_at(rest.partition_point(|&position| (position as usize) < end));
            rest = later;
            let rows: Vec<_> =
                here.iter().map(|&position| segment.rows(position as usize - remote.first)).collect();
            let width = codec.residual_bytes();
            let bytes: Vec<_> = rows
                .iter()
                .map(|rows| rows.start as u64 * width as u64..rows.end as u64 * width as u64)
                .collect();
            remote.fetch(engine, &bytes).await?;
            let parts = segment.parts();
            for (rows, bytes) in rows.into_iter().zip(bytes) {
                encoded.codes.extend_from_slice(&parts.codes[rows.clone()]);
                encoded.inv_norms.extend_from_slice(&parts.inv_norms[rows]);
                remote.copy(bytes, &mut encoded.residuals);
                offsets.push(encoded.codes.len() as u32);
            }
        }
        codec.segment(offsets, encoded)
    }
}

impl RemoteSegment {
    fn blocks(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Arc<Vec<u8>>>> {
        // No code that can panic runs while this is held.
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the blocks that these bytes lie in, unless they were read before.
    async fn fetch(&self, engine: &Engine, bytes: &[std::ops::Range<u64>]) -> Result<()> {
        let runs = {
            let known = self.blocks();
            let block = BLOCK as u64;
            let needed = bytes.iter().filter(|bytes| !bytes.is_empty());
            let needed = needed.flat_map(|bytes| bytes.start / block..bytes.end.div_ceil(block));
            runs(needed.filter(|block| !known.contains_key(block)))
        };
        for runs in runs.chunks(CONCURRENT) {
            engine.cancel().check()?;
            let reads = runs.iter().map(|run| self.file.read_blocks(RESIDUALS, run.clone()));
            let read = all(reads.map(|read| Box::pin(read) as _).collect()).await?;
            let mut known = self.blocks();
            for (run, bytes) in runs.iter().zip(read) {
                known.extend(run.clone().zip(bytes.chunks(BLOCK).map(|block| Arc::new(block.to_vec()))));
            }
        }
        Ok(())
    }

    /// Appends bytes that were fetched.
    fn copy(&self, bytes: std::ops::Range<u64>, to: &mut Vec<u8>) {
        let (known, mut at) = (self.blocks(), bytes.start);
        while at < bytes.end {
            let (block, offset) = (at / BLOCK as u64, (at % BLOCK as u64) as usize);
            let from = &known[&block];
            let end = from.len().min(offset + (bytes.end - at) as usize);
            to.extend_from_slice(&from[offset..end]);
            at += (end - offset) as u64;
        }
    }
}

/// Ascending numbers of blocks as reads of neighbours.
fn runs(blocks: impl Iterator<Item = u64>) -> Vec<Blocks> {
    let mut runs: Vec<Blocks> = Vec::new();
    for block in blocks {
        match runs.last_mut() {
            Some(run) if block <= run.end + GAP && block < run.start + RUN => {
                run.end = run.end.max(block + 1)
            }
            _ => runs.push(block..block + 1),
        }
    }
    runs
}

type Reading<'a> = std::pin::Pin<Box<dyn Future<Output = Result<Vec<u8>>> + 'a>>;

/// Awaits all reads at the same time; the first error ends them.
async fn all(mut reads: Vec<Reading<'_>>) -> Result<Vec<Vec<u8>>> {
    let mut done: Vec<Option<Vec<u8>>> = vec![None; reads.len()];
    poll_fn(|context| {
        for (read, done) in reads.iter_mut().zip(&mut done).filter(|(_, done)| done.is_none()) {
            match read.as_mut().poll(context) {
                Poll::Ready(Ok(bytes)) => *done = Some(bytes),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
        }
        if done.iter().all(Option::is_some) { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await?;
    Ok(done.into_iter().flatten().collect())
}
