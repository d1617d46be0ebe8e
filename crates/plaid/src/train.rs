//! Training: centroids by k-means, buckets of least squares.
//!
//! Centroids are PLAID's as fast-plaid and next-plaid make them: `K = 2^⌊log2(16·√T)⌋` of them for `T` tokens, random points to
//! start from, a few Lloyd iterations over a sample, unit length. Bucket cutoffs and weights are made of the residuals of tokens
//! that k-means did not see, all dimensions pooled as PLAID's tables have it, but not as quantiles: those are where most residuals
//! are, and a search loses most by the few large ones. Assignment is the scoring operator: the sample is a query,
//! the centroids a document, the winners the clusters. So training runs wherever scoring does, and is deterministic on each
//! backend. While k-means iterates both are rounded to int8: several times faster than f32 on processors, and which of two
//! nearly equal centroids a sample token moves by a little makes no difference. Buckets are made with f32 products.
//!
//! # Memory
//! The sample holds at most [`MAX_SAMPLE`] tokens in half precision (512 MB for `d = 128`), whatever the corpus. Beside it
//! there are the same in int8, and 16 bytes each (288 MB), the centroids in single precision, and what the engine takes for [`CHUNK`] tokens.
//!
//! # Threads
//! Whatever the host does is spread over rayon's threads, and comes out the same however many there are.

use std::ops::Range;

use half::slice::HalfFloatSliceExt;
use half::vec::HalfFloatVecExt;
use maxsim_core::{
    DataRef, Engine, Error, Forward, Op, Options, Output, Result, ScaleMode, Scales, TensorRef, Tokens, f16,
    quantize_int8,
};
use rand::RngExt;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::codec::{Centroids, CodecParts, IndexCodec, unit_vectors};
use crate::parallel;
use crate::times::{BuildTimes, timed};

/// Tokens of a [`Sample`] at most.
pub const MAX_SAMPLE: usize = 2_000_000;

/// Tokens that are assigned at a time.
const CHUNK: usize = 1 << 16;

/// Tokens that are rounded by one task.
const PIECE: usize = 1 << 12;

/// Clusters that are averaged by one task.
const CLUSTERS: usize = 64;

/// Tokens whose residuals make the buckets: 4 million numbers at `d = 128`.
const HELD_OUT: usize = 1 << 15;

/// Rounds of [`least_squares_buckets`] at most.
const LLOYD_STEPS: usize = 1000;

/// How to train.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainOptions {
    /// Bits per dimension: 1, 2, 4 or 8.
    pub nbits: u32,
    /// Number of centroids; `None`: [`centroids_for`] the tokens of the corpus.
    pub centroids: Option<usize>,
    /// Lloyd iterations.
    pub iterations: usize,
    /// Training tokens per centroid at most.
    pub points_per_centroid: usize,
    /// Seed of the sample and of the centroids to start from.
    pub seed: u64,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self { nbits: 4, centroids: None, iterations: 4, points_per_centroid: 256, seed: 42 }
    }
}

/// Number of centroids for a corpus: `2^⌊log2(16·√tokens)⌋`, at least 1.
pub fn centroids_for(tokens: u64) -> usize {
    let root = 16.0 * (tokens as f64).sqrt();
    1 << (root.max(1.0).log2().floor() as u32)
}

/// A uniform sample of tokens of a corpus that is seen once, in order (reservoir sampling, Vitter's algorithm R).
#[derive(Debug, Clone)]
pub struct Sample {
    dim: usize,
    capacity: usize,
    seen: u64,
    vectors: Vec<f16>,
    rng: ChaCha8Rng,
}

impl Sample {
    /// A sample of at most `capacity` tokens (and [`MAX_SAMPLE`]) of dimension `dim`.
    ///
    /// # Errors
    /// `ERR_VALUE` for a dimension or capacity of 0.
    pub fn new(dim: usize, capacity: usize, seed: u64) -> Result<Self> {
        if dim == 0 || capacity == 0 {
            let got = format!("{dim} and {capacity}");
            return Err(Error::value("sample", "a dimension and a capacity of at least 1", got));
        }
        let capacity = capacity.min(MAX_SAMPLE);
        Ok(Self { dim, capacity, seen: 0, vectors: Vec::new(), rng: ChaCha8Rng::seed_from_u64(seed) })
    }

