//! Building and searching the same documents with maxsim and with next-plaid, one after the other in one process.
//!
//! `cargo run --release [--features openblas] -- [documents] [queries]` prints one JSON object: seconds to build, milliseconds
//! per query (alone, and in a batch), processor seconds of all threads for the same (which say more than time where others use
//! the machine too), recall@10 against exact scores of the raw vectors and against the same index scored whole, and whether
//! each program finds the same in the other's directory.
//!
//! Documents: 60 to 180 tokens around 4,000 shared topics, `d = 128`; queries: 32 noisy tokens of a document. The same
//! distribution as the fast-plaid measurement in PEERS.

use std::collections::HashSet;
use std::time::Instant;

use maxsim::plaid::exchange::{self, Directory};
use maxsim::plaid::{IndexCodec, Sample, Searched, Segment, TrainOptions, train};
use maxsim::{CorpusOptions, Engine, PlaidOptions, SearchOptions, TensorRef, Tokens};
use ndarray::Array2;
use next_plaid::{IndexConfig, MmapIndex, SearchParameters};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use serde_json::{Value, json};

const DIM: usize = 128;
const TOPICS: usize = 4000;
const QUERY: usize = 32;

fn normalize(x: &mut [f32]) {
    let norm = x.iter().map(|v| v * v).sum::<f32>().sqrt();
    x.iter_mut().for_each(|v| *v /= norm);
}

fn noisy(from: &[f32], noise: f32, rng: &mut ChaCha8Rng, to: &mut Vec<f32>) {
    let start = to.len();
    let scale = noise * 4.0 / (DIM as f32).sqrt();
    to.extend(from.iter().map(|x| {
        let e: f32 = StandardNormal.sample(rng);
        x + scale * e
    }));
    normalize(&mut to[start..]);
}

struct Data {
    vectors: Vec<f32>,
    offsets: Vec<u32>,
    queries: Vec<f32>,
}

fn generate(documents: usize, queries: usize) -> Data {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut topics = Vec::new();
    for _ in 0..TOPICS {
        noisy(&[0.0; DIM], 1.0, &mut rng, &mut topics);
    }
    let (mut vectors, mut offsets) = (Vec::new(), vec![0u32]);
    for _ in 0..documents {
        for _ in 0..rng.random_range(60..=180) {
            let t = rng.random_range(0..TOPICS);
            noisy(&topics[t * DIM..(t + 1) * DIM], 0.35, &mut rng, &mut vectors);
        }
        offsets.push((vectors.len() / DIM) as u32);
    }
    let mut asked = Vec::new();
    for _ in 0..queries {
        let d = rng.random_range(0..documents);
        for _ in 0..QUERY {
            let t = rng.random_range(offsets[d]..offsets[d + 1]) as usize;
            noisy(&vectors[t * DIM..(t + 1) * DIM], 0.25, &mut rng, &mut asked);
        }
    }
    Data { vectors, offsets, queries: asked }
}

/// Processor seconds this process has used, all threads together (Linux; 0 elsewhere).
fn processor() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 14 and 15, counted behind the name in parentheses, in hundredths.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Median milliseconds and mean processor milliseconds of `work`, called `times` times after one call that does not count.
fn measure(times: usize, mut work: impl FnMut()) -> (f64, f64) {
    work();
    let before = processor();
    let mut all: Vec<f64> = (0..times)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    let processor = (processor() - before) * 1e3 / times as f64;
    all.sort_by(f64::total_cmp);
    (all[times / 2], processor)
}

fn recall(found: &[Vec<u32>], exact: &[Vec<u32>]) -> f64 {
    let common = found.iter().zip(exact).map(|(f, e)| {
        let e: HashSet<_> = e.iter().collect();
        f.iter().filter(|d| e.contains(d)).count()
    });
    common.sum::<usize>() as f64 / exact.iter().map(Vec::len).sum::<usize>() as f64
}

fn build(engine: &Engine, data: &Data, nbits: u32) -> (IndexCodec, Segment, [f64; 2]) {
    let tokens = data.vectors.len() / DIM;
    let (start, before) = (Instant::now(), processor());
    let options = TrainOptions { nbits, ..TrainOptions::default() };
    let mut sample = Sample::new(DIM, tokens, options.seed).unwrap();
    sample.add(&TensorRef::new(&data.vectors, &[tokens, DIM]).unwrap()).unwrap();
    let sampled = start.elapsed().as_secs_f64();
    let codec = train(engine, &sample, &options, &mut |_, _| ()).unwrap();
    let trained = start.elapsed().as_secs_f64();
    let encoded = codec.encode(engine, &TensorRef::new(&data.vectors, &[tokens, DIM]).unwrap()).unwrap();
    let segment = codec.segment(data.offsets.clone(), encoded).unwrap();
    let seconds = start.elapsed().as_secs_f64();
    eprintln!(
        "maxsim: {seconds:.1} s (sample {sampled:.1}, train {:.1}, encode {:.1}), K = {}",
        trained - sampled,
        seconds - trained,
        codec.count()
    );
    (codec, segment, [seconds, processor() - before])
}

fn search(engine: &Engine, codec: &IndexCodec, segments: &[&Segment], q: Tokens<'_>) -> Vec<Vec<u32>> {
    let hits = Searched::all(codec, segments).search(engine, q, PlaidOptions::top_k(10)).unwrap();
    hits.iter().map(|hits| hits.iter().map(|hit| hit.document).collect()).collect()
}

