//! Training and encoding: what is found again, and what does not change it.

use std::sync::Arc;

use maxsim_core::{Cancel, Engine, ErrorCode, PlaidOptions, TensorRef, Tokens};
use maxsim_cpu::{CpuBackend, CpuOptions};
use maxsim_plaid::{Bitmap, IndexCodec, Sample, Searched, TrainOptions, train};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

const DIM: usize = 48;

fn engine(threads: usize) -> Engine {
    let cpu = CpuBackend::new(CpuOptions { threads: Some(threads), ..CpuOptions::default() }).unwrap();
    Engine::new(vec![Arc::new(cpu)]).unwrap().silent()
}

fn unit(values: &mut [f32]) {
    for vector in values.chunks_mut(DIM) {
        let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        vector.iter_mut().for_each(|x| *x /= norm);
    }
}

/// Tokens near `topics` directions, and the topic of each.
fn tokens(count: usize, topics: usize, noise: f32) -> (Vec<f32>, Vec<usize>) {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let mut base: Vec<f32> = (0..topics * DIM).map(|_| StandardNormal.sample(&mut rng)).collect();
    unit(&mut base);
    let of: Vec<usize> = (0..count).map(|_| rng.random_range(0..topics)).collect();
    let mut values: Vec<f32> = of.iter().flat_map(|&t| base[t * DIM..(t + 1) * DIM].to_vec()).collect();
    for x in &mut values {
        let e: f32 = StandardNormal.sample(&mut rng);
        *x += noise * e / (DIM as f32).sqrt();
    }
    unit(&mut values);
    (values, of)
}

fn tensor(values: &[f32]) -> TensorRef<'_> {
    TensorRef::new(values, &[values.len() / DIM, DIM]).unwrap()
}

fn trained(engine: &Engine, values: &[f32], options: &TrainOptions) -> IndexCodec {
    let mut sample = Sample::new(DIM, 1 << 20, options.seed).unwrap();
    sample.add(&tensor(values)).unwrap();
    train(engine, &sample, options, &mut |_, _| ()).unwrap()
}

fn mean_cosine(engine: &Engine, codec: &IndexCodec, values: &[f32]) -> f64 {
    let encoded = codec.encode(engine, &tensor(values)).unwrap();
    let segment = codec.segment(vec![0, (values.len() / DIM) as u32], encoded).unwrap();
    let decoded = codec.decode(&segment).unwrap();
    let dots = decoded.data().as_ref().to_f32().into_iter().zip(values).map(|(a, b)| f64::from(a * b));
    dots.sum::<f64>() / (values.len() / DIM) as f64
}

/// More bits are closer, whatever the data; k-means is closer than the points it starts from.
#[test]
fn tokens_come_back() {
    let engine = engine(2);
    let (values, _) = tokens(6000, 40, 0.8);
    let cosines: Vec<f64> = [1, 2, 4, 8]
        .map(|nbits| {
            let options = TrainOptions { nbits, centroids: Some(64), ..TrainOptions::default() };
            mean_cosine(&engine, &trained(&engine, &values, &options), &values)
        })
        .to_vec();
    assert!(cosines.windows(2).all(|w| w[0] < w[1]), "{cosines:?}");
    assert!(cosines[1] > 0.94 && cosines[2] > 0.99 && cosines[3] > 0.999, "{cosines:?}");
    let residual = |iterations| {
        let options = TrainOptions { iterations, centroids: Some(64), ..TrainOptions::default() };
        trained(&engine, &values, &options).parts().cluster_threshold
    };
    assert!(residual(4) < 0.97 * residual(0), "{} {}", residual(4), residual(0));
}

/// Tokens of a topic share a centroid where topics are far apart and there are centroids enough.
#[test]
fn clusters_are_found() {
    let engine = engine(2);
    let (values, of) = tokens(8000, 20, 0.2);
    let codec = trained(&engine, &values, &TrainOptions { centroids: Some(100), ..TrainOptions::default() });
    let codes = codec.encode(&engine, &tensor(&values)).unwrap().codes;
    let mut topic = vec![None; codec.count()];
    for (&code, &t) in codes.iter().zip(&of) {
        assert_eq!(*topic[code as usize].get_or_insert(t), t, "centroid {code} serves two topics");
    }
}

