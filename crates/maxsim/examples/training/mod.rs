//! What both kinds of training share: data, a projection, an optimiser.
//!
//! The static encoder gives a word the same vector wherever it stands, and a query made of words of its document finds it at
//! once. To leave something to learn, every token is disturbed on its own ([`Disturbance`]): large noise along a third of all
//! directions, which no coordinate gives away, drowns the word. A random projection keeps noise and word alike, and few
//! queries find their document. A trained one has to find the noisy directions, from nothing but which query belongs to which
//! document (`contrastive`) or what a teacher that sees undisturbed vectors thinks of its candidates (`distillation`), and
//! leave them out. What it learned then holds for texts, and noise, that it has never seen.

pub(crate) mod contrastive;
pub(crate) mod distillation;

use std::ops::Range;

use maxsim::{Engine, Result, RetrieveOptions, TensorRef, Tokens};
use maxsim_encode::{StaticEncoder, corpus::WORDNET};
use rand::{Rng, RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

/// Sizes of an experiment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Config {
    /// Pairs to learn from.
    pub(crate) train: usize,
    /// Pairs that are kept apart, to see what was learned.
    pub(crate) held_out: usize,
    /// Dimension of projected tokens.
    pub(crate) dim: usize,
    /// Queries per step.
    pub(crate) batch: usize,
    /// Steps of the optimiser.
    pub(crate) steps: usize,
    /// Step size of Adam.
    pub(crate) learning_rate: f32,
    /// What scores are divided by before the softmax.
    pub(crate) temperature: f64,
}

/// Sequences of token vectors behind one another.
#[derive(Debug, Clone, Default)]
pub(crate) struct Batch {
    pub(crate) vectors: Vec<f32>,
    pub(crate) offsets: Vec<u32>,
    pub(crate) dim: usize,
}

impl Batch {
    pub(crate) fn tokens(&self) -> Result<Tokens<'_>> {
        Tokens::packed(&self.vectors, self.dim, &self.offsets)
    }

    pub(crate) fn count(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Elements of sequence `i`.
    pub(crate) fn sequence(&self, i: usize) -> &[f32] {
        &self.vectors[self.offsets[i] as usize * self.dim..self.offsets[i + 1] as usize * self.dim]
    }

    /// `[N, L, d]` with zeros behind every sequence, `L`, and lengths.
    pub(crate) fn padded(&self) -> (Vec<f32>, usize, Vec<u32>) {
        let lengths: Vec<u32> = self.offsets.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0) as usize;
        let mut padded = vec![0f32; self.count() * longest * self.dim];
        for (i, slot) in padded.chunks_exact_mut((longest * self.dim).max(1)).enumerate() {
            slot[..self.sequence(i).len()].copy_from_slice(self.sequence(i));
        }
        (padded, longest, lengths)
    }

    /// The sequences `ids`, in that order.
    pub(crate) fn gather(&self, ids: impl IntoIterator<Item = usize>) -> Self {
        let mut batch = Self { vectors: Vec::new(), offsets: vec![0], dim: self.dim };
        for id in ids {
            batch.vectors.extend_from_slice(self.sequence(id));
            batch.offsets.push((batch.vectors.len() / self.dim) as u32);
        }
        batch
    }
}

/// Queries and documents; query `i` belongs to document `i`.
#[derive(Debug, Clone)]
pub(crate) struct Pairs {
    pub(crate) queries: Batch,
    pub(crate) documents: Batch,
}

impl Pairs {
    /// `count` glosses of WordNet and, as the query of each, every other word of it. The same for the same `seed`.
    pub(crate) fn of_wordnet(count: usize, seed: u64) -> Result<Self> {
        let mut glosses: Vec<Vec<&str>> = WORDNET
            .lines()
            .filter_map(|line| Some(line.split_once('\t')?.1.split_whitespace().collect::<Vec<_>>()))
            .filter(|words| (6..=16).contains(&words.len()))
            .collect();
        // Some words share theirs; a held-out one must be new.
        glosses.sort();
        glosses.dedup();
        glosses.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        let documents: Vec<String> = glosses.iter().take(count).map(|words| words.join(" ")).collect();
        let every_other =
            |words: &Vec<&str>| words.iter().skip(1).step_by(2).copied().collect::<Vec<_>>().join(" ");
        let queries: Vec<String> = glosses.iter().take(count).map(every_other).collect();
        let encoder = StaticEncoder::embedded()?.clone().with_max_tokens(20);
        let encode = |texts: &[String]| {
            let batch = encoder.encode_documents(texts, |_| ());
            Batch { vectors: batch.vectors, offsets: batch.offsets, dim: batch.dim }
        };
        Ok(Self { queries: encode(&queries), documents: encode(&documents) })
    }