    /// Shows the sample more tokens, `[n, d]`.
    ///
    /// # Errors
    /// `ERR_SHAPE`, `ERR_DTYPE`, `ERR_NON_FINITE` about `x`.
    pub fn add(&mut self, x: &TensorRef<'_>) -> Result<()> {
        let dim = self.dim;
        let vectors = unit_vectors(x, dim)?;
        // Where they go is drawn in order; which of them stay is known then, and the last one for a place has it.
        let places: Vec<usize> = (0..vectors.len() / dim).map(|_| self.place()).collect();
        let end = places.iter().filter(|&&place| place < self.capacity).max().map_or(0, |place| place + 1);
        self.vectors.resize(self.vectors.len().max(end * dim), f16::ZERO);
        for (vector, place) in vectors.chunks_exact(dim).zip(places) {
            if place < self.capacity {
                self.vectors[place * dim..(place + 1) * dim].convert_from_f32_slice(vector);
            }
        }
        Ok(())
    }

    /// Where the next token goes; nowhere, if that is beyond the capacity.
    fn place(&mut self) -> usize {
        let seen = self.seen;
        self.seen += 1;
        if seen < self.capacity as u64 {
            return seen as usize;
        }
        usize::try_from(self.rng.random_range(0..self.seen)).unwrap_or(usize::MAX)
    }

    /// Tokens it holds.
    pub fn len(&self) -> usize {
        self.vectors.len() / self.dim
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.vectors.is_empty()
    }

    /// Tokens it was shown.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Embedding dimension.
    pub fn dim(&self) -> usize {
        self.dim
    }

    fn vector(&self, token: u32) -> &[f16] {
        &self.vectors[token as usize * self.dim..(token as usize + 1) * self.dim]
    }

    fn gather(&self, tokens: &[u32]) -> Vec<f32> {
        let mut values = vec![0f32; tokens.len() * self.dim];
        for (to, &token) in values.chunks_exact_mut(self.dim).zip(tokens) {
            self.vector(token).convert_to_f32_slice(to);
        }
        values
    }

    /// Puts the means of clusters, as unit vectors, in place of their centroids: `winners` are the clusters of `points`. Sums are
    /// made in the points' order, whatever the number of threads.
    fn average(
        &self,
        points: &[u32],
        winners: &[u32],
        centroids: &mut [f32],
        rng: &mut ChaCha8Rng,
    ) -> Result<()> {
        let dim = self.dim;
        let count = centroids.len() / dim;
        // Points by cluster, in their order.
        let mut ends = vec![0usize; count + 1];
        winners.iter().for_each(|&c| ends[c as usize + 1] += 1);
        (0..count).for_each(|c| ends[c + 1] += ends[c]);
        let starts = ends.clone();
        let mut members = vec![0u32; points.len()];
        for (&point, &c) in points.iter().zip(winners) {
            members[ends[c as usize]] = point;
            ends[c as usize] += 1;
        }
        let pieces: Vec<_> = centroids.chunks_mut(CLUSTERS * dim).enumerate().collect();
        let lost = parallel::map(pieces, |(i, centroids): (usize, &mut [f32])| {
            let (mut sum, mut vector, mut lost) = (vec![0f64; dim], vec![0f32; dim], Vec::new());
            for (c, centroid) in (i * CLUSTERS..).zip(centroids.chunks_exact_mut(dim)) {
                sum.fill(0.0);
                for &point in &members[starts[c]..starts[c + 1]] {
                    self.vector(point).convert_to_f32_slice(&mut vector);
                    sum.iter_mut().zip(&vector).for_each(|(sum, x)| *sum += f64::from(*x));
                }
                let norm = sum.iter().map(|x| x * x).sum::<f64>().sqrt();
                if norm > 1e-12 {
                    centroid.iter_mut().zip(&sum).for_each(|(c, x)| *c = (x / norm) as f32);
                } else {
                    lost.push(c);
                }
            }
            Ok(lost)
        })?;
        // Nobody's centroid, or that of vectors which cancel: it starts again from some point.
        for c in lost.into_iter().flatten() {
            let point = points[rng.random_range(0..points.len())];
            self.vector(point).convert_to_f32_slice(&mut centroids[c * dim..(c + 1) * dim]);
        }
        Ok(())
    }
}