/// The same sample and seed give the same codec, bit for bit, on any number of threads; another seed another one.
#[test]
fn training_is_deterministic() {
    let (values, _) = tokens(3000, 30, 0.5);
    let bits = |threads, seed| {
        let options = TrainOptions { seed, centroids: Some(50), ..TrainOptions::default() };
        let codec = trained(&engine(threads), &values, &options);
        (codec.parts().centroids.data().to_f32(), codec.parts().bucket_weights.clone())
    };
    assert_eq!(bits(1, 1), bits(2, 1));
    assert_ne!(bits(1, 1), bits(1, 2));
}

/// Few tokens, equal tokens, one token: a codec all the same.
#[test]
fn small_samples() {
    let engine = engine(1);
    let (values, _) = tokens(5, 5, 0.1);
    for count in 1..=5 {
        let codec = trained(&engine, &values[..count * DIM], &TrainOptions::default());
        assert!(codec.count() <= count);
        codec.encode(&engine, &tensor(&values)).unwrap();
    }
    let equal: Vec<f32> = values[..DIM].repeat(50);
    let codec = trained(&engine, &equal, &TrainOptions { centroids: Some(8), ..TrainOptions::default() });
    assert!(mean_cosine(&engine, &codec, &equal) > 0.999);
    let zeros = vec![0f32; 30 * DIM];
    let codec = trained(&engine, &zeros, &TrainOptions { centroids: Some(3), ..TrainOptions::default() });
    codec.encode(&engine, &tensor(&zeros)).unwrap();
}

#[test]
fn errors_and_stopping() {
    let engine = engine(1);
    let (values, _) = tokens(400, 5, 0.1);
    let empty = Sample::new(DIM, 10, 0).unwrap();
    let code = |options: &TrainOptions, sample: &Sample| {
        train(&engine, sample, options, &mut |_, _| ()).unwrap_err().code()
    };
    assert_eq!(code(&TrainOptions::default(), &empty), ErrorCode::Value);
    let mut sample = empty.clone();
    sample.add(&tensor(&values)).unwrap();
    assert_eq!(sample.len(), 10);
    for options in [
        TrainOptions { nbits: 3, ..TrainOptions::default() },
        TrainOptions { centroids: Some(0), ..TrainOptions::default() },
        TrainOptions { points_per_centroid: 0, ..TrainOptions::default() },
    ] {
        assert_eq!(code(&options, &sample), ErrorCode::Value, "{options:?}");
    }
    let mut spoilt = values.clone();
    spoilt[DIM + 1] = f32::INFINITY;
    assert_eq!(sample.add(&tensor(&spoilt)).unwrap_err().code(), ErrorCode::NonFinite);
    let narrow = TensorRef::new(&values[..DIM], &[2, DIM / 2]).unwrap();
    assert_eq!(sample.add(&narrow).unwrap_err().code(), ErrorCode::Shape);
    assert_eq!(Sample::new(0, 1, 0).unwrap_err().code(), ErrorCode::Value);

    // Progress is told, and can be the moment to stop.
    let cancel = Cancel::new();
    let stopping = engine.with_cancel(cancel.clone());
    let mut told = Vec::new();
    let result = train(&stopping, &sample, &TrainOptions::default(), &mut |done, total| {
        told.push((done, total));
        cancel.cancel();
    });
    assert_eq!(result.unwrap_err().code(), ErrorCode::Aborted);
    assert_eq!(told.len(), 1);
}