    /// The same pairs with every token disturbed.
    pub(crate) fn disturbed(&self, disturbance: &Disturbance, rng: &mut ChaCha8Rng) -> Self {
        let mut pairs = self.clone();
        for batch in [&mut pairs.queries, &mut pairs.documents] {
            batch.vectors.chunks_exact_mut(batch.dim).for_each(|token| disturbance.apply(token, rng));
        }
        pairs
    }

    /// The pairs `ids`.
    pub(crate) fn range(&self, ids: Range<usize>) -> Self {
        Self { queries: self.queries.gather(ids.clone()), documents: self.documents.gather(ids) }
    }
}

/// `h = s ⊙ (x + Σ_k n_k · u_k)`: directions `u` and factors `s` are fixed, the `n` are drawn anew for every token.
pub(crate) struct Disturbance {
    directions: Vec<Vec<f32>>,
    factors: Vec<f32>,
}

/// Noise per direction. Over all directions its length is about 2.3, that of the word is 1.
const NOISE: f32 = 0.35;

impl Disturbance {
    pub(crate) fn new(dim: usize, rng: &mut ChaCha8Rng) -> Self {
        let direction = |rng: &mut _| normal(dim, (1.0 / dim as f32).sqrt(), rng);
        let directions = (0..dim / 3).map(|_| direction(rng)).collect();
        Self { directions, factors: normal(dim, 0.5, rng).into_iter().map(f32::exp).collect() }
    }

    fn apply(&self, token: &mut [f32], rng: &mut ChaCha8Rng) {
        for direction in &self.directions {
            let amount = NOISE * rng.sample::<f32, _>(StandardNormal);
            token.iter_mut().zip(direction).for_each(|(x, u)| *x += amount * u);
        }
        token.iter_mut().zip(&self.factors).for_each(|(x, s)| *x *= s);
    }
}

fn normal(count: usize, deviation: f32, rng: &mut impl Rng) -> Vec<f32> {
    (0..count).map(|_| deviation * rng.sample::<f32, _>(StandardNormal)).collect()
}

/// `p = W·h` with `W [d, d_model]`.
#[derive(Debug, Clone)]
pub(crate) struct Projection {
    pub(crate) w: Vec<f32>,
    pub(crate) shape: [usize; 2],
}

impl Projection {
    pub(crate) fn random(dim: usize, d_model: usize, rng: &mut ChaCha8Rng) -> Self {
        Self { w: normal(dim * d_model, (1.0 / d_model as f32).sqrt(), rng), shape: [dim, d_model] }
    }

    pub(crate) fn tensor(&self) -> Result<TensorRef<'_>> {
        TensorRef::new(&self.w, &self.shape)
    }

    /// All tokens projected.
    pub(crate) fn project(&self, batch: &Batch) -> Batch {
        let [dim, d_model] = self.shape;
        // Columns of W side by side, so that the inner loop runs over neighbours.
        let columns: Vec<f32> = (0..d_model)
            .flat_map(|k| (0..dim).map(move |j| (j, k)))
            .map(|(j, k)| self.w[j * d_model + k])
            .collect();
        let mut vectors = vec![0f32; batch.vectors.len() / d_model * dim];
        for (h, p) in batch.vectors.chunks_exact(d_model).zip(vectors.chunks_exact_mut(dim)) {
            for (h, column) in h.iter().zip(columns.chunks_exact(dim)) {
                p.iter_mut().zip(column).for_each(|(p, w)| *p += h * w);
            }
        }
        Batch { vectors, offsets: batch.offsets.clone(), dim }
    }

    /// Adds `Σ_rows grad ⊗ h`, the gradient of `W` given that of the projected rows, to `grad_w`.
    pub(crate) fn backward(&self, h: &[f32], grad: &[f32], grad_w: &mut [f32]) {
        let [dim, d_model] = self.shape;
        for (h, grad) in h.chunks_exact(d_model).zip(grad.chunks_exact(dim)) {
            // Tokens that won nothing, most of them, have a gradient of exactly zero.
            if grad.iter().all(|&g| g == 0.0) {
                continue;
            }
            for (g, row) in grad.iter().zip(grad_w.chunks_exact_mut(d_model)) {
                row.iter_mut().zip(h).for_each(|(w, h)| *w += g * h);
            }
        }
    }
}

/// Adam (Kingma & Ba 2015).
pub(crate) struct Adam {
    learning_rate: f32,
    first: Vec<f32>,
    second: Vec<f32>,
    steps: i32,
}