/// Trains a codec on a sample of unit vectors. `progress` hears `(tokens assigned, tokens to assign)`.
///
/// # Errors
/// `ERR_VALUE` for an empty sample or options out of range; the engine's, `ERR_ABORTED` among them.
pub fn train(
    engine: &Engine,
    sample: &Sample,
    options: &TrainOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<IndexCodec> {
    train_timed(engine, sample, options, progress, &mut BuildTimes::default())
}

/// [`train`], and where the time goes.
pub(crate) fn train_timed(
    engine: &Engine,
    sample: &Sample,
    options: &TrainOptions,
    progress: &mut dyn FnMut(u64, u64),
    times: &mut BuildTimes,
) -> Result<IndexCodec> {
    if sample.is_empty() {
        return Err(Error::value("sample", "at least one token", "none"));
    }
    if !matches!(options.nbits, 1 | 2 | 4 | 8) {
        return Err(Error::value("nbits", "one of 1, 2, 4, 8", options.nbits.to_string()));
    }
    for (value, argument) in
        [(options.points_per_centroid, "points_per_centroid"), (options.centroids.unwrap_or(1), "centroids")]
    {
        if value == 0 {
            return Err(Error::value(argument, "at least 1", "0"));
        }
    }
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    let mut order: Vec<u32> = (0..sample.len() as u32).collect();
    order.shuffle(&mut rng);
    // A twentieth is kept from k-means, as long as that leaves something.
    let held_out = (order.len() / 20).min(HELD_OUT);
    let (held_out, points) = order.split_at(held_out);
    let count = options.centroids.unwrap_or_else(|| centroids_for(sample.seen)).min(points.len());
    let points = &points[..points.len().min(count.saturating_mul(options.points_per_centroid))];
    let held_out = if held_out.is_empty() { &points[..points.len().min(HELD_OUT)] } else { held_out };

    let total = (points.len() * options.iterations + held_out.len()) as u64;
    let mut work = Work { engine, sample, progress, times, done: 0, total };
    let centroids = work.k_means(points, count, options.iterations, &mut rng)?;
    work.buckets(held_out, Vec::from_f32_slice(&centroids), options.nbits)
}

/// Unit vectors `[n, d]` in int8.
struct Rounded {
    values: Vec<i8>,
    scales: Vec<f32>,
}

struct Work<'a> {
    engine: &'a Engine,
    sample: &'a Sample,
    progress: &'a mut dyn FnMut(u64, u64),
    times: &'a mut BuildTimes,
    done: u64,
    total: u64,
}

impl Work<'_> {
    /// The centroids of tokens: largest inner product, lowest index among equals.
    fn assign(&mut self, x: Tokens<'_>, centroids: Tokens<'_>) -> Result<Vec<u32>> {
        let count = x.slots() as u64;
        let op = Op::Forward(Forward::maxsim(x, centroids, Options { argmax: true, ..Options::default() }));
        let output = timed(&mut self.times.clustering, || self.engine.run(&op))?;
        let Output::Scores(scores) = output else { unreachable!("forward returned {output:?}") };
        self.done += count;
        (self.progress)(self.done, self.total);
        let winners = scores.argmax.expect("asked for").values;
        Ok(winners.into_iter().map(|winner| winner.max(0) as u32).collect())
    }

    /// Spherical k-means: unit vectors, assigned by inner product.
    fn k_means(
        &mut self,
        points: &[u32],
        count: usize,
        iterations: usize,
        rng: &mut ChaCha8Rng,
    ) -> Result<Vec<f32>> {
        let (dim, sample) = (self.sample.dim, self.sample);
        // The points are in random order, so that the first are random points.
        let mut centroids = sample.gather(&points[..count]);
        let mut rounding = self.times.rounding;
        let rounded =
            timed(&mut rounding, || round(points.len(), dim, |piece| sample.gather(&points[piece])))?;
        for _ in 0..iterations {
            let rows = |piece: Range<usize>| centroids[piece.start * dim..piece.end * dim].to_vec();
            let centroids8 = timed(&mut rounding, || round(count, dim, rows))?;
            let mut winners = Vec::with_capacity(points.len());
            for first in (0..points.len()).step_by(CHUNK) {
                let x = rounded.tokens(first..points.len().min(first + CHUNK), dim)?;
                winners.extend(self.assign(x, centroids8.tokens(0..count, dim)?)?);
            }
            let mut averaging = self.times.averaging;
            timed(&mut averaging, || sample.average(points, &winners, &mut centroids, rng))?;
            self.times.averaging = averaging;
        }
        self.times.rounding = rounding;
        Ok(centroids)
    }

    /// Cutoffs and weights for the residuals of `tokens`, all dimensions pooled.
    fn buckets(&mut self, tokens: &[u32], centroids: Vec<f16>, nbits: u32) -> Result<IndexCodec> {
        let dim = self.sample.dim;
        let mut residuals: Vec<f32> = Vec::with_capacity(tokens.len() * dim);
        let mut norms: Vec<f32> = Vec::with_capacity(tokens.len());
        let mut magnitudes = vec![0f64; dim];
        let d = Tokens::padded(&centroids[..], &[centroids.len() / dim, dim])?;
        let vectors = self.sample.gather(tokens);
        let winners = self.assign(Tokens::padded(&vectors, &[tokens.len(), dim])?, d)?;
        for (vector, c) in vectors.chunks_exact(dim).zip(winners) {
            let (start, c) = (residuals.len(), c as usize);
            let centroid = &centroids[c * dim..(c + 1) * dim];
            residuals.extend(vector.iter().zip(centroid).map(|(x, c)| x - c.to_f32()));
            let residual = &residuals[start..];
            norms.push(residual.iter().map(|r| f64::from(r * r)).sum::<f64>().sqrt() as f32);
            magnitudes.iter_mut().zip(residual).for_each(|(m, r)| *m += f64::from(r.abs()));
        }
        let (bucket_cutoffs, bucket_weights) = timed(&mut self.times.buckets, || {
            parallel::sort(&mut residuals);
            norms.sort_unstable_by(f32::total_cmp);
            least_squares_buckets(&residuals, 1 << nbits)
        });
        IndexCodec::new(CodecParts {
            dim,
            nbits,
            bucket_cutoffs,
            bucket_weights,
            avg_residual: magnitudes.into_iter().map(|m| (m / tokens.len() as f64) as f32).collect(),
            cluster_threshold: quantile(&norms, 0.75),
            centroids: Centroids::F16(centroids.into()),
        })
    }
}

