//! Seeded random inputs of every kind.

mod batch;
pub mod forward;

pub use batch::{Arrangement, Batch, Layout, Spec, Values};

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// Embedding dimensions worth testing: one, odd ones, multiples of every vector width and neighbours, the models' own, and
/// beyond every tile.
pub const DIMS: [usize; 13] = [1, 7, 16, 33, 48, 96, 111, 128, 250, 320, 513, 768, 2560];

/// Query lengths worth testing: none, one, around a vector of lanes, around the long-query path.
pub const QUERY_LENGTHS: [usize; 8] = [0, 1, 15, 16, 17, 512, 513, 1024];

/// A reproducible source of numbers: the same on every machine and in every version.
#[derive(Debug, Clone)]
pub struct Random(ChaCha8Rng);

impl Random {
    /// The source of this seed.
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// The source of a name: a test of its own name has inputs of its own.
    pub fn named(name: &str) -> Self {
        // FNV-1a.
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self::new(hash)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `end`, or 0 if that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { self.0.random_range(0..end) }
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.0.random_bool(p)
    }

    /// A standard normal number.
    pub fn normal(&mut self) -> f32 {
        StandardNormal.sample(&mut self.0)
    }

    /// The numbers `0..n` in random order.
    pub fn order(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i + 1));
        }
        order
    }
}