impl Adam {
    pub(crate) fn new(parameters: usize, learning_rate: f32) -> Self {
        Self { learning_rate, first: vec![0.0; parameters], second: vec![0.0; parameters], steps: 0 }
    }

    pub(crate) fn step(&mut self, parameters: &mut [f32], gradient: &[f32]) {
        const DECAY: [f32; 2] = [0.9, 0.999];
        self.steps += 1;
        let [bias_1, bias_2] = DECAY.map(|decay| 1.0 - decay.powi(self.steps));
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((x, g), (m, v)) in parameters.iter_mut().zip(gradient).zip(moments) {
            *m = DECAY[0] * *m + (1.0 - DECAY[0]) * g;
            *v = DECAY[1] * *v + (1.0 - DECAY[1]) * g * g;
            *x -= self.learning_rate * (*m / bias_1) / ((*v / bias_2).sqrt() + 1e-8);
        }
    }
}

/// Log-softmax of `scores / temperature`, in f64.
pub(crate) fn log_softmax(scores: &[f32], temperature: f64) -> Vec<f64> {
    let scaled = || scores.iter().map(|&s| f64::from(s) / temperature);
    let largest = scaled().fold(f64::NEG_INFINITY, f64::max);
    let log_sum = scaled().map(|s| (s - largest).exp()).sum::<f64>().ln() + largest;
    scaled().map(|s| s - log_sum).collect()
}

/// How well queries find their documents.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Found {
    /// Share of queries whose document comes first.
    pub(crate) recall_at_1: f64,
    /// Mean of 1 / rank of the document, 0 beyond rank 100.
    pub(crate) mrr: f64,
}

/// Ranks all documents for every query. `projection`: of both sides; none compares the vectors as they are.
pub(crate) fn find(engine: &Engine, pairs: &Pairs, projection: Option<&Projection>) -> Result<Found> {
    let project = |batch: &Batch| projection.map_or_else(|| batch.clone(), |p| p.project(batch));
    let (queries, documents) = (project(&pairs.queries), project(&pairs.documents));
    // Normalises, which is the default of retrieval.
    let hits = engine.retrieve(queries.tokens()?, documents.tokens()?, RetrieveOptions::top_k(100))?;
    let rank = |i: usize| hits.hits(i).position(|(document, _)| document as usize == i);
    let ranks: Vec<Option<usize>> = (0..pairs.queries.count()).map(rank).collect();
    let count = ranks.len() as f64;
    Ok(Found {
        recall_at_1: ranks.iter().filter(|rank| **rank == Some(0)).count() as f64 / count,
        mrr: ranks.iter().flatten().map(|&rank| 1.0 / (rank + 1) as f64).sum::<f64>() / count,
    })
}

/// A training set, a set kept apart, and where training starts.
pub(crate) struct Task {
    pub(crate) config: Config,
    /// Undisturbed, which is what a teacher sees.
    pub(crate) clean: Pairs,
    /// Disturbed, which is what is learned from.
    pub(crate) train: Pairs,
    /// Disturbed, and never learned from.
    pub(crate) held_out: Pairs,
    pub(crate) start: Projection,
    pub(crate) rng: ChaCha8Rng,
}

impl Task {
    pub(crate) fn new(config: Config, seed: u64) -> Result<Self> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let clean = Pairs::of_wordnet(config.train + config.held_out, seed)?;
        let d_model = clean.queries.dim;
        let disturbed = clean.disturbed(&Disturbance::new(d_model, &mut rng), &mut rng);
        let start = Projection::random(config.dim, d_model, &mut rng);
        let train = disturbed.range(0..config.train);
        let held_out = disturbed.range(config.train..config.train + config.held_out);
        Ok(Self { config, clean, train, held_out, start, rng })
    }

    /// Runs Adam: `step` gives loss and gradient of `W` over the training pairs it is given.
    pub(crate) fn fit(
        &mut self,
        mut step: impl FnMut(&Projection, &[usize]) -> Result<(f64, Vec<f32>)>,
    ) -> Result<Projection> {
        let mut projection = self.start.clone();
        let mut adam = Adam::new(projection.w.len(), self.config.learning_rate);
        let mut order: Vec<usize> = Vec::new();
        for _ in 0..self.config.steps {
            if order.len() < self.config.batch {
                order = (0..self.config.train).collect();
                order.shuffle(&mut self.rng);
            }
            let ids = order.split_off(order.len() - self.config.batch);
            let (_, gradient) = step(&projection, &ids)?;
            adam.step(&mut projection.w, &gradient);
        }
        Ok(projection)
    }
}
