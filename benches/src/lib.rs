//! What the benchmarks share: random inputs and timing.

use std::time::{Duration, Instant};

/// Reproducible normal deviates; unit vectors of them look like token embeddings to a kernel.
pub struct Random(u64);

impl Random {
    /// A generator; equal seeds give equal values.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Next 32 random bits (xorshift64*).
    pub fn bits(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    /// Uniform in `-1..1`, summed to something bell-shaped.
    pub fn value(&mut self) -> f32 {
        (0..4).map(|_| self.bits() as f32 / 2f32.powi(31) - 1.0).sum::<f32>()
    }

    /// `rows` unit vectors of dimension `dim`.
    pub fn vectors(&mut self, rows: usize, dim: usize) -> Vec<f32> {
        let mut values: Vec<f32> = (0..rows * dim).map(|_| self.value()).collect();
        for row in values.chunks_exact_mut(dim) {
            let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            row.iter_mut().for_each(|x| *x /= norm);
        }
        values
    }
}

/// Shortest of many runs, in seconds: what the code takes when nothing else runs.
pub fn best(seconds: f64, mut call: impl FnMut()) -> f64 {
    call();
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let mut best = f64::INFINITY;
    let mut runs = 0;
    while runs < 5 || Instant::now() < end {
        let start = Instant::now();
        call();
        best = best.min(start.elapsed().as_secs_f64());
        runs += 1;
    }
    best
}

/// Shortest runs of two calls that take turns, so that a machine that changes pace changes it for both.
pub fn best_of_two(seconds: f64, mut a: impl FnMut(), mut b: impl FnMut()) -> (f64, f64) {
    let mut shortest = (f64::INFINITY, f64::INFINITY);
    for _ in 0..8 {
        shortest.0 = shortest.0.min(best(seconds / 16.0, &mut a));
        shortest.1 = shortest.1.min(best(seconds / 16.0, &mut b));
    }
    shortest
}