impl Rounded {
    /// Some of them as one sequence.
    fn tokens(&self, rows: Range<usize>, dim: usize) -> Result<Tokens<'_>> {
        let values = &self.values[rows.start * dim..rows.end * dim];
        Tokens::padded(values, &[rows.len(), dim])?.with_scales(Scales::PerToken(&self.scales[rows]))
    }
}

/// `count` vectors, of which `rows` gives some, in int8.
fn round(count: usize, dim: usize, rows: impl Fn(Range<usize>) -> Vec<f32> + Sync + Send) -> Result<Rounded> {
    let mut rounded = Rounded { values: vec![0; count * dim], scales: vec![0.0; count] };
    let pieces = rounded.values.chunks_mut(PIECE * dim).zip(rounded.scales.chunks_mut(PIECE)).enumerate();
    parallel::for_each(pieces.collect(), |(i, (values, scales)): (usize, (&mut [i8], &mut [f32]))| {
        let vectors = rows(i * PIECE..i * PIECE + scales.len());
        let x = TensorRef::new(&vectors, &[scales.len(), dim])?;
        let quantized = quantize_int8(&x, ScaleMode::PerToken)?;
        let DataRef::I8(from) = quantized.values.data().as_ref() else { unreachable!("int8 was asked for") };
        values.copy_from_slice(from);
        scales.copy_from_slice(&quantized.scales);
        Ok(())
    })?;
    Ok(rounded)
}

/// Cutoffs and weights of `count` buckets over ascending numbers, such that the squared error of taking every number for its
/// bucket's weight is small: Lloyd's algorithm (*Least squares quantization in PCM*, 1982). A weight is the mean of its bucket, a
/// cutoff is halfway between two weights. It starts from quantiles, √3 times as far from the median: for many buckets over
/// normal numbers that is the answer (Panter and Dite, 1951), which plain quantiles take thousands of steps to.
fn least_squares_buckets(sorted: &[f32], count: usize) -> (Vec<f32>, Vec<f32>) {
    let mut sums = Vec::with_capacity(sorted.len() + 1);
    sums.push(0f64);
    sums.extend(sorted.iter().scan(0f64, |sum, &x| {
        *sum += f64::from(x);
        Some(*sum)
    }));
    let (least, median, most) = (sorted[0], quantile(sorted, 0.5), sorted[sorted.len() - 1]);
    let start = |i: usize| {
        let at = quantile(sorted, (i as f64 + 0.5) / count as f64);
        f64::from((median + (at - median) * 3f32.sqrt()).clamp(least, most))
    };
    let mut weights: Vec<f64> = (0..count).map(start).collect();
    let cutoffs_of = |weights: &[f64]| -> Vec<f32> {
        weights.windows(2).map(|pair| ((pair[0] + pair[1]) / 2.0) as f32).collect()
    };
    let spread = f64::from(most) - f64::from(least);
    for _ in 0..LLOYD_STEPS {
        let mut moved = 0f64;
        let mut start = 0;
        let cutoffs = cutoffs_of(&weights);
        for (i, weight) in weights.iter_mut().enumerate() {
            // A number that equals a cutoff is encoded as the lower bucket.
            let end = match cutoffs.get(i) {
                Some(cutoff) => start + sorted[start..].partition_point(|x| x <= cutoff),
                None => sorted.len(),
            };
            // Nobody's bucket stays where it is.
            if end > start {
                let mean = (sums[end] - sums[start]) / (end - start) as f64;
                moved = moved.max((mean - *weight).abs());
                *weight = mean;
            }
            start = end;
        }
        if moved <= 1e-6 * spread {
            break;
        }
    }
    (cutoffs_of(&weights), weights.into_iter().map(|weight| weight as f32).collect())
}