/// A search among few documents of many finds what is best there, because it probes more: as much of it as a search among all
/// finds, where probing as little as among all finds less.
#[test]
fn recall_is_kept_in_subsets() {
    const LEN: usize = 6;
    const DOCUMENTS: usize = 6000;
    const QUERIES: usize = 40;
    let engine = engine(2);
    let (values, _) = tokens((DOCUMENTS + QUERIES) * LEN, 3000, 1.0);
    let (documents, queries) = values.split_at(DOCUMENTS * LEN * DIM);
    let options = TrainOptions { centroids: Some(512), ..TrainOptions::default() };
    let codec = trained(&engine, documents, &options);
    let offsets = (0..=DOCUMENTS as u32).map(|i| i * LEN as u32).collect();
    let segment = codec.segment(offsets, codec.encode(&engine, &tensor(documents)).unwrap()).unwrap();
    let segments = [&segment];
    let all = Searched::all(&codec, &segments);
    let recall = |searched: Searched<'_>| {
        let found = |exact| {
            let q = Tokens::padded(queries, &[QUERIES, LEN, DIM]).unwrap();
            let options =
                PlaidOptions { exact, n_ivf_probe: 1, n_full_scores: Some(400), ..PlaidOptions::default() };
            let found = searched.search(&engine, q, options).unwrap();
            found.into_iter().map(|hits| hits.into_iter().map(|hit| hit.document).collect::<Vec<_>>())
        };
        let common = found(false).zip(found(true)).map(|(f, e)| e.iter().filter(|d| f.contains(d)).count());
        common.sum::<usize>() as f64 / (10 * QUERIES) as f64
    };
    let few = Bitmap::of(DOCUMENTS, (0..DOCUMENTS).step_by(20)).unwrap();
    let (whole, subset) = (recall(all), recall(Searched { subset: Some(&few), ..all }));
    let unscaled = recall(Searched { live: Some(&few), ..all });
    println!("recall {whole}, in a subset {subset}, in as few without more probes {unscaled}");
    assert!(subset >= whole - 0.02 && unscaled < subset - 0.1, "{whole} {subset} {unscaled}");
}

/// Noise that is larger than what documents share makes approximate scores tell little: a search by defaults finds what is best
/// nevertheless, where one of 4,096 fixed documents does not.
#[test]
fn default_searches_find_what_exact_ones_find() {
    const LEN: usize = 12;
    const DOCUMENTS: usize = 6000;
    const QUERIES: usize = 24;
    let engine = engine(2);
    let (values, _) = tokens(DOCUMENTS * LEN, 400, 1.4);
    let mut random = ChaCha8Rng::seed_from_u64(8);
    let mut query = |_| -> Vec<f32> {
        let document = random.random_range(0..DOCUMENTS) * LEN * DIM;
        let mut query = values[document..document + LEN * DIM].to_vec();
        query.iter_mut().for_each(|x| *x += random.random_range(-1.0..1.0) * (3.0 / DIM as f32).sqrt());
        query
    };
    let queries: Vec<f32> = (0..QUERIES).flat_map(&mut query).collect();
    let options = TrainOptions { centroids: Some(1024), ..TrainOptions::default() };
    let codec = trained(&engine, &values, &options);
    let offsets = (0..=DOCUMENTS as u32).map(|i| i * LEN as u32).collect();
    let segment = codec.segment(offsets, codec.encode(&engine, &tensor(&values)).unwrap()).unwrap();
    let segments = [&segment];
    let found = |options: PlaidOptions| -> Vec<Vec<u32>> {
        let q = Tokens::padded(&queries, &[QUERIES, LEN, DIM]).unwrap();
        let found = Searched::all(&codec, &segments).search(&engine, q, options).unwrap();
        found.into_iter().map(|hits| hits.into_iter().map(|hit| hit.document).collect()).collect()
    };
    let exact = found(PlaidOptions { exact: true, ..PlaidOptions::default() });
    let recall = |options| {
        let pairs = found(options).into_iter().zip(&exact);
        let common: usize = pairs.map(|(f, e)| e.iter().filter(|d| f.contains(d)).count()).sum();
        common as f64 / (10 * QUERIES) as f64
    };
    let defaults = recall(PlaidOptions::default());
    let fixed = recall(PlaidOptions { n_full_scores: Some(4096), ..PlaidOptions::default() });
    println!("recall {defaults}, with n_full_scores given {fixed}");
    assert!(defaults >= 0.95 && fixed < 0.9, "{defaults} {fixed}");
}
