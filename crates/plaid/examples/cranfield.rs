//! What an index costs in quality: nDCG@10 and recall on Cranfield, of exact scores and of indexes of 4 and 2 bits.
//!
//! `cargo run --release --example cranfield -- DIR`, where DIR is what `benches/peers/cranfield_encode.py` wrote. Prints one
//! JSON object.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use maxsim_core::{CorpusOptions, Engine, PlaidOptions, SearchOptions, TensorRef, Tokens};
use maxsim_cpu::{CpuBackend, CpuOptions};
use maxsim_formats::read_npy;
use maxsim_plaid::{Sample, Searched, TrainOptions, train};
use serde_json::{Map, Value, json};

type Failure = Box<dyn std::error::Error>;

/// nDCG at 10 with relevant documents as 1, averaged over queries that have any.
fn ndcg(rankings: &[Vec<u32>], judgements: &Map<String, Value>) -> f64 {
    let gain = |rank: usize| 1.0 / (rank as f64 + 2.0).log2();
    let of_query = |(query, relevant): (&String, &Value)| {
        let relevant: HashSet<u64> = relevant.as_array()?.iter().filter_map(Value::as_u64).collect();
        let ranking = rankings.get(query.parse::<usize>().ok()?)?;
        let hits = ranking.iter().take(10).enumerate().filter(|(_, d)| relevant.contains(&u64::from(**d)));
        let ideal: f64 = (0..relevant.len().min(10)).map(gain).sum();
        Some(hits.map(|(rank, _)| gain(rank)).sum::<f64>() / ideal)
    };
    let values: Vec<f64> = judgements.iter().filter_map(of_query).collect();
    values.iter().sum::<f64>() / values.len() as f64
}

/// Share of the expected ten that were found.
fn recall(found: &[Vec<u32>], expected: &[Vec<u32>]) -> f64 {
    let common = found.iter().zip(expected).map(|(f, e)| e.iter().filter(|d| f.contains(d)).count());
    common.sum::<usize>() as f64 / expected.iter().map(Vec::len).sum::<usize>() as f64
}

fn main() -> Result<(), Failure> {
    let directory = std::env::args().nth(1).ok_or("which directory?")?;
    let directory = Path::new(&directory);
    let (shape, data) = read_npy(directory.join("documents.npy"))?.into_parts();
    let documents = maxsim_formats::Array::new(shape.clone(), data)?.into_vectors("documents")?;
    let offsets = read_npy(directory.join("offsets.npy"))?.to_u32("offsets")?;
    let (query_shape, data) = read_npy(directory.join("queries.npy"))?.into_parts();
    let queries = maxsim_formats::Array::new(query_shape.clone(), data)?.into_vectors("queries")?;
    let judgements: Map<String, Value> =
        serde_json::from_str(&std::fs::read_to_string(directory.join("judgements.json"))?)?;
    let q = Tokens::padded(&queries, &query_shape)?;
    let engine = Engine::new(vec![Arc::new(CpuBackend::new(CpuOptions::default())?)])?;

    let corpus = engine.corpus(Tokens::packed(&documents, shape[1], &offsets)?, CorpusOptions::default())?;
    let top = corpus.search(q.clone(), SearchOptions::top_k(10))?;
    let exact: Vec<Vec<u32>> = (0..q.count()).map(|i| top.hits(i).map(|hit| hit.0).collect()).collect();
    drop(corpus);
    let mut report = json!({
        "documents": offsets.len() - 1, "tokens": shape[0], "dim": shape[1], "queries": judgements.len(),
        "exact": { "ndcg10": ndcg(&exact, &judgements) },
    });
    let x = TensorRef::new(&documents, &shape)?;
    for nbits in [4u32, 2] {
        let options = TrainOptions { nbits, ..TrainOptions::default() };
        let mut sample = Sample::new(shape[1], usize::MAX, options.seed)?;
        sample.add(&x)?;
        let codec = train(&engine, &sample, &options, &mut |_, _| ())?;
        drop(sample);
        let segment = codec.segment(offsets.clone(), codec.encode(&engine, &x)?)?;
        let segments = [&segment];
        let search = |options: PlaidOptions| -> Result<Vec<Vec<u32>>, Failure> {
            let found = Searched::all(&codec, &segments).search(&engine, q.clone(), options)?;
            Ok(found.iter().map(|hits| hits.iter().map(|hit| hit.document).collect()).collect())
        };
        let mut entry = json!({ "centroids": codec.count(), "bytes_per_token": segment.bytes() as f64 / shape[0] as f64 });
        let everything = search(PlaidOptions { exact: true, ..PlaidOptions::default() })?;
        // With 4,096 a quarter of that is nearly the whole collection; 400 makes probing and the cut count.
        for n_full_scores in [4096, 400] {
            let found =
                search(PlaidOptions { n_full_scores: Some(n_full_scores), ..PlaidOptions::default() })?;
            entry[format!("n_full_scores_{n_full_scores}")] = json!({
                "ndcg10": ndcg(&found, &judgements),
                "recall10_of_exact_scores": recall(&found, &exact),
                "recall10_of_the_index_scored_whole": recall(&found, &everything),
            });
        }
        eprintln!("{nbits} bit {entry}");
        report[format!("{nbits}_bit")] = entry;
    }
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}
