//! Small indexes to work on.

#![allow(dead_code, reason = "each test file uses some of it")]

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use maxsim_core::{Engine, PlaidOptions, Tokens};
use maxsim_plaid::{CodecParts, DocumentId, Index, IndexCodec, IndexWriter, Row, Selection, Value};
use rand::RngExt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

pub(crate) const DIM: usize = 16;
const CENTROIDS: usize = 32;

pub(crate) fn engine() -> Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    let new = || {
        let options = maxsim_cpu::CpuOptions { threads: Some(1), ..Default::default() };
        let backend = maxsim_cpu::CpuBackend::new(options).expect("a CPU");
        Engine::new(vec![Arc::new(backend)]).expect("a backend").silent()
    };
    ENGINE.get_or_init(new).clone()
}

pub(crate) fn random(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

fn unit_vectors(count: usize, random: &mut ChaCha8Rng) -> Vec<f32> {
    let mut values: Vec<f32> = (0..count * DIM).map(|_| random.random_range(-1.0..1.0)).collect();
    values.chunks_mut(DIM).for_each(maxsim_core::normalize);
    values
}

/// A codec that nobody trained: good enough to tell documents apart.
pub(crate) fn codec() -> IndexCodec {
    IndexCodec::new(CodecParts {
        centroids: maxsim_core::DataBuf::F32(unit_vectors(CENTROIDS, &mut random(1))).into(),
        dim: DIM,
        nbits: 4,
        bucket_cutoffs: (1..16).map(|i| (i as f32 - 8.0) * 0.08).collect(),
        bucket_weights: (0..16).map(|i| (i as f32 - 7.5) * 0.08).collect(),
        avg_residual: vec![0.1; DIM],
        cluster_threshold: 0.5,
    })
    .expect("numbers that fit")
}

/// Token vectors of the document of this name, always the same ones: 0 to 5 tokens.
pub(crate) fn vectors(name: u64) -> Vec<f32> {
    let mut random = random(name + 1000);
    let tokens = random.random_range(0..6);
    unit_vectors(tokens, &mut random)
}

/// Metadata of the document of this name.
pub(crate) fn row(name: u64) -> Row {
    let mut row = vec![("name".to_owned(), Value::Int(name as i64))];
    if name.is_multiple_of(3) {
        row.push(("title".to_owned(), Value::Text(format!("Document {name}"))));
    }
    if name % 4 != 1 {
        row.push(("even".to_owned(), Value::Bool(name.is_multiple_of(2))));
    }
    row
}

/// Adds documents of these names under these ids.
pub(crate) fn add(writer: &mut IndexWriter, documents: &[(u64, u64)]) -> maxsim_core::Result<()> {
    let ids: Vec<DocumentId> = documents.iter().map(|&(id, _)| id.into()).collect();
    add_as(writer, &ids, &documents.iter().map(|&(_, name)| name).collect::<Vec<_>>())
}

pub(crate) fn add_as(writer: &mut IndexWriter, ids: &[DocumentId], names: &[u64]) -> maxsim_core::Result<()> {
    let mut data = Vec::new();
    let mut offsets = vec![0u32];
    for &name in names {
        data.extend(vectors(name));
        offsets.push((data.len() / DIM) as u32);
    }
    let rows: Vec<Row> = names.iter().map(|&name| row(name)).collect();
    writer.add(&Tokens::packed(&data, DIM, &offsets)?, Some(ids), &rows)
}

/// What an index ought to hold: the name of each id's document.
pub(crate) type Model = BTreeMap<u64, u64>;

/// Everything an index says about its documents, in a form that can be compared: ids in order of position, their metadata, and the
/// hits of a query among them.
#[derive(Debug, PartialEq)]
pub(crate) struct Contents {
    pub(crate) documents: Vec<(DocumentId, Row)>,
    pub(crate) hits: Vec<(DocumentId, u32)>,
}

pub(crate) fn contents(index: &Index) -> Contents {
    let documents = index.live().iter().map(|position| {
        let id = index.id(position);
        assert_eq!(index.position(&id), Some(position));
        let mut row = index.metadata(&id).expect("an id of the index");
        row.sort_by(|a, b| a.0.cmp(&b.0));
        (id, row)
    });
    let query = unit_vectors(4, &mut random(7));
    let options = PlaidOptions { exact: true, ..PlaidOptions::top_k(1000) };
    let q = Tokens::padded(&query, &[1, 4, DIM]).expect("a query");
    let hits = index.search(&engine(), q, options, Selection::default()).expect("hits").remove(0);
    Contents {
        documents: documents.collect(),
        hits: hits.into_iter().map(|hit| (hit.id, hit.score.to_bits())).collect(),
    }
}

/// Checks an index against what it ought to hold; order is that of ids in `order`.
pub(crate) fn check(index: &Index, model: &Model) {
    index.verify().expect("nothing wrong");
    let found = contents(index);
    let mut documents = found.documents;
    documents.sort_by(|a, b| a.0.cmp(&b.0));
    let expected: Vec<(DocumentId, Row)> = model
        .iter()
        .map(|(&id, &name)| {
            let mut row = row(name);
            row.sort_by(|a, b| a.0.cmp(&b.0));
            (id.into(), row)
        })
        .collect();
    assert_eq!(documents, expected);
    assert_eq!(index.len(), model.len());
    // Scores tell whether ids still have their own vectors.
    let mut scores = found.hits;
    scores.sort();
    let alone: Vec<(DocumentId, u32)> = {
        let fresh = maxsim_plaid::store::MemoryStorage::new();
        let mut writer =
            IndexWriter::create_in(&engine(), fresh.clone(), codec(), Default::default()).expect("new");
        add(&mut writer, &model.iter().map(|(&id, &name)| (id, name)).collect::<Vec<_>>())
            .expect("documents");
        writer.commit().expect("memory");
        contents(&writer.index().expect("an index")).hits
    };
    let mut alone = alone;
    alone.sort();
    assert_eq!(scores, alone);
}