fn peer_ids(results: Vec<next_plaid::QueryResult>) -> Vec<Vec<u32>> {
    results.into_iter().map(|r| r.passage_ids.into_iter().map(|id| id as u32).collect()).collect()
}

fn main() {
    let mut args = std::env::args().skip(1).map(|a| a.parse::<usize>().expect("a number"));
    let (documents, queries) = (args.next().unwrap_or(10_000), args.next().unwrap_or(64));
    let data = generate(documents, queries);
    let engine = maxsim::engine().unwrap();
    let q = |range: std::ops::Range<usize>| {
        let values = &data.queries[range.start * QUERY * DIM..range.end * QUERY * DIM];
        Tokens::padded(values, &[range.len(), QUERY, DIM]).unwrap()
    };
    let corpus = engine
        .corpus(Tokens::packed(&data.vectors, DIM, &data.offsets).unwrap(), CorpusOptions::default())
        .unwrap();
    let top = corpus.search(q(0..queries), SearchOptions::top_k(10)).unwrap();
    let exact: Vec<Vec<u32>> = (0..queries).map(|i| top.hits(i).map(|hit| hit.0).collect()).collect();
    drop(corpus);

    let work = tempfile::tempdir().unwrap();
    let mut report = json!({
        "documents": documents, "tokens": data.vectors.len() / DIM, "dim": DIM, "queries": queries,
        "threads": engine.info().threads, "device": engine.info().device, "level": engine.info().level,
        "openblas": cfg!(feature = "openblas"),
    });
    let peer_documents: Vec<Array2<f32>> = data
        .offsets
        .windows(2)
        .map(|w| {
            let rows = &data.vectors[w[0] as usize * DIM..w[1] as usize * DIM];
            Array2::from_shape_vec(((w[1] - w[0]) as usize, DIM), rows.to_vec()).unwrap()
        })
        .collect();
    let peer_queries: Vec<Array2<f32>> = data
        .queries
        .chunks(QUERY * DIM)
        .map(|q| Array2::from_shape_vec((QUERY, DIM), q.to_vec()).unwrap())
        .collect();
    for nbits in [4u32, 2] {
        let (codec, segment, seconds) = build(&engine, &data, nbits);
        let segments = [&segment];
        let found = search(&engine, &codec, &segments, q(0..queries));
        let whole = Searched::all(&codec, &segments)
            .search(&engine, q(0..queries), PlaidOptions { exact: true, ..PlaidOptions::top_k(10) })
            .unwrap();
        let whole: Vec<Vec<u32>> =
            whole.iter().map(|hits| hits.iter().map(|hit| hit.document).collect()).collect();
        let mut i = 0;
        let one = measure(31, || {
            search(&engine, &codec, &segments, q(i % queries..i % queries + 1));
            i += 1;
        });
        let batch = measure(5, || drop(search(&engine, &codec, &segments, q(0..queries))));
        let ours = json!({
            "build_s": seconds[0], "build_processor_s": seconds[1], "one_ms": one.0, "one_processor_ms": one.1,
            "batch_ms": batch.0 / queries as f64, "batch_processor_ms": batch.1 / queries as f64,
            "recall": recall(&found, &exact), "recall_of_whole_index": recall(&found, &whole),
            "bytes_per_token": segment.bytes() as f64 / segment.tokens() as f64,
        });
        eprintln!("{nbits} bit maxsim {ours}");

        let path = work.path().join(format!("peer{nbits}"));
        let path = path.to_str().unwrap();
        let (start, before) = (Instant::now(), processor());
        let config = IndexConfig { nbits: nbits as usize, ..IndexConfig::default() };
        let index = MmapIndex::create_with_kmeans(&peer_documents, path, &config).unwrap();
        let seconds = [start.elapsed().as_secs_f64(), processor() - before];
        let parameters = SearchParameters { centroid_score_threshold: None, ..SearchParameters::default() };
        let mut i = 0;
        let one = measure(31, || {
            index.search(&peer_queries[i % queries], &parameters, None).unwrap();
            i += 1;
        });
        let batch = measure(5, || drop(index.search_batch(&peer_queries, &parameters, true, None).unwrap()));
        let peer_found = peer_ids(index.search_batch(&peer_queries, &parameters, true, None).unwrap());
        let peer = json!({
            "build_s": seconds[0], "build_processor_s": seconds[1], "one_ms": one.0, "one_processor_ms": one.1,
            "batch_ms": batch.0 / queries as f64, "batch_processor_ms": batch.1 / queries as f64,
            "recall": recall(&peer_found, &exact),
        });
        eprintln!("{nbits} bit next-plaid {peer}");

        // Each in the other's directory.
        let ours_path = work.path().join(format!("ours{nbits}"));
        exchange::write(&ours_path, &codec, &segments, None).unwrap();
        let loaded = MmapIndex::load(ours_path.to_str().unwrap()).unwrap();
        let in_ours = peer_ids(loaded.search_batch(&peer_queries, &parameters, true, None).unwrap());
        let directory = Directory::open(path).unwrap();
        let imported: Vec<Segment> = directory.segments(1 << 24).collect::<Result<_, _>>().unwrap();
        let imported: Vec<&Segment> = imported.iter().collect();
        let in_theirs = search(&engine, directory.codec(), &imported, q(0..queries));
        let entry: Value = json!({
            "maxsim": ours, "next_plaid": peer,
            "overlap_in_our_directory": recall(&in_ours, &found),
            "overlap_in_their_directory": recall(&in_theirs, &peer_found),
        });
        report[format!("{nbits}_bit")] = entry;
    }
    println!("{}", serde_json::to_string_pretty(&report).unwrap());
}