/// Quantile `q` of ascending numbers, interpolated linearly at `q·(n − 1)`.
fn quantile(sorted: &[f32], q: f64) -> f32 {
    let at = q * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    (f64::from(low) + (f64::from(high) - f64::from(low)) * at.fract()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn centroid_counts_are_the_formulas() {
        for (tokens, count) in [
            (0, 1),
            (1, 16),
            (587_000, 8192),
            (1_110_000, 16_384),
            (58_700_000, 65_536),
            (111_000_000, 131_072),
        ] {
            assert_eq!(centroids_for(tokens), count, "{tokens}");
        }
    }

    #[test]
    fn quantiles_interpolate() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), 3.0);
        assert_eq!(quantile(&[5.0], 0.3), 5.0);
    }

    /// Mean squared error of numbers taken for the weights of their buckets.
    fn error(numbers: &[f32], cutoffs: &[f32], weights: &[f32]) -> f64 {
        let of = |&x: &f32| f64::from(x - weights[cutoffs.partition_point(|&cutoff| cutoff < x)]).powi(2);
        numbers.iter().map(of).sum::<f64>() / numbers.len() as f64
    }

    #[test]
    fn buckets_lose_as_little_as_any() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mut normal = || {
            let (u, v): (f64, f64) = (rng.random(), rng.random());
            ((-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
        };
        let mut numbers: Vec<f32> = (0..200_000).map(|_| normal()).collect();
        numbers.sort_unstable_by(f32::total_cmp);
        // Max, *Quantizing for minimum distortion* (1960), table I.
        for (count, least) in [(2, 0.3634), (4, 0.1175), (16, 0.009497)] {
            let (cutoffs, weights) = least_squares_buckets(&numbers, count);
            assert_eq!((cutoffs.len(), weights.len()), (count - 1, count));
            assert!(cutoffs.is_sorted() && weights.is_sorted());
            let error = error(&numbers, &cutoffs, &weights);
            assert!((error / least - 1.0).abs() < 0.02, "{count} buckets: {error}, not {least}");
        }
        // 256 buckets lose 4⁴ times less than 16, but for what large numbers of buckets gain on small ones.
        let (cutoffs, weights) = least_squares_buckets(&numbers, 256);
        let error = error(&numbers, &cutoffs, &weights);
        assert!(error < 0.0095 / 220.0, "{error}");
    }

    #[test]
    fn buckets_of_few_numbers() {
        assert_eq!(least_squares_buckets(&[0.5], 2), (vec![0.5], vec![0.5, 0.5]));
        let (cutoffs, weights) = least_squares_buckets(&[0.0, 0.0, 1.0, 1.0], 4);
        assert!(cutoffs.is_sorted(), "{cutoffs:?}");
        assert_eq!(error(&[0.0, 1.0], &cutoffs, &weights), 0.0);
    }

    #[test]
    fn samples_are_uniform_and_bounded() {
        // Token i is the unit vector of angle i: with 10 of 1000 kept 400 times, each tenth of them is kept as often.
        let mut tenths = [0u32; 10];
        for seed in 0..400 {
            let mut sample = Sample::new(2, 10, seed).unwrap();
            let angles = (0..1000).map(|i| i as f32 / 1000.0);
            let data: Vec<f32> = angles.flat_map(|a| [a.cos(), a.sin()]).collect();
            for part in data.chunks(14) {
                sample.add(&TensorRef::new(part, &[part.len() / 2, 2]).unwrap()).unwrap();
            }
            assert_eq!((sample.len(), sample.seen()), (10, 1000));
            for v in sample.vectors.chunks(2) {
                let angle = f32::atan2(v[1].to_f32(), v[0].to_f32());
                tenths[((angle * 10.0) as usize).min(9)] += 1;
            }
        }
        // 400 expected in each, standard deviation 19.
        assert!(tenths.iter().all(|n| (320..480).contains(n)), "{tenths:?}");
    }
}
